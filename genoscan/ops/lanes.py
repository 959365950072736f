"""What the compiled CPU kernels share: vectors of lanes, exponentials, threads without a lock.

Sixteen channels stand side by side in vector registers.  A kernel loads and stores sixteen
lanes at a time, and computes with them as with numbers; an index counts whole lanes along an
array's last axis, which `padded` fills up.  Written out as vectors, because a compiler that is
left to find them finds some of them.
"""

# What numba compiles has no annotations; what calls it has.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

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
from numba.extending import intrinsic, lower_builtin, overload, register_model
from torch import Tensor

from genoscan.ops.denormals import flush_denormals, flushes_denormals
from genoscan.ops.memory import contiguous

LANES = 16

_LN_2 = 0.6931471805599453
_LOG2_E = 1.4426950408889634


class _Lanes(types.Type):
    """Sixteen numbers in vector registers; `of` is their kind, or boolean for a comparison."""

    def __init__(self, of: types.Type) -> None:
        self.of = of
        super().__init__(name=f"Lanes({of})")


_LLVM_TYPES = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.boolean: ir.IntType(1),
}


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(_LLVM_TYPES[lanes.of], LANES))


def _spread(context, builder, value, kind, lanes):
    """Return the value as lanes, a number in all of them."""
    if isinstance(kind, _Lanes):
        return value
    number = context.cast(builder, value, kind, lanes.of)
    vector = ir.VectorType(number.type, LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.IntType(32)(0))
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), everywhere)


def _pair(a, b):
    """Return the lanes that two operands make together, or None if neither is lanes."""
    lanes = next((x for x in (a, b) if isinstance(x, _Lanes) and x.of != types.boolean), None)
    other = [x for x in (a, b) if x != lanes]
    return lanes if all(isinstance(x, types.Float) for x in other) else None


def _define(operation, build, compares: bool) -> None:
    """Teach numba one operator between lanes, or lanes and a number."""

    @infer_global(operation)
    class _Template(AbstractTemplate):
        def generic(self, args, _kws):
            if len(args) == 2 and (lanes := _pair(*args)):
                return signature(_Lanes(types.boolean) if compares else lanes, *args)
            return None

    def lower(context, builder, sig, args):
        lanes = _pair(*sig.args)
        a, b = (_spread(context, builder, x, k, lanes) for x, k in zip(args, sig.args, strict=True))
        return build(builder, a, b)

    lower_builtin(operation, _Lanes, _Lanes)(lower)
    lower_builtin(operation, _Lanes, types.Float)(lower)
    lower_builtin(operation, types.Float, _Lanes)(lower)


_define(operator.add, lambda builder, a, b: builder.fadd(a, b), compares=False)
_define(operator.sub, lambda builder, a, b: builder.fsub(a, b), compares=False)
_define(operator.mul, lambda builder, a, b: builder.fmul(a, b), compares=False)
_define(operator.truediv, lambda builder, a, b: builder.fdiv(a, b), compares=False)
_define(operator.gt, lambda builder, a, b: builder.fcmp_ordered(">", a, b), compares=True)
_define(operator.le, lambda builder, a, b: builder.fcmp_ordered("<=", a, b), compares=True)


@intrinsic
def where(_context, condition, yes, no):
    """Return yes where the condition holds and no elsewhere; either may be a number."""
    lanes = _pair(yes, no)

    def generate(context, builder, sig, args):
        a = _spread(context, builder, args[1], sig.args[1], lanes)
        b = _spread(context, builder, args[2], sig.args[2], lanes)
        return builder.select(args[0], a, b)

    return lanes(condition, yes, no), generate


def _address(context, builder, array_type, array, index_type, index):
    """Return a pointer to the sixteen numbers at this index."""
    if isinstance(index_type, types.BaseTuple):
        numbers, kinds = cgutils.unpack_tuple(builder, index), list(index_type)  # type: ignore[call-overload]
    else:
        numbers, kinds = [index], [index_type]
    places = [context.cast(builder, n, k, types.intp) for n, k in zip(numbers, kinds, strict=True)]
    places[-1] = builder.mul(places[-1], context.get_constant(types.intp, LANES))
    struct = context.make_array(array_type)(context, builder, array)
    first = cgutils.get_item_pointer(
        context, builder, array_type, struct, places, wraparound=False, boundscheck=False
    )
    vector = ir.VectorType(_LLVM_TYPES[array_type.dtype], LANES)
    return builder.bitcast(first, vector.as_pointer())


@intrinsic
def load(_context, array, index):
    """Return the lanes at array[index]."""

    def generate(context, builder, sig, args):
        where = _address(context, builder, sig.args[0], args[0], sig.args[1], args[1])
        return builder.load(where, align=array.dtype.bitwidth // 8)

    return _Lanes(array.dtype)(array, index), generate


@intrinsic
def store(_context, array, index, value):
    """Put lanes, or one number in all of them, at array[index]."""
    lanes = _Lanes(array.dtype)

    def generate(context, builder, sig, args):
        where = _address(context, builder, sig.args[0], args[0], sig.args[1], args[1])
        number = _spread(context, builder, args[2], sig.args[2], lanes)
        builder.store(number, where, align=array.dtype.bitwidth // 8)

    return types.void(array, index, value), generate


@intrinsic
def prefetch(_context, array, index):
    """Ask for the sixteen numbers at array[index], which may lie past its end, ahead of time."""

    def generate(context, builder, sig, args):
        where = _address(context, builder, sig.args[0], args[0], sig.args[1], args[1])
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        reads, near, data = number(0), number(3), number(1)
        builder.call(call, [builder.bitcast(where, pointer), reads, near, data])

    return types.void(array, index), generate


@intrinsic
def total(_context, lanes):
    """Return the sum over the lanes, halves added to halves."""

    def generate(_context, builder, _signature, args):
        (vector,) = args
        for half in (8, 4, 2, 1):
            order = [(i + half) % LANES for i in range(LANES)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), order)
            vector = builder.fadd(vector, builder.shuffle_vector(vector, vector, mask))
        return builder.extract_element(vector, ir.IntType(32)(0))

    return lanes.of(lanes), generate


@intrinsic
def precise(_context, lanes):
    """Return the lanes in float64."""

    def generate(_context, builder, signature, args):
        whole = ir.VectorType(ir.DoubleType(), LANES)
        return args[0] if args[0].type == whole else builder.fpext(args[0], whole)

    return _Lanes(types.float64)(lanes), generate


@intrinsic
def _power(_context, shifted):
    """Return 2^k, the biased k being the lowest bits of a float's."""
    bits, fraction = (32, 23) if shifted.of == types.float32 else (64, 52)

    def generate(_context, builder, _signature, args):
        whole = ir.VectorType(ir.IntType(bits), LANES)
        places = ir.Constant(whole, [fraction] * LANES)
        return builder.bitcast(builder.shl(builder.bitcast(args[0], whole), places), args[0].type)

    return shifted(shifted), generate


@intrinsic
def widest(_context):
    """Let the kernel that calls this use the machine's widest vectors; LLVM prefers 256 bits."""

    def generate(_context, builder, _signature, _arguments):
        # A plain string attribute, which llvmlite prints but does not list as known.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')

    return types.void(), generate


@intrinsic(prefer_literal=True)
def stack(_context, like, size):
    """Return a pointer to `size` numbers on the stack, which the compiler knows to be unshared."""
    count = size.literal_value
    kind = like.dtype

    def generate(_context, builder, _signature, _arguments):
        room = cgutils.alloca_once(builder, ir.ArrayType(_LLVM_TYPES[kind], count))
        room.align = 64
        return builder.bitcast(room, _LLVM_TYPES[kind].as_pointer())

    return types.CPointer(kind)(like, size), generate


def _fraction(r):
    raise NotImplementedError("compiled code only")


def _inverse(x):
    raise NotImplementedError("compiled code only")


def decay(z2):
    raise NotImplementedError("compiled code only")


def hold(z2, factor):
    raise NotImplementedError("compiled code only")


def hold_slope(z2, factor, held):
    raise NotImplementedError("compiled code only")


def exponential(x):
    raise NotImplementedError("compiled code only")


def sigmoid(x):
    raise NotImplementedError("compiled code only")


def softplus(x):
    raise NotImplementedError("compiled code only")


@overload(_fraction, inline="always")
def _choose_fraction(r):
    """Return 2^r - 1 for |r| <= 1/2, to a unit in the last place."""

    def in_float32(r):
        p = 1.54035123484e-4 * r + 1.33907354767e-3
        p = p * r + 9.618237495016e-3
        p = p * r + 5.550357433639e-2
        p = p * r + 2.402264979496e-1
        p = p * r + 6.931471879267e-1
        return p * r

    def in_float64(r):
        r = r * _LN_2
        p = 1 / 6227020800 * r + 1 / 479001600
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
        return p * r * r + r

    return in_float32 if r.of == types.float32 else in_float64


def _round(lanes: _Lanes) -> tuple[float, float]:
    """Return the least exponent, and what rounds to a whole k where it is added.

    The lowest bits of the sum are then k and the exponent's bias.
    """
    return (
        (-126.0, 1.5 * 2**23 + 127) if lanes.of == types.float32 else (-1022.0, 1.5 * 2**52 + 1023)
    )


@overload(decay, inline="always")
def _choose_decay(z2):
    """Return 2^z2 - 1 for -1 < z2 <= 0, and 2^z2 below.

    So 2^z2 h = keep h + decay(z2) h, with keep 1 or 0 by the same comparison, loses no digits at
    either end: not of a decay next to 1, not of one next to 0.  To 2 units in the last place;
    2^z2 = 2^k 2^r with |r| <= 1/2, and never below the smallest normal number.
    """
    least, rounder = _round(z2)

    def chosen(z2):
        z2 = where(z2 <= least, least, z2)
        shifted = z2 + rounder
        power = _power(shifted)
        p = _fraction(z2 - (shifted - rounder))
        return power * p + where(z2 > -1.0, power - 1.0, power)

    return chosen


@overload(hold, inline="always")
def _choose_hold(z2, factor):
    """Return phi(z) = (exp(z) - 1) / z, z being z2 ln 2 and the factor `decay(z2)`."""

    def chosen(z2, factor):
        change = where(z2 > -1.0, factor, factor - 1.0)
        return where(z2 > -1e-20, 1.0, change / (z2 * _LN_2))

    return chosen


@overload(hold_slope, inline="always")
def _choose_hold_slope(z2, factor, held):
    """Return phi'(z) = (exp(z) - phi(z)) / z; of small z the series, the sum of k z^(k-1) / (k+1)!.

    The factor is `decay(z2)`, `held` is phi(z).
    """
    terms = 11 if z2.of == types.float32 else 19

    def chosen(z2, factor, held):
        z = z2 * _LN_2
        # From the last term on, each is z k / ((k + 1) (k - 1)) times the one before.
        p = 0.0 * z + 1.0
        for k in range(terms, 1, -1):
            p = p * z * (k / ((k + 1.0) * (k - 1.0))) + 1.0
        return where(z2 > -1.0, 0.5 * p, (factor - held) / z)

    return chosen


@overload(exponential, inline="always")
def _choose_exponential(x):
    """Return exp(x) for x <= 0, to 2 units in the last place; 0 below the normal numbers."""
    least, rounder = _round(x)
    # ln 2 in two parts, so that k times the first is exact.
    high, low = 0.6931471803691238, 1.9082149292705877e-10
    if x.of == types.float32:
        high, low = 0.693145751953125, 1.428606765330187e-06

    def chosen(x):
        shifted = x * _LOG2_E + rounder
        k = shifted - rounder
        power = _power(shifted)
        r = (x - k * high) - k * low
        return where(x <= least * _LN_2, 0.0, power * _fraction(r * _LOG2_E) + power)

    return chosen


@overload(_inverse, inline="always")
def _choose_inverse(x):
    """Return 1 / x for 1 <= x <= 2, to a unit or two in the last place."""

    def in_float32(x):
        # To 1 in 100, then two of Newton's steps: a third of the time of a division.
        r = (0.32323232 * x - 1.45454545) * x + 2.12121212
        r = r + r * (1.0 - x * r)
        return r + r * (1.0 - x * r)

    def in_float64(x):
        return 1.0 / x

    return in_float32 if x.of == types.float32 else in_float64


@overload(sigmoid, inline="always")
def _choose_sigmoid(x):
    """Return 1 / (1 + exp(-x)), to full relative precision at both ends."""

    def chosen(x):
        small = exponential(where(x > 0.0, 0.0 - x, x))
        return where(x > 0.0, 1.0, small) * _inverse(1.0 + small)

    return chosen


@overload(softplus, inline="always")
def _choose_softplus(x):
    """Return log(1 + exp(x)), to full relative precision at both ends.

    log(1 + e) = 2 artanh(s) with s = e / (2 + e) <= 1/3, an odd series in s.
    """

    def in_float32(x):
        small = exponential(where(x > 0.0, 0.0 - x, x))
        s = 0.5 * small * _inverse(1.0 + 0.5 * small)
        q = s * s
        p = 0.14089167203365766 * q + 0.139803014327287
        p = p * q + 0.2001245513719502
        p = p * q + 0.33333157341076625
        p = p * q + 1.00000000396052
        return 2.0 * s * p + where(x > 0.0, x, 0.0)

    def in_float64(x):
        small = exponential(where(x > 0.0, 0.0 - x, x))
        s = small / (2.0 + small)
        q = s * s
        p = 1 / 35 * q + 1 / 33
        for k in range(31, 0, -2):
            p = p * q + 1 / k
        return 2.0 * s * p + where(x > 0.0, x, 0.0)

    return in_float32 if x.of == types.float32 else in_float64


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
    if threads == 1 or batch * parts == 1:
        for i_batch in range(batch):
            run(i_batch, 0, 0, groups)
        return 1
    edges = [groups * i // parts for i in range(parts + 1)]
    jobs = [(b, i, edges[i], edges[i + 1]) for b in range(batch) for i in range(parts)]
    mode = flushes_denormals()

    def part(job: tuple[int, int, int, int]) -> None:
        with flush_denormals(mode):
            run(*job)

    list(_pool(threads).map(part, jobs))
    return parts


def padded(tensor: Tensor) -> np.ndarray:
    """Return a contiguous array whose last axis is filled up with zeros to whole lanes."""
    if spare := -tensor.shape[-1] % LANES:
        tensor = torch.cat([tensor, tensor.new_zeros(*tensor.shape[:-1], spare)], -1)
    array: np.ndarray = contiguous(tensor).numpy(force=True)
    return array


def trimmed(array: np.ndarray, channels: int) -> Tensor:
    """Undo `padded`; where there is padding, its memory is not held on to."""
    whole = torch.from_numpy(array)
    return whole if whole.shape[-1] == channels else whole[..., :channels].clone()
