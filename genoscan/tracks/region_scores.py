"""Scores of many regions of a track, read in genome order, so that nearby regions are decompressed once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from genoscan.genome.region import Region
from genoscan.tracks.reader import PIECE
from genoscan.tracks.track_reader import TrackReader, read_scores

_GAP = 4_096
"""Largest distance between two regions that are read at once, in bases: a few data blocks of a bigWig."""


class Piece(NamedTuple):
    """Scores of a region, or of a part of a long region.

    Attributes
    ----------
    number
        Position of the region in the list of regions.
    start
        Position of the first base.
    scores
        Scores from `start` on; NaN at bases without a score. The array is a view that must not be changed.
    """

    number: int
    start: int
    scores: Float32[np.ndarray, " bases"]


def region_scores(track: TrackReader, regions: Sequence[Region]) -> Iterator[Piece]:
    """Iterate over the scores of regions.

    Parameters
    ----------
    track
        Open track.
    regions
        Regions in any order, which may overlap, extend past their sequences or be on sequences that the track
        lacks.

    Yields
    ------
    Piece
        Pieces, in genome order of their regions: one for a region of at most `PIECE` bases, and several for a
        longer one. Parts of regions outside the sequences of the track are left out.

    Raises
    ------
    InputError
        If the file is damaged, or a score is infinite.
    """
    spans = sorted(
        (region.chrom, region.start, min(region.end, track.sizes[region.chrom]), number)
        for number, region in enumerate(regions)
        if region.start < track.sizes.get(region.chrom, 0)
    )
    group: list[tuple[int, int, int]] = []
    chrom, first, last = "", 0, 0
    for name, start, end, number in spans:
        if group and (name != chrom or start > last + _GAP or max(last, end) > first + PIECE):
            yield from _read(track, chrom, group)
            group = []
        if not group:
            chrom, first, last = name, start, end
        group.append((number, start, end))
        last = max(last, end)
    yield from _read(track, chrom, group)


def _read(track: TrackReader, chrom: str, group: Sequence[tuple[int, int, int]]) -> Iterator[Piece]:
    """Read several regions at once, or one region of any length in pieces."""
    if not group:
        return
    first, last = group[0][1], max(end for _, _, end in group)
    for position in range(first, last, PIECE):
        scores = read_scores(track, chrom, position, min(position + PIECE, last))
        for number, start, end in group:
            low, high = max(start, position), min(end, position + len(scores))
            if low < high:
                yield Piece(number, low, scores[low - position : high - position])
