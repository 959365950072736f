"""Training on genomes, with parameter gradients from the adjoint engine.

Memory use is independent of the window length: it includes the activations of one tile and two
optimizer moments per weight. Streams are distributed over threads.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from genoscan.engine.adjoint import AdjointResult, adjoint, consume
from genoscan.engine.forward import forward
from genoscan.engine.inputs import OneHot
from genoscan.engine.stages import run_in_parallel, shares
from genoscan.engine.target import whole_window
from genoscan.errors import InputError
from genoscan.layer import Carry
from genoscan.layers.config import ModelConfig, base_table
from genoscan.layers.pd_ssm import with_surrogate
from genoscan.layers.stack import Stack
from genoscan.layers.surrogate import Surrogate
from genoscan.layers.weights import build
from genoscan.training.data import Split, walks
from genoscan.training.optimizer import adamw, update
from genoscan.training.state import resume, save, settings

_BETAS, _EPS = (0.9, 0.95), 1e-8


@dataclass(frozen=True)
class TrainOptions:
    """Training options, with the values used for the shipped model as defaults.

    Attributes
    ----------
    steps
        Number of updates of the weights.
    window
        Number of bases that each stream contributes to an update.
    walk
        Number of windows before a stream restarts at another position.
    batch
        Number of parallel streams.
    rate
        Peak learning rate, reached by linear warm-up over `warm_up` steps and followed by cosine
        decay to 1 %.
    warm_up
        Number of steps of the linear warm-up.
    decay
        Weight decay of AdamW, applied to the parameters for which the layers declare it.
    clip
        Maximum L2 norm of all gradients together.
    seed
        Random seed for the initial weights and the training data.
    tile, slots
        See `Adjoint`.
    report_every
        Minimum number of steps between reports; reports are made at the ends of walks.
    surrogate
        Gradient estimator for the selections of PD-SSM layers: "activated" or "straight_through".

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

    def __post_init__(self) -> None:
        for name in ("steps", "window", "walk", "batch", "tile", "slots", "report_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: expected at least 1")
        for name in ("rate", "clip"):
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
    training_bits
        Mean bits per base since the previous report.
    validation_bits
        Bits per base on samples of the validation data.
    """

    step: int
    bases: int
    seconds: float
    training_bits: float
    validation_bits: float


def train(
    config: ModelConfig,
    split: Split,
    options: TrainOptions,
    *,
    work: Path,
    device: str = "cpu",
    report: Callable[[Progress], object] = lambda _progress: None,
) -> Stack:
    """Train a model, or resume the training from its last checkpoint.

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
    report
        Function called with the progress at each report.

    Returns
    -------
    Stack
        Trained model, without the surrogate used in training, so that its derivatives are the
        derivatives of the deployed function.

    Raises
    ------
    InputError
        If `work` contains a training run with different settings, the sequences are too short, or a
        gradient is not finite.

    Notes
    -----
    Deterministic for equal settings (`state.settings`): a resumed run ends with the same
    weights as an uninterrupted one.
    """
    torch.manual_seed(options.seed)
    stack = build(config, device=device)
    parameters = dict(stack.named_parameters())
    optimizer = adamw(stack, rate=options.rate, decay=options.decay, betas=_BETAS, eps=_EPS)
    recorded = settings(config, asdict(options), split, next(stack.parameters()))
    step, seconds, rows = resume(work, recorded, parameters, optimizer)
    start, recent = time.monotonic() - seconds, []
    for loss in _steps(stack, config, optimizer, split, options, step):
        step += 1
        recent.append(loss)
        # Carries are not saved, so a run can be resumed only at the end of a walk.
        if step == options.steps or (step % options.walk == 0 and step // options.report_every > len(rows)):
            seconds = time.monotonic() - start
            bits = bits_per_base(stack, config, split.validation)
            done = Progress(step, step * options.batch * options.window, seconds, float(np.mean(recent)), bits)
            rows.append(asdict(done))
            recent = []
            save(work, recorded, step, seconds, rows, parameters, optimizer)
            report(done)
    return stack


def _steps(
    stack: Stack, config: ModelConfig, optimizer: torch.optim.Optimizer, split: Split, options: TrainOptions, step: int
) -> Iterator[float]:
    """Update the weights once per window; yield the bits per base of each window."""
    weights = list(stack.parameters())
    table, columns = _table_and_columns(stack, config)
    stack = with_surrogate(stack, Surrogate(options.surrogate))

    def pull(codes: Tensor, carry: Carry, check: Callable[[], None]) -> AdjointResult:
        inputs, target = OneHot(codes[:, :-1], table), whole_window(codes, columns)
        tiles = adjoint(stack, inputs, target, tile=options.tile, slots=options.slots, carry=carry, parameters=weights)
        return consume(tiles, lambda _span, _x_bar: check())

    streams = shares(options.batch, weights[0].device)
    stretches = walks(
        split.training,
        window=options.window,
        walk=options.walk,
        batch=options.batch,
        seed=options.seed,
        first=step // options.walk,
    )
    for stretch in stretches:
        carries = [stack.begin(share.stop - share.start) for share in streams]
        for i in range(options.walk):
            if step == options.steps:
                return
            codes = torch.from_numpy(stretch[:, i * options.window : (i + 1) * options.window + 1].copy())
            results = run_in_parallel(
                [partial(pull, codes[share], c) for share, c in zip(streams, carries, strict=True)]
            )
            carries = [result.carry for result in results]
            n_labels = max(1, int((codes[:, 1:] < 4).sum()))
            parts = zip(*(result.parameters for result in results), strict=True)
            bars = [-torch.stack(part).sum(0) / n_labels for part in parts]
            update(optimizer, weights, bars, rate=learning_rate(step, options), clip=options.clip)
            step += 1
            yield -sum(float(result.value.sum()) for result in results) / n_labels / math.log(2)


def learning_rate(step: int, options: TrainOptions) -> float:
    """Return the learning rate of an update: linear warm-up, then cosine decay to 1 % of the peak.

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


def bits_per_base(
    stack: Stack,
    config: ModelConfig,
    sequences: Sequence[UInt8[np.ndarray, " bases"]],
    *,
    piece: int = 16_384,
    pieces: int | None = 16,
) -> float:
    """Return the mean of -log2 p(base) over sequences, or over evenly spaced pieces of them.

    Parameters
    ----------
    stack
        Causal model.
    config
        Configuration of the model.
    sequences
        Base codes, one array per sequence.
    piece
        Number of bases per piece.
    pieces
        Number of pieces; None to score whole sequences.

    Returns
    -------
    float
        Bits per base, over all A, C, G and T except for the first base of each sequence or piece.
    """
    table, columns = _table_and_columns(stack, config)
    nats, n_labels = 0.0, 0
    tile = 2048
    for codes in sequences if pieces is None else _sample(sequences, piece, pieces):
        window = torch.from_numpy(codes)[None]
        inputs = OneHot(window, table)
        target = whole_window(window, columns)
        for span, outputs in forward(stack, inputs, tile=tile):
            nats -= float(target(outputs, span).double().sum())
        n_labels += int((codes[1:] < 4).sum())
    return nats / max(1, n_labels) / math.log(2)


def _table_and_columns(stack: Stack, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Return the table of input rows and the indices of output columns, both indexed by base code."""
    weight = next(stack.parameters())
    table = base_table(config, dtype=weight.dtype, device=weight.device)
    return table, torch.tensor([*config.base_columns, -1])


def _sample(
    sequences: Sequence[UInt8[np.ndarray, " bases"]], piece: int, pieces: int
) -> Iterator[UInt8[np.ndarray, " bases"]]:
    """Yield pieces at evenly spaced positions in the concatenated sequences."""
    sizes = np.cumsum([len(codes) for codes in sequences])
    for position in np.linspace(0, sizes[-1], pieces, endpoint=False).astype(int):
        which = int(np.searchsorted(sizes, position, side="right"))
        codes = sequences[which]
        start = min(int(position - (sizes[which] - len(codes))), max(0, len(codes) - piece))
        yield codes[start : start + piece]
