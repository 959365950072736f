"""Reader for the genes, transcripts and exons in GFF3 and GTF files.

Both formats have nine columns and 1-based, closed coordinates. In GFF3, a row contains the IDs of its
parents. In GTF, a row contains the IDs of its gene and its transcript. Rows may be in any order.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote

from genoscan.errors import InputError
from genoscan.genome.feature import (
    Feature,
    Interval,
    MalformedRows,
    Transcript,
    gene_index,
    make_feature,
    merge_overlapping,
)
from genoscan.genome.files import excerpt
from genoscan.genome.region import Region

_POSITION = re.compile(r"\d{1,18}", re.ASCII)
_FASTA = re.compile(r">|##\s*FASTA\b", re.IGNORECASE)
_SKIPPED = "#", "track ", "browser "  # the latter two are for the browser of UCSC
# As written by NCBI, Prodigal and, in GTF, Ensembl.
_PARTIAL = re.compile(r"partial=(true|01|10|11)|(start|end)_range=|cds_(start|end)_NF", re.IGNORECASE)
_CIRCULAR = re.compile(r"is_circular\s*=\s*\"?true", re.IGNORECASE)

_GENE_NAMES = "name", "gene_name", "gene", "locus_tag", "gene_id", "transcript_id", "id"
# Name is a protein accession (NCBI) or the product (Bakta) in rows of a CDS.
_OTHER_NAMES = "gene", "gene_name", "name", "locus_tag", "gene_id", "transcript_id", "id"

_USED = frozenset((*_GENE_NAMES, "parent"))

_EXON = "exon"
_CDS = "cds"
_CODING = _CDS, "start_codon", "stop_codon"  # the CDS of GTF does not contain the stop codon
_UTR = "utr", "five_prime_utr", "three_prime_utr", "5utr", "3utr", "five_prime_untranslated_region"
_SIGNALS = "intron", "selenocysteine", "stop_codon_redefined_as_selenocysteine"
_SEQUENCES = "region", "chromosome", "contig", "scaffold", "supercontig", "sequence", "source", "databank_entry"

_LEVELS = 8
"""Maximum number of levels of ancestors that are searched for the gene of an exon or transcript."""

_Key = tuple[str, str, str]
"""Key of a row: a namespace, the sequence name and an ID.

In GTF, genes and transcripts have separate namespaces. For a row without an ID, the line number is used.
"""

_Role = Literal["gene", "transcript", "part", "signal", "other"]


class _Row(NamedTuple):
    where: str
    number: int
    chrom: str
    kind: str
    start: int
    end: int
    strand: str
    phase: str
    attributes: str


class _Node(NamedTuple):
    """Gene or transcript, with its row, its names and the keys of its parents."""

    row: _Row
    names: tuple[str, ...]
    parents: tuple[_Key, ...]

    def feature(self, transcripts: Iterable[Transcript]) -> Feature:
        return _feature(self.row, self.names, (self.row.start, self.row.end), transcripts)


@dataclass(slots=True)
class _Exons:
    """Exons, coding regions and untranslated regions with the same parent.

    If the rows have no parent, they are grouped by ID. `row` and `names` are those of the first row. `first` is the
    first row of a CDS in the direction of the transcript.
    """

    row: _Row
    names: tuple[str, ...]
    genes: tuple[_Key, ...]
    exons: list[Interval] = field(default_factory=list)
    coding: list[Interval] = field(default_factory=list)
    untranslated: list[Interval] = field(default_factory=list)
    first: _Row | None = None
    partial: bool = False

    def add(self, row: _Row) -> None:
        parts = self.exons if row.kind == _EXON else self.coding if row.kind in _CODING else self.untranslated
        parts.append((row.start, row.end))
        if row.kind == _CDS:
            self.partial |= bool(_PARTIAL.search(row.attributes))
            before = self.first
            if before is None or (row.end > before.end if row.strand == "-" else row.start < before.start):
                self.first = row

    @property
    def blocks(self) -> tuple[Interval, ...]:
        return merge_overlapping(self.exons or self.coding + self.untranslated)

    @property
    def extent(self) -> Interval:
        return self.blocks[0][0], max(end for _, end in self.blocks)

    def transcript(self, extent: Interval) -> Transcript:
        coding = (min(self.coding)[0], max(end for _, end in self.coding)) if self.coding else None
        partial = self.partial or (self.first is not None and self.first.phase in ("1", "2"))
        return Transcript(*extent, self.blocks, coding, partial).cut(*extent) or Transcript(*extent, (extent,))

    def features(self, circle: int | None) -> list[Feature]:
        """Return one feature, or one feature per exon if the exons cross the origin of a circular sequence.

        `circle` is the length of the sequence if it is circular, and None otherwise.
        """
        if circle is not None and self.blocks[0][0] == 0 and self.blocks[-1][1] == circle:
            return [_feature(self.row, self.names, block, ()) for block in self.blocks]
        return [_feature(self.row, self.names, self.extent, [self.transcript(self.extent)])]


def _feature(row: _Row, names: tuple[str, ...], extent: Interval, transcripts: Iterable[Transcript]) -> Feature:
    name = names[0] if names else ""
    return make_feature(Region(row.chrom, *extent, name=name, strand=row.strand, source=row.where), transcripts, names)


def is_gff_row(line: str) -> bool:
    """Return whether a line is a row of a GFF3 or GTF file, which has its start and end in columns 4 and 5.

    Parameters
    ----------
    line
        A line of text.

    Returns
    -------
    bool
        True for a GFF3 or GTF row; False for a BED row, which has its start and end in columns 2 and 3.
    """
    columns = [column.strip() for column in line.split("\t", 9)]
    if len(columns) < 8 or not all(map(_POSITION.fullmatch, columns[3:5])):
        return False
    return not all(map(_POSITION.fullmatch, columns[1:3]))


def is_gtf_row(line: str) -> bool:
    """Return whether a row of a GFF file is in the syntax of GTF.

    Parameters
    ----------
    line
        Row for which `is_gff_row` is true.

    Returns
    -------
    bool
        True for GTF, whose attributes are `name "value";`; False for GFF3, whose attributes are `name=value`.
    """
    columns = line.split("\t", 9)
    return len(columns) > 8 and _attributes(columns[8])[1]


def read_gff(
    lines: Iterable[str], path: Path, sizes: Mapping[str, int], malformed: MalformedRows
) -> tuple[list[Feature], set[str]]:
    """Read the features of a GFF3 or GTF file.

    Parameters
    ----------
    lines
        Lines of the file. Reading stops at the beginning of a FASTA section, if there is one.
    path
        Path of the file, for error messages.
    sizes
        Sequence lengths in bases. A percent-encoded sequence name in the file is decoded unless it is a key
        of `sizes`.
    malformed
        Object that counts the rows with missing columns or invalid coordinates, which are skipped.

    Returns
    -------
    features : list of Feature
        Genes with their transcripts, and transcripts, CDS and RNAs that do not belong to a gene. If the
        file contains none of these, all features are returned except those that represent whole sequences.
    circular : set of str
        Names of the circular sequences.

    Notes
    -----
    Memory: all exons in the file.
    """
    tree, circular = _Tree(), set()
    for row in _rows(lines, path, sizes, malformed):
        if _CIRCULAR.search(row.attributes):
            circular.add(row.chrom)
        tree.add(row)
    return tree.features({chrom: sizes.get(chrom, 0) for chrom in circular}), circular


def is_gene_row(line: str) -> bool:
    """Return whether a line is the row of a gene in a GFF3 or GTF file.

    Parameters
    ----------
    line
        A line of text.

    Returns
    -------
    bool
        True if the type in column 3 is that of a gene or pseudogene.
    """
    columns = line.split("\t", 3)
    return len(columns) > 3 and _role(columns[2].strip().casefold()) == "gene"


def _rows(lines: Iterable[str], path: Path, sizes: Mapping[str, int], malformed: MalformedRows) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        if _FASTA.match(line):
            return
        if line.startswith(_SKIPPED):
            continue
        try:
            yield _row(line, f"{path}:{number}", number, sizes)
        except InputError as problem:
            malformed.add(problem)


def _row(line: str, where: str, number: int, sizes: Mapping[str, int]) -> _Row:
    columns = line.split("\t", 9)
    if len(columns) < 8:
        count = f"{len(columns)} column{'s' * (len(columns) > 1)}"
        raise InputError(f"{where}: found {count} separated by tabs, expected 9 as in GFF3")
    chrom, _, kind, start, end, _, strand, phase, *_ = map(str.strip, columns)
    if not (_POSITION.fullmatch(start) and _POSITION.fullmatch(end) and 0 < int(start) <= int(end)):
        raise InputError(f"{where}: found {excerpt(start)} to {excerpt(end)}, expected 1-based start <= end")
    if not chrom:
        raise InputError(f"{where}: found no sequence name in column 1")
    if "%" in chrom and chrom not in sizes:
        chrom = unquote(chrom)
    attributes = columns[8].strip() if len(columns) > 8 else ""
    strand = strand if strand in ("+", "-") else "."
    return _Row(where, number, chrom, kind.casefold(), int(start) - 1, int(end), strand, phase, attributes)


@lru_cache(maxsize=1024)
def _role(kind: str) -> _Role:
    if kind in ("gene", "pseudogene") or kind.endswith(("_gene", "_pseudogene")):
        return "gene"
    if kind in (_EXON, *_CODING, *_UTR):
        return "part"
    if kind in _SIGNALS:
        return "signal"
    return "transcript" if kind.endswith(("rna", "transcript", "_gene_segment")) else "other"


def _attributes(text: str) -> tuple[dict[str, str], bool]:
    """Return the attributes listed in `_USED`, by lower-case name, and whether the text is in GTF syntax."""
    is_gtf = "=" not in text.partition(";")[0].partition('"')[0]
    fields: dict[str, str] = {}
    for key, value in _gtf_pairs(text) if is_gtf else _gff3_pairs(text):
        key = key.strip().casefold()
        if key in _USED and key not in fields:
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1].strip()
            if value not in ("", "."):
                fields[key] = value
    return fields, is_gtf


def _gff3_pairs(text: str) -> Iterator[tuple[str, str]]:
    for item in text.split(";"):
        key, found, value = item.partition("=")
        if found:
            yield key, value


def _gtf_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of GTF attributes; quoted values may contain semicolons."""
    pieces = text.split('"')
    if len(pieces) == 1 and len(text.split()) == 1:
        yield "id", text.rstrip(";")  # AUGUSTUS writes only the ID in the rows of genes and transcripts
        return
    unquoted = []
    for outside, quoted in zip(pieces[::2], pieces[1::2], strict=False):
        before, _, key = outside.rpartition(";")
        if before:
            unquoted.append(before)
        yield key.rstrip("= "), quoted
    if len(pieces) % 2:
        unquoted.append(pieces[-1])
    for item in (item for items in unquoted for item in items.split(";")):
        key, _, value = item.strip().partition(" ")
        yield key, value


def _keys(row: _Row, role: _Role, fields: Mapping[str, str], is_gtf: bool) -> tuple[_Key, tuple[_Key, ...]]:
    """Return the key of a row and the keys of its parents.

    In GTF, the key of the transcript precedes the key of the gene.
    """
    unique = ("row", row.chrom, str(row.number))
    if not is_gtf:
        own = ("", row.chrom, fields["id"]) if "id" in fields else unique
        return own, tuple(("", row.chrom, parent.strip()) for parent in fields.get("parent", "").split(",") if parent)
    levels = [(level, fields.get(f"{level}_id")) for level in ("transcript", "gene")]
    keys = {level: (level, row.chrom, found) for level, found in levels if found}
    if role in ("gene", "transcript"):
        bare = (role, row.chrom, fields["id"]) if "id" in fields else unique
        return keys.pop(role, bare), tuple(keys.values()) if role == "transcript" else ()
    return unique, tuple(keys.values())


def _names(fields: Mapping[str, str], keys: Iterable[str], is_gtf: bool) -> tuple[str, ...]:
    """Return the distinct names of a row; the first one is displayed."""
    names = (fields[key] for key in keys if key in fields)
    return tuple(dict.fromkeys(" ".join((name if is_gtf else unquote(name)).split()) for name in names))


class _Tree:
    """Genes, transcripts and exons of a file, which are linked by their IDs."""

    def __init__(self) -> None:
        self._genes: dict[_Key, list[_Node]] = defaultdict(list)
        self._transcripts: dict[_Key, list[_Node]] = defaultdict(list)
        self._exons: dict[_Key, _Exons] = {}
        self._others: list[Feature] = []
        self._other_ids: set[_Key] = set()
        self._found: dict[tuple[_Key, ...], list[_Key]] = {}

    def add(self, row: _Row) -> None:
        role = _role(row.kind)
        if role == "other":
            self._add_other(row)
        if role in ("other", "signal"):
            return
        fields, is_gtf = _attributes(row.attributes)
        own, parents = _keys(row, role, fields, is_gtf)
        parents = tuple(parent for parent in parents if parent not in self._other_ids)
        if role == "part":
            for parent in (parents[:1] if is_gtf else parents) or (own,):
                if parent not in self._exons:
                    names, genes = _names(fields, _OTHER_NAMES, is_gtf), parents[1:] if is_gtf else ()
                    self._exons[parent] = _Exons(row, names, genes)
                self._exons[parent].add(row)
            return
        keys, nodes = (_GENE_NAMES, self._genes) if role == "gene" else (_OTHER_NAMES, self._transcripts)
        nodes[own].append(_Node(row, _names(fields, keys, is_gtf), parents))

    def _add_other(self, row: _Row) -> None:
        has_genes = bool(self._genes or self._transcripts or self._exons)
        if has_genes and row.kind.endswith("match"):
            return  # alignments, of which there may be millions
        fields, is_gtf = _attributes(row.attributes)
        self._other_ids.add(_keys(row, "other", fields, is_gtf)[0])
        if not has_genes and row.kind not in _SEQUENCES:
            names = _names(fields, _GENE_NAMES, is_gtf)
            self._others.append(_feature(row, names, (row.start, row.end), ()))

    def features(self, origin: Mapping[str, int]) -> list[Feature]:
        """Return the features in the order of the file.

        Parameters
        ----------
        origin
            Length of each circular sequence in bases, by name.
        """
        if not (self._genes or self._transcripts or self._exons):
            return self._others
        genes: list[tuple[int, Feature]] = []
        alone: list[tuple[int, Feature]] = []
        by_gene: dict[_Key, list[Transcript]] = defaultdict(list)
        without_transcript = {key: self._exons.pop(key) for key in self._genes if key in self._exons}
        for key, nodes in self._transcripts.items():
            exons = self._exons.pop(key, None)
            for node in nodes:
                extent = node.row.start, node.row.end
                transcript = exons.transcript(extent) if exons else Transcript(*extent, (extent,))
                parents = self._ancestors(node.parents or (exons.genes if exons else ()))
                for parent in parents:
                    by_gene[parent].append(transcript)
                if not parents:
                    alone.append((node.row.number, node.feature([transcript])))
        for exons in self._exons.values():
            parents = self._ancestors(exons.genes)
            for parent in parents:
                by_gene[parent].append(exons.transcript(exons.extent))
            if not parents:
                alone += [(exons.row.number, feature) for feature in exons.features(origin.get(exons.row.chrom))]
        for key, nodes in self._genes.items():
            transcripts = sorted(by_gene[key], key=itemgetter(0))
            longest = max((t.end - t.start for t in transcripts), default=0)
            for node in nodes:
                start, end = node.row.start, node.row.end
                if key in without_transcript and not transcripts:
                    own = [without_transcript[key].transcript((start, end))]
                else:  # an ID may be repeated
                    first, last = (bisect_left(transcripts, at, key=itemgetter(0)) for at in (start - longest, end))
                    own = transcripts[first:last]
                genes.append((node.row.number, node.feature(own)))
        in_gene = gene_index(gene for _, gene in genes)
        rows = genes + [(number, feature) for number, feature in alone if not in_gene(feature)]
        return [feature for _, feature in sorted(rows, key=lambda row: row[0])]

    def _ancestors(self, parents: tuple[_Key, ...]) -> list[_Key]:
        """Return the keys of the nearest genes among the given parents and the ancestors of these parents."""
        if parents not in self._found:
            above = parents
            for _ in range(_LEVELS):
                genes = [parent for parent in above if parent in self._genes]
                if genes or not above:
                    break
                rows = (node.parents for parent in above for node in self._transcripts.get(parent, ()))
                above = tuple(dict.fromkeys(key for keys in rows for key in keys))
            self._found[parents] = genes
        return self._found[parents]
