"""Baselines for site labels: a position weight matrix and a first-order Markov model.

Each model computes a score for a base from a window that extends from 20 bases upstream of the base to
20 bases downstream. Let x_i be the base at position i of the window. The score is

    sum over all positions i of [log p_i(x_i | x_{i-1}) - log q(x_i | x_{i-1})]

where p_i is estimated from the windows around the sites in the training data, and q is estimated from
all bases in the training data. In a position weight matrix, these probabilities do not depend on the
previous base. A pseudocount of 1/4 is added to each count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32, UInt8

from genoscan.genome.alphabet import N, reverse_complement

FLANK: Final = 20
"""Number of bases on each side of a site."""

_PSEUDOCOUNT = 0.25
_CODES = N + 1


@dataclass(frozen=True)
class SiteModel:
    """Model that assigns to each base the log-odds that it is a site of one kind.

    Attributes
    ----------
    order
        Number of previous bases on which each probability depends: 0 or 1.
    reverse
        Whether the sites are on the reverse strand.
    log_odds
        Log-odds of shape (2 * FLANK + 1, 5, 5). The indices are the position in the window, the code of
        the previous base and the code of the base (0 to 3 for A, C, G and T, and 4 for N), in the
        reading direction.
    """

    order: int
    reverse: bool
    log_odds: Float32[np.ndarray, "positions previous base"]

    def scores(self, codes: UInt8[np.ndarray, " bases"]) -> Float32[np.ndarray, " bases"]:
        """Return the log-odds that each base is a site.

        Parameters
        ----------
        codes
            Base codes of the forward strand. Positions outside the sequence are treated as N.

        Returns
        -------
        array of shape (bases,)
            Log-odds of each base. An N in the window contributes 0.
        """
        pairs = _pairs(reverse_complement(codes) if self.reverse else codes)
        total = np.zeros(len(codes), np.float32)
        for i, table in enumerate(self.log_odds):
            total += table.ravel()[pairs[i : i + len(codes)]]
        return total[::-1] if self.reverse else total


def site_model(
    sequences: Sequence[tuple[UInt8[np.ndarray, " bases"], np.ndarray]], *, order: int, reverse: bool
) -> SiteModel:
    """Estimate a site model from sequences with known sites.

    Parameters
    ----------
    sequences
        For each sequence, the base codes and the positions of the sites, both on the forward strand.
    order
        Number of previous bases on which each probability depends: 0 or 1.
    reverse
        Whether the sites are on the reverse strand.

    Returns
    -------
    SiteModel
        The estimated model.
    """
    width = 2 * FLANK + 1
    counts = np.zeros((width, _CODES * _CODES))
    background = np.zeros(_CODES * _CODES)
    for codes, sites in sequences:
        pairs = _pairs(reverse_complement(codes) if reverse else codes)
        sites = len(codes) - 1 - np.asarray(sites) if reverse else np.asarray(sites)
        background += np.bincount(pairs, minlength=_CODES * _CODES)
        for i in range(width):
            counts[i] += np.bincount(pairs[sites + i], minlength=_CODES * _CODES)
    log_odds = _log_p(counts, order) - _log_p(background[None], order)
    return SiteModel(order, reverse, log_odds.astype(np.float32))


def _pairs(codes: UInt8[np.ndarray, " bases"]) -> UInt8[np.ndarray, " padded"]:
    """Return 5 * (code of the previous base) + (code of the base) at each position.

    The positions begin `FLANK` bases before the first base and end `FLANK` bases after the last base.
    """
    padded = np.full(len(codes) + 2 * FLANK + 1, N, np.uint8)
    padded[FLANK + 1 : FLANK + 1 + len(codes)] = codes
    return padded[:-1] * np.uint8(_CODES) + padded[1:]


def _log_p(counts: np.ndarray, order: int) -> np.ndarray:
    """Estimate log p(base | previous base) at each position from counts of pairs of bases.

    The value is 0 if the base is N. At order 1, it is also 0 if the previous base is N.
    """
    known = counts.reshape(-1, _CODES, _CODES)[:, :, :N]
    if order == 0:
        known = np.broadcast_to(known.sum(1, keepdims=True), known.shape)
    known = known + _PSEUDOCOUNT
    log_p = np.zeros((len(known), _CODES, _CODES))
    log_p[:, :, :N] = np.log(known / known.sum(2, keepdims=True))
    if order:
        log_p[:, N] = 0
    return log_p
