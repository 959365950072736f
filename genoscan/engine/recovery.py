"""Saved states of a sweep, from which an interrupted sweep continues.

The state of an adjoint sweep consists of the carries stored during its first forward pass. Once the
backward pass has begun, it also includes the cotangent of the carry at the left edge of the last
finished tile. Tiles to the right of that edge are not computed again.

The state of a layer-by-layer sweep is one boundary. During the forward pass, the boundary contains the
activations after the last finished layer. During the backward pass, it contains the cotangent of the
activations before the last finished layer.

The results do not depend on which carries or boundaries are stored. The results of a continued sweep
are therefore bitwise equal to those of an uninterrupted sweep.
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

_CARRY, _CUT, _LAYER = "carry-", "cut", "boundary"
_PART, _PART_LENGTH = "numbers-", 1 << 16
"""Name of a part of a saved boundary, and its positions: parts are read one by one."""


@runtime_checkable
class Snapshots(Protocol):
    """Thread-safe storage for the states of one sweep."""

    def due(self, nbytes: int) -> bool:
        """Return whether enough time has passed since the last save to write another `nbytes` bytes."""
        ...

    def save(self, name: str, state: Mapping[str, np.ndarray]) -> None:
        """Save arrays under a name, and replace any arrays that were saved under this name before."""
        ...

    def load(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Return all saved arrays by name. An array is read when it is looked up."""
        ...


class AdjointState(NamedTuple):
    """State of an adjoint sweep.

    Attributes
    ----------
    carries
        Stored carries of the network. The keys are tile numbers in ascending order from 0. The mapping
        is empty in a new sweep.
    left
        Number of tiles, counted from the first, whose gradients have not been computed.
    carry_bar
        Cotangent of the carry after the last of these tiles.
    value
        Value of the target for each window, summed over all tiles whose gradients have been computed.
    """

    carries: Mapping[int, Carry]
    left: int
    carry_bar: Carry
    value: Float64[Tensor, " batch"]


def load_adjoint(snapshots: Snapshots | None, carry: Carry, batch: int, n_tiles: int, slots: int) -> AdjointState:
    """Return the saved state of an adjoint sweep or, if none was saved, the state of a new sweep.

    Parameters
    ----------
    snapshots
        Saved states, if any.
    carry
        Carry before the first tile.
    batch, n_tiles
        Number of windows, and number of tiles in each window.
    slots
        Maximum number of carries in the returned state.

    Returns
    -------
    AdjointState
        State from which the sweep starts.
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
    """Recorder for the states of an adjoint sweep.

    The states of all stages at the same tile are collected and saved together.

    Parameters
    ----------
    snapshots
        Storage for the states. If None, nothing is recorded.
    stages
        Number of stages in the sweep.
    join
        Function that concatenates the carries of the stages into the carry of the network.
    """

    def __init__(self, snapshots: Snapshots | None, stages: int, join: Callable[[list[Carry]], Carry]) -> None:
        self._snapshots, self._stages, self._join = snapshots, stages, join
        self._lock = threading.Lock()
        self._carries: dict[int, dict[int, Carry]] = {}
        self._bars: dict[int, dict[int, Carry]] = {}
        self._values: dict[int, Tensor] = {}

    def stored(self, stage: int, tile: int, carry: Carry) -> None:
        """Record the carry of a stage at the left edge of a tile, during the first forward pass."""
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
        """Record the cotangent of the carry of a stage at the left edge of a tile.

        The last stage also passes `value`, which is the sum of the target over this tile and all tiles
        to its right.
        """
        if self._snapshots is None:
            return
        with self._lock:
            self._bars.setdefault(tile, {})[stage] = carry_bar
            if value is not None:
                self._values[tile] = value

    def received(self, stage: int, tile: int) -> None:
        """Save the state at the left edge of a tile once the caller has received the tile's gradient.

        Only calls by the first stage (`stage` 0) have an effect.
        """
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
    """State of a layer-by-layer sweep.

    Attributes
    ----------
    layer
        Number of layers before the boundary.
    boundary
        Activations after these layers, or their cotangent if `value` is not None.
    value
        Value of the target for each window; None in the forward pass.
    """

    layer: int
    boundary: Boundary
    value: Float64[Tensor, " batch"] | None


def load_layer(snapshots: Snapshots | None, store: BoundaryStore, device: torch.device) -> LayerState | None:
    """Return the saved state of a layer-by-layer sweep, if any.

    Parameters
    ----------
    snapshots
        Saved states, if any.
    store
        Allocator for the boundary.
    device
        Device of the network.

    Returns
    -------
    LayerState or None
        The saved state, or None if no state was saved.
    """
    found = snapshots.load().get(_LAYER) if snapshots is not None else None
    if found is None:
        return None
    boundary = store.boundary(torch.from_numpy(found[f"{_PART}0"])[:, :1].to(device))
    assert isinstance(boundary, TensorBoundary)
    for name, part in _parts(boundary).items():
        part.copy_(torch.from_numpy(found[name]))
    value = found.get("value")
    return LayerState(int(found["layer"]), boundary, None if value is None else torch.from_numpy(value))


def save_layer(
    snapshots: Snapshots | None, layer: int, boundary: Boundary, value: Float64[Tensor, " batch"] | None = None
) -> None:
    """Save the state of a layer-by-layer sweep if enough time has passed since the last save.

    Parameters
    ----------
    snapshots
        Storage for the state. If None, nothing is saved.
    layer, boundary, value
        Attributes of the state, as defined in `LayerState`.
    """
    if snapshots is None:
        return
    assert isinstance(boundary, TensorBoundary)
    if not snapshots.due(boundary.numbers.nbytes):
        return
    tensors = {"layer": torch.tensor(layer), **_parts(boundary)}
    snapshots.save(_LAYER, _arrays(tensors if value is None else tensors | {"value": value}))


def _parts(boundary: TensorBoundary) -> dict[str, Tensor]:
    return {f"{_PART}{i}": part for i, part in enumerate(boundary.numbers.split(_PART_LENGTH, 1))}


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {key: tensor.numpy(force=True) for key, tensor in tensors.items()}


def _unflatten(arrays: Mapping[str, np.ndarray], like: Carry) -> Carry:
    """Return saved leaves as a carry with the structure and the device of `like`."""
    numbers = iter(range(len(leaves(like))))
    return map_leaves(lambda leaf: torch.from_numpy(arrays[str(next(numbers))]).to(leaf.device), like)
