"""Readers for the scores in bigWig and bedGraph files, including files written by other tools."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float32

from genoscan.errors import InputError
from genoscan.genome.files import check_file, open_text, read_errors
from genoscan.genome.region import Region
from genoscan.tracks.bigwig_layout import BigWigLayout, Block, Items
from genoscan.tracks.writer import BEDGRAPH, BIGWIG

PIECE = 1 << 20
"""Number of bases that are read at a time."""

ScoredRegion = tuple[Region, Float32[np.ndarray, " bases"]]

_POSITION = re.compile(r"\d{1,18}", re.ASCII)
# Of numbers as C writes them; Python reads more, such as 1_0.
_SCORE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?|[+-]?(inf(inity)?|nan)", re.ASCII | re.IGNORECASE)
_FLOAT32_MAX = float(np.finfo(np.float32).max)

UNKNOWN_LENGTH = 1 << 40
"""Length that is assumed for the sequences of a bedGraph, above that of any sequence."""


class BigWig:
    """Reader for a bigWig file, to be used as a context manager: `with BigWig(path) as track`.

    Parameters
    ----------
    path
        bigWig file.

    Attributes
    ----------
    path
        Path of the file.
    sizes
        Sequence lengths in bases, in the order of the file.
    states_lengths
        True: `sizes` are the lengths of the sequences.

    Raises
    ------
    InputError
        If the file is not a bigWig file, or is truncated or damaged.
    """

    states_lengths = True

    def __init__(self, path: Path) -> None:
        check_file(path)
        self.path = path
        with ExitStack() as files, read_errors(path):
            file = files.enter_context(path.open("rb"))
            self._layout = BigWigLayout(path, file.fileno())
            self._file = files.pop_all()
        self.sizes: dict[str, int] = self._layout.sizes
        blocks = self._layout.blocks
        self._starts, self._ends = np.ascontiguousarray(blocks["start"]), np.ascontiguousarray(blocks["end"])
        edges = np.searchsorted(blocks["chrom"], np.arange(len(self.sizes) + 1)).tolist()
        self._blocks_of = dict(zip(self.sizes, map(slice, edges, edges[1:]), strict=True))

    def __enter__(self) -> "BigWig":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def scores(self, chrom: str, start: int, end: int) -> Float32[np.ndarray, " bases"]:
        """Return the scores of an interval.

        Parameters
        ----------
        chrom
            Sequence name.
        start, end
            Bounds of the interval, 0-based and half-open.

        Returns
        -------
        array of shape (end - start,), float32
            Score of each base; NaN at bases without a score.

        Raises
        ------
        InputError
            If the file is damaged, or the interval is not within a sequence of the file.
        """
        if not 0 <= start <= end <= self.sizes.get(chrom, -1):
            where = f"{chrom}:{start + 1:,}-{end:,}"
            raise InputError(f"{self.path}: {where} is not within a sequence of the file")
        scores = np.full(end - start, np.nan, np.float32)
        self.fill(scores, chrom, start)
        return scores

    def finite_scores(self, chrom: str, start: int, end: int) -> Float32[np.ndarray, " bases"]:
        """Return the scores of an interval, as `scores` does.

        Raises
        ------
        InputError
            Also if a score is infinite, as in files of other programs.
        """
        scores = self.scores(chrom, start, end)
        check_finite(self.path, scores, chrom, start)
        return scores

    def fill(self, scores: Float32[np.ndarray, " bases"], chrom: str, start: int) -> bool:
        """Write the scores of an interval into an array.

        Elements at bases without a score are not changed.

        Parameters
        ----------
        scores
            Array to fill. Its length determines the length of the interval, which must lie within the
            sequence.
        chrom
            Name of a sequence in the file.
        start
            Start of the interval, 0-based.

        Returns
        -------
        bool
            False if no data block overlaps the interval; the array is then unchanged.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        here = self._blocks_of[chrom]
        first, last = here.start, here.stop
        if len(scores) < self.sizes[chrom]:
            # Blocks are disjoint, so that their ends are sorted too.
            first += int(self._ends[here].searchsorted(np.uint32(start), "right"))
            last = here.start + int(self._starts[here].searchsorted(np.uint32(start + len(scores)), "left"))
        if first >= last:
            return False
        with read_errors(self.path):
            for block in self._layout.blocks[first:last].tolist():
                fill_items(scores, start, self._layout.items(Block(*block)))
        return True

    def pieces(self) -> Iterator[ScoredRegion]:
        """Iterate over all sequences, `PIECE` bases at a time, and skip pieces that contain no data block.

        Yields
        ------
        Region, array
            Each region, in the order of the file, and its scores as float32; NaN at bases without a score.
        """
        for chrom, length in self.sizes.items():
            for start in range(0, length, PIECE):
                end = min(start + PIECE, length)
                scores = np.full(end - start, np.nan, np.float32)
                if self.fill(scores, chrom, start):
                    yield Region(chrom, start, end), scores


def check_finite(path: Path, scores: Float32[np.ndarray, " bases"], chrom: str, start: int) -> None:
    """Check that no score of an interval is infinite.

    Parameters
    ----------
    path
        Track file, for the error message.
    scores
        Scores; NaN at bases without a score.
    chrom
        Sequence name.
    start
        Position of the first base.

    Raises
    ------
    InputError
        If a score is infinite, as in files of other programs.
    """
    infinite = np.isinf(scores)
    if infinite.any():
        at = start + int(infinite.argmax()) + 1
        raise InputError(f"{path}: the value at {chrom}:{at:,} is infinite, expected finite values")


def fill_items(scores: Float32[np.ndarray, " bases"], start: int, items: Items) -> None:
    """Copy the scores of intervals to an array, leaving all other elements unchanged.

    Parameters
    ----------
    scores
        Array whose first element is the score at position `start`.
    start
        0-based position.
    items
        Intervals, which may extend past the array on both sides.
    """
    starts, ends, values = items.starts - start, items.ends - start, items.values
    if not len(starts) or starts[0] < 0 or ends[-1] > len(scores):
        starts, ends = np.maximum(starts, 0), np.minimum(ends, len(scores))
        inside = starts < ends
        starts, ends, values = starts[inside], ends[inside], values[inside]
        if not len(starts):
            return
    lengths = ends - starts
    first, last, total = int(starts[0]), int(ends[-1]), int(lengths.sum())
    if total > len(values):
        values = np.repeat(values, lengths)
    if last - first == total:
        scores[first:last] = values
    else:
        positions = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(total)
        scores[positions] = values


def is_bigwig(path: Path, *, others: Sequence[str] = ()) -> bool:
    """Return whether a file name has the suffix of a bigWig file.

    Parameters
    ----------
    path
        Track file.
    others
        Suffixes of further formats that the command reads, for the error message.

    Returns
    -------
    bool
        True for a bigWig file, and False for a bedGraph file.

    Raises
    ------
    InputError
        If the suffix belongs to neither format.
    """
    name = path.name.lower()
    if not name.endswith((*BIGWIG, *BEDGRAPH)):
        known = ", ".join((*BIGWIG, *BEDGRAPH, *others))
        raise InputError(f"{path}: unknown suffix, expected one of {known}")
    return name.endswith(BIGWIG)


def read_bedgraph(path: Path, sizes: Mapping[str, int]) -> Iterator[ScoredRegion]:
    """Iterate over the scores in a bedGraph file, joining adjacent rows.

    Parameters
    ----------
    path
        bedGraph file, plain or gzip-compressed.
    sizes
        Sequence lengths in bases.

    Yields
    ------
    Region, array
        Each region, in the order of the file, and its scores as float32. A region has at most `PIECE`
        bases.

    Raises
    ------
    InputError
        If the file cannot be read, or if a row is malformed or is not within the given sequences.
    """
    check_file(path)
    with open_text(path) as lines:
        chrom, start, end, source = "", 0, 0, ""
        scores: list[float] = []
        lengths: list[int] = []

        def joined() -> ScoredRegion:
            values = np.repeat(np.array(scores, np.float32), lengths)
            return Region(chrom, start, end, source=source), values

        for number, columns in _rows(lines):
            row, score = _row(columns, f"{path}:{number}", sizes)
            for first in range(row.start, row.end, PIECE):
                last = min(first + PIECE, row.end)
                if (row.chrom, first) != (chrom, end) or last - start > PIECE:
                    if lengths:
                        yield joined()
                    chrom, start, source = row.chrom, first, row.source
                    scores, lengths = [], []
                end = last
                scores.append(score)
                lengths.append(last - first)
        if lengths:
            yield joined()


def sequence_names(path: Path) -> list[str]:
    """Return the names of the sequences in a bedGraph file.

    Parameters
    ----------
    path
        bedGraph file, plain or gzip-compressed.

    Returns
    -------
    list of str
        Names, in order of first appearance.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    check_file(path)
    with open_text(path) as lines:
        return list(dict.fromkeys(columns[0] for _, columns in _rows(lines)))


def bedgraph_rows(path: Path) -> Iterator[tuple[str, int, int, float]]:
    """Iterate over the rows of a bedGraph file, whatever the lengths of its sequences.

    Parameters
    ----------
    path
        bedGraph file, plain or gzip-compressed.

    Yields
    ------
    str, int, int, float
        Sequence name, start, end (0-based, half-open) and score of each row.

    Raises
    ------
    InputError
        If the file cannot be read, or a row is malformed.
    """
    check_file(path)
    with open_text(path) as lines:
        for number, columns in _rows(lines):
            chrom, start, end, score = _parse(columns, f"{path}:{number}")
            if end > UNKNOWN_LENGTH:
                raise InputError(f"{path}:{number}: ends at {end:,}, longer than any sequence")
            yield chrom, start, end, score


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the columns of each line that contains data."""
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if columns and not line.startswith("#") and columns[0] not in ("track", "browser"):
            # The name of a sequence may contain blanks if columns are separated by tabs.
            yield number, [text.strip() for text in line.split("\t")] if line.count("\t") == 3 else columns


def _row(columns: list[str], where: str, sizes: Mapping[str, int]) -> tuple[Region, float]:
    chrom, start, end, score = _parse(columns, where)
    if end > sizes.get(chrom, 0):
        found = f"has {sizes[chrom]:,} bases" if chrom in sizes else "is not in the genome"
        raise InputError(f"{where}: ends at {end:,}, {chrom} {found}")
    return Region(chrom, start, end, source=where), score


def _parse(columns: list[str], where: str) -> tuple[str, int, int, float]:
    if len(columns) != 4:
        raise InputError(f"{where}: found {len(columns)} columns, expected chromosome, start, end and score")
    chrom, *ends, text = columns
    if not (all(map(_POSITION.fullmatch, ends)) and _SCORE.fullmatch(text)):
        raise InputError(f"{where}: found {' '.join(columns[1:])}, expected start, end and score")
    start, end, score = int(ends[0]), int(ends[1]), float(text)
    if not abs(score) <= _FLOAT32_MAX:
        raise InputError(f"{where}: the score is {text}, expected a finite float32; omit gaps")
    if not 0 <= start < end:
        raise InputError(f"{where}: found {start} to {end}, expected 0 <= start < end")
    return chrom, start, end, score
