"""Triton kernels of the step sizes (softplus), the gate (SiLU) and RMSNorm.

Each kernel makes a single pass over memory. The suffix `_dot` marks tangents, and `_bar` marks cotangents.
Sums over all rows are computed in two steps: first within each block of rows, and then over the blocks. The
results are therefore bitwise reproducible.
"""

# Functions compiled by Triton have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from genoscan.ops import reference
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors
from genoscan.ops.triton_gpu.arithmetic import (
    contiguous,
    contiguous_tangents,
    kernel,
    launch,
    logistic,
    silu_slope,
    softplus,
    sum_blocks,
)

BLOCK_SIZE = 2048
"""Number of values that each program, which has four warps, processes."""


@kernel
def _offsets(n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the offsets that this program processes in an array of shape (rows, width).

    The mask of the offsets and the indices of the columns are also returned.
    """
    n_blocks = tl.cdiv(WIDTH, COLUMNS)
    column = tl.program_id(0) % n_blocks * COLUMNS + tl.arange(0, COLUMNS)
    row = (tl.program_id(0) // n_blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (row < n_rows)[:, None] & ((column < WIDTH) | (WIDTH % COLUMNS == 0))[None, :]
    return row[:, None] * WIDTH + column[None, :], inside, column


@kernel
def _step_size(x, bias, delta, n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    at, inside, column = _offsets(n_rows, WIDTH, ROWS, COLUMNS)
    shift = tl.load(bias + column, column < WIDTH, 0.0)
    tl.store(delta + at, softplus(tl.load(x + at, inside, 0.0) + shift[None, :]), inside)


@kernel
def _step_size_bar(
    x, bias, delta_bar, x_bar, bias_bar, n_rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    at, inside, column = _offsets(n_rows, WIDTH, ROWS, COLUMNS)
    shift = tl.load(bias + column, column < WIDTH, 0.0)
    slope, _ = logistic(tl.load(x + at, inside, 0.0) + shift[None, :])
    bar = slope * tl.load(delta_bar + at, inside, 0.0)
    tl.store(x_bar + at, bar, inside)
    if bias_bar is not None:
        block = (tl.program_id(0) // tl.cdiv(WIDTH, COLUMNS)).to(tl.int64)
        tl.store(bias_bar + block * WIDTH + column, tl.sum(bar, 0), column < WIDTH)


@kernel
def _step_size_dot(
    x,
    bias,
    x_dot,
    bias_dot,
    delta,
    delta_dot,
    n_rows,
    n_directions,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    at, inside, column = _offsets(n_rows, WIDTH, ROWS, COLUMNS)
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


def _column_grid(x: Tensor) -> tuple[int, int, dict[str, int]]:
    """Return the number of rows, the number of programs, and the compile-time sizes of a kernel.

    This grid is for kernels in which each program processes a block of rows and columns.
    """
    width = x.shape[-1]
    n_rows = x.numel() // width
    columns = min(128, triton.next_power_of_2(width))
    rows = BLOCK_SIZE // columns
    programs = triton.cdiv(n_rows, rows) * triton.cdiv(width, columns)
    return n_rows, programs, {"WIDTH": width, "ROWS": rows, "COLUMNS": columns}


def _step_size_forward(inputs: Tensors, *, save: bool) -> tuple[Tensors, Tensors]:
    x, bias = contiguous(inputs)
    delta = torch.empty_like(x)
    n_rows, programs, sizes = _column_grid(x)
    launch(_step_size, (programs,), x, bias, delta, n_rows, **sizes)
    return (delta,), ()


def _step_size_vjp(inputs: Tensors, _saved: Tensors, bars: Tensors, needs_grad: Flags) -> OptionalTensors:
    x, bias, delta_bar = contiguous((*inputs, *bars))
    x_bar = torch.empty_like(x)
    n_rows, programs, sizes = _column_grid(x)
    bias_bar = x.new_empty(triton.cdiv(n_rows, sizes["ROWS"]), len(bias)) if needs_grad[1] else None
    launch(_step_size_bar, (programs,), x, bias, delta_bar, x_bar, bias_bar, n_rows, **sizes)
    return x_bar, None if bias_bar is None else sum_blocks(bias_bar)


def _step_size_jvp(inputs: Tensors, tangents: OptionalTensors) -> tuple[Tensors, Tensors]:
    x, bias = contiguous(inputs)
    x_dot, bias_dot = contiguous_tangents(inputs, tangents, optional=(1,))
    delta, delta_dot = torch.empty_like(x), torch.empty_like(x_dot)
    n_rows, programs, sizes = _column_grid(x)
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
    silu, slope = z_i * up, y_i * silu_slope(z_i)
    tl.store(out + i, y_i * silu, inside)
    for _ in range(n_directions):
        dot = tl.load(y_dot + i, inside, 0.0) * silu
        tl.store(out_dot + i, dot + slope * tl.load(z_dot + i, inside, 0.0), inside)
        i += size


def _gate_forward(inputs: Tensors, *, save: bool) -> tuple[Tensors, Tensors]:
    y, z = contiguous(inputs)
    out = torch.empty_like(y)
    launch(_gate, (triton.cdiv(y.numel(), BLOCK_SIZE),), y, z, out, y.numel(), BLOCK=BLOCK_SIZE)
    return (out,), ()


def _gate_vjp(inputs: Tensors, _saved: Tensors, bars: Tensors, _needs_grad: Flags) -> OptionalTensors:
    y, z, out_bar = contiguous((*inputs, *bars))
    y_bar, z_bar = torch.empty_like(y), torch.empty_like(z)
    grid = (triton.cdiv(y.numel(), BLOCK_SIZE),)
    launch(_gate_bar, grid, y, z, out_bar, y_bar, z_bar, y.numel(), BLOCK=BLOCK_SIZE)
    return y_bar, z_bar


def _gate_jvp(inputs: Tensors, tangents: OptionalTensors) -> tuple[Tensors, Tensors]:
    (y, z), (y_dot, z_dot) = contiguous(inputs), contiguous_tangents(inputs, tangents)
    out, out_dot = torch.empty_like(y), torch.empty_like(y_dot)
    arguments = (y, z, y_dot, z_dot, out, out_dot, y.numel(), len(y_dot))
    launch(_gate_dot, (triton.cdiv(y.numel(), BLOCK_SIZE),), *arguments, BLOCK=BLOCK_SIZE)
    return (out,), (out_dot,)


def _gate_definition(y: Tensor, z: Tensor) -> Tensor:
    return y * reference.silu(z)


GATE = Primitive(_gate_forward, _gate_jvp, _gate_vjp, _gate_definition)


@kernel
def _scale(x_i, EPS: tl.constexpr, WIDTH: tl.constexpr):
    """Return `1 / sqrt(mean(x^2) + eps)` for each row.

    If the squares overflow, the result is NaN rather than 0.
    """
    mean = tl.sum(x_i * x_i, 1) / WIDTH
    return tl.where(mean < float("inf"), 1 / tl.sqrt(mean + EPS), float("nan"))


@kernel
def _rms_norm(
    x, weight, out, n_rows, EPS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    at, inside, column = _offsets(n_rows, WIDTH, ROWS, COLUMNS)
    w = tl.load(weight + column, column < WIDTH, 0.0)[None, :]
    x_i = tl.load(x + at, inside, 0.0)
    scale = _scale(x_i, EPS, WIDTH)
    tl.store(out + at, x_i * scale[:, None] * w, inside)


@kernel
def _rms_norm_bar(
    x,
    weight,
    out_bar,
    x_bar,
    weight_bar,
    n_rows,
    EPS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    at, inside, column = _offsets(n_rows, WIDTH, ROWS, COLUMNS)
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
def _rms_norm_dot(
    x,
    weight,
    x_dot,
    weight_dot,
    out,
    out_dot,
    n_rows,
    n_directions,
    EPS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    at, inside, column = _offsets(n_rows, WIDTH, ROWS, COLUMNS)
    w = tl.load(weight + column, column < WIDTH, 0.0)[None, :]
    x_i = tl.load(x + at, inside, 0.0)
    scale = _scale(x_i, EPS, WIDTH)
    unit = x_i * scale[:, None]
    tl.store(out + at, unit * w, inside)
    for direction in range(n_directions):
        dot = tl.load(x_dot + at, inside, 0.0)
        along = tl.sum(dot * unit, 1) / WIDTH
        tangent = (dot - unit * along[:, None]) * scale[:, None] * w
        if weight_dot is not None:
            w_dot = tl.load(weight_dot + direction * WIDTH + column, column < WIDTH, 0.0)
            tangent += unit * w_dot[None, :]
        tl.store(out_dot + at, tangent, inside)
        at += n_rows.to(tl.int64) * WIDTH


def _row_grid(x: Tensor) -> tuple[int, int, dict[str, int]]:
    """Return the launch grid of a kernel in which each program processes whole rows.

    The grid consists of the number of rows, the number of programs, and the compile-time sizes.
    """
    width = x.shape[-1]
    n_rows = x.numel() // width
    columns = triton.next_power_of_2(width)
    rows = max(1, BLOCK_SIZE // columns)
    return n_rows, triton.cdiv(n_rows, rows), {"WIDTH": width, "ROWS": rows, "COLUMNS": columns}


def _rms_norm_forward(inputs: Tensors, *, save: bool, eps: float) -> tuple[Tensors, Tensors]:
    x, weight = contiguous(inputs)
    out = torch.empty_like(x)
    n_rows, programs, sizes = _row_grid(x)
    launch(_rms_norm, (programs,), x, weight, out, n_rows, EPS=eps, **sizes)
    return (out,), ()


def _rms_norm_vjp(inputs: Tensors, _saved: Tensors, bars: Tensors, needs_grad: Flags, *, eps: float) -> OptionalTensors:
    x, weight, out_bar = contiguous((*inputs, *bars))
    x_bar = torch.empty_like(x)
    n_rows, programs, sizes = _row_grid(x)
    weight_bar = x.new_empty(programs, len(weight)) if needs_grad[1] else None
    launch(_rms_norm_bar, (programs,), x, weight, out_bar, x_bar, weight_bar, n_rows, EPS=eps, **sizes)
    return x_bar, None if weight_bar is None else sum_blocks(weight_bar)


def _rms_norm_jvp(inputs: Tensors, tangents: OptionalTensors, *, eps: float) -> tuple[Tensors, Tensors]:
    x, weight = contiguous(inputs)
    x_dot, weight_dot = contiguous_tangents(inputs, tangents, optional=(1,))
    out, out_dot = torch.empty_like(x), torch.empty_like(x_dot)
    n_rows, programs, sizes = _row_grid(x)
    arguments = (x, weight, x_dot, weight_dot, out, out_dot, n_rows, len(x_dot))
    launch(_rms_norm_dot, (programs,), *arguments, EPS=eps, **sizes)
    return (out,), (out_dot,)


RMS_NORM = Primitive(_rms_norm_forward, _rms_norm_jvp, _rms_norm_vjp, reference.rms_norm)
