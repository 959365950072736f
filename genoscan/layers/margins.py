"""How near a model's selections are to being others."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoscan.errors import UnsupportedModelError
from genoscan.layer import Carry
from genoscan.layers.pd_ssm import PdSsm
from genoscan.layers.stack import Stack


class Margins:
    """A stack as a layer with one output a base: the least margin of its routers there.

    Raises
    ------
    UnsupportedModelError
        If no block of the stack selects anything.
    """

    def __init__(self, stack: Stack) -> None:
        if not any(isinstance(block, PdSsm) for block in stack.layers):
            raise UnsupportedModelError("no layer of the model selects anything: expected a PD-SSM")
        self._stack = stack

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the stack's."""
        return self._stack.parameters()

    def begin(self, batch: int) -> Carry:
        """Return the stack's carry before the first base."""
        return self._stack.begin(batch)

    def forward(
        self, x: Float[Tensor, "batch tile d_in"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile one"], Carry]:
        """Return the margins over the tile, and the stack's carry at its right edge."""
        x, margins, carries = self._stack.embed(x), [], []
        for block, before in zip(self._stack.layers, carry, strict=True):
            if isinstance(block, PdSsm):
                margins.append(block.margin(x, before))
            x, after = block(x, before)
            carries.append(after)
        return torch.stack(margins).amin(0)[..., None], tuple(carries)
