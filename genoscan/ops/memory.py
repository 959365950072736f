"""Room for the CPU kernels' arrays, which is used again while a window is swept.

A tile's arrays come in few sizes, the same from tile to tile.  Left to the allocator, the room of
one would be cut up for another: glibc before 2.38 seldom puts an aligned array where one of its
size has lain, and the holes took half as much memory as the arrays, more with every tile.
"""

import math
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch

_SMALL = 2**15
"""Bytes below which an array is left to the allocator."""

_TORCH_TYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}


class _Block:
    """Memory, and where it starts: where a cache line does, as torch's does."""

    def __init__(self, size: int) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8)
        self.address = self.memory.data_ptr()


class _Lent:
    """A block as numpy reads it; it goes back to its shelf when the last array on it is gone."""

    __slots__ = ("__array_interface__", "_block", "_shelf")

    def __init__(self, block: _Block, shelf: list[_Block], shape: Sequence[int], kind: str) -> None:
        self._block, self._shelf = block, shelf
        self.__array_interface__ = {
            "version": 3,
            "shape": tuple(shape),
            "typestr": kind,
            "data": (block.address, False),
        }

    def __del__(self) -> None:
        self._shelf.append(self._block)


class _Shelves:
    """Blocks that nobody uses, by size, for as long as somebody sweeps."""

    def __init__(self) -> None:
        self._sweeps = 0
        self._entering = threading.Lock()
        self._by_size: defaultdict[int, list[_Block]] | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        with self._entering:
            self._sweeps += 1
            if self._by_size is None:
                self._by_size = defaultdict(list)
        try:
            yield
        finally:
            with self._entering:
                self._sweeps -= 1
                if self._sweeps == 0:
                    self._by_size = None

    def array(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Return an empty array."""
        size = math.prod(shape) * dtype.itemsize
        by_size = self._by_size
        if by_size is None or size < _SMALL:
            return torch.empty(shape, dtype=_TORCH_TYPES[dtype]).numpy()
        # Threads take and put back as they like: one call each, which nothing can come between.
        larger = sorted(other for other in list(by_size) if size < other < 2 * size)
        for fitting in (size, *larger):
            with suppress(IndexError):
                shelf = by_size[fitting]
                return np.asarray(_Lent(shelf.pop(), shelf, shape, dtype.str))
        return np.asarray(_Lent(_Block(size), by_size[size], shape, dtype.str))


_SHELVES = _Shelves()
reused = _SHELVES.open


def room(shape: Sequence[int], like: np.ndarray) -> np.ndarray:
    """Return an empty array that starts where a cache line does, as torch's do."""
    return _SHELVES.array(shape, like.dtype)
