"""Layers in sequence are a layer: embedding, blocks, final norm and head."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from genoscan.layer import Carry


class Stack(nn.Module):
    """A whole model as one causal layer: symbols in, one logit a symbol out.

    The input is one row of symbol weights a base (one-hot, or zeros for an N that the model
    has no symbol for), so that the derivative has a column for each symbol.  The carry is
    the tuple of the blocks' carries.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], *, d_model: int, n_symbols: int, eps: float
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(n_symbols, d_model, bias=False)
        self.layers = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(d_model, eps=eps)
        self.head = nn.Linear(d_model, n_symbols, bias=False)

    def begin(self, batch: int) -> Carry:
        """Return the carry before the first base."""
        return tuple(block.begin(batch) for block in self.layers)  # type: ignore[operator]

    def forward(
        self, x: Float[Tensor, "batch tile symbols"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile symbols"], Carry]:
        """Return the logits over the tile, and the carry at its right edge."""
        x = self.embed(x)
        carries = []
        for block, before in zip(self.layers, carry, strict=True):
            x, after = block(x, before)
            carries.append(after)
        return self.head(self.norm(x)), tuple(carries)
