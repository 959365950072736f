"""genoscan plan: what attribute would cost."""

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
    table,
)


@click.command("plan")
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
    """Print memory, tiles, recomputation and time, with attribute's own arguments.

    Nothing is written. Time is that of one tile, run here and now, multiplied out.
    """
    from genoscan.estimate import estimate
    from genoscan.genome.genome import open_genome
    from genoscan.job import Options, prepare

    check_outputs(outputs, [genome, bed_path])
    opened = open_genome(genome)
    regions = read_regions(opened, region_texts, bed_path, clip)
    settings = Options(**options)
    job = prepare(opened, load_chosen(model_name, dtype, device, threads), regions, settings)
    cost = estimate(job, columns=any(path.suffix == ".npz" for path in outputs))
    click.echo(
        table(
            {
                "regions": f"{cost.regions:,} ({cost.merged_bases:,} bases to score)",
                "windows": f"{cost.windows:,} in {cost.batches:,} batches, {cost.read_bases:,} "
                f"bases read (context {job.context:,}, reach {job.reach:,})",
                "longest window": f"{cost.longest:,} bases, {-(-cost.longest // settings.tile):,} "
                f"tiles of {settings.tile:,}",
                "recomputation": f"{cost.again:.2f} forward tiles beside each adjoined one, "
                f"with {settings.slots} slots",
                "engine memory": f"{cost.engine_bytes / 1e6:,.0f} MB, whatever the length",
                "window memory": f"{cost.window_bytes / 1e6:,.1f} MB (1 byte a base, a batch)",
                "disk until done": f"{cost.disk_bytes / 1e6:,.1f} MB beside the first output",
                "time": f"{cost.seconds:,.0f} s; a kill costs at most one batch, "
                f"{cost.seconds_longest:,.0f} s",
            }
        )
    )
