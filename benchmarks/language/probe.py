"""Accuracy of the last word of generated stories, up to four times as long as those of training."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row
from benchmarks.figure import add_curves, add_level, panels
from benchmarks.language.checkpoint import run_checkpoint
from benchmarks.language.kinds import KINDS, LABELS, about_runs
from benchmarks.language.model import Hybrid
from benchmarks.language.stories import NUMBERS, TASKS, encode, story
from benchmarks.language.training import Run, train
from benchmarks.learning import HELD_OUT, UNKNOWN, Labels, Tokens, loss
from benchmarks.threshold import at_least

_SEEDS = 1, 2, 3
_BETTER = 0.05
"""Difference of accuracies from which PD-SSM is called better than Mamba-2."""
_BATCH = 64
"""Stories that are evaluated at once."""

_SIZES: dict[str, dict[str, Any]] = {"swaps-of-three": {"steps": 2_000}, "moves": {"steps": 1_000}}
"""Settings of runs that differ from those of `ProbeRun`."""


@dataclass(frozen=True, kw_only=True)
class ProbeRun(Run):
    """Settings that determine a run, bit for bit on one machine.

    longest     events of the longest stories of training, which grow from none in the first half of the steps
    statements  largest mean number of statements before each event in training, uniform among stories; it falls
                linearly to none
    lengths     events of the stories of the test, the last three of them 1, 2 and 4 times `longest`
    stories     numbers of stories of each length for validation and test
    """

    task: str
    n_tokens: int = 1 + len(NUMBERS)
    weights: int = 400_000
    n_blocks: int = 4
    sequences: int = 32
    steps: int = 1_500
    rate: float = 2e-3
    every: int = 100
    longest: int = 4
    statements: float = 3.0
    lengths: tuple[int, ...] = (1, 2, 4, 8, 16)
    stories: tuple[int, int] = (64, 512)


QUICK: dict[str, Any] = {
    "weights": 60_000,
    "heads": 1,
    "sequences": 2,
    "steps": 2,
    "every": 1,
    "longest": 2,
    "lengths": (1, 2, 4),
    "stories": (2, 4),
}


def _base(task: str, quick: bool) -> ProbeRun:
    return ProbeRun(kind="mamba2", seed=_SEEDS[0], task=task, **(QUICK if quick else _SIZES.get(task, {})))


def _cells(task: str, quick: bool) -> Sequence[Cell]:
    base = _base(task, quick)
    seeds = _SEEDS[:1] if quick else _SEEDS
    runs = [replace(base, kind=kind, seed=seed) for seed in seeds for kind in KINDS]
    return [Cell(f"{run.kind} seed {run.seed}", asdict(run)) for run in runs]


def batch(run: ProbeRun, step: int) -> tuple[Tokens, Labels]:
    """Return the stories of a training step, which depend on seed and step alone."""
    random = np.random.default_rng([run.seed, step])
    longest = min(run.longest, 2 * (run.longest + 1) * step // run.steps)
    n_events, task = int(random.integers(longest + 1)), TASKS[run.task]
    means = run.statements * (1 - step / run.steps) * random.random(run.sequences)
    return encode([list(story(task, random, n_events, mean)) for mean in means])


def held_out(run: ProbeRun, split: str, n_events: int) -> tuple[Tensor, Tensor]:
    """Return held-out stories as tokens and labels, of shape (stories, words).

    Every second story has one event less, because an even number of swaps of two people changes nothing.
    """
    random = np.random.default_rng([HELD_OUT[split], n_events])
    n_stories = run.stories[1 if split == "test" else 0]
    stories = [list(story(TASKS[run.task], random, n_events - i % 2)) for i in range(n_stories)]
    tokens, labels = map(torch.from_numpy, encode(stories))
    return tokens, labels


@torch.no_grad()
def accuracy(model: Hybrid, tokens: Tensor, labels: Tensor, *, device: str) -> float:
    """Return the share of stories whose last statement is right."""
    found = torch.cat([model(part.to(device)).argmax(-1).cpu() for part in tokens.split(_BATCH)])
    return float(((found == labels) | (labels == UNKNOWN)).all(1).double().mean())


def _measure(folder: Path, cell: Cell, _before: Sequence[Row], environment: Environment) -> list[Row]:
    """Return a row for every loss on validation, and one for the test of each length, also if training fails."""
    torch.set_num_threads(environment.threads)
    run = ProbeRun(**cell.settings)
    validation = [held_out(run, "validation", length) for length in run.lengths if length <= run.longest]

    @torch.no_grad()
    def score(model: Hybrid) -> float:
        # Not the accuracy, which is 100 % in many places long before training ends.
        device = environment.device
        return -float(np.mean([float(loss(model(x.to(device)), y.to(device))) for x, y in validation]))

    checkpoint = run_checkpoint(folder / run.task, cell, environment)
    learnt = train(run, partial(batch, run), score, checkpoint, device=environment.device)
    known: Row = {"kind": run.kind, "seed": run.seed}
    rows = [known | {"step": step, "loss": mean, "validation": -score} for step, mean, score in learnt.curve]
    last = {
        "step": rows[-1]["step"],
        "validation": min(row["validation"] for row in rows),
        "weights": learnt.weights,
        "width": learnt.width,
        "seconds": learnt.seconds,
        "failure": learnt.failure,
    }
    tests = [
        {"events": k, "test": accuracy(learnt.model, *held_out(run, "test", k), device=environment.device)}
        for k in run.lengths
    ]
    checkpoint.remove()
    return [*rows, *(known | last | test for test in tests)]


def _results(table: pd.DataFrame) -> pd.DataFrame:
    return table.dropna(subset=["test"])


def _findings(task: str, table: pd.DataFrame) -> Iterator[Finding]:
    yield Finding("guessing", 1 / TASKS[task].answers)
    rows = _results(table)
    lengths = sorted(rows.events.unique())
    for times, length in zip((1, 2, 4), lengths[-3:], strict=True):
        tests = rows[rows.events == length]
        means = tests.groupby("kind").test.mean()
        name = f"{length:.0f} events" + (f", {times} times those of training" if times > 1 else "")
        for kind, (label, _) in LABELS.items():
            runs = tests[tests.kind == kind].sort_values("validation")
            yield Finding(f"{name}: {label}, best seed on validation", runs.iloc[0].test)
            yield Finding(f"{name}: {label}, mean of {len(runs)} seeds", means[kind])
        threshold = at_least(_BETTER) if times > 1 else None
        yield Finding(
            f"{name}: PD-SSM less Mamba-2, mean of seeds", means["activated"] - means["mamba2"], "", threshold
        )
    yield from about_runs(rows.drop_duplicates(["kind", "seed"]))


def _draw(task: str, table: pd.DataFrame) -> go.Figure:
    page = panels(["loss on validation, up to the longest of training", "right on test, by events"])
    add_curves(page, table[table.test.isna()], LABELS, x="step", y="validation", row=1, col=1)
    page.update_xaxes(title="steps", row=1, col=1)
    rows = _results(table)
    add_curves(page, rows, LABELS, x="events", y="test", row=1, col=2)
    page.update_xaxes(type="log", tickvals=sorted(rows.events.unique()), title="events", row=1, col=2)
    add_level(page, 1 / TASKS[task].answers, row=1, col=2)
    page.update_yaxes(rangemode="tozero", row=1, col=1)
    return page.update_yaxes(range=[0, 1.02], tickformat=".0%", row=1, col=2)


def _setup(run: ProbeRun) -> str:
    return (
        f"{run.n_blocks} blocks, the last attention and the others recurrent, each followed by an MLP, at "
        f"{run.weights:,} weights in all, which determine the width; words are tokens. AdamW at {run.rate:g}, "
        f"{run.steps:,} steps of {run.sequences} new stories of up to {run.longest} events, fewer in the first "
        f"half; between them statements, whose things or boxes are learnt, up to {run.statements:g} per event on "
        f"average at first and none at the end. The mean loss on {run.stories[0]} stories "
        f"of each length up to {run.longest} events every {run.every} steps chooses the weights; {run.stories[1]} "
        f"others of each length test them, up to {run.lengths[-1]} events, with one statement, at the end. Half of the "
        "stories of a length have one event less."
    )


def probe(task: str, folder: Path) -> Experiment:
    """Return the experiment of a task; an interrupted run continues from its checkpoint in the folder."""
    return Experiment(
        "last word of a story",
        _setup(_base(task, False)),
        partial(_cells, task),
        partial(_measure, folder),
        partial(_findings, task),
        partial(_draw, task),
    )
