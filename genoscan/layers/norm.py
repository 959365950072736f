"""Normalisation layers: RMSNorm and LayerNorm."""

from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from genoscan.layers.schema import Schema
from genoscan.ops.dual import primal
from genoscan.ops.kernels import Kernels


class NormConfig(Schema):
    """Settings of the norm that precedes each block and the heads.

    Attributes
    ----------
    kind
        Type of the norm: "rms" (RMSNorm) or "layer" (LayerNorm with a bias).
    eps
        Constant added to the mean square (RMSNorm) or to the variance (LayerNorm).
    """

    kind: Literal["rms", "layer"] = "rms"
    eps: PositiveFloat = 1e-5


class RMSNorm(nn.Module):
    """Root mean square normalisation with one weight per channel.

    Parameters
    ----------
    width
        Number of channels.
    eps
        Constant added to the mean square.
    kernels
        Kernel set that computes the norm.

    Notes
    -----
    The norm is defined in Zhang and Sennrich (arXiv 1910.07467).
    """

    decays: ClassVar = {"weight": False}

    def __init__(self, width: int, *, eps: float, kernels: Kernels) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.kernels = kernels

    def forward(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile width"]:
        """Return `x` divided by its root mean square over the channels and multiplied by the weight.

        The result has the same shape as `x`, (batch, tile, width).
        """
        return self.kernels.rms_norm(x, self.weight, eps=self.eps)


class LayerNorm(nn.Module):
    """Layer normalisation with one weight and one bias per channel.

    Parameters
    ----------
    width
        Number of channels.
    eps
        Constant added to the variance.

    Notes
    -----
    The norm is defined in Ba, Kiros and Hinton (arXiv 1607.06450). It is computed by torch on all devices.
    """

    decays: ClassVar = {"weight": False, "bias": False}

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile width"]:
        """Standardise `x` over the channels, multiply it by the weight, and add the bias.

        The result has the same shape as `x`, (batch, tile, width). If the squares overflow, the result is
        NaN, whereas `torch.nn.functional.layer_norm` returns the bias.
        """
        y = F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        value = primal(x).detach()
        squares = (value - value.mean(-1, keepdim=True)).square().sum(-1, keepdim=True)
        # Multiply by NaN rather than overwrite: the derivative of an overwritten row would be 0.
        return y * torch.where(squares.isfinite(), 1.0, torch.nan).to(squares)


Norm: TypeAlias = RMSNorm | LayerNorm


def build_norm(config: NormConfig, width: int, kernels: Kernels) -> Norm:
    """Return the configured norm over `width` channels, with all weights 1 and all biases 0."""
    if config.kind == "layer":
        return LayerNorm(width, eps=config.eps)
    return RMSNorm(width, eps=config.eps, kernels=kernels)
