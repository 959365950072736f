"""Flushing of denormal numbers (below about 1e-38 in float32) to zero during sweeps over a sequence.

Derivatives that decay along a window become denormal, and each operation on a denormal number takes about a
hundred processor cycles. Sweeps in which this happens would take about twenty times as long without
flushing. The mode is set separately for each thread.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def flushes_denormals() -> bool:
    """Return whether denormal numbers are flushed to zero in the current thread."""
    return sys.float_info.min / 2 == 0


@contextmanager
def flush_denormals(enabled: bool = True) -> Generator[None, None, None]:
    """Set whether this thread flushes denormal numbers to zero within the context; restore the mode on exit."""
    before = flushes_denormals()
    torch.set_flush_denormal(enabled)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flush_denormals_during(tiles: Generator[Item, None, Result]) -> Generator[Item, None, Result]:
    """Run a generator with denormal numbers flushed to zero; restore the mode whenever it yields.

    Parameters
    ----------
    tiles : generator
        Sweep that yields tiles.

    Returns
    -------
    generator
        Generator that yields the same tiles and has the same return value. Only the computation of the
        tiles is affected, not the code that consumes them.
    """
    while True:
        with flush_denormals():
            try:
                tile = next(tiles)
            except StopIteration as end:
                result: Result = end.value
                return result
        yield tile
