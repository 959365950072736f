"""What a report says of a track, in numbers: curves, strongest bases, profiles, distribution."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from genoscan.genome.region import Region
from genoscan.genome.region_index import RegionIndex
from genoscan.tracks.reader import PIECE, BigWig
from genoscan.tracks.strongest import Strongest

BINS = 1_000
"""Of a region's curve."""

FLANK = 200
"""Bases on either side of a feature's beginning."""

SHUFFLES = 20
_FEATURES = 2_000
_NOTHING = np.inf, -np.inf
_HISTOGRAM = 120


@dataclass(frozen=True)
class Curve:
    """The lowest and the highest score of each bin of a region; NaN where none has one."""

    region: Region
    step: int
    low: Float32[np.ndarray, " bins"]
    high: Float32[np.ndarray, " bins"]

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest score of all; where there is none, infinity and less."""
        return float(np.fmin.reduce(self.low, initial=np.inf)), float(
            np.fmax.reduce(self.high, initial=-np.inf)
        )

    @property
    def peak(self) -> float:
        """The largest size of a score; 0 where there is none."""
        low, high = self.ends
        return max(-low, high, 0.0)


class Site(NamedTuple):
    """A base and its score."""

    base: Region
    score: float


@dataclass(frozen=True)
class Overview:
    """All scores of a track.

    curves         of the regions with the largest scores, these first
    regions        how many there are
    scored         bases with scores
    sites          the strongest bases, largest size first, equal ones in genome order
    edges, counts  a histogram of the scores
    """

    curves: tuple[Curve, ...]
    regions: int
    scored: int
    sites: tuple[Site, ...]
    edges: Float64[np.ndarray, " edges"]
    counts: Float64[np.ndarray, " bins"]


@dataclass(frozen=True)
class Profile:
    """Mean sizes of scores around where features begin, along their strand.

    features         how many begin at a base with a score
    looked_at        of them, evenly chosen
    mean             of these, at each offset from -FLANK to FLANK; NaN where none has a score
    lowest, highest  of `SHUFFLES` means, each of as many places chosen evenly among all bases with
                     scores; the seed is fixed
    """

    features: int
    looked_at: int
    mean: Float64[np.ndarray, " offsets"]
    lowest: Float64[np.ndarray, " offsets"]
    highest: Float64[np.ndarray, " offsets"]


def overview(track: BigWig, regions: Sequence[Region], *, top: int, curves: int) -> Overview:
    """Read a track twice.  Memory: a million bases, `top` sites and so many curves."""
    # The number decides between equal ones, and curves are never compared.
    kept: list[tuple[float, int, Curve]] = []
    index, strongest, before, ends = RegionIndex(regions), Strongest(top), 0, _NOTHING
    for number, region in enumerate(regions):
        step = -(-len(region) // BINS)
        bounds = []
        for start, scores in _pieces(track, region, step):
            bounds.append(_bounds(scores, step))
            strongest.add(before + start - region.start, scores)
        before += len(region)
        curve = Curve(region, step, *np.concatenate(bounds, 1))
        ends = min(ends[0], curve.ends[0]), max(ends[1], curve.ends[1])
        entry = curve.peak, -number, curve
        if len(kept) < curves:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
    edges = np.histogram_bin_edges(ends if ends != _NOTHING else (), _HISTOGRAM)
    counts = np.zeros(_HISTOGRAM)
    for region in regions:
        for _, scores in _pieces(track, region, 1):
            counts += np.histogram(scores[~np.isnan(scores)].astype(np.float64), edges)[0]
    sites = tuple(Site(index.base_at(number), score) for number, score in strongest.ranked())
    largest = tuple(curve for _, _, curve in sorted(kept, reverse=True))
    return Overview(largest, len(regions), int(counts.sum()), sites, edges, counts)


def _pieces(
    track: BigWig, region: Region, step: int
) -> Iterator[tuple[int, Float32[np.ndarray, " bases"]]]:
    """Yield a region's scores, and where they start; pieces end where bins of `step` bases do."""
    stride = max(1, PIECE // step) * step
    for start in range(region.start, region.end, stride):
        yield start, track.scores(region.chrom, start, min(start + stride, region.end))


def _bounds(scores: Float32[np.ndarray, " bases"], step: int) -> Float32[np.ndarray, "2 bins"]:
    """Return the lowest and the highest of each bin; the last may be short."""
    padded = np.full((-(-len(scores) // step), step), np.nan, np.float32)
    padded.ravel()[: len(scores)] = scores
    empty = np.isnan(padded).all(1)
    low, high = np.nan_to_num(padded, nan=np.inf).min(1), np.nan_to_num(padded, nan=-np.inf).max(1)
    return np.where(empty, np.float32(np.nan), np.stack([low, high]))


def stretches(
    sites: Sequence[Site], regions: Sequence[Region], *, width: int, most: int
) -> list[Region]:
    """Return pieces around the strongest sites, apart from one another, strongest first."""
    found: list[Region] = []
    index = RegionIndex(regions)
    for base, _ in sites:
        region = index.containing(base)
        assert region is not None
        start = max(region.start, min(base.start - width // 2, region.end - width))
        piece = Region(base.chrom, start, min(start + width, region.end))
        apart = (p.chrom != base.chrom or p.end <= start or piece.end <= p.start for p in found)
        if all(apart):
            found.append(piece)
        if len(found) == most:
            break
    return found


def profile(track: BigWig, regions: Sequence[Region], features: Sequence[Region]) -> Profile | None:
    """Return the mean sizes of scores around features; None where none begins at a score."""
    index = RegionIndex(regions)

    def scored(base: Region) -> bool:
        return not np.isnan(track.scores(base.chrom, base.start, base.end)[0])

    within = (base for base in map(_beginning, features) if index.containing(base) is not None)
    begin = [base for base in within if scored(base)]
    if not begin:
        return None

    def anywhere(strand: str) -> Region:
        while True:
            base = index.base_at(int(random.integers(len(index))))
            if scored(base):
                return replace(base, strand=strand)

    chosen = [
        begin[i] for i in np.linspace(0, len(begin) - 1, min(len(begin), _FEATURES)).astype(int)
    ]
    random = np.random.default_rng(0)
    shuffled = [_mean(track, (anywhere(base.strand) for base in chosen)) for _ in range(SHUFFLES)]
    return Profile(
        len(begin), len(chosen), _mean(track, chosen),
        np.fmin.reduce(shuffled), np.fmax.reduce(shuffled),
    )  # fmt: skip


def _beginning(feature: Region) -> Region:
    """Return its first base, as it is read."""
    at = feature.end - 1 if feature.strand == "-" else feature.start
    return Region(feature.chrom, at, at + 1, strand=feature.strand)


def _mean(track: BigWig, bases: Iterable[Region]) -> Float64[np.ndarray, " offsets"]:
    """Return the mean size at each offset, of those that have a score there."""
    total, known = np.zeros(2 * FLANK + 1), np.zeros(2 * FLANK + 1)
    for base in bases:
        first = base.start - FLANK
        start, end = max(0, first), min(track.sizes[base.chrom], base.end + FLANK)
        around = np.full(2 * FLANK + 1, np.nan)
        around[start - first : end - first] = track.scores(base.chrom, start, end)
        sizes = np.abs(around[::-1] if base.strand == "-" else around)
        total += np.nan_to_num(sizes)
        known += ~np.isnan(sizes)
    return np.divide(total, known, out=np.full_like(total, np.nan), where=known > 0)
