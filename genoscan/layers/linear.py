"""Linear map that is used by all layers."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from genoscan.ops.kernels import Kernels


class Linear(nn.Linear):
    """`torch.nn.Linear` whose matrix product is computed by a kernel set.

    Parameters
    ----------
    width
        Number of input channels.
    out
        Number of output channels.
    bias
        Whether to add a bias.
    kernels
        Kernel set that computes the product.
    """

    decays: ClassVar = {"weight": True, "bias": False}

    def __init__(self, width: int, out: int, *, bias: bool = True, kernels: Kernels) -> None:
        super().__init__(width, out, bias=bias)
        self.kernels = kernels

    def forward(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile out"]:
        """Return `x @ W.T + b` for the weight `W` and the bias `b`.

        The shape of the result is (batch, tile, out).
        """
        bias = () if self.bias is None else (self.bias,)
        return self.kernels.linear(x, self.weight, *bias)
