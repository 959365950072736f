"""genoscan dependency: compute how each base's prediction depends on each other base."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genoscan.cli.inputs import open_model, read_region, warn_about_annotation
from genoscan.cli.messages import log, warn_without_effect
from genoscan.cli.options import ANNOTATION, GENOME, MACHINE, MODEL, TILE, outputs_option

if TYPE_CHECKING:
    from genoscan.dependency.plan import MapPlan
    from genoscan.genome.genome import Genome
    from genoscan.genome.region import Region


@click.command("dependency")
@GENOME
@click.option(
    "-r",
    "--region",
    "region_text",
    metavar="REGION",
    required=True,
    help="Region whose bases are mutated and read, as in samtools: chr1:5,000-6,000 (1-based, inclusive), or, with "
    "--annotation, the name of a gene.",
)
@ANNOTATION
@click.option(
    "--map",
    "definition",
    default="log-odds",
    show_default=True,
    metavar="DEFINITION",
    help="Value of a pair of bases, each the largest absolute one over substitutions and predicted bases: log-odds "
    "(change of log2 p/(1-p)), jacobian (change of log p, also called the categorical Jacobian) or derivative (its "
    "first-order prediction, exact).",
)
@click.option(
    "--strand",
    metavar="STRAND",
    help="Strand to read: +, - or both (the sum of the two maps for causal models, whose predictions depend only "
    "on bases upstream; the mean for others).  [default: both for causal models, + for others]",
)
@click.option(
    "--symmetrise",
    default="none",
    show_default=True,
    metavar="HOW",
    help="Combine the values of a pair in both directions: none, mean or max.",
)
@click.option(
    "--columns",
    "columns_text",
    metavar="REGION",
    help="Region, or gene, whose bases are read, on the same sequence.  [default: --region]",
)
@click.option(
    "--band", type=int, metavar="BASES", help="Compute only pairs at most this far apart; a long region then fits."
)
@click.option(
    "--rows",
    "rows_texts",
    metavar="BED|POSITION",
    multiple=True,
    help="Bases of --region that are mutated: a BED file, a position such as chr1:5,500 or a region; may be "
    "repeated.  [default: all]",
)
@click.option("--top", default=1_000, show_default=True, metavar="N", help="Number of pairs in a .bedpe file.")
@outputs_option(
    "File to write; may be repeated. The suffix determines the contents: .npz (map and coordinates), .cool or "
    ".mcool (require cooler), .bedpe (strongest pairs, mutated base first), .html (heat map), or .bw, .bedgraph, "
    ".bedgraph.gz (influence of each mutated base: the mean of its values over the read bases)."
)
@MODEL
@click.option(
    "--context",
    type=int,
    metavar="BASES",
    help="Bases upstream of the region that the model also reads (for bidirectional models, on both sides).  "
    "[default: from the model's configuration]",
)
@TILE
@MACHINE
def command(
    genome: Path,
    region_text: str,
    annotation: Path | None,
    definition: str,
    strand: str | None,
    symmetrise: str,
    columns_text: str | None,
    band: int | None,
    rows_texts: tuple[str, ...],
    top: int,
    outputs: tuple[Path, ...],
    model_name: str,
    context: int | None,
    tile: int | None,
    dtype: str,
    device: str,
    threads: int | None,
) -> None:
    """Compute how the prediction of each base depends on each other base.

    Every base of the region is substituted by the three others. The map has one row for each mutated base and
    one column for each read base; the diagonal is 0. To continue an interrupted run, repeat the same command.

    \b
    Example:
      genoscan dependency chr.fa -r chr1:10,001-10,200 -o map.npz -o map.html
    """
    from genoscan.cli.progress import progress
    from genoscan.composition import describe_difference
    from genoscan.dependency.files import check_map_outputs, write_map
    from genoscan.dependency.plan import MapOptions, prepare_map
    from genoscan.genome.genome import open_genome

    beds = [Path(text) for text in rows_texts if _is_file(text)]
    check_map_outputs(outputs, [genome, annotation, *beds])
    opened = open_genome(genome)
    region = read_region(opened, region_text, annotation)
    columns = read_region(opened, columns_text, annotation, "--columns") if columns_text else None
    warn_about_annotation([region] if columns is None else [region, columns])
    rows = tuple(part for text in rows_texts for part in _rows(text, opened))
    options = MapOptions(region, definition, strand, symmetrise, columns, rows, band, context)
    model = open_model(model_name, dtype, device, threads, tile=tile)
    plan = prepare_map(opened, model, options)
    if not any(path.suffix.lower() == ".bedpe" for path in outputs):
        warn_without_effect(top="no output is a .bedpe file")
    if (unlike := describe_difference(opened, [region], model.config, model.name)) is not None:
        log(unlike)
    log(_describe(plan))
    with progress() as advance:
        record = write_map(plan, outputs, top=top, command=sys.argv, progress=advance)
    log(f"{region} in {record['seconds']:.1f} s")
    for path in outputs:
        click.echo(path)


def _is_file(text: str) -> bool:
    return Path(text).is_file() or text.endswith((".bed", ".bed.gz"))


def _rows(text: str, genome: "Genome") -> "list[Region]":
    """Return the regions of an argument of --rows."""
    from genoscan.genome.bed import read_bed
    from genoscan.genome.region import parse_place

    if _is_file(text):
        return read_bed(text, genome.sizes)
    return [parse_place(text, genome.sizes, option="--rows")]


def _describe(plan: "MapPlan") -> str:
    """Return the amount of work and the size of the map."""
    what = "directions" if plan.options.definition == "derivative" else "forward passes"
    layout = plan.layout
    size = layout.size * plan.model.dtype.itemsize / 1e3
    known = "" if plan.substitutions else "; every mutated base is an N, and the map has no values"
    return (
        f"{plan.substitutions:,} {what} ({plan.bases:,} bases to compare), context {plan.context:,} bases; map of "
        f"{len(layout.rows):,} x {layout.width:,} values ({size:,.0f} kB){known}"
    )
