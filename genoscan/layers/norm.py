"""The norm that layers share."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoscan.ops.kernels import Kernels


class RMSNorm(nn.Module):
    """x over its root mean square, times a weight (Zhang and Sennrich, arXiv 1910.07467)."""

    decays: ClassVar = {"weight": False}

    def __init__(self, width: int, *, eps: float, kernels: Kernels) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.kernels = kernels

    def forward(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile width"]:
        return self.kernels.rms_norm(x, self.weight, eps=self.eps)
