"""The short convolution and its SiLU in one pass, compiled for the CPU.

Left to torch, four shifted products and their derivatives read and write the tile a dozen
times; here each direction reads and writes it once.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, call-arg"

import numba
import numpy as np
from torch import Tensor

from genoscan.ops.lanes import LANES, compiled, expm1, grouped, over_groups, stack, ungrouped

MAX_TAPS = 8


@compiled
def _forward(padded, weight, bias, y, i_batch, first, last):
    zero, one = np.zeros(1, padded.dtype)[0], np.ones(1, padded.dtype)[0]
    taps = weight.shape[0]
    w = numba.carray(stack(zero, 128), (8, 16))
    total = numba.carray(stack(zero, 16), 16)
    for group in range(first, last):
        for k in range(taps):
            for lane in range(LANES):
                w[k, lane] = weight[k, group, lane]
        for t in range(y.shape[1]):
            for lane in range(LANES):
                total[lane] = bias[group, lane]
            for k in range(taps):
                for lane in range(LANES):
                    total[lane] += w[k, lane] * padded[i_batch, t + k, group, lane]
            for lane in range(LANES):
                small = one + expm1(-abs(total[lane]))
                top = one if total[lane] >= zero else small
                y[i_batch, t, group, lane] = total[lane] * (top / (one + small))


@compiled
def _vjp(padded, weight, bias, y_bar, padded_bar, weight_bar, bias_bar, i_batch, first, last):
    zero, one = np.zeros(1, padded.dtype)[0], np.ones(1, padded.dtype)[0]
    taps = weight.shape[0]
    w = numba.carray(stack(zero, 128), (8, 16))
    w_bar = numba.carray(stack(zero, 128), (8, 16))
    b_bar = numba.carray(stack(zero, 16), 16)
    # Cotangents of the inputs t .. t + taps - 1, to which bases further left still add.
    open_bar = numba.carray(stack(zero, 128), (8, 16))
    total = numba.carray(stack(zero, 16), 16)
    for group in range(first, last):
        for lane in range(LANES):
            b_bar[lane] = zero
        for k in range(taps):
            for lane in range(LANES):
                w[k, lane] = weight[k, group, lane]
                w_bar[k, lane] = zero
                open_bar[k, lane] = zero
        for t in range(y_bar.shape[1] - 1, -1, -1):
            for lane in range(LANES):
                total[lane] = bias[group, lane]
            for k in range(taps):
                for lane in range(LANES):
                    total[lane] += w[k, lane] * padded[i_batch, t + k, group, lane]
            for lane in range(LANES):
                small = one + expm1(-abs(total[lane]))
                top = one if total[lane] >= zero else small
                gate = top / (one + small)
                slope = gate * (one + total[lane] * (one - gate))
                total[lane] = slope * y_bar[i_batch, t, group, lane]
                b_bar[lane] += total[lane]
            for k in range(taps):
                for lane in range(LANES):
                    open_bar[k, lane] += w[k, lane] * total[lane]
                    w_bar[k, lane] += total[lane] * padded[i_batch, t + k, group, lane]
            for lane in range(LANES):
                padded_bar[i_batch, t + taps - 1, group, lane] = open_bar[taps - 1, lane]
            for k in range(taps - 1, 0, -1):
                for lane in range(LANES):
                    open_bar[k, lane] = open_bar[k - 1, lane]
            for lane in range(LANES):
                open_bar[0, lane] = zero
        for lane in range(LANES):
            bias_bar[i_batch, group, lane] = b_bar[lane]
        for k in range(taps):
            for lane in range(LANES):
                weight_bar[i_batch, k, group, lane] = w_bar[k, lane]
                if k > 0:
                    padded_bar[i_batch, k - 1, group, lane] = open_bar[k, lane]


def forward(padded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return silu(bias + sum over k of weight[:, k] padded[t + k])."""
    x, w, b = grouped(padded, -1), grouped(weight.T, -1), grouped(bias, -1)
    batch, length, groups, lanes = x.shape
    y = np.empty((batch, length - len(w) + 1, groups, lanes), x.dtype)
    over_groups(
        lambda i_batch, _part, first, last: _forward(x, w, b, y, i_batch, first, last),
        batch,
        groups,
    )
    return ungrouped(y, -1, padded.shape[-1])


def vjp(
    padded: Tensor, weight: Tensor, bias: Tensor, y_bar: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cotangents of `forward`'s arguments."""
    x, w, b = grouped(padded, -1), grouped(weight.T, -1), grouped(bias, -1)
    y_bar_array = grouped(y_bar, -1)
    batch, _, groups, _ = x.shape
    x_bar = np.empty_like(x)
    w_bar = np.empty((batch, *w.shape), x.dtype)
    b_bar = np.empty((batch, *b.shape), x.dtype)
    over_groups(
        lambda i_batch, _part, first, last: _vjp(
            x, w, b, y_bar_array, x_bar, w_bar, b_bar, i_batch, first, last
        ),
        batch,
        groups,
    )
    channels = padded.shape[-1]
    return (
        ungrouped(x_bar, -1, channels),
        ungrouped(w_bar.sum(0), -1, channels).T,
        ungrouped(b_bar.sum(0), -1, channels),
    )
