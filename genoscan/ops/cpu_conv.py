"""Short convolution and SiLU in a single pass, compiled for the CPU by numba.

With torch operations, the products with the shifted inputs and their derivatives would take a dozen passes
over the tile. Here, the forward pass, the jvp and the vjp each make a single pass over the tile, base by
base, so that the few rows in use stay in the L1 cache. The notation is that of `reference.conv_silu`.
"""

# Functions compiled by numba have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def, call-arg"

import numpy as np
import torch
from torch import Tensor

from genoscan.ops import reference
from genoscan.ops.kernels import ConvInputs
from genoscan.ops.lane_math import sigmoid
from genoscan.ops.lanes import (
    LANES,
    compiled,
    load,
    pad_lanes,
    parallel_for,
    store,
    to_float64,
    unpad_lanes,
    use_widest_vectors,
)
from genoscan.ops.memory import aligned_empty, contiguous
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors, materialize_tangents


@compiled
def _forward(rows, weight, bias, y, start, stop, i_batch, first, last):
    use_widest_vectors()
    for t in range(start, stop):
        for group in range(first, last):
            sum_ = load(bias, group)
            for k in range(len(weight)):
                sum_ = sum_ + load(weight, (k, group)) * load(rows, (i_batch, t - start + k, group))
            store(y, (i_batch, t, group), sum_ * sigmoid(sum_))


@compiled
def _jvp(rows, weight, bias, rows_dot, weight_dot, bias_dot, y, y_dot, start, stop, i_batch, first, last):
    """Write the outputs to `y` and their tangents to `y_dot`.

    If the tangents of the weight and the bias are zero, they are passed as empty arrays.
    """
    use_widest_vectors()
    for t in range(start, stop):
        for group in range(first, last):
            sum_ = load(bias, group)
            for k in range(len(weight)):
                sum_ = sum_ + load(weight, (k, group)) * load(rows, (i_batch, t - start + k, group))
            gate = sigmoid(sum_)
            slope = gate + sum_ * gate * (1.0 - gate)
            store(y, (i_batch, t, group), sum_ * gate)
            for i in range(len(y_dot)):
                dot = 0.0 * gate
                for k in range(len(weight)):
                    row = load(rows_dot, (i, i_batch, t - start + k, group))
                    dot = dot + load(weight, (k, group)) * row
                if bias_dot.shape[1] > 0:
                    dot = dot + load(bias_dot, (i, group))
                    for k in range(len(weight)):
                        row = load(rows, (i_batch, t - start + k, group))
                        dot = dot + load(weight_dot, (i, k, group)) * row
                store(y_dot, (i, i_batch, t, group), slope * dot)


@compiled
def _vjp(rows, weight, bias, y_bar, padded_bar, weight_bar, bias_bar, start, stop, i_batch, first, last):
    """Write the cotangents of the inputs.

    The cotangents of the weight and the bias are empty arrays if they are not needed. `padded_bar` is the
    cotangent of the tail followed by that of the tile, so base `t` is in row `t + before`, where `before`
    is the number of rows of the tail. Until base `t` is processed, this row contains the cotangent, at base
    `t + before`, of the sum to which the SiLU is applied. If this base is past the end of the tile, the row
    contains zero. The value is used for the last time at base `t`, and is then replaced.
    """
    use_widest_vectors()
    before = len(weight) - 1
    # Rows of the tail have negative t.
    for t in range(stop - 1, start - 1 if start > 0 else -before - 1, -1):
        if t >= 0:
            for group in range(first, last):
                sum_ = load(bias, group)
                for k in range(before + 1):
                    row = load(rows, (i_batch, t - start + k, group))
                    sum_ = sum_ + load(weight, (k, group)) * row
                gate = sigmoid(sum_)
                bar = (gate + sum_ * gate * (1.0 - gate)) * load(y_bar, (i_batch, t, group))
                store(padded_bar, (i_batch, t, group), bar)
        if t >= 0 and len(bias_bar) > 0:
            for group in range(first, last):
                bar = load(padded_bar, (i_batch, t, group))
                total = load(bias_bar, (i_batch, group))
                store(bias_bar, (i_batch, group), total + to_float64(bar))
                for k in range(before + 1):
                    term = to_float64(bar * load(rows, (i_batch, t - start + k, group)))
                    total = load(weight_bar, (i_batch, k, group))
                    store(weight_bar, (i_batch, k, group), total + term)
        for group in range(first, last):
            bar = 0.0 * load(bias, group)
            for k in range(min(before, t + before) + 1):
                sum_bar = load(padded_bar, (i_batch, t + before - k, group))
                bar = bar + load(weight, (k, group)) * sum_bar
            store(padded_bar, (i_batch, t + before, group), bar)


def _pieces(x: Tensor, tail: Tensor) -> list[tuple[np.ndarray, int, int]]:
    """Return the input rows in two pieces, each a triple (rows, start, stop).

    `start` and `stop` are the range of bases whose outputs are computed from the rows. The output at base
    `t` is computed from the rows that begin at row `t - start`. For the first bases, the rows are a copy
    that begins with the tail. For all other bases, the rows are those of the tile itself.
    """
    edge = min(tail.shape[-2], x.shape[-2])
    rows = pad_lanes(torch.cat([tail, x[..., :edge, :]], -2))
    return [(rows, 0, edge), (pad_lanes(x), edge, x.shape[-2])]


def _next_tail(given: ConvInputs) -> Tensor:
    """Return a copy of the last `taps - 1` inputs; because it is a copy, the memory of the tile can be freed."""
    before, length = given.tail.shape[-2], given.x.shape[-2]
    if before > length:
        return torch.cat([given.tail[..., length:, :], given.x], -2)
    return given.x[..., length - before :, :].clone()


def forward(inputs: Tensors, *, save: bool) -> tuple[Tensors, Tensors]:
    """Return the SiLU of the convolution, and the tail for the next tile."""
    given = ConvInputs(*inputs)
    pieces = _pieces(given.x, given.tail)
    weight, bias = pad_lanes(given.weight.mT), pad_lanes(given.bias)
    y = aligned_empty(pieces[1][0].shape, weight)

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        for rows, *span in pieces:
            _forward(rows, weight, bias, y, *span, i_batch, first, last)

    parallel_for(run, len(y), len(bias) // LANES)
    return (unpad_lanes(y, given.x.shape[-1]), _next_tail(given)), ()


def jvp(inputs: Tensors, tangents: OptionalTensors) -> tuple[Tensors, Tensors]:
    """Return the outputs of `forward`, and their tangents along all directions."""
    given, dots = ConvInputs(*inputs), ConvInputs(*materialize_tangents(inputs, tangents))
    if all(tangents[i] is None for i in (1, 2)):
        dots = dots._replace(weight=dots.weight[..., :0], bias=dots.bias[..., :0])
    pieces, pieces_dot = _pieces(given.x, given.tail), _pieces(dots.x, dots.tail)
    weight, bias = pad_lanes(given.weight.mT), pad_lanes(given.bias)
    filters = weight, bias
    filters_dot = pad_lanes(dots.weight.mT), pad_lanes(dots.bias)
    outputs = y, y_dot = [aligned_empty(both[1][0].shape, weight) for both in (pieces, pieces_dot)]

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        for (rows, *span), (rows_dot, *_) in zip(pieces, pieces_dot, strict=True):
            _jvp(rows, *filters, rows_dot, *filters_dot, *outputs, *span, i_batch, first, last)

    parallel_for(run, len(y), len(bias) // LANES)
    channels = given.x.shape[-1]
    return ((unpad_lanes(y, channels), _next_tail(given)), (unpad_lanes(y_dot, channels), _next_tail(dots)))


def vjp(inputs: Tensors, _saved: Tensors, bars: Tensors, needs_grad: Flags) -> OptionalTensors:
    """Return the cotangents of the inputs.

    The cotangents of the weight and the bias are None if neither is needed.
    """
    given, y_bar = ConvInputs(*inputs), pad_lanes(bars[0])
    pieces = _pieces(given.x, given.tail)
    weight, bias = pad_lanes(given.weight.mT), pad_lanes(given.bias)
    batch, length, width = y_bar.shape
    before = len(weight) - 1
    padded_bar = aligned_empty((batch, before + length, width), y_bar)
    padded_bar[:, length:] = 0
    # One sum per sequence, so that no two threads add to the same sum; in float64, because each sum
    # has many small terms.
    n_sums = batch if needs_grad[1] or needs_grad[2] else 0
    weight_bar, bias_bar = np.zeros((n_sums, *weight.shape)), np.zeros((n_sums, width))
    outputs = padded_bar, weight_bar, bias_bar

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        for rows, *span in reversed(pieces):
            _vjp(rows, weight, bias, y_bar, *outputs, *span, i_batch, first, last)

    parallel_for(run, batch, width // LANES)
    channels = given.x.shape[-1]
    bar = unpad_lanes(padded_bar, channels)
    bar[:, length:] += bars[1]
    # Make a contiguous copy; otherwise, the gaps between sequences would force every matrix product
    # to copy it.
    x_bar, tail_bar = contiguous(bar[:, before:]), bar[:, :before].clone()
    if not n_sums:
        return x_bar, None, None, tail_bar
    weight_sum, bias_sum = (unpad_lanes(part.sum(0), channels) for part in (weight_bar, bias_bar))
    return x_bar, weight_sum.mT.to(bar.dtype), bias_sum.to(bar.dtype), tail_bar


CONV_SILU = Primitive(forward, jvp, vjp, reference.conv_silu, outputs=2)
