"""Reader for the lines of VCF and BCF files.

VCF is read as text, so that whatever a file contains can be written again unchanged: htslib rejects some headers,
and renames or drops some records. BCF is converted to text by htslib. Bytes that are not UTF-8 are decoded with
Python's error handler "surrogateescape" and must be encoded in the same way.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import pysam

from genoscan.errors import InputError
from genoscan.genome.files import compression, excerpt, has_bgzip_end, head, open_bytes

COLUMNS: Final = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
"""Beginning of the last line of a header."""

MAX_POS: Final = (1 << 31) - 1
"""Largest position in VCF and BCF, which store positions as 32-bit integers."""

_BCF = b"BCF\x02"
_STARTS = b"##fileformat=VCF", COLUMNS.encode()
_MAX_LINE = 1 << 28
_KEYS = "CHROM", "POS", "ID", "REF", "ALT"
_CONTIG = re.compile(r"##contig=<(.*)>\s*")
_ID = re.compile(r"(?:^|,)ID=([^,]+)")
_LENGTH = re.compile(r"(?:^|,)length=(\d{1,18})", re.ASCII)
_POS = re.compile(r"\d{1,10}", re.ASCII)


class VcfRecord(NamedTuple):
    """Record of a VCF file, of which only the first columns are parsed.

    Attributes
    ----------
    where
        File and line (in BCF: record) for error messages.
    chrom, pos, id, ref, alts
        Columns 1 to 5; ALT is split at its commas.
    columns
        Columns 1 to 8 as text and, as one string, the columns of the samples if there are any.
    """

    where: str
    chrom: str
    pos: int
    id: str
    ref: str
    alts: list[str]
    columns: list[str]


def is_vcf(path: Path) -> bool:
    """Return whether a file begins as VCF or BCF does, whatever its name and compression.

    Parameters
    ----------
    path
        Regular file.

    Returns
    -------
    bool
        True if the file begins with a VCF header or BCF's signature.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    start = head(path, 64).removeprefix(b"\xef\xbb\xbf")
    return start.startswith((_BCF, *_STARTS))


@contextmanager
def open_vcf(path: Path) -> Iterator[tuple[list[str], Iterator[VcfRecord]]]:
    """Context manager that opens a VCF or BCF file.

    Parameters
    ----------
    path
        VCF file (plain, or compressed with gzip or bgzip) or BCF file.

    Yields
    ------
    header : list of str
        Lines of the header without line ends. The last one begins with "#CHROM".
    records : iterator of VcfRecord
        Records in the order of the file.

    Raises
    ------
    InputError
        If the file is damaged, cut off, has no header, or has a malformed record. The error may occur when the
        file is opened or inside the `with` block.

    Notes
    -----
    Memory: one record at a time.
    """
    if compression(path) == "bgzip" and not has_bgzip_end(path):
        raise InputError(f"{path}: the bgzip end mark is missing: the file is cut off; fetch or make it again")
    if head(path, len(_BCF)) == _BCF:
        with ExitStack() as stack:
            stack.callback(pysam.set_verbosity, pysam.set_verbosity(0))  # errors are raised, not printed
            with _bcf_errors(path):
                bcf = pysam.VariantFile(str(path.absolute()))
                stack.callback(_close, bcf)
                header = str(bcf.header).splitlines()
            yield header, _records(_bcf_lines(path, bcf), header)
        return
    with open_bytes(path) as file:
        lines = _text_lines(path, file.readline)
        header = _header(path, lines)
        yield header, _records(lines, header)


def contig_lengths(header: Sequence[str]) -> dict[str, int | None]:
    """Return the contigs of a header.

    Parameters
    ----------
    header
        Lines of the header.

    Returns
    -------
    dict of str to int or None
        Length of each contig in bases; None where the header does not state it.
    """
    contigs: dict[str, int | None] = {}
    for line in header:
        if (found := _CONTIG.match(line)) and (name := _ID.search(found[1])):
            length = _LENGTH.search(found[1])
            contigs[name[1]] = int(length[1]) if length else None
    return contigs


def parse_pos(text: str, where: str) -> int:
    """Return a 1-based position.

    Parameters
    ----------
    text
        Digits. 0 is permitted, because VCF uses it for a telomere.
    where
        Place in the file, for error messages.

    Returns
    -------
    int
        Position.

    Raises
    ------
    InputError
        If the text is not a whole number from 0 to 2^31 - 1.
    """
    if _POS.fullmatch(text) and int(text) <= MAX_POS:
        return int(text)
    raise InputError(f'{where}: POS is "{excerpt(text)}", expected a whole number up to {MAX_POS:,}')


def _header(path: Path, lines: Iterable[tuple[str, str]]) -> list[str]:
    header = []
    for where, line in lines:
        header.append(line)
        if line.startswith(COLUMNS):
            return header
        if not line.startswith("##"):
            raise InputError(f'{where}: found "{excerpt(line)}", expected a header line (##) or the column names')
    raise InputError(f"{path}: ends within the header: the line of column names (#CHROM) is missing")


def _records(lines: Iterable[tuple[str, str]], header: Sequence[str]) -> Iterator[VcfRecord]:
    samples = header[-1].count("\t") + 1
    for where, line in lines:
        if not line:
            continue
        if line.startswith("#"):
            raise InputError(
                f"{where}: found a header line after the first record: were files joined? bcftools concat joins VCFs"
            )
        columns = line.split("\t", 8)
        found = line.count("\t") + 1
        if found < 8 or found != samples:
            raise InputError(f"{where}: found {found:,} columns, expected {samples:,} with tabs between")
        for key, text in zip(_KEYS, columns[:5], strict=True):
            if not text or "\0" in text:
                raise InputError(f"{where}: {key} is {'not text' if text else 'empty'}, expected a value or a period")
        chrom, pos, name, ref, alt = columns[:5]
        yield VcfRecord(where, chrom, parse_pos(pos, where), name, ref, alt.split(","), columns)


def _text_lines(path: Path, readline: Callable[[int], bytes]) -> Iterator[tuple[str, str]]:
    number = 0
    while line := readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise InputError(f"{path}:{number}: found a line of more than {_MAX_LINE:,} bytes, expected VCF")
        text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        yield f"{path}:{number}", text.removeprefix("\ufeff") if number == 1 else text


def _bcf_lines(path: Path, file: pysam.VariantFile) -> Iterator[tuple[str, str]]:
    for number in count(1):
        with _bcf_errors(path):
            record = next(file, None)
            if record is None:
                file.close()  # fails if the file is damaged
                return
            line = str(record)
        yield f"{path}: record {number:,}", line.rstrip("\n")


def _close(file: pysam.VariantFile) -> None:
    """Close a file without raising an error in place of the one that has been raised already."""
    with suppress(OSError):
        file.close()


@contextmanager
def _bcf_errors(path: Path) -> Iterator[None]:
    """Context manager that converts errors of htslib and pysam into InputError."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as problem:
        reason = " ".join(str(problem).split())
        raise InputError(f"{path}: cannot be read as BCF: the file is damaged ({reason})") from None
