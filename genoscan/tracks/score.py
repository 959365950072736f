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
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"]
) -> Float32[np.ndarray, " bases"]:
    """Return the observed base's derivative less the mean of the four.

    Blind to what all four bases share, which no change of sequence can bring about.
    """
    gradient = blank_unknown(gradient, codes)
    return _observed_column(gradient, codes) - gradient.mean(axis=1)


def observed(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"]
) -> Float32[np.ndarray, " bases"]:
    """Return the observed base's derivative: gradient times input."""
    return _observed_column(blank_unknown(gradient, codes), codes)


def magnitude(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"]
) -> Float32[np.ndarray, " bases"]:
    """Return the length of the four derivatives about their mean: never negative."""
    gradient = blank_unknown(gradient, codes)
    columns = gradient - gradient.mean(axis=1, keepdims=True)
    return np.sqrt((columns * columns).sum(axis=1))


def substitution(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"]
) -> Float32[np.ndarray, " bases"]:
    """Return the largest change, to first order, that another base would make, with its sign.

    Of two that are equally large, the first of A, C, G, T is taken.
    """
    gradient = blank_unknown(gradient, codes)
    changes = gradient - _observed_column(gradient, codes)[:, None]
    # The observed base's own change is 0, so it is largest only where all four are.
    largest = np.abs(changes).argmax(axis=1)
    return np.take_along_axis(changes, largest[:, None], axis=1)[:, 0]


SCORES: dict[str, Callable[..., Float32[np.ndarray, " bases"]]] = {
    "centred": centred,
    "observed": observed,
    "magnitude": magnitude,
    "substitution": substitution,
}


def blank_unknown(
    gradient: Float32[np.ndarray, "bases 4"],
    codes: UInt8[np.ndarray, " bases"],
    fill: float = np.nan,
) -> Float32[np.ndarray, "bases 4"]:
    """Return the columns with `fill` where the base is not A, C, G or T.

    The one rule for such bases: NaN in scores and archives, 0 in files for tools that average
    columns over sequences.
    """
    return np.where((codes < _BASES)[:, None], gradient, np.float32(fill))


def _observed_column(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"]
) -> Float32[np.ndarray, " bases"]:
    """Return each row's value for its own base; any of the four where it has none."""
    columns = np.minimum(codes, _BASES - 1).astype(np.intp)
    return np.take_along_axis(gradient, columns[:, None], axis=1)[:, 0]
