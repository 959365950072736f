"""START HERE: one experiment per task; Mamba, Mamba-2 and PD-SSM, three seeds each."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, get_args

import pandas as pd
import plotly.graph_objects as go
import torch

from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row
from benchmarks.figure import OURS, THEIRS, add_curves, add_level, add_seeds, panels
from benchmarks.mechanistic.learn import Kind, Run, accuracy_without_memory, learn
from benchmarks.mechanistic.tasks import TASKS
from benchmarks.recurrent import equal_weights
from benchmarks.threshold import at_least

LABELS = {
    "mamba": ("Mamba", THEIRS[0]),
    "mamba2": ("Mamba-2", THEIRS[1]),
    "activated": ("PD-SSM, activated estimator", OURS[0]),
    "straight_through": ("PD-SSM, straight-through", OURS[1]),
}
"""Name and colour of each kind of model."""

_SEEDS = 1, 2, 3
_LEVEL = -0.01
"""Difference of accuracies from which PD-SSM is called level with Mamba."""

_SIZES: dict[str, dict[str, Any]] = {"memorisation": {"steps": 500, "every": 25}}
"""Settings of runs that differ from those of `Run`."""

QUICK = {"length": 32, "vocabulary": 16, "weights": 24_000, "steps": 2, "tokens": 64, "every": 1, "sequences": (4, 8)}


def base_run(task: str) -> Run:
    """Return the run of a task in its own size, with Mamba and the first seed."""
    return Run(task, "mamba", _SEEDS[0], **asdict(TASKS[task].size), **_SIZES.get(task, {}))


def kinds() -> tuple[Kind, ...]:
    """Return all kinds of models."""
    return get_args(Kind)


def _cells(task: str, quick: bool) -> Sequence[Cell]:
    runs = [
        replace(base_run(task), kind=kind, seed=seed, **(QUICK if quick else {}))  # type: ignore[arg-type]
        for seed in (_SEEDS[:1] if quick else _SEEDS)
        for kind in kinds()
    ]
    return [Cell(f"{run.kind} seed {run.seed}", asdict(run)) for run in runs]


def measure(cell: Cell, _before: Sequence[Row], environment: Environment) -> list[Row]:
    """Return a row for every accuracy on validation, and one for the test, also if training fails."""
    torch.set_num_threads(environment.threads)
    run = Run(**cell.settings)
    learnt = learn(run)
    known: Row = {key: getattr(run, key) for key in ("kind", "seed", "length", "vocabulary", "noise", "states")}
    names = "step", "loss", "validation"
    rows = [known | dict(zip(names, point, strict=True)) for point in learnt.curve]
    last = {
        "step": rows[-1]["step"],
        "validation": max(row["validation"] for row in rows),
        "test": learnt.test,
        "weights": learnt.weights,
        "width": learnt.width,
        "seconds": learnt.seconds,
        "failure": learnt.failure,
    }
    return [*rows, known | last]


def results(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the results of runs."""
    return table.dropna(subset=["test"])


def _findings(task: str, table: pd.DataFrame) -> Iterator[Finding]:
    yield Finding("guessing", TASKS[task].chance(TASKS[task].size))
    yield Finding("guessing, or the most frequent answer so far", accuracy_without_memory(base_run(task)))
    rows = results(table)
    for kind, (label, _) in LABELS.items():
        runs = rows[rows.kind == kind]
        yield Finding(f"{label}, best seed on validation", runs.sort_values("validation").iloc[-1].test)
        yield Finding(f"{label}, mean of {len(runs)} seeds", runs.test.mean())
        yield Finding(f"{label}, runs that failed", float(runs.failure.notna().sum()))
        yield Finding(f"{label}, a run", runs.seconds.mean() / 60, "processor minutes")
    means = rows.groupby("kind")[["validation", "test"]].mean()
    ours = means.loc[["activated", "straight_through"]].sort_values("validation").iloc[-1]
    yield Finding(
        "PD-SSM (estimator chosen on validation) less Mamba, mean of seeds",
        ours.test - means.loc["mamba"].test,
        "",
        at_least(_LEVEL),
    )
    yield equal_weights(rows)


def _draw(task: str, table: pd.DataFrame) -> go.Figure:
    page = panels([f"{task}: right on validation", "right on test, by seed"])
    draw_curves(page, task, table, row=1, col=1)
    page.update_xaxes(title="steps", row=1, col=1)
    add_seeds(page, results(table), LABELS, y="test", row=1, col=2)
    add_level(page, accuracy_without_memory(base_run(task)), row=1, col=2)
    return page.update_yaxes(range=[0, 1.02], tickformat=".0%", row=1, col=2)


def draw_curves(page: go.Figure, task: str, table: pd.DataFrame, *, row: int, col: int) -> None:
    """Draw the accuracies on validation in one panel, with that which needs no memory."""
    add_curves(page, table[table.test.isna()], LABELS, x="step", y="validation", row=row, col=col)
    add_level(page, accuracy_without_memory(base_run(task)), row=row, col=col)
    page.update_yaxes(range=[0, 1.02], tickformat=".0%", row=row, col=col)


def describe(task: str) -> str:
    """Return the set-up of a task's runs."""
    run = base_run(task)
    return (
        f"{run.n_layers} blocks at {run.weights:,} weights in all, which determine the width: Mamba of 16 states a "
        "channel, Mamba-2 of 64 states a channel and heads of about 64 channels, PD-SSM of 8 heads of 8 complex states "
        "and 8 maps, trained with the activated or the straight-through estimator. "
        f"AdamW at {run.rate:g}, {run.steps:,} steps of {run.tokens // run.length:,} new sequences of {run.length} "
        f"tokens; accuracy on {run.sequences[0]:,} sequences every {run.every} steps chooses the weights (at 100 % "
        f"training ends, as no later ones could be chosen), {run.sequences[1]:,} others test them. Task as in arXiv "
        f"2403.17844: vocabulary of {run.vocabulary}, noise {run.noise:g}."
    )


def _experiment(task: str) -> Experiment:
    return Experiment(
        "mechanistic task",
        describe(task),
        partial(_cells, task),
        measure,
        partial(_findings, task),
        partial(_draw, task),
    )


EXPERIMENTS = {task: _experiment(task) for task in TASKS}
