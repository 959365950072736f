"""How much the scores of a model depend on the window, as measured (see window_error/measurement.py).

The results are stored in config.json. They are interpolated to the windows of a run.
"""

from typing import Annotated

import numpy as np
from jaxtyping import Float64
from pydantic import Field, model_validator

from genoscan.layers.schema import Bases, Schema, Share

LIKELIHOOD = "log-likelihood"
"""Target of the errors of a language model."""

MAX_ERROR = 1e6
"""Largest error that can be stored; scores whose errors are larger are 0 but for rounding."""

_Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
_Error = Annotated[float, Field(ge=0, le=MAX_ERROR)]
_Count = Annotated[int, Field(ge=1, le=1 << 40)]

_SMALLEST = 1e-4
"""Errors below this value are interpolated as if they were equal to it."""


class WindowError(Schema):
    """Error of scores computed with a given context and reach.

    Attributes
    ----------
    context, reach
        Number of bases read upstream of a region, and number read downstream of it.
    median, worst
        Median and largest error of the measured regions.
    """

    context: Bases
    reach: Bases
    median: _Error
    worst: _Error


class DistantShare(Schema):
    """Share of the sensitivity of one logit that belongs to distant bases.

    Attributes
    ----------
    distance
        Distance in bases. Bases further away than this are counted.
    median, worst
        Median and largest share of the measured regions.
    """

    distance: Bases
    median: Share
    worst: Share


class WindowErrors(Schema):
    """How much scores depend on the window, measured in several regions of a genome.

    Attributes
    ----------
    genome
        Name of the genome.
    target
        Quantity that was differentiated: "log-likelihood", or the name of a task head, of which the labels
        were taken in turn.
    regions, bases, seed
        Number of measured regions; number of bases in each; seed with which the regions were drawn.
    context, reach
        Context and reach of the long windows with whose scores others are compared. The reach is 0 if the
        target does not depend on bases downstream of the region.
    errors
        Error for each context combined with each reach, in ascending order. The error of a region is
        the L2 norm of the difference between its scores and those of the long window, relative to the norm of the
        latter. Scores are the four derivatives at each base minus their mean.
    distant
        Share of distant bases, by distance.
    """

    genome: _Text
    target: _Text
    regions: _Count
    bases: _Count
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    context: Bases
    reach: Bases
    errors: Annotated[tuple[WindowError, ...], Field(min_length=1, max_length=1_000)]
    distant: Annotated[tuple[DistantShare, ...], Field(max_length=1_000)]

    @model_validator(mode="after")
    def _is_consistent(self) -> "WindowErrors":
        pairs = [(error.context, error.reach) for error in self.errors]
        if pairs != [(context, reach) for context in self.contexts for reach in self.reaches]:
            raise ValueError("errors: expected each context once with each reach, in ascending order")
        if self.contexts[-1] >= self.context:
            raise ValueError(f"context {self.context}: expected more than in errors, where it is {self.contexts[-1]}")
        if self.reach and self.reaches[-1] >= self.reach:
            raise ValueError(f"reach {self.reach}: expected more than in errors, where it is {self.reaches[-1]}")
        if not self.reach and self.reaches != [0]:
            raise ValueError("reach 0: expected reach 0 in all errors")
        results: tuple[WindowError | DistantShare, ...] = (*self.errors, *self.distant)
        if any(one.median > one.worst for one in results):
            raise ValueError("worst: expected at least the median")
        distances = [one.distance for one in self.distant]
        if distances != sorted(set(distances)):
            raise ValueError("distant: expected ascending distances")
        return self

    @property
    def long_window(self) -> str:
        """Context and reach of the long windows, such as "context and reach 32,768"."""
        return f"context and reach {self.context:,}" if self.reach else f"context {self.context:,}"

    @property
    def measured_target(self) -> str:
        """Target as written for `--target`: "log-likelihood", or a head with any of its labels, "HEAD:LABEL"."""
        return self.target if self.target == LIKELIHOOD else f"{self.target}:LABEL"

    @property
    def contexts(self) -> list[int]:
        """Contexts for which the error was measured, in ascending order."""
        return sorted({error.context for error in self.errors})

    @property
    def reaches(self) -> list[int]:
        """Reaches for which the error was measured, in ascending order."""
        return sorted({error.reach for error in self.errors})

    def at(self, context: int, reach: int) -> WindowError | None:
        """Return the error for a context and reach; None if it was not measured.

        Parameters
        ----------
        context, reach
            Number of bases read upstream and downstream of a region. The reach is disregarded if the target does
            not depend on the bases downstream.
        """
        pair = context, reach if self.reach else 0
        return next((one for one in self.errors if (one.context, one.reach) == pair), None)

    def interpolate(
        self, before: Float64[np.ndarray, " *shape"], after: Float64[np.ndarray, " *shape"]
    ) -> tuple[Float64[np.ndarray, " *shape"], Float64[np.ndarray, " *shape"]]:
        """Return the median and the worst error of bases, given their distances from the ends of their window.

        Parameters
        ----------
        before, after
            Number of bases that are read upstream and downstream of each base; infinity is permitted.

        Returns
        -------
        median, worst
            Errors, in the shape of `before`.

        Notes
        -----
        The interpolation is linear in the logarithms of error and distances. Distances outside the measured
        range are treated as its nearest end. In a measured region the bases have different distances;
        the measured error is taken to be that of the middle base.
        """
        middle = (self.bases - 1) / 2
        weights = [
            _weights(np.log(np.maximum(np.array(knots) + middle, 0.5)), np.log(np.maximum(at, 0.5)))
            for knots, at in ((self.contexts, before), (self.reaches, after))
        ]
        shape = len(self.contexts), len(self.reaches)
        median, worst = (
            np.exp(
                np.einsum("...c,cr,...r", weights[0], np.log(np.maximum(values, _SMALLEST)).reshape(shape), weights[1])
            )
            for values in ([one.median for one in self.errors], [one.worst for one in self.errors])
        )
        return median, worst


def percent(share: float) -> str:
    """Format an error or a share in percent, with a decimal place below 10 %."""
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def _weights(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the weight of each knot in a linear interpolation, in a new last axis."""
    return np.stack([np.interp(at, knots, one) for one in np.eye(len(knots))], -1)
