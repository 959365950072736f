"""Pool of memory buffers for the arrays of the CPU kernels, which are reused from tile to tile.

The arrays of a tile have only a few different sizes, which are the same for every tile. A general-purpose
allocator splits freed memory: after an aligned array has been freed, glibc before version 2.38 rarely
reuses its memory for another array of the same size. Without the pool, fragmentation grows with every tile
and increases the memory used for the arrays by half. Arrays that torch allocates are not pooled. If such an
array is large, its memory is mapped when it is allocated and unmapped when it is freed.
"""

import ctypes
import math
import mmap
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from genoscan.ops.dual import Dual

_MIN_POOLED = 2**15
"""Size in bytes below which arrays are not pooled."""

_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD = 2**17
"""Mmap threshold in bytes that is set by mallopt; it equals glibc's initial value."""

_TORCH_TYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}


class _Block:
    """Anonymous memory map, which is unmapped when the object is garbage-collected."""

    def __init__(self, size: int) -> None:
        # Pages of a private map take half as long to be zeroed as those of a shared one, the default.
        self.memory = np.frombuffer(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
        self.address = self.memory.ctypes.data


class _PooledBuffer:
    """Owner of the memory of an array; when it is garbage-collected, its block is returned to the pool.

    The destructor is an attribute of the instance and calls only C functions. If the destructor were a
    Python function, Ctrl-C could raise KeyboardInterrupt in it, and Python would discard the exception.
    """

    __slots__ = ("__array_interface__", "__del__")

    def __init__(self, block: _Block, free: list[_Block], shape: Sequence[int], kind: str) -> None:
        self.__del__ = partial(free.append, block)
        self.__array_interface__ = {
            "version": 3,
            "shape": tuple(shape),
            "typestr": kind,
            "data": (block.address, False),
        }


class _BufferPool:
    """Memory blocks of one thread that are not in use, grouped by size.

    The blocks are kept while a `buffer_pool` context is open. Each thread has its own pool, so the number
    of blocks does not depend on the timing of the threads.
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
        """Return an uninitialised array, in a pooled block if a context is open and the array is large enough."""
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
    """Thread-local storage of the buffer pool of each thread."""

    def __init__(self) -> None:
        self.buffers = _BufferPool()


def _rounded(size: int) -> int:
    """Round up a size in bytes, so that arrays of similar sizes can share blocks.

    The additional memory pages occupy no physical memory until they are used.
    """
    step = 2 ** (size.bit_length() - 4)
    return -(-(size + size // 32) // step) * step


_POOL = _PerThread()


@cache
def fix_mmap_threshold() -> None:
    """Disable the dynamic mmap threshold of glibc for this process; do nothing on other systems.

    By default, the threshold rises to the size of the largest mapped array that has been freed. Smaller
    arrays that are allocated later then fragment the heap. Call this function before weights are read;
    otherwise, fragmentation makes the peak memory of a window vary by a third between runs.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)


def buffer_pool() -> AbstractContextManager[None]:
    """Return a context manager within which the current thread reuses the memory of freed arrays.

    Contexts may be nested.

    Notes
    -----
    The memory of the pool equals the peak size of the arrays in use. It is freed when the outermost context
    exits.
    """
    fix_mmap_threshold()
    return _POOL.buffers.open()


def aligned_empty(shape: Sequence[int], like: np.ndarray) -> np.ndarray:
    """Return an uninitialised, cache-line-aligned array with the dtype of `like`."""
    return _POOL.buffers.allocate(shape, like.dtype)


def aligned_empty_tensor(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return an uninitialised, cache-line-aligned CPU tensor with the dtype of `like`."""
    return torch.from_numpy(aligned_empty(shape, like.numpy(force=True)))


def flip_positions(x: Tensor) -> Tensor:
    """Return a tensor with its positions in reverse order.

    Parameters
    ----------
    x : Tensor
        Tensor of shape (batch, tile, ...).

    Returns
    -------
    Tensor
        Reversed copy of `x`. If `x` is on the CPU and is not a `Dual`, the copy is detached from the
        autograd graph.
    """
    if x.device.type != "cpu" or isinstance(x, Dual):
        return x.flip(1)
    backward = torch.arange(x.shape[1] - 1, -1, -1)
    return torch.index_select(x, 1, backward, out=aligned_empty_tensor(x.shape, x))


def contiguous(tensor: Tensor) -> Tensor:
    """Return `tensor`, detached and contiguous; if this requires a copy, the copy is stored in a pooled buffer."""
    tensor = tensor.detach()
    if tensor.is_contiguous():
        return tensor
    return aligned_empty_tensor(tensor.shape, tensor).copy_(tensor)
