"""genoscan predict: write the model's predictions as tracks or tables."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genoscan.cli.inputs import open_model, parse_size, read_regions, read_strands, storage_without_effect
from genoscan.cli.messages import log, warn_without_effect
from genoscan.cli.options import BATCH, GENOME, MACHINE, MEMORY, MODEL, REGIONS, SPILL, TILE
from genoscan.errors import InputError

if TYPE_CHECKING:
    from genoscan.genome.genome import Genome
    from genoscan.genome.region import Region
    from genoscan.model import Model
    from genoscan.prediction.tracks import PredictOptions


@click.command("predict")
@GENOME
@REGIONS
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="FILE|FOLDER/",
    multiple=True,
    required=True,
    help="What to write; may be repeated. P.bw writes one track per prediction, P.HEAD.LABEL.bw; FOLDER/ "
    "writes FOLDER/HEAD.LABEL.bw. The suffix determines the format: .bw, .bedgraph, .bedgraph.gz, "
    ".npz (all predictions in one file), .bed (calls, with --call) or .tsv (one row per region, for heads "
    "that label windows).",
)
@MODEL
@click.option(
    "--head",
    "heads",
    metavar="HEAD",
    multiple=True,
    help="Task head, or language-model; may be repeated.  [default: all heads that label bases, or else "
    "the language model]",
)
@click.option(
    "--logits",
    is_flag=True,
    help="Write logits instead of probabilities; of a language model, those of A, C, G and T alone.",
)
@click.option(
    "--call",
    "calls",
    metavar="LABEL",
    multiple=True,
    help="Write the bases with this label to -o FILE.bed, with the probability x 1000 as score; may be repeated.",
)
@click.option("--threshold", default=0.5, show_default=True, metavar="P", help="Lowest probability of a call.")
@click.option(
    "--strand",
    default="+",
    show_default=True,
    metavar="STRAND",
    help="Strand to read: +, -, both (mean of the two predictions) or separate (both, in separate files: -o P.bw "
    "writes P.plus.HEAD.LABEL.bw and P.minus.HEAD.LABEL.bw).",
)
@click.option(
    "--context",
    type=int,
    metavar="BASES",
    help="Bases upstream of the region that the model also reads (for bidirectional models, on both "
    "sides).  [default: from the model's configuration; 0 for heads that label windows]",
)
@TILE
@MEMORY
@SPILL
@BATCH
@MACHINE
def command(
    genome: Path,
    region_texts: tuple[str, ...],
    annotation: Path | None,
    bed_path: Path | None,
    clip: bool,
    outputs: tuple[str, ...],
    model_name: str,
    heads: tuple[str, ...],
    logits: bool,
    calls: tuple[str, ...],
    threshold: float,
    strand: str,
    context: int | None,
    tile: int | None,
    memory: str | None,
    spill: Path | None,
    batch: int,
    dtype: str,
    device: str,
    threads: int | None,
) -> None:
    """Write the model's predictions at every base, as tracks.

    For a task head, the command writes one track of probabilities or logits for each label. For a
    language model, it writes tracks of the log-likelihood of the observed base, the entropy in bits, and
    the probabilities of A, C, G and T.

    \b
    Example:
      genoscan predict chr.fa -m arabidopsis-genes --head sites -o sites.bw
    """
    from genoscan.cli.progress import progress
    from genoscan.genome.genome import open_genome
    from genoscan.prediction.tracks import PredictOptions, prepare_prediction, write_predicted
    from genoscan.tracks.strands import strand_path

    strands = read_strands(strand, "both")
    opened = open_genome(genome)
    regions = read_regions(opened, region_texts, annotation, bed_path, clip)
    model = open_model(model_name, dtype, device, threads, tile=tile, memory=parse_size(memory), spill=spill)
    without_effect = storage_without_effect(model, spill)
    if not model.bidirectional:
        without_effect["memory"] = "the model is causal"
    if not calls:
        without_effect["threshold"] = "without --call"
    if any(text.endswith(".tsv") for text in outputs):
        inputs = genome, annotation, bed_path
        many = [PredictOptions(heads, logits, one, context, batch, calls) for one in strands]
        _write_tables(opened, model, regions, outputs, inputs, many, without_effect)
        return
    files = [Path(text) / ".bw" if text.endswith("/") or Path(text).is_dir() else Path(text) for text in outputs]
    jobs = []
    for one in strands:
        options = PredictOptions(heads, logits, one, context, batch, calls, threshold)
        own = files if len(strands) == 1 else [strand_path(path, one) for path in files]
        jobs.append(prepare_prediction(opened, model, regions, own, options, [annotation, bed_path]))
    warn_without_effect(**without_effect)
    if jobs[0].warning is not None:
        log(jobs[0].warning)
    bases = sum(len(region) for job in jobs for region in job.regions)
    with progress(sum(job.positions for job in jobs), bases) as advance:
        written = write_predicted(jobs, command=sys.argv, progress=advance, notify=log)
    for path in written:
        click.echo(path)


def _write_tables(
    genome: "Genome",
    model: "Model",
    regions: "Sequence[Region]",
    outputs: Sequence[str],
    inputs: Sequence[Path | None],
    options: "Sequence[PredictOptions]",
    without_effect: dict[str, str],
) -> None:
    """Write the predictions of heads that label whole windows, as tables with one row per region.

    There is one table for each of the options, which are those of one strand each.
    """
    from genoscan.cli.progress import progress
    from genoscan.prediction.windows import prepare_windows, write_windows
    from genoscan.tracks.atomic import check_writable
    from genoscan.tracks.outputs import check_each
    from genoscan.tracks.strands import strand_path

    if len(outputs) > 1:
        raise InputError(f"{outputs[1]}: expected a single .tsv file; write tracks in another run")
    output = Path(outputs[0])
    files = [output] if len(options) == 1 else [strand_path(output, one.strand) for one in options]
    check_each(files, inputs, check_writable, lambda _: [])
    jobs = [prepare_windows(genome, model, regions, one) for one in options]
    warn_without_effect(**without_effect)
    if jobs[0].warning is not None:
        log(jobs[0].warning)
    bases = sum(len(region) for job in jobs for region in job.regions)
    with progress(sum(job.positions for job in jobs), bases) as advance:
        write_windows(jobs, files, command=sys.argv, progress=advance)
    for path in files:
        click.echo(path)
