"""Journal of a run, by which the same command continues it after an interruption.

The folder `OUT.partial/` contains the settings of the run, a journal of finished batches, and memory-mapped
arrays, if the results are too large for the journal (see store.py). A batch is added to the journal after its
results have been flushed to disk. If a run fails before anything has been saved, the folder is removed.
"""

import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from genoscan.errors import InputError, OutputError, note_unfinished
from genoscan.json_input import parse_json
from genoscan.temporary import allocate, locked_folder
from genoscan.tracks.atomic import make_partial_folder, os_errors, partial_folder
from genoscan.tracks.snapshots import SUFFIX

_SETTINGS, _DONE = "settings.json", "done"
_NAMES = _SETTINGS, _DONE, "scores", "codes", "columns", "first", "map.*", f"*{SUFFIX}", "*.part"

COMMIT_AFTER = 5.0
"""Seconds after which small results are added to the journal together, as every addition waits for the disk."""

_log = logging.getLogger(__name__)


class Entry(BaseModel):
    """Entry of the journal, which describes one finished batch.

    Attributes
    ----------
    batch
        Number of the batch.
    values
        Results as numbers; of scores, the target value of each window.
    details
        Further results as JSON values; of scores, for each window.
    checksums
        Start index, stop index and CRC-32 of results in arrays.
    """

    model_config = ConfigDict(strict=True)

    batch: NonNegativeInt
    values: list[float] = []
    details: list[dict[str, Any]] = []
    checksums: list[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]] = []


@dataclass(frozen=True)
class Journal:
    """Journal of a run.

    Attributes
    ----------
    path
        Folder that contains the files.
    entries
        Finished batches by number.
    begun
        Whether the folder contained results when it was opened.
    """

    path: Path
    entries: dict[int, Entry]
    begun: bool

    def log_resumed(self, done: int, total: int, unit: str) -> None:
        """Log how much an interrupted run has finished; nothing if there was none.

        Parameters
        ----------
        done, total
            Amount of work that the folder contains, and of all work.
        unit
            Unit of both, such as "regions".
        """
        saved = any(self.path.glob(f"*{SUFFIX}"))
        if self.entries or saved:
            _log.info(
                "resuming: %s of %s %s done%s", f"{done:,}", f"{total:,}", unit, ", and part of one" if saved else ""
            )

    def add(self, entry: Entry) -> None:
        """Add a finished batch, whose results in arrays are on disk, and remove the saved states of its sweeps.

        Raises
        ------
        OutputError
            If the journal cannot be written.
        """
        with os_errors(self.path):
            with (self.path / _DONE).open("a") as file:
                file.write(json.dumps(entry.model_dump()) + "\n")
                file.flush()
                os.fsync(file.fileno())
            for path in self.path.glob(f"{entry.batch}.*{SUFFIX}"):
                path.unlink()
        self.entries[entry.batch] = entry

    def array(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> np.ndarray:
        """Return a memory-mapped array of the folder, which is created, with zeros, unless the run had begun.

        Disk space is allocated in advance, so that a full disk causes an error here rather than a SIGBUS later.

        Raises
        ------
        OutputError
            If the file is damaged or cannot be created.
        """
        path, size = self.path / name, int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not size:
            return np.empty(shape, dtype)
        with os_errors(self.path):
            if self.begun and not (path.is_file() and path.stat().st_size == size):
                raise damaged(path)
            if not self.begun:
                path.unlink(missing_ok=True)
            with path.open("ab") as file:
                allocate(file.fileno(), size)
            return np.memmap(path, dtype, "r+", shape=shape)


@contextmanager
def open_journal(output: Path, settings: Mapping[str, Any]) -> Iterator[Journal]:
    """Context manager that creates the journal of a run or reopens that of an interrupted run.

    Parameters
    ----------
    output
        First output file of the run, `OUT`. The journal is in the folder `OUT.partial/` beside this file.
    settings
        All settings that determine the results, as JSON values.

    Yields
    ------
    Journal
        Journal of the run. Its folder is deleted if the `with` block ends without an exception. If the block
        raises an exception, the folder is kept if a batch has been finished or a state of a sweep has been
        saved; otherwise, it is deleted.

    Raises
    ------
    InputError
        If the interrupted run had different settings. The message names the first setting that differs.
    OutputError
        If another process is using the folder, or if its files cannot be created or are damaged.
    """
    path = partial_folder(output)
    make_partial_folder(path, _NAMES)
    opened = False
    with locked_folder(path):
        try:
            with os_errors(path):
                journal = _open(path, json.loads(json.dumps(settings)), output)
            opened = True
            yield journal
        except BaseException as error:
            if not _begun(path):
                shutil.rmtree(path, ignore_errors=True)
            elif opened:
                note_unfinished(error, "finished work is kept", path)
            raise
        with os_errors(path):
            shutil.rmtree(path)


def checksum(array: np.ndarray, crc: int = 0) -> int:
    """Return the CRC-32 of an array, after that of others."""
    return zlib.crc32(np.ascontiguousarray(array).data, crc)


def damaged(file: Path) -> OutputError:
    """Return the error of a damaged file."""
    return OutputError(f"{file}: damaged: remove {file.parent} to start again")


def _begun(path: Path) -> bool:
    """Return whether a folder contains results from which a run can be resumed."""
    return (path / _DONE).exists() or any(path.glob(f"*{SUFFIX}"))


def _open(path: Path, settings: dict[str, Any], output: Path) -> Journal:
    entries = _read(path)
    begun = _begun(path)
    if begun:
        _check_settings(path, settings, output)
    else:
        (path / _SETTINGS).write_text(json.dumps(settings, indent=1))
    return Journal(path, entries, begun)


def _check_settings(path: Path, settings: dict[str, Any], output: Path) -> None:
    try:
        before = dict(parse_json((path / _SETTINGS).read_bytes()))
    except (ValueError, TypeError, FileNotFoundError):
        raise damaged(path / _SETTINGS) from None
    for name in sorted({*before, *settings}):
        if before.get(name) != settings.get(name):
            raise InputError(
                f"{path}: has an unfinished run with {name} {_shorten(before.get(name))}, this one "
                f"has {_shorten(settings.get(name))}: use the same value to resume it, remove the "
                f"folder to start again, or name another output than {output.name}"
            )


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _read(path: Path) -> dict[int, Entry]:
    """Read the finished batches, and remove the last line from the file if it is incomplete."""
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
        return {entry.batch: entry for entry in map(Entry.model_validate_json, complete.splitlines())}
    except ValidationError:
        raise damaged(file) from None
