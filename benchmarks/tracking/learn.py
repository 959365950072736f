"""One run: train a model on short sequences of a task, test it on long ones."""

import math
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.learning import HELD_OUT, BestWeights, cosine_rate, loss, outputs, share_right
from benchmarks.recurrent import block, n_weights, width_of_equal_weights
from benchmarks.tracking.tasks import TASKS, Task
from genoscan.errors import InputError
from genoscan.layers.pd_ssm import PdSsm, PdSsmConfig, fill_with_maps, with_surrogate
from genoscan.layers.stack import Stack
from genoscan.layers.surrogate import Surrogate
from genoscan.layers.weights import assemble
from genoscan.ops.dispatch import choose
from genoscan.training.optimizer import adamw, update

_SIZES = 16
"""Number of lengths in a held-out set, evenly spaced."""

_WIDTHS = range(8, 513)
_TILE = 512
_EPS = 1e-5
_SURE, _MEMORY = 0.97, 0.95
"""Accuracy above which sequences grow longer, and decay per step of its moving average."""


@dataclass(frozen=True)
class Run:
    """Settings that determine a run, bit for bit on one machine.

    kind               pd_ssm: PD-SSM blocks, fully trained; maps_only: only maps, router and read-out
                       are trained, and states are only moved; mamba
    writes             the first PD-SSM block is fully trained in either kind and reads two symbols
                       at once, to store what has to be forgotten later
    width              width of PD-SSM; that of Mamba is the one with the closest number of weights
    shortest, longest  lengths of training sequences, which grow as shorter ones are learnt
    held_out           lengths in validation and test sets
    very_long          length of an additional test set
    sequences          numbers of sequences for validation, test, and of very long ones
    """

    task: str
    kind: Literal["maps_only", "pd_ssm", "mamba"]
    seed: int
    n_layers: int = 1
    writes: bool = False
    width: int = 64
    heads: int = 8
    d_state: int = 8
    n_maps: int = 8
    steps: int = 3_000
    batch: int = 128
    rate: float = 2e-3
    shortest: int = 3
    longest: int = 40
    held_out: tuple[int, int] = (40, 256)
    very_long: int = 4_096
    sequences: tuple[int, int, int] = (512, 2_048, 64)
    every: int = 500
    enough: float = 0.9995


@dataclass
class Learnt:
    """Results of a run.

    curve  (steps, mean loss since the previous entry, longest sequences, accuracy on validation)
    test, very_long  accuracies of the weights that are best on validation
    failure  why training ended early; empty if it did not
    """

    curve: list[tuple[int, float, int, float]]
    test: float
    very_long: float
    weights: int
    width: int
    seconds: float
    failure: str


def learn(run: Run) -> Learnt:
    """Train, and test the weights that are best on validation."""
    task, started, failure = TASKS[run.task], time.process_time(), ""
    stack = build(run, task)
    trained = with_surrogate(stack, Surrogate("straight_through"))
    optimiser = adamw(stack, rate=run.rate, decay=0.01)
    weights = [weight for weight in stack.parameters() if weight.requires_grad]
    random, longest, sure = np.random.default_rng(run.seed), run.shortest + 1, 0.0
    best, losses = BestWeights(stack), []
    best.offer(accuracy(stack, task, "validation", run.held_out, run.sequences[0]))
    curve = [(0, math.nan, longest, best.score)]
    for step in range(1, run.steps + 1):
        length = int(random.integers(run.shortest, longest + 1))
        tokens, labels = map(torch.from_numpy, task.sample(random, run.batch, length))
        answers = outputs(trained, tokens, task.n_tokens)
        value = loss(answers, labels)
        rate = cosine_rate(run.rate, step, run.steps)
        try:
            update(optimiser, weights, torch.autograd.grad(value, weights), rate=rate, clip=1.0)
        except InputError as error:  # a gradient that is not finite
            failure = f"step {step}: {error}"
            break
        losses.append(float(value.detach()))
        sure = _MEMORY * sure + (1 - _MEMORY) * share_right(answers, labels)
        if sure > _SURE and longest < run.longest:
            longest, sure = longest + 1, 0.5
        if step % run.every == 0 or step == run.steps:
            share = accuracy(stack, task, "validation", run.held_out, run.sequences[0])
            curve.append((step, sum(losses) / len(losses), longest, share))
            losses = []
            best.offer(share)
            if share >= run.enough:
                break
    best.restore()
    lengths = run.very_long, run.very_long
    return Learnt(
        curve,
        accuracy(stack, task, "test", run.held_out, run.sequences[1]),
        accuracy(stack, task, "test", lengths, run.sequences[2]),
        n_weights(stack),
        width_of(run, task),
        time.process_time() - started,
        failure,
    )


def width_of(run: Run, task: Task) -> int:
    """Return the width of PD-SSM, or for Mamba the one with the number of weights closest to PD-SSM's."""
    if run.kind != "mamba":
        return run.width
    return width_of_equal_weights(lambda width: _mamba(run, task, width), lambda: _pd_ssm(run, task), _WIDTHS)


def build(run: Run, task: Task) -> Stack:
    """Return the model with seeded weights."""
    width = width_of(run, task)
    torch.manual_seed(run.seed)
    if run.kind == "mamba":
        return _mamba(run, task, width)
    stack = _pd_ssm(run, task)
    for i, layer in enumerate(stack.layers):
        if isinstance(layer, PdSsm) and run.kind == "maps_only" and not (run.writes and i == 0):
            _hold(layer)
    return stack


def _mamba(run: Run, task: Task, width: int) -> Stack:
    blocks = [block("mamba", width)] * run.n_layers
    return assemble(blocks, width, task.n_tokens, task.n_labels, eps=_EPS, kernels=choose("cpu"))


def _pd_ssm(run: Run, task: Task) -> Stack:
    rank = -(-run.width // 16)
    block = PdSsmConfig(heads=run.heads, d_state=run.d_state, n_maps=run.n_maps, d_conv=1, rank=rank, coupled=True)
    blocks = [block] * run.n_layers
    if run.writes:
        blocks[0] = block.model_copy(update={"d_conv": 2, "n_maps": 2 * run.n_maps})
    return assemble(blocks, run.width, task.n_tokens, task.n_labels, eps=_EPS, kernels=choose("cpu"))


def _hold(block: PdSsm) -> None:
    """Freeze the block so that states get no input and are neither scaled nor rotated.

    When trained, these are used to count, which only works up to the training lengths. Heads whose maps are all the
    identity would only serve to store inputs, of which there are none.
    """
    for part in (block.B_proj, block.size, block.phase, block.conv):
        for weight in part.parameters():
            nn.init.zeros_(weight).requires_grad_(False)
    nn.init.constant_(block.size.bias, -200.0)  # its softplus is 0 up to rounding
    nn.init.ones_(block.conv.weight)  # one tap: the identity
    for maps in block.dictionary:
        fill_with_maps(maps, len(maps) // 2)


@torch.no_grad()
def accuracy(stack: Stack, task: Task, split: str, lengths: tuple[int, int], n_sequences: int) -> float:
    """Return the accuracy at the ends of sequences, lengths evenly spaced between two."""
    random = np.random.default_rng(HELD_OUT[split])
    sizes = np.linspace(*lengths, min(_SIZES, lengths[1] - lengths[0] + 1)).round().astype(int)
    shares = []
    for length in sizes:
        n = max(1, n_sequences // len(sizes))
        tokens, labels = map(torch.from_numpy, task.sample(random, n, int(length)))
        shares.append(share_right(last_outputs(stack, tokens, task.n_tokens), labels[:, -1:]))
    return float(np.mean(shares))


def last_outputs(stack: Stack, tokens: Tensor, n_tokens: int) -> Tensor:
    """Return the outputs at the last token, of shape (sequences, 1, outputs), in the memory of one tile."""
    carry = stack.begin(len(tokens))
    for part in tokens.split(_TILE, 1):
        found, carry = stack(F.one_hot(part, n_tokens).float(), carry)
    return found[:, -1:]
