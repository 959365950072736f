"""Margins of PD-SSM routers, which measure how close a model is to selecting other transition maps."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoscan.errors import UnsupportedModelError
from genoscan.layer import BidirectionalLayer, Carry, Layer
from genoscan.layers.bidirectional import BidirectionalStack, StrandPair
from genoscan.layers.pd_ssm import PdSsm
from genoscan.layers.stack import Stack


def margins(network: Stack | BidirectionalStack) -> "Margins | BidirectionalMargins":
    """Return a network whose only output is the smallest margin over all routers, at each base.

    Parameters
    ----------
    network
        Causal or bidirectional network with at least one PD-SSM block.

    Returns
    -------
    Margins or BidirectionalMargins
        Network that is run by the same method as `network`. Its output has the shape (batch, tile, 1).

    Raises
    ------
    UnsupportedModelError
        If the network has no PD-SSM block.

    Notes
    -----
    The margin of a router is the difference between the probability of the selected map and that of the
    second most probable map (`PdSsm.margin`). In bidirectional blocks, there is a router in each direction and,
    if the block represents both strands, in each strand.
    """
    if not any(isinstance(part, PdSsm) for part in network.modules()):
        raise UnsupportedModelError("the model has no PD-SSM layer: expected at least one")
    return BidirectionalMargins(network) if isinstance(network, BidirectionalStack) else Margins(network)


@dataclass(frozen=True)
class Margins:
    """Layer that returns the smallest margin over all routers of a causal stack, at each base."""

    stack: Stack

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the stack."""
        return self.stack.parameters()

    def begin(self, batch: int) -> Carry:
        """Return the initial carry of the stack for `batch` sequences, before the first base."""
        return self.stack.begin(batch)

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
        x, found, carries = self.stack.embed(x), [], []
        for block, before in zip(self.stack.layers, carry, strict=True):
            found.append(_margin(block, x, before))  # type: ignore[arg-type]
            x, after = block(x, before)
            carries.append(after)
        return torch.stack(found).amin(0)[..., None], tuple(carries)


def _margin(layer: Layer, x: Float[Tensor, "batch tile width"], carry: Carry) -> Float[Tensor, "batch tile"]:
    """Return the smallest margin of a layer's routers; a layer without routers has the margin 1."""
    if isinstance(layer, StrandPair):
        halves = zip((layer.a, layer.b), x.chunk(2, -1), carry, strict=True)
        return torch.stack([_margin(*half) for half in halves]).amin(0)
    return layer.margin(x, carry) if isinstance(layer, PdSsm) else x.new_ones(x.shape[:2])


@dataclass(frozen=True)
class BidirectionalMargins:
    """Bidirectional network that returns the smallest margin over all routers, at each base.

    The activations between its layers are those of `stack`, and one more channel: the smallest margin over the
    layers so far. Its layers have no derivative.
    """

    stack: BidirectionalStack

    @property
    def blocks(self) -> list[BidirectionalLayer]:
        """Blocks of the stack with the additional channel, from first to last."""
        return [_BlockWithMargin(block) for block in self.stack.blocks]

    @property
    def width(self) -> int:
        """Number of channels of the activations between blocks."""
        return self.stack.width + 1

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the stack."""
        return self.stack.parameters()

    def encode(self, x: Float[Tensor, "batch tile d_in"]) -> Float[Tensor, "batch tile width"]:
        """Embed the bases of a tile; the margin before the first block is 1."""
        return torch.cat([self.stack.encode(x), x.new_ones(*x.shape[:2], 1)], -1)

    def decode(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile one"]:
        """Return the margins after the last block, of shape (batch, tile, 1)."""
        return x[..., -1:]


@dataclass(frozen=True)
class _BlockWithMargin:
    block: BidirectionalLayer

    @property
    def left_to_right(self) -> Layer:
        return _LayerWithMargin(self.block.left_to_right)

    @property
    def right_to_left(self) -> Layer:
        return _LayerWithMargin(self.block.right_to_left)

    @property
    def additive(self) -> bool:
        return self.block.additive

    def prepare(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile read"]:
        return self.block.prepare(x[..., :-1])

    def merge(
        self,
        x: Float[Tensor, "batch tile width"],
        left: Float[Tensor, "batch tile read"],
        right: Float[Tensor, "batch tile read"],
    ) -> Float[Tensor, "batch tile width"]:
        parts = x, left, right
        smallest = torch.cat([part[..., -1:] for part in parts], -1).amin(-1, keepdim=True)
        return torch.cat([self.block.merge(*(part[..., :-1] for part in parts)), smallest], -1)


@dataclass(frozen=True)
class _LayerWithMargin:
    """Causal layer whose output has one more channel, the margin."""

    layer: Layer

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.layer.parameters()

    def begin(self, batch: int) -> Carry:
        return self.layer.begin(batch)

    def forward(
        self, x: Float[Tensor, "batch tile read"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile width"], Carry]:
        y, after = self.layer.forward(x, carry)
        return torch.cat([y, _margin(self.layer, x, carry)[..., None]], -1), after
