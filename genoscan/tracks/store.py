"""Store results in memory, or on disk so that an interrupted run can be resumed.

`OUT.partial/` contains memory-mapped arrays over all scored bases, with the regions concatenated, the
settings of the run, and a journal of finished batches. A batch is entered in the journal after its
results have been flushed to disk; an interrupted batch is computed again. A run that fails before
its first batch is finished removes the folder.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from genoscan.errors import InputError, OutputError
from genoscan.genome.region import Region
from genoscan.json_input import parse_json
from genoscan.tracks.atomic import os_errors

_SETTINGS, _DONE, _LOCK = "settings.json", "done", "lock"
_PIECE = 1 << 20


@dataclass(frozen=True)
class Arrays:
    """Score, base code and optionally the four derivatives of every scored base.

    Attributes
    ----------
    scores
        float32, shape (bases,), with the regions concatenated.
    codes
        Codes of the observed bases, uint8, shape (bases,).
    columns
        Derivatives along A, C, G and T, float32, shape (bases, 4), or None.
    offsets
        Index of each region's first base.
    """

    scores: np.ndarray
    codes: np.ndarray
    columns: np.ndarray | None
    offsets: Mapping[Region, int]

    def slice_of(self, region: Region) -> slice:
        """Return the indices of a region's bases.

        Parameters
        ----------
        region
            One of the regions.

        Returns
        -------
        slice
            Slice of the first axis of the arrays.
        """
        first = self.offsets[region]
        return slice(first, first + len(region))

    def scores_of(self, region: Region) -> np.ndarray:
        """Return the scores of a region.

        Parameters
        ----------
        region
            One of the regions.

        Returns
        -------
        array of shape (len(region),), float32
            View of the region's scores.
        """
        return self.scores[self.slice_of(region)]


def arrays_in_memory(regions: Sequence[Region]) -> Arrays:
    """Allocate uninitialised arrays in memory.

    Parameters
    ----------
    regions
        Scored regions.

    Returns
    -------
    Arrays
        Uninitialised arrays, including columns.

    Notes
    -----
    Memory: 21 bytes per base.
    """
    total = sum(map(len, regions))
    scores, codes = np.empty(total, np.float32), np.empty(total, np.uint8)
    return Arrays(scores, codes, np.empty((total, 4), np.float32), _offsets(regions))


def count_scores(arrays: Arrays, regions: Sequence[Region]) -> dict[str, int]:
    """Count bases with a score, and regions in which every score is 0.

    Parameters
    ----------
    arrays
        Arrays that contain the scores.
    regions
        Regions to include.

    Returns
    -------
    dict
        `scored_bases`, and `zero_regions`: the number of regions with scores that are all 0.
    """
    scored_bases = zero_regions = 0
    for region in regions:
        scored = zeros = 0
        scores = arrays.scores_of(region)
        for start in range(0, len(scores), _PIECE):
            piece = scores[start : start + _PIECE]
            scored += int(np.isfinite(piece).sum())
            zeros += int((piece == 0).sum())
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
    done
        Target values of each finished batch, by batch number.

    Notes
    -----
    Disk: 5 bytes per base, 21 with columns. Resident pages can be evicted by the operating system.
    """

    path: Path
    done: dict[int, list[float]]

    def commit(self, batch: int, values: Sequence[float]) -> None:
        """Flush the arrays and mark a batch as finished.

        Parameters
        ----------
        batch
            Number of the batch.
        values
            Target value of each window in the batch.

        Raises
        ------
        OutputError
            If the journal cannot be written.
        """
        for array in (self.scores, self.codes, self.columns):
            if isinstance(array, np.memmap):
                array.flush()
        with os_errors(self.path), (self.path / _DONE).open("a") as file:
            file.write(json.dumps({"batch": batch, "values": list(values)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[batch] = list(values)


@contextmanager
def open_store(
    output: Path, regions: Sequence[Region], settings: Mapping[str, Any], *, columns: bool
) -> Iterator[ScoreStore]:
    """Create the store of a run, or reopen that of an interrupted run with the same settings.

    Parameters
    ----------
    output
        First output of the run; the store is `OUT.partial/` beside it.
    regions
        Scored regions.
    settings
        Everything that determines the results, in JSON types.
    columns
        Whether to store the four derivatives.

    Yields
    ------
    ScoreStore
        Store that is deleted if the block ends without an exception, and otherwise kept if at least
        one batch is finished.

    Raises
    ------
    InputError
        If the interrupted run had other settings (the message names the first difference), or
        another process uses the store.
    OutputError
        If the files cannot be created, or are damaged.
    """
    path = output.with_name(output.name + ".partial")
    with os_errors(path):
        path.mkdir(exist_ok=True)
    with _locked(path):
        try:
            with os_errors(path):
                store = _open(path, regions, json.loads(json.dumps(settings)), output, columns)
            yield store
        except BaseException:
            if not (path / _DONE).exists():
                shutil.rmtree(path, ignore_errors=True)
            raise
        with os_errors(path):
            shutil.rmtree(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the store; the operating system releases the lock of a killed process."""
    with os_errors(path):
        lock = (path / _LOCK).open("ab")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{path}: in use by another run: wait until it has finished, or name another output"
            ) from None
        except OSError:
            pass  # the file system does not support locks
        yield


def _open(path: Path, regions: Sequence[Region], settings: dict[str, Any], output: Path, columns: bool) -> ScoreStore:
    total = sum(map(len, regions))
    shapes: dict[str, tuple[Any, tuple[int, ...]]]
    shapes = {"scores": (np.float32, (total,)), "codes": (np.uint8, (total,))}
    if columns:
        shapes["columns"] = (np.float32, (total, 4))
    done = _read_journal(path)
    if done:
        _check_settings(path, settings, output)
    else:
        for name in (_SETTINGS, *shapes):
            (path / name).unlink(missing_ok=True)
        (path / _SETTINGS).write_text(json.dumps(settings, indent=1))
    maps = {name: _map(path / name, *shape, exists=bool(done)) for name, shape in shapes.items()}
    arrays = maps["scores"], maps["codes"], maps.get("columns"), _offsets(regions)
    return ScoreStore(*arrays, path, done)


def _offsets(regions: Sequence[Region]) -> dict[Region, int]:
    edges = np.cumsum([0, *map(len, regions)]).tolist()
    return dict(zip(regions, edges[:-1], strict=True))


def _map(path: Path, dtype: Any, shape: tuple[int, ...], *, exists: bool) -> np.ndarray:
    """Memory-map a preallocated file, so that a full disk raises an error here and not SIGBUS later."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if exists and not (path.is_file() and path.stat().st_size == size):
        raise _damaged(path)
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
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
    """A line of the journal: number of a finished batch, and the target's value for each of its windows."""

    model_config = ConfigDict(strict=True)

    batch: NonNegativeInt
    values: list[float]


def _damaged(file: Path) -> OutputError:
    return OutputError(f"{file}: damaged: remove {file.parent} to start again")


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _read_journal(path: Path) -> dict[int, list[float]]:
    """Read the journal of finished batches; remove an incomplete last line."""
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
        return {entry.batch: entry.values for entry in map(_JournalEntry.model_validate_json, complete.splitlines())}
    except ValidationError:
        raise _damaged(file) from None
