"""genoscan train: train a model on genomes."""

import math
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from genoscan.cli.inputs import open_model, parse_device, prepare_torch
from genoscan.cli.messages import log, warn_without_effect
from genoscan.cli.options import MACHINE, PATH
from genoscan.cli.progress import progress
from genoscan.errors import GenoscanError, InputError, OutputError

if TYPE_CHECKING:
    from genoscan.training.finish import Finished

_TICK = 10
"""Minimum number of seconds between two log lines about the progress of training."""


@click.command("train")
@click.argument("genomes", metavar="GENOME...", type=PATH, nargs=-1, required=True)
@click.option("-o", "--output", metavar="FOLDER", type=PATH, required=True, help="Model folder to create.")
@click.option(
    "--test",
    "tests",
    metavar="GENOME",
    type=PATH,
    multiple=True,
    help="Genome held out from training, scored on the model card; may be repeated.",
)
@click.option(
    "--trained-on",
    default="",
    metavar="TEXT",
    help="Description of the training data on the model card.  [default: names of the files]",
)
@click.option(
    "-r",
    "--region",
    "region_texts",
    metavar="REGION",
    multiple=True,
    help="Region to train on, as in samtools; may be repeated.  [default: all sequences]",
)
@click.option(
    "--validation",
    "validation",
    default=("0.1",),
    show_default="0.1",
    multiple=True,
    metavar="FRACTION|REGION",
    help="Held out for validation: a fraction of every sequence or --region, at its end, or a region; "
    "regions may be repeated.",
)
@click.option(
    "--labels",
    "label_paths",
    metavar="FILE",
    type=PATH,
    multiple=True,
    help="Annotation of the genomes (GFF3, GTF, GenBank or BED) from which task heads are learnt; may be repeated.",
)
@click.option(
    "--head",
    "scheme",
    type=click.Choice(["genes", "frames", "intervals"]),
    help="Task heads to learn from --labels: genes (class and splice sites, starts and stops of each "
    "base), frames (codon position, starts and stops; genomes without introns) or intervals (one "
    "label per feature name).",
)
@click.option(
    "--language-model",
    type=click.Choice(["next-base", "masked", "none"]),
    help="Language-model head: next-base, masked (bidirectional blocks only) or none.  [default: none with --head, "
    "otherwise masked for bidirectional blocks and next-base for causal ones]",
)
@click.option("--bidirectional", is_flag=True, help="Read each window in both directions.")
@click.option(
    "--rcps",
    is_flag=True,
    help="Share parameters between both strands, so that the reverse-complemented sequence has the "
    "reverse-complemented predictions; bidirectional blocks only.",
)
@click.option(
    "--from",
    "origin",
    metavar="MODEL",
    help="Start from the weights of a model; its blocks determine the architecture.",
)
@click.option("--freeze", is_flag=True, help="Train the heads only; requires --from.")
@click.option(
    "--site-weight",
    default=20.0,
    show_default=True,
    metavar="X",
    help="Weight of rare labels (heads with a sigmoid link) in the loss.",
)
@click.option("--width", default=128, show_default=True, metavar="N", help="Model width.")
@click.option("--layers", default=6, show_default=True, metavar="N", help="Number of blocks.")
@click.option(
    "--block",
    "kinds",
    type=click.Choice(["mamba", "pd_ssm"]),
    multiple=True,
    default=["mamba"],
    show_default=True,
    help="Kind of the blocks, of bidirectional blocks in both directions; if repeated, the blocks alternate between "
    "the kinds.",
)
@click.option(
    "--states", type=int, metavar="N", help="States per channel (Mamba) or per head (PD-SSM).  [default: 16 and 64]"
)
@click.option("--steps", default=4000, show_default=True, metavar="N", help="Number of weight updates.")
@click.option(
    "--window", default=2048, show_default=True, metavar="BASES", help="Bases of each stream between two updates."
)
@click.option(
    "--walk",
    type=int,
    metavar="N",
    help="Consecutive windows that a stream reads before it restarts at a random position.  [default: 8, "
    "1 for bidirectional blocks]",
)
@click.option("--batch", default=4, show_default=True, metavar="N", help="Streams read in parallel.")
@click.option("--rate", default=4e-3, show_default=True, metavar="X", help="Peak learning rate.")
@click.option(
    "--seed", default=1, show_default=True, metavar="N", help="Seed of the initial weights and the streams' positions."
)
@click.option(
    "--tile",
    default=2048,
    show_default=True,
    metavar="BASES",
    help="Bases processed at once; determines the memory, regardless of the window.",
)
@click.option(
    "--slots",
    default=16,
    show_default=True,
    metavar="N",
    help="Carries stored as checkpoints; fewer take less memory and more time.",
)
@click.option(
    "--surrogate",
    type=click.Choice(["activated", "straight_through"]),
    default="activated",
    show_default=True,
    help="Estimator of the gradient of PD-SSM's discrete selections: from the selected entries "
    "(activated) or from all entries (straight_through).",
)
@MACHINE
def command(
    genomes: tuple[Path, ...],
    output: Path,
    tests: tuple[Path, ...],
    trained_on: str,
    region_texts: tuple[str, ...],
    validation: tuple[str, ...],
    label_paths: tuple[Path, ...],
    scheme: str | None,
    language_model: Literal["next-base", "masked", "none"] | None,
    bidirectional: bool,
    rcps: bool,
    origin: str | None,
    freeze: bool,
    site_weight: float,
    width: int,
    layers: int,
    kinds: tuple[Literal["mamba", "pd_ssm"], ...],
    states: int | None,
    steps: int,
    window: int,
    walk: int | None,
    batch: int,
    rate: float,
    seed: int,
    tile: int,
    slots: int,
    surrogate: Literal["activated", "straight_through"],
    dtype: str,
    device: str,
    threads: int | None,
) -> None:
    """Train a Mamba or PD-SSM model on genomes.

    The memory needed to train a causal model does not depend on --window. To continue an interrupted run
    from its last report, repeat the same command with the same sequences, settings, number of threads
    and version of genoscan. The model card compares the model with baselines on the same held-out bases; the
    verdict is also printed.
    """
    from genoscan.composition import gc_range
    from genoscan.genome.genome import open_genome
    from genoscan.training.setup import (
        Architecture,
        check_tests,
        extended_config,
        initial_weights,
        new_config,
        read_labels,
        read_split,
    )
    from genoscan.training.train import Progress, TrainOptions, train

    before = None if origin is None else open_model(origin, dtype, device, threads)
    both = bidirectional if before is None else before.bidirectional
    if walk is None:
        walk = 1 if both else 8
    sizes = {
        "width": width,
        "layers": layers,
        "steps": steps,
        "window": window,
        "walk": walk,
        "batch": batch,
        "tile": tile,
        "slots": slots,
    }
    if states is not None:
        sizes["states"] = states
    _check(sizes, rate, seed, site_weight, dtype, output)
    if bool(label_paths) != (scheme is not None):
        raise InputError("--labels and --head: expected both, or neither")
    if freeze and origin is None:
        raise InputError("--freeze: expected --from too, because random blocks would never be trained")
    prepare_torch(threads)
    opened = [open_genome(path) for path in genomes]
    unseen = [open_genome(path) for path in tests]
    heads = read_labels(label_paths, scheme, opened, unseen) if scheme else {}
    split = read_split(opened, region_texts, validation, heads)
    check_tests(unseen, split)
    predicts = language_model or ("none" if scheme else "masked" if both else "next-base")
    about: dict[str, Any] = {
        "language_model": predicts,
        "heads": {name: head.config for name, head in heads.items()},
        "trained_on": trained_on or ", ".join(path.name for path in genomes),
        "gc_range": gc_range(piece.codes for piece in split.training),
    }
    initial = None
    if before is None:
        architecture = Architecture(width, layers, kinds, states, bidirectional, rcps)
        config = new_config(architecture, window=window, **about)
    else:
        warn_without_effect(**dict.fromkeys(("width", "layers", "kinds", "states", "bidirectional", "rcps"), "--from"))
        config = extended_config(before, **about)
        initial = initial_weights(before, config)
    without_effect = {}
    if "pd_ssm" not in config.mixers:
        without_effect["surrogate"] = "no block is of kind pd_ssm"
    if both:
        without_effect["slots"] = "the model is bidirectional"
    if not any(head.config.link == "sigmoid" for head in heads.values()):
        without_effect["site_weight"] = "no label is trained as present or absent"
    warn_without_effect(**without_effect)
    options = TrainOptions(
        steps=steps,
        window=window,
        walk=walk,
        batch=batch,
        rate=rate,
        seed=seed,
        tile=tile,
        slots=slots,
        surrogate=surrogate,
        language_model=predicts,
        site_weight=site_weight,
        freeze=freeze,
    )

    def report(done: Progress) -> None:
        found = [] if done.validation_bits is None else [f"{done.validation_bits:.4f} bits per base"]
        found += [f"{name} {value:.3f}" for name, value in done.labels.items() if not name.endswith(" F1")]
        log(
            f"step {done.step:,} of {steps:,}: {done.bases:,} bases, {done.seconds:,.0f} s, loss "
            f"{done.training_loss:.4f} bits; validation: {', '.join(found)}"
        )

    from genoscan.tracks.atomic import atomic_directory, partial_folder
    from genoscan.tracks.provenance import portable_command
    from genoscan.training.finish import Finished, finish_model
    from genoscan.training.state import open_work

    work = partial_folder(output)
    with _file_errors(work), open_work(work):
        stack = train(
            config,
            split,
            options,
            work=work,
            device=parse_device(device),
            initial=initial,
            report=report,
            before_steps=lambda step: log(
                f"step {step:,} of {steps:,}: {split.n_training:,} bases for training, {split.n_validation:,} held out"
            ),
            after_step=_ticker(steps, batch * window),
        )
        trained = Finished(
            config=config,
            stack=stack,
            split=split,
            genomes=opened,
            tests=unseen,
            heads=heads,
            language_model=predicts,
            origin=""
            if before is None
            else f"Started from the weights of {before.name} (sha256 {before.weights_sha256}).",
            command=shlex.join(portable_command(["genoscan", *sys.argv[1:]])),
            bases_seen=steps * batch * window,
        )
        with atomic_directory(output) as made:
            compared = finish_model(made, work, trained)
        shutil.rmtree(work)
    for verdict in compared:
        click.echo(verdict)
    click.echo(output)
    _measure_window(output, trained, parse_device(device))


def _measure_window(folder: Path, trained: "Finished", device: str) -> None:
    """Measure how much the scores of a trained model depend on the window, and write the results to its folder.

    The model is complete before. An error is logged, with the command that measures.
    """
    from genoscan.estimate import passes
    from genoscan.model import load_model
    from genoscan.training.finish import prepare_window
    from genoscan.window_error.files import write_window_errors
    from genoscan.window_error.grid import measuring_command
    from genoscan.window_error.measurement import measure

    model = load_model(folder, device=device)
    try:
        prepared = prepare_window(model, trained)
        log(f"measuring the window error in {len(prepared.logits)} regions of the validation data")
        with progress(sum(map(passes, prepared.jobs))) as advance:
            errors = measure(prepared, progress=advance)
        write_window_errors(folder, errors)
    except GenoscanError as error:
        command = measuring_command(model, str(folder), str(trained.genomes[0].path))
        log(f"window error not measured: {error}; to measure it: {command}")


def _ticker(steps: int, bases: int) -> Callable[[int, float], None]:
    """Return a function that logs the loss, the speed and the remaining time of training.

    The returned function is called after each step and logs at most one line every 10 seconds.

    Parameters
    ----------
    steps
        Total number of steps.
    bases
        Number of bases per step.
    """
    first: list[tuple[int, float]] = []
    last = [-math.inf]

    def after_step(step: int, loss: float) -> None:
        now = time.monotonic()
        if not first:
            first.append((step, now))
        if now < last[0] + _TICK:
            return
        last[0] = now
        text = f"step {step:,} of {steps:,}: loss {loss:.4f} bits"
        if step > first[0][0]:
            pace = (now - first[0][1]) / (step - first[0][0])
            text += f", {bases / pace:,.0f} bases/s, {(steps - step) * pace / 60:,.0f} min left"
        log(text)

    return after_step


def _check(sizes: Mapping[str, int], rate: float, seed: int, site_weight: float, dtype: str, output: Path) -> None:
    """Raise an error if an option is invalid or the output folder cannot be created."""
    from genoscan.tracks.atomic import check_new_folder

    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"--{name} {size}: expected at least 1")
    for name, number in (("rate", rate), ("site-weight", site_weight)):
        if not 0 < number < math.inf:
            raise InputError(f"--{name} {number}: expected a number above 0")
    if seed < 0:
        raise InputError(f"--seed {seed}: expected 0 or more")
    if dtype != "float32":
        raise InputError(f"--dtype {dtype}: training is in float32")
    check_new_folder(output)


@contextmanager
def _file_errors(work: Path) -> Iterator[None]:
    """Context manager that raises `OutputError` if a file of a training run cannot be read or written."""
    from safetensors import SafetensorError

    from genoscan.tracks.atomic import os_errors

    try:
        with os_errors(work):
            yield
    except SafetensorError as error:
        raise OutputError(f"{work}: {error}") from error
