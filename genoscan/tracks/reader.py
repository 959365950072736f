"""Readers for bigWig and bedGraph files, including those written by other tools.

pyBigWig is used only for reading, because its writer fills the last record of each zoom block with
zeros.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import pyBigWig
from jaxtyping import Float32

from genoscan.errors import InputError
from genoscan.genome.files import check_file, open_text, read_errors
from genoscan.genome.region import Region, check_bounds, parse_region
from genoscan.tracks.writer import BEDGRAPH, BIGWIG

PIECE = 1 << 20
"""Number of bases read at a time."""

_HEADER = struct.Struct("<IHHQQQ")
_MAGIC, _ZOOMS = 0x888FFC26, 64
"""Magic number, and offset of the zoom headers in bytes.

The fields of `_HEADER` are the magic number, the version, the number of zoom levels, and the offsets
of the B+ tree, the data and the R-tree.
"""

ScoredRegion = tuple[Region, Float32[np.ndarray, " bases"]]

_FLOAT32_MAX = float(np.finfo(np.float32).max)


class BigWig:
    """Reader for a bigWig file, used as a context manager: `with BigWig(path) as track`.

    Parameters
    ----------
    path
        bigWig file.

    Attributes
    ----------
    sizes
        Sequence lengths in bases, in the order of the file.

    Raises
    ------
    InputError
        If the file is not a bigWig, or is truncated.
    """

    def __init__(self, path: Path) -> None:
        check_file(path)
        _check_header(path)
        self._path = path
        try:
            self._file = pyBigWig.open(str(path))
        except RuntimeError:
            raise InputError(f"{path}: not a bigWig, or damaged: write it again") from None
        self.sizes: dict[str, int] = self._file.chroms()

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
            Interval in bases, 0-based, half-open.

        Returns
        -------
        array of shape (end - start,), float32
            Scores; NaN at bases without a score.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        try:
            scores: np.ndarray = self._file.values(chrom, start, end, numpy=True)
        except RuntimeError:
            where = f"{chrom}:{start + 1:,}-{end:,}"
            raise InputError(f"{self._path}: damaged: {where} cannot be read") from None
        return scores

    def pieces(self) -> Iterator[ScoredRegion]:
        """Iterate over all sequences, `PIECE` bases at a time.

        Yields
        ------
        Region, array
            Consecutive regions and their scores; NaN at bases without a score.
        """
        for chrom, length in self.sizes.items():
            for start in range(0, length, PIECE):
                end = min(start + PIECE, length)
                yield Region(chrom, start, end), self.scores(chrom, start, end)


def _check_header(path: Path) -> None:
    """Raise if a file is truncated, because pyBigWig would read past its end, or is not a bigWig."""
    with read_errors(path), path.open("rb") as file:
        header = file.read(_HEADER.size)
        length = path.stat().st_size
    if len(header) == _HEADER.size:
        magic, _, zooms, *offsets = _HEADER.unpack(header)
        if magic == _MAGIC and max(*offsets, _ZOOMS + 24 * zooms) >= length:
            raise InputError(f"{path}: truncated after {length:,} bytes")
        if magic == _MAGIC:
            return
    raise InputError(f"{path}: not a bigWig")


def read_track(path: str | Path, region: str | Region) -> Float32[np.ndarray, " bases"]:
    """Return the score of every base of a region.

    Parameters
    ----------
    path
        bigWig or bedGraph file; a bedGraph file may be gzip-compressed.
    region
        A string such as "chr1:1,001-2,000" (1-based, inclusive), or a `Region`. The end is required
        for a bedGraph, which does not contain sequence lengths.

    Returns
    -------
    array of shape (length,), float32
        Scores; NaN at bases without a score.

    Raises
    ------
    InputError
        If the file cannot be read, or the region is not within one of its sequences.
    """
    path = Path(path)
    if is_bigwig(path):
        with BigWig(path) as track:
            region = _resolve(region, track.sizes)
            return track.scores(region.chrom, region.start, region.end)
    # A bedGraph does not contain sequence lengths, so assume a length above that of any sequence.
    sizes = dict.fromkeys(sequence_names(path), 1 << 40)
    region = _resolve(region, sizes)
    scores = np.full(len(region), np.nan, np.float32)
    for run, values in read_bedgraph(path, sizes):
        start, end = max(run.start, region.start), min(run.end, region.end)
        if run.chrom == region.chrom and start < end:
            part = values[start - run.start : end - run.start]
            scores[start - region.start : end - region.start] = part
    return scores


def _resolve(region: str | Region, sizes: Mapping[str, int]) -> Region:
    if isinstance(region, str):
        return parse_region(region, sizes, option="region")
    return check_bounds(region, sizes, clip=False)


def is_bigwig(path: Path) -> bool:
    """Return whether a file name has the suffix of a bigWig file.

    Parameters
    ----------
    path
        Track file.

    Returns
    -------
    bool
        True for bigWig, False for bedGraph.

    Raises
    ------
    InputError
        If the suffix belongs to neither format.
    """
    name = path.name.lower()
    if not name.endswith((*BIGWIG, *BEDGRAPH)):
        known = ", ".join((*BIGWIG, *BEDGRAPH))
        raise InputError(f"{path}: unknown suffix, expected one of {known}")
    return name.endswith(BIGWIG)


def read_bedgraph(path: Path, sizes: Mapping[str, int]) -> Iterator[ScoredRegion]:
    """Iterate over the scores of a bedGraph, with adjacent rows joined.

    Parameters
    ----------
    path
        bedGraph file, plain or gzip-compressed.
    sizes
        Sequence lengths in bases.

    Yields
    ------
    Region, array
        Regions of at most `PIECE` bases, in the order of the file, and their scores, float32.

    Raises
    ------
    InputError
        If the file cannot be read, or a row is malformed or not within the given sequences.
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
    """Return the names of the sequences in a bedGraph.

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


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and columns of each data line."""
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if columns and not line.startswith("#") and columns[0] not in ("track", "browser"):
            yield number, columns


def _row(columns: list[str], where: str, sizes: Mapping[str, int]) -> tuple[Region, float]:
    if len(columns) != 4:
        raise InputError(f"{where}: found {len(columns)} columns, expected chromosome, start, end and score")
    chrom, *ends, text = columns
    try:
        start, end = map(int, ends)
        score = float(text)
    except ValueError:
        raise InputError(f"{where}: found {' '.join(columns[1:])}, expected start, end and score") from None
    if not abs(score) <= _FLOAT32_MAX:
        raise InputError(f"{where}: the score is {text}, expected a finite float32; omit gaps")
    if not 0 <= start < end:
        raise InputError(f"{where}: found {start} to {end}, expected 0 <= start < end")
    if end > sizes.get(chrom, 0):
        found = f"has {sizes[chrom]:,} bases" if chrom in sizes else "is not in the genome"
        raise InputError(f"{where}: ends at {end:,}, {chrom} {found}")
    return Region(chrom, start, end, source=where), score
