"""The paper's and torch's ways to the derivatives, for one sequence (length, channels).

Written anew from descriptions of the published operator.  `tile` is its scan: cumulative sums of
logarithms less their maximum, with the published two epsilons.  `by_steps` is its definition, each
step computed entirely in turn.  The rest computes the same function as efficiently as torch can:
everything but the recurrence for all steps together, without indexing or writing in place, which
would make the backward pass quadratic.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import isqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from genoscan.pgf import MIN_SCALE, FrechetMambaOperator

Input = Float[Tensor, "length channels"]
State = Float[Tensor, "channels states"]
Run = Callable[[FrechetMambaOperator, Tensor, Tensor], tuple[Tensor, Tensor]]

jvp: Callable[..., Any] = torch.func.jvp  # (outputs, their tangents)


def first_state(made: FrechetMambaOperator, head: Float[Tensor, "window channels"]) -> State:
    """Return the initial state, estimated from the first inputs."""
    return made.init_estimator(head.flatten()).view(made.d_model, made.d_state)


def inflow(made: FrechetMambaOperator, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return decays and state inputs, both (..., channels, states)."""
    z = F.softplus(made.dt_proj(u))[..., None] * -torch.exp(made.A_log)
    factor = torch.expm1(z) / (z + 1e-9)
    return torch.exp(z), factor * made.B_proj(u)[..., None, :] * u[..., None]


def outputs(made: FrechetMambaOperator, states: Tensor, u: Tensor) -> Tensor:
    """Return y from the states after each step."""
    read = (states * made.C_proj(u)[..., None, :]).sum(-1) + made.D * u
    return F.softplus(read) * made.redshift_scale.clamp(min=MIN_SCALE)


def tile(made: FrechetMambaOperator, state: State, u: Input) -> tuple[State, Tensor]:
    """Run one tile by cumulative sums; return its last state, and y."""
    decay, enters = inflow(made, u)
    logs = torch.cumsum(torch.log(decay + 1e-12), 0)
    top = logs.amax(0)
    inside = torch.cumsum(enters * torch.exp(top - logs), 0)
    states = torch.exp(logs) * state + torch.exp(logs - top) * inside
    return states[-1], outputs(made, states, u)


def by_steps(made: FrechetMambaOperator, u: Input) -> Tensor:
    """Return y, computed step by step."""
    state, rows = first_state(made, u[: made.init_window]), []
    for u_t in u.unbind(0):
        decay, enters = inflow(made, u_t)
        state = decay * state + enters
        rows.append(outputs(made, state, u_t))
    return torch.stack(rows)


def piece(made: FrechetMambaOperator, state: State, u: Input) -> tuple[State, Tensor]:
    """Run some steps, only the recurrence step by step; return the last state, and y."""
    states = []
    for decay, enters in zip(*(part.unbind(0) for part in inflow(made, u)), strict=True):
        state = decay * state + enters
        states.append(state)
    return state, outputs(made, torch.stack(states), u)


@torch.no_grad()
def pushed(
    run: Run, made: FrechetMambaOperator, u: Input, u_dot: Input, block: int = 64
) -> Iterator[tuple[slice, Tensor]]:
    """Yield y's tangent tile by tile, each run by `tile` (the paper's scan) or `piece`.

    Unlike the published code, weights require no gradients and no graph is recorded, both of which
    only cost time.
    """
    head, head_dot = u[: made.init_window], u_dot[: made.init_window]
    state, state_dot = jvp(partial(first_state, made), (head,), (head_dot,))
    for start in range(0, len(u), block):
        span = slice(start, start + block)
        (state, _), (state_dot, y_dot) = jvp(partial(run, made), (state, u[span]), (state_dot, u_dot[span]))
        yield span, y_dot


def whole(made: FrechetMambaOperator, u: Input) -> Tensor:
    """Return y of the whole sequence, run by `piece` at once."""
    return piece(made, first_state(made, u[: made.init_window]), u)[1]


def in_pieces(made: FrechetMambaOperator, u: Input, y_bar: Input, _block: int = 0) -> Iterator[tuple[slice, Tensor]]:
    """Yield u's cotangents from right to left, keeping only states between sqrt(length) pieces.

    Explicit checkpointing: torch.utils.checkpoint keeps what it recomputes until the end.
    """
    size = max(1, isqrt(len(u)))
    spans = [slice(start, min(start + size, len(u))) for start in range(0, len(u), size)]
    with torch.no_grad():
        states = [first_state(made, u[: made.init_window])]
        for span in spans[:-1]:
            states.append(piece(made, states[-1], u[span])[0])
    bar = torch.zeros_like(states[0])
    while spans:
        span = spans.pop()
        here, state = u[span].detach().requires_grad_(), states.pop().requires_grad_()
        end, y = piece(made, state, here)
        part, bar = torch.autograd.grad([y, end], [here, state], [y_bar[span], bar])
        if not spans:  # the first inputs also determine the initial state
            window = made.init_window
            head = u[:window].detach().requires_grad_()
            (more,) = torch.autograd.grad(first_state(made, head), head, bar)
            part[:window] += more
        yield span, part


def restarted(made: FrechetMambaOperator, u: Input) -> Tensor:
    """Return y by the published checkpointing, which restarts every piece: another function."""
    n_pieces = max(2, isqrt(len(u) // 100))
    parts = u.split(-(-len(u) // n_pieces))
    return torch.cat([checkpoint(whole, made, part, use_reentrant=False) for part in parts])


def dense_recursion(made: FrechetMambaOperator, u: Input) -> Tensor:
    """Return the product of the transition matrices of each channel, as dense matrices.

    Called real-time recurrent learning in the paper's complexity experiment: N^3 work per channel.
    """
    decay, _ = inflow(made, u)
    product = torch.eye(made.d_state, dtype=u.dtype, device=u.device).expand(made.d_model, made.d_state, made.d_state)
    for row in decay.unbind(0):
        product = torch.diag_embed(row) @ product
    return product
