"""Two sweeps over one window, from either end: who comes second to a base puts both together."""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from genoscan.engine.boundaries import Between, Shelf
from genoscan.engine.stages import shares, side_by_side

Result = TypeVar("Result")

_PARTS = 8
"""In how many parts of a tile what two sweeps say is put together."""


class Meeting:
    """Where two sweeps meet.  What both together say takes no more room than what one says.

    room      gives the boundary that both write
    device    what they run on: a CPU's threads take one sweep each
    together  is told what both say over a span, what comes from the left first; it may write
              where the first left it
    """

    def __init__(
        self,
        room: Shelf,
        device: torch.device,
        together: Callable[[Between, slice, Tensor, Tensor], None],
    ) -> None:
        self._shelf, self._device, self._together = room, device, together
        self._kept: Between | None = None
        self._came = [0, room.length]
        self._lock = threading.Lock()

    def run(self, *sweeps: Iterable[tuple[slice, Tensor]]) -> Between:
        """Run a sweep that comes from the left and one that comes from the right."""

        def run(way: int, check: Callable[[], None]) -> None:
            for span, tile in sweeps[way]:
                check()
                self._come(way, span, tile)

        two_at_once(self._device, partial(run, 0), partial(run, 1))
        assert self._kept is not None
        return self._kept

    def _come(self, way: int, span: slice, tile: Tensor) -> None:
        """Leave the part of a tile where the other has not come yet; put the rest together."""
        with self._lock:
            kept = self._kept = self._kept or self._shelf.boundary(tile)
            met = min(max(self._came[1 - way], span.start), span.stop)
            mine, both = slice(span.start, met), slice(met, span.stop)
            if way:
                mine, both = both, mine
            kept.write(mine, tile[:, _within(span, mine)])
            self._came[way] = span.start if way else span.stop
            # Within the lock, a part at a time: what this takes, beside a tile of the other sweep,
            # would be needed seldom, and be the peak of a long window sooner than of a short one.
            step = max(1, tile.shape[1] // _PARTS)
            for start in range(both.start, both.stop, step):
                part = slice(start, min(start + step, both.stop))
                said = tile[:, _within(span, part)], kept.read(part)
                self._together(kept, part, *(reversed(said) if way else said))


def _within(span: slice, part: slice) -> slice:
    """Return where a part of a span lies in it."""
    return slice(part.start - span.start, part.stop - span.start)


def two_at_once(
    device: torch.device, *work: Callable[[Callable[[], None]], Result]
) -> list[Result]:
    """Do two things side by side where a CPU has threads for it; each as `side_by_side` has it."""
    if len(shares(len(work), device)) == len(work):
        return side_by_side(work)
    return [each(lambda: None) for each in work]
