"""An operation and its two derivatives, for autograd and for Dual."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad

from genoscan.ops.dual import Dual, primal

Tensors: TypeAlias = tuple[Tensor, ...]
Perhaps: TypeAlias = tuple[Any, ...]
"""Tensors, or None where one is left out, does not move or is not wanted."""


@dataclass(frozen=True)
class Trio:
    """A differentiable operation on tensors: called with them, it returns its output or outputs.

    forward  (inputs, keep=bool) -> (outputs, what vjp wants kept: nothing without `keep`)
    jvp      (inputs, tangents) -> (outputs, tangents of the outputs); tangents carry one more
             axis in front, the directions, and are None where an input does not move
    vjp      (inputs, kept, cotangents of the outputs, wanted) -> cotangents of the inputs,
             which may be None where `wanted` is false
    outputs  how many outputs there are

    Numbers and choices that are not differentiated are given by name, to all three.
    """

    forward: Callable[..., tuple[Tensors, Tensors]]
    jvp: Callable[..., tuple[Tensors, Tensors]]
    vjp: Callable[..., Perhaps]
    outputs: int = 1

    def __call__(self, *inputs: Tensor | None, **numbers: Any) -> Any:
        refuse_tangents(inputs)
        if any(isinstance(tensor, Dual) for tensor in inputs):
            dots = tuple(t.dots if isinstance(t, Dual) else None for t in inputs)
            outputs, tangents = self.jvp(tuple(map(primal, inputs)), dots, **numbers)
            outputs = tuple(map(Dual.of, outputs, tangents))
        elif torch.is_grad_enabled() and any(
            tensor is not None and tensor.requires_grad for tensor in inputs
        ):
            outputs = _Recorded.apply(self, numbers, *inputs)
        else:
            outputs, _ = self.forward(inputs, keep=False, **numbers)
        return outputs[0] if self.outputs == 1 else outputs


def filled(inputs: Perhaps, dots: Perhaps) -> Perhaps:
    """Return the tangents with zeros for inputs that are there and do not move."""
    count = next(len(dot) for dot in dots if dot is not None)
    return tuple(
        tensor.new_zeros(count, *tensor.shape) if dot is None and tensor is not None else dot
        for tensor, dot in zip(inputs, dots, strict=True)
    )


def refuse_tangents(tensors: Perhaps) -> None:
    """Refuse tangents of torch's own forward mode, which would be lost without a word."""
    for tensor in tensors:
        # Torch's mode is the same for all threads: another may be in it while this one is not, and
        # a Dual would go there.
        if isinstance(tensor, Dual | None):
            continue
        if forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError("torch.autograd.forward_ad: put tangents into a Dual")


class _Recorded(torch.autograd.Function):
    # Forward and setup_context in one: torch binds the arguments anew for each call of two,
    # which takes longer than a small kernel.
    @staticmethod
    def forward(ctx: Any, trio: Trio, numbers: dict[str, Any], *inputs: Tensor | None) -> Tensors:
        outputs, kept = trio.forward(inputs, keep=True, **numbers)
        ctx.trio, ctx.numbers, ctx.n_inputs = trio, numbers, len(inputs)
        ctx.save_for_backward(*inputs, *kept)
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *bars: Tensor) -> tuple[Any, ...]:
        refuse_tangents(bars)
        saved = ctx.saved_tensors  # read once: under checkpointing they are made at each reading
        inputs, kept = saved[: ctx.n_inputs], saved[ctx.n_inputs :]
        wanted = ctx.needs_input_grad[2:]
        cotangents = ctx.trio.vjp(inputs, kept, bars, wanted, **ctx.numbers)
        pairs = zip(cotangents, wanted, strict=True)
        return None, None, *(cotangent if want else None for cotangent, want in pairs)
