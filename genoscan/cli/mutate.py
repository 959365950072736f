"""genoscan mutate: compute the effect of every substitution of a region."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genoscan.cli.inputs import open_model, parse_size, read_regions, storage_without_effect
from genoscan.cli.messages import log, warn_without_effect
from genoscan.cli.options import CHOSEN_REGIONS, EFFECT, GENOME, MACHINE, MEMORY, MODEL, SPILL, TILE

if TYPE_CHECKING:
    from genoscan.effects.mutagenesis import MutationJob


@click.command("mutate")
@GENOME
@CHOSEN_REGIONS
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    multiple=True,
    required=True,
    help="What to write; may be repeated. The suffix determines the format: .npz or .h5 (an array of bases x ACGT), "
    ".tsv (one row per substitution), or tracks: P.bw writes P.mean.bw, the mean effect of the three substitutions "
    "of each base, and P.strongest.bw, the effect of the largest size.",
)
@MODEL
@click.option(
    "--target",
    default="log-likelihood",
    show_default=True,
    metavar="TARGET",
    help="Quantity whose change is computed, as in genoscan variants. The log-likelihood is that of all bases up to "
    "the window's end.",
)
@EFFECT
@click.option(
    "--context",
    type=int,
    metavar="BASES",
    help="Bases upstream of the region that the model also reads.  [default: from the model's configuration]",
)
@click.option(
    "--reach",
    type=int,
    metavar="BASES",
    help="Bases downstream of the region whose predictions are compared.  [default: from the model's configuration]",
)
@click.option(
    "--tolerance",
    default=0.0,
    show_default=True,
    metavar="T",
    help="For causal models and long windows: replace the effect far downstream by a linear estimate once its error "
    "appears to be at most T. This is an estimate of the error, not a bound.",
)
@click.option(
    "--screen",
    type=int,
    metavar="K",
    help="Compute only the K substitutions of the largest first-order effect exactly; the others are first-order.",
)
@click.option(
    "--convention",
    default="raw",
    show_default=True,
    metavar="NAME",
    help="Contents of archives: raw (change of the target, 0 for the observed base), hypothetical (less the mean over "
    "A, C, G and T) or centred (the same, 0 for all but the observed base).",
)
@TILE
@MEMORY
@SPILL
@MACHINE
def command(
    genome: Path,
    annotation: Path | None,
    bed_path: Path | None,
    outputs: tuple[Path, ...],
    convention: str,
    **options: Any,
) -> None:
    """Write the effect of every substitution of the regions (saturation mutagenesis).

    Each effect is the exact change of the target when one base is replaced. To continue an interrupted run, repeat
    the same command.

    \b
    Example:
      genoscan mutate chr.fa -r chr1:10,001-10,200 -o mutations.npz -o mutations.bw
    """
    from genoscan.cli.progress import progress
    from genoscan.effects.mutagenesis import write_mutagenesis
    from genoscan.effects.mutagenesis_files import ARCHIVES, check_mutation_outputs, written_files

    check_mutation_outputs(outputs, [genome, annotation, bed_path])
    if not any(path.suffix in ARCHIVES for path in outputs):
        warn_without_effect(convention=f"no output is {' or '.join(ARCHIVES)}")
    job = prepare(genome=genome, annotation=annotation, bed_path=bed_path, **options)
    with progress(job.positions, len(job.codes)) as advance:
        write_mutagenesis(job, outputs, convention=convention, command=sys.argv, progress=advance)
    log(f"{len(job.rows):,} substitutions of {len(job.codes):,} bases")
    for path in written_files(outputs):
        click.echo(path)


def prepare(
    *,
    genome: Path,
    region_texts: tuple[str, ...],
    annotation: Path | None,
    bed_path: Path | None,
    clip: bool,
    model_name: str,
    screen: int | None,
    tile: int | None,
    memory: str | None,
    spill: Path | None,
    dtype: str,
    device: str,
    threads: int | None,
    **options: Any,
) -> "MutationJob":
    """Return the job that the options specify; log warnings about regions and genome."""
    from genoscan.effects.mutagenesis import prepare_mutations
    from genoscan.effects.variant_job import VariantOptions
    from genoscan.genome.genome import open_genome

    settings = VariantOptions(**options)
    opened = open_genome(genome)
    regions = read_regions(opened, region_texts, annotation, bed_path, clip)
    model = open_model(model_name, dtype, device, threads, tile=tile, memory=parse_size(memory), spill=spill)
    without_effect = storage_without_effect(model, spill)
    if screen is None and not model.bidirectional:
        without_effect["memory"] = "the model is causal, and there is no --screen"
    warn_without_effect(**without_effect)
    job = prepare_mutations(opened, model, regions, settings, screen=screen)
    if job.job.warning is not None:
        log(job.job.warning)
    return job
