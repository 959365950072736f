"""Layers in sequence are a layer: embedding, blocks, final norm and head."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from genoscan.layer import Carry, Layer


class Ends(nn.Module):
    """Blocks, and what stands before and after them."""

    def __init__(
        self, embed: nn.Module, blocks: Sequence[nn.Module], norm: nn.Module, head: nn.Module
    ) -> None:
        super().__init__()
        self.embed = embed
        self.layers = nn.ModuleList(blocks)
        self.norm = norm
        self.head = head


class Stack(Ends):
    """A whole model as one causal layer: symbols in, one logit a symbol out.

    The input is one row of symbol weights a base (one-hot, or the mean of A, C, G and T for an N
    that the model has no symbol for), so that the derivative has a column for each symbol.  The
    carry is the tuple of the blocks' carries.
    """

    def begin(self, batch: int) -> Carry:
        """Return the carry before the first base."""
        return tuple(block.begin(batch) for block in self.layers)  # type: ignore[operator]

    def forward(
        self, x: Float[Tensor, "batch tile d_in"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile d_out"], Carry]:
        """Return the logits over the tile, and the carry at its right edge."""
        x = self.embed(x)
        carries = []
        for block, before in zip(self.layers, carry, strict=True):
            x, after = block(x, before)
            carries.append(after)
        return self.head(self.norm(x)), tuple(carries)

    def cut(self, parts: int) -> list[Layer]:
        """Return at most so many stacks that make this one in sequence, on the same weights."""
        parts = min(parts, len(self.layers))
        edges = [len(self.layers) * i // parts for i in range(parts + 1)]
        return [
            Stack(
                self.embed if start == 0 else nn.Identity(),
                list(self.layers[start:stop]),
                self.norm if stop == len(self.layers) else nn.Identity(),
                self.head if stop == len(self.layers) else nn.Identity(),
            )
            for start, stop in pairwise(edges)
        ]
