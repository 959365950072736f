"""Bidirectional blocks (BiMamba), which represent one strand or, as in Caduceus, both strands.

Notation (Schiff et al., Caduceus, arXiv 2403.03234), at each position:
    a       activations of the forward strand
    b       activations of the reverse strand, with the channels in the same order as those of `a`;
            Caduceus stores them in reverse order
A block for one strand computes `x + fwd(norm x) + flip rev(flip norm x)`, where `fwd` and `rev` are the
mixers of the two directions, and `flip` reverses the order of the positions. The outputs of the two mixers
may also be multiplied instead of added. A block for both strands (rcps: reverse-complement parameter
sharing) applies the same computation, with the same weights, to both strands. Each strand is read in its
own direction: the mixer that processes `a` from left to right processes `b` from right to left.

If `fused_add_norm` is set, Caduceus swaps the strands and reverses the order of their channels before every
block. This differs from the published definition of Caduceus, but the published weights were trained this
way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from genoscan.layer import Carry, Layer
from genoscan.layers.mamba import Mamba, MambaConfig
from genoscan.layers.mamba2 import Mamba2, Mamba2Config
from genoscan.layers.norm import Norm, NormConfig, build_norm
from genoscan.layers.pd_ssm import PdSsm, PdSsmConfig
from genoscan.layers.schema import Schema
from genoscan.layers.stack import SequenceModel
from genoscan.ops.kernels import Kernels


class BidirectionalConfig(Schema):
    """Configuration of a bidirectional block: one entry of `layers` in config.json.

    Attributes
    ----------
    kind
        Type of the block, always "two_way".
    inner
        Configuration of the mixers (Mamba, Mamba-2 or PD-SSM), which is the same for both directions.
    strategy
        Operation that combines the outputs of the two directions: "add" or "multiply".
    rcps
        Whether the block represents both strands (reverse-complement parameter sharing).
    fused_add_norm
        Whether the strands are swapped before the block, as in Caduceus. This has no effect unless `rcps`
        is true.
    tied
        Whether the mixers of the two directions share their input and output projections.
    """

    kind: Literal["two_way"] = "two_way"
    inner: Annotated[MambaConfig | Mamba2Config | PdSsmConfig, Field(discriminator="kind")]
    strategy: Literal["add", "multiply"] = "add"
    rcps: bool = False
    fused_add_norm: bool = False
    tied: bool = True


class BidirectionalBlock(nn.Module):
    """A bidirectional block: a norm, one mixer per direction, and a residual connection.

    Parameters
    ----------
    config
        Settings of the block.
    d_model
        Number of channels per strand.
    norm
        Settings of the norm that precedes the mixers.
    kernels
        Kernel set that computes the operations of the block.

    Notes
    -----
    If `config.tied` is true, the mixers share their input and output projections.
    """

    def __init__(self, config: BidirectionalConfig, d_model: int, *, norm: NormConfig, kernels: Kernels) -> None:
        super().__init__()
        self.config = config
        self.norm = build_norm(norm, d_model, kernels)
        self.fwd, self.rev = (_mixer(config.inner, d_model, kernels) for _ in range(2))
        if config.tied:
            self.rev.in_proj, self.rev.out_proj = self.fwd.in_proj, self.fwd.out_proj

    @cached_property
    def left_to_right(self) -> Layer:
        """Causal layer applied from left to right: a mixer or, with `rcps`, a pair of mixers, one per strand."""
        return StrandPair(self.fwd, self.rev) if self.config.rcps else self.fwd

    @cached_property
    def right_to_left(self) -> Layer:
        """Causal layer applied from right to left: a mixer or, with `rcps`, a pair of mixers, one per strand."""
        return StrandPair(self.rev, self.fwd) if self.config.rcps else self.rev

    @property
    def additive(self) -> bool:
        """Whether the outputs of the two directions are added rather than multiplied."""
        return self.config.strategy == "add"

    def prepare(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile width"]:
        """Return the input to the mixers: the normalised input to the block, of shape (batch, tile, width)."""
        return norm_per_strand(self.norm, self._swap_strands(x))

    def merge(
        self,
        x: Float[Tensor, "batch tile width"],
        left: Float[Tensor, "batch tile width"],
        right: Float[Tensor, "batch tile width"],
    ) -> Float[Tensor, "batch tile width"]:
        """Return the input to the block plus the combined outputs of the mixers.

        Parameters
        ----------
        x
            Input to the block, of shape (batch, tile, width).
        left, right
            Outputs of `left_to_right` and `right_to_left`, both ordered from left to right.

        Returns
        -------
        Tensor
            Output of the block, of shape (batch, tile, width).
        """
        return self._swap_strands(x) + (left + right if self.additive else left * right)

    def _swap_strands(self, x: Tensor) -> Tensor:
        return x.flip(-1) if self.config.fused_add_norm and self.config.rcps else x


def _mixer(config: MambaConfig | Mamba2Config | PdSsmConfig, d_model: int, kernels: Kernels) -> Mamba | Mamba2 | PdSsm:
    """Return a mixer without a norm or a residual connection; the bidirectional block provides both."""
    if isinstance(config, MambaConfig):
        return Mamba(config, d_model, norm=None, kernels=kernels)
    if isinstance(config, Mamba2Config):
        return Mamba2(config, d_model, norm=None, kernels=kernels)
    return PdSsm(config, d_model, norm=None, kernels=kernels)


def norm_per_strand(norm: Norm, x: Float[Tensor, "batch tile width"]) -> Tensor:
    """Normalise the channels of each strand separately.

    Parameters
    ----------
    norm
        Norm to apply to the channels of one strand.
    x
        Activations of one or both strands, of shape (batch, tile, width).

    Returns
    -------
    Tensor
        Normalised activations, with the same shape as `x`.
    """
    width = len(norm.weight)
    if x.shape[-1] == width:
        normed: Tensor = norm(x)
        return normed
    return norm(x.unflatten(-1, (-1, width)).flatten(1, 2)).reshape(x.shape)


@dataclass(frozen=True)
class StrandPair:
    """Two causal layers in parallel, each applied to the channels of one strand.

    Attributes
    ----------
    a
        Layer for the forward strand, whose channels are the first half of all channels.
    b
        Layer for the reverse strand, whose channels are the second half of all channels.
    """

    a: Layer
    b: Layer

    def begin(self, batch: int) -> Carry:
        """Return the initial carries of both layers for `batch` sequences, before the first base."""
        return self.a.begin(batch), self.b.begin(batch)

    def forward(
        self, x: Float[Tensor, "batch tile width"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile width"], Carry]:
        """Apply each layer to its half of the channels; return the outputs, and the carries after the tile."""
        halves = x.chunk(2, -1)
        results = [
            layer.forward(half, before) for layer, half, before in zip((self.a, self.b), halves, carry, strict=True)
        ]
        return torch.cat([y for y, _ in results], -1), tuple(after for _, after in results)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of both layers."""
        yield from self.a.parameters()
        yield from self.b.parameters()


class BidirectionalStack(SequenceModel):
    """A bidirectional network: an embedding, bidirectional blocks, a final norm and heads."""

    norm: Norm

    @property
    def blocks(self) -> list[BidirectionalBlock]:
        """Blocks, from first to last."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def both_strands(self) -> bool:
        """Whether the blocks represent both strands.

        If so, the network is reverse-complement equivariant.
        """
        return self.blocks[0].config.rcps

    @property
    def width(self) -> int:
        """Number of channels of the activations between blocks."""
        width: int = self.embed.out_features  # type: ignore[assignment]
        return width

    def forward(self, x: Float[Tensor, "batch length d_in"]) -> Tensor:
        """Return the outputs of all heads for a whole window, computed in one pass.

        Parameters
        ----------
        x
            Encoded bases, of shape (batch, length, d_in): one row per base and one column per symbol.

        Returns
        -------
        Tensor
            Outputs of all heads, of shape (batch, length, d_out).

        Notes
        -----
        This method defines the function that the network represents. The engine computes the same function
        layer by layer.
        """
        x = self.encode(x)
        for layer in self.blocks:
            read = layer.prepare(x)
            left, _ = layer.left_to_right.forward(read, layer.left_to_right.begin(len(x)))
            right, _ = layer.right_to_left.forward(read.flip(1), layer.right_to_left.begin(len(x)))
            x = layer.merge(x, left, right.flip(1))
        return self.decode(x)

    def encode(self, x: Float[Tensor, "batch tile d_in"]) -> Float[Tensor, "batch tile width"]:
        """Embed the bases of a tile; return activations of one or both strands, of shape (batch, tile, width)."""
        embedded: Tensor = self.embed(x)
        return embedded

    def decode(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile d_out"]:
        """Apply the final norm and the heads; return the outputs of all heads, of shape (batch, tile, d_out)."""
        return self.outputs(norm_per_strand(self.norm, x))
