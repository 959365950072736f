"""PD-SSM on two planted motifs, each time without one property of its block or training."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import get_args

import pandas as pd
import plotly.graph_objects as go
import torch

from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row
from benchmarks.figure import OURS, panels
from benchmarks.series.data import fresh, planted
from benchmarks.series.learn import KNOWN, Change, Run, learn

_SEEDS = 1, 2, 3
_LENGTHS = 256, 1_024, 4_096
_VALIDATION, _TEST = (40, 10_000_019), (100, 20_000_003)
LABELS: dict[Change, str] = {
    "": "all as by default",
    "coupling": "inflow and phases independent of the step size, which is a relu",
    "kept maps": "permutations instead of identity maps",
    "zero phases": "uniform initial phases",
    "log-uniform steps": "initial step sizes uniform up to 0.1",
    "step weights": "initial weights of the step sizes not enlarged",
    "activated": "straight-through estimator",
}


def ablations() -> Experiment:
    """Return the experiment."""
    return Experiment(
        "long series: the default without one of its properties",
        f"Which of two motifs comes first, as in long-series-of-2, up to {_LENGTHS[-1]:,} steps: each length once "
        f"the one before is learnt (mean loss of 25 updates below {KNOWN}), at most {Run('pd_ssm', 1).steps} updates "
        "each. One property at a time is replaced by another.",
        _cells,
        _measure,
        _findings,
        _draw,
    )


def _cells(quick: bool) -> Sequence[Cell]:
    runs = [
        Run("pd_ssm", seed, lengths=_LENGTHS, without=change)
        for change in get_args(Change)
        for seed in (_SEEDS[:1] if quick else _SEEDS)
    ]
    short = {"width": 8, "d_state": 8, "steps": 1, "batch": 1, "lengths": (256,)} if quick else {}
    return [Cell(f"without {run.without or 'nothing'}, seed {run.seed}", asdict(run) | short) for run in runs]


def _measure(cell: Cell, _before: Sequence[Row], environment: Environment) -> list[Row]:
    """Return a row for every length that was tried."""
    torch.set_num_threads(environment.threads)
    run = Run(**cell.settings)
    (n_validation, seed), (n_test, test_seed) = _VALIDATION, _TEST
    if environment.quick:
        n_validation = n_test = 2
    last = run.lengths[-1]
    learnt = learn(run, partial(fresh, 2), planted(n_validation, last, seed), planted(n_test, last, test_seed))
    ends = pd.DataFrame(learnt.curve, columns=["step", "length", "loss", "validation"]).groupby("length").last()
    ends["updates"] = ends.step.diff().fillna(ends.step)
    known: Row = {"without": run.without or "nothing", "seed": run.seed, "test": learnt.test, "failure": learnt.failure}
    return [known | {str(key): value for key, value in row.items()} for row in ends.reset_index().to_dict("records")]


def _findings(table: pd.DataFrame) -> Iterator[Finding]:
    for change, label in LABELS.items():
        runs = table[table.without == (change or "nothing")].groupby("seed")
        last = runs.last()
        yield Finding(f"{label}: right at {_LENGTHS[-1]:,} steps, mean of {len(last)} seeds", last.test.mean())
        learnt = last[(last.length == _LENGTHS[-1]) & (last.loss < KNOWN)]
        yield Finding(f"{label}: seeds that learn {_LENGTHS[-1]:,} steps", float(len(learnt)))
        if len(learnt):
            updates = runs.updates.sum()[learnt.index]
            yield Finding(f"{label}: updates until then, mean of these", updates.mean())


def _draw(table: pd.DataFrame) -> go.Figure:
    page = panels([f"right at {_LENGTHS[-1]:,} steps, by seed", "updates, by seed"])
    last = table.groupby(["without", "seed"], sort=False).last().reset_index()
    updates = table.groupby(["without", "seed"], sort=False).updates.sum().reset_index()
    for col, (runs, what) in enumerate(((last, "test"), (updates, "updates")), 1):
        names = [LABELS["" if name == "nothing" else name] for name in runs.without]
        page.add_scatter(x=runs[what], y=names, mode="markers", marker_color=OURS[0], showlegend=False, row=1, col=col)
        page.update_yaxes(autorange="reversed", showticklabels=col == 1, row=1, col=col)
    page.update_xaxes(range=[0.3, 1.02], tickformat=".0%", row=1, col=1)
    return page.update_xaxes(rangemode="tozero", row=1, col=2)
