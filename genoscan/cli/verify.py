"""genoscan verify: check numerically that derivatives are exact."""

from pathlib import Path

import click

from genoscan.cli.inputs import prepare_torch, read_region, warn_about_annotation
from genoscan.cli.messages import log, warn_without_effect
from genoscan.cli.options import ANNOTATION, GENOME, MODEL, THREADS
from genoscan.errors import GenoscanError


class InexactError(GenoscanError):
    """Error raised if a measured error exceeds its limit."""


@click.command("verify")
@GENOME
@click.option(
    "-r",
    "--region",
    "region_text",
    metavar="REGION",
    required=True,
    help="Sequence to check on; at most its first 65,536 bases are used.",
)
@ANNOTATION
@MODEL
@click.option("--tile", type=int, default=1024, show_default=True, metavar="BASES", help="Bases processed at once.")
@click.option("--slots", type=int, default=8, show_default=True, metavar="N", help="Carries stored as checkpoints.")
@THREADS
def command(
    genome: Path, region_text: str, annotation: Path | None, model_name: str, tile: int, slots: int, threads: int | None
) -> None:
    """Check on your own model and sequence that the derivatives are exact.

    The command compares the derivatives with those of torch autograd over a whole window, with finite
    differences and with forward-mode derivatives. It also compares the output files with derivatives and
    scores that are computed independently. Each error is printed with its limit. The exit status is 1 if
    any error exceeds its limit.
    """
    from genoscan.engine.methods import Adjoint
    from genoscan.genome.genome import open_genome
    from genoscan.model import load_model
    from genoscan.verification.sweeps import Check, check_known, verify

    Adjoint(tile, slots)  # raises an error for invalid values before any input is read
    prepare_torch(threads)
    opened = open_genome(genome)
    region = read_region(opened, region_text, annotation)
    warn_about_annotation([region])
    check_known(opened, region)
    if load_model(model_name).bidirectional:
        warn_without_effect(slots="the model is bidirectional")
    log(f"{region}: {model_name}, log-likelihood, tile {tile:,}, {slots} slots")

    def show(check: Check) -> None:
        limit = "" if check.limit is None else f"<= {check.limit:.0e}"
        verdict = "" if check.limit is None else ("ok" if check.passed else "FAILED")
        value = f"{check.value:.3f}" if abs(check.value) > 0.01 else f"{check.value:.1e}"
        click.echo(f"{check.name:50} {value:>9} {limit:>9}  {check.bases:>7,} bp  {verdict}")

    checks = verify(
        opened,
        region,
        lambda dtype, kernels: load_model(model_name, dtype=dtype, kernels=kernels, tile=tile, slots=slots),
        report=show,
    )
    if not all(check.passed for check in checks):
        raise InexactError(f"{region}: a check exceeded its limit, see above")
