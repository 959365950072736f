"""Training of models on genomes, with parameter gradients that the engine computes.

For causal models, memory use does not depend on the length of the window. For bidirectional models, the
activations between layers are stored, unless a window fits into one tile. The windows of a batch are
distributed over threads.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.inputs import OneHot
from genoscan.engine.stages import run_in_parallel, shares
from genoscan.engine.target import Target
from genoscan.errors import InputError
from genoscan.layer import Carry
from genoscan.layers.bidirectional import BidirectionalStack
from genoscan.layers.config import ModelConfig, base_table
from genoscan.layers.pd_ssm import with_surrogate
from genoscan.layers.stack import Stack
from genoscan.layers.surrogate import Surrogate
from genoscan.layers.weights import build
from genoscan.model import choose_method
from genoscan.training.data import Split, read_stretches, stretches
from genoscan.training.evaluation import Network, bits_per_base, label_metrics, sample
from genoscan.training.objective import LanguageModel, prepare_batch
from genoscan.training.optimizer import adamw, update
from genoscan.training.state import resume, save, settings
from genoscan.training.strands import average_strands, tie_strands

_BETAS, _EPS = (0.9, 0.95), 1e-8


@dataclass(frozen=True)
class TrainOptions:
    """Training options; the defaults are the values used to train the shipped language model.

    Attributes
    ----------
    steps
        Number of updates of the weights.
    window
        Number of bases per window. Each update uses one window of each stream.
    walk
        Number of consecutive windows that a stream reads before it restarts at another position.
    batch
        Number of parallel streams.
    rate
        Peak learning rate. The learning rate increases linearly to the peak during the first `warm_up`
        steps and then follows a cosine down to 1 % of the peak.
    warm_up
        Number of steps during which the learning rate increases.
    decay
        Weight decay of AdamW. It applies only to the parameters for which the layers declare it.
    clip
        Maximum L2 norm of the concatenated gradients of all parameters.
    seed
        Random seed for the initial weights and the training data.
    tile, slots
        Number of positions per tile, and maximum number of stored carries (see `Adjoint`).
    report_every
        Approximate number of steps between reports. Reports are made only when the streams restart and
        after the last step.
    surrogate
        Gradient estimator for the argmax operations in PD-SSM layers: "activated" or
        "straight_through".
    language_model
        What the language-model head is trained to predict: "next-base", "masked" or "none".
    site_weight
        Weight in the objective of each task head with a sigmoid link. The default is large because the
        labels of such heads are rare. Other heads have a weight of 1.
    freeze
        Whether to train only the heads and leave all other weights unchanged.

    Raises
    ------
    InputError
        If an option is out of range.
    """

    steps: int = 4000
    window: int = 2048
    walk: int = 8
    batch: int = 4
    rate: float = 4e-3
    warm_up: int = 200
    decay: float = 0.1
    clip: float = 1.0
    seed: int = 1
    tile: int = 2048
    slots: int = 16
    report_every: int = 200
    surrogate: Literal["activated", "straight_through"] = "activated"
    language_model: LanguageModel = "next-base"
    site_weight: float = 20.0
    freeze: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "window", "walk", "batch", "tile", "slots", "report_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: expected at least 1")
        for name in ("rate", "clip", "site_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)}: expected a number above 0")
        if not 0 <= self.decay < math.inf:
            raise InputError(f"decay {self.decay}: expected a number of at least 0")
        Surrogate(self.surrogate)  # raises InputError for other names


@dataclass(frozen=True)
class Progress:
    """Progress of a training run at the time of a report.

    Attributes
    ----------
    step
        Number of updates completed.
    bases
        Number of bases processed.
    seconds
        Training time so far, in seconds.
    training_loss
        Mean loss since the previous report, in bits. For a language model without task heads, this is
        the number of bits per base; otherwise, it is the weighted sum over all heads (see objective.py).
    validation_bits
        Bits per base on samples of the validation data; None if the language-model head is not trained.
    labels
        Metrics of the task heads on the same samples (see `label_metrics`).
    """

    step: int
    bases: int
    seconds: float
    training_loss: float
    validation_bits: float | None
    labels: Mapping[str, float] = field(default_factory=dict)


def train(
    config: ModelConfig,
    split: Split,
    options: TrainOptions,
    *,
    work: Path,
    device: str = "cpu",
    initial: Mapping[str, Tensor] | None = None,
    report: Callable[[Progress], object] = lambda _progress: None,
    before_steps: Callable[[int], object] = lambda _step: None,
    after_step: Callable[[int, float], object] = lambda _step, _loss: None,
) -> Network:
    """Train a model, or resume training from the last checkpoint.

    Parameters
    ----------
    config
        Configuration of the model.
    split
        Training and validation data.
    options
        Training options.
    work
        Folder for the checkpoint and the loss curve, which are written at each report.
    device
        PyTorch device to train on.
    initial
        Initial values of parameters and buffers, by name. Others are initialised as in a new model.
    report
        Function called with the progress at each report.
    before_steps
        Function called before the first update with the number of updates already completed.
    after_step
        Function called after each update with the number of updates completed and the loss in bits.

    Returns
    -------
    Stack or BidirectionalStack
        Trained network. Its derivatives are exact, without the surrogate gradients that are used in
        training.

    Raises
    ------
    InputError
        If `work` contains a training run with different settings, the sequences are too short, or a
        gradient is not finite.

    Notes
    -----
    Training is deterministic: with equal settings (see `state.settings`), a resumed run ends with the
    same weights as an uninterrupted run.
    """
    torch.manual_seed(options.seed)
    stack = build(config, device=device)
    with torch.no_grad():
        for name, tensor in chain(stack.named_parameters(), stack.named_buffers()):
            if initial is not None and name in initial:
                tensor.copy_(initial[name])
    tie_strands(config, dict(stack.named_parameters()))
    if options.freeze:
        stack.requires_grad_(False)
        for head in (stack.head, stack.heads):
            if head is not None:
                head.requires_grad_(True)
    parameters = {name: p for name, p in stack.named_parameters() if p.requires_grad}
    optimizer = adamw(stack, rate=options.rate, decay=options.decay, betas=_BETAS, eps=_EPS)
    recorded = settings(config, asdict(options), split, next(stack.parameters()), initial)
    step, seconds, rows = resume(work, recorded, parameters, optimizer)
    start, recent = time.monotonic() - seconds, []
    for loss in _steps(stack, config, optimizer, split, options, step, before_steps):
        step += 1
        recent.append(loss)
        after_step(step, loss)
        # Carries are not saved, so a run can be resumed only at the end of a walk.
        if step == options.steps or (step % options.walk == 0 and step // options.report_every > len(rows)):
            seconds = time.monotonic() - start
            done = Progress(
                step,
                step * options.batch * options.window,
                seconds,
                float(np.mean(recent)),
                *_validate(stack, config, split, options),
            )
            rows.append(asdict(done))
            recent = []
            save(work, recorded, step, seconds, rows, parameters, optimizer)
            report(done)
    return stack


def _validate(
    stack: Network, config: ModelConfig, split: Split, options: TrainOptions
) -> tuple[float | None, Mapping[str, float]]:
    """Return the bits per base and the metrics of the task heads on samples of the validation data."""
    pieces = list(sample(split.validation))
    masked = options.language_model == "masked"
    bits = None if options.language_model == "none" else bits_per_base(stack, config, pieces, masked=masked)
    return bits, label_metrics(stack, config, pieces) if config.heads else {}


class _Pulled(NamedTuple):
    """Objective of each window, cotangents of the trained parameters, and carry after the windows."""

    value: Tensor
    parameters: Sequence[Tensor]
    carry: Carry


def _steps(
    stack: Network,
    config: ModelConfig,
    optimizer: torch.optim.Optimizer,
    split: Split,
    options: TrainOptions,
    step: int,
    before_steps: Callable[[int], object],
) -> Iterator[float]:
    """Update the weights and yield the loss of each update, in bits.

    Each update uses one window of each stream. `step` is the number of updates already completed.
    """
    trained = {name: parameter for name, parameter in stack.named_parameters() if parameter.requires_grad}
    weights = list(trained.values())
    device = next(stack.parameters()).device
    table = base_table(config, dtype=torch.float32, device=device)
    trained_stack = with_surrogate(stack, Surrogate(options.surrogate))
    pull = (
        partial(_pull_bidirectional, trained_stack, table, weights, options)
        if isinstance(trained_stack, BidirectionalStack)
        else partial(_pull_causal, trained_stack, table, weights, options)
    )
    streams = shares(options.batch, device)
    extra = 1 if options.language_model == "next-base" else 0
    importance = {name: options.site_weight for name, head in config.heads.items() if head.link == "sigmoid"}
    drawn = stretches(
        [len(piece.codes) for piece in split.training],
        length=options.walk * options.window + extra,
        batch=options.batch,
        seed=options.seed,
        first=step // options.walk,
    )
    first = next(drawn)  # raises InputError if the sequences are too short
    if step < options.steps:
        before_steps(step)
    for rows in chain([first], drawn):
        codes, labels = read_stretches(split, rows, options.walk * options.window + extra)
        carries: list[Carry] = [None for _ in streams]
        for i in range(options.walk):
            if step == options.steps:
                return
            start, stop = i * options.window, (i + 1) * options.window
            batch = prepare_batch(
                config,
                codes[:, start : stop + extra],
                {name: found[:, start:stop] for name, found in labels.items()},
                language_model=options.language_model,
                weights=importance,
                random=np.random.default_rng((options.seed, step, 1)),
            )
            work = [
                partial(pull, batch.codes[r], batch.objective.rows(r), c) for r, c in zip(streams, carries, strict=True)
            ]
            results = run_in_parallel(work)
            carries = [result.carry for result in results]
            parts = zip(*(result.parameters for result in results), strict=True)
            bars = [
                average_strands(config, name, -torch.stack(p).sum(0)) for name, p in zip(trained, parts, strict=True)
            ]
            update(optimizer, weights, bars, rate=learning_rate(step, options), clip=options.clip)
            step += 1
            yield -sum(float(result.value.sum()) for result in results) / math.log(2)


def _pull_causal(
    stack: Stack,
    table: Tensor,
    weights: Sequence[Tensor],
    options: TrainOptions,
    codes: Tensor,
    target: Target,
    carry: Carry | None,
    check: Callable[[], None],
) -> _Pulled:
    """Return the objective of some windows, the cotangents of `weights`, and the carry after the windows.

    During the sweep, `check` is called after each tile. It raises an exception if another thread has failed.
    """
    inputs = OneHot(codes, table)
    tiles = adjoint(stack, inputs, target, tile=options.tile, slots=options.slots, carry=carry, parameters=weights)
    result = consume(tiles, lambda _span, _x_bar: check())
    return _Pulled(result.value, result.parameters, result.carry)


def _pull_bidirectional(
    stack: BidirectionalStack,
    table: Tensor,
    weights: Sequence[Tensor],
    options: TrainOptions,
    codes: Tensor,
    target: Target,
    _carry: Carry | None,
    check: Callable[[], None],
) -> _Pulled:
    """Return the objective of some windows and the cotangents of `weights`; there is no carry between windows.

    During the sweep, `check` is called after each tile. It raises an exception if another thread has failed.
    """
    inputs, whole = OneHot(codes, table), slice(0, codes.shape[1])
    if inputs.length <= options.tile:
        # One tile: the engine would run each layer twice and save no memory.
        value = target(stack(inputs.tile(whole)), whole)
        bars = torch.autograd.grad(value.sum(), weights, allow_unused=True, materialize_grads=True)
        return _Pulled(value.detach(), bars, None)
    tiles = choose_method(stack, tile=options.tile).gradient(stack, inputs, target, parameters=weights)
    result = consume(tiles, lambda _span, _x_bar: check())
    return _Pulled(result.value, result.parameters, None)


def learning_rate(step: int, options: TrainOptions) -> float:
    """Return the learning rate of an update.

    The learning rate increases linearly during warm-up and then follows a cosine down to 1 % of the peak.

    Parameters
    ----------
    step
        Index of the update, starting at 0.
    options
        Training options.

    Returns
    -------
    float
        The learning rate.
    """
    if step < options.warm_up:
        return options.rate * (step + 1) / options.warm_up
    done = (step - options.warm_up) / max(1, options.steps - options.warm_up)
    return options.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
