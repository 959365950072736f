"""genoscan plan: what attribute would cost."""

from pathlib import Path
from typing import Any

import click

from genoscan.cli.options import JOB, prepare_job, table


@click.command("plan")
@JOB
def command(outputs: tuple[Path, ...], **options: Any) -> None:
    """Print memory, tiles, recomputation and time, with attribute's own arguments.

    Nothing is written. Time is that of one tile, run here and now, multiplied out.
    """
    from genoscan.estimate import estimate

    job = prepare_job(outputs=outputs, **options)
    tile = job.options.tile
    cost = estimate(job, columns=any(path.suffix == ".npz" for path in outputs))
    place = "memory" if str(job.engine.place) == "cpu" else job.engine.place
    boundaries = (
        f"{cost.boundary_bytes / 1e6:,.0f} MB between the layers, of the longest batch, in {place}"
    )
    click.echo(
        table(
            {
                "regions": f"{cost.regions:,} ({cost.merged_bases:,} bases to score)",
                "windows": f"{cost.windows:,} in {cost.batches:,} batches, {cost.read_bases:,} "
                f"bases read (context {job.context:,}, reach {job.reach:,})",
                "longest window": f"{cost.longest:,} bases, {-(-cost.longest // tile):,} "
                f"tiles of {tile:,}",
                "recomputation": f"{cost.again:.2f} forward tiles beside each adjoined one",
                "engine memory": f"{cost.engine_bytes / 1e6:,.0f} MB, whatever the length",
                **({"boundary memory": boundaries} if cost.boundary_bytes else {}),
                "window memory": f"{cost.window_bytes / 1e6:,.1f} MB (1 byte a base, a batch)",
                "disk until done": f"{cost.disk_bytes / 1e6:,.1f} MB beside the first output",
                "time": f"{cost.seconds:,.0f} s; a kill costs at most one batch, "
                f"{cost.seconds_longest:,.0f} s",
            }
        )
    )
