"""All that the engine answers, for layers that look both ways: layer by layer, tile by tile.

A layer that reads from both ends needs all of its input before it can say anything, so that what
lies between two layers, a **boundary**, has to be kept: length x width numbers, wherever there is
room for them.  Within a layer all is causal in one direction or the other, and runs as in
`adjoint.py`: tile by tile, in memory that does not grow with the length.

Which boundaries are kept is decided as carries are (`checkpoints.py`): layers stand for tiles.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.engine.adjoint import AdjointResult, adjoint
from genoscan.engine.boundaries import Between, Shelf
from genoscan.engine.checkpoints import Adjoin, Advance, Drop, Restore, Save, schedule
from genoscan.engine.forward import forward
from genoscan.engine.inputs import Inputs, Spans
from genoscan.engine.meeting import Meeting, two_at_once
from genoscan.engine.tangent import Directions, pushed
from genoscan.engine.target import Target
from genoscan.layer import BidirectionalLayer, BidirectionalNetwork, Layer
from genoscan.ops.dual import Dual, primal, refuse_transforms
from genoscan.ops.memory import flip_positions

Progress = Callable[[int], object]


def adjoint_by_layer(
    chain: BidirectionalNetwork,
    inputs: Inputs,
    target: Target,
    *,
    tile: int,
    boundaries: int,
    room: Shelf,
    progress: Progress = lambda _positions: None,
) -> Generator[tuple[slice, Float[Tensor, "batch span d_in"]], None, AdjointResult]:
    """Yield the derivative of the target with respect to each input, tile by tile, left to right.

    The generator returns an `AdjointResult` without carries.

    Exact: equal to whole-window autograd up to rounding (tests/test_by_layer.py); any number of
    boundaries gives the same bits.
    Memory: one tile's activations of each direction, whatever the length; and in `room`
    `boundaries` boundaries that are remembered and four that are worked on, at most, and a carry
    a tile of each direction.
    Time: each layer once backward, and as often forward as `checkpoints.schedule` needs and once
    more.
    """
    sweep = _swept(chain, inputs, tile, room, progress)
    layers = chain.blocks
    saved: dict[int, Between] = {}
    live, x_bar, value = sweep.entered(chain, inputs), None, torch.zeros(inputs.batch)
    for action in schedule(len(layers), boundaries):
        match action:
            case Save(number):
                saved[number] = live
            case Restore(number):
                live = saved[number]
            case Drop(number):
                del saved[number]
            case Advance(start, stop):
                for layer in layers[start:stop]:
                    live = sweep.run(layer, live)
            case Adjoin(number):
                if x_bar is None:
                    ends = sweep.run(layers[number], live)
                    x_bar, value = sweep.scored(chain, ends, target)
                sweep.pull(layers[number], live, x_bar)
    assert x_bar is not None
    for span in sweep.tiles:
        x = inputs.tile(span).detach().requires_grad_()
        with torch.enable_grad():
            entered = chain.enter(x)
        yield span, torch.autograd.grad(entered, x, x_bar.read(span))[0]
    return AdjointResult(value, None, None, ())


def forward_by_layer(
    chain: BidirectionalNetwork,
    inputs: Inputs,
    *,
    tile: int,
    room: Shelf,
    progress: Progress = lambda _positions: None,
) -> Generator[tuple[slice, Float[Tensor, "batch span d_out"]], None, None]:
    """Yield the outputs tile by tile, left to right.

    Memory: one tile and one carry, and in `room` two boundaries.
    """
    sweep = _swept(chain, inputs, tile, room, progress)
    live = sweep.entered(chain, inputs)
    for layer in chain.blocks:
        live = sweep.run(layer, live)
    for span in sweep.tiles:
        yield span, sweep.left(chain, live, span)


def tangent_by_layer(
    chain: BidirectionalNetwork,
    inputs: Inputs,
    directions: Directions,
    *,
    tile: int,
    room: Shelf,
    progress: Progress = lambda _positions: None,
) -> Generator[
    tuple[slice, Float[Tensor, "batch span d_out"], Float[Tensor, "directions batch span d_out"]],
    None,
    None,
]:
    """Yield the outputs and their derivative along each direction, tile by tile, left to right.

    Exact: equal to a whole-window jvp up to rounding.
    Memory: one tile and one carry, and a tangent of both for each direction; in `room` two
    boundaries, and as many of tangents for each direction.
    """
    sweep = _swept(chain, inputs, tile, room, progress)
    live = sweep.entered(chain, _Moved(inputs, directions))
    for layer in chain.blocks:
        live = sweep.run(layer, live)
    for span in sweep.tiles:
        outputs = sweep.left(chain, live, span)
        yield span, primal(outputs), outputs.dots  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Moved:
    """Inputs and their tangents in one."""

    inputs: Inputs
    directions: Directions

    def tile(self, span: slice) -> Dual:
        return Dual.of(self.inputs.tile(span), self.directions.tile(span))


@dataclass(frozen=True)
class _Sweep:
    """What passes over a whole layer have in common."""

    length: int
    tile: int
    room: Shelf
    progress: Progress
    device: torch.device

    @property
    def tiles(self) -> Spans:
        return Spans(self.length, self.tile)

    def kept(
        self, tiles: Iterable[tuple[slice, Tensor]], check: Callable[[], None] = lambda: None
    ) -> Between:
        """Return a boundary of these tiles."""
        made: Between | None = None
        for span, tile in tiles:
            check()
            made = made or self.room.boundary(tile)
            made.write(span, tile)
        assert made is not None
        return made

    @torch.no_grad()
    def entered(self, chain: BidirectionalNetwork, inputs: Inputs | _Moved) -> Between:
        """Return the first boundary."""

        def entered(span: slice) -> Tensor:
            x = inputs.tile(span)
            refuse_transforms(x)
            return chain.enter(x)

        return self.kept((span, entered(span)) for span in self.tiles)

    def run(self, layer: BidirectionalLayer, x: Between) -> Between:
        """Return the boundary after a layer."""

        def merged(made: Between, span: slice, left: Tensor, right: Tensor) -> None:
            with torch.no_grad():
                made.write(span, layer.merge(x.read(span), left, right))

        forward_inputs, reverse_inputs = self._ways(layer, x)
        meeting = Meeting(self.room, self.device, merged)
        return meeting.run(
            self._said(layer.left_to_right, forward_inputs),
            self._said(layer.right_to_left, reverse_inputs),
        )

    @torch.no_grad()
    def left(self, chain: BidirectionalNetwork, ends: Between, span: slice) -> Tensor:
        """Return the outputs over a span, from the last boundary."""
        return chain.leave(ends.read(span))

    def scored(
        self, chain: BidirectionalNetwork, ends: Between, target: Target
    ) -> tuple[Between, Float[Tensor, " batch"]]:
        """Replace the last boundary by its cotangent; return it, and the target's value."""
        value = None
        for span in self.tiles:
            x = ends.read(span).detach().requires_grad_()
            with torch.enable_grad():
                part = target(chain.leave(x), span)
            refuse_transforms(part)
            ends.write(span, torch.autograd.grad(part.sum(), x)[0])
            part = part.detach().double()
            value = part if value is None else value + part
        assert value is not None
        return ends, value.cpu()

    def pull(self, layer: BidirectionalLayer, x: Between, x_bar: Between) -> None:
        """Replace the cotangent of what a layer says by that of what it reads, `x`."""
        forward_inputs, reverse_inputs = self._ways(layer, x)
        left_bar, right_bar = (x_bar, x_bar) if layer.additive else self._merged(layer, x, x_bar)

        def pulled(_made: Between, span: slice, left: Tensor, right: Tensor) -> None:
            # Both have read the layer's cotangent here: it can be written over.
            at = x.read(span).detach().requires_grad_()
            with torch.enable_grad():
                read = layer.before(at)
                nothing = at.new_zeros(()).expand(read.shape)
                ends = read, layer.merge(at, nothing, nothing)
            bars = left + right, x_bar.read(span)
            x_bar.write(span, torch.autograd.grad(ends, at, bars)[0])

        # An adjoint goes the other way: that of the layer that reads right to left, rightward.
        meeting = Meeting(self.room, self.device, pulled)
        meeting.run(
            self._pulled(layer.right_to_left, reverse_inputs, right_bar),
            self._pulled(layer.left_to_right, forward_inputs, left_bar),
        )

    def _ways(self, layer: BidirectionalLayer, x: Between) -> "tuple[_Before, _Before]":
        """Return what a layer's two directions read."""
        return _Before(layer, x, self.length), _Before(layer, x, self.length, mirrored=True)

    def _said(self, layer: Layer, inputs: "_Before") -> Generator[tuple[slice, Tensor], None, None]:
        """Yield what one direction says, with its tangents where the inputs have some."""
        first = inputs.tile(self.tiles[0])
        if isinstance(first, Dual):
            carry = layer.begin(inputs.batch)
            swept: Any = pushed(layer, inputs.tile, self.tiles, carry, len(first.dots))
        else:
            swept = forward(layer, inputs, tile=self.tile, progress=self.progress)
        for span, outputs in swept:
            yield inputs.placed(span, outputs)

    def _merged(
        self, layer: BidirectionalLayer, x: Between, x_bar: Between
    ) -> tuple[Between, Between]:
        """Return the cotangents of what the two directions say, where they depend on it."""
        forward_inputs, reverse_inputs = self._ways(layer, x)
        left, right = two_at_once(
            self.device,
            lambda check: self.kept(self._said(layer.left_to_right, forward_inputs), check),
            lambda check: self.kept(self._said(layer.right_to_left, reverse_inputs), check),
        )
        for span in self.tiles:
            said = [part.read(span).detach().requires_grad_() for part in (left, right)]
            with torch.enable_grad():
                merged = layer.merge(x.read(span), *said)
            for part, bar in zip(
                (left, right), torch.autograd.grad(merged, said, x_bar.read(span)), strict=True
            ):
                part.write(span, bar)
        return left, right

    def _pulled(
        self, layer: Layer, inputs: "_Before", bar: Between
    ) -> Generator[tuple[slice, Tensor], None, None]:
        """Yield the derivative of what one direction says with respect to what it reads."""
        pull = adjoint(
            layer, inputs, _Bars(inputs, bar), tile=self.tile, slots=len(self.tiles),
            room=self.room.block, progress=self.progress,
        )  # fmt: skip
        for span, read_bar in pull:
            yield inputs.placed(span, read_bar)


def _swept(
    chain: BidirectionalNetwork, inputs: Inputs, tile: int, room: Shelf, progress: Progress
) -> _Sweep:
    parameters = list(chain.parameters())
    refuse_transforms(*parameters)
    return _Sweep(inputs.length, tile, room, progress, parameters[0].device)


@dataclass(frozen=True)
class _Before:
    """What both directions of a layer read, of its input; mirrored: from the right end."""

    layer: BidirectionalLayer
    x: Between
    length: int
    mirrored: bool = False

    @property
    def batch(self) -> int:
        return self.x.batch

    def place(self, span: slice) -> slice:
        """Return where a span of what is read lies in the window."""
        if not self.mirrored:
            return span
        return slice(self.length - span.stop, self.length - span.start)

    def placed(self, span: slice, tile: Tensor) -> tuple[slice, Tensor]:
        """Return what was said over a span of what is read, as it lies in the window."""
        return self.place(span), flip_positions(tile) if self.mirrored else tile

    def tile(self, span: slice) -> Any:
        with torch.no_grad():
            read = self.layer.before(self.x.read(self.place(span)))
        return flip_positions(read) if self.mirrored else read


@dataclass(frozen=True)
class _Bars:
    """The cotangents of what one direction says, as it says it."""

    inputs: _Before
    bars: Between

    def tile(self, span: slice) -> Tensor:
        bars: Tensor = self.bars.read(self.inputs.place(span))
        return flip_positions(bars) if self.inputs.mirrored else bars
