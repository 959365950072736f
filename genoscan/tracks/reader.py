"""Track files to scores: what `writer.py` writes, and what others write in the same formats.

pyBigWig reads; it does not write here, for it fills the last record of every zoom block with
nought.
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
"""Bases that are read at a time."""

_HEADER = struct.Struct("<IHHQQQ")
_MAGIC, _ZOOMS = 0x888FFC26, 64
"""How a bigWig begins: magic, version, zoom levels, where sequences, data and index are."""

Stretch = tuple[Region, Float32[np.ndarray, " bases"]]

_MOST = float(np.finfo(np.float32).max)


class BigWig:
    """An open bigWig: `with BigWig(path) as track`; `sizes` are its sequences, in its own order.

    Raises
    ------
    InputError
        If the file is no bigWig, or damaged where it is read.
    """

    def __init__(self, path: Path) -> None:
        check_file(path)
        _check_header(path)
        self._path = path
        try:
            self._file = pyBigWig.open(str(path))
        except RuntimeError:
            raise InputError(f"{path}: cannot be read as bigWig: is it whole, and one?") from None
        self.sizes: dict[str, int] = self._file.chroms()

    def __enter__(self) -> "BigWig":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def scores(self, chrom: str, start: int, end: int) -> Float32[np.ndarray, " bases"]:
        """Return the score of every base, NaN where there is none."""
        try:
            scores: np.ndarray = self._file.values(chrom, start, end, numpy=True)
        except RuntimeError:
            where = f"{chrom}:{start + 1:,}-{end:,}"
            raise InputError(f"{self._path}: is damaged: {where} cannot be read") from None
        return scores

    def pieces(self) -> Iterator[Stretch]:
        """Yield every sequence, `PIECE` bases at a time, front to back."""
        for chrom, length in self.sizes.items():
            for start in range(0, length, PIECE):
                end = min(start + PIECE, length)
                yield Region(chrom, start, end), self.scores(chrom, start, end)


def _check_header(path: Path) -> None:
    """Refuse what pyBigWig would read beyond its end."""
    with read_errors(path), path.open("rb") as file:
        header = file.read(_HEADER.size)
        length = path.stat().st_size
    if len(header) == _HEADER.size:
        magic, _, zooms, *offsets = _HEADER.unpack(header)
        if magic == _MAGIC and max(*offsets, _ZOOMS + 24 * zooms) >= length:
            raise InputError(f"{path}: is cut off after {length:,} bytes")
        if magic == _MAGIC:
            return
    raise InputError(f"{path}: is no bigWig")


def read_track(path: str | Path, region: str | Region) -> Float32[np.ndarray, " bases"]:
    """Return the score of every base of a region.

    Parameters
    ----------
    path
        A bigWig or bedGraph, plain or gzip.
    region
        "chr1:1,001-2,000" (1-based, inclusive), or a `Region`. Of a bedGraph, which does not state
        how long its sequences are, with an end.

    Returns
    -------
    array of shape (length,)
        NaN where there is no score.

    Raises
    ------
    InputError
        If the file cannot be read, or has no such sequence.
    """
    path = Path(path)
    if is_bigwig(path):
        with BigWig(path) as track:
            place = _in_track(region, track.sizes)
            return track.scores(place.chrom, place.start, place.end)
    # A bedGraph does not state lengths.
    longest = dict.fromkeys(sequences(path), 1 << 40)
    region = _in_track(region, longest)
    scores = np.full(len(region), np.nan, np.float32)
    for stretch, values in read_bedgraph(path, longest):
        start, end = max(stretch.start, region.start), min(stretch.end, region.end)
        if stretch.chrom == region.chrom and start < end:
            part = values[start - stretch.start : end - stretch.start]
            scores[start - region.start : end - region.start] = part
    return scores


def _in_track(region: str | Region, sizes: Mapping[str, int]) -> Region:
    if isinstance(region, str):
        return parse_region(region, sizes, option="region")
    return check_bounds(region, sizes, clip=False)


def is_bigwig(path: Path) -> bool:
    """Tell from its name whether a track is a bigWig; otherwise it has to be a bedGraph.

    Raises
    ------
    InputError
        If it is neither.
    """
    name = path.name.lower()
    if not name.endswith((*BIGWIG, *BEDGRAPH)):
        known = ", ".join((*BIGWIG, *BEDGRAPH))
        raise InputError(f"{path}: is of no known format, expected {known}")
    return name.endswith(BIGWIG)


def read_bedgraph(path: Path, sizes: Mapping[str, int]) -> Iterator[Stretch]:
    """Yield rows that follow one another as one stretch, of at most `PIECE` bases.

    Raises
    ------
    InputError
        If the file cannot be read, or a row is malformed or does not fit these sequences.
    """
    check_file(path)
    with open_text(path) as lines:
        chrom, start, end, source = "", 0, 0, ""
        scores: list[float] = []
        lengths: list[int] = []

        def stretch() -> Stretch:
            values = np.repeat(np.array(scores, np.float32), lengths)
            return Region(chrom, start, end, source=source), values

        for number, columns in _rows(lines):
            row, score = _row(columns, f"{path}:{number}", sizes)
            for first in range(row.start, row.end, PIECE):
                last = min(first + PIECE, row.end)
                if (row.chrom, first) != (chrom, end) or last - start > PIECE:
                    if lengths:
                        yield stretch()
                    chrom, start, source = row.chrom, first, row.source
                    scores, lengths = [], []
                end = last
                scores.append(score)
                lengths.append(last - first)
        if lengths:
            yield stretch()


def sequences(path: Path) -> list[str]:
    """Return the sequences of a bedGraph, in the order of its rows."""
    check_file(path)
    with open_text(path) as lines:
        return list(dict.fromkeys(columns[0] for _, columns in _rows(lines)))


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the columns of every line that is one of scores."""
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if columns and not line.startswith("#") and columns[0] not in ("track", "browser"):
            yield number, columns


def _row(columns: list[str], where: str, sizes: Mapping[str, int]) -> tuple[Region, float]:
    if len(columns) != 4:
        raise InputError(
            f"{where}: found {len(columns)} columns, expected chromosome, start, end and score"
        )
    chrom, *ends, text = columns
    try:
        start, end = map(int, ends)
        score = float(text)
    except ValueError:
        raise InputError(
            f"{where}: found {' '.join(columns[1:])}, expected start, end and score"
        ) from None
    if not abs(score) <= _MOST:
        raise InputError(f"{where}: the score is {text}, expected a float32; a gap has no row")
    if not 0 <= start < end:
        raise InputError(f"{where}: found {start} to {end}, expected an end after the start")
    if end > sizes.get(chrom, 0):
        found = f"has {sizes[chrom]:,} bases" if chrom in sizes else "is not in the genome"
        raise InputError(f"{where}: ends at {end:,}, {chrom} {found}")
    return Region(chrom, start, end, source=where), score
