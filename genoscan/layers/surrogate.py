"""Surrogate gradients for training models with PD-SSM blocks.

At each step of a PD-SSM block, an argmax selects one of several transition maps; another argmax selects the
destination of each state in each map. The derivative of an argmax is zero almost everywhere. In training,
it is replaced by the derivative of a softmax, whose temperature may be annealed. Surrogate gradients are
estimates and differ from the derivative of the deployed function. They are used only in training, and only
in networks returned by `pd_ssm.with_surrogate`.

There are two estimators:

activated         differentiates only the selected entry of the router's softmax and of each
                  column's softmax (Flash PD-SSM, arXiv 2605.19150, section on its backward pass);
                  per step, time and memory are linear in the number of states
straight_through  differentiates all entries of both softmaxes, including those of maps and
                  destinations that are not selected; per step, time is quadratic and memory is
                  linear in the number of states
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genoscan.errors import InputError
from genoscan.ops.kernels import Kernels


@dataclass
class Surrogate:
    """Settings of the surrogate gradient with which PD-SSM blocks are trained.

    Attributes
    ----------
    kind
        Name of the estimator, "activated" or "straight_through".
    temperature
        Temperature of the softmaxes over maps and over destinations. It may be changed during training.

    Raises
    ------
    InputError
        If `kind` is unknown.
    """

    kind: Literal["activated", "straight_through"] = "activated"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("activated", "straight_through"):
            raise InputError(f'surrogate "{self.kind}": expected "activated" or "straight_through"')


def activated(
    decay: Tensor, surrogate: Surrogate, scores: Tensor, dictionary: Tensor, route: Tensor, maps: Tensor
) -> Tensor:
    """Return the decays with unchanged values, but with a surrogate gradient for the selections.

    In the backward pass, gradients also flow to the scores and the dictionary, through the softmax
    probabilities of the selected maps and destinations.

    Parameters
    ----------
    decay
        Complex decays, of shape (batch, tile, heads, 2, states). The axis of size 2 separates real and
        imaginary parts.
    surrogate
        Settings of the estimator.
    scores
        Scores of the maps at each step, of shape (batch, tile, heads, maps).
    dictionary
        Scores of the transitions in each map, of shape (heads, maps, states, states). The last two axes are
        the destination and the source.
    route
        Index of the map selected at each step, an int16 tensor of shape (batch, tile, heads).
    maps
        Destination of each state in each map, an integer tensor of shape (heads, maps, states).

    Returns
    -------
    Tensor
        Decays with unchanged values, of the same shape as `decay`.

    Notes
    -----
    Each decay is multiplied by factors whose values are 1 and whose derivatives are those of the selected
    probabilities. Because each transition is linear in these factors, their cotangents equal the sums that
    the backward pass of Flash PD-SSM computes (arXiv 2605.19150): sums over columns for the router, and
    sums over steps for the dictionary.
    """
    p_map = torch.softmax(scores / surrogate.temperature, -1).gather(-1, route.long()[..., None])
    destinations = maps.long()[..., None, :]
    p_row = torch.softmax(dictionary / surrogate.temperature, -2).gather(-2, destinations)
    heads = torch.arange(len(maps), device=maps.device)
    by_column = _one(p_row)[..., 0, :][heads, route.long()]
    return decay * (_one(p_map) * by_column)[..., None, :]


def _one(probability: Tensor) -> Tensor:
    """Return a tensor of ones that has the derivative of `probability`."""
    return 1 + (probability - probability.detach())


def straight_through(
    inflow: Tensor,
    decay: Tensor,
    state: Tensor,
    surrogate: Surrogate,
    scores: Tensor,
    dictionary: Tensor,
    route: Tensor,
    maps: Tensor,
    kernels: Kernels,
) -> Tensor:
    """Return the inflow with unchanged values, but with a straight-through gradient for the selections.

    In the backward pass, gradients also flow to the scores and the dictionary, through all entries of the
    softmaxes over maps and over destinations.

    Parameters
    ----------
    inflow
        Term that is added to the states at each step, of shape (batch, tile, heads, 2, states).
    state
        State before the tile, of shape (batch, heads, 2, states).
    decay, surrogate, scores, dictionary, route, maps
        As in `activated`.
    kernels
        Kernel set that recomputes the states in the backward pass.

    Returns
    -------
    Tensor
        Inflow with unchanged values, of the same shape as `inflow`.

    Raises
    ------
    NotImplementedError
        In the backward pass, if it is called with `create_graph=True`.

    Notes
    -----
    The inflow is added to the states, so its cotangent equals that of the states. The cotangents of the two
    softmaxes are computed from this cotangent.
    """
    p_map = torch.softmax(scores / surrogate.temperature, -1)
    p_row = torch.softmax(dictionary / surrogate.temperature, -2)
    return _StraightThrough.apply(inflow, p_map, p_row, decay.detach(), state.detach(), route, maps, kernels)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inflow: Tensor,
        p_map: Tensor,
        p_row: Tensor,
        decay: Tensor,
        state: Tensor,
        route: Tensor,
        maps: Tensor,
        kernels: Kernels,
    ) -> Tensor:
        ctx.save_for_backward(inflow, decay, state, route, maps)
        ctx.kernels = kernels
        return inflow.view_as(inflow)

    @staticmethod
    def backward(ctx: Any, x_bar: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the cotangents of the inflow, the map probabilities and the destination probabilities.

        The cotangent of entry `(i, q)` of a transition matrix is `Re(conj(x_bar_i) d_q x_q)`, where `d` is
        the decay, `x` is the state before the step, and `x_bar` is the cotangent of the state after the
        step.
        """
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "the straight-through estimator has no second derivative: call backward without "
                "create_graph, or freeze the dictionary"
            )
        inflow, decay, state, route, maps = ctx.saved_tensors
        x, _ = ctx.kernels.pd_scan(decay, inflow, state, route=route, maps=maps)
        before = torch.cat([state[:, None], x[:, :-1]], 1)
        (d_re, d_im), (re, im) = decay.unbind(-2), before.unbind(-2)
        decayed = torch.stack([d_re * re - d_im * im, d_re * im + d_im * re], -2)
        bars, states = (part.flatten(0, 1).transpose(0, 1) for part in (x_bar, decayed))
        routes = route.flatten(0, 1).T
        map_bar = _map_bar(bars, states, maps).unflatten(0, route.shape[:2])
        row_bar = _row_bar(bars, states, routes, maps.shape[1])
        return x_bar, map_bar, row_bar, None, None, None, None, None


def _map_bar(bars: Tensor, states: Tensor, maps: Tensor) -> Tensor:
    """Return the cotangents of the map probabilities, of shape (steps, heads, maps).

    The cotangent of the probability of a map is the sum of the cotangents of all transitions of this map.
    `bars` contains the cotangents of the states after each step, and `states` contains the states before
    each step, multiplied by the decays. Both have the shape (heads, steps, 2, states), in which the axis of
    size 2 separates real and imaginary parts. The steps of all sequences in the batch are concatenated.
    """
    heads = torch.arange(len(maps), device=maps.device)[:, None]
    # With the states axis first, a map permutes contiguous rows.
    bars, states = (part.permute(0, 3, 2, 1).contiguous() for part in (bars, states))
    sums = [(bars[heads, maps[:, k].long()] * states).sum((1, 2)) for k in range(maps.shape[1])]
    return torch.stack(sums, -1).transpose(0, 1)


def _row_bar(bars: Tensor, states: Tensor, routes: Tensor, n_maps: int) -> Tensor:
    """Return the cotangents of all transitions of each map, of shape (heads, maps, states, states).

    `bars` and `states` are the same as in `_map_bar`. `routes`, of shape (heads, steps), contains the index
    of the map selected at each step. `n_maps` is the number of maps.
    """
    counts = (routes[..., None] == torch.arange(n_maps, device=routes.device)).sum(1).tolist()
    total = bars.new_empty(len(bars), n_maps, bars.shape[-1], bars.shape[-1])
    orders = routes.argsort(-1)
    for out, sizes, order, *ends in zip(total, counts, orders, bars, states, strict=True):
        runs = (end[order].split(sizes) for end in ends)
        for k, (bar, state) in enumerate(zip(*runs, strict=True)):
            torch.mm(bar.flatten(0, 1).T, state.flatten(0, 1), out=out[k])
    return total
