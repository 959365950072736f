"""Room for the CPU kernels' arrays, which is used again while a window is swept.

A tile's arrays come in few sizes, the same from tile to tile.  Left to the allocator, the room of
one would be cut up for another: glibc before 2.38 seldom puts an aligned array where one of its
size has lain, and the holes took half as much memory as the arrays, more with every tile.  What
torch itself makes of a tile has no such room; where it is large it comes from the system, too.
"""

import ctypes
import math
import mmap
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache

import numpy as np
import torch
from torch import Tensor

from genoscan.ops.dual import Dual

_SMALL = 2**15
"""Bytes below which an array is left to the allocator."""

_LARGE = 2**17
_M_MMAP_THRESHOLD = -3
"""Bytes from which glibc asks the system for an array, at first; and its name for that."""

_TORCH_TYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}


class _Block:
    """Memory straight from the system, to which it goes back whole; and where it starts."""

    def __init__(self, size: int) -> None:
        self.memory = np.frombuffer(mmap.mmap(-1, size), np.uint8)
        self.address = self.memory.ctypes.data


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
    """Blocks that nobody uses, by size, for as long as a thread sweeps.

    Each thread has its own: how many blocks there are then never depends on how far the other
    threads happened to be.
    """

    def __init__(self) -> None:
        self._sweeps = 0
        self._by_size: defaultdict[int, list[_Block]] = defaultdict(list)

    @contextmanager
    def open(self) -> Iterator[None]:
        self._sweeps += 1
        try:
            yield
        finally:
            self._sweeps -= 1
            if self._sweeps == 0:
                self._by_size.clear()

    def array(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Return an empty array."""
        size = math.prod(shape) * dtype.itemsize
        if self._sweeps == 0 or size < _SMALL:
            return torch.empty(shape, dtype=_TORCH_TYPES[dtype]).numpy()
        by_size, size = self._by_size, _rounded(size)
        larger = sorted(other for other in by_size if size < other < 2 * size)
        for fitting in (size, *larger):
            with suppress(IndexError):
                shelf = by_size[fitting]
                return np.asarray(_Lent(shelf.pop(), shelf, shape, dtype.str))
        return np.asarray(_Lent(_Block(size), by_size[size], shape, dtype.str))


class _Mine(threading.local):
    """This thread's shelves."""

    def __init__(self) -> None:
        self.shelves = _Shelves()


def _rounded(size: int) -> int:
    """Round up, so that arrays of nearly one size have one shelf; nobody touches what is beyond."""
    step = 2 ** (size.bit_length() - 4)
    return -(-(size + size // 32) // step) * step


_MINE = _Mine()


@cache
def keep_large_apart() -> None:
    """Keep glibc's limit where it begins; else it goes up to whatever has been given back once.

    That is for the whole process, and before weights are read: what reading them leaves behind
    would be holes, and the holes of two threads made the peak of a window differ by a third from
    run to run.
    """
    with suppress(AttributeError, OSError, TypeError):  # other systems have no such limit
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def reused() -> AbstractContextManager[None]:
    """Use this thread's room again for as long as the context lasts."""
    keep_large_apart()
    return _MINE.shelves.open()


def room(shape: Sequence[int], like: np.ndarray) -> np.ndarray:
    """Return an empty array that starts where a cache line does, as torch's do."""
    return _MINE.shelves.array(shape, like.dtype)


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return the same as a tensor."""
    return torch.from_numpy(room(shape, like.numpy(force=True)))


def flipped(x: Tensor) -> Tensor:
    """Return positions last to first, without a derivative."""
    if x.device.type != "cpu" or isinstance(x, Dual):
        return x.flip(1)
    backward = torch.arange(x.shape[1] - 1, -1, -1)
    return torch.index_select(x, 1, backward, out=empty(x.shape, x))


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor's numbers in one piece: itself, where they are, or a copy."""
    tensor = tensor.detach()
    return tensor if tensor.is_contiguous() else empty(tensor.shape, tensor).copy_(tensor)
