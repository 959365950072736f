"""The permutation-diagonal scan, compiled for the CPU by numba.

Each kernel makes a single pass over the tile, and each step uses only two rows of states. Complex products
are computed separately for the real and the imaginary parts, in loops that LLVM vectorises. The states are
then moved to their destinations one by one, and states with the same destination are added. The notation is
that of `reference.pd_scan`.
"""

# Functions compiled by numba have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def, call-arg"

import numba
import numpy as np
import torch
from torch import Tensor

from genoscan.ops import reference
from genoscan.ops.lanes import compiled, parallel_for
from genoscan.ops.memory import aligned_empty
from genoscan.ops.pd_scan import check_indices
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors, materialize_tangents


@numba.njit(inline="always")
def _multiply(d, x, out):
    """Write the complex product of `d` and `x` to `out`.

    The first row of each array contains the real parts, and the second row contains the imaginary parts.
    """
    for q in range(d.shape[1]):
        out[0, q] = d[0, q] * x[0, q] - d[1, q] * x[1, q]
        out[1, q] = d[0, q] * x[1, q] + d[1, q] * x[0, q]


@numba.njit(inline="always")
def _multiply_conjugate(d, x, out):
    """Write the product of `x` and the complex conjugate of `d` to `out`.

    The first row of each array contains the real parts, and the second row contains the imaginary parts.
    """
    for q in range(d.shape[1]):
        out[0, q] = d[0, q] * x[0, q] + d[1, q] * x[1, q]
        out[1, q] = d[0, q] * x[1, q] - d[1, q] * x[0, q]


@numba.njit(inline="always")
def _scatter_add(p, values, inflow, x):
    """Set `x` to the inflow, and add each value to the entry of `x` that is its destination.

    `p` contains the destinations.
    """
    for plane in range(2):
        for q in range(len(p)):
            x[plane, q] = inflow[plane, q]
        for q in range(len(p)):
            x[plane, p[q]] += values[plane, q]


@numba.njit(inline="always")
def _gather(p, x, out):
    for plane in range(2):
        for q in range(len(p)):
            out[plane, q] = x[plane, p[q]]


@compiled
def _forward(decay, inflow, state, route, maps, x, dx, b, first, last):
    for head in range(first, last):
        before = state[b, head]
        for t in range(x.shape[1]):
            _multiply(decay[b, t, head], before, dx)
            now = x[b, t, head]
            _scatter_add(maps[head, route[b, t, head]], dx, inflow[b, t, head], now)
            before = now


@compiled
def _jvp(decay_dot, inflow_dot, state_dot, decay, state, route, maps, x, x_dot, dx, ex, b, first, last):
    """Write the tangents of the states `x` to `x_dot`; `dx` and `ex` are buffers for the states of one head."""
    for i in range(len(x_dot)):
        for head in range(first, last):
            before, before_dot = state[b, head], state_dot[i, b, head]
            for t in range(x.shape[1]):
                _multiply(decay[b, t, head], before_dot, dx)
                _multiply(decay_dot[i, b, t, head], before, ex)
                for plane in range(2):
                    for q in range(dx.shape[1]):
                        dx[plane, q] += ex[plane, q]
                now = x_dot[i, b, t, head]
                p = maps[head, route[b, t, head]]
                _scatter_add(p, dx, inflow_dot[i, b, t, head], now)
                before, before_dot = x[b, t, head], now


@compiled
def _vjp(decay, state, route, maps, x, x_bar, decay_bar, inflow_bar, state_bar, sent, b, first, last):
    """Write the cotangents of the inputs.

    On entry, `state_bar` is the cotangent of the final state; on exit, it is the cotangent of the
    initial state.
    """
    for head in range(first, last):
        carried = state_bar[b, head]
        for t in range(x.shape[1] - 1, -1, -1):
            here = inflow_bar[b, t, head]
            for plane in range(2):
                for q in range(here.shape[1]):
                    here[plane, q] = x_bar[b, t, head, plane, q] + carried[plane, q]
            _gather(maps[head, route[b, t, head]], here, sent)
            before = x[b, t - 1, head] if t > 0 else state[b, head]
            _multiply_conjugate(before, sent, decay_bar[b, t, head])
            _multiply_conjugate(decay[b, t, head], sent, carried)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.contiguous().numpy(force=True) for tensor in tensors]


def forward(inputs: Tensors, *, save: bool, route: Tensor, maps: Tensor) -> tuple[Tensors, Tensors]:
    """Return the states after each step, and the final state.

    If `save` is true, the states are also returned as the tensors to be saved for `vjp`.
    """
    _, n_maps, n_states = maps.shape
    check_indices("route", route, n_maps)
    check_indices("maps", maps, n_states)
    arrays = decay, _, state = _arrays(*inputs)
    choices = _arrays(route, maps)
    x = aligned_empty(decay.shape, decay)

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        dx = np.empty(state.shape[-2:], state.dtype)
        _forward(*arrays, *choices, x, dx, i_batch, first, last)

    parallel_for(run, *state.shape[:2])
    states = torch.from_numpy(x)
    return (states, states[:, -1].clone()), (states,) if save else ()


def jvp(inputs: Tensors, tangents: OptionalTensors, *, route: Tensor, maps: Tensor) -> tuple[Tensors, Tensors]:
    """Return the outputs of `forward`, and their tangents along all directions."""
    (states, end), _ = forward(inputs, save=False, route=route, maps=maps)
    decay, _, state = _arrays(*inputs)
    dots = _arrays(*materialize_tangents(inputs, tangents))
    choices, x = _arrays(route, maps), states.numpy()
    x_dot = aligned_empty(dots[0].shape, decay)

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        dx, ex = np.empty((2, *state.shape[-2:]), state.dtype)
        _jvp(*dots, decay, state, *choices, x, x_dot, dx, ex, i_batch, first, last)

    parallel_for(run, *state.shape[:2])
    states_dot = torch.from_numpy(x_dot)
    return (states, end), (states_dot, states_dot[:, :, -1].clone())


def vjp(
    inputs: Tensors, saved: Tensors, bars: Tensors, _needs: Flags, *, route: Tensor, maps: Tensor
) -> OptionalTensors:
    """Return the cotangents of the decay, the inflow and the state."""
    decay, _, state = _arrays(*inputs)
    (x,), (x_bar, end_bar) = _arrays(*saved), _arrays(*bars)
    choices = _arrays(route, maps)
    decay_bar, inflow_bar = aligned_empty(decay.shape, decay), aligned_empty(decay.shape, decay)
    outputs = decay_bar, inflow_bar, end_bar.copy()

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        sent = np.empty(state.shape[-2:], state.dtype)
        _vjp(decay, state, *choices, x, x_bar, *outputs, sent, i_batch, first, last)

    parallel_for(run, *state.shape[:2])
    return tuple(map(torch.from_numpy, outputs))


PD_SCAN = Primitive(forward, jvp, vjp, reference.pd_scan, outputs=2)
