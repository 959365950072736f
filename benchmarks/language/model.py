"""A hybrid language model: recurrent blocks, with an attention block at every fourth place.

Each block is followed by an MLP, as in Jamba (arXiv 2403.19887) and Samba (arXiv 2406.07522).
Attention has no positional encoding, as in Jamba: the recurrent blocks before it encode the order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.recurrent import Kind, block, closest_width, surrogate
from genoscan.layers.linear import Linear
from genoscan.layers.norm import NormConfig, build_norm
from genoscan.layers.pd_ssm import with_surrogate
from genoscan.layers.stack import SequenceModel
from genoscan.layers.weights import assemble
from genoscan.ops.dispatch import choose
from genoscan.ops.kernels import Kernels

_NORM = NormConfig()
_WIDTHS = range(16, 2_049)


@dataclass(frozen=True, kw_only=True)
class Design:
    """Settings of a model.

    weights          number of weights, which the width is chosen for
    attention_every  every n-th block is attention; 0: none is
    heads            heads of attention, of 32 channels each
    n_tokens         number of different tokens
    """

    kind: Kind
    weights: int
    n_blocks: int
    attention_every: int = 4
    heads: int = 4
    n_tokens: int = 256


class Attention(nn.Module):
    """A block that computes `x + attention(norm(x))`, causal and without positions."""

    HEAD: ClassVar = 32

    def __init__(self, width: int, heads: int, *, kernels: Kernels) -> None:
        super().__init__()
        self.heads = heads
        self.norm = build_norm(_NORM, width, kernels)
        self.in_proj = Linear(width, 3 * heads * self.HEAD, bias=False, kernels=kernels)
        self.out_proj = Linear(heads * self.HEAD, width, bias=False, kernels=kernels)

    def forward(self, x: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """Return the output at each position, computed from the input up to it."""
        parts = self.in_proj(self.norm(x)).unflatten(-1, (3, self.heads, self.HEAD)).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out_proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """A block that computes `x + mlp(norm(x))`: two linear maps with GELU, twice as wide between them."""

    def __init__(self, width: int, *, kernels: Kernels) -> None:
        super().__init__()
        self.norm = build_norm(_NORM, width, kernels)
        self.above = Linear(width, 2 * width, bias=False, kernels=kernels)
        self.below = Linear(2 * width, width, bias=False, kernels=kernels)

    def forward(self, x: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """Return the output at each position."""
        return x + self.below(F.gelu(self.above(self.norm(x))))


class Hybrid(SequenceModel):
    """A causal model: recurrent blocks of genoscan, attention blocks and MLPs."""

    embed: Linear

    def forward(self, tokens: Int64[Tensor, "sequences length"]) -> Float[Tensor, "sequences length tokens"]:
        """Return the logits of the token after each position."""
        x = F.embedding(tokens, self.embed.weight.mT)
        for layer in self.layers:
            x = layer(x) if isinstance(layer, Attention | Mlp) else layer(x, layer.begin(len(x)))[0]  # type: ignore[operator]
        return self.outputs(self.norm(x))


def hybrid(design: Design, width: int, *, device: str = "cpu") -> Hybrid:
    """Return a model of the given width with randomly initialised weights."""
    kernels = choose(device)
    every = design.attention_every
    attends = [every > 0 and i % every == 0 for i in range(1, design.n_blocks + 1)]
    recurrent = [block(design.kind, width)] * (design.n_blocks - sum(attends))
    stack = assemble(recurrent, width, design.n_tokens, design.n_tokens, eps=_NORM.eps, kernels=kernels)
    mixers = iter(stack.layers)

    def blocks() -> Iterator[nn.Module]:
        for attention in attends:
            yield Attention(width, design.heads, kernels=kernels) if attention else next(mixers)
            yield Mlp(width, kernels=kernels)

    return Hybrid(stack.embed, list(blocks()), stack.norm, stack.head)


def width_of(design: Design) -> int:
    """Return the width with the number of weights closest to `design.weights`."""
    return closest_width(lambda width: hybrid(design, width), design.weights, _WIDTHS)


def build(design: Design, seed: int, *, device: str = "cpu") -> tuple[Hybrid, Hybrid]:
    """Return the model with seeded weights, and the same for training, if need be with surrogate gradients.

    Both share their weights.
    """
    torch.manual_seed(seed)
    model = hybrid(design, width_of(design), device=device).to(device)
    estimator = surrogate(design.kind)
    return model, model if estimator is None else with_surrogate(model, estimator)
