"""The permutation-diagonal scan's three rules on the GPU: time in chunks, three kernels a rule.

    chunks   each chunk as one step: where every state goes, times what, and what is added
    starts   along the chunks: the state each of them starts with
    states   each chunk again, from the state it starts with

That a step is a map and a diagonal is what makes a chunk one too: maps compose by looking one up
in the other (Flash PD-SSM, arXiv 2605.19150).  From right to left, where cotangents go, nothing
ever meets, and every rule is a look-up.  From left to right states may meet: the numbers that a
state receives are summed over all that might send one, unless every map is a permutation, whose
inverse is looked up instead.

A program is one head of one sequence; its states lie along the lanes.  Letters as in
`reference.pd_scan`: d decay, b inflow, x state, p where states go; (re, im) planes.
"""

# What Triton compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, assignment, has-type, var-annotated"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from genoscan.ops import reference
from genoscan.ops.pd_scan import check_indices
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors
from genoscan.ops.triton_gpu.arithmetic import kernel, launch, moving, pieces, whole

CHUNK = 128
"""Bases a chunk, as many as served Flash PD-SSM best."""


@kernel
def _load(pointer, q, in_q, N: tl.constexpr):
    """Return both planes of a row."""
    return tl.load(pointer + q, in_q, 0.0), tl.load(pointer + N + q, in_q, 0.0)


@kernel
def _store(pointer, re, im, q, in_q, N: tl.constexpr):
    tl.store(pointer + q, re, in_q)
    tl.store(pointer + N + q, im, in_q)


@kernel
def _times(a_re, a_im, b_re, b_im):
    return a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re


@kernel
def _sent(p, q, re, im, PERMUTE: tl.constexpr):
    """Return what arrives at each state; `p` says where each goes, or, permuted, came from."""
    if PERMUTE:
        return tl.gather(re, p, 0), tl.gather(im, p, 0)
    hit = p[None, :] == q[:, None]
    return tl.sum(tl.where(hit, re[None, :], 0.0), 1), tl.sum(tl.where(hit, im[None, :], 0.0), 1)


@kernel
def _pushed(decay, inflow, decay_dot, x, p, x_re, x_im, here, there, before, q, in_q,
            N: tl.constexpr, PERMUTE: tl.constexpr):  # fmt: skip
    """Return x after a step; with `decay_dot`, its tangent's, whose states lie at `before`."""
    d_re, d_im = _load(decay + here, q, in_q, N)
    re, im = _times(d_re, d_im, x_re, x_im)
    if decay_dot is not None:
        e_re, e_im = _load(decay_dot + there, q, in_q, N)
        y_re, y_im = _load(x + before, q, in_q, N)
        more_re, more_im = _times(e_re, e_im, y_re, y_im)
        re += more_re
        im += more_im
    re, im = _sent(p, q, re, im, PERMUTE)
    b_re, b_im = _load(inflow + there, q, in_q, N)
    return re + b_re, im + b_im


@kernel
def _place(route, maps, length, HEADS: tl.constexpr, MAPS: tl.constexpr, N: tl.constexpr,
           BATCH: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """Return this program's head and sequence, the sequence among those that decays have, and
    states; `route` and `maps` as that head's, the former at the sequence's start.
    """
    head = tl.program_id(1) % HEADS
    row = (tl.program_id(1) // HEADS).to(tl.int64)
    q = tl.arange(0, LANES)
    in_q = (q < N) | (N == LANES)
    batch = row % BATCH
    return head, row, batch, q, in_q, route + batch * length * HEADS + head, maps + head * MAPS * N


@kernel
def _chosen(route, maps, t, q, in_q, HEADS: tl.constexpr, N: tl.constexpr):
    """Return the step's map; a lane without a state goes to, and comes from, itself."""
    k = tl.load(route + t * HEADS).to(tl.int64)
    return tl.where(in_q, tl.load(maps + k * N + q, in_q, 0).to(tl.int32), q)


@kernel
def _chunks(decay, inflow, decay_dot, x, route, maps, sources, p_end, d_end, b_end,
          length, n_chunks, BATCH: tl.constexpr, HEADS: tl.constexpr, MAPS: tl.constexpr,
          CHUNK: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr,
          PERMUTE: tl.constexpr):  # fmt: skip
    """Compose each chunk; fill p_end (row, chunk, head, q), d_end and b_end, planes before q."""
    head, row, batch, q, in_q, route, maps = _place(
        route, maps, length, HEADS, MAPS, N, BATCH, LANES
    )
    sources += head * MAPS * N
    chunk = tl.program_id(0)
    p, d_re, d_im = q, tl.where(in_q, 1.0, 0.0).to(decay.dtype.element_ty), 0.0 * q
    d_im = d_im.to(d_re.dtype)
    b_re, b_im = 0.0 * d_re, 0.0 * d_re
    for i in range(tl.minimum(CHUNK, length - chunk * CHUNK)):
        t = chunk * CHUNK + i
        here, there = _rows(batch, row, t, head, length, HEADS, N)
        p_t = _chosen(route, maps, t, q, in_q, HEADS, N)
        c_re, c_im = _load(decay + here, q, in_q, N)
        d_re, d_im = _times(tl.gather(c_re, p, 0), tl.gather(c_im, p, 0), d_re, d_im)
        way = _chosen(route, sources, t, q, in_q, HEADS, N) if PERMUTE else p_t
        b_re, b_im = _pushed(
            decay, inflow, decay_dot, x, way, b_re, b_im, here, there, here, q, in_q, N, PERMUTE
        )
        p = tl.gather(p_t, p, 0)
    at = ((row * n_chunks + chunk) * HEADS + head) * N
    tl.store(p_end + at + q, p, in_q)
    _store(d_end + 2 * at, d_re, d_im, q, in_q, N)
    _store(b_end + 2 * at, b_re, b_im, q, in_q, N)


@kernel
def _rows(batch, row, t, head, length, HEADS: tl.constexpr, N: tl.constexpr):
    """Return where a step's planes lie, for decays and for inflows."""
    return ((batch * length + t) * HEADS + head) * 2 * N, (
        (row * length + t) * HEADS + head
    ) * 2 * N


@kernel
def _starts(p_end, d_end, b_end, first, last, n_chunks,
           HEADS: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr,
           REVERSE: tl.constexpr):  # fmt: skip
    """Turn `b_end` into what each chunk starts with; fill `last`.

    From right to left a chunk's map is looked up, from left to right states are sent along it.
    """
    head, row = tl.program_id(0) % HEADS, (tl.program_id(0) // HEADS).to(tl.int64)
    q = tl.arange(0, LANES)
    in_q = (q < N) | (N == LANES)
    place = (row * HEADS + head) * 2 * N
    re, im = _load(first + place, q, in_q, N)
    for i in range(n_chunks):
        chunk = n_chunks - 1 - i if REVERSE else i
        at = ((row * n_chunks + chunk) * HEADS + head) * N
        p = tl.where(in_q, tl.load(p_end + at + q, in_q, 0), q)
        d_re, d_im = _load(d_end + 2 * at, q, in_q, N)
        b_re, b_im = _load(b_end + 2 * at, q, in_q, N)
        _store(b_end + 2 * at, re, im, q, in_q, N)
        if REVERSE:
            re, im = _times(d_re, d_im, tl.gather(re, p, 0), tl.gather(im, p, 0))
        else:
            re, im = _times(d_re, d_im, re, im)
            re, im = _sent(p, q, re, im, False)
        re += b_re
        im += b_im
    _store(last + place, re, im, q, in_q, N)


@kernel
def _states(decay, inflow, decay_dot, x, route, maps, starts, out, length, n_chunks,
            BATCH: tl.constexpr, HEADS: tl.constexpr, MAPS: tl.constexpr, CHUNK: tl.constexpr,
            N: tl.constexpr, LANES: tl.constexpr, PERMUTE: tl.constexpr):  # fmt: skip
    """Run each chunk from its start; `maps` are the inverses where all are permutations."""
    head, row, batch, q, in_q, route, maps = _place(
        route, maps, length, HEADS, MAPS, N, BATCH, LANES
    )
    chunk = tl.program_id(0)
    re, im = _load(starts + ((row * n_chunks + chunk) * HEADS + head) * 2 * N, q, in_q, N)
    for i in range(tl.minimum(CHUNK, length - chunk * CHUNK)):
        t = chunk * CHUNK + i
        here, there = _rows(batch, row, t, head, length, HEADS, N)
        p = _chosen(route, maps, t, q, in_q, HEADS, N)
        re, im = _pushed(
            decay, inflow, decay_dot, x, p, re, im, here, there, here, q, in_q, N, PERMUTE
        )
        _store(out + there, re, im, q, in_q, N)


@kernel
def _chunks_bar(decay, x_bar, route, maps, p_end, d_end, b_end, length, n_chunks,
              BATCH: tl.constexpr, HEADS: tl.constexpr, MAPS: tl.constexpr, CHUNK: tl.constexpr,
              N: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """Compose each chunk from right to left: bar = d bar[p] + b."""
    head, row, batch, q, in_q, route, maps = _place(
        route, maps, length, HEADS, MAPS, N, BATCH, LANES
    )
    chunk = tl.program_id(0)
    p, d_re = q, tl.where(in_q, 1.0, 0.0).to(decay.dtype.element_ty)
    d_im, b_re, b_im = 0.0 * d_re, 0.0 * d_re, 0.0 * d_re
    n_steps = tl.minimum(CHUNK, length - chunk * CHUNK)
    for i in range(n_steps):
        t = chunk * CHUNK + n_steps - 1 - i
        here, _ = _rows(batch, row, t, head, length, HEADS, N)
        p_t = _chosen(route, maps, t, q, in_q, HEADS, N)
        c_re, c_im = _load(decay + here, q, in_q, N)
        y_re, y_im = _load(x_bar + here, q, in_q, N)
        d_re, d_im = _times(c_re, -c_im, tl.gather(d_re, p_t, 0), tl.gather(d_im, p_t, 0))
        b_re, b_im = _times(
            c_re, -c_im, tl.gather(b_re + y_re, p_t, 0), tl.gather(b_im + y_im, p_t, 0)
        )
        p = tl.gather(p, p_t, 0)
    at = ((row * n_chunks + chunk) * HEADS + head) * N
    tl.store(p_end + at + q, p, in_q)
    _store(d_end + 2 * at, d_re, d_im, q, in_q, N)
    _store(b_end + 2 * at, b_re, b_im, q, in_q, N)


@kernel
def _states_bar(decay, x, x_bar, state, route, maps, ends, decay_bar, inflow_bar,
                length, n_chunks, BATCH: tl.constexpr, HEADS: tl.constexpr, MAPS: tl.constexpr,
                CHUNK: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr):  # fmt: skip
    """Pull each chunk's cotangents back, from what comes to it from the right."""
    head, row, batch, q, in_q, route, maps = _place(
        route, maps, length, HEADS, MAPS, N, BATCH, LANES
    )
    chunk = tl.program_id(0)
    re, im = _load(ends + ((row * n_chunks + chunk) * HEADS + head) * 2 * N, q, in_q, N)
    n_steps = tl.minimum(CHUNK, length - chunk * CHUNK)
    for i in range(n_steps):
        t = chunk * CHUNK + n_steps - 1 - i
        here, _ = _rows(batch, row, t, head, length, HEADS, N)
        y_re, y_im = _load(x_bar + here, q, in_q, N)
        re += y_re
        im += y_im
        _store(inflow_bar + here, re, im, q, in_q, N)
        p = _chosen(route, maps, t, q, in_q, HEADS, N)
        re, im = tl.gather(re, p, 0), tl.gather(im, p, 0)
        if t > 0:
            b_re, b_im = _load(x + here - 2 * HEADS * N, q, in_q, N)
        else:
            b_re, b_im = _load(state + (batch * HEADS + head) * 2 * N, q, in_q, N)
        c_re, c_im = _times(b_re, -b_im, re, im)
        _store(decay_bar + here, c_re, c_im, q, in_q, N)
        d_re, d_im = _load(decay + here, q, in_q, N)
        re, im = _times(d_re, -d_im, re, im)


def _sizes(decay: Tensor, maps: Tensor) -> dict[str, int]:
    heads, n_maps, n_states = maps.shape
    return {
        "BATCH": len(decay), "HEADS": heads, "MAPS": n_maps, "CHUNK": CHUNK, "N": n_states,
        "LANES": max(2, triton.next_power_of_2(n_states)),
    }  # fmt: skip


def _composed(rows: int, decay: Tensor, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return room for what chunks come down to."""
    heads, _, n_states = maps.shape
    p = maps.new_empty(rows, pieces(decay.shape[1], CHUNK), heads, n_states, dtype=torch.int32)
    d = decay.new_empty(*p.shape[:3], 2, n_states)
    return p, d, torch.empty_like(d)


def _inverted(maps: Tensor) -> Tensor | None:
    """Return where states come from, if every map is a permutation."""
    sources = maps.long().argsort(-1)
    whole_range = torch.arange(maps.shape[-1], device=maps.device).expand_as(sources)
    there = maps.long().gather(-1, sources)
    return sources.to(maps.dtype) if torch.equal(there, whole_range) else None


def _run(
    decay: Tensor, inflow: Tensor, state: Tensor, route: Tensor, maps: Tensor,
    decay_dot: Tensor | None = None, before: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return states after every step and at the end; with `decay_dot`, tangents, which have a row
    a direction and sequence.
    """
    rows, length, heads = inflow.shape[:3]
    inverse = _inverted(maps)
    sizes = _sizes(decay, maps) | {"PERMUTE": inverse is not None}
    sources = maps if inverse is None else inverse
    p, d, b = _composed(rows, decay, maps)
    moving_parts = decay_dot, before
    grid, known = (p.shape[1], rows * heads), (length, p.shape[1])
    launch(
        _chunks, grid, decay, inflow, *moving_parts, route, maps, sources, p, d, b, *known, **sizes
    )
    end, out = torch.empty_like(state), torch.empty_like(inflow)
    _carried(p, d, b, state, end, reverse=False)
    launch(_states, grid, decay, inflow, *moving_parts, route, sources, b, out, *known, **sizes)
    return out, end


def _carried(
    p: Tensor, d: Tensor, b: Tensor, first: Tensor, last: Tensor, *, reverse: bool
) -> None:
    rows, n_chunks, heads, n_states = p.shape
    lanes = max(2, triton.next_power_of_2(n_states))
    launch(
        _starts, (rows * heads,), p, d, b, first, last, n_chunks,
        HEADS=heads, N=n_states, LANES=lanes, REVERSE=reverse,
    )  # fmt: skip


def _forward(given: Tensors, *, save: bool, route: Tensor, maps: Tensor) -> tuple[Tensors, Tensors]:
    check_indices(route, maps)
    states, end = _run(*whole(given), *whole((route, maps)))
    return (states, end), (states,) if save else ()


def _vjp(
    given: Tensors,
    saved: Tensors,
    bars: Tensors,
    _needs_grad: Flags,
    *,
    route: Tensor,
    maps: Tensor,
) -> OptionalTensors:
    (decay, _, state), (x,), (x_bar, end_bar) = whole(given), whole(saved), whole(bars)
    route, maps = whole((route, maps))
    batch, length, heads = decay.shape[:3]
    sizes = _sizes(decay, maps)
    p, d, b = _composed(batch, decay, maps)
    grid, known = (p.shape[1], batch * heads), (length, p.shape[1])
    launch(_chunks_bar, grid, decay, x_bar, route, maps, p, d, b, *known, **sizes)
    decay_bar, inflow_bar, state_bar = map(torch.empty_like, (decay, decay, state))
    _carried(p, d, b, end_bar, state_bar, reverse=True)
    arguments = decay, x, x_bar, state, route, maps, b, decay_bar, inflow_bar
    launch(_states_bar, grid, *arguments, *known, **sizes)
    return decay_bar, inflow_bar, state_bar


def _jvp(
    given: Tensors, tangents: OptionalTensors, *, route: Tensor, maps: Tensor
) -> tuple[Tensors, Tensors]:
    (states, end), _ = _forward(given, save=False, route=route, maps=maps)
    decay, _, state = whole(given)
    route, maps = whole((route, maps))
    dots: tuple[Any, ...] = moving(given, tangents)
    rows = tuple(dot.flatten(0, 1) for dot in dots)
    before = torch.cat([state[:, None], states[:, :-1]], 1)
    found = _run(decay, rows[1], rows[2], route, maps, rows[0], before)
    count = len(dots[0])
    return (states, end), tuple(part.unflatten(0, (count, -1)) for part in found)


PD_SCAN = Primitive(_forward, _jvp, _vjp, reference.pd_scan, outputs=2)
