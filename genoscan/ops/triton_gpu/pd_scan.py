"""The permutation-diagonal scan on the GPU, in three kernels that process a tile in chunks.

    chunks   composes the steps of each chunk into one step: a map, a diagonal and an inflow
    starts   computes the state at the start of each chunk, sequentially along the chunks
    states   runs each chunk again, from the state at its start

The composition of two steps is again a step. Its map is the map of the second step indexed with the map of
the first step (Flash PD-SSM, arXiv 2605.19150). Cotangents are computed from right to left; in this
direction, every step is a gather. From left to right, several states may have the same destination. The new
value of a state is then a sum over all states, masked by destination. If every map is a permutation, each
step is instead a gather with the inverse map.

Each program processes one head of one sequence, with the states of the head along the lanes. The notation
is that of `reference.pd_scan`: `d` is the decay, `b` is the inflow, `x` is the state, and `p` contains the
destinations of the states. `q` is the index of a state. The suffixes `_re` and `_im` mark real and
imaginary parts.
"""

# Functions compiled by Triton have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def, assignment, has-type, var-annotated"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from genoscan.errors import InputError
from genoscan.ops import reference
from genoscan.ops.pd_scan import check_indices, remembered
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors
from genoscan.ops.triton_gpu.arithmetic import contiguous, contiguous_tangents, kernel, launch

CHUNK = 128
"""Number of bases per chunk; this value is the fastest in the Flash PD-SSM paper."""

_MOST_STATES = 1_024
"""Triton permits blocks of 2^20 elements, and states are compared with all destinations."""


@kernel
def _load(pointer, q, in_q, N: tl.constexpr):
    """Load the real and imaginary parts of a row of states."""
    return tl.load(pointer + q, in_q, 0.0), tl.load(pointer + N + q, in_q, 0.0)


@kernel
def _store(pointer, re, im, q, in_q, N: tl.constexpr):
    tl.store(pointer + q, re, in_q)
    tl.store(pointer + N + q, im, in_q)


@kernel
def _multiply(a_re, a_im, b_re, b_im):
    return a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re


@kernel
def _move(p, q, re, im, PERMUTE: tl.constexpr):
    """Return complex values moved to their destinations `p`; values with the same destination are added.

    If `PERMUTE` is true, the values are instead gathered from the sources `p`. `q` contains the indices of
    the states.
    """
    if PERMUTE:
        return tl.gather(re, p, 0), tl.gather(im, p, 0)
    hit = p[None, :] == q[:, None]
    return tl.sum(tl.where(hit, re[None, :], 0.0), 1), tl.sum(tl.where(hit, im[None, :], 0.0), 1)


@kernel
def _step(decay, inflow, decay_dot, x, p, x_re, x_im, at_d, at_b, q, in_q, N: tl.constexpr, PERMUTE: tl.constexpr):
    """Return the state after a step or, if `decay_dot` is not None, the tangent of this state.

    In the latter case, the arguments `inflow`, `x_re` and `x_im` are tangents, and `x` contains the states
    before each step.
    """
    d_re, d_im = _load(decay + at_d, q, in_q, N)
    re, im = _multiply(d_re, d_im, x_re, x_im)
    if decay_dot is not None:
        e_re, e_im = _load(decay_dot + at_b, q, in_q, N)
        y_re, y_im = _load(x + at_d, q, in_q, N)
        dot_re, dot_im = _multiply(e_re, e_im, y_re, y_im)
        re += dot_re
        im += dot_im
    re, im = _move(p, q, re, im, PERMUTE)
    b_re, b_im = _load(inflow + at_b, q, in_q, N)
    return re + b_re, im + b_im


@kernel
def _program(
    route,
    maps,
    length,
    n_chunks,
    n_batch,
    HEADS: tl.constexpr,
    MAPS: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
):
    """Return the indices and pointers of this program.

    The values are the chunk, the head, the row of the inflows, the sequence of the decays, the states, the mask
    of the states, and pointers to the route and the maps of the head. All programs are on the first axis of the
    grid, because the others are limited to 65,535.
    """
    chunk, head = tl.program_id(0) % n_chunks, tl.program_id(0) // n_chunks % HEADS
    row = (tl.program_id(0) // n_chunks // HEADS).to(tl.int64)
    q = tl.arange(0, LANES)
    in_q = (q < N) | (N == LANES)
    batch = row % n_batch
    return chunk, head, row, batch, q, in_q, route + batch * length * HEADS + head, maps + head * MAPS * N


@kernel
def _load_map(route, maps, t, q, in_q, HEADS: tl.constexpr, N: tl.constexpr):
    """Load the map selected at step `t`; lanes that have no state are mapped to themselves."""
    k = tl.load(route + t * HEADS).to(tl.int64)
    return tl.where(in_q, tl.load(maps + k * N + q, in_q, 0).to(tl.int32), q)


@kernel
def _chunks(
    decay,
    inflow,
    decay_dot,
    x,
    route,
    maps,
    inverses,
    p_end,
    d_end,
    b_end,
    length,
    n_chunks,
    n_batch,
    HEADS: tl.constexpr,
    MAPS: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
    PERMUTE: tl.constexpr,
):
    """Compose the steps of each chunk into one step.

    The map of the composed step is written to `p_end`, of shape (rows, chunks, heads, states). The diagonal
    and the inflow are written to `d_end` and `b_end`, of shape (rows, chunks, heads, 2, states), where the
    axis of size 2 separates real and imaginary parts.
    """
    chunk, head, row, batch, q, in_q, route, maps = _program(
        route, maps, length, n_chunks, n_batch, HEADS, MAPS, N, LANES
    )
    inverses += head * MAPS * N
    p, d_re, d_im = q, tl.where(in_q, 1.0, 0.0).to(decay.dtype.element_ty), 0.0 * q
    d_im = d_im.to(d_re.dtype)
    b_re, b_im = 0.0 * d_re, 0.0 * d_re
    for i in range(tl.minimum(CHUNK, length - chunk * CHUNK)):
        t = chunk * CHUNK + i
        at_d, at_b = _offsets(batch, row, t, head, length, HEADS, N)
        p_t = _load_map(route, maps, t, q, in_q, HEADS, N)
        c_re, c_im = _load(decay + at_d, q, in_q, N)
        d_re, d_im = _multiply(tl.gather(c_re, p, 0), tl.gather(c_im, p, 0), d_re, d_im)
        move = _load_map(route, inverses, t, q, in_q, HEADS, N) if PERMUTE else p_t
        b_re, b_im = _step(decay, inflow, decay_dot, x, move, b_re, b_im, at_d, at_b, q, in_q, N, PERMUTE)
        p = tl.gather(p_t, p, 0)
    at = ((row * n_chunks + chunk) * HEADS + head) * N
    tl.store(p_end + at + q, p, in_q)
    _store(d_end + 2 * at, d_re, d_im, q, in_q, N)
    _store(b_end + 2 * at, b_re, b_im, q, in_q, N)


@kernel
def _offsets(batch, row, t, head, length, HEADS: tl.constexpr, N: tl.constexpr):
    """Return the offsets of a step in the array of decays and in the array of inflows."""
    at_d = ((batch * length + t) * HEADS + head) * 2 * N
    at_b = ((row * length + t) * HEADS + head) * 2 * N
    return at_d, at_b


@kernel
def _starts(
    p_end,
    d_end,
    b_end,
    starts,
    first,
    last,
    n_chunks,
    HEADS: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
    REVERSE: tl.constexpr,
):
    """Write the states at the starts of the chunks to `starts`, of the shape of `b_end`.

    They must not replace `b_end`: with few states, several warps load the same addresses, and one may store before
    another has loaded.

    `first` is the initial state. The final state is written to `last`. If `REVERSE` is true, the states are
    cotangents, and the chunks are processed from right to left.
    """
    head, row = tl.program_id(0) % HEADS, (tl.program_id(0) // HEADS).to(tl.int64)
    q = tl.arange(0, LANES)
    in_q = (q < N) | (N == LANES)
    at_state = (row * HEADS + head) * 2 * N
    re, im = _load(first + at_state, q, in_q, N)
    for i in range(n_chunks):
        chunk = n_chunks - 1 - i if REVERSE else i
        at = ((row * n_chunks + chunk) * HEADS + head) * N
        p = tl.where(in_q, tl.load(p_end + at + q, in_q, 0), q)
        d_re, d_im = _load(d_end + 2 * at, q, in_q, N)
        b_re, b_im = _load(b_end + 2 * at, q, in_q, N)
        _store(starts + 2 * at, re, im, q, in_q, N)
        if REVERSE:
            re, im = _multiply(d_re, d_im, tl.gather(re, p, 0), tl.gather(im, p, 0))
        else:
            re, im = _multiply(d_re, d_im, re, im)
            re, im = _move(p, q, re, im, False)
        re += b_re
        im += b_im
    _store(last + at_state, re, im, q, in_q, N)


@kernel
def _states(
    decay,
    inflow,
    decay_dot,
    x,
    route,
    maps,
    starts,
    out,
    length,
    n_chunks,
    n_batch,
    HEADS: tl.constexpr,
    MAPS: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
    PERMUTE: tl.constexpr,
):
    """Compute the states after each step of a chunk from the state at its start, and write them to `out`.

    If `PERMUTE` is true, `maps` contains the inverse maps.
    """
    chunk, head, row, batch, q, in_q, route, maps = _program(
        route, maps, length, n_chunks, n_batch, HEADS, MAPS, N, LANES
    )
    re, im = _load(starts + ((row * n_chunks + chunk) * HEADS + head) * 2 * N, q, in_q, N)
    for i in range(tl.minimum(CHUNK, length - chunk * CHUNK)):
        t = chunk * CHUNK + i
        at_d, at_b = _offsets(batch, row, t, head, length, HEADS, N)
        p = _load_map(route, maps, t, q, in_q, HEADS, N)
        re, im = _step(decay, inflow, decay_dot, x, p, re, im, at_d, at_b, q, in_q, N, PERMUTE)
        _store(out + at_b, re, im, q, in_q, N)


@kernel
def _chunks_bar(
    decay,
    x_bar,
    route,
    maps,
    p_end,
    d_end,
    b_end,
    length,
    n_chunks,
    n_batch,
    HEADS: tl.constexpr,
    MAPS: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
):
    """Compose the vjps of the steps of each chunk, from right to left.

    Each vjp, and their composition, maps a cotangent `bar` to `d bar[p] + b`. The composed `p`, `d` and `b`
    are written to `p_end`, `d_end` and `b_end`.
    """
    chunk, head, row, batch, q, in_q, route, maps = _program(
        route, maps, length, n_chunks, n_batch, HEADS, MAPS, N, LANES
    )
    p, d_re = q, tl.where(in_q, 1.0, 0.0).to(decay.dtype.element_ty)
    d_im, b_re, b_im = 0.0 * d_re, 0.0 * d_re, 0.0 * d_re
    n_steps = tl.minimum(CHUNK, length - chunk * CHUNK)
    for i in range(n_steps):
        t = chunk * CHUNK + n_steps - 1 - i
        at_d, _ = _offsets(batch, row, t, head, length, HEADS, N)
        p_t = _load_map(route, maps, t, q, in_q, HEADS, N)
        c_re, c_im = _load(decay + at_d, q, in_q, N)
        y_re, y_im = _load(x_bar + at_d, q, in_q, N)
        d_re, d_im = _multiply(c_re, -c_im, tl.gather(d_re, p_t, 0), tl.gather(d_im, p_t, 0))
        b_re, b_im = _multiply(c_re, -c_im, tl.gather(b_re + y_re, p_t, 0), tl.gather(b_im + y_im, p_t, 0))
        p = tl.gather(p, p_t, 0)
    at = ((row * n_chunks + chunk) * HEADS + head) * N
    tl.store(p_end + at + q, p, in_q)
    _store(d_end + 2 * at, d_re, d_im, q, in_q, N)
    _store(b_end + 2 * at, b_re, b_im, q, in_q, N)


@kernel
def _states_bar(
    decay,
    x,
    x_bar,
    state,
    route,
    maps,
    ends,
    decay_bar,
    inflow_bar,
    length,
    n_chunks,
    n_batch,
    HEADS: tl.constexpr,
    MAPS: tl.constexpr,
    CHUNK: tl.constexpr,
    N: tl.constexpr,
    LANES: tl.constexpr,
):
    """Write the cotangents of the decays and inflows of each chunk.

    `ends` contains the cotangents of the final states of the chunks.
    """
    chunk, head, row, batch, q, in_q, route, maps = _program(
        route, maps, length, n_chunks, n_batch, HEADS, MAPS, N, LANES
    )
    re, im = _load(ends + ((row * n_chunks + chunk) * HEADS + head) * 2 * N, q, in_q, N)
    n_steps = tl.minimum(CHUNK, length - chunk * CHUNK)
    for i in range(n_steps):
        t = chunk * CHUNK + n_steps - 1 - i
        at_d, _ = _offsets(batch, row, t, head, length, HEADS, N)
        y_re, y_im = _load(x_bar + at_d, q, in_q, N)
        re += y_re
        im += y_im
        _store(inflow_bar + at_d, re, im, q, in_q, N)
        p = _load_map(route, maps, t, q, in_q, HEADS, N)
        re, im = tl.gather(re, p, 0), tl.gather(im, p, 0)
        if t > 0:
            b_re, b_im = _load(x + at_d - 2 * HEADS * N, q, in_q, N)
        else:
            b_re, b_im = _load(state + (batch * HEADS + head) * 2 * N, q, in_q, N)
        c_re, c_im = _multiply(b_re, -b_im, re, im)
        _store(decay_bar + at_d, c_re, c_im, q, in_q, N)
        d_re, d_im = _load(decay + at_d, q, in_q, N)
        re, im = _multiply(d_re, -d_im, re, im)


def _sizes(decay: Tensor, maps: Tensor) -> dict[str, int]:
    """Return the compile-time sizes with which the kernels are launched."""
    heads, n_maps, n_states = maps.shape
    if n_states > _MOST_STATES:
        raise InputError(f"{n_states:,} states per head: expected at most {_MOST_STATES:,} on a GPU")
    lanes = max(2, triton.next_power_of_2(n_states))
    return {"HEADS": heads, "MAPS": n_maps, "CHUNK": CHUNK, "N": n_states, "LANES": lanes}


def _allocate_chunks(rows: int, decay: Tensor, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Allocate the maps, diagonals and inflows of the composed steps of all chunks, uninitialised."""
    heads, _, n_states = maps.shape
    p = maps.new_empty(rows, triton.cdiv(decay.shape[1], CHUNK), heads, n_states, dtype=torch.int32)
    d = decay.new_empty(*p.shape[:3], 2, n_states)
    return p, d, torch.empty_like(d)


@remembered
def _moves_of(maps: Tensor) -> tuple[Tensor, bool]:
    """Return the maps and False or, if every map is a permutation, the inverse maps and True.

    Maps that are out of range are an error.
    """
    n_states = maps.shape[-1]
    check_indices("maps", maps, n_states)
    inverses = maps.long().argsort(-1)
    identity = torch.arange(n_states, device=maps.device).expand_as(inverses)
    if torch.equal(maps.long().gather(-1, inverses), identity):
        return inverses.to(maps.dtype), True
    return maps.detach().contiguous(), False


def _in_range(route: Tensor, maps: Tensor) -> Tensor:
    """Return the route with all indices clamped to the valid range, as required by the kernels."""
    return route.contiguous().clamp(0, maps.shape[1] - 1)


def _run(
    decay: Tensor,
    inflow: Tensor,
    state: Tensor,
    route: Tensor,
    maps: Tensor,
    decay_dot: Tensor | None = None,
    before: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the states after each step, and the final state.

    If `decay_dot` is given, the tangents of these states are returned instead. In this case, `before`
    contains the states before each step, and `inflow` and `state` are also tangents, with one row for each
    direction and sequence.
    """
    rows, length, heads = inflow.shape[:3]
    moves, permuted = _moves_of(maps)
    sizes = _sizes(decay, maps) | {"PERMUTE": permuted}
    chunks = p, d, b = _allocate_chunks(rows, decay, maps)
    inputs = decay, inflow, decay_dot, before, route
    grid, lengths = (p.shape[1] * rows * heads,), (length, p.shape[1], len(decay))
    launch(_chunks, grid, *inputs, maps.contiguous(), moves, *chunks, *lengths, **sizes)
    end, out = torch.empty_like(state), torch.empty_like(inflow)
    starts = _carry_chunks(p, d, b, state, end, reverse=False)
    launch(_states, grid, *inputs, moves, starts, out, *lengths, **sizes)
    return out, end


def _carry_chunks(p: Tensor, d: Tensor, b: Tensor, first: Tensor, last: Tensor, *, reverse: bool) -> Tensor:
    """Return the states at the starts of the chunks.

    `first` is the initial state. The final state is written to `last`. If `reverse` is true, the states are
    cotangents, and the chunks are processed from right to left.
    """
    rows, n_chunks, heads, n_states = p.shape
    lanes = max(2, triton.next_power_of_2(n_states))
    sizes = {"HEADS": heads, "N": n_states, "LANES": lanes, "REVERSE": reverse}
    starts = torch.empty_like(b)
    launch(_starts, (rows * heads,), p, d, b, starts, first, last, n_chunks, **sizes)
    return starts


def _forward(given: Tensors, *, save: bool, route: Tensor, maps: Tensor) -> tuple[Tensors, Tensors]:
    decay, inflow, state = contiguous(given)
    within = _in_range(route, maps)
    # NaN rather than a message, which would wait for the GPU at every tile.
    state = torch.where((within == route).all(), state, torch.nan)
    states, end = _run(decay, inflow, state, within, maps)
    return (states, end), (states,) if save else ()


def _vjp(
    given: Tensors, saved: Tensors, bars: Tensors, _needs: Flags, *, route: Tensor, maps: Tensor
) -> OptionalTensors:
    decay, _, state, x, x_bar, end_bar = contiguous((*given, *saved, *bars))
    route, maps = _in_range(route, maps), maps.contiguous()
    batch, length, heads = decay.shape[:3]
    sizes = _sizes(decay, maps)
    p, d, b = _allocate_chunks(batch, decay, maps)
    grid, lengths = (p.shape[1] * batch * heads,), (length, p.shape[1], batch)
    launch(_chunks_bar, grid, decay, x_bar, route, maps, p, d, b, *lengths, **sizes)
    decay_bar, inflow_bar, state_bar = map(torch.empty_like, (decay, decay, state))
    starts = _carry_chunks(p, d, b, end_bar, state_bar, reverse=True)
    arguments = decay, x, x_bar, state, route, maps, starts, decay_bar, inflow_bar
    launch(_states_bar, grid, *arguments, *lengths, **sizes)
    return decay_bar, inflow_bar, state_bar


def _jvp(given: Tensors, tangents: OptionalTensors, *, route: Tensor, maps: Tensor) -> tuple[Tensors, Tensors]:
    (states, end), _ = _forward(given, save=False, route=route, maps=maps)
    decay, _, state = contiguous(given)
    route = _in_range(route, maps)
    dots: tuple[Any, ...] = contiguous_tangents(given, tangents)
    decay_dot, inflow_dot, state_dot = (dot.flatten(0, 1) for dot in dots)
    before = torch.cat([state[:, None], states[:, :-1]], 1)
    found = _run(decay, inflow_dot, state_dot, route, maps, decay_dot, before)
    count = len(dots[0])
    return (states, end), tuple(part.unflatten(0, (count, -1)) for part in found)


PD_SCAN = Primitive(_forward, _jvp, _vjp, reference.pd_scan, outputs=2)
