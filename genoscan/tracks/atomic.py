"""Atomic creation of files and directories, and error messages for failed writes."""

import errno
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genoscan.errors import OutputError

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder",
    errno.EDQUOT: "your quota is used up: free some space or choose another folder",
    errno.EFBIG: "the file is larger than this file system or `ulimit -f` allows",
    errno.EACCES: "no permission to write here: choose another folder",
    errno.EPERM: "no permission to write here: choose another folder",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOENT: "the folder does not exist: create it first",
    errno.ENOTDIR: "a component of the path is a file, expected a folder",
    errno.EISDIR: "it is a folder: name a file",
    errno.ENAMETOOLONG: "the file name is too long: choose a shorter one",
}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path that is renamed to `path` on success.

    Parameters
    ----------
    path
        Final path of the file.

    Yields
    ------
    Path
        Temporary file in the same folder, so that the final rename is atomic.

    Raises
    ------
    OutputError
        If `path` is a folder, or the folder that contains it cannot be written to.

    Notes
    -----
    Any exception in the block, including KeyboardInterrupt, removes the temporary file and leaves
    `path` unchanged.
    """
    target = path.resolve()
    with os_errors(path):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
    # The temporary name is deterministic, so that the next run overwrites a file left by a killed run.
    # It is truncated, so that it is not too long even if `path` has the longest name allowed.
    part = target.with_name(f".{target.name[:100]}.{zlib.crc32(target.name.encode()):08x}.part")
    try:
        with os_errors(path):
            part.write_bytes(b"")
        yield part
        with os_errors(path):
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Convert an OSError raised while writing `path` into a one-line OutputError.

    Parameters
    ----------
    path
        Path to name in the error message.

    Raises
    ------
    OutputError
        If the block raises an OSError. The message states a remedy if one is known, otherwise the
        operating system's message.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    """Return a remedy if one is known, otherwise the operating system's message, on one line."""
    if error.errno in _REMEDIES:
        return _REMEDIES[error.errno]
    return " ".join(str(error.strerror or error).split())


@contextmanager
def atomic_directory(output: Path) -> Iterator[Path]:
    """Create a directory atomically: yield a temporary path that is renamed to `output`.

    Parameters
    ----------
    output
        Final path of the directory.

    Yields
    ------
    Path
        Path with the same name as `output`, in a temporary folder beside it. The block must create
        the directory at this path. If the block raises an exception, the directory is removed.
    """
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        part = Path(folder) / output.name
        yield part
        part.replace(output)
