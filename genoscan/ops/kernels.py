"""What a kernel set is: the operations of a layer that a device brings kernels for."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from genoscan.errors import InputError


class ScanInputs(NamedTuple):
    """The scan's inputs, or a cotangent or tangent for each of them.

    u, delta  (batch, tile, channels)   A  (channels, states), <= 0   D  (channels)
    B, C      (batch, tile, states)     state  (batch, channels, states): h before the tile

    Where they are there: bias (channels), steps are softplus(delta + bias) instead of delta;
    z (batch, tile, channels), the gate: y silu(z) is returned instead of y.
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
    """The convolution's inputs, or a cotangent or tangent for each of them.

    x  (batch, tile, channels)   weight  (channels, taps)   bias  (channels)
    tail  (batch, taps - 1, channels): the inputs before the tile
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    tail: Tensor


class MambaWeights(NamedTuple):
    """The weights of a Mamba block, as layers/mamba.py names them.

    norm  (d_model), or None: the mixer alone, without norm and residual
    in_proj  (2 channels, d_model)   out_proj  (d_model, channels)
    conv  (channels, taps)   conv_bias  (channels)   x_proj  (rank + 2 states, channels)
    dt_proj  (channels, rank)   dt_bias  (channels)   A  (channels, states)   D  (channels)
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
    """One implementation of each operation; `reference.py` defines them, in plain torch.

    scan       (ScanInputs, input_map="euler" or "phi") -> (y, state at the end)
    conv_silu  ConvInputs -> (y, next tail)
    rms_norm   (x, weight, eps=...) -> x over its root mean square, times weight
    pd_scan    (decay, inflow, state, route=..., maps=...) -> (states after every step, at the end)
    linear     (x, weight, bias, or without) -> x weight^T + bias, as torch's

    Each is exact, and differentiable as any torch function is: by autograd, any number of times,
    and by torch.func.  Forward mode along a `Dual`'s directions, for which alone the kernels have
    a rule of their own, is for first derivatives.

    mamba      a whole block, not for a `Dual`: (x, tail, state, MambaWeights, eps=...) ->
               (outputs, next tail, state at the end); None: `mamba_by_operations`
    """

    name: str
    scan: Callable[..., tuple[Tensor, Tensor]]
    conv_silu: Callable[..., tuple[Tensor, Tensor]]
    rms_norm: Callable[..., Tensor]
    pd_scan: Callable[..., tuple[Tensor, Tensor]]
    linear: Callable[..., Tensor] = F.linear
    mamba: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None


def mamba_by_operations(
    kernels: Kernels,
    x: Tensor,
    tail: Tensor,
    state: Tensor,
    weights: MambaWeights,
    *,
    eps: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a Mamba block's outputs over a tile, the next tail, and the state at the end."""
    normed = x if weights.norm is None else kernels.rms_norm(x, weights.norm, eps=eps)
    # Two products rather than one cut in two: both halves lie in one piece.
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
        If it is neither.
    """
    if input_map not in ("euler", "phi"):
        raise InputError(f'input map "{input_map}": expected "euler" or "phi"')
    return input_map == "phi"
