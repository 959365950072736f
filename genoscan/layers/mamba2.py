"""The Mamba-2 block, which consists of a norm, a mixer and a residual connection.

Notation (Dao and Gu, Mamba-2, arXiv 2405.21060):
    x       (batch, tile, channels)           input to the scan, after convolution and activation;
                                              each head has `head_dim` consecutive channels
    delta   (batch, tile, heads)              step size: softplus(dt + dt_bias), clamped to
                                              `dt_limit`
    A       (heads)                           -exp(A_log): decay rate of each head
    B, C    (batch, tile, groups, states)     input and output projections of the state, shared by
                                              the heads of a group
    D       (heads)                           skip connection of the scan
    z       (batch, tile, channels)           gate; the scan's output is multiplied by silu(z) and
                                              then normalised over the channels of each group
The number of channels is `expand` x `d_model`. The scan is that of Mamba, with the same decay for all
channels and states of a head.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from genoscan.layers.linear import Linear
from genoscan.layers.mamba import Depthwise
from genoscan.layers.norm import NormConfig, build_norm
from genoscan.layers.schema import Schema, Size
from genoscan.ops.kernels import Kernels


class Mamba2Config(Schema):
    """Configuration of a Mamba-2 block: one entry of `layers` in config.json.

    Attributes
    ----------
    kind
        Type of the block, always "mamba2".
    d_state
        Number of states per channel.
    head_dim
        Number of channels per head.
    n_groups
        Number of groups of heads. The heads of a group share the input and output projections of the state,
        `B` and `C`.
    d_conv
        Number of taps of the causal convolution.
    expand
        Ratio of the number of inner channels to `d_model`.
    dt_limit
        Lower and upper bounds of the step size. If the upper bound is None, there is no upper bound.
    gate_eps
        Constant added to the mean square in the norm that follows the gate.
    """

    kind: Literal["mamba2"] = "mamba2"
    d_state: Size = 128
    head_dim: Size = 64
    n_groups: Size = 1
    d_conv: Size = 4
    expand: Size = 2
    dt_limit: tuple[NonNegativeFloat, PositiveFloat | None] = (0.0, None)
    gate_eps: PositiveFloat = 1e-5

    @model_validator(mode="after")
    def _is_a_range(self) -> "Mamba2Config":
        low, high = self.dt_limit
        if high is not None and high < low:
            raise ValueError(f"dt_limit: the upper bound, {high}, is below the lower one, {low}")
        return self

    def check_width(self, d_model: int) -> None:
        """Raise ValueError if the channels of a block cannot be divided into heads, or the heads into groups."""
        channels = self.expand * d_model
        if channels % self.head_dim:
            raise ValueError(f"head_dim: expected a divisor of the {channels} channels, found {self.head_dim}")
        if (channels // self.head_dim) % self.n_groups:
            heads = channels // self.head_dim
            raise ValueError(f"n_groups: expected a divisor of the {heads} heads, found {self.n_groups}")


class Mamba2(nn.Module):
    """A Mamba-2 block, which computes `x + mixer(norm(x))`.

    Parameters
    ----------
    config
        Settings of the block.
    d_model
        Number of input and output channels.
    norm
        Settings of the norm. If None, the block consists of the mixer alone, without a norm or a residual
        connection. Bidirectional blocks contain such mixers.
    kernels
        Kernel set that computes the operations of the block.

    Notes
    -----
    Up to rounding, the output equals that of Mamba-2 on the whole sequence, however the sequence is divided
    into tiles.
    """

    decays: ClassVar = {"dt_bias": False, "A_log": False, "D": False, "gate_norm": False}

    def __init__(self, config: Mamba2Config, d_model: int, *, norm: NormConfig | None, kernels: Kernels) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        self.channels = config.expand * d_model
        heads, shared = self.channels // config.head_dim, config.n_groups * config.d_state
        self.norm = None if norm is None else build_norm(norm, d_model, kernels)
        self.in_proj = Linear(d_model, 2 * self.channels + 2 * shared + heads, bias=False, kernels=kernels)
        self.conv = Depthwise(self.channels + 2 * shared, config.d_conv)
        self.dt_bias = nn.Parameter(torch.empty(heads))
        self.A_log = nn.Parameter(torch.empty(heads))
        self.D = nn.Parameter(torch.ones(heads))
        self.gate_norm = nn.Parameter(torch.ones(self.channels))
        self.out_proj = Linear(self.channels, d_model, bias=False, kernels=kernels)
        if not self.A_log.is_meta:  # weights to be loaded need no initialisation
            self._initialise()

    def _initialise(self) -> None:
        """Initialise the parameters as in Mamba-2.

        `-A` is drawn uniformly from [1, 16]. The step sizes are drawn log-uniformly from [0.001, 0.1].
        """
        with torch.no_grad():
            self.A_log.uniform_(1, 16).log_()
            low, high = math.log(0.001), math.log(0.1)
            step = torch.exp(torch.rand_like(self.dt_bias) * (high - low) + low)
            self.dt_bias.copy_(step + torch.log(-torch.expm1(-step)))

    def begin(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return the initial carry (the state before the first base) for `batch` sequences; all values are zero."""
        tail = self.D.new_zeros(batch, self.config.d_conv - 1, len(self.conv.bias))
        return tail, self.D.new_zeros(batch, self.channels, self.config.d_state)

    def forward(
        self, x: Float[Tensor, "batch tile d_model"], carry: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "batch tile d_model"], tuple[Tensor, Tensor]]:
        """Return the output over one tile and the carry at the right edge of the tile.

        Parameters
        ----------
        x
            Input over the tile, of shape (batch, tile, d_model).
        carry
            Carry at the left edge of the tile. It consists of the last inputs to the convolution, of shape
            (batch, d_conv - 1, channels + 2 x groups x states), and the state of the scan, of shape (batch,
            channels, states).

        Returns
        -------
        y
            Output over the tile, of shape (batch, tile, d_model).
        carry
            Carry at the right edge of the tile.
        """
        config, kernels = self.config, self.kernels
        tail, state = carry
        normed = self.norm(x) if self.norm else x
        sizes = [self.channels, len(self.conv.bias), len(self.D)]
        z, mixed, dt = (kernels.linear(normed, w) for w in self.in_proj.weight.split(sizes))
        mixed, tail = kernels.conv_silu(mixed, self.conv.weight, self.conv.bias, tail)
        shared = config.n_groups * config.d_state
        u, B, C = mixed.split([self.channels, shared, shared], -1)
        low, high = config.dt_limit
        delta = F.softplus(dt + self.dt_bias, threshold=40)
        if (low, high) != (0.0, None):
            delta = delta.clamp(low, high)
        groups = [part.chunk(config.n_groups, -1) for part in (u, self._by_channel(delta), B, C, z)]
        A = self._by_channel(-torch.exp(self.A_log))[:, None].expand(-1, config.d_state)
        weights = [part.chunk(config.n_groups) for part in (A, self._by_channel(self.D))]
        results = [
            kernels.scan(u, delta, A, B, C, D, before, None, z)
            for u, delta, B, C, z, A, D, before in zip(*groups, *weights, state.chunk(config.n_groups, 1), strict=True)
        ]
        y = self._gate_normed(torch.cat([y for y, _ in results], -1))
        y = kernels.linear(y, self.out_proj.weight)
        state = torch.cat([after for _, after in results], 1)
        return (x + y if self.norm else y), (tail, state)

    def _by_channel(self, heads: Tensor) -> Tensor:
        return heads.repeat_interleave(self.config.head_dim, -1)

    def _gate_normed(self, y: Float[Tensor, "batch tile channels"]) -> Tensor:
        """Normalise the gated output over the channels of each group, and multiply it by the norm's weight."""
        width = self.channels // self.config.n_groups
        groups = y.unflatten(-1, (-1, width)).flatten(1, 2)
        normed = self.kernels.rms_norm(groups, y.new_ones(width), eps=self.config.gate_eps)
        return normed.reshape(y.shape) * self.gate_norm
