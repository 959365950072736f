"""Methods of differentiation: one class for each kind of network.

`Adjoint` sweeps over causal networks tile by tile. `Layerwise` sweeps over bidirectional networks
layer by layer, and tile by tile within each layer. The method for a model is chosen once, when the
model is loaded (model.py). All other code uses the `Method` protocol.
"""

from collections.abc import Callable, Generator, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genoscan.engine.adjoint import AdjointResult, adjoint
from genoscan.engine.boundaries import BoundaryStore
from genoscan.engine.by_layer import adjoint_by_layer, forward_by_layer, tangent_by_layer
from genoscan.engine.checkpoints import advances
from genoscan.engine.edit_tangents import TangentTile, edit_tangents, edit_tangents_of_windows
from genoscan.engine.edited_windows import edited_windows
from genoscan.engine.edits import Edit, EditedTile, Finished, edited_outputs
from genoscan.engine.forward import forward
from genoscan.engine.inputs import Inputs, OneHot
from genoscan.engine.linearised import Linearisation, linearise
from genoscan.engine.recovery import Snapshots
from genoscan.engine.tangent import Directions, tangent
from genoscan.engine.target import Target
from genoscan.errors import InputError, UnsupportedModelError
from genoscan.layer import BidirectionalNetwork, Layer, leaves
from genoscan.usage import memory_limit

Progress: TypeAlias = Callable[[int], object]
Network: TypeAlias = Any
"""Network to differentiate: a `Layer` for `Adjoint`, or a `BidirectionalNetwork` for `Layerwise`."""
Tiles: TypeAlias = Generator[tuple[slice, Float[Tensor, "batch span width"]], None, None]

_CPU = torch.device("cpu")
_COPIES = 16
"""Number of tiles of edited copies that are run side by side, layer by layer."""


def ignore(_positions: int) -> None:
    """Ignore a progress report."""


@dataclass(frozen=True)
class Cost:
    """Cost of the gradient of one batch of windows.

    Attributes
    ----------
    recomputed
        Average number of forward passes over a tile, excluding the one immediately before the backward
        pass.
    passes
        Average number of passes over each position in all sweeps. A backward pass over a tile and the
        forward pass immediately before it are counted as one pass.
    carry_bytes
        Size, in bytes, of the carries that a sweep stores in working memory.
    state_bytes
        Maximum size, in bytes, of a saved state from which an interrupted sweep continues.
    boundary_bytes
        Size, in bytes, of the activations between layers and of the carries stored with them.
    boundary_place
        Where these activations and carries are stored: "memory", a GPU or a folder. "" if none are
        stored.
    """

    recomputed: float
    passes: float
    carry_bytes: int
    state_bytes: int
    boundary_bytes: int = 0
    boundary_place: str = ""


@runtime_checkable
class Method(Protocol):
    """Method of differentiation that sweeps over a network in tiles of `tile` positions.

    The parameters of the network are treated as constants, even if they require gradients, unless their
    cotangents are requested.
    """

    @property
    def tile(self) -> int:
        """Number of positions per tile."""
        ...

    def affected(self, span: slice, reach: int) -> slice:
        """Return the span of the outputs that inputs in `span` affect, up to `reach` positions away."""
        ...

    def extent(self, span: slice, outputs: slice | None, *, before: int, after: int) -> slice:
        """Return the window needed for the derivatives of outputs with respect to inputs in a span.

        Parameters
        ----------
        span
            Positions of the inputs with respect to which derivatives are taken. Positions are counted
            in the reading direction.
        outputs
            Positions of the outputs that contribute to the target. If None, all outputs in the window
            contribute to the target.
        before, after
            Number of context positions to include on the left, and number to include on the right.

        Returns
        -------
        slice
            Positions of the window, which may extend beyond the ends of the sequence.
        """
        ...

    def fit(self, network: Network, length: int, batch: int, *, forward: bool = False) -> "Method":
        """Return a method with storage settings for `batch` windows of `length` positions each.

        With `forward`, the settings are for `forward` and `tangent`, which may need less memory than gradients.

        Raises
        ------
        InputError
            If the memory limit is too low for these windows.
        """
        ...

    def cost(self, network: Network, length: int, batch: int) -> Cost:
        """Return the cost of computing the gradient for `batch` windows of `length` positions each."""
        ...

    def forward_passes(self, network: Network) -> int:
        """Return the number of times that `forward` reports the progress of each position."""
        ...

    def unit(self, network: Network, x: Tensor) -> tuple[Layer, Tensor]:
        """Return a causal layer on which one sweep runs, and the input to this layer for network input `x`."""
        ...

    def gradient(
        self,
        network: Network,
        inputs: Inputs,
        target: Target,
        *,
        parameters: Sequence[Tensor] = (),
        snapshots: Snapshots | None = None,
        progress: Progress = ignore,
    ) -> Generator[tuple[slice, Float[Tensor, "batch span d_in"]], None, AdjointResult]:
        """Yield the derivative of the target with respect to the input, tile by tile.

        The generator returns an `AdjointResult`, which contains the cotangents of the given parameters.
        """
        ...

    def forward(self, network: Network, inputs: Inputs, *, progress: Progress = ignore) -> Tiles:
        """Yield the outputs tile by tile, from left to right."""
        ...

    def tangent(
        self, network: Network, inputs: Inputs, directions: Directions, *, progress: Progress = ignore
    ) -> Generator[tuple[slice, Tensor, Tensor], None, None]:
        """Yield the outputs and their derivatives along each direction, tile by tile, from left to right."""
        ...

    def linearise(self, network: Network, inputs: Inputs, target: Target, positions: Set[int]) -> Linearisation:
        """Return the derivatives of the target with respect to the carries at the given positions.

        Raises
        ------
        UnsupportedModelError
            If the network is bidirectional and therefore has no carries.
        """
        ...

    def edited(
        self,
        network: Network,
        codes: UInt8[Tensor, " length"],
        table: Tensor,
        edits: Sequence[Edit],
        *,
        label_offset: int,
        done: Set[int] = frozenset(),
        finished: Finished | None = None,
        progress: Progress = ignore,
    ) -> Iterator[EditedTile]:
        """Yield the outputs for edited copies of a window, each with one edit.

        Parameters
        ----------
        network, codes, table
            Network, base codes of the window, and table of the network's inputs.
        edits
            Edits in any order.
        label_offset
            Offset of the labels (see target.py).
        done
            Indices of edits to omit: all edits of a batch, or none.
        finished
            Function that determines which copies need not be run further (see edits.py); it is called only for
            causal networks.
        progress
            Function called with the number of positions that were run.
        """
        ...

    def edit_tangents(
        self,
        network: Network,
        codes: UInt8[Tensor, " length"],
        table: Tensor,
        edits: Sequence[Edit],
        *,
        progress: Progress = ignore,
    ) -> Iterator[TangentTile]:
        """Yield the derivatives of the outputs along substitutions, which are ordered by their starts."""
        ...


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"--{name} {number}: expected at least 1")


@dataclass(frozen=True)
class Adjoint:
    """Method of differentiation for causal networks, which runs adjoint sweeps tile by tile.

    Parameters
    ----------
    tile
        Number of positions per tile.
    slots
        Maximum number of stored carries. A lower number increases recomputation but does not change
        the results.
    memory
        Memory, in bytes, in which the activations of several tiles may be kept, so that these tiles are not run
        forward again before the backward pass. It is not used on a GPU.
    position_bytes
        Size, in bytes, of the activations at one position of one window.
    kept
        Number of tiles whose activations are kept. `fit` sets this attribute.

    Notes
    -----
    Working memory consists of the activations of `kept` tiles and `slots` carries, regardless of the
    length of the window. The results are bitwise identical for any `slots` and `kept`.
    """

    tile: int = 1024
    slots: int = 64
    memory: int = field(default=0, repr=False)
    position_bytes: int = field(default=1, repr=False)
    kept: int = field(default=1, repr=False)

    def __post_init__(self) -> None:
        _check_positive(tile=self.tile, slots=self.slots)

    def affected(self, span: slice, reach: int) -> slice:
        """Return the span, extended to the right by `reach` positions."""
        return slice(span.start, span.stop + reach)

    def extent(self, span: slice, outputs: slice | None, *, before: int, after: int) -> slice:
        """Return a window with context before the span and, if `outputs` is None, after the span."""
        if outputs is None:
            return slice(span.start - before, span.stop + after)
        return slice(min(span.start - before, outputs.start), max(span.stop, outputs.stop))

    def fit(self, network: Layer, length: int, batch: int, *, forward: bool = False) -> "Adjoint":
        """Return a copy that keeps the activations of as many tiles as the memory permits."""
        weights = next(network.parameters(), None)
        if forward or not self.memory or (weights is not None and weights.device.type == "cuda"):
            return self
        fitting = self.memory // (self.tile * self.position_bytes * batch)
        return replace(self, kept=max(1, min(fitting, -(-length // self.tile))))

    def cost(self, network: Layer, length: int, batch: int) -> Cost:
        """Return the cost of computing the gradient for `batch` windows of `length` positions each."""
        tiles = -(-length // self.tile)
        recomputed = advances(tiles, self.slots, self.kept) / tiles
        carry = sum(leaf.nbytes for leaf in leaves(network.begin(batch)))
        stored = min(self.slots, tiles) * carry
        return Cost(recomputed, 1 + recomputed, stored, stored)

    def forward_passes(self, network: Layer) -> int:
        """Return 1, because `forward` runs a causal network once."""
        return 1

    def unit(self, network: Layer, x: Tensor) -> tuple[Layer, Tensor]:
        """Return the network and its input without changes."""
        return network, x

    def gradient(
        self,
        network: Layer,
        inputs: Inputs,
        target: Target,
        *,
        parameters: Sequence[Tensor] = (),
        snapshots: Snapshots | None = None,
        progress: Progress = ignore,
    ) -> Generator[tuple[slice, Float[Tensor, "batch span d_in"]], None, AdjointResult]:
        """Yield the derivative of the target with respect to the input, from right to left.

        See `engine.adjoint.adjoint`.
        """
        return adjoint(
            network,
            inputs,
            target,
            tile=self.tile,
            slots=self.slots,
            kept=self.kept,
            parameters=parameters,
            snapshots=snapshots,
            progress=progress,
        )

    def forward(self, network: Layer, inputs: Inputs, *, progress: Progress = ignore) -> Tiles:
        """Yield the outputs; see `engine.forward.forward`."""
        return forward(network, inputs, tile=self.tile, progress=progress)

    def tangent(
        self, network: Layer, inputs: Inputs, directions: Directions, *, progress: Progress = ignore
    ) -> Generator[tuple[slice, Tensor, Tensor], None, None]:
        """Yield the outputs and their derivatives; see `engine.tangent.tangent`."""
        return tangent(network, inputs, directions, tile=self.tile, progress=progress)

    def linearise(self, network: Layer, inputs: Inputs, target: Target, positions: Set[int]) -> Linearisation:
        """Return the derivatives; see `engine.linearised.linearise`."""
        return linearise(network, inputs, target, positions, tile=self.tile, slots=self.slots)

    def edited(
        self,
        network: Layer,
        codes: UInt8[Tensor, " length"],
        table: Tensor,
        edits: Sequence[Edit],
        *,
        label_offset: int,
        done: Set[int] = frozenset(),
        finished: Finished | None = None,
        progress: Progress = ignore,
    ) -> Iterator[EditedTile]:
        """Yield the outputs for edited copies from the edit on; see `engine.edits.edited_outputs`."""
        return edited_outputs(
            network,
            codes,
            table,
            edits,
            tile=self.tile,
            label_offset=label_offset,
            done=done,
            finished=finished,
            progress=progress,
        )

    def edit_tangents(
        self,
        network: Layer,
        codes: UInt8[Tensor, " length"],
        table: Tensor,
        edits: Sequence[Edit],
        *,
        progress: Progress = ignore,
    ) -> Iterator[TangentTile]:
        """Yield the derivatives from the first substitution of a batch on; see `engine.edit_tangents`."""
        return edit_tangents(network, codes, table, edits, tile=self.tile, progress=progress)


@dataclass(frozen=True)
class Layerwise:
    """Method of differentiation for bidirectional networks, which runs adjoint sweeps layer by layer.

    Parameters
    ----------
    tile
        Number of positions per tile.
    memory
        Maximum size, in bytes, of the stored activations between layers. If None, the activations are
        stored on the GPU, if there is one and they need at most half of its memory. Otherwise, they are
        stored in main memory, and the limit is half of the memory available to this process.
    spill
        Folder for files that contain these activations. If None, the activations are stored in memory.
    boundaries
        Maximum number of boundaries (activations between two layers) to store. If None, all boundaries
        are stored. `fit` sets this attribute.
    place
        Device on which boundaries are stored if `spill` is None. `fit` sets this attribute.

    Notes
    -----
    Apart from the boundaries, working memory does not depend on the length of the window. A boundary
    contains `width` values for each position. Boundaries are stored in at most `memory` bytes of memory
    or, if `spill` is given, in files.
    """

    tile: int = 1024
    memory: int | None = None
    spill: Path | None = None
    boundaries: int | None = None
    place: torch.device = _CPU

    def __post_init__(self) -> None:
        _check_positive(tile=self.tile)
        if self.spill is not None and not self.spill.is_dir():
            raise InputError(f"--spill {self.spill}: expected a folder that exists")

    def affected(self, span: slice, reach: int) -> slice:
        """Return the span, extended on both sides by `reach` positions."""
        return slice(span.start - reach, span.stop + reach)

    def extent(self, span: slice, outputs: slice | None, *, before: int, after: int) -> slice:
        """Return a window with context on both sides of the span and of the outputs."""
        outputs = outputs or span
        start, stop = min(span.start, outputs.start), max(span.stop, outputs.stop)
        return slice(start - before, stop + after)

    def fit(self, network: BidirectionalNetwork, length: int, batch: int, *, forward: bool = False) -> "Layerwise":
        """Return a copy that stores as many boundaries as the memory limit permits.

        With `forward`, only the two boundaries in use by a layer have to fit.

        Raises
        ------
        InputError
            If the memory limit is too low for the boundaries in use and, for gradients, one that is stored.
        """
        if self.spill is not None:
            return self
        device = next(network.parameters()).device
        if device.type == "cuda" and self.memory is None:
            # Total rather than free memory: the latter changes during sweeps.
            half = torch.cuda.get_device_properties(device).total_memory // 2
            if self._boundary_bytes(network, length, batch, forward=forward) <= half:
                return replace(self, place=device)
        memory = memory_limit() // 2 if self.memory is None else self.memory
        for boundaries in range(1 if forward else len(network.blocks), 0, -1):
            method = replace(self, boundaries=boundaries)
            if (needed := method._boundary_bytes(network, length, batch, forward=forward)) <= memory:
                return method
        raise InputError(
            f"{batch} windows of {length:,} bases need at least {needed / 1e9:.3g}GB between the layers, and "
            f"{memory / 1e9:.3g}GB may be used: permit more (memory), or files (spill), or run fewer at once (batch)"
        )

    def cost(self, network: BidirectionalNetwork, length: int, batch: int) -> Cost:
        """Return the cost of computing the gradient for `batch` windows of `length` positions each."""
        tiles, n_layers = -(-length // self.tile), len(network.blocks)
        recomputed = advances(tiles, tiles) / tiles
        run = advances(n_layers, self.boundaries or n_layers) + 1
        passes = 2 * (n_layers * (1 + recomputed) + run)
        place = str(self.spill or ("memory" if self.place == _CPU else self.place))
        state = 2 * batch * length * network.width * next(network.parameters()).element_size()
        return Cost(recomputed, passes, 0, state, self._boundary_bytes(network, length, batch), place)

    def forward_passes(self, network: BidirectionalNetwork) -> int:
        """Return twice the number of layers, because each layer is run in two directions."""
        return 2 * len(network.blocks)

    def unit(self, network: BidirectionalNetwork, x: Tensor) -> tuple[Layer, Tensor]:
        """Return one direction of the first layer, and the input to this direction."""
        first = network.blocks[0]
        return first.left_to_right, first.prepare(network.encode(x)).detach()

    def gradient(
        self,
        network: BidirectionalNetwork,
        inputs: Inputs,
        target: Target,
        *,
        parameters: Sequence[Tensor] = (),
        snapshots: Snapshots | None = None,
        progress: Progress = ignore,
    ) -> Generator[tuple[slice, Float[Tensor, "batch span d_in"]], None, AdjointResult]:
        """Yield the derivative of the target with respect to the input, from left to right.

        See `engine.by_layer.adjoint_by_layer`.
        """
        return adjoint_by_layer(
            network,
            inputs,
            target,
            tile=self.tile,
            boundaries=self.boundaries or len(network.blocks),
            store=self._store(inputs),
            parameters=parameters,
            snapshots=snapshots,
            progress=progress,
        )

    def forward(self, network: BidirectionalNetwork, inputs: Inputs, *, progress: Progress = ignore) -> Tiles:
        """Yield the outputs; see `engine.by_layer.forward_by_layer`."""
        store = self._store(inputs)
        return forward_by_layer(network, inputs, tile=self.tile, store=store, progress=progress)

    def tangent(
        self, network: BidirectionalNetwork, inputs: Inputs, directions: Directions, *, progress: Progress = ignore
    ) -> Generator[tuple[slice, Tensor, Tensor], None, None]:
        """Yield the outputs and their derivatives; see `engine.by_layer.tangent_by_layer`."""
        store = self._store(inputs)
        return tangent_by_layer(network, inputs, directions, tile=self.tile, store=store, progress=progress)

    def linearise(
        self, network: BidirectionalNetwork, inputs: Inputs, target: Target, positions: Set[int]
    ) -> Linearisation:
        """Raise an error, because a bidirectional network has no carries."""
        raise UnsupportedModelError("--tolerance: expected a causal model; in a bidirectional one all outputs change")

    def edited(
        self,
        network: BidirectionalNetwork,
        codes: UInt8[Tensor, " length"],
        table: Tensor,
        edits: Sequence[Edit],
        *,
        label_offset: int,
        done: Set[int] = frozenset(),
        finished: Finished | None = None,
        progress: Progress = ignore,
    ) -> Iterator[EditedTile]:
        """Yield all outputs for edited copies; see `engine.edited_windows.edited_windows`."""

        def run(rows: Tensor, at_once: int) -> Tensor:
            method = self.fit(network, rows.shape[1], at_once, forward=True)
            tiles = [outputs for _, outputs in method.forward(network, OneHot(rows, table))]
            progress(rows.numel())
            return torch.cat(tiles, 1)

        return edited_windows(
            run, codes, edits, positions=_COPIES * self.tile, label_offset=label_offset, device=table.device, done=done
        )

    def edit_tangents(
        self,
        network: BidirectionalNetwork,
        codes: UInt8[Tensor, " length"],
        table: Tensor,
        edits: Sequence[Edit],
        *,
        progress: Progress = ignore,
    ) -> Iterator[TangentTile]:
        """Yield the derivatives of all outputs; see `engine.edit_tangents`."""

        def sweep(inputs: Inputs, directions: Directions) -> Iterator[tuple[slice, Tensor, Tensor]]:
            method = self.fit(network, inputs.length, inputs.batch * (1 + directions.count), forward=True)
            return method.tangent(network, inputs, directions)

        return edit_tangents_of_windows(sweep, codes, table, edits, progress=progress)

    def _store(self, inputs: Inputs) -> BoundaryStore:
        return BoundaryStore(inputs.length, self.spill or self.place)

    def _boundary_bytes(self, network: BidirectionalNetwork, length: int, batch: int, *, forward: bool = False) -> int:
        """Return the maximum size, in bytes, of the boundaries and of the carries stored with them."""
        layers = network.blocks
        boundary = batch * length * network.width * next(network.parameters()).element_size()
        if forward:  # the input and the output of a layer
            return 2 * boundary
        kept = min(self.boundaries or len(layers), len(layers))
        # Two boundaries in use by a layer; the outputs of both directions if the merge is not
        # additive; and, with fewer boundaries than layers, one that is being recomputed.
        kept += (2 if all(layer.additive for layer in layers) else 4) + (kept < len(layers))
        carries = max(
            sum(leaf.nbytes for way in (layer.left_to_right, layer.right_to_left) for leaf in leaves(way.begin(batch)))
            for layer in layers
        )
        return kept * boundary + -(-length // self.tile) * carries
