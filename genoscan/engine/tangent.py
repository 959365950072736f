"""One direction, every output: tangents pushed from the window's left end to its right."""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.engine.inputs import Inputs, spans
from genoscan.engine.stages import Sweep
from genoscan.errors import InputError
from genoscan.layer import Carry, Layer, map_leaves
from genoscan.ops.dual import Dual, primal


@runtime_checkable
class Directions(Protocol):
    """Directions in input space, ready to be read in tiles."""

    @property
    def count(self) -> int:
        """How many directions there are."""
        ...

    def tile(self, span: slice) -> Float[Tensor, "directions batch tile d_in"]:
        """Return every direction's part over the span."""
        ...


class DenseDirections:
    """Directions that are whole in memory."""

    def __init__(self, x_dot: Float[Tensor, "directions batch length d_in"]) -> None:
        self._x_dot = x_dot
        self.count = x_dot.shape[0]

    def tile(self, span: slice) -> Float[Tensor, "directions batch tile d_in"]:
        return self._x_dot[:, :, span]


class BaseChange:
    """From the observed base to each of some others, at one position of one window.

    `changes` has a row a direction: the model's input for the new base less the present one.
    Memory: one tile.
    """

    def __init__(self, position: int, changes: Float[Tensor, "directions d_in"]) -> None:
        self._position = position
        self._changes = changes
        self.count = changes.shape[0]

    def tile(self, span: slice) -> Float[Tensor, "directions batch tile d_in"]:
        count, width = self._changes.shape
        x_dot = self._changes.new_zeros(count, 1, span.stop - span.start, width)
        if span.start <= self._position < span.stop:
            x_dot[:, 0, self._position - span.start] = self._changes
        return x_dot


def tangent(
    layer: Layer,
    inputs: Inputs,
    directions: Directions,
    *,
    tile: int,
    carry: Carry | None = None,
    progress: Callable[[int], object] = lambda _positions: None,
) -> Generator[
    tuple[slice, Float[Tensor, "batch span d_out"], Float[Tensor, "directions batch span d_out"]],
    None,
    None,
]:
    """Yield the outputs and their derivative along each direction, tile by tile, left to right.

    Exact: equal to a whole-window jvp up to rounding; zero, to the bit, before the first
    position where a direction is not.
    Memory: one tile and one carry, and a tangent of both for each direction, whatever the length.
    """
    if tile < 1:
        raise InputError(f"tile {tile}: at least 1 base is needed")
    tiles = spans(inputs.length, tile)
    sweep = Sweep(layer)
    carries = sweep.split(layer.begin(inputs.batch) if carry is None else carry)
    forth = [sweep.relay(1) for _ in sweep.stages[1:]]

    def read(span: slice) -> Dual:
        progress(span.stop - span.start)
        return Dual.of(inputs.tile(span), directions.tile(span))

    runs = [
        _stage(stage, carries[i], tiles, directions.count, read if i == 0 else forth[i - 1].take)
        for i, stage in enumerate(sweep.stages)
    ]

    def drive(i: int) -> None:
        for _, outputs in runs[i]:
            forth[i].hand(outputs)

    with sweep.beside(*(partial(drive, i) for i in range(len(forth)))):
        for span, outputs in runs[-1]:
            yield span, primal(outputs), outputs.dots


def _stage(
    stage: Layer,
    carry: Carry,
    tiles: Sequence[slice],
    count: int,
    read: Callable[[slice], Dual],
) -> Generator[tuple[slice, Dual], None, None]:
    """Push every tile, and its tangents, through one stage."""
    live = map_leaves(lambda leaf: Dual.of(leaf, leaf.new_zeros(count, *leaf.shape)), carry)
    for span in tiles:
        with torch.no_grad():
            outputs, live = stage.forward(read(span), live)
        yield span, outputs  # type: ignore[misc]
