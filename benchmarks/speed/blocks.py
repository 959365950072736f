"""The adjoint of one block of each kind, with its defaults and seeded weights.

The derivative of a weighted sum of a block's outputs with respect to every element of its input,
which is noise, as long as the codes passed to it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.paper.layers import SEED, noise
from benchmarks.speed.settings import Settings
from benchmarks.speed.windows import Codes
from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.inputs import Dense
from genoscan.engine.target import WeightedSum
from genoscan.layers.mamba import Mamba, MambaConfig
from genoscan.layers.norm import NormConfig
from genoscan.layers.pd_ssm import PdSsm, PdSsmConfig
from genoscan.model import Model
from genoscan.ops.dispatch import choose

CHANNELS = 128
_RANK = CHANNELS // 16

Run = Callable[[], Tensor]


def block(kind: str, *, device: str = "cpu", kernels: str = "auto") -> Mamba | PdSsm:
    """Return a frozen block."""
    shared: dict[str, Any] = {"norm": NormConfig(), "kernels": choose(device, kernels)}
    made: Mamba | PdSsm
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        if kind == "mamba":
            made = Mamba(MambaConfig(d_conv=4, dt_rank=_RANK), CHANNELS, **shared)
        else:
            made = PdSsm(PdSsmConfig(d_conv=4, rank=_RANK, coupled=True), CHANNELS, **shared)
    return made.to(device).requires_grad_(False)


def multiply_adds(kind: str) -> int:
    """Return the multiply-adds per base of a forward pass: matrices, convolution and scan.

    A Mamba state takes four (step times A, decay, input, output; its exponential is not counted),
    a complex PD-SSM state six (decay, output).
    """
    made = block(kind)
    linear = sum(part.weight.numel() for part in made.modules() if isinstance(part, nn.Linear))
    filters = made.conv.weight.numel()
    scan = 6 * made.start[:, 0].numel() if isinstance(made, PdSsm) else 4 * made.A_log.numel()
    return linear + filters + scan


def block_adjoint(kind: str) -> Callable[[Model, Settings], Callable[[Codes], Run]]:
    """Return a builder of the derivative with respect to every input, by the engine."""

    def build(_model: Model, settings: Settings) -> Callable[[Codes], Run]:
        made = block(kind, device=settings.device, kernels=settings.kernels)

        def prepare(codes: Codes) -> Run:
            both = noise(codes.shape[1], CHANNELS, device=settings.device)
            x, y_bar = (part[None] for part in both)
            slots = settings.slots_for(x.shape[1])

            def run() -> Tensor:
                x_bar = torch.empty_like(x)

                def receive(span: slice, bar: Tensor) -> None:
                    x_bar[:, span] = bar

                pull = adjoint(made, Dense(x), WeightedSum(y_bar), tile=settings.tile, slots=slots)
                consume(pull, receive)
                return x_bar[0]

            return run

        return prepare

    return build


def block_adjoint_truth(kind: str, length: int) -> Tensor:
    """Return the same by float64 autograd through the reference kernels, over all steps at once."""
    made = block(kind, kernels="reference").double()
    x, y_bar = (part[None].double() for part in noise(length, CHANNELS))
    x.requires_grad_()
    y, _ = made(x, made.begin(1))
    return torch.autograd.grad((y * y_bar).sum(), x)[0][0]
