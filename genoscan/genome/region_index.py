"""The bases of several regions, numbered one region after the other."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

from genoscan.genome.region import Region


class RegionIndex:
    """Which base of which region has a number, and which number a base has.

    The regions do not overlap, and of one sequence come in order.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        self._regions = regions
        self._ends = list(accumulate(len(region) for region in regions))
        self._by_chrom: dict[str, list[tuple[Region, int]]] = defaultdict(list)
        for region, end in zip(regions, self._ends, strict=True):
            self._by_chrom[region.chrom].append((region, end - len(region)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def containing(self, region: Region) -> Region | None:
        """Return the one that the region lies wholly in."""
        found = self._find(region)
        return found and found[0]

    def slice_of(self, region: Region) -> slice | None:
        """Return the numbers of the region's bases, if it lies wholly in one of these."""
        if (found := self._find(region)) is None:
            return None
        start = found[1] + region.start - found[0].start
        return slice(start, start + len(region))

    def base_at(self, number: int) -> Region:
        """Return the base of this number."""
        i = bisect_right(self._ends, number)
        at = self._regions[i].end - (self._ends[i] - number)
        return Region(self._regions[i].chrom, at, at + 1)

    def _find(self, region: Region) -> tuple[Region, int] | None:
        here = self._by_chrom.get(region.chrom, [])
        i = bisect_right(here, region.start, key=lambda found: found[0].start) - 1
        return here[i] if i >= 0 and region.end <= here[i][0].end else None
