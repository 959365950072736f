"""Random access to the scores of a track, whatever its format: bigWig, bedGraph, or an archive of gradients."""

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from genoscan.errors import InputError
from genoscan.genome.files import check_file
from genoscan.genome.region import Region, check_bounds, parse_region
from genoscan.tracks.bigwig_layout import Items
from genoscan.tracks.columns import read_columns
from genoscan.tracks.provenance import read_provenance
from genoscan.tracks.reader import UNKNOWN_LENGTH, BigWig, bedgraph_rows, check_finite, fill_items, is_bigwig
from genoscan.tracks.score import SCORES
from genoscan.tracks.writer import split_suffix

_ARCHIVE = ".npz"


@runtime_checkable
class TrackReader(Protocol):
    """Protocol for a track that is open for reading.

    Attributes
    ----------
    path
        Path of the file.
    sizes
        Sequence lengths in bases, in the order of the file. For a bedGraph, which does not contain them, the
        end of the last row of each sequence.
    states_lengths
        Whether `sizes` are the lengths of the sequences.
    """

    path: Path
    sizes: dict[str, int]
    states_lengths: bool

    def fill(self, scores: Float32[np.ndarray, " bases"], chrom: str, start: int) -> bool:
        """Write the scores of an interval into an array, leaving elements at bases without a score unchanged.

        Parameters
        ----------
        scores
            Array to fill. Its length determines the length of the interval.
        chrom
            Name of a sequence in `sizes`.
        start
            Start of the interval, 0-based.

        Returns
        -------
        bool
            False if no row, block or region of the file overlaps the interval; the array is then unchanged.
        """


class BedGraph:
    """Scores of a bedGraph file in memory.

    Parameters
    ----------
    path
        bedGraph file, plain or gzip-compressed. Its rows may be in any order.

    Raises
    ------
    InputError
        If the file cannot be read, a row is malformed, or two rows overlap.

    Notes
    -----
    Memory: 20 bytes per row.
    """

    states_lengths = False

    def __init__(self, path: Path) -> None:
        self.path = path
        columns: dict[str, tuple[array[int], array[int], array[float]]] = defaultdict(
            lambda: (array("q"), array("q"), array("f"))
        )
        for chrom, start, end, score in bedgraph_rows(path):
            starts, ends, scores = columns[chrom]
            starts.append(start)
            ends.append(end)
            scores.append(score)
        self._items = {chrom: _sorted_items(path, chrom, *map(np.asarray, found)) for chrom, found in columns.items()}
        self.sizes = {chrom: int(items.ends[-1]) for chrom, items in self._items.items()}

    def fill(self, scores: Float32[np.ndarray, " bases"], chrom: str, start: int) -> bool:
        """Write the scores of an interval into an array; see `TrackReader.fill`."""
        items = self._items[chrom]
        rows = slice(items.ends.searchsorted(start, "right"), items.starts.searchsorted(start + len(scores), "left"))
        if rows.start >= rows.stop:
            return False
        fill_items(scores, start, Items(*(column[rows] for column in items)))
        return True


def _sorted_items(path: Path, chrom: str, starts: np.ndarray, ends: np.ndarray, values: np.ndarray) -> Items:
    order = np.argsort(starts, kind="stable")
    items = Items(starts[order], ends[order], values[order])
    overlap = np.flatnonzero(items.starts[1:] < items.ends[:-1])
    if len(overlap):
        raise InputError(
            f"{path}: two rows contain {chrom}:{items.starts[overlap[0] + 1] + 1:,}, expected one score per base"
        )
    return items


class ColumnScores:
    """Scores of an archive of gradients, computed by the formula that its record states.

    Parameters
    ----------
    path
        Archive (.npz) with its provenance record beside it.

    Raises
    ------
    InputError
        If the archive or its record cannot be read.
    """

    states_lengths = True

    def __init__(self, path: Path) -> None:
        self.path = path
        check_file(path)  # before its record, whose absence would be reported instead
        record = read_provenance(path, required=["score", "sequences"])
        self._score = SCORES[record["score"]]
        self._columns = read_columns(path)
        self.sizes = {sequence["name"]: sequence["length"] for sequence in record["sequences"]}
        self._regions: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        offset = 0
        for region in self._columns.regions:
            if region.end > self.sizes.get(region.chrom, 0):
                raise InputError(f"{path}: {region} is not within a sequence of its record: write both again")
            self._regions[region.chrom].append((region.start, region.end, offset))
            offset += len(region)
        for regions in self._regions.values():
            regions.sort()

    def fill(self, scores: Float32[np.ndarray, " bases"], chrom: str, start: int) -> bool:
        """Write the scores of an interval into an array; see `TrackReader.fill`."""
        here, end = self._regions[chrom], start + len(scores)
        found = False
        for i in range(bisect_right(here, start, key=lambda region: region[1]), len(here)):
            first, last, offset = here[i]
            if first >= end:
                break
            low, high = max(first, start), min(last, end)
            rows = slice(offset + low - first, offset + high - first)
            computed = self._score(self._columns.gradient[rows], self._columns.codes[rows])
            known = ~np.isnan(computed)
            scores[low - start : high - start][known] = computed[known]
            found = True
        return found


@contextmanager
def open_scores(path: Path) -> Iterator[TrackReader]:
    """Context manager that opens a track for reading.

    Parameters
    ----------
    path
        bigWig file, bedGraph file (plain, gzip or bgzip) or archive of gradients (.npz); the suffix of the name
        determines the format.

    Yields
    ------
    TrackReader
        Open track.

    Raises
    ------
    InputError
        If the suffix is unknown, or the file cannot be read.
    """
    if _is_archive(path):
        yield ColumnScores(path)
    elif is_bigwig(path):
        with BigWig(path) as track:
            yield track
    else:
        yield BedGraph(path)


def _is_archive(path: Path) -> bool:
    """Return whether a file is an archive, by its suffix; raise InputError if the suffix is that of no format."""
    if path.suffix.lower() == _ARCHIVE:
        return True
    is_bigwig(path, others=[_ARCHIVE])
    return False


def fill_scores(track: TrackReader, scores: Float32[np.ndarray, " bases"], chrom: str, start: int) -> bool:
    """Write the scores of an interval, which may be outside the sequences of a track, into an array.

    Parameters
    ----------
    track
        Open track.
    scores
        Array to fill. Its length determines the length of the interval.
    chrom
        Sequence name.
    start
        Start of the interval, 0-based; it may be negative.

    Returns
    -------
    bool
        False if the track has no data there; the array is then unchanged.

    Raises
    ------
    InputError
        If the file is damaged, or a score is infinite.
    """
    first, last = max(start, 0), min(start + len(scores), track.sizes.get(chrom, 0))
    if first >= last or not track.fill(scores[first - start : last - start], chrom, first):
        return False
    check_finite(track.path, scores, chrom, start)
    return True


def read_scores(track: TrackReader, chrom: str, start: int, end: int) -> Float32[np.ndarray, " bases"]:
    """Return the scores of an interval, which may extend past its sequence or be on an unknown one.

    Parameters
    ----------
    track
        Open track.
    chrom
        Sequence name.
    start, end
        Bounds of the interval, 0-based and half-open; `start` may be negative.

    Returns
    -------
    array of shape (end - start,), float32
        Score of each base; NaN at bases without a score.

    Raises
    ------
    InputError
        If the file is damaged, or a score is infinite.
    """
    scores = np.full(end - start, np.nan, np.float32)
    fill_scores(track, scores, chrom, start)
    return scores


def read_track(path: str | Path, region: str | Region) -> Float32[np.ndarray, " bases"]:
    """Return the score of every base in a region.

    Parameters
    ----------
    path
        bigWig or bedGraph file, or archive of gradients (.npz); a bedGraph file may be gzip-compressed.
    region
        A string such as "chr1:1,001-2,000" (1-based, inclusive), or a `Region`. For a bedGraph file, the
        string must contain an end position, because the file does not contain sequence lengths.

    Returns
    -------
    array of shape (bases,), float32
        Score of each base; NaN at bases without a score.

    Raises
    ------
    InputError
        If the file cannot be read, or the region is not within a sequence of the file.
    """
    with open_scores(Path(path)) as track:
        sizes = track.sizes if track.states_lengths else dict.fromkeys(track.sizes, UNKNOWN_LENGTH)
        if isinstance(region, str):
            region = parse_region(region, sizes, option="region")
        else:
            region = check_bounds(region, sizes, clip=False)
        return read_scores(track, region.chrom, region.start, region.end)


def track_labels(paths: Sequence[Path]) -> list[str]:
    """Return a short, different label for each track.

    Parameters
    ----------
    paths
        Track files.

    Returns
    -------
    list of str
        Names without suffix if they differ, otherwise names, otherwise names with as many folders as are
        needed. Bytes that are not valid UTF-8, and control characters, are replaced with U+FFFD.

    Raises
    ------
    InputError
        If a path is given twice.
    """
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise InputError(f"{path}: is given twice: give each track once")
    labels = [path.stem if _is_archive(path) else split_suffix(path)[0] for path in paths]
    parts = 1
    while len(set(labels)) < len(paths):
        labels = [str(Path(*path.parts[-parts:])) for path in paths]
        parts += 1
    return [_printable(label) for label in labels]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
