"""genoscan train: train a model on genomes."""

import math
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click

from genoscan.cli.options import MACHINE, PATH, log, parse_device, set_threads, warn_without_effect
from genoscan.errors import InputError, OutputError


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
    "--validation",
    default=0.1,
    show_default=True,
    metavar="FRACTION",
    help="Fraction of every sequence, at its end, held out for validation.",
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
    help="Kind of the blocks; if repeated, the blocks alternate between the kinds.",
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
    default=8,
    show_default=True,
    metavar="N",
    help="Consecutive windows that a stream reads before it restarts at a random position.",
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
    validation: float,
    width: int,
    layers: int,
    kinds: tuple[str, ...],
    states: int | None,
    steps: int,
    window: int,
    walk: int,
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
    """Train a Mamba or PD-SSM model on genomes, in constant memory.

    To continue an interrupted run from its last report, repeat the same command with the same
    sequences, settings, threads and version. The model card compares the model with a Markov chain
    on the same held-out bases.
    """
    from pydantic import ValidationError

    from genoscan.genome.genome import open_genome
    from genoscan.json_input import first_problem
    from genoscan.layers.config import ModelConfig
    from genoscan.training.data import split_genomes
    from genoscan.training.train import Progress, TrainOptions, train

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
    _check(sizes, rate, dtype, output)
    if "pd_ssm" not in kinds[:layers]:
        warn_without_effect(surrogate="no block is of kind pd_ssm")
    set_threads(threads)
    opened = [open_genome(path) for path in genomes]
    unseen = [open_genome(path) for path in tests]
    split = split_genomes(opened, validation=validation)
    if split.n_validation < 2:
        raise InputError(f"--validation {validation}: leaves {split.n_validation} bases to score")
    try:
        config = ModelConfig.model_validate(
            {
                "d_model": width,
                "layers": [_block(kinds[i % len(kinds)], width, states) for i in range(layers)],
                "context": 2 * window,
                "reach": window // 2,
                "trained_on": trained_on or ", ".join(path.name for path in genomes),
            }
        )
    except ValidationError as error:
        problem = first_problem(error, omit=kinds)
        raise InputError(f"--width, --layers, --states or --window is too large: {problem}") from None
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
    )

    def report(done: Progress) -> None:
        log(
            f"step {done.step:,} of {steps:,}: {done.bases:,} bases, {done.seconds:,.0f} s, bits "
            f"per base {done.training_bits:.4f} training, {done.validation_bits:.4f} validation"
        )

    from genoscan.tracks.atomic import atomic_directory, partial_folder
    from genoscan.tracks.provenance import portable_command
    from genoscan.training.finish import finish_model
    from genoscan.training.state import open_work

    work = partial_folder(output)
    with _file_errors(work), open_work(work):
        stack = train(config, split, options, work=work, device=parse_device(device), report=report)
        with atomic_directory(output) as made:
            finish_model(
                made,
                config,
                stack,
                split,
                opened,
                unseen,
                work,
                command=shlex.join(portable_command(["genoscan", *sys.argv[1:]])),
                bases_seen=steps * batch * window,
            )
        shutil.rmtree(work)
    click.echo(output)


def _block(kind: str, width: int, states: int | None) -> dict[str, Any]:
    rank = {"mamba": "dt_rank", "pd_ssm": "rank"}[kind]
    return {"kind": kind, rank: math.ceil(width / 16)} | ({"d_state": states} if states else {})


def _check(sizes: Mapping[str, int], rate: float, dtype: str, output: Path) -> None:
    """Raise an error if an option is invalid or the output cannot be created."""
    from genoscan.tracks.atomic import check_new_folder

    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"--{name} {size}: expected at least 1")
    if not 0 < rate < math.inf:
        raise InputError(f"--rate {rate}: expected a number above 0")
    if dtype != "float32":
        raise InputError(f"--dtype {dtype}: training is in float32")
    check_new_folder(output)


@contextmanager
def _file_errors(work: Path) -> Iterator[None]:
    """Convert errors in reading or writing the files of a training run to `OutputError`."""
    from safetensors import SafetensorError

    from genoscan.tracks.atomic import os_errors

    try:
        with os_errors(work):
            yield
    except SafetensorError as error:
        raise OutputError(f"{work}: {error}") from error
