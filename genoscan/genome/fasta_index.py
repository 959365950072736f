"""Lookup, validation and construction of FASTA indexes.

A .fai index lists the length of each sequence, the file offset of its first base, and the length of its
lines. If the FASTA file is compressed with bgzip, a .gzi index lists the offsets of the compressed blocks.
If an index is outdated, wrong bases are read without an error. Every index is therefore validated before
use.
"""

import hashlib
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np
import platformdirs
from Bio.bgzf import BgzfBlocks, BgzfReader, make_virtual_offset
from jaxtyping import Int64

from genoscan.errors import InputError
from genoscan.genome.fai import FaiRow, fai_rows
from genoscan.genome.files import check_file, compression, has_bgzip_end, head, read_errors
from genoscan.temporary import scratch_folder

# Raised by Biopython and numpy for damaged files.
_DAMAGE: Final = (ValueError, RuntimeError, EOFError, struct.error, zlib.error)

_HEADERS_CHECKED = 1000
_BGZIP_BLOCK = 1 << 16  # maximum size of a block, compressed or not
_BGZIP_START = b"\x1f\x8b\x08\x04"


class FastaIndex(NamedTuple):
    """Paths of the index files that belong to a FASTA file.

    Attributes
    ----------
    fai
        Path of the .fai file, which lists the sequences and their offsets.
    gzi
        Path of the .gzi file, which lists the offsets of the bgzip blocks; None if the FASTA file is not
        compressed.
    """

    fai: Path
    gzi: Path | None


class Stamp(NamedTuple):
    """Modification time and size of a file, which are compared to detect whether the file has changed.

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
        Path of a file.

    Returns
    -------
    Stamp
        Current modification time and size of the file.

    Raises
    ------
    InputError
        If the file is missing or cannot be accessed.
    """
    with read_errors(path):
        found = path.stat()
    return Stamp(found.st_mtime_ns, found.st_size)


def ensure_index(path: Path) -> FastaIndex:
    """Find a valid index of a FASTA file, or build an index if there is none.

    Parameters
    ----------
    path
        FASTA file, plain or bgzip-compressed.

    Returns
    -------
    FastaIndex
        Paths of the index files, which are in the folder of the FASTA file or in the user's cache folder. A
        new index is written to the cache folder only if it cannot be written to the folder of the FASTA
        file.

    Raises
    ------
    InputError
        If the file is not FASTA or is damaged, or if the index cannot be written.

    Notes
    -----
    An index is valid if it is not older than the FASTA file, and if its offsets and lengths are possible
    for a file of this size. In addition, the header, the end of the first line, and the last base of each
    of the first 1,000 sequences must be at the offsets that the index implies, and no bases may follow the
    last indexed base. Memory for the construction of an index: the longest line of the file.
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
    if kind == "bgzip" and not has_bgzip_end(path):
        raise InputError(f"{path}: the bgzip end mark is missing: the file is cut off; fetch or make it again")
    start = head(path, 1000).lstrip()
    if not start:
        raise InputError(f"{path}: the file is empty, expected FASTA")
    if start[:1] not in (b">", b";"):
        first = start.splitlines()[0][:40].decode("ascii", "replace")
        raise InputError(f'{path}: begins with {first!r}, expected FASTA, which begins with ">"')


def _index_paths(path: Path) -> list[FastaIndex]:
    """Return the possible paths of the index: first beside the file, then in the user's cache folder."""
    key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    cached = platformdirs.user_cache_path("genoscan") / "indexes" / f"{key}-{path.name}"
    packed = compression(path) == "bgzip"
    return [FastaIndex(Path(f"{base}.fai"), Path(f"{base}.gzi") if packed else None) for base in (path, cached)]


def _fits(path: Path, index: FastaIndex) -> bool:
    """Return whether an index is at least as new as its FASTA file and agrees with the contents of that file."""
    try:
        if not all(file.is_file() for file in index if file):
            return False
        if any(stamp(path).modified > file.stat().st_mtime_ns for file in index if file):
            return False
        rows = _read_rows(index.fai)
        with _uncompressed(path, index.gzi) as (read, size):
            return _is_possible(rows, size) and all(_comparisons(rows, read))
    except (OSError, OverflowError, MemoryError, *_DAMAGE):  # an index may contain any numbers
        return False


@contextmanager
def _uncompressed(path: Path, gzi: Path | None) -> Iterator[tuple[Callable[[int, int], bytes], int]]:
    """Context manager that yields a read function and an upper bound on the size of the decompressed file.

    The read function takes an offset in the decompressed file and a number of bytes, and returns the bytes
    at this offset. pysam is not used here, because it cannot read the bytes between two sequences.
    """
    with path.open("rb") as raw:
        file = BgzfReader(fileobj=raw, mode="rb") if gzi else raw
        blocks = _read_blocks(raw, gzi) if gzi else None
        size = int(blocks[-1, 1]) + _BGZIP_BLOCK if blocks is not None else path.stat().st_size

        def read(offset: int, count: int) -> bytes:
            if blocks is not None:
                block = blocks[np.searchsorted(blocks[:, 1], offset, "right") - 1]
                offset = make_virtual_offset(int(block[0]), offset - int(block[1]))
            file.seek(offset)
            found: bytes = file.read(count)
            return found

        yield read, size


def _read_blocks(raw: BinaryIO, gzi: Path) -> Int64[np.ndarray, "blocks 2"]:
    """Return the offset of each bgzip block in the compressed file and in the decompressed file.

    The function raises ValueError if the .gzi index is inconsistent or if no block begins at a listed
    offset.
    """
    # A .gzi file has a count, then the offsets of all blocks but the first.
    count, *numbers = np.fromfile(gzi, "<i8").tolist() or [-1]
    if len(numbers) != 2 * count:
        raise ValueError("the number of blocks is not the one stated")
    blocks = np.array([0, 0, *numbers], np.int64).reshape(-1, 2)
    steps = np.diff(blocks, axis=0)
    if (steps < [1, 0]).any() or (steps > _BGZIP_BLOCK).any():
        raise ValueError("blocks are not in order")
    for i in range(1, len(blocks), max(1, len(blocks) // _HEADERS_CHECKED)):
        raw.seek(int(blocks[i, 0]) - 4)
        # A block ends with its decompressed size.
        if raw.read(8) != int(steps[i - 1, 1]).to_bytes(4, "little") + _BGZIP_START:
            raise ValueError("no block begins at an offset")
    return blocks


class _Rows(NamedTuple):
    """Rows of an index: the names of the sequences, and one row of the other fields of `FaiRow` for each name."""

    names: list[str]
    numbers: Int64[np.ndarray, "sequences 4"]

    def row(self, index: int) -> FaiRow:
        """Return one row."""
        return FaiRow(self.names[index], *self.numbers[index].tolist())


def _read_rows(fai: Path) -> _Rows:
    """Return the rows of an index.

    The function raises ValueError if the index is damaged.
    """
    with fai.open(encoding="utf-8", newline="\n") as file:
        names = [line.partition("\t")[0] for line in file]
    if not names:
        raise ValueError("the index is empty")
    # Not by pandas, whose import would take half a second of every command.
    numbers = np.loadtxt(fai, np.int64, delimiter="\t", comments=None, usecols=range(1, 5), ndmin=2, encoding="utf-8")
    if len(names) != len(numbers):
        raise ValueError("the index has empty lines")
    return _Rows(names, numbers)


def _is_possible(rows: _Rows, size: int) -> bool:
    """Return whether the rows of an index can describe a file of `size` bytes.

    The names must differ, and the sequences must be in order, must not overlap, and must fit into the file.
    """
    if len(set(rows.names)) < len(rows.names):
        return False
    # In float64, because products of damaged numbers would overflow as integers.
    length, offset, bases, width = rows.numbers.astype(np.float64).T
    line_end = width - bases
    end = offset + length + np.ceil(length / np.maximum(bases, 1)) * line_end
    header = np.array([len(name.encode()) for name in rows.names]) + 2  # ">", the name and a line end
    return bool(
        (length >= 0).all()
        and ((bases > 0) | ((bases == 0) & (length == 0))).all()
        and (line_end >= 0).all()
        and (np.concatenate([[0], end[:-1]]) + header <= offset).all()
        and (end - line_end <= size).all()
    )


def _comparisons(rows: _Rows, read: Callable[[int, int], bytes]) -> Iterator[bool]:
    """Compare parts of a FASTA file with its index, and yield for each part whether the two agree.

    The headers, the line lengths, the last bases and the end of the file are compared. These checks are
    necessary because modification times do not reveal that a file was replaced with an older file, for
    example by `cp -p` or `rsync`.
    """
    end = 0  # of the previous sequence
    for row in map(rows.row, range(min(len(rows.names), _HEADERS_CHECKED))):
        between = read(end, row.offset - end)
        *before, header = between.splitlines() or [b""]
        yield between.endswith(b"\n") and header.startswith(b">")
        yield header[1:].split()[:1] == [row.name.encode()]
        yield all(not line.strip() or line.startswith(b";") for line in before)
        yield b"\n" not in read(row.offset, min(row.line_bases, 4096))
        line_end = read(row.offset + row.line_bases, row.line_bytes - row.line_bases)
        yield row.length <= row.line_bases or line_end.isspace()
        yield row.length == 0 or bool(read(row.last_base, 1).strip())
        end = row.end
    last = rows.row(-1)
    tail = read(max(0, last.last_base), 4096)
    yield not tail[1:].strip()
    yield last.length == 0 or bool(tail[:1].strip())


def _build(path: Path, index: FastaIndex) -> None:
    """Build an index in a temporary folder, and then move it to its final path.

    Other processes therefore never read a partially written index.
    """
    for place in index:
        if place and place.exists() and not place.is_file():
            raise OSError(f"{place} is not a regular file")
    before = stamp(path)
    # Otherwise the index of a file dated in the future would always appear outdated.
    now = max(time.time_ns(), before.modified)
    if index.fai.parent != path.parent:
        index.fai.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(index.fai.parent) as folder:
        aside = FastaIndex(folder / "fai", folder / "gzi")
        with read_errors(path), _index_errors(path):
            rows = list(fai_rows(path))
            blocks = _block_offsets(path) if index.gzi else None
        names: set[str] = set()
        for row in rows:
            if row.name in names:
                raise InputError(f'{path}: two sequences are called "{row.name}", expected each name once')
            names.add(row.name)
        if not any(row.length for row in rows):
            raise InputError(f"{path}: no bases in it, expected lines of sequence after the names")
        aside.fai.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
        if blocks is not None:
            blocks.tofile(folder / "gzi")
        if stamp(path) != before:
            raise InputError(f"{path}: changed while it was being indexed; try again")
        for made, place in zip(aside, index, strict=True):
            if made and place:
                os.utime(made, ns=(now, now))
                made.replace(place)


def _block_offsets(path: Path) -> Int64[np.ndarray, " numbers"]:
    """Return the contents of the .gzi index that bgzip would write for a file, as an array of integers.

    The first integer is the number of blocks after the first block. For each of these blocks, the offset in
    the compressed file and the offset in the decompressed file follow.
    """
    with path.open("rb") as file:
        offsets = [(start, data_start) for start, _, data_start, _ in BgzfBlocks(file)][1:-1]
    return np.array([len(offsets), *(number for pair in offsets for number in pair)], np.int64)


@contextmanager
def _index_errors(path: Path) -> Iterator[None]:
    """Context manager that converts exceptions caused by a damaged file into InputError."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as problem:
        raise InputError(f"{path}: the file is damaged ({problem})") from None
