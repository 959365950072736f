"""Bits per byte of held-out documents, learnt at equal weights from the same bytes in the same order."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from torch.nn import functional as F

from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row
from benchmarks.figure import add_curves, add_seeds, panels
from benchmarks.language.checkpoint import run_checkpoint
from benchmarks.language.corpus import Corpus, Windows, held_out, shuffled
from benchmarks.language.kinds import KINDS, LABELS, about_runs
from benchmarks.language.model import Hybrid
from benchmarks.language.training import Run, train
from benchmarks.threshold import at_most

NAME = "modelling"
_SEEDS = 1, 2
_LEVEL = 1.01
"""Ratio of bits per byte up to which PD-SSM is called level with Mamba-2."""
_BATCH = 16
"""Windows that are evaluated at once."""


@dataclass(frozen=True, kw_only=True)
class ModellingRun(Run):
    """Settings that determine a run, bit for bit on one machine.

    length      bytes of a sequence
    validation  sequences of the validation set that choose the weights, at equal distances
    """

    weights: int = 2_500_000
    n_blocks: int = 8
    length: int = 512
    sequences: int = 8
    steps: int = 1_500
    rate: float = 4e-3
    every: int = 100
    validation: int = 64


SIZES: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpu": {
        "weights": 30_000_000,
        "n_blocks": 16,
        "heads": 12,
        "length": 2_048,
        "sequences": 32,
        "steps": 3_000,
        "rate": 1e-3,
        "validation": 128,
    },
}
"""Settings by size, of which those for a GPU have not been run."""

QUICK = {
    "weights": 60_000,
    "n_blocks": 4,
    "heads": 1,
    "length": 32,
    "sequences": 2,
    "steps": 2,
    "every": 1,
    "validation": 2,
}


def _base(size: str, quick: bool) -> ModellingRun:
    return ModellingRun(kind="mamba2", seed=_SEEDS[0], **(QUICK if quick else SIZES[size]))


def _cells(size: str, quick: bool) -> Sequence[Cell]:
    base = _base(size, quick)
    runs = [replace(base, kind=kind, seed=seed) for seed in (_SEEDS[:1] if quick else _SEEDS) for kind in KINDS]
    return [Cell(f"{run.kind} seed {run.seed}", asdict(run)) for run in runs]


def _measure(corpus: Corpus, folder: Path, cell: Cell, _before: Sequence[Row], environment: Environment) -> list[Row]:
    """Return a row for every score on validation, and one for the test, also if training fails."""
    torch.set_num_threads(environment.threads)
    run = ModellingRun(**cell.settings)
    some = held_out(corpus.validation, run.length, run.validation)

    def score(model: Hybrid) -> float:
        return -bits(model, some, device=environment.device)

    def draw(step: int) -> tuple[Windows, Windows]:
        return shuffled(corpus.training, run.seed, step, n=run.sequences, length=run.length)

    checkpoint = run_checkpoint(folder / NAME, cell, environment, data=corpus.facts)
    learnt = train(run, draw, score, checkpoint, device=environment.device)
    known: Row = {"kind": run.kind, "seed": run.seed}
    rows = [
        known | {"step": step, "loss": loss / math.log(2), "validation": -score} for step, loss, score in learnt.curve
    ]
    of_all = {
        split: bits(learnt.model, held_out(getattr(corpus, split), run.length), device=environment.device)
        for split in ("validation", "test")
    }
    checkpoint.remove()
    last = {
        "step": rows[-1]["step"],
        "bytes": rows[-1]["step"] * run.sequences * run.length,
        "weights": learnt.weights,
        "width": learnt.width,
        "seconds": learnt.seconds,
        "failure": learnt.failure,
    }
    return [*rows, known | of_all | last]


@torch.no_grad()
def bits(model: Hybrid, windows: tuple[Windows, Windows], *, device: str) -> float:
    """Return the bits per byte of windows, each read from its first byte on."""
    tokens, labels = (torch.from_numpy(part).split(_BATCH) for part in windows)
    total = sum(
        float(F.cross_entropy(model(x.to(device)).flatten(0, 1).double(), y.to(device).flatten(), reduction="sum"))
        for x, y in zip(tokens, labels, strict=True)
    )
    return total / windows[1].size / math.log(2)


def _results(table: pd.DataFrame) -> pd.DataFrame:
    return table.dropna(subset=["test"])


def _guessing(corpus: Corpus) -> float:
    """Return the bits per byte of the test set by the frequencies of bytes in training, each counted once more."""
    counts = np.bincount(corpus.training, minlength=256) + 1
    return float(-np.log2(counts / counts.sum())[corpus.test].mean())


def _findings(corpus: Corpus, table: pd.DataFrame) -> Iterator[Finding]:
    rows = _results(table)
    yield Finding("frequencies of bytes alone, test", _guessing(corpus), "bits per byte")
    for split in ("validation", "test"):
        for kind, (label, _) in LABELS.items():
            runs = rows[rows.kind == kind]
            yield Finding(f"{label}, {split}, mean of {len(runs)} seeds", runs[split].mean(), "bits per byte")
        by_seed = rows.pivot_table(index="seed", columns="kind", values=split)
        ratios = by_seed["activated"] / by_seed["mamba2"]
        mean = by_seed["activated"].mean() / by_seed["mamba2"].mean()
        threshold = at_most(_LEVEL) if split == "test" else None
        yield Finding(f"PD-SSM's bits per byte, of Mamba-2's, {split}", mean, "times", threshold)
        yield Finding(f"the same, lowest of {len(ratios)} seeds", ratios.min(), "times")
        yield Finding(f"the same, highest of {len(ratios)} seeds", ratios.max(), "times")
    yield from about_runs(rows)


def _draw(table: pd.DataFrame) -> go.Figure:
    page = panels(["bits per byte on validation", "bits per byte on test, by seed"])
    curves = table[table.test.isna()]
    # The first score, of random weights, would hide the differences of the others.
    add_curves(page, curves[curves.step > 0], LABELS, x="step", y="validation", row=1, col=1)
    page.update_xaxes(title="steps", row=1, col=1)
    add_seeds(page, _results(table), LABELS, y="test", row=1, col=2)
    return page


def _setup(run: ModellingRun) -> str:
    return (
        f"{run.n_blocks} blocks, every fourth attention and the others recurrent, each followed by an MLP, at "
        f"{run.weights:,} weights in all, which determine the width: Mamba-2, or PD-SSM trained with the activated "
        f"estimator. AdamW at {run.rate:g}, {run.steps:,} steps of {run.sequences} sequences of {run.length:,} bytes, "
        f"the same for both. Bits per byte on {run.validation} sequences of the validation set every {run.every} steps "
        "choose the weights; all of the validation and test documents are then read in sequences of the same length."
    )


def modelling(corpus: Corpus, folder: Path, size: str) -> Experiment:
    """Return the experiment on a corpus; an interrupted run continues from its checkpoint in the folder."""
    return Experiment(
        "bits per byte of a hybrid language model",
        _setup(_base(size, False)),
        partial(_cells, size),
        partial(_measure, corpus, folder),
        partial(_findings, corpus),
        _draw,
        data=corpus.facts,
    )
