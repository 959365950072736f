"""Linear estimates of the change of a target that a change of the carry causes."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor

from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.inputs import Inputs
from genoscan.engine.target import Target
from genoscan.layer import Carry, Layer, leaves, map_leaves


@dataclass(frozen=True)
class Linearisation:
    """Derivatives of a target with respect to the carries of a window.

    Attributes
    ----------
    cotangents
        Cotangent of the carry, by position. Each is the derivative of the part of the target that the outputs
        from this position on contribute.
    """

    cotangents: dict[int, Carry]

    def change(self, at: Sequence[int], carry: Carry, reference: Carry) -> Float64[Tensor, " batch"]:
        """Return the change of the target, to first order, if carries of the window were replaced by others.

        `at` contains the position of each row of the batch.
        """
        total = torch.zeros(len(at), dtype=torch.float64)
        bars = zip(*(leaves(self.cotangents[position]) for position in at), strict=True)
        for bar, a, b in zip(bars, leaves(carry), leaves(reference), strict=True):
            difference = a.double() - b.double()
            total += (torch.cat(bar).double() * difference).flatten(1).sum(1).cpu()
        return total


def linearise(
    layer: Layer, inputs: Inputs, target: Target, positions: Set[int], *, tile: int, slots: int
) -> Linearisation:
    """Return the derivatives of a target with respect to the carries at some positions of a window.

    Parameters
    ----------
    layer, inputs, target
        Causal network, a single window, and the target.
    positions
        Positions of the carries, from 0 to the length of the window minus 1.
    tile, slots
        As for `adjoint`.

    Notes
    -----
    Exact up to rounding. Memory: as for `adjoint`, and a carry for each position. Time: that of one gradient.
    """
    ends = sorted({*positions, *range(tile, inputs.length, tile), inputs.length} - {0})
    parts: dict[int, dict[int, Carry]] = {}

    def observe(stage: int, at: int, carry_bar: Carry) -> None:
        if at in positions:
            parts.setdefault(at, {})[stage] = map_leaves(torch.clone, carry_bar)

    spans = [slice(start, stop) for start, stop in pairwise([0, *ends])]
    consume(adjoint(layer, inputs, target, tile=tile, slots=slots, spans=spans, observe=observe))
    return Linearisation({at: _join([found[stage] for stage in sorted(found)]) for at, found in parts.items()})


def _join(stages: Sequence[Carry]) -> Carry:
    """Concatenate the carries of the stages, as `StagePipeline.join` does."""
    return stages[0] if len(stages) == 1 else sum(stages, ())
