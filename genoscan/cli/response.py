"""genoscan response: one base, every position that can tell."""

import sys
from pathlib import Path

import click

from genoscan.cli.options import GENOME, MACHINE, MODEL, OUTPUTS, check_outputs, load_chosen, say


@click.command("response")
@GENOME
@click.option("--at", "at_text", metavar="CHROM:POS", required=True, help="The base (1-based).")
@click.option(
    "--base", metavar="BASE",
    help="What it becomes, on the forward strand.  [default: the strongest of the other three, "
    "position by position]",
)  # fmt: skip
@click.option(
    "-r", "--region", "region_text", metavar="REGION",
    help="Where the response is written.  [default: as far from the base as the model "
    "reaches]",
)  # fmt: skip
@OUTPUTS
@MODEL
@click.option("--strand", default="+", show_default=True, metavar="STRAND", help="+ or -.")
@click.option(
    "--context", type=int, metavar="BASES",
    help="Bases read before the base.  [default: the model's own]",
)  # fmt: skip
@click.option(
    "--of", default="log-p", show_default=True, metavar="WHAT",
    help="log-p: change of log p of the observed base; logits: length of the logits' change.",
)  # fmt: skip
@click.option("--finite", is_flag=True, help="The true change instead of the derivative.")
@click.option(
    "--tile", type=int, default=1024, show_default=True, metavar="BASES",
    help="Bases of a window processed at once.",
)  # fmt: skip
@MACHINE
def command(
    genome: Path, at_text: str, base: str | None, region_text: str | None,
    outputs: tuple[Path, ...], model_name: str, strand: str, context: int | None, of: str,
    finite: bool, tile: int, dtype: str, device: str, threads: int | None,
) -> None:  # fmt: skip
    """Write what changing one base does to the model's predictions around it.

    A causal model answers after the base, one that looks both ways before it too.

    \b
    Example:
      genoscan response chr.fa --at chr1:10,500 --base A -o response.bw
    """
    from genoscan.cli.progress import progress
    from genoscan.genome.genome import open_genome
    from genoscan.genome.region import parse_region
    from genoscan.perturbation import Probe, write_response

    check_outputs(outputs, [genome])
    opened = open_genome(genome)
    place, position = at_text.rpartition(":")[::2]
    exact = f"{at_text}-{position}" if place and "-" not in position else at_text
    at = parse_region(exact, opened.sizes, option="--at")
    region = parse_region(region_text, opened.sizes) if region_text else None
    probe = Probe(at, base, region, strand, context, of, finite)  # type: ignore[arg-type]
    model = load_chosen(model_name, dtype, device, threads, tile=tile)
    with progress() as tell:
        record = write_response(opened, model, probe, outputs, command=sys.argv, progress=tell)
    say(f"{record['regions'][0]} in {record['seconds']:.1f} s")
    for path in outputs:
        click.echo(path)
