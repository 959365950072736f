"""Differentiable operations with a compiled jvp and vjp, for use with autograd, torch.func and `Dual`.

First derivatives are computed by the compiled Jacobian-vector products (jvp) and vector-Jacobian products
(vjp). For higher-order derivatives (`create_graph=True`), batched cotangents, torch.func transforms and
torch's own forward mode, a definition in plain torch operations is used instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from genoscan.errors import InputError
from genoscan.ops.dual import Dual, primal, transformed

Flags: TypeAlias = tuple[Any, ...]
"""Tuple with one boolean per input."""
Tensors: TypeAlias = tuple[Tensor, ...]
OptionalTensors: TypeAlias = tuple[Any, ...]
"""Tuple of tensors or None.

None represents an absent input, a zero tangent, or a cotangent that is not needed.
"""

_SINGLE, _DOUBLE = {torch.float32}, {torch.float64}


@dataclass(frozen=True)
class Primitive:
    """A differentiable operation on tensors.

    When called, the object returns the output or, if there are several outputs, a tuple. Non-differentiable
    arguments are passed by keyword to `forward`, `jvp`, `vjp` and `definition`.

    Parameters
    ----------
    forward : callable
        Function `(inputs, save=bool) -> (outputs, saved)`, where `saved` is the tuple of tensors that `vjp`
        needs, or `()` if `save` is false.
    jvp : callable
        Function `(inputs, tangents) -> (outputs, tangents of the outputs)`. Tangents have an additional
        leading axis of directions. None represents a zero tangent.
    vjp : callable
        Function `(inputs, saved, cotangents of the outputs, needs_grad) -> cotangents of the inputs`. The
        cotangent of an input may be None if its entry in `needs_grad` is false.
    definition : callable
        Function `(*inputs) -> output, or tuple of outputs`, written in plain torch operations.
    outputs : int
        Number of outputs.
    """

    forward: Callable[..., tuple[Tensors, Tensors]]
    jvp: Callable[..., tuple[Tensors, Tensors]]
    vjp: Callable[..., OptionalTensors]
    definition: Callable[..., Any]
    outputs: int = 1

    def __call__(self, *inputs: Tensor | None, **options: Any) -> Any:
        has_tangents = any(isinstance(tensor, Dual) for tensor in inputs)
        primals = tuple(map(primal, inputs)) if has_tangents else inputs
        check_precision(primals)
        if transformed(inputs):
            return self.definition(*inputs, **options)
        if has_tangents:
            dots = tuple(t.dots if isinstance(t, Dual) else None for t in inputs)
            outputs, tangents = self.jvp(primals, dots, **options)
            outputs = tuple(map(Dual.of, outputs, tangents))
        elif torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs):
            outputs = _PrimitiveFunction.apply(self, options, *inputs)
        else:
            outputs, _ = self.forward(inputs, save=False, **options)
        return outputs[0] if self.outputs == 1 else outputs


def materialize_tangents(inputs: OptionalTensors, tangents: OptionalTensors) -> OptionalTensors:
    """Return the tangents, with zero tensors in place of None for all inputs that are not None."""
    count = next(len(dot) for dot in tangents if dot is not None)
    return tuple(
        tensor.new_zeros(count, *tensor.shape) if dot is None and tensor is not None else dot
        for tensor, dot in zip(inputs, tangents, strict=True)
    )


def check_precision(tensors: OptionalTensors) -> None:
    """Check that the tensors are all float32 or all float64, and that torch computes in this precision.

    Raises
    ------
    InputError
        If a tensor has another dtype, if the dtypes differ, if `torch.autocast` is enabled, or if products of
        float32 may be rounded to TF32 or bfloat16.
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
    if dtypes == _SINGLE and _rounds_products():
        raise InputError(
            "torch may round float32 to TF32 or bfloat16 in matrix products, with errors of 1e-3: call "
            'torch.set_float32_matmul_precision("highest") first'
        )


def _rounds_products() -> bool:
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # the backends differ, so that one of them rounds
        return True


def vjp_by_definition(
    definition: Callable[..., Any], inputs: OptionalTensors, bars: Tensors, needs_grad: Flags, **options: Any
) -> OptionalTensors:
    """Compute the cotangents of the inputs by autograd through a definition in torch operations.

    Parameters
    ----------
    definition : callable
        Function `(*inputs, **options) -> output, or tuple of outputs`.
    inputs : tuple of Tensor or None
        Inputs. They may depend on one another in the autograd graph.
    bars : tuple of Tensor
        Cotangents of the outputs.
    needs_grad : tuple of bool
        Whether the cotangent of each input is needed.
    **options
        Keyword arguments of the definition.

    Returns
    -------
    tuple of Tensor or None
        Cotangents of the inputs. Those that are not needed are None. In grad mode, the cotangents are
        differentiable with respect to `inputs` and `bars`.

    Notes
    -----
    Memory is needed for the autograd graph of the definition.
    """
    create_graph = torch.is_grad_enabled()
    device = next(bar.device.type for bar in bars)
    with torch.enable_grad(), torch.autocast(device, enabled=False):
        # Aliases, so that gradients exclude the dependence of one input on another.
        aliases = tuple(tensor if tensor is None else tensor.view_as(tensor) for tensor in inputs)
        outputs = definition(*aliases, **options)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        ends = [pair for pair in zip(outputs, bars, strict=True) if pair[0].requires_grad]
        starts: list[Any] = [alias for alias, need in zip(aliases, needs_grad, strict=True) if need]
        found = torch.autograd.grad(
            [output for output, _ in ends],
            starts,
            [bar for _, bar in ends],
            create_graph=create_graph,
            allow_unused=True,
        )
    cotangents = iter(found)
    return tuple(next(cotangents) if need else None for need in needs_grad)


class _PrimitiveFunction(torch.autograd.Function):
    # No separate setup_context: torch would then bind the arguments at each call, which takes longer
    # than a small kernel.
    @staticmethod
    def forward(ctx: Any, primitive: Primitive, options: dict[str, Any], *inputs: Tensor | None) -> Tensors:
        outputs, saved = primitive.forward(inputs, save=True, **options)
        ctx.primitive, ctx.options, ctx.n_inputs = primitive, options, len(inputs)
        ctx.save_for_backward(*inputs, *saved)
        return outputs

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors  # read once: activation checkpointing recomputes them at each access
        inputs, saved = tensors[: ctx.n_inputs], tensors[ctx.n_inputs :]
        primitive, needs_grad = ctx.primitive, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or transformed(bars):
            definition = primitive.definition
            cotangents = vjp_by_definition(definition, inputs, bars, needs_grad, **ctx.options)
            return None, None, *cotangents
        cotangents = primitive.vjp(inputs, saved, bars, needs_grad, **ctx.options)
        pairs = zip(cotangents, needs_grad, strict=True)
        return None, None, *(cotangent if need else None for cotangent, need in pairs)
