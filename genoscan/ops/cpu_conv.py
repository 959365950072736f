"""The short convolution and its SiLU in one pass, compiled for the CPU.

Left to torch, four shifted products and their derivatives read and write the tile a dozen
times; here each direction goes through it once, base by base, so that the few rows in use stay
in the first cache.  Terms as in `reference.conv_silu`.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, call-arg"

import numpy as np
import torch
from torch import Tensor

from genoscan.ops import reference
from genoscan.ops.kernels import ConvInputs
from genoscan.ops.lanes import (
    LANES,
    compiled,
    load,
    over_groups,
    padded,
    precise,
    sigmoid,
    store,
    trimmed,
    widest,
)
from genoscan.ops.memory import aligned_empty, contiguous
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors, materialize_tangents


@compiled
def _forward(rows, weight, bias, y, start, stop, i_batch, first, last):
    widest()
    for t in range(start, stop):
        for group in range(first, last):
            sum_ = load(bias, group)
            for k in range(len(weight)):
                sum_ = sum_ + load(weight, (k, group)) * load(rows, (i_batch, t - start + k, group))
            store(y, (i_batch, t, group), sum_ * sigmoid(sum_))


@compiled
def _jvp(rows, weight, bias, rows_dot, weight_dot, bias_dot, y, y_dot,
         start, stop, i_batch, first, last):  # fmt: skip
    """Push tangents; those of weight and bias may be empty, where they do not move."""
    widest()
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
def _vjp(rows, weight, bias, y_bar, padded_bar, weight_bar, bias_bar,
         start, stop, i_batch, first, last):  # fmt: skip
    """Pull cotangents back; those of weight and bias may be empty, if not needed.

    `padded_bar` takes those of tail and tile: row t + before that of base t.  Until then it holds
    the cotangent of the sum of base t + before, before the SiLU, which is needed for the last time
    where base t's is made; past the tile's end there are zeros.
    """
    widest()
    before = len(weight) - 1
    # What the tile's left end sends further left has no base of its own.
    for t in range(stop - 1, start - 1 if start > 0 else -before - 1, -1):
        if t >= 0:
            for group in range(first, last):
                sum_ = load(bias, group)
                for k in range(before + 1):
                    row = load(rows, (i_batch, t - start + k, group))
                    sum_ = sum_ + load(weight, (k, group)) * row
                gate = sigmoid(sum_)
                here = (gate + sum_ * gate * (1.0 - gate)) * load(y_bar, (i_batch, t, group))
                store(padded_bar, (i_batch, t, group), here)
        if t >= 0 and len(bias_bar) > 0:
            for group in range(first, last):
                here = load(padded_bar, (i_batch, t, group))
                so_far = load(bias_bar, (i_batch, group))
                store(bias_bar, (i_batch, group), so_far + precise(here))
                for k in range(before + 1):
                    part = precise(here * load(rows, (i_batch, t - start + k, group)))
                    so_far = load(weight_bar, (i_batch, k, group))
                    store(weight_bar, (i_batch, k, group), so_far + part)
        for group in range(first, last):
            pulled = 0.0 * load(bias, group)
            for k in range(min(before, t + before) + 1):
                later = load(padded_bar, (i_batch, t + before - k, group))
                pulled = pulled + load(weight, (k, group)) * later
            store(padded_bar, (i_batch, t + before, group), pulled)


def _pieces(x: Tensor, tail: Tensor) -> list[tuple[np.ndarray, int, int]]:
    """Return (rows, start, stop) twice: base t of start..stop reads rows t - start and on.

    The first bases read a copy that begins with the tail, the others the tile as it is.
    """
    edge = min(tail.shape[-2], x.shape[-2])
    rows = padded(torch.cat([tail, x[..., :edge, :]], -2))
    return [(rows, 0, edge), (padded(x), edge, x.shape[-2])]


def _next_tail(given: ConvInputs) -> Tensor:
    """Return the last inputs, as many as the tail has; a copy, which keeps no tile alive."""
    before, length = given.tail.shape[-2], given.x.shape[-2]
    if before > length:
        return torch.cat([given.tail[..., length:, :], given.x], -2)
    return given.x[..., length - before :, :].clone()


def forward(inputs: Tensors, *, save: bool) -> tuple[Tensors, Tensors]:
    """Return silu of the convolution, and the next tail."""
    given = ConvInputs(*inputs)
    pieces = _pieces(given.x, given.tail)
    weight, bias = padded(given.weight.mT), padded(given.bias)
    y = aligned_empty(pieces[1][0].shape, weight)

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        for rows, *span in pieces:
            _forward(rows, weight, bias, y, *span, i_batch, first, last)

    over_groups(run, len(y), len(bias) // LANES)
    return (trimmed(y, given.x.shape[-1]), _next_tail(given)), ()


def jvp(inputs: Tensors, dots: OptionalTensors) -> tuple[Tensors, Tensors]:
    """Return both outputs, and their tangents, for every direction."""
    given, moved = ConvInputs(*inputs), ConvInputs(*materialize_tangents(inputs, dots))
    if all(dots[i] is None for i in (1, 2)):
        moved = moved._replace(weight=moved.weight[..., :0], bias=moved.bias[..., :0])
    pieces, pieces_dot = _pieces(given.x, given.tail), _pieces(moved.x, moved.tail)
    weight, bias = padded(given.weight.mT), padded(given.bias)
    weight_dot, bias_dot = padded(moved.weight.mT), padded(moved.bias)
    y, y_dot = (aligned_empty(rows[1][0].shape, weight) for rows in (pieces, pieces_dot))

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        for (rows, *span), (rows_dot, *_) in zip(pieces, pieces_dot, strict=True):
            _jvp(
                rows, weight, bias, rows_dot, weight_dot, bias_dot, y, y_dot,
                *span, i_batch, first, last,
            )  # fmt: skip

    over_groups(run, len(y), len(bias) // LANES)
    channels = given.x.shape[-1]
    return (
        (trimmed(y, channels), _next_tail(given)),
        (trimmed(y_dot, channels), _next_tail(moved)),
    )


def vjp(inputs: Tensors, _saved: Tensors, bars: Tensors, needs_grad: Flags) -> OptionalTensors:
    """Return the cotangents of the inputs; weight's and bias's only where needed."""
    given, y_bar = ConvInputs(*inputs), padded(bars[0])
    pieces = _pieces(given.x, given.tail)
    weight, bias = padded(given.weight.mT), padded(given.bias)
    batch, length, width = y_bar.shape
    before = len(weight) - 1
    padded_bar = aligned_empty((batch, before + length, width), y_bar)
    padded_bar[:, length:] = 0
    # A sum a sequence: threads share none.  Long sums of small numbers are kept in float64.
    trained = batch if needs_grad[1] or needs_grad[2] else 0
    weight_bar, bias_bar = np.zeros((trained, *weight.shape)), np.zeros((trained, width))

    def run(i_batch: int, _part: int, first: int, last: int) -> None:
        for rows, *span in reversed(pieces):
            _vjp(
                rows, weight, bias, y_bar, padded_bar, weight_bar, bias_bar,
                *span, i_batch, first, last,
            )  # fmt: skip

    over_groups(run, batch, width // LANES)
    channels = given.x.shape[-1]
    pulled = trimmed(padded_bar, channels)
    pulled[:, length:] += bars[1]
    # A copy, which keeps no tile alive; sequences with gaps between would be copied by a product.
    x_bar, tail_bar = contiguous(pulled[:, before:]), pulled[:, :before].clone()
    if not trained:
        return x_bar, None, None, tail_bar
    weight_sum, bias_sum = trimmed(weight_bar.sum(0), channels), trimmed(bias_bar.sum(0), channels)
    return x_bar, weight_sum.mT.to(pulled.dtype), bias_sum.to(pulled.dtype), tail_bar


CONV_SILU = Primitive(forward, jvp, vjp, reference.conv_silu, outputs=2)
