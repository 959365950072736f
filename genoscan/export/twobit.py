"""Writer for .2bit, a format of the UCSC Genome Browser that stores genomes with two bits per base.

All numbers are little-endian uint32, except for the lengths of names, which are uint8. The file
contains a header, an index of names and offsets, and one record per sequence. A record contains the
length of the sequence, the runs of N, an empty list of masked intervals, and the bases. Each byte encodes
four bases, the first of them in the two most significant bits. An N is encoded like a T.

Reference: genome.ucsc.edu/FAQ/FAQformat.html, ".2bit".
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import N
from genoscan.genome.genome import Genome
from genoscan.tracks.atomic import AtomicFiles, joined, os_errors

_SIGNATURE = 0x1A412743
_LIMIT = 1 << 32
_PIECE = 1 << 22
_BITS = np.array([2, 1, 3, 0, 0], np.uint8)
"""Two-bit codes of A, C, G, T and N, in this order; the code of N is that of T."""


def write_two_bit(
    output: Path, genome: Genome, files: AtomicFiles | None = None, *, renamed: Mapping[str, str] | None = None
) -> None:
    """Write all sequences of a genome to a .2bit file, without soft-masking.

    Parameters
    ----------
    output
        File to write.
    genome
        Genome to write.
    files
        Transaction in which the file is written; an existing file is replaced when the transaction ends.
        If None, an existing file is replaced as soon as the new file is complete.
    renamed
        New names of sequences, by their names in the genome. All other sequences keep their names.

    Raises
    ------
    InputError
        If the format cannot represent the genome, because a name is longer than 255 bytes or the file
        would be 4 GiB or larger.
    OutputError
        If the file cannot be written.

    Notes
    -----
    Memory is needed for about 4 million bases at a time, and 16 bytes for each run of N.
    """
    runs = {name: _runs_of_n(genome, name) for name in genome.sizes}
    names = [(renamed or {}).get(name, name).encode() for name in genome.sizes]
    at = 16 + sum(5 + len(name) for name in names)
    offsets = []
    for name, size in genome.sizes.items():
        offsets.append(at)
        at += 16 + 8 * len(runs[name][0]) + -(-size // 4)
    if max(map(len, names)) > 255 or at >= _LIMIT:
        raise InputError(
            f"{genome.path}: too large for .2bit, expected names of up to 255 bytes and less than "
            "4 GiB: if UCSC has the assembly, name it (--assembly hg38)"
        )
    with joined(files) as together, os_errors(output), together.create(output).open("wb") as file:
        file.write(struct.pack("<4I", _SIGNATURE, 0, len(names), 0))
        for encoded, offset in zip(names, offsets, strict=True):
            file.write(struct.pack("<B", len(encoded)) + encoded + struct.pack("<I", offset))
        for name in genome.sizes:
            _write_sequence(file, genome, name, *runs[name])


def _write_sequence(
    file: BinaryIO, genome: Genome, name: str, starts: Int64[np.ndarray, " runs"], sizes: Int64[np.ndarray, " runs"]
) -> None:
    file.write(struct.pack("<2I", genome.sizes[name], len(starts)))
    file.write(starts.astype("<u4").tobytes() + sizes.astype("<u4").tobytes())
    file.write(struct.pack("<2I", 0, 0))  # number of masked intervals; reserved
    for piece in _pieces(genome, name):  # each a multiple of four bases, except for the last
        bits = np.zeros((-(-len(piece) // 4), 4), np.uint8)
        bits.reshape(-1)[: len(piece)] = _BITS[piece]
        file.write((bits << np.array([6, 4, 2, 0], np.uint8)).sum(1, dtype=np.uint8).tobytes())


def _runs_of_n(genome: Genome, name: str) -> tuple[Int64[np.ndarray, " runs"], Int64[np.ndarray, " runs"]]:
    """Return the start positions and the lengths of the runs of N in a sequence."""
    edges, at, before = [], 0, False
    for piece in _pieces(genome, name):
        is_n = np.concatenate([[before], piece == N])
        edges.append(np.flatnonzero(is_n[1:] != is_n[:-1]) + at)
        at, before = at + len(piece), bool(is_n[-1])
    boundaries = np.concatenate([*edges, [at] if before else []]).astype(np.int64)
    return boundaries[0::2], boundaries[1::2] - boundaries[0::2]


def _pieces(genome: Genome, name: str) -> Iterator[UInt8[np.ndarray, " bases"]]:
    size = genome.sizes[name]
    for start in range(0, size, _PIECE):
        yield genome.fetch(name, start, min(size, start + _PIECE))
