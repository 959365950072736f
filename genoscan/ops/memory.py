"""Buffer pool for arrays of the CPU kernels, reused from tile to tile.

The arrays of a tile have few sizes, the same for every tile.  A general allocator splits the memory
of one array to serve another: glibc before 2.38 seldom places an aligned array where one of the
same size was freed, and this fragmentation took half as much memory as the arrays, more with every
tile.  Arrays that torch allocates itself are not pooled; large ones are mapped by the system and
returned to it when freed.
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

_MIN_POOLED = 2**15
"""Size in bytes below which an array is not pooled."""

_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD = 2**17
"""mallopt's parameter for the size in bytes from which glibc maps memory, and its initial value."""

_TORCH_TYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}


class _Block:
    """Memory mapped by the system, unmapped when the block is garbage-collected."""

    def __init__(self, size: int) -> None:
        self.memory = np.frombuffer(mmap.mmap(-1, size), np.uint8)
        self.address = self.memory.ctypes.data


class _PooledBuffer:
    """Owner of an array's memory: returns the block to its free list with the last reference."""

    __slots__ = ("__array_interface__", "_block", "_free")

    def __init__(self, block: _Block, free: list[_Block], shape: Sequence[int], kind: str) -> None:
        self._block, self._free = block, free
        self.__array_interface__ = {
            "version": 3,
            "shape": tuple(shape),
            "typestr": kind,
            "data": (block.address, False),
        }

    def __del__(self) -> None:
        self._free.append(self._block)


class _BufferPool:
    """Free blocks of one thread by size, kept while a context is open.

    Threads share no blocks, so that the number of blocks does not depend on their relative
    progress.
    """

    def __init__(self) -> None:
        self._n_open = 0
        self._free: defaultdict[int, list[_Block]] = defaultdict(list)

    @contextmanager
    def open(self) -> Iterator[None]:
        self._n_open += 1
        try:
            yield
        finally:
            self._n_open -= 1
            if self._n_open == 0:
                self._free.clear()

    def allocate(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Return an uninitialised array."""
        size = math.prod(shape) * dtype.itemsize
        if self._n_open == 0 or size < _MIN_POOLED:
            return torch.empty(shape, dtype=_TORCH_TYPES[dtype]).numpy()
        size = _rounded(size)
        larger = sorted(other for other in self._free if size < other < 2 * size)
        for fitting in (size, *larger):
            with suppress(IndexError):
                free = self._free[fitting]
                return np.asarray(_PooledBuffer(free.pop(), free, shape, dtype.str))
        return np.asarray(_PooledBuffer(_Block(size), self._free[size], shape, dtype.str))


class _PerThread(threading.local):
    """The calling thread's pool."""

    def __init__(self) -> None:
        self.buffers = _BufferPool()


def _rounded(size: int) -> int:
    """Round up, so that arrays of nearly equal size share blocks; unused pages cost nothing."""
    step = 2 ** (size.bit_length() - 4)
    return -(-(size + size // 32) // step) * step


_POOL = _PerThread()


@cache
def fix_mmap_threshold() -> None:
    """Disable glibc's dynamic mmap threshold for the process; no effect on other systems.

    By default the threshold rises to the size of the largest mapped array that was freed, and
    later arrays below it fragment the heap.  To be called before weights are read: the fragments
    left by reading them changed the peak memory of a window by a third from run to run.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)


def buffer_pool() -> AbstractContextManager[None]:
    """Reuse freed arrays of the calling thread within the context, which may be nested.

    Notes
    -----
    Memory: the largest amount that was in use at once, freed when the outermost context exits.
    """
    fix_mmap_threshold()
    return _POOL.buffers.open()


def aligned_empty(shape: Sequence[int], like: np.ndarray) -> np.ndarray:
    """Return an uninitialised, cache-line-aligned array of the dtype of `like`."""
    return _POOL.buffers.allocate(shape, like.dtype)


def aligned_empty_tensor(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return an uninitialised, cache-line-aligned CPU tensor of the dtype of `like`."""
    return torch.from_numpy(aligned_empty(shape, like.numpy(force=True)))


def flip_positions(x: Tensor) -> Tensor:
    """Reverse along the position axis.

    Parameters
    ----------
    x : Tensor
        Shape (batch, tile, ...).

    Returns
    -------
    Tensor
        A copy; detached from the graph if `x` is a plain CPU tensor.
    """
    if x.device.type != "cpu" or isinstance(x, Dual):
        return x.flip(1)
    backward = torch.arange(x.shape[1] - 1, -1, -1)
    return torch.index_select(x, 1, backward, out=aligned_empty_tensor(x.shape, x))


def contiguous(tensor: Tensor) -> Tensor:
    """Return the tensor detached and contiguous; copied, to a pooled buffer, only if it is not."""
    tensor = tensor.detach()
    if tensor.is_contiguous():
        return tensor
    return aligned_empty_tensor(tensor.shape, tensor).copy_(tensor)
