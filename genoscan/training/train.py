"""Train a model on genomes: the adjoint engine gives the parameters' derivatives.

Memory is one tile's activations and the optimiser's two numbers a weight, whatever the window.
Threads share the streams.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genoscan.engine.adjoint import AdjointResult, adjoint, consume
from genoscan.engine.forward import forward
from genoscan.engine.inputs import OneHot
from genoscan.engine.stages import shares, side_by_side
from genoscan.engine.target import whole_window
from genoscan.errors import InputError
from genoscan.layer import Carry
from genoscan.layers.stack import Stack
from genoscan.layers.weights import ModelConfig, build
from genoscan.training.data import Split, walks

STATE = "state.json"
_BETAS, _EPS = (0.9, 0.95), 1e-8


@dataclass(frozen=True)
class TrainOptions:
    """How to train; defaults are those of the shipped model.

    steps         updates of the weights
    window        bases between updates, a stream
    walk          windows that a stream reads before it starts elsewhere
    batch         streams side by side
    rate          peak learning rate: linear warm-up, then cosine to a hundredth
    decay         AdamW's weight decay, on matrices
    clip          largest norm of all derivatives together
    tile, slots   the engine's
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

    def __post_init__(self) -> None:
        for name in ("steps", "window", "walk", "batch", "tile", "slots", "report_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: at least 1 is expected")


@dataclass(frozen=True)
class Progress:
    """What is told at every report."""

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
    """Train from fresh weights, or from where an earlier call with the same arguments stopped.

    `work` keeps the state, saved at every report, and the loss curve.  Deterministic at equal
    threads: an interrupted training that is resumed ends with the weights of an unbroken one.
    """
    torch.manual_seed(options.seed)
    stack = build(config, device=device)
    parameters: dict[str, Tensor] = dict(stack.named_parameters())
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in parameters.items()}
    settings = {"config": config.model_dump(mode="json"), "options": asdict(options)}
    step, seconds, rows = _resume(work, settings, parameters, moments)
    start, recent = time.monotonic() - seconds, []
    for loss in _steps(stack, parameters, moments, split, options, step, device):
        step += 1
        recent.append(loss)
        # Carries are not saved: reports fall on the ends of walks.
        if step == options.steps or (
            step % options.walk == 0 and step // options.report_every > len(rows)
        ):
            seconds = time.monotonic() - start
            bits = bits_per_base(stack, config, split.validation, device=device)
            done = Progress(
                step, step * options.batch * options.window, seconds, float(np.mean(recent)), bits
            )
            rows.append(asdict(done))
            recent = []
            _save(work, settings, step, seconds, rows, parameters, moments)
            report(done)
    return stack


def _steps(
    stack: Stack,
    parameters: dict[str, Tensor],
    moments: dict[str, tuple[Tensor, Tensor]],
    split: Split,
    options: TrainOptions,
    step: int,
    device: str,
) -> Iterator[float]:
    """Update the weights once a window; yield the window's bits per base."""
    table = torch.cat([torch.eye(4), torch.zeros(1, 4)]).to(device)
    columns, weights = torch.tensor([0, 1, 2, 3, -1]), list(parameters.values())

    def pull(codes: Tensor, carry: Carry, check: Callable[[], None]) -> AdjointResult:
        inputs, target = OneHot(codes[:, :-1], table), whole_window(codes, columns)
        tiles = adjoint(
            stack, inputs, target, tile=options.tile, slots=options.slots, carry=carry,
            parameters=weights,
        )  # fmt: skip
        return consume(tiles, lambda _span, _x_bar: check())

    streams = shares(options.batch, torch.device(device))
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
            codes = torch.from_numpy(
                stretch[:, i * options.window : (i + 1) * options.window + 1].copy()
            )
            results = side_by_side(
                [partial(pull, codes[share], c) for share, c in zip(streams, carries, strict=True)]
            )
            carries = [result.carry for result in results]
            n_labels = max(1, int((codes[:, 1:] < 4).sum()))
            parts = zip(*(result.parameters for result in results), strict=True)
            bars = [-torch.stack(part).sum(0) / n_labels for part in parts]
            _adamw(parameters, moments, bars, step, options)
            step += 1
            yield -sum(float(result.value.sum()) for result in results) / n_labels / math.log(2)


def _adamw(
    parameters: dict[str, Tensor],
    moments: dict[str, tuple[Tensor, Tensor]],
    bars: list[Tensor],
    step: int,
    options: TrainOptions,
) -> None:
    """Update the weights (AdamW, arXiv 1711.05101), the derivatives clipped together."""
    norm = float(torch.stack([bar.norm() for bar in bars]).norm())
    scale = min(1.0, options.clip / (norm + 1e-12))
    rate = learning_rate(step, options)
    first, second = _BETAS
    with torch.no_grad():
        for (name, weight), bar in zip(parameters.items(), bars, strict=True):
            mean, square = moments[name]
            bar = bar * scale
            mean.lerp_(bar, 1 - first)
            square.mul_(second).addcmul_(bar, bar, value=1 - second)
            mean_hat = mean / (1 - first ** (step + 1))
            square_hat = square / (1 - second ** (step + 1))
            if name.endswith("proj.weight"):
                weight.mul_(1 - rate * options.decay)
            weight.sub_(rate * mean_hat / (square_hat.sqrt() + _EPS))


def learning_rate(step: int, options: TrainOptions) -> float:
    """Return the rate of an update: linear warm-up, then cosine to a hundredth of the peak."""
    if step < options.warm_up:
        return options.rate * (step + 1) / options.warm_up
    done = (step - options.warm_up) / max(1, options.steps - options.warm_up)
    return options.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def bits_per_base(
    stack: Stack,
    config: ModelConfig,
    sequences: Sequence[UInt8[np.ndarray, " bases"]],
    *,
    device: str = "cpu",
    piece: int = 16_384,
    pieces: int | None = 16,
) -> float:
    """Return the mean of -log2 p(base) over whole sequences, or over evenly spaced pieces of them.

    `pieces` None reads every sequence from its first base to its last in one go, the carry
    handed on, and scores every A, C, G and T but each sequence's first.
    """
    table = torch.cat([torch.eye(4), torch.zeros(1, 4)]).to(device)
    columns = torch.tensor([0, 1, 2, 3, -1])
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


def _sample(
    sequences: Sequence[UInt8[np.ndarray, " bases"]], piece: int, pieces: int
) -> Iterator[UInt8[np.ndarray, " bases"]]:
    """Yield pieces that lie evenly over all sequences together."""
    sizes = np.cumsum([len(codes) for codes in sequences])
    for place in np.linspace(0, sizes[-1], pieces, endpoint=False).astype(int):
        which = int(np.searchsorted(sizes, place, side="right"))
        codes = sequences[which]
        start = min(int(place - (sizes[which] - len(codes))), max(0, len(codes) - piece))
        yield codes[start : start + piece]


def _save(
    work: Path,
    settings: dict[str, Any],
    step: int,
    seconds: float,
    rows: list[dict[str, Any]],
    parameters: dict[str, Tensor],
    moments: dict[str, tuple[Tensor, Tensor]],
) -> None:
    """Write the state so that a kill at any moment leaves a whole one."""
    work.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"weight.{name}": weight.detach().contiguous() for name, weight in parameters.items()
    }
    for name, (mean, square) in moments.items():
        tensors |= {f"mean.{name}": mean, f"square.{name}": square}
    tensors_name = f"step-{step}.safetensors"
    save_file(tensors, work / tensors_name)
    state = {"settings": settings, "step": step, "seconds": seconds, "rows": rows}
    partial = work / (STATE + ".partial")
    partial.write_text(json.dumps(state | {"tensors": tensors_name}))
    partial.replace(work / STATE)
    for old in work.glob("step-*.safetensors"):
        if old.name != tensors_name:
            old.unlink()


def _resume(
    work: Path,
    settings: dict[str, Any],
    parameters: dict[str, Tensor],
    moments: dict[str, tuple[Tensor, Tensor]],
) -> tuple[int, float, list[dict[str, Any]]]:
    """Fill weights and moments from a saved state; return its step, seconds and curve."""
    try:
        state = json.loads((work / STATE).read_text())
    except FileNotFoundError:
        return 0, 0.0, []
    except ValueError:
        raise InputError(f"{work / STATE}: damaged; remove {work} to start again") from None
    if state["settings"] != json.loads(json.dumps(settings)):
        raise InputError(
            f"{work}: holds a training with other settings; give the same ones to resume it, or "
            "remove the folder to start again"
        )
    try:
        tensors = load_file(work / state["tensors"])
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{work / state['tensors']}: {error}; remove {work} to start again"
        ) from None
    with torch.no_grad():
        for name, weight in parameters.items():
            weight.copy_(tensors[f"weight.{name}"])
            moments[name][0].copy_(tensors[f"mean.{name}"])
            moments[name][1].copy_(tensors[f"square.{name}"])
    return state["step"], state["seconds"], state["rows"]
