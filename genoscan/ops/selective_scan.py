"""The selective scan as layers call it: shapes checked, a kernel set bound to autograd."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.ops.kernels import ScanInputs, ScanKernels
from genoscan.ops.reference import REFERENCE

_N_INPUTS = len(ScanInputs._fields)


def choose(device: torch.device | str, name: str = "auto") -> ScanKernels:
    """Return the kernel set for a device: the one place where a kernel is picked."""
    if name == "reference" or (name == "auto" and torch.device(device).type != "cpu"):
        return REFERENCE
    from genoscan.ops.cpu import CPU

    return CPU


def selective_scan(
    u: Float[Tensor, "batch tile channels"],
    delta: Float[Tensor, "batch tile channels"],
    A: Float[Tensor, "channels states"],
    B: Float[Tensor, "batch tile states"],
    C: Float[Tensor, "batch tile states"],
    D: Float[Tensor, " channels"],
    state: Float[Tensor, "batch channels states"],
    *,
    kernels: ScanKernels,
) -> tuple[Float[Tensor, "batch tile channels"], Float[Tensor, "batch channels states"]]:
    """Run the recurrence of `ScanInputs` over one tile; return y and the state at its end.

    Exact: differentiable in reverse and forward mode and under torch.func (vmap over the
    directions of a jvp), to rounding; once, not twice.
    Memory: inputs, y and, when a derivative is wanted, the kernel set's marks.
    """
    if kernels is REFERENCE:
        # Left to torch's own autograd: the truth that the kernel sets' rules are held against.
        y, state_end, _ = REFERENCE.forward(ScanInputs(u, delta, A, B, C, D, state), keep=False)
    else:
        tensors = (u, delta, A, B, C, D, state)
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        y, state_end, *_ = _Scan.apply(kernels, keep, *tensors)
    return y, state_end


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(kernels: ScanKernels, keep: bool, *inputs: Tensor) -> tuple[Any, ...]:
        y, state_end, kept = kernels.forward(ScanInputs(*inputs), keep=keep)
        return y, state_end, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        kernels, _, *tensors = inputs
        _, _, *kept = output
        ctx.kernels, ctx.n_kept = kernels, len(kept)
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(True)
        ctx.save_for_backward(*tensors, *kept)
        ctx.save_for_forward(*tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, y_bar: Tensor, state_end_bar: Tensor, *_kept: Any) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        inputs, kept = ScanInputs(*saved[:_N_INPUTS]), saved[_N_INPUTS:]
        return None, None, *ctx.kernels.vjp(inputs, kept, y_bar, state_end_bar)

    @staticmethod
    def jvp(ctx: Any, _kernels: Any, _keep: Any, *dots: Tensor | None) -> tuple[Any, ...]:
        inputs = ctx.saved_tensors
        full = [
            torch.zeros_like(tensor) if dot is None else dot
            for tensor, dot in zip(inputs, dots, strict=True)
        ]
        y_dot, state_end_dot = _ScanTangent.apply(ctx.kernels, *inputs, *full)
        return y_dot, state_end_dot, *[None] * ctx.n_kept

    @staticmethod
    def vmap(*_arguments: Any) -> Any:
        # torch asks for this rule even where, under jvp, only tangents are batched.
        raise NotImplementedError("vmap over the scan's inputs: batch them instead")


class _ScanTangent(torch.autograd.Function):
    """The scan's jvp as an operation of its own, so that vmap can batch its directions."""

    @staticmethod
    def forward(kernels: ScanKernels, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        inputs, dots = tensors[:_N_INPUTS], tensors[_N_INPUTS:]
        y_dot, state_dot = kernels.jvp(ScanInputs(*inputs), ScanInputs(*(d[None] for d in dots)))
        return y_dot[0], state_dot[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        pass

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], kernels: ScanKernels, *tensors: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        dims = in_dims[1:]
        if any(dim is not None for dim in dims[:_N_INPUTS]):
            raise NotImplementedError("vmap over the scan's inputs: batch them instead")
        dots = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors[_N_INPUTS:], dims[_N_INPUTS:], strict=True)
        ]
        outputs = kernels.jvp(ScanInputs(*tensors[:_N_INPUTS]), ScanInputs(*dots))
        return outputs, (0, 0)
