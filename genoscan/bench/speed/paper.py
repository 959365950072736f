"""One layer of the Phase Gradient Flow paper's size (arXiv 2512.23068): theirs and ours.

Theirs is written anew from the description of their published operator: one tangent direction,
pushed through tiles of 64 steps by torch.func.jvp, the recurrence inside a tile by cumulative
sums of logarithms, a learnt state before the first step.  Its two epsilons are theirs.  Left out
is what only slows it: weights that ask for derivatives, and graphs that nobody pulls.

Ours is one Mamba block of as many channels and states, which has a norm, a convolution, a gate
and two more projections besides; it gives the derivative of a sum over all outputs with respect
to every number of the input, where theirs gives one direction's.

Inputs are the paper's own, 0.1 x normal noise; lengths come from the bases that are asked for.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from genoscan.bench.speed.settings import Settings
from genoscan.bench.speed.windows import Codes
from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.inputs import Dense
from genoscan.engine.target import WeightedSum
from genoscan.layers.mamba import Mamba, MambaConfig
from genoscan.layers.weights import Model, ModelConfig, build

CHANNELS, STATES = 256, 16
_TILE, _WINDOW = 64, 3
_SEED = 1

Run = Callable[[], Tensor]

_jvp: Callable[..., Any] = torch.func.jvp  # (outputs, their tangents)


class PaperLayer:
    """Their layer: state and step are functions of the input, decays shared by all channels."""

    def __init__(self, device: str, dtype: torch.dtype = torch.float32) -> None:
        random = torch.Generator().manual_seed(_SEED)

        def linear(inside: int, outside: int) -> tuple[Tensor, Tensor]:
            bound = inside**-0.5
            shapes = ((outside, inside), (outside,))
            weight, bias = (
                (2 * torch.rand(shape, generator=random, dtype=torch.float64) - 1) * bound
                for shape in shapes
            )
            return weight.to(device, dtype), bias.to(device, dtype)

        noise = torch.randn(STATES, generator=random, dtype=torch.float64)
        self.a = (-1 + 0.1 * noise).to(device, dtype)
        self.step, self.b, self.c = (linear(CHANNELS, n) for n in (CHANNELS, STATES, STATES))
        self.begin = linear(_WINDOW * CHANNELS, CHANNELS * STATES)
        self.skip = torch.ones(CHANNELS, device=device, dtype=dtype)
        self.scale = 2.0

    def first_state(self, head: Float[Tensor, "window channels"]) -> Tensor:
        """Return the state before the first step, from the first three inputs."""
        return F.linear(head.flatten(), *self.begin).view(CHANNELS, STATES)

    def inflow(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decays and what enters the state: (steps, channels, states) both."""
        z = F.softplus(F.linear(u, *self.step))[..., None] * self.a
        factor = torch.expm1(z) / (z + 1e-9)
        return torch.exp(z), factor * F.linear(u, *self.b)[:, None, :] * u[..., None]

    def outputs(self, states: Tensor, u: Tensor) -> Tensor:
        """Return y from the states after every step."""
        read = (states * F.linear(u, *self.c)[:, None, :]).sum(-1) + self.skip * u
        return F.softplus(read) * self.scale

    def tile(self, state: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Run one tile by their cumulative sums; return the state at its end, and y."""
        decay, inflow = self.inflow(u)
        logs = torch.cumsum(torch.log(decay + 1e-12), 0)
        top = logs.amax(0)
        inside = torch.cumsum(inflow * torch.exp(top - logs), 0)
        states = torch.exp(logs) * state + torch.exp(logs - top) * inside
        return states[-1], self.outputs(states, u)

    def step_by_step(self, u: Tensor) -> Tensor:
        """Return y by the definition: the truth for `tile`."""
        state, states = self.first_state(u[:_WINDOW]), []
        for decay, inflow in zip(*(part.unbind(0) for part in self.inflow(u)), strict=True):
            state = decay * state + inflow
            states.append(state)
        return self.outputs(torch.stack(states), u)


def tile_scan(model: Model, settings: Settings) -> Callable[[Codes], Run]:
    """Their tangent along one direction: y's, at every step."""
    layer = PaperLayer(settings.device)

    def prepare(codes: Codes) -> Run:
        u, u_dot = noise(codes.shape[1], settings.device)

        @torch.no_grad()
        def run() -> Tensor:
            heads = (u[:_WINDOW],), (u_dot[:_WINDOW],)
            state, state_dot = _jvp(layer.first_state, *heads)
            y_dot = torch.empty_like(u)
            for start in range(0, len(u), _TILE):
                span = slice(start, start + _TILE)
                (state, _), (state_dot, y_dot[span]) = _jvp(
                    layer.tile, (state, u[span]), (state_dot, u_dot[span])
                )
            return y_dot

        return run

    return prepare


def noise(length: int, device: str) -> tuple[Tensor, Tensor]:
    """Return their input, and a direction of unit length."""
    random = torch.Generator().manual_seed(_SEED)
    u, u_dot = torch.randn(2, length, CHANNELS, generator=random).to(device)
    return 0.1 * u, u_dot / u_dot.norm()


def tile_scan_truth(length: int) -> Tensor:
    """Return what `tile_scan` ought to give, by the definition in float64."""
    layer = PaperLayer("cpu", torch.float64)
    u, u_dot = (part.double() for part in noise(length, "cpu"))
    y_dot: Tensor = _jvp(layer.step_by_step, (u,), (u_dot,))[1]
    return y_dot


def block(device: str, kernels: str = "auto") -> Mamba:
    """Return our one block: 256 channels of 16 states, seeded weights."""
    config = ModelConfig(
        d_model=CHANNELS,
        layers=(MambaConfig(d_state=STATES, d_conv=4, expand=1, dt_rank=CHANNELS // 16),),
        context=0,
        reach=0,
        trained_on="nothing",
    )
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        stack = build(config, device=device, kernels=kernels).requires_grad_(False)
    found = stack.layers[0]
    assert isinstance(found, Mamba)
    return found


def layer_adjoint(model: Model, settings: Settings) -> Callable[[Codes], Run]:
    """Our derivative of a weighted sum of all outputs, with respect to every input."""
    layer = block(settings.device)

    def prepare(codes: Codes) -> Run:
        x, weights = (part[None] for part in noise(codes.shape[1], settings.device))
        slots = settings.slots_for(codes.shape[1])

        def run() -> Tensor:
            gradient = torch.empty_like(x[0])

            def receive(span: slice, x_bar: Tensor) -> None:
                gradient[span] = x_bar[0]

            pull = adjoint(layer, Dense(x), WeightedSum(weights), tile=settings.tile, slots=slots)
            consume(pull, receive)
            return gradient

        return run

    return prepare


def layer_adjoint_truth(length: int) -> Tensor:
    """Return what `layer_adjoint` ought to give: whole-window float64 autograd, plain torch."""
    layer = block("cpu", "reference").double()
    x, weights = (part[None].double() for part in noise(length, "cpu"))
    x.requires_grad_()
    y, _ = layer(x, layer.begin(1))
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    return gradient[0]
