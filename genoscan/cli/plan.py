"""genoscan plan: estimate the memory and time that `genoscan attribute` needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genoscan.cli.inputs import prepare_jobs
from genoscan.cli.messages import aligned, format_duration, format_size, size_option, table
from genoscan.cli.options import JOB
from genoscan.errors import InputError

if TYPE_CHECKING:
    from genoscan.estimate import Estimate
    from genoscan.job import Job


@click.command("plan")
@JOB
@click.option("--whole-genome", is_flag=True, help="Also print the time and disk space of shards, for all sequences.")
def command(outputs: tuple[Path, ...], whole_genome: bool, **options: Any) -> None:
    """Estimate the memory, disk space and time that an attribute run needs.

    The command takes the same arguments as attribute, except --with-margin, but writes no files. It
    extrapolates the time from a short run on this machine. GENOME may also be a .fai index written by
    samtools faidx; the FASTA file is not needed.

    \b
    Example:
      genoscan plan hg38.fa.fai --whole-genome --device cuda -o hg38.bw
    """
    from genoscan.estimate import combine, estimate
    from genoscan.window_error.expected import describe_expected_error

    if whole_genome and (options["region_texts"] or options["bed_path"] or options["shard"]):
        raise InputError("--whole-genome: leave --region, --bed and --shard out")
    jobs = [job for job, _ in prepare_jobs(outputs=outputs, **options)]
    job = jobs[0]
    tile = job.model.method.tile
    shuffled = job.options.path is not None and job.options.path.shuffles
    per_base = "2 bytes per base of a batch, 5 to shuffle a window" if shuffled else "1 byte per base of a batch"
    costs = [estimate(one, outputs) for one in jobs]
    cost = combine(costs)
    total, longest = (format_duration(seconds) for seconds in (sum(cost.by_batch), max(cost.by_batch)))
    boundaries = (
        f"{format_size(cost.boundary_bytes)} between the layers, for the longest batch, in {cost.boundary_place}"
    )
    kept = f"{_kept(job)}; --memory {size_option(cost.activation_bytes or 0)} keeps all of the longest batch"
    independent = "" if options["memory"] and cost.activation_bytes else ", independent of length"
    fasta = str(options["genome"]).removesuffix(".fai")
    error = describe_expected_error(job, options["model_name"], fasta)
    click.echo(
        table(
            {
                "regions": f"{cost.regions:,} ({cost.merged_bases:,} bases to score)",
                "windows": f"{cost.windows:,} in {cost.batches:,} batch{'es' * (cost.batches != 1)}, "
                f"{cost.read_bases:,} bases read (context {job.context:,}, reach {job.reach:,})",
                "context": f"{cost.context_share:.0%} of the bases read are not scored",
                **({} if error is None else {"window error": error}),
                "longest window": f"{cost.longest:,} bases, {-(-cost.longest // tile):,} tiles of {tile:,}",
                "recomputation": f"{cost.recomputed:.2f} additional forward passes per tile",
                **({"gradients": f"{_range(*cost.gradients)} per window"} if job.options.path is not None else {}),
                "process memory": f"{format_size(cost.base_bytes)} for interpreter, libraries, model and index",
                "engine memory": f"{format_size(cost.engine_bytes)}{independent}",
                **({"kept activations": kept} if cost.activation_bytes else {}),
                **({"boundary memory": boundaries} if cost.boundary_bytes else {}),
                "window memory": f"{format_size(cost.window_bytes)} ({per_base})",
                "total memory": f"{format_size(cost.memory_bytes)}, without the memory of a GPU",
                "disk until done": f"{format_size(cost.disk_bytes)} in the first output's folder, of which "
                f"{format_size(cost.state_bytes)} to continue an interrupted window",
                "disk for outputs": f"about {format_size(cost.output_bytes)} in addition",
                "time": f"{total}; the longest batch {longest}",
            }
        )
    )
    if whole_genome:
        _print_shards(jobs, costs, outputs)


def _kept(job: "Job") -> str:
    """Return the number of bases whose activations are kept in memory, and their size."""
    method = job.model.method.fit(job.model.stack, job.longest, job.widest)
    bases = min(job.longest, getattr(method, "kept", 1) * method.tile)
    return f"of {bases:,} bases, {job.model.position_bytes / 1e3:,.1f} kB each"


def _range(fewest: int, most: int) -> str:
    return f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,} (the time is that of {fewest:,})"


def _print_shards(jobs: "Sequence[Job]", costs: "Sequence[Estimate]", outputs: Sequence[Path]) -> None:
    """Print the estimated time and disk space if the jobs are divided into shards.

    The table has one row each for 1, 2, 4, ... shards, up to one shard per batch. It lists the time of the slowest
    shard, the total time, the size of the largest file of a shard, and the disk space of this shard, which includes
    what is stored until it is complete. There are two jobs if the strands are separate; a shard then consists of a
    shard of each.
    """
    from genoscan.shards import bases_read, cut
    from genoscan.tracks.outputs import file_bytes

    path = next((path for path in outputs if path.suffix == ".npz"), Path("shard.bw"))
    total = format_duration(sum(sum(cost.by_batch) for cost in costs))
    stored = (costs[0].disk_bytes - costs[0].state_bytes) / costs[0].merged_bases  # bytes per base
    scored = [[sum(len(r) for w in batch for r in w[0].regions) for batch in job.batches] for job in jobs]
    read = [bases_read(job.batches) for job in jobs]
    most = min(map(len, read))
    rows = [("shards", "time, longest", "time, all", f"largest {path.suffix}", "its disk space")]
    for n in sorted({most, *(2**i for i in range(most.bit_length()))}):
        seconds, bases = [0.0] * n, 0
        for cost, of_batch, lengths in zip(costs, scored, read, strict=True):
            for i, part in enumerate(cut(lengths, n)):
                seconds[i] += sum(cost.by_batch[part])
                bases = max(bases, sum(of_batch[part]))
        size = file_bytes(path, bases, shard=True)
        disk = stored * bases + costs[0].state_bytes + size
        rows.append((f"{n:,}", format_duration(max(seconds)), total, format_size(size), format_size(disk)))
    every = file_bytes(path, sum(map(sum, scored)), shard=True)
    click.echo(f"\n{aligned(rows, right=range(1, 5))}")
    click.echo(f"Files of all shards: {format_size(every)}, needed until they are merged")
