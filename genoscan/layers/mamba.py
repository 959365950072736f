"""The Mamba block, which consists of a norm, a selective state-space mixer and a residual connection.

Notation (Gu and Dao, Mamba, arXiv 2312.00752):
    u       (batch, tile, channels)   input to the scan, after convolution and activation
    delta   (batch, tile, channels)   step size: softplus of a low-rank projection of u
    A       (channels, states)        -exp(A_log): decay rate of each state
    B, C    (batch, tile, states)     input and output projections of the state
    D       (channels)                skip connection of the scan
    z       (batch, tile, channels)   gate
The number of channels is `expand` x `d_model`. As in Mamba, the input term is discretised by the Euler
rule: `delta B u` is added to the state at each base.
"""

import math
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoscan.layers.linear import Linear
from genoscan.layers.norm import LayerNorm, NormConfig, RMSNorm, build_norm
from genoscan.layers.schema import Schema, Size
from genoscan.ops.dual import Dual
from genoscan.ops.kernels import Kernels, MambaWeights, mamba_by_operations


class MambaConfig(Schema):
    """Configuration of a Mamba block: one entry of `layers` in config.json.

    Attributes
    ----------
    kind
        Type of the block, always "mamba".
    d_state
        Number of states per channel.
    d_conv
        Number of taps of the causal convolution.
    expand
        Ratio of the number of inner channels to `d_model`.
    dt_rank
        Rank of the projection that computes the step sizes.
    bias
        Whether the input and output projections have biases.
    """

    kind: Literal["mamba"] = "mamba"
    d_state: Size = 16
    d_conv: Size = 4
    expand: Size = 2
    dt_rank: Size
    bias: bool = False


class Depthwise(nn.Module):
    """Weights and biases of a depthwise causal convolution, which has one filter per channel.

    Parameters
    ----------
    channels
        Number of channels.
    taps
        Number of taps of each filter.
    """

    decays: ClassVar = {"weight": False, "bias": False}

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(taps)
        self.weight = nn.Parameter(torch.empty(channels, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))


class Mamba(nn.Module):
    """A Mamba-1 block, which computes `x + mixer(norm(x))`.

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
    Up to rounding, the output equals that of Mamba on the whole sequence, however the sequence is divided
    into tiles.
    """

    decays: ClassVar = {"A_log": False, "D": False}

    def __init__(self, config: MambaConfig, d_model: int, *, norm: NormConfig | None, kernels: Kernels) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        channels = config.expand * d_model
        self.norm = None if norm is None else build_norm(norm, d_model, kernels)
        self.in_proj = Linear(d_model, 2 * channels, bias=config.bias, kernels=kernels)
        self.conv = Depthwise(channels, config.d_conv)
        self.x_proj = Linear(channels, config.dt_rank + 2 * config.d_state, bias=False, kernels=kernels)
        self.dt_proj = Linear(config.dt_rank, channels, kernels=kernels)
        self.A_log = nn.Parameter(torch.empty(channels, config.d_state))
        self.D = nn.Parameter(torch.ones(channels))
        self.out_proj = Linear(channels, d_model, bias=config.bias, kernels=kernels)
        if not self.A_log.is_meta:  # weights to be loaded need no initialisation
            self._initialise()

    def _initialise(self) -> None:
        """Initialise the parameters as in Mamba.

        The decay rates are 1 to `d_state` (S4D-Real). The step sizes are drawn log-uniformly from
        [0.001, 0.1].
        """
        with torch.no_grad():
            self.A_log.copy_(torch.arange(1.0, self.config.d_state + 1).log().expand_as(self.A_log))
            bound = self.config.dt_rank**-0.5
            self.dt_proj.weight.uniform_(-bound, bound)
            low, high = math.log(0.001), math.log(0.1)
            step = torch.exp(torch.rand_like(self.dt_proj.bias) * (high - low) + low)
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))

    def begin(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return the initial carry (the state before the first base) for `batch` sequences; all values are zero."""
        channels, states = self.A_log.shape
        tail = self.A_log.new_zeros(batch, self.config.d_conv - 1, channels)
        return tail, self.A_log.new_zeros(batch, channels, states)

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
            (batch, d_conv - 1, channels), and the state of the scan, of shape (batch, channels, states).

        Returns
        -------
        y
            Output over the tile, of shape (batch, tile, d_model).
        carry
            Carry at the right edge of the tile.
        """
        # Kernels that compute a whole block do not support tangents or biases.
        plain = self.config.bias or any(isinstance(part, Dual) for part in (x, *carry))
        block = None if plain else self.kernels.mamba
        run = block or partial(mamba_by_operations, self.kernels)
        if isinstance(self.norm, LayerNorm):
            y, tail, state = run(self.norm(x), *carry, self._weights(), eps=None)
            return x + y, (tail, state)
        y, tail, state = run(x, *carry, self._weights(), eps=self.norm.eps if self.norm else None)
        return y, (tail, state)

    def _weights(self) -> MambaWeights:
        return MambaWeights(
            norm=self.norm.weight if isinstance(self.norm, RMSNorm) else None,
            in_proj=self.in_proj.weight,
            conv=self.conv.weight,
            conv_bias=self.conv.bias,
            x_proj=self.x_proj.weight,
            dt_proj=self.dt_proj.weight,
            dt_bias=self.dt_proj.bias,
            A=-torch.exp(self.A_log),
            D=self.D,
            out_proj=self.out_proj.weight,
            in_bias=self.in_proj.bias,
            out_bias=self.out_proj.bias,
        )
