"""Run of a causal network over a window, whose outputs and carries other computations refer to.

The run may be ahead of the computations that use it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Set
from concurrent.futures import Future
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from genoscan.engine.inputs import OneHot
from genoscan.engine.workers import Workers
from genoscan.layer import Carry, Layer, map_leaves


class _Part(NamedTuple):
    """Results of a part of the run: its end, its outputs, the carry at its end, and the carries to be kept."""

    stop: int
    outputs: list[Tensor]
    live: Carry
    carries: dict[int, Carry]


class Reference:
    """The window itself, which is run once from left to right, as far as needed.

    Parameters
    ----------
    layer, codes, table
        Network, base codes of the window, and table of the network's inputs.
    cuts
        Positions whose carries are kept.
    tile
        Maximum number of positions that are processed at once.
    threads
        Threads, one of which runs the window.
    progress
        Function called with the number of positions that were run.

    Notes
    -----
    The outputs and carries are bitwise identical whatever parts are asked for, and when.
    """

    def __init__(
        self,
        layer: Layer,
        codes: UInt8[Tensor, " length"],
        table: Float[Tensor, "codes d_in"],
        cuts: Set[int],
        tile: int,
        threads: Workers,
        progress: Callable[[int], object],
    ) -> None:
        self.layer, self.codes, self.table = layer, codes.numpy(), table
        self._inputs = OneHot(codes[None], table)
        self._cuts, self._progress = cuts, progress
        edges = pairwise(sorted({0, *cuts, len(codes)}))
        self._ends = [end for start, stop in edges for end in (*range(start + tile, stop, tile), stop)]
        self._at = self._kept = 0
        self._live = layer.begin(1)
        self._carries = {0: self._live}
        self._outputs: list[Tensor] = []
        self._threads = threads
        self._future: Future[_Part] | None = None

    def start(self, position: int) -> None:
        """Begin to run the window at least to the given position."""
        if self._future is None and position > self._at < self._ends[-1]:
            first, last = bisect_right(self._ends, self._at), bisect_left(self._ends, position)
            ends = self._ends[first : last + 1]
            self._future = self._threads.submit(partial(self._run, self._at, ends, self._live))

    def run_to(self, position: int) -> None:
        """Run the window at least to the given position, and wait until this is done."""
        while self._future is not None or position > self._at < self._ends[-1]:
            self.start(position)
            assert self._future is not None
            part = self._future.result()
            self._future = None
            self._progress(part.stop - self._at)
            self._outputs += part.outputs
            self._at, self._live = part.stop, part.live
            self._carries |= part.carries

    def drop(self, before: int) -> None:
        """Free the outputs and carries at positions before the given one."""
        self._join(before)
        self.drop_carries(before)

    def drop_carries(self, before: int) -> None:
        """Free the carries at positions before the given one."""
        self._carries = {at: carry for at, carry in self._carries.items() if at >= before}

    def carry(self, position: int) -> Carry:
        """Return the carry at one of the positions at which carries are kept."""
        if position not in self._carries:
            self.run_to(position)
        return self._carries[position]

    def outputs(self, positions: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape d_out"]:
        """Return the outputs at the given positions; those at negative positions are arbitrary."""
        last = max(int(positions.max()) if positions.numel() else 0, self._kept)
        if last >= self._at:
            self.run_to(last + 1)
        self._join(self._kept)
        return self._outputs[0][(positions - self._kept).clamp(min=0).to(self.table.device)]

    def _run(self, start: int, ends: list[int], live: Carry) -> _Part:
        outputs, carries = [], {}
        for stop in ends:
            if self._threads.ended:
                break
            found, live = self.layer.forward(self._inputs.tile(slice(start, stop)), live)
            outputs.append(found[0].clone())
            start = stop
            if stop in self._cuts:
                carries[stop] = map_leaves(torch.clone, live)
        return _Part(start, outputs, map_leaves(torch.clone, live), carries)

    def _join(self, first: int) -> None:
        """Join the stored outputs to one tensor that begins at position `first`."""
        if len(self._outputs) == 1 and first <= self._kept:
            return
        if self._outputs:
            first = min(first, self._at)
            self._outputs = [torch.cat(self._outputs)[max(0, first - self._kept) :].clone()]
        self._kept = max(self._kept, min(first, self._at))
