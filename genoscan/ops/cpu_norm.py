"""The norm in one pass, compiled for the CPU; left to torch, it is a handful in either direction.

Terms as in `reference.rms_norm`.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genoscan.ops import reference
from genoscan.ops.lanes import (
    LANES,
    compiled,
    load,
    over_groups,
    padded,
    precise,
    store,
    total,
    trimmed,
    widest,
)
from genoscan.ops.memory import aligned_empty
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors, materialize_tangents


@compiled
def _inner(a, b, row):
    """Return the inner product of a row of each."""
    lanes = load(a, (row, 0)) * load(b, (row, 0))
    for group in range(1, a.shape[1] // LANES):
        lanes = lanes + load(a, (row, group)) * load(b, (row, group))
    return total(lanes)


@compiled
def _scale(x, row, width, eps):
    """Return 1 / sqrt(mean of x^2 + eps); NaN where the squares overflow, and not 0."""
    mean = _inner(x, x, row) / width
    return 1.0 / np.sqrt(mean + eps) if mean < np.inf else np.nan


@compiled
def _rms_norm(x, weight, width, eps, y, first, last):
    widest()
    for row in range(first, last):
        scale = _scale(x, row, width, eps)
        for group in range(x.shape[1] // LANES):
            store(y, (row, group), load(x, (row, group)) * scale * load(weight, group))


@compiled
def _rms_norm_jvp(x, weight, width, eps, x_dot, weight_dot, y_dot, first, last):
    widest()
    for row in range(first, last):
        scale = _scale(x, row, width, eps)
        for i in range(len(x_dot)):
            shrink = scale * scale * _inner(x, x_dot[i], row) / width
            for group in range(x.shape[1] // LANES):
                here = load(x, (row, group))
                moved = load(weight, group) * (load(x_dot, (i, row, group)) - here * shrink)
                moved = moved + load(weight_dot, (i, group)) * here
                store(y_dot, (i, row, group), moved * scale)


@compiled
def _rms_norm_vjp(x, weight, width, eps, y_bar, x_bar, weight_bar, first, last):
    """Pull cotangents back; `weight_bar` may be empty, if not needed."""
    widest()
    for row in range(first, last):
        scale = _scale(x, row, width, eps)
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


def _norm_forward(inputs: Tensors, *, save: bool, eps: float) -> tuple[Tensors, Tensors]:
    x, weight, width = _rows(inputs[0]), padded(inputs[1]), inputs[0].shape[-1]
    y = aligned_empty(x.shape, x)
    _over_rows(_rms_norm, len(x), x, weight, width, eps, y)
    return (_like(y, inputs[0]),), ()


def _norm_jvp(inputs: Tensors, dots: OptionalTensors, *, eps: float) -> tuple[Tensors, Tensors]:
    x, weight, width = _rows(inputs[0]), padded(inputs[1]), inputs[0].shape[-1]
    moved = materialize_tangents(inputs, dots)
    x_dot, weight_dot = _by_direction(moved[0]), padded(moved[1])
    y_dot = aligned_empty(x_dot.shape, x)
    _over_rows(_rms_norm_jvp, len(x), x, weight, width, eps, x_dot, weight_dot, y_dot)
    outputs, _ = _norm_forward(inputs, save=False, eps=eps)
    return outputs, (_like(y_dot, moved[0]),)


def _norm_vjp(
    inputs: Tensors, _saved: Tensors, bars: Tensors, needs_grad: Flags, *, eps: float
) -> OptionalTensors:
    x, weight, width, y_bar = _rows(inputs[0]), padded(inputs[1]), inputs[0].shape[-1], _rows(*bars)
    x_bar = aligned_empty(x.shape, x)
    # A sum a thread; long sums of small numbers are kept in float64.
    sums = np.zeros((torch.get_num_threads(), len(weight) if needs_grad[1] else 0))
    over_groups(
        lambda _batch, i_part, first, last: _rms_norm_vjp(
            x, weight, width, eps, y_bar, x_bar, sums[i_part], first, last
        ),
        1,
        len(x),
    )
    weight_bar = trimmed(sums.sum(0), width).to(inputs[1].dtype) if needs_grad[1] else None
    return _like(x_bar, inputs[0]), weight_bar


RMS_NORM = Primitive(_norm_forward, _norm_jvp, _norm_vjp, reference.rms_norm)
