"""One run: train a model on new sequences of a task, test the weights that are best on validation."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from benchmarks.learning import HELD_OUT, UNKNOWN, BestWeights, cosine_rate, outputs, share_right, train_step
from benchmarks.mechanistic.tasks import TASKS, Size
from benchmarks.recurrent import Kind, block, block_of_states, closest_width, n_weights, surrogate
from genoscan.errors import InputError
from genoscan.layers.linear import Linear
from genoscan.layers.norm import NormConfig, build_norm
from genoscan.layers.pd_ssm import with_surrogate
from genoscan.layers.weights import assemble
from genoscan.ops.dispatch import choose
from genoscan.training.optimizer import adamw

_ENCODING = 64
"""Numbers from which a compressed sequence is recovered, in all models."""

_EPS, _WIDTHS = 1e-5, range(8, 257)


@dataclass(frozen=True)
class Run:
    """Settings that determine a run, bit for bit on one machine.

    length, vocabulary, noise  size of the task
    weights    number of weights, which the width is chosen for
    width      width, instead of the one chosen for the weights
    states     states per block that have a decay of their own, instead of those of `recurrent.block`
    steps      updates, fewer if all of validation is right before
    tokens     tokens of an update, divided by `length` into sequences
    rate       highest learning rate
    every      updates between two accuracies on validation
    sequences  numbers of sequences for validation and test
    """

    task: str
    kind: Kind
    seed: int
    length: int
    vocabulary: int
    noise: float
    weights: int = 140_000
    width: int | None = None
    states: int | None = None
    n_layers: int = 2
    steps: int = 1_800
    tokens: int = 4_096
    rate: float = 2e-3
    every: int = 100
    sequences: tuple[int, int] = (128, 1_024)

    @property
    def size(self) -> Size:
        """Size of the task."""
        return Size(self.length, self.vocabulary, self.noise)


@dataclass
class Learnt:
    """Results of a run.

    curve    (step, mean loss since the previous entry, accuracy on validation)
    test     accuracy of the weights that are best on validation
    failure  why training ended early; empty if it did not
    """

    curve: list[tuple[int, float, float]]
    test: float
    weights: int
    width: int
    seconds: float
    failure: str


class Mixer(nn.Module):
    """A stack with an answer at every token, or for all from the output at the last one."""

    def __init__(self, run: Run, width: int) -> None:
        super().__init__()
        task = TASKS[run.task]
        self.width = width
        self.n_tokens = task.n_tokens(run.size)
        kernels = choose("cpu")
        n_outputs = _ENCODING if task.pooled else self.n_tokens
        mixer = block_of_states(run.kind, width, run.states) if run.states else block(run.kind, width)
        self.stack = assemble([mixer] * run.n_layers, width, self.n_tokens, n_outputs, eps=_EPS, kernels=kernels)
        self.decoder = _decoder(self.n_tokens) if task.pooled else None
        self.surrogate = surrogate(run.kind)

    def forward(self, tokens: Int64[Tensor, "sequences length"]) -> Float[Tensor, "sequences length tokens"]:
        """Return the logits of every token at every position; in training with surrogate gradients."""
        stack = with_surrogate(self.stack, self.surrogate) if self.surrogate and self.training else self.stack
        found = outputs(stack, tokens, self.n_tokens)
        if self.decoder is None:
            return found
        decoded: Tensor = self.decoder(found[:, -1:] + _positions(tokens.shape[1]))
        return decoded


def _decoder(n_tokens: int) -> nn.Module:
    """Return the decoder of the authors' autoencoder: two linear maps with GELU, each after a norm, and a read-out."""
    kernels = choose("cpu")

    def norm() -> nn.Module:
        return build_norm(NormConfig(eps=_EPS), _ENCODING, kernels)

    def linear(n_out: int) -> Linear:
        return Linear(_ENCODING, n_out, kernels=kernels)

    return nn.Sequential(
        norm(), linear(_ENCODING), nn.GELU(), norm(), linear(_ENCODING), nn.GELU(), norm(), linear(n_tokens)
    )


def _positions(length: int) -> Float[Tensor, "length encoding"]:
    """Return sines and cosines of the position at geometric frequencies, 1 to 1/10,000."""
    half = _ENCODING // 2
    frequency = torch.exp(-math.log(10_000) * torch.arange(half) / (half - 1))
    angle = torch.arange(length)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)


def width_of(run: Run) -> int:
    """Return the given width, or the one with the number of weights closest to `run.weights`."""
    return run.width or closest_width(lambda width: Mixer(run, width), run.weights, _WIDTHS)


def build(run: Run) -> Mixer:
    """Return the model with seeded weights."""
    width = width_of(run)
    torch.manual_seed(run.seed)
    return Mixer(run, width)


def learn(run: Run) -> Learnt:
    """Train until no weights could be better on validation, and test those that are best on it."""
    task, started, failure = TASKS[run.task], time.process_time(), ""
    model = build(run)
    optimizer, weights = adamw(model, rate=run.rate, decay=0.01), list(model.parameters())
    random, best, losses = np.random.default_rng(run.seed), BestWeights(model), []
    n = max(1, run.tokens // run.length)
    best.offer(accuracy(model, run, "validation", run.sequences[0]))
    curve = [(0, math.nan, best.score)]
    for step in range(1, run.steps + 1):
        tokens, labels = map(torch.from_numpy, task.sample(random, n, run.size))
        try:
            rate = cosine_rate(run.rate, step, run.steps)
            losses.append(train_step(model, optimizer, weights, tokens, labels, rate=rate))
        except InputError as error:  # a gradient that is not finite
            failure = f"step {step}: {error}"
            break
        if step % run.every == 0 or step == run.steps:
            share = accuracy(model, run, "validation", run.sequences[0])
            curve.append((step, float(np.mean(losses)), share))
            losses = []
            best.offer(share)
            if best.score == 1:
                break
    best.restore()
    test = accuracy(model, run, "test", run.sequences[1])
    return Learnt(curve, test, n_weights(model), model.width, time.process_time() - started, failure)


def accuracy_without_memory(run: Run) -> float:
    """Return the accuracy on the test set that needs no memory of what belongs together.

    It is that of guessing, or of the most frequent answer so far, if this is better.
    """
    task = TASKS[run.task]
    tokens, labels = task.held_out(np.random.default_rng(HELD_OUT["test"]), run.sequences[1], run.size)
    asked = labels != UNKNOWN
    return max(task.chance(run.size), float((task.most_frequent(tokens, run.size) == labels)[asked].mean()))


@torch.no_grad()
def accuracy(model: Mixer, run: Run, split: str, n_sequences: int) -> float:
    """Return the accuracy over all scored positions of held-out sequences."""
    model.eval()
    tokens, labels = TASKS[run.task].held_out(np.random.default_rng(HELD_OUT[split]), n_sequences, run.size)
    answers = torch.cat([model(part) for part in torch.from_numpy(tokens).split(64)])
    model.train()
    return share_right(answers, torch.from_numpy(labels))
