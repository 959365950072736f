"""Accuracy by vocabulary, length and noise, one varied at a time; one seed."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from benchmarks.experiment import Cell, Experiment, Finding
from benchmarks.figure import TORCH, add_curves, panels
from benchmarks.mechanistic.experiments import LABELS, QUICK, base_run, describe, kinds, measure, results
from benchmarks.mechanistic.learn import accuracy_without_memory
from benchmarks.mechanistic.tasks import Size

_AXES: dict[str, dict[str, tuple[Any, ...]]] = {
    "in-context-recall": {"vocabulary": (16, 32, 64, 128), "length": (64, 128, 256), "noise": (0, 0.2, 0.4, 0.6, 0.8)},
    "selective-copying": {"vocabulary": (16, 32, 64, 128), "length": (32, 64, 128), "noise": (0.5, 0.7, 0.85, 0.95)},
}
_TITLES = {"vocabulary": "vocabulary", "length": "tokens", "noise": "share of noise"}


def _sizes(task: str) -> list[Size]:
    """Return the sizes to measure, the base first and once."""
    base = base_run(task).size
    sizes = [base, *(replace(base, **{axis: value}) for axis, values in _AXES[task].items() for value in values)]
    return list(dict.fromkeys(sizes))


def _cells(task: str, quick: bool) -> Sequence[Cell]:
    cells = []
    for size in _sizes(task)[: 2 if quick else None]:
        for kind in kinds():
            run = replace(base_run(task), kind=kind, **asdict(size))
            if quick:
                run = replace(run, **QUICK | {"vocabulary": size.vocabulary})  # type: ignore[arg-type]
            name = f"{kind}, vocabulary {run.vocabulary}, length {run.length}, noise {run.noise:g}"
            cells.append(Cell(name, asdict(run)))
    return cells


def _findings(table: pd.DataFrame) -> Iterator[Finding]:
    for row in results(table).to_dict("records"):
        label, _ = LABELS[row["kind"]]
        size = f"vocabulary {row['vocabulary']}, {row['length']} tokens, noise {row['noise']:g}"
        yield Finding(f"{label}: {size}", row["test"])


def _draw(task: str, table: pd.DataFrame) -> go.Figure:
    axes = list(_TITLES)
    page = panels([f"{task} by {axis}" for axis in axes])
    rows = results(table)
    base = rows.iloc[0]
    for col, axis in enumerate(axes, 1):
        held = [other for other in axes if other != axis]
        along = rows[(rows[held] == base[held]).all(axis=1)].sort_values(axis)
        add_curves(page, along, LABELS, x=axis, y="test", row=1, col=col)
        values = sorted(set(along[axis]))
        page.add_scatter(
            x=values,
            y=[accuracy_without_memory(replace(base_run(task), **{axis: value})) for value in values],
            name="without memory",
            legendgroup="without memory",
            showlegend=col == 1,
            mode="lines",
            line={"color": TORCH[1], "dash": "dot", "width": 1.5},
            row=1,
            col=col,
        )
        page.update_xaxes(title=_TITLES[axis], row=1, col=col)
        if axis != "noise":
            page.update_xaxes(type="log", tickvals=values, row=1, col=col)
    return page.update_yaxes(range=[0, 1.02], tickformat=".0%")


def _experiment(task: str) -> Experiment:
    axes = "; ".join(f"{axis} {', '.join(map(str, values))}" for axis, values in _AXES[task].items())
    return Experiment(
        f"{task} by size",
        f"{describe(task)} One of these is varied at a time, one seed: {axes}.",
        partial(_cells, task),
        measure,
        _findings,
        partial(_draw, task),
    )


EXPERIMENTS = {f"{task}-by-size": _experiment(task) for task in _AXES}
