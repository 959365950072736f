"""Indexed reader for plain and bgzip-compressed FASTA files."""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pysam
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import encode
from genoscan.genome.fai import TOO_LONG
from genoscan.genome.fasta_index import ensure_index, stamp
from genoscan.genome.region import unknown_sequence

_PIECE = 1 << 20  # number of bases per read

# The M5 tag of SAM is the MD5 checksum of the printable characters, converted to upper case.
_UPPER: Final = bytes(range(256)).upper()
_NOT_PRINTABLE: Final = bytes(code for code in range(256) if not 33 <= code <= 126)


class FastaGenome:
    """Indexed FASTA file that several threads and forked processes can read concurrently.

    Parameters
    ----------
    path
        FASTA file, plain or bgzip-compressed.

    Raises
    ------
    InputError
        If the file is not FASTA, is damaged, cannot be indexed, or contains a sequence of 2^31 - 1 bases or
        more.

    Notes
    -----
    If no valid index exists, an index is built (see `fasta_index`). Each thread of each process opens the
    file separately, because a file handle has only one read position.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._index = ensure_index(self.path)
        self._stamp = stamp(self.path)
        self._local = threading.local()
        file = self._file()
        self.sizes: dict[str, int] = dict(zip(file.references, file.lengths, strict=True))
        for chrom, size in self.sizes.items():
            if size >= TOO_LONG:
                raise InputError(f"{self.path}: {chrom} is too long, expected fewer than {TOO_LONG:,} bases; split it")

    def __repr__(self) -> str:
        return f"FastaGenome({str(self.path)!r})"

    def __reduce__(self) -> tuple[type["FastaGenome"], tuple[Path]]:
        return FastaGenome, (self.path,)

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[np.ndarray, " bases"]:
        """Return the base codes of an interval (see `Genome.fetch`).

        Parameters
        ----------
        chrom
            Name of a sequence.
        start, end
            Bounds of the interval, 0-based and half-open.

        Returns
        -------
        array of shape (end - start,)
            Base codes, one byte per base.

        Raises
        ------
        InputError
            If the interval is not within a sequence of the genome, a letter is not an IUPAC nucleotide
            code, or the file is damaged or has changed since it was opened.

        Notes
        -----
        Memory: one byte per base of the interval, plus a few megabytes.
        """
        codes = np.empty(max(0, end - start), np.uint8)
        filled = 0
        for letters in self._letters(chrom, start, end):
            piece = encode(letters, record=f"{self.path}: {chrom}", offset=start + filled)
            codes[filled : filled + len(piece)] = piece
            filled += len(piece)
        return codes

    def m5(self, chrom: str) -> str:
        """Return the MD5 checksum of a sequence (see `Genome.m5`).

        Parameters
        ----------
        chrom
            Name of a sequence.

        Returns
        -------
        str
            32 hexadecimal digits.

        Raises
        ------
        InputError
            If the genome has no sequence of this name, or the file is damaged or has changed since it was
            opened.

        Notes
        -----
        Memory: a few megabytes, regardless of the sequence length.
        """
        digest = hashlib.md5(usedforsecurity=False)
        for letters in self._letters(chrom, 0, self.sizes.get(chrom, 0)):
            digest.update(letters.translate(_UPPER, _NOT_PRINTABLE))
        return digest.hexdigest()

    def _file(self) -> pysam.FastaFile:
        if stamp(self.path) != self._stamp:
            raise InputError(f"{self.path}: changed while it was being read; start again")
        if getattr(self._local, "process", None) != os.getpid():
            # Errors are raised as exceptions; suppress the messages that htslib would also print.
            pysam.set_verbosity(0)
            try:
                self._local.file = pysam.FastaFile(
                    # An absolute path is never interpreted as a URL or as standard input.
                    str(self.path.absolute()),
                    filepath_index=str(self._index.fai),
                    filepath_index_compressed=str(self._index.gzi) if self._index.gzi else None,
                )
            except (OSError, ValueError) as problem:
                raise InputError(f"{self.path}: cannot be opened with its index {self._index.fai}: {problem}") from None
            self._local.process = os.getpid()
        file: pysam.FastaFile = self._local.file
        return file

    def _letters(self, chrom: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the letters from `start` to `end` in pieces, without changing their case."""
        if chrom not in self.sizes:
            raise InputError(f"{self.path}: {unknown_sequence(chrom, self.sizes)}")
        if not 0 <= start <= end <= self.sizes[chrom]:
            raise InputError(
                f"{self.path}: asked for bases {start:,} to {end:,} of {chrom} (0-based), "
                f"which has {self.sizes[chrom]:,}"
            )
        file = self._file()
        for first in range(start, end, _PIECE):
            last = min(first + _PIECE, end)
            try:
                letters = file.fetch(chrom, first, last).encode()
                if len(letters) != last - first:
                    raise ValueError("zero byte")
            except (OSError, ValueError) as problem:
                raise InputError(
                    f"{self.path}: {chrom} cannot be read: bases {first + 1:,} to {last:,} are "
                    f"damaged or not where the index has them ({problem})"
                ) from None
            yield letters
