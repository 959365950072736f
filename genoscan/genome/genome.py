"""What every kind of genome file offers, and the one door to all of them."""

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
    """Named sequences of bases; positions are 0-based, half-open."""

    path: Path
    sizes: dict[str, int]
    """The sequences and their lengths, in the file's order."""

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[np.ndarray, " bases"]:
        """Return the codes of a stretch, one byte a base (`alphabet`)."""
        ...

    def m5(self, chrom: str) -> str:
        """Return the checksum of a sequence, as M5 in SAM headers."""
        ...


def open_genome(path: str | Path) -> Genome:
    """Open a FASTA file (plain or bgzip), a GenBank file (plain or gzip), or a .fai to plan with.

    The content decides, not the name.

    Raises
    ------
    InputError
        If there is no such file, or it is neither, or it is damaged.
    """
    path = Path(path)
    check_file(path)
    start = head(path, 1 << 14).lstrip()
    if start[:1] in (b">", b";"):
        return FastaGenome(path)
    # Release files of GenBank have some lines of title above the first record.
    if re.search(rb"^LOCUS\s", start, re.MULTILINE):
        return GenBankGenome(path)
    if not start:
        raise InputError(f"{path}: the file is empty, expected FASTA or GenBank")
    if re.match(rb"[^\t\n]+(\t\d+){4,5}\r?\n", start):
        return FaiGenome(path)
    first = start.splitlines()[0][:40].decode("ascii", "replace")
    raise InputError(f'{path}: begins with {first!r}, expected FASTA (">") or GenBank ("LOCUS")')
