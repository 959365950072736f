"""Lookup, validation and construction of FASTA indexes.

A .fai index lists the length of each sequence, the file offset of its first base and the length of
its lines. For a bgzip file, a .gzi index also lists the offset of each compressed block. An outdated
index yields wrong bases without an error, so every index is validated before use.
"""

import hashlib
import os
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import platformdirs
import pyfaidx
from Bio.bgzf import BgzfReader, make_virtual_offset

from genoscan.errors import InputError
from genoscan.genome.files import BGZIP_END, check_file, compression, head, read_errors
from genoscan.temporary import scratch_folder

# Raised by Biopython, pyfaidx and numpy for damaged files.
_DAMAGE: Final = (ValueError, RuntimeError, EOFError, struct.error, zlib.error)

_HEADERS_CHECKED = 1000
_UNEVEN_LINE = re.compile(r"found in >(?P<name>.*) at line (?P<line>\d+)")
_NAMELESS = re.compile(r"Bad sequence name .* at line (?P<line>\d+)", re.DOTALL)


class FastaIndex(NamedTuple):
    """Paths of the index files.

    Attributes
    ----------
    fai
        File with the offsets of the sequences.
    gzi
        File with the offsets of the bgzip blocks; None if the FASTA file is not compressed.
    """

    fai: Path
    gzi: Path | None


class Stamp(NamedTuple):
    """Modification time and size of a file, compared to detect changes.

    Attributes
    ----------
    modified
        Time of the last modification, in nanoseconds since the epoch.
    size
        Size in bytes.
    """

    modified: int
    size: int


def stamp(path: Path) -> Stamp:
    """Return the modification time and size of a file.

    Parameters
    ----------
    path
        Any file.

    Returns
    -------
    Stamp
        Current modification time and size.

    Raises
    ------
    InputError
        If the file is missing or not accessible.
    """
    with read_errors(path):
        found = path.stat()
    return Stamp(found.st_mtime_ns, found.st_size)


def ensure_index(path: Path) -> FastaIndex:
    """Return a valid index of a FASTA file, building one if necessary.

    Parameters
    ----------
    path
        FASTA file, plain or bgzip.

    Returns
    -------
    FastaIndex
        Index beside the FASTA file, or in the user's cache folder if the file's folder is not
        writable.

    Raises
    ------
    InputError
        If the file is not FASTA or is damaged, or if no index can be written.

    Notes
    -----
    An index is valid if it is no older than the file, the headers and first line ends of the first
    1,000 sequences are at the offsets implied by the index, and the file ends after the last
    indexed base. Memory: the longest line of the file, while an index is built.
    """
    _check_fasta(path)
    candidates = _index_paths(path)
    for index in candidates:
        if _fits(path, index):
            return index
    for index in candidates:
        try:
            _build(path, index)
            return index
        except OSError as problem:
            reason = problem.strerror or str(problem)
    raise InputError(
        f"{path}: no index, and none can be written to {candidates[0].fai.parent} or "
        f"{candidates[1].fai.parent} ({reason}); make one with samtools faidx"
    )


def _check_fasta(path: Path) -> None:
    check_file(path)
    kind = compression(path)
    if kind == "gzip":
        raise InputError(
            f"{path}: compressed with gzip, which can only be read from the start, expected "
            f"bgzip; run: gunzip -c {path.name} | bgzip > NEW.fa.gz"
        )
    named_gz = path.suffix.lower() in (".gz", ".bgz")
    if named_gz != (kind == "bgzip"):
        found = "is compressed with bgzip" if kind == "bgzip" else "is not compressed"
        wish = f"{path.name}.gz" if kind == "bgzip" else path.stem
        raise InputError(f"{path}: {found}, which its name does not say; rename it to {wish}")
    if kind == "bgzip" and not _ends_whole(path):
        raise InputError(f"{path}: the bgzip end mark is missing: the file is cut off; fetch or make it again")
    start = head(path, 1000).lstrip()
    if not start:
        raise InputError(f"{path}: the file is empty, expected FASTA")
    if start[:1] not in (b">", b";"):
        first = start.splitlines()[0][:40].decode("ascii", "replace")
        raise InputError(f'{path}: begins with {first!r}, expected FASTA, which begins with ">"')


def _ends_whole(path: Path) -> bool:
    with read_errors(path), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(BGZIP_END)))
        return file.read() == BGZIP_END


def _index_paths(path: Path) -> list[FastaIndex]:
    """Return the candidate index paths: beside the file, then in the user's cache folder."""
    key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    cached = platformdirs.user_cache_path("genoscan") / "indexes" / f"{key}-{path.name}"
    packed = compression(path) == "bgzip"
    return [FastaIndex(Path(f"{base}.fai"), Path(f"{base}.gzi") if packed else None) for base in (path, cached)]


def _fits(path: Path, index: FastaIndex) -> bool:
    """Return whether the index is no older than the file and agrees with its content."""
    try:
        if not all(file.is_file() for file in index if file):
            return False
        if any(stamp(path).modified > file.stat().st_mtime_ns for file in index if file):
            return False
        with pyfaidx.Faidx(path, index.fai, gzi_indexname=index.gzi, rebuild=False, build_index=False) as faidx:
            records = faidx.index
        with _uncompressed(path, index.gzi) as read:
            return bool(records) and all(_comparisons(records, read))
    except (OSError, *_DAMAGE):
        return False


@contextmanager
def _uncompressed(path: Path, gzi: Path | None) -> Iterator[Callable[[int, int], bytes]]:
    """Yield a function `read(offset, count)` that returns bytes of the decompressed file.

    Neither pyfaidx nor pysam can read the bytes between two sequences.
    """
    with path.open("rb") as raw:
        file = BgzfReader(fileobj=raw, mode="rb") if gzi else raw
        # A .gzi file contains a count, then the compressed and decompressed offset of each block except the first.
        blocks = np.append([0, 0], np.fromfile(gzi, "<i8")[1:]).reshape(-1, 2) if gzi else None

        def read(offset: int, count: int) -> bytes:
            if blocks is not None:
                block = blocks[np.searchsorted(blocks[:, 1], offset, "right") - 1]
                offset = make_virtual_offset(int(block[0]), offset - int(block[1]))
            file.seek(offset)
            found: bytes = file.read(count)
            return found

        yield read


def _comparisons(records: dict[str, pyfaidx.IndexRecord], read: Callable[[int, int], bytes]) -> Iterator[bool]:
    """Yield the results of comparing headers, line lengths and the end of the file with the index.

    Modification times do not reveal that a file was replaced by an older one, for example with
    `cp -p` or `rsync`.
    """
    for name, record in islice(records.items(), _HEADERS_CHECKED):
        between = read(record.prev_bend, max(0, record.offset - record.prev_bend))
        *before, header = between.splitlines() or [b""]
        yield between.endswith(b"\n") and header.startswith(b">")
        yield header[1:].split()[:1] == [name.encode()]
        yield all(not line.strip() or line.startswith(b";") for line in before)
        yield b"\n" not in read(record.offset, min(record.lenc, 4096))
        line_end = read(record.offset + record.lenc, max(0, record.lenb - record.lenc))
        yield record.rlen <= record.lenc or line_end.isspace()
    last = next(reversed(records.values()))
    end = last.bend - (last.lenb - last.lenc)  # bend includes the line end
    tail = read(max(0, end - 1), 4096)
    yield not tail[1:].strip()
    yield last.rlen == 0 or bool(tail[:1].strip())


def _build(path: Path, index: FastaIndex) -> None:
    """Build the index in a temporary folder, then move it into place.

    Other processes therefore never read a partially written file.
    """
    for place in index:
        if place and place.exists() and not place.is_file():
            raise OSError(f"{place} is not a regular file")
    before = stamp(path)
    if index.fai.parent != path.parent:
        index.fai.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(index.fai.parent) as folder:
        aside = FastaIndex(folder / "fai", folder / "gzi")
        with _index_errors(path):
            faidx = pyfaidx.Faidx(path, aside.fai, gzi_indexname=aside.gzi)
            faidx.close()
        if not any(record.rlen for record in faidx.index.values()):
            raise InputError(f"{path}: no bases in it, expected lines of sequence after the names")
        if stamp(path) != before:
            raise InputError(f"{path}: changed while it was being indexed; try again")
        # If the file is dated in the future, an index with the current time would always appear outdated.
        now = max(time.time_ns(), before.modified)
        for made, place in zip(aside, index, strict=True):
            if made and place:
                os.utime(made, ns=(now, now))
                made.replace(place)


@contextmanager
def _index_errors(path: Path) -> Iterator[None]:
    """Convert pyfaidx's errors to InputError."""
    try:
        yield
    except pyfaidx.FastaIndexingError as problem:
        uneven = _UNEVEN_LINE.search(str(problem))
        nameless = _NAMELESS.search(str(problem))
        if nameless is not None:
            line = int(nameless["line"]) + 1  # pyfaidx counts this line from 0
            raise InputError(f'{path}:{line}: found no name after ">", expected one') from None
        if uneven is None:
            reason = " ".join(str(problem).split()).rstrip(".")
            raise InputError(f"{path}: not FASTA: {reason}") from None
        raise InputError(
            f"{path}:{uneven['line']}: a line of {uneven['name']} differs in length from its "
            f"others, expected that of the last line only; wrap the lines again"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: found bytes that are no text, expected FASTA") from None
    except _DAMAGE as problem:
        twice = re.fullmatch(r'Duplicate key "(.*)"', str(problem))
        if twice is not None:
            raise InputError(f'{path}: two sequences are called "{twice[1]}", expected each name once') from None
        raise InputError(f"{path}: the file is damaged ({problem})") from None
