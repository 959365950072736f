"""Accuracy by vocabulary, length or noise, one varied at a time; one seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from benchmarks.experiment import Cell, Experiment, Finding
from benchmarks.figure import TORCH, add_curves, panels
from benchmarks.mechanistic.experiments import LABELS, QUICK, base_run, describe, kinds, measure, results
from benchmarks.mechanistic.learn import Run, accuracy_without_memory

_AXES: dict[str, dict[str, tuple[Any, ...]]] = {
    "in-context-recall": {"vocabulary": (32, 64, 128), "length": (64, 256), "noise": (0.2, 0.4, 0.6, 0.8)},
    "selective-copying": {"vocabulary": (32, 64, 128), "length": (32, 128), "noise": (0.5, 0.7, 0.95)},
}
"""Values of each size, without the task's own, which `experiments` measures."""

_TITLES = {"vocabulary": "vocabulary", "length": "tokens", "noise": "share of noise"}


def _cells(task: str, axis: str, quick: bool) -> Sequence[Cell]:
    values = _AXES[task][axis]
    cells = []
    for value in values[: 1 if quick else None]:
        for kind in kinds():
            run = replace(base_run(task), kind=kind)
            if quick:
                run = replace(run, **QUICK)  # type: ignore[arg-type]
            cells.append(Cell(f"{kind}, {axis} {value:g}", asdict(replace(run, **{axis: value}))))
    return cells


def _findings(axis: str, table: pd.DataFrame) -> Iterator[Finding]:
    for row in results(table).to_dict("records"):
        label, _ = LABELS[row["kind"]]
        yield Finding(f"{label}: {axis} {row[axis]:g}", row["test"])


def _draw(task: str, axis: str, table: pd.DataFrame) -> go.Figure:
    page = panels([f"{task} by {axis}"])
    _draw_axis(page, base_run(task), axis, results(table), row=1, col=1)
    return page


def _draw_axis(page: go.Figure, base: Run, axis: str, rows: pd.DataFrame, *, row: int, col: int) -> None:
    along = rows.sort_values(axis, kind="stable")
    add_curves(page, along, LABELS, x=axis, y="test", row=row, col=col)
    values = sorted(set(along[axis]))
    page.add_scatter(
        x=values,
        y=[accuracy_without_memory(replace(base, **{axis: value})) for value in values],
        name="without memory",
        legendgroup="without memory",
        showlegend=(row, col) == (1, 1),
        mode="lines",
        line={"color": TORCH[1], "dash": "dot", "width": 1.5},
        row=row,
        col=col,
    )
    page.update_xaxes(title=_TITLES[axis], row=row, col=col)
    page.update_yaxes(range=[0, 1.02], tickformat=".0%", row=row, col=col)
    if axis != "noise":
        page.update_xaxes(type="log", tickvals=values, row=row, col=col)


def draw_all(tables: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Draw all axes of both tasks, a task in each row, from the tables of axes and tasks that exist."""
    names = [_name(task, axis) for task in _AXES for axis in _AXES[task]]
    titles = [EXPERIMENTS[name].title + ("" if name in tables else ": not run") for name in names]
    page = panels(titles, rows=len(_AXES), height=400)
    for row, task in enumerate(_AXES, 1):
        base = base_run(task)
        for col, axis in enumerate(_AXES[task], 1):
            if _name(task, axis) in tables:
                rows = pd.concat([results(tables[name]) for name in (task, _name(task, axis)) if name in tables])
                _draw_axis(page, base, axis, rows[rows.seed == base.seed], row=row, col=col)
    return page


def _name(task: str, axis: str) -> str:
    return f"{task}-by-{axis}"


def _experiment(task: str, axis: str) -> Experiment:
    return Experiment(
        f"{task} by {axis}",
        f"{describe(task)} One seed, {axis} {', '.join(map(str, _AXES[task][axis]))} instead.",
        partial(_cells, task, axis),
        measure,
        partial(_findings, axis),
        partial(_draw, task, axis),
    )


EXPERIMENTS = {_name(task, axis): _experiment(task, axis) for task, axes in _AXES.items() for axis in axes}
