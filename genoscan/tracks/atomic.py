"""Atomic creation of files and directories, and error messages for failed writes.

All output files of a job are written in one transaction (see `atomic_files`). Each file is written under a
temporary name (see temporary.py), and no file is renamed before all files are complete.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from genoscan.errors import InputError, OutputError
from genoscan.temporary import Temporary, shorten, temporary

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
    errno.EEXIST: "it already exists: remove it or choose another name",
    errno.ENOTEMPTY: "it already exists: remove it or choose another name",
    errno.ELOOP: "it is a symbolic link that leads to itself: name another file",
    errno.EMFILE: "too many files are open: raise the limit, `ulimit -n`, or write fewer files at once",
    errno.ENAMETOOLONG: "the file name is too long: choose a shorter one",
}
_NAME_BYTES = 255


class AtomicFiles:
    """Transaction that, when it ends, replaces all output files of a job; see `atomic_files`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._created: dict[Path, Temporary] = {}
        self._obsolete: list[Path] = []

    def create(self, path: Path) -> Path:
        """Create the temporary file for an output file.

        Parameters
        ----------
        path
            Final path of the output file. If this path is a symbolic link, the target of the link is
            replaced, and the link is kept.

        Returns
        -------
        Path
            Path of the empty temporary file, in the same folder as the output file.

        Raises
        ------
        InputError
            If a file has already been created for this path.
        OutputError
            If the path exists but is not a regular file, or if the temporary file cannot be created or is
            being written by another process.

        Notes
        -----
        A file that describes other files, such as a record or an index, must be created after those files.
        Files are renamed in reverse order of creation. If the process crashes between two renames, readers
        can therefore detect that the files do not match.
        """
        check_regular(path)
        target = resolve(path)
        if target in self._created:
            raise InputError(f"{path}: an output is given twice: give each once")
        with os_errors(path):
            self._created[target] = self._stack.enter_context(temporary(target))
        return self._created[target].path

    def make_folder(self, path: Path) -> None:
        """Create a folder for output files of this transaction, if the folder does not exist.

        If the folder is empty at the end of the transaction, it is removed.
        """
        with os_errors(path):
            path.mkdir(exist_ok=True)
        self._stack.callback(_remove_if_empty, path)

    def current(self, path: Path) -> Path:
        """Return the temporary path of a file in this transaction, or the given path for any other file."""
        created = self._created.get(resolve(path))
        return path if created is None else created.path

    def remove(self, path: Path) -> None:
        """Schedule an obsolete file for removal, which takes place before any file is renamed."""
        self._obsolete.append(path)

    def _commit(self) -> None:
        for path in self._obsolete:
            with os_errors(path):
                path.unlink(missing_ok=True)
        for target, created in reversed(self._created.items()):
            with os_errors(target):
                created.replace(target)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def atomic_files() -> Iterator[AtomicFiles]:
    """Context manager that writes several files in one transaction.

    Yields
    ------
    AtomicFiles
        New transaction. Files that are created in the transaction are renamed to their final paths at the
        end of the `with` block.

    Raises
    ------
    OutputError
        If a file cannot be renamed or removed.

    Notes
    -----
    If an exception, including KeyboardInterrupt, is raised in the block, the temporary files are removed,
    and existing files are left unchanged. Until the last file has been renamed, an attempt by another
    process to write one of these files raises an error.
    """
    with ExitStack() as stack:
        files = AtomicFiles(stack)
        yield files
        files._commit()


@contextmanager
def joined(files: AtomicFiles | None) -> Iterator[AtomicFiles]:
    """Context manager that uses the caller's transaction or opens a new one for the `with` block.

    Parameters
    ----------
    files
        Transaction of the caller; None to open a new transaction.

    Yields
    ------
    AtomicFiles
        `files` or, if it is None, a new transaction that ends with the block.
    """
    if files is not None:
        yield files
        return
    with atomic_files() as own:
        yield own


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Context manager for writing a file atomically: a temporary file is renamed to `path` on success.

    Parameters
    ----------
    path
        Final path of the file.

    Yields
    ------
    Path
        Path of a temporary file in the same folder as `path`, so that the final rename is atomic.

    Raises
    ------
    OutputError
        If `path` exists but is not a regular file, the folder that contains it cannot be written to, or
        another process is writing the same file.

    Notes
    -----
    If an exception, including KeyboardInterrupt, is raised in the block, the temporary file is removed, and
    `path` is left unchanged.
    """
    with atomic_files() as files:
        yield files.create(path)


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Context manager that converts an OSError in its block into an OutputError with a one-line message.

    Parameters
    ----------
    path
        Path to name in the error message.

    Raises
    ------
    OutputError
        If the block raises an OSError. The message suggests a remedy if one is known; otherwise, it repeats
        the message of the operating system.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    """Return a remedy if one is known, and otherwise the message of the operating system on one line."""
    if error.errno in _REMEDIES:
        return _REMEDIES[error.errno]
    return " ".join(str(error.strerror or error).split())


@contextmanager
def atomic_directory(output: Path) -> Iterator[Path]:
    """Context manager for creating a directory atomically: a temporary directory is renamed to `output`.

    Parameters
    ----------
    output
        Final path of the directory.

    Yields
    ------
    Path
        Path with the same name as `output`, in a temporary folder beside `output`. The block must create
        the directory at this path. If the block raises an exception, the directory is removed.

    Raises
    ------
    OutputError
        If the directory cannot be renamed, or another process is creating the same directory.
    """
    target = resolve(output)
    with ExitStack() as stack:
        with os_errors(output):
            folder = stack.enter_context(temporary(target, folder=True))
        part = folder.path / output.name
        yield part
        with os_errors(output):
            part.replace(target)


def resolve(path: Path) -> Path:
    """Return a path with its symbolic links resolved, without raising an error if the links form a loop."""
    return Path(os.path.realpath(path))


def check_regular(path: Path) -> None:
    """Check that a path can be replaced by a regular file.

    Parameters
    ----------
    path
        Path of an existing or new file.

    Raises
    ------
    OutputError
        If the path is a folder, device, FIFO or socket, or its name is too long.
    """
    with os_errors(path):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            return
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: it is a folder: name a file")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path}: it is a device, FIFO or socket: name a file")


def check_writable(path: Path) -> None:
    """Check, before a computation starts, that a file can be written.

    Parameters
    ----------
    path
        Path of an existing or new file.

    Raises
    ------
    OutputError
        If the folder that contains the file does not exist or cannot be written to, or if `check_regular`
        rejects the path.
    """
    folder = resolve(path).parent
    with os_errors(path):
        missing = not folder.is_dir()
    if missing:
        raise OutputError(f"{path}: there is no folder {folder}: create it first")
    check_regular(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: no permission to write in {folder}: choose another folder")


def check_new_folder(path: Path) -> None:
    """Check that a folder can be created.

    Parameters
    ----------
    path
        Path of the new folder.

    Raises
    ------
    InputError
        If the path exists.
    OutputError
        If the folder that contains the path does not exist or cannot be written to, or if `check_regular`
        rejects the path.
    """
    if os.path.lexists(path):
        raise InputError(f"{path}: already exists: name a new folder")
    check_writable(path)


def partial_folder(output: Path) -> Path:
    """Return the path of the folder that contains the unfinished work for an output.

    Parameters
    ----------
    output
        Output file of the run, `OUT`.

    Returns
    -------
    Path
        Path `OUT.partial`, in the same folder as `OUT`. The name is shortened if it would be too long.
    """
    name = f"{output.name}.partial"
    return output.with_name(name if len(os.fsencode(name)) <= _NAME_BYTES else f"{shorten(output.name)}.partial")


def make_partial_folder(path: Path, names: Sequence[str]) -> None:
    """Create a folder for unfinished work, or check that an existing folder contains nothing else.

    Parameters
    ----------
    path
        Folder for unfinished work.
    names
        Names or glob patterns of the files that belong to unfinished work.

    Raises
    ------
    OutputError
        If the folder is a symbolic link, contains other files, or cannot be created.
    """
    if path.is_symlink():
        raise OutputError(f"{path}: is a symbolic link, expected a folder of unfinished work: name another output")
    with os_errors(path):
        path.mkdir(exist_ok=True)
        for entry in sorted(path.iterdir()):
            if entry.is_symlink() or not entry.is_file() or not any(fnmatch(entry.name, name) for name in names):
                raise OutputError(
                    f"{path}: contains {entry.name}, which is not part of unfinished work: move the folder or "
                    "name another output"
                )
