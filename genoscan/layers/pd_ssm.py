"""One Flash PD-SSM block: norm, selective permutation-diagonal mixer, residual.

Letters (Terzić et al., NeurIPS 2025; Flash PD-SSM, arXiv 2605.19150):
    u       (batch, tile, channels)              the convolved, activated input
    x       (batch, tile, heads, 2, states)      complex states, planes of real and imaginary parts
    M       (heads, maps, states, states)        the dictionary; a column's largest entry is where
                                                 that state goes
    route   (batch, tile, heads)                 which map a step takes: the largest of S u
    D       (batch, tile, heads, 2, states)      complex decays, in size exp(-relu(...)): at most 1,
                                                 and exactly 1 where the argument is not positive
    B, C    what enters a state, what is read from it; C is a function of u, of low rank as D is
    z       (batch, tile, channels)              the gate
with channels = expand x d_model; y = W_o Re(C x) + skip u, times silu(z).
"""

import copy
import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from genoscan.layers.linear import Linear
from genoscan.layers.mamba import Depthwise
from genoscan.layers.norm import RMSNorm
from genoscan.layers.stack import Stack
from genoscan.layers.surrogate import Surrogate, activated, straight_through
from genoscan.ops.dual import Dual, primal
from genoscan.ops.kernels import Kernels
from genoscan.ops.pd_scan import argmax_maps


class PdSsmConfig(BaseModel):
    """One entry of config.json's `layers`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pd_ssm"] = "pd_ssm"
    heads: PositiveInt = 2
    d_state: PositiveInt = 64
    n_maps: PositiveInt = 16
    d_conv: int = Field(4, ge=1)
    expand: PositiveInt = 2
    rank: PositiveInt


class PdSsm(nn.Module):
    """A PD-SSM block, x + mixer(norm(x)); its carry is (last inputs of the convolution, x).

    Exact: the same function whatever the tiling, to rounding.  Its derivative is that of the
    deployed function, which takes maps and routes as they are; where a substitution changes a
    route there is a jump that no derivative sees, and `margin` says how near one is.

    Training needs a surrogate gradient for the selection. It is used only where `surrogate` is set,
    which `with_surrogate` does on a copy; whether weights require gradients, and torch's
    `train` and `eval`, change nothing.
    """

    decays: ClassVar = {"dictionary": False, "D": False}
    surrogate: Surrogate | None
    start: Tensor

    def __init__(self, config: PdSsmConfig, d_model: int, *, eps: float, kernels: Kernels) -> None:
        super().__init__()
        self.config = config
        self.kernels = kernels
        self.surrogate = None
        channels, states = config.expand * d_model, config.heads * config.d_state
        self.norm = RMSNorm(d_model, eps=eps, kernels=kernels)
        self.in_proj = Linear(d_model, 2 * channels, bias=False, kernels=kernels)
        self.conv = Depthwise(channels, config.d_conv)
        self.B_proj = Linear(channels, 2 * states, bias=False, kernels=kernels)
        self.low = Linear(channels, 3 * config.rank, bias=False, kernels=kernels)
        self.size = Linear(config.rank, states, kernels=kernels)
        self.phase = Linear(config.rank, states, kernels=kernels)
        self.C_proj = Linear(config.rank, 2 * states, kernels=kernels)
        self.router = Linear(channels, config.heads * config.n_maps, bias=False, kernels=kernels)
        self.dictionary = nn.Parameter(
            torch.empty(config.heads, config.n_maps, config.d_state, config.d_state)
        )
        self.register_buffer("start", torch.empty(config.heads, 2, config.d_state))
        self.state_out = Linear(states, channels, bias=False, kernels=kernels)
        self.D = nn.Parameter(torch.ones(channels))
        self.out_proj = Linear(channels, d_model, bias=False, kernels=kernels)
        if not self.D.is_meta:  # weights that are about to be read need no start
            self._initialise()

    def _initialise(self) -> None:
        """Begin in the first state, with decays near 1 and phases all round.

        Maps begin as permutations, by margins that training soon gets past: maps that are not
        forget, one after the other, where they began.
        """
        n_states = self.config.d_state
        with torch.no_grad():
            self.dictionary.normal_(std=0.05)
            for chosen in self.dictionary.flatten(0, 1):
                chosen[torch.randperm(n_states), torch.arange(n_states)] += 0.2
            self.start.zero_()
            self.start[:, 0, 0] = 1
            self.size.bias.uniform_(0, 0.1)
            self.phase.bias.uniform_(-math.pi, math.pi)

    def begin(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return the carry before the first base: no inputs, and the state to start in."""
        tail = self.D.new_zeros(batch, self.config.d_conv - 1, len(self.D))
        return tail, self.start.expand(batch, *self.start.shape).clone()

    def forward(
        self, x: Float[Tensor, "batch tile d_model"], carry: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "batch tile d_model"], tuple[Tensor, Tensor]]:
        """Return x + mixer(norm(x)) over the tile, and the carry at its right edge."""
        tail, state = carry
        u, z, tail = self._entered(x, tail)
        size, phase, reading = self.low(u).chunk(3, -1)
        magnitude, angle = torch.exp(-F.relu(self.size(size))), self.phase(phase)
        planes = magnitude * torch.cos(angle), magnitude * torch.sin(angle)
        decay = torch.stack([self._by_head(plane) for plane in planes], -2)
        inflow = self._in_planes(self.B_proj(u))
        scores = self._scores(u)
        route, maps = scores.argmax(-1).to(torch.int16), argmax_maps(self.dictionary)
        # NaN where scores overflow: the largest of two infinities is not known.
        decay = decay + 0 * primal(scores).detach().amax(-1)[..., None, None]
        surrogate = self.surrogate
        # No surrogate changes a value: without a graph there is nothing to add.
        if surrogate is not None and torch.is_grad_enabled() and not isinstance(x, Dual):
            chosen = surrogate, scores, self.dictionary, route, maps
            if surrogate.kind == "activated":
                decay = activated(decay, *chosen)
            else:
                inflow = straight_through(inflow, decay, state, *chosen, self.kernels)
        states, state = self.kernels.pd_scan(decay, inflow, state, route=route, maps=maps)
        C = self._in_planes(self.C_proj(reading))
        read = (C[..., 0, :] * states[..., 0, :] - C[..., 1, :] * states[..., 1, :]).flatten(-2)
        y = (self.state_out(read) + self.D * u) * F.silu(z)
        return x + self.out_proj(y), (tail, state)

    def margin(
        self, x: Float[Tensor, "batch tile d_model"], carry: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "batch tile"]:
        """Return how far the chosen map's probability is over the next one's, least of heads."""
        if self.config.n_maps == 1:
            return x.new_ones(x.shape[:2])
        u, _, _ = self._entered(x, carry[0])
        first, second = torch.softmax(self._scores(u), -1).topk(2, -1).values.unbind(-1)
        return (first - second).amin(-1)

    def _entered(self, x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed = self.norm(x)
        u, z = (self.kernels.linear(normed, half) for half in self.in_proj.weight.chunk(2))
        u, tail = self.kernels.conv_silu(u, self.conv.weight, self.conv.bias, tail)
        return u, z, tail

    def _scores(self, u: Tensor) -> Tensor:
        return self.router(u).unflatten(-1, (self.config.heads, self.config.n_maps))

    def _by_head(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.config.heads, self.config.d_state))

    def _in_planes(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.config.heads, 2, self.config.d_state))


def with_surrogate(stack: Stack, surrogate: Surrogate) -> Stack:
    """Return the stack as it is differentiated in training.

    Parameters
    ----------
    stack
        Any causal stack; it is left unchanged, and keeps the derivatives of the deployed function.
    surrogate
        The gradient estimator that all PD-SSM blocks of the returned stack use; read at every
        forward pass, so that its temperature may be changed between two of them.

    Returns
    -------
    Stack
        One on the same modules and parameters, apart from the PD-SSM blocks, which are copies that
        share their parameters with the originals. Values are the same; derivatives, with respect
        to inputs too, are estimates.
    """
    blocks = [copy.copy(block) for block in stack.layers]
    for block in blocks:
        if isinstance(block, PdSsm):
            block.surrogate = surrogate
    return Stack(stack.embed, blocks, stack.norm, stack.head)
