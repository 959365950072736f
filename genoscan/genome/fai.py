"""Rows of FASTA indexes (.fai files), and a genome class that provides names and lengths but no bases."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.files import compression, excerpt, open_text

_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
TOO_LONG: Final = (1 << 31) - 1
"""Smallest sequence length that is rejected, in bases.

pysam stores positions as 32-bit integers and truncates longer sequences to this length.
"""


class FaiGenome:
    """Genome that is described by a .fai file, with sequence names and lengths but without bases.

    Parameters
    ----------
    path
        FASTA index in the format of samtools faidx. Each row contains a name, a length and three further
        numbers.

    Raises
    ------
    InputError
        If the file cannot be read, a row is malformed, a name is repeated, a sequence has 2^31 - 1 bases or
        more, or all sequences are empty.
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
                if int(columns[1]) >= TOO_LONG:
                    raise InputError(
                        f"{path}:{number}: {columns[0]} is too long, expected fewer than {TOO_LONG:,} bases"
                    )
                self.sizes[columns[0]] = int(columns[1])
        if not any(self.sizes.values()):
            raise InputError(f"{path}: no sequence in it has bases")

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[np.ndarray, " bases"]:
        """Raise InputError, because an index does not contain bases."""
        raise self._no_bases()

    def m5(self, chrom: str) -> str:
        """Raise InputError, because a checksum cannot be computed without bases."""
        raise self._no_bases()

    def _no_bases(self) -> InputError:
        return InputError(f"{self.path}: holds lengths and no bases, expected FASTA or GenBank")


class FaiRow(NamedTuple):
    """Row of a .fai file.

    Attributes
    ----------
    name, length
        Name of the sequence, and its length in bases.
    offset
        Byte offset of the first base in the uncompressed file.
    line_bases, line_bytes
        Number of bases in a full line of the sequence, and number of bytes in this line, including its line
        terminator.
    """

    name: str
    length: int
    offset: int
    line_bases: int
    line_bytes: int

    @property
    def end(self) -> int:
        """Byte offset of the end of the sequence, after the line terminator that follows the last base."""
        lines = -(-self.length // max(1, self.line_bases))
        return self.offset + self.length + lines * (self.line_bytes - self.line_bases)

    @property
    def last_base(self) -> int:
        """Byte offset of the last base. If the sequence is empty, the value is less than `offset`."""
        return self.end - (self.line_bytes - self.line_bases) - 1


def fai_rows(path: Path) -> Iterator[FaiRow]:
    """Read a FASTA file and yield the rows of its index, as samtools faidx would write them.

    Parameters
    ----------
    path
        FASTA file, plain or bgzip-compressed. Empty lines are accepted only after the last line of a
        sequence.

    Yields
    ------
    FaiRow
        Index rows, in the order of the file. Repeated names do not raise an error.

    Raises
    ------
    InputError
        If the file is not FASTA, if the name of a sequence is missing or invalid, if a line of bases
        contains spaces, or if the lines of a sequence, except the last line, differ in length.
    """
    name = ""
    start = length = position = 0
    shape = 0, 0  # bases and bytes of a line
    ragged = ""  # problem to report if more bases follow
    with path.open("rb") as raw, gzip.open(raw) if compression(path) == "bgzip" else raw as file:
        for number, line in enumerate(file, 1):
            position += len(line)
            bases = line.rstrip()
            if bases.isalpha() and not ragged and (len(bases), len(line)) == shape:
                length += len(bases)
                continue
            where = f"{path}:{number}"
            try:
                text = bases.decode()
            except UnicodeDecodeError:
                raise InputError(f"{where}: found bytes that are no text, expected FASTA") from None
            if text.startswith(">"):
                if name:
                    yield FaiRow(name, length, start, *shape)
                name = next(iter(bases[1:].split()), b"").decode()
                if not name:
                    raise InputError(f'{where}: found no name after ">", expected one')
                if _CONTROL.search(name):
                    raise InputError(f"{where}: found a control character in the name {excerpt(name)}")
                start, length, shape, ragged = position, 0, (0, 0), ""
            elif not name:
                if text and not text.startswith(";"):
                    raise InputError(f"{where}: found {excerpt(text)!r}, expected a line that begins with >")
            elif not bases:
                ragged = (
                    ragged or f"{where}: a line of {name} differs in length from its others: it is empty; remove it"
                )
            elif ragged:
                raise InputError(ragged)
            elif [bases] != line.split():
                raise InputError(f"{where}: found a space within a line of {name}, expected bases only")
            else:
                n_bytes = len(line) if line.endswith(b"\n") else len(bases) + 1
                if not length:
                    shape = len(bases), n_bytes
                elif (len(bases), n_bytes) != shape:
                    ragged = (
                        f"{where}: a line of {name} differs in length from its others, expected that of the "
                        f"last line only; wrap the lines again"
                    )
                    if len(bases) > shape[0]:
                        raise InputError(ragged)
                length += len(bases)
    if name:
        yield FaiRow(name, length, start, *shape)
