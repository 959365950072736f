"""Layers that look both ways: BiMamba, for one strand or for both (Caduceus).

Letters (Schiff et al., Caduceus, arXiv 2403.03234), by position:
    a       what is held of the forward strand
    b       what is held of the reverse strand, its channels in the order in which that strand
            would be read: in Caduceus's own memory they lie the other way round
A block of one strand is x + fwd(norm x) + flip rev(flip norm x), or with their product.  A block of
both (rcps: reverse-complement parameter sharing) does that to a as it is read and to b as the
other strand is read, with the same weights: what is `fwd` to one is `rev` to the other.

Caduceus with fused_add_norm exchanges the strands before every block, which is not what its
definition says, but is what its weights were trained with.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from genoscan.layer import Carry, Layer
from genoscan.layers.mamba import Mamba, MambaConfig
from genoscan.layers.mamba2 import Mamba2, Mamba2Config
from genoscan.layers.norm import RMSNorm
from genoscan.layers.stack import Ends
from genoscan.ops.kernels import Kernels


class BidirectionalConfig(BaseModel):
    """One entry of config.json's `layers`.

    strategy        how what the two directions say is put together
    rcps            whether both strands are held
    fused_add_norm  whether the strands are exchanged before the block
    tied            whether both mixers have the same projections in and out
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["two_way"] = "two_way"
    inner: Annotated[MambaConfig | Mamba2Config, Field(discriminator="kind")]
    strategy: Literal["add", "multiply"] = "add"
    rcps: bool = False
    fused_add_norm: bool = False
    tied: bool = True


class BidirectionalBlock(nn.Module):
    """A two-way block; its two mixers may share what leads into them and out of them."""

    def __init__(
        self, config: BidirectionalConfig, d_model: int, *, eps: float, kernels: Kernels
    ) -> None:
        super().__init__()
        self.config = config
        self.norm = RMSNorm(d_model, eps=eps, kernels=kernels)
        self.fwd, self.rev = (_mixer(config.inner, d_model, kernels) for _ in range(2))
        if config.tied:
            self.rev.in_proj, self.rev.out_proj = self.fwd.in_proj, self.fwd.out_proj

    @property
    def left_to_right(self) -> Layer:
        """The mixer that reads left to right; of both strands, the one of each."""
        return Strands(self.fwd, self.rev) if self.config.rcps else self.fwd

    @property
    def right_to_left(self) -> Layer:
        """The mixer that reads right to left; of both strands, the one of each."""
        return Strands(self.rev, self.fwd) if self.config.rcps else self.rev

    @property
    def additive(self) -> bool:
        """Whether the two directions are added."""
        return self.config.strategy == "add"

    def before(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile width"]:
        """Return what both mixers read: the normed input."""
        return by_strand(self.norm, self._exchanged(x))

    def merge(
        self,
        x: Float[Tensor, "batch tile width"],
        left: Float[Tensor, "batch tile width"],
        right: Float[Tensor, "batch tile width"],
    ) -> Float[Tensor, "batch tile width"]:
        """Return the input plus what the mixers say."""
        return self._exchanged(x) + (left + right if self.additive else left * right)

    def _exchanged(self, x: Tensor) -> Tensor:
        return x.flip(-1) if self.config.fused_add_norm and self.config.rcps else x


def _mixer(config: MambaConfig | Mamba2Config, d_model: int, kernels: Kernels) -> Mamba | Mamba2:
    """Return a block without norm and residual, which the two-way one has."""
    if isinstance(config, MambaConfig):
        return Mamba(config, d_model, eps=None, kernels=kernels)
    return Mamba2(config, d_model, eps=None, kernels=kernels)


def by_strand(norm: RMSNorm, x: Float[Tensor, "batch tile width"]) -> Tensor:
    """Norm every strand that is held on its own."""
    width = len(norm.weight)
    if x.shape[-1] == width:
        normed: Tensor = norm(x)
        return normed
    return norm(x.unflatten(-1, (-1, width)).flatten(1, 2)).reshape(x.shape)


@dataclass(frozen=True)
class Strands:
    """Two layers side by side: one reads what is held of the forward strand, one of the other."""

    a: Layer
    b: Layer

    def begin(self, batch: int) -> Carry:
        """Return both carries before the first base."""
        return self.a.begin(batch), self.b.begin(batch)

    def forward(
        self, x: Float[Tensor, "batch tile width"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile width"], Carry]:
        """Run each on its half of the columns."""
        halves = x.chunk(2, -1)
        said = [
            layer.forward(half, before)
            for layer, half, before in zip((self.a, self.b), halves, carry, strict=True)
        ]
        return torch.cat([y for y, _ in said], -1), tuple(after for _, after in said)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights of both."""
        yield from self.a.parameters()
        yield from self.b.parameters()


class BidirectionalStack(Ends):
    """Embedding, two-way blocks, norm and head."""

    norm: RMSNorm

    @property
    def blocks(self) -> list[BidirectionalBlock]:
        """The blocks, first to last."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def both_strands(self) -> bool:
        """Whether the reverse complement is read as the sequence itself is."""
        return self.blocks[0].config.rcps

    @property
    def width(self) -> int:
        """Numbers a position between two blocks."""
        width: int = self.embed.out_features  # type: ignore[assignment]
        return width

    def forward(self, x: Float[Tensor, "batch length d_in"]) -> Tensor:
        """Return the logits of a whole window, read at once: the definition of the others."""
        x = self.enter(x)
        for layer in self.blocks:
            read = layer.before(x)
            left, _ = layer.left_to_right.forward(read, layer.left_to_right.begin(len(x)))
            right, _ = layer.right_to_left.forward(read.flip(1), layer.right_to_left.begin(len(x)))
            x = layer.merge(x, left, right.flip(1))
        return self.leave(x)

    def enter(self, x: Float[Tensor, "batch tile d_in"]) -> Float[Tensor, "batch tile width"]:
        """Return the embedding of every strand that is held."""
        entered: Tensor = self.embed(x)
        return entered

    def leave(self, x: Float[Tensor, "batch tile width"]) -> Float[Tensor, "batch tile d_out"]:
        """Return the logits."""
        logits: Tensor = self.head(by_strand(self.norm, x))
        return logits
