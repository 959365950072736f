"""Variants from files and from the command line.

Nothing is skipped: every alternate allele becomes an `Allele`, in input order, and its status states why it
cannot be scored, if so. Only a file that cannot be read as a whole is an error.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from sys import intern
from typing import NamedTuple

from genoscan.errors import InputError
from genoscan.genome.bed import is_bed_row
from genoscan.genome.files import check_file, excerpt, head, open_text
from genoscan.genome.genome import Genome
from genoscan.genome.variant import QUOTE_VARIANTS, Allele, classify
from genoscan.genome.vcf import contig_lengths, is_vcf, open_vcf, parse_pos

_EXPECTED = "expected VCF, BCF, or a tab-separated table whose first line names the columns chrom, pos, ref and alt"
_REQUIRED = "chrom", "pos", "ref", "alt"
_TEXT = re.compile(r"(?:\{(?P<braced>[^{}]+)\}|(?P<chrom>[^{}].*)):(?P<pos>\d[\d,]*):(?P<ref>[^:>]*)>(?P<alt>.*)", re.A)


@dataclass(frozen=True)
class VariantTable:
    """Alternate alleles of a file, or of a list of variants, in input order.

    Attributes
    ----------
    alleles
        One entry for each alternate allele, and one for each record without any.
    path
        File from which the alleles were read; None for variants in text form.
    is_vcf
        Whether `path` is a VCF or BCF file.
    renamed
        Name in the genome of each sequence that has another name in the input, such as {"1": "chr1"}.
    other_lengths
        Sequences whose length in the VCF header differs from the genome's: both lengths by name in the input.
        Such a file was probably made with another assembly.
    """

    alleles: Sequence[Allele]
    path: Path | None = None
    is_vcf: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    other_lengths: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class _Row(NamedTuple):
    """Record of the input before its sequence is looked up in the genome."""

    chrom: str
    pos: int
    id: str
    ref: str
    alts: list[str]


def read_variants(path: str | Path, genome: Genome) -> VariantTable:
    """Read the variants of a file, whose format is detected from its contents.

    Parameters
    ----------
    path
        VCF file (plain, or compressed with gzip or bgzip), BCF file, or tab-separated table (plain or compressed).
        The first line of a table names its columns: chrom, pos (1-based), ref, alt and optionally id, in any order
        and in upper or lower case; other columns are ignored. In a table, REF or ALT may be empty or "-"; an
        insertion is then placed before the base at pos.
    genome
        Genome to which the variants are compared.

    Returns
    -------
    VariantTable
        All alleles in the order of the file. A file without records gives an empty table.

    Raises
    ------
    InputError
        If the file is missing, damaged, in another format, or has a malformed row.

    Notes
    -----
    Memory: about 0.7 kB for each allele.
    """
    path = Path(path)
    check_file(path)
    lengths: dict[str, int | None] = {}
    if is_vcf(path):
        with open_vcf(path) as (header, records):
            lengths = contig_lengths(header)
            rows = [_Row(intern(r.chrom), r.pos, r.id, r.ref, r.alts) for r in records]
        return _table(rows, lengths, genome, path, from_vcf=True)
    return _table(list(_tsv_rows(path)), lengths, genome, path, from_vcf=False)


def tabulate(records: Iterable[tuple[str, int, str, str, str]], genome: Genome) -> VariantTable:
    """Return the table of variants given as (sequence name, 1-based position, REF, ALT, identifier).

    Raises
    ------
    InputError
        If a position is not an integer, or an allele not a text.
    """
    rows: list[_Row] = []
    for chrom, pos, ref, alt, name in records:
        if not isinstance(pos, Integral) or not isinstance(ref, str) or not isinstance(alt, str):
            raise InputError(f"variant {chrom}:{pos}:{ref}>{alt}: expected an integer and two texts of bases")
        rows.append(_Row(str(chrom), int(pos), str(name) or ".", ref, alt.split(",")))
    return _table(rows, {}, genome, None, from_vcf=False)


def parse_variants(texts: Iterable[str], genome: Genome) -> VariantTable:
    """Return the table of several variants in text form; see `parse_variant`."""
    return _table([_parse(text) for text in texts], {}, genome, None, from_vcf=False)


def parse_variant(text: str, genome: Genome) -> Allele:
    """Parse a variant in text form.

    Parameters
    ----------
    text
        CHROM:POS:REF>ALT, as in "chr1:1,024:A>C", with a 1-based position. REF or ALT may be empty or "-":
        "chr1:1,024:A>" deletes a base, and "chr1:1,024:>AC" inserts two before base 1,024. A name that contains
        braces or colons may be enclosed in braces.
    genome
        Genome to which the variant is compared.

    Returns
    -------
    Allele
        Allele with its status.

    Raises
    ------
    InputError
        If the text is malformed.
    """
    return parse_variants([text], genome).alleles[0]


def bases_of(text: str) -> str:
    """Return an allele of a table or of a variant in text form, where "-" stands for no bases."""
    return "" if text == "-" else text


def match_names(names: Iterable[str], lengths: Mapping[str, int | None], sizes: Mapping[str, int]) -> dict[str, str]:
    """Return the names in the genome of sequences that have other names in a file, as "1" and "chr1".

    Parameters
    ----------
    names
        Names of all sequences with records in the file.
    lengths
        Length in bases of each sequence, where the file states it.
    sizes
        Length of each sequence of the genome.

    Returns
    -------
    dict of str to str
        Name in the genome, by name in the file. Names are considered equal if they differ only in case, in the
        prefix "chr", or as "M" and "MT" do. A name is left out if it is in the genome itself, if several sequences
        of the genome or of the file could be meant, or if the lengths differ.
    """
    used = set(names)
    unknown = sorted(used - sizes.keys())
    if not unknown:
        return {}
    candidates = _by_identity(sizes)
    meant = Counter(_identity(name) for name in used)
    renamed = {}
    for name in unknown:
        found = candidates.get(_identity(name), [])
        if len(found) == 1 and meant[_identity(name)] == 1 and lengths.get(name) in (None, sizes[found[0]]):
            renamed[name] = found[0]
    return renamed


def _by_identity(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_identity(name), []).append(name)
    return found


def _identity(name: str) -> str:
    bare = name.casefold().removeprefix("chr")
    return "mt" if bare == "m" else bare


def _table(
    rows: Sequence[_Row], lengths: Mapping[str, int | None], genome: Genome, path: Path | None, *, from_vcf: bool
) -> VariantTable:
    names = dict.fromkeys(row.chrom for row in rows)
    renamed = match_names(names, lengths, genome.sizes)
    alleles = []
    for number, (chrom, pos, name, ref, alts) in enumerate(rows):
        known = chrom if chrom in genome.sizes else renamed.get(chrom)
        for alt in alts:
            # VCF has no empty alleles; one between two commas is as malformed as "-".
            bases = (ref, alt or "-") if from_vcf else (bases_of(ref), bases_of(alt))
            status, change = classify(genome, known, pos - 1, *bases)
            alleles.append(Allele(number, chrom, pos, name, ref, alt, intern(status), change))
    other = {}
    candidates = _by_identity(genome.sizes)
    for name in names:
        # A sequence of the genome that is not called the same is not matched if its length differs.
        meant = [name] if name in genome.sizes else candidates.get(_identity(name), [])
        found, size = lengths.get(name), genome.sizes[meant[0]] if len(meant) == 1 else None
        if found is not None and size is not None and found != size:
            other[name] = (found, size)
    return VariantTable(alleles, path, from_vcf, renamed, other)


def _parse(text: str) -> _Row:
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        redirected = "" if ">" in text else f"; {QUOTE_VARIANTS}"
        raise InputError(f'variant "{excerpt(text)}": expected CHROM:POS:REF>ALT, as in chr1:1,024:A>C{redirected}')
    if "," in found["alt"]:
        raise InputError(
            f'variant "{excerpt(text)}": found several alternate alleles, expected one: give each by itself'
        )
    pos = parse_pos(found["pos"].replace(",", ""), f'variant "{excerpt(text)}"')
    return _Row(found["braced"] or found["chrom"], pos, ".", found["ref"], [found["alt"]])


def _tsv_rows(path: Path) -> Iterator[_Row]:
    with open_text(path) as lines:
        first = next(lines, "")
        header = [column.strip() for column in first.lstrip("#").rstrip("\r\n").lower().split("\t")]
        if not _is_header(header):
            raise InputError(_unexpected(path, first))
        columns = {}
        for column in (*_REQUIRED, "id"):
            if header.count(column) > 1:
                raise InputError(f"{path}:1: names the column {column} twice, expected each once")
            if column in header:
                columns[column] = header.index(column)
        for number, line in enumerate(lines, 2):
            line = line.rstrip("\r\n")
            if not line.strip() or line.startswith("#"):
                continue
            where = f"{path}:{number}"
            values = line.split("\t")
            if len(values) != len(header):
                raise InputError(
                    f"{where}: found {len(values):,} columns, expected {len(header):,} as in the first line, "
                    "with tabs between"
                )
            if "\0" in line:
                raise InputError(f"{where}: found a zero byte, expected text")
            row = {column: values[i].strip() for column, i in columns.items()}
            if not row["chrom"]:
                raise InputError(f"{where}: chrom is empty, expected the name of a sequence")
            pos = parse_pos(row["pos"], where)
            yield _Row(intern(row["chrom"]), pos, row.get("id") or ".", row["ref"], row["alt"].split(","))


def _is_header(header: Sequence[str]) -> bool:
    """Return whether all required columns of a table are named in its first line, which is in lower case."""
    return set(_REQUIRED) <= set(header)


def _unexpected(path: Path, first: str) -> str:
    """Return the message for a file that is neither VCF nor a table with the required columns."""
    if not head(path, 1):
        return f"{path}: the file is empty, {_EXPECTED}"
    if is_bed_row(first.rstrip()):
        return f"{path}:1: looks like BED, which has no alleles, {_EXPECTED}"
    return f'{path}:1: begins with "{excerpt(first.rstrip())}", {_EXPECTED}'
