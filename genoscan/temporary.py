"""Temporary files and folders next to their final paths, locked while a process uses them.

Temporary files and folders have hidden names that are derived from their final names. A process can
therefore detect that another process is writing the same output. When a process ends, the operating system
releases its locks. If a killed process leaves a temporary file behind, the next process that writes the
same output removes this file.
"""

import fcntl
import glob
import os
import platform
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

from genoscan.errors import OutputError

_NAME_BYTES = 100
_PATIENCE = 0.3
"""Number of seconds to wait for a lock, because processes that remove old files lock them briefly."""


class _Kind(NamedTuple):
    """Functions and flags used to create, open and remove a file or a folder."""

    create: Callable[[Path], None]
    flags: int
    remove: Callable[[Path], None]


_FILE = _Kind(lambda path: path.touch(exist_ok=False), os.O_RDWR | os.O_NOFOLLOW, os.unlink)
_FOLDER = _Kind(lambda path: path.mkdir(0o700), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, shutil.rmtree)


@dataclass(frozen=True)
class Temporary:
    """A temporary file or folder of this process.

    Attributes
    ----------
    path
        Path of the temporary file or folder.
    lock
        Descriptor of the locked file or folder. None if the file or folder could not be locked.
    """

    path: Path
    lock: int | None

    def is_ours(self) -> bool:
        """Return whether the path still refers to the file or folder that this process created."""
        return self.lock is None or _refers_to(self.path, self.lock)

    def replace(self, target: Path) -> None:
        """Rename the temporary file to its final path.

        Parameters
        ----------
        target
            Final path, in the same folder. An existing file is replaced.

        Raises
        ------
        OutputError
            If another process has removed or replaced the temporary file.
        OSError
            If the file cannot be renamed.
        """
        # Only if locks of one machine are invisible on another that writes the same output.
        if not self.is_ours():
            raise OutputError(f"{target}: also written by another process: run the command again")
        self.path.replace(target)


def temporary_path(target: Path) -> Path:
    """Return the path of the temporary file or folder for an output.

    Parameters
    ----------
    target
        Final path.

    Returns
    -------
    Path
        Path in the same folder as the output, with a hidden file name of limited length.
    """
    return target.with_name(f".{shorten(target.name)}.part")


def shorten(name: str) -> str:
    """Derive a name of limited length from a file name that may be too long.

    Parameters
    ----------
    name
        File name.

    Returns
    -------
    str
        First 100 bytes of the name, followed by a period and a checksum of the whole name.
    """
    encoded = os.fsencode(name)
    return f"{encoded[:_NAME_BYTES].decode(errors='ignore')}.{zlib.crc32(encoded):08x}"


@contextmanager
def temporary(target: Path, *, folder: bool = False) -> Iterator[Temporary]:
    """Context manager that creates and locks the temporary file or folder for an output.

    On exit, the file or folder is removed unless it has been renamed.

    Parameters
    ----------
    target
        Final path.
    folder
        Whether to create a folder instead of a file. A folder is removed with its contents.

    Yields
    ------
    Temporary
        The new, empty file or folder.

    Raises
    ------
    OutputError
        If another process is writing the same output.
    OSError
        If the file or folder cannot be created.
    """
    kind = _FOLDER if folder else _FILE
    try:
        claimed = _claim(temporary_path(target), kind, patience=_PATIENCE)
    except BlockingIOError:
        raise OutputError(f"{target}: is being written by another process: wait or name another output") from None
    with _released(claimed, kind):
        yield claimed


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Context manager that creates a folder for intermediate files and, on exit, removes it.

    Parameters
    ----------
    parent
        Folder in which the new folder is created.

    Yields
    ------
    Path
        The new, empty folder.

    Raises
    ------
    OSError
        If the folder cannot be created.

    Notes
    -----
    Scratch folders in `parent` that were left behind by killed processes are removed if those processes
    ran on this machine and belonged to the same user. Several processes may have scratch folders in the
    same parent folder.
    """
    prefix = f"genoscan-{platform.node()[:50]}-{os.getuid()}-"
    for remains in parent.glob(f".{glob.escape(prefix)}*.part"):
        with suppress(OSError), _opened(remains) as descriptor:
            if _lock(descriptor, patience=0):
                shutil.rmtree(remains)
    for number in count():
        try:
            claimed = _claim(temporary_path(parent / f"{prefix}{number}"), _FOLDER, patience=0)
        except BlockingIOError:
            continue
        with _released(claimed, _FOLDER):
            yield claimed.path
        return


def allocate(descriptor: int, size: int) -> None:
    """Reserve disk space for a memory-mapped file, so that a full disk cannot cause a SIGBUS.

    Parameters
    ----------
    descriptor
        Descriptor of the open file.
    size
        Size in bytes.

    Raises
    ------
    OSError
        If the disk is full.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Context manager that keeps a folder locked during its block.

    Parameters
    ----------
    folder
        Existing folder. It is not locked if the file system does not support locks.

    Raises
    ------
    OutputError
        If another process has locked the folder.
    """
    with _opened(folder) as descriptor:
        try:
            _lock(descriptor, patience=_PATIENCE)
            in_use = not _refers_to(folder, descriptor)  # removed by a run that has just finished
        except BlockingIOError:
            in_use = True
        if in_use:
            raise OutputError(f"{folder}: in use by another run: wait until it has finished, or name another output")
        yield


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, _FOLDER.flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _released(claimed: Temporary, kind: _Kind) -> Iterator[None]:
    """Context manager that, on exit, removes a temporary file or folder and releases its lock.

    A file or folder that has been renamed in the meantime is not removed.
    """
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            # After the renaming, the path may refer to the temporary file of another process.
            if claimed.is_ours():
                kind.remove(claimed.path)
        if claimed.lock is not None:
            os.close(claimed.lock)


def _claim(path: Path, kind: _Kind, *, patience: float) -> Temporary:
    """Create and lock a temporary file or folder; replace one that a killed process left behind.

    A file that was left behind is not reused, because a process on another machine may still be writing to
    it, and the lock of that process may be invisible on this machine. If a process on this machine has
    locked the file or folder, BlockingIOError is raised.
    """
    while True:
        try:
            kind.create(path)
            is_new = True
        except FileExistsError:
            is_new = False
        try:
            descriptor = os.open(path, kind.flags)
        except FileNotFoundError:  # removed by another process
            continue
        except OSError:  # belongs to another user
            return _unlocked(path, kind)
        with ExitStack() as stack:
            stack.callback(os.close, descriptor)
            if not _lock(descriptor, patience=patience):
                if is_new:
                    kind.remove(path)
                return _unlocked(path, kind)
            if not _refers_to(path, descriptor):  # replaced before it was locked
                continue
            if is_new:
                stack.pop_all()
                return Temporary(path, descriptor)
            try:
                kind.remove(path)
            except OSError:  # contains files of another user
                return _unlocked(path, kind)


def _unlocked(path: Path, kind: _Kind) -> Temporary:
    """Create a file or folder with a unique name, without locking it."""
    unique = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.part")
    kind.create(unique)
    return Temporary(unique, None)


def _lock(descriptor: int, *, patience: float) -> bool:
    """Lock an open file; return False if the file system does not support locks.

    If another process has locked the file, the function tries again for `patience` seconds before it
    raises BlockingIOError.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            # flock and not fcntl, whose lock ends as soon as a library closes the same file.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)
        except OSError:
            return False
        else:
            return True


def _refers_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
