"""Matrix products in room that is used again; left to torch, a trained block's made holes.

Terms as in torch's `linear`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genoscan.ops.memory import aligned_empty_tensor
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors


class _Inputs(NamedTuple):
    x: Any
    weight: Any
    bias: Any = None


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """Return x matrix; x may have any number of axes."""
    x, matrix = x.detach(), matrix.detach()
    y = aligned_empty_tensor((*x.shape[:-1], matrix.shape[-1]), x)
    torch.mm(by_position(x), matrix, out=by_position(y))
    return y


def onto(y: Tensor, x: Tensor, matrix: Tensor) -> Tensor:
    """Add x matrix to y, in place."""
    by_position(y).addmm_(by_position(x), matrix)
    return y


def joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Return what torch's `cat` does."""
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return torch.cat(list(parts), axis, out=aligned_empty_tensor(shape, parts[0]))


def by_position(x: Tensor) -> Tensor:
    """See (..., features) as (positions, features)."""
    return x.flatten(0, -2)


def by_feature(x: Tensor) -> Tensor:
    """See (..., features) as (features, positions)."""
    return by_position(x).mT


def _forward(inputs: OptionalTensors, *, save: bool) -> tuple[Tensors, Tensors]:
    x, weight, bias = _Inputs(*inputs)
    y = product(x, weight.mT)
    return (y if bias is None else y.add_(bias),), ()


def _jvp(inputs: OptionalTensors, dots: OptionalTensors) -> tuple[Tensors, Tensors]:
    given, moved = _Inputs(*inputs), _Inputs(*dots)
    outputs, _ = _forward(inputs, save=False)
    parts: list[Any] = []
    if moved.x is not None:
        parts.append(product(moved.x, given.weight.mT))
    if moved.weight is not None:
        parts.append(torch.stack([product(given.x, weight.mT) for weight in moved.weight]))
    if moved.bias is not None:
        axes = (1,) * (given.x.dim() - 1)
        parts.append(moved.bias.unflatten(0, (-1, *axes)).expand(-1, *outputs[0].shape))
    return outputs, (sum(parts[1:], parts[0]),)


def _vjp(
    inputs: OptionalTensors, _saved: Tensors, bars: Tensors, needs_grad: Flags
) -> OptionalTensors:
    given, needs, (y_bar,) = _Inputs(*inputs), _Inputs(*needs_grad), bars
    return (
        product(y_bar, given.weight) if needs.x else None,
        product(by_feature(y_bar), by_position(given.x)) if needs.weight else None,
        by_feature(y_bar).sum(1) if needs.bias else None,
    )[: len(inputs)]


LINEAR = Primitive(_forward, _jvp, _vjp, F.linear)
