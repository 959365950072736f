"""Interface of the kernel sets: the operations that layers use, and the inputs to these operations."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from genoscan.errors import InputError


class ScanInputs(NamedTuple):
    """Inputs to the selective scan, or the tangents or cotangents of these inputs.

    Parameters
    ----------
    u, delta : Tensor
        Inputs and step sizes, of shape (batch, tile, channels).
    A : Tensor
        Decay rates, of shape (channels, states). They are at most 0.
    B, C : Tensor
        Input and output projections of the state, of shape (batch, tile, states).
    D : Tensor
        Skip connection, of shape (channels,).
    state : Tensor
        State `h` before the tile, of shape (batch, channels, states).
    bias : Tensor, optional
        Bias of the step sizes, of shape (channels,). If it is given, the step sizes are
        `softplus(delta + bias)` instead of `delta`.
    z : Tensor, optional
        Gate, of shape (batch, tile, channels). If it is given, the outputs are `y silu(z)` instead of `y`.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    state: Tensor
    bias: Tensor | None = None
    z: Tensor | None = None


class ConvInputs(NamedTuple):
    """Inputs to the convolution, or the tangents or cotangents of these inputs.

    Parameters
    ----------
    x : Tensor
        Input, of shape (batch, tile, channels).
    weight : Tensor
        One filter per channel, of shape (channels, taps).
    bias : Tensor
        Bias, of shape (channels,).
    tail : Tensor
        Last inputs before the tile, of shape (batch, taps - 1, channels).
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    tail: Tensor


class MambaWeights(NamedTuple):
    """Weights of a Mamba block, with the same names as in layers/mamba.py.

    Parameters
    ----------
    norm : Tensor or None
        Weight of the norm, of shape (d_model,). None for a mixer without a norm or a residual connection.
    in_proj : Tensor
        Weight of the input projection, of shape (2 x channels, d_model).
    conv, conv_bias : Tensor
        Filters and biases of the convolution, of shapes (channels, taps) and (channels,).
    x_proj : Tensor
        Projection that computes the low-rank step sizes, `B` and `C`, of shape (rank + 2 x states,
        channels).
    dt_proj, dt_bias : Tensor
        Weight and bias of the step-size projection, of shapes (channels, rank) and (channels,).
    A : Tensor
        Decay rates, of shape (channels, states).
    D : Tensor
        Skip connection of the scan, of shape (channels,).
    out_proj : Tensor
        Weight of the output projection, of shape (d_model, channels).
    in_bias, out_bias : Tensor, optional
        Biases of the input and output projections, of shapes (2 x channels,) and (d_model,).
    """

    norm: Tensor | None
    in_proj: Tensor
    conv: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    out_proj: Tensor
    in_bias: Tensor | None = None
    out_bias: Tensor | None = None


class Kernels(NamedTuple):
    """A kernel set: an implementation of each operation that is defined in `reference.py`.

    Parameters
    ----------
    name : str
        Name of the kernel set, as passed to `dispatch.choose`.
    scan : callable
        Function `(*ScanInputs, input_map="euler" or "phi") -> (outputs, final state)`.
    conv_silu : callable
        Function `(*ConvInputs) -> (outputs, tail for the next tile)`.
    rms_norm : callable
        Function `(x, weight, eps=...)` that returns `x` divided by its root mean square and multiplied by
        `weight`.
    pd_scan : callable
        Function `(decay, inflow, state, route=..., maps=...) -> (states after each step, final state)`.
    linear : callable
        Function `(x, weight)` or `(x, weight, bias)` that returns `x @ weight.T + bias`, as
        `torch.nn.functional.linear` does.
    mamba : callable, optional
        Function `(x, tail, state, MambaWeights, eps=...) -> (outputs, tail for the next tile, final
        state)`. It computes a whole block, but does not support `Dual` inputs or biases of the projections.
        If it is None, `mamba_by_operations` is used.
    pd_mix : callable, optional
        Function `(u, z, state, PdMixWeights, maps=..., coupled=...) -> (outputs, final state)`. It computes the
        mixer of a PD-SSM block, but does not support `Dual` inputs. If it is None, `pd_mix.pd_mix_by_operations`
        is used.

    Notes
    -----
    Each operation is exact up to rounding. Like any torch function, it can be differentiated any number of
    times by autograd and torch.func. Forward mode with `Dual` tensors uses compiled kernels and supports
    only first derivatives.
    """

    name: str
    scan: Callable[..., tuple[Tensor, Tensor]]
    conv_silu: Callable[..., tuple[Tensor, Tensor]]
    rms_norm: Callable[..., Tensor]
    pd_scan: Callable[..., tuple[Tensor, Tensor]]
    linear: Callable[..., Tensor] = F.linear
    mamba: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None
    pd_mix: Callable[..., tuple[Tensor, Tensor]] | None = None


def mamba_by_operations(
    kernels: Kernels, x: Tensor, tail: Tensor, state: Tensor, weights: MambaWeights, *, eps: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a Mamba block over a tile with the separate operations of a kernel set.

    Parameters
    ----------
    kernels : Kernels
        Kernel set that computes the operations.
    x : Tensor
        Input, of shape (batch, tile, d_model).
    tail : Tensor
        Last inputs to the convolution before the tile, of shape (batch, taps - 1, channels).
    state : Tensor
        State of the scan before the tile, of shape (batch, channels, states).
    weights : MambaWeights
        Weights of the block.
    eps : float or None
        Constant added to the mean square in the norm. It is ignored if there is no norm.

    Returns
    -------
    tuple of Tensor
        Outputs, tail for the next tile, and final state. Their shapes are those of `x`, `tail` and `state`.
    """
    normed = x if weights.norm is None else kernels.rms_norm(x, weights.norm, eps=eps)
    # Two products rather than one that is split, so that both halves are contiguous.
    halves = [weights.in_proj.chunk(2), *([] if weights.in_bias is None else [weights.in_bias.chunk(2)])]
    u, z = (kernels.linear(normed, *half) for half in zip(*halves, strict=True))
    u, tail = kernels.conv_silu(u, weights.conv, weights.conv_bias, tail)
    ranks = [weights.dt_proj.shape[1], weights.A.shape[1], weights.A.shape[1]]
    step, B, C = kernels.linear(u, weights.x_proj).split(ranks, -1)
    delta = kernels.linear(step, weights.dt_proj)
    y, state = kernels.scan(u, delta, weights.A, B, C, weights.D, state, weights.dt_bias, z)
    y = kernels.linear(y, weights.out_proj, *([] if weights.out_bias is None else [weights.out_bias]))
    return (y if weights.norm is None else x + y), tail, state


def is_phi(input_map: str) -> bool:
    """Return whether the input map of the scan is "phi" rather than "euler".

    Raises
    ------
    InputError
        If the input map is neither "phi" nor "euler".
    """
    if input_map not in ("euler", "phi"):
        raise InputError(f'input map "{input_map}": expected "euler" or "phi"')
    return input_map == "phi"
