"""One Mamba block: norm, selective state-space mixer, residual.

Letters, as in Mamba (Gu and Dao, arXiv 2312.00752):
    u       (batch, tile, channels)   the convolved, activated input of the scan
    delta   (batch, tile, channels)   step size, softplus of a low-rank projection of u
    A       (channels, states)        -exp(A_log): how fast each state forgets
    B, C    (batch, tile, states)     what enters the state, what is read from it
    D       (channels)                the scan's skip connection
    z       (batch, tile, channels)   the gate
with channels = expand x d_model.  The input map is Mamba's Euler one, delta B u.
"""

import math
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from genoscan.layers.linear import Linear
from genoscan.layers.norm import RMSNorm
from genoscan.ops.dual import Dual
from genoscan.ops.kernels import Kernels, MambaWeights, mamba_by_operations


class MambaConfig(BaseModel):
    """One entry of config.json's `layers`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["mamba"] = "mamba"
    d_state: PositiveInt = 16
    d_conv: int = Field(4, ge=1)
    expand: PositiveInt = 2
    dt_rank: PositiveInt


class Depthwise(nn.Module):
    """The weights of the short convolution: one filter a channel."""

    decays: ClassVar = {"weight": False, "bias": False}

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(taps)
        self.weight = nn.Parameter(torch.empty(channels, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))


class Mamba(nn.Module):
    """A Mamba-1 block, x + mixer(norm(x)); its carry is (last inputs of the convolution, h).

    Without `eps` it is the mixer alone: a two-way block has norm and residual of its own.

    Exact: equal to a whole-sequence Mamba whatever the tiling, to rounding.
    """

    decays: ClassVar = {"A_log": False, "D": False}

    def __init__(
        self, config: MambaConfig, d_model: int, *, eps: float | None, kernels: Kernels
    ) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        channels = config.expand * d_model
        self.eps = eps
        self.norm = None if eps is None else RMSNorm(d_model, eps=eps, kernels=kernels)
        self.in_proj = Linear(d_model, 2 * channels, bias=False, kernels=kernels)
        self.conv = Depthwise(channels, config.d_conv)
        self.x_proj = Linear(
            channels, config.dt_rank + 2 * config.d_state, bias=False, kernels=kernels
        )
        self.dt_proj = Linear(config.dt_rank, channels, kernels=kernels)
        self.A_log = nn.Parameter(torch.empty(channels, config.d_state))
        self.D = nn.Parameter(torch.ones(channels))
        self.out_proj = Linear(channels, d_model, bias=False, kernels=kernels)
        if not self.A_log.is_meta:  # weights that are about to be read need no start
            self._initialise()

    def _initialise(self) -> None:
        """Start as Mamba does: S4D-real decays 1..N, steps log-uniform in [0.001, 0.1]."""
        with torch.no_grad():
            self.A_log.copy_(torch.arange(1.0, self.config.d_state + 1).log().expand_as(self.A_log))
            bound = self.config.dt_rank**-0.5
            self.dt_proj.weight.uniform_(-bound, bound)
            low, high = math.log(0.001), math.log(0.1)
            step = torch.exp(torch.rand_like(self.dt_proj.bias) * (high - low) + low)
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))

    def begin(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return the carry before the first base: zeros."""
        channels, states = self.A_log.shape
        tail = self.A_log.new_zeros(batch, self.config.d_conv - 1, channels)
        return tail, self.A_log.new_zeros(batch, channels, states)

    def forward(
        self, x: Float[Tensor, "batch tile d_model"], carry: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "batch tile d_model"], tuple[Tensor, Tensor]]:
        """Return x + mixer(norm(x)) over the tile, and the carry at its right edge."""
        moving = any(isinstance(part, Dual) for part in (x, *carry))
        block = None if moving else self.kernels.mamba
        run = block or partial(mamba_by_operations, self.kernels)
        x, tail, state = run(x, *carry, self._weights(), eps=self.eps)
        return x, (tail, state)

    def _weights(self) -> MambaWeights:
        return MambaWeights(
            norm=self.norm.weight if self.norm else None,
            in_proj=self.in_proj.weight,
            conv=self.conv.weight,
            conv_bias=self.conv.bias,
            x_proj=self.x_proj.weight,
            dt_proj=self.dt_proj.weight,
            dt_bias=self.dt_proj.bias,
            A=-torch.exp(self.A_log),
            D=self.D,
            out_proj=self.out_proj.weight,
        )
