"""The short convolution and its SiLU in one pass, compiled for the CPU.

Left to torch, four shifted products and their derivatives read and write the tile a dozen
times; here each direction goes through it once, row by row, so that the few rows in use stay in
the first cache and the inner loops run along them.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, call-arg"

import numpy as np
from torch import Tensor, from_numpy

from genoscan.ops.lanes import compiled, decay, over_groups


@compiled
def _convolve(rows, t, weight, bias, total, first, last):
    """total = bias + sum over k of weight[k] rows[t + k], channels first..last."""
    for k in range(len(weight)):
        row, w = rows[t + k][first:last], weight[k][first:last]
        if k == 0:
            b = bias[first:last]
            for j in range(len(row)):
                total[j] = b[j] + w[j] * row[j]
        else:
            for j in range(len(row)):
                total[j] += w[j] * row[j]


@compiled
def _forward(padded, weight, bias, y, i_batch, first, last):
    zero, one = np.zeros(1, padded.dtype)[0], np.ones(1, padded.dtype)[0]
    rows = padded[i_batch]
    total = np.empty(last - first, padded.dtype)
    for t in range(y.shape[1]):
        _convolve(rows, t, weight, bias, total, first, last)
        out = y[i_batch][t][first:last]
        for j in range(len(out)):
            small = decay(-abs(total[j]))
            small += one if small <= zero else zero
            top = one if total[j] >= zero else small
            out[j] = total[j] * (top / (one + small))


@compiled
def _vjp(padded, weight, bias, y_bar, padded_bar, weight_bar, bias_bar, i_batch, first, last):
    zero, one = np.zeros(1, padded.dtype)[0], np.ones(1, padded.dtype)[0]
    rows, rows_bar = padded[i_batch], padded_bar[i_batch]
    taps, length = len(weight), y_bar.shape[1]
    total = np.empty(last - first, padded.dtype)
    for t in range(length - 1, -1, -1):
        _convolve(rows, t, weight, bias, total, first, last)
        out_bar, sum_b = y_bar[i_batch][t][first:last], bias_bar[i_batch][first:last]
        for j in range(len(total)):
            small = decay(-abs(total[j]))
            small += one if small <= zero else zero
            top = one if total[j] >= zero else small
            gate = top / (one + small)
            total[j] = gate * (one + total[j] * (one - gate)) * out_bar[j]
            sum_b[j] += total[j]
        for k in range(taps):
            row, w = rows[t + k][first:last], weight[k][first:last]
            row_bar, sum_w = rows_bar[t + k][first:last], weight_bar[i_batch][k][first:last]
            for j in range(len(total)):
                row_bar[j] += w[j] * total[j]
                sum_w[j] += row[j] * total[j]


def forward(padded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return silu(bias + sum over k of weight[:, k] padded[t + k])."""
    x, w, b = _array(padded), _array(weight.T), _array(bias)
    batch, length, channels = x.shape
    y = np.empty((batch, length - len(w) + 1, channels), x.dtype)
    over_groups(
        lambda i_batch, _part, first, last: _forward(x, w, b, y, i_batch, first, last),
        batch,
        channels,
    )
    return from_numpy(y)


def vjp(
    padded: Tensor, weight: Tensor, bias: Tensor, y_bar: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cotangents of `forward`'s arguments."""
    x, w, b, out_bar = _array(padded), _array(weight.T), _array(bias), _array(y_bar)
    batch, _, channels = x.shape
    x_bar = np.zeros_like(x)
    # A sum a sequence: threads share none.
    w_bar = np.zeros((batch, *w.shape), x.dtype)
    b_bar = np.zeros((batch, *b.shape), x.dtype)
    over_groups(
        lambda i_batch, _part, first, last: _vjp(
            x, w, b, out_bar, x_bar, w_bar, b_bar, i_batch, first, last
        ),
        batch,
        channels,
    )
    return from_numpy(x_bar), from_numpy(w_bar.sum(0)).T, from_numpy(b_bar.sum(0))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
