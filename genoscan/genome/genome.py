"""Protocol for genomes, and a function that opens genome files."""

import re
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.fai import FaiGenome
from genoscan.genome.fasta import FastaGenome
from genoscan.genome.files import check_file, head
from genoscan.genome.genbank import GenBankGenome


@runtime_checkable
class Genome(Protocol):
    """Protocol for a genome, which consists of named sequences of bases.

    Intervals of a sequence are 0-based and half-open.

    Attributes
    ----------
    path
        Path of the genome file.
    sizes
        Length of each sequence in bases, by name. The sequences are in the order of the file.
    """

    path: Path
    sizes: dict[str, int]

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[np.ndarray, " bases"]:
        """Return the base codes of an interval.

        Parameters
        ----------
        chrom
            Name of a sequence.
        start, end
            Bounds of the interval, 0-based and half-open.

        Returns
        -------
        array of shape (end - start,)
            Base codes (see `alphabet`), one byte per base.

        Raises
        ------
        InputError
            If the interval is not within a sequence of the genome, a letter is not an IUPAC nucleotide
            code, or the file cannot be read.
        """
        ...

    def m5(self, chrom: str) -> str:
        """Return the MD5 checksum of a sequence, as in the M5 tag of SAM headers.

        Parameters
        ----------
        chrom
            Name of a sequence.

        Returns
        -------
        str
            Checksum as 32 hexadecimal digits. It does not depend on the case of the letters or on the
            lengths of the lines in the file.

        Raises
        ------
        InputError
            If the genome has no sequence of this name, or the file cannot be read.
        """
        ...


def open_genome(path: str | Path) -> Genome:
    """Open a genome file in any supported format, which is detected from the contents of the file.

    Parameters
    ----------
    path
        FASTA file (plain or bgzip-compressed), GenBank file (plain or gzip-compressed), or FASTA index
        (.fai). An index contains no bases, but it is sufficient for planning a run.

    Returns
    -------
    Genome
        FastaGenome, GenBankGenome or FaiGenome, depending on the format.

    Raises
    ------
    InputError
        If the file is missing, damaged or in an unsupported format.
    """
    path = Path(path)
    check_file(path)
    start = head(path, 1 << 14).lstrip()
    if start[:1] in (b">", b";"):
        return FastaGenome(path)
    # GenBank release files begin with title lines, so LOCUS may be on a later line.
    if re.search(rb"^LOCUS\s", start, re.MULTILINE):
        return GenBankGenome(path)
    if not start:
        raise InputError(f"{path}: the file is empty, expected FASTA or GenBank")
    if re.match(rb"[^\t\n]+(\t\d+){4,5}\r?\n", start):
        return FaiGenome(path)
    first = start.splitlines()[0][:40].decode("ascii", "replace")
    raise InputError(f'{path}: begins with {first!r}, expected FASTA (">") or GenBank ("LOCUS")')
