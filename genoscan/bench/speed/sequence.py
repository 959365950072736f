"""Real bases, as many as a measurement asks for."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import decode
from genoscan.genome.genome import open_genome

FEWEST = 1_000
_STEP = 10_007
_LINE = 60


def shipped_genome() -> Path:
    """Return the example chloroplast that comes with the program."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "_data"
    return (installed if installed.is_dir() else package.parent / "data") / "chloroplast.fa"


def real_bases(path: str | Path, length: int) -> UInt8[np.ndarray, " length"]:
    """Return the first bases of a file's sequences, N left out.

    Where there are too few they are read over again, each time from 10,007 bases further on and
    round the end, so that a long window does not simply repeat a short one.

    Raises
    ------
    InputError
        If fewer than 1,000 bases are known.
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
    """Write one sequence in lines of 60."""
    letters = decode(codes)
    with path.open("wb") as file:
        file.write(b">" + name.encode() + b"\n")
        for start in range(0, len(letters), _LINE):
            file.write(letters[start : start + _LINE] + b"\n")
