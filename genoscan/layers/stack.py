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
    """Base class of models that consist of an embedding, blocks, a final norm and heads.

    Parameters
    ----------
    embed
        Module that maps encoded bases, with one column per symbol, to the input of the first block.
    blocks
        Blocks, from first to last.
    norm
        Final norm.
    head
        Language-model head, which maps the features after the final norm to one logit per symbol. None if
        the model has only task heads.
    heads
        Task heads.

    Notes
    -----
    The outputs of all heads are concatenated. The outputs of the language-model head come first, followed
    by those of the task heads in order.
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
        """Return the outputs of all heads, concatenated along the last axis.

        `features` contains the activations after the final norm.
        """
        heads = [*([] if self.head is None else [self.head]), *self.heads]
        parts = [head(features) for head in heads]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def select(self: Network, head: int | None) -> Network:
        """Return a network that has only one of the heads and shares its weights with this network.

        Parameters
        ----------
        head
            Index of a task head, or None for the language-model head.
        """
        chosen = (self.head, []) if head is None else (None, [self.heads[head]])
        return type(self)(self.embed, list(self.layers), self.norm, *chosen)


class Stack(SequenceModel):
    """A causal model as a single layer, which maps encoded bases to the outputs of all heads.

    Notes
    -----
    The input has one row per base and one column per symbol, so that the derivative also has one column per
    symbol. The row of each base is one-hot, with one exception: if the model has no symbol for N, the row
    of an N is the mean of the rows of A, C, G and T. The carry of the stack is a tuple of the carries of
    its blocks.
    """

    def begin(self, batch: int) -> Carry:
        """Return the initial carries of all blocks for `batch` sequences, before the first base."""
        return tuple(block.begin(batch) for block in self.layers)  # type: ignore[operator]

    def forward(
        self, x: Float[Tensor, "batch tile d_in"], carry: Carry
    ) -> tuple[Float[Tensor, "batch tile d_out"], Carry]:
        """Return the outputs of all heads over one tile, and the carry at the right edge of the tile.

        Parameters
        ----------
        x
            Encoded bases, of shape (batch, tile, d_in): one row per base and one column per symbol.
        carry
            Carry at the left edge of the tile: a tuple of the carries of the blocks.

        Returns
        -------
        logits
            Outputs of all heads, of shape (batch, tile, d_out).
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
        """Split the stack into consecutive stacks, which share their weights with this stack.

        Parameters
        ----------
        parts
            Maximum number of stacks to return.

        Returns
        -------
        list of Layer
            Stacks in the order in which they are applied. Their composition equals this stack.
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
