"""Unfinished results, kept beside the output so that no finished batch is ever lost.

`OUT.partial/` holds memory maps over all scored bases, one region after the other, and the
numbers of the batches that are done.  A batch is noted only once its numbers are in the maps;
whatever a kill leaves of an unfinished one is computed again.  As long as no batch is finished
there is nothing to go on with, and a run that fails leaves nothing behind.
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

from genoscan.errors import InputError, OutputError
from genoscan.genome.region import Region
from genoscan.tracks.atomic import os_errors

_SETTINGS, _DONE, _LOCK = "settings.json", "done", "lock"
_PIECE = 1 << 20


@dataclass(frozen=True)
class Arrays:
    """Scores, bases and, where asked for, the four columns of every scored base.

    Attributes
    ----------
    scores, codes, columns
        float32, uint8 and float32 (bases, 4), one region after the other.
    offsets
        Where each region begins.
    """

    scores: np.ndarray
    codes: np.ndarray
    columns: np.ndarray | None
    offsets: Mapping[Region, int]

    def slice_of(self, region: Region) -> slice:
        """Return which rows are a region's."""
        first = self.offsets[region]
        return slice(first, first + len(region))

    def scores_of(self, region: Region) -> np.ndarray:
        """Return a region's scores."""
        return self.scores[self.slice_of(region)]


def arrays_in_memory(regions: Sequence[Region]) -> Arrays:
    """Return arrays for the regions, 21 bytes a base."""
    total = sum(map(len, regions))
    scores, codes = np.empty(total, np.float32), np.empty(total, np.uint8)
    return Arrays(scores, codes, np.empty((total, 4), np.float32), _offsets(regions))


def counts(arrays: Arrays, regions: Sequence[Region]) -> dict[str, int]:
    """Count the bases that have a score, and the regions in which every score is 0."""
    scored_bases = zero_regions = 0
    for region in regions:
        scored = zeros = 0
        whole = arrays.scores_of(region)
        for start in range(0, len(whole), _PIECE):
            piece = whole[start : start + _PIECE]
            scored += int(np.isfinite(piece).sum())
            zeros += int((piece == 0).sum())
        scored_bases += scored
        zero_regions += 0 < scored == zeros
    return {"scored_bases": scored_bases, "zero_regions": zero_regions}


@dataclass(frozen=True)
class ScoreStore(Arrays):
    """Arrays in files, and which batches are done.

    Memory: on disk, 5 bytes a base, 21 with columns; what is resident the system may drop.
    """

    path: Path
    done: dict[int, list[float]]

    def keep(self, batch: int, values: Sequence[float]) -> None:
        """Note that a batch is finished, with its target's values."""
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
    """Start, or go on with what an earlier run with the same settings has left.

    It is all deleted when the block ends well: the finished files have taken its place.

    Raises
    ------
    InputError
        If an earlier run had other settings (the message names the first that differs), or
        another run is at work on it.
    OutputError
        If the files cannot be made, or have been damaged.
    """
    path = output.with_name(output.name + ".partial")
    with os_errors(path):
        path.mkdir(exist_ok=True)
    with _claimed(path):
        try:
            with os_errors(path):
                partial = _open(path, regions, json.loads(json.dumps(settings)), output, columns)
            yield partial
        except BaseException:
            if not (path / _DONE).exists():
                shutil.rmtree(path, ignore_errors=True)
            raise
        with os_errors(path):
            shutil.rmtree(path)


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Keep other runs away; the system lifts the claim of a killed one."""
    with os_errors(path):
        lock = (path / _LOCK).open("ab")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{path}: another run is at work on it; wait for its end, or name another output"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield


def _open(
    path: Path, regions: Sequence[Region], settings: dict[str, Any], output: Path, columns: bool
) -> ScoreStore:
    total = sum(map(len, regions))
    shapes: dict[str, tuple[Any, tuple[int, ...]]]
    shapes = {"scores": (np.float32, (total,)), "codes": (np.uint8, (total,))}
    if columns:
        shapes["columns"] = (np.float32, (total, 4))
    done = _done(path)
    if done:
        _check_settings(path, settings, output)
    else:
        for name in (_SETTINGS, *shapes):
            (path / name).unlink(missing_ok=True)
        (path / _SETTINGS).write_text(json.dumps(settings, indent=1))
    maps = {name: _map(path / name, *shape, old=bool(done)) for name, shape in shapes.items()}
    found = maps["scores"], maps["codes"], maps.get("columns"), _offsets(regions)
    return ScoreStore(*found, path, done)


def _offsets(regions: Sequence[Region]) -> dict[Region, int]:
    edges = np.cumsum([0, *map(len, regions)]).tolist()
    return dict(zip(regions, edges[:-1], strict=True))


def _map(path: Path, dtype: Any, shape: tuple[int, ...], *, old: bool) -> np.ndarray:
    """Map a file whose room is taken at once: a full disk is an error here, not a crash later."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if old and not (path.is_file() and path.stat().st_size == size):
        raise _damaged(path)
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, dtype, "r+", shape=shape)


def _check_settings(path: Path, settings: dict[str, Any], output: Path) -> None:
    try:
        before = dict(json.loads((path / _SETTINGS).read_text()))
    except (ValueError, TypeError, FileNotFoundError):
        raise _damaged(path / _SETTINGS) from None
    for name in sorted({*before, *settings}):
        if before.get(name) != settings.get(name):
            raise InputError(
                f"{path}: holds an unfinished run with {name} {_brief(before.get(name))}, this one "
                f"has {_brief(settings.get(name))}; give the same to go on with it, remove the "
                f"folder to start again, or name another output than {output.name}"
            )


def _damaged(file: Path) -> OutputError:
    return OutputError(f"{file}: damaged; remove {file.parent} to start again")


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _done(path: Path) -> dict[int, list[float]]:
    """Read the finished batches; a last line that a kill cut short is cut off."""
    file = path / _DONE
    if not file.exists():
        return {}
    found = file.read_bytes()
    whole = found[: found.rfind(b"\n") + 1]
    if whole != found:
        os.truncate(file, len(whole))
    if not whole:
        file.unlink()
    try:
        entries = [json.loads(line) for line in whole.splitlines()]
        return {int(entry["batch"]): list(entry["values"]) for entry in entries}
    except (ValueError, KeyError, TypeError):
        raise _damaged(file) from None
