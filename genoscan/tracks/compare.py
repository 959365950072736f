"""Base-by-base comparison of tracks on the same genome."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64

from genoscan.errors import InputError
from genoscan.genome.region import Region
from genoscan.tracks.reader import PIECE
from genoscan.tracks.track_reader import TrackReader, fill_scores, open_scores, track_labels

_Piece: TypeAlias = tuple[Region, Float32[np.ndarray, "tracks _"]]


class Difference(NamedTuple):
    """A base with different scores in two tracks.

    Attributes
    ----------
    base
        Region of length 1.
    first, second
        Score in each track.
    """

    base: Region
    first: float
    second: float


@dataclass(frozen=True)
class Comparison:
    """Result of the comparison of tracks.

    Attributes
    ----------
    labels
        Short name of each track.
    shared
        Number of bases that have a score in both tracks, as an array of shape (tracks, tracks). The diagonal
        contains the number of bases with a score in each track.
    pearson, spearman
        Correlation coefficients over the bases that have a score in both tracks, as arrays of shape
        (tracks, tracks); NaN if undefined, because scores are constant or fewer than two bases are shared.
    largest
        If there are two tracks, bases with the largest absolute differences between the two scores, in order of
        decreasing absolute difference; differences of 0 are left out. Empty if there are more tracks.
    """

    labels: tuple[str, ...]
    shared: Int64[np.ndarray, "tracks tracks"]
    pearson: Float64[np.ndarray, "tracks tracks"]
    spearman: Float64[np.ndarray, "tracks tracks"]
    largest: tuple[Difference, ...]

    def pairs(self) -> pd.DataFrame:
        """Return a table with a row for each pair of tracks.

        The columns are first and second, the labels; both, only_first and only_second, numbers of bases with a
        score; and pearson and spearman.
        """
        rows = [(i, j) for i in range(len(self.labels)) for j in range(i + 1, len(self.labels))]
        counts = [(self.shared[i, j], self.shared[i, i], self.shared[j, j]) for i, j in rows]
        return pd.DataFrame(
            {
                "first": [self.labels[i] for i, _ in rows],
                "second": [self.labels[j] for _, j in rows],
                "both": [both for both, _, _ in counts],
                "only_first": [first - both for both, first, _ in counts],
                "only_second": [second - both for both, _, second in counts],
                "pearson": [self.pearson[row] for row in rows],
                "spearman": [self.spearman[row] for row in rows],
            }
        )


def compare(paths: Sequence[Path], *, top: int = 0) -> Comparison:
    """Compare the scores of tracks base by base.

    Parameters
    ----------
    paths
        Two or more tracks: bigWig, bedGraph, or archive of gradients (.npz).
    top
        Maximum number of bases to return in `Comparison.largest`.

    Returns
    -------
    Comparison
        Counts of bases, correlation coefficients of all pairs and, for two tracks, the bases with the largest
        differences.

    Raises
    ------
    InputError
        If there are fewer than two tracks, a file cannot be read, a track shares no sequence with those before
        it, a sequence has different lengths in two tracks, a score is infinite, or `top` is negative.

    Notes
    -----
    Memory: 4 bytes per track for each base that has a score in at least two tracks, and about 50 bytes for each
    base that has a score in both tracks of a pair, for the computation of ranks.
    """
    if top < 0:
        raise InputError(f"--top {top}: expected 0 or more")
    if len(paths) < 2:
        raise InputError(f"{paths[0] if paths else 'no track'}: expected at least two tracks to compare")
    n = len(paths)
    labels = track_labels(paths)
    scored = np.zeros(n, np.int64)
    kept = [np.zeros((n, 0), np.float32)]
    largest: list[Difference] = []
    with ExitStack() as stack:
        tracks = [stack.enter_context(open_scores(path)) for path in paths]
        for pieces in _joined(_scores_of_all(tracks, _common_sizes(tracks))):
            scores = np.concatenate([scores for _, scores in pieces], 1)
            known = ~np.isnan(scores)
            scored += known.sum(1)
            kept.append(scores[:, known.sum(0) > 1])
            if n == 2 and top:
                largest = _largest([*largest, *_differences(pieces, scores, top)], top)
    scores = np.concatenate(kept, 1)
    shared, pearson, spearman = np.diag(scored), np.eye(n), np.eye(n)
    for i in range(n):
        for j in range(i + 1, n):
            pair = scores[[i, j]]
            pair = pair[:, ~np.isnan(pair).any(0)].astype(np.float64)
            shared[i, j] = shared[j, i] = pair.shape[1]
            pearson[i, j] = pearson[j, i] = _correlation(*pair)
            spearman[i, j] = spearman[j, i] = _correlation(*(pd.Series(row).rank().to_numpy() for row in pair))
    return Comparison(tuple(labels), shared, pearson, spearman, tuple(largest))


def _common_sizes(tracks: Sequence[TrackReader]) -> dict[str, int]:
    """Return the length of each sequence of any track, after comparing the lengths in all tracks."""
    sizes: dict[str, int] = {}
    owners: dict[str, TrackReader] = {}
    ordered = sorted(tracks, key=lambda track: not track.states_lengths)
    for track in ordered:
        if sizes and track.sizes and not sizes.keys() & track.sizes.keys():
            raise InputError(f"{track.path}: has no sequence that {ordered[0].path} has: are both of one genome?")
        for chrom, size in track.sizes.items():
            owner = owners.setdefault(chrom, track)
            length = owner.sizes[chrom]
            if size != length if track.states_lengths else owner.states_lengths and size > length:
                raise InputError(
                    f"{track.path}: {chrom} has {size:,} bases, {length:,} in {owner.path}: are both of one genome?"
                )
            sizes[chrom] = max(size, sizes.get(chrom, 0))
    return sizes


def _scores_of_all(tracks: Sequence[TrackReader], sizes: dict[str, int]) -> Iterator[_Piece]:
    """Yield the regions in which at least one track has data, with the scores in all tracks; missing ones are NaN."""
    for chrom, size in sizes.items():
        for start in range(0, size, PIECE):
            region = Region(chrom, start, min(start + PIECE, size))
            scores = np.full((len(tracks), len(region)), np.nan, np.float32)
            found = [fill_scores(track, row, chrom, start) for track, row in zip(tracks, scores, strict=True)]
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


def _differences(pieces: Sequence[_Piece], scores: Float32[np.ndarray, "2 bases"], top: int) -> Iterator[Difference]:
    """Yield the bases with the largest differences other than 0 in some pieces, whose scores are concatenated."""
    difference = np.abs(np.subtract(*scores, dtype=np.float64))
    different = np.flatnonzero(difference > 0)
    edges = np.cumsum([0, *(len(region) for region, _ in pieces)])
    for i in different[np.argsort(-difference[different], kind="stable")[:top]]:
        which = int(edges.searchsorted(i, "right")) - 1
        region, at = pieces[which][0], int(i - edges[which])
        base = Region(region.chrom, region.start + at, region.start + at + 1)
        yield Difference(base, float(scores[0, i]), float(scores[1, i]))


def _largest(differences: Sequence[Difference], top: int) -> list[Difference]:
    return sorted(differences, key=lambda found: -abs(found.first - found.second))[:top]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or not (np.ptp(a) and np.ptp(b)):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
