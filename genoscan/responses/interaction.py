"""Interaction of one base with all others: the change in their sensitivities when it is substituted.

The sensitivity is the score that `genoscan attribute` writes by default: the derivative of the
log-likelihood with respect to the observed base minus the mean of the four derivatives. After the
substitution, the labels and the observed bases are still those of the genome, also at the substituted
position: only the input to the model differs. The change is the exact difference of two gradients.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.genome.alphabet import N
from genoscan.genome.plan import Window
from genoscan.model import Model
from genoscan.targets import TargetSpec

_TARGET = TargetSpec("log-likelihood", "log-likelihood")


def sensitivity_changes(
    model: Model,
    window: Window,
    codes: UInt8[Tensor, "1 length"],
    position: int,
    bases: Sequence[int],
    progress: Progress = ignore,
) -> Iterator[tuple[slice, Float[Tensor, "bases tile"]]]:
    """Yield the changes in sensitivity for each new base, tile by tile.

    Parameters
    ----------
    model
        Model to differentiate.
    window, codes
        Window that the model reads, and its base codes in the reading direction.
    position
        Position of the substitution in the window.
    bases
        Codes of the new bases.
    progress
        Function called after each processed tile with the number of positions in the tile.

    Notes
    -----
    Exact up to rounding, because both gradients are. Memory: that of the gradients of `1 + len(bases)`
    windows, regardless of the length of the window for causal models.
    """
    changed = codes.repeat(1 + len(bases), 1)
    changed[1:, position] = torch.tensor(bases, dtype=codes.dtype)
    target = _TARGET.for_windows([window] * len(changed), codes.expand_as(changed), model)
    method = model.method.fit(model.stack, len(window), len(changed))
    inputs, columns = OneHot(changed, model.table()), list(model.config.base_columns)
    for span, gradient in method.gradient(model.stack, inputs, target, progress=progress):
        change = (gradient[1:] - gradient[:1])[..., columns]
        observed = codes[:, span].clamp(max=N - 1).to(change.device, torch.long).expand(len(bases), -1)
        yield span, change.gather(-1, observed[..., None])[..., 0] - change.mean(-1)
