"""The linear map that layers share."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from genoscan.ops.kernels import Kernels


class Linear(nn.Linear):
    """torch's, its product the kernel set's."""

    decays: ClassVar = {"weight": True, "bias": False}

    def __init__(self, width: int, out: int, *, bias: bool = True, kernels: Kernels) -> None:
        super().__init__(width, out, bias=bias)
        self.kernels = kernels

    def forward(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile out"]:
        bias = () if self.bias is None else (self.bias,)
        return self.kernels.linear(x, self.weight, *bias)
