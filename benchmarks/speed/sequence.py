"""Real bases for windows of any length."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from benchmarks import ROOT
from genoscan.errors import InputError
from genoscan.genome.alphabet import decode
from genoscan.genome.genome import open_genome

FEWEST = 1_000
_STEP = 10_007
_LINE = 60


def shipped_genome() -> Path:
    """Return the path of the example chloroplast."""
    return ROOT / "data" / "chloroplast.fa"


def real_bases(path: str | Path, length: int) -> UInt8[np.ndarray, " length"]:
    """Return the first `length` bases of a file's sequences without N, as codes 0 to 3.

    A file that is too short is repeated, rotated by a further 10,007 bases each time, so that a
    long window is not a plain repeat of a short one.

    Raises
    ------
    InputError
        If the file has fewer than `length` and fewer than 1,000 such bases.
    """
    genome = open_genome(path)
    found: list[np.ndarray] = []
    for chrom, size in genome.sizes.items():
        codes = genome.fetch(chrom, 0, size)
        found.append(codes[codes < 4])
        if sum(map(len, found)) >= length:
            break
    bases = np.concatenate([np.empty(0, np.uint8), *found])
    if len(bases) < min(length, FEWEST):
        raise InputError(f"{path}: holds {len(bases):,} A, C, G, T, expected at least {FEWEST:,}")
    turns = -(-length // len(bases))
    return np.concatenate([np.roll(bases, -turn * _STEP) for turn in range(turns)])[:length]


def write_fasta(path: Path, name: str, codes: UInt8[np.ndarray, " bases"]) -> None:
    """Write one sequence as FASTA in lines of 60."""
    letters = decode(codes)
    with path.open("wb") as file:
        file.write(b">" + name.encode() + b"\n")
        for start in range(0, len(letters), _LINE):
            file.write(letters[start : start + _LINE] + b"\n")
