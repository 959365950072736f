"""Accuracy by the number of states of a block that have a decay of their own, at one width; one seed."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import pandas as pd
import plotly.graph_objects as go

from benchmarks.experiment import Cell, Experiment, Finding
from benchmarks.figure import OURS, THEIRS, add_curves, add_level, panels
from benchmarks.mechanistic.experiments import QUICK, base_run, measure, results
from benchmarks.mechanistic.learn import accuracy_without_memory

_TASK = "selective-copying"
_STATES = 64, 128, 192
_WIDTH = 64
_LABELS = {"mamba": ("Mamba, one state per channel", THEIRS[0]), "activated": ("PD-SSM, heads of 8 states", OURS[0])}


def _cells(quick: bool) -> Sequence[Cell]:
    runs = [
        replace(base_run(_TASK), kind=kind, width=_WIDTH, states=states, **(QUICK if quick else {}))  # type: ignore[arg-type]
        for states in _STATES[: 1 if quick else None]
        for kind in _LABELS
    ]
    return [Cell(f"{run.kind}, {run.states} states", asdict(run)) for run in runs]


def _findings(table: pd.DataFrame) -> Iterator[Finding]:
    for row in results(table).to_dict("records"):
        name = f"{_LABELS[row['kind']][0]}: {row['states']} states, {row['weights']:,.0f} weights"
        yield Finding(name, row["test"])


def _draw(table: pd.DataFrame) -> go.Figure:
    page = panels([f"{_TASK} at a width of {_WIDTH}", "the same by weights"])
    rows = results(table)
    for col, x in enumerate(("states", "weights"), 1):
        add_curves(page, rows, _LABELS, x=x, y="test", row=1, col=col)
        add_level(page, accuracy_without_memory(base_run(_TASK)), row=1, col=col)
    page.update_xaxes(title="states per block", tickvals=_STATES, row=1, col=1)
    page.update_xaxes(title="weights", row=1, col=2)
    return page.update_yaxes(range=[0, 1.02], tickformat=".0%")


def _experiment() -> Experiment:
    return Experiment(
        f"{_TASK} by states",
        f"Two blocks of width {_WIDTH}, whose number of states varies, and with it that of inner channels; each state "
        "has its own decay. Mamba has one state per inner channel; PD-SSM has heads of 8 complex states and 8 maps "
        f"and is trained with the activated estimator. All other settings are those of {_TASK}; one seed.",
        _cells,
        measure,
        _findings,
        _draw,
    )


EXPERIMENTS = {f"{_TASK}-by-states": _experiment()}
