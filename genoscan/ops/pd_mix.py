"""The mixer of a PD-SSM block: everything between its convolution and its output projection.

Notation (Terzić et al., NeurIPS 2025; Flash PD-SSM, arXiv 2605.19150): see layers/pd_ssm.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int16
from torch import Tensor
from torch.nn import functional as F

from genoscan.ops.dual import primal
from genoscan.ops.kernels import Kernels

Estimate = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Function of decay, inflow, scores and route that returns decay and inflow with other derivatives."""


class PdMixWeights(NamedTuple):
    """Weights of the mixer, with the same names as in layers/pd_ssm.py.

    Parameters
    ----------
    B_proj : Tensor
        Weight of the inflow, of shape (heads x 2 x states, channels).
    low : Tensor
        Weight of three low-rank projections, of shape (3 x rank, channels).
    size, size_bias, phase, phase_bias : Tensor
        Weights and biases of the arguments of the decays, of shapes (heads x states, rank) and (heads x
        states,).
    C_proj, C_bias : Tensor
        Weight and bias of the output projection of the state, of shapes (heads x 2 x states, rank) and
        (heads x 2 x states,).
    router : Tensor
        Weight of the router, of shape (heads x maps, channels).
    state_out : Tensor
        Weight that maps the states that were read to channels, of shape (channels, heads x states).
    D : Tensor
        Skip connection, of shape (channels,).
    """

    B_proj: Tensor
    low: Tensor
    size: Tensor
    size_bias: Tensor
    phase: Tensor
    phase_bias: Tensor
    C_proj: Tensor
    C_bias: Tensor
    router: Tensor
    state_out: Tensor
    D: Tensor


def by_head(states: Tensor, heads: int) -> Tensor:
    """Return a view of shape (..., heads, states) of a tensor of shape (..., heads x states)."""
    return states.unflatten(-1, (heads, -1))


def in_planes(states: Tensor, heads: int) -> Tensor:
    """Return a view of shape (..., heads, 2, states) of a tensor of shape (..., heads x 2 x states)."""
    return states.unflatten(-1, (heads, 2, -1))


def step_of(size: Tensor, *, coupled: bool) -> Tensor:
    """Return the steps: the softplus of `size` in coupled blocks, and its relu in others."""
    return F.softplus(size, threshold=40) if coupled else F.relu(size)


def pd_mix_by_operations(
    kernels: Kernels,
    u: Float[Tensor, "batch tile channels"],
    z: Float[Tensor, "batch tile channels"],
    state: Float[Tensor, "batch heads two states"],
    weights: PdMixWeights,
    *,
    maps: Int16[Tensor, "heads maps states"],
    coupled: bool,
    estimate: Estimate | None = None,
) -> tuple[Float[Tensor, "batch tile channels"], Float[Tensor, "batch heads two states"]]:
    """Compute the mixer over a tile with the separate operations of a kernel set.

    Parameters
    ----------
    kernels : Kernels
        Kernel set that computes the operations.
    u : Tensor
        Output of the convolution, of shape (batch, tile, channels).
    z : Tensor
        Gate, of shape (batch, tile, channels).
    state : Tensor
        State of the scan before the tile, of shape (batch, heads, 2, states).
    weights : PdMixWeights
        Weights of the mixer.
    maps : Tensor
        Destination of each state in each map, of shape (heads, maps, states).
    coupled : bool
        Whether the phases and the inflow are scaled by the step.
    estimate : callable, optional
        Replaces the derivatives of decay and inflow by estimates.

    Returns
    -------
    tuple of Tensor
        Outputs before the output projection, of the same shape as `u`, and the final state.
    """
    heads, n_maps, _ = maps.shape
    size, phase, reading = kernels.linear(u, weights.low).chunk(3, -1)
    step = step_of(kernels.linear(size, weights.size, weights.size_bias), coupled=coupled)
    magnitude = torch.exp(-step)
    angle = kernels.linear(phase, weights.phase, weights.phase_bias)
    inflow = in_planes(kernels.linear(u, weights.B_proj), heads)
    if coupled:
        angle = step * angle
        inflow = by_head(-torch.expm1(-step), heads)[..., None, :] * inflow
    planes = magnitude * torch.cos(angle), magnitude * torch.sin(angle)
    decay = torch.stack([by_head(plane, heads) for plane in planes], -2)
    scores = kernels.linear(u, weights.router).unflatten(-1, (heads, n_maps))
    route = scores.argmax(-1).to(torch.int16)
    # NaN if scores overflow: the argmax of several infinities is undefined.
    decay = decay + 0 * primal(scores).detach().amax(-1)[..., None, None]
    if estimate is not None:
        decay, inflow = estimate(decay, inflow, scores, route)
    states, state = kernels.pd_scan(decay, inflow, state, route=route, maps=maps)
    C = in_planes(kernels.linear(reading, weights.C_proj, weights.C_bias), heads)
    read = (C[..., 0, :] * states[..., 0, :] - C[..., 1, :] * states[..., 1, :]).flatten(-2)
    return (kernels.linear(read, weights.state_out) + weights.D * u) * F.silu(z), state
