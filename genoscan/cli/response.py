"""genoscan response: compute how changing one base affects the predictions around it."""

import sys
from pathlib import Path

import click

from genoscan.cli.inputs import open_model, read_region, warn_about_annotation
from genoscan.cli.messages import log, warn_without_effect
from genoscan.cli.options import ANNOTATION, GENOME, MACHINE, MODEL, SCORE_OUTPUTS, TILE


@click.command("response")
@GENOME
@click.option(
    "--at",
    "at_text",
    metavar="CHROM:POS",
    required=True,
    help="Base to change (1-based), "
    "such as chr1:10,500, or substitution, such as 'chr1:10,500:C>T' (in quotes), whose C must be the genome's.",
)
@click.option(
    "--base",
    metavar="BASE",
    help="New base, on the forward strand.  [default: that of --at; without one, at each position the base of "
    "largest effect]",
)
@click.option(
    "-r",
    "--region",
    "region_text",
    metavar="REGION",
    help="Region for which the response is written.  [default: the model's reach from the base; on both sides with "
    "--of sensitivity and for bidirectional models]",
)
@ANNOTATION
@SCORE_OUTPUTS
@MODEL
@click.option("--strand", default="+", show_default=True, metavar="STRAND", help="Strand: + or -.")
@click.option(
    "--context",
    type=int,
    metavar="BASES",
    help="Bases read upstream of the base, with --of sensitivity of the region, and for bidirectional models on both "
    "sides.  [default: from the model's configuration]",
)
@click.option(
    "--of",
    default="log-p",
    show_default=True,
    metavar="WHAT",
    help="log-p: change of log p(observed base), in nats, at the base itself plus log p(new) - log p(observed); "
    "logits: L2 norm of the change of the logits; sensitivity: change of each base's sensitivity, as written "
    "by genoscan attribute, which shows the bases that interact with this one.",
)
@click.option("--finite", is_flag=True, help="Write the true change instead of the derivative (sensitivity: always).")
@TILE
@MACHINE
def command(
    genome: Path,
    at_text: str,
    base: str | None,
    region_text: str | None,
    annotation: Path | None,
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

    In a causal model, only the base's own label and the predictions downstream of it change. In a bidirectional model,
    the predictions on both sides change.

    With --of log-p, the change of the base's own label is part of the track, at the base, and of the total
    over the region, which is printed for each new base. With --finite, the total is the change of the
    log-likelihood. The base itself is a gap where the model does not predict it, at the start of the window.

    With --of sensitivity, the sensitivities are derivatives of the log-likelihood of the observed bases, from
    the region's first to the window's last; only the input is substituted, not these labels.

    \b
    Examples:
      genoscan response chr.fa --at 'chr1:10,500:C>T' --finite -o response.bw
      genoscan response chr.fa --at chr1:10,500 --base A --of sensitivity -o interaction.bw
    """
    from genoscan.cli.progress import progress
    from genoscan.genome.genome import open_genome
    from genoscan.genome.region import Region
    from genoscan.responses.perturbation import write_response
    from genoscan.responses.probe import Probe, read_change
    from genoscan.tracks.outputs import check_outputs

    check_outputs(outputs, [genome, annotation])
    opened = open_genome(genome)
    at, base = read_change(opened, at_text, base)
    region = read_region(opened, region_text, annotation) if region_text else None
    warn_about_annotation([] if region is None else [region])
    probe = Probe(at, base, region, strand, context, of, finite)  # type: ignore[arg-type]
    if of == "sensitivity":
        warn_without_effect(finite="a change of sensitivity is always the true change")
    model = open_model(model_name, dtype, device, threads, tile=tile)
    with progress() as advance:
        record = write_response(opened, model, probe, outputs, command=sys.argv, progress=advance)
    log(f"{Region(**record['regions'][0])} in {record['seconds']:.1f} s")
    effect = record["response"]
    for new, total in effect["total"].items():
        own = f"of which {effect['own'][new]:+.4g} at the base itself" if effect["own"] else "without the base itself"
        order = "" if finite or of == "sensitivity" else "first-order "
        log(f"{order}total for {new}: {total:+.4g} nats, {own}")
    if strongest := effect["strongest"]:
        where = str(Region(**strongest["at"])).rpartition("-")[0]
        log(f"strongest effect on another base: {strongest['effect']:+.4g} at {where}")
    for path in outputs:
        click.echo(path)
