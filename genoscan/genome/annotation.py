"""Reader for genes and other features in BED, GFF3, GTF and GenBank files."""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from genoscan.errors import InputError
from genoscan.genome.bed import data_lines, is_bed_row, read_bed_features
from genoscan.genome.feature import Feature, MalformedRows, Placement, Transcript, gene_index, make_feature, place
from genoscan.genome.files import excerpt, head, open_text
from genoscan.genome.genbank import read_features
from genoscan.genome.gff import is_gff_row, is_gtf_row, read_gff

_GENES = "gene", "pseudogene", "ncRNA_gene"
_PRODUCTS = "CDS", "tRNA", "rRNA", "ncRNA", "tmRNA"
"""Types of GenBank features that are returned only if they do not lie within a gene."""

_MESSENGER = "mRNA"

# GenBank release files begin with title lines, so LOCUS may be on a later line.
_LOCUS = re.compile(rb"^LOCUS +\S", re.MULTILINE)
_GFF_VERSION = re.compile(r"##\s*gff-version\b", re.IGNORECASE)

_log = logging.getLogger(__name__)


def read_annotation(
    path: Path, sizes: Mapping[str, int], notify: Callable[[str], None] = _log.warning
) -> list[Feature]:
    """Read the features in an annotation file.

    Parameters
    ----------
    path
        GenBank, GFF3, GTF or BED file, plain or gzip-compressed. The format is detected from the contents.
    sizes
        Length of each sequence in the genome, in bases.
    notify
        Function that is called with a one-line message if rows were skipped, if features were skipped or
        shortened, or if no features remain. The message states the number of features or rows affected.

    Returns
    -------
    list of Feature
        Features within the genome, in the order of the file. For BED, these are all rows. For the other
        formats, these are the genes, and the CDS and RNA features that do not belong to a gene. Features of
        other types are returned only if a GenBank file contains no genes, or if a GFF3 or GTF file contains
        no genes, transcripts, exons or CDS.

    Raises
    ------
    InputError
        If the file cannot be read, is in an unknown format, or contains only malformed rows.
    """
    features, circular, malformed = read_unplaced(path, sizes)
    if malformed.first is not None and not features:
        raise malformed.first
    placement = place(features, sizes, circular)
    notes = list(_notes(placement, malformed))
    if notes:
        notify(f"{path}: {'; '.join(notes)}")
    return placement.features


def read_unplaced(
    path: Path, sizes: Mapping[str, int], keep: Callable[[str], bool] = lambda _line: True
) -> tuple[list[Feature], set[str], MalformedRows]:
    """Read the features in an annotation file, including those that are not within the genome.

    Parameters
    ----------
    path, sizes
        As for `read_annotation`.
    keep
        Function that returns whether to read a line of a BED, GFF3 or GTF file; all other lines are ignored.
        Reading a few lines of a large file is several times as fast as reading all.

    Returns
    -------
    features : list of Feature
        Features in the order of the file.
    circular : set of str
        Names of the circular sequences, as stated by a GFF3 file.
    malformed : MalformedRows
        Counter of the malformed rows, which are skipped.

    Raises
    ------
    InputError
        If the file cannot be read, or is in an unknown format.
    """
    if not path.is_file():
        raise InputError(f"{path}: file not found, expected BED, GFF3, GTF or GenBank")
    malformed = MalformedRows()
    if _is_genbank(path):
        return _genbank(path, malformed), set(), malformed
    is_gff = _text_format(path) == "GFF"
    with open_text(path) as lines:
        # Other lines are emptied, so that lines keep their numbers; # and > are for directives and FASTA.
        kept = (line if line.startswith(("#", ">")) or keep(line) else "\n" for line in lines)
        if is_gff:
            return *read_gff(kept, path, sizes, malformed), malformed
        return read_bed_features(kept, path, malformed), set(), malformed


def annotation_format(path: Path) -> Literal["GenBank", "GFF3", "GTF", "BED"]:
    """Return the format of an annotation file, which is detected from its contents.

    Parameters
    ----------
    path
        GenBank, GFF3, GTF or BED file, plain or gzip-compressed.

    Raises
    ------
    InputError
        If the file cannot be read or is in an unknown format.
    """
    if _is_genbank(path):
        return "GenBank"
    if _text_format(path) == "BED":
        return "BED"
    with open_text(path) as lines:
        row = next(filter(is_gff_row, lines), "")
    return "GTF" if is_gtf_row(row) else "GFF3"


def _is_genbank(path: Path) -> bool:
    return _LOCUS.search(head(path, 1 << 14)) is not None


def _text_format(path: Path) -> Literal["GFF", "BED"]:
    """Determine whether a text file is GFF or BED, based on its first valid row or its version line."""
    first = None
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if _GFF_VERSION.match(line) or is_gff_row(line):
                return "GFF"
            if not any(data_lines([line], path)):
                continue
            if is_bed_row(line):
                return "BED"
            first = first or f"{path}:{number}: found {excerpt(line.strip())!r}"
    if first is None:
        raise InputError(f"{path}: no features in it, expected at least one row of BED, GFF3 or GTF")
    raise InputError(f"{first}, expected BED, GFF3, GTF or GenBank, with tabs between the columns")


def _genbank(path: Path, malformed: MalformedRows) -> list[Feature]:
    found = read_features(path, malformed)
    genes = [part for feature in found if feature.kind in _GENES for part in feature.features()]
    is_in_gene = gene_index(genes)
    products: dict[tuple[str, str, str], list[Feature]] = defaultdict(list)
    messengers: dict[tuple[str, str, str], list[Feature]] = defaultdict(list)
    for feature in found:
        if feature.kind in _PRODUCTS or feature.kind == _MESSENGER:
            by_name = messengers if feature.kind == _MESSENGER else products
            for part in feature.features():
                by_name[part.chrom, part.strand, part.name].append(part)

    def with_transcripts(gene: Feature) -> Feature:
        key = gene.chrom, gene.strand, gene.name
        inside, spliced = (
            [part for part in by_name[key] if gene.start <= part.start and part.end <= gene.end]
            for by_name in (products, messengers)
        )
        transcripts = [transcript for part in inside for transcript in part.transcripts]
        messenger = [transcript for part in spliced for transcript in part.drawn]
        return make_feature(gene, _with_untranslated(messenger, transcripts), gene.aliases)

    return [
        with_transcripts(part) if feature.kind in _GENES else part
        for feature in found
        if not genes or feature.kind in (*_GENES, *_PRODUCTS)
        for part in feature.features()
        if not genes or feature.kind in _GENES or not is_in_gene(part)
    ]


def _with_untranslated(messengers: Sequence[Transcript], products: Sequence[Transcript]) -> list[Transcript]:
    """Return mRNAs with the coding intervals of the products that they contain, and all other products.

    A product belongs to an mRNA whose exons, cut at both ends of the product, are those of the product.
    """
    found = list(messengers)
    rest = []
    for product in products:
        for i, messenger in enumerate(found):
            cut = messenger.cut(product.start, product.end)
            if product.coding is not None and messenger.coding is None and cut and cut.exons == product.exons:
                found[i] = messenger._replace(coding=product.coding)
                break
        else:
            rest.append(product)
    return found + rest


def _notes(placement: Placement, malformed: MalformedRows) -> Iterator[str]:
    """Yield messages that state how many features and rows were skipped or shortened."""
    if placement.unknown:
        name, count = excerpt(next(iter(placement.unknown))), sum(placement.unknown.values())
        yield f'{_features(count)} skipped on sequences that the genome lacks, such as "{name}"'
    if placement.past_end:
        yield f"{_features(placement.past_end)} skipped past the end of the sequence"
    if placement.trimmed:
        yield f"{_features(placement.trimmed)} trimmed at the end of the sequence"
    if malformed.first is not None:
        yield f"{malformed.count:,} malformed row{'s' * (malformed.count > 1)} skipped, the first at {malformed.first}"
    if not placement.features:
        yield "no feature is left to show"


def _features(count: int) -> str:
    return f"{count:,} feature{'s' * (count > 1)}"
