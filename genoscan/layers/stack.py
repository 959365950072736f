"""Sequence models, which consist of an embedding, blocks, a final norm and a head."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from genoscan.layer import Carry, Layer


class SequenceModel(nn.Module):
    """The modules of a model: embedding, blocks, final norm and head.

    Parameters
    ----------
    embed
        Map from symbol weights to the input to the first block.
    blocks
        Blocks, first to last.
    norm
        Final norm.
    head
        Map from the normalised output of the last block to logits.
    """

    def __init__(self, embed: nn.Module, blocks: Sequence[nn.Module], norm: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.embed = embed
        self.layers = nn.ModuleList(blocks)
        self.norm = norm
        self.head = head


class Stack(SequenceModel):
    """A causal model as one layer that maps symbol weights to one logit per symbol.

    Notes
    -----
    The input has one row of symbol weights per base (one-hot, or the mean of A, C, G and T for N
    if the model has no symbol for it), so that the derivative has one column per symbol. The carry
    is the tuple of the carries of the blocks.
    """

    def begin(self, batch: int) -> Carry:
        """Return the carries of all blocks before the first base."""
        return tuple(block.begin(batch) for block in self.layers)  # type: ignore[operator]

    def forward(
        self, x: Float[Tensor, "batch tile d_in"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile d_out"], Carry]:
        """Return the logits over one tile and the carry at its right edge.

        Parameters
        ----------
        x
            Symbol weights for each base, (batch, tile, d_in).
        carry
            Carry at the left edge of the tile.

        Returns
        -------
        logits
            Logits, (batch, tile, d_out).
        carry
            Carry at the right edge of the tile.
        """
        x = self.embed(x)
        carries = []
        for block, before in zip(self.layers, carry, strict=True):
            x, after = block(x, before)
            carries.append(after)
        return self.head(self.norm(x)), tuple(carries)

    def cut(self, parts: int) -> list[Layer]:
        """Split the stack into consecutive stacks that share its weights.

        Parameters
        ----------
        parts
            Maximum number of stacks.

        Returns
        -------
        list of Layer
            Stacks, first to last; their composition equals this stack.
        """
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
