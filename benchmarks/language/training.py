"""One run: train a model on batches that depend on the step alone; its checkpoint gives the same bits."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.language.checkpoint import Checkpoint
from benchmarks.language.model import Design, Hybrid, build
from benchmarks.learning import BestWeights, Labels, Tokens, cosine_rate, train_step
from benchmarks.recurrent import n_weights
from genoscan.errors import InputError
from genoscan.training.optimizer import adamw


@dataclass(frozen=True, kw_only=True)
class Run(Design):
    """Settings that all runs have.

    steps      updates
    sequences  sequences of an update
    rate       highest learning rate
    every      updates between two scores on validation
    decay      weight decay
    """

    seed: int
    steps: int
    sequences: int
    rate: float
    every: int
    decay: float = 0.1


@dataclass
class Learnt:
    """Results of a run.

    model    the model with the weights that are best on validation
    curve    (step, mean loss since the previous entry, score on validation)
    failure  why training ended early; empty if it did not
    """

    model: Hybrid
    curve: list[tuple[int, float, float]]
    weights: int
    width: int
    seconds: float
    failure: str


def train(
    run: Run,
    draw: Callable[[int], tuple[Tokens, Labels]],
    score: Callable[[Hybrid], float],
    checkpoint: Checkpoint,
    *,
    device: str,
) -> Learnt:
    """Train with AdamW from the checkpoint on, if there is one, and save it at the end.

    Parameters
    ----------
    draw
        Step, from 1 -> sequences and labels.
    score
        Model -> score on validation, the higher the better.
    """
    model, trained = build(run, run.seed, device=device)
    optimizer = adamw(model, rate=run.rate, decay=run.decay)
    named, best, failure = dict(model.named_parameters()), BestWeights(model), ""
    weights = list(named.values())
    done = checkpoint.load(named, optimizer, best)
    started = time.process_time() - done.seconds

    def judge() -> None:
        found = score(model)
        best.offer(found)
        done.curve.append((done.step, float(np.mean(done.losses)) if done.losses else math.nan, found))
        done.losses = []

    if not done.curve:
        judge()
    for step in range(done.step + 1, run.steps + 1):
        tokens, labels = (torch.from_numpy(part).to(device) for part in draw(step))
        try:
            rate = cosine_rate(run.rate, step, run.steps)
            done.losses.append(train_step(trained, optimizer, weights, tokens, labels, rate=rate))
        except InputError as error:  # a gradient that is not finite
            failure = f"step {step}: {error}"
            break
        done.step = step
        if step % run.every == 0 or step == run.steps:
            judge()
        done.seconds = time.process_time() - started
        checkpoint.save(done, named, optimizer, best)
    if done.step:
        checkpoint.save(done, named, optimizer, best, now=True)
    best.restore()
    return Learnt(model, done.curve, n_weights(model), model.embed.out_features, time.process_time() - started, failure)
