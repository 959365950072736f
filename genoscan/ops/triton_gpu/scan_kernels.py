"""Triton kernels of the selective scan, which process a tile in chunks.

The forward pass, the jvp and the vjp each have three steps:

    chunk_ends   runs each chunk from a zero state; writes its final state and the sum of its step sizes
    carry        computes the state at the start of each chunk sequentially, with Kahan compensation
    replay       runs each chunk again, from the state at its start; writes the outputs

The decay over a whole chunk is exp(A * sum of step sizes). The state can therefore be advanced over a chunk
in the same way as over a single base. The vjp processes the chunks, and the bases in each chunk, from right
to left. It recomputes the states from checkpoints, which the forward replay saves every
`CHECKPOINT_INTERVAL` bases, and keeps those of `BASES_IN_REGISTERS` bases in registers.

Each program is one warp, so that no warp waits for another. It processes a block of channels; all states of
a channel are distributed over a few threads. Sums over channels are written as one partial sum per block.

Notation: u, delta, A, B, C, D and h are defined as in Mamba (Gu and Dao, arXiv 2312.00752, equation 2 with
the Euler input map). If `PHI` is true, the input map is that of Phase Gradient Flow (arXiv 2512.23068): the
step size is replaced by `phi(delta A)` where it multiplies `u B`. This number is called `gain`. The suffix
`_dot` marks tangents, and `_bar` marks cotangents. n is the index of a state, and c is the index of a
channel. `N` and `LANES` are the numbers of states and channels in a block; `N` is a power of two.
"""

# Functions compiled by Triton have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def, assignment, has-type, var-annotated"

from functools import partial

import triton.language as tl

from genoscan.ops.triton_gpu.arithmetic import decay, kernel, masked, phi, phi_slope

LOWEST = tl.constexpr(-87.0)
"""Lower bound that is applied to the exponent z of a decay.

Below it, exp(z) is denormal in float32 and would be flushed to 0.
"""

# If these arrays were known to be aligned, Triton would assign four neighbouring channels to each
# thread, for wider loads, and exchange values between threads at every base.
UNALIGNED = """
    A A_dot A_bar u u_dot u_bar delta delta_dot delta_bar y y_dot y_bar
    ends ends_dot totals totals_dot starts starts_dot checkpoints
"""
channel_kernel = partial(kernel, unaligned=tuple(UNALIGNED.split()))


@kernel
def _advance(h, near, factor, inflow):
    """Return the state after a step, `exp(z) h + inflow`, without loss of digits if `exp(z)` is close to 1.

    `near` and `factor` are the results of `decay(z)`.
    """
    return masked(near, h) + (factor * h + inflow)


@kernel
def _gain(step, z, near, factor, PHI: tl.constexpr):
    """Return the number that multiplies `u B` in a step: the step size or, if `PHI` is true, `phi(z)`.

    `near` and `factor` are the results of `decay(z)`.
    """
    return phi(z, near, factor) if PHI else step


@kernel
def _gain_dot(step_dot, z, z_dot, near, factor, gain, PHI: tl.constexpr):
    """Return the tangents of the results of `_gain`, along several directions."""
    return z_dot * phi_slope(z, near, factor, gain)[None, :, :] if PHI else step_dot[:, None, :]


@kernel
def _add(total, error, term):
    """Add `term` to `total` by Kahan summation; return the sum and its rounding error.

    `error` is the rounding error of the previous sum.
    """
    change = term - error
    after = total + change
    return after, (after - total) - change


@kernel
def _program(CHANNELS: tl.constexpr, STATES: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr):
    """Return the indices that this program processes, and the corresponding masks.

    The values are the chunk, the sequence, the channels `c`, the states `n`, the offsets in arrays of shape
    (states, channels), and the masks of the channels, of the states and of the offsets.
    """
    n_blocks = tl.cdiv(CHANNELS, LANES)
    chunk, batch = tl.program_id(0) // n_blocks, tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) % n_blocks * LANES + tl.arange(0, LANES)
    n = tl.arange(0, N)
    in_c, in_n = (c < CHANNELS) | (CHANNELS % LANES == 0), (n < STATES) | (STATES == N)
    at = c[None, :] + CHANNELS * n[:, None]
    return chunk, batch, c, n, at, in_c, in_n, in_n[:, None] & in_c[None, :]


@channel_kernel
def chunk_ends(
    u,
    delta,
    A,
    B,
    ends,
    totals,
    length,
    n_chunks,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    CHUNK: tl.constexpr,
    STAGES: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
    PHI: tl.constexpr,
):
    """Run the scan over each chunk from a zero initial state.

    The final states are written to `ends`, of shape (batch, chunks, states, channels). The sums of the step
    sizes are written to `totals`, of shape (batch, chunks, channels).
    """
    chunk, batch, c, n, at, in_c, in_n, in_nc = _program(CHANNELS, STATES, N, LANES)
    a = tl.load(A + at, in_nc, 0.0)
    row = batch * length + chunk * CHUNK
    u += row * CHANNELS
    delta += row * CHANNELS
    B += row * STATES
    h = tl.zeros((N, LANES), a.dtype)
    total = tl.zeros((LANES,), a.dtype)
    error = tl.zeros((LANES,), a.dtype)
    size = tl.minimum(CHUNK, length - chunk * CHUNK)
    for t in tl.range(0, size, num_stages=STAGES):
        step = tl.load(delta + t * CHANNELS + c, in_c, 0.0)
        source = tl.load(u + t * CHANNELS + c, in_c, 0.0)
        b = tl.load(B + t * STATES + n, in_n, 0.0)
        z = step[None, :] * a
        near, factor = decay(z)
        gain = _gain(step[None, :], z, near, factor, PHI)
        h = _advance(h, near, factor, b[:, None] * (gain * source[None, :]))
        total, error = _add(total, error, step)
    index = batch * n_chunks + chunk
    tl.store(totals + index * CHANNELS + c, total, in_c)
    tl.store(ends + index * STATES * CHANNELS + at, h, in_nc)


@channel_kernel
def chunk_ends_bar(
    delta,
    A,
    C,
    y_bar,
    ends,
    totals,
    length,
    n_chunks,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    CHUNK: tl.constexpr,
    STAGES: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
):
    """Compute the cotangent of the state at the start of each chunk.

    The cotangent of the state at the end of the chunk is taken to be zero. The results are written to
    `ends`, and the sums of the step sizes are written to `totals`.
    """
    chunk, batch, c, n, at, in_c, in_n, in_nc = _program(CHANNELS, STATES, N, LANES)
    a = tl.load(A + at, in_nc, 0.0)
    row = batch * length + chunk * CHUNK
    delta += row * CHANNELS
    y_bar += row * CHANNELS
    C += row * STATES
    size = tl.minimum(CHUNK, length - chunk * CHUNK)
    # The cotangent from the base on the right is `retained` + `pending`.
    retained = tl.zeros((N, LANES), a.dtype)
    pending = tl.zeros((N, LANES), a.dtype)
    total = tl.zeros((LANES,), a.dtype)
    error = tl.zeros((LANES,), a.dtype)
    for i in tl.range(0, size, num_stages=STAGES):
        t = size - 1 - i
        step = tl.load(delta + t * CHANNELS + c, in_c, 0.0)
        out_bar = tl.load(y_bar + t * CHANNELS + c, in_c, 0.0)
        c_t = tl.load(C + t * STATES + n, in_n, 0.0)
        h_bar = retained + (pending + c_t[:, None] * out_bar[None, :])
        near, factor = decay(step[None, :] * a)
        retained = masked(near, h_bar)
        pending = factor * h_bar
        total, error = _add(total, error, step)
    index = batch * n_chunks + chunk
    tl.store(totals + index * CHANNELS + c, total, in_c)
    tl.store(ends + index * STATES * CHANNELS + at, retained + pending, in_nc)


@channel_kernel
def carry(
    ends,
    totals,
    A,
    first,
    last,
    n_chunks,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    REVERSE: tl.constexpr,
    AHEAD: tl.constexpr,
    LANES: tl.constexpr,
):
    """Replace the entries of `ends` with the states at the starts of the chunks.

    On entry, `ends` contains the final states of the chunks, computed from zero initial states. `first` is
    the initial state of the tile. The final state of the tile is written to `last`. If `REVERSE` is true,
    the states are cotangents, and the chunks are processed from right to left.
    """
    width = CHANNELS * STATES
    i = tl.program_id(0) * LANES + tl.arange(0, LANES)
    batch = tl.program_id(1).to(tl.int64)
    inside = i < width
    c = i % CHANNELS
    n = i // CHANNELS
    at_state = c * STATES + n
    a = tl.load(A + i, inside, 0.0)
    h = tl.load(first + batch * width + at_state, inside, 0.0)
    error = tl.zeros((LANES,), a.dtype)
    for start in range(0, n_chunks, AHEAD):
        ends_j, total = (), ()
        for j in tl.static_range(AHEAD):
            k = start + j
            index = batch * n_chunks + (n_chunks - 1 - k if REVERSE else k)
            valid = inside & (k < n_chunks)
            ends_j += (tl.load(ends + index * width + i, valid, 0.0),)
            total += (tl.load(totals + index * CHANNELS + c, valid, 0.0),)
        for j in tl.static_range(AHEAD):
            k = start + j
            index = batch * n_chunks + (n_chunks - 1 - k if REVERSE else k)
            tl.store(ends + index * width + i, h, inside & (k < n_chunks))
            near, factor = decay(total[j] * a)
            before = masked(near, h)
            change = factor * h + ends_j[j] - masked(near, error)
            h = before + change
            error = (h - before) - change
    tl.store(last + batch * width + at_state, h, inside)


@channel_kernel
def replay(
    u,
    delta,
    A,
    B,
    C,
    D,
    starts,
    y,
    checkpoints,
    length,
    n_chunks,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    CHUNK: tl.constexpr,
    STAGES: tl.constexpr,
    CHECKPOINT_INTERVAL: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
    PHI: tl.constexpr,
):
    """Run the scan over each chunk from the state at its start, and write the outputs to `y`.

    Unless `checkpoints` is None, the state before every `CHECKPOINT_INTERVAL`-th base is written to it. The shape of
    `checkpoints` is (batch, checkpoints, states, channels).
    """
    chunk, batch, c, n, at, in_c, in_n, in_nc = _program(CHANNELS, STATES, N, LANES)
    a = tl.load(A + at, in_nc, 0.0)
    d = tl.load(D + c, in_c, 0.0)
    h = tl.load(starts + (batch * n_chunks + chunk) * STATES * CHANNELS + at, in_nc, 0.0)
    row = batch * length + chunk * CHUNK
    u += row * CHANNELS
    delta += row * CHANNELS
    y += row * CHANNELS
    B += row * STATES
    C += row * STATES
    checkpoint = batch * tl.cdiv(length, CHECKPOINT_INTERVAL) + chunk * (CHUNK // CHECKPOINT_INTERVAL)
    size = tl.minimum(CHUNK, length - chunk * CHUNK)
    for t in tl.range(0, size, num_stages=STAGES):
        if checkpoints is not None:  # noqa: SIM102 -- resolved at compile time, unlike the next
            if t % CHECKPOINT_INTERVAL == 0:
                tl.store(checkpoints + (checkpoint + t // CHECKPOINT_INTERVAL) * STATES * CHANNELS + at, h, in_nc)
        step = tl.load(delta + t * CHANNELS + c, in_c, 0.0)
        source = tl.load(u + t * CHANNELS + c, in_c, 0.0)
        b = tl.load(B + t * STATES + n, in_n, 0.0)
        c_t = tl.load(C + t * STATES + n, in_n, 0.0)
        z = step[None, :] * a
        near, factor = decay(z)
        gain = _gain(step[None, :], z, near, factor, PHI)
        h = _advance(h, near, factor, b[:, None] * (gain * source[None, :]))
        out = tl.sum(c_t[:, None] * h, 0) + d * source
        tl.store(y + t * CHANNELS + c, out, in_c)


@kernel
def _load_slabs(array, c, n, in_n, CHANNELS: tl.constexpr, E: tl.constexpr, LANES: tl.constexpr):
    """Load a block of an array of shape (states, channels) as a block of shape (`E`, states, `LANES`).

    Each thread processes `E` channels. The block is loaded in `E` parts (slabs) because the layout of a
    single load would depend on the version of Triton.
    """
    slab = tl.arange(0, E)[:, None, None]
    for e in tl.static_range(E):
        in_c = (c + e * LANES < CHANNELS) | (CHANNELS % (E * LANES) == 0)
        at = c[None, :] + e * LANES + CHANNELS * n[:, None]
        read = tl.load(array + at, in_n[:, None] & in_c[None, :], 0.0)[None, :, :]
        value = read if e == 0 else tl.where(slab == e, read, value)  # noqa: F821 (bound at e = 0)
    return value


@channel_kernel
def replay_bar(
    u,
    delta,
    A,
    B,
    C,
    D,
    checkpoints,
    y_bar,
    starts,
    u_bar,
    delta_bar,
    B_bar,
    C_bar,
    A_bar,
    D_bar,
    length,
    n_chunks,
    n_rows,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    CHUNK: tl.constexpr,
    CHECKPOINT_INTERVAL: tl.constexpr,
    BASES_IN_REGISTERS: tl.constexpr,
    E: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
    PHI: tl.constexpr,
):
    """Run each chunk from right to left, starting with the cotangent of the state at its end.

    The cotangents of `u` and `delta` are written to `u_bar` and `delta_bar`. Partial sums for blocks of
    channels are written to `B_bar` and `C_bar`, of shape (blocks, batch x tile, states). Partial sums for
    chunks are written to `A_bar`, of shape (batch x chunks, states, channels), and to `D_bar`, of shape
    (batch x chunks, channels), unless these are None. On entry, `starts` contains the cotangents of the
    states at the ends of the chunks. Blocks of values in registers have three axes: `E` slabs, `N` states,
    and `LANES` channels per slab.
    """
    n_blocks = tl.cdiv(CHANNELS, E * LANES)
    chunk, batch = tl.program_id(0) // n_blocks, tl.program_id(1).to(tl.int64)
    block = tl.program_id(0) % n_blocks
    first_c = block * E * LANES + tl.arange(0, LANES)
    c = first_c[None, :] + LANES * tl.arange(0, E)[:, None]
    n = tl.arange(0, N)
    in_c, in_n = (c < CHANNELS) | (CHANNELS % (E * LANES) == 0), (n < STATES) | (STATES == N)
    a = _load_slabs(A, first_c, n, in_n, CHANNELS, E, LANES)
    d = tl.load(D + c, in_c, 0.0)
    index = batch * n_chunks + chunk
    starts += index * STATES * CHANNELS
    retained = _load_slabs(starts, first_c, n, in_n, CHANNELS, E, LANES)
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
    checkpoints += (
        (batch * tl.cdiv(length, CHECKPOINT_INTERVAL) + chunk * (CHUNK // CHECKPOINT_INTERVAL)) * STATES * CHANNELS
    )
    n_subs = tl.cdiv(size, BASES_IN_REGISTERS)
    for i_sub in range(n_subs):
        first = (n_subs - 1 - i_sub) * BASES_IN_REGISTERS
        checkpoint = checkpoints + first // CHECKPOINT_INTERVAL * STATES * CHANNELS
        h = _load_slabs(checkpoint, first_c, n, in_n, CHANNELS, E, LANES)
        for t in range(first // CHECKPOINT_INTERVAL * CHECKPOINT_INTERVAL, first):
            step = tl.load(delta + t * CHANNELS + c, in_c, 0.0)
            source = tl.load(u + t * CHANNELS + c, in_c, 0.0)
            b = tl.load(B + t * STATES + n, in_n, 0.0)
            z = step[:, None, :] * a
            near, factor = decay(z)
            gain = _gain(step[:, None, :], z, near, factor, PHI)
            h = _advance(h, near, factor, b[None, :, None] * (gain * source[:, None, :]))
        # Row offsets from here are compile-time constants, so that addresses take no registers.
        at_c, at_n = first * CHANNELS + c, first * STATES + n
        befores, factors = (), ()
        for t in tl.static_range(BASES_IN_REGISTERS):
            # Past the end, steps of size zero have no effect.
            valid = first + t < size
            step = tl.load(delta + at_c + t * CHANNELS, in_c & valid, 0.0)
            source = tl.load(u + at_c + t * CHANNELS, in_c & valid, 0.0)
            b = tl.load(B + at_n + t * STATES, in_n & valid, 0.0)
            z = step[:, None, :] * a
            near, factor = decay(tl.maximum(z, LOWEST, tl.PropagateNan.ALL))
            befores += (h,)
            factors += (factor,)
            gain = _gain(step[:, None, :], z, near, factor, PHI)
            h = _advance(h, near, factor, b[None, :, None] * (gain * source[:, None, :]))
        for t in tl.static_range(BASES_IN_REGISTERS - 1, -1, -1):
            valid = first + t < size
            step = tl.load(delta + at_c + t * CHANNELS, in_c & valid, 0.0)
            source = tl.load(u + at_c + t * CHANNELS, in_c & valid, 0.0)
            out_bar = tl.load(y_bar + at_c + t * CHANNELS, in_c & valid, 0.0)
            b = tl.load(B + at_n + t * STATES, in_n & valid, 0.0)[None, :, None]
            c_t = tl.load(C + at_n + t * STATES, in_n & valid, 0.0)[None, :, None]
            before, factor = befores[t], factors[t]
            h_bar = retained + (pending + c_t * out_bar[:, None, :])
            near = factor <= 0
            z_bar = h_bar * (masked(near, before) + factor * before)
            retained = masked(near, h_bar)
            pending = factor * h_bar
            if PHI:
                z = step[:, None, :] * a
                gain = phi(z, near, factor)
                z_bar += phi_slope(z, near, factor, gain) * (h_bar * (b * source[:, None, :]))
                sum_b = tl.sum(gain * h_bar * b, 1)
                part_b = tl.sum(tl.sum(gain * h_bar * source[:, None, :], 0), 1)
                source_bar, step_bar = sum_b, tl.sum(z_bar * a, 1)
            else:
                sum_b = tl.sum(h_bar * b, 1)
                part_b = tl.sum(tl.sum(h_bar * (step * source)[:, None, :], 0), 1)
                source_bar, step_bar = sum_b * step, tl.sum(z_bar * a, 1) + sum_b * source
            part_c = tl.sum(tl.sum(h * out_bar[:, None, :], 0), 1)
            tl.store(u_bar + at_c + t * CHANNELS, source_bar + d * out_bar, in_c & valid)
            tl.store(delta_bar + at_c + t * CHANNELS, step_bar, in_c & valid)
            tl.store(B_bar + at_n + t * STATES, part_b, in_n & valid)
            tl.store(C_bar + at_n + t * STATES, part_c, in_n & valid)
            if A_bar is not None:
                sum_a += z_bar * step[:, None, :]
            if D_bar is not None:
                sum_d += out_bar * source
            h = before
    if A_bar is not None:
        at = c[:, None, :] + CHANNELS * n[None, :, None]
        in_cn = in_c[:, None, :] & in_n[None, :, None]
        tl.store(A_bar + index * STATES * CHANNELS + at, sum_a, in_cn)
    if D_bar is not None:
        tl.store(D_bar + index * CHANNELS + c, sum_d, in_c)


@channel_kernel
def chunk_ends_dot(
    u,
    delta,
    A,
    B,
    u_dot,
    delta_dot,
    A_dot,
    B_dot,
    ends,
    totals,
    ends_dot,
    totals_dot,
    length,
    n_chunks,
    n_directions,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    CHUNK: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
    PHI: tl.constexpr,
):
    """Run the scan over each chunk as `chunk_ends` does, together with the tangents along `G` directions.

    The states and tangents are zero at the start of each chunk.
    """
    chunk, batch, c, n, at, in_c, in_n, in_nc = _program(CHANNELS, STATES, N, LANES)
    g = tl.program_id(2) * G + tl.arange(0, G)
    in_g = g < n_directions
    in_gc = in_g[:, None] & in_c[None, :]
    in_gn, in_gnc = in_g[:, None] & in_n[None, :], in_g[:, None, None] & in_nc[None, :, :]
    a = tl.load(A + at, in_nc, 0.0)
    if A_dot is not None:
        a_dot = tl.load(A_dot + g[:, None, None] * (CHANNELS * STATES) + at[None, :, :], in_gnc, 0.0)
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
    error = tl.zeros((LANES,), a.dtype)
    total_dot = tl.zeros((G, LANES), a.dtype)
    error_dot = tl.zeros((G, LANES), a.dtype)
    for t in range(tl.minimum(CHUNK, length - chunk * CHUNK)):
        step = tl.load(delta + t * CHANNELS + c, in_c, 0.0)
        source = tl.load(u + t * CHANNELS + c, in_c, 0.0)
        b = tl.load(B + t * STATES + n, in_n, 0.0)
        step_dot = tl.load(delta_dot + t * CHANNELS, in_gc, 0.0)
        source_dot = tl.load(u_dot + t * CHANNELS, in_gc, 0.0)
        b_dot = tl.load(B_dot + t * STATES, in_gn, 0.0)
        z = step[None, :] * a
        near, factor = decay(z)
        z_dot = step_dot[:, None, :] * a[None, :, :]
        if A_dot is not None:
            z_dot += step[None, None, :] * a_dot
        gain = _gain(step[None, :], z, near, factor, PHI)
        gain_dot = _gain_dot(step_dot, z, z_dot, near, factor, gain, PHI)
        inflow = gain * source[None, :]
        inflow_dot = gain_dot * source[None, None, :] + gain[None, :, :] * source_dot[:, None, :]
        change = z_dot * (masked(near, h) + factor * h)[None, :, :]
        change += b[None, :, None] * inflow_dot + b_dot[:, :, None] * inflow[None, :, :]
        h_dot = _advance(h_dot, near[None, :, :], factor[None, :, :], change)
        h = _advance(h, near, factor, b[:, None] * inflow)
        total, error = _add(total, error, step)
        total_dot, error_dot = _add(total_dot, error_dot, step_dot)
    index = batch * n_chunks + chunk
    index_dot = g.to(tl.int64) * tl.num_programs(1) * n_chunks + index
    tl.store(totals_dot + index_dot[:, None] * CHANNELS + c[None, :], total_dot, in_gc)
    at_dot = index_dot[:, None, None] * (STATES * CHANNELS) + at[None, :, :]
    tl.store(ends_dot + at_dot, h_dot, in_gnc)
    if tl.program_id(2) == 0:
        tl.store(totals + index * CHANNELS + c, total, in_c)
        tl.store(ends + index * STATES * CHANNELS + at, h, in_nc)


@channel_kernel
def carry_dot(
    starts,
    totals,
    ends_dot,
    totals_dot,
    A,
    A_dot,
    first,
    last,
    n_chunks,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    AHEAD: tl.constexpr,
    LANES: tl.constexpr,
):
    """Replace the entries of `ends_dot` with the tangents of the states at the starts of the chunks.

    `starts` contains these states; it is computed by `carry`, which must be launched first. `first` is the
    tangent of the initial state of the tile. The tangent of the final state is written to `last`.
    """
    width = CHANNELS * STATES
    i = tl.program_id(0) * LANES + tl.arange(0, LANES)
    batch, direction = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    inside = i < width
    c = i % CHANNELS
    n = i // CHANNELS
    a = tl.load(A + i, inside, 0.0)
    if A_dot is not None:
        a_dot = tl.load(A_dot + direction * width + i, inside, 0.0)
    batch_dot = direction * tl.num_programs(1) + batch
    at_state = batch_dot * width + c * STATES + n
    h_dot = tl.load(first + at_state, inside, 0.0)
    error = tl.zeros((LANES,), a.dtype)
    for start in range(0, n_chunks, AHEAD):
        ends_j, before, total, total_dot = (), (), (), ()
        for j in tl.static_range(AHEAD):
            valid = inside & (start + j < n_chunks)
            index = batch * n_chunks + start + j
            index_dot = batch_dot * n_chunks + start + j
            ends_j += (tl.load(ends_dot + index_dot * width + i, valid, 0.0),)
            before += (tl.load(starts + index * width + i, valid, 0.0),)
            total += (tl.load(totals + index * CHANNELS + c, valid, 0.0),)
            total_dot += (tl.load(totals_dot + index_dot * CHANNELS + c, valid, 0.0),)
        for j in tl.static_range(AHEAD):
            index_dot = batch_dot * n_chunks + start + j
            tl.store(ends_dot + index_dot * width + i, h_dot, inside & (start + j < n_chunks))
            near, factor = decay(total[j] * a)
            z_dot = total_dot[j] * a
            if A_dot is not None:
                z_dot += total[j] * a_dot
            inflow = ends_j[j] + z_dot * (masked(near, before[j]) + factor * before[j])
            retained = masked(near, h_dot)
            change = factor * h_dot + inflow - masked(near, error)
            h_dot = retained + change
            error = (h_dot - retained) - change
    tl.store(last + at_state, h_dot, inside)


@channel_kernel
def replay_dot(
    u,
    delta,
    A,
    B,
    C,
    D,
    u_dot,
    delta_dot,
    A_dot,
    B_dot,
    C_dot,
    D_dot,
    starts,
    starts_dot,
    y,
    y_dot,
    length,
    n_chunks,
    n_directions,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    CHUNK: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
    PHI: tl.constexpr,
):
    """Run the scan over each chunk as `replay` does, and write the outputs to `y`.

    The tangents of the outputs along `G` directions are computed at the same time and written to `y_dot`.
    """
    chunk, batch, c, n, at, in_c, in_n, in_nc = _program(CHANNELS, STATES, N, LANES)
    g = tl.program_id(2) * G + tl.arange(0, G)
    in_g = g < n_directions
    in_gc = in_g[:, None] & in_c[None, :]
    in_gn, in_gnc = in_g[:, None] & in_n[None, :], in_g[:, None, None] & in_nc[None, :, :]
    a = tl.load(A + at, in_nc, 0.0)
    d = tl.load(D + c, in_c, 0.0)
    if A_dot is not None:
        a_dot = tl.load(A_dot + g[:, None, None] * (CHANNELS * STATES) + at[None, :, :], in_gnc, 0.0)
    if D_dot is not None:
        d_dot = tl.load(D_dot + g[:, None] * CHANNELS + c[None, :], in_gc, 0.0)
    index = batch * n_chunks + chunk
    index_dot = g.to(tl.int64) * tl.num_programs(1) * n_chunks + index
    h = tl.load(starts + index * STATES * CHANNELS + at, in_nc, 0.0)
    at_dot = index_dot[:, None, None] * (STATES * CHANNELS) + at[None, :, :]
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
        z = step[None, :] * a
        near, factor = decay(z)
        z_dot = step_dot[:, None, :] * a[None, :, :]
        if A_dot is not None:
            z_dot += step[None, None, :] * a_dot
        gain = _gain(step[None, :], z, near, factor, PHI)
        gain_dot = _gain_dot(step_dot, z, z_dot, near, factor, gain, PHI)
        inflow = gain * source[None, :]
        inflow_dot = gain_dot * source[None, None, :] + gain[None, :, :] * source_dot[:, None, :]
        change = z_dot * (masked(near, h) + factor * h)[None, :, :]
        change += b[None, :, None] * inflow_dot + b_dot[:, :, None] * inflow[None, :, :]
        h_dot = _advance(h_dot, near[None, :, :], factor[None, :, :], change)
        h = _advance(h, near, factor, b[:, None] * inflow)
        out_dot = tl.sum(c_t[None, :, None] * h_dot + c_dot[:, :, None] * h[None, :, :], 1)
        out_dot += d[None, :] * source_dot
        if D_dot is not None:
            out_dot += d_dot * source[None, :]
        tl.store(y_dot + t * CHANNELS, out_dot, in_gc)
        if tl.program_id(2) == 0:
            out = tl.sum(c_t[:, None] * h, 0) + d * source
            tl.store(y + t * CHANNELS + c, out, in_c)
