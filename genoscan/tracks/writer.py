"""Writing of track files in the format that corresponds to the file suffix.

Files are replaced atomically. Each format is implemented by a class with the methods `append`, `finish` and
`close`. `_FORMATS` maps each suffix to a function that opens a file in the corresponding format.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from genoscan.errors import InputError
from genoscan.genome.region import Region
from genoscan.tracks.atomic import AtomicFiles, atomic_files, check_regular, check_writable, joined, os_errors
from genoscan.tracks.bedgraph import INDEX_SUFFIXES, BedGraphWriter, index_suffix
from genoscan.tracks.bigwig import BigWigWriter
from genoscan.tracks.memory_map import release_pages
from genoscan.tracks.provenance import provenance_path

BIGWIG = ".bw", ".bigwig"
_PLAIN = ".bedgraph", ".bg", ".bdg"
_INDEXED = ".bedgraph.gz", ".bg.gz", ".bdg.gz"
BEDGRAPH = _PLAIN + _INDEXED
"""Suffixes of bedGraph files, in lower case."""

_PIECE = 1 << 20


@runtime_checkable
class TrackWriter(Protocol):
    """Protocol for a track that is open for writing."""

    def write(self, region: Region, scores: Float32[np.ndarray, " bases"]) -> None:
        """Write the scores of a region.

        Parameters
        ----------
        region
            Region that follows all previously written regions in genome order and does not overlap them.
        scores
            One float32 score per base. Bases with the value NaN are omitted from the file.

        Raises
        ------
        InputError
            If the region is not in genome order, overlaps a previous region or is outside the genome, if
            the number of scores differs from the length of the region, or if a score is infinite.
        OutputError
            If a file cannot be written.
        """


def write_in_pieces(track: TrackWriter, region: Region, scores: Float32[np.ndarray, " bases"]) -> None:
    """Write the memory-mapped scores of a region, 2^20 bases at a time.

    Parameters
    ----------
    track
        Open track.
    region
        Region that follows all previously written regions in genome order and does not overlap them.
    scores
        One float32 score per base. Bases with the value NaN are omitted from the file.
    """
    for start in range(0, len(region), _PIECE):
        piece = np.asarray(scores[start : start + _PIECE])
        first = region.start + start
        track.write(Region(region.chrom, first, first + len(piece)), piece)
        if len(piece) == _PIECE:
            release_pages(scores)


@runtime_checkable
class _Format(Protocol):
    """Protocol for the writer of one file format, which receives validated scores in genome order."""

    def append(self, chrom: str, start: int, scores: Float32[np.ndarray, " bases"]) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


@contextmanager
def open_track(path: Path, sizes: Mapping[str, int]) -> Iterator[TrackWriter]:
    """Context manager that opens a track file for writing, without a provenance record.

    Parameters
    ----------
    path
        File to write. When the `with` block ends without an exception, an existing file at this path is
        replaced, and its provenance record is removed.
    sizes
        Sequence lengths in bases, in genome order.

    Yields
    ------
    TrackWriter
        Open track.

    Raises
    ------
    InputError
        If the suffix is unknown, or there are no sequences.
    OutputError
        If the file cannot be written.
    """
    with atomic_files() as files, open_tracks([path], sizes, files) as track:
        files.remove(provenance_path(path))
        yield track


@contextmanager
def open_tracks(
    paths: Sequence[Path], sizes: Mapping[str, int], files: AtomicFiles | None = None, *, zoom_levels: bool = True
) -> Iterator[TrackWriter]:
    """Context manager that opens several track files and writes the same scores to each of them.

    Parameters
    ----------
    paths
        Files to write. If the `with` block ends without an exception, all existing files are replaced;
        otherwise, none is replaced.
    sizes
        Sequence lengths in bases, in genome order.
    files
        Transaction in which the files are written. Existing files are replaced when the transaction ends
        or, if `files` is None, at the end of the `with` block.
    zoom_levels
        Whether bigWig files have zoom levels.

    Yields
    ------
    TrackWriter
        Track that writes its scores to all files.

    Raises
    ------
    InputError
        If a suffix is unknown, a path is given twice, or there are no sequences.
    OutputError
        If a file cannot be written.

    Notes
    -----
    Memory: a few tens of megabytes per track, regardless of the sequence lengths.
    """
    for path in paths:
        if _suffix(path) not in _FORMATS:
            raise _unknown_suffix(path, _FORMATS)
    if not sizes:
        raise InputError(f"{paths[0]}: the genome has no sequences, expected at least one")
    without_zoom = dict.fromkeys(BIGWIG, partial(_open_bigwig, zoom_levels=False))
    openers = _FORMATS if zoom_levels else _FORMATS | without_zoom
    with joined(files) as together, ExitStack() as stack:
        formats = [(path, openers[_suffix(path)](path, sizes, together, stack)) for path in paths]
        track = _Track(formats, sizes)
        yield track
        track.finish()


def check_output(path: Path) -> None:
    """Check, before a computation starts, that its output can be written.

    Parameters
    ----------
    path
        Output file: a track or an archive (.npz).

    Raises
    ------
    InputError
        If the suffix is unknown.
    OutputError
        If the folder does not exist or cannot be written to, or if `check_regular` rejects the path of the
        file, of its provenance record or of its index.
    """
    if path.suffix != ".npz" and _suffix(path) not in _FORMATS:
        raise _unknown_suffix(path, [*_FORMATS, ".npz"])
    check_writable(path)
    for beside in (provenance_path(path), *index_paths(path)):
        check_regular(beside)


class _Track:
    """Track that validates scores once, and then writes them to files in one or more formats."""

    def __init__(self, formats: Sequence[tuple[Path, _Format]], sizes: Mapping[str, int]) -> None:
        self._formats = formats
        self._sizes = sizes
        self._ranks = {chrom: rank for rank, chrom in enumerate(sizes)}
        self._last: Region | None = None

    def write(self, region: Region, scores: Float32[np.ndarray, " bases"]) -> None:
        self._check(region, scores)
        for path, writer in self._formats:
            with os_errors(path):
                writer.append(region.chrom, region.start, scores)
        self._last = region

    def finish(self) -> None:
        for path, writer in self._formats:
            with os_errors(path):
                writer.finish()

    def _check(self, region: Region, scores: Float32[np.ndarray, " bases"]) -> None:
        if region.chrom not in self._sizes:
            raise InputError(f'{region.where}: the track has no sequence "{region.chrom}"')
        if region.end > self._sizes[region.chrom]:
            raise InputError(
                f"{region.where}: ends at {region.end:,}, {region.chrom} has {self._sizes[region.chrom]:,} bases"
            )
        if len(scores) != len(region):
            raise InputError(f"{region.where}: found {len(scores):,} scores, expected {len(region):,}")
        if self._last is not None:
            last, rank = self._last, self._ranks[region.chrom]
            if (rank, region.end) <= (self._ranks[last.chrom], last.start):
                raise InputError(f"{region.where}: comes after {last.where}, expected genome order: sort the regions")
            if (rank, region.start) < (self._ranks[last.chrom], last.end):
                raise InputError(
                    f"{region.where}: overlaps {last.where}, expected one score per base: merge the regions"
                )
        infinite = np.isinf(scores)
        if infinite.any():
            raise InputError(
                f"{region.where}: the score of {region.chrom}:{region.start + infinite.argmax() + 1:,} "
                f"is infinite, expected a number or NaN"
            )


def _open_bigwig(
    path: Path, sizes: Mapping[str, int], files: AtomicFiles, stack: ExitStack, *, zoom_levels: bool = True
) -> _Format:
    part = files.create(path)
    with os_errors(path):
        return stack.enter_context(closing(BigWigWriter(part, sizes, zoom_levels=zoom_levels)))


def _open_bedgraph(path: Path, sizes: Mapping[str, int], files: AtomicFiles, stack: ExitStack) -> _Format:
    part = files.create(path)
    with os_errors(path):
        return stack.enter_context(closing(BedGraphWriter(part, sizes)))


def _open_indexed_bedgraph(path: Path, sizes: Mapping[str, int], files: AtomicFiles, stack: ExitStack) -> _Format:
    part = files.create(path)
    for index in index_paths(path):
        if index.suffix == index_suffix(sizes):
            index_part = files.create(index)
        else:
            files.remove(index)  # of an earlier track; tabix would prefer a .csi
    with os_errors(path):
        return stack.enter_context(closing(BedGraphWriter(part, sizes, index=index_part)))


_FORMATS: dict[str, Callable[[Path, Mapping[str, int], AtomicFiles, ExitStack], _Format]] = {
    **dict.fromkeys(BIGWIG, _open_bigwig),
    **dict.fromkeys(_PLAIN, _open_bedgraph),
    **dict.fromkeys(_INDEXED, _open_indexed_bedgraph),
}


def index_paths(path: Path) -> list[Path]:
    """Return the paths at which the index of a track may be written.

    Parameters
    ----------
    path
        Track file.

    Returns
    -------
    list of Path
        Paths of the .tbi and the .csi index for a compressed bedGraph file; an empty list for other
        formats.
    """
    return [path.with_name(path.name + suffix) for suffix in INDEX_SUFFIXES if _suffix(path) in _INDEXED]


def split_suffix(path: Path) -> tuple[str, str]:
    """Split the name of a track into its stem and the suffix that selects its format.

    Parameters
    ----------
    path
        Path of a track file. If the file is called ".bw", the stem is empty.

    Returns
    -------
    stem, suffix
        The two parts of the name. The case of the suffix is not changed.

    Raises
    ------
    InputError
        If the suffix is unknown.
    """
    for suffix in sorted(_FORMATS, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)], path.name[-len(suffix) :]
    raise _unknown_suffix(path, _FORMATS)


def _suffix(path: Path) -> str:
    """Return the lower-case suffix that selects the format, including ".gz" if present."""
    suffixes = path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]
    return "".join(suffixes).lower()


def _unknown_suffix(path: Path, known: Iterable[str]) -> InputError:
    return InputError(f'{path}: unknown suffix "{path.suffix}", expected one of {", ".join(known)}')
