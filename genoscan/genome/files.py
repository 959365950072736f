"""Functions that read plain, gzip and bgzip files. Error messages contain the name of the file."""

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

from genoscan.errors import GenoscanError, InputError

BGZIP_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""Empty block at the end of every complete bgzip file."""

_GZIP = b"\x1f\x8b"

_MAX_LINE = 1 << 20
"""Maximum length of a line of text, in characters.

The longest lines that occur in practice are rows of BED12 files, with about 10^5 characters.
"""


def check_file(path: Path) -> None:
    """Check that a path refers to a regular file, which allows random access.

    Parameters
    ----------
    path
        Any path.

    Raises
    ------
    InputError
        If the path is not a regular file.
    """
    try:
        if path.is_file():
            return
        found = "is a folder" if path.is_dir() else "is not a regular file"
        if not path.exists():
            found = "no such file"
    except OSError as problem:
        found = problem.strerror or str(problem)
    raise InputError(f"{path}: {found}, expected a file")


def compression(path: Path) -> Literal["plain", "gzip", "bgzip"]:
    """Detect the compression of a file from its first bytes, regardless of its name.

    Parameters
    ----------
    path
        Path of a regular file.

    Returns
    -------
    str
        "plain", "gzip" or "bgzip".

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    with read_errors(path), path.open("rb") as file:
        start = file.read(18)
    if not start.startswith(_GZIP):
        return "plain"
    # A bgzip block is a gzip member with an extra subfield "BC", which all writers put first.
    is_bgzip = start[3:4] == b"\x04" and start[12:16] == b"BC\x02\x00"
    return "bgzip" if is_bgzip else "gzip"


def has_bgzip_end(path: Path) -> bool:
    """Return whether a file ends with bgzip's end mark, without which it is cut off.

    Parameters
    ----------
    path
        Path of a regular file that is compressed with bgzip.

    Returns
    -------
    bool
        True if the last 28 bytes are the end mark.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    with read_errors(path), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(BGZIP_END)))
        return file.read() == BGZIP_END


def excerpt(text: str, length: int = 40) -> str:
    """Return the beginning of a text in a form that is suitable for a one-line message.

    Parameters
    ----------
    text
        Any text from a file.
    length
        Maximum number of characters to keep.

    Returns
    -------
    str
        Beginning of the text. Characters that cannot be printed are replaced, and "..." is appended if the
        text was shortened.
    """
    plain = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text[:length]
    )
    return plain + "..." * (len(text) > length)


def head(path: Path, count: int) -> bytes:
    """Return the first bytes of a file, after decompression.

    Parameters
    ----------
    path
        File, which may be compressed with gzip or bgzip.
    count
        Maximum number of bytes.

    Returns
    -------
    bytes
        First `count` bytes of the contents, or all bytes if there are fewer.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    with open_bytes(path) as file:
        return file.read(count)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Context manager that opens a file as a stream of bytes, to be read once from beginning to end.

    Parameters
    ----------
    path
        Path of a pipe or of a file, which may be compressed with gzip or bgzip.

    Yields
    ------
    file object
        Binary stream of the decompressed contents.

    Raises
    ------
    InputError
        If the file cannot be read. The error may occur when the file is opened or inside the `with` block.
    """
    with read_errors(path), path.open("rb") as file:
        if file.peek(2)[:2] != _GZIP:
            yield file
        else:
            with gzip.open(file) as unpacked:
                yield cast(BinaryIO, unpacked)


class _BoundedLines(io.TextIOWrapper):
    """Text stream that raises InputError if a line is too long, without reading the whole line."""

    def __init__(self, file: Any, path: Path) -> None:
        # A comment in another encoding must not make a file with ASCII data unreadable.
        super().__init__(cast(BinaryIO, file), encoding="utf-8-sig", errors="replace")
        self._path, self._number = path, 0

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        line = super().readline(_MAX_LINE + 1 if size is None or size < 0 else size)
        self._number += 1
        if len(line) > _MAX_LINE:
            raise InputError(
                f"{self._path}:{self._number}: found a line of more than {_MAX_LINE:,} characters, "
                "expected shorter ones; is it a file of another format?"
            )
        return line

    def __next__(self) -> str:  # type: ignore[override]
        if line := self.readline():
            return line
        raise StopIteration


@contextmanager
def open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Context manager that opens a file as a stream of text, to be read once from beginning to end.

    Parameters
    ----------
    path
        Path of a pipe or of a file, which may be compressed with gzip or bgzip.

    Yields
    ------
    file object
        Text stream of the decompressed contents, decoded as UTF-8; invalid bytes are replaced.

    Raises
    ------
    InputError
        If the file cannot be read, or a line has more than 2^20 characters. The error may occur when the
        file is opened or inside the `with` block.
    """
    with open_bytes(path) as file:
        yield _BoundedLines(cast(io.BufferedIOBase, file), path)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Context manager that converts read errors in its block into InputError.

    Parameters
    ----------
    path
        File to name in the error message.

    Raises
    ------
    InputError
        If the block raises OSError, EOFError or a decompression error.
    """
    try:
        yield
    except GenoscanError:
        raise
    except EOFError:
        raise InputError(f"{path}: the compressed data stop short: the file is cut off") from None
    except (gzip.BadGzipFile, zlib.error) as problem:
        raise InputError(f"{path}: the compressed data are damaged ({problem})") from None
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror or problem}") from None
