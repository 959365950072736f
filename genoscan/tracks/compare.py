"""Base-by-base comparison of two tracks of the same genome."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32

from genoscan.errors import InputError
from genoscan.genome.region import Region
from genoscan.tracks.reader import PIECE, BigWig


@dataclass(frozen=True)
class Comparison:
    """Agreement between two tracks.

    Attributes
    ----------
    both, only_first, only_second
        Numbers of bases with a score in both tracks, only in the first, and only in the second.
    pearson, spearman
        Correlation coefficients over bases with a score in both tracks; NaN if undefined.
    largest
        Bases with the largest absolute differences, in decreasing order. Each entry consists of the
        base, its score in the first track and its score in the second track.
    """

    both: int
    only_first: int
    only_second: int
    pearson: float
    spearman: float
    largest: tuple[tuple[Region, float, float], ...]


def compare(first: Path, second: Path, *, top: int) -> Comparison:
    """Compare the scores of two bigWig files base by base.

    Parameters
    ----------
    first, second
        bigWig files.
    top
        Maximum number of bases in `largest`.

    Returns
    -------
    Comparison
        Counts, correlations and the largest differences.

    Raises
    ------
    InputError
        If a file cannot be read, the tracks share no sequence, a shared sequence has different
        lengths, or `top` is negative.

    Notes
    -----
    Memory: about 50 bytes per base with a score in both tracks, to compute ranks.
    """
    if top < 0:
        raise InputError(f"--top {top}: expected 0 or more")
    with BigWig(first) as one, BigWig(second) as other:
        shared = [chrom for chrom in one.sizes if chrom in other.sizes]
        if not shared:
            raise InputError(f"{second}: has no sequence that {first} has: are both of one genome?")
        for chrom in shared:
            if one.sizes[chrom] != other.sizes[chrom]:
                raise InputError(
                    f"{second}: {chrom} has {other.sizes[chrom]:,} bases, {one.sizes[chrom]:,} in "
                    f"{first}: are both of one genome?"
                )
        pieces: list[Float32[np.ndarray, "tracks bases"]] = [np.zeros((2, 0), np.float32)]
        largest: list[tuple[Region, float, float]] = []
        least = -np.inf
        n_only = np.zeros(2, np.int64)
        for chrom in dict.fromkeys([*one.sizes, *other.sizes]):
            tracks = [track for track in (one, other) if chrom in track.sizes]
            for start in range(0, tracks[0].sizes[chrom], PIECE):
                end = min(start + PIECE, tracks[0].sizes[chrom])
                scored_tracks = [track for track in tracks if not track.is_empty(chrom, start, end)]
                if not scored_tracks:
                    continue
                scores = np.full((2, end - start), np.nan, np.float32)
                for track in scored_tracks:
                    scores[int(track is other)] = track.scores(chrom, start, end)
                scored = ~np.isnan(scores)
                both = scored.all(0)
                n_only += (scored & ~both).sum(1)
                pieces.append(scores[:, both])
                if len(largest) == top and not (np.abs(np.subtract(*pieces[-1], dtype=np.float64)) > least).any():
                    continue
                positions = start + np.flatnonzero(both)
                for i in np.argsort(-np.abs(np.subtract(*pieces[-1])), kind="stable")[:top]:
                    base = Region(chrom, int(positions[i]), int(positions[i]) + 1)
                    largest.append((base, float(pieces[-1][0, i]), float(pieces[-1][1, i])))
                largest = sorted(largest, key=lambda row: -abs(row[1] - row[2]))[:top]
                least = abs(largest[-1][1] - largest[-1][2]) if largest else np.inf
    common = np.concatenate(pieces, 1)
    ranks = [pd.Series(row).rank().to_numpy() for row in common]
    return Comparison(
        common.shape[1],
        int(n_only[0]),
        int(n_only[1]),
        _correlation(*common.astype(np.float64)),
        _correlation(*ranks),
        tuple(largest),
    )


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or not (np.ptp(a) and np.ptp(b)):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
