"""The selective scan compiled for the CPU (numba): exact, vectorised over channels.

How it is fast
    16 channels stand side by side in vector registers; for each, all states of one base are
    advanced before the next base is read, so that arrays are read in the order they lie and
    the state never leaves the first cache.  The exponential is an inlined polynomial.
    Channel groups go to `torch.get_num_threads()` threads; the kernels hold no lock.

How it is exact
    A decay enters as exp(z) - 1 where it is next to 1 and as exp(z) where it is not (`decay`),
    and the state's sum is compensated (Kahan), so that nothing is lost over any length:
    tests/test_scan.py holds the error against float64 at 131,072 bases under 1e-5, for decays
    from exp(-1e-10) to exp(-1e5).  Nothing is divided and no logarithm is taken.

The derivatives need the states again.  `forward` leaves a mark, the state, every `SUB` bases,
and the vjp recomputes `SUB` bases at a time from there, so every exponential is evaluated twice
in all.  Marks take 1 / SUB of what all states would; the sub-tile lies in the first cache.

Letters: u, delta, A, B, C, D, h as in `reference.scan`; `rate` is A / ln 2, so that a decay is
2^(delta rate); `_dot` tangents, `_bar` cotangents; i_ index.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, call-arg"

import math
from collections.abc import Sequence
from functools import partial

import numba
import numpy as np
import torch
from torch import Tensor

from genoscan.ops import reference
from genoscan.ops.kernels import ScanInputs, is_phi
from genoscan.ops.lanes import (
    LANES,
    compiled,
    decay,
    hold,
    hold_slope,
    load,
    over_groups,
    padded,
    precise,
    prefetch,
    sigmoid,
    softplus,
    stack,
    store,
    total,
    trimmed,
    where,
    widest,
)
from genoscan.ops.memory import aligned_empty, contiguous
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors, materialize_tangents

STATES = 16
"""States of a channel that are advanced together; more go in groups."""
SUB = 32
"""Bases from mark to mark."""
BLOCK = 8
"""Bases whose steps and gates are computed ahead of the recurrence and behind it."""
LN_2 = math.log(2)


@numba.njit(inline="always")
def _gather(lanes, matrix, group, scale):
    """Fill lanes with a group of channels of (channels, states); what pads them is its last."""
    for n in range(matrix.shape[-1]):
        for lane in range(LANES):
            channel = min(group * LANES + lane, len(matrix) - 1)
            lanes[n * LANES + lane] = matrix[channel, n] * scale


@numba.njit(inline="always")
def _scatter(matrix, lanes, group):
    """Undo `_gather`."""
    for n in range(matrix.shape[-1]):
        for lane in range(min(LANES, len(matrix) - group * LANES)):
            matrix[group * LANES + lane, n] = lanes[n * LANES + lane]


@compiled
def _forward(u, delta, A, B, C, D, state, bias, z, y, state_end, marks, held,
             i_batch, first, last):  # fmt: skip
    """Advance channel groups first..last of one sequence; fill y, state_end and, if any, marks.

    Here and below `held` is None for Mamba's Euler input map, delta B u, and anything else for
    phi(delta A) B u; each has kernels of its own.
    """
    widest()
    length, n_states = B.shape[1], B.shape[2]
    softened, gated = len(bias) > 0, len(z) > 0
    h = numba.carray(stack(u, 256), 256)
    lost = numba.carray(stack(u, 256), 256)
    rate = numba.carray(stack(u, 256), 256)
    steps = numba.carray(stack(u, 256), 256)
    for group in range(first, last):
        _gather(rate, A, group, 1 / LN_2)
        _gather(h, state[i_batch], group, 1.0)
        for n in range(n_states):
            store(lost, n, 0.0)
        skip = load(D, group)
        for start in range(0, length, BLOCK):
            size = min(BLOCK, length - start)
            if start % SUB == 0 and marks.shape[1] > 0:
                for n in range(n_states):
                    store(marks, (i_batch, start // SUB, group, n), load(h, n))
            for i in range(size):
                store(steps, i, load(delta, (i_batch, start + i, group)))
            if softened:  # in one loop with the loads it is slower
                shift = load(bias, group)
                for i in range(size):
                    store(steps, i, softplus(load(steps, i) + shift))
            if gated:
                for i in range(size):
                    prefetch(z, (i_batch, start + i, group))
            for i in range(size):
                t = start + i
                prefetch(u, (i_batch, t + 4, group))
                prefetch(delta, (i_batch, t + BLOCK, group))
                prefetch(y, (i_batch, t + 4, group))
                source, step = load(u, (i_batch, t, group)), load(steps, i)
                out = skip * source
                for n in range(n_states):
                    z2, before = step * load(rate, n), load(h, n)
                    factor = decay(z2)
                    gain = step if held is None else hold(z2, factor)
                    left = where(z2 > -1.0, before, 0.0)
                    behind = where(z2 > -1.0, load(lost, n), 0.0)
                    change = factor * before + (B[i_batch, t, n] * (gain * source) - behind)
                    after = left + change
                    store(lost, n, (after - left) - change)
                    store(h, n, after)
                    out = out + C[i_batch, t, n] * after
                store(y, (i_batch, t, group), out)
            if gated:
                for t in range(start, start + size):
                    out, door = load(y, (i_batch, t, group)), load(z, (i_batch, t, group))
                    store(y, (i_batch, t, group), out * door * sigmoid(door))
        _scatter(state_end[i_batch], h, group)


@compiled
def _jvp(u, delta, A, B, C, D, state, bias, z,
         u_dot, delta_dot, A_dot, B_dot, C_dot, D_dot, state_dot, bias_dot, z_dot,
         y, state_end, y_dot, state_end_dot, carry, held, i_batch, first, last):  # fmt: skip
    """Advance as `_forward` does, and push tangents along the directions, the first `_dot` axis.

    What does not depend on the direction is computed once a sub-tile and serves all of them.
    `carry` is room for what a direction hands from one sub-tile to the one on its right.  Tangents
    of A, D and bias may be empty, where they do not move.
    """
    widest()
    length, n_states, n_directions = B.shape[1], B.shape[2], u_dot.shape[0]
    softened, gated, moves = len(bias) > 0, len(z) > 0, A_dot.shape[1] > 0
    h = numba.carray(stack(u, 256), 256)
    lost = numba.carray(stack(u, 256), 256)
    rate = numba.carray(stack(u, 256), 256)
    h_dot = numba.carray(stack(u, 256), 256)
    lost_dot = numba.carray(stack(u, 256), 256)
    rate_dot = numba.carray(stack(u, 256), 256)
    states = numba.carray(stack(u, 8192), (32, 256))
    carried = numba.carray(stack(u, 8192), (32, 256))
    decays = numba.carray(stack(u, 8192), (32, 256))
    steps = numba.carray(stack(u, 512), 512)
    slopes = numba.carray(stack(u, 512), 512)
    silus = numba.carray(stack(u, 512), 512)
    turns = numba.carray(stack(u, 512), 512)
    for group in range(first, last):
        _gather(rate, A, group, 1 / LN_2)
        _gather(h, state[i_batch], group, 1.0)
        for n in range(n_states):
            store(lost, n, 0.0)
        for i_dot in range(n_directions):
            _gather(h_dot, state_dot[i_dot, i_batch], group, 1.0)
            for n in range(n_states):
                store(carry, (i_batch, group, 0, i_dot, n), load(h_dot, n))
                store(carry, (i_batch, group, 1, i_dot, n), 0.0)
        skip = load(D, group)
        for start in range(0, length, SUB):
            size = min(SUB, length - start)
            for i in range(size):
                t = start + i
                step = load(delta, (i_batch, t, group))
                if softened:
                    shifted = step + load(bias, group)
                    step = softplus(shifted)
                    store(slopes, i, sigmoid(shifted))
                store(steps, i, step)
            for i in range(size):
                t = start + i
                prefetch(u, (i_batch, t + 4, group))
                prefetch(delta, (i_batch, t + SUB, group))
                prefetch(y, (i_batch, t, group))
                prefetch(u_dot, (0, i_batch, t, group))
                prefetch(delta_dot, (0, i_batch, t, group))
                prefetch(y_dot, (0, i_batch, t, group))
                if gated:
                    prefetch(z, (i_batch, t, group))
                    prefetch(z_dot, (0, i_batch, t, group))
                source, step = load(u, (i_batch, t, group)), load(steps, i)
                out = skip * source
                for n in range(n_states):
                    z2, before = step * load(rate, n), load(h, n)
                    factor = decay(z2)
                    gain = step if held is None else hold(z2, factor)
                    left = where(z2 > -1.0, before, 0.0)
                    behind = where(z2 > -1.0, load(lost, n), 0.0)
                    change = factor * before + (B[i_batch, t, n] * (gain * source) - behind)
                    after = left + change
                    store(lost, n, (after - left) - change)
                    store(h, n, after)
                    store(states, (i, n), after)
                    out = out + C[i_batch, t, n] * after
                    store(decays, (i, n), factor)
                    # What is there after this base, as it changes with z2.
                    moved = left + factor * before
                    if held is not None:
                        moved = moved + B[i_batch, t, n] * source * hold_slope(z2, factor, gain)
                    store(carried, (i, n), moved * LN_2)
                store(y, (i_batch, t, group), out)
            if gated:
                for i in range(size):
                    out = load(y, (i_batch, start + i, group))
                    door = load(z, (i_batch, start + i, group))
                    up = sigmoid(door)
                    silu = door * up
                    store(silus, i, silu)
                    store(turns, i, out * (up + silu * (1.0 - up)))
                    store(y, (i_batch, start + i, group), out * silu)
            for i_dot in range(n_directions):
                for n in range(n_states):
                    store(h_dot, n, load(carry, (i_batch, group, 0, i_dot, n)))
                    store(lost_dot, n, load(carry, (i_batch, group, 1, i_dot, n)))
                if moves:
                    _gather(rate_dot, A_dot[i_dot], group, 1 / LN_2)
                for i in range(size):
                    t = start + i
                    source, step = load(u, (i_batch, t, group)), load(steps, i)
                    prefetch(u_dot, (i_dot + 1, i_batch, t, group))
                    prefetch(delta_dot, (i_dot + 1, i_batch, t, group))
                    prefetch(y_dot, (i_dot + 1, i_batch, t, group))
                    if gated:
                        prefetch(z_dot, (i_dot + 1, i_batch, t, group))
                    source_dot = load(u_dot, (i_dot, i_batch, t, group))
                    step_dot = load(delta_dot, (i_dot, i_batch, t, group))
                    out_dot = skip * source_dot
                    if softened and moves:
                        step_dot = step_dot + load(bias_dot, (i_dot, group))
                    if softened:
                        step_dot = step_dot * load(slopes, i)
                    if moves:
                        out_dot = out_dot + load(D_dot, (i_dot, group)) * source
                    inflow = step * source
                    inflow_dot = step_dot * source + step * source_dot
                    for n in range(n_states):
                        factor, before_dot = load(decays, (i, n)), load(h_dot, n)
                        left = where(factor > 0.0, 0.0, before_dot)
                        behind = where(factor > 0.0, 0.0, load(lost_dot, n))
                        z2_dot = step_dot * load(rate, n)
                        if moves:
                            z2_dot = z2_dot + step * load(rate_dot, n)
                        change = factor * before_dot + load(carried, (i, n)) * z2_dot
                        if held is not None:
                            gain = hold(step * load(rate, n), factor)
                            inflow, inflow_dot = gain * source, gain * source_dot
                        change = change + B[i_batch, t, n] * inflow_dot
                        change = change + (B_dot[i_dot, i_batch, t, n] * inflow - behind)
                        after = left + change
                        store(lost_dot, n, (after - left) - change)
                        store(h_dot, n, after)
                        out_dot = out_dot + C[i_batch, t, n] * after
                        out_dot = out_dot + C_dot[i_dot, i_batch, t, n] * load(states, (i, n))
                    if gated:
                        door_dot = load(z_dot, (i_dot, i_batch, t, group))
                        out_dot = out_dot * load(silus, i) + load(turns, i) * door_dot
                    store(y_dot, (i_dot, i_batch, t, group), out_dot)
                for n in range(n_states):
                    store(carry, (i_batch, group, 0, i_dot, n), load(h_dot, n))
                    store(carry, (i_batch, group, 1, i_dot, n), load(lost_dot, n))
        _scatter(state_end[i_batch], h, group)
        for i_dot in range(n_directions):
            for n in range(n_states):
                store(h_dot, n, load(carry, (i_batch, group, 0, i_dot, n)))
            _scatter(state_end_dot[i_dot, i_batch], h_dot, group)


@compiled
def _vjp(u, delta, A, B, C, D, bias, z, marks, y_bar, state_end_bar,
         u_bar, delta_bar, A_bar, B_bar, C_bar, D_bar, state_bar, bias_bar, z_bar, carry,
         held, i_batch, first, last):  # fmt: skip
    """Pull cotangents back through channel groups first..last of one sequence.

    A base sends exp(z) h_bar to its left, as `h_bar`, which is kept or not, and `pending`, the
    rest; the rest is added together with the left base's own share, in one compensated step.
    `carry` is room for what a channel group hands from one sub-tile to the one on its left.
    Cotangents of A, D and bias may be empty, if not needed.
    """
    widest()
    length, n_states = B.shape[1], B.shape[2]
    softened, gated, trained = len(bias) > 0, len(z) > 0, len(A_bar) > 0
    rate = numba.carray(stack(u, 256), 256)
    h = numba.carray(stack(u, 256), 256)
    h_bar = numba.carray(stack(u, 256), 256)
    pending = numba.carray(stack(u, 256), 256)
    lost = numba.carray(stack(u, 256), 256)
    sum_a = numba.carray(stack(u, 256), 256)
    carried = numba.carray(stack(u, 8192), (32, 256))
    decays = numba.carray(stack(u, 8192), (32, 256))
    lanes_b = numba.carray(stack(u, 8192), (32, 256))
    lanes_c = numba.carray(stack(u, 8192), (32, 256))
    steps = numba.carray(stack(u, 512), 512)
    slopes = numba.carray(stack(u, 512), 512)
    outs_bar = numba.carray(stack(u, 512), 512)
    turns = numba.carray(stack(u, 512), 512)
    for group in range(first, last):
        _gather(h_bar, state_end_bar[i_batch], group, 1.0)
        for n in range(n_states):
            store(carry, (i_batch, 0, group, n), load(h_bar, n))
            store(carry, (i_batch, 1, group, n), 0.0)
            store(carry, (i_batch, 2, group, n), 0.0)
    for i_sub in range((length + SUB - 1) // SUB - 1, -1, -1):
        start = i_sub * SUB
        size = min(SUB, length - start)
        for i in range(size):
            for n in range(n_states):
                store(lanes_b, (i, n), 0.0)
                store(lanes_c, (i, n), 0.0)
        for group in range(first, last):
            _gather(rate, A, group, 1 / LN_2)
            ahead, back = (group + 1, 0) if group + 1 < last else (first, SUB)
            for n in range(n_states):
                store(h, n, load(marks, (i_batch, i_sub, group, n)))
                store(h_bar, n, load(carry, (i_batch, 0, group, n)))
                store(pending, n, load(carry, (i_batch, 1, group, n)))
                store(lost, n, load(carry, (i_batch, 2, group, n)))
                store(sum_a, n, 0.0)
            skip = load(D, group)
            for i in range(size):
                t = start + i
                step, out_bar = load(delta, (i_batch, t, group)), load(y_bar, (i_batch, t, group))
                if i < n_states:
                    prefetch(marks, (i_batch, i_sub - back // SUB, ahead, i))
                prefetch(delta, (i_batch, t - back, ahead))
                prefetch(y_bar, (i_batch, t - back, ahead))
                prefetch(delta_bar, (i_batch, t - back, ahead))
                if softened:
                    shifted = step + load(bias, group)
                    step = softplus(shifted)
                    store(slopes, i, sigmoid(shifted))
                if gated:
                    prefetch(z, (i_batch, t - back, ahead))
                    prefetch(z_bar, (i_batch, t - back, ahead))
                    door = load(z, (i_batch, t, group))
                    up = sigmoid(door)
                    store(turns, i, out_bar * (up + door * up * (1.0 - up)))
                    out_bar = out_bar * door * up
                store(steps, i, step)
                store(outs_bar, i, out_bar)
            for i in range(size):
                t = start + i
                prefetch(u, (i_batch, t - back, ahead))
                prefetch(u_bar, (i_batch, t - back, ahead))
                source, step = load(u, (i_batch, t, group)), load(steps, i)
                out_bar = load(outs_bar, i)
                out = skip * source
                for n in range(n_states):
                    z2, before = step * load(rate, n), load(h, n)
                    factor = decay(z2)
                    gain = step if held is None else hold(z2, factor)
                    passed = where(z2 > -1.0, before, 0.0) + factor * before
                    after = passed + B[i_batch, t, n] * (gain * source)
                    if held is not None:
                        slope = hold_slope(z2, factor, gain)
                        passed = passed + B[i_batch, t, n] * source * slope
                    store(h, n, after)
                    store(decays, (i, n), factor)
                    store(carried, (i, n), passed)
                    store(lanes_c, (i, n), load(lanes_c, (i, n)) + out_bar * after)
                    out = out + C[i_batch, t, n] * after
                if gated:
                    store(z_bar, (i_batch, t, group), load(turns, i) * out)
            sum_d, sum_bias = 0.0 * skip, 0.0 * skip
            for i in range(size - 1, -1, -1):
                t = start + i
                out_bar, step = load(outs_bar, i), load(steps, i)
                source = load(u, (i_batch, t, group))
                sum_u, sum_z = 0.0 * step, 0.0 * step
                for n in range(n_states):
                    factor, right = load(decays, (i, n)), load(h_bar, n)
                    change = load(pending, n) + (C[i_batch, t, n] * out_bar - load(lost, n))
                    here = right + change
                    store(lost, n, where(factor > 0.0, 0.0, (here - right) - change))
                    store(h_bar, n, where(factor > 0.0, 0.0, here))
                    store(pending, n, factor * here)
                    z2_bar = here * load(carried, (i, n))
                    gain = step if held is None else hold(step * load(rate, n), factor)
                    store(lanes_b, (i, n), load(lanes_b, (i, n)) + here * (gain * source))
                    share = here if held is None else here * gain
                    sum_u = sum_u + B[i_batch, t, n] * share
                    sum_z = sum_z + z2_bar * load(rate, n)
                    if trained:
                        store(sum_a, n, load(sum_a, n) + z2_bar * step)
                step_bar = sum_z * LN_2
                if held is None:
                    step_bar, sum_u = step_bar + sum_u * source, sum_u * step
                if softened:
                    step_bar = step_bar * load(slopes, i)
                sum_d, sum_bias = sum_d + out_bar * source, sum_bias + step_bar
                store(u_bar, (i_batch, t, group), sum_u + skip * out_bar)
                store(delta_bar, (i_batch, t, group), step_bar)
            if trained:
                so_far = load(D_bar, (i_batch, group))
                store(D_bar, (i_batch, group), so_far + precise(sum_d))
                so_far = load(bias_bar, (i_batch, group))
                store(bias_bar, (i_batch, group), so_far + precise(sum_bias))
                for n in range(n_states):
                    so_far = load(A_bar, (i_batch, group, n))
                    store(A_bar, (i_batch, group, n), so_far + precise(load(sum_a, n)))
            for n in range(n_states):
                store(carry, (i_batch, 0, group, n), load(h_bar, n))
                store(carry, (i_batch, 1, group, n), load(pending, n))
                store(carry, (i_batch, 2, group, n), load(lost, n))
        for i in range(size):
            for n in range(n_states):
                B_bar[i_batch, start + i, n] = total(load(lanes_b, (i, n)))
                C_bar[i_batch, start + i, n] = total(load(lanes_c, (i, n)))
    for group in range(first, last):
        for n in range(n_states):
            end = load(carry, (i_batch, 1, group, n)) - load(carry, (i_batch, 2, group, n))
            store(h_bar, n, load(carry, (i_batch, 0, group, n)) + end)
        _scatter(state_bar[i_batch], h_bar, group)


def _arrays(inputs: ScanInputs) -> tuple[np.ndarray, ...]:
    """Return the inputs, or tangents of them, as the kernels read them; empty where there is none.

    Axes of channels that come last are in whole lanes.
    """
    u, delta, A, B, C, D, state, bias, z = inputs
    bias = D[..., :0] if bias is None else bias
    z = u.new_empty([0] * u.dim()) if z is None else z
    return (
        *(padded(u), padded(delta), _whole(A), _whole(B), _whole(C)),
        *(padded(D), _whole(state), padded(bias), padded(z)),
    )


def _whole(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = contiguous(tensor).numpy(force=True)
    return array


def _by_state_groups(inputs: ScanInputs) -> list[ScanInputs]:
    """Cut the states into groups that fit the registers; their outputs add up."""
    n_states = inputs.B.shape[-1]
    if n_states <= STATES:
        return [inputs]
    return [
        inputs._replace(
            A=inputs.A[..., n : n + STATES],
            B=inputs.B[..., n : n + STATES],
            C=inputs.C[..., n : n + STATES],
            # The skip connection belongs to the first group alone.
            D=inputs.D if n == 0 else torch.zeros_like(inputs.D),
            state=inputs.state[..., n : n + STATES],
        )
        for n in range(0, n_states, STATES)
    ]


def _forward_group(
    inputs: ScanInputs, *, save: bool, held: bool | None, spent: bool
) -> tuple[Tensor, Tensor, Tensor]:
    arrays = u, delta, *_, state, _, _ = _arrays(inputs)
    batch, length, width = u.shape
    groups, n_marks = width // LANES, -(-length // SUB) if save else 0
    # A block's steps are read before its outputs are written.
    y, state_end = delta if spent else aligned_empty(u.shape, u), aligned_empty(state.shape, u)
    marks = aligned_empty((batch, n_marks, groups, state.shape[-1] * LANES), u)
    over_groups(
        lambda i_batch, _part, first, last: _forward(
            *arrays, y, state_end, marks, held, i_batch, first, last
        ),
        batch,
        groups,
    )
    return trimmed(y, len(inputs.D)), torch.from_numpy(state_end), torch.from_numpy(marks)


def _held(input_map: str) -> bool | None:
    """Return the kernels' flag for the input map; None, unlike False, is compiled out."""
    return True if is_phi(input_map) else None


def forward(
    inputs: OptionalTensors, *, save: bool, input_map: str = "euler", spent: bool = False
) -> tuple[Tensors, Tensors]:
    """Return y and the state at the end, and, with `save`, the marks that `vjp` starts from.

    `spent`: nobody needs delta any more, and it may be written over.
    """
    parts = _by_state_groups(ScanInputs(*inputs))
    run = partial(_forward_group, save=save, held=_held(input_map), spent=spent and len(parts) == 1)
    y, state_end, marks = zip(*map(run, parts), strict=True)
    return (_sum(y), _joined(state_end)), marks if save else ()


def _vjp_group(
    inputs: ScanInputs,
    marks: Tensor,
    y_bar: Tensor,
    state_end_bar: Tensor,
    *,
    trained: bool,
    held: bool | None,
    spent: bool,
) -> ScanInputs:
    *arrays, state, bias, z = _arrays(inputs)
    u, delta, A, B, *_ = arrays
    outs_bar = padded(y_bar)
    batch, _, width = u.shape
    groups, n_states, threads = width // LANES, A.shape[-1], torch.get_num_threads()
    # A sub-tile's steps and cotangents are read before theirs are written.
    delta_bar = delta if spent else aligned_empty(u.shape, u)
    z_bar = outs_bar if spent and z.size else aligned_empty(z.shape, u)
    # Sums over time are small in number and long: they are kept in float64, one a sequence.
    sums = batch if trained else 0
    A_bar = np.zeros((sums, groups, n_states * LANES))
    D_bar, bias_bar = np.zeros((sums, width)), np.zeros((sums, width))
    B_bar, C_bar = aligned_empty((threads, *B.shape), u), aligned_empty((threads, *B.shape), u)
    u_bar, state_bar = aligned_empty(u.shape, u), aligned_empty(state.shape, u)
    carry = aligned_empty((batch, 3, groups, n_states * LANES), u)
    given = *arrays, bias, z, marks.numpy(), outs_bar, _whole(state_end_bar)
    parts = over_groups(
        lambda i_batch, i_part, first, last: _vjp(
            *given, u_bar, delta_bar, A_bar, B_bar[i_part], C_bar[i_part], D_bar, state_bar,
            bias_bar, z_bar, carry, held, i_batch, first, last,
        ),
        batch,
        groups,
    )  # fmt: skip
    channels, dtype = len(inputs.D), inputs.D.dtype
    by_channel = A_bar.sum(0).reshape(groups, n_states, LANES).swapaxes(1, 2)
    return ScanInputs(
        u=trimmed(u_bar, channels),
        delta=trimmed(delta_bar, channels),
        A=torch.from_numpy(by_channel.reshape(width, n_states)[:channels]).to(dtype),
        B=_sum(torch.from_numpy(B_bar[:parts]).unbind()),
        C=_sum(torch.from_numpy(C_bar[:parts]).unbind()),
        D=trimmed(D_bar.sum(0), channels).to(dtype),
        state=torch.from_numpy(state_bar),
        bias=trimmed(bias_bar.sum(0), channels).to(dtype),
        z=trimmed(z_bar, channels),
    )


def vjp(
    inputs: OptionalTensors,
    saved: Tensors,
    bars: Tensors,
    needs_grad: Flags,
    *,
    input_map: str = "euler",
    spent: bool = False,
) -> OptionalTensors:
    """Return a cotangent for each input; those of A, D and bias only where one is needed.

    `spent`: nobody needs delta and y's cotangent any more, and they may be written over.
    """
    given, (y_bar, state_end_bar) = ScanInputs(*inputs), bars
    needs = ScanInputs(*needs_grad)
    trained = bool(needs.A or needs.D or needs.bias)
    groups = zip(_by_state_groups(given), saved, state_end_bar.split(STATES, -1), strict=True)
    pull = partial(
        _vjp_group, trained=trained, held=_held(input_map), spent=spent and len(saved) == 1
    )
    parts = [pull(group, marks, y_bar, end) for group, marks, end in groups]
    u, delta, A, B, C, D, state, bias, z = zip(*parts, strict=True)
    cotangents = (
        *(_sum(u), _sum(delta), _joined(A) if trained else None, _joined(B), _joined(C)),
        *(D[0] if trained else None, _joined(state), _sum(bias) if trained else None, _sum(z)),
    )
    return cotangents[: len(inputs)]


def _jvp_group(inputs: ScanInputs, dots: ScanInputs, held: bool | None) -> tuple[Tensor, ...]:
    arrays, dot_arrays = _arrays(inputs), _arrays(dots)
    outputs = [aligned_empty(a[i].shape, a[0]) for a in (arrays, dot_arrays) for i in (0, 6)]
    batch, _, width = arrays[0].shape
    carry = aligned_empty(
        (batch, width // LANES, 2, len(dots.u), dots.B.shape[-1] * LANES), arrays[0]
    )
    over_groups(
        lambda i_batch, _part, first, last: _jvp(
            *arrays, *dot_arrays, *outputs, carry, held, i_batch, first, last
        ),
        batch,
        width // LANES,
    )
    y, state_end, y_dot, state_end_dot = outputs
    channels = len(inputs.D)
    return (
        trimmed(y, channels),
        torch.from_numpy(state_end),
        trimmed(y_dot, channels),
        torch.from_numpy(state_end_dot),
    )


def jvp(
    inputs: OptionalTensors, dots: OptionalTensors, *, input_map: str = "euler"
) -> tuple[Tensors, Tensors]:
    """Return y and the state at the end, and their tangents, for every direction."""
    given, moving = ScanInputs(*inputs), ScanInputs(*dots)
    still = moving.A is None and moving.D is None and moving.bias is None
    groups_dot = _by_state_groups(ScanInputs(*materialize_tangents(inputs, dots)))
    if still:
        groups_dot = [dot._replace(A=dot.A[:, :0], D=dot.D[:, :0], bias=None) for dot in groups_dot]
    held = _held(input_map)
    pairs = zip(_by_state_groups(given), groups_dot, strict=True)
    groups = [_jvp_group(group, dot, held) for group, dot in pairs]
    y, state_end, y_dot, state_end_dot = zip(*groups, strict=True)
    return (_sum(y), _joined(state_end)), (_sum(y_dot), _joined(state_end_dot))


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum(0)


def _joined(states: Sequence[Tensor]) -> Tensor:
    return states[0] if len(states) == 1 else torch.cat(list(states), -1)


SCAN = Primitive(forward, jvp, vjp, reference.scan, outputs=2)
