"""Regions given by the names of genes, which an annotation file locates.

A name is compared exactly, with its case, to the name, gene name, locus tag and ID of every gene, and of every
transcript. The region is the extent of the gene. A name that is also a sequence of the genome denotes the
sequence, as in samtools and in genome browsers.
"""

import difflib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from genoscan.errors import InputError
from genoscan.genome.annotation import read_unplaced
from genoscan.genome.feature import Feature, place
from genoscan.genome.gff import is_gene_row
from genoscan.genome.region import Region, UnknownSequenceError, check_bounds, parse_region

_LISTED = 5
"""Maximum number of loci, and of similar names, in an error message."""

_log = logging.getLogger(__name__)


def parse_regions(
    texts: Sequence[str],
    sizes: Mapping[str, int],
    annotation: Path | None = None,
    *,
    clip: bool = False,
    option: str = "--region",
    notify: Callable[[str], None] = _log.warning,
) -> list[Region]:
    """Parse region strings, each of which is a region in the syntax of samtools or the name of a gene.

    Parameters
    ----------
    texts
        Region strings, such as "chr1:1,001-2,000" (see `parse_region`) or "GATA1".
    sizes
        Length of each sequence, in bases.
    annotation
        File that contains the genes: GFF3, GTF, GenBank or BED. If None, names of genes are not accepted.
    clip
        If True, shorten regions that extend past the end of their sequence. If False, raise an error.
    option
        Command-line option to which the strings were passed, for error messages.
    notify
        Function that is called with a one-line message for each name that is both a sequence and a gene.

    Returns
    -------
    list of Region
        Regions in the given order. The `name` of the region of a gene is the given name, and its strand is that
        of the gene.

    Raises
    ------
    InputError
        If a string is neither a region nor the name of a gene, if several loci have this name, if the gene is
        not within the genome, or if the annotation cannot be read.

    Notes
    -----
    The annotation is read only if a string has no coordinates. Of a text file, only the lines that contain one
    of the names are parsed, which takes about two seconds per million lines.
    """
    found: dict[str, Region] = {}
    unknown: dict[str, UnknownSequenceError] = {}
    for text in texts:
        try:
            found[text] = parse_region(text, sizes, clip=clip, option=option)
        except UnknownSequenceError as problem:
            if annotation is None:
                raise
            unknown[text] = problem
    names = {text.strip() for text in texts if text in unknown or text.strip() in sizes}
    if annotation is not None and names:
        genes = _Genes(annotation, sizes, names)
        for text in texts:
            if text in unknown:
                found[text] = genes.region(text.strip(), f"{option} {text}", unknown[text])
            elif loci := genes.loci(text.strip()):
                notify(f"{option} {text}: the sequence of this name is used, not the gene at {loci[0]} in {annotation}")
    return [found[text] for text in texts]


class _Genes:
    """Features of an annotation file that have one of the given names."""

    def __init__(self, path: Path, sizes: Mapping[str, int], names: Collection[str]) -> None:
        self._path, self._sizes = path, sizes
        features, self._circular, malformed = read_unplaced(path, sizes, lambda line: _mentions(line, names))
        self._malformed = malformed.first
        self._features = {name: [one for one in features if name in one.aliases] for name in names}

    def loci(self, name: str) -> list[Region]:
        """Return the distinct loci of a name within the genome; features that overlap are one locus."""
        placed = place(self._features.get(name, []), self._sizes, self._circular).features
        merged: list[Region] = []
        for feature in sorted(placed, key=lambda one: (one.chrom, one.strand, one.start)):
            last = merged[-1] if merged else None
            if last and (last.chrom, last.strand) == (feature.chrom, feature.strand) and feature.start < last.end:
                clipped = last.clipped or feature.clipped
                merged[-1] = replace(last, end=max(last.end, feature.end), clipped=clipped)
            else:
                merged.append(_plain(feature))
        return sorted(merged, key=lambda locus: (locus.chrom, locus.start))

    def region(self, name: str, source: str, problem: UnknownSequenceError) -> Region:
        """Return the region of a gene.

        `source` is the source of the region, and `problem` is the error that states that its name is no sequence.
        """
        loci = self.loci(name)
        if len(loci) > 1:
            some = ", ".join(f"{locus} ({locus.strand})" for locus in loci[:_LISTED])
            more = f" and {len(loci) - _LISTED:,} more" if len(loci) > _LISTED else ""
            raise InputError(
                f'{source}: {len(loci):,} loci in {self._path} are called "{name}": {some}{more}; '
                f"give the coordinates of one"
            )
        if loci:
            return replace(loci[0], name=name, source=source)
        for feature in self._features[name]:
            check_bounds(replace(_plain(feature), source=f"{source}: {feature.where}"), self._sizes, clip=False)
        if self._malformed is not None:
            raise InputError(f"{source}: {self._malformed}")
        raise InputError(f"{problem}; {self._no_gene(name)}")

    def _no_gene(self, name: str) -> str:
        """Return a message that states that no gene has a name, with similar names."""
        gene, colon, coordinates = name.rpartition(":")
        if colon and coordinates[:1].isdigit():
            wanted = {gene}
            features, _, _ = read_unplaced(self._path, self._sizes, lambda line: _mentions(line, wanted))
            if any(gene in feature.aliases for feature in features):
                return f'"{gene}" is a gene in {self._path}: give its name without coordinates'
        features, _, _ = read_unplaced(self._path, self._sizes, is_gene_row)
        if not features:
            features, _, _ = read_unplaced(self._path, self._sizes)
        near = _similar(name, dict.fromkeys(alias for feature in features for alias in feature.aliases if alias))
        message = f'no gene in {self._path} is called "{name}"'
        return f"{message}; did you mean {' or '.join(near)}?" if near else message


def _plain(feature: Feature) -> Region:
    """Return the region of a feature, without its transcripts."""
    return Region(
        feature.chrom,
        feature.start,
        feature.end,
        name=feature.name,
        strand=feature.strand,
        source=feature.source,
        clipped=feature.clipped,
    )


def _mentions(line: str, names: Iterable[str]) -> bool:
    """Return whether one of the names occurs in a line after its first column, or the line is about a circle."""
    # Most of millions of lines contain none of these.
    if "%" not in line and "ircular" not in line and not any(map(line.__contains__, names)):
        return False
    columns = line.split(None, 1)[-1] if line.strip() else ""
    if "%" in columns:
        columns += unquote(columns)  # in GFF3, but not in GTF, characters may be percent-encoded
    return any(name in columns for name in names) or "ircular" in columns


def _similar(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that differ only in case or in their version or, without any, the most similar names."""
    folded = name.casefold()
    same = [other for other in names if folded in (other.casefold(), other.casefold().rpartition(".")[0])]
    return same[:_LISTED] or difflib.get_close_matches(name, names, n=3)
