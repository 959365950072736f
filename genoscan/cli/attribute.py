"""genoscan attribute: the main job."""

from pathlib import Path
from typing import Any

import click

from genoscan.cli.options import (
    COMPUTE,
    GENOME,
    MACHINE,
    MODEL,
    OUTPUTS,
    QUESTION,
    REGIONS,
    check_outputs,
    load_chosen,
    read_regions,
    say,
)


@click.command("attribute")
@GENOME
@REGIONS
@OUTPUTS
@MODEL
@QUESTION
@COMPUTE
@MACHINE
def command(
    genome: Path, region_texts: tuple[str, ...], bed_path: Path | None, clip: bool,
    outputs: tuple[Path, ...], model_name: str, dtype: str, device: str, threads: int | None,
    **options: Any,
) -> None:  # fmt: skip
    """Write the exact derivative of the model's score with respect to every base.

    GENOME is FASTA (plain or bgzip) or GenBank. A run that was interrupted goes on where it
    stopped when the same command is given again.

    \b
    Example:
      genoscan attribute chr.fa --region chr1:10,001-110,000 -o sensitivity.bw
    """
    from genoscan.cli.progress import progress
    from genoscan.genome.genome import open_genome
    from genoscan.job import Options, prepare
    from genoscan.pipeline import write_sensitivities

    check_outputs(outputs, [genome, bed_path])
    opened = open_genome(genome)
    regions = read_regions(opened, region_texts, bed_path, clip)
    settings = Options(**options)
    job = prepare(opened, load_chosen(model_name, dtype, device, threads), regions, settings)
    if len(job.regions) < len(regions):
        say(f"{len(regions):,} regions merged to {len(job.regions):,} that do not overlap")
    with progress(job.work()) as tell:
        record = write_sensitivities(job, outputs, progress=tell)
    bases, seconds = sum(len(region) for region in job.regions), record["seconds"]
    if record["scored_bases"]:
        say(f"{bases:,} bases in {seconds:.1f} s ({bases / seconds:,.0f} bases/s)")
    else:
        say(f"no A, C, G or T in the regions ({bases:,} bases): the track is valid and empty")
    for path in outputs:
        click.echo(path)
