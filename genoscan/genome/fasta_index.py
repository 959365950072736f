"""The index beside a FASTA file: found, checked, made again when it no longer fits.

An index gives, for each sequence, its length, where its first base lies in the file and how long
its lines are (.fai); for bgzip files also where each compressed block starts (.gzi). An index of
an older FASTA file reads wrong bases without any sign of it, so none is used unchecked.
"""

import hashlib
import os
import re
import struct
import tempfile
import time
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import platformdirs
import pyfaidx

from genoscan.errors import InputError
from genoscan.genome.files import BGZIP_END, check_file, compression, head, reading

# What damaged or foreign bytes make of the readers below.
DAMAGE: Final = (ValueError, RuntimeError, EOFError, struct.error, zlib.error)

_HEADERS_CHECKED = 1000
_UNEVEN_LINE = re.compile(r"found in >(?P<name>.*) at line (?P<line>\d+)")
_NAMELESS = re.compile(r"Bad sequence name .* at line (?P<line>\d+)", re.DOTALL)


class FastaIndex(NamedTuple):
    """Where an index lies; `gzi` is written for bgzip files only."""

    fai: Path
    gzi: Path


class Stamp(NamedTuple):
    """What changes when a file is written to; times in nanoseconds."""

    modified: int
    size: int


def stamp(path: Path) -> Stamp:
    """Return the file's stamp."""
    with reading(path):
        found = path.stat()
    return Stamp(found.st_mtime_ns, found.st_size)


def ensure_index(path: Path) -> FastaIndex:
    """Return an index that fits the FASTA file, made now if there is none.

    It lies beside the file, or in the user's cache folder where that one cannot be written.
    Making one holds the file's longest line in memory.

    Raises
    ------
    InputError
        If the file is no FASTA file, cannot be indexed, or is damaged.
    """
    _check_fasta(path)
    places = [FastaIndex(Path(f"{path}.fai"), Path(f"{path}.gzi")), _place_in_cache(path)]
    for index in places:
        if _fits(path, index):
            return index
    for index in places:
        try:
            _build(path, index)
            return index
        except OSError as problem:
            reason = problem.strerror or str(problem)
    raise InputError(
        f"{path}: no index, and none can be written to {places[0].fai.parent} or "
        f"{places[1].fai.parent} ({reason}); make one with samtools faidx"
    )


def open_indexed(path: Path, index: FastaIndex) -> pyfaidx.Faidx:
    """Open the file with that index as it is, for one process and one thread."""
    return pyfaidx.Faidx(
        str(path),
        indexname=str(index.fai),
        gzi_indexname=str(index.gzi),
        strict_bounds=True,
        rebuild=False,
        build_index=False,
    )


def read_at(faidx: pyfaidx.Faidx, position: int, count: int) -> bytes:
    """Return bytes of the unpacked file, fewer at its end.

    pyfaidx has the same inside, but decodes them, and cannot point at a block's end where blocks
    hold 65,536 bytes, as some writers make them.
    """
    if faidx._bgzf:
        blocks = faidx.gzi_index
        block = blocks[bisect_right(blocks, position, key=lambda block: block.ustart) - 1]
        if position - block.ustart > 0xFFFF:
            return b""
        faidx.file.seek(block.cstart << 16 | position - block.ustart)
    else:
        faidx.file.seek(position)
    found: bytes = faidx.file.read(count)
    return found


def position_of(record: Any, base: int) -> int:
    """Return where a 0-based base of an indexed sequence lies in the unpacked file."""
    if record.lenc == 0:
        return int(record.offset)
    lines, column = divmod(base, record.lenc)
    return int(record.offset + lines * record.lenb + column)


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
        raise InputError(
            f"{path}: the bgzip end mark is missing: the file is cut off; fetch or make it again"
        )
    start = head(path, 1000).lstrip()
    if not start:
        raise InputError(f"{path}: the file is empty, expected FASTA")
    if start[:1] not in (b">", b";"):
        first = start.splitlines()[0][:40].decode("ascii", "replace")
        raise InputError(f'{path}: begins with {first!r}, expected FASTA, which begins with ">"')


def _ends_whole(path: Path) -> bool:
    with reading(path), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(BGZIP_END)))
        return file.read() == BGZIP_END


def _place_in_cache(path: Path) -> FastaIndex:
    key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    folder = platformdirs.user_cache_path("genoscan") / "indexes"
    return FastaIndex(folder / f"{key}-{path.name}.fai", folder / f"{key}-{path.name}.gzi")


def _fits(path: Path, index: FastaIndex) -> bool:
    """Tell whether the index is as young as the file, and the sequences lie where it says."""
    files = index if compression(path) == "bgzip" else [index.fai]
    try:
        if any(stamp(path).modified > file.stat().st_mtime_ns for file in files):
            return False
        faidx = open_indexed(path, index)
    except (OSError, *DAMAGE):
        return False
    try:
        return bool(faidx.index) and all(_agreements(faidx))
    except (OSError, *DAMAGE):
        return False
    finally:
        faidx.close()


def _agreements(faidx: pyfaidx.Faidx) -> Iterator[bool]:
    """Compare the headers, and the file's end, with where the index has them.

    Times alone miss a file that was replaced by one with an older time, as cp -p and rsync do.
    """
    end = 0
    for name, record in islice(faidx.index.items(), _HEADERS_CHECKED):
        between = read_at(faidx, end, max(0, record.offset - end))
        *before, header = between.splitlines() or [b""]
        yield between.endswith(b"\n") and header.startswith(b">")
        yield header[1:].split()[:1] == [name.encode()]
        yield all(not line.strip() or line.startswith(b";") for line in before)
        end = _end_of(record)
    last = next(reversed(faidx.index.values()))
    yield not read_at(faidx, _end_of(last), 4096).strip()
    yield last.rlen == 0 or bool(read_at(faidx, _end_of(last) - 1, 1).strip())


def _end_of(record: Any) -> int:
    return position_of(record, record.rlen - 1) + 1 if record.rlen else int(record.offset)


@contextmanager
def _scratch_folder(beside: Path) -> Iterator[Path]:
    """Give a folder on the same disk; an OSError where nothing can be written."""
    with tempfile.TemporaryDirectory(prefix=".genoscan-", dir=beside) as folder:
        yield Path(folder)


def _build(path: Path, index: FastaIndex) -> None:
    """Make the index aside and move it into place whole: other processes may be reading."""
    before = stamp(path)
    if index.fai.parent != path.parent:
        index.fai.parent.mkdir(parents=True, exist_ok=True)
    with _scratch_folder(index.fai.parent) as folder:
        aside = FastaIndex(folder / "fai", folder / "gzi")
        with _explained(path):
            faidx = pyfaidx.Faidx(str(path), indexname=str(aside.fai), gzi_indexname=str(aside.gzi))
            faidx.close()
        if not any(record.rlen for record in faidx.index.values()):
            raise InputError(f"{path}: no bases in it, expected lines of sequence after the names")
        if stamp(path) != before:
            raise InputError(f"{path}: changed while it was being indexed; try again")
        # A file dated in the future must not make its index look old for ever.
        now = max(time.time_ns(), before.modified)
        for made, place in zip(aside, index, strict=True):
            if made.exists():
                os.utime(made, ns=(now, now))
                made.replace(place)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what pyfaidx says about a file into one line."""
    try:
        yield
    except pyfaidx.FastaIndexingError as problem:
        uneven = _UNEVEN_LINE.search(str(problem))
        nameless = _NAMELESS.search(str(problem))
        if nameless is not None:
            line = int(nameless["line"]) + 1  # counted from 0 there
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
    except DAMAGE as problem:
        twice = re.fullmatch(r'Duplicate key "(.*)"', str(problem))
        if twice is not None:
            raise InputError(
                f'{path}: two sequences are called "{twice[1]}", expected each name once'
            ) from None
        raise InputError(f"{path}: the file is damaged ({problem})") from None
