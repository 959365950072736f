"""Sweeps over bidirectional networks, layer by layer, and tile by tile within each layer.

Every output of a bidirectional layer depends on the entire input to the layer. The activations between
two layers are therefore stored as a **boundary**, in memory or in files. A boundary consists of `width`
values for each position. Within a layer, each direction is causal. It is run tile by tile, as in
`adjoint.py`, in memory that does not depend on the length of the window.

Boundaries are stored and recomputed according to the same schedule as carries (`checkpoints.py`), with
layers in place of tiles.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.engine.adjoint import AdjointResult, adjoint
from genoscan.engine.boundaries import Boundary, BoundaryStore
from genoscan.engine.checkpoints import Adjoin, Advance, Drop, Restore, Save, schedule
from genoscan.engine.forward import forward
from genoscan.engine.inputs import Inputs, Spans
from genoscan.engine.merging import merge_directions, two_at_once
from genoscan.engine.parameter_sums import ParameterSums
from genoscan.engine.recovery import Snapshots, load_layer, save_layer
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
    store: BoundaryStore,
    parameters: Sequence[Tensor] = (),
    snapshots: Snapshots | None = None,
    progress: Progress = lambda _positions: None,
) -> Generator[tuple[slice, Float[Tensor, "batch span d_in"]], None, AdjointResult]:
    """Yield the derivative of the target with respect to each input, tile by tile, from left to right.

    The generator returns an `AdjointResult` without carries. If `snapshots` is given, the current
    boundary is saved from time to time, and an interrupted sweep continues from the last saved
    boundary, which contains no cotangents of parameters: these are refused with `snapshots`.

    Notes
    -----
    The derivative equals that computed by autograd over the whole window, up to rounding
    (tests/test_by_layer.py). All results, including the cotangents of parameters, are bitwise identical
    for any number of boundaries.

    Memory: the activations of one tile in each direction, regardless of the length of the window.
    `store` contains the boundaries in use, at most `boundaries` checkpoints, and one carry per tile and
    direction. Two boundaries are in use, or four if the merge is not additive. One more boundary is in
    use while boundaries are recomputed.

    Time: one backward pass over each layer, the forward passes listed by `checkpoints.schedule`, and
    one more forward pass over the last layer.
    """
    if parameters and snapshots is not None:
        raise ValueError("snapshots contain no cotangents of parameters: expected one of the two")
    sweep = _swept(chain, inputs, tile, store, progress, parameters)
    layers = chain.blocks
    state = load_layer(snapshots, store, sweep.device)
    left, value = len(layers), torch.zeros(inputs.batch)
    x_bar: Boundary | None = None
    live = sweep.encoded(chain, inputs)
    saved = {0: live}
    if state is not None and state.value is not None:
        left, x_bar, value = state.layer, state.boundary, state.value
    elif state is not None and boundaries > 1:
        saved[state.layer] = state.boundary
    for action in schedule(left, boundaries, list(saved)) if left else ():
        match action:
            case Save(number):
                saved[number] = live
            case Restore(number):
                live = saved[number]
            case Drop(number):
                del saved[number]
            case Advance(start, stop):
                for number in range(start, stop):
                    live = sweep.run(layers[number], live)
                    if x_bar is None:
                        save_layer(snapshots, number + 1, live)
            case Adjoin(number, _):
                if x_bar is None:
                    ends = sweep.run(layers[number], live)
                    x_bar, value = sweep.scored(chain, ends, target)
                sweep.pull(layers[number], live, x_bar)
                save_layer(snapshots, number, x_bar, value)
    assert x_bar is not None
    for span in sweep.tiles:
        x = inputs.tile(span).detach().requires_grad_()
        with torch.enable_grad():
            entered = chain.encode(x)
        yield span, sweep.sums.grad([entered], x, [x_bar.read(span)])
    return AdjointResult(value, None, None, sweep.sums.totals())


def forward_by_layer(
    chain: BidirectionalNetwork,
    inputs: Inputs,
    *,
    tile: int,
    store: BoundaryStore,
    progress: Progress = lambda _positions: None,
) -> Generator[tuple[slice, Float[Tensor, "batch span d_out"]], None, None]:
    """Yield the outputs tile by tile, from left to right.

    Notes
    -----
    Memory: the activations of one tile, one carry, and two boundaries in `store`.
    """
    sweep = _swept(chain, inputs, tile, store, progress)
    live = sweep.encoded(chain, inputs)
    for layer in chain.blocks:
        live = sweep.run(layer, live)
    for span in sweep.tiles:
        yield span, sweep.decoded(chain, live, span)


def tangent_by_layer(
    chain: BidirectionalNetwork,
    inputs: Inputs,
    directions: Directions,
    *,
    tile: int,
    store: BoundaryStore,
    progress: Progress = lambda _positions: None,
) -> Generator[
    tuple[slice, Float[Tensor, "batch span d_out"], Float[Tensor, "directions batch span d_out"]], None, None
]:
    """Yield the outputs and their derivatives along each direction, tile by tile, from left to right.

    Notes
    -----
    The derivatives equal those computed by a `jvp` over the whole window, up to rounding.

    Memory: the activations of one tile, one carry, and two boundaries in `store`, each with one tangent
    per direction.
    """
    sweep = _swept(chain, inputs, tile, store, progress)
    live = sweep.encoded(chain, _DualInputs(inputs, directions))
    for layer in chain.blocks:
        live = sweep.run(layer, live)
    for span in sweep.tiles:
        outputs = sweep.decoded(chain, live, span)
        yield span, primal(outputs), outputs.dots  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _DualInputs:
    """Inputs with tangents, which are read tile by tile."""

    inputs: Inputs
    directions: Directions

    def tile(self, span: slice) -> Dual:
        return Dual.of(self.inputs.tile(span), self.directions.tile(span))


@dataclass(frozen=True)
class _LayerwisePass:
    """Passes over the layers of a network for one window length, tile size, store and device.

    `sums` accumulates the cotangents of the parameters.
    """

    length: int
    tile: int
    store: BoundaryStore
    progress: Progress
    device: torch.device
    sums: ParameterSums

    @property
    def tiles(self) -> Spans:
        return Spans(self.length, self.tile)

    def stored(self, tiles: Iterable[tuple[slice, Tensor]], check: Callable[[], None] = lambda: None) -> Boundary:
        """Write tiles to a new boundary, and return the boundary.

        The function `check` is called before each tile is written.
        """
        made: Boundary | None = None
        for span, tile in tiles:
            check()
            made = made or self.store.boundary(tile)
            made.write(span, tile)
        assert made is not None
        return made

    @torch.no_grad()
    def encoded(self, chain: BidirectionalNetwork, inputs: Inputs | _DualInputs) -> Boundary:
        """Encode the inputs, and return them as the boundary before the first layer."""

        def encode(span: slice) -> Tensor:
            x = inputs.tile(span)
            refuse_transforms(x)
            return chain.encode(x)

        return self.stored((span, encode(span)) for span in self.tiles)

    def run(self, layer: BidirectionalLayer, x: Boundary) -> Boundary:
        """Run a layer and return the boundary after it."""

        def merged(made: Boundary, span: slice, left: Tensor, right: Tensor) -> None:
            with torch.no_grad():
                made.write(span, layer.merge(x.read(span), left, right))

        forward_inputs, reverse_inputs = self._ways(layer, x)
        return merge_directions(
            self.store,
            self.device,
            merged,
            self._outputs(layer.left_to_right, forward_inputs),
            self._outputs(layer.right_to_left, reverse_inputs),
        )

    @torch.no_grad()
    def decoded(self, chain: BidirectionalNetwork, ends: Boundary, span: slice) -> Tensor:
        """Return the outputs over a span, computed from the stored output of the last layer."""
        return chain.decode(ends.read(span))

    def scored(
        self, chain: BidirectionalNetwork, ends: Boundary, target: Target
    ) -> tuple[Boundary, Float[Tensor, " batch"]]:
        """Replace the boundary after the last layer with its cotangent.

        The function returns this boundary and the value of the target for each window.
        """
        value = None
        for span in self.tiles:
            x = ends.read(span).detach().requires_grad_()
            with torch.enable_grad():
                part = target(chain.decode(x), span)
            refuse_transforms(part)
            ends.write(span, self.sums.grad([part.sum()], x))
            part = part.detach().double()
            value = part if value is None else value + part
        assert value is not None
        return ends, value.cpu()

    def pull(self, layer: BidirectionalLayer, x: Boundary, x_bar: Boundary) -> None:
        """Overwrite `x_bar`, the cotangent of a layer's output, with the cotangent of the layer's input `x`."""
        forward_inputs, reverse_inputs = self._ways(layer, x)
        left_bar, right_bar = (x_bar, x_bar) if layer.additive else self._merged(layer, x, x_bar)

        def pulled(made: Boundary, span: slice, left: Tensor, right: Tensor) -> None:
            if self.sums:
                made.write(span, left + right)
            else:  # Both directions have read the cotangent of the output here, so it can be overwritten.
                self._pull_span(layer, x, x_bar, span, left + right)

        # Each adjoint runs in the opposite direction: that of `right_to_left` from left to right.
        ways = (layer.right_to_left, reverse_inputs, right_bar), (layer.left_to_right, forward_inputs, left_bar)
        found: tuple[list[Tensor], list[Tensor]] = ([], [])
        sweeps = [self._pulled(*way, bars) for way, bars in zip(ways, found, strict=True)]
        read_bar = merge_directions(self.store, self.device, pulled, *sweeps)
        for (way, _, _), bars in zip(ways, found, strict=True):
            self.sums.add(self.sums.of(way.parameters()), bars)
        if self.sums:
            # In tiles of fixed extent: the spans that are merged depend on the speed of both directions,
            # and with them the rounding of sums over positions.
            for span in self.tiles:
                self._pull_span(layer, x, x_bar, span, read_bar.read(span))

    def _pull_span(
        self, layer: BidirectionalLayer, x: Boundary, x_bar: Boundary, span: slice, read_bar: Tensor
    ) -> None:
        """Overwrite the cotangent of a layer's output over a span with the cotangent of the layer's input.

        `read_bar` is the cotangent of the input to the two directions of the layer, over the span.
        """
        at = x.read(span).detach().requires_grad_()
        with torch.enable_grad():
            read = layer.prepare(at)
            nothing = at.new_zeros(()).expand(read.shape)
            ends = [read, layer.merge(at, nothing, nothing)]
        x_bar.write(span, self.sums.grad(ends, at, [read_bar, x_bar.read(span)]))

    def _ways(self, layer: BidirectionalLayer, x: Boundary) -> "tuple[_DirectionInputs, _DirectionInputs]":
        """Return the input to the left-to-right direction of a layer and the input to the other direction."""
        return _DirectionInputs(layer, x, self.length), _DirectionInputs(layer, x, self.length, mirrored=True)

    def _outputs(self, layer: Layer, inputs: "_DirectionInputs") -> Generator[tuple[slice, Tensor], None, None]:
        """Yield the outputs of one direction, with tangents if the inputs have tangents."""
        first = inputs.tile(self.tiles[0])
        if isinstance(first, Dual):
            carry = layer.begin(inputs.batch)
            swept: Any = pushed(layer, inputs.tile, self.tiles, carry, len(first.dots))
        else:
            swept = forward(layer, inputs, tile=self.tile, progress=self.progress)
        for span, outputs in swept:
            yield inputs.placed(span, outputs)

    def _merged(self, layer: BidirectionalLayer, x: Boundary, x_bar: Boundary) -> tuple[Boundary, Boundary]:
        """Return the cotangents of the outputs of the two directions if `merge` is not additive."""
        forward_inputs, reverse_inputs = self._ways(layer, x)
        left, right = two_at_once(
            self.device,
            lambda check: self.stored(self._outputs(layer.left_to_right, forward_inputs), check),
            lambda check: self.stored(self._outputs(layer.right_to_left, reverse_inputs), check),
        )
        for span in self.tiles:
            outputs = [part.read(span).detach().requires_grad_() for part in (left, right)]
            with torch.enable_grad():
                merged = layer.merge(x.read(span), *outputs)
            for part, bar in zip((left, right), torch.autograd.grad(merged, outputs, x_bar.read(span)), strict=True):
                part.write(span, bar)
        return left, right

    def _pulled(
        self, layer: Layer, inputs: "_DirectionInputs", bar: Boundary, bars: list[Tensor]
    ) -> Generator[tuple[slice, Tensor], None, None]:
        """Yield the cotangents of the inputs to one direction of a layer.

        The cotangents of the parameters of this direction are appended to `bars`.
        """
        pull = adjoint(
            layer,
            inputs,
            _Bars(inputs, bar),
            tile=self.tile,
            slots=len(self.tiles),
            allocate=self.store.block,
            parameters=self.sums.of(layer.parameters()),
            progress=self.progress,
        )
        while True:
            try:
                span, read_bar = next(pull)
            except StopIteration as end:
                bars += end.value.parameters
                return
            yield inputs.placed(span, read_bar)


def _swept(
    chain: BidirectionalNetwork,
    inputs: Inputs,
    tile: int,
    store: BoundaryStore,
    progress: Progress,
    parameters: Sequence[Tensor] = (),
) -> _LayerwisePass:
    weights = list(chain.parameters())
    refuse_transforms(*weights)
    return _LayerwisePass(inputs.length, tile, store, progress, weights[0].device, ParameterSums(parameters))


@dataclass(frozen=True)
class _DirectionInputs:
    """Inputs to one direction of a layer, in the order in which this direction processes them.

    `mirrored` is true for the direction from right to left.
    """

    layer: BidirectionalLayer
    x: Boundary
    length: int
    mirrored: bool = False

    @property
    def batch(self) -> int:
        return self.x.batch

    def place(self, span: slice) -> slice:
        """Convert a span from the order of this direction to window coordinates."""
        if not self.mirrored:
            return span
        return slice(self.length - span.stop, self.length - span.start)

    def placed(self, span: slice, tile: Tensor) -> tuple[slice, Tensor]:
        """Convert a span to window coordinates, and arrange the values of the tile in window order."""
        return self.place(span), flip_positions(tile) if self.mirrored else tile

    def tile(self, span: slice) -> Any:
        with torch.no_grad():
            read = self.layer.prepare(self.x.read(self.place(span)))
        return flip_positions(read) if self.mirrored else read


@dataclass(frozen=True)
class _Bars:
    """Cotangents of the outputs of one direction, which are read in the same order as `inputs`."""

    inputs: _DirectionInputs
    bars: Boundary

    def tile(self, span: slice) -> Tensor:
        bars: Tensor = self.bars.read(self.inputs.place(span))
        return flip_positions(bars) if self.inputs.mirrored else bars
