"""SIMD vectors of sixteen numbers for the CPU kernels, and a thread pool that runs these kernels.

Vector registers contain the values of sixteen channels, one per lane. Kernels load and store vectors (of
type `Lanes`) and compute with them as if they were numbers. The last index of an array counts vectors
rather than numbers; `pad_lanes` pads the last axis to whole vectors. Vectors are explicit because LLVM does
not vectorise all loops automatically.
"""

# Functions compiled by numba have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined, misc, var-annotated"

import operator
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, register_model
from torch import Tensor

from genoscan.ops.denormals import flush_denormals, flushes_denormals
from genoscan.ops.kernel_cache import KernelCache, announce_compilation, choose_cache
from genoscan.ops.memory import contiguous

LANES = 16

# "contract" permits fused multiply-add, but not reordering, which would defeat compensated sums.
# With numpy's error model divisions do not raise and can therefore be vectorised.
_CACHED = choose_cache()
_njit = numba.njit(nogil=True, fastmath={"contract", "nsz"}, boundscheck=False, error_model="numpy")
announce_compilation(_CACHED)


def compiled(function):
    """Return a function compiled by numba with the options common to all kernels, and cached if possible."""
    dispatcher = _njit(function)
    if _CACHED:
        dispatcher._cache = KernelCache(function)
    return dispatcher


class Lanes(types.Type):
    """Numba type of a vector with sixteen elements, which are booleans or numbers of type `scalar`."""

    def __init__(self, scalar: types.Type) -> None:
        self.scalar = scalar
        super().__init__(name=f"Lanes({scalar})")


_LLVM_TYPES = {types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.boolean: ir.IntType(1)}


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(_LLVM_TYPES[lanes.scalar], LANES))


def _broadcast(context, builder, value, kind, lanes):
    """Return a vector unchanged; copy a number to all lanes of a vector of type `lanes`."""
    if isinstance(kind, Lanes):
        return value
    number = context.cast(builder, value, kind, lanes.scalar)
    vector = ir.VectorType(number.type, LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _common_type(a, b):
    """Return the vector type in which two types are combined, or None if neither is a vector type."""
    lanes = next((x for x in (a, b) if isinstance(x, Lanes) and x.scalar != types.boolean), None)
    other = [x for x in (a, b) if x != lanes]
    return lanes if all(isinstance(x, types.Float) for x in other) else None


def _define_operator(operation, build, compares: bool) -> None:
    """Register an operator with numba, for two vectors and for a vector and a number.

    `build` emits the LLVM instruction. `compares` is true if the results are booleans.
    """

    @infer_global(operation)
    class _Template(AbstractTemplate):
        def generic(self, args, _kws):
            if len(args) == 2 and (lanes := _common_type(*args)):
                return signature(Lanes(types.boolean) if compares else lanes, *args)
            return None

    def lower(context, builder, sig, args):
        lanes = _common_type(*sig.args)
        pairs = zip(args, sig.args, strict=True)
        a, b = (_broadcast(context, builder, value, kind, lanes) for value, kind in pairs)
        return build(builder, a, b)

    lower_builtin(operation, Lanes, Lanes)(lower)
    lower_builtin(operation, Lanes, types.Float)(lower)
    lower_builtin(operation, types.Float, Lanes)(lower)


_define_operator(operator.add, lambda builder, a, b: builder.fadd(a, b), compares=False)
_define_operator(operator.sub, lambda builder, a, b: builder.fsub(a, b), compares=False)
_define_operator(operator.mul, lambda builder, a, b: builder.fmul(a, b), compares=False)
_define_operator(operator.truediv, lambda builder, a, b: builder.fdiv(a, b), compares=False)
_define_operator(operator.gt, lambda builder, a, b: builder.fcmp_ordered(">", a, b), compares=True)
_define_operator(operator.le, lambda builder, a, b: builder.fcmp_ordered("<=", a, b), compares=True)


@intrinsic
def where(_context, condition, yes, no):
    """Return a vector with the values of `yes` in lanes where the condition is true, and of `no` elsewhere."""
    lanes = _common_type(yes, no)

    def generate(context, builder, sig, args):
        a = _broadcast(context, builder, args[1], sig.args[1], lanes)
        b = _broadcast(context, builder, args[2], sig.args[2], lanes)
        return builder.select(args[0], a, b)

    return lanes(condition, yes, no), generate


def _address(context, builder, array_type, array, index_type, index):
    """Return a pointer to the vector at an index of an array."""
    if isinstance(index_type, types.BaseTuple):
        numbers, kinds = cgutils.unpack_tuple(builder, index), list(index_type)  # type: ignore[call-overload]
    else:
        numbers, kinds = [index], [index_type]
    indices = [context.cast(builder, n, k, types.intp) for n, k in zip(numbers, kinds, strict=True)]
    indices[-1] = builder.mul(indices[-1], context.get_constant(types.intp, LANES))
    struct = context.make_array(array_type)(context, builder, array)
    first = cgutils.get_item_pointer(context, builder, array_type, struct, indices, wraparound=False, boundscheck=False)
    vector = ir.VectorType(_LLVM_TYPES[array_type.dtype], LANES)
    return builder.bitcast(first, vector.as_pointer())


@intrinsic
def load(_context, array, index):
    """Load the vector at `array[index]`, where the last index counts vectors."""

    def generate(context, builder, sig, args):
        address = _address(context, builder, sig.args[0], args[0], sig.args[1], args[1])
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, index), generate


@intrinsic
def store(_context, array, index, value):
    """Write a vector, or a number that is copied to all lanes, to `array[index]`."""
    lanes = Lanes(array.dtype)

    def generate(context, builder, sig, args):
        address = _address(context, builder, sig.args[0], args[0], sig.args[1], args[1])
        number = _broadcast(context, builder, args[2], sig.args[2], lanes)
        builder.store(number, address, align=array.dtype.bitwidth // 8)

    return types.void(array, index, value), generate


@intrinsic
def prefetch(_context, array, index):
    """Prefetch the vector at `array[index]` into the cache; the index may be out of bounds."""

    def generate(context, builder, sig, args):
        address = _address(context, builder, sig.args[0], args[0], sig.args[1], args[1])
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        reads, near, data = number(0), number(3), number(1)
        builder.call(call, [builder.bitcast(address, pointer), reads, near, data])

    return types.void(array, index), generate


@intrinsic
def reduce_add(_context, lanes):
    """Return the sum over the lanes of a vector, computed by pairwise summation."""

    def generate(_context, builder, _signature, args):
        (vector,) = args
        for half in (8, 4, 2, 1):
            order = [(i + half) % LANES for i in range(LANES)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), order)
            vector = builder.fadd(vector, builder.shuffle_vector(vector, vector, mask))
        return builder.extract_element(vector, ir.IntType(32)(0))

    return lanes.scalar(lanes), generate


@intrinsic
def to_float64(_context, lanes):
    """Convert a vector to float64."""

    def generate(_context, builder, signature, args):
        vector = ir.VectorType(ir.DoubleType(), LANES)
        return args[0] if args[0].type == vector else builder.fpext(args[0], vector)

    return Lanes(types.float64)(lanes), generate


@intrinsic
def use_widest_vectors(_context):
    """Permit the calling kernel to use 512-bit vectors if available; by default, LLVM uses 256 bits."""

    def generate(_context, builder, _signature, _arguments):
        # set.add bypasses llvmlite's check, which rejects this attribute although it can be emitted.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')

    return types.void(), generate


@intrinsic(prefer_literal=True)
def alloca(_context, like, size):
    """Return a pointer to uninitialised memory on the stack for `size` numbers.

    The numbers have the dtype of `like`. The compiler may assume that no other pointer refers to this
    memory.
    """
    count = size.literal_value
    kind = like.dtype

    def generate(_context, builder, _signature, _arguments):
        # Not alloca_once, which fills with zeros: LLVM splits them into single stores, and compiles for seconds longer.
        with builder.goto_entry_block():
            buffer = builder.alloca(ir.ArrayType(_LLVM_TYPES[kind], count))
        buffer.align = 64
        return builder.bitcast(buffer, _LLVM_TYPES[kind].as_pointer())

    return types.CPointer(kind)(like, size), generate


@lru_cache(maxsize=1)
def _thread_pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="genoscan-scan")


def parallel_for(run: Callable[[int, int, int, int], None], batch: int, groups: int) -> int:
    """Run a kernel over all sequences and channel groups in `torch.get_num_threads()` threads.

    Parameters
    ----------
    run : callable
        Kernel that is called as `run(i_batch, i_part, first, last)`, where `i_batch` is the index of the
        sequence and `i_part` is the index of the part that consists of groups `first` to `last - 1`. The
        kernel must release the GIL, and no two calls may write to the same memory.
    batch : int
        Number of sequences.
    groups : int
        Number of groups per sequence.

    Returns
    -------
    int
        Number of parts into which the groups of each sequence were divided.
    """
    threads = torch.get_num_threads()
    parts = max(1, min(threads, groups) if batch < threads else 1)
    if threads == 1 or batch * parts == 1:
        for i_batch in range(batch):
            run(i_batch, 0, 0, groups)
        return 1
    edges = [groups * i // parts for i in range(parts + 1)]
    jobs = [(b, i, edges[i], edges[i + 1]) for b in range(batch) for i in range(parts)]
    flush = flushes_denormals()

    def part(job: tuple[int, int, int, int]) -> None:
        with flush_denormals(flush):
            run(*job)

    list(_thread_pool(threads).map(part, jobs))
    return parts


def pad_lanes(tensor: Tensor) -> np.ndarray:
    """Return a contiguous array of the tensor, whose last axis is zero-padded to a multiple of `LANES`."""
    if spare := -tensor.shape[-1] % LANES:
        tensor = torch.cat([tensor, tensor.new_zeros(*tensor.shape[:-1], spare)], -1)
    array: np.ndarray = contiguous(tensor).numpy(force=True)
    return array


def unpad_lanes(array: np.ndarray, channels: int) -> Tensor:
    """Return an array as a tensor, without the padding of the last axis.

    If there is padding, the data are copied, so that the memory of the array can be freed.
    """
    tensor = torch.from_numpy(array)
    return tensor if tensor.shape[-1] == channels else tensor[..., :channels].clone()
