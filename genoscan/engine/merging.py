"""Merging of two sweeps that run over the same window in opposite directions."""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from genoscan.engine.boundaries import Boundary, BoundaryStore
from genoscan.engine.stages import run_in_parallel, shares

Result = TypeVar("Result")
Merge: TypeAlias = Callable[[Boundary, slice, Tensor, Tensor], None]

_PARTS = 8
"""Number of parts into which a tile is divided when it is merged."""


def merge_directions(
    store: BoundaryStore,
    device: torch.device,
    merge: Merge,
    left_to_right: Iterable[tuple[slice, Tensor]],
    right_to_left: Iterable[tuple[slice, Tensor]],
) -> Boundary:
    """Run two sweeps in opposite directions and merge their tiles.

    Parameters
    ----------
    store
        Allocator for the boundary to which both sweeps write. At each position, the sweep that arrives
        first stores its values, and the other sweep replaces them with the merged values.
    device
        Device on which the sweeps run. On a CPU with at least two threads, the sweeps run in parallel.
    merge
        Function that writes the merged values of a span to the boundary. Its arguments are the
        boundary, the span, and the values of `left_to_right` and `right_to_left` over the span.
    left_to_right, right_to_left
        The two sweeps. Each sweep yields spans of the window and the values over each span.

    Returns
    -------
    Boundary
        Boundary with the merged values at every position.
    """
    merger = _Merger(store, merge)

    def run(direction: int, check: Callable[[], None]) -> None:
        for span, tile in (left_to_right, right_to_left)[direction]:
            check()
            merger.receive(direction, span, tile)

    two_at_once(device, partial(run, 0), partial(run, 1))
    assert merger.boundary is not None
    return merger.boundary


class _Merger:
    """Boundary to which two sweeps write, and the position that each sweep has reached."""

    def __init__(self, store: BoundaryStore, merge: Merge) -> None:
        self._store, self._merge = store, merge
        self.boundary: Boundary | None = None
        self._reached = [0, store.length]
        self._lock = threading.Lock()

    def receive(self, direction: int, span: slice, tile: Tensor) -> None:
        """Store the part of a tile that the other sweep has not reached, and merge the remaining part.

        `direction` is 0 for the sweep from left to right, and 1 for the other sweep.
        """
        with self._lock:
            boundary = self.boundary = self.boundary or self._store.boundary(tile)
            met = min(max(self._reached[1 - direction], span.start), span.stop)
            first, second = slice(span.start, met), slice(met, span.stop)
            if direction:
                first, second = second, first
            boundary.write(first, tile[:, _relative(span, first)])
            self._reached[direction] = span.start if direction else span.stop
            # Merge in parts to save memory, and under the lock: otherwise a merge could run at the
            # same time as a tile of the other sweep, more often in long windows, and peak memory
            # would depend on the length.
            step = max(1, tile.shape[1] // _PARTS)
            for start in range(second.start, second.stop, step):
                part = slice(start, min(start + step, second.stop))
                values = tile[:, _relative(span, part)], boundary.read(part)
                self._merge(boundary, part, *(reversed(values) if direction else values))


def _relative(span: slice, part: slice) -> slice:
    """Return the positions of `part` relative to the start of `span`."""
    return slice(part.start - span.start, part.stop - span.start)


def two_at_once(device: torch.device, *work: Callable[[Callable[[], None]], Result]) -> list[Result]:
    """Run two functions and return their results.

    On a CPU with at least two threads, the functions run in parallel. Each function is called with one
    argument, as in `run_in_parallel`.
    """
    if len(shares(len(work), device)) == len(work):
        return run_in_parallel(work)
    return [each(lambda: None) for each in work]
