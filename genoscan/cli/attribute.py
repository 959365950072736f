"""genoscan attribute: compute tracks of per-base sensitivities."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genoscan.cli.inputs import prepare_jobs
from genoscan.cli.messages import log
from genoscan.cli.options import JOB, PATH

if TYPE_CHECKING:
    from genoscan.job import Job


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
    from genoscan.pipeline import run_all
    from genoscan.tracks.outputs import check_outputs
    from genoscan.tracks.strands import strand_path

    if margin_path is not None:
        check_outputs([margin_path], [options["genome"], options["annotation"], options["bed_path"]])
    jobs = prepare_jobs(outputs=outputs, **options)
    margins: list[tuple[Job, Path]] = []
    if margin_path is not None:
        separate = len(jobs) > 1
        margins = [(job, strand_path(margin_path, job.options.strand) if separate else margin_path) for job, _ in jobs]
        for (job, path), (_, others) in zip(margins, jobs, strict=True):
            check_margins(job, path, others)
    # First, because what is finished of the scores is kept when the command is interrupted, and margins are not.
    for job, path in margins:
        read = sum(len(window) for batch in job.batches for r in batch for window in r)
        with progress(read * job.model.method.forward_passes(job.model.stack), sum(map(len, job.regions))) as advance:
            write_margins(job, path, command=sys.argv, progress=advance)
    bases = sum(len(region) for job, _ in jobs for region in job.regions)
    with progress(sum(passes(job) for job, _ in jobs), bases) as advance:
        records = run_all(jobs, command=sys.argv, progress=advance)
    for (job, paths), record in zip(jobs, records, strict=True):
        _report(job, record, f"strand {job.options.strand}: " if len(jobs) > 1 else "")
        for path in paths:
            click.echo(path)
    for _, path in margins:
        click.echo(path)


def _report(job: "Job", record: dict[str, Any], which: str) -> None:
    """Log the speed of a job, its window error, scores that are missing, zero or inaccurate, and warnings."""
    from genoscan.likelihood import likelihood_warning
    from genoscan.window_error.expected import describe_windows

    bases, seconds = sum(len(region) for region in job.regions), record["seconds"]
    if record["scored_bases"]:
        log(f"{which}{bases:,} bases in {seconds:.1f} s ({bases / seconds:,.0f} bases/s)")
    else:
        log(f"{which}no base of the regions has a score ({bases:,} bases, N or masked): the track is valid but empty")
    if record["scored_bases"] and (windows := describe_windows(job)) is not None:
        log(f"{which}{windows}")
    if zeros := record["zero_regions"]:
        log(
            f"{which}{zeros:,} of {len(job.regions):,} regions: every score is 0; either the target does "
            f"not depend on these bases, or its derivatives underflow in {record['dtype']}"
        )
    if "completeness" in record:
        _report_completeness(job, record, which)
    if "likelihood" in record and (unlike := likelihood_warning(job.model.name, record["likelihood"])) is not None:
        log(f"{which}{unlike}")


def _report_completeness(job: "Job", record: dict[str, Any], which: str) -> None:
    """Log the regions whose completeness error is large or, with automatic steps, above the tolerance."""
    from genoscan.averages.path_method import LARGE_ERROR, TOLERANCE

    automatic = job.options.path is not None and job.options.path.steps is None
    limit = TOLERANCE if automatic else LARGE_ERROR
    rows = [row for batch in record["completeness"] for row in batch]
    errors = [float("inf") if row["error"] is None else row["error"] for row in rows]
    above = [error for error in errors if error > limit]
    if above:
        remedy = f"not reached with {max(row['steps'] for row in rows):,} steps" if automatic else "more --steps"
        log(
            f"{which}completeness error above {limit:.0%} in {len(above):,} of {len(errors):,} regions, at most "
            f"{max(above):.1%}: {remedy}{'; try' if automatic else ', or'} another --baseline"
        )
