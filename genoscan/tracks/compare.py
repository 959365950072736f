"""Base-by-base comparison of two tracks on the same genome."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float32

from genoscan.errors import InputError
from genoscan.genome.region import Region
from genoscan.tracks.reader import PIECE, BigWig

_Piece: TypeAlias = tuple[Region, Float32[np.ndarray, "2 bases"]]


@dataclass(frozen=True)
class Comparison:
    """Result of the comparison of two tracks.

    Attributes
    ----------
    both, only_first, only_second
        Number of bases that have a score in both tracks, only in the first track, and only in the second
        track.
    pearson, spearman
        Correlation coefficients over the bases that have a score in both tracks; NaN if undefined.
    largest
        Bases with the largest absolute differences between the two scores, in order of decreasing absolute
        difference. Each entry consists of a region of length 1, the score in the first track, and the score
        in the second track.
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
        Maximum number of bases to return in `Comparison.largest`.

    Returns
    -------
    Comparison
        Counts of bases, correlation coefficients, and the bases with the largest differences.

    Raises
    ------
    InputError
        If a file cannot be read, if the tracks share no sequence, if a shared sequence has different
        lengths in the two tracks, or if `top` is negative.

    Notes
    -----
    Memory: about 50 bytes for each base that has a score in both tracks, for the computation of ranks.
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
        common: list[Float32[np.ndarray, "2 bases"]] = [np.zeros((2, 0), np.float32)]
        largest: list[tuple[Region, float, float]] = []
        n_only = np.zeros(2, np.int64)
        for pieces in _joined(_scores_of_both(one, other)):
            scores = np.concatenate([scores for _, scores in pieces], 1)
            scored = ~np.isnan(scores)
            both = np.flatnonzero(scored.all(0))
            n_only += scored.sum(1) - len(both)
            common.append(scores[:, both])
            difference = np.abs(np.subtract(*common[-1], dtype=np.float64))
            edges = np.cumsum([0, *(len(region) for region, _ in pieces)])
            for i in both[np.argsort(-difference, kind="stable")[:top]]:
                which = int(edges.searchsorted(i, "right")) - 1
                region, at = pieces[which][0], int(i - edges[which])
                base = Region(region.chrom, region.start + at, region.start + at + 1)
                largest.append((base, float(scores[0, i]), float(scores[1, i])))
            largest = sorted(largest, key=lambda row: -abs(row[1] - row[2]))[:top]
    first_scores, second_scores = np.concatenate(common, 1)
    ranks = [pd.Series(row).rank().to_numpy() for row in (first_scores, second_scores)]
    return Comparison(
        len(first_scores),
        int(n_only[0]),
        int(n_only[1]),
        _correlation(first_scores.astype(np.float64), second_scores.astype(np.float64)),
        _correlation(*ranks),
        tuple(largest),
    )


def _scores_of_both(one: BigWig, other: BigWig) -> Iterator[_Piece]:
    """Yield the regions in which at least one track has data, with the scores in both tracks.

    Missing scores are NaN.
    """
    sizes = one.sizes | other.sizes
    for chrom, size in sizes.items():
        for start in range(0, size, PIECE):
            region = Region(chrom, start, min(start + PIECE, size))
            scores = np.full((2, len(region)), np.nan, np.float32)
            found = [
                chrom in track.sizes and track.fill(row, chrom, start)
                for track, row in zip((one, other), scores, strict=True)
            ]
            if any(found):
                yield region, scores


def _joined(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Group pieces into lists that contain at least `PIECE` bases each; the last list may contain fewer.

    Pieces are grouped because a genome may have many short sequences.
    """
    group: list[_Piece] = []
    bases = 0
    for piece in pieces:
        group.append(piece)
        bases += len(piece[0])
        if bases >= PIECE:
            yield group
            group, bases = [], 0
    if group:
        yield group


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or not (np.ptp(a) and np.ptp(b)):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
