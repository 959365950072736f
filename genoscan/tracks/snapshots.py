"""Storage for the intermediate states of sweeps over windows, so that an interrupted sweep can be resumed.

The states are stored as files in the folder for unfinished work.
"""

import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.lib.npyio import NpzFile

from genoscan.errors import OutputError
from genoscan.tracks.atomic import os_errors

SUFFIX = ".state"
_INTERVAL = 10.0
"""Minimum time between two saves, in seconds."""
_SHARE = 60
"""Minimum time between two saves, as a multiple of the time that one save takes."""
_BYTES_PER_SECOND = 2e8
"""Assumed upper bound on the speed of the disk, from which the time that a save takes is estimated."""

Stored: TypeAlias = Callable[[], Sequence[slice] | None]
"""Function that returns the positions whose results were stored since the last call.

The function returns None if a result is not finite.
"""
Checksum: TypeAlias = Callable[[slice], int]


class FileSnapshots:
    """Storage for the states of one sweep.

    Each state is saved in a separate file. The file also contains the checksums of all results that were
    stored before the state was saved.

    Parameters
    ----------
    folder, prefix
        Folder that contains the files, and the prefix of their names.
    stored
        Function that returns the positions whose results were stored since the last call, or None if a
        result is not finite.
    checksum
        Function that writes the results at given positions to disk and returns their CRC-32.

    Notes
    -----
    The files are numpy archives, whose CRC-32 checksums are verified when the files are read. Each file is
    written under a temporary name before it replaces any previous file of the same name.
    """

    def __init__(self, folder: Path, prefix: str, stored: Stored, checksum: Checksum) -> None:
        self._folder, self._prefix, self._stored, self._checksum = folder, prefix, stored, checksum
        self._pieces: list[tuple[int, int, int]] = []
        self._lock = threading.Lock()
        self._ended, self._took = time.monotonic(), 0.0

    def due(self, nbytes: int) -> bool:
        """Return whether enough time has passed since the last save to save a state of `nbytes` bytes."""
        took = max(self._took, nbytes / _BYTES_PER_SECOND)
        return time.monotonic() - self._ended >= max(_INTERVAL, _SHARE * took)

    def save(self, name: str, state: Mapping[str, np.ndarray]) -> None:
        """Save a state under the given name, provided that all results stored so far are finite."""
        with self._lock, os_errors(self._folder):
            started = time.monotonic()
            stored = self._stored()
            if stored is None:
                return
            self._pieces += [(at.start, at.stop, self._checksum(at)) for at in stored]
            path = self._folder / f"{self._prefix}{name}{SUFFIX}"
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                pieces = np.array(self._pieces, np.int64).reshape(-1, 3)
                np.savez(file, allow_pickle=False, **state, pieces=pieces)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            self._ended = time.monotonic()
            self._took = self._ended - started

    def load(self) -> dict[str, Mapping[str, np.ndarray]]:
        """Return all saved states, and verify them and the results that were stored before each was saved.

        Returns
        -------
        dict
            Arrays of each state, by the name of the state. An array is read when it is looked up.

        Raises
        ------
        OutputError
            If a file is damaged, or a stored result does not match its checksum.
        """
        found: dict[str, Mapping[str, np.ndarray]] = {}
        for path in sorted(self._folder.glob(f"{self._prefix}*{SUFFIX}")):
            try:
                with zipfile.ZipFile(path) as archive:
                    intact = archive.testzip() is None
                arrays = _Arrays(path)
                pieces = arrays["pieces"].tolist()
                intact &= all(self._checksum(slice(start, stop)) == crc for start, stop, crc in pieces)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                intact = False
            if not intact:
                raise OutputError(f"{path}: damaged: remove {self._folder} to start again")
            self._pieces = max(self._pieces, [tuple(piece) for piece in pieces], key=len)
            name = path.name.removeprefix(self._prefix).removesuffix(SUFFIX)
            found[name] = arrays
        return found


class _Arrays(Mapping[str, np.ndarray]):
    """Arrays of an archive, each of which is read from the file when it is looked up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as archive:
            self._names = archive.files

    def __getitem__(self, name: str) -> np.ndarray:
        with self._open() as archive:
            array: np.ndarray = archive[name]
            return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _open(self) -> NpzFile:
        archive: NpzFile = np.load(self._path, allow_pickle=False)
        return archive
