"""The engine as one value: how to sweep, whatever the model.

Causal layers are swept tile by tile; two-way ones layer by layer, and tile by tile within a layer.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.engine.adjoint import AdjointResult, adjoint
from genoscan.engine.boundaries import Shelf
from genoscan.engine.by_layer import adjoint_by_layer, forward_by_layer, tangent_by_layer
from genoscan.engine.checkpoints import advances
from genoscan.engine.forward import forward
from genoscan.engine.inputs import Inputs
from genoscan.engine.tangent import Directions, tangent
from genoscan.engine.target import Target
from genoscan.errors import InputError
from genoscan.layer import Layer, TwoWayChain, leaves

Progress: TypeAlias = Callable[[int], object]
Tiles: TypeAlias = Generator[tuple[slice, Float[Tensor, "batch span width"]], None, None]

_CPU = torch.device("cpu")


def _silent(_positions: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Engine:
    """Sweeps in tiles; of a two-way model, with its boundaries kept somewhere.

    slots       carries remembered, of a causal model; of a two-way layer all are, with boundaries
    boundaries  boundaries remembered; None: as many as there are layers
    place       where: a device, or a folder for files
    """

    tile: int
    slots: int = 64
    boundaries: int | None = None
    place: torch.device | Path = _CPU

    def adjoint(
        self,
        model: Layer | TwoWayChain,
        inputs: Inputs,
        target: Target,
        *,
        progress: Progress = _silent,
    ) -> Generator[tuple[slice, Float[Tensor, "batch span d_in"]], None, AdjointResult]:
        """Yield the derivative with respect to each input: `adjoint`, `adjoint_by_layer`."""
        if not isinstance(model, TwoWayChain):
            return adjoint(
                model, inputs, target, tile=self.tile, slots=self.slots, progress=progress
            )
        return adjoint_by_layer(
            model, inputs, target, tile=self.tile,
            boundaries=self.boundaries or len(model.two_way), room=self._room(inputs),
            progress=progress,
        )  # fmt: skip

    def forward(
        self, model: Layer | TwoWayChain, inputs: Inputs, *, progress: Progress = _silent
    ) -> Tiles:
        """Yield the outputs, left to right: `forward`, `forward_by_layer`."""
        if not isinstance(model, TwoWayChain):
            return forward(model, inputs, tile=self.tile, progress=progress)
        room = self._room(inputs)
        return forward_by_layer(model, inputs, tile=self.tile, room=room, progress=progress)

    def tangent(
        self,
        model: Layer | TwoWayChain,
        inputs: Inputs,
        directions: Directions,
        *,
        progress: Progress = _silent,
    ) -> Generator[tuple[slice, Tensor, Tensor], None, None]:
        """Yield the outputs and their derivatives: `tangent`, `tangent_by_layer`."""
        if not isinstance(model, TwoWayChain):
            return tangent(model, inputs, directions, tile=self.tile, progress=progress)
        return tangent_by_layer(
            model, inputs, directions, tile=self.tile, room=self._room(inputs), progress=progress
        )

    def again(self, model: Layer | TwoWayChain, length: int) -> float:
        """Return how often a sweep that pulls back runs a base forward besides."""
        tiles = -(-length // self.tile)
        return advances(tiles, tiles if isinstance(model, TwoWayChain) else self.slots) / tiles

    def boundary_bytes(self, model: Layer | TwoWayChain, length: int, batch: int) -> int:
        """Return what boundaries, and carries with them, of a batch of windows take at most.

        Of a causal model, 0.
        """
        if not isinstance(model, TwoWayChain):
            return 0
        layers = model.two_way
        kept = min(self.boundaries or len(layers), len(layers))
        # Cotangents on both sides of a layer; what its two directions say, where that counts; and
        # what is run again.
        kept += (2 if layers[0].additive else 4) + (kept < len(layers))
        ways = (way.begin(batch) for way in (layers[0].forth, layers[0].back))
        carries = sum(part.nbytes for way in ways for part in leaves(way))
        return kept * _boundary(model, length, batch) + -(-length // self.tile) * carries

    def within(self, memory: int, model: Layer | TwoWayChain, length: int, batch: int) -> "Engine":
        """Return the engine that remembers as many boundaries as so many bytes hold.

        Raises
        ------
        InputError
            If they do not hold one, and those that are worked on.
        """
        if not isinstance(model, TwoWayChain):
            return self
        for boundaries in range(len(model.two_way), 0, -1):
            engine = replace(self, boundaries=boundaries)
            if (needed := engine.boundary_bytes(model, length, batch)) <= memory:
                return engine
        raise InputError(
            f"--memory {memory / 1e9:.3g}GB: {batch} windows of {length:,} bases need at least "
            f"{needed / 1e9:.3g}GB between the layers; give more, or --spill FOLDER, or --batch 1"
        )

    def _room(self, inputs: Inputs) -> Shelf:
        return Shelf(inputs.length, self.place)


def _boundary(model: TwoWayChain, length: int, batch: int) -> int:
    """Return the bytes of one boundary."""
    return batch * length * model.width * next(model.parameters()).element_size()
