"""Matrix products for the CPU, whose outputs are stored in pooled buffers.

If torch allocated the outputs, they would fragment the heap during training. The notation is that of
`torch.nn.functional.linear`.
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
    """Return the product `x @ matrix`, detached from autograd, for `x` of shape (..., features)."""
    x, matrix = x.detach(), matrix.detach()
    y = aligned_empty_tensor((*x.shape[:-1], matrix.shape[-1]), x)
    torch.mm(as_matrix(x), matrix, out=as_matrix(y))
    return y


def add_product_(y: Tensor, x: Tensor, matrix: Tensor) -> Tensor:
    """Add the product `x @ matrix` to `y` in place, and return `y`."""
    as_matrix(y).addmm_(as_matrix(x), matrix)
    return y


def concatenate(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenate tensors along an axis, as `torch.cat` does, in a pooled buffer."""
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return torch.cat(list(parts), axis, out=aligned_empty_tensor(shape, parts[0]))


def as_matrix(x: Tensor) -> Tensor:
    """Return a view of a tensor of shape (..., features) as a matrix with one row per position."""
    return x.flatten(0, -2)


def _forward(inputs: OptionalTensors, *, save: bool) -> tuple[Tensors, Tensors]:
    x, weight, bias = _Inputs(*inputs)
    y = product(x, weight.mT)
    return (y if bias is None else y.add_(bias),), ()


def _jvp(inputs: OptionalTensors, tangents: OptionalTensors) -> tuple[Tensors, Tensors]:
    given, dots = _Inputs(*inputs), _Inputs(*tangents)
    outputs, _ = _forward(inputs, save=False)
    terms: list[Any] = []
    if dots.x is not None:
        terms.append(product(dots.x, given.weight.mT))
    if dots.weight is not None:
        terms.append(torch.stack([product(given.x, weight.mT) for weight in dots.weight]))
    if dots.bias is not None:
        axes = (1,) * (given.x.dim() - 1)
        terms.append(dots.bias.unflatten(0, (-1, *axes)).expand(-1, *outputs[0].shape))
    return outputs, (sum(terms[1:], terms[0]),)


def _vjp(inputs: OptionalTensors, _saved: Tensors, bars: Tensors, needs_grad: Flags) -> OptionalTensors:
    given, needs, (y_bar,) = _Inputs(*inputs), _Inputs(*needs_grad), bars
    return (
        product(y_bar, given.weight) if needs.x else None,
        product(as_matrix(y_bar).mT, as_matrix(given.x)) if needs.weight else None,
        as_matrix(y_bar).mT.sum(1) if needs.bias else None,
    )[: len(inputs)]


LINEAR = Primitive(_forward, _jvp, _vjp, F.linear)
