"""Scores around reference points of regions, in the direction of their strands, and their mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from genoscan.errors import InputError
from genoscan.genome.region import Region
from genoscan.tracks.reader import PIECE
from genoscan.tracks.region_scores import region_scores
from genoscan.tracks.track_reader import TrackReader

POINTS = "start", "center", "end"
"""Names of the reference points of a region: the first, the middle and the last base."""

FEWEST = 5
"""Smallest number of regions for a profile; a mean over fewer shows single regions."""

_ROWS = 4_096
"""Number of regions whose deviations from the mean are in memory at a time."""


@dataclass(frozen=True)
class Window:
    """Interval around a reference point, divided into bins.

    Attributes
    ----------
    upstream, downstream
        Number of bases before and after the reference point, in the direction of the strand.
    step
        Bin width in bases; the last bin may be narrower.

    Raises
    ------
    InputError
        If a length is negative, the step is not positive, or the window is longer than 2^20 bases.
    """

    upstream: int
    downstream: int
    step: int = 1

    def __post_init__(self) -> None:
        for name in ("upstream", "downstream"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} {getattr(self, name)}: expected 0 bases or more")
        if self.step < 1:
            raise InputError(f"--bin {self.step}: expected 1 base or more")
        if len(self) > PIECE:
            raise InputError(f"--upstream and --downstream: found {len(self):,} bases, expected at most {PIECE:,}")

    def __len__(self) -> int:
        return self.upstream + 1 + self.downstream

    @property
    def offsets(self) -> Int64[np.ndarray, " bins"]:
        """First offset of each bin."""
        return np.arange(-self.upstream, self.downstream + 1, self.step)


@dataclass(frozen=True)
class MeanProfile:
    """Mean over regions, in each bin of a window.

    Attributes
    ----------
    n
        Number of regions with a score.
    mean
        Mean over these regions; NaN if there are none.
    standard_error
        Standard error of the mean; NaN if there are fewer than two regions.
    """

    n: Int64[np.ndarray, " bins"]
    mean: Float64[np.ndarray, " bins"]
    standard_error: Float64[np.ndarray, " bins"]


def reference_base(region: Region, point: str) -> Region:
    """Return the reference point of a region in the direction of its strand.

    Parameters
    ----------
    region
        Region; without a strand, it is treated as one on the forward strand.
    point
        Name of the reference point (an element of `POINTS`).

    Returns
    -------
    Region
        Region of length 1, with the name and the strand of the region.

    Raises
    ------
    InputError
        If `point` is none of these.
    """
    if point not in POINTS:
        raise InputError(f"reference point {point}: expected one of {', '.join(POINTS)}")
    offset = {"start": 0, "center": len(region) // 2, "end": len(region) - 1}[point]
    at = region.end - 1 - offset if region.strand == "-" else region.start + offset
    return Region(region.chrom, at, at + 1, name=region.name, strand=region.strand)


def scores_around(
    track: TrackReader, bases: Sequence[Region], window: Window, *, absolute: bool = False
) -> Float32[np.ndarray, "bases bins"]:
    """Return the mean score in each bin around bases, in the direction of their strands.

    Parameters
    ----------
    track
        Open track.
    bases
        Regions of length 1 in any order. Their windows may extend past the sequences of the track.
    window
        Window around each base.
    absolute
        Whether to use absolute scores.

    Returns
    -------
    array of shape (bases, bins), float32
        Mean of the scores in each bin; NaN if none of its bases has a score.

    Raises
    ------
    InputError
        If the file is damaged, or a score is infinite.

    Notes
    -----
    Memory: 4 bytes per base and bin.
    """
    found = np.full((len(bases), len(window.offsets)), np.nan, np.float32)
    firsts = [base.start - (window.downstream if base.strand == "-" else window.upstream) for base in bases]
    around = [Region(base.chrom, max(0, first), first + len(window)) for base, first in zip(bases, firsts, strict=True)]
    n_padded = found.shape[1] * window.step
    for number, start, scores in region_scores(track, around):
        row = np.full(len(window), np.nan, np.float32)
        first = start - firsts[number]
        row[first : first + len(scores)] = np.abs(scores) if absolute else scores
        if bases[number].strand == "-":
            row = row[::-1]
        if window.step > 1:
            padded = np.full(n_padded, np.nan, np.float32)
            padded[: len(row)] = row
            row = mean_of_known(padded.reshape(-1, window.step), axis=1).astype(np.float32)
        found[number] = row
    return found


def mean_profile(scores: Float32[np.ndarray, "regions bins"]) -> MeanProfile:
    """Return the mean over regions, ignoring NaN.

    Parameters
    ----------
    scores
        Result of `scores_around`.

    Returns
    -------
    MeanProfile
        Mean and standard error in each bin.
    """
    mean, n = mean_of_known(scores, axis=0), np.count_nonzero(~np.isnan(scores), axis=0)
    squares = np.zeros(len(n))
    for first in range(0, len(scores), _ROWS):
        squares += np.nansum(np.square(scores[first : first + _ROWS] - mean), axis=0)
    variance = np.divide(squares, n - 1, out=np.full(len(n), np.nan), where=n > 1)
    return MeanProfile(n, mean, np.sqrt(np.divide(variance, n, out=np.full(len(n), np.nan), where=n > 1)))


def mean_of_known(values: Float32[np.ndarray, "..."], *, axis: int) -> Float64[np.ndarray, "..."]:
    """Return the mean along an axis, ignoring NaN; NaN where there is no other value."""
    known = np.count_nonzero(~np.isnan(values), axis=axis)
    total = np.nansum(values, axis=axis, dtype=np.float64)
    return np.divide(total, known, out=np.full(np.shape(total), np.nan), where=known > 0)
