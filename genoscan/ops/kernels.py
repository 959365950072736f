"""Interface of the kernel sets: the operations used by layers, and the inputs to these operations."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from genoscan.errors import InputError


class ScanInputs(NamedTuple):
    """Inputs to the scan, or the cotangents or tangents of these inputs.

    Parameters
    ----------
    u, delta : Tensor
        Inputs and step sizes, (batch, tile, channels).
    A : Tensor
        Decay rates <= 0, (channels, states).
    B, C : Tensor
        Input and output vectors, (batch, tile, states).
    D : Tensor
        Skip connection, (channels,).
    state : Tensor
        State h before the tile, (batch, channels, states).
    bias : Tensor, optional
        Bias of the step sizes, (channels,). If given, the step sizes are softplus(delta + bias)
        instead of delta.
    z : Tensor, optional
        Gate, (batch, tile, channels). If given, the outputs are y silu(z) instead of y.
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
    """Inputs to the convolution, or the cotangents or tangents of these inputs.

    Parameters
    ----------
    x : Tensor
        Input, (batch, tile, channels).
    weight : Tensor
        One filter per channel, (channels, taps).
    bias : Tensor
        Bias, (channels,).
    tail : Tensor
        Inputs before the tile, (batch, taps - 1, channels).
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    tail: Tensor


class MambaWeights(NamedTuple):
    """Weights of a Mamba block, named as in layers/mamba.py and described by their shapes.

    Parameters
    ----------
    norm : Tensor or None
        (d_model,); None for a mixer without the norm and the residual connection.
    in_proj : Tensor
        (2 channels, d_model)
    conv, conv_bias : Tensor
        (channels, taps) and (channels,)
    x_proj : Tensor
        (rank + 2 states, channels)
    dt_proj, dt_bias : Tensor
        (channels, rank) and (channels,)
    A : Tensor
        (channels, states)
    D : Tensor
        (channels,)
    out_proj : Tensor
        (d_model, channels)
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


class Kernels(NamedTuple):
    """A kernel set, which implements each operation defined in `reference.py`.

    Parameters
    ----------
    name : str
        Name of the set, as passed to `dispatch.choose`.
    scan : callable
        (*ScanInputs, input_map="euler" or "phi") -> (y, final state)
    conv_silu : callable
        (*ConvInputs) -> (y, next tail)
    rms_norm : callable
        (x, weight, eps=...) -> x divided by its root mean square, times weight
    pd_scan : callable
        (decay, inflow, state, route=..., maps=...) -> (states after every step, final state)
    linear : callable
        (x, weight) or (x, weight, bias) -> x weight^T + bias, like torch.nn.functional.linear
    mamba : callable, optional
        (x, tail, state, MambaWeights, eps=...) -> (outputs, next tail, final state). The function
        computes a whole block, but does not support `Dual` inputs. If it is None,
        `mamba_by_operations` is used.

    Notes
    -----
    Each operation is exact and, like any torch function, can be differentiated any number of times
    by autograd and torch.func. Forward mode with `Dual` tensors uses compiled kernels and supports
    first derivatives only.
    """

    name: str
    scan: Callable[..., tuple[Tensor, Tensor]]
    conv_silu: Callable[..., tuple[Tensor, Tensor]]
    rms_norm: Callable[..., Tensor]
    pd_scan: Callable[..., tuple[Tensor, Tensor]]
    linear: Callable[..., Tensor] = F.linear
    mamba: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None


def mamba_by_operations(
    kernels: Kernels, x: Tensor, tail: Tensor, state: Tensor, weights: MambaWeights, *, eps: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a Mamba block over a tile from the separate operations of a kernel set.

    Parameters
    ----------
    kernels : Kernels
        Implementation of the operations.
    x : Tensor
        Input, (batch, tile, d_model).
    tail : Tensor
        Inputs to the convolution before the tile, (batch, taps - 1, channels).
    state : Tensor
        State of the scan before the tile, (batch, channels, states).
    weights : MambaWeights
        Weights of the block.
    eps : float or None
        Constant added to the mean square in the norm; ignored if there is no norm.

    Returns
    -------
    tuple of Tensor
        Outputs, next tail and final state, with the same shapes as `x`, `tail` and `state`.
    """
    normed = x if weights.norm is None else kernels.rms_norm(x, weights.norm, eps=eps)
    # Two products rather than one that is split, so that both halves are contiguous.
    u, z = (kernels.linear(normed, half) for half in weights.in_proj.chunk(2))
    u, tail = kernels.conv_silu(u, weights.conv, weights.conv_bias, tail)
    ranks = [weights.dt_proj.shape[1], weights.A.shape[1], weights.A.shape[1]]
    step, B, C = kernels.linear(u, weights.x_proj).split(ranks, -1)
    delta = kernels.linear(step, weights.dt_proj)
    y, state = kernels.scan(u, delta, weights.A, B, C, weights.D, state, weights.dt_bias, z)
    y = kernels.linear(y, weights.out_proj)
    return (y if weights.norm is None else x + y), tail, state


def is_phi(input_map: str) -> bool:
    """Return whether the scan's input map is "phi" rather than "euler".

    Raises
    ------
    InputError
        If the input map is neither "phi" nor "euler".
    """
    if input_map not in ("euler", "phi"):
        raise InputError(f'input map "{input_map}": expected "euler" or "phi"')
    return input_map == "phi"
