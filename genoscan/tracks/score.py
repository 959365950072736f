"""Four numbers a base made one.

A gradient's columns are A, C, G, T; the base that stands in the genome is the *observed* one.
Where it is none of the four (codes above 3) there is nothing to compare with, and every score is
NaN: a gap in the track.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, UInt8

_BASES = 4


def centred(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, "bases"]
) -> Float32[np.ndarray, "bases"]:
    """Return the observed base's derivative less the mean of the four.

    Blind to what all four bases share, which no change of sequence can bring about.
    """
    return observed(gradient, codes) - gradient.mean(axis=1)


def observed(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, "bases"]
) -> Float32[np.ndarray, "bases"]:
    """Return the observed base's derivative: gradient times input."""
    return _known(_observed_column(gradient, codes), codes)


def magnitude(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, "bases"]
) -> Float32[np.ndarray, "bases"]:
    """Return the length of the four derivatives about their mean: never negative."""
    columns = gradient - gradient.mean(axis=1, keepdims=True)
    return _known(np.sqrt((columns * columns).sum(axis=1)), codes)


def substitution(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, "bases"]
) -> Float32[np.ndarray, "bases"]:
    """Return the largest change, to first order, that another base would make, with its sign.

    Of two that are equally large, the first of A, C, G, T is taken.
    """
    changes = gradient - _observed_column(gradient, codes)[:, None]
    # The observed base's own change is 0, so it is largest only where all four are.
    largest = np.abs(changes).argmax(axis=1)
    return _known(np.take_along_axis(changes, largest[:, None], axis=1)[:, 0], codes)


SCORES: dict[str, Callable[..., Float32[np.ndarray, "bases"]]] = {
    "centred": centred,
    "observed": observed,
    "magnitude": magnitude,
    "substitution": substitution,
}


def _observed_column(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, "bases"]
) -> Float32[np.ndarray, "bases"]:
    """Return each row's value for its own base; an arbitrary one where it has none."""
    columns = np.minimum(codes, _BASES - 1).astype(np.intp)
    return np.take_along_axis(gradient, columns[:, None], axis=1)[:, 0]


def _known(
    scores: Float32[np.ndarray, "bases"], codes: UInt8[np.ndarray, "bases"]
) -> Float32[np.ndarray, "bases"]:
    """Return the scores, NaN where the base is not A, C, G or T."""
    return np.where(codes < _BASES, scores, np.float32(np.nan))
