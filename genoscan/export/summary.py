"""What a report says of a track, in numbers: curves, strongest bases, profiles, distribution."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from genoscan.genome.places import Places
from genoscan.genome.region import Region
from genoscan.tracks.reader import PIECE, BigWig
from genoscan.tracks.strongest import Strongest

BINS = 1_000
"""Of a region's curve."""

FLANK = 200
"""Bases on either side of a feature's beginning."""

SHUFFLES = 20
_FEATURES = 2_000
_HISTOGRAM = 120


@dataclass(frozen=True)
class Curve:
    """The lowest and the highest score of each bin of a region; NaN where none has one."""

    region: Region
    step: int
    low: Float32[np.ndarray, "bins"]
    high: Float32[np.ndarray, "bins"]

    @property
    def peak(self) -> float:
        """The largest size of a score; 0 where there is none."""
        return float(np.nanmax(np.abs([self.low, self.high]), initial=0))


class Site(NamedTuple):
    """A base and its score."""

    base: Region
    score: float


@dataclass(frozen=True)
class Overview:
    """All scores of a track.

    scored         bases with scores
    sites          the strongest bases, largest size first, equal ones in genome order
    edges, counts  a histogram of the scores
    """

    curves: tuple[Curve, ...]
    scored: int
    sites: tuple[Site, ...]
    edges: Float64[np.ndarray, "edges"]
    counts: Float64[np.ndarray, "bins"]


@dataclass(frozen=True)
class Profile:
    """Mean sizes of scores around where features begin, along their strand.

    features         how many begin where there are scores
    looked_at        of them, evenly chosen
    mean             of these, at each offset from -FLANK to FLANK
    lowest, highest  of `SHUFFLES` means, each of as many places chosen evenly among all bases with
                     scores; the seed is fixed
    """

    features: int
    looked_at: int
    mean: Float64[np.ndarray, "offsets"]
    lowest: Float64[np.ndarray, "offsets"]
    highest: Float64[np.ndarray, "offsets"]


def overview(track: BigWig, regions: Sequence[Region], *, top: int) -> Overview:
    """Read a track twice.  Memory: a million bases, and the curves."""
    curves: list[Curve] = []
    places, strongest, before = Places(regions), Strongest(top), 0
    for region in regions:
        step = -(-len(region) // BINS)
        bounds = []
        for start, scores in _pieces(track, region, step):
            bounds.append(_bounds(scores, step))
            strongest.add(before + start - region.start, scores)
        before += len(region)
        curves.append(Curve(region, step, *np.concatenate(bounds, 1)))
    known = [curve for curve in curves if not np.isnan(curve.low).all()]
    ends = [np.nanmin(curve.low) for curve in known] + [np.nanmax(curve.high) for curve in known]
    edges = np.histogram_bin_edges(np.array(ends, np.float64), _HISTOGRAM)
    counts = np.zeros(_HISTOGRAM)
    for region in regions:
        for _, scores in _pieces(track, region, 1):
            counts += np.histogram(scores[~np.isnan(scores)].astype(np.float64), edges)[0]
    sites = (Site(places.base(number), score) for number, score in strongest.ranked())
    return Overview(tuple(curves), int(counts.sum()), tuple(sites), edges, counts)


def _pieces(
    track: BigWig, region: Region, step: int
) -> Iterator[tuple[int, Float32[np.ndarray, "bases"]]]:
    """Yield a region's scores, and where they start; pieces end where bins of `step` bases do."""
    stride = PIECE // step * step
    for start in range(region.start, region.end, stride):
        yield start, track.scores(region.chrom, start, min(start + stride, region.end))


def _bounds(scores: Float32[np.ndarray, "bases"], step: int) -> Float32[np.ndarray, "2 bins"]:
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
    places = Places(regions)
    for base, _ in sites:
        home = places.home(base)
        assert home is not None
        start = max(home.start, min(base.start - width // 2, home.end - width))
        piece = Region(base.chrom, start, min(start + width, home.end))
        apart = (p.chrom != base.chrom or p.end <= start or piece.end <= p.start for p in found)
        if all(apart):
            found.append(piece)
        if len(found) == most:
            break
    return found


def profile(track: BigWig, regions: Sequence[Region], features: Sequence[Region]) -> Profile | None:
    """Return the mean sizes of scores around features; None where no feature begins in a region."""
    places = Places(regions)
    begin = [base for base in map(_beginning, features) if places.home(base) is not None]
    if not begin:
        return None
    chosen = [
        begin[i] for i in np.linspace(0, len(begin) - 1, min(len(begin), _FEATURES)).astype(int)
    ]
    random = np.random.default_rng(0)
    shuffled = []
    for _ in range(SHUFFLES):
        numbers = random.integers(len(places), size=len(chosen)).tolist()
        moved = (
            replace(places.base(number), strand=base.strand)
            for number, base in zip(numbers, chosen, strict=True)
        )
        shuffled.append(_mean(track, moved))
    return Profile(
        len(begin), len(chosen), _mean(track, chosen), np.min(shuffled, 0), np.max(shuffled, 0)
    )


def _beginning(feature: Region) -> Region:
    """Return its first base, as it is read."""
    at = feature.end - 1 if feature.strand == "-" else feature.start
    return Region(feature.chrom, at, at + 1, strand=feature.strand)


def _mean(track: BigWig, bases: Iterable[Region]) -> Float64[np.ndarray, "offsets"]:
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
    return np.divide(total, known, out=np.zeros_like(total), where=known > 0)
