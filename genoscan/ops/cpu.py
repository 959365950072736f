"""The scan's three rules compiled for the CPU (numba): exact, vectorised over channels.

How it is fast
    16 channels stand side by side in vector registers; for each, all states of one base are
    advanced before the next base is read, so that arrays are read in the order they lie and
    the state never leaves the first cache.  exp is an inlined polynomial.
    Channel groups go to `torch.get_num_threads()` threads; the kernels hold no lock.

How it is exact
    A decay enters as exp(z) - 1 where it is next to 1 and as exp(z) where it is not (`decay`),
    and the state's sum is compensated (Kahan), so that nothing is lost over any length:
    tests/test_ops.py holds the error against float64 at 131,072 bases under 1e-5, for decays
    from exp(-1e-10) to exp(-1e5).  Nothing is divided and no logarithm is taken.

The vjp needs the states again.  `forward` leaves a mark, the state, every `SUB` bases, and
the vjp recomputes `SUB` bases at a time from there, so every exponential is evaluated twice
in all.  Marks take 1 / SUB of what all states would.

Letters: u, delta, A, B, C, D, h as in Mamba (Gu and Dao, arXiv 2312.00752, equation 2 with
the Euler input map); `_dot` tangents, `_bar` cotangents; i_ index, l_ lane.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, call-arg"

import numba
import numpy as np
import torch
from torch import Tensor

from genoscan.ops.kernels import ScanInputs, ScanKernels
from genoscan.ops.lanes import LANES, compiled, decay, grouped, over_groups, stack, ungrouped

STATES = 16
SUB = 32


@compiled
def _forward(u, delta, A, B, C, D, state, y, state_end, marks, i_batch, first, last):
    """Advance channel groups first..last of one sequence; fill y, state_end and, if any, marks."""
    zero, one = np.zeros(1, u.dtype)[0], np.ones(1, u.dtype)[0]
    length, n_states = B.shape[1], B.shape[2]
    h = numba.carray(stack(zero, 256), (16, 16))
    lost = numba.carray(stack(zero, 256), (16, 16))
    a = numba.carray(stack(zero, 256), (16, 16))
    step = numba.carray(stack(zero, 16), 16)
    inflow = numba.carray(stack(zero, 16), 16)
    out = numba.carray(stack(zero, 16), 16)
    for group in range(first, last):
        for n in range(n_states):
            for lane in range(LANES):
                h[n, lane] = state[i_batch, group, lane, n]
                a[n, lane] = A[group, lane, n]
                lost[n, lane] = zero
        for t in range(length):
            if t % SUB == 0 and marks.shape[1] > 0:
                for n in range(n_states):
                    for lane in range(LANES):
                        marks[i_batch, t // SUB, group, n, lane] = h[n, lane]
            for lane in range(LANES):
                u_lane = u[i_batch, t, group, lane]
                step[lane] = delta[i_batch, t, group, lane]
                inflow[lane] = step[lane] * u_lane
                out[lane] = D[group, lane] * u_lane
            for n in range(n_states):
                b, c = B[i_batch, t, n], C[i_batch, t, n]
                for lane in range(LANES):
                    factor = decay(step[lane] * a[n, lane])
                    keep = one if factor <= zero else zero
                    left = keep * h[n, lane]
                    change = factor * h[n, lane] + b * inflow[lane]
                    change = change - keep * lost[n, lane]
                    after = left + change
                    lost[n, lane] = (after - left) - change
                    h[n, lane] = after
                    out[lane] += c * after
            for lane in range(LANES):
                y[i_batch, t, group, lane] = out[lane]
        for n in range(n_states):
            for lane in range(LANES):
                state_end[i_batch, group, lane, n] = h[n, lane]


@compiled
def _jvp(u, delta, A, B, C, D, state, u_dot, delta_dot, A_dot, B_dot, C_dot, D_dot, state_dot,
         y_dot, state_end_dot, i_batch, first, last):  # fmt: skip
    """Push tangents along the directions axis, which leads every `_dot` array.

    States and decays of a sub-tile are computed once and serve all directions.
    """
    zero, one = np.zeros(1, u.dtype)[0], np.ones(1, u.dtype)[0]
    length, n_states, n_directions = B.shape[1], B.shape[2], u_dot.shape[0]
    h = numba.carray(stack(zero, 256), (16, 16))
    lost = numba.carray(stack(zero, 256), (16, 16))
    a = numba.carray(stack(zero, 256), (16, 16))
    h_dot = numba.carray(stack(zero, 256), (16, 16))
    lost_dot = numba.carray(stack(zero, 256), (16, 16))
    a_dot = numba.carray(stack(zero, 256), (16, 16))
    states = numba.carray(stack(zero, 8448), (33, 16, 16))
    decays = numba.carray(stack(zero, 8192), (32, 16, 16))
    source = numba.carray(stack(zero, 16), 16)
    step = numba.carray(stack(zero, 16), 16)
    inflow = numba.carray(stack(zero, 16), 16)
    step_dot = numba.carray(stack(zero, 16), 16)
    inflow_dot = numba.carray(stack(zero, 16), 16)
    out_dot = numba.carray(stack(zero, 16), 16)
    # What a direction hands from one sub-tile to the one on its right.
    kept = np.empty((2, n_directions, n_states, LANES), u.dtype)
    for group in range(first, last):
        for n in range(n_states):
            for lane in range(LANES):
                h[n, lane] = state[i_batch, group, lane, n]
                a[n, lane] = A[group, lane, n]
                lost[n, lane] = zero
                for i_dot in range(n_directions):
                    kept[0, i_dot, n, lane] = state_dot[i_dot, i_batch, group, lane, n]
                    kept[1, i_dot, n, lane] = zero
        for start in range(0, length, SUB):
            size = min(SUB, length - start)
            for i in range(size):
                for lane in range(LANES):
                    step[lane] = delta[i_batch, start + i, group, lane]
                    inflow[lane] = step[lane] * u[i_batch, start + i, group, lane]
                for n in range(n_states):
                    b = B[i_batch, start + i, n]
                    for lane in range(LANES):
                        factor = decay(step[lane] * a[n, lane])
                        keep = one if factor <= zero else zero
                        decays[i, n, lane] = factor
                        states[i, n, lane] = h[n, lane]
                        left = keep * h[n, lane]
                        change = factor * h[n, lane] + b * inflow[lane] - keep * lost[n, lane]
                        after = left + change
                        lost[n, lane] = (after - left) - change
                        h[n, lane] = after
            for n in range(n_states):
                for lane in range(LANES):
                    states[size, n, lane] = h[n, lane]
            for i_dot in range(n_directions):
                for n in range(n_states):
                    for lane in range(LANES):
                        h_dot[n, lane] = kept[0, i_dot, n, lane]
                        lost_dot[n, lane] = kept[1, i_dot, n, lane]
                        a_dot[n, lane] = A_dot[i_dot, group, lane, n]
                for i in range(size):
                    for lane in range(LANES):
                        source[lane] = u[i_batch, start + i, group, lane]
                        step[lane] = delta[i_batch, start + i, group, lane]
                        inflow[lane] = step[lane] * source[lane]
                        source_dot = u_dot[i_dot, i_batch, start + i, group, lane]
                        step_dot[lane] = delta_dot[i_dot, i_batch, start + i, group, lane]
                        inflow_dot[lane] = step_dot[lane] * source[lane] + step[lane] * source_dot
                        out_dot[lane] = (
                            D[group, lane] * source_dot + D_dot[i_dot, group, lane] * source[lane]
                        )
                    for n in range(n_states):
                        b, b_dot = B[i_batch, start + i, n], B_dot[i_dot, i_batch, start + i, n]
                        c, c_dot = C[i_batch, start + i, n], C_dot[i_dot, i_batch, start + i, n]
                        for lane in range(LANES):
                            factor = decays[i, n, lane]
                            keep = one if factor <= zero else zero
                            before = states[i, n, lane]
                            z_dot = step_dot[lane] * a[n, lane] + step[lane] * a_dot[n, lane]
                            left = keep * h_dot[n, lane]
                            change = factor * h_dot[n, lane]
                            change += z_dot * (keep * before + factor * before)
                            change += b * inflow_dot[lane] + b_dot * inflow[lane]
                            change = change - keep * lost_dot[n, lane]
                            after = left + change
                            lost_dot[n, lane] = (after - left) - change
                            h_dot[n, lane] = after
                            out_dot[lane] += c * after + c_dot * states[i + 1, n, lane]
                    for lane in range(LANES):
                        y_dot[i_dot, i_batch, start + i, group, lane] = out_dot[lane]
                for n in range(n_states):
                    for lane in range(LANES):
                        kept[0, i_dot, n, lane] = h_dot[n, lane]
                        kept[1, i_dot, n, lane] = lost_dot[n, lane]
        for i_dot in range(n_directions):
            for n in range(n_states):
                for lane in range(LANES):
                    state_end_dot[i_dot, i_batch, group, lane, n] = kept[0, i_dot, n, lane]


@compiled
def _vjp(u, delta, A, B, C, D, marks, y_bar, state_end_bar,
         u_bar, delta_bar, A_bar, B_bar, C_bar, D_bar, state_bar,
         i_batch, first, last):  # fmt: skip
    """Pull cotangents back through channel groups first..last of one sequence.

    A base sends exp(z) h_bar to its left, as `h_bar`, which is kept or not, and `pending`, the
    rest; the rest is added together with the left base's own share, in one compensated step.
    """
    zero, one = np.zeros(1, u.dtype)[0], np.ones(1, u.dtype)[0]
    length, n_states = B.shape[1], B.shape[2]
    a = numba.carray(stack(zero, 256), (16, 16))
    h = numba.carray(stack(zero, 256), (16, 16))
    h_bar = numba.carray(stack(zero, 256), (16, 16))
    pending = numba.carray(stack(zero, 256), (16, 16))
    lost = numba.carray(stack(zero, 256), (16, 16))
    sum_a = numba.carray(stack(zero, 256), (16, 16))
    states = numba.carray(stack(zero, 8448), (33, 16, 16))
    decays = numba.carray(stack(zero, 8192), (32, 16, 16))
    lanes_b = numba.carray(stack(zero, 8192), (32, 16, 16))
    lanes_c = numba.carray(stack(zero, 8192), (32, 16, 16))
    source = numba.carray(stack(zero, 16), 16)
    step = numba.carray(stack(zero, 16), 16)
    inflow = numba.carray(stack(zero, 16), 16)
    out_bar = numba.carray(stack(zero, 16), 16)
    sum_b = numba.carray(stack(zero, 16), 16)
    sum_z = numba.carray(stack(zero, 16), 16)
    sum_d = numba.carray(stack(zero, 16), 16)
    # What a channel group hands from one sub-tile to the one on its left.
    kept = np.zeros((3, last - first, n_states, LANES), u.dtype)
    for group in range(first, last):
        for n in range(n_states):
            for lane in range(LANES):
                kept[0, group - first, n, lane] = state_end_bar[i_batch, group, lane, n]
    for i_sub in range((length + SUB - 1) // SUB - 1, -1, -1):
        start = i_sub * SUB
        size = min(SUB, length - start)
        for i in range(size):
            for n in range(n_states):
                for lane in range(LANES):
                    lanes_b[i, n, lane] = zero
                    lanes_c[i, n, lane] = zero
        for group in range(first, last):
            for n in range(n_states):
                for lane in range(LANES):
                    a[n, lane] = A[group, lane, n]
                    h[n, lane] = marks[i_batch, i_sub, group, n, lane]
                    h_bar[n, lane] = kept[0, group - first, n, lane]
                    pending[n, lane] = kept[1, group - first, n, lane]
                    lost[n, lane] = kept[2, group - first, n, lane]
                    sum_a[n, lane] = zero
            for i in range(size):
                for lane in range(LANES):
                    step[lane] = delta[i_batch, start + i, group, lane]
                    inflow[lane] = step[lane] * u[i_batch, start + i, group, lane]
                for n in range(n_states):
                    b = B[i_batch, start + i, n]
                    for lane in range(LANES):
                        factor = decay(step[lane] * a[n, lane])
                        keep = one if factor <= zero else zero
                        before = h[n, lane]
                        decays[i, n, lane] = factor
                        states[i, n, lane] = before
                        h[n, lane] = keep * before + (factor * before + b * inflow[lane])
            for n in range(n_states):
                for lane in range(LANES):
                    states[size, n, lane] = h[n, lane]
            for lane in range(LANES):
                sum_d[lane] = zero
            for i in range(size - 1, -1, -1):
                for lane in range(LANES):
                    out_bar[lane] = y_bar[i_batch, start + i, group, lane]
                    source[lane] = u[i_batch, start + i, group, lane]
                    step[lane] = delta[i_batch, start + i, group, lane]
                    inflow[lane] = step[lane] * source[lane]
                    sum_b[lane] = zero
                    sum_z[lane] = zero
                    sum_d[lane] += out_bar[lane] * source[lane]
                for n in range(n_states):
                    b, c = B[i_batch, start + i, n], C[i_batch, start + i, n]
                    for lane in range(LANES):
                        right = h_bar[n, lane]
                        change = pending[n, lane] + c * out_bar[lane]
                        change = change - lost[n, lane]
                        here = right + change
                        factor, before = decays[i, n, lane], states[i, n, lane]
                        keep = one if factor <= zero else zero
                        lost[n, lane] = keep * ((here - right) - change)
                        h_bar[n, lane] = keep * here
                        pending[n, lane] = factor * here
                        z_bar = here * (keep * before + factor * before)
                        lanes_b[i, n, lane] += here * inflow[lane]
                        lanes_c[i, n, lane] += out_bar[lane] * states[i + 1, n, lane]
                        sum_b[lane] += here * b
                        sum_z[lane] += z_bar * a[n, lane]
                        sum_a[n, lane] += z_bar * step[lane]
                for lane in range(LANES):
                    u_bar[i_batch, start + i, group, lane] = (
                        sum_b[lane] * step[lane] + D[group, lane] * out_bar[lane]
                    )
                    delta_bar[i_batch, start + i, group, lane] = (
                        sum_z[lane] + sum_b[lane] * source[lane]
                    )
            for lane in range(LANES):
                D_bar[i_batch, group, lane] += sum_d[lane]
            for n in range(n_states):
                for lane in range(LANES):
                    A_bar[i_batch, group, lane, n] += sum_a[n, lane]
                    kept[0, group - first, n, lane] = h_bar[n, lane]
                    kept[1, group - first, n, lane] = pending[n, lane]
                    kept[2, group - first, n, lane] = lost[n, lane]
        for i in range(size):
            for n in range(n_states):
                for lane in range(8):
                    lanes_b[i, n, lane] += lanes_b[i, n, lane + 8]
                    lanes_c[i, n, lane] += lanes_c[i, n, lane + 8]
                for lane in range(4):
                    lanes_b[i, n, lane] += lanes_b[i, n, lane + 4]
                    lanes_c[i, n, lane] += lanes_c[i, n, lane + 4]
                for lane in range(2):
                    lanes_b[i, n, lane] += lanes_b[i, n, lane + 2]
                    lanes_c[i, n, lane] += lanes_c[i, n, lane + 2]
                B_bar[i_batch, start + i, n] = lanes_b[i, n, 0] + lanes_b[i, n, 1]
                C_bar[i_batch, start + i, n] = lanes_c[i, n, 0] + lanes_c[i, n, 1]
    for group in range(first, last):
        for n in range(n_states):
            for lane in range(LANES):
                state_bar[i_batch, group, lane, n] = kept[0, group - first, n, lane] + (
                    kept[1, group - first, n, lane] - kept[2, group - first, n, lane]
                )


def _arrays(inputs: ScanInputs) -> tuple[np.ndarray, ...]:
    u, delta, A, B, C, D, state = inputs
    return (
        grouped(u, -1),
        grouped(delta, -1),
        grouped(A, -2),
        B.detach().contiguous().numpy(),
        C.detach().contiguous().numpy(),
        grouped(D, -1),
        grouped(state, -2),
    )


def _by_state_groups(inputs: ScanInputs) -> list[slice]:
    """Cut the states into groups that fit the registers; their outputs add up."""
    n_states = inputs.B.shape[-1]
    return [slice(n, min(n + STATES, n_states)) for n in range(0, n_states, STATES)]


def _take(inputs: ScanInputs, states: slice, skip: bool) -> ScanInputs:
    """Return one group of states; the skip connection belongs to the first group alone."""
    return ScanInputs(
        u=inputs.u,
        delta=inputs.delta,
        A=inputs.A[..., states],
        B=inputs.B[..., states],
        C=inputs.C[..., states],
        D=inputs.D if skip else torch.zeros_like(inputs.D),
        state=inputs.state[..., states],
    )


def _forward_group(inputs: ScanInputs, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    arrays = _arrays(inputs)
    u, state = arrays[0], arrays[-1]
    batch, length, groups, _ = u.shape
    n_marks = -(-length // SUB) if keep else 0
    y, state_end = np.empty_like(u), np.empty_like(state)
    marks = np.empty((batch, n_marks, groups, state.shape[-1], LANES), u.dtype)
    over_groups(
        lambda i_batch, _part, first, last: _forward(
            *arrays, y, state_end, marks, i_batch, first, last
        ),
        batch,
        groups,
    )
    channels = inputs.u.shape[-1]
    return (
        ungrouped(y, -1, channels),
        ungrouped(state_end, -2, channels),
        torch.from_numpy(marks),
    )


def forward(inputs: ScanInputs, *, keep: bool) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Return y, the state at the end and, with `keep`, the marks that `vjp` starts from."""
    groups = _by_state_groups(inputs)
    results = [_forward_group(_take(inputs, g, g.start == 0), keep) for g in groups]
    y = results[0][0] if len(results) == 1 else torch.stack([r[0] for r in results]).sum(0)
    return y, torch.cat([r[1] for r in results], -1), tuple(r[2] for r in results)


def _vjp_group(
    inputs: ScanInputs, marks: Tensor, y_bar: Tensor, state_end_bar: Tensor
) -> ScanInputs:
    u, delta, A, B, C, D, state = _arrays(inputs)
    batch, _, groups, _ = u.shape
    threads = torch.get_num_threads()
    u_bar, delta_bar = np.empty_like(u), np.empty_like(u)
    # Sums over time are small in number and long: they are kept in float64.
    A_bar = np.zeros((batch, *A.shape), np.float64)
    D_bar = np.zeros((batch, *D.shape), np.float64)
    B_bar = np.zeros((threads, *B.shape), B.dtype)
    C_bar = np.zeros((threads, *C.shape), C.dtype)
    state_bar = np.empty_like(state)
    y_bar_array, end_bar_array = grouped(y_bar, -1), grouped(state_end_bar, -2)
    marks_array = marks.numpy()
    parts = over_groups(
        lambda i_batch, i_part, first, last: _vjp(
            u,
            delta,
            A,
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
            i_batch,
            first,
            last,
        ),
        batch,
        groups,
    )
    channels, dtype = inputs.u.shape[-1], inputs.u.dtype
    return ScanInputs(
        u=ungrouped(u_bar, -1, channels),
        delta=ungrouped(delta_bar, -1, channels),
        A=ungrouped(A_bar.sum(0), -2, channels).to(dtype),
        B=torch.from_numpy(B_bar[:parts].sum(0)),
        C=torch.from_numpy(C_bar[:parts].sum(0)),
        D=ungrouped(D_bar.sum(0), -1, channels).to(dtype),
        state=ungrouped(state_bar, -2, channels),
    )


def vjp(
    inputs: ScanInputs, kept: tuple[Tensor, ...], y_bar: Tensor, state_end_bar: Tensor
) -> ScanInputs:
    """Return a cotangent for each input."""
    parts = [
        _vjp_group(_take(inputs, g, g.start == 0), marks, y_bar, state_end_bar[..., g])
        for g, marks in zip(_by_state_groups(inputs), kept, strict=True)
    ]
    first = parts[0]
    if len(parts) == 1:
        return first
    return ScanInputs(
        u=torch.stack([part.u for part in parts]).sum(0),
        delta=torch.stack([part.delta for part in parts]).sum(0),
        A=torch.cat([part.A for part in parts], -1),
        B=torch.cat([part.B for part in parts], -1),
        C=torch.cat([part.C for part in parts], -1),
        D=first.D,
        state=torch.cat([part.state for part in parts], -1),
    )


def _jvp_group(inputs: ScanInputs, dots: ScanInputs) -> tuple[Tensor, Tensor]:
    arrays, dot_arrays = _arrays(inputs), _arrays(dots)
    u, u_dot, state_dot = arrays[0], dot_arrays[0], dot_arrays[-1]
    y_dot, state_end_dot = np.empty_like(u_dot), np.empty_like(state_dot)
    over_groups(
        lambda i_batch, _part, first, last: _jvp(
            *arrays, *dot_arrays, y_dot, state_end_dot, i_batch, first, last
        ),
        u.shape[0],
        u.shape[2],
    )
    channels = inputs.u.shape[-1]
    return ungrouped(y_dot, -1, channels), ungrouped(state_end_dot, -2, channels)


def jvp(inputs: ScanInputs, dots: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return the tangents of y and of the state at the end, for every direction."""
    results = [
        _jvp_group(_take(inputs, g, g.start == 0), _take(dots, g, g.start == 0))
        for g in _by_state_groups(inputs)
    ]
    y_dot = results[0][0] if len(results) == 1 else torch.stack([r[0] for r in results]).sum(0)
    return y_dot, torch.cat([r[1] for r in results], -1)


CPU = ScanKernels(name="cpu", forward=forward, jvp=jvp, vjp=vjp)
