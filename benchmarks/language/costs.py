"""Bytes per second and peak memory of a training step and of evaluation, at equal weights, as ratios."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from benchmarks.alone import WARM_UP, cost
from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row
from benchmarks.figure import OURS, add_level, panels
from benchmarks.language.kinds import KINDS, LABELS
from benchmarks.language.model import Design, Hybrid, build
from benchmarks.language.modelling import QUICK, SIZES, ModellingRun
from benchmarks.learning import train_step
from benchmarks.recurrent import n_weights
from benchmarks.threshold import Threshold, at_least, at_most
from genoscan.training.optimizer import adamw
from genoscan.usage import MEBIBYTE

_ROUNDS = 5
_LONGER = 8
"""Length of the second size, of the first; with fewer sequences, so that the bytes are equal."""

_MEASURES: dict[str, tuple[str, Threshold]] = {
    "training_rate": ("training, bytes per second", at_least(1)),
    "training_bytes": ("training, peak memory", at_most(1)),
    "evaluation_rate": ("evaluation, bytes per second", at_least(1)),
    "evaluation_bytes": ("evaluation, peak memory", at_most(1)),
}
"""Names of the columns, and the thresholds of PD-SSM's, of Mamba-2's."""


def _sizes(size: str, quick: bool) -> list[ModellingRun]:
    settings = QUICK if quick else SIZES[size]
    base = ModellingRun(kind="mamba2", seed=1, **settings)
    n = max(1, base.sequences // _LONGER)
    return [base, ModellingRun(kind="mamba2", seed=1, **settings | {"length": _LONGER * base.length, "sequences": n})]


def _cells(size: str, quick: bool) -> Sequence[Cell]:
    return [
        Cell(
            f"{kind}, {run.length} bytes, round {i}",
            {"kind": kind, "length": run.length, "sequences": run.sequences, "round": i}
            | {key: getattr(run, key) for key in ("weights", "n_blocks", "attention_every", "heads")},
        )
        for run in _sizes(size, quick)
        for i in range(1, (1 if quick else _ROUNDS) + 1)
        for kind in KINDS
    ]


def _measure(cell: Cell, _before: Sequence[Row], environment: Environment) -> list[Row]:
    settings = dict(cell.settings)
    known = {"round": settings.pop("round"), **{key: settings[key] for key in ("kind", "length", "sequences")}}
    # In two processes: evaluation would reuse the memory that training has freed.
    return [known | environment.alone(training_cost, settings) | environment.alone(evaluation_cost, settings)]


def training_cost(*, length: int, sequences: int, device: str, threads: int, **design: Any) -> Row:
    """Measure a training step in this process.

    Returns
    -------
    dict
        Number of weights, width, bytes of text per second, and bytes of memory at the peak above those
        before: activations and gradients, without weights and the optimiser's moments.
    """
    torch.set_num_threads(threads)
    model, trained = build(Design(**design), 1, device=device)
    optimizer, weights = adamw(model, rate=1e-3, decay=0.1), list(model.parameters())

    def step(text: Tensor) -> None:
        train_step(trained, optimizer, weights, text[:, :-1], text[:, 1:], rate=1e-3)

    size = {"weights": n_weights(model), "width": model.embed.out_features}
    return size | _cost("training", step, model, length, sequences, device)


def evaluation_cost(*, length: int, sequences: int, device: str, threads: int, **design: Any) -> Row:
    """Measure an evaluation without gradients in this process, as `training_cost` does a step."""
    torch.set_num_threads(threads)
    model, _ = build(Design(**design), 1, device=device)

    @torch.no_grad()
    def evaluate(text: Tensor) -> None:
        model(text[:, :-1])

    return _cost("evaluation", evaluate, model, length, sequences, device)


def _cost(name: str, run: Callable[[Tensor], None], model: Hybrid, length: int, sequences: int, device: str) -> Row:
    text = torch.randint(model.embed.in_features, (sequences, length + 1), device=device)
    costs = cost(lambda: run(text[:, :WARM_UP]), lambda: run(text), device, again=3)
    return {f"{name}_rate": sequences * length / costs["seconds"], f"{name}_bytes": costs["extra_bytes"]}


def _ratios(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return PD-SSM's, of Mamba-2's, by round."""
    by_round = rows.pivot_table(index="round", columns="kind", values=column)
    return by_round["activated"] / by_round["mamba2"]


def _findings(table: pd.DataFrame) -> Iterator[Finding]:
    for length, rows in table.groupby("length", sort=False):
        for column, (measure, threshold) in _MEASURES.items():
            name = f"{length:,} bytes, {measure}"
            for kind, (label, _) in LABELS.items():
                unit, scale = ("per second", 1) if column.endswith("rate") else ("MiB", MEBIBYTE)
                yield Finding(f"{name}: {label}", rows[rows.kind == kind][column].median() / scale, unit)
            ratios = _ratios(rows, column)
            yield Finding(f"{name}: PD-SSM's, of Mamba-2's", ratios.median(), "times", threshold)
            yield Finding(f"the same, lowest of {len(ratios)} rounds", ratios.min(), "times")
            yield Finding(f"the same, highest of {len(ratios)} rounds", ratios.max(), "times")


def _draw(table: pd.DataFrame) -> go.Figure:
    lengths = list(table.length.unique())
    page = panels([f"PD-SSM's, of Mamba-2's, {length:,} bytes a sequence" for length in lengths])
    for col, length in enumerate(lengths, 1):
        for column, (measure, _) in _MEASURES.items():
            ratios = _ratios(table[table.length == length], column)
            page.add_scatter(
                x=[measure.replace(", ", ",<br>")] * len(ratios),
                y=ratios,
                mode="markers",
                marker_color=OURS[0],
                showlegend=False,
                row=1,
                col=col,
            )
        add_level(page, 1, row=1, col=col)
    return page.update_yaxes(rangemode="tozero", title="times", row=1, col=1).update_yaxes(rangemode="tozero")


def costs(size: str) -> Experiment:
    """Return the experiment, whose rows are measured in separate processes, Mamba-2 and PD-SSM in turn."""
    run, longer = _sizes(size, False)
    return Experiment(
        "costs of a hybrid language model",
        f"The models of `modelling`, {run.weights:,} weights each: a training step and an evaluation of "
        f"{run.sequences} sequences of {run.length:,} bytes, and of {longer.sequences} of {longer.length:,}. Each is "
        "measured in a separate process, Mamba-2 and PD-SSM in turn: the median time of three runs after a first one, "
        "and the peak memory of the first one less the memory after a warm-up, which contains weights and optimiser. "
        f"Ratios in each of {_ROUNDS} rounds.",
        lambda quick: _cells(size, quick),
        _measure,
        _findings,
        _draw,
    )
