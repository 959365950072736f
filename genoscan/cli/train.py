"""genoscan train: from genomes to a model folder."""

import math
import shlex
import sys
from pathlib import Path

import click

from genoscan.cli.options import MACHINE, parse_device, say, set_threads
from genoscan.errors import InputError, OutputError


@click.command("train")
@click.argument(
    "genomes", metavar="GENOME...", type=click.Path(path_type=Path), nargs=-1, required=True
)
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    required=True,
    help="The model folder to make.",
)
@click.option(
    "--test",
    "tests",
    metavar="GENOME",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A genome that training never sees; may repeat. Reported on the card.",
)
@click.option("--trained-on", default="", metavar="TEXT", help="What the card calls the data.")
@click.option(
    "--validation",
    default=0.1,
    show_default=True,
    metavar="FRACTION",
    help="The end of every sequence that is held out.",
)
@click.option("--width", default=128, show_default=True, metavar="N", help="Model width.")
@click.option("--layers", default=6, show_default=True, metavar="N", help="Mamba blocks.")
@click.option("--states", default=16, show_default=True, metavar="N", help="States a channel.")
@click.option("--steps", default=4000, show_default=True, metavar="N", help="Updates.")
@click.option(
    "--window",
    default=2048,
    show_default=True,
    metavar="BASES",
    help="Bases between updates, a stream.",
)
@click.option(
    "--walk",
    default=8,
    show_default=True,
    metavar="N",
    help="Windows that a stream reads on before it starts elsewhere.",
)
@click.option("--batch", default=4, show_default=True, metavar="N", help="Streams side by side.")
@click.option("--rate", default=4e-3, show_default=True, help="Peak learning rate.")
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--tile",
    default=2048,
    show_default=True,
    metavar="BASES",
    help="Bases processed at once; memory follows it, not the window.",
)
@click.option("--slots", default=16, show_default=True, metavar="N", help="Carries remembered.")
@MACHINE
def command(
    genomes: tuple[Path, ...], output: Path, tests: tuple[Path, ...], trained_on: str,
    validation: float, width: int, layers: int, states: int, steps: int, window: int, walk: int,
    batch: int, rate: float, seed: int, tile: int, slots: int,
    dtype: str, device: str, threads: int | None,
) -> None:  # fmt: skip
    """Train a Mamba model on genomes, in flat memory, and write its folder.

    Interrupted, it goes on from its last report when the same command is given again. The card
    compares the model with a Markov chain on the same held-out bases.
    """
    from genoscan.genome.genome import open_genome
    from genoscan.layers.weights import ModelConfig
    from genoscan.training.data import split_genomes
    from genoscan.training.train import Progress, TrainOptions, train

    if output.exists():
        raise OutputError(f"{output}: is there already; name another folder, or remove it")
    if dtype != "float32":
        raise InputError(f"--dtype {dtype}: training is in float32")
    set_threads(threads)
    opened = [open_genome(path) for path in genomes]
    split = split_genomes(opened, validation=validation)
    config = ModelConfig.model_validate(
        {
            "d_model": width,
            "layers": [{"kind": "mamba", "d_state": states, "dt_rank": math.ceil(width / 16)}]
            * layers,
            "context": 2 * window,
            "reach": window // 2,
            "trained_on": trained_on or ", ".join(path.name for path in genomes),
        }
    )
    options = TrainOptions(
        steps=steps, window=window, walk=walk, batch=batch, rate=rate, seed=seed, tile=tile,
        slots=slots,
    )  # fmt: skip
    curve: list[Progress] = []

    def report(done: Progress) -> None:
        curve.append(done)
        say(
            f"step {done.step:,} of {steps:,}: {done.bases:,} bases, {done.seconds:,.0f} s, bits "
            f"per base {done.training_bits:.4f} training, {done.validation_bits:.4f} validation"
        )

    work = output.with_name(output.name + ".partial")
    stack = train(config, split, options, work=work, device=parse_device(device), report=report)
    from genoscan.bench.finish import finish_model

    finish_model(
        output, config, stack, split, opened, [open_genome(path) for path in tests], work,
        command=shlex.join(["genoscan", *sys.argv[1:]]), bases_seen=steps * batch * window,
    )  # fmt: skip
    click.echo(output)
