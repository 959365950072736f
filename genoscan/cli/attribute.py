"""genoscan attribute: the main job."""

import sys
from pathlib import Path
from typing import Any

import click

from genoscan.cli.options import JOB, PATH, prepare_job, say


@click.command("attribute")
@JOB
@click.option(
    "--with-margin", "margin_path", metavar="FILE", type=PATH,
    help="Write a second track: how near each base's selections are to being others, which a "
    "derivative cannot see. For models with PD-SSM layers.",
)  # fmt: skip
def command(outputs: tuple[Path, ...], margin_path: Path | None, **options: Any) -> None:
    """Write the exact derivative of the model's score with respect to every base.

    GENOME is FASTA (plain or bgzip) or GenBank. A run that was interrupted goes on where it
    stopped when the same command is given again.

    \b
    Example:
      genoscan attribute chr.fa --region chr1:10,001-110,000 -o sensitivity.bw
    """
    from genoscan.cli.progress import progress
    from genoscan.estimate import passes
    from genoscan.margin import check_margins, write_margins
    from genoscan.pipeline import run

    job = prepare_job(outputs=outputs, **options)
    if margin_path is not None:
        check_margins(job, margin_path, outputs)
    with progress(passes(job)) as tell:
        record = run(job, outputs, command=sys.argv, progress=tell)
    bases, seconds = sum(len(region) for region in job.regions), record["seconds"]
    if record["scored_bases"]:
        say(f"{bases:,} bases in {seconds:.1f} s ({bases / seconds:,.0f} bases/s)")
    else:
        say(
            f"no base of the regions has a score ({bases:,} bases, N or masked): the track is "
            "valid and empty"
        )
    if zeros := record["zero_regions"]:
        say(
            f"{zeros:,} of {len(job.regions):,} regions: every score is 0; the target does not "
            f"depend on these bases, or its derivatives underflow in {record['dtype']}"
        )
    for path in outputs:
        click.echo(path)
    if margin_path is not None:
        with progress(
            sum(len(window) for batch in job.batches for r in batch for window in r)
        ) as tell:
            write_margins(job, margin_path, command=sys.argv, progress=tell)
        click.echo(margin_path)
