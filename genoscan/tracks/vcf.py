"""Writer for VCF files that adds INFO tags to the records of an input.

A VCF or BCF input is copied line by line: its header and columns are unchanged, except for the added
tags and for `##contig` lines of sequences that the header lacks. Any other input is converted to VCF.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pysam
from Bio.bgzf import BgzfWriter

from genoscan.errors import InputError
from genoscan.genome.alphabet import decode
from genoscan.genome.genome import Genome
from genoscan.genome.variant import Allele
from genoscan.genome.variant_files import VariantTable, bases_of
from genoscan.genome.vcf import COLUMNS, VcfRecord, contig_lengths, open_vcf
from genoscan.tracks.atomic import AtomicFiles, os_errors
from genoscan.tracks.bedgraph import INDEX_SUFFIXES, index_suffix

_COMPRESSED = ".gz"
_FILE_FORMAT = "##fileformat="
_MISSING = "."
_BATCH = 1 << 20
_LEVEL = 4
_INFO_ID = re.compile(r"##INFO=<(?:.*,)?ID=([^,>]+)")
_END = re.compile(r"(?:^|;)END=(\d{1,18})(?:;|$)")
"""The last base of a record in INFO, which an index includes."""
# As VCF 4.3 defines names of contigs; others would break their header line.
_CONTIG_NAME = re.compile(r"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")


class InfoTag(NamedTuple):
    """INFO tag with one value for each alternate allele (Number=A).

    Attributes
    ----------
    name, type, description
        Declaration in the header.
    text
        Function that returns the value for the allele with a given index in the table, or "." if there is none.
    """

    name: str
    type: str
    description: str
    text: Callable[[int], str]


def vcf_index_paths(path: Path) -> list[Path]:
    """Return the paths at which the index of a VCF file may be written.

    Parameters
    ----------
    path
        VCF file.

    Returns
    -------
    list of Path
        Paths of the .tbi and the .csi index if the name ends in .gz; otherwise, an empty list.
    """
    compressed = path.suffix.lower() == _COMPRESSED
    return [path.with_name(path.name + suffix) for suffix in INDEX_SUFFIXES if compressed]


def write_vcf(
    path: Path,
    table: VariantTable,
    genome: Genome,
    tags: Sequence[InfoTag],
    replaced: Iterable[str],
    files: AtomicFiles,
) -> list[str]:
    """Write variants with added INFO tags, and the tabix index if the file is compressed.

    Parameters
    ----------
    path
        File to write, compressed with bgzip if the name ends in .gz.
    table
        Variants. If they are from a VCF or BCF file, that file is read again.
    genome
        Genome of the variants.
    tags
        Tags to add. A tag without a value for any allele of a record is left out of the record.
    replaced
        Names of tags to remove from the input.
    files
        Transaction in which the files are written.

    Returns
    -------
    list of str
        Messages about an index that could not be written because the records are not sorted.

    Raises
    ------
    InputError
        If the input cannot be read, or is not the one that was read before.
    OutputError
        If a file cannot be written.

    Notes
    -----
    The order of the records is that of the input. Memory: one record, and about a megabyte.
    """
    part = files.create(path)
    names = frozenset(replaced)
    with ExitStack() as stack:
        with os_errors(path):
            out = _Lines(path, part.open("wb"))
        stack.callback(out.close)
        records = _groups(table)
        if table.is_vcf and table.path is not None:
            header, source = stack.enter_context(open_vcf(table.path))
            _write_header(out, _annotated_header(header, table, genome, tags, names))
            for record, rows in _paired(table, source, records):
                *before, info = record.columns[:8]
                kept = [entry for entry in info.split(";") if entry.partition("=")[0] not in names]
                out.record(
                    record.chrom, record.pos, record.ref, [*before, _info(kept, tags, rows), *record.columns[8:]]
                )
        else:
            _write_header(out, _new_header(table, genome, tags))
            for rows in records:
                chrom, pos, name, ref, alts = _anchored(table, genome, [table.alleles[i] for i in rows])
                columns = [chrom, str(pos), name, ref, ",".join(alts), _MISSING, _MISSING, _info([], tags, rows)]
                out.record(chrom, pos, ref, columns)
        out.finish()
    return _index(path, out, genome, files) if vcf_index_paths(path) else []


class _Lines:
    """File of lines that records whether its records are sorted as an index requires."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._raw = path, file
        # Biopython's writer is used, because pysam's does not report why a write failed.
        self._file = BgzfWriter(fileobj=file, compresslevel=_LEVEL) if vcf_index_paths(path) else file
        self._buffer: list[bytes] = []
        self._size = 0
        self._chroms: set[str] = set()
        self._last = ("", 0)
        self.sorted = True
        self.end = 1

    def write(self, line: str) -> None:
        encoded = (line + "\n").encode("utf-8", "surrogateescape")
        self._buffer.append(encoded)
        self._size += len(encoded)
        if self._size > _BATCH:
            self._flush()

    def record(self, chrom: str, pos: int, ref: str, columns: Sequence[str]) -> None:
        self.write("\t".join(columns))
        last_chrom, last_pos = self._last
        if chrom != last_chrom:
            self.sorted &= chrom not in self._chroms
            self._chroms.add(chrom)
        else:
            self.sorted &= pos >= last_pos
        self._last = chrom, pos
        end = _END.search(columns[7])
        self.end = max(self.end, pos + len(ref), int(end[1]) if end else 0)

    def finish(self) -> None:
        self._flush()
        with os_errors(self._path):
            self._file.close()

    def close(self) -> None:
        """Close the file. Errors are ignored, because `finish` reports failed writes."""
        with suppress(OSError):
            self._raw.close()

    def _flush(self) -> None:
        with os_errors(self._path):
            self._file.write(b"".join(self._buffer))
        self._buffer, self._size = [], 0


def _groups(table: VariantTable) -> Iterator[list[int]]:
    """Yield the indexes of the alleles of each record."""
    for _, rows in groupby(range(len(table.alleles)), lambda i: table.alleles[i].record):
        yield list(rows)


def _paired(
    table: VariantTable, source: Iterator[VcfRecord], groups: Iterator[list[int]]
) -> Iterator[tuple[VcfRecord, list[int]]]:
    """Yield each record of the source with the indexes of its alleles, which must be those that were read before."""
    for record in source:
        rows = next(groups, [])
        alleles = [table.alleles[i] for i in rows]
        found = [(a.chrom, a.pos, a.id, a.ref, a.alt) for a in alleles]
        if found != [(record.chrom, record.pos, record.id, record.ref, alt) for alt in record.alts]:
            raise InputError(f"{record.where}: changed while it was being read; start again")
        yield record, rows
    if next(groups, None) is not None:
        raise InputError(f"{table.path}: changed while it was being read; start again")


def _info(kept: Sequence[str], tags: Sequence[InfoTag], rows: Sequence[int]) -> str:
    """Return the INFO column: the entries to keep, and the tags that have a value."""
    entries = [entry for entry in kept if entry and entry != _MISSING]
    for tag in tags:
        values = [tag.text(i) for i in rows]
        if any(value != _MISSING for value in values):
            entries.append(f"{tag.name}={','.join(values)}")
    return ";".join(entries) or _MISSING


def _write_header(out: _Lines, lines: Iterable[str]) -> None:
    for line in lines:
        out.write(line)


def _declarations(tags: Sequence[InfoTag]) -> list[str]:
    return [f'##INFO=<ID={tag.name},Number=A,Type={tag.type},Description="{tag.description}">' for tag in tags]


def _contig(name: str, size: int | None) -> list[str]:
    if not _CONTIG_NAME.fullmatch(name):
        return []
    return [f"##contig=<ID={name}>" if size is None else f"##contig=<ID={name},length={size}>"]


def _annotated_header(
    header: Sequence[str], table: VariantTable, genome: Genome, tags: Sequence[InfoTag], replaced: frozenset[str]
) -> list[str]:
    """Return the header of the source with the new declarations before the line of column names."""
    *lines, columns = header
    kept = [line for line in lines if not ((found := _INFO_ID.match(line)) and found[1] in replaced)]
    if not (kept and kept[0].startswith(_FILE_FORMAT)):
        kept.insert(0, f"{_FILE_FORMAT}VCFv4.2")
    missing = dict.fromkeys(allele.chrom for allele in table.alleles)
    for name in contig_lengths(header):
        missing.pop(name, None)
    contigs = [line for name in missing for line in _contig(name, genome.sizes.get(table.renamed.get(name, name)))]
    return [*kept, *contigs, *_declarations(tags), columns]


def _new_header(table: VariantTable, genome: Genome, tags: Sequence[InfoTag]) -> list[str]:
    """Return a header with the genome's sequences, named as in the input, and the input's unknown sequences."""
    names = {known: name for name, known in table.renamed.items()}
    contigs: dict[str, int | None] = {names.get(name, name): size for name, size in genome.sizes.items()}
    for allele in table.alleles:
        contigs.setdefault(allele.chrom, None)
    lines = [line for name, size in contigs.items() for line in _contig(name, size)]
    return [f"{_FILE_FORMAT}VCFv4.3", *lines, *_declarations(tags), COLUMNS]


def _anchored(table: VariantTable, genome: Genome, alleles: Sequence[Allele]) -> tuple[str, int, str, str, list[str]]:
    """Return the first five columns of a record; a base is added to all alleles if one of them has no bases.

    It is the base before REF or, at the start of a sequence, the base after it, as VCF requires; N where the genome
    has no such base.
    """
    first = alleles[0]
    ref, alts = bases_of(first.ref), [bases_of(allele.alt) for allele in alleles]
    if ref and all(alts):
        return first.chrom, first.pos, first.id, ref, alts
    before = first.pos > 1
    at = first.pos - 2 if before else first.pos - 1 + len(ref)
    known = table.renamed.get(first.chrom, first.chrom)
    inside = 0 <= at < genome.sizes.get(known, 0)
    base = decode(genome.fetch(known, at, at + 1)).decode() if inside else "N"

    def add(bases: str) -> str:
        if bases and not bases.isalpha():
            return bases  # symbolic, "*" or "."
        return base + bases if before else bases + base

    return first.chrom, first.pos - before, first.id, add(ref), [add(alt) for alt in alts]


def _index(path: Path, out: _Lines, genome: Genome, files: AtomicFiles) -> list[str]:
    """Write the tabix index, and remove the index of an earlier file."""
    suffix = index_suffix({**genome.sizes, "": out.end})
    part = None
    for index in vcf_index_paths(path):
        if out.sorted and index.suffix == suffix:
            part = files.create(index)
        else:
            files.remove(index)
    if part is None:
        return [f"{path}: has no index, because the records are not sorted by position; bcftools sort sorts them"]
    verbosity = pysam.set_verbosity(0)
    try:
        with os_errors(path):
            pysam.tabix_index(
                str(files.current(path)),
                force=True,
                preset="vcf",
                index=str(part),
                keep_original=True,
                csi=suffix == ".csi",
            )
    finally:
        pysam.set_verbosity(verbosity)
    return []
