"""Comparison of the base composition of sequences with that of a model's training data."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from genoscan.genome.fai import FaiGenome
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.layers.config import ModelConfig

PIECE = 4096
"""Number of bases in each piece for which the G+C content is computed."""

_PIECES = 64
_PERCENTILES = 1, 99
_C, _G, _KNOWN = 1, 2, 4


def gc_contents(pieces: Iterable[np.ndarray]) -> np.ndarray:
    """Return the G+C content of each piece, omitting pieces in which at least half of the bases are unknown.

    Parameters
    ----------
    pieces
        Base codes of each piece.

    Returns
    -------
    array of shape (included pieces,)
        Share of G and C among the known bases of each piece, from 0 to 1.
    """
    shares = []
    for codes in pieces:
        known = codes[codes < _KNOWN]
        if len(known) > len(codes) / 2:
            shares.append(((known == _C) | (known == _G)).mean())
    return np.array(shares)


def gc_range(sequences: Iterable[np.ndarray]) -> tuple[float, float] | None:
    """Return the 1st and 99th percentiles of the G+C content over pieces of 4,096 bases.

    Parameters
    ----------
    sequences
        Base codes of each sequence.

    Returns
    -------
    tuple of (float, float) or None
        The two percentiles, as shares from 0 to 1 that are rounded to three decimal places. None if at
        least half of the bases are unknown in every piece.
    """
    pieces = (codes[start : start + PIECE] for codes in sequences for start in range(0, len(codes), PIECE))
    shares = gc_contents(pieces)
    if not len(shares):
        return None
    low, high = np.percentile(shares, _PERCENTILES)
    return round(float(low), 3), round(float(high), 3)


def describe_difference(genome: Genome, regions: Sequence[Region], config: ModelConfig, name: str) -> str | None:
    """Return a warning if the G+C content of regions differs from that of a model's training data.

    Parameters
    ----------
    genome
        Genome to read.
    regions
        Regions to compare. The G+C content is measured in 64 evenly spaced pieces of up to 4,096 bases.
    config
        Configuration of the model.
    name
        Name of the model, which is included in the warning.

    Returns
    -------
    str or None
        The warning. None if the median G+C content of the pieces is within the range of the training
        data, if this range is unknown, or if the genome is an index, which has no bases.
    """
    if config.gc_range is None or not regions or isinstance(genome, FaiGenome):
        return None
    shares = gc_contents(_sample(genome, regions))
    low, high = config.gc_range
    if not len(shares) or low <= (median := float(np.median(shares))) <= high:
        return None
    return (
        f"{name} was trained on sequences of {low:.0%} to {high:.0%} G+C, these regions have {median:.0%}: "
        "its predictions may not be meaningful here"
    )


def _sample(genome: Genome, regions: Sequence[Region]) -> Iterator[np.ndarray]:
    """Yield pieces at evenly spaced positions in the concatenated regions.

    If a region is shorter than a piece, the piece is centred on the region.
    """
    ends = np.cumsum([len(region) for region in regions])
    for position in np.linspace(0, ends[-1], _PIECES, endpoint=False).astype(int):
        which = int(np.searchsorted(ends, position, side="right"))
        region, size = regions[which], genome.sizes[regions[which].chrom]
        first = region.end - int(ends[which] - position)
        if len(region) < PIECE:
            first = (region.start + region.end - PIECE) // 2
        start = max(0, min(first, size - PIECE))
        yield genome.fetch(region.chrom, start, min(start + PIECE, size))
