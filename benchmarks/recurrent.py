"""Recurrent blocks at equal numbers of weights, shared by the benchmarks that compare them."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.pd_ssm import PdSsmConfig
from genoscan.layers.surrogate import Surrogate

Kind = Literal["mamba", "mamba2", "activated", "straight_through"]
"""Mamba, Mamba-2, or PD-SSM trained with one of the two estimators of surrogate.py."""

Block = MambaConfig | Mamba2Config | PdSsmConfig

_HEADS = 2


def block(kind: Kind, width: int) -> Block:
    """Return a block: 16 states a channel; 2 heads of 64 states a channel; 8 heads of 8 complex states, 8 maps."""
    rank = -(-width // 16)
    if kind == "mamba":
        return MambaConfig(dt_rank=rank)
    if kind == "mamba2":
        return Mamba2Config(d_state=64, head_dim=2 * width // _HEADS)
    return PdSsmConfig(heads=8, d_state=8, n_maps=8, rank=rank, coupled=True)


def block_of_states(kind: Kind, width: int, states: int) -> Block:
    """Return a block with a number of states that each have their own decay: one a channel, or heads of 8."""
    if kind == "mamba":
        return MambaConfig(dt_rank=-(-width // 16), d_state=1, expand=states // width)
    return PdSsmConfig(heads=states // 8, d_state=8, n_maps=8, rank=-(-width // 16), coupled=True)


def surrogate(kind: Kind) -> Surrogate | None:
    """Return the estimator that a kind is trained with, if any."""
    return Surrogate(kind) if kind in ("activated", "straight_through") else None


def n_weights(model: nn.Module) -> int:
    """Return the number of weights that are trained."""
    return sum(part.numel() for part in model.parameters())


def closest_width(model: Callable[[int], nn.Module], weights: int, widths: Sequence[int]) -> int:
    """Return the width of the model with the number of weights closest to `weights`, which grows with the width."""

    def count(width: int) -> int:
        with torch.device("meta"):
            return n_weights(model(width))

    above = bisect_left(widths, weights, key=count)
    return min(widths[max(0, above - 1) : above + 1], key=lambda width: abs(count(width) - weights))
