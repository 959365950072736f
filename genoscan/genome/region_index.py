"""Mapping between genome coordinates and positions in an array of concatenated regions."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

from genoscan.genome.region import Region


class RegionIndex:
    """Mapping between genome coordinates and positions in an array of concatenated regions.

    The length of an index is the total number of bases in its regions. The time for a lookup is logarithmic
    in the number of regions.

    Parameters
    ----------
    regions
        Disjoint regions, in ascending order within each sequence.
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
        """Return the indexed region that contains a given region.

        Parameters
        ----------
        region
            Any region.

        Returns
        -------
        Region or None
            Indexed region, or None if no single indexed region contains all of `region`.
        """
        found = self._find(region)
        return found and found[0]

    def slice_of(self, region: Region) -> slice | None:
        """Return the array positions of the bases in a region.

        Parameters
        ----------
        region
            Any region.

        Returns
        -------
        slice or None
            Slice of array positions, or None if no single indexed region contains all of `region`.
        """
        if (found := self._find(region)) is None:
            return None
        start = found[1] + region.start - found[0].start
        return slice(start, start + len(region))

    def base_at(self, position: int) -> Region:
        """Return the genome coordinates of the base at an array position.

        Parameters
        ----------
        position
            Array position, at least 0 and less than the length of the index.

        Returns
        -------
        Region
            Region of length 1 that contains the base, with the name of the indexed region.
        """
        i = bisect_right(self._ends, position)
        region = self._regions[i]
        at = region.end - (self._ends[i] - position)
        return Region(region.chrom, at, at + 1, name=region.name)

    def _find(self, region: Region) -> tuple[Region, int] | None:
        here = self._by_chrom.get(region.chrom, [])
        i = bisect_right(here, region.start, key=lambda found: found[0].start) - 1
        return here[i] if i >= 0 and region.end <= here[i][0].end else None
