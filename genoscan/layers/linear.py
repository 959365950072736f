"""Linear layer whose output is computed by a kernel set."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from genoscan.ops.kernels import Kernels


class Linear(nn.Linear):
    """A `torch.nn.Linear` layer whose output is computed by a kernel set.

    Parameters
    ----------
    width
        Number of input channels.
    out
        Number of output channels.
    bias
        Whether to add a bias.
    kernels
        Kernel set that computes the output.
    """

    decays: ClassVar = {"weight": True, "bias": False}

    def __init__(self, width: int, out: int, *, bias: bool = True, kernels: Kernels) -> None:
        super().__init__(width, out, bias=bias)
        self.kernels = kernels

    def forward(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile out"]:
        """Return `x @ W.T + b`, where `W` is the weight and `b` is the bias, if there is one.

        The shape of the result is (batch, tile, out).
        """
        bias = () if self.bias is None else (self.bias,)
        return self.kernels.linear(x, self.weight, *bias)
