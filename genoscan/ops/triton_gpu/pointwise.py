"""Step sizes, gate and norm on the GPU: a pass over memory each.

`_dot` tangents, `_bar` cotangents.  Sums over all rows are made in two steps, over a block of rows
each and then over the blocks, so that equal runs give equal bits.
"""

# What Triton compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from genoscan.ops import reference
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors
from genoscan.ops.triton_gpu.arithmetic import (
    kernel,
    launch,
    logistic,
    moving,
    pieces,
    silu_slope,
    softplus,
    total,
    whole,
)

ROOM = 2048
"""Numbers that a program of four warps works on together."""


@kernel
def _place(n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return this program's offsets into (rows, width), which of them are inside, its columns."""
    n_blocks = tl.cdiv(WIDTH, COLUMNS)
    column = tl.program_id(0) % n_blocks * COLUMNS + tl.arange(0, COLUMNS)
    row = (tl.program_id(0) // n_blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (row < n_rows)[:, None] & ((column < WIDTH) | (WIDTH % COLUMNS == 0))[None, :]
    return row[:, None] * WIDTH + column[None, :], inside, column


@kernel
def _step_size(x, bias, delta, n_rows,
               WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    at, inside, column = _place(n_rows, WIDTH, ROWS, COLUMNS)
    shift = tl.load(bias + column, column < WIDTH, 0.0)
    tl.store(delta + at, softplus(tl.load(x + at, inside, 0.0) + shift[None, :]), inside)


@kernel
def _step_size_bar(x, bias, delta_bar, x_bar, bias_bar, n_rows,
                   WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    at, inside, column = _place(n_rows, WIDTH, ROWS, COLUMNS)
    shift = tl.load(bias + column, column < WIDTH, 0.0)
    slope, _ = logistic(tl.load(x + at, inside, 0.0) + shift[None, :])
    bar = slope * tl.load(delta_bar + at, inside, 0.0)
    tl.store(x_bar + at, bar, inside)
    if bias_bar is not None:
        block = (tl.program_id(0) // tl.cdiv(WIDTH, COLUMNS)).to(tl.int64)
        tl.store(bias_bar + block * WIDTH + column, tl.sum(bar, 0), column < WIDTH)


@kernel
def _step_size_dot(x, bias, x_dot, bias_dot, delta, delta_dot, n_rows, n_directions,
                   WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    at, inside, column = _place(n_rows, WIDTH, ROWS, COLUMNS)
    shift = tl.load(bias + column, column < WIDTH, 0.0)
    shifted = tl.load(x + at, inside, 0.0) + shift[None, :]
    tl.store(delta + at, softplus(shifted), inside)
    slope, _ = logistic(shifted)
    for direction in range(n_directions):
        dot = tl.load(x_dot + at, inside, 0.0)
        if bias_dot is not None:
            dot += tl.load(bias_dot + direction * WIDTH + column, column < WIDTH, 0.0)[None, :]
        tl.store(delta_dot + at, slope * dot, inside)
        at += n_rows.to(tl.int64) * WIDTH


def _tiles(x: Tensor) -> tuple[int, int, dict[str, int]]:
    """Return rows, programs and sizes for what goes over rows in blocks of columns."""
    width = x.shape[-1]
    n_rows = x.numel() // width
    columns = min(128, triton.next_power_of_2(width))
    rows = ROOM // columns
    programs = pieces(n_rows, rows) * pieces(width, columns)
    return n_rows, programs, {"WIDTH": width, "ROWS": rows, "COLUMNS": columns}


def _step_size_forward(inputs: Tensors, *, save: bool) -> tuple[Tensors, Tensors]:
    x, bias = whole(inputs)
    delta = torch.empty_like(x)
    n_rows, programs, sizes = _tiles(x)
    launch(_step_size, (programs,), x, bias, delta, n_rows, **sizes)
    return (delta,), ()


def _step_size_vjp(
    inputs: Tensors, _saved: Tensors, bars: Tensors, needs_grad: Flags
) -> OptionalTensors:
    x, bias, delta_bar = whole((*inputs, *bars))
    x_bar = torch.empty_like(x)
    n_rows, programs, sizes = _tiles(x)
    bias_bar = x.new_empty(pieces(n_rows, sizes["ROWS"]), len(bias)) if needs_grad[1] else None
    launch(_step_size_bar, (programs,), x, bias, delta_bar, x_bar, bias_bar, n_rows, **sizes)
    return x_bar, None if bias_bar is None else total(bias_bar)


def _step_size_jvp(inputs: Tensors, tangents: OptionalTensors) -> tuple[Tensors, Tensors]:
    (x, bias), (x_dot, bias_dot) = whole(inputs), moving(inputs, tangents, still=(1,))
    delta, delta_dot = torch.empty_like(x), torch.empty_like(x_dot)
    n_rows, programs, sizes = _tiles(x)
    arguments = (x, bias, x_dot, bias_dot, delta, delta_dot, n_rows, len(x_dot))
    launch(_step_size_dot, (programs,), *arguments, **sizes)
    return (delta,), (delta_dot,)


def _step_size_definition(x: Tensor, bias: Tensor) -> Tensor:
    return F.softplus(x + bias, threshold=40)


STEP_SIZE = Primitive(_step_size_forward, _step_size_jvp, _step_size_vjp, _step_size_definition)


@kernel
def _gate(y, z, out, size, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    z_i = tl.load(z + i, inside, 0.0)
    up, _ = logistic(z_i)
    tl.store(out + i, tl.load(y + i, inside, 0.0) * (z_i * up), inside)


@kernel
def _gate_bar(y, z, out_bar, y_bar, z_bar, size, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    z_i = tl.load(z + i, inside, 0.0)
    bar = tl.load(out_bar + i, inside, 0.0)
    up, _ = logistic(z_i)
    tl.store(y_bar + i, bar * (z_i * up), inside)
    tl.store(z_bar + i, bar * tl.load(y + i, inside, 0.0) * silu_slope(z_i), inside)


@kernel
def _gate_dot(y, z, y_dot, z_dot, out, out_dot, size, n_directions, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    y_i, z_i = tl.load(y + i, inside, 0.0), tl.load(z + i, inside, 0.0)
    up, _ = logistic(z_i)
    factor, turn = z_i * up, y_i * silu_slope(z_i)
    tl.store(out + i, y_i * factor, inside)
    for _ in range(n_directions):
        dot = tl.load(y_dot + i, inside, 0.0) * factor
        tl.store(out_dot + i, dot + turn * tl.load(z_dot + i, inside, 0.0), inside)
        i += size


def _gate_forward(inputs: Tensors, *, save: bool) -> tuple[Tensors, Tensors]:
    y, z = whole(inputs)
    out = torch.empty_like(y)
    launch(_gate, (pieces(y.numel(), ROOM),), y, z, out, y.numel(), BLOCK=ROOM)
    return (out,), ()


def _gate_vjp(
    inputs: Tensors, _saved: Tensors, bars: Tensors, _needs_grad: Flags
) -> OptionalTensors:
    y, z, out_bar = whole((*inputs, *bars))
    y_bar, z_bar = torch.empty_like(y), torch.empty_like(z)
    grid = (pieces(y.numel(), ROOM),)
    launch(_gate_bar, grid, y, z, out_bar, y_bar, z_bar, y.numel(), BLOCK=ROOM)
    return y_bar, z_bar


def _gate_jvp(inputs: Tensors, tangents: OptionalTensors) -> tuple[Tensors, Tensors]:
    (y, z), (y_dot, z_dot) = whole(inputs), moving(inputs, tangents)
    out, out_dot = torch.empty_like(y), torch.empty_like(y_dot)
    arguments = (y, z, y_dot, z_dot, out, out_dot, y.numel(), len(y_dot))
    launch(_gate_dot, (pieces(y.numel(), ROOM),), *arguments, BLOCK=ROOM)
    return (out,), (out_dot,)


def _gate_definition(y: Tensor, z: Tensor) -> Tensor:
    return y * reference.silu(z)


GATE = Primitive(_gate_forward, _gate_jvp, _gate_vjp, _gate_definition)


@kernel
def _scale(x_i, EPS: tl.constexpr, WIDTH: tl.constexpr):
    """Return 1 / sqrt(mean of x^2 + eps); NaN where the squares overflow, and not 0."""
    mean = tl.sum(x_i * x_i, 1) / WIDTH
    return tl.where(mean < float("inf"), 1 / tl.sqrt(mean + EPS), float("nan"))


@kernel
def _rms_norm(x, weight, out, n_rows, EPS: tl.constexpr,
              WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    at, inside, column = _place(n_rows, WIDTH, ROWS, COLUMNS)
    w = tl.load(weight + column, column < WIDTH, 0.0)[None, :]
    x_i = tl.load(x + at, inside, 0.0)
    scale = _scale(x_i, EPS, WIDTH)
    tl.store(out + at, x_i * scale[:, None] * w, inside)


@kernel
def _rms_norm_bar(x, weight, out_bar, x_bar, weight_bar, n_rows, EPS: tl.constexpr,
                  WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    at, inside, column = _place(n_rows, WIDTH, ROWS, COLUMNS)
    w = tl.load(weight + column, column < WIDTH, 0.0)[None, :]
    x_i = tl.load(x + at, inside, 0.0)
    bar = tl.load(out_bar + at, inside, 0.0)
    scale = _scale(x_i, EPS, WIDTH)
    unit = x_i * scale[:, None]
    along = tl.sum(bar * w * unit, 1) / WIDTH
    tl.store(x_bar + at, (bar * w - unit * along[:, None]) * scale[:, None], inside)
    if weight_bar is not None:
        part = tl.sum(bar * unit, 0)
        block = tl.program_id(0).to(tl.int64)
        tl.store(weight_bar + block * WIDTH + column, part, column < WIDTH)


@kernel
def _rms_norm_dot(x, weight, x_dot, weight_dot, out, out_dot, n_rows, n_directions,
                  EPS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
                  COLUMNS: tl.constexpr):  # fmt: skip
    at, inside, column = _place(n_rows, WIDTH, ROWS, COLUMNS)
    w = tl.load(weight + column, column < WIDTH, 0.0)[None, :]
    x_i = tl.load(x + at, inside, 0.0)
    scale = _scale(x_i, EPS, WIDTH)
    unit = x_i * scale[:, None]
    tl.store(out + at, unit * w, inside)
    for direction in range(n_directions):
        dot = tl.load(x_dot + at, inside, 0.0)
        along = tl.sum(dot * unit, 1) / WIDTH
        turned = (dot - unit * along[:, None]) * scale[:, None] * w
        if weight_dot is not None:
            w_dot = tl.load(weight_dot + direction * WIDTH + column, column < WIDTH, 0.0)
            turned += unit * w_dot[None, :]
        tl.store(out_dot + at, turned, inside)
        at += n_rows.to(tl.int64) * WIDTH


def _rows(x: Tensor) -> tuple[int, int, dict[str, int]]:
    """Return rows, programs and sizes for what needs a row as a whole."""
    width = x.shape[-1]
    n_rows = x.numel() // width
    columns = triton.next_power_of_2(width)
    rows = max(1, ROOM // columns)
    return n_rows, pieces(n_rows, rows), {"WIDTH": width, "ROWS": rows, "COLUMNS": columns}


def _rms_norm_forward(inputs: Tensors, *, save: bool, eps: float) -> tuple[Tensors, Tensors]:
    x, weight = whole(inputs)
    out = torch.empty_like(x)
    n_rows, programs, sizes = _rows(x)
    launch(_rms_norm, (programs,), x, weight, out, n_rows, EPS=eps, **sizes)
    return (out,), ()


def _rms_norm_vjp(
    inputs: Tensors, _saved: Tensors, bars: Tensors, needs_grad: Flags, *, eps: float
) -> OptionalTensors:
    x, weight, out_bar = whole((*inputs, *bars))
    x_bar = torch.empty_like(x)
    n_rows, programs, sizes = _rows(x)
    weight_bar = x.new_empty(programs, len(weight)) if needs_grad[1] else None
    launch(
        _rms_norm_bar, (programs,), x, weight, out_bar, x_bar, weight_bar, n_rows, EPS=eps, **sizes
    )
    return x_bar, None if weight_bar is None else total(weight_bar)


def _rms_norm_jvp(
    inputs: Tensors, tangents: OptionalTensors, *, eps: float
) -> tuple[Tensors, Tensors]:
    (x, weight), (x_dot, weight_dot) = whole(inputs), moving(inputs, tangents, still=(1,))
    out, out_dot = torch.empty_like(x), torch.empty_like(x_dot)
    n_rows, programs, sizes = _rows(x)
    arguments = (x, weight, x_dot, weight_dot, out, out_dot, n_rows, len(x_dot))
    launch(_rms_norm_dot, (programs,), *arguments, EPS=eps, **sizes)
    return (out,), (out_dot,)


RMS_NORM = Primitive(_rms_norm_forward, _rms_norm_jvp, _rms_norm_vjp, reference.rms_norm)
