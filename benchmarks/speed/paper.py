"""The Phase Gradient Flow paper's layer (arXiv 2512.23068) with the same weights: theirs and ours.

Theirs computes the tangent of one direction in tiles of 64 steps by cumulative sums; ours computes
the derivative of a weighted sum over all outputs with respect to every element of the input.
Inputs are the paper's, 0.1 x normal noise, as long as the codes passed.
Every other comparison with the paper is in `python -m benchmarks paper`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.paper import rivals, truth
from benchmarks.paper.layers import noise, operator
from benchmarks.speed.settings import Settings
from benchmarks.speed.windows import Codes
from genoscan.model import Model
from genoscan.pgf import FrechetMambaOperator

CHANNELS, STATES = 256, 16

Run = Callable[[], Tensor]


def tile_scan(_model: Model, settings: Settings) -> Callable[[Codes], Run]:
    """Build the paper's tangent of y along one direction, at every step."""
    made = operator(CHANNELS, STATES, device=settings.device)

    def prepare(codes: Codes) -> Run:
        u, u_dot = noise(codes.shape[1], CHANNELS, device=settings.device)

        def run() -> Tensor:
            y_dot = torch.empty_like(u)
            for span, part in rivals.pushed(rivals.tile, made, u, u_dot):
                y_dot[span] = part
            return y_dot

        return run

    return prepare


def tile_scan_truth(length: int) -> Tensor:
    """Return the expected result of `tile_scan`, in float64 by an independent computation."""
    made, u, u_dot = _exact(length)
    return truth.tangents(made, made.A_log[None], u, u_dot)[0]


def layer_adjoint(_model: Model, settings: Settings) -> Callable[[Codes], Run]:
    """Build our derivative of a weighted sum of all outputs with respect to every input."""
    made = operator(CHANNELS, STATES, device=settings.device, kernels=settings.kernels)

    def prepare(codes: Codes) -> Run:
        u, y_bar = noise(codes.shape[1], CHANNELS, device=settings.device)
        slots = settings.slots_for(len(u))
        return lambda: made.pgf_vjp(u, y_bar, settings.tile, slots=slots)

    return prepare


def layer_adjoint_truth(length: int) -> Tensor:
    """Return the expected result of `layer_adjoint`, in float64 by an independent computation."""
    made, u, y_bar = _exact(length)
    return truth.gradients(made, made.A_log[None], u, y_bar)[0]


def _exact(length: int) -> tuple[FrechetMambaOperator, Tensor, Tensor]:
    u, other = noise(length, CHANNELS)
    return operator(CHANNELS, STATES, dtype=torch.float64), u.double(), other.double()
