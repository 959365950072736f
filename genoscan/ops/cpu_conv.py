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

from genoscan.ops.kernels import ConvInputs
from genoscan.ops.lanes import (
    LANES,
    compiled,
    grouped,
    load,
    over_groups,
    precise,
    room,
    room_like,
    sigmoid,
    store,
    ungrouped,
    widest,
)
from genoscan.ops.trio import Perhaps, Tensors, Trio, filled


@compiled
def _forward(padded, weight, bias, y, i_batch, first, last):
    widest()
    for t in range(y.shape[1]):
        for group in range(first, last):
            total = load(bias, group)
            for k in range(len(weight)):
                total = total + load(weight, (k, group)) * load(padded, (i_batch, t + k, group))
            store(y, (i_batch, t, group), total * sigmoid(total))


@compiled
def _jvp(padded, weight, bias, padded_dot, weight_dot, bias_dot, y, y_dot, i_batch, first, last):
    """Go forward and push a tangent; those of weight and bias may be empty, where they do not move."""  # noqa: E501
    widest()
    for t in range(y_dot.shape[1]):
        for group in range(first, last):
            total = load(bias, group)
            dot = 0.0 * total
            for k in range(len(weight)):
                w = load(weight, (k, group))
                total = total + w * load(padded, (i_batch, t + k, group))
                dot = dot + w * load(padded_dot, (i_batch, t + k, group))
            if len(bias_dot) > 0:
                dot = dot + load(bias_dot, group)
                for k in range(len(weight)):
                    row = load(padded, (i_batch, t + k, group))
                    dot = dot + load(weight_dot, (k, group)) * row
            gate = sigmoid(total)
            store(y, (i_batch, t, group), total * gate)
            store(y_dot, (i_batch, t, group), (gate + total * gate * (1.0 - gate)) * dot)


@compiled
def _vjp(padded, weight, bias, y_bar, padded_bar, weight_bar, bias_bar, sums_bar,
         i_batch, first, last):  # fmt: skip
    """Pull cotangents back; those of weight and bias may be empty, where nobody wants them.

    `sums_bar`, given as zeros, takes the cotangents of the sums before the SiLU, between as many
    rows of zeros on either side as there are taps to the left of a base.
    """
    widest()
    before = len(weight) - 1
    for t in range(y_bar.shape[1] - 1, -before - 1, -1):
        if t >= 0:
            for group in range(first, last):
                total = load(bias, group)
                for k in range(before + 1):
                    total = total + load(weight, (k, group)) * load(padded, (i_batch, t + k, group))
                gate = sigmoid(total)
                here = (gate + total * gate * (1.0 - gate)) * load(y_bar, (i_batch, t, group))
                store(sums_bar, (i_batch, t + before, group), here)
        if t >= 0 and len(bias_bar) > 0:
            for group in range(first, last):
                here = load(sums_bar, (i_batch, t + before, group))
                so_far = load(bias_bar, (i_batch, group))
                store(bias_bar, (i_batch, group), so_far + precise(here))
                for k in range(before + 1):
                    part = precise(here * load(padded, (i_batch, t + k, group)))
                    so_far = load(weight_bar, (i_batch, k, group))
                    store(weight_bar, (i_batch, k, group), so_far + part)
        # Nothing further to the left reaches the row of t's last tap.
        for group in range(first, last):
            pulled = 0.0 * load(bias, group)
            for k in range(before + 1):
                later = load(sums_bar, (i_batch, t + 2 * before - k, group))
                pulled = pulled + load(weight, (k, group)) * later
            store(padded_bar, (i_batch, t + before, group), pulled)


def _arrays(given: ConvInputs) -> tuple[np.ndarray, ...]:
    return (
        grouped(torch.cat([given.tail, given.x], -2)),
        grouped(given.weight.mT),
        grouped(given.bias),
    )


def _next_tail(given: ConvInputs) -> Tensor:
    """Return the last inputs, as many as the tail has; a copy, which keeps no tile alive."""
    before, length = given.tail.shape[-2], given.x.shape[-2]
    if before > length:
        return torch.cat([given.tail[..., length:, :], given.x], -2)
    return given.x[..., length - before :, :].clone()


def forward(inputs: Tensors, *, keep: bool) -> tuple[Tensors, Tensors]:
    """Return silu of the convolution, and the next tail."""
    given = ConvInputs(*inputs)
    batch, length, channels = given.x.shape
    arrays = _arrays(given)
    groups = len(arrays[-1])
    y = room((batch, length, groups, LANES), arrays[0])
    over_groups(
        lambda i_batch, _part, first, last: _forward(*arrays, y, i_batch, first, last),
        batch,
        groups,
    )
    return (ungrouped(y, channels), _next_tail(given)), ()


def jvp(inputs: Tensors, dots: Perhaps) -> tuple[Tensors, Tensors]:
    """Return both outputs, and their tangents, for every direction."""
    given, moved = ConvInputs(*inputs), ConvInputs(*filled(inputs, dots))
    if ConvInputs(*dots).weight is None and ConvInputs(*dots).bias is None:  # type: ignore[arg-type]
        moved = moved._replace(weight=moved.weight[..., :0], bias=moved.bias[..., :0])
    batch, length, channels = given.x.shape
    arrays, dot_arrays = _arrays(given), _arrays(moved)
    groups = len(arrays[-1])
    y = room((batch, length, groups, LANES), arrays[0])
    y_dot = room((len(moved.x), *y.shape), y)
    for direction in zip(*dot_arrays, y_dot, strict=True):
        over_groups(
            lambda i_batch, _part, first, last, direction=direction: _jvp(  # type: ignore[misc]
                *arrays, *direction[:-1], y, direction[-1], i_batch, first, last
            ),
            batch,
            groups,
        )
    return (
        (ungrouped(y, channels), _next_tail(given)),
        (ungrouped(y_dot, channels), _next_tail(moved)),
    )


def vjp(inputs: Tensors, _kept: Tensors, bars: Tensors, wanted: tuple[bool, ...]) -> Perhaps:
    """Return the cotangents of the inputs; weight's and bias's only where wanted."""
    given, y_bar = ConvInputs(*inputs), grouped(bars[0])
    batch, length, channels = given.x.shape
    padded, weight, bias = _arrays(given)
    before, groups = len(weight) - 1, len(bias)
    padded_bar = room_like(padded)
    sums_bar = room((batch, length + 2 * before, groups, LANES), padded)
    sums_bar[:, :before] = sums_bar[:, before + length :] = 0
    # A sum a sequence: threads share none.  Long sums of small numbers are kept in float64.
    trained = batch if ConvInputs(*wanted).weight or ConvInputs(*wanted).bias else 0  # type: ignore[arg-type]
    weight_bar, bias_bar = np.zeros((trained, *weight.shape)), np.zeros((trained, *bias.shape))
    over_groups(
        lambda i_batch, _part, first, last: _vjp(
            padded, weight, bias, y_bar, padded_bar, weight_bar, bias_bar, sums_bar,
            i_batch, first, last,
        ),
        batch,
        groups,
    )  # fmt: skip
    pulled = ungrouped(padded_bar, channels)
    pulled[:, length:] += bars[1]
    return ConvInputs(
        x=pulled[:, before:],
        weight=ungrouped(weight_bar.sum(0), channels).mT.to(pulled.dtype),
        bias=ungrouped(bias_bar.sum(0), channels).to(pulled.dtype),
        tail=pulled[:, :before],
    )


CONV_SILU = Trio(forward, jvp, vjp, outputs=2)
