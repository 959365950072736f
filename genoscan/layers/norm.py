"""RMSNorm, which is used by all layers."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoscan.ops.kernels import Kernels


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
        """Return `x` divided by its root mean square and multiplied by the weight.

        The shape of the result is (batch, tile, width).
        """
        return self.kernels.rms_norm(x, self.weight, eps=self.eps)
