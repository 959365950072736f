"""Sequence names and lengths read from a FASTA index, which are sufficient to plan a run."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.files import open_text

_NUMBER = re.compile(r"\d{1,18}", re.ASCII)


class FaiGenome:
    """Genome with the sequence names and lengths of a .fai file, but without bases.

    Parameters
    ----------
    path
        FASTA index as written by samtools faidx: name, length and three further columns.

    Raises
    ------
    InputError
        If the file cannot be read, a row is malformed, a name is repeated, or all sequences are
        empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sizes: dict[str, int] = {}
        with open_text(path) as lines:
            for number, line in enumerate(lines, 1):
                columns = line.rstrip("\n").split("\t")
                if len(columns) < 5 or not all(_NUMBER.fullmatch(text) for text in columns[1:5]):
                    raise InputError(
                        f"{path}:{number}: expected a name and four numbers, as samtools faidx writes them"
                    )
                if columns[0] in self.sizes:
                    raise InputError(f"{path}:{number}: {columns[0]} comes a second time")
                self.sizes[columns[0]] = int(columns[1])
        if not any(self.sizes.values()):
            raise InputError(f"{path}: no sequence in it has bases")

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[np.ndarray, " bases"]:
        """Raise InputError, because an index has no bases."""
        raise self._no_bases()

    def m5(self, chrom: str) -> str:
        """Raise InputError, because an index has no bases."""
        raise self._no_bases()

    def _no_bases(self) -> InputError:
        return InputError(f"{self.path}: holds lengths and no bases, expected FASTA or GenBank")
