"""Forward sweep from left to right, which computes the outputs tile by tile, without derivatives."""

from collections.abc import Callable, Generator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.engine.inputs import Inputs, Spans
from genoscan.engine.stages import StagePipeline
from genoscan.layer import Carry, Layer
from genoscan.ops.denormals import flush_denormals_during


def forward(
    layer: Layer,
    inputs: Inputs,
    *,
    tile: int,
    carry: Carry | None = None,
    progress: Callable[[int], object] = lambda _positions: None,
) -> Generator[tuple[slice, Float[Tensor, "batch span d_out"]], None, None]:
    """Yield the outputs tile by tile, from left to right.

    `progress` is called once per tile, with the number of positions in the tile.

    Notes
    -----
    The outputs equal those of a single pass over the whole window, up to rounding.

    Memory: the activations of one tile for each stage (see stages.py), and one carry.
    """

    def read(span: slice) -> Tensor:
        progress(span.stop - span.start)
        return inputs.tile(span)

    sweep = StagePipeline(layer)
    carries = sweep.split(layer.begin(inputs.batch) if carry is None else carry)
    yield from rightward(sweep, carries, Spans(inputs.length, tile), read)


def rightward(
    sweep: StagePipeline, carries: Sequence[Carry], tiles: Spans, read: Callable[[slice], Tensor]
) -> Generator[tuple[slice, Tensor], None, None]:
    """Run tiles through all stages and yield the outputs; no autograd graph is recorded."""
    queues = [sweep.queue(1) for _ in sweep.stages[1:]]
    runs = [
        flush_denormals_during(_stage(stage, carries[i], tiles, read if i == 0 else queues[i - 1].get))
        for i, stage in enumerate(sweep.stages)
    ]

    def drive(i: int) -> None:
        for _, outputs in runs[i]:
            queues[i].put(outputs)

    with sweep.beside(*(partial(drive, i) for i in range(len(queues)))):
        yield from runs[-1]


def _stage(
    stage: Layer, live: Carry, tiles: Spans, read: Callable[[slice], Tensor]
) -> Generator[tuple[slice, Tensor], None, None]:
    """Run every tile through one stage and yield the outputs."""
    for span in tiles:
        with torch.no_grad():
            outputs, live = stage.forward(read(span), live)
        yield span, outputs
