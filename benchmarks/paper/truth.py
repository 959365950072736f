"""The layer's derivatives in float64, computed independently: the reference for float32.

No kernel, rule or series of genoscan is used.  phi is the mean of exp over [0, z], which
Gauss-Legendre quadrature gives to the last digit for z from -30 to 0, and its derivative without
cancellation; tangents follow the product rule step by step, cotangents torch's autograd.

Several decays are computed at once: each row of A_logs (decays, states, or 1 for all states)
replaces the layer's own, and results have a leading axis of these rows.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional as F

from benchmarks.paper.rivals import jvp
from genoscan.pgf import MIN_SCALE, FrechetMambaOperator

_PIECE = 128

Decays = Float64[Tensor, "decays states"]
Input = Float64[Tensor, "*seeds length channels"]
Output = Float64[Tensor, "decays *seeds length channels"]
State = Float64[Tensor, "decays *seeds channels states"]


def phi(z: Tensor) -> Tensor:
    """Return (exp(z) - 1) / z as an integral."""
    total = torch.zeros_like(z)
    for node, weight in zip(*np.polynomial.legendre.leggauss(32), strict=True):
        total = total + float(weight) / 2 * torch.exp(z * float((1 + node) / 2))
    return total


@torch.no_grad()
def tangents(made: FrechetMambaOperator, A_logs: Decays, u: Input, u_dot: Input, state: State | None = None) -> Output:
    """Return y's tangent along u_dot; with `state`, for steps after that state."""
    A, x, x_dot = _side_by_side(A_logs, u, u_dot)
    h, h_dot = _first(made, x), _first(made, x_dot, offset=False)
    if state is not None:
        h, h_dot = state, torch.zeros_like(state)
    rows = []
    for span in _pieces(x.shape[-2]):
        now, moved = jvp(lambda part: _moving(made, A, part), (x[..., span, :],), (x_dot[..., span, :],))
        for a, b, c, skip, a_dot, b_dot, c_dot, skip_dot in _steps(*now, *moved):
            h_dot = a * h_dot + (a_dot * h + b_dot)
            h = a * h + b
            read_dot = (h_dot * c + h * c_dot).sum(-1) + skip_dot[..., 0]
            rows.append(torch.sigmoid((h * c).sum(-1) + skip[..., 0]) * read_dot)
    return torch.stack(rows, -2) * _scale(made)


def gradients(made: FrechetMambaOperator, A_logs: Decays, u: Input, y_bar: Input) -> Output:
    """Return the derivative of the sum of y * y_bar with respect to every input."""
    A, x, weights = _side_by_side(A_logs, u, y_bar)
    spans = _pieces(x.shape[-2])
    begun = states(made, A_logs, u, [span.start for span in spans])
    x_bar, h_bar = torch.empty_like(x), torch.zeros_like(begun[0])
    for span in reversed(spans):
        here, h = (part.detach().requires_grad_() for part in (x[..., span, :], begun.pop(span.start)))
        value, end = _piece(made, A, h, here, weights[..., span, :])
        x_bar[..., span, :], h_bar = torch.autograd.grad([value, end], [here, h], [torch.ones_like(value), h_bar])
    head = x[..., : made.init_window, :].detach().requires_grad_()
    (head_bar,) = torch.autograd.grad(_first(made, head), head, h_bar)
    x_bar[..., : made.init_window, :] += head_bar
    return x_bar


def _piece(made: FrechetMambaOperator, A: Tensor, h: Tensor, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of y over some steps, and the state after them."""
    rows = []
    for a, b, c, skip in _steps(*_moving(made, A, x)):
        h = a * h + b
        rows.append((h * c).sum(-1) + skip[..., 0])
    y = F.softplus(torch.stack(rows, -2), threshold=40) * _scale(made)
    return (y * weights).sum(), h


@torch.no_grad()
def states(made: FrechetMambaOperator, A_logs: Decays, u: Input, stops: Sequence[int]) -> dict[int, State]:
    """Return the state before each of these steps."""
    A, x = _side_by_side(A_logs, u)
    h, found, done = _first(made, x), {}, 0
    for stop in sorted(stops):
        for span in _pieces(stop, done):
            decays, enters, *_ = _moving(made, A, x[..., span, :])
            for a, b in _steps(decays, enters):
                h = a * h + b
        found[stop], done = h, stop
    return found


def _side_by_side(A_logs: Decays, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return A, and the inputs repeated for each of its rows."""
    if any(part.dtype != torch.float64 for part in (A_logs, *inputs)):
        raise TypeError("the truth is computed in float64")
    A = -torch.exp(A_logs).view(len(A_logs), *(1 for _ in inputs[0].shape), A_logs.shape[1])
    return A, *(part.expand(len(A_logs), *part.shape) for part in inputs)


def _moving(made: FrechetMambaOperator, A: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Return decay, input, output weights and skip term: (..., length, channels, states)."""
    z = F.softplus(made.dt_proj(x), threshold=40)[..., None] * A
    enters = phi(z) * made.B_proj(x)[..., None, :] * x[..., None]
    return torch.exp(z), enters, made.C_proj(x)[..., None, :], (made.D * x)[..., None]


def _steps(*parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(part.unbind(-3) for part in parts), strict=True)


def _first(made: FrechetMambaOperator, x: Tensor, *, offset: bool = True) -> Tensor:
    estimator = made.init_estimator
    head = x[..., : made.init_window, :].flatten(-2)
    state = F.linear(head, estimator.weight, estimator.bias if offset else None)
    return state.view(*x.shape[:-2], made.d_model, made.d_state)


def _scale(made: FrechetMambaOperator) -> Tensor:
    return made.redshift_scale.clamp(min=MIN_SCALE)


def _pieces(stop: int, start: int = 0) -> list[slice]:
    return [slice(at, min(at + _PIECE, stop)) for at in range(start, stop, _PIECE)]
