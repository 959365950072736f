"""Selection of the bases with the largest absolute scores in a stream of scores."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32


class TopScores:
    """Selection of the scores with the largest absolute values in a stream.

    Of scores with equal absolute values, the earlier ones are selected.

    Parameters
    ----------
    top
        Maximum number of scores to select.

    Notes
    -----
    Memory: `top` scores and their positions, in addition to the array passed to `add`.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._scores = np.empty(0, np.float32)
        self._numbers = np.empty(0, np.int64)

    def add(self, first: int, scores: Float32[np.ndarray, " bases"]) -> None:
        """Add the scores of consecutive bases.

        Parameters
        ----------
        first
            Position of the first of these bases in the stream.
        scores
            One float32 score per base. Bases with the value NaN are ignored.
        """
        known = np.flatnonzero(~np.isnan(scores))
        if len(self._scores) == self._top:
            # Skip bases below the current threshold before sorting.
            known = known[np.abs(scores[known]) > np.abs(self._scores[-1])]
        candidates = np.append(self._scores, scores[known])
        numbers = np.append(self._numbers, first + known)
        order = np.argsort(-np.abs(candidates), kind="stable")[: self._top]
        self._scores, self._numbers = candidates[order], numbers[order]

    def ranked(self) -> Iterator[tuple[int, float]]:
        """Iterate over the selected scores in order of decreasing absolute value.

        Yields
        ------
        int, float
            Position of the base in the stream, and its score.
        """
        yield from zip(self._numbers.tolist(), self._scores.tolist(), strict=True)
