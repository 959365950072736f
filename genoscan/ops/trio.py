"""An operation and its two derivatives, bound to torch: reverse mode, forward mode, torch.func."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from genoscan.ops.dual import Dual, primal

Tensors: TypeAlias = tuple[Tensor, ...]
Perhaps: TypeAlias = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Trio:
    """A differentiable operation on tensors: called with them, it returns its output or outputs.

    forward  (inputs, keep=bool) -> (outputs, what vjp wants kept: nothing without `keep`)
    jvp      (inputs, tangents) -> (outputs, tangents of the outputs); tangents carry one more
             axis in front, the directions, and are None where an input does not move
    vjp      (inputs, kept, cotangents of the outputs, wanted) -> cotangents of the inputs,
             which may be None where `wanted` is false
    outputs  how many outputs there are

    Numbers that are not differentiated are given by name, to all three.
    """

    forward: Callable[..., tuple[Tensors, Tensors]]
    jvp: Callable[..., tuple[Tensors, Tensors]]
    vjp: Callable[..., Perhaps]
    outputs: int = 1

    def __call__(self, *inputs: Tensor, **numbers: float) -> Any:
        if any(isinstance(tensor, Dual) for tensor in inputs):
            dots = tuple(t.dots if isinstance(t, Dual) else None for t in inputs)
            pushed = self.jvp(tuple(map(primal, inputs)), dots, **numbers)
            duals = tuple(map(Dual.of, *pushed))
            return duals[0] if self.outputs == 1 else duals
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        results = _Primal.apply(self, keep, numbers, *inputs)
        return results[0] if self.outputs == 1 else results[: self.outputs]


def filled(inputs: Tensors, dots: Perhaps) -> Tensors:
    """Return the tangents with zeros for inputs that do not move."""
    count = next(len(dot) for dot in dots if dot is not None)
    return tuple(
        tensor.new_zeros(count, *tensor.shape) if dot is None else dot
        for tensor, dot in zip(inputs, dots, strict=True)
    )


class _Primal(torch.autograd.Function):
    @staticmethod
    def forward(trio: Trio, keep: bool, numbers: dict[str, float], *inputs: Tensor) -> Tensors:
        outputs, kept = trio.forward(inputs, keep=keep, **numbers)
        return *outputs, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        ctx.trio, _, ctx.numbers, *tensors = inputs
        kept = output[ctx.trio.outputs :]
        ctx.n_inputs, ctx.n_kept = len(tensors), len(kept)
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(*tensors, *kept)
        ctx.save_for_forward(*tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *bars: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors  # read once: under checkpointing they are made at each reading
        inputs, kept = saved[: ctx.n_inputs], saved[ctx.n_inputs :]
        wanted = ctx.needs_input_grad[3:]
        cotangents = ctx.trio.vjp(inputs, kept, bars[: ctx.trio.outputs], wanted, **ctx.numbers)
        return None, None, None, *cotangents

    @staticmethod
    def jvp(ctx: Any, _trio: Any, _keep: Any, _numbers: Any, *dots: Tensor | None) -> Any:
        outputs = _Tangent.apply(ctx.trio, ctx.numbers, *ctx.saved_tensors, *dots)
        return *outputs, *[None] * ctx.n_kept

    @staticmethod
    def vmap(*_arguments: Any) -> Any:
        # torch asks for this rule even where, under jvp, only tangents are batched.
        raise NotImplementedError("vmap over an operation's inputs: batch them instead")


# torch asks for it at every call, and inspect takes longer than a small kernel to find it.
_Primal.forward.__signature__ = inspect.signature(_Primal.forward)  # type: ignore[attr-defined]


class _Tangent(torch.autograd.Function):
    """The jvp as an operation of its own, so that vmap can batch its directions."""

    @staticmethod
    def forward(trio: Trio, numbers: dict[str, float], *tensors: Tensor | None) -> Tensors:
        inputs, dots = _halves(tensors)
        dots = tuple(None if dot is None else dot[None] for dot in dots)
        _, tangents = trio.jvp(inputs, dots, **numbers)
        return tuple(tangent[0] for tangent in tangents)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        pass

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        trio: Trio,
        numbers: dict[str, float],
        *tensors: Tensor | None,
    ) -> tuple[Tensors, tuple[int, ...]]:
        inputs, dots = _halves(tensors)
        input_dims, dot_dims = _halves(in_dims[2:])
        if any(dim is not None for dim in input_dims):
            raise NotImplementedError("vmap over an operation's inputs: batch them instead")
        directions = tuple(
            dot
            if dot is None
            else dot.expand(info.batch_size, *dot.shape)
            if dim is None
            else dot.movedim(dim, 0)
            for dot, dim in zip(dots, dot_dims, strict=True)
        )
        _, tangents = trio.jvp(inputs, directions, **numbers)
        return tangents, (0,) * trio.outputs


def _halves(values: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    middle = len(values) // 2
    return values[:middle], values[middle:]
