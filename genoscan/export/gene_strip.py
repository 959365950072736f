"""Genes below a figure: introns as lines, untranslated exons as thin bars, coding exons as thick ones."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple

from genoscan.genome.feature import Feature
from genoscan.genome.region import Region


class GeneIndex:
    """Features by position.

    Parameters
    ----------
    features
        Features in any order.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        by_chrom: dict[str, list[Feature]] = defaultdict(list)
        for feature in features:
            by_chrom[feature.chrom].append(feature)
        self._found = {chrom: sorted(found, key=attrgetter("start", "end")) for chrom, found in by_chrom.items()}
        self._ends = {chrom: list(accumulate((f.end for f in found), max)) for chrom, found in self._found.items()}

    def overlapping(self, region: Region) -> list[Feature]:
        """Return the features that share a base with a region, by start."""
        found = self._found.get(region.chrom, [])
        first = bisect_right(self._ends.get(region.chrom, []), region.start)
        last = bisect_left(found, region.end, key=attrgetter("start"))
        return [feature for feature in found[first:last] if feature.end > region.start]


class Bar(NamedTuple):
    """Part of a transcript within a region.

    Attributes
    ----------
    start, end
        0-based, half-open.
    lane
        Row of the drawing, counted from the top.
    height
        2 for coding exons and exons of unknown kind, 1 for untranslated exons, 0 for a transcript with its introns.
    name
        Name of the feature with its direction.
    """

    start: int
    end: int
    lane: int
    height: int
    name: str


class GeneStrip(NamedTuple):
    """Transcripts of the features of a region, in lanes in which they do not overlap.

    Attributes
    ----------
    bars
        Parts of the transcripts; each transcript begins with a bar of height 0.
    lanes
        Number of lanes.
    omitted
        Number of transcripts for which there was no lane.
    """

    bars: tuple[Bar, ...]
    lanes: int
    omitted: int


def gene_strip(features: Sequence[Feature], region: Region, *, max_lanes: int) -> GeneStrip:
    """Arrange the transcripts of features in lanes.

    Parameters
    ----------
    features
        Features that overlap the region, by start.
    region
        Region that is drawn; bars are cut at its ends.
    max_lanes
        Maximum number of lanes.
    """
    bars: list[Bar] = []
    ends: list[int] = []
    omitted = 0
    gap = len(region) // 100
    for feature in features:
        for transcript in feature.drawn:
            start, end = max(transcript.start, region.start), min(transcript.end, region.end)
            if start >= end:
                continue
            lane = next((i for i, taken in enumerate(ends) if taken + gap <= start), len(ends))
            if lane == max_lanes:
                omitted += 1
                continue
            ends[lane : lane + 1] = [end]
            name = _directed(feature)
            bars.append(Bar(start, end, lane, 0, name))
            for first, last, is_thick in transcript.parts():
                first, last = max(first, region.start), min(last, region.end)
                if first < last:
                    bars.append(Bar(first, last, lane, 1 + is_thick, name))
    return GeneStrip(tuple(bars), len(ends), omitted)


def _directed(feature: Feature) -> str:
    name = " ".join(feature.name.split())
    return {"+": f"{name} \N{BLACK RIGHT-POINTING TRIANGLE}", "-": f"\N{BLACK LEFT-POINTING TRIANGLE} {name}"}.get(
        feature.strand, name
    )
