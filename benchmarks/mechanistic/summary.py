"""All tasks as one table, task x model x seed, and one figure of learning curves; one figure of all sizes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from benchmarks.experiment import Experiment
from benchmarks.figure import panels
from benchmarks.mechanistic import axes
from benchmarks.mechanistic.experiments import LABELS, draw_curves, results
from benchmarks.mechanistic.tasks import TASKS
from benchmarks.run import write_figure, write_table

NAME, BY_SIZE = "mechanistic", "by-size"
_COLUMNS = ["task", "kind", "seed", "step", "validation", "test", "weights", "width", "seconds", "failure"]


def tables(folder: Path, experiments: Mapping[str, Experiment], *, quick: bool) -> dict[str, pd.DataFrame]:
    """Return the tables that the folder contains with all cells, by experiment."""
    paths = {name: folder / f"{name}.csv" for name in experiments}
    found = {name: pd.read_csv(path) for name, path in paths.items() if path.exists()}
    cells = {name: {cell.name for cell in experiments[name].cells(quick)} for name in found}
    return {name: table for name, table in found.items() if set(table.cell) == cells[name]}


def write(folder: Path, found: Mapping[str, pd.DataFrame], report: Callable[[str], object]) -> pd.DataFrame:
    """Write mechanistic.csv, one row per run, and the figure; return the mean accuracy on test by task and kind."""
    runs = pd.concat([results(table).assign(task=task) for task, table in found.items()], ignore_index=True)
    write_table(runs[_COLUMNS], folder / f"{NAME}.csv")
    write_figure(_draw(found).update_layout(title_text="mechanistic tasks"), folder / NAME, report)
    means = runs.pivot_table(index="task", columns="kind", values="test", sort=False)
    return means.reindex(columns=list(LABELS)).rename(columns={kind: label for kind, (label, _) in LABELS.items()})


def write_by_size(folder: Path, found: Mapping[str, pd.DataFrame], report: Callable[[str], object]) -> None:
    """Write the figure of all sizes, from tables of tasks and of their axes."""
    figure = axes.draw_all(found).update_layout(title_text="mechanistic tasks by size, one seed")
    write_figure(figure, folder / BY_SIZE, report)


def _draw(found: Mapping[str, pd.DataFrame]) -> go.Figure:
    rows = 2 if len(found) == len(TASKS) else 1
    columns = len(found) // rows
    page = panels(list(found), rows=rows, height=480 // rows + 120)
    for i, (task, table) in enumerate(found.items()):
        draw_curves(page, task, table, row=1 + i // columns, col=1 + i % columns)
    page.update_yaxes(title="right on validation", col=1)
    return page.update_xaxes(title="steps", row=rows)
