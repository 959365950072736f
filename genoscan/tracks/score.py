"""Scores: functions that reduce the four derivatives at each base to one number.

The columns of a gradient contain the derivatives with respect to A, C, G and T. The *observed* base is the
base in the genome. A base that is not A, C, G or T (code above 3) is *unknown*. Every score is NaN at an
unknown base, which leaves a gap in the track.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, UInt8

_BASES = 4


def centred(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"]
) -> Float32[np.ndarray, " bases"]:
    """Return the derivative with respect to the observed base minus the mean of the four derivatives.

    Parameters
    ----------
    gradient
        Derivatives with respect to A, C, G and T, as a float32 array of shape (bases, 4).
    codes
        Codes of the observed bases: 0 for A, 1 for C, 2 for G, 3 for T, and 4 for unknown bases.

    Returns
    -------
    array of shape (bases,), float32
        Score of each base; NaN at unknown bases.

    Notes
    -----
    The score does not change if a constant is added to all four derivatives. Such a constant does not
    change the first-order effect of a substitution either, because this effect is the difference between
    two derivatives.
    """
    gradient = blank_unknown(gradient, codes)
    return _observed_column(gradient, codes) - gradient.mean(axis=1)


def observed(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"]
) -> Float32[np.ndarray, " bases"]:
    """Return the derivative with respect to the observed base (gradient x input).

    Parameters
    ----------
    gradient
        Derivatives with respect to A, C, G and T, as a float32 array of shape (bases, 4).
    codes
        Codes of the observed bases: 0 for A, 1 for C, 2 for G, 3 for T, and 4 for unknown bases.

    Returns
    -------
    array of shape (bases,), float32
        Score of each base; NaN at unknown bases.
    """
    return _observed_column(blank_unknown(gradient, codes), codes)


def magnitude(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"]
) -> Float32[np.ndarray, " bases"]:
    """Return the Euclidean norm of the four derivatives after subtraction of their mean.

    Parameters
    ----------
    gradient
        Derivatives with respect to A, C, G and T, as a float32 array of shape (bases, 4).
    codes
        Codes of the observed bases: 0 for A, 1 for C, 2 for G, 3 for T, and 4 for unknown bases.

    Returns
    -------
    array of shape (bases,), float32
        Non-negative score of each base; NaN at unknown bases.
    """
    gradient = blank_unknown(gradient, codes)
    columns = gradient - gradient.mean(axis=1, keepdims=True)
    return np.sqrt((columns * columns).sum(axis=1))


def substitution(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"]
) -> Float32[np.ndarray, " bases"]:
    """Return the signed first-order effect of the substitution with the largest absolute effect.

    Parameters
    ----------
    gradient
        Derivatives with respect to A, C, G and T, as a float32 array of shape (bases, 4).
    codes
        Codes of the observed bases: 0 for A, 1 for C, 2 for G, 3 for T, and 4 for unknown bases.

    Returns
    -------
    array of shape (bases,), float32
        For each base, the difference `g_b - g_observed` with the largest absolute value, where `g_b` is the
        derivative with respect to the letter b, and `g_observed` is the derivative with respect to the
        observed base. If several differences are tied, the first letter in the order A, C, G, T is used.
        The score is NaN at unknown bases.
    """
    gradient = blank_unknown(gradient, codes)
    changes = gradient - _observed_column(gradient, codes)[:, None]
    # The change to the observed base itself is 0; it is selected only if all four changes are 0.
    largest = np.abs(changes).argmax(axis=1)
    return np.take_along_axis(changes, largest[:, None], axis=1)[:, 0]


SCORES: dict[str, Callable[..., Float32[np.ndarray, " bases"]]] = {
    "centred": centred,
    "observed": observed,
    "magnitude": magnitude,
    "substitution": substitution,
}


def blank_unknown(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"], fill: float = np.nan
) -> Float32[np.ndarray, "bases 4"]:
    """Replace the derivatives at unknown bases with a constant.

    Parameters
    ----------
    gradient
        Derivatives with respect to A, C, G and T, as a float32 array of shape (bases, 4).
    codes
        Codes of the observed bases. A code is above 3 if the base is not A, C, G or T.
    fill
        Replacement value, such as NaN for scores and archives, or 0 for exports to tools that average over
        sequences.

    Returns
    -------
    array of shape (bases, 4), float32
        Copy of `gradient` in which the derivatives at unknown bases are equal to `fill`.
    """
    return np.where((codes < _BASES)[:, None], gradient, np.float32(fill))


def _observed_column(
    gradient: Float32[np.ndarray, "bases 4"], codes: UInt8[np.ndarray, " bases"]
) -> Float32[np.ndarray, " bases"]:
    """Return the derivative with respect to each observed base; values at unknown bases are arbitrary."""
    columns = np.minimum(codes, _BASES - 1).astype(np.intp)
    return np.take_along_axis(gradient, columns[:, None], axis=1)[:, 0]
