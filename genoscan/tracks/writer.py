"""Scores to track files: the suffix picks the format, and a file appears whole or not at all.

A format is a class with `append`, `finish` and `close`; a line in `_FORMATS` makes it known.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from genoscan.errors import InputError, OutputError
from genoscan.genome.region import Region
from genoscan.tracks.atomic import atomic_write, os_errors
from genoscan.tracks.bedgraph import BedGraphWriter, index_suffix
from genoscan.tracks.bigwig import BigWigWriter

BIGWIG = ".bw", ".bigwig"
_PLAIN = ".bedgraph", ".bg"
_INDEXED = ".bedgraph.gz", ".bg.gz"
BEDGRAPH = _PLAIN + _INDEXED
"""Suffixes, in lower case."""

_PIECE = 1 << 20


@runtime_checkable
class TrackWriter(Protocol):
    """A track being written, front to back."""

    def write(self, region: Region, scores: Float32[np.ndarray, " bases"]) -> None:
        """Write a region's scores; NaN means "no score here" and leaves a gap.

        Regions come in genome order and do not overlap: plan() sees to both.

        Raises
        ------
        InputError
            If they do not, or a score is infinite.
        OutputError
            If a file cannot be written, for want of space or permission.
        """


def write_in_pieces(
    track: TrackWriter, region: Region, scores: Float32[np.ndarray, " bases"]
) -> None:
    """Write a region's scores from a map on disk, a piece in memory at a time."""
    for start in range(0, len(region), _PIECE):
        piece = np.asarray(scores[start : start + _PIECE])
        first = region.start + start
        track.write(Region(region.chrom, first, first + len(piece)), piece)


@runtime_checkable
class _Format(Protocol):
    """What a file format has to offer: scores in genome order, checked before they come."""

    def append(self, chrom: str, start: int, scores: Float32[np.ndarray, " bases"]) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


def open_track(path: Path, sizes: Mapping[str, int]) -> AbstractContextManager[TrackWriter]:
    """Open one track over sequences of these lengths, in genome order: `with` gives its writer.

    The file is at `path` once the block has ended well, and until then what was there before.
    """
    return open_tracks([path], sizes)


@contextmanager
def open_tracks(paths: Sequence[Path], sizes: Mapping[str, int]) -> Iterator[TrackWriter]:
    """Open several tracks that take the same scores; all files appear, or none does.

    Memory: a few tens of megabytes a track, whatever the lengths.

    Raises
    ------
    InputError
        If a suffix is of no track format, a path is given twice, or there are no sequences.
    OutputError
        If a file cannot be written.
    """
    for path in paths:
        if _suffix(path) not in _FORMATS:
            raise _unknown(path, _FORMATS)
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(f"{paths[0]}: an output is given twice: name each once")
    if not sizes:
        raise InputError(f"{paths[0]}: the genome has no sequences, there is nothing to write")
    with ExitStack() as stack:
        formats = [(path, _FORMATS[_suffix(path)](path, sizes, stack)) for path in paths]
        track = _Track(formats, sizes)
        yield track
        # Every file is complete before the first takes its name, on leaving the stack.
        track.finish()


def check_output(path: Path) -> None:
    """Say before hours of work what would keep a result from being written to `path`.

    Raises
    ------
    InputError
        If the suffix is of no format that genoscan writes.
    OutputError
        If the folder is not there or cannot be written to, or `path` is a folder.
    """
    if path.suffix != ".npz" and _suffix(path) not in _FORMATS:
        raise _unknown(path, [*_FORMATS, ".npz"])
    folder = path.resolve().parent
    if path.is_dir():
        raise OutputError(f"{path}: it is a folder: name a file")
    if not folder.is_dir():
        raise OutputError(f"{path}: there is no folder {folder}: make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: no permission to write in {folder}: choose another folder")


class _Track:
    """One pass of scores, checked once and handed to every format."""

    def __init__(self, formats: Sequence[tuple[Path, _Format]], sizes: Mapping[str, int]) -> None:
        self._formats = formats
        self._sizes = sizes
        self._ranks = {chrom: rank for rank, chrom in enumerate(sizes)}
        self._last: Region | None = None

    def write(self, region: Region, scores: Float32[np.ndarray, " bases"]) -> None:
        self._check(region, scores)
        for path, form in self._formats:
            with os_errors(path):
                form.append(region.chrom, region.start, scores)
        self._last = region

    def finish(self) -> None:
        for path, form in self._formats:
            with os_errors(path):
                form.finish()

    def _check(self, region: Region, scores: Float32[np.ndarray, " bases"]) -> None:
        if region.chrom not in self._sizes:
            raise InputError(f'{region.where}: the track has no sequence "{region.chrom}"')
        if region.end > self._sizes[region.chrom]:
            raise InputError(
                f"{region.where}: ends at {region.end:,}, {region.chrom} has "
                f"{self._sizes[region.chrom]:,} bases"
            )
        if len(scores) != len(region):
            raise InputError(
                f"{region.where}: {len(scores):,} scores for a region of {len(region):,} bases"
            )
        if self._last is not None:
            last, rank = self._last, self._ranks[region.chrom]
            if (rank, region.end) <= (self._ranks[last.chrom], last.start):
                raise InputError(
                    f"{region.where}: comes after {last.where}, expected genome order: "
                    f"sort the regions"
                )
            if (rank, region.start) < (self._ranks[last.chrom], last.end):
                raise InputError(
                    f"{region.where}: overlaps {last.where}, a track has one score a base: "
                    f"merge the regions"
                )
        infinite = np.flatnonzero(np.isinf(scores))
        if len(infinite):
            raise InputError(
                f"{region.where}: the score of {region.chrom}:{region.start + infinite[0] + 1:,} "
                f"is infinite, expected a number or NaN"
            )


def _open_bigwig(path: Path, sizes: Mapping[str, int], stack: ExitStack) -> _Format:
    part = stack.enter_context(atomic_write(path))
    with os_errors(path):
        return stack.enter_context(closing(BigWigWriter(part, sizes)))


def _open_bedgraph(path: Path, sizes: Mapping[str, int], stack: ExitStack) -> _Format:
    part = stack.enter_context(atomic_write(path))
    with os_errors(path):
        return stack.enter_context(closing(BedGraphWriter(part, sizes)))


def _open_indexed_bedgraph(path: Path, sizes: Mapping[str, int], stack: ExitStack) -> _Format:
    index = path.with_name(path.name + index_suffix(sizes))
    index_part = stack.enter_context(atomic_write(index))
    part = stack.enter_context(atomic_write(path))
    with os_errors(path):
        return stack.enter_context(closing(BedGraphWriter(part, sizes, index=index_part)))


_FORMATS: dict[str, Callable[[Path, Mapping[str, int], ExitStack], _Format]] = {
    **dict.fromkeys(BIGWIG, _open_bigwig),
    **dict.fromkeys(_PLAIN, _open_bedgraph),
    **dict.fromkeys(_INDEXED, _open_indexed_bedgraph),
}


def _suffix(path: Path) -> str:
    """Return the one or two suffixes that tell the format, in lower case: bigWig, bedGraph."""
    suffixes = path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]
    return "".join(suffixes).lower()


def _unknown(path: Path, known: Iterable[str]) -> InputError:
    return InputError(
        f'{path}: suffix "{path.suffix}" is of no known format, expected {", ".join(known)}'
    )
