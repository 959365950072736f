"""A GPU's exponentials per second, an upper bound of the scan's arithmetic."""

# Triton kernels have no annotations; their callers have.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl
from torch import Tensor

from genoscan.ops.triton_gpu.arithmetic import exp, kernel, launch

TIMES = 256
"""Exponentials per number read."""

_BLOCK = 1024
"""Numbers per program: eight a thread, so that exponentials do not depend on the one before."""


@kernel
def _iterated(x, out, size, BLOCK: tl.constexpr, TIMES: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    value = tl.load(x + i, inside, 0.0)
    for _ in range(TIMES):
        value = exp(-value)
    tl.store(out + i, value, inside)


def many_exponentials(x: Tensor, out: Tensor) -> None:
    """Fill `out` with x -> exp(-x) applied 256 times, without waiting for the device."""
    grid = (triton.cdiv(x.numel(), _BLOCK),)
    launch(_iterated, grid, x, out, x.numel(), BLOCK=_BLOCK, TIMES=TIMES)
