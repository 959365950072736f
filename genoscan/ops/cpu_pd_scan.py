"""The permutation-diagonal scan, compiled for the CPU.

One pass in either direction: a step moves each state to its destination and is done with, so that
what is in use are two rows of states.  Products are taken plane by plane, real and imaginary, in
loops that the compiler makes vectors of; the move itself goes state by state, by the map, which
also adds up where two states meet.  Terms as in `reference.pd_scan`.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, call-arg"

import numpy as np
import torch
from torch import Tensor

from genoscan.ops import reference
from genoscan.ops.lanes import compiled, over_groups
from genoscan.ops.memory import aligned_empty
from genoscan.ops.pd_scan import check_choice
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors, materialize_tangents


@compiled
def _turned(d, x, turned):
    """Write d x, complex, planes of real and imaginary parts."""
    for q in range(d.shape[1]):
        turned[0, q] = d[0, q] * x[0, q] - d[1, q] * x[1, q]
        turned[1, q] = d[0, q] * x[1, q] + d[1, q] * x[0, q]


@compiled
def _turned_back(d, x, turned):
    """Write conj(d) x."""
    for q in range(d.shape[1]):
        turned[0, q] = d[0, q] * x[0, q] + d[1, q] * x[1, q]
        turned[1, q] = d[0, q] * x[1, q] - d[1, q] * x[0, q]


@compiled
def _moved(chosen, turned, inflow, x):
    """Write the inflow and what the map sends to each state."""
    for plane in range(2):
        for q in range(len(chosen)):
            x[plane, q] = inflow[plane, q]
        for q in range(len(chosen)):
            x[plane, chosen[q]] += turned[plane, q]


@compiled
def _gathered(chosen, x, gathered):
    for plane in range(2):
        for q in range(len(chosen)):
            gathered[plane, q] = x[plane, chosen[q]]


@compiled
def _forward(decay, inflow, state, route, maps, x, turned, i_batch, first, last):
    for head in range(first, last):
        before = state[i_batch, head]
        for t in range(x.shape[1]):
            _turned(decay[i_batch, t, head], before, turned)
            now = x[i_batch, t, head]
            _moved(maps[head, route[i_batch, t, head]], turned, inflow[i_batch, t, head], now)
            before = now


@compiled
def _jvp(decay_dot, inflow_dot, state_dot, decay, state, route, maps, x, x_dot, turned, more,
         i_batch, first, last):  # fmt: skip
    """Push tangents; x is known."""
    for i in range(len(x_dot)):
        for head in range(first, last):
            before, before_dot = state[i_batch, head], state_dot[i, i_batch, head]
            for t in range(x.shape[1]):
                _turned(decay[i_batch, t, head], before_dot, turned)
                _turned(decay_dot[i, i_batch, t, head], before, more)
                for plane in range(2):
                    for q in range(turned.shape[1]):
                        turned[plane, q] += more[plane, q]
                now = x_dot[i, i_batch, t, head]
                chosen = maps[head, route[i_batch, t, head]]
                _moved(chosen, turned, inflow_dot[i, i_batch, t, head], now)
                before, before_dot = x[i_batch, t, head], now


@compiled
def _vjp(decay, state, route, maps, x, x_bar, decay_bar, inflow_bar, state_bar, gathered,
         i_batch, first, last):  # fmt: skip
    """Pull cotangents back; `state_bar` holds that of the end, and then that of the start."""
    for head in range(first, last):
        carried = state_bar[i_batch, head]
        for t in range(x.shape[1] - 1, -1, -1):
            here = inflow_bar[i_batch, t, head]
            for plane in range(2):
                for q in range(here.shape[1]):
                    here[plane, q] = x_bar[i_batch, t, head, plane, q] + carried[plane, q]
            _gathered(maps[head, route[i_batch, t, head]], here, gathered)
            before = x[i_batch, t - 1, head] if t > 0 else state[i_batch, head]
            _turned_back(before, gathered, decay_bar[i_batch, t, head])
            _turned_back(decay[i_batch, t, head], gathered, carried)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.contiguous().numpy(force=True) for tensor in tensors]


def forward(inputs: Tensors, *, save: bool, route: Tensor, maps: Tensor) -> tuple[Tensors, Tensors]:
    """Return the states after every step and at the end; with `save`, the former once more."""
    check_choice(route, maps)
    arrays = decay, _, state = _arrays(*inputs)
    chosen = _arrays(route, maps)
    x = aligned_empty(decay.shape, decay)

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        turned = np.empty(state.shape[-2:], state.dtype)
        _forward(*arrays, *chosen, x, turned, i_batch, first, last)

    over_groups(run, *state.shape[:2])
    states = torch.from_numpy(x)
    return (states, states[:, -1].clone()), (states,) if save else ()


def jvp(
    inputs: Tensors, dots: OptionalTensors, *, route: Tensor, maps: Tensor
) -> tuple[Tensors, Tensors]:
    """Return both outputs, and their tangents, for every direction."""
    (states, end), _ = forward(inputs, save=False, route=route, maps=maps)
    decay, _, state = _arrays(*inputs)
    moving = _arrays(*materialize_tangents(inputs, dots))
    chosen, x = _arrays(route, maps), states.numpy()
    x_dot = aligned_empty(moving[0].shape, decay)

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        turned, more = np.empty((2, *state.shape[-2:]), state.dtype)
        _jvp(*moving, decay, state, *chosen, x, x_dot, turned, more, i_batch, first, last)

    over_groups(run, *state.shape[:2])
    states_dot = torch.from_numpy(x_dot)
    return (states, end), (states_dot, states_dot[:, :, -1].clone())


def vjp(
    inputs: Tensors,
    saved: Tensors,
    bars: Tensors,
    _needs_grad: Flags,
    *,
    route: Tensor,
    maps: Tensor,
) -> OptionalTensors:
    """Return the cotangents of decay, inflow and state."""
    decay, _, state = _arrays(*inputs)
    (x,), (x_bar, end_bar) = _arrays(*saved), _arrays(*bars)
    chosen = _arrays(route, maps)
    decay_bar, inflow_bar = aligned_empty(decay.shape, decay), aligned_empty(decay.shape, decay)
    state_bar = end_bar.copy()

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        gathered = np.empty(state.shape[-2:], state.dtype)
        _vjp(
            decay, state, *chosen, x, x_bar, decay_bar, inflow_bar, state_bar, gathered,
            i_batch, first, last,
        )  # fmt: skip

    over_groups(run, *state.shape[:2])
    return tuple(torch.from_numpy(bar) for bar in (decay_bar, inflow_bar, state_bar))


PD_SCAN = Primitive(forward, jvp, vjp, reference.pd_scan, outputs=2)
