"""Tangent sweep from left to right: the derivatives of every output along given directions."""

from collections.abc import Callable, Generator
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from genoscan.engine.forward import rightward
from genoscan.engine.inputs import Inputs, Spans
from genoscan.engine.stages import StagePipeline
from genoscan.layer import Carry, Layer, map_leaves
from genoscan.ops.dual import Dual, primal


@runtime_checkable
class Directions(Protocol):
    """Directions in the input space, which are read tile by tile."""

    @property
    def count(self) -> int:
        """Number of directions."""
        ...

    def tile(self, span: slice) -> Float[Tensor, "directions batch tile d_in"]:
        """Return the parts of all directions at the positions of the span."""
        ...


class DenseDirections:
    """Directions stored as one array."""

    def __init__(self, x_dot: Float[Tensor, "directions batch length d_in"]) -> None:
        self._x_dot = x_dot
        self.count = x_dot.shape[0]

    def tile(self, span: slice) -> Float[Tensor, "directions batch tile d_in"]:
        return self._x_dot[:, :, span]


class BaseChange:
    """Directions from the observed base to other bases at one position of one window.

    `changes` has one row per direction: the model input for the new base minus the model input for the
    observed base. Each tile is created when it is read, so that memory use does not depend on the
    length of the window.
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
    tuple[slice, Float[Tensor, "batch span d_out"], Float[Tensor, "directions batch span d_out"]], None, None
]:
    """Yield the outputs and their derivatives along each direction, tile by tile, from left to right.

    The leaves of the initial carry may be `Dual` tensors, which have tangents.

    Notes
    -----
    The derivatives equal those computed by a `jvp` over the whole window, up to rounding. They are
    exactly zero before the first position at which a direction is nonzero.

    Memory: the activations of one tile and one carry, each with one tangent per direction, regardless
    of the length of the window.
    """

    def read(span: slice) -> Dual:
        progress(span.stop - span.start)
        return Dual.of(inputs.tile(span), directions.tile(span))

    carry = layer.begin(inputs.batch) if carry is None else carry
    for span, outputs in pushed(layer, read, Spans(inputs.length, tile), carry, directions.count):
        yield span, primal(outputs), outputs.dots


def pushed(
    layer: Layer, read: Callable[[slice], Dual], tiles: Spans, carry: Carry, count: int
) -> Generator[tuple[slice, Dual], None, None]:
    """Run tiles with tangents through all stages, and yield the outputs with their tangents."""
    sweep = StagePipeline(layer)
    carries = [map_leaves(lambda leaf: _moving(leaf, count), part) for part in sweep.split(carry)]
    yield from rightward(sweep, carries, tiles, read)  # type: ignore[misc]


def _moving(leaf: Tensor, directions: int) -> Dual:
    if isinstance(leaf, Dual):
        return leaf
    return Dual.of(leaf, leaf.new_zeros(directions, *leaf.shape))
