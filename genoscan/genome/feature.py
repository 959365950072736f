"""Features of a genome annotation: genes and other named regions, with their transcripts."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import NamedTuple

from genoscan.errors import InputError
from genoscan.genome.region import Region

Interval = tuple[int, int]
"""Start and end of an interval, 0-based and half-open."""


class Transcript(NamedTuple):
    """Transcript of a feature, in 0-based, half-open coordinates.

    Attributes
    ----------
    start, end
        Bounds of the transcript, including all exons and introns.
    exons
        Disjoint exons, in ascending order.
    coding
        Interval from the first to the last coding base, like thickStart and thickEnd in BED. The interval
        is empty if the transcript has no coding bases. The attribute is None if the coding bases are
        unknown.
    partial
        Whether coding bases are missing, so that the ends of `coding` need not be a start and a stop codon.
    """

    start: int
    end: int
    exons: tuple[Interval, ...]
    coding: Interval | None = None
    partial: bool = False

    def cut(self, start: int, end: int) -> "Transcript | None":
        """Return the part of the transcript from `start` to `end`, or None if this part contains no exonic bases."""
        exons = tuple((max(a, start), min(b, end)) for a, b in self.exons if a < end and start < b)
        if not exons:
            return None
        coding = self.coding and (min(max(self.coding[0], start), end), max(start, min(self.coding[1], end)))
        partial = self.partial or coding != self.coding
        return Transcript(max(self.start, start), min(self.end, end), exons, coding, partial)

    def parts(self) -> Iterator[tuple[int, int, bool]]:
        """Yield the start and end of each part of an exon, and whether it is drawn thick.

        Untranslated parts are drawn thin; coding parts, and exons of unknown kind, thick.
        """
        for start, end in self.exons:
            first, last = (
                (start, end) if self.coding is None else (max(start, self.coding[0]), min(end, self.coding[1]))
            )
            if first >= last:
                yield start, end, False
                continue
            if start < first:
                yield start, first, False
            yield first, last, True
            if last < end:
                yield last, end, False

    def shift(self, by: int) -> "Transcript":
        """Return a copy of the transcript in which all coordinates are increased by `by`."""
        exons = tuple((a + by, b + by) for a, b in self.exons)
        coding = self.coding and (self.coding[0] + by, self.coding[1] + by)
        return Transcript(self.start + by, self.end + by, exons, coding, self.partial)


@dataclass(frozen=True, slots=True)
class Feature(Region):
    """Annotated region, such as a gene, with its transcripts.

    Attributes
    ----------
    transcripts
        Distinct transcripts; empty if none is known, or if they add no information (see `make_feature`).
    aliases
        All names by which the file refers to the feature, such as its name, locus tag and ID.
    """

    transcripts: tuple[Transcript, ...] = field(default=(), compare=False)
    aliases: tuple[str, ...] = field(default=(), compare=False)

    @property
    def drawn(self) -> tuple[Transcript, ...]:
        """Transcripts or, if there are none, one that consists of a single exon."""
        return self.transcripts or (Transcript(self.start, self.end, ((self.start, self.end),)),)

    def is_intron(self, position: int) -> bool:
        """Return whether a position lies within a transcript of the feature but not within any exon."""
        around = [t for t in self.transcripts if t.start <= position < t.end]
        return bool(around) and not any(a <= position < b for t in around for a, b in t.exons)


class MalformedRows:
    """Counter for the malformed rows in a file that also stores the error for the first of these rows.

    Attributes
    ----------
    count
        Number of malformed rows.
    first
        Error for the first malformed row; None if no row is malformed.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: InputError | None = None

    def add(self, problem: InputError) -> None:
        """Count one malformed row.

        Parameters
        ----------
        problem
            Error for the row. The error message identifies the file and the row.
        """
        self.count += 1
        self.first = self.first or problem


def make_feature(region: Region, transcripts: Iterable[Transcript], aliases: Iterable[str] = ()) -> Feature:
    """Create a feature from a region and its transcripts.

    The transcripts are omitted if they add no information. This is the case if every transcript consists of
    a single exon that covers the whole region and has no known coding bases.

    Parameters
    ----------
    region
        Region that defines the extent, name, strand and source of the feature.
    transcripts
        Transcripts of the feature. Parts of transcripts that are outside the region are removed.
    aliases
        All names of the feature; an empty sequence stands for the name of the region alone.

    Returns
    -------
    Feature
        New feature, without duplicate transcripts.
    """
    whole = region.start, region.end
    inside = [cut for transcript in transcripts if (cut := transcript.cut(*whole))]
    plain = all(t.exons == (whole,) and t.coding is None for t in inside)
    return Feature(
        region.chrom,
        region.start,
        region.end,
        name=region.name,
        strand=region.strand,
        source=region.source,
        transcripts=() if plain else tuple(dict.fromkeys(inside)),
        aliases=tuple(dict.fromkeys(aliases)) or (region.name,) * bool(region.name),
    )


def merge_overlapping(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Merge intervals that share bases.

    Parameters
    ----------
    intervals
        Intervals in any order.

    Returns
    -------
    tuple of (int, int)
        Disjoint intervals in ascending order. Adjacent intervals that share no base are not merged.
    """
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return tuple(merged)


def gene_index(genes: Iterable[Feature]) -> Callable[[Feature], bool]:
    """Return a function that determines whether a feature lies within a gene on the same strand.

    Parameters
    ----------
    genes
        Genes in any order.

    Returns
    -------
    callable
        Function that takes a feature and returns a bool. The run time of each call is logarithmic in the
        number of genes.
    """
    intervals: dict[tuple[str, str], list[Interval]] = defaultdict(list)
    for gene in genes:
        intervals[gene.chrom, gene.strand].append((gene.start, gene.end))
    ends = {}
    for key, found in intervals.items():
        found.sort()
        ends[key] = list(accumulate((end for _, end in found), max))

    def is_in_gene(feature: Feature) -> bool:
        key = feature.chrom, feature.strand
        i = bisect_right(intervals.get(key, ()), feature.start, key=lambda interval: interval[0])
        return i > 0 and ends[key][i - 1] >= feature.end

    return is_in_gene


class Placement(NamedTuple):
    """Features that lie within a genome, and the numbers of features that were omitted or shortened.

    Attributes
    ----------
    features
        Features that lie within the genome.
    unknown
        Number of features that were omitted because their sequence is not in the genome, by sequence name.
    past_end
        Number of features that were omitted because they start past the end of their sequence.
    trimmed
        Number of features that were shortened to fit their sequence.
    """

    features: list[Feature]
    unknown: dict[str, int]
    past_end: int
    trimmed: int


def place(features: Iterable[Feature], sizes: Mapping[str, int], circular: Collection[str]) -> Placement:
    """Select the features that lie within a genome, and shorten those that extend past the end of a sequence.

    Parameters
    ----------
    features
        Features in any order.
    sizes
        Sequence lengths in bases.
    circular
        Names of the circular sequences. If a feature crosses the origin of a circular sequence, the end of
        the feature is greater than the sequence length. Such a feature is split into two features at the
        origin.

    Returns
    -------
    Placement
        Selected features in the given order, and the numbers of omitted and shortened features.
    """
    found: list[Feature] = []
    unknown: dict[str, int] = defaultdict(int)
    past_end = trimmed = 0
    for feature in features:
        size = sizes.get(feature.chrom)
        if size is None:
            unknown[feature.chrom] += 1
        elif feature.end <= size:
            found.append(feature)
        elif feature.chrom in circular and size:
            turn = feature.start // size * size
            end = min(feature.end, feature.start + size)
            trimmed += end < feature.end
            cuts = feature.start, min(end, turn + size), end
            found += [_part(feature, a, b, a // size * size) for a, b in pairwise(cuts) if a < b]
        elif feature.start >= size:
            past_end += 1
        else:
            trimmed += 1
            found.append(_part(feature, feature.start, size, 0))
    return Placement(found, dict(unknown), past_end, trimmed)


def _part(feature: Feature, start: int, end: int, origin: int) -> Feature:
    """Return the part of a feature from `start` to `end`, in coordinates relative to `origin`."""
    transcripts = [cut.shift(-origin) for t in feature.transcripts if (cut := t.cut(start, end))]
    return replace(
        feature, start=start - origin, end=end - origin, transcripts=tuple(dict.fromkeys(transcripts)), clipped=True
    )
