"""Compiled kernels of the CPU scan; each call processes a range of channel groups of one sequence.

A group consists of the `LANES` channels of one vector. At each base, all states of a group are advanced
before the next base is read. Arrays are therefore read in memory order, and the state stays in the L1
cache. The vjp requires the states. `forward` saves the state as a checkpoint once every `SUB` bases, and
`vjp` recomputes the states of one sub-tile of `SUB` bases at a time, starting from its checkpoint.

Notation: u, delta, A, B, C, D and h are defined in `reference.scan`. `rate` is A / ln 2, so that a decay is
2^z2 with z2 = delta * rate. The suffix `_dot` marks tangents, and `_bar` marks cotangents. `error` is the
rounding error of the last addition to the state, which is needed for Kahan summation. `phi_input` is None
if the input term is delta B u, and True if it is phi(delta A) B u; separate kernels are compiled for the
two cases.
"""

# Functions compiled by numba have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def, call-arg"

import math

import numba

from genoscan.ops.lane_math import decay, phi, phi_slope, sigmoid, softplus
from genoscan.ops.lanes import (
    LANES,
    alloca,
    compiled,
    load,
    prefetch,
    reduce_add,
    store,
    to_float64,
    use_widest_vectors,
    where,
)

STATES = 16
"""Maximum number of states per channel that a kernel call processes; more states are split into groups."""
SUB = 32
"""Number of bases per sub-tile, which is also the distance between checkpoints."""
BLOCK = 8
"""Number of bases per block.

In each block, step sizes are computed before the recurrence, and gates are applied after it.
"""
LN_2 = math.log(2)

# Buffer sizes below: 256 = STATES * LANES, 512 = SUB * LANES, 8192 = SUB * STATES * LANES.


@numba.njit(inline="always")
def _gather(lanes, matrix, group, scale):
    """Copy a group of channels of a matrix of shape (channels, states) to vectors, multiplied by `scale`.

    Lanes without a channel are filled with the last channel.
    """
    for n in range(matrix.shape[-1]):
        for lane in range(LANES):
            channel = min(group * LANES + lane, len(matrix) - 1)
            lanes[n * LANES + lane] = matrix[channel, n] * scale


@numba.njit(inline="always")
def _scatter(matrix, lanes, group):
    """Copy vectors to a group of channels of a matrix of shape (channels, states)."""
    for n in range(matrix.shape[-1]):
        for lane in range(min(LANES, len(matrix) - group * LANES)):
            matrix[group * LANES + lane, n] = lanes[n * LANES + lane]


@compiled
def forward(inputs, y, state_end, checkpoints, phi_input, i_batch, first, last):
    """Write `y`, `state_end` and, unless `checkpoints` is empty, the checkpoints."""
    use_widest_vectors()
    u, delta, A, B, C, D, state, bias, z = inputs
    length, n_states = B.shape[1], B.shape[2]
    has_bias, has_gate = len(bias) > 0, len(z) > 0
    h = numba.carray(alloca(u, 256), 256)
    error = numba.carray(alloca(u, 256), 256)
    rate = numba.carray(alloca(u, 256), 256)
    steps = numba.carray(alloca(u, 256), 256)
    for group in range(first, last):
        _gather(rate, A, group, 1 / LN_2)
        _gather(h, state[i_batch], group, 1.0)
        for n in range(n_states):
            store(error, n, 0.0)
        skip = load(D, group)
        for start in range(0, length, BLOCK):
            size = min(BLOCK, length - start)
            if start % SUB == 0 and checkpoints.shape[1] > 0:
                for n in range(n_states):
                    store(checkpoints, (i_batch, start // SUB, group, n), load(h, n))
            for i in range(size):
                store(steps, i, load(delta, (i_batch, start + i, group)))
            if has_bias:  # slower if fused with the preceding loop
                shift = load(bias, group)
                for i in range(size):
                    store(steps, i, softplus(load(steps, i) + shift))
            if has_gate:
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
                    gain = step if phi_input is None else phi(z2, factor)
                    retained = where(z2 > -1.0, before, 0.0)
                    correction = where(z2 > -1.0, load(error, n), 0.0)
                    change = factor * before + (B[i_batch, t, n] * (gain * source) - correction)
                    after = retained + change
                    store(error, n, (after - retained) - change)
                    store(h, n, after)
                    out = out + C[i_batch, t, n] * after
                store(y, (i_batch, t, group), out)
            if has_gate:
                for t in range(start, start + size):
                    out, gate = load(y, (i_batch, t, group)), load(z, (i_batch, t, group))
                    store(y, (i_batch, t, group), out * gate * sigmoid(gate))
        _scatter(state_end[i_batch], h, group)


@compiled
def jvp(inputs, tangents, outputs, carry, phi_input, i_batch, first, last):
    """Write the outputs of `forward`, and their tangents along all directions.

    The first axis of tangents is the axis of directions. Factors that do not depend on the direction are
    computed once per sub-tile. `carry` is a buffer for the tangents of the state `h`, and their rounding
    errors, between sub-tiles. If the tangents of `A`, `D` and `bias` are all zero, they are passed as empty
    arrays.
    """
    use_widest_vectors()
    u, delta, A, B, C, D, state, bias, z = inputs
    u_dot, delta_dot, A_dot, B_dot, C_dot, D_dot, state_dot, bias_dot, z_dot = tangents
    y, state_end, y_dot, state_end_dot = outputs
    length, n_states, n_directions = B.shape[1], B.shape[2], u_dot.shape[0]
    has_bias, has_gate, has_weight_dots = len(bias) > 0, len(z) > 0, A_dot.shape[1] > 0
    h = numba.carray(alloca(u, 256), 256)
    error = numba.carray(alloca(u, 256), 256)
    rate = numba.carray(alloca(u, 256), 256)
    h_dot = numba.carray(alloca(u, 256), 256)
    error_dot = numba.carray(alloca(u, 256), 256)
    rate_dot = numba.carray(alloca(u, 256), 256)
    states = numba.carray(alloca(u, 8192), (32, 256))
    z_slopes = numba.carray(alloca(u, 8192), (32, 256))
    decays = numba.carray(alloca(u, 8192), (32, 256))
    steps = numba.carray(alloca(u, 512), 512)
    step_slopes = numba.carray(alloca(u, 512), 512)
    silus = numba.carray(alloca(u, 512), 512)
    gate_slopes = numba.carray(alloca(u, 512), 512)
    for group in range(first, last):
        _gather(rate, A, group, 1 / LN_2)
        _gather(h, state[i_batch], group, 1.0)
        for n in range(n_states):
            store(error, n, 0.0)
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
                if has_bias:
                    shifted = step + load(bias, group)
                    step = softplus(shifted)
                    store(step_slopes, i, sigmoid(shifted))
                store(steps, i, step)
            for i in range(size):
                t = start + i
                prefetch(u, (i_batch, t + 4, group))
                prefetch(delta, (i_batch, t + SUB, group))
                prefetch(y, (i_batch, t, group))
                prefetch(u_dot, (0, i_batch, t, group))
                prefetch(delta_dot, (0, i_batch, t, group))
                prefetch(y_dot, (0, i_batch, t, group))
                if has_gate:
                    prefetch(z, (i_batch, t, group))
                    prefetch(z_dot, (0, i_batch, t, group))
                source, step = load(u, (i_batch, t, group)), load(steps, i)
                out = skip * source
                for n in range(n_states):
                    z2, before = step * load(rate, n), load(h, n)
                    factor = decay(z2)
                    gain = step if phi_input is None else phi(z2, factor)
                    retained = where(z2 > -1.0, before, 0.0)
                    correction = where(z2 > -1.0, load(error, n), 0.0)
                    change = factor * before + (B[i_batch, t, n] * (gain * source) - correction)
                    after = retained + change
                    store(error, n, (after - retained) - change)
                    store(h, n, after)
                    store(states, (i, n), after)
                    out = out + C[i_batch, t, n] * after
                    store(decays, (i, n), factor)
                    # Derivative of h after this base with respect to z.
                    z_slope = retained + factor * before
                    if phi_input is not None:
                        z_slope = z_slope + B[i_batch, t, n] * source * phi_slope(z2, factor, gain)
                    store(z_slopes, (i, n), z_slope * LN_2)
                store(y, (i_batch, t, group), out)
            if has_gate:
                for i in range(size):
                    out = load(y, (i_batch, start + i, group))
                    gate = load(z, (i_batch, start + i, group))
                    sig = sigmoid(gate)
                    silu = gate * sig
                    store(silus, i, silu)
                    store(gate_slopes, i, out * (sig + silu * (1.0 - sig)))
                    store(y, (i_batch, start + i, group), out * silu)
            for i_dot in range(n_directions):
                for n in range(n_states):
                    store(h_dot, n, load(carry, (i_batch, group, 0, i_dot, n)))
                    store(error_dot, n, load(carry, (i_batch, group, 1, i_dot, n)))
                if has_weight_dots:
                    _gather(rate_dot, A_dot[i_dot], group, 1 / LN_2)
                for i in range(size):
                    t = start + i
                    source, step = load(u, (i_batch, t, group)), load(steps, i)
                    prefetch(u_dot, (i_dot + 1, i_batch, t, group))
                    prefetch(delta_dot, (i_dot + 1, i_batch, t, group))
                    prefetch(y_dot, (i_dot + 1, i_batch, t, group))
                    if has_gate:
                        prefetch(z_dot, (i_dot + 1, i_batch, t, group))
                    source_dot = load(u_dot, (i_dot, i_batch, t, group))
                    step_dot = load(delta_dot, (i_dot, i_batch, t, group))
                    out_dot = skip * source_dot
                    if has_bias and has_weight_dots:
                        step_dot = step_dot + load(bias_dot, (i_dot, group))
                    if has_bias:
                        step_dot = step_dot * load(step_slopes, i)
                    if has_weight_dots:
                        out_dot = out_dot + load(D_dot, (i_dot, group)) * source
                    inflow = step * source
                    inflow_dot = step_dot * source + step * source_dot
                    for n in range(n_states):
                        factor, before_dot = load(decays, (i, n)), load(h_dot, n)
                        retained = where(factor > 0.0, 0.0, before_dot)
                        correction = where(factor > 0.0, 0.0, load(error_dot, n))
                        z2_dot = step_dot * load(rate, n)
                        if has_weight_dots:
                            z2_dot = z2_dot + step * load(rate_dot, n)
                        change = factor * before_dot + load(z_slopes, (i, n)) * z2_dot
                        if phi_input is not None:
                            gain = phi(step * load(rate, n), factor)
                            inflow, inflow_dot = gain * source, gain * source_dot
                        change = change + B[i_batch, t, n] * inflow_dot
                        change = change + (B_dot[i_dot, i_batch, t, n] * inflow - correction)
                        after = retained + change
                        store(error_dot, n, (after - retained) - change)
                        store(h_dot, n, after)
                        out_dot = out_dot + C[i_batch, t, n] * after
                        out_dot = out_dot + C_dot[i_dot, i_batch, t, n] * load(states, (i, n))
                    if has_gate:
                        gate_dot = load(z_dot, (i_dot, i_batch, t, group))
                        out_dot = out_dot * load(silus, i) + load(gate_slopes, i) * gate_dot
                    store(y_dot, (i_dot, i_batch, t, group), out_dot)
                for n in range(n_states):
                    store(carry, (i_batch, group, 0, i_dot, n), load(h_dot, n))
                    store(carry, (i_batch, group, 1, i_dot, n), load(error_dot, n))
        _scatter(state_end[i_batch], h, group)
        for i_dot in range(n_directions):
            for n in range(n_states):
                store(h_dot, n, load(carry, (i_batch, group, 0, i_dot, n)))
            _scatter(state_end_dot[i_dot, i_batch], h_dot, group)


@compiled
def vjp(inputs, checkpoints, bars, outputs, carry, phi_input, i_batch, first, last):
    """Write the cotangents of the inputs; those of `A`, `D` and `bias` are empty arrays if they are not needed.

    The cotangent of the state before a base is `exp(z)` times the cotangent `h_bar` of the state after the
    base. It is passed to the left neighbour in two parts. The first part is `h_bar` if the decay is close
    to 1, and 0 otherwise. The second part, `pending`, is the remainder. At the neighbour, `pending` and the
    local term are added to the first part by Kahan summation. `carry` is a buffer for `h_bar`, `pending`
    and the rounding error between sub-tiles.
    """
    use_widest_vectors()
    u, delta, A, B, C, D, _, bias, z = inputs
    y_bar, state_end_bar = bars
    u_bar, delta_bar, A_bar, B_bar, C_bar, D_bar, state_bar, bias_bar, z_bar = outputs
    length, n_states = B.shape[1], B.shape[2]
    has_bias, has_gate, needs_sums = len(bias) > 0, len(z) > 0, len(A_bar) > 0
    rate = numba.carray(alloca(u, 256), 256)
    h = numba.carray(alloca(u, 256), 256)
    h_bar = numba.carray(alloca(u, 256), 256)
    pending = numba.carray(alloca(u, 256), 256)
    error = numba.carray(alloca(u, 256), 256)
    sum_a = numba.carray(alloca(u, 256), 256)
    z_slopes = numba.carray(alloca(u, 8192), (32, 256))
    decays = numba.carray(alloca(u, 8192), (32, 256))
    lanes_b = numba.carray(alloca(u, 8192), (32, 256))
    lanes_c = numba.carray(alloca(u, 8192), (32, 256))
    steps = numba.carray(alloca(u, 512), 512)
    step_slopes = numba.carray(alloca(u, 512), 512)
    outs_bar = numba.carray(alloca(u, 512), 512)
    gate_slopes = numba.carray(alloca(u, 512), 512)
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
                store(h, n, load(checkpoints, (i_batch, i_sub, group, n)))
                store(h_bar, n, load(carry, (i_batch, 0, group, n)))
                store(pending, n, load(carry, (i_batch, 1, group, n)))
                store(error, n, load(carry, (i_batch, 2, group, n)))
                store(sum_a, n, 0.0)
            skip = load(D, group)
            for i in range(size):
                t = start + i
                step, out_bar = load(delta, (i_batch, t, group)), load(y_bar, (i_batch, t, group))
                if i < n_states:
                    prefetch(checkpoints, (i_batch, i_sub - back // SUB, ahead, i))
                prefetch(delta, (i_batch, t - back, ahead))
                prefetch(y_bar, (i_batch, t - back, ahead))
                prefetch(delta_bar, (i_batch, t - back, ahead))
                if has_bias:
                    shifted = step + load(bias, group)
                    step = softplus(shifted)
                    store(step_slopes, i, sigmoid(shifted))
                if has_gate:
                    prefetch(z, (i_batch, t - back, ahead))
                    prefetch(z_bar, (i_batch, t - back, ahead))
                    gate = load(z, (i_batch, t, group))
                    sig = sigmoid(gate)
                    store(gate_slopes, i, out_bar * (sig + gate * sig * (1.0 - sig)))
                    out_bar = out_bar * gate * sig
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
                    gain = step if phi_input is None else phi(z2, factor)
                    z_slope = where(z2 > -1.0, before, 0.0) + factor * before
                    after = z_slope + B[i_batch, t, n] * (gain * source)
                    if phi_input is not None:
                        slope = phi_slope(z2, factor, gain)
                        z_slope = z_slope + B[i_batch, t, n] * source * slope
                    store(h, n, after)
                    store(decays, (i, n), factor)
                    store(z_slopes, (i, n), z_slope)
                    store(lanes_c, (i, n), load(lanes_c, (i, n)) + out_bar * after)
                    out = out + C[i_batch, t, n] * after
                if has_gate:
                    store(z_bar, (i_batch, t, group), load(gate_slopes, i) * out)
            sum_d, sum_bias = 0.0 * skip, 0.0 * skip
            for i in range(size - 1, -1, -1):
                t = start + i
                out_bar, step = load(outs_bar, i), load(steps, i)
                source = load(u, (i_batch, t, group))
                sum_u, sum_z = 0.0 * step, 0.0 * step
                for n in range(n_states):
                    factor, right = load(decays, (i, n)), load(h_bar, n)
                    change = load(pending, n) + (C[i_batch, t, n] * out_bar - load(error, n))
                    here = right + change
                    store(error, n, where(factor > 0.0, 0.0, (here - right) - change))
                    store(h_bar, n, where(factor > 0.0, 0.0, here))
                    store(pending, n, factor * here)
                    z2_bar = here * load(z_slopes, (i, n))
                    gain = step if phi_input is None else phi(step * load(rate, n), factor)
                    store(lanes_b, (i, n), load(lanes_b, (i, n)) + here * (gain * source))
                    inflow_bar = here if phi_input is None else here * gain
                    sum_u = sum_u + B[i_batch, t, n] * inflow_bar
                    sum_z = sum_z + z2_bar * load(rate, n)
                    if needs_sums:
                        store(sum_a, n, load(sum_a, n) + z2_bar * step)
                step_bar = sum_z * LN_2
                if phi_input is None:
                    step_bar, sum_u = step_bar + sum_u * source, sum_u * step
                if has_bias:
                    step_bar = step_bar * load(step_slopes, i)
                sum_d, sum_bias = sum_d + out_bar * source, sum_bias + step_bar
                store(u_bar, (i_batch, t, group), sum_u + skip * out_bar)
                store(delta_bar, (i_batch, t, group), step_bar)
            if needs_sums:
                total = load(D_bar, (i_batch, group))
                store(D_bar, (i_batch, group), total + to_float64(sum_d))
                total = load(bias_bar, (i_batch, group))
                store(bias_bar, (i_batch, group), total + to_float64(sum_bias))
                for n in range(n_states):
                    total = load(A_bar, (i_batch, group, n))
                    store(A_bar, (i_batch, group, n), total + to_float64(load(sum_a, n)))
            for n in range(n_states):
                store(carry, (i_batch, 0, group, n), load(h_bar, n))
                store(carry, (i_batch, 1, group, n), load(pending, n))
                store(carry, (i_batch, 2, group, n), load(error, n))
        for i in range(size):
            for n in range(n_states):
                B_bar[i_batch, start + i, n] = reduce_add(load(lanes_b, (i, n)))
                C_bar[i_batch, start + i, n] = reduce_add(load(lanes_c, (i, n)))
    for group in range(first, last):
        for n in range(n_states):
            end = load(carry, (i_batch, 1, group, n)) - load(carry, (i_batch, 2, group, n))
            store(h_bar, n, load(carry, (i_batch, 0, group, n)) + end)
        _scatter(state_bar[i_batch], h_bar, group)
