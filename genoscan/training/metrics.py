"""Metrics of predicted labels, such as the area under the precision-recall curve."""

import numpy as np
from jaxtyping import Bool, Float, Int64

Scores = Float[np.ndarray, " bases"]
Truth = Bool[np.ndarray, " bases"]


def average_precision(scores: Scores, truth: Truth) -> float:
    """Return the area under the precision-recall curve, computed as the average precision.

    Parameters
    ----------
    scores
        Predicted score of each base. A higher score means that a base is more likely to be positive.
    truth
        Whether each base is positive.

    Returns
    -------
    float
        Sum, over all thresholds, of the precision times the increase in recall; NaN if no base is
        positive. Bases with equal scores share a threshold, so the value does not depend on the order
        of the bases.
    """
    hits, called = _by_threshold(scores, truth)
    if not hits[-1:].sum():
        return float("nan")
    return float((hits / called * np.diff(hits, prepend=0)).sum() / hits[-1])


def best_f1(scores: Scores, truth: Truth) -> tuple[float, float]:
    """Return the highest F1 score over all thresholds, and the threshold that gives it.

    Parameters
    ----------
    scores, truth
        As for `average_precision`.

    Returns
    -------
    f1
        Harmonic mean of precision and recall; NaN if no base is positive.
    threshold
        Threshold that gives this F1 score. A base is called positive if its score is at least the
        threshold. NaN if no base is positive.
    """
    hits, called = _by_threshold(scores, truth)
    if not hits[-1:].sum():
        return float("nan"), float("nan")
    f1 = 2 * hits / (called + hits[-1])
    best = int(f1.argmax())
    return float(f1[best]), float(np.sort(scores)[::-1][called[best] - 1])


def top_n_precision(scores: Scores, truth: Truth) -> float:
    """Return the precision among the n highest scores, where n is the number of positive bases.

    Parameters
    ----------
    scores, truth
        As for `average_precision`.

    Returns
    -------
    float
        Share of positive bases among the n bases with the highest scores; NaN if no base is positive.
        If several bases are tied for the last places, all of them are counted, with equal fractional
        weights.
    """
    n = int(truth.sum())
    if not n:
        return float("nan")
    last = np.partition(scores, len(scores) - n)[len(scores) - n]
    above, equal = scores > last, scores == last
    return float((truth[above].sum() + (n - above.sum()) * truth[equal].mean()) / n)


def _by_threshold(scores: Scores, truth: Truth) -> tuple[Int64[np.ndarray, " levels"], Int64[np.ndarray, " levels"]]:
    """Return the number of true positives and the number of positive calls at each threshold.

    The thresholds are ordered from the highest to the lowest.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.zeros(0, np.int64)
    return np.cumsum(truth[order])[last], last + 1
