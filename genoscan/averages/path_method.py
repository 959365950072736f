"""Definition of attribution methods that average gradients over several inputs.

    integrated-gradients    points on the straight line from a baseline to the sequence
    expected-gradients      one point on each of several lines, from shuffled sequences to the sequence
    smoothgrad              the sequence with Gaussian noise

The baseline is "uniform" (1/4 for each base), "zeros", or "dinucleotide-shuffle" (a random sequence with
the same dinucleotide counts). Unknown and masked bases are the same in the baseline as in the sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from genoscan.errors import InputError

GRADIENT = "gradient"
METHODS = GRADIENT, "integrated-gradients", "expected-gradients", "smoothgrad"
UNIFORM, ZEROS, SHUFFLE = BASELINES = "uniform", "zeros", "dinucleotide-shuffle"
AUTO = "auto"
STEPS, FEWEST, MOST = 50, 16, 1024
"""Default number of gradient evaluations, and the smallest and the largest number if it is automatic."""
MAX_NODES = 4_096
"""Largest number of nodes of the quadrature of integrated gradients."""
TOLERANCE = 0.01
"""Completeness error at which an automatic number of evaluations is sufficient."""
LARGE_ERROR = 0.05
"""Completeness error above which the user is warned."""


class Point(NamedTuple):
    """Input at which a gradient is evaluated.

    Attributes
    ----------
    alpha
        Position between the baseline (0) and the sequence (1).
    weight
        Weight of the gradient in the average.
    sample
        Number of the random sample: of the shuffled sequence, or of the noise.
    """

    alpha: float
    weight: float
    sample: int


@dataclass(frozen=True)
class PathMethod:
    """Method that averages gradients over several inputs.

    Attributes
    ----------
    name
        Name of the method, one of `METHODS` other than "gradient".
    steps
        Number of gradient evaluations; None if it is doubled until the completeness error is at most
        `TOLERANCE`.
    baseline
        Start of the path, one of `BASELINES`; None for smoothgrad.
    seed
        Seed of the random numbers; None if the method has no random numbers.
    sigma
        Standard deviation of the noise for smoothgrad; otherwise None.
    """

    name: str
    steps: int | None
    baseline: str | None
    seed: int | None
    sigma: float | None

    @property
    def n_samples(self) -> int:
        """Number of random baselines; 1 if there is a single baseline, 0 if there is none."""
        if self.baseline is None:
            return 0
        return (self.steps or STEPS) if self.name == "expected-gradients" else 1

    @property
    def shuffles(self) -> bool:
        """Whether the baseline is a shuffled sequence."""
        return self.baseline == SHUFFLE

    @property
    def points(self) -> Sequence[Point]:
        """Inputs at which the gradient is evaluated."""
        assert self.steps is not None
        if self.name == "integrated-gradients":
            nodes, weights = _quadrature(self.steps)
            return [Point((x + 1) / 2, w / 2, 0) for x, w in zip(nodes.tolist(), weights.tolist(), strict=True)]
        if self.name == "smoothgrad":
            return [Point(1.0, 1 / self.steps, i) for i in range(self.steps)]
        random = np.random.default_rng((self.seed or 0, self.steps))
        strata = (random.permutation(self.steps) + random.random(self.steps)) / self.steps
        return [Point(alpha, 1 / self.steps, i) for i, alpha in enumerate(strata.tolist())]

    @property
    def trials(self) -> Sequence["PathMethod"]:
        """Methods with the numbers of evaluations to try in turn."""
        if self.steps is not None:
            return [self]
        doubled = [FEWEST << i for i in range((MOST // FEWEST).bit_length())]
        return [replace(self, steps=steps) for steps in doubled]

    @property
    def n_evaluations(self) -> tuple[int, int]:
        """Smallest and largest number of gradient evaluations per window."""
        counts = [trial.steps or 0 for trial in self.trials]
        return counts[0], sum(counts)

    @property
    def n_values(self) -> int:
        """Smallest number of forward passes per window, which compute the target at both ends of the path."""
        return 1 + self.n_samples


def path_method(name: str, steps: int | str | None, baseline: str | None, seed: int, sigma: float) -> PathMethod | None:
    """Return the method that the settings define.

    Parameters
    ----------
    name
        Name of the method, one of `METHODS`.
    steps
        Number of gradient evaluations, also as text, or "auto". If None, the number is 50.
    baseline
        Start of the path. If None, it is "uniform", or "dinucleotide-shuffle" for expected-gradients.
    seed
        Seed of shuffles, of noise and of random points.
    sigma
        Standard deviation of the noise.

    Returns
    -------
    PathMethod or None
        The method; None for the gradient itself.

    Raises
    ------
    InputError
        If a setting is invalid.
    """
    if name not in METHODS:
        raise InputError(f"--method {name}: expected one of {', '.join(METHODS)}")
    if baseline is not None and baseline not in BASELINES:
        raise InputError(f"--baseline {baseline}: expected one of {', '.join(BASELINES)}")
    count = _count(steps)
    if name == "integrated-gradients" and count is not None and count > MAX_NODES:
        raise InputError(f"--steps {count}: expected at most {MAX_NODES:,} nodes of a quadrature")
    if seed < 0:
        raise InputError(f"--seed {seed}: expected 0 or more")
    if not 0 < sigma < np.inf:
        raise InputError(f"--sigma {sigma}: expected a positive number")
    if name == GRADIENT:
        return None
    if count is None and name != "integrated-gradients":
        raise InputError(f"--steps {AUTO}: --method {name} is an average over samples, expected their number")
    if name == "smoothgrad":
        return PathMethod(name, count, None, seed, sigma)
    if name == "expected-gradients":
        if baseline not in (None, SHUFFLE):
            raise InputError(f"--baseline {baseline}: expected {SHUFFLE}, over which --method {name} averages")
        baseline = SHUFFLE
    baseline = baseline or UNIFORM
    return PathMethod(name, count, baseline, seed if baseline == SHUFFLE else None, None)


def _count(steps: int | str | None) -> int | None:
    """Convert the number of evaluations; the result is None if it is automatic."""
    if steps is None:
        return STEPS
    if steps == AUTO:
        return None
    if not str(steps).isdecimal() or int(steps) < 1:
        raise InputError(f"--steps {steps}: expected a number of at least 1, or {AUTO}")
    return int(steps)


@lru_cache(maxsize=16)
def _quadrature(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and weights of Gauss-Legendre quadrature, whose time grows with the cube of their number."""
    return np.polynomial.legendre.leggauss(steps)
