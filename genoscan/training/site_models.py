"""Baseline for site labels: a position weight matrix, or a first-order Markov model of the flanks.

Both score a base by its surroundings, from 20 bases upstream to 20 bases downstream:

    sum over positions i of log p_i(x_i | x_{i-1}) - log q(x_i | x_{i-1})

where p_i is estimated from the sites of the training data, and q from all of its bases; in a weight
matrix, the probabilities do not depend on the previous base. Counts are increased by 1/4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32, UInt8

from genoscan.genome.alphabet import N

FLANK: Final = 20
"""Number of bases on each side of a site."""

_PSEUDOCOUNT = 0.25
_CODES = N + 1


@dataclass(frozen=True)
class SiteModel:
    """Log-odds of a site, by position in its surroundings and by bases.

    Attributes
    ----------
    order
        Number of previous bases on which a probability depends, 0 or 1.
    log_odds
        Log-odds by position, previous base and base, with N as fifth base; (2 x FLANK + 1, 5, 5).
    """

    order: int
    log_odds: Float32[np.ndarray, "positions previous base"]

    def scores(self, codes: UInt8[np.ndarray, " bases"]) -> Float32[np.ndarray, " bases"]:
        """Return the log-odds at every base.

        Parameters
        ----------
        codes
            Base codes, in the reading direction of the sites. Bases outside the sequence are N.

        Returns
        -------
        array of shape (bases,)
            Log-odds; N contributes 0.
        """
        pairs = _pairs(codes)
        total = np.zeros(len(codes), np.float32)
        for i, table in enumerate(self.log_odds):
            total += table.ravel()[pairs[i : i + len(codes)]]
        return total


def site_model(sequences: Sequence[tuple[UInt8[np.ndarray, " bases"], np.ndarray]], *, order: int) -> SiteModel:
    """Estimate a site model.

    Parameters
    ----------
    sequences
        Base codes, and positions of the sites, of each sequence in the reading direction of the sites.
    order
        Number of previous bases on which a probability depends, 0 or 1.

    Returns
    -------
    SiteModel
        The model.
    """
    width = 2 * FLANK + 1
    counts = np.zeros((width, _CODES * _CODES))
    background = np.zeros(_CODES * _CODES)
    for codes, sites in sequences:
        pairs = _pairs(codes)
        background += np.bincount(pairs, minlength=_CODES * _CODES)
        for i in range(width):
            counts[i] += np.bincount(pairs[np.asarray(sites) + i], minlength=_CODES * _CODES)
    log_odds = _log_p(counts, order) - _log_p(background[None], order)
    return SiteModel(order, log_odds.astype(np.float32))


def _pairs(codes: UInt8[np.ndarray, " bases"]) -> UInt8[np.ndarray, " padded"]:
    """Return previous base x 5 + base, for `FLANK` positions before the first base to as many after the last."""
    padded = np.full(len(codes) + 2 * FLANK + 1, N, np.uint8)
    padded[FLANK + 1 : FLANK + 1 + len(codes)] = codes
    return padded[:-1] * np.uint8(_CODES) + padded[1:]


def _log_p(counts: np.ndarray, order: int) -> np.ndarray:
    """Return log p(base | previous base) at each position; 0 if either is N and the model depends on it."""
    known = counts.reshape(-1, _CODES, _CODES)[:, :, :N]
    if order == 0:
        known = np.broadcast_to(known.sum(1, keepdims=True), known.shape)
    known = known + _PSEUDOCOUNT
    log_p = np.zeros((len(known), _CODES, _CODES))
    log_p[:, :, :N] = np.log(known / known.sum(2, keepdims=True))
    if order:
        log_p[:, N] = 0
    return log_p
