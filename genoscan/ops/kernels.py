"""What a kernel set is: the operations of a layer that a device brings kernels for."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


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

    Each is exact, and differentiable once: in reverse mode by torch's autograd, in forward mode
    along a `Dual`'s directions.

    mamba      a whole block, differentiable in reverse mode: (x, tail, state, MambaWeights,
               eps=...) -> (outputs, next tail, state at the end); None: block by operations
    """

    name: str
    scan: Callable[..., tuple[Tensor, Tensor]]
    conv_silu: Callable[..., tuple[Tensor, Tensor]]
    rms_norm: Callable[..., Tensor]
    pd_scan: Callable[..., tuple[Tensor, Tensor]]
    linear: Callable[..., Tensor] = F.linear
    mamba: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None


def choose(device: torch.device | str, name: str = "auto") -> Kernels:
    """Return the kernel set for a device: the one place where a kernel is picked."""
    kind = torch.device(device).type
    if name == "triton" or (name == "auto" and kind == "cuda"):
        from genoscan.ops.triton_gpu import TRITON

        return TRITON
    if name == "associative":
        from genoscan.ops.associative import ASSOCIATIVE

        return ASSOCIATIVE
    if name == "reference" or (name == "auto" and kind != "cpu"):
        from genoscan.ops.reference import REFERENCE

        return REFERENCE
    from genoscan.ops.cpu import CPU

    return CPU
