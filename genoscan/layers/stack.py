"""Sequence models, which consist of an embedding, blocks, a final norm and heads."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoscan.layer import Carry, Layer

Network = TypeVar("Network", bound="SequenceModel")


class SequenceModel(nn.Module):
    """The modules of a model: embedding, blocks, final norm and heads.

    Parameters
    ----------
    embed
        Map from symbol weights to the input to the first block.
    blocks
        Blocks, first to last.
    norm
        Final norm.
    head
        Language-model head: map from the width of the blocks to one logit per symbol. None if the model
        has only task heads.
    heads
        Task heads.

    Notes
    -----
    The outputs are those of all heads, concatenated: first the language model's, then those of the
    task heads in order.
    """

    def __init__(
        self,
        embed: nn.Module,
        blocks: Sequence[nn.Module],
        norm: nn.Module,
        head: nn.Module | None,
        heads: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.embed = embed
        self.layers = nn.ModuleList(blocks)
        self.norm = norm
        self.head = head
        self.heads = nn.ModuleList(heads)

    def outputs(self, features: Float[Tensor, "batch tile features"]) -> Float[Tensor, "batch tile d_out"]:
        """Return the outputs of all heads for the final, normalised features."""
        heads = [*([] if self.head is None else [self.head]), *self.heads]
        parts = [head(features) for head in heads]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def select(self: Network, head: int | None) -> Network:
        """Return the network with a single head; it shares its weights with this network.

        Parameters
        ----------
        head
            Index of a task head; None for the language-model head.
        """
        chosen = (self.head, []) if head is None else (None, [self.heads[head]])
        return type(self)(self.embed, list(self.layers), self.norm, *chosen)


class Stack(SequenceModel):
    """A causal model as one layer that maps symbol weights to logits.

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
        return self.outputs(self.norm(x)), tuple(carries)

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
                self.heads if stop == len(self.layers) else (),
            )
            for start, stop in pairwise(edges)
        ]
