"""The short depthwise convolution, with its last inputs as carry."""

import torch
from jaxtyping import Float
from torch import Tensor


def causal_conv(
    x: Float[Tensor, "batch tile channels"],
    weight: Float[Tensor, "channels taps"],
    bias: Float[Tensor, " channels"],
    tail: Float[Tensor, "batch taps_less_one channels"],
) -> tuple[Float[Tensor, "batch tile channels"], Float[Tensor, "batch taps_less_one channels"]]:
    """Return bias + sum over k of weight[:, k] x[t - taps + 1 + k], and the tail for the next tile.

    The last tap is the current base; `tail` holds the taps - 1 inputs before the tile.
    Memory: the tail returned is a copy: a view would keep the whole tile alive.
    """
    taps, length = weight.shape[1], x.shape[1]
    padded = torch.cat([tail, x], 1)
    out = bias.expand_as(x)
    for k in range(taps):
        out = torch.addcmul(out, padded[:, k : k + length], weight[:, k])
    return out, padded[:, length:].clone()
