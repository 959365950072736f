"""Step sizes, gate and norm in one pass each, compiled for the CPU.

Left to torch, each is a handful of passes over the tile in either direction.  Terms as in
`reference.py`.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, call-arg"

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genoscan.ops.lanes import (
    LANES,
    compiled,
    load,
    over_groups,
    padded,
    precise,
    room,
    sigmoid,
    softplus,
    store,
    total,
    trimmed,
    widest,
)
from genoscan.ops.trio import Perhaps, Tensors, Trio, filled


@compiled
def _step_size(x, bias, delta, first, last):
    widest()
    for row in range(first, last):
        for group in range(x.shape[1] // LANES):
            store(delta, (row, group), softplus(load(x, (row, group)) + load(bias, group)))


@compiled
def _step_size_slope(x, bias, factors, products, first, last):
    """products = factors times the slope of softplus; factors have one more axis in front."""
    widest()
    for row in range(first, last):
        for group in range(x.shape[1] // LANES):
            slope = sigmoid(load(x, (row, group)) + load(bias, group))
            for i in range(len(factors)):
                store(products, (i, row, group), slope * load(factors, (i, row, group)))


@compiled
def _gate(y, z, out, first, last):
    widest()
    for row in range(first, last):
        for group in range(y.shape[1] // LANES):
            here = load(z, (row, group))
            store(out, (row, group), load(y, (row, group)) * here * sigmoid(here))


@compiled
def _gate_jvp(y, z, y_dot, z_dot, out, out_dot, first, last):
    widest()
    for row in range(first, last):
        for group in range(y.shape[1] // LANES):
            here = load(z, (row, group))
            open_ = sigmoid(here)
            silu = here * open_
            store(out, (row, group), silu * load(y, (row, group)))
            slope = (open_ + silu * (1.0 - open_)) * load(y, (row, group))
            for i in range(len(y_dot)):
                moved = silu * load(y_dot, (i, row, group)) + slope * load(z_dot, (i, row, group))
                store(out_dot, (i, row, group), moved)


@compiled
def _gate_vjp(y, z, out_bar, y_bar, z_bar, first, last):
    widest()
    for row in range(first, last):
        for group in range(y.shape[1] // LANES):
            here, pulled = load(z, (row, group)), load(out_bar, (row, group))
            open_ = sigmoid(here)
            silu = here * open_
            store(y_bar, (row, group), silu * pulled)
            slope = (open_ + silu * (1.0 - open_)) * load(y, (row, group))
            store(z_bar, (row, group), slope * pulled)


@compiled
def _inner(a, b, row):
    """Return the inner product of a row of each."""
    lanes = load(a, (row, 0)) * load(b, (row, 0))  # type: ignore[var-annotated]
    for group in range(1, a.shape[1] // LANES):
        lanes = lanes + load(a, (row, group)) * load(b, (row, group))
    return total(lanes)


@compiled
def _rms_norm(x, weight, width, eps, y, first, last):
    widest()
    for row in range(first, last):
        scale = 1.0 / np.sqrt(_inner(x, x, row) / width + eps)
        for group in range(x.shape[1] // LANES):
            store(y, (row, group), load(x, (row, group)) * scale * load(weight, group))


@compiled
def _rms_norm_jvp(x, weight, width, eps, x_dot, weight_dot, y_dot, first, last):
    widest()
    for row in range(first, last):
        scale = 1.0 / np.sqrt(_inner(x, x, row) / width + eps)
        for i in range(len(x_dot)):
            shrink = scale * scale * _inner(x, x_dot[i], row) / width
            for group in range(x.shape[1] // LANES):
                here = load(x, (row, group))
                moved = load(weight, group) * (load(x_dot, (i, row, group)) - here * shrink)
                moved = moved + load(weight_dot, (i, group)) * here
                store(y_dot, (i, row, group), moved * scale)


@compiled
def _rms_norm_vjp(x, weight, width, eps, y_bar, x_bar, weight_bar, first, last):
    """Pull cotangents back; `weight_bar` may be empty, where nobody wants it."""
    widest()
    for row in range(first, last):
        scale = 1.0 / np.sqrt(_inner(x, x, row) / width + eps)
        for group in range(x.shape[1] // LANES):
            pulled = load(y_bar, (row, group))
            store(x_bar, (row, group), load(weight, group) * pulled)
            if len(weight_bar) > 0:
                part = precise(pulled * load(x, (row, group)) * scale)
                store(weight_bar, group, load(weight_bar, group) + part)
        shrink = scale * scale * _inner(x, x_bar, row) / width
        for group in range(x.shape[1] // LANES):
            pulled = load(x_bar, (row, group)) - load(x, (row, group)) * shrink
            store(x_bar, (row, group), pulled * scale)


def _over_rows(kernel: Callable[..., None], rows: int, *arguments: Any) -> None:
    over_groups(lambda _batch, _part, first, last: kernel(*arguments, first, last), 1, rows)


def _rows(tensor: Tensor) -> np.ndarray:
    """See (batch, tile, channels) as (rows, lanes)."""
    array = padded(tensor)
    return array.reshape(-1, array.shape[-1])


def _by_direction(tensor: Tensor) -> np.ndarray:
    """See (directions, batch, tile, channels) as (directions, rows, lanes)."""
    array = padded(tensor)
    return array.reshape(len(array), -1, array.shape[-1])


def _like(array: np.ndarray, tensor: Tensor) -> Tensor:
    """Give an array of rows the shape of a tensor."""
    return trimmed(array, tensor.shape[-1]).reshape(tensor.shape)


def _step_size_forward(inputs: Tensors, *, keep: bool) -> tuple[Tensors, Tensors]:
    x, bias = _rows(inputs[0]), padded(inputs[1])
    delta = room(x.shape, x)
    _over_rows(_step_size, len(x), x, bias, delta)
    return (_like(delta, inputs[0]),), ()


def _sloped(inputs: Tensors, factors: Tensor) -> Tensor:
    """Return the factors (directions, batch, tile, channels) times the slope of softplus."""
    x, bias, given = _rows(inputs[0]), padded(inputs[1]), _by_direction(factors)
    products = room(given.shape, given)
    _over_rows(_step_size_slope, len(x), x, bias, given, products)
    return _like(products, factors)


def _step_size_push(inputs: Tensors, dots: Perhaps) -> tuple[Tensors, Tensors]:
    x_dot, bias_dot = filled(inputs, dots)
    moved = x_dot if dots[1] is None else x_dot + bias_dot[:, None, None]
    outputs, _ = _step_size_forward(inputs, keep=False)
    return outputs, (_sloped(inputs, moved),)


def _step_size_pull(
    inputs: Tensors, _kept: Tensors, bars: Tensors, wanted: tuple[bool, ...]
) -> Perhaps:
    (x_bar,) = _sloped(inputs, bars[0][None])
    return x_bar, x_bar.sum((0, 1)) if wanted[1] else None


def _gate_forward(inputs: Tensors, *, keep: bool) -> tuple[Tensors, Tensors]:
    y, z = map(_rows, inputs)
    out = room(y.shape, y)
    _over_rows(_gate, len(y), y, z, out)
    return (_like(out, inputs[0]),), ()


def _gate_push(inputs: Tensors, dots: Perhaps) -> tuple[Tensors, Tensors]:
    y, z = map(_rows, inputs)
    moved = filled(inputs, dots)
    y_dot, z_dot = map(_by_direction, moved)
    out, out_dot = room(y.shape, y), room(y_dot.shape, y)
    _over_rows(_gate_jvp, len(y), y, z, y_dot, z_dot, out, out_dot)
    return (_like(out, inputs[0]),), (_like(out_dot, moved[0]),)


def _gate_pull(
    inputs: Tensors, _kept: Tensors, bars: Tensors, _wanted: tuple[bool, ...]
) -> Perhaps:
    y, z, out_bar = map(_rows, (*inputs, *bars))
    y_bar, z_bar = room(y.shape, y), room(y.shape, y)
    _over_rows(_gate_vjp, len(y), y, z, out_bar, y_bar, z_bar)
    return _like(y_bar, inputs[0]), _like(z_bar, inputs[0])


def _norm_forward(inputs: Tensors, *, keep: bool, eps: float) -> tuple[Tensors, Tensors]:
    x, weight, width = _rows(inputs[0]), padded(inputs[1]), inputs[0].shape[-1]
    y = room(x.shape, x)
    _over_rows(_rms_norm, len(x), x, weight, width, eps, y)
    return (_like(y, inputs[0]),), ()


def _norm_push(inputs: Tensors, dots: Perhaps, *, eps: float) -> tuple[Tensors, Tensors]:
    x, weight, width = _rows(inputs[0]), padded(inputs[1]), inputs[0].shape[-1]
    moved = filled(inputs, dots)
    x_dot, weight_dot = _by_direction(moved[0]), padded(moved[1])
    y_dot = room(x_dot.shape, x)
    _over_rows(_rms_norm_jvp, len(x), x, weight, width, eps, x_dot, weight_dot, y_dot)
    outputs, _ = _norm_forward(inputs, keep=False, eps=eps)
    return outputs, (_like(y_dot, moved[0]),)


def _norm_pull(
    inputs: Tensors, _kept: Tensors, bars: Tensors, wanted: tuple[bool, ...], *, eps: float
) -> Perhaps:
    x, weight, width, y_bar = _rows(inputs[0]), padded(inputs[1]), inputs[0].shape[-1], _rows(*bars)
    x_bar = room(x.shape, x)
    # A sum a thread; long sums of small numbers are kept in float64.
    sums = np.zeros((torch.get_num_threads(), len(weight) if wanted[1] else 0))
    over_groups(
        lambda _batch, i_part, first, last: _rms_norm_vjp(
            x, weight, width, eps, y_bar, x_bar, sums[i_part], first, last
        ),
        1,
        len(x),
    )
    weight_bar = trimmed(sums.sum(0), width).to(inputs[1].dtype) if wanted[1] else None
    return _like(x_bar, inputs[0]), weight_bar


STEP_SIZE = Trio(_step_size_forward, _step_size_push, _step_size_pull)
GATE = Trio(_gate_forward, _gate_push, _gate_pull)
RMS_NORM = Trio(_norm_forward, _norm_push, _norm_pull)
