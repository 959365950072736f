"""genoscan attribute: compute tracks of per-base sensitivities."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genoscan.cli.inputs import prepare_job
from genoscan.cli.messages import log
from genoscan.cli.options import JOB, PATH

if TYPE_CHECKING:
    from genoscan.job import Job

_WARN_ABOVE = 0.05
"""Completeness error above which a warning is logged."""


@click.command("attribute")
@JOB
@click.option(
    "--with-margin",
    "margin_path",
    metavar="FILE",
    type=PATH,
    help="Also write, for models with PD-SSM layers, a track of how close each base is to a change "
    "of the selected transition; derivatives do not account for such a change.",
)
def command(outputs: tuple[Path, ...], margin_path: Path | None, **options: Any) -> None:
    """Write tracks of the exact derivative of the target with respect to every base.

    With --method, derivatives are averaged over several inputs, for example as integrated gradients.

    The target (--target) is a number computed from the model's outputs. GENOME is a FASTA file (plain or
    compressed with bgzip) or a GenBank file. To continue an interrupted run, repeat the same command.

    \b
    Example:
      genoscan attribute chr.fa --region chr1:10,001-110,000 -o sensitivity.bw
    """
    from genoscan.cli.progress import progress
    from genoscan.estimate import passes
    from genoscan.margin import check_margins, write_margins
    from genoscan.pipeline import run
    from genoscan.tracks.outputs import check_outputs

    if margin_path is not None:
        check_outputs([margin_path], [options["genome"], options["annotation"], options["bed_path"]])
    job = prepare_job(outputs=outputs, **options)
    if margin_path is not None:
        check_margins(job, margin_path, outputs)
    with progress(passes(job)) as advance:
        record = run(job, outputs, command=sys.argv, progress=advance)
    bases, seconds = sum(len(region) for region in job.regions), record["seconds"]
    if record["scored_bases"]:
        log(f"{bases:,} bases in {seconds:.1f} s ({bases / seconds:,.0f} bases/s)")
    else:
        log(f"no base of the regions has a score ({bases:,} bases, N or masked): the track is valid but empty")
    if zeros := record["zero_regions"]:
        log(
            f"{zeros:,} of {len(job.regions):,} regions: every score is 0; either the target does "
            f"not depend on these bases, or its derivatives underflow in {record['dtype']}"
        )
    if "completeness" in record:
        _report_completeness(job, record)
    for path in outputs:
        click.echo(path)
    if margin_path is not None:
        with progress(sum(len(window) for batch in job.batches for r in batch for window in r)) as advance:
            write_margins(job, margin_path, command=sys.argv, progress=advance)
        click.echo(margin_path)


def _report_completeness(job: "Job", record: dict[str, Any]) -> None:
    """Log the regions whose completeness error is large or, with automatic steps, above the tolerance."""
    from genoscan.path_method import TOLERANCE

    automatic = job.options.path is not None and job.options.path.steps is None
    limit = TOLERANCE if automatic else _WARN_ABOVE
    rows = [row for batch in record["completeness"] for row in batch]
    errors = [float("inf") if row["error"] is None else row["error"] for row in rows]
    above = [error for error in errors if error > limit]
    if above:
        remedy = f"not reached with {max(row['steps'] for row in rows):,} steps" if automatic else "more --steps"
        log(
            f"completeness error above {limit:.0%} in {len(above):,} of {len(errors):,} regions, at most "
            f"{max(above):.1%}: {remedy}{'; try' if automatic else ', or'} another --baseline"
        )
