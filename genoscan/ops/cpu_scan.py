"""The selective scan compiled for the CPU (numba): exact, vectorised over channels.

How it is fast
    16 channels stand side by side in vector registers; for each, all states of one base are
    advanced before the next base is read, so that arrays are read in the order they lie and
    the state never leaves the first cache.  The exponential is an inlined polynomial.
    Channel groups go to `torch.get_num_threads()` threads; the kernels hold no lock.

How it is exact
    A decay enters as exp(z) - 1 where it is next to 1 and as exp(z) where it is not (`decay`),
    and the state's sum is compensated (Kahan), so that nothing is lost over any length:
    tests/test_ops.py holds the error against float64 at 131,072 bases under 1e-5, for decays
    from exp(-1e-10) to exp(-1e5).  Nothing is divided and no logarithm is taken.

The derivatives need the states again.  `forward` leaves a mark, the state, every `SUB` bases,
and the vjp recomputes `SUB` bases at a time from there, so every exponential is evaluated twice
in all.  Marks take 1 / SUB of what all states would; the sub-tile lies in the first cache.

Letters: u, delta, A, B, C, D, h as in `reference.scan`; a is A / ln 2, so that a decay is
2^(delta a); `_dot` tangents, `_bar` cotangents; i_ index, l_ lane.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, call-arg"

import math
from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from genoscan.ops.kernels import ScanInputs
from genoscan.ops.lanes import (
    compiled,
    decay,
    grouped,
    load,
    over_groups,
    precise,
    prefetch,
    room,
    room_like,
    stack,
    store,
    total,
    ungrouped,
    where,
    widest,
)
from genoscan.ops.trio import Perhaps, Tensors, Trio, filled

STATES = 16
SUB = 32
LN_2 = math.log(2)


@compiled
def _forward(u, delta, a, B, C, D, state, y, state_end, marks, i_batch, first, last):
    """Advance channel groups first..last of one sequence; fill y, state_end and, if any, marks."""
    widest()
    length, n_states = B.shape[1], B.shape[2]
    h = numba.carray(stack(u, 256), (16, 16))
    lost = numba.carray(stack(u, 256), (16, 16))
    rate = numba.carray(stack(u, 256), (16, 16))
    for group in range(first, last):
        for n in range(n_states):
            store(h, n, load(state, (i_batch, group, n)))
            store(rate, n, load(a, (group, n)))
            store(lost, n, 0.0)
        skip = load(D, group)
        for t in range(length):
            if t % SUB == 0 and marks.shape[1] > 0:
                for n in range(n_states):
                    store(marks, (i_batch, t // SUB, group, n), load(h, n))
            prefetch(u, (i_batch, t + 4, group))
            prefetch(delta, (i_batch, t + 4, group))
            source, step = load(u, (i_batch, t, group)), load(delta, (i_batch, t, group))
            inflow, out = step * source, skip * source
            for n in range(n_states):
                z2, before = step * load(rate, n), load(h, n)
                left = where(z2 > -1.0, before, 0.0)
                behind = where(z2 > -1.0, load(lost, n), 0.0)
                change = decay(z2) * before + (B[i_batch, t, n] * inflow - behind)
                after = left + change
                store(lost, n, (after - left) - change)
                store(h, n, after)
                out = out + C[i_batch, t, n] * after
            store(y, (i_batch, t, group), out)
        for n in range(n_states):
            store(state_end, (i_batch, group, n), load(h, n))


@compiled
def _jvp(u, delta, a, B, C, D, state, u_dot, delta_dot, a_dot, B_dot, C_dot, D_dot, state_dot,
         y, state_end, y_dot, state_end_dot, kept, i_batch, first, last):  # fmt: skip
    """Advance as `_forward` does, and push tangents along the directions, the first `_dot` axis.

    States and decays of a sub-tile are computed once and serve all directions.  `kept` is room
    for what a direction hands from one sub-tile to the one on its right.
    """
    widest()
    length, n_states, n_directions = B.shape[1], B.shape[2], u_dot.shape[0]
    h = numba.carray(stack(u, 256), (16, 16))
    lost = numba.carray(stack(u, 256), (16, 16))
    rate = numba.carray(stack(u, 256), (16, 16))
    h_dot = numba.carray(stack(u, 256), (16, 16))
    lost_dot = numba.carray(stack(u, 256), (16, 16))
    states = numba.carray(stack(u, 8192), (32, 16, 16))
    carried = numba.carray(stack(u, 8192), (32, 16, 16))
    decays = numba.carray(stack(u, 8192), (32, 16, 16))
    for group in range(first, last):
        for n in range(n_states):
            store(h, n, load(state, (i_batch, group, n)))
            store(rate, n, load(a, (group, n)))
            store(lost, n, 0.0)
            for i_dot in range(n_directions):
                store(
                    kept, (i_batch, group, 0, i_dot, n), load(state_dot, (i_dot, i_batch, group, n))
                )
                store(kept, (i_batch, group, 1, i_dot, n), 0.0)
        skip = load(D, group)
        for start in range(0, length, SUB):
            size = min(SUB, length - start)
            for i in range(size):
                prefetch(u_dot, (0, i_batch, start + i, group))
                prefetch(delta_dot, (0, i_batch, start + i, group))
                step = load(delta, (i_batch, start + i, group))
                source = load(u, (i_batch, start + i, group))
                inflow, out = step * source, skip * source
                for n in range(n_states):
                    z2, before = step * load(rate, n), load(h, n)
                    factor = decay(z2)
                    left = where(z2 > -1.0, before, 0.0)
                    behind = where(z2 > -1.0, load(lost, n), 0.0)
                    change = factor * before + (B[i_batch, start + i, n] * inflow - behind)
                    after = left + change
                    store(lost, n, (after - left) - change)
                    store(h, n, after)
                    store(states, (i, n), after)
                    out = out + C[i_batch, start + i, n] * after
                    store(decays, (i, n), factor)
                    # The derivative of 2^z2 h with respect to z2.
                    store(carried, (i, n), (left + factor * before) * LN_2)
                store(y, (i_batch, start + i, group), out)
            for i_dot in range(n_directions):
                for n in range(n_states):
                    store(h_dot, n, load(kept, (i_batch, group, 0, i_dot, n)))
                    store(lost_dot, n, load(kept, (i_batch, group, 1, i_dot, n)))
                skip_dot = load(D_dot, (i_dot, group))
                for i in range(size):
                    t = start + i
                    source, step = load(u, (i_batch, t, group)), load(delta, (i_batch, t, group))
                    prefetch(u_dot, (i_dot + 1, i_batch, t, group))
                    prefetch(delta_dot, (i_dot + 1, i_batch, t, group))
                    source_dot = load(u_dot, (i_dot, i_batch, t, group))
                    step_dot = load(delta_dot, (i_dot, i_batch, t, group))
                    inflow = step * source
                    inflow_dot = step_dot * source + step * source_dot
                    out_dot = skip * source_dot + skip_dot * source
                    for n in range(n_states):
                        factor, before_dot = load(decays, (i, n)), load(h_dot, n)
                        left = where(factor > 0.0, 0.0, before_dot)
                        behind = where(factor > 0.0, 0.0, load(lost_dot, n))
                        z2_dot = step_dot * load(rate, n) + step * load(a_dot, (i_dot, group, n))
                        change = factor * before_dot + load(carried, (i, n)) * z2_dot
                        change = change + B[i_batch, t, n] * inflow_dot
                        change = change + (B_dot[i_dot, i_batch, t, n] * inflow - behind)
                        after = left + change
                        store(lost_dot, n, (after - left) - change)
                        store(h_dot, n, after)
                        out_dot = out_dot + C[i_batch, t, n] * after
                        out_dot = out_dot + C_dot[i_dot, i_batch, t, n] * load(states, (i, n))
                    store(y_dot, (i_dot, i_batch, t, group), out_dot)
                for n in range(n_states):
                    store(kept, (i_batch, group, 0, i_dot, n), load(h_dot, n))
                    store(kept, (i_batch, group, 1, i_dot, n), load(lost_dot, n))
        for n in range(n_states):
            store(state_end, (i_batch, group, n), load(h, n))
            for i_dot in range(n_directions):
                end_dot = load(kept, (i_batch, group, 0, i_dot, n))
                store(state_end_dot, (i_dot, i_batch, group, n), end_dot)


@compiled
def _vjp(u, delta, a, B, C, D, marks, y_bar, state_end_bar,
         u_bar, delta_bar, A_bar, B_bar, C_bar, D_bar, state_bar, kept,
         i_batch, first, last):  # fmt: skip
    """Pull cotangents back through channel groups first..last of one sequence.

    A base sends exp(z) h_bar to its left, as `h_bar`, which is kept or not, and `pending`, the
    rest; the rest is added together with the left base's own share, in one compensated step.
    `kept` is room for what a channel group hands from one sub-tile to the one on its left.
    """
    widest()
    length, n_states = B.shape[1], B.shape[2]
    rate = numba.carray(stack(u, 256), (16, 16))
    h = numba.carray(stack(u, 256), (16, 16))
    h_bar = numba.carray(stack(u, 256), (16, 16))
    pending = numba.carray(stack(u, 256), (16, 16))
    lost = numba.carray(stack(u, 256), (16, 16))
    sum_a = numba.carray(stack(u, 256), (16, 16))
    carried = numba.carray(stack(u, 8192), (32, 16, 16))
    decays = numba.carray(stack(u, 8192), (32, 16, 16))
    lanes_b = numba.carray(stack(u, 8192), (32, 16, 16))
    lanes_c = numba.carray(stack(u, 8192), (32, 16, 16))
    for group in range(first, last):
        for n in range(n_states):
            store(kept, (i_batch, 0, group, n), load(state_end_bar, (i_batch, group, n)))
            store(kept, (i_batch, 1, group, n), 0.0)
            store(kept, (i_batch, 2, group, n), 0.0)
    for i_sub in range((length + SUB - 1) // SUB - 1, -1, -1):
        start = i_sub * SUB
        size = min(SUB, length - start)
        for i in range(size):
            for n in range(n_states):
                store(lanes_b, (i, n), 0.0)
                store(lanes_c, (i, n), 0.0)
        for group in range(first, last):
            for n in range(n_states):
                store(rate, n, load(a, (group, n)))
                store(h, n, load(marks, (i_batch, i_sub, group, n)))
                store(h_bar, n, load(kept, (i_batch, 0, group, n)))
                store(pending, n, load(kept, (i_batch, 1, group, n)))
                store(lost, n, load(kept, (i_batch, 2, group, n)))
                store(sum_a, n, 0.0)
            for i in range(size):
                t = start + i
                prefetch(u, (i_batch, t, group + 1))
                prefetch(delta, (i_batch, t, group + 1))
                prefetch(y_bar, (i_batch, t, group + 1))
                out_bar, step = load(y_bar, (i_batch, t, group)), load(delta, (i_batch, t, group))
                inflow = step * load(u, (i_batch, t, group))
                for n in range(n_states):
                    z2, before = step * load(rate, n), load(h, n)
                    factor = decay(z2)
                    passed = where(z2 > -1.0, before, 0.0) + factor * before
                    after = passed + B[i_batch, t, n] * inflow
                    store(h, n, after)
                    store(decays, (i, n), factor)
                    store(carried, (i, n), passed)
                    store(lanes_c, (i, n), load(lanes_c, (i, n)) + out_bar * after)
            skip, sum_d = load(D, group), 0.0 * load(D, group)
            for i in range(size - 1, -1, -1):
                t = start + i
                out_bar, step = load(y_bar, (i_batch, t, group)), load(delta, (i_batch, t, group))
                source = load(u, (i_batch, t, group))
                inflow = step * source
                sum_b, sum_z = 0.0 * step, 0.0 * step
                for n in range(n_states):
                    factor, right = load(decays, (i, n)), load(h_bar, n)
                    change = load(pending, n) + (C[i_batch, t, n] * out_bar - load(lost, n))
                    here = right + change
                    store(lost, n, where(factor > 0.0, 0.0, (here - right) - change))
                    store(h_bar, n, where(factor > 0.0, 0.0, here))
                    store(pending, n, factor * here)
                    z_bar = here * load(carried, (i, n))
                    store(lanes_b, (i, n), load(lanes_b, (i, n)) + here * inflow)
                    sum_b = sum_b + B[i_batch, t, n] * here
                    sum_z = sum_z + z_bar * load(rate, n)
                    store(sum_a, n, load(sum_a, n) + z_bar * step)
                sum_d = sum_d + out_bar * source
                store(u_bar, (i_batch, t, group), sum_b * step + skip * out_bar)
                store(delta_bar, (i_batch, t, group), sum_z * LN_2 + sum_b * source)
            store(D_bar, (i_batch, group), load(D_bar, (i_batch, group)) + precise(sum_d))
            for n in range(n_states):
                so_far = load(A_bar, (i_batch, group, n))
                store(A_bar, (i_batch, group, n), so_far + precise(load(sum_a, n)))
                store(kept, (i_batch, 0, group, n), load(h_bar, n))
                store(kept, (i_batch, 1, group, n), load(pending, n))
                store(kept, (i_batch, 2, group, n), load(lost, n))
        for i in range(size):
            for n in range(n_states):
                B_bar[i_batch, start + i, n] = total(load(lanes_b, (i, n)))
                C_bar[i_batch, start + i, n] = total(load(lanes_c, (i, n)))
    for group in range(first, last):
        for n in range(n_states):
            end = load(kept, (i_batch, 1, group, n)) - load(kept, (i_batch, 2, group, n))
            store(state_bar, (i_batch, group, n), load(kept, (i_batch, 0, group, n)) + end)


def _arrays(inputs: ScanInputs) -> tuple[np.ndarray, ...]:
    u, delta, A, B, C, D, state = inputs
    return (
        grouped(u),
        grouped(delta),
        _by_groups(A),
        B.detach().contiguous().numpy(),
        C.detach().contiguous().numpy(),
        grouped(D),
        _by_groups(state),
    )


def _by_groups(tensor: Tensor) -> np.ndarray:
    """Cut (channels, states) into (groups, states, lanes)."""
    return np.ascontiguousarray(grouped(tensor.mT).swapaxes(-3, -2))


def _states(array: np.ndarray, channels: int) -> Tensor:
    """Undo `_by_groups`."""
    return ungrouped(np.ascontiguousarray(array.swapaxes(-3, -2)), channels).mT.contiguous()


def _by_state_groups(inputs: ScanInputs) -> list[slice]:
    """Cut the states into groups that fit the registers; their outputs add up."""
    n_states = inputs.B.shape[-1]
    return [slice(n, min(n + STATES, n_states)) for n in range(0, n_states, STATES)]


def _take(inputs: ScanInputs, states: slice) -> ScanInputs:
    """Return one group of states; the skip connection belongs to the first group alone."""
    return ScanInputs(
        u=inputs.u,
        delta=inputs.delta,
        A=inputs.A[..., states],
        B=inputs.B[..., states],
        C=inputs.C[..., states],
        D=inputs.D if states.start == 0 else torch.zeros_like(inputs.D),
        state=inputs.state[..., states],
    )


def _scaled(inputs: ScanInputs) -> ScanInputs:
    """Exchange A for a = A / ln 2."""
    return inputs._replace(A=inputs.A / LN_2)


def _forward_group(inputs: ScanInputs, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    arrays = _arrays(inputs)
    u, state = arrays[0], arrays[-1]
    batch, length, groups, _ = u.shape
    n_marks = -(-length // SUB) if keep else 0
    y, state_end = room_like(u), room_like(state)
    marks = room((batch, n_marks, *state.shape[1:]), u)
    over_groups(
        lambda i_batch, _part, first, last: _forward(
            *arrays, y, state_end, marks, i_batch, first, last
        ),
        batch,
        groups,
    )
    channels = inputs.u.shape[-1]
    return (
        ungrouped(y, channels),
        _states(state_end, channels),
        torch.from_numpy(marks),
    )


def forward(inputs: Tensors, *, keep: bool) -> tuple[Tensors, Tensors]:
    """Return y and the state at the end, and, with `keep`, the marks that `vjp` starts from."""
    given = _scaled(ScanInputs(*inputs))
    results = [_forward_group(_take(given, g), keep) for g in _by_state_groups(given)]
    marks = tuple(r[2] for r in results) if keep else ()
    return (_sum([r[0] for r in results]), torch.cat([r[1] for r in results], -1)), marks


def _vjp_group(
    inputs: ScanInputs, marks: Tensor, y_bar: Tensor, state_end_bar: Tensor
) -> ScanInputs:
    u, delta, a, B, C, D, state = _arrays(inputs)
    batch, _, groups, _ = u.shape
    threads = torch.get_num_threads()
    u_bar, delta_bar = room_like(u), room_like(u)
    # Sums over time are small in number and long: they are kept in float64.
    A_bar = np.zeros((batch, *a.shape), np.float64)
    D_bar = np.zeros((batch, *D.shape), np.float64)
    B_bar = np.zeros((threads, *B.shape), B.dtype)
    C_bar = np.zeros((threads, *C.shape), C.dtype)
    state_bar, kept = room_like(state), room((batch, 3, *state.shape[1:]), state)
    y_bar_array, end_bar_array = grouped(y_bar), _by_groups(state_end_bar)
    marks_array = marks.numpy()
    parts = over_groups(
        lambda i_batch, i_part, first, last: _vjp(
            u,
            delta,
            a,
            B,
            C,
            D,
            marks_array,
            y_bar_array,
            end_bar_array,
            u_bar,
            delta_bar,
            A_bar,
            B_bar[i_part],
            C_bar[i_part],
            D_bar,
            state_bar,
            kept,
            i_batch,
            first,
            last,
        ),
        batch,
        groups,
    )
    channels, dtype = inputs.u.shape[-1], inputs.u.dtype
    return ScanInputs(
        u=ungrouped(u_bar, channels),
        delta=ungrouped(delta_bar, channels),
        A=_states(A_bar.sum(0), channels).to(dtype),
        B=_add(B_bar[:parts]),
        C=_add(C_bar[:parts]),
        D=ungrouped(D_bar.sum(0), channels).to(dtype),
        state=_states(state_bar, channels),
    )


def vjp(inputs: Tensors, kept: Tensors, bars: Tensors, _wanted: tuple[bool, ...]) -> Perhaps:
    """Return a cotangent for each input."""
    given = _scaled(ScanInputs(*inputs))
    y_bar, state_end_bar = bars
    parts = [
        _vjp_group(_take(given, g), marks, y_bar, state_end_bar[..., g])
        for g, marks in zip(_by_state_groups(given), kept, strict=True)
    ]
    first = parts[0]
    return ScanInputs(
        u=_sum([part.u for part in parts]),
        delta=_sum([part.delta for part in parts]),
        A=torch.cat([part.A for part in parts], -1),
        B=torch.cat([part.B for part in parts], -1),
        C=torch.cat([part.C for part in parts], -1),
        D=first.D,
        state=torch.cat([part.state for part in parts], -1),
    )


def _jvp_group(inputs: ScanInputs, dots: ScanInputs) -> tuple[Tensor, ...]:
    arrays, dot_arrays = _arrays(inputs), _arrays(dots)
    u, state, u_dot, state_dot = arrays[0], arrays[-1], dot_arrays[0], dot_arrays[-1]
    results = y, state_end, y_dot, state_end_dot = tuple(
        map(room_like, (u, state, u_dot, state_dot))
    )
    batch, groups, *ends = state.shape
    kept = room((batch, groups, 2, len(state_dot), *ends), u)
    over_groups(
        lambda i_batch, _part, first, last: _jvp(
            *arrays, *dot_arrays, *results, kept, i_batch, first, last
        ),
        batch,
        groups,
    )
    channels = inputs.u.shape[-1]
    return (
        ungrouped(y, channels),
        _states(state_end, channels),
        ungrouped(y_dot, channels),
        _states(state_end_dot, channels),
    )


def jvp(inputs: Tensors, dots: Perhaps) -> tuple[Tensors, Tensors]:
    """Return y and the state at the end, and their tangents, for every direction."""
    given = _scaled(ScanInputs(*inputs))
    moved = _scaled(ScanInputs(*filled(inputs, dots)))
    groups = [_jvp_group(_take(given, g), _take(moved, g)) for g in _by_state_groups(given)]
    y, state_end, y_dot, state_end_dot = zip(*groups, strict=True)
    return (
        (_sum(y), torch.cat(state_end, -1)),
        (_sum(y_dot), torch.cat(state_end_dot, -1)),
    )


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum(0)


def _add(parts: np.ndarray) -> Tensor:
    return torch.from_numpy(parts[0] if len(parts) == 1 else parts.sum(0))


SCAN = Trio(forward, jvp, vjp, outputs=2)
