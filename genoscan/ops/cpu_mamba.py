"""A Mamba block for the CPU, implemented as a single autograd function.

If autograd recorded each operation separately, its overhead for a tile would exceed the run time of some
operations, and it would save tensors that are cheap to recompute.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from genoscan.ops.cpu_conv import CONV_SILU
from genoscan.ops.cpu_linear import add_product_, as_matrix, concatenate, product
from genoscan.ops.cpu_norm import RMS_NORM
from genoscan.ops.cpu_scan import SCAN
from genoscan.ops.dual import transformed
from genoscan.ops.kernels import MambaWeights, ScanInputs, mamba_by_operations
from genoscan.ops.primitive import check_precision, vjp_by_definition
from genoscan.ops.reference import REFERENCE


class _Saved(NamedTuple):
    """Tensors that are saved for the vjp of a tile, in addition to the checkpoints of the scan.

    The names are those in layers/mamba.py. `u_in` is the input to the convolution. `selected` is the output
    of `x_proj`. `y` is the output of the scan if the gradient of `out_proj` is needed, and None otherwise.
    """

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
        (y, end), checkpoints = SCAN.forward(_scan_inputs(saved, weights), save=any(ctx.needs_input_grad), donate=True)
        if _needs_grad(ctx).out_proj:
            saved = saved._replace(y=y)
        ctx.eps, ctx.n_checkpoints = eps, len(checkpoints)
        ctx.save_for_backward(*weights, *checkpoints, *saved)
        out = product(y, weights.out_proj.mT)
        return (out if weights.norm is None else out.add_(x)), next_tail, end

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor, next_tail_bar: Tensor, end_bar: Tensor) -> Any:
        tensors, n_weights, needs = ctx.saved_tensors, len(MambaWeights._fields), _needs_grad(ctx)
        weights = MambaWeights(*tensors[:n_weights])
        checkpoints = tensors[n_weights : n_weights + ctx.n_checkpoints]
        saved = _Saved(*tensors[n_weights + ctx.n_checkpoints :])
        out_bars = y_bar, next_tail_bar, end_bar
        if torch.is_grad_enabled() or transformed(out_bars):
            inputs, flags = (saved.x, saved.tail, saved.state, *weights), ctx.needs_input_grad[1:]
            return None, *vjp_by_definition(_definition, inputs, out_bars, flags, eps=ctx.eps)
        bars: dict[str, Any] = dict.fromkeys(MambaWeights._fields)
        if saved.y is not None:
            bars["out_proj"] = product(as_matrix(y_bar).mT, as_matrix(saved.y))

        flags = (True, True, needs.A, True, True, needs.D, True, needs.dt_bias, True)
        scan_bars = product(y_bar, weights.out_proj), end_bar
        given = _scan_inputs(saved, weights)
        scan: Any = ScanInputs(*SCAN.vjp(given, checkpoints, scan_bars, flags, donate=True))
        bars |= {"A": scan.A, "D": scan.D, "dt_bias": scan.bias}
        if needs.dt_proj:
            bars["dt_proj"] = product(as_matrix(scan.delta).mT, as_matrix(_step(saved, weights)))
        selected_bar = concatenate([product(scan.delta, weights.dt_proj), scan.B, scan.C], -1)
        if needs.x_proj:
            bars["x_proj"] = product(as_matrix(selected_bar).mT, as_matrix(saved.u))
        u_bar, z_bar = add_product_(scan.u, selected_bar, weights.x_proj), scan.z

        conv = saved.u_in, weights.conv, weights.conv_bias, saved.tail
        flags = (True, needs.conv, needs.conv_bias, True)
        conv_bars = CONV_SILU.vjp(conv, (), (u_bar, next_tail_bar), flags)
        u_bar, bars["conv"], bars["conv_bias"], tail_bar = conv_bars
        if needs.in_proj:
            normed = as_matrix(_normed(saved.x, weights, ctx.eps))
            halves = [product(as_matrix(half).mT, normed) for half in (u_bar, z_bar)]
            bars["in_proj"] = concatenate(halves, 0)
        u_half, z_half = weights.in_proj.chunk(2)
        normed_bar = add_product_(product(u_bar, u_half), z_bar, z_half)
        if weights.norm is None:
            return None, normed_bar, tail_bar, scan.state, *bars.values()
        x_bar, bars["norm"] = RMS_NORM.vjp((saved.x, weights.norm), (), (normed_bar,), (True, needs.norm), eps=ctx.eps)
        return None, x_bar.add_(y_bar), tail_bar, scan.state, *bars.values()


def _definition(x: Tensor, tail: Tensor, state: Tensor, *weights: Any, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return mamba_by_operations(REFERENCE, x, tail, state, MambaWeights(*weights), eps=eps)


def _needs_grad(ctx: Any) -> MambaWeights:
    """Return, for each weight, whether its gradient is needed."""
    return MambaWeights(*ctx.needs_input_grad[-len(MambaWeights._fields) :])


def _normed(x: Tensor, weights: MambaWeights, eps: float) -> Tensor:
    if weights.norm is None:
        return x
    (normed,), _ = RMS_NORM.forward((x, weights.norm), save=False, eps=eps)
    return normed


def _step(saved: _Saved, weights: MambaWeights) -> Tensor:
    return saved.selected[..., : weights.dt_proj.shape[1]]


def _scan_inputs(saved: _Saved, weights: MambaWeights) -> ScanInputs:
    """Return the inputs to the scan; `delta` is recomputed because the scan may have overwritten it."""
    B, C = saved.selected[..., weights.dt_proj.shape[1] :].chunk(2, -1)
    delta = product(_step(saved, weights), weights.dt_proj.mT)
    return ScanInputs(saved.u, delta, weights.A, B, C, weights.D, saved.state, weights.dt_bias, saved.z)


def mamba(
    x: Tensor, tail: Tensor, state: Tensor, weights: MambaWeights, *, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a Mamba block over a tile as a single autograd function.

    Parameters
    ----------
    x : Tensor
        Input, of shape (batch, tile, d_model).
    tail : Tensor
        Last inputs to the convolution before the tile, of shape (batch, taps - 1, channels).
    state : Tensor
        State of the scan before the tile, of shape (batch, channels, states).
    weights : MambaWeights
        Weights of the block.
    eps : float
        Constant added to the mean square in the norm.

    Returns
    -------
    tuple of Tensor
        Outputs, tail for the next tile, and final state. Their shapes are those of `x`, `tail` and `state`.

    Notes
    -----
    The function is exact up to rounding: it computes the operations of `mamba_by_operations`, and its
    backward pass computes the vjps of these operations in reverse order.

    The tensors saved for the vjp are `x`, three values per base and channel (four if `out_proj` is
    trained), the output of `x_proj`, and the checkpoints of the scan.
    """
    inputs = x, tail, state, *weights
    check_precision(inputs)
    if transformed(inputs):
        return _definition(*inputs, eps=eps)
    outputs: tuple[Tensor, Tensor, Tensor] = _Mamba.apply(eps, *inputs)
    return outputs
