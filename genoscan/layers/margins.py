"""Margins of PD-SSM routers, which measure how close a model is to selecting other transition maps."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoscan.errors import UnsupportedModelError
from genoscan.layer import Carry
from genoscan.layers.pd_ssm import PdSsm
from genoscan.layers.stack import Stack


class Margins:
    """Layer that returns the smallest margin over all routers of a stack, at each base.

    Parameters
    ----------
    stack
        Causal stack with at least one PD-SSM block.

    Raises
    ------
    UnsupportedModelError
        If the stack has no PD-SSM block.

    Notes
    -----
    The margin of a router is the difference between the probability of the selected map and that of the
    second most probable map (`PdSsm.margin`).
    """

    def __init__(self, stack: Stack) -> None:
        if not any(isinstance(block, PdSsm) for block in stack.layers):
            raise UnsupportedModelError("the model has no PD-SSM layer: expected at least one")
        self._stack = stack

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the stack."""
        return self._stack.parameters()

    def begin(self, batch: int) -> Carry:
        """Return the initial carry of the stack for `batch` sequences, before the first base."""
        return self._stack.begin(batch)

    def forward(
        self, x: Float[Tensor, "batch tile d_in"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile one"], Carry]:
        """Return the smallest margin at each base of a tile, and the carry at the right edge of the tile.

        Parameters
        ----------
        x
            Encoded bases, of shape (batch, tile, d_in): one row per base and one column per symbol.
        carry
            Carry of the stack at the left edge of the tile.

        Returns
        -------
        margins
            Smallest margin over all routers, of shape (batch, tile, 1).
        carry
            Carry of the stack at the right edge of the tile.
        """
        x, margins, carries = self._stack.embed(x), [], []
        for block, before in zip(self._stack.layers, carry, strict=True):
            if isinstance(block, PdSsm):
                margins.append(block.margin(x, before))
            x, after = block(x, before)
            carries.append(after)
        return torch.stack(margins).amin(0)[..., None], tuple(carries)
