"""Short convolution and SiLU on the GPU; forward pass, jvp and vjp each make a single pass over memory.

In these kernels, rows are the positions of the padded sequence: the `taps - 1` positions of the tail,
followed by the positions of the tile. Output `t` is computed from rows `t` to `t + taps - 1`. Row `p`
therefore contributes to outputs `p - taps + 1` to `p`.
"""

# Functions compiled by Triton have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def, assignment, misc"

import torch
import triton
import triton.language as tl

from genoscan.ops import reference
from genoscan.ops.kernels import ConvInputs
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors
from genoscan.ops.triton_gpu.arithmetic import (
    contiguous,
    contiguous_tangents,
    kernel,
    launch,
    logistic,
    silu_slope,
    sum_blocks,
)

BLOCK_SIZE = 256
"""Number of values that each program, which has one warp, processes."""


@kernel
def _load_rows(x, tail, row, batch, column, in_c, length, CHANNELS: tl.constexpr, TAPS: tl.constexpr):
    """Load rows of the padded sequence (the tail, followed by the tile); rows outside it are zero."""
    before, t = row[:, None], row[:, None] - (TAPS - 1)
    x += batch * length * CHANNELS
    tail += batch * (TAPS - 1) * CHANNELS
    inner = tl.load(x + t * CHANNELS + column[None, :], in_c[None, :] & (t >= 0) & (t < length), 0.0)
    in_tail = in_c[None, :] & (before >= 0) & (t < 0)
    return inner + tl.load(tail + before * CHANNELS + column[None, :], in_tail, 0.0)


@kernel
def _offsets(CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the rows and columns that this program processes, and the mask of the columns."""
    n_blocks = tl.cdiv(CHANNELS, COLUMNS)
    column = tl.program_id(0) % n_blocks * COLUMNS + tl.arange(0, COLUMNS)
    row = (tl.program_id(0) // n_blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return row, column, (column < CHANNELS) | (CHANNELS % COLUMNS == 0)


@kernel
def _conv(
    x,
    weight,
    bias,
    tail,
    y,
    next_tail,
    length,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row, column, in_c = _offsets(CHANNELS, ROWS, COLUMNS)
    batch = tl.program_id(1).to(tl.int64)
    at = row[:, None] * CHANNELS + column[None, :]
    summed = tl.load(bias + column, in_c, 0.0)[None, :]
    for k in tl.static_range(TAPS):
        value = _load_rows(x, tail, row + k, batch, column, in_c, length, CHANNELS, TAPS)
        summed += tl.load(weight + column * TAPS + k, in_c, 0.0)[None, :] * value
        if k == 0:
            next_tail += (batch * (TAPS - 1) - length) * CHANNELS
            in_next_tail = (row >= length) & (row < length + TAPS - 1)
            tl.store(next_tail + at, value, in_next_tail[:, None] & in_c[None, :])
    up, _ = logistic(summed)
    y += batch * length * CHANNELS
    tl.store(y + at, summed * up, (row < length)[:, None] & in_c[None, :])


@kernel
def _conv_bar(
    x,
    weight,
    bias,
    tail,
    y_bar,
    next_tail_bar,
    x_bar,
    tail_bar,
    filter_bar,
    length,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write the cotangents of `x` and `tail`, and partial sums of the cotangents of the weight and the bias.

    The partial sums are written to `filter_bar`, of shape (blocks of rows, taps + 1, channels), unless it
    is None. They are the contributions of the individual blocks; the caller sums over the blocks.
    """
    row, column, in_c = _offsets(CHANNELS, ROWS, COLUMNS)
    batch = tl.program_id(1).to(tl.int64)
    at = row[:, None] * CHANNELS + column[None, :]
    in_next_tail = ((row >= length) & (row < length + TAPS - 1))[:, None] & in_c[None, :]
    next_tail_bar += (batch * (TAPS - 1) - length) * CHANNELS
    bar = tl.load(next_tail_bar + at, in_next_tail, 0.0)
    values = ()
    for k in tl.static_range(1 - TAPS, TAPS):
        values += (_load_rows(x, tail, row + k, batch, column, in_c, length, CHANNELS, TAPS),)
    y_bar += batch * length * CHANNELS
    for d in tl.static_range(TAPS):
        # Recompute the output that reads this row with tap TAPS - 1 - d.
        summed = tl.load(bias + column, in_c, 0.0)[None, :]
        for k in tl.static_range(TAPS):
            summed += tl.load(weight + column * TAPS + k, in_c, 0.0)[None, :] * values[d + k]
        t = row + d - (TAPS - 1)
        in_y = ((t >= 0) & (t < length))[:, None] & in_c[None, :]
        slope = silu_slope(summed)
        slope *= tl.load(y_bar + at + (d - TAPS + 1) * CHANNELS, in_y, 0.0)
        bar += tl.load(weight + column * TAPS + TAPS - 1 - d, in_c, 0.0)[None, :] * slope
    n_columns = tl.cdiv(CHANNELS, COLUMNS)
    if filter_bar is not None:
        block = tl.program_id(0) // n_columns * tl.num_programs(1) + batch
        filter_bar += block * (TAPS + 1) * CHANNELS + column
        for k in tl.static_range(TAPS):
            part = tl.sum(slope * values[TAPS - 1 + k], 0)
            tl.store(filter_bar + k * CHANNELS, part, in_c)
        tl.store(filter_bar + TAPS * CHANNELS, tl.sum(slope, 0), in_c)
    x_bar += (batch * length - (TAPS - 1)) * CHANNELS
    in_x = (row >= TAPS - 1) & (row < length + TAPS - 1)
    tl.store(x_bar + at, bar, in_x[:, None] & in_c[None, :])
    tail_bar += batch * (TAPS - 1) * CHANNELS
    tl.store(tail_bar + at, bar, (row < TAPS - 1)[:, None] & in_c[None, :])


@kernel
def _conv_dot(
    x,
    weight,
    bias,
    tail,
    x_dot,
    weight_dot,
    bias_dot,
    tail_dot,
    y,
    next_tail,
    y_dot,
    next_tail_dot,
    length,
    n_directions,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row, column, in_c = _offsets(CHANNELS, ROWS, COLUMNS)
    batch = tl.program_id(1).to(tl.int64)
    at = row[:, None] * CHANNELS + column[None, :]
    in_y = (row < length)[:, None] & in_c[None, :]
    in_next_tail = ((row >= length) & (row < length + TAPS - 1))[:, None] & in_c[None, :]
    summed = tl.load(bias + column, in_c, 0.0)[None, :]
    values = ()
    for k in tl.static_range(TAPS):
        values += (_load_rows(x, tail, row + k, batch, column, in_c, length, CHANNELS, TAPS),)
        summed += tl.load(weight + column * TAPS + k, in_c, 0.0)[None, :] * values[k]
    up, _ = logistic(summed)
    slope = silu_slope(summed)
    tl.store(y + batch * length * CHANNELS + at, summed * up, in_y)
    tl.store(next_tail + (batch * (TAPS - 1) - length) * CHANNELS + at, values[0], in_next_tail)
    for direction in range(n_directions):
        batch_dot = direction * tl.num_programs(1) + batch
        summed_dot = tl.zeros((ROWS, COLUMNS), summed.dtype)
        if bias_dot is not None:
            summed_dot += tl.load(bias_dot + direction * CHANNELS + column, in_c, 0.0)[None, :]
        for k in tl.static_range(TAPS):
            value_dot = _load_rows(x_dot, tail_dot, row + k, batch_dot, column, in_c, length, CHANNELS, TAPS)
            summed_dot += tl.load(weight + column * TAPS + k, in_c, 0.0)[None, :] * value_dot
            if weight_dot is not None:
                at_w = (direction * CHANNELS + column) * TAPS + k
                summed_dot += tl.load(weight_dot + at_w, in_c, 0.0)[None, :] * values[k]
            if k == 0:
                first = next_tail_dot + (batch_dot * (TAPS - 1) - length) * CHANNELS
                tl.store(first + at, value_dot, in_next_tail)
        tl.store(y_dot + batch_dot * length * CHANNELS + at, slope * summed_dot, in_y)


def _grid(inputs: ConvInputs) -> tuple[int, int, dict[str, int]]:
    """Return the number of row blocks, the number of programs per sequence, and the compile-time sizes."""
    (_, length, channels), (_, taps) = inputs.x.shape, inputs.weight.shape
    columns = min(64, triton.next_power_of_2(channels))
    rows = BLOCK_SIZE // columns
    blocks = triton.cdiv(length + taps - 1, rows)
    sizes = {"CHANNELS": channels, "TAPS": taps, "ROWS": rows, "COLUMNS": columns}
    return blocks, blocks * triton.cdiv(channels, columns), sizes


def _forward(given: Tensors, *, save: bool) -> tuple[Tensors, Tensors]:
    inputs = ConvInputs(*contiguous(given))
    y, next_tail = torch.empty_like(inputs.x), torch.empty_like(inputs.tail)
    batch, length, _ = y.shape
    _, programs, sizes = _grid(inputs)
    launch(_conv, (programs, batch), *inputs, y, next_tail, length, warps=1, **sizes)
    return (y, next_tail), ()


def _vjp(given: Tensors, _saved: Tensors, bars: Tensors, needs_grad: Flags) -> OptionalTensors:
    inputs, (y_bar, next_tail_bar) = ConvInputs(*contiguous(given)), contiguous(bars)
    _, needs_weight, needs_bias, _ = needs_grad
    x_bar, tail_bar = torch.empty_like(inputs.x), torch.empty_like(inputs.tail)
    batch, length, channels = x_bar.shape
    blocks, programs, sizes = _grid(inputs)
    filter_bar = None
    if needs_weight or needs_bias:
        filter_bar = x_bar.new_empty(blocks * batch, sizes["TAPS"] + 1, channels)
    launch(
        _conv_bar,
        (programs, batch),
        *(*inputs, y_bar, next_tail_bar, x_bar, tail_bar, filter_bar, length),
        warps=1,
        **sizes,
    )
    if filter_bar is None:
        return x_bar, None, None, tail_bar
    *weight_bar, bias_bar = sum_blocks(filter_bar)
    return x_bar, torch.stack(weight_bar, 1), bias_bar, tail_bar


def _jvp(given: Tensors, tangents: OptionalTensors) -> tuple[Tensors, Tensors]:
    inputs = ConvInputs(*contiguous(given))
    dots = ConvInputs(*contiguous_tangents(given, tangents, optional=(1, 2)))
    outputs = (torch.empty_like(inputs.x), torch.empty_like(inputs.tail))
    tangents = (torch.empty_like(dots.x), torch.empty_like(dots.tail))
    count, batch, length, _ = dots.x.shape
    _, programs, sizes = _grid(inputs)
    arguments = (*inputs, *dots, *outputs, *tangents, length, count)
    launch(_conv_dot, (programs, batch), *arguments, warps=1, **sizes)
    return outputs, tangents


CONV_SILU = Primitive(_forward, _jvp, _vjp, reference.conv_silu, outputs=2)
