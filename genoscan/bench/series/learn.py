"""Learning a class from the mean of a model's outputs over all steps, in flat memory.

The loss is a function of a mean: its derivative with respect to every step's outputs is the same
few numbers, which one pass forward gives; from there the engine pulls them back tile by tile.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from genoscan.bench.series.data import Series
from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.forward import forward
from genoscan.engine.inputs import Dense
from genoscan.engine.target import WeightedSum
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.pd_ssm import PdSsmConfig
from genoscan.layers.stack import Stack
from genoscan.layers.weights import assemble
from genoscan.ops.kernels import choose

TILE, SLOTS = 512, 16


@dataclass(frozen=True)
class Run:
    """What decides a run, bit by bit, on one machine."""

    kind: Literal["pd_ssm", "mamba"]
    seed: int
    width: int = 32
    n_layers: int = 2
    d_state: int = 64
    steps: int = 300
    batch: int = 4
    rate: float = 2e-3
    every: int = 50


@dataclass
class Learnt:
    """curve: (steps, mean loss since the last, share right on validation); test: share right."""

    curve: list[tuple[int, float, float]] = field(default_factory=list)
    test: float = 0.0
    seconds_a_step: float = 0.0


def build(run: Run, channels: int, n_classes: int) -> Stack:
    """Return the model, seeded."""
    torch.manual_seed(run.seed)
    rank = -(-run.width // 16)
    pd_ssm = PdSsmConfig(heads=1, d_state=run.d_state, n_maps=8, d_conv=4, rank=rank)
    block: Any = MambaConfig(d_conv=4, dt_rank=rank) if run.kind == "mamba" else pd_ssm
    return assemble(
        [block] * run.n_layers, run.width, channels, n_classes, eps=1e-5, kernels=choose("cpu")
    )


def means(
    stack: Stack, x: Float[Tensor, "batch length channels"]
) -> Float[Tensor, "batch classes"]:
    """Return the mean of the outputs over all steps; memory: one tile."""
    sums: Any = 0
    for _, outputs in forward(stack, Dense(x), tile=TILE):
        sums = sums + outputs.sum(1)
    return sums / x.shape[1]


def derivatives(
    stack: Stack, x: Float[Tensor, "batch length channels"], labels: Int64[Tensor, " batch"]
) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the mean cross-entropy, and its derivative with respect to every parameter.

    Exact: as whole-series autograd, to rounding.  Memory: one tile's activations and 16 carries.
    """
    found = means(stack, x).requires_grad_()
    loss = F.cross_entropy(found, labels)
    (found_bar,) = torch.autograd.grad(loss, found)
    weights = list(stack.parameters())
    everywhere = (found_bar / x.shape[1])[:, None].expand(-1, x.shape[1], -1)
    pull = adjoint(
        stack, Dense(x), WeightedSum(everywhere), tile=TILE, slots=SLOTS, parameters=weights
    )
    return loss.detach(), consume(pull).parameters


def accuracy(stack: Stack, series: Series) -> float:
    """Return the share of series whose class is found."""
    right = [
        int(means(stack, torch.from_numpy(x)[None]).argmax()) == label
        for x, label in zip(series.x, series.labels, strict=True)
    ]
    return float(np.mean(right))


def learn(run: Run, training: Series, validation: Series, test: Series) -> Learnt:
    """Train with Adam, keep the weights that do best on validation, and test those."""
    stack = build(run, training.x.shape[2], len(training.classes))
    weights = list(stack.parameters())
    optimiser = torch.optim.Adam(weights, lr=run.rate)
    random, learnt = np.random.default_rng(run.seed), Learnt()
    best, kept, losses, spent = -1.0, stack.state_dict(), [], 0.0
    for step in range(1, run.steps + 1):
        started = time.perf_counter()
        rows = random.choice(len(training), run.batch, replace=False)
        x, labels = torch.from_numpy(training.x[rows]), torch.from_numpy(training.labels[rows])
        loss, bars = derivatives(stack, x, labels)
        for weight, bar in zip(weights, bars, strict=True):
            weight.grad = bar
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        spent += time.perf_counter() - started
        losses.append(float(loss))
        if step % run.every == 0 or step == run.steps:
            share = accuracy(stack, validation)
            learnt.curve.append((step, float(np.mean(losses)), share))
            losses = []
            if share > best:
                best = share
                kept = {name: part.clone() for name, part in stack.state_dict().items()}
    stack.load_state_dict(kept)
    learnt.test, learnt.seconds_a_step = accuracy(stack, test), spent / run.steps
    return learnt
