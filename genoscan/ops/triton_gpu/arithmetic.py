"""Helpers that declare and launch Triton kernels, and elementary functions that kernels call."""

# Functions compiled by Triton have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def"

import contextlib
import typing
from collections.abc import Container, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from genoscan.errors import InputError
from genoscan.ops.primitive import OptionalTensors, Tensors

NVIDIA = tl.constexpr(not triton.knobs.runtime.interpret and torch.version.hip is None)
RUNTIME_SIZES = ("length", "n_chunks", "n_batch", "n_rows", "n_directions")
"""Names of integer arguments for which Triton does not specialise kernels.

Kernels are therefore not compiled again when the values of these arguments change.
"""

LONGEST_AXIS = 65_535
"""Programs along the second and third axes of a grid; along the first, 2^31 - 1."""


def kernel(function: Any, unaligned: tuple[str, ...] = ()) -> Any:
    """Compile a function with Triton, and exempt it from run-time type checks.

    Parameters
    ----------
    function : callable
        A kernel, or a function that kernels call.
    unaligned : tuple of str
        Names of arguments whose alignment Triton ignores, so that their loads are not vectorised.

    Returns
    -------
    Triton kernel
        Kernel that can be passed to `launch` or called by other kernels.
    """
    return triton.jit(
        typing.no_type_check(function), do_not_specialize=RUNTIME_SIZES, do_not_specialize_on_alignment=unaligned
    )


def launch(program: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, **sizes: float) -> None:
    """Launch a kernel asynchronously on the device of its first argument.

    Parameters
    ----------
    program : Triton kernel
        Kernel that was declared with `kernel`.
    grid : tuple of int
        Number of programs along each of up to three axes.
    *arguments
        Positional arguments of the kernel. The first argument is a tensor.
    warps : int
        Number of warps per program.
    **sizes
        Compile-time arguments of the kernel.

    Raises
    ------
    InputError
        If the second or third axis, of sequences or directions, is longer than a GPU allows.
    """
    if max(grid[1:], default=0) > LONGEST_AXIS:
        raise InputError(
            f"found {max(grid[1:]):,} sequences or directions at once, expected at most {LONGEST_AXIS:,} on a GPU: "
            "divide the batch"
        )
    device = arguments[0].device
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    with torch.cuda.device(device) if elsewhere else contextlib.nullcontext():
        program[grid](*arguments, num_warps=warps, enable_fp_fusion=True, **sizes)


def contiguous(tensors: Sequence[Tensor]) -> Tensors:
    """Return the tensors detached and contiguous, as required by the kernels."""
    return tuple(tensor.detach().contiguous() for tensor in tensors)


def contiguous_tangents(inputs: Tensors, tangents: OptionalTensors, optional: Container[int] = ()) -> tuple[Any, ...]:
    """Return the tangents detached and contiguous, with zero tensors in place of None.

    At the indices in `optional`, None is kept. The inputs at these indices are weights, which rarely have
    tangents.
    """
    count = next(len(dot) for dot in tangents if dot is not None)
    return tuple(
        None
        if dot is None and i in optional
        else value.new_zeros(count, *value.shape)
        if dot is None
        else dot.detach().contiguous()
        for i, (value, dot) in enumerate(zip(inputs, tangents, strict=True))
    )


def sum_blocks(parts: Tensor) -> Tensor:
    """Sum over the first axis, which may be long; the sum is accumulated in float64."""
    return parts.sum(0, dtype=torch.float64).to(parts.dtype)


@kernel
def exp(x):
    """Return `exp(x)`, with denormal results flushed to zero."""
    if NVIDIA and x.dtype == tl.float32:
        # tl.exp needs three more instructions, which handle denormal results.
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x * 1.4426950408889634], tl.float32, True, 1
        )
    return tl.exp(x)


@kernel
def decay(z):
    """Return a mask `near` and a number `factor` that represent `exp(z)` for z <= 0.

    For any `h`, the product `exp(z) h` equals `(h if near else 0) + factor h`. `near` is true if z > -0.7.
    `factor` is `exp(z) - 1` if `near` is true, and `exp(z)` otherwise. As a result, no digits are lost if
    `exp(z)` is close to 1 or to 0.
    """
    # Chebyshev interpolant of (exp(z) - 1 - z) / z^2 on [-0.7, 0].
    if z.dtype == tl.float64:
        q = 2.42139361784777255e-8 + 1.55629910157251035e-9 * z
        q = 2.74806025482759586e-7 + q * z
        q = 2.75529119308599596e-6 + q * z
        q = 2.4801423768288252e-5 + q * z
        q = 1.9841265932179707e-4 + q * z
        q = 1.38888888305188562e-3 + q * z
        q = 8.33333333282417705e-3 + q * z
        q = 0.0416666666666438653 + q * z
        q = 0.166666666666666268 + q * z
        q = 0.499999999999999999 + q * z
    else:
        q = 0.0081562726326647874 + 0.00108627760209129512 * z
        q = 0.0416233063106945971 + q * z
        q = 0.166662908003330193 + q * z
        q = 0.499999947472849778 + q * z
    near = z > -0.7
    return near, tl.where(near, z + z * z * q, exp(z))


@kernel
def masked(near, h):
    """Return `h` where the mask `near` is true, and 0 elsewhere."""
    return tl.where(near, h, 0.0)


@kernel
def phi(z, near, factor):
    """Return `(exp(z) - 1) / z` for z <= 0.

    `near` and `factor` are the results of `decay(z)`.
    """
    tiny = z > -1e-20
    return tl.where(tiny, 1.0, tl.where(near, factor, factor - 1) * (1 / tl.where(tiny, -1.0, z)))


@kernel
def phi_slope(z, near, factor, gain):
    """Return the derivative of `phi`, `(exp(z) - phi(z)) / z`, for z <= 0.

    `near` and `factor` are the results of `decay(z)`, and `gain` is `phi(z)`.
    """
    # Chebyshev interpolant on [-0.7, 0].
    if z.dtype == tl.float64:
        p = 2.20422119656020512e-8 + 1.3955909621971753e-9 * z
        p = 2.49575018305090999e-7 + p * z
        p = 2.47953600425294566e-6 + p * z
        p = 2.2045583041510352e-5 + p * z
        p = 1.73611031390252863e-4 + p * z
        p = 1.19047617508154446e-3 + p * z
        p = 0.0069444444425571785 + p * z
        p = 0.0333333333331966836 + p * z
        p = 0.124999999999994884 + p * z
        p = 0.333333333333333258 + p * z
        p = 0.5 + p * z
    else:
        p = 0.00671302070913870248 + 0.000880058245007079572 * z
        p = 0.0332514808185748828 + p * z
        p = 0.124986751898790545 + p * z
        p = 0.333332543642937489 + p * z
        p = 0.499999992332209255 + p * z
    return tl.where(near, p, (factor - gain) * (1 / tl.where(z > -1e-20, -1.0, z)))


@kernel
def logistic(x):
    """Return `1 / (1 + exp(-x))` and `1 / (1 + exp(x))`, each to full relative precision."""
    small = exp(-tl.abs(x))
    larger = 1 / (1 + small)
    smaller = small * larger
    return tl.where(x > 0, larger, smaller), tl.where(x > 0, smaller, larger)


@kernel
def silu_slope(x):
    """Return the derivative of `x / (1 + exp(-x))`."""
    up, down = logistic(x)
    return up * (1 + x * down)


@kernel
def softplus(x):
    """Return `log(1 + exp(x))` to full relative precision."""
    # log(1 + e) = 2 artanh(s) with s = e / (2 + e); Chebyshev interpolant in s^2 on [0, 1/9].
    small = exp(-tl.abs(x))
    s = small / (2 + small)
    w = s * s
    if x.dtype == tl.float64:
        p = 0.0416225325593041029 + 0.0852208178139069906 * w
        p = 0.0605508436403460883 + p * w
        p = 0.0665018701633731217 + p * w
        p = 0.0769330702115200388 + p * w
        p = 0.0909087041625240226 + p * w
        p = 0.111111120403738366 + p * w
        p = 0.142857142727270573 + p * w
        p = 0.200000000000928737 + p * w
        p = 0.333333333333330748 + p * w
    else:
        p = 0.139825788725986344 + 0.140788891815545403 * w
        p = 0.20012297615351874 + p * w
        p = 0.333331608206888866 + p * w
    return tl.maximum(x, 0.0) + 2 * (s + s * w * p)
