"""Saved states of a sweep, from which an interrupted sweep continues.

The state of an adjoint sweep consists of the carries that its first forward pass has stored and, once
the backward pass has begun, of the cotangent of the carry at the left edge of the last finished tile.
Tiles to the right of that edge are not computed again. The state of a sweep layer by layer is one
boundary: the activations after the last layer run forward, or their cotangent before the last layer
run backward. Results do not depend on which carries or boundaries are stored; a continued sweep is
therefore bitwise equal to an uninterrupted one.
"""

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from genoscan.engine.boundaries import Boundary, BoundaryStore, TensorBoundary
from genoscan.layer import Carry, leaves, map_leaves

_CARRY, _CUT, _LAYER = "carry-", "cut", "layer"


@runtime_checkable
class Snapshots(Protocol):
    """Storage of the states of one sweep; safe to use from several threads."""

    def due(self, nbytes: int) -> bool:
        """Return whether enough time has passed to save another `nbytes` bytes."""
        ...

    def save(self, name: str, state: Mapping[str, np.ndarray]) -> None:
        """Save arrays under a name, replacing those saved under it before."""
        ...

    def load(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Return all saved arrays, by name."""
        ...


class AdjointState(NamedTuple):
    """State of an adjoint sweep.

    Attributes
    ----------
    carries
        Stored carries of the network, by tile, in ascending order from 0; empty in a new sweep.
    left
        Number of tiles, from the first, whose gradient is still to be computed.
    carry_bar
        Cotangent of the carry after these tiles.
    value
        Sum of the target over the other tiles.
    """

    carries: Mapping[int, Carry]
    left: int
    carry_bar: Carry
    value: Float64[Tensor, " batch"]


def load_adjoint(snapshots: Snapshots | None, carry: Carry, batch: int, n_tiles: int, slots: int) -> AdjointState:
    """Return the saved state of an adjoint sweep, or that of a new one.

    Parameters
    ----------
    snapshots
        Saved states, if any.
    carry
        Carry before the first tile.
    batch, n_tiles
        Number of windows, and of tiles of a window.
    slots
        Maximum number of carries to return.

    Returns
    -------
    AdjointState
        The state.
    """
    new = AdjointState({}, n_tiles, map_leaves(torch.zeros_like, carry), torch.zeros(batch, dtype=torch.float64))
    found = snapshots.load() if snapshots is not None else {}
    if not found:
        return new
    carry_bar, left, value = new.carry_bar, new.left, new.value
    if (cut := found.get(_CUT)) is not None:
        carry_bar, left, value = _unflatten(cut, carry), int(cut["left"]), torch.from_numpy(cut["value"])
    numbers = sorted(int(name.removeprefix(_CARRY)) for name in found if name.startswith(_CARRY))
    numbers = [number for number in numbers if number < left]
    numbers = numbers[max(0, len(numbers) - (slots - 1)) :]
    carries = {number: _unflatten(found[f"{_CARRY}{number}"], carry) for number in numbers}
    return AdjointState({0: carry} | carries, left, carry_bar, value)


class Recorder:
    """Collects the states of the stages of an adjoint sweep; saves those at the same tile together.

    Parameters
    ----------
    snapshots
        Destination; None: nothing is recorded.
    stages
        Number of stages of the sweep.
    join
        Function that concatenates the carries of the stages into that of the network.
    """

    def __init__(self, snapshots: Snapshots | None, stages: int, join: Callable[[list[Carry]], Carry]) -> None:
        self._snapshots, self._stages, self._join = snapshots, stages, join
        self._lock = threading.Lock()
        self._carries: dict[int, dict[int, Carry]] = {}
        self._bars: dict[int, dict[int, Carry]] = {}
        self._values: dict[int, Tensor] = {}

    def stored(self, stage: int, tile: int, carry: Carry) -> None:
        """Record the carry of a stage before a tile, stored in the first forward pass."""
        if self._snapshots is None or tile == 0:
            return
        with self._lock:
            carries = self._carries.setdefault(tile, {})
            carries[stage] = carry
            if len(carries) < self._stages:
                return
            del self._carries[tile]
        self._save(f"{_CARRY}{tile}", carries, {})

    def pulled(self, stage: int, tile: int, carry_bar: Carry, value: Tensor | None) -> None:
        """Record the cotangent of the carry before a tile; the last stage has the target's sum."""
        if self._snapshots is None:
            return
        with self._lock:
            self._bars.setdefault(tile, {})[stage] = carry_bar
            if value is not None:
                self._values[tile] = value

    def received(self, stage: int, tile: int) -> None:
        """Save the state after a tile, once the first stage's gradient has been received."""
        if self._snapshots is None or stage > 0:
            return
        with self._lock:
            bars, value = self._bars.pop(tile), self._values.pop(tile)
        self._save(_CUT, bars, {"left": torch.tensor(tile), "value": value})

    def _save(self, name: str, carries: Mapping[int, Carry], others: Mapping[str, Tensor]) -> None:
        assert self._snapshots is not None
        carry = self._join([carries[i] for i in range(self._stages)])
        tensors = {str(i): leaf for i, leaf in enumerate(leaves(carry))} | dict(others)
        if self._snapshots.due(sum(tensor.nbytes for tensor in tensors.values())):
            self._snapshots.save(name, _arrays(tensors))


class LayerState(NamedTuple):
    """State of a sweep layer by layer.

    Attributes
    ----------
    layer
        Number of layers before the boundary.
    boundary
        Activations there, or their cotangent if `value` is given.
    value
        Value of the target for each window; None: in the forward pass.
    """

    layer: int
    boundary: Boundary
    value: Float64[Tensor, " batch"] | None


def load_layer(snapshots: Snapshots | None, store: BoundaryStore, device: torch.device) -> LayerState | None:
    """Return the saved state of a sweep layer by layer, if any.

    Parameters
    ----------
    snapshots
        Saved states, if any.
    store
        Allocates the boundary.
    device
        Device of the network.

    Returns
    -------
    LayerState or None
        The state.
    """
    found = snapshots.load().get(_LAYER) if snapshots is not None else None
    if found is None:
        return None
    numbers, value = torch.from_numpy(found["numbers"]), found.get("value")
    boundary = store.boundary(numbers[:, :1].to(device))
    assert isinstance(boundary, TensorBoundary)
    boundary.numbers.copy_(numbers)
    return LayerState(int(found["layer"]), boundary, None if value is None else torch.from_numpy(value))


def save_layer(
    snapshots: Snapshots | None, layer: int, boundary: Boundary, value: Float64[Tensor, " batch"] | None = None
) -> None:
    """Save the state of a sweep layer by layer, if a state is due.

    Parameters
    ----------
    snapshots
        Destination; None: nothing is saved.
    layer, boundary, value
        As in `LayerState`.
    """
    if snapshots is None:
        return
    assert isinstance(boundary, TensorBoundary)
    if not snapshots.due(boundary.numbers.nbytes):
        return
    tensors = {"layer": torch.tensor(layer), "numbers": boundary.numbers}
    snapshots.save(_LAYER, _arrays(tensors if value is None else tensors | {"value": value}))


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {key: tensor.numpy(force=True) for key, tensor in tensors.items()}


def _unflatten(arrays: Mapping[str, np.ndarray], like: Carry) -> Carry:
    """Return saved leaves in the structure, and on the device, of a carry."""
    numbers = iter(range(len(leaves(like))))
    return map_leaves(lambda leaf: torch.from_numpy(arrays[str(next(numbers))]).to(leaf.device), like)
