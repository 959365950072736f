"""What a job will cost, before it runs: measured on a few tiles, multiplied out."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from genoscan import usage
from genoscan.engine.adjoint import consume
from genoscan.engine.engine import Engine
from genoscan.engine.inputs import OneHot
from genoscan.engine.stages import Sweep, shares, side_by_side
from genoscan.engine.target import whole_window
from genoscan.job import Job
from genoscan.layer import Layer, TwoWayChain, leaves

_WARM_UP = 64
"""Bases of a first run, which finds the kernels and takes next to no memory."""


@dataclass(frozen=True)
class Estimate:
    """Counts, bytes and seconds of a job.

    again           forward tiles beside each adjoined one, in the longest window
    engine_bytes    the tiles' activations and the remembered carries, of one batch
    boundary_bytes  of a two-way model, what lies between its layers, of one batch
    window_bytes    the bases of one batch
    disk_bytes      scores and bases (and columns) kept beside the output until it is done
    by_batch        seconds, batch by batch: of one, a kill loses no more
    """

    regions: int
    merged_bases: int
    windows: int
    batches: int
    read_bases: int
    longest: int
    again: float
    engine_bytes: int
    boundary_bytes: int
    window_bytes: int
    disk_bytes: int
    by_batch: tuple[float, ...]


def estimate(job: Job, *, columns: bool) -> Estimate:
    """Predict the cost of a job from a few tiles that are run here and now."""
    options, engine, stack = job.options, job.engine, job.model.stack
    longest = max((len(r[0]) for batch in job.batches for r in batch), default=0)
    width = max(len(batch) for batch in job.batches)
    size = min(options.tile, longest)
    n_tiles = -(-longest // options.tile)
    probed = min(n_tiles, 4)
    taken, forward, both = _probe(job, width, size, probed)
    if not isinstance(stack, TwoWayChain):  # whose carries lie with the boundaries
        more = max(0, min(options.slots, n_tiles) - probed)
        taken += more * sum(part.nbytes for part in leaves(stack.begin(width)))
    seconds = []
    for batch in job.batches:
        cost = 0.0
        for windows in zip(*batch, strict=True):
            length = len(windows[0])
            per_base = (both + forward * engine.again(stack, length)) / (width * size)
            cost += per_base * length * len(windows)
        seconds.append(cost)
    scored = sum(len(region) for region in job.regions)
    windows_read = [w for batch in job.batches for windows in batch for w in windows]
    return Estimate(
        regions=len(job.regions),
        merged_bases=scored,
        windows=len(windows_read),
        batches=len(job.batches),
        read_bases=sum(len(window) for window in windows_read),
        longest=longest,
        again=engine.again(stack, longest),
        engine_bytes=taken,
        boundary_bytes=engine.boundary_bytes(stack, longest, width),
        window_bytes=longest * width,
        disk_bytes=scored * (21 if columns or options.strand == "both" else 5),
        by_batch=tuple(seconds),
    )


def _stages(job: Job, width: int) -> int:
    """Return how many stages each share of so many windows is run in."""
    stages = len(Sweep(_causal(job)).stages)
    return max(1, stages // len(shares(width, job.model.device)))


def _causal(job: Job) -> Layer:
    """Return what is swept at a time: all layers, or one direction of one."""
    stack = job.model.stack
    return stack.two_way[0].forth if isinstance(stack, TwoWayChain) else stack


def _probe(job: Job, width: int, size: int, tiles: int) -> tuple[int, float, float]:
    """Return the bytes that a few tiles take, and the seconds of a tile forward and adjoined."""
    model, device = job.model, job.model.device
    codes = torch.randint(0, 4, (width, size * tiles), dtype=torch.uint8)
    parts = shares(width, device)
    engine = Engine(tile=size, slots=tiles)

    def adjoin(share: slice, length: int, _check: Callable[[], None]) -> None:
        inputs = OneHot(codes[share, :length], model.table())
        target = whole_window(inputs.codes, model.columns(), model.config.label_offset)
        consume(engine.adjoint(model.stack, inputs, target))

    def run(length: int) -> float:
        started = time.perf_counter()
        side_by_side([partial(adjoin, share, length) for share in parts])
        return time.perf_counter() - started

    run(min(_WARM_UP, size))
    before = usage.in_use(str(device))
    usage.forget_peak(str(device))
    run(size * tiles)
    taken = usage.peak(str(device)) - before
    taken -= engine.boundary_bytes(model.stack, size * tiles, width)
    whole = run(size * tiles)
    layer, x = _causal(job), OneHot(codes, model.table()).tile(slice(0, size))
    if isinstance(model.stack, TwoWayChain):
        x = model.stack.two_way[0].before(model.stack.enter(x)).detach()
    started = time.perf_counter()
    with torch.no_grad():
        layer.forward(x, layer.begin(width))
    # Shares, and stages of a sweep, work on a forward tile side by side.
    forward = time.perf_counter() - started
    forward /= _stages(job, width) * len(parts)
    return max(0, taken), forward, max(whole - forward * (tiles - 1), 0) / tiles
