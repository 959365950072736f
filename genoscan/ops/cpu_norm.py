"""RMSNorm for the CPU, compiled by numba.

The kernels make a single pass over memory, whereas torch makes several. The notation is that of
`reference.rms_norm`.
"""

# Functions compiled by numba have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from genoscan.ops import reference
from genoscan.ops.lanes import (
    LANES,
    compiled,
    load,
    pad_lanes,
    parallel_for,
    reduce_add,
    store,
    to_float64,
    unpad_lanes,
    use_widest_vectors,
)
from genoscan.ops.memory import aligned_empty
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors, materialize_tangents


@numba.njit(inline="always")
def _inner(a, b, row):
    """Return the inner product of the same row of `a` and `b`."""
    lanes = load(a, (row, 0)) * load(b, (row, 0))
    for group in range(1, a.shape[1] // LANES):
        lanes = lanes + load(a, (row, group)) * load(b, (row, group))
    return reduce_add(lanes)


@numba.njit(inline="always")
def _scale(x, row, width, eps):
    """Return `1 / sqrt(mean(x^2) + eps)` for a row of `x`.

    If the squares overflow, the result is NaN rather than 0.
    """
    mean = _inner(x, x, row) / width
    return 1.0 / np.sqrt(mean + eps) if mean < np.inf else np.nan


@compiled
def _forward_rows(x, weight, width, eps, y, first, last):
    use_widest_vectors()
    for row in range(first, last):
        scale = _scale(x, row, width, eps)
        for group in range(x.shape[1] // LANES):
            store(y, (row, group), load(x, (row, group)) * scale * load(weight, group))


@compiled
def _jvp_rows(x, weight, width, eps, x_dot, weight_dot, y_dot, first, last):
    use_widest_vectors()
    for row in range(first, last):
        scale = _scale(x, row, width, eps)
        for i in range(len(x_dot)):
            shrink = scale * scale * _inner(x, x_dot[i], row) / width
            for group in range(x.shape[1] // LANES):
                x_i = load(x, (row, group))
                dot = load(weight, group) * (load(x_dot, (i, row, group)) - x_i * shrink)
                dot = dot + load(weight_dot, (i, group)) * x_i
                store(y_dot, (i, row, group), dot * scale)


@compiled
def _vjp_rows(x, weight, width, eps, y_bar, x_bar, weight_bar, first, last):
    """Write the cotangents of rows of `x` to `x_bar`, and add those of the weight to `weight_bar`.

    If `weight_bar` is empty, the cotangent of the weight is not computed.
    """
    use_widest_vectors()
    for row in range(first, last):
        scale = _scale(x, row, width, eps)
        for group in range(x.shape[1] // LANES):
            bar = load(y_bar, (row, group))
            store(x_bar, (row, group), load(weight, group) * bar)
            if len(weight_bar) > 0:
                term = to_float64(bar * load(x, (row, group)) * scale)
                store(weight_bar, group, load(weight_bar, group) + term)
        shrink = scale * scale * _inner(x, x_bar, row) / width
        for group in range(x.shape[1] // LANES):
            bar = load(x_bar, (row, group)) - load(x, (row, group)) * shrink
            store(x_bar, (row, group), bar * scale)


def _over_rows(kernel: Callable[..., None], rows: int, *arguments: Any) -> None:
    parallel_for(lambda _batch, _part, first, last: kernel(*arguments, first, last), 1, rows)


def _rows(tensor: Tensor) -> np.ndarray:
    """Return a tensor of shape (batch, tile, channels) as an array of shape (batch x tile, padded channels)."""
    array = pad_lanes(tensor)
    return array.reshape(-1, array.shape[-1])


def _rows_by_direction(tensor: Tensor) -> np.ndarray:
    """Return tangents as an array of shape (directions, batch x tile, padded channels).

    The shape of `tensor` is (directions, batch, tile, channels).
    """
    array = pad_lanes(tensor)
    return array.reshape(len(array), -1, array.shape[-1])


def _like(array: np.ndarray, tensor: Tensor) -> Tensor:
    """Convert an array of rows with padded channels to a tensor with the shape of `tensor`."""
    return unpad_lanes(array, tensor.shape[-1]).reshape(tensor.shape)


def _forward(inputs: Tensors, *, save: bool, eps: float) -> tuple[Tensors, Tensors]:
    x, weight, width = _rows(inputs[0]), pad_lanes(inputs[1]), inputs[0].shape[-1]
    y = aligned_empty(x.shape, x)
    _over_rows(_forward_rows, len(x), x, weight, width, eps, y)
    return (_like(y, inputs[0]),), ()


def _jvp(inputs: Tensors, tangents: OptionalTensors, *, eps: float) -> tuple[Tensors, Tensors]:
    x, weight, width = _rows(inputs[0]), pad_lanes(inputs[1]), inputs[0].shape[-1]
    dots = materialize_tangents(inputs, tangents)
    x_dot, weight_dot = _rows_by_direction(dots[0]), pad_lanes(dots[1])
    y_dot = aligned_empty(x_dot.shape, x)
    _over_rows(_jvp_rows, len(x), x, weight, width, eps, x_dot, weight_dot, y_dot)
    outputs, _ = _forward(inputs, save=False, eps=eps)
    return outputs, (_like(y_dot, dots[0]),)


def _vjp(inputs: Tensors, _saved: Tensors, bars: Tensors, needs_grad: Flags, *, eps: float) -> OptionalTensors:
    x, weight, width = _rows(inputs[0]), pad_lanes(inputs[1]), inputs[0].shape[-1]
    y_bar = _rows(*bars)
    x_bar = aligned_empty(x.shape, x)
    # One sum per thread, in float64 because each sum has many small terms.
    sums = np.zeros((torch.get_num_threads(), len(weight) if needs_grad[1] else 0))
    parallel_for(
        lambda _batch, i_part, first, last: _vjp_rows(x, weight, width, eps, y_bar, x_bar, sums[i_part], first, last),
        1,
        len(x),
    )
    weight_bar = unpad_lanes(sums.sum(0), width).to(inputs[1].dtype) if needs_grad[1] else None
    return _like(x_bar, inputs[0]), weight_bar


RMS_NORM = Primitive(_forward, _jvp, _vjp, reference.rms_norm)
