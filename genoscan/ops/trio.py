"""An operation, its definition and its two derivatives, for autograd, torch.func and Dual.

First derivatives come from the compiled rules.  Whatever else torch can ask for is taken from the
definition, in plain torch operations: derivatives of derivatives (`create_graph=True`), batched
cotangents, and everything under a torch.func transform or in torch's own forward mode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from genoscan.errors import InputError
from genoscan.ops.dual import Dual, primal, transformed

Tensors: TypeAlias = tuple[Tensor, ...]
Perhaps: TypeAlias = tuple[Any, ...]
"""Tensors, or None where one is left out, does not move or is not wanted."""


_SINGLE, _DOUBLE = {torch.float32}, {torch.float64}


@dataclass(frozen=True)
class Trio:
    """A differentiable operation on tensors: called with them, it returns its output or outputs.

    forward  (inputs, keep=bool) -> (outputs, what vjp wants kept: nothing without `keep`)
    jvp      (inputs, tangents) -> (outputs, tangents of the outputs); tangents carry one more
             axis in front, the directions, and are None where an input does not move
    vjp      (inputs, kept, cotangents of the outputs, wanted) -> cotangents of the inputs,
             which may be None where `wanted` is false
    definition  inputs -> output or outputs, in plain torch operations
    outputs  how many outputs there are

    Numbers and choices that are not differentiated are passed by name, to all four.
    """

    forward: Callable[..., tuple[Tensors, Tensors]]
    jvp: Callable[..., tuple[Tensors, Tensors]]
    vjp: Callable[..., Perhaps]
    definition: Callable[..., Any]
    outputs: int = 1

    def __call__(self, *inputs: Tensor | None, **numbers: Any) -> Any:
        moving = any(isinstance(tensor, Dual) for tensor in inputs)
        still = tuple(map(primal, inputs)) if moving else inputs
        check_precision(still)
        if transformed(inputs):
            return self.definition(*inputs, **numbers)
        if moving:
            dots = tuple(t.dots if isinstance(t, Dual) else None for t in inputs)
            outputs, tangents = self.jvp(still, dots, **numbers)
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


def check_precision(tensors: Perhaps) -> None:
    """Refuse all but float32 or float64 throughout, and autocast, which would round in between.

    Raises
    ------
    InputError
        If a tensor has another dtype, if dtypes differ, or if torch.autocast is on.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    dtypes = {tensor.dtype for tensor in given}
    if dtypes != _SINGLE and dtypes != _DOUBLE:
        found = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise InputError(
            f"inputs and weights are {found}: expected float32 or float64 throughout; convert "
            "both, for instance with .float()"
        )
    if torch.is_autocast_enabled(given[0].device.type):
        raise InputError(
            "torch.autocast is on and would compute in half precision: expected float32 or "
            "float64; run this part under torch.autocast(device_type, enabled=False)"
        )


def vjp_by_definition(
    definition: Callable[..., Any],
    inputs: Perhaps,
    bars: Tensors,
    wanted: Perhaps,
    **numbers: Any,
) -> Perhaps:
    """Return the inputs' cotangents by torch's autograd through the definition.

    They are differentiable in turn, in inputs and cotangents, if grad mode is on.
    Memory: the whole graph of the definition.
    """
    create_graph = torch.is_grad_enabled()
    device = next(bar.device.type for bar in bars)
    with torch.enable_grad(), torch.autocast(device, enabled=False):
        # One input may be computed from another; gradients of aliases exclude that dependence.
        aliases = tuple(tensor if tensor is None else tensor.view_as(tensor) for tensor in inputs)
        outputs = definition(*aliases, **numbers)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        ends = [pair for pair in zip(outputs, bars, strict=True) if pair[0].requires_grad]
        starts: list[Any] = [alias for alias, want in zip(aliases, wanted, strict=True) if want]
        found = torch.autograd.grad(
            [output for output, _ in ends],
            starts,
            [bar for _, bar in ends],
            create_graph=create_graph,
            allow_unused=True,
        )
    cotangents = iter(found)
    return tuple(next(cotangents) if want else None for want in wanted)


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
    def backward(ctx: Any, *bars: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors  # read once: under checkpointing they are made at each reading
        inputs, kept = saved[: ctx.n_inputs], saved[ctx.n_inputs :]
        trio, wanted = ctx.trio, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or transformed(bars):
            pulled = vjp_by_definition(trio.definition, inputs, bars, wanted, **ctx.numbers)
            return None, None, *pulled
        cotangents = trio.vjp(inputs, kept, bars, wanted, **ctx.numbers)
        pairs = zip(cotangents, wanted, strict=True)
        return None, None, *(cotangent if want else None for cotangent, want in pairs)
