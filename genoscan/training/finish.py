"""Comparison of a trained model with its baselines, export of the model folder, and measurement of its window."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from genoscan.errors import InputError
from genoscan.genome.genome import Genome
from genoscan.genome.memory import SequenceGenome
from genoscan.layers.config import ModelConfig, ValidationResult
from genoscan.layers.weights import save_model
from genoscan.model import Model
from genoscan.training.card import CardFacts, HeldOutResult, verdicts, write_card
from genoscan.training.data import Piece, Split
from genoscan.training.evaluation import Network, baseline_metrics, bits_per_base, label_metrics
from genoscan.training.labels import LabelledHead
from genoscan.training.markov import MarkovBaseline, markov_baseline
from genoscan.training.objective import LanguageModel
from genoscan.training.state import read_state
from genoscan.window_error.grid import SCORED_BASES, chosen_target, window_grid
from genoscan.window_error.measurement import Measurement, prepare_measurement

CURVE, PLOT = "training.tsv", "training.html"
_KINDS = {"mamba": "Mamba", "mamba2": "Mamba-2", "pd_ssm": "PD-SSM"}
_VALIDATION = "validation data"
_LISTED = 8
"""Maximum number of sequences of a genome that the card lists one by one."""

_MEASURED_SHARE = 0.05
"""Bases that may be read to measure the window, relative to those processed in training."""

_FEWEST, _MOST = 4, 8
"""Smallest and largest number of regions in which the window error is measured."""


@dataclass(frozen=True)
class Finished:
    """A trained model, with the data for training and evaluation.

    Attributes
    ----------
    config, stack
        Configuration of the model, and trained network.
    split
        Training and validation data.
    genomes, tests
        Genomes that were divided into training and validation data, and genomes that were held out
        entirely.
    heads
        Task heads by name, with labels of the sequences in `genomes` and in the annotated `tests`.
    language_model
        What the language-model head was trained to predict: "next-base", "masked" or "none".
    origin
        Description of the model that provided the initial weights; "" if there was none.
    command
        Command that reproduces the training.
    bases_seen
        Number of bases processed in training, including repetitions.
    """

    config: ModelConfig
    stack: Network
    split: Split
    genomes: Sequence[Genome]
    tests: Sequence[Genome]
    heads: Mapping[str, LabelledHead]
    language_model: LanguageModel
    origin: str
    command: str
    bases_seen: int


def finish_model(output: Path, work: Path, trained: Finished) -> list[str]:
    """Score held-out sequences with the model and its baselines, and write the model folder.

    Parameters
    ----------
    output
        Model folder to write.
    work
        Folder that contains the checkpoint of the training run.
    trained
        The trained model and its data.

    Returns
    -------
    list of str
        Sentences that compare the model with its baselines (see `verdicts`).

    Raises
    ------
    InputError
        If a set of sequences has no base that can be scored.
    """
    config, stack, split = trained.config, trained.stack, trained.split
    held_out = {_VALIDATION: split.validation}
    for genome in trained.tests:
        held_out[genome.path.name] = [
            _whole(genome, chrom, trained.heads) for chrom, size in genome.sizes.items() if size
        ]
    chain = _markov(trained, held_out)
    results = [_result(trained, name, pieces, chain) for name, pieces in held_out.items()]
    if trained.language_model == "next-base" and (bits := results[0].model) is not None:
        validation = ValidationResult(bits=round(bits, 4), composition=round(results[0].composition, 4))
    else:
        validation = None
    state = read_state(work)
    facts = CardFacts(
        name=output.name,
        kind=_describe_layers(config),
        predicts=_describe_predictions(trained),
        trained_on=config.trained_on,
        command=trained.command,
        sources=[source for genome in trained.genomes for source in _describe_sources(genome)],
        split=_describe_split(split),
        origin=trained.origin,
        weights=sum(weight.numel() for weight in stack.parameters()),
        training_bases=split.n_training,
        bases_seen=trained.bases_seen,
        hours=state.seconds / 3600,
        hardware=_hardware(state.settings),
        markov="" if chain is None else f"order {chain.order}, smoothing {chain.smoothing:g}",
        held_out=results,
    )
    save_model(output, config.model_copy(update={"validation": validation}), stack, write_card(facts))
    rows = pd.json_normalize(state.rows)
    rows.columns = rows.columns.str.removeprefix("labels.")
    rows.to_csv(output / CURVE, sep="\t", index=False, float_format="%.5g")
    _plot(rows, output.name).write_html(output / PLOT, include_plotlyjs=True)
    return verdicts(facts.held_out)


def prepare_window(model: Model, trained: Finished) -> Measurement:
    """Prepare to measure how much the scores of a trained model depend on the window.

    Parameters
    ----------
    model
        The trained model, as loaded from its folder.
    trained
        The data and the size of the training run.

    Returns
    -------
    Measurement
        Measurement in 4 to 8 regions of the validation data, for which at most 5 % of the number of
        bases processed in training are read.

    Raises
    ------
    InputError
        If this is not enough for 4 regions, or if the validation data is too short, or has too many unknown bases,
        for the windows.
    """
    pieces = {f"validation {i}": piece.codes for i, piece in enumerate(trained.split.validation, 1)}
    target = chosen_target(model)
    grid, size = window_grid(model, target), max(map(len, pieces.values()), default=0)
    # Regions are drawn from half of the longest piece or more.
    possible = (size - SCORED_BASES) // 4
    if possible < grid.shortest:
        raise InputError(
            f"the longest piece of validation data has {size:,} bases, expected at least "
            f"{SCORED_BASES + 4 * grid.shortest:,}"
        )
    grid = window_grid(model, target, min(grid.context, possible))
    n_regions = int(_MEASURED_SHARE * trained.bases_seen / grid.cost)
    if n_regions < _FEWEST:
        raise InputError(
            f"{trained.bases_seen:,} bases were processed in training, and the measurement reads at most "
            f"{_MEASURED_SHARE:.0%} as many; expected at least {math.ceil(_FEWEST * grid.cost / _MEASURED_SHARE):,}"
        )
    n_regions = min(n_regions, _MOST)
    try:
        return prepare_measurement(
            model, SequenceGenome(pieces), n_regions=n_regions, longest=grid.context, name=_VALIDATION
        )
    except InputError:
        raise InputError(
            f"the validation data has fewer than {n_regions} regions with {grid.context:,} known bases on both sides"
        ) from None


def _describe_sources(genome: Genome) -> list[str]:
    """Return a line for each sequence of a genome, or a single line if there are many."""
    name, sizes = genome.path.name, genome.sizes
    if len(sizes) > _LISTED:
        return [f"{name}: {len(sizes):,} sequences, {sum(sizes.values()):,} bases"]
    return [f"{name}: {chrom}, {size:,} bases, M5 {genome.m5(chrom)}" for chrom, size in sizes.items()]


def _whole(genome: Genome, chrom: str, heads: Mapping[str, LabelledHead]) -> Piece:
    labels = {name: head.labels[chrom] for name, head in heads.items() if chrom in head.labels}
    return Piece(genome.fetch(chrom, 0, genome.sizes[chrom]), labels)


def _markov(trained: Finished, held_out: Mapping[str, Sequence[Piece]]) -> MarkovBaseline | None:
    if trained.language_model != "next-base":
        return None
    codes = {name: [piece.codes for piece in pieces] for name, pieces in held_out.items()}
    return markov_baseline([piece.codes for piece in trained.split.training], codes[_VALIDATION], codes)


def _result(trained: Finished, name: str, pieces: Sequence[Piece], chain: MarkovBaseline | None) -> HeldOutResult:
    config, stack = trained.config, trained.stack
    masked, bits = trained.language_model == "masked", None
    if config.language_model:
        bits = bits_per_base(stack, config, pieces, masked=masked)
    labelled = bool(config.heads) and all(piece.labels for piece in pieces)
    return HeldOutResult(
        name,
        sum(len(piece.codes) for piece in pieces) if chain is None else chain.held_out[name].n_bases,
        bits,
        None if chain is None else chain.held_out[name].bits,
        _composition([piece.codes for piece in pieces]),
        label_metrics(stack, config, pieces) if labelled else {},
        baseline_metrics(trained.split.heads, trained.split.training, pieces) if labelled else {},
    )


def _describe_layers(config: ModelConfig) -> str:
    direction = "bidirectional" if config.layers[0].kind == "two_way" else "causal"
    return f"{direction} {' and '.join(dict.fromkeys(_KINDS[kind] for kind in config.mixers))}"


def _hardware(settings: Mapping[str, Any]) -> str:
    device, _, name = settings["device"].partition(" ")
    threads = settings["threads"]
    return f"one {name}" if device == "cuda" else f"{threads} CPU thread{'s' if threads > 1 else ''}"


def _describe_predictions(trained: Finished) -> str:
    predicted = {"next-base": ["each base from those before it"], "masked": ["masked bases"]}.get(
        trained.language_model, []
    )
    for name, head in trained.config.heads.items():
        predicted.append(f"{name} ({', '.join(head.labels)}) at each base")
    return "; and ".join(predicted)


def _describe_split(split: Split) -> str:
    trained = f"Trained on {split.n_training:,} bases"
    where = f" ({', '.join(split.regions)})" if split.regions else ""
    if isinstance(split.held_out, tuple):
        return f"{trained}{where}; {split.n_validation:,} bases ({', '.join(split.held_out)}) were held out."
    what = "region" if split.regions else "sequence"
    return f"{trained}{where}, the start of every {what}; the last {split.n_validation:,} were held out."


def _composition(sequences: Sequence[np.ndarray]) -> float:
    """Return the entropy of the base composition of the sequences, in bits."""
    counts = sum(np.bincount(codes[codes < 4], minlength=4) for codes in sequences)
    share = counts / np.sum(counts)
    return float(-(share * np.log2(share, where=share > 0, out=np.zeros(4))).sum())


def _plot(rows: pd.DataFrame, name: str) -> Any:
    """Return a plot of the training and validation losses, with other metrics on a second axis."""
    figure = go.Figure(layout={"title": f"Training of {name}", "template": "plotly_white"})
    for column in rows.columns.drop(["step", "bases", "seconds"]):
        if rows[column].notna().any() and not column.endswith(" F1"):
            in_bits = column in ("training_loss", "validation_bits")
            figure.add_scatter(
                x=rows["bases"], y=rows[column], name=column.replace("_", " "), yaxis="y" if in_bits else "y2"
            )
    figure.update_layout(
        xaxis_title="bases seen in training",
        yaxis_title="bits",
        yaxis2={"title": "accuracy or AUPRC", "overlaying": "y", "side": "right", "range": [0, 1]},
        legend={"x": 1.08},
    )
    return figure
