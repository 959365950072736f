"""Summary of a track: score ranges along regions, largest scores, mean profile and histogram."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from genoscan.genome.region import Region
from genoscan.genome.region_index import RegionIndex
from genoscan.tracks.profile import Window, mean_of_known, reference_base, scores_around
from genoscan.tracks.reader import PIECE, BigWig
from genoscan.tracks.top_scores import TopScores

BINS = 1_000
"""Maximum number of bins into which the curve of a region is divided."""

FLANK = 200
"""Number of bases that a profile includes on each side of the first base of a feature."""

SHUFFLES = 20
_FEATURES = 2_000
_EMPTY_RANGE = np.inf, -np.inf
_HISTOGRAM = 120


@dataclass(frozen=True)
class Curve:
    """Minimum and maximum score in each bin of a region.

    Attributes
    ----------
    region
        Region that is divided into bins.
    step
        Bin width in bases; the last bin may be narrower.
    low, high
        Minimum and maximum score in each bin, as float32; NaN in bins without scores.
    """

    region: Region
    step: int
    low: Float32[np.ndarray, " bins"]
    high: Float32[np.ndarray, " bins"]

    @property
    def extremes(self) -> tuple[float, float]:
        """Minimum and maximum score in the region; (inf, -inf) if the region has no scores."""
        return float(np.fmin.reduce(self.low, initial=np.inf)), float(np.fmax.reduce(self.high, initial=-np.inf))

    @property
    def peak(self) -> float:
        """Largest absolute score in the region; 0 if the region has no scores."""
        low, high = self.extremes
        return max(-low, high, 0.0)


class Site(NamedTuple):
    """A base and its score.

    Attributes
    ----------
    base
        Position of the base, as a region of length 1 with the name of the scored region.
    score
        Score of the base.
    """

    base: Region
    score: float


@dataclass(frozen=True)
class Summary:
    """Summary of the scores of a track.

    Attributes
    ----------
    curves
        Curves of the regions with the largest absolute scores, sorted by decreasing `peak`.
    regions
        Number of scored regions.
    scored
        Number of bases with a score.
    sites
        Bases with the largest absolute scores, sorted by decreasing absolute score. Bases with equal
        absolute scores are in genome order.
    edges, counts
        Edges of the bins of the score histogram, and number of bases in each bin.
    """

    curves: tuple[Curve, ...]
    regions: int
    scored: int
    sites: tuple[Site, ...]
    edges: Float64[np.ndarray, " edges"]
    counts: Float64[np.ndarray, " bins"]


@dataclass(frozen=True)
class Profile:
    """Mean absolute score around the first bases of features, in the direction of their strands.

    Attributes
    ----------
    features
        Number of features whose first base has a score.
    n_sampled
        Number of these features that are included in the mean, at most 2,000. They are evenly spaced in
        the list of these features.
    mean
        Mean absolute score at each offset from `-FLANK` to `FLANK`; NaN at an offset without scores.
    lowest, highest
        Minimum and maximum, at each offset, of `SHUFFLES` random profiles. Each random profile is the
        mean around `n_sampled` random bases that have scores. The random seed is fixed.
    """

    features: int
    n_sampled: int
    mean: Float64[np.ndarray, " offsets"]
    lowest: Float64[np.ndarray, " offsets"]
    highest: Float64[np.ndarray, " offsets"]


def summarize(track: BigWig, regions: Sequence[Region], *, top: int, curves: int) -> Summary:
    """Summarize the scores of a track.

    Parameters
    ----------
    track
        Open bigWig file.
    regions
        Scored regions, disjoint and in genome order.
    top
        Maximum number of bases in `Summary.sites`.
    curves
        Maximum number of regions in `Summary.curves`.

    Returns
    -------
    Summary
        Curves, sites and histogram.

    Raises
    ------
    InputError
        If the track cannot be read, or contains an infinite value.

    Notes
    -----
    The track is read twice. Memory is needed for the scores of at most a million bases at a time and for
    the result.
    """
    # Ties are broken by the region's number, so that curves are never compared.
    heap: list[tuple[float, int, Curve]] = []
    index, selected, offset, extremes = RegionIndex(regions), TopScores(top), 0, _EMPTY_RANGE
    for number, region in enumerate(regions):
        step = -(-len(region) // BINS)
        bounds = []
        for start, scores in _pieces(track, region, step):
            bounds.append(_bounds(scores, step))
            selected.add(offset + start - region.start, scores)
        offset += len(region)
        curve = Curve(region, step, *np.concatenate(bounds, 1))
        extremes = min(extremes[0], curve.extremes[0]), max(extremes[1], curve.extremes[1])
        entry = curve.peak, -number, curve
        if len(heap) < curves:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    edges = np.histogram_bin_edges(extremes if extremes != _EMPTY_RANGE else (), _HISTOGRAM)
    counts = np.zeros(_HISTOGRAM)
    for region in regions:
        for _, scores in _pieces(track, region, 1):
            counts += np.histogram(scores[~np.isnan(scores)].astype(np.float64), edges)[0]
    sites = tuple(Site(index.base_at(number), score) for number, score in selected.ranked())
    largest = tuple(curve for _, _, curve in sorted(heap, reverse=True))
    return Summary(largest, len(regions), int(counts.sum()), sites, edges, counts)


def region_curve(track: BigWig, region: Region, step: int) -> Curve:
    """Return the minimum and maximum score in each bin of a region.

    Parameters
    ----------
    track
        Open bigWig file.
    region
        Region; its sequence may be missing from the file.
    step
        Bin width in bases.

    Raises
    ------
    InputError
        If the track cannot be read, or contains an infinite value.
    """
    if region.chrom not in track.sizes:
        empty = np.full(-(-len(region) // step), np.nan, np.float32)
        return Curve(region, step, empty, empty)
    return Curve(region, step, *np.concatenate([_bounds(s, step) for _, s in _pieces(track, region, step)], 1))


def _pieces(track: BigWig, region: Region, step: int) -> Iterator[tuple[int, Float32[np.ndarray, " bases"]]]:
    """Divide a region into pieces, and yield the start and the scores of each piece.

    The length of each piece, except for the last, is a multiple of `step` bases.
    """
    stride = max(1, PIECE // step) * step
    for start in range(region.start, region.end, stride):
        yield start, track.finite_scores(region.chrom, start, min(start + stride, region.end))


def _bounds(scores: Float32[np.ndarray, " bases"], step: int) -> Float32[np.ndarray, "2 bins"]:
    """Return the minimum and maximum score of each bin of `step` bases; the last bin may be narrower."""
    padded = np.full((-(-len(scores) // step), step), np.nan, np.float32)
    padded.ravel()[: len(scores)] = scores
    empty = np.isnan(padded).all(1)
    low, high = np.nan_to_num(padded, nan=np.inf).min(1), np.nan_to_num(padded, nan=-np.inf).max(1)
    return np.where(empty, np.float32(np.nan), np.stack([low, high]))


def top_windows(sites: Sequence[Site], regions: Sequence[Region], *, width: int, limit: int) -> list[Region]:
    """Return non-overlapping windows around the sites with the largest absolute scores.

    Parameters
    ----------
    sites
        Bases within the regions, sorted by decreasing absolute score.
    regions
        Scored regions. Each window lies within a single region.
    width
        Window length in bases. In a region that is shorter than `width`, the window is the whole region.
    limit
        Maximum number of windows.

    Returns
    -------
    list of Region
        Windows, in the order of the sites that they surround, with the names of their regions.
    """
    windows: list[Region] = []
    index = RegionIndex(regions)
    for base, _ in sites:
        region = index.containing(base)
        assert region is not None
        start = max(region.start, min(base.start - width // 2, region.end - width))
        new = Region(base.chrom, start, min(start + width, region.end), name=region.name)
        disjoint = (w.chrom != new.chrom or w.end <= start or new.end <= w.start for w in windows)
        if all(disjoint):
            windows.append(new)
        if len(windows) == limit:
            break
    return windows


def profile(track: BigWig, regions: Sequence[Region], features: Sequence[Region]) -> Profile | None:
    """Compute the mean profile around the first bases of features.

    Parameters
    ----------
    track
        Open bigWig file.
    regions
        Scored regions, disjoint and in genome order.
    features
        Features. The strand of a feature determines its first base and the direction of its profile.

    Returns
    -------
    Profile or None
        Mean profile, or None if no feature has a score at its first base.

    Raises
    ------
    InputError
        If the track cannot be read.
    """
    index = RegionIndex(regions)

    def scored(base: Region) -> bool:
        return not np.isnan(track.scores(base.chrom, base.start, base.end)[0])

    first_bases = (reference_base(feature, "start") for feature in features)
    candidates = (base for base in first_bases if index.containing(base) is not None)
    starts = [base for base in candidates if scored(base)]
    if not starts:
        return None

    def random_base(strand: str) -> Region:
        while True:
            base = index.base_at(int(random.integers(len(index))))
            if scored(base):
                return replace(base, strand=strand)

    sampled = [starts[i] for i in np.linspace(0, len(starts) - 1, min(len(starts), _FEATURES)).astype(int)]

    def mean(bases: Sequence[Region]) -> Float64[np.ndarray, " offsets"]:
        return mean_of_known(scores_around(track, bases, Window(FLANK, FLANK), absolute=True), axis=0)

    random = np.random.default_rng(0)
    means = [mean([random_base(base.strand) for base in sampled]) for _ in range(SHUFFLES)]
    return Profile(len(starts), len(sampled), mean(sampled), np.fmin.reduce(means), np.fmax.reduce(means))
