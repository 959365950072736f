"""A genome as UCSC's browser wants one that it does not have: .2bit, two bits a base.

All numbers are little-endian uint32.  A header; an index of names and offsets; and for each
sequence its length, where its runs of N are, no masks, and its bases, four a byte, first one
highest, N as T (genome.ucsc.edu/FAQ/FAQformat.html, ".2bit").
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import N
from genoscan.genome.genome import Genome
from genoscan.tracks.atomic import atomic_write, os_errors

_SIGNATURE = 0x1A412743
_LIMIT = 1 << 32
_PIECE = 1 << 22
_BITS = np.array([2, 1, 3, 0, 0], np.uint8)
"""T, C, A, G are 0 to 3; here bases are A, C, G, T, N."""


def write_two_bit(output: Path, genome: Genome) -> None:
    """Write all sequences of a genome; lower case is not kept.

    Memory: 4 MB of bases at a time, and 16 bytes a run of N.

    Raises
    ------
    InputError
        If the format cannot hold it: a name over 255 bytes, or 4 GiB and more.
    OutputError
        If the file cannot be written.
    """
    runs = {name: _runs_of_n(genome, name) for name in genome.sizes}
    names = [name.encode() for name in genome.sizes]
    at = 16 + sum(5 + len(name) for name in names)
    offsets = []
    for name, size in genome.sizes.items():
        offsets.append(at)
        at += 16 + 8 * len(runs[name][0]) + -(-size // 4)
    if max(map(len, names)) > 255 or at >= _LIMIT:
        raise InputError(
            f"{genome.path}: a .2bit has names of 255 bytes at most and less than 4 GiB: name the "
            "assembly if UCSC has it (--assembly hg38)"
        )
    with atomic_write(output) as part, os_errors(output), part.open("wb") as file:
        file.write(struct.pack("<4I", _SIGNATURE, 0, len(names), 0))
        for encoded, offset in zip(names, offsets, strict=True):
            file.write(struct.pack("<B", len(encoded)) + encoded + struct.pack("<I", offset))
        for name in genome.sizes:
            _write_sequence(file, genome, name, *runs[name])


def _write_sequence(
    file: BinaryIO, genome: Genome, name: str, starts: Int64[np.ndarray, " runs"],
    sizes: Int64[np.ndarray, " runs"],
) -> None:  # fmt: skip
    file.write(struct.pack("<2I", genome.sizes[name], len(starts)))
    file.write(starts.astype("<u4").tobytes() + sizes.astype("<u4").tobytes())
    file.write(struct.pack("<2I", 0, 0))  # masks; reserved
    for piece in _pieces(genome, name):  # of whole bytes, but for the last
        bits = np.zeros((-(-len(piece) // 4), 4), np.uint8)
        bits.reshape(-1)[: len(piece)] = _BITS[piece]
        file.write((bits << np.array([6, 4, 2, 0], np.uint8)).sum(1, dtype=np.uint8).tobytes())


def _runs_of_n(
    genome: Genome, name: str
) -> tuple[Int64[np.ndarray, " runs"], Int64[np.ndarray, " runs"]]:
    """Return where the runs of N begin, and how long they are."""
    edges, at, before = [], 0, False
    for piece in _pieces(genome, name):
        is_n = np.concatenate([[before], piece == N])
        edges.append(np.flatnonzero(is_n[1:] != is_n[:-1]) + at)
        at, before = at + len(piece), bool(is_n[-1])
    both = np.concatenate([*edges, [at] if before else []]).astype(np.int64)
    return both[0::2], both[1::2] - both[0::2]


def _pieces(genome: Genome, name: str) -> Iterator[UInt8[np.ndarray, " bases"]]:
    size = genome.sizes[name]
    for start in range(0, size, _PIECE):
        yield genome.fetch(name, start, min(size, start + _PIECE))
