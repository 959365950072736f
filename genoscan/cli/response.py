"""genoscan response: compute how changing one base affects the predictions around it."""

import sys
from pathlib import Path

import click

from genoscan.cli.inputs import open_model
from genoscan.cli.messages import log
from genoscan.cli.options import GENOME, MACHINE, MODEL, OUTPUTS, TILE


@click.command("response")
@GENOME
@click.option("--at", "at_text", metavar="CHROM:POS", required=True, help="Base to change (1-based).")
@click.option(
    "--base",
    metavar="BASE",
    help="New base, on the forward strand.  [default: at each position, the one of largest effect]",
)
@click.option(
    "-r",
    "--region",
    "region_text",
    metavar="REGION",
    help="Region for which the response is written.  [default: the model's reach from the base]",
)
@OUTPUTS
@MODEL
@click.option("--strand", default="+", show_default=True, metavar="STRAND", help="Strand: + or -.")
@click.option(
    "--context",
    type=int,
    metavar="BASES",
    help="Bases read upstream of the base.  [default: from the model's configuration]",
)
@click.option(
    "--of",
    default="log-p",
    show_default=True,
    metavar="WHAT",
    help="log-p: change of log p(observed base); logits: L2 norm of the change of the logits.",
)
@click.option("--finite", is_flag=True, help="Write the true change instead of the derivative.")
@TILE
@MACHINE
def command(
    genome: Path,
    at_text: str,
    base: str | None,
    region_text: str | None,
    outputs: tuple[Path, ...],
    model_name: str,
    strand: str,
    context: int | None,
    of: str,
    finite: bool,
    tile: int | None,
    dtype: str,
    device: str,
    threads: int | None,
) -> None:
    """Write tracks of the effect of changing one base on the predictions around it.

    In a causal model, only the predictions downstream of the base change. In a bidirectional model, the
    predictions on both sides change.

    \b
    Example:
      genoscan response chr.fa --at chr1:10,500 --base A -o response.bw
    """
    from genoscan.cli.progress import progress
    from genoscan.genome.genome import open_genome
    from genoscan.genome.region import Region, parse_region
    from genoscan.perturbation import Probe, write_response
    from genoscan.tracks.outputs import check_outputs

    check_outputs(outputs, [genome])
    opened = open_genome(genome)
    place, position = at_text.rpartition(":")[::2]
    exact = f"{at_text}-{position}" if place and "-" not in position else at_text
    at = parse_region(exact, opened.sizes, option="--at")
    region = parse_region(region_text, opened.sizes) if region_text else None
    probe = Probe(at, base, region, strand, context, of, finite)  # type: ignore[arg-type]
    model = open_model(model_name, dtype, device, threads, tile=tile)
    with progress() as advance:
        record = write_response(opened, model, probe, outputs, command=sys.argv, progress=advance)
    log(f"{Region(**record['regions'][0])} in {record['seconds']:.1f} s")
    for path in outputs:
        click.echo(path)
