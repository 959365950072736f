"""Storage of results in memory or on disk; a run can be resumed from results on disk.

The folder `OUT.partial/` contains the settings of the run, a journal of finished batches, and memory-mapped
arrays with the results at all bases of the concatenated regions. A batch is added to the journal after its
results have been flushed to disk. An interrupted batch continues from the last saved states of its sweeps
(see snapshots.py). When a run is resumed, the checksums of all stored results are verified. If a run fails
before anything has been saved, the folder is removed.
"""

import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from genoscan.errors import InputError, OutputError, note_unfinished
from genoscan.genome.region import Region
from genoscan.json_input import parse_json
from genoscan.temporary import allocate, locked_folder
from genoscan.tracks.atomic import make_partial_folder, os_errors, partial_folder
from genoscan.tracks.memory_map import release_pages
from genoscan.tracks.snapshots import SUFFIX

_SETTINGS, _DONE = "settings.json", "done"
_NAMES = _SETTINGS, _DONE, "scores", "codes", "columns", "first", f"*{SUFFIX}", "*.part"
_PIECE = 1 << 20
_RELEASED = 1 << 22
"""Number of bases after whose use the resident pages of memory-mapped results are released."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrays:
    """Scores, base codes and, optionally, the four derivatives or the predictions at all scored bases.

    Attributes
    ----------
    scores
        Scores at all bases of the concatenated regions, as a float32 array of shape (bases,). For the
        predictions of a language model, these are the log-likelihoods of the observed bases.
    codes
        Codes of the observed bases, as a uint8 array of shape (bases,).
    columns
        Derivatives with respect to A, C, G and T, as a float32 array of shape (bases, 4), or predictions,
        as an array of shape (bases, labels), float32 on disk; None if neither is stored.
    offsets
        Array index of the first base of each region.
    first
        Contribution of the first of two strands to the mean derivatives, as a float32 array of shape
        (bases, 4). On disk, this is a separate array, so that a tile of the second strand can be stored
        again after an interruption; it is None if only one strand is read. In memory, this is by default
        the same array as `columns`.
    """

    scores: np.ndarray
    codes: np.ndarray
    columns: np.ndarray | None
    offsets: Mapping[Region, int]
    first: np.ndarray | None

    def checksum(self, at: slice, *, final: bool = True) -> int:
        """Flush memory-mapped results to disk, and return the CRC-32 of the results.

        Parameters
        ----------
        at
            Slice of the arrays that contains the results.
        final
            If True, include `codes`, `scores` and `columns`; if False, include `codes` and `first`. Arrays
            that are None are omitted.

        Returns
        -------
        int
            CRC-32 of the results.
        """
        crc = 0
        for array in (self.codes, *((self.scores, self.columns) if final else (self.first,))):
            if array is None:
                continue
            if isinstance(array, np.memmap):
                array.flush()
            for start in range(at.start, at.stop, _PIECE):
                piece = array[start : min(start + _PIECE, at.stop)]
                crc = zlib.crc32(np.ascontiguousarray(piece).data, crc)
                self.used(len(piece))
        return crc

    @cached_property
    def _used(self) -> list[int]:
        """Number of bases whose results were used since pages were released, in a list of one item."""
        return [0]

    def used(self, n_bases: int) -> None:
        """Note that results at `n_bases` bases were stored or read; release the resident pages from time to time.

        The results remain in the files. Pages are not released at every call, because this takes ten microseconds, and
        regions may be many and short.
        """
        self._used[0] += n_bases
        if self._used[0] < _RELEASED:
            return
        self._used[0] = 0
        for array in (self.scores, self.codes, self.columns, self.first):
            if array is not None:
                release_pages(array)

    def slice_of(self, region: Region) -> slice:
        """Return the slice of the arrays that corresponds to a region.

        Parameters
        ----------
        region
            One of the regions in `offsets`.

        Returns
        -------
        slice
            Slice along the first axis of the arrays.
        """
        first = self.offsets[region]
        return slice(first, first + len(region))

    def scores_of(self, region: Region) -> np.ndarray:
        """Return the scores of a region.

        Parameters
        ----------
        region
            One of the regions in `offsets`.

        Returns
        -------
        array of shape (len(region),), float32
            View of the region's scores.
        """
        return self.scores[self.slice_of(region)]


def arrays_in_memory(
    regions: Sequence[Region], *, separate_first: bool = False, width: int = 4, dtype: DTypeLike = np.float32
) -> Arrays:
    """Allocate uninitialised arrays in memory.

    Parameters
    ----------
    regions
        Scored regions.
    separate_first
        Whether `first` is a separate array, as on disk. This is required if the tiles of the second strand
        are stored more than once.
    width, dtype
        Number of columns, and their type.

    Returns
    -------
    Arrays
        Uninitialised arrays. None of them is omitted, although `columns` and `first` are optional.

    Notes
    -----
    Memory: 21 bytes per base for four columns of float32; 37 bytes if `first` is a separate array.
    """
    total = sum(map(len, regions))
    scores, codes = np.empty(total, np.float32), np.empty(total, np.uint8)
    columns = np.empty((total, width), dtype)
    return Arrays(scores, codes, columns, _offsets(regions), np.empty_like(columns) if separate_first else columns)


def count_scores(arrays: Arrays, regions: Sequence[Region]) -> dict[str, int]:
    """Count the bases that have a score, and the regions in which every score is 0.

    Parameters
    ----------
    arrays
        Arrays that contain the scores.
    regions
        Regions whose scores are counted.

    Returns
    -------
    dict
        `scored_bases` is the number of bases that have a score. `zero_regions` is the number of regions
        that have at least one score and no score other than 0.
    """
    scored_bases = zero_regions = 0
    for region in regions:
        scored = zeros = 0
        scores = arrays.scores_of(region)
        for start in range(0, len(scores), _PIECE):
            piece = scores[start : start + _PIECE]
            scored += int(np.isfinite(piece).sum())
            zeros += int((piece == 0).sum())
            arrays.used(len(piece))
        scored_bases += scored
        zero_regions += 0 < scored == zeros
    return {"scored_bases": scored_bases, "zero_regions": zero_regions}


@dataclass(frozen=True)
class ScoreStore(Arrays):
    """Memory-mapped arrays with a journal of finished batches.

    Attributes
    ----------
    path
        Folder that contains the files.
    done, details
        Results of each finished batch, by batch number. `done` contains the target value of each window,
        and `details` contains further results for each window as JSON values.

    Notes
    -----
    Disk: see `bytes_per_base`. Memory: small, because the pages of memory-mapped arrays are released while
    results are stored and read (see `Arrays.used`).
    """

    path: Path
    done: dict[int, list[float]]
    details: dict[int, list[dict[str, Any]]]

    def log_resumed(self, done: int, total: int, unit: str) -> None:
        """Log how much an interrupted run has finished; nothing if there was none.

        Parameters
        ----------
        done, total
            Amount of work that the store contains, and of all work.
        unit
            Unit of both, such as "regions".
        """
        saved = any(self.path.glob(f"*{SUFFIX}"))
        if self.done or saved:
            _log.info(
                "resuming: %s of %s %s done%s", f"{done:,}", f"{total:,}", unit, ", and part of one" if saved else ""
            )

    def commit(
        self, batch: int, values: Sequence[float], regions: Sequence[Region], details: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Flush the arrays and mark a batch as finished.

        Parameters
        ----------
        batch
            Number of the batch.
        values
            Target value of each window in the batch.
        regions
            Region of each window in the batch.
        details
            Further results for each window, as JSON values.

        Raises
        ------
        OutputError
            If the results or the journal cannot be written.
        """
        with os_errors(self.path):
            checksums = [(at.start, at.stop, self.checksum(at)) for at in map(self.slice_of, regions)]
            entry = {"batch": batch, "values": list(values), "details": list(details), "checksums": checksums}
            with (self.path / _DONE).open("a") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
            for path in self.path.glob(f"{batch}.*{SUFFIX}"):
                path.unlink()
        self.done[batch] = list(values)
        self.details[batch] = list(map(dict, details))


def bytes_per_base(*, columns: bool, both_strands: bool) -> int:
    """Return the disk space of a store of derivatives, in bytes per base; the arguments are those of `open_store`."""
    return 5 + 16 * columns + 16 * both_strands


@contextmanager
def open_store(
    output: Path,
    regions: Sequence[Region],
    settings: Mapping[str, Any],
    *,
    columns: bool,
    both_strands: bool = False,
    width: int = 4,
) -> Iterator[ScoreStore]:
    """Context manager that creates the store of a run or reopens the store of an interrupted run.

    Parameters
    ----------
    output
        First output file of the run, `OUT`. The store is the folder `OUT.partial/` beside this file.
    regions
        Scored regions.
    settings
        All settings that determine the results, as JSON values.
    columns
        Whether to store several values per base (derivatives or predictions) in addition to the scores.
    both_strands
        Whether the results are means over the two strands.
    width
        Number of values per base in `columns`.

    Yields
    ------
    ScoreStore
        Store of the run. It is deleted if the `with` block ends without an exception. If the block raises
        an exception, the store is kept if a batch has been finished or a state of a sweep has been saved;
        otherwise, it is deleted.

    Raises
    ------
    InputError
        If the interrupted run had different settings. The message names the first setting that differs.
    OutputError
        If another process is using the store, or if the files cannot be created or are damaged.
    """
    path = partial_folder(output)
    make_partial_folder(path, _NAMES)
    opened = False
    with locked_folder(path):
        try:
            with os_errors(path):
                store = _open(path, regions, json.loads(json.dumps(settings)), output, columns, both_strands, width)
            opened = True
            yield store
        except BaseException as error:
            if not _begun(path):
                shutil.rmtree(path, ignore_errors=True)
            elif opened:
                note_unfinished(error, "finished work is kept", path)
            raise
        with os_errors(path):
            shutil.rmtree(path)


def _begun(path: Path) -> bool:
    """Return whether a folder contains results from which a run can be resumed."""
    return (path / _DONE).exists() or any(path.glob(f"*{SUFFIX}"))


def _open(
    path: Path,
    regions: Sequence[Region],
    settings: dict[str, Any],
    output: Path,
    columns: bool,
    both_strands: bool,
    width: int,
) -> ScoreStore:
    total = sum(map(len, regions))
    shapes: dict[str, tuple[Any, tuple[int, ...]]]
    shapes = {"scores": (np.float32, (total,)), "codes": (np.uint8, (total,))}
    if columns:
        shapes["columns"] = (np.float32, (total, width))
    if both_strands:
        shapes["first"] = (np.float32, (total, 4))
    entries = _read_journal(path)
    begun = _begun(path)
    if begun:
        _check_settings(path, settings, output)
    else:
        for name in (_SETTINGS, *shapes):
            (path / name).unlink(missing_ok=True)
        (path / _SETTINGS).write_text(json.dumps(settings, indent=1))
    maps = {name: _map(path / name, *shape, exists=begun) for name, shape in shapes.items()}
    arrays = maps["scores"], maps["codes"], maps.get("columns"), _offsets(regions), maps.get("first")
    done = {batch: entry.values for batch, entry in entries.items()}
    store = ScoreStore(*arrays, path, done, {batch: entry.details for batch, entry in entries.items()})
    for entry in entries.values():
        for start, stop, crc in entry.checksums:
            if not 0 <= start <= stop <= total or store.checksum(slice(start, stop)) != crc:
                raise _damaged(path / "scores")
    return store


def _offsets(regions: Sequence[Region]) -> dict[Region, int]:
    edges = np.cumsum([0, *map(len, regions)]).tolist()
    return dict(zip(regions, edges[:-1], strict=True))


def _map(path: Path, dtype: Any, shape: tuple[int, ...], *, exists: bool) -> np.ndarray:
    """Allocate a file, and map it into memory.

    Disk space is allocated in advance, so that a full disk causes an error here rather than a SIGBUS later.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not size:  # of a run without arrays, whose results are in the journal alone
        return np.empty(shape, dtype)
    if exists and not (path.is_file() and path.stat().st_size == size):
        raise _damaged(path)
    with path.open("ab") as file:
        allocate(file.fileno(), size)
    return np.memmap(path, dtype, "r+", shape=shape)


def _check_settings(path: Path, settings: dict[str, Any], output: Path) -> None:
    try:
        before = dict(parse_json((path / _SETTINGS).read_bytes()))
    except (ValueError, TypeError, FileNotFoundError):
        raise _damaged(path / _SETTINGS) from None
    for name in sorted({*before, *settings}):
        if before.get(name) != settings.get(name):
            raise InputError(
                f"{path}: has an unfinished run with {name} {_shorten(before.get(name))}, this one "
                f"has {_shorten(settings.get(name))}: use the same value to resume it, remove the "
                f"folder to start again, or name another output than {output.name}"
            )


class _JournalEntry(BaseModel):
    """Entry of the journal, which describes one finished batch.

    Attributes
    ----------
    batch
        Number of the batch.
    values
        Target value of each window.
    details
        Further results for each window, as JSON values.
    checksums
        Start index, stop index and CRC-32 of the results of each window.
    """

    model_config = ConfigDict(strict=True)

    batch: NonNegativeInt
    values: list[float]
    details: list[dict[str, Any]] = []
    checksums: list[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]]


def _damaged(file: Path) -> OutputError:
    return OutputError(f"{file}: damaged: remove {file.parent} to start again")


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _read_journal(path: Path) -> dict[int, _JournalEntry]:
    """Read the journal of finished batches, and remove the last line from the file if it is incomplete."""
    file = path / _DONE
    if not file.exists():
        return {}
    content = file.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if complete != content:
        os.truncate(file, len(complete))
    if not complete:
        file.unlink()
    try:
        return {entry.batch: entry for entry in map(_JournalEntry.model_validate_json, complete.splitlines())}
    except ValidationError:
        raise _damaged(file) from None
