"""What the compiled CPU kernels share: lanes, an inlined exponential, and threads without a lock.

Sixteen channels stand side by side in vector registers; arrays are cut into (groups, lanes)
along their channel axis, so that the compiler sees a constant inner length.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, call-arg, assignment, var-annotated"

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
_LOG2_E = 1.4426950408889634


@intrinsic
def _float_of_bits(_context, bits):
    result, llvm_type = types.float32, ir.FloatType()
    if bits == types.int64:
        result, llvm_type = types.float64, ir.DoubleType()

    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], llvm_type)

    return result(bits), generate


@intrinsic(prefer_literal=True)
def stack(_context, like, size):
    """Return a pointer to `size` numbers on the stack, which the compiler knows to be unshared."""
    count = size.literal_value
    llvm_type = ir.FloatType() if like == types.float32 else ir.DoubleType()

    def generate(_context, builder, _signature, _arguments):
        room = cgutils.alloca_once(builder, ir.ArrayType(llvm_type, count))
        return builder.bitcast(room, llvm_type.as_pointer())

    return types.CPointer(like)(like, size), generate


def decay(z):
    raise NotImplementedError("compiled code only")


@overload(decay, inline="always")
def _choose_decay(z):
    """Return exp(z) - 1 for -0.7 < z <= 0, which is not positive, and exp(z) below, which is.

    So exp(z) h = keep h + decay(z) h, with keep 1 or 0 by the sign, loses no digits at either
    end: not of a decay next to 1, not of one next to 0.  To 2 units in the last place;
    exp(z) = 2^k exp(r) with |r| <= ln 2 / 2, and never below the smallest normal number.
    """

    def in_float32(z):
        z = max(z, _f32(-87.0))
        k = np.rint(z * _f32(_LOG2_E))
        r = z - k * _f32(0.693145751953125)
        r = r - k * _f32(1.428606765330187e-06)
        p = _f32(1 / 5040)
        p = p * r + _f32(1 / 720)
        p = p * r + _f32(1 / 120)
        p = p * r + _f32(1 / 24)
        p = p * r + _f32(1 / 6)
        p = p * r + _f32(1 / 2)
        p = p * r * r + r
        power = _float_of_bits(np.int32((np.int32(k) + np.int32(127)) << np.int32(23)))
        keep = _f32(1.0) if z > _f32(-0.7) else _f32(0.0)
        return power * p + (power - keep)

    def in_float64(z):
        z = max(z, -708.0)
        k = np.rint(z * _LOG2_E)
        r = z - k * 0.6931471803691238
        r = r - k * 1.9082149292705877e-10
        p = 1 / 6227020800
        p = p * r + 1 / 479001600
        p = p * r + 1 / 39916800
        p = p * r + 1 / 3628800
        p = p * r + 1 / 362880
        p = p * r + 1 / 40320
        p = p * r + 1 / 5040
        p = p * r + 1 / 720
        p = p * r + 1 / 120
        p = p * r + 1 / 24
        p = p * r + 1 / 6
        p = p * r + 1 / 2
        p = p * r * r + r
        power = _float_of_bits(np.int64((np.int64(k) + np.int64(1023)) << np.int64(52)))
        keep = 1.0 if z > -0.7 else 0.0
        return power * p + (power - keep)

    return in_float32 if z == types.float32 else in_float64


# "contract" allows fused multiply-add and nothing that would undo the compensated sums; numpy's
# error model lets a division be vectorised, because none can raise.
compiled = numba.njit(
    nogil=True,
    cache=True,
    fastmath={"contract", "nsz"},
    boundscheck=False,
    error_model="numpy",
)


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
    """Undo `grouped`; where there is padding, its memory is not held on to."""
    whole = torch.from_numpy(array).flatten(axis - 1, axis)
    if whole.shape[axis] == channels:
        return whole
    # A copy, not a view: forward-mode derivatives want a layout that has no gaps.
    return whole.narrow(axis, 0, channels).clone(memory_format=torch.contiguous_format)
