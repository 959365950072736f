"""Derivatives for a selection that has none, for training alone: two estimators.

A PD-SSM picks one map a step and one destination a column, by argmax: its derivative is zero
almost everywhere.  Training takes that of softmax instead, at a temperature that may be annealed.
These are estimators, not the derivative of the deployed function; they are off unless a stack was
made by `pd_ssm.with_surrogate`.

activated         only the entry that was picked, of the router's and of each column's softmax, has
                  a derivative (Flash PD-SSM, arXiv 2605.19150, section on its backward pass):
                  linear in the states, no more memory than the scan's
straight_through  all of both softmaxes: for every step all maps' scores and, summed over steps,
                  all destinations; quadratic in the states, in time and not in memory
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genoscan.errors import InputError
from genoscan.ops.kernels import Kernels


@dataclass
class Surrogate:
    """Which estimator, and the temperature of its softmaxes; a trainer may lower it as it goes."""

    kind: Literal["activated", "straight_through"] = "activated"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("activated", "straight_through"):
            raise InputError(f'surrogate "{self.kind}": expected "activated" or "straight_through"')


def activated(
    decay: Tensor,
    surrogate: Surrogate,
    scores: Tensor,
    dictionary: Tensor,
    route: Tensor,
    maps: Tensor,
) -> Tensor:
    """Return the decays times ones: the picked probabilities', whose derivatives they have.

    A step's transition is linear in both, so that a factor's cotangent is the sum that the paper's
    backward pass needs: over columns for the router, over steps for the dictionary.
    """
    p_map = torch.softmax(scores / surrogate.temperature, -1).gather(-1, route.long()[..., None])
    p_row = torch.softmax(dictionary / surrogate.temperature, -2).gather(
        -2, maps.long()[..., None, :]
    )
    heads = torch.arange(len(maps), device=maps.device)
    by_column = _one(p_row)[..., 0, :][heads, route.long()]
    return decay * (_one(p_map) * by_column)[..., None, :]


def _one(probability: Tensor) -> Tensor:
    """Return 1, with the probability's derivative."""
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
    """Return the inflow; its cotangents are states', and they give the softmaxes theirs."""
    p_map = torch.softmax(scores / surrogate.temperature, -1)
    p_row = torch.softmax(dictionary / surrogate.temperature, -2)
    return _StraightThrough.apply(
        inflow, p_map, p_row, decay.detach(), state.detach(), route, maps, kernels
    )


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
        """Pull back: the transition's entry (i, q) has the cotangent Re(conj(x_bar_i) d_q x_q)."""
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "the straight-through estimator has no second derivative: call backward without "
                "create_graph, or freeze the dictionary"
            )
        inflow, decay, state, route, maps = ctx.saved_tensors
        x, _ = ctx.kernels.pd_scan(decay, inflow, state, route=route, maps=maps)
        before = torch.cat([state[:, None], x[:, :-1]], 1)
        (d_re, d_im), (re, im) = decay.unbind(-2), before.unbind(-2)
        turned = torch.stack([d_re * re - d_im * im, d_re * im + d_im * re], -2)
        there, here = (part.flatten(0, 1).transpose(0, 1) for part in (x_bar, turned))
        routes = route.flatten(0, 1).T
        map_bar = _by_map(there, here, maps).unflatten(0, route.shape[:2])
        row_bar = _by_row(there, here, routes, maps.shape[1])
        return x_bar, map_bar, row_bar, None, None, None, None, None


def _by_map(there: Tensor, here: Tensor, maps: Tensor) -> Tensor:
    """Return (tokens, heads, maps): the cotangents' sum along each map's arrows.

    there, here  (heads, tokens, planes, states): cotangents where a state goes, and the states
    """
    heads = torch.arange(len(maps), device=maps.device)[:, None]
    # States first: a map then moves whole rows.
    there, here = (part.permute(0, 3, 2, 1).contiguous() for part in (there, here))
    sums = [(there[heads, maps[:, k].long()] * here).sum((1, 2)) for k in range(maps.shape[1])]
    return torch.stack(sums, -1).transpose(0, 1)


def _by_row(there: Tensor, here: Tensor, routes: Tensor, n_maps: int) -> Tensor:
    """Return (heads, maps, states, states): all arrows' cotangents over the steps of each map."""
    counts = (routes[..., None] == torch.arange(n_maps, device=routes.device)).sum(1).tolist()
    bars = there.new_empty(len(there), n_maps, there.shape[-1], there.shape[-1])
    for bar, sizes, order, *ends in zip(bars, counts, routes.argsort(-1), there, here, strict=True):
        runs = (end[order].split(sizes) for end in ends)
        for k, (to, of) in enumerate(zip(*runs, strict=True)):
            torch.mm(to.flatten(0, 1).T, of.flatten(0, 1), out=bar[k])
    return bars
