"""The log-likelihood of one window and its derivative, by our engine and by torch's autograd.

Every builder takes a model and settings, and returns a function from codes to the timed function.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.speed.settings import Settings
from genoscan.engine import forward as sweep
from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.inputs import OneHot
from genoscan.engine.tangent import DenseDirections, tangent
from genoscan.engine.target import Target, whole_window
from genoscan.model import Model

Codes = UInt8[Tensor, "one length"]
Prepare = Callable[[Codes], Callable[[], Tensor]]


def question(model: Model, codes: Codes) -> tuple[OneHot, Target]:
    """Return the inputs, and the target: the sum of all bases' log-likelihoods."""
    return OneHot(codes, model.table()), whole_window(codes, model.columns(), model.config.label_offset)


def engine(model: Model, settings: Settings) -> Prepare:
    """Build the derivative by the adjoint engine, tile by tile, returned in host memory."""

    def prepare(codes: Codes) -> Callable[[], Tensor]:
        inputs, target = question(model, codes)
        slots = settings.slots_for(inputs.length)

        def run() -> Tensor:
            gradient = torch.empty(inputs.length, inputs.table.shape[1])

            def receive(span: slice, x_bar: Tensor) -> None:
                gradient[span] = x_bar[0]

            pull = adjoint(model.causal, inputs, target, tile=settings.tile, slots=slots)
            consume(pull, receive)
            return gradient

        return run

    return prepare


def forward(model: Model, settings: Settings) -> Prepare:
    """Build the log-likelihood alone, tile by tile, in stages like the engine's other sweeps."""

    def prepare(codes: Codes) -> Callable[[], Tensor]:
        inputs, target = question(model, codes)

        def run() -> Tensor:
            value = torch.zeros(1, dtype=torch.float64, device=settings.device)
            for span, outputs in sweep.forward(model.causal, inputs, tile=settings.tile):
                value += target(outputs, span)
            return value.cpu()

        return run

    return prepare


def tangents(count: int) -> Callable[[Model, Settings], Prepare]:
    """Return a builder of the log-likelihood's slopes along `count` directions, in one sweep."""

    def build(model: Model, settings: Settings) -> Prepare:
        def prepare(codes: Codes) -> Callable[[], Tensor]:
            inputs, target = question(model, codes)
            x_dot = random_directions(count, inputs)
            directions = DenseDirections(x_dot[:, None])

            def run() -> Tensor:
                slopes = x_dot.new_zeros(count)
                for span, outputs, outputs_dot in tangent(model.causal, inputs, directions, tile=settings.tile):
                    slopes += _slopes(target, span, outputs, outputs_dot)
                return slopes

            return run

        return prepare

    return build


def random_directions(count: int, inputs: OneHot) -> Float[Tensor, "directions length symbols"]:
    """Return seeded random directions in input space, the same in every process."""
    random = np.random.default_rng(1)
    shape = (count, inputs.length, inputs.table.shape[1])
    return torch.from_numpy(random.standard_normal(shape, np.float32)).to(inputs.table)


def _slopes(target: Target, span: slice, outputs: Tensor, outputs_dot: Tensor) -> Float[Tensor, " directions"]:
    outputs = outputs.detach().requires_grad_()
    (outputs_bar,) = torch.autograd.grad(target(outputs, span).sum(), outputs)
    return (outputs_dot * outputs_bar).flatten(1).sum(1)


def by_autograd(model: Model, logits: Callable[[Tensor], Tensor]) -> Prepare:
    """Build the derivative by torch's autograd over the whole window at once, through `logits`."""

    def prepare(codes: Codes) -> Callable[[], Tensor]:
        inputs, target = question(model, codes)
        span = slice(0, inputs.length)

        def run() -> Tensor:
            x = inputs.tile(span).requires_grad_()
            (gradient,) = torch.autograd.grad(target(logits(x), span).sum(), x)
            return gradient[0].cpu()

        return run

    return prepare


def whole(model: Model, settings: Settings) -> Prepare:
    """Build autograd through our own layers and kernels, keeping all activations."""
    return by_autograd(model, lambda x: model.causal(x, model.causal.begin(1))[0])


def checkpointed(model: Model, settings: Settings) -> Prepare:
    """Build the same with each block recomputed in the backward pass: the fair baseline.

    Memory: every block's input over the whole window, and one block's activations.
    """
    stack = model.causal

    def logits(x: Tensor) -> Tensor:
        x = stack.embed(x)
        for block, before in zip(stack.layers, stack.begin(1), strict=True):
            # Blocks are deterministic: the generators' states need not be saved.
            x, _ = checkpoint(block, x, before, use_reentrant=False, preserve_rng_state=False)
        return stack.outputs(stack.norm(x))

    return by_autograd(model, logits)
