"""Which bases have the largest scores, of more than memory holds."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32


class Strongest:
    """The scores of largest size so far, at most `top`; equal ones in the order that they came in.

    Memory: `top` scores, and what is added at a time.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._scores = np.empty(0, np.float32)
        self._numbers = np.empty(0, np.int64)

    def add(self, first: int, scores: Float32[np.ndarray, " bases"]) -> None:
        """Take in the scores of bases that are numbered from `first` on; NaN is none."""
        known = np.flatnonzero(~np.isnan(scores))
        if len(self._scores) == self._top:
            # Most bases are weaker than all of those, and need no place among them.
            known = known[np.abs(scores[known]) > np.abs(self._scores[-1])]
        together = np.append(self._scores, scores[known])
        numbers = np.append(self._numbers, first + known)
        order = np.argsort(-np.abs(together), kind="stable")[: self._top]
        self._scores, self._numbers = together[order], numbers[order]

    def ranked(self) -> Iterator[tuple[int, float]]:
        """Yield number and score, largest size first."""
        yield from zip(self._numbers.tolist(), self._scores.tolist(), strict=True)
