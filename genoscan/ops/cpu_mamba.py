"""A whole Mamba block as one step of autograd's, for the CPU.

Operation by operation, autograd's way through a tile's block takes longer than some of the
operations, and it keeps what could be had again for next to nothing.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from genoscan.ops.cpu_conv import CONV_SILU
from genoscan.ops.cpu_linear import by_feature, by_position, joined, onto, product
from genoscan.ops.cpu_norm import RMS_NORM
from genoscan.ops.cpu_scan import SCAN
from genoscan.ops.dual import transformed
from genoscan.ops.kernels import MambaWeights, ScanInputs, mamba_by_operations
from genoscan.ops.primitive import check_precision, vjp_by_definition
from genoscan.ops.reference import REFERENCE


class _Saved(NamedTuple):
    """What is kept of a tile, but for the scan's marks; names as in layers/mamba.py."""

    x: Tensor
    tail: Tensor
    state: Tensor
    u_in: Tensor
    z: Tensor
    u: Tensor
    selected: Tensor
    y: Tensor | None


class _Mamba(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, eps: float, x: Tensor, tail: Tensor, state: Tensor, *given: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights = MambaWeights(*given)
        normed = _normed(x, weights, eps)
        u_in, z = (product(normed, half.mT) for half in weights.in_proj.chunk(2))
        filters = weights.conv, weights.conv_bias
        (u, next_tail), _ = CONV_SILU.forward((u_in, *filters, tail), save=False)
        saved = _Saved(x, tail, state, u_in, z, u, product(u, weights.x_proj.mT), None)
        (y, end), marks = SCAN.forward(
            _scanned(saved, weights), save=any(ctx.needs_input_grad), spent=True
        )
        if _needs_grad(ctx).out_proj:
            saved = saved._replace(y=y)
        ctx.eps, ctx.n_marks = eps, len(marks)
        ctx.save_for_backward(*weights, *marks, *saved)
        out = product(y, weights.out_proj.mT)
        return (out if weights.norm is None else out.add_(x)), next_tail, end

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor, next_tail_bar: Tensor, end_bar: Tensor) -> Any:
        tensors, n_weights, needs = ctx.saved_tensors, len(MambaWeights._fields), _needs_grad(ctx)
        weights = MambaWeights(*tensors[:n_weights])
        marks = tensors[n_weights : n_weights + ctx.n_marks]
        saved = _Saved(*tensors[n_weights + ctx.n_marks :])
        bars_given = y_bar, next_tail_bar, end_bar
        if torch.is_grad_enabled() or transformed(bars_given):
            inputs, needs_grad = (
                (saved.x, saved.tail, saved.state, *weights),
                ctx.needs_input_grad[1:],
            )
            return None, *vjp_by_definition(
                _definition, inputs, bars_given, needs_grad, eps=ctx.eps
            )
        bars: dict[str, Any] = dict.fromkeys(MambaWeights._fields)
        if saved.y is not None:
            bars["out_proj"] = product(by_feature(y_bar), by_position(saved.y))

        scanned = _scanned(saved, weights)
        scan_needs_grad = (True, True, needs.A, True, True, needs.D, True, needs.dt_bias, True)
        scan_bars = product(y_bar, weights.out_proj), end_bar
        pulled: Any = ScanInputs(*SCAN.vjp(scanned, marks, scan_bars, scan_needs_grad, spent=True))
        bars |= {"A": pulled.A, "D": pulled.D, "dt_bias": pulled.bias}
        if needs.dt_proj:
            bars["dt_proj"] = product(by_feature(pulled.delta), by_position(_step(saved, weights)))
        selected_bar = joined([product(pulled.delta, weights.dt_proj), pulled.B, pulled.C], -1)
        if needs.x_proj:
            bars["x_proj"] = product(by_feature(selected_bar), by_position(saved.u))
        u_bar, z_bar = onto(pulled.u, selected_bar, weights.x_proj), pulled.z

        conv = saved.u_in, weights.conv, weights.conv_bias, saved.tail
        conv_needs_grad = (True, needs.conv, needs.conv_bias, True)
        filtered = CONV_SILU.vjp(conv, (), (u_bar, next_tail_bar), conv_needs_grad)
        u_bar, bars["conv"], bars["conv_bias"], tail_bar = filtered
        if needs.in_proj:
            normed = _normed(saved.x, weights, ctx.eps)
            bars["in_proj"] = joined(
                [product(by_feature(half), by_position(normed)) for half in (u_bar, z_bar)], 0
            )
        u_half, z_half = weights.in_proj.chunk(2)
        normed_bar = onto(product(u_bar, u_half), z_bar, z_half)
        if weights.norm is None:
            return None, normed_bar, tail_bar, pulled.state, *bars.values()
        norm_needs_grad = True, needs.norm
        x_bar, bars["norm"] = RMS_NORM.vjp(
            (saved.x, weights.norm), (), (normed_bar,), norm_needs_grad, eps=ctx.eps
        )
        return None, x_bar.add_(y_bar), tail_bar, pulled.state, *bars.values()


def _definition(
    x: Tensor, tail: Tensor, state: Tensor, *weights: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return mamba_by_operations(REFERENCE, x, tail, state, MambaWeights(*weights), eps=eps)


def _needs_grad(ctx: Any) -> MambaWeights:
    """Return for each weight whether its gradient is needed."""
    return MambaWeights(*ctx.needs_input_grad[-len(MambaWeights._fields) :])


def _normed(x: Tensor, weights: MambaWeights, eps: float) -> Tensor:
    if weights.norm is None:
        return x
    (normed,), _ = RMS_NORM.forward((x, weights.norm), save=False, eps=eps)
    return normed


def _step(saved: _Saved, weights: MambaWeights) -> Tensor:
    return saved.selected[..., : weights.dt_proj.shape[1]]


def _scanned(saved: _Saved, weights: MambaWeights) -> ScanInputs:
    """Return the scan's inputs; its steps are computed again for the vjp."""
    B, C = saved.selected[..., weights.dt_proj.shape[1] :].chunk(2, -1)
    delta = product(_step(saved, weights), weights.dt_proj.mT)
    return ScanInputs(
        saved.u, delta, weights.A, B, C, weights.D, saved.state, weights.dt_bias, saved.z
    )


def mamba(
    x: Tensor, tail: Tensor, state: Tensor, weights: MambaWeights, *, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the block's outputs over a tile, the next tail, and the state at the end.

    Exact: the operations of `mamba_by_operations`, and their rules in reverse order.
    Memory: for each base x, three arrays of channels, and what the scan keeps; one array more
    where the last projection is trained.
    """
    inputs = x, tail, state, *weights
    check_precision(inputs)
    if transformed(inputs):
        return _definition(*inputs, eps=eps)
    outputs: tuple[Tensor, Tensor, Tensor] = _Mamba.apply(eps, *inputs)
    return outputs
