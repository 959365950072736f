"""Recurrent blocks at equal numbers of weights, shared by the benchmarks that compare them."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd
import torch
from torch import nn

from benchmarks.experiment import Finding
from benchmarks.threshold import at_most
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.pd_ssm import PdSsmConfig
from genoscan.layers.surrogate import Surrogate

Kind = Literal["mamba", "mamba2", "activated", "straight_through"]
"""Mamba, Mamba-2, or PD-SSM trained with one of the two estimators of surrogate.py."""

Block = MambaConfig | Mamba2Config | PdSsmConfig

_EQUAL = 1.02
"""Ratio of numbers of weights up to which they are called equal."""

_HEAD = 64
"""Channels of a head of Mamba-2, as in its authors' models; in ours, a divisor of all channels."""


def block(kind: Kind, width: int) -> Block:
    """Return a block of Mamba or Mamba-2 with 16 or 64 states a channel, or 8 heads of 8 complex states and 8 maps."""
    rank = -(-width // 16)
    if kind == "mamba":
        return MambaConfig(dt_rank=rank)
    if kind == "mamba2":
        return Mamba2Config(d_state=64, head_dim=_head_dim(2 * width))
    return PdSsmConfig(heads=8, d_state=8, n_maps=8, rank=rank, coupled=True)


def _head_dim(channels: int) -> int:
    divisors = [size for size in range(1, channels + 1) if channels % size == 0]
    return min(divisors, key=lambda size: abs(channels / size - channels / _HEAD))


def block_of_states(kind: Kind, width: int, states: int) -> Block:
    """Return a block of Mamba or PD-SSM with as many inner channels as states that each have their own decay.

    Mamba has one such state a channel, PD-SSM heads of 8 complex ones and 8 maps.

    Raises
    ------
    ValueError
        If the kind is Mamba-2, or the number of states is not a multiple of the width and of 8.
    """
    if kind == "mamba2" or states % width or states % 8:
        raise ValueError(f"no block of {kind} with width {width} and {states} states")
    rank, expand = -(-width // 16), states // width
    if kind == "mamba":
        return MambaConfig(dt_rank=rank, d_state=1, expand=expand)
    return PdSsmConfig(heads=states // 8, d_state=8, n_maps=8, rank=rank, expand=expand, coupled=True)


def surrogate(kind: Kind) -> Surrogate | None:
    """Return the estimator that a kind is trained with, if any."""
    return Surrogate(kind) if kind in ("activated", "straight_through") else None


def n_weights(model: nn.Module) -> int:
    """Return the number of weights that are trained."""
    return sum(part.numel() for part in model.parameters())


def equal_weights(rows: pd.DataFrame) -> Finding:
    """Return the ratio of the largest and the smallest number of weights, with its threshold."""
    ratio = rows.weights.max() / rows.weights.min()
    return Finding("most weights, of the fewest", ratio, "times", at_most(_EQUAL))


def closest_width(model: Callable[[int], nn.Module], weights: int, widths: Sequence[int]) -> int:
    """Return the width of the model with the number of weights closest to `weights`, which grows with the width."""

    def count(width: int) -> int:
        with torch.device("meta"):
            return n_weights(model(width))

    above = bisect_left(widths, weights, key=count)
    return min(widths[max(0, above - 1) : above + 1], key=lambda width: abs(count(width) - weights))


def width_of_equal_weights(
    model: Callable[[int], nn.Module], other: Callable[[], nn.Module], widths: Sequence[int]
) -> int:
    """Return the width of the model with the number of weights closest to that of another model."""
    with torch.device("meta"):
        weights = n_weights(other())
    return closest_width(model, weights, widths)
