"""Elementary functions of vectors for the CPU kernels, computed by polynomials.

Each function is a stub, for which numba overloads are defined for vectors of float32 and float64.
"""

# Functions compiled by numba have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from genoscan.ops.lanes import LANES, Lanes, where

_LN_2 = 0.6931471805599453
_LOG2_E = 1.4426950408889634


def decay(z2):
    """Return `2^z2 - 1` for -1 < z2 <= 0, and `2^z2` for z2 <= -1.

    For any `h`, the product `2^z2 h` equals `(h if z2 > -1 else 0) + decay(z2) h`. In this form, no digits
    are lost if `2^z2` is close to 1 or to 0. The power is computed as `2^z2 = 2^k 2^r`, where `k` is an
    integer and |r| <= 1/2. It is accurate to 2 units in the last place. Powers below the smallest normal
    number are replaced by this number.
    """
    raise NotImplementedError("compiled code only")


def phi(z2, factor):
    """Return `phi(z) = (exp(z) - 1) / z` for `z = z2 ln 2`.

    `factor` is `decay(z2)`.
    """
    raise NotImplementedError("compiled code only")


def phi_slope(z2, factor, gain):
    """Return `phi'(z) = (exp(z) - phi(z)) / z` for `z = z2 ln 2`.

    `factor` is `decay(z2)`, and `gain` is `phi(z)`. For z2 > -1, the result is computed as a series: the
    sum of `k z^(k-1) / (k+1)!` over k >= 1.
    """
    raise NotImplementedError("compiled code only")


def exponential(x):
    """Return `exp(x)` for x <= 0, or 0 if the result is denormal.

    The result is accurate to 2 units in the last place.
    """
    raise NotImplementedError("compiled code only")


def one_minus_exponential(x):
    """Return `1 - exp(x)` for x <= 0, accurate to 4 units in the last place, also if `x` is close to 0."""
    raise NotImplementedError("compiled code only")


def sine(x, quarters):
    """Return `sin(x + quarters pi / 2)` for |x| <= 8192 and a whole number of quarters, such as 1.0 for the cosine.

    The argument is reduced to |r| <= pi / 4 by subtracting a multiple of pi / 2, which is stored as three numbers.
    The absolute error is at most 2 units in the last place of 1.
    """
    raise NotImplementedError("compiled code only")


def sigmoid(x):
    """Return `1 / (1 + exp(-x))` to full relative precision for both signs of `x`."""
    raise NotImplementedError("compiled code only")


def softplus(x):
    """Return `log(1 + exp(x))` to full relative precision for both signs of `x`.

    The result is computed from `log(1 + e) = 2 artanh(s)`, where `e = exp(-|x|)` and
    `s = e / (2 + e) <= 1/3`. The right-hand side is an odd series in `s`.
    """
    raise NotImplementedError("compiled code only")


def _exp2m1(r):
    """Return `2^r - 1` for |r| <= 1/2, accurate to 1 unit in the last place."""
    raise NotImplementedError("compiled code only")


def _reciprocal(x):
    """Return `1 / x` for 1 <= x <= 2, accurate to 2 units in the last place."""
    raise NotImplementedError("compiled code only")


@intrinsic
def _exp2_integer(_context, shifted):
    """Return `2^k` for integers `k`.

    `shifted` contains floating-point numbers whose lowest bits are `k` plus the exponent bias.
    """
    bits, fraction = (32, 23) if shifted.scalar == types.float32 else (64, 52)

    def generate(_context, builder, _signature, args):
        integers = ir.VectorType(ir.IntType(bits), LANES)
        shift = ir.Constant(integers, [fraction] * LANES)
        shifted_bits = builder.shl(builder.bitcast(args[0], integers), shift)
        return builder.bitcast(shifted_bits, args[0].type)

    return shifted(shifted), generate


def _exp2_constants(lanes: Lanes) -> tuple[float, float]:
    """Return the lowest exponent, and a constant that rounds a number to an integer when added to it.

    The lowest bits of the sum are the rounded integer plus the exponent bias.
    """
    if lanes.scalar == types.float32:
        return -126.0, 1.5 * 2**23 + 127
    return -1022.0, 1.5 * 2**52 + 1023


@overload(decay)
def _overload_decay(z2):
    least, rounder = _exp2_constants(z2)

    def chosen(z2):
        z2 = where(z2 <= least, least, z2)
        shifted = z2 + rounder
        power = _exp2_integer(shifted)
        p = _exp2m1(z2 - (shifted - rounder))
        return power * p + where(z2 > -1.0, power - 1.0, power)

    return chosen


@overload(phi)
def _overload_phi(z2, factor):
    def chosen(z2, factor):
        change = where(z2 > -1.0, factor, factor - 1.0)
        return where(z2 > -1e-20, 1.0, change / (z2 * _LN_2))

    return chosen


@overload(phi_slope)
def _overload_phi_slope(z2, factor, gain):
    terms = 11 if z2.scalar == types.float32 else 19

    def chosen(z2, factor, gain):
        z = z2 * _LN_2
        # Horner's method, from the last term: term k is z k / ((k + 1) (k - 1)) times term k - 1.
        p = 0.0 * z + 1.0
        for k in range(terms, 1, -1):
            p = p * z * (k / ((k + 1.0) * (k - 1.0))) + 1.0
        return where(z2 > -1.0, 0.5 * p, (factor - gain) / z)

    return chosen


@overload(exponential)
def _overload_exponential(x):
    least, rounder = _exp2_constants(x)
    # ln 2 as the sum of two parts, so that k times the first is exact.
    high, low = 0.6931471803691238, 1.9082149292705877e-10
    if x.scalar == types.float32:
        high, low = 0.693145751953125, 1.428606765330187e-06

    def chosen(x):
        shifted = x * _LOG2_E + rounder
        k = shifted - rounder
        power = _exp2_integer(shifted)
        r = (x - k * high) - k * low
        return where(x <= least * _LN_2, 0.0, power * _exp2m1(r * _LOG2_E) + power)

    return chosen


@overload(one_minus_exponential)
def _overload_one_minus_exponential(x):
    def chosen(x):
        z2 = x * _LOG2_E
        change = decay(z2)
        return where(z2 > -1.0, 0.0 - change, 1.0 - change)

    return chosen


@overload(sine)
def _overload_sine(x, quarters):
    # Chebyshev interpolants of (sin(r) / r - 1) / r^2 and (cos(r) - 1 + r^2 / 2) / r^4 in r^2.
    if x.scalar == types.float32:
        rounder, high, middle, low = 1.5 * 2**23, 1.5703125, 4.837512969970703e-4, 7.549789954891882e-8

        def polynomials(w):
            s = -0.166666645399896128 + w * (0.00833272473263029222 + w * -0.000195828558507899881)
            c = 0.0416666645369460917 + w * (-0.00138882794496495371 + w * 0.0000245428963369446271)
            return s, c
    else:
        rounder, high, middle, low = 1.5 * 2**52, 1.5707963258028030396, 9.9209357916352214e-10, 5.17018298179410557e-19

        def polynomials(w):
            s = -2.50510925070613859e-8 + w * 1.59153232122714003e-10
            s = -0.000198412698363873462 + w * (2.75573159119111591e-6 + w * s)
            s = -0.166666666666666644 + w * (0.00833333333333070063 + w * s)
            c = 2.08761216588711588e-9 + w * -1.1380876948169716e-11
            c = 0.000024801587298533455 + w * (-2.75573171524670396e-7 + w * c)
            c = 0.0416666666666666652 + w * (-0.00138888888888872422 + w * c)
            return s, c

    polynomials = register_jitable(polynomials)

    def chosen(x, quarters):
        k = (x * 0.6366197723675814 + rounder) - rounder
        r = ((x - k * high) - k * middle) - k * low
        w = r * r
        s, c = polynomials(w)
        s, c = r + r * w * s, 1.0 - 0.5 * w + w * w * c
        k = k + quarters
        turn = k - 4.0 * ((k * 0.25 + rounder) - rounder)  # -2 to 2
        value = where(turn * turn > 0.5, where(turn * turn > 2.0, s, c), s)
        return where(turn * turn > 2.0, 0.0 - value, where(turn > -0.5, value, 0.0 - value))

    return chosen


@overload(sigmoid)
def _overload_sigmoid(x):
    def chosen(x):
        small = exponential(where(x > 0.0, 0.0 - x, x))
        return where(x > 0.0, 1.0, small) * _reciprocal(1.0 + small)

    return chosen


@overload(softplus)
def _overload_softplus(x):
    def in_float32(x):
        small = exponential(where(x > 0.0, 0.0 - x, x))
        s = 0.5 * small * _reciprocal(1.0 + 0.5 * small)
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

    return in_float32 if x.scalar == types.float32 else in_float64


@overload(_exp2m1)
def _overload_exp2m1(r):
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

    return in_float32 if r.scalar == types.float32 else in_float64


@overload(_reciprocal)
def _overload_reciprocal(x):
    def in_float32(x):
        # Estimate to within 1 %, then refine by Newton steps; this takes a third of the time of a
        # division.
        r = (0.32323232 * x - 1.45454545) * x + 2.12121212
        r = r + r * (1.0 - x * r)
        return r + r * (1.0 - x * r)

    def in_float64(x):
        return 1.0 / x

    return in_float32 if x.scalar == types.float32 else in_float64
