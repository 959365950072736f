"""In-memory implementation of the `Genome` protocol."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import decode
from genoscan.genome.region import unknown_sequence


class SequenceGenome:
    """Genome whose sequences are stored in memory.

    Parameters
    ----------
    sequences
        Base codes of each sequence (see `alphabet`), by sequence name.
    """

    path = Path("sequences in memory")

    def __init__(self, sequences: Mapping[str, UInt8[np.ndarray, " bases"]]) -> None:
        self.sequences = dict(sequences)
        self.sizes = {name: len(codes) for name, codes in sequences.items()}

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[np.ndarray, " bases"]:
        """Return the base codes of a 0-based, half-open interval."""
        if not 0 <= start <= end <= self._codes(chrom).size:
            raise InputError(f"bases {start:,} to {end:,} are not all in {chrom}")
        return self._codes(chrom)[start:end].copy()

    def m5(self, chrom: str) -> str:
        """Return the MD5 checksum of a sequence, as in the M5 tag of SAM headers."""
        return hashlib.md5(decode(self._codes(chrom)), usedforsecurity=False).hexdigest()

    def _codes(self, chrom: str) -> UInt8[np.ndarray, " bases"]:
        if chrom not in self.sequences:
            raise InputError(unknown_sequence(chrom, self.sizes))
        return self.sequences[chrom]
