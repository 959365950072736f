"""What the compiled CPU kernels share: lanes, an inlined expm1, and threads without a lock.

Sixteen channels stand side by side in vector registers; arrays are cut into (groups, lanes)
along their channel axis, so that the compiler sees a constant inner length.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from torch import Tensor

LANES = 16

_f32 = np.float32
_LOG2_E = _f32(1.4426950408889634)
_LN2_HIGH = _f32(0.693145751953125)
_LN2_LOW = _f32(1.428606765330187e-06)


@intrinsic
def _float_of_bits(_context, bits):  # type: ignore[no-untyped-def]
    def generate(_context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(bits), generate


@intrinsic(prefer_literal=True)
def stack(_context, like, size):  # type: ignore[no-untyped-def]
    """Return a pointer to `size` numbers on the stack, which the compiler knows to be unshared."""
    count = size.literal_value
    llvm_type = ir.FloatType() if like == types.float32 else ir.DoubleType()

    def generate(_context, builder, _signature, _arguments):  # type: ignore[no-untyped-def]
        room = cgutils.alloca_once(builder, ir.ArrayType(llvm_type, count))
        return builder.bitcast(room, llvm_type.as_pointer())

    return types.CPointer(like)(like, size), generate


def expm1(z):  # type: ignore[no-untyped-def]
    raise NotImplementedError("compiled code only")


@overload(expm1, inline="always")
def _choose_expm1(z):  # type: ignore[no-untyped-def]
    """exp(z) - 1 for z <= 0: relative error 1.2e-7 in float32, the C library's in float64."""
    if z != types.float32:
        return lambda z: math.expm1(z)

    def in_float32(z):  # type: ignore[no-untyped-def]
        # exp(z) = 2^k exp(r), |r| <= ln 2 / 2; below -87 the decay is 0 in float32.
        z = max(z, _f32(-87.0))
        k = np.rint(z * _LOG2_E)
        r = z - k * _LN2_HIGH
        r = r - k * _LN2_LOW
        p = _f32(1 / 5040)
        p = p * r + _f32(1 / 720)
        p = p * r + _f32(1 / 120)
        p = p * r + _f32(1 / 24)
        p = p * r + _f32(1 / 6)
        p = p * r + _f32(1 / 2)
        p = p * r * r + r
        power = _float_of_bits(np.int32((np.int32(k) + np.int32(127)) << np.int32(23)))
        return power * p + (power - _f32(1.0))

    return in_float32


# "contract" allows fused multiply-add and nothing that would undo the compensated sums.
compiled = numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"}, boundscheck=False)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="genoscan-scan")


def over_groups(run: Callable[[int, int, int, int], None], batch: int, groups: int) -> int:
    """Call run(i_batch, i_part, first, last) for all channel groups, on all threads.

    Returns the number of parts that a sequence's groups were cut into.
    """
    threads = torch.get_num_threads()
    parts = max(1, min(threads, groups) if batch < threads else 1)
    edges = [groups * i // parts for i in range(parts + 1)]
    jobs = [(b, i, edges[i], edges[i + 1]) for b in range(batch) for i in range(parts)]
    if threads == 1 or len(jobs) == 1:
        for job in jobs:
            run(*job)
    else:
        list(_pool(threads).map(lambda job: run(*job), jobs))
    return parts


def grouped(tensor: Tensor, axis: int) -> np.ndarray:
    """Return a contiguous array whose channel axis is cut into (groups, lanes), zero-padded."""
    if spare := -tensor.shape[axis] % LANES:
        shape = list(tensor.shape)
        shape[axis] = spare
        tensor = torch.cat([tensor, tensor.new_zeros(shape)], axis)
    return tensor.detach().contiguous().unflatten(axis, (-1, LANES)).numpy()


def ungrouped(array: np.ndarray, axis: int, channels: int) -> Tensor:
    """Undo `grouped`."""
    return torch.from_numpy(array).flatten(axis - 1, axis).narrow(axis, 0, channels)
