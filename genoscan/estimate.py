"""What a job will cost, before it runs: measured on one tile, multiplied out."""

import time
from dataclasses import dataclass

import torch

from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.checkpoints import advances
from genoscan.engine.inputs import OneHot
from genoscan.engine.target import whole_window
from genoscan.job import Job
from genoscan.layer import leaves


@dataclass(frozen=True)
class Estimate:
    """Counts, bytes and seconds of a job.

    again           forward tiles beside each adjoined one, in the longest window
    engine_bytes    one tile's activations and the remembered carries, of one batch
    window_bytes    the bases of one batch
    disk_bytes      scores and bases (and columns) kept beside the output until it is done
    seconds         all batches; seconds_longest: one batch, lost at most by a kill
    """

    regions: int
    merged_bases: int
    windows: int
    batches: int
    read_bases: int
    longest: int
    again: float
    engine_bytes: int
    window_bytes: int
    disk_bytes: int
    seconds: float
    seconds_longest: float


def estimate(job: Job, *, columns: bool) -> Estimate:
    """Predict the cost of a job from one tile that is run here and now."""
    options = job.options
    longest = max((len(r[0]) for batch in job.batches for r in batch), default=0)
    width = max(len(batch) for batch in job.batches)
    size = min(options.tile, longest)
    saved, forward, both = _probe(job, width, size)
    n_tiles = -(-longest // options.tile)
    carry = sum(leaf.numel() * leaf.element_size() for leaf in leaves(job.model.stack.begin(width)))
    seconds = []
    for batch in job.batches:
        cost = 0.0
        for windows in zip(*batch, strict=True):
            length = len(windows[0])
            tiles = -(-length // options.tile)
            per_base = (both + forward * advances(tiles, options.slots) / tiles) / (width * size)
            cost += per_base * length * len(windows)
        seconds.append(cost)
    scored = sum(len(region) for region in job.regions)
    windows_read = [w for batch in job.batches for reading in batch for w in reading]
    return Estimate(
        regions=len(job.regions),
        merged_bases=scored,
        windows=len(windows_read),
        batches=len(job.batches),
        read_bases=sum(len(window) for window in windows_read),
        longest=longest,
        again=advances(n_tiles, options.slots) / n_tiles,
        engine_bytes=saved + carry * min(options.slots, n_tiles),
        window_bytes=longest * width,
        disk_bytes=scored * (21 if columns or options.strand == "both" else 5),
        seconds=sum(seconds),
        seconds_longest=max(seconds),
    )


def _probe(job: Job, width: int, size: int) -> tuple[int, float, float]:
    """Return the bytes that one tile's graph holds, and its seconds forward and adjoined."""
    model = job.model
    codes = torch.randint(0, 4, (width, size), dtype=torch.uint8)
    inputs = OneHot(codes, model.table())
    target = whole_window(codes, model.columns(), model.config.label_offset)
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    def run() -> None:
        consume(adjoint(model.stack, inputs, target, tile=size, slots=1))

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    started = time.perf_counter()
    with torch.no_grad():
        model.stack(inputs.tile(slice(0, size)), model.stack.begin(width))
    middle = time.perf_counter()
    run()
    weights = {p.untyped_storage().data_ptr() for p in model.stack.parameters()}
    saved = sum(size for pointer, size in held.items() if pointer not in weights)
    return saved, middle - started, time.perf_counter() - middle
