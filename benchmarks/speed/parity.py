"""Check before any timing that all contenders compute the same function.

The reference is whole-window autograd in float64 through plain torch, without any of genoscan's own
derivative rules, on the first 512 real bases.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.speed import blocks, paper, windows
from benchmarks.speed.settings import Settings
from genoscan.engine.inputs import OneHot
from genoscan.errors import GenoscanError
from genoscan.model import load_model
from genoscan.verification.sweeps import relative

LENGTH, TILE = 512, 200
LIMIT = 1e-4
"""Largest relative error of a float32 result, ||found - truth|| / ||truth||."""


class ParityError(GenoscanError):
    """A contender's result differs from the reference."""


class Truth(NamedTuple):
    """The log-likelihood of a window and its derivative with respect to the one-hot rows."""

    inputs: OneHot
    value: Float[Tensor, ""]
    gradient: Float[Tensor, "length symbols"]


def truth(settings: Settings, codes: windows.Codes) -> Truth:
    """Return the reference's value and derivative over the whole window."""
    model = load_model(settings.model, device=settings.device, dtype=torch.float64, kernels="reference")
    inputs, target = windows.question(model, codes)
    span = slice(0, inputs.length)
    x = inputs.tile(span).requires_grad_()
    outputs, _ = model.causal(x, model.causal.begin(1))
    value = target(outputs, span).sum()
    (gradient,) = torch.autograd.grad(value, x)
    return Truth(inputs, value.detach().cpu(), gradient[0].cpu())


def gradient_error(found: Tensor, truth: Truth) -> float:
    """Return the relative error of all derivatives."""
    return relative(found, truth.gradient)


def value_error(found: Tensor, truth: Truth) -> float:
    """Return the relative error of the log-likelihood."""
    return relative(found.reshape(()), truth.value)


def slopes_error(found: Tensor, truth: Truth) -> float:
    """Return the relative error of slopes along the seeded directions."""
    x_dot = windows.random_directions(len(found), truth.inputs).cpu().double()
    return relative(found, (x_dot * truth.gradient).flatten(1).sum(1))


def tile_scan_error(found: Tensor, truth: Truth) -> float:
    """Return the relative error of the paper's tangent."""
    return relative(found, paper.tile_scan_truth(len(found)))


def block_error(kind: str) -> Callable[[Tensor, Truth], float]:
    """Return the error function of a block's derivatives."""
    return lambda found, _truth: relative(found, blocks.block_adjoint_truth(kind, len(found)))


def layer_adjoint_error(found: Tensor, truth: Truth) -> float:
    """Return the relative error of our derivatives of the paper's layer."""
    return relative(found, paper.layer_adjoint_truth(len(found)))
