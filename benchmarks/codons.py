"""Gene models of Mamba, of PD-SSM and of both, trained to predict the codon position of every base."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
import plotly.graph_objects as go
import torch

from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row, checksums
from benchmarks.figure import OURS, THEIRS, add_curves, add_seeds, panels
from benchmarks.genes.accuracy import class_accuracy, labelled_regions, predict
from benchmarks.recurrent import Kind, block, closest_width, equal_weights, n_weights
from genoscan.genome.genome import open_genome
from genoscan.layers.bidirectional import BidirectionalConfig
from genoscan.layers.config import ModelConfig
from genoscan.layers.heads import HeadConfig
from genoscan.layers.weights import build, save_model
from genoscan.model import load_model
from genoscan.training.setup import Architecture, new_config, read_labels, read_split
from genoscan.training.train import Progress, TrainOptions, train

Blocks = Literal["mamba", "pd_ssm", "mixed"]

_KINDS: dict[Blocks, tuple[Kind, ...]] = {
    "mamba": ("mamba",),
    "pd_ssm": ("activated",),
    "mixed": ("mamba", "activated"),
}
"""Kinds of blocks, which alternate."""

_LABELS = {"mamba": ("Mamba", THEIRS[0]), "pd_ssm": ("PD-SSM", OURS[0]), "mixed": ("both, alternating", OURS[1])}
_SEEDS = 1, 2
_WIDTHS = range(16, 257)


@dataclass(frozen=True)
class Run:
    """Settings that determine a run, bit for bit on one machine.

    blocks   kinds of blocks
    weights  number of weights, which the width is chosen for
    steps    updates, of `batch` windows each, in runs with equal bases
    equal    what is equal for all kinds: the bases, or the processor time, which is that of the fastest run with equal
             bases and the same seed
    """

    blocks: Blocks
    seed: int
    equal: Literal["bases", "time"] = "bases"
    weights: int = 120_000
    n_layers: int = 4
    steps: int = 300
    window: int = 4_096
    batch: int = 4
    rate: float = 4e-3
    warm_up: int = 30
    every: int = 25


def experiment(training: Path, test: Path) -> Experiment:
    """Return the experiment for two annotated genomes, to train and to test on."""
    run = Run("mamba", 1)
    return Experiment(
        f"codon position, trained on {training.name}, tested on {test.name}",
        f"{run.n_layers} bidirectional blocks at {run.weights:,} weights, which determine the width: Mamba of 16 "
        "states a channel, PD-SSM of 8 heads of 8 complex states and 8 maps, or both in turn. Heads: frames (none, or "
        f"codon position and strand) and starts and stops. AdamW at {run.rate:g}, {run.steps:,} steps of {run.batch} "
        f"windows of {run.window:,} bases, both strands, or as many steps as fit into the time of the fastest of these "
        "runs; a twentieth of every sequence is held out for validation.",
        _cells,
        partial(_measure, training, test),
        _findings,
        _draw,
        data=checksums([training, test]),
    )


def _cells(quick: bool) -> Sequence[Cell]:
    short = {"weights": 20_000, "n_layers": 2, "steps": 2, "window": 256, "batch": 1, "every": 1} if quick else {}
    runs = [
        replace(Run(blocks, seed), equal=equal, **short)  # type: ignore[arg-type]
        for equal in ("bases", "time")
        for seed in (_SEEDS[:1] if quick else _SEEDS)
        for blocks in _KINDS
    ]
    return [Cell(f"{run.blocks} seed {run.seed}, equal {run.equal}", asdict(run)) for run in runs]


def steps_of_equal_time(run: Run, before: Sequence[Row]) -> int:
    """Return the number of steps of a run that take as long as the fastest run with equal bases and its seed."""
    rows = results(pd.DataFrame(before))
    seconds = rows[(rows.seed == run.seed) & (rows.equal == "bases")].set_index("kind").seconds
    return max(1, round(run.steps * seconds.min() / seconds[run.blocks]))


def _measure(training: Path, test: Path, cell: Cell, before: Sequence[Row], environment: Environment) -> list[Row]:
    """Train, and return a row for every report, and one for the test."""
    torch.set_num_threads(environment.threads)
    run = Run(**cell.settings)
    if run.equal == "time":
        steps = steps_of_equal_time(run, before)
        if steps == run.steps:  # the fastest run, or one as fast
            same = [row for row in before if (row["kind"], row["seed"]) == (run.blocks, run.seed)]
            return [row | {"cell": cell.name, "equal": run.equal} for row in same]
        run = replace(run, steps=steps)
    genome = open_genome(training)
    heads = read_labels([training], "frames", [genome])
    split = read_split([genome], (), ("0.05",), heads)
    config = config_of(run, {name: head.config for name, head in heads.items()})
    known: Row = {"kind": run.blocks, "seed": run.seed, "equal": run.equal}
    rows: list[Row] = []
    started = time.process_time()

    def report(done: Progress) -> None:
        seconds = time.process_time() - started
        accuracy = {"loss": done.training_loss, "validation": done.labels["frames accuracy"]}
        rows.append(known | {"step": done.step, "bases": done.bases, "seconds": seconds} | accuracy)

    options = TrainOptions(
        steps=run.steps,
        window=run.window,
        walk=1,
        batch=run.batch,
        rate=run.rate,
        warm_up=run.warm_up,
        seed=run.seed,
        tile=run.window,
        report_every=run.every,
        language_model="none",
    )
    with tempfile.TemporaryDirectory() as folder:
        made = train(config, split, options, work=Path(folder), device=environment.device, report=report)
        save_model(Path(folder, "model"), config, made, "")
        model = load_model(Path(folder, "model"), device=environment.device)
    parts = labelled_regions(test, test, "frames", ())
    answers = [predict(model, part)["frames"] for part in parts]
    last = {"test": class_accuracy(parts, answers, "frames"), "weights": n_weights(made), "width": config.d_model}
    return [*rows, rows[-1] | last]


def config_of(run: Run, heads: dict[str, HeadConfig]) -> ModelConfig:
    """Return the configuration with the number of weights closest to that of the run."""

    def config(width: int) -> ModelConfig:
        new = new_config(
            Architecture(width, run.n_layers, bidirectional=True),
            window=run.window,
            language_model="none",
            heads=heads,
            trained_on="",
        )
        kinds = _KINDS[run.blocks]
        layers = [BidirectionalConfig(inner=block(kinds[i % len(kinds)], width)) for i in range(run.n_layers)]
        return new.model_copy(update={"layers": tuple(layers)})

    return config(closest_width(lambda width: build(config(width), device="meta"), run.weights, _WIDTHS))


def results(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the results of runs."""
    return table.dropna(subset=["test"])


def _findings(table: pd.DataFrame) -> Iterator[Finding]:
    rows = results(table)
    for kind, (label, _) in _LABELS.items():
        for equal in ("bases", "time"):
            runs = rows[(rows.kind == kind) & (rows.equal == equal)]
            name = f"{label}, equal {equal}"
            yield Finding(f"{name}: accuracy on the test genome, mean of {len(runs)} seeds", runs.test.mean())
            yield Finding(f"{name}: accuracy on validation data", runs.validation.mean())
            yield Finding(f"{name}: steps", runs.step.mean())
            yield Finding(f"{name}: a run", runs.seconds.mean() / 60, "processor minutes")
    yield equal_weights(rows)


def _draw(table: pd.DataFrame) -> go.Figure:
    axes = {"bases": ("millions", "million bases"), "time": ("minutes", "processor minutes")}
    page = panels([f"{split}, equal {equal}" for split in ("validation", "test genome") for equal in axes], rows=2)
    scaled = table.assign(millions=table.bases / 1e6, minutes=table.seconds / 60)
    for col, (equal, (x, title)) in enumerate(axes.items(), 1):
        rows = scaled[scaled.equal == equal]
        add_curves(page, rows[rows.test.isna()], _LABELS, x=x, y="validation", row=1, col=col)
        page.update_xaxes(title=title, row=1, col=col)
        add_seeds(page, results(rows), _LABELS, y="test", row=2, col=col)
    return page.update_yaxes(range=[0, 1.02], tickformat=".0%")
