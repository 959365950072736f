"""genoscan plan: what attribute would cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genoscan.cli.options import JOB, prepare_job, table
from genoscan.errors import InputError

if TYPE_CHECKING:
    from genoscan.estimate import Estimate
    from genoscan.job import Job

_BYTES_A_BASE = 17
"""Of an .npz: four derivatives and the base."""


@click.command("plan")
@JOB
@click.option(
    "--whole-genome", is_flag=True,
    help="Print, too, what the shards of every sequence would take.",
)  # fmt: skip
def command(outputs: tuple[Path, ...], whole_genome: bool, **options: Any) -> None:
    """Print memory, tiles, recomputation and time, with attribute's own arguments.

    Nothing is written. Time is that of one tile, run here and now, multiplied out. Lengths will do
    for a genome: the .fai of samtools faidx.

    \b
    Example:
      genoscan plan hg38.fa.fai --whole-genome --device cuda -o hg38.bw
    """
    from genoscan.estimate import estimate

    if whole_genome and (options["region_texts"] or options["bed_path"] or options["shard"]):
        raise InputError("--whole-genome: leave --region, --bed and --shard out")
    job = prepare_job(outputs=outputs, **options)
    tile = job.model.method.tile
    cost = estimate(job, columns=any(path.suffix == ".npz" for path in outputs))
    boundaries = f"{cost.boundary_bytes / 1e6:,.0f} MB between the layers, of the longest batch"
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
                "time": f"{sum(cost.by_batch):,.0f} s; a kill costs at most one batch, "
                f"{max(cost.by_batch):,.0f} s",
            }
        )
    )
    if whole_genome:
        _print_shards(job, cost)


def _print_shards(job: "Job", cost: "Estimate") -> None:
    """Print what the longest of 1, 2, 4, ... shards takes, up to one a batch."""
    from genoscan.shards import cut

    most = len(job.batches)
    click.echo("\nshards    hours, longest    of all    GB of its .npz")
    for n in sorted({most, *(2**i for i in range(most.bit_length()))}):
        parts = cut(job.batches, n)
        hours = max(sum(cost.by_batch[part]) for part in parts) / 3600
        scored = [
            sum(len(windows[0].scored) for batch in job.batches[part] for windows in batch)
            for part in parts
        ]
        size = max(scored) * _BYTES_A_BASE / 1e9
        click.echo(f"{n:<8,}  {hours:>14,.2f}  {sum(cost.by_batch) / 3600:>8,.2f}  {size:>16,.2f}")
