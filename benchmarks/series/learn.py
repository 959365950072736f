"""Train a classifier of the mean of a model's outputs over all steps, in flat memory.

The loss is a function of a mean: its derivative is the same for the outputs of every step and known
after one forward pass; the engine propagates it back tile by tile.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from benchmarks.learning import BestWeights
from benchmarks.recurrent import block, n_weights, width_of_equal_weights
from benchmarks.series.data import Series
from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.forward import forward
from genoscan.engine.inputs import Dense
from genoscan.engine.target import WeightedSum
from genoscan.errors import InputError
from genoscan.layers.pd_ssm import PdSsm, PdSsmConfig, with_surrogate
from genoscan.layers.stack import Stack
from genoscan.layers.surrogate import Surrogate
from genoscan.layers.weights import assemble
from genoscan.ops.dispatch import choose
from genoscan.training.optimizer import adamw, update

TILE, SLOTS = 512, 16
_WIDTHS = range(4, 513)
_MOST, _SHORT = 16, 16_384
"""Series per update at most, and their total steps up to which they are more than `batch`."""
KNOWN = 0.05
"""Mean loss below which a length is learnt."""

Change = Literal["", "coupling", "kept maps", "zero phases", "log-uniform steps", "step weights", "activated"]
"""A property of PD-SSM's block or training that a run is without."""

Draw = Callable[[np.random.Generator, int, int], Series]
"""(generator, number, length) -> training series."""


@dataclass(frozen=True)
class Run:
    """Settings that determine a run, bit for bit on one machine.

    lengths  lengths of the training series, in order, each once the one before is learnt; empty: full length
    steps    maximum of updates at a length
    batch    series per update; more of short ones
    width    width of PD-SSM; that of Mamba is the one with the closest number of weights
    rate     learning rate at the first length, which is halved at each longer one
    without  property that is replaced: inflow and phases that do not depend on the step size; permutations
             instead of identity maps; uniform initial phases; initial step sizes uniform up to 0.1; their initial
             weights not enlarged; the straight-through estimator
    """

    kind: Literal["pd_ssm", "mamba"]
    seed: int
    width: int = 32
    n_layers: int = 2
    d_state: int = 64
    lengths: tuple[int, ...] = ()
    steps: int = 400
    batch: int = 4
    rate: float = 4e-3
    every: int = 25
    without: Change = ""

    @property
    def surrogate(self) -> Surrogate:
        """The estimator of PD-SSM's selections."""
        return Surrogate("straight_through" if self.without == "activated" else "activated")


@dataclass
class Learnt:
    """Results of a run.

    curve    (updates, length of series, mean of the last losses, accuracy on validation)
    test     accuracy of the weights that are best on validation
    failure  why training ended early; empty if it did not
    """

    curve: list[tuple[int, int, float, float]] = field(default_factory=list)
    test: float = 0.0
    weights: int = 0
    failure: str = ""


def build(run: Run, channels: int, n_classes: int) -> Stack:
    """Return the model with seeded weights."""
    if run.kind == "mamba":
        width = width_of_equal_weights(
            lambda width: _mamba(run, channels, n_classes, width), lambda: _pd_ssm(run, channels, n_classes), _WIDTHS
        )
        torch.manual_seed(run.seed)
        return _mamba(run, channels, n_classes, width)
    torch.manual_seed(run.seed)
    stack = _pd_ssm(run, channels, n_classes)
    for layer in stack.layers:
        if isinstance(layer, PdSsm):
            _replace(layer, run.without)
    return stack


def _mamba(run: Run, channels: int, n_classes: int, width: int) -> Stack:
    blocks = [block("mamba", width)] * run.n_layers
    return assemble(blocks, width, channels, n_classes, eps=1e-5, kernels=choose("cpu"))


def _pd_ssm(run: Run, channels: int, n_classes: int) -> Stack:
    coupled, rank = run.without != "coupling", -(-run.width // 16)
    block = PdSsmConfig(heads=1, d_state=run.d_state, n_maps=8, d_conv=4, rank=rank, coupled=coupled)
    return assemble([block] * run.n_layers, run.width, channels, n_classes, eps=1e-5, kernels=choose("cpu"))


@torch.no_grad()
def _replace(layer: PdSsm, without: Change) -> None:
    """Initialise a property of a block in another way."""
    if without == "kept maps":
        n_kept, n_states = layer.config.n_maps // 2, layer.config.d_state
        kept = layer.dictionary[:, :n_kept]
        kept.copy_(torch.stack([one[torch.randperm(n_states)] for one in kept.flatten(0, 1)]).view_as(kept))
    elif without == "zero phases":
        layer.phase.reset_parameters()
        layer.phase.bias.uniform_(-math.pi, math.pi)
    elif without == "log-uniform steps":
        layer.size.bias.uniform_(1e-4, 0.1).expm1_().log_()
    elif without == "step weights":
        bound = layer.config.rank**-0.5  # as in nn.Linear
        layer.size.weight.uniform_(-bound, bound)


def means(stack: Stack, x: Float[Tensor, "batch length channels"]) -> Float[Tensor, "batch classes"]:
    """Return the mean of the outputs over all steps, in the memory of one tile."""
    sums: Any = 0
    for _, outputs in forward(stack, Dense(x), tile=TILE):
        sums = sums + outputs.sum(1)
    return sums / x.shape[1]


def derivatives(
    stack: Stack, x: Float[Tensor, "batch length channels"], labels: Int64[Tensor, " batch"]
) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the mean cross-entropy, and its derivative with respect to every parameter.

    Exact: equal to whole-series autograd to rounding.  Memory: one tile's activations and 16
    carries.
    """
    found = means(stack, x).requires_grad_()
    loss = F.cross_entropy(found, labels)
    (found_bar,) = torch.autograd.grad(loss, found)
    weights = list(stack.parameters())
    everywhere = (found_bar / x.shape[1])[:, None].expand(-1, x.shape[1], -1)
    pull = adjoint(stack, Dense(x), WeightedSum(everywhere), tile=TILE, slots=SLOTS, parameters=weights)
    return loss.detach(), consume(pull).parameters


def accuracy(stack: Stack, series: Series) -> float:
    """Return the share of series classified correctly."""
    right = [
        int(means(stack, torch.from_numpy(x)[None]).argmax()) == label
        for x, label in zip(series.x, series.labels, strict=True)
    ]
    return float(np.mean(right))


def learn(run: Run, draw: Draw, validation: Series, test: Series) -> Learnt:
    """Train with Adam, and test the weights that are best on validation."""
    full, classes = validation.x.shape[1], len(validation.classes)
    stack = build(run, validation.x.shape[2], classes)
    trained = with_surrogate(stack, run.surrogate)
    optimiser = adamw(stack, rate=run.rate, decay=0.0)  # which is Adam
    random, learnt, step = np.random.default_rng(run.seed), Learnt(), 0
    best = BestWeights(stack)
    learnt.weights = n_weights(stack)
    for i, length in enumerate(run.lengths or (full,)):
        losses: list[float] = []
        for last in range(1, run.steps + 1):
            series = draw(random, max(run.batch, min(_MOST, _SHORT // length)), length)
            try:
                losses.append(_update(trained, optimiser, series, run.rate / 2**i))
                step += 1
            except InputError as error:  # a gradient that is not finite
                learnt.failure = f"step {step + 1}: {error}"
            loss = float(np.mean(losses[-run.every :])) if losses else math.nan
            known = last >= run.every and loss < KNOWN and not learnt.failure
            ended = known or last == run.steps or bool(learnt.failure)
            if ended or (length == full and last % run.every == 0):
                share = accuracy(stack, validation)
                learnt.curve.append((step, length, loss, share))
                best.offer(share)
            if ended:
                break
        if not known:
            break
    best.restore()
    learnt.test = accuracy(stack, test)
    return learnt


def _update(stack: Stack, optimiser: torch.optim.Optimizer, series: Series, rate: float) -> float:
    """Update the weights once; return the loss before."""
    loss, bars = derivatives(stack, torch.from_numpy(series.x), torch.from_numpy(series.labels))
    update(optimiser, list(stack.parameters()), bars, rate=rate, clip=1.0)
    return float(loss)
