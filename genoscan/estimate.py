"""Estimation of the memory, disk space and time that a job needs, extrapolated from a short run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from genoscan import usage
from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Adjoint, Method
from genoscan.engine.stages import StagePipeline, shares
from genoscan.gradient import stream_gradient
from genoscan.job import Job
from genoscan.model import Model
from genoscan.targets import whole_target
from genoscan.tracks.outputs import file_bytes
from genoscan.tracks.store import bytes_per_base

_WARM_UP = 64
"""Length, in bases, of the warm-up run, which loads the kernels and needs little memory."""


@dataclass(frozen=True)
class Estimate:
    """Estimated size, memory, disk space and computing time of a job.

    Attributes
    ----------
    regions, windows, batches
        Number of regions after merging, number of windows, and number of batches.
    merged_bases
        Number of bases in the merged regions, which are the bases to score.
    read_bases
        Total number of bases in all windows. The computing time is proportional to this number.
    context_share
        Fraction of `read_bases` that is read only as context and is not scored.
    longest
        Length of the longest window, in bases.
    recomputed
        Average number of additional forward passes per tile in the longest window. They recompute
        activations that are not stored.
    engine_bytes
        Memory, in bytes, that one batch needs for the activations of tiles and for the stored carries.
    activation_bytes
        Memory, in bytes, in which the activations of all tiles of the longest batch could be kept (`--memory`), so
        that no tile is run forward again; None for bidirectional models, and on a GPU.
    boundary_bytes
        Storage, in bytes, that one batch needs for the activations between layers; 0 for causal models.
    boundary_place
        Place where the activations between layers are stored: "memory", a GPU or a folder.
    window_bytes
        Memory, in bytes, that one batch needs for its base codes, and for those of shuffled baselines.
    base_bytes
        Memory, in bytes, that the process uses before the computation starts, for the interpreter, the
        libraries, the model and the genome index.
    memory_bytes
        Peak memory of the process, in bytes, including `base_bytes` but excluding GPU memory.
    disk_bytes
        Disk space, in bytes, that the run uses in the output folder, until it is complete, for the scores, the bases,
        the derivatives (if they are needed) and the saved state of a sweep.
    state_bytes
        Disk space, in bytes, for the saved state of a sweep, from which an interrupted run resumes.
    output_bytes
        Approximate size of all outputs, in bytes.
    by_batch
        Computing time of each batch, in seconds.
    gradients
        Smallest and largest number of gradients that are computed for each window. The computing time is
        that of the smallest number.
    """

    regions: int
    merged_bases: int
    windows: int
    batches: int
    read_bases: int
    context_share: float
    longest: int
    recomputed: float
    engine_bytes: int
    activation_bytes: int | None
    boundary_bytes: int
    boundary_place: str
    window_bytes: int
    base_bytes: int
    memory_bytes: int
    disk_bytes: int
    state_bytes: int
    output_bytes: int
    by_batch: tuple[float, ...]
    gradients: tuple[int, int]


def estimate(job: Job, outputs: Sequence[Path]) -> Estimate:
    """Estimate the cost of a job from a run of at most four tiles.

    Parameters
    ----------
    job
        The job, as returned by `prepare`.
    outputs
        Files that the run would write.

    Returns
    -------
    Estimate
        Estimated size, memory, disk space and computing time.
    """
    base_bytes = usage.in_use("cpu")
    stack, longest, width = job.model.stack, job.longest, job.widest
    method = job.model.method.fit(stack, longest, width)
    size = min(method.tile, longest)
    probed = min(-(-longest // size), 4)
    probe = _probe(job.model, method, width, size, probed)
    cost, of_probe = (method.cost(stack, length, width) for length in (longest, size * probed))
    seconds = []
    gradients, values = (1, 1), 0
    if job.options.path is not None:
        gradients, values = job.options.path.n_evaluations, job.options.path.n_values
    codes_bytes = longest * width
    if job.options.path is not None and job.options.path.shuffles:
        codes_bytes += longest * (width + 5)  # the shuffled windows, and the shuffling of one window
    for batch in job.batches:
        of_batch = 0.0
        for windows in zip(*batch, strict=True):
            length = len(windows[0])
            recomputed = method.cost(stack, length, width).recomputed
            per_gradient = probe.adjoined + probe.forward * recomputed
            per_base = (per_gradient * gradients[0] + probe.forward * values) / (width * size)
            of_batch += per_base * length * len(windows)
        seconds.append(of_batch)
    scored = sum(len(region) for region in job.regions)
    stored = bytes_per_base(columns=job.stores_columns(outputs), both_strands=job.options.strand == "both")
    engine_bytes = probe.bytes + cost.carry_bytes - of_probe.carry_bytes
    per_position = job.model.position_bytes
    if isinstance(method, Adjoint):
        engine_bytes += max(0, method.kept - probed) * size * width * per_position
    memory_bytes = base_bytes + codes_bytes
    memory_bytes += engine_bytes if job.model.device.type == "cpu" else 0
    memory_bytes += cost.boundary_bytes if cost.boundary_place == "memory" else 0
    return Estimate(
        regions=len(job.regions),
        merged_bases=scored,
        windows=sum(len(windows) for batch in job.batches for windows in batch),
        batches=len(job.batches),
        read_bases=job.read_bases,
        context_share=job.context_share,
        longest=longest,
        recomputed=cost.recomputed,
        engine_bytes=engine_bytes,
        activation_bytes=per_position * longest * width or None,
        boundary_bytes=cost.boundary_bytes,
        boundary_place=cost.boundary_place,
        window_bytes=codes_bytes,
        base_bytes=base_bytes,
        memory_bytes=memory_bytes,
        disk_bytes=scored * stored + cost.state_bytes,
        state_bytes=cost.state_bytes,
        output_bytes=sum(file_bytes(path, scored, shard=job.options.shard is not None) for path in outputs),
        by_batch=tuple(seconds),
        gradients=gradients,
    )


def combine(estimates: Sequence[Estimate]) -> Estimate:
    """Return the estimate for several jobs of the same regions that are run one after the other.

    Parameters
    ----------
    estimates
        Estimates of the jobs, such as those of the two strands.

    Returns
    -------
    Estimate
        Sums of windows, bases read, disk space, outputs and time; the largest memory. The number of regions, and of
        bases to score, is that of the first job.
    """
    first, largest = estimates[0], max(estimates, key=lambda cost: cost.memory_bytes)
    if len(estimates) == 1:
        return first
    read_bases = sum(cost.read_bases for cost in estimates)
    state_bytes = max(cost.state_bytes for cost in estimates)
    return replace(
        largest,
        regions=first.regions,
        merged_bases=first.merged_bases,
        windows=sum(cost.windows for cost in estimates),
        batches=sum(cost.batches for cost in estimates),
        read_bases=read_bases,
        context_share=sum(cost.context_share * cost.read_bases for cost in estimates) / read_bases,
        longest=max(cost.longest for cost in estimates),
        state_bytes=state_bytes,
        disk_bytes=sum(cost.disk_bytes - cost.state_bytes for cost in estimates) + state_bytes,
        output_bytes=sum(cost.output_bytes for cost in estimates),
        by_batch=tuple(seconds for cost in estimates for seconds in cost.by_batch),
    )


def passes(job: Job) -> int:
    """Return the total number of positions that a run of the job will report as progress.

    A position is counted once for each pass over it. If the number of gradients is automatic, the smallest
    number is assumed.
    """
    stack, total, path = job.model.stack, 0, job.options.path
    gradients, values = (1, 0) if path is None else (path.n_evaluations[0], path.n_values)
    for batch in job.batches:
        for windows in zip(*batch, strict=True):
            length, width = len(windows[0]), len(windows)
            method = job.model.method.fit(stack, length, width)
            total += width * round(length * method.cost(stack, length, width).passes) * gradients
            total += width * length * method.forward_passes(stack) * values
    return total


class _Probe(NamedTuple):
    """Measured cost of a gradient over a few tiles.

    Attributes
    ----------
    bytes
        Additional peak memory, in bytes, except for the activations between layers.
    forward
        Seconds per tile for one forward pass.
    adjoined
        Seconds per tile for the gradient, excluding the additional forward passes that recompute
        activations.
    """

    bytes: int
    forward: float
    adjoined: float


def _probe(model: Model, method: Method, width: int, size: int, tiles: int) -> _Probe:
    device, length = model.device, size * tiles
    codes = torch.randint(0, 4, (width, length), dtype=torch.uint8)

    def run(length: int) -> float:
        read = codes[:, :length]
        target = whole_target(model, read)
        started = time.perf_counter()
        stream_gradient(model, read, target, lambda *_tile: None, method)
        return time.perf_counter() - started

    run(min(_WARM_UP, size))
    before = usage.in_use(str(device))
    usage.reset_peak(str(device))
    run(length)
    cost = method.cost(model.stack, length, width)
    taken = usage.peak(str(device)) - before - cost.boundary_bytes
    whole = run(length)
    first = OneHot(codes, model.table()).tile(slice(0, size))
    with torch.no_grad():
        layer, x = method.unit(model.stack, first)
        started = time.perf_counter()
        layer.forward(x, layer.begin(width))
    # In a sweep, shares and stages compute forward passes in parallel.
    n_shares = len(shares(width, device))
    n_stages = max(1, len(StagePipeline(layer).stages) // n_shares)
    forward = (time.perf_counter() - started) / (n_stages * n_shares)
    adjoined = whole / tiles - forward * cost.recomputed
    return _Probe(max(0, taken), forward, max(0.0, adjoined))
