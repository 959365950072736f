"""Files that appear whole or not at all, and what to say when they cannot."""

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
    errno.ENOENT: "the folder does not exist: make it first",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder: name a file",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path to write to; what is there becomes `path` if the block succeeds.

    The file to write lies in the same folder, so that it can take `path`'s name in one step.
    Whatever ends the block early, Ctrl-C too, removes it and leaves `path` as it was.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    target = path.resolve()
    with os_errors(path):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
    # Always the same name: what a kill leaves behind, the next run takes over. Cut short, so that
    # a name of the greatest length still has a neighbour.
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
    """Turn the operating system's refusal to write `path` into an OutputError of one line."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    """Return what the user can do, or else what the system said, on one line."""
    if error.errno in _REMEDIES:
        return _REMEDIES[error.errno]
    return " ".join(str(error.strerror or error).split())


@contextmanager
def atomic_directory(output: Path) -> Iterator[Path]:
    """Yield a folder of the same name to fill; it takes `output`'s place once it is whole."""
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        made = Path(folder) / output.name
        yield made
        made.replace(output)
