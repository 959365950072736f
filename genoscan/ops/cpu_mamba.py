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
from genoscan.ops.reference import REFERENCE
from genoscan.ops.trio import check_precision, vjp_by_definition


class _Kept(NamedTuple):
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
        (u, next_tail), _ = CONV_SILU.forward((u_in, *filters, tail), keep=False)
        kept = _Kept(x, tail, state, u_in, z, u, product(u, weights.x_proj.mT), None)
        (y, end), marks = SCAN.forward(
            _scanned(kept, weights), keep=any(ctx.needs_input_grad), spent=True
        )
        if _wanted(ctx).out_proj:
            kept = kept._replace(y=y)
        ctx.eps, ctx.n_marks = eps, len(marks)
        ctx.save_for_backward(*weights, *marks, *kept)
        out = product(y, weights.out_proj.mT)
        return (out if weights.norm is None else out.add_(x)), next_tail, end

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor, next_tail_bar: Tensor, end_bar: Tensor) -> Any:
        saved, n_weights, want = ctx.saved_tensors, len(MambaWeights._fields), _wanted(ctx)
        weights = MambaWeights(*saved[:n_weights])
        marks = saved[n_weights : n_weights + ctx.n_marks]
        kept = _Kept(*saved[n_weights + ctx.n_marks :])
        bars_given = y_bar, next_tail_bar, end_bar
        if torch.is_grad_enabled() or transformed(bars_given):
            inputs, wanted = (kept.x, kept.tail, kept.state, *weights), ctx.needs_input_grad[1:]
            return None, *vjp_by_definition(_definition, inputs, bars_given, wanted, eps=ctx.eps)
        bars: dict[str, Any] = dict.fromkeys(MambaWeights._fields)
        if kept.y is not None:
            bars["out_proj"] = product(by_feature(y_bar), by_position(kept.y))

        scanned = _scanned(kept, weights)
        scan_wanted = (True, True, want.A, True, True, want.D, True, want.dt_bias, True)
        scan_bars = product(y_bar, weights.out_proj), end_bar
        pulled: Any = ScanInputs(*SCAN.vjp(scanned, marks, scan_bars, scan_wanted, spent=True))
        bars |= {"A": pulled.A, "D": pulled.D, "dt_bias": pulled.bias}
        if want.dt_proj:
            bars["dt_proj"] = product(by_feature(pulled.delta), by_position(_step(kept, weights)))
        selected_bar = joined([product(pulled.delta, weights.dt_proj), pulled.B, pulled.C], -1)
        if want.x_proj:
            bars["x_proj"] = product(by_feature(selected_bar), by_position(kept.u))
        u_bar, z_bar = onto(pulled.u, selected_bar, weights.x_proj), pulled.z

        conv = kept.u_in, weights.conv, weights.conv_bias, kept.tail
        conv_wanted = (True, want.conv, want.conv_bias, True)
        filtered = CONV_SILU.vjp(conv, (), (u_bar, next_tail_bar), conv_wanted)
        u_bar, bars["conv"], bars["conv_bias"], tail_bar = filtered
        if want.in_proj:
            normed = _normed(kept.x, weights, ctx.eps)
            bars["in_proj"] = joined(
                [product(by_feature(half), by_position(normed)) for half in (u_bar, z_bar)], 0
            )
        u_half, z_half = weights.in_proj.chunk(2)
        normed_bar = onto(product(u_bar, u_half), z_bar, z_half)
        if weights.norm is None:
            return None, normed_bar, tail_bar, pulled.state, *bars.values()
        norm_wanted = True, want.norm
        x_bar, bars["norm"] = RMS_NORM.vjp(
            (kept.x, weights.norm), (), (normed_bar,), norm_wanted, eps=ctx.eps
        )
        return None, x_bar.add_(y_bar), tail_bar, pulled.state, *bars.values()


def _definition(
    x: Tensor, tail: Tensor, state: Tensor, *weights: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return mamba_by_operations(REFERENCE, x, tail, state, MambaWeights(*weights), eps=eps)


def _wanted(ctx: Any) -> MambaWeights:
    """Return for each weight whether its derivative is wanted."""
    return MambaWeights(*ctx.needs_input_grad[-len(MambaWeights._fields) :])


def _normed(x: Tensor, weights: MambaWeights, eps: float) -> Tensor:
    if weights.norm is None:
        return x
    (normed,), _ = RMS_NORM.forward((x, weights.norm), keep=False, eps=eps)
    return normed


def _step(kept: _Kept, weights: MambaWeights) -> Tensor:
    return kept.selected[..., : weights.dt_proj.shape[1]]


def _scanned(kept: _Kept, weights: MambaWeights) -> ScanInputs:
    """Return the scan's inputs; its steps are computed again for the vjp."""
    B, C = kept.selected[..., weights.dt_proj.shape[1] :].chunk(2, -1)
    delta = product(_step(kept, weights), weights.dt_proj.mT)
    return ScanInputs(
        kept.u, delta, weights.A, B, C, weights.D, kept.state, weights.dt_bias, kept.z
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
