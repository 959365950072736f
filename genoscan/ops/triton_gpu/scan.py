"""The scan's three rules on the GPU: time in chunks, three kernels a rule.

    ends     each chunk from a state of zero: the state it ends with, and the sum of its steps
    carry    along the chunks: the state each of them starts with, compensated (Kahan)
    replay   each chunk again, from the state it starts with: outputs

A chunk's own decay is exp(A sum of steps), so chunks are carried as single bases are.  The vjp
does the same from right to left; its replay recomputes states from marks, the states that the
forward's replay has left every `SUB` bases, which stay in registers.

A program is one warp, so that none waits for another: a block of channels, with all states of a
channel in few threads.  Sums over channels go through memory, a part a block.

Letters: u, delta, A, B, C, D, h as in Mamba (Gu and Dao, arXiv 2312.00752, equation 2 with
the Euler input map); `_dot` tangents, `_bar` cotangents; n states, c channels.
"""

# What Triton compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, assignment, has-type, var-annotated"

from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from genoscan.ops import reference
from genoscan.ops.kernels import ScanInputs
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors
from genoscan.ops.triton_gpu.arithmetic import (
    decay,
    held,
    kernel,
    launch,
    moving,
    pieces,
    total,
    whole,
)

CHUNK = 64
"""Bases a chunk: few enough to be summed as they come, enough for the carry to cost little."""
SUB = 8
"""Bases from mark to mark, whose states and decays stay in registers; divides CHUNK."""
AHEAD = 16
"""Chunks that a carry reads together, so that one wait serves them all."""
WIDTH = 32
"""Numbers of state that a carry's program carries."""
UNROLL = 1
"""Bases of a chunk whose loads may be in flight together."""
LOWEST = tl.constexpr(-87.0)
"""Below it exp(z) is no normal number of float32, and would be 0."""


# Aligned, Triton would give four neighbouring channels to a thread, for wider reads, and move
# numbers between threads at every base.
ROWS = """
    A A_dot A_bar u u_dot u_bar delta delta_dot delta_bar y y_dot y_bar
    ends ends_dot totals totals_dot starts starts_dot marks
"""
lanes_of_channels = partial(kernel, unaligned=tuple(ROWS.split()))


@kernel
def _advance(h, near, factor, inflow):
    """Return the state after a base; adding it as a change keeps what is small beside h."""
    return held(near, h) + (factor * h + inflow)


@kernel
def _add(total, lost, term):
    """Add with Kahan's compensation."""
    change = term - lost
    after = total + change
    return after, (after - total) - change


@kernel
def _place(CHANNELS: tl.constexpr, STATES: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr):
    """Return this program's chunk and sequence; its channels c and states n; where they lie in
    arrays (n, c); and which of c, of n and of both there are.
    """
    n_blocks = tl.cdiv(CHANNELS, LANES)
    chunk, batch = tl.program_id(0) // n_blocks, tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) % n_blocks * LANES + tl.arange(0, LANES)
    n = tl.arange(0, N)
    in_c, in_n = (c < CHANNELS) | (CHANNELS % LANES == 0), (n < STATES) | (STATES == N)
    at = c[None, :] + CHANNELS * n[:, None]
    return chunk, batch, c, n, at, in_c, in_n, in_n[:, None] & in_c[None, :]


@lanes_of_channels
def _ends(u, delta, A, B, ends, totals, length, n_chunks,
          CHANNELS: tl.constexpr, STATES: tl.constexpr, CHUNK: tl.constexpr,
          UNROLL: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """Run each chunk from zero; fill ends (batch, chunk, n, c) and totals (batch, chunk, c)."""
    chunk, batch, c, n, at, in_c, in_n, in_nc = _place(CHANNELS, STATES, N, LANES)
    a = tl.load(A + at, in_nc, 0.0)
    row = batch * length + chunk * CHUNK
    u += row * CHANNELS
    delta += row * CHANNELS
    B += row * STATES
    h = tl.zeros((N, LANES), a.dtype)
    total = tl.zeros((LANES,), a.dtype)
    lost = tl.zeros((LANES,), a.dtype)
    size = tl.minimum(CHUNK, length - chunk * CHUNK)
    for t in tl.range(0, size, loop_unroll_factor=UNROLL):
        step = tl.load(delta + t * CHANNELS + c, in_c, 0.0)
        inflow = step * tl.load(u + t * CHANNELS + c, in_c, 0.0)
        b = tl.load(B + t * STATES + n, in_n, 0.0)
        near, factor = decay(step[None, :] * a)
        h = _advance(h, near, factor, b[:, None] * inflow[None, :])
        total, lost = _add(total, lost, step)
    place = batch * n_chunks + chunk
    tl.store(totals + place * CHANNELS + c, total, in_c)
    tl.store(ends + place * STATES * CHANNELS + at, h, in_nc)


@lanes_of_channels
def _ends_bar(delta, A, C, y_bar, ends, totals, length, n_chunks,
              CHANNELS: tl.constexpr, STATES: tl.constexpr, CHUNK: tl.constexpr,
              UNROLL: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """Run each chunk from right to left from zero, for what it sends to the chunk on its left."""
    chunk, batch, c, n, at, in_c, in_n, in_nc = _place(CHANNELS, STATES, N, LANES)
    a = tl.load(A + at, in_nc, 0.0)
    row = batch * length + chunk * CHUNK
    delta += row * CHANNELS
    y_bar += row * CHANNELS
    C += row * STATES
    size = tl.minimum(CHUNK, length - chunk * CHUNK)
    # What the base on the right sends: `left` as it was, `pending` to be added.
    left = tl.zeros((N, LANES), a.dtype)
    pending = tl.zeros((N, LANES), a.dtype)
    total = tl.zeros((LANES,), a.dtype)
    lost = tl.zeros((LANES,), a.dtype)
    for i in tl.range(0, size, loop_unroll_factor=UNROLL):
        t = size - 1 - i
        step = tl.load(delta + t * CHANNELS + c, in_c, 0.0)
        out_bar = tl.load(y_bar + t * CHANNELS + c, in_c, 0.0)
        c_t = tl.load(C + t * STATES + n, in_n, 0.0)
        h_bar = left + (pending + c_t[:, None] * out_bar[None, :])
        near, factor = decay(step[None, :] * a)
        left = held(near, h_bar)
        pending = factor * h_bar
        total, lost = _add(total, lost, step)
    place = batch * n_chunks + chunk
    tl.store(totals + place * CHANNELS + c, total, in_c)
    tl.store(ends + place * STATES * CHANNELS + at, left + pending, in_nc)


@lanes_of_channels
def _carry(ends, totals, A, first, last, n_chunks,
           CHANNELS: tl.constexpr, STATES: tl.constexpr, REVERSE: tl.constexpr,
           AHEAD: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """Go along the chunks; turn what each ends with, from zero, into what it starts with."""
    width = CHANNELS * STATES
    i = tl.program_id(0) * LANES + tl.arange(0, LANES)
    batch = tl.program_id(1).to(tl.int64)
    here = i < width
    c = i % CHANNELS
    n = i // CHANNELS
    outside = c * STATES + n
    a = tl.load(A + i, here, 0.0)
    h = tl.load(first + batch * width + outside, here, 0.0)
    lost = tl.zeros((LANES,), a.dtype)
    for start in range(0, n_chunks, AHEAD):
        own, total = (), ()
        for j in tl.static_range(AHEAD):
            k = start + j
            place = batch * n_chunks + (n_chunks - 1 - k if REVERSE else k)
            there = here & (k < n_chunks)
            own += (tl.load(ends + place * width + i, there, 0.0),)
            total += (tl.load(totals + place * CHANNELS + c, there, 0.0),)
        for j in tl.static_range(AHEAD):
            k = start + j
            place = batch * n_chunks + (n_chunks - 1 - k if REVERSE else k)
            tl.store(ends + place * width + i, h, here & (k < n_chunks))
            near, factor = decay(total[j] * a)
            before = held(near, h)
            change = factor * h + own[j] - held(near, lost)
            h = before + change
            lost = (h - before) - change
    tl.store(last + batch * width + outside, h, here)


@lanes_of_channels
def _replay(u, delta, A, B, C, D, starts, y, marks, length, n_chunks,
            CHANNELS: tl.constexpr, STATES: tl.constexpr, CHUNK: tl.constexpr,
            UNROLL: tl.constexpr, SUB: tl.constexpr, N: tl.constexpr,
            LANES: tl.constexpr):  # fmt: skip
    """Run each chunk from its start; fill y and, unless None, marks (batch, sub-tile, n, c)."""
    chunk, batch, c, n, at, in_c, in_n, in_nc = _place(CHANNELS, STATES, N, LANES)
    a = tl.load(A + at, in_nc, 0.0)
    d = tl.load(D + c, in_c, 0.0)
    h = tl.load(starts + (batch * n_chunks + chunk) * STATES * CHANNELS + at, in_nc, 0.0)
    row = batch * length + chunk * CHUNK
    u += row * CHANNELS
    delta += row * CHANNELS
    y += row * CHANNELS
    B += row * STATES
    C += row * STATES
    mark = batch * tl.cdiv(length, SUB) + chunk * (CHUNK // SUB)
    size = tl.minimum(CHUNK, length - chunk * CHUNK)
    for t in tl.range(0, size, loop_unroll_factor=UNROLL):
        if marks is not None:  # noqa: SIM102 -- known when this is compiled; the next is not
            if t % SUB == 0:
                tl.store(marks + (mark + t // SUB) * STATES * CHANNELS + at, h, in_nc)
        step = tl.load(delta + t * CHANNELS + c, in_c, 0.0)
        source = tl.load(u + t * CHANNELS + c, in_c, 0.0)
        b = tl.load(B + t * STATES + n, in_n, 0.0)
        c_t = tl.load(C + t * STATES + n, in_n, 0.0)
        near, factor = decay(step[None, :] * a)
        h = _advance(h, near, factor, b[:, None] * (step * source)[None, :])
        out = tl.sum(c_t[:, None] * h, 0) + d * source
        tl.store(y + t * CHANNELS + c, out, in_c)


@kernel
def _slabs(array, c, n, in_n, CHANNELS: tl.constexpr, E: tl.constexpr, LANES: tl.constexpr):
    """Read (E, n, LANES) of an array (n, c), slab by slab: a thread is to hold E channels.

    Read as one, which numbers a thread holds would be each version of Triton's own choice.
    """
    slab = tl.arange(0, E)[:, None, None]
    for e in tl.static_range(E):
        in_c = (c + e * LANES < CHANNELS) | (CHANNELS % (E * LANES) == 0)
        at = c[None, :] + e * LANES + CHANNELS * n[:, None]
        read = tl.load(array + at, in_n[:, None] & in_c[None, :], 0.0)[None, :, :]
        value = read if e == 0 else tl.where(slab == e, read, value)  # noqa: F821 (bound in the first turn)
    return value


@lanes_of_channels
def _replay_bar(u, delta, A, B, C, D, marks, y_bar, starts, u_bar, delta_bar, B_bar, C_bar,
                A_bar, D_bar, length, n_chunks, n_rows,
                CHANNELS: tl.constexpr, STATES: tl.constexpr, CHUNK: tl.constexpr,
                SUB: tl.constexpr, E: tl.constexpr, N: tl.constexpr,
                LANES: tl.constexpr):  # fmt: skip
    """Run each chunk from right to left from what the chunk on its right has sent.

    Fills, beside u_bar and delta_bar, each channel block's share of B_bar and C_bar
    (block, batch x tile, n) and, unless they are None, each chunk's of A_bar (batch x chunk, n,
    c) and D_bar (batch x chunk, c).  Axes: E channels of a thread, N states, LANES channels.
    """
    n_blocks = tl.cdiv(CHANNELS, E * LANES)
    chunk, batch = tl.program_id(0) // n_blocks, tl.program_id(1).to(tl.int64)
    block = tl.program_id(0) % n_blocks
    first_c = block * E * LANES + tl.arange(0, LANES)
    c = first_c[None, :] + LANES * tl.arange(0, E)[:, None]
    n = tl.arange(0, N)
    in_c, in_n = (c < CHANNELS) | (CHANNELS % (E * LANES) == 0), (n < STATES) | (STATES == N)
    a = _slabs(A, first_c, n, in_n, CHANNELS, E, LANES)
    d = tl.load(D + c, in_c, 0.0)
    place = batch * n_chunks + chunk
    starts += place * STATES * CHANNELS
    left = _slabs(starts, first_c, n, in_n, CHANNELS, E, LANES)
    pending = tl.zeros((E, N, LANES), a.dtype)
    sum_a = tl.zeros((E, N, LANES), a.dtype)
    sum_d = tl.zeros((E, LANES), a.dtype)
    row = batch * length + chunk * CHUNK
    u += row * CHANNELS
    delta += row * CHANNELS
    y_bar += row * CHANNELS
    u_bar += row * CHANNELS
    delta_bar += row * CHANNELS
    B += row * STATES
    C += row * STATES
    B_bar += (block.to(tl.int64) * n_rows + row) * STATES
    C_bar += (block.to(tl.int64) * n_rows + row) * STATES
    size = tl.minimum(CHUNK, length - chunk * CHUNK)
    marks += (batch * tl.cdiv(length, SUB) + chunk * (CHUNK // SUB)) * STATES * CHANNELS
    n_subs = tl.cdiv(size, SUB)
    for i_sub in range(n_subs):
        first = (n_subs - 1 - i_sub) * SUB
        # Rows are offsets known when this is compiled: addresses take no registers.
        at_c, at_n = first * CHANNELS + c, first * STATES + n
        mark = marks + first // SUB * STATES * CHANNELS
        h = _slabs(mark, first_c, n, in_n, CHANNELS, E, LANES)
        befores, factors = (), ()
        for t in tl.static_range(SUB):
            # Past the end, steps of zero change nothing.
            alive = first + t < size
            step = tl.load(delta + at_c + t * CHANNELS, in_c & alive, 0.0)
            inflow = step * tl.load(u + at_c + t * CHANNELS, in_c & alive, 0.0)
            b = tl.load(B + at_n + t * STATES, in_n & alive, 0.0)
            near, factor = decay(tl.maximum(step[:, None, :] * a, LOWEST, tl.PropagateNan.ALL))
            befores += (h,)
            factors += (factor,)
            h = _advance(h, near, factor, b[None, :, None] * inflow[:, None, :])
        for t in tl.static_range(SUB - 1, -1, -1):
            alive = first + t < size
            step = tl.load(delta + at_c + t * CHANNELS, in_c & alive, 0.0)
            source = tl.load(u + at_c + t * CHANNELS, in_c & alive, 0.0)
            out_bar = tl.load(y_bar + at_c + t * CHANNELS, in_c & alive, 0.0)
            b = tl.load(B + at_n + t * STATES, in_n & alive, 0.0)[None, :, None]
            c_t = tl.load(C + at_n + t * STATES, in_n & alive, 0.0)[None, :, None]
            before, factor = befores[t], factors[t]
            h_bar = left + (pending + c_t * out_bar[:, None, :])
            near = factor <= 0
            z_bar = h_bar * (held(near, before) + factor * before)
            left = held(near, h_bar)
            pending = factor * h_bar
            sum_b = tl.sum(h_bar * b, 1)
            sum_z = tl.sum(z_bar * a, 1)
            part_b = tl.sum(tl.sum(h_bar * (step * source)[:, None, :], 0), 1)
            part_c = tl.sum(tl.sum(h * out_bar[:, None, :], 0), 1)
            tl.store(u_bar + at_c + t * CHANNELS, sum_b * step + d * out_bar, in_c & alive)
            tl.store(delta_bar + at_c + t * CHANNELS, sum_z + sum_b * source, in_c & alive)
            tl.store(B_bar + at_n + t * STATES, part_b, in_n & alive)
            tl.store(C_bar + at_n + t * STATES, part_c, in_n & alive)
            if A_bar is not None:
                sum_a += z_bar * step[:, None, :]
            if D_bar is not None:
                sum_d += out_bar * source
            h = before
    if A_bar is not None:
        at = c[:, None, :] + CHANNELS * n[None, :, None]
        in_cn = in_c[:, None, :] & in_n[None, :, None]
        tl.store(A_bar + place * STATES * CHANNELS + at, sum_a, in_cn)
    if D_bar is not None:
        tl.store(D_bar + place * CHANNELS + c, sum_d, in_c)


@lanes_of_channels
def _ends_dot(u, delta, A, B, u_dot, delta_dot, A_dot, B_dot, ends, totals, ends_dot, totals_dot,
              length, n_chunks, n_directions,
              CHANNELS: tl.constexpr, STATES: tl.constexpr, CHUNK: tl.constexpr,
              G: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """Run each chunk from zero states and tangents; as `_ends`, for G directions together."""
    chunk, batch, c, n, at, in_c, in_n, in_nc = _place(CHANNELS, STATES, N, LANES)
    g = tl.program_id(2) * G + tl.arange(0, G)
    in_g = g < n_directions
    in_gc = in_g[:, None] & in_c[None, :]
    in_gn, in_gnc = in_g[:, None] & in_n[None, :], in_g[:, None, None] & in_nc[None, :, :]
    a = tl.load(A + at, in_nc, 0.0)
    if A_dot is not None:
        a_dot = tl.load(
            A_dot + g[:, None, None] * (CHANNELS * STATES) + at[None, :, :], in_gnc, 0.0
        )
    row = batch * length + chunk * CHUNK
    row_dot = g.to(tl.int64) * tl.num_programs(1) * length + row
    u += row * CHANNELS
    delta += row * CHANNELS
    B += row * STATES
    u_dot += row_dot[:, None] * CHANNELS + c[None, :]
    delta_dot += row_dot[:, None] * CHANNELS + c[None, :]
    B_dot += row_dot[:, None] * STATES + n[None, :]
    h = tl.zeros((N, LANES), a.dtype)
    h_dot = tl.zeros((G, N, LANES), a.dtype)
    total = tl.zeros((LANES,), a.dtype)
    lost = tl.zeros((LANES,), a.dtype)
    total_dot = tl.zeros((G, LANES), a.dtype)
    lost_dot = tl.zeros((G, LANES), a.dtype)
    for t in range(tl.minimum(CHUNK, length - chunk * CHUNK)):
        step = tl.load(delta + t * CHANNELS + c, in_c, 0.0)
        source = tl.load(u + t * CHANNELS + c, in_c, 0.0)
        b = tl.load(B + t * STATES + n, in_n, 0.0)
        step_dot = tl.load(delta_dot + t * CHANNELS, in_gc, 0.0)
        source_dot = tl.load(u_dot + t * CHANNELS, in_gc, 0.0)
        b_dot = tl.load(B_dot + t * STATES, in_gn, 0.0)
        inflow = step * source
        inflow_dot = step_dot * source[None, :] + step[None, :] * source_dot
        near, factor = decay(step[None, :] * a)
        z_dot = step_dot[:, None, :] * a[None, :, :]
        if A_dot is not None:
            z_dot += step[None, None, :] * a_dot
        change = z_dot * (held(near, h) + factor * h)[None, :, :]
        change += (
            b[None, :, None] * inflow_dot[:, None, :] + b_dot[:, :, None] * inflow[None, None, :]
        )
        h_dot = _advance(h_dot, near[None, :, :], factor[None, :, :], change)
        h = _advance(h, near, factor, b[:, None] * inflow[None, :])
        total, lost = _add(total, lost, step)
        total_dot, lost_dot = _add(total_dot, lost_dot, step_dot)
    place = batch * n_chunks + chunk
    place_dot = g.to(tl.int64) * tl.num_programs(1) * n_chunks + place
    tl.store(totals_dot + place_dot[:, None] * CHANNELS + c[None, :], total_dot, in_gc)
    at_dot = place_dot[:, None, None] * (STATES * CHANNELS) + at[None, :, :]
    tl.store(ends_dot + at_dot, h_dot, in_gnc)
    if tl.program_id(2) == 0:
        tl.store(totals + place * CHANNELS + c, total, in_c)
        tl.store(ends + place * STATES * CHANNELS + at, h, in_nc)


@lanes_of_channels
def _carry_dot(starts, totals, ends_dot, totals_dot, A, A_dot, first, last,
               n_chunks,
               CHANNELS: tl.constexpr, STATES: tl.constexpr,
               AHEAD: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """Go along the chunks with one direction, as `_carry`, which has left each chunk's start."""
    width = CHANNELS * STATES
    i = tl.program_id(0) * LANES + tl.arange(0, LANES)
    batch, direction = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    here = i < width
    c = i % CHANNELS
    n = i // CHANNELS
    a = tl.load(A + i, here, 0.0)
    if A_dot is not None:
        a_dot = tl.load(A_dot + direction * width + i, here, 0.0)
    batch_dot = direction * tl.num_programs(1) + batch
    outside = batch_dot * width + c * STATES + n
    h_dot = tl.load(first + outside, here, 0.0)
    lost = tl.zeros((LANES,), a.dtype)
    for start in range(0, n_chunks, AHEAD):
        own, before, total, total_dot = (), (), (), ()
        for j in tl.static_range(AHEAD):
            there = here & (start + j < n_chunks)
            place = batch * n_chunks + start + j
            place_dot = batch_dot * n_chunks + start + j
            own += (tl.load(ends_dot + place_dot * width + i, there, 0.0),)
            before += (tl.load(starts + place * width + i, there, 0.0),)
            total += (tl.load(totals + place * CHANNELS + c, there, 0.0),)
            total_dot += (tl.load(totals_dot + place_dot * CHANNELS + c, there, 0.0),)
        for j in tl.static_range(AHEAD):
            place_dot = batch_dot * n_chunks + start + j
            tl.store(ends_dot + place_dot * width + i, h_dot, here & (start + j < n_chunks))
            near, factor = decay(total[j] * a)
            z_dot = total_dot[j] * a
            if A_dot is not None:
                z_dot += total[j] * a_dot
            added = own[j] + z_dot * (held(near, before[j]) + factor * before[j])
            left = held(near, h_dot)
            change = factor * h_dot + added - held(near, lost)
            h_dot = left + change
            lost = (h_dot - left) - change
    tl.store(last + outside, h_dot, here)


@lanes_of_channels
def _replay_dot(u, delta, A, B, C, D, u_dot, delta_dot, A_dot, B_dot, C_dot, D_dot,
                starts, starts_dot, y, y_dot, length, n_chunks, n_directions,
                CHANNELS: tl.constexpr, STATES: tl.constexpr, CHUNK: tl.constexpr,
                G: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """Run each chunk from its start, for G directions together; fill y_dot and y."""
    chunk, batch, c, n, at, in_c, in_n, in_nc = _place(CHANNELS, STATES, N, LANES)
    g = tl.program_id(2) * G + tl.arange(0, G)
    in_g = g < n_directions
    in_gc = in_g[:, None] & in_c[None, :]
    in_gn, in_gnc = in_g[:, None] & in_n[None, :], in_g[:, None, None] & in_nc[None, :, :]
    a = tl.load(A + at, in_nc, 0.0)
    d = tl.load(D + c, in_c, 0.0)
    if A_dot is not None:
        a_dot = tl.load(
            A_dot + g[:, None, None] * (CHANNELS * STATES) + at[None, :, :], in_gnc, 0.0
        )
    if D_dot is not None:
        d_dot = tl.load(D_dot + g[:, None] * CHANNELS + c[None, :], in_gc, 0.0)
    place = batch * n_chunks + chunk
    place_dot = g.to(tl.int64) * tl.num_programs(1) * n_chunks + place
    h = tl.load(starts + place * STATES * CHANNELS + at, in_nc, 0.0)
    at_dot = place_dot[:, None, None] * (STATES * CHANNELS) + at[None, :, :]
    h_dot = tl.load(starts_dot + at_dot, in_gnc, 0.0)
    row = batch * length + chunk * CHUNK
    row_dot = g.to(tl.int64) * tl.num_programs(1) * length + row
    u += row * CHANNELS
    delta += row * CHANNELS
    B += row * STATES
    C += row * STATES
    y += row * CHANNELS
    u_dot += row_dot[:, None] * CHANNELS + c[None, :]
    delta_dot += row_dot[:, None] * CHANNELS + c[None, :]
    y_dot += row_dot[:, None] * CHANNELS + c[None, :]
    B_dot += row_dot[:, None] * STATES + n[None, :]
    C_dot += row_dot[:, None] * STATES + n[None, :]
    for t in range(tl.minimum(CHUNK, length - chunk * CHUNK)):
        step = tl.load(delta + t * CHANNELS + c, in_c, 0.0)
        source = tl.load(u + t * CHANNELS + c, in_c, 0.0)
        b = tl.load(B + t * STATES + n, in_n, 0.0)
        c_t = tl.load(C + t * STATES + n, in_n, 0.0)
        step_dot = tl.load(delta_dot + t * CHANNELS, in_gc, 0.0)
        source_dot = tl.load(u_dot + t * CHANNELS, in_gc, 0.0)
        b_dot = tl.load(B_dot + t * STATES, in_gn, 0.0)
        c_dot = tl.load(C_dot + t * STATES, in_gn, 0.0)
        inflow = step * source
        inflow_dot = step_dot * source[None, :] + step[None, :] * source_dot
        near, factor = decay(step[None, :] * a)
        z_dot = step_dot[:, None, :] * a[None, :, :]
        if A_dot is not None:
            z_dot += step[None, None, :] * a_dot
        change = z_dot * (held(near, h) + factor * h)[None, :, :]
        change += (
            b[None, :, None] * inflow_dot[:, None, :] + b_dot[:, :, None] * inflow[None, None, :]
        )
        h_dot = _advance(h_dot, near[None, :, :], factor[None, :, :], change)
        h = _advance(h, near, factor, b[:, None] * inflow[None, :])
        out_dot = tl.sum(c_t[None, :, None] * h_dot + c_dot[:, :, None] * h[None, :, :], 1)
        out_dot += d[None, :] * source_dot
        if D_dot is not None:
            out_dot += d_dot * source[None, :]
        tl.store(y_dot + t * CHANNELS, out_dot, in_gc)
        if tl.program_id(2) == 0:
            out = tl.sum(c_t[:, None] * h, 0) + d * source
            tl.store(y + t * CHANNELS + c, out, in_c)


def _sizes(inputs: ScanInputs, room: int, **axes: int) -> dict[str, int]:
    """Return what a kernel is compiled for: all states, as many channels as `room` numbers allow.

    A warp's threads lie along the channels first, and then along the states.
    """
    channels, states = inputs.A.shape
    n = triton.next_power_of_2(states)
    lanes = max(1, min(32, room // n))
    return {"CHANNELS": channels, "STATES": states, **axes, "N": n, "LANES": lanes}


def _room(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return room for each chunk's ends (batch, chunk, n, c) and totals (batch, chunk, c)."""
    batch, length, channels = inputs.u.shape
    totals = inputs.u.new_empty(batch, pieces(length, CHUNK), channels)
    return totals.new_empty(*totals.shape[:2], *inputs.A.T.shape), totals


def _turned(A: Tensor) -> Tensor:
    """Return A, or tangents of it, as (n, c), which is how kernels read it."""
    return A.transpose(-1, -2).contiguous()


def _carried(ends: Tensor, totals: Tensor, A: Tensor, first: Tensor, *, reverse: bool) -> Tensor:
    """Turn `ends` into starts; return what the last chunk ends with."""
    batch, n_chunks, channels = totals.shape
    last = torch.empty_like(first)
    launch(
        _carry,
        (pieces(A.numel(), WIDTH), batch),
        *(ends, totals, A, first, last, n_chunks),
        warps=1,
        CHANNELS=channels,
        STATES=len(A),
        REVERSE=reverse,
        AHEAD=AHEAD,
        LANES=WIDTH,
    )
    return last


def _whole_scan(given: Tensors) -> ScanInputs:
    """Return the scan's inputs in one piece each; bias and gate have passes of their own."""
    u, delta, A, B, C, D, state = whole(given)
    return ScanInputs(u, delta, A, B, C, D, state)


def _forward(given: Tensors, *, save: bool) -> tuple[Tensors, Tensors]:
    inputs = _whole_scan(given)
    u, delta, _, B, C, D, state, *_ = inputs
    batch, length, channels = u.shape
    A = _turned(inputs.A)
    ends, totals = _room(inputs)
    n_chunks = totals.shape[1]
    sizes = _sizes(inputs, 512, CHUNK=CHUNK, UNROLL=UNROLL)
    grid = (n_chunks * pieces(channels, sizes["LANES"]), batch)
    launch(_ends, grid, u, delta, A, B, ends, totals, length, n_chunks, warps=1, **sizes)
    state_end = _carried(ends, totals, A, state, reverse=False)
    y = torch.empty_like(u)
    marks = u.new_empty(batch, pieces(length, SUB), *A.shape) if save else None
    arguments = (u, delta, A, B, C, D, ends, y, marks, length, n_chunks)
    launch(_replay, grid, *arguments, warps=1, **sizes, SUB=SUB)
    return (y, state_end), () if marks is None else (marks,)


def _vjp(given: Tensors, saved: Tensors, bars: Tensors, needs_grad: Flags) -> OptionalTensors:
    inputs, needs = _whole_scan(given), ScanInputs(*needs_grad)
    u, delta, _, B, C, D, *_ = inputs
    (marks,), (y_bar, state_end_bar) = saved, whole(bars)
    batch, length, channels = u.shape
    A = _turned(inputs.A)
    ends, totals = _room(inputs)
    n_chunks = totals.shape[1]
    sizes = _sizes(inputs, 512, CHUNK=CHUNK, UNROLL=UNROLL)
    grid = (n_chunks * pieces(channels, sizes["LANES"]), batch)
    arguments = (delta, A, C, y_bar, ends, totals, length, n_chunks)
    launch(_ends_bar, grid, *arguments, warps=1, **sizes)
    state_bar = _carried(ends, totals, A, state_end_bar, reverse=True)
    sizes = _sizes(inputs, 128, CHUNK=CHUNK, SUB=SUB, E=2)
    n_blocks = pieces(channels, sizes["E"] * sizes["LANES"])
    u_bar, delta_bar = torch.empty_like(u), torch.empty_like(delta)
    shares = u.new_empty(2, n_blocks, *B.shape)
    A_bar = torch.empty_like(ends) if needs.A else None
    D_bar = torch.empty_like(totals) if needs.D else None
    launch(
        _replay_bar,
        (n_chunks * n_blocks, batch),
        *(u, delta, A, B, C, D, marks, y_bar, ends, u_bar, delta_bar, *shares, A_bar, D_bar),
        *(length, n_chunks, batch * length),
        warps=1,
        **sizes,
    )
    if A_bar is not None:
        A_bar = total(A_bar.flatten(0, 1)).T
    if D_bar is not None:
        D_bar = total(D_bar.flatten(0, 1))
    B_bar, C_bar = shares.sum(1)
    return u_bar, delta_bar, A_bar, B_bar, C_bar, D_bar, state_bar


def _jvp(given: Tensors, tangents: OptionalTensors) -> tuple[Tensors, Tensors]:
    inputs, dots = _whole_scan(given), ScanInputs(*moving(given, tangents, still=(2, 5)))
    u, delta, _, B, C, D, state, *_ = inputs
    batch, length, channels = u.shape
    count = len(dots.u)
    A, A_dot = _turned(inputs.A), None if dots.A is None else _turned(dots.A)
    ends, totals = _room(inputs)
    ends_dot, totals_dot = (like.new_empty(count, *like.shape) for like in (ends, totals))
    n_chunks = totals.shape[1]
    together = min(4, triton.next_power_of_2(count))
    sizes = _sizes(inputs, 512 // together, CHUNK=CHUNK, G=together)
    grid = (n_chunks * pieces(channels, sizes["LANES"]), batch, pieces(count, together))
    launch(
        _ends_dot,
        grid,
        *(u, delta, A, B, dots.u, dots.delta, A_dot, dots.B, ends, totals, ends_dot, totals_dot),
        *(length, n_chunks, count),
        warps=1,
        **sizes,
    )
    state_end = _carried(ends, totals, A, state, reverse=False)
    state_end_dot = torch.empty_like(dots.state)
    launch(
        _carry_dot,
        (pieces(A.numel(), WIDTH), batch, count),
        *(ends, totals, ends_dot, totals_dot, A, A_dot, dots.state, state_end_dot, n_chunks),
        warps=1,
        CHANNELS=channels,
        STATES=len(A),
        AHEAD=AHEAD,
        LANES=WIDTH,
    )
    y, y_dot = torch.empty_like(u), torch.empty_like(dots.u)
    launch(
        _replay_dot,
        grid,
        *(u, delta, A, B, C, D, dots.u, dots.delta, A_dot, dots.B, dots.C, dots.D),
        *(ends, ends_dot, y, y_dot, length, n_chunks, count),
        warps=1,
        **sizes,
    )
    return (y, state_end), (y_dot, state_end_dot)


SCAN = Primitive(_forward, _jvp, _vjp, reference.scan, outputs=2)
