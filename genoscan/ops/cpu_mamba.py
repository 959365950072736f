"""A whole Mamba block whose weights are fixed, as one step of autograd's, for the CPU.

Operation by operation, autograd's way through a tile's block takes longer than some of the
operations, and it keeps what could be had again for next to nothing.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from genoscan.ops.cpu_conv import CONV_SILU
from genoscan.ops.cpu_norm import RMS_NORM
from genoscan.ops.cpu_scan import SCAN
from genoscan.ops.kernels import MambaWeights, ScanInputs
from genoscan.ops.memory import room
from genoscan.ops.trio import Perhaps, refuse_tangents


class _Kept(NamedTuple):
    """What is kept of a tile, but for the scan's marks; names as in layers/mamba.py."""

    x: Tensor
    tail: Tensor
    state: Tensor
    u_in: Tensor
    z: Tensor
    u: Tensor
    selected: Tensor


class _FrozenMamba(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, tail: Tensor, state: Tensor, weights: MambaWeights, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        u_in, z = _entered(x, weights, eps)
        filters = weights.conv, weights.conv_bias
        (u, next_tail), _ = CONV_SILU.forward((u_in, *filters, tail), keep=False)
        kept = _Kept(x, tail, state, u_in, z, u, _product(u, weights.x_proj.mT))
        recorded = any(ctx.needs_input_grad)
        (y, end), marks = SCAN.forward(_scanned(kept, weights), keep=recorded, spent=True)
        ctx.save_for_backward(*kept, *marks)
        ctx.weights, ctx.eps = weights, eps
        return _product(y, weights.out_proj.mT).add_(x), next_tail, end

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, y_bar: Tensor, next_tail_bar: Tensor, end_bar: Tensor) -> Any:
        refuse_tangents((y_bar, next_tail_bar, end_bar))
        saved, weights = ctx.saved_tensors, ctx.weights
        kept, marks = _Kept(*saved[: len(_Kept._fields)]), saved[len(_Kept._fields) :]
        u_bar, state_bar, z_bar = _scan_pulled(kept, marks, weights, y_bar, end_bar)
        conv = (kept.u_in, weights.conv, weights.conv_bias, kept.tail)
        fixed = (True, False, False, True)
        u_bar, _, _, tail_bar = CONV_SILU.vjp(conv, (), (u_bar, next_tail_bar), fixed)
        u_half, z_half = weights.in_proj.chunk(2)
        normed_bar = _onto(_product(u_bar, u_half), z_bar, z_half)
        norm = kept.x, weights.norm
        x_bar, _ = RMS_NORM.vjp(norm, (), (normed_bar,), (True, False), eps=ctx.eps)
        return x_bar.add_(y_bar), tail_bar, state_bar, None, None


def _entered(x: Tensor, weights: MambaWeights, eps: float) -> tuple[Tensor, Tensor]:
    """Return what the convolution reads, and the gate."""
    (normed,), _ = RMS_NORM.forward((x, weights.norm), keep=False, eps=eps)
    u_half, z_half = weights.in_proj.chunk(2)
    return _product(normed, u_half.mT), _product(normed, z_half.mT)


def _scan_pulled(
    kept: _Kept, marks: tuple[Tensor, ...], weights: MambaWeights, y_bar: Tensor, end_bar: Tensor
) -> Perhaps:
    """Return the cotangents of u, of the state before the tile, and of the gate."""
    bars = _product(y_bar, weights.out_proj), end_bar
    scanned = _scanned(kept, weights)
    fixed = tuple(name not in ("A", "D", "bias") for name in ScanInputs._fields)
    pulled = ScanInputs(*SCAN.vjp(scanned, marks, bars, fixed, spent=True))
    selected_bar = torch.cat([_product(pulled.delta, weights.dt_proj), pulled.B, pulled.C], -1)
    return _onto(pulled.u, selected_bar, weights.x_proj), pulled.state, pulled.z


def _scanned(kept: _Kept, weights: MambaWeights) -> ScanInputs:
    """Return the scan's inputs; its steps are computed again for the vjp."""
    n_states = weights.A.shape[1]
    rank = weights.dt_proj.shape[1]
    step, B, C = kept.selected.split([rank, n_states, n_states], -1)
    delta = _product(step, weights.dt_proj.mT)
    return ScanInputs(
        kept.u, delta, weights.A, B, C, weights.D, kept.state, weights.dt_bias, kept.z
    )


def _product(x: Tensor, matrix: Tensor) -> Tensor:
    """Return x matrix, in room that is used again."""
    y = torch.from_numpy(room((*x.shape[:-1], matrix.shape[-1]), x.numpy(force=True)))
    torch.mm(x.flatten(0, -2), matrix, out=y.flatten(0, -2))
    return y


def _onto(y: Tensor, x: Tensor, matrix: Tensor) -> Tensor:
    """Add x matrix to y, in place."""
    y.flatten(0, -2).addmm_(x.flatten(0, -2), matrix)
    return y


def mamba(
    x: Tensor, tail: Tensor, state: Tensor, weights: MambaWeights, *, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the block's outputs over a tile, the next tail, and the state at the end.

    Exact: the operations of layers/mamba.py, and their rules in reverse order.
    Memory: for each base x, three arrays of channels, and what the scan keeps.
    """
    outputs: tuple[Tensor, Tensor, Tensor] = _FrozenMamba.apply(x, tail, state, weights, eps)
    return outputs
