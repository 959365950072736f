"""Files that people hand in: there or not, plain, gzip or bgzip."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

from genoscan.errors import InputError

BGZIP_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that ends every whole bgzip file."""

_GZIP = b"\x1f\x8b"


def check_file(path: Path) -> None:
    """Make sure that there is a regular file, which can be read in any order.

    Raises
    ------
    InputError
        If there is none.
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
    """Tell from the first bytes how the file is compressed; the name does not matter."""
    with read_errors(path), path.open("rb") as file:
        start = file.read(18)
    if not start.startswith(_GZIP):
        return "plain"
    # A bgzip block is a gzip member whose extra field is "BC"; every writer puts that one first.
    is_bgzip = start[3:4] == b"\x04" and start[12:16] == b"BC\x02\x00"
    return "bgzip" if is_bgzip else "gzip"


def head(path: Path, count: int) -> bytes:
    """Return the first bytes of the file, unpacked."""
    with open_bytes(path) as file:
        return file.read(count)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a plain, gzip or bgzip file, or a pipe, for one pass.

    Raises
    ------
    InputError
        If it cannot be read, on opening or at any time inside the `with`.
    """
    with read_errors(path), path.open("rb") as file:
        if file.peek(2)[:2] != _GZIP:
            yield file
        else:
            with gzip.open(file) as unpacked:
                yield cast(BinaryIO, unpacked)


@contextmanager
def open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a plain, gzip or bgzip file of text for one pass; as `open_bytes`."""
    with open_bytes(path) as file:
        # Notes in any old encoding must not stop a file whose data are ASCII.
        yield io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace")


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn failures to read the file into one line that names it."""
    try:
        yield
    except InputError:
        raise
    except EOFError:
        raise InputError(f"{path}: the compressed data stop short: the file is cut off") from None
    except (gzip.BadGzipFile, zlib.error) as problem:
        raise InputError(f"{path}: the compressed data are damaged ({problem})") from None
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror or problem}") from None
