"""The short depthwise convolution and its SiLU, with its last inputs as carry."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def causal_conv_silu(
    x: Float[Tensor, "batch tile channels"],
    weight: Float[Tensor, "channels taps"],
    bias: Float[Tensor, " channels"],
    tail: Float[Tensor, "batch before channels"],
    *,
    fused: bool,
) -> tuple[Float[Tensor, "batch tile channels"], Float[Tensor, "batch before channels"]]:
    """Return silu(bias + sum over k of weight[:, k] x[t - taps + 1 + k]), and the next tail.

    The last tap is the current base; `tail` holds the taps - 1 inputs before the tile.
    `fused` takes the compiled CPU kernels; otherwise plain torch, the definition of right.
    Memory: the tail returned is a copy: a view would keep the whole tile alive.
    """
    padded = torch.cat([tail, x], 1)
    y = _Fused.apply(padded, weight, bias) if fused else _plain(padded, weight, bias)
    return y, padded[:, x.shape[1] :].clone()


def _convolve(padded: Tensor, weight: Tensor) -> Tensor:
    taps = weight.shape[1]
    length = padded.shape[1] - taps + 1
    return sum(padded[:, k : k + length] * weight[:, k] for k in range(taps))  # type: ignore[return-value]


def _plain(padded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(_convolve(padded, weight) + bias)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(padded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        from genoscan.ops import cpu_conv

        return cpu_conv.forward(padded, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, y_bar: Tensor) -> tuple[Tensor, ...]:
        from genoscan.ops import cpu_conv

        padded, weight, bias = ctx.saved_tensors
        return cpu_conv.vjp(padded, weight, bias, y_bar)

    @staticmethod
    def jvp(ctx: Any, *dots: Tensor | None) -> Tensor:
        padded, weight, bias = ctx.saved_tensors
        padded_dot, weight_dot, bias_dot = dots
        total = _convolve(padded, weight) + bias
        total_dot = torch.zeros_like(total)
        if padded_dot is not None:
            total_dot = total_dot + _convolve(padded_dot, weight)
        if weight_dot is not None:
            total_dot = total_dot + _convolve(padded, weight_dot)
        if bias_dot is not None:
            total_dot = total_dot + bias_dot
        gate = torch.sigmoid(total)
        return total_dot * (gate * (1 + total * (1 - gate)))

    @staticmethod
    def vmap(*_arguments: Any) -> Any:
        # torch asks for this rule even where, under jvp, only tangents are batched.
        raise NotImplementedError("vmap over the convolution's inputs: batch them instead")
