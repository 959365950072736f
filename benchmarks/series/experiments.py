"""START HERE: accuracy on long series, and the cost of a training step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from benchmarks.alone import WARM_UP, cost
from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row, checksums
from benchmarks.figure import OURS, THEIRS, add_curves, panels
from benchmarks.series.data import CHANNELS, LENGTH, Series, fresh, planted, read_ts, split
from benchmarks.series.learn import Draw, Run, build, derivatives, learn
from benchmarks.threshold import at_most
from genoscan.layers.pd_ssm import with_surrogate
from genoscan.usage import MEBIBYTE

_LABELS = {"pd_ssm": ("PD-SSM", OURS[0]), "mamba": ("Mamba", THEIRS[0])}
_SEEDS = 1, 2, 3
_LENGTHS = {2: (256, 1_024, 4_096), 3: (512, 2_048, 8_192)}
"""Shorter series, trained on first, by the number of motifs."""
_TITLES = {2: "which of two motifs comes first", 3: "whether the order of three motifs is even"}
_VALIDATION, _TEST = (60, 10_000_019), (200, 20_000_003)
"""Number of planted series, and their seed."""

Parts = Callable[[bool, int], tuple[Draw, Series, Series]]
"""(quick, seed) -> training, validation and test series."""


def planted_order(n_motifs: int) -> Experiment:
    """Return the experiment on series with two or three planted motifs."""
    lengths = _LENGTHS[n_motifs]

    def parts(quick: bool, _seed: int) -> tuple[Draw, Series, Series]:
        validation, test = (
            planted(6, 400, seed, n_motifs) if quick else planted(n, LENGTH, seed, n_motifs)
            for n, seed in (_VALIDATION, _TEST)
        )
        return partial(fresh, n_motifs), validation, test

    return _experiment(
        _TITLES[n_motifs],
        f"Noise in {CHANNELS} channels, {LENGTH:,} steps; {n_motifs} motifs, at least {LENGTH // (2 * n_motifs - 1):,} "
        f"apart. New series every update, of {', '.join(map(str, lengths))} steps first, longer "
        f"once those are known; {_VALIDATION[0]} choose the weights, {_TEST[0]} others test them.",
        Run("pd_ssm", 1, lengths=(*lengths, LENGTH)),
        parts,
    )


def files(paths: Sequence[Path]) -> Experiment:
    """Return the experiment on series of the UEA archive, cases of all files pooled.

    Raises
    ------
    SeriesError
        If a file does not conform to the .ts format.
    """
    series = read_ts(list(paths))

    def parts(_quick: bool, seed: int) -> tuple[Draw, Series, Series]:
        training, validation, test = split(series, seed)

        def draw(random: np.random.Generator, n: int, _length: int) -> Series:
            return training.part(random.choice(len(training), min(n, len(training)), replace=False))

        return draw, validation, test

    return _experiment(
        f"classes of {paths[0].stem.split('_')[0]}",
        f"{', '.join(path.name for path in paths)}: {len(series):,} cases of "
        f"{series.x.shape[1]:,} steps, 70, 15 and 15 % by seed, as in PD-SSM's paper.",
        Run("pd_ssm", 1, steps=2_000, rate=2e-3, every=100),
        parts,
        checksums(paths),
    )


def _experiment(
    title: str, what: str, one: Run, parts: Parts, data: Mapping[str, str] = MappingProxyType({})
) -> Experiment:
    def cells(quick: bool) -> list[Cell]:
        short: dict[str, Any] = {}
        if quick:
            short = {"width": 8, "d_state": 8, "steps": 2, "batch": 2, "every": 1}
            short["lengths"] = (400, 420) if one.lengths else ()
        runs = [
            Run(**asdict(one) | {"kind": kind, "seed": seed} | short)
            for seed in (_SEEDS[:1] if quick else _SEEDS)
            for kind in _LABELS
        ]
        shape = {"width": runs[0].width, "d_state": runs[0].d_state, "n_layers": one.n_layers}
        lengths = (256, 1_024) if quick else (LENGTH // 8, LENGTH, 4 * LENGTH)
        return [
            *(
                Cell(f"{kind} step, {length:,}", {"kind": kind, "length": length} | shape)
                for kind in _LABELS
                for length in lengths
            ),
            *(Cell(f"{run.kind} seed {run.seed}", asdict(run)) for run in runs),
        ]

    def measure(cell: Cell, _before: Sequence[Row], environment: Environment) -> list[Row]:
        """Return the cost of a step, or the results of a run."""
        if "length" in cell.settings:
            return [{"what": "step", **cell.settings} | environment.alone(step_cost, cell.settings)]
        torch.set_num_threads(environment.threads)
        run = Run(**cell.settings)
        return _learnt(run, parts(environment.quick, run.seed))

    setup = (
        f"{what} {one.n_layers} blocks of {one.width} channels: PD-SSM of {one.d_state} states, or "
        "Mamba of 16 a channel, of the width with the same number of weights. Mean of the outputs over all steps, "
        f"softmax; Adam at {one.rate:g}{', halved at each longer length' if one.lengths else ''}; {one.batch} series a "
        f"step, more of short ones, at most {one.steps:,} steps a length; best on validation is tested."
    )
    return Experiment(f"long series: {title}", setup, cells, measure, _findings, _draw, data)


def _learnt(run: Run, parts: tuple[Draw, Series, Series]) -> list[Row]:
    learnt = learn(run, *parts)
    known: Row = {"kind": run.kind, "seed": run.seed}
    names = "step", "length", "loss", "validation"
    rows = [{"what": "curve"} | known | dict(zip(names, p, strict=True)) for p in learnt.curve]
    best = max(row["validation"] for row in rows)
    last = {"validation": best, "test": learnt.test, "weights": learnt.weights, "failure": learnt.failure}
    return [*rows, {"what": "answer"} | known | last]


def step_cost(kind: str, length: int, width: int, d_state: int, n_layers: int, *, device: str, threads: int) -> Row:
    """Measure the derivatives of all parameters for one series in this process."""
    torch.set_num_threads(threads)
    series = planted(1, length, seed=0)
    run = Run(kind, 1, width=width, d_state=d_state, n_layers=n_layers)  # type: ignore[arg-type]
    stack = with_surrogate(build(run, CHANNELS, 2), run.surrogate)
    x, labels = torch.from_numpy(series.x), torch.from_numpy(series.labels)
    return cost(
        lambda: derivatives(stack, x[:, :WARM_UP].clone(), labels),
        lambda: derivatives(stack, x, labels),
        device,
        again=3,
    )


def _findings(table: pd.DataFrame) -> Iterator[Finding]:
    for kind, (label, _) in _LABELS.items():
        rows = table[table.kind == kind]
        answers, steps = rows[rows.what == "answer"], rows[rows.what == "step"]
        chosen = answers.sort_values("validation").iloc[-1]
        yield Finding(f"{label}: right, best seed on validation", chosen.test)
        yield Finding(f"{label}: right, mean of {len(answers)} seeds", answers.test.mean())
        for row in steps.to_dict("records"):
            name = f"{label}, one series of {row['length']:,.0f} steps"
            yield Finding(f"{name}: peak memory", row["extra_bytes"] / MEBIBYTE, "MiB")
            yield Finding(f"{name}: derivatives", row["seconds"], "s")
            if kind == "pd_ssm" and row["length"] == LENGTH:
                dense = 4 * row["length"] * row["d_state"] ** 2
                yield Finding(
                    f"{name}: peak memory against one layer's soft matrices, stored",
                    row["extra_bytes"] / dense,
                    "times",
                    at_most(0.15),
                )
        (_, at), (longest, most) = steps[["length", "extra_bytes"]].to_numpy()[-2:]
        yield Finding(
            f"{label}: peak memory at {longest:,.0f} against a quarter of that",
            most / max(at, 1),
            "times",
            at_most(1.05),
        )


def _draw(table: pd.DataFrame) -> go.Figure:
    page = panels(["right on validation, at full length", "peak memory of a step"])
    add_curves(page, table[table.what == "curve"], _LABELS, x="step", y="validation", row=1, col=1)
    for kind, (label, shade) in _LABELS.items():
        steps = table[(table.kind == kind) & (table.what == "step")]
        page.add_scatter(
            x=steps.length,
            y=steps.extra_bytes / MEBIBYTE,
            name=label,
            legendgroup=label,
            showlegend=False,
            mode="lines+markers",
            line_color=shade,
            row=1,
            col=2,
        )
    page.update_yaxes(range=[0, 1.02], tickformat=".0%", row=1, col=1)
    page.update_xaxes(title="updates", row=1, col=1)
    lengths = sorted(table.length[table.what == "step"].unique())
    ticks = {"tickvals": lengths, "ticktext": [f"{length:,.0f}" for length in lengths]}
    page.update_xaxes(title="steps of the series", type="log", **ticks, row=1, col=2)
    return page.update_yaxes(title="MiB", rangemode="tozero", row=1, col=2)
