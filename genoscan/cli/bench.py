"""genoscan bench: the measurements behind the README."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genoscan.cli.options import (
    MODEL,
    PATH,
    THREADS,
    parse_device,
    say,
    set_threads,
    table,
    together,
)
from genoscan.cli.progress import progress
from genoscan.errors import GenoscanError, InputError

if TYPE_CHECKING:
    from genoscan.bench.experiment import Experiment

PLACE = together(
    click.option(
        "--device", default="auto", show_default=True, metavar="DEVICE",
        help="auto, cpu, cuda or cuda:1.",
    ),
    THREADS,
)  # fmt: skip


class FailedRowError(GenoscanError):
    """A row could not be measured."""


@click.group("bench")
def command() -> None:
    """The measurements behind the README."""


@command.command("period3")
@click.argument("track", metavar="NPZ", type=PATH)
@click.argument("annotation", metavar="GENBANK", type=PATH)
@click.option("--figure", metavar="HTML", type=PATH,
              help="Where to draw the periodograms.")  # fmt: skip
def period3(track: Path, annotation: Path, figure: Path | None) -> None:
    """Measure how strongly a track beats in threes inside coding sequence, and outside.

    Non-overlapping windows of 150 bases wholly inside CDS against windows wholly outside genes;
    p from 1,000 circular shifts. The same for the sequence's own G+C, which is what the track
    has to go past.
    """
    from genoscan.bench.biology import compare, draw

    found = compare(track, annotation)
    for name, result in found.results.items():
        click.echo(
            table(
                {
                    name: f"{result.ratio:.2f} times as strong inside coding sequence",
                    "  inside": f"{result.mean_inside:.2f} over {result.n_inside:,} windows",
                    "  outside": f"{result.mean_outside:.2f} over {result.n_outside:,} windows",
                    "  dropped": f"{result.n_dropped:,} windows with gaps",
                    "  p": f"{result.p:.4f} ({result.n_shifts:,} shifts)",
                }
            )
        )
    if figure is not None:
        draw(found, figure)
        click.echo(figure)


@command.command("speed")
@click.option(
    "-o", "--output", metavar="JSON", type=PATH, required=True,
    help="Where the numbers go, row by row; the figure lies beside it (.html). A file of an "
    "interrupted run is completed.",
)  # fmt: skip
@MODEL
@click.option(
    "--shape", metavar="WIDTHxLAYERS",
    help="Measure a model of this size with seeded weights instead, such as 256x16.",
)  # fmt: skip
@click.option(
    "--genome", "genome_path", metavar="FILE", type=PATH,
    help="FASTA or GenBank whose bases are read.  [default: the shipped chloroplast]",
)  # fmt: skip
@click.option(
    "--only", multiple=True, metavar="ROW",
    help="Measure this row; may repeat. Without, every row for the device.",
)  # fmt: skip
@click.option(
    "--quick", is_flag=True,
    help="See that all runs, in a minute: --length 128 --tile 50 --rounds 2 --regions 4.",
)  # fmt: skip
@click.option(
    "--length", type=int, metavar="BASES",
    help="Bases in every row instead of its own; bars are then not judged.",
)  # fmt: skip
@click.option(
    "--rounds", type=int, metavar="N", help="Repetitions of each contender, in turn.  [default: 5]"
)
@click.option(
    "--tile", type=int, metavar="BASES",
    help="Bases of a window processed at once, in every row.  [default: as attribute]",
)  # fmt: skip
@click.option(
    "--slots", type=int, metavar="N",
    help="Carries remembered.  [default: one a tile on the CPU, as attribute on a GPU]",
)  # fmt: skip
@click.option(
    "--batch", type=int, metavar="N",
    help="Windows side by side in row regions.  [default: as attribute]",
)  # fmt: skip
@click.option(
    "--regions", type=int, metavar="N",
    help="Regions in row regions: a sample of the 5,000 that its bar speaks of.  [default: 96]",
)  # fmt: skip
@PLACE
def speed(
    output: Path, model_name: str, shape: str | None, genome_path: Path | None,
    only: tuple[str, ...], quick: bool, device: str, threads: int | None, **sizes: int | None,
) -> None:  # fmt: skip
    """Measure this program and its peers on the same weights, bases and machine.

    First every contender's derivative is held against float64 autograd; then each row's
    contenders run in turn, each in a process of its own: median, spread, peak memory. Peers that
    are not installed (pip install "genoscan[bench]") are skipped and counted.

    \b
    Example:
      genoscan bench speed -o speed.json
      genoscan bench speed --device cuda --shape 256x16 -o h200.json --only bigwig
    """
    import tempfile

    import torch

    from genoscan.bench.speed.figure import draw
    from genoscan.bench.speed.model import write_fresh_model
    from genoscan.bench.speed.report import row_text, summary
    from genoscan.bench.speed.run import run
    from genoscan.bench.speed.sequence import shipped_genome
    from genoscan.bench.speed.settings import Settings
    from genoscan.job import Options
    from genoscan.layers.catalogue import find_model

    if output.suffix != ".json":
        raise InputError(f"--output {output}: expected a name that ends in .json")
    set_threads(threads)
    place = parse_device(device)
    usual: dict[str, Any] = {
        "rounds": 5,
        "tile": Options.tile,
        "slots": None if place == "cpu" else Options.slots,
        "batch": Options.batch,
        "regions": 96,
    }
    short = {"length": 128, "tile": 50, "rounds": 2, "regions": 4} if quick else {}
    given = {name: size for name, size in sizes.items() if size is not None}
    with tempfile.TemporaryDirectory(prefix="genoscan-bench-") as folder:
        path = write_fresh_model(Path(folder), shape) if shape else find_model(model_name)
        settings = Settings(
            model=str(path), genome=str(genome_path or shipped_genome()), device=place,
            threads=torch.get_num_threads(), **usual | short | given,
        )  # fmt: skip
        document = run(
            settings,
            output,
            only=only,
            show=lambda name, row: click.echo(row_text(name, row) + "\n"),
            report=say,
        )
    draw(document, output.with_suffix(".html"))
    click.echo(summary(document["rows"]))
    click.echo(output)
    click.echo(output.with_suffix(".html"))
    failed = [name for name, row in document["rows"].items() if row["status"] == "failed"]
    if failed:
        raise FailedRowError(f"{', '.join(failed)}: not measured, see above")


WHERE = together(
    click.option(
        "-o", "--output", "folder", metavar="FOLDER", type=PATH, required=True,
        help="Where tables and figures go. An interrupted run is completed.",
    ),
    click.option(
        "--quick", is_flag=True, help="See that all runs, in a minute: small sizes, nothing judged."
    ),
    PLACE,
)  # fmt: skip


@command.command("paper")
@click.argument("names", metavar="[EXPERIMENT]...", nargs=-1)
@WHERE
def paper(names: tuple[str, ...], **where: Any) -> None:
    """Repeat the experiments of Phase Gradient Flow (arXiv 2512.23068), corrected.

    fig1 to fig4 and a1 to a4, or all of them; what each is, what is corrected, and what came
    out: docs/pgf.md. Each gives NAME.csv, NAME.json (set-up, findings, machine), NAME.html, and
    NAME.png where kaleido and a Chrome are there.

    \b
    Example:
      genoscan bench paper fig4 -o paper/
      genoscan bench paper all --quick -o quick/
    """
    from genoscan.bench.paper.experiments import EXPERIMENTS

    _run(EXPERIMENTS, names, **where)


@command.command("state-tracking")
@click.argument("names", metavar="[TASK]...", nargs=-1)
@WHERE
def state_tracking(names: tuple[str, ...], **where: Any) -> None:
    """Let PD-SSM and Mamba learn to keep the state of an automaton.

    parity, even-pairs, cycle-navigation, modular-arithmetic, and the word problems of the groups
    A5 and S5, or all of them: learnt from sequences of 3 to 40 symbols, asked about 40 to 256 and
    4,096. What each is and what came out: docs/pd-ssm.md. Each gives TASK.csv, TASK.json, TASK.html
    and TASK.png as `bench paper` does; a run of one seed is the smallest piece that is kept.

    \b
    Example:
      genoscan bench state-tracking parity --threads 1 -o tracking/
    """
    from genoscan.bench.tracking.experiments import EXPERIMENTS

    _run(EXPERIMENTS, names, **where)


@command.command("long-series")
@click.argument("files", metavar="[TS]...", nargs=-1, type=PATH)
@WHERE
def long_series(files: tuple[Path, ...], **where: Any) -> None:
    """Let PD-SSM and Mamba learn the class of series of 17,984 steps, in flat memory.

    Without files, which of two motifs in noise comes first. With files of the UEA archive
    (timeseriesclassification.com, .ts), their classes: all cases together, split by seed. Leaves
    long-series.csv, .json, .html and .png in the folder, or files named as the first file is.

    \b
    Example:
      genoscan bench long-series -o series/
      genoscan bench long-series EigenWorms_TRAIN.ts EigenWorms_TEST.ts -o series/
    """
    from genoscan.bench.series import experiments

    if not files:
        _run({"long-series": experiments.planted_order()}, (), **where)
    else:
        _run({files[0].stem: experiments.files(files)}, (), **where)


@command.command("reading-frame")
@click.argument("genome", metavar="GENBANK", type=PATH)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@WHERE
def reading_frame(genome: Path, models: tuple[str, ...], **where: Any) -> None:
    """Ask models for the codon position, by a linear read-out of what they hold.

    Fitted on the genes of the first half of an annotated sequence, asked 10 to 3,000 bases into
    those of the second. Beside the models stands the same read-out of the last bases themselves.
    Leaves reading-frame.csv, .json, .html and .png in the folder.

    \b
    Example:
      genoscan bench reading-frame C.trachomatis.gbk bacteria bacteria-pd-ssm -o frame/
    """
    from genoscan.bench import reading_frame as bench

    _run({"reading-frame": bench.reading_frame(genome, models)}, (), **where)


def _run(
    experiments: "Mapping[str, Experiment]", names: tuple[str, ...], *, folder: Path, quick: bool,
    device: str, threads: int | None,
) -> None:  # fmt: skip
    import torch

    from genoscan.bench.experiment import Place
    from genoscan.bench.run import lines, run

    chosen = list(experiments) if not names or "all" in names else list(names)
    if unknown := [name for name in chosen if name not in experiments]:
        raise InputError(f"{unknown[0]}: expected all or one of {', '.join(experiments)}")
    if not folder.is_dir():
        raise InputError(f"--output {folder}: expected a folder that exists")
    set_threads(threads)
    place = Place(parse_device(device), torch.get_num_threads(), quick)
    for name in chosen:
        experiment = experiments[name]
        with progress(len(experiment.cells(quick)), "cells") as tell:
            findings = run(name, experiment, folder, place, progress=tell, report=say)
        click.echo(f"{name}: {experiment.title}")
        click.echo("\n".join(lines(findings, judged=not quick)))
        click.echo(folder / f"{name}.html")
