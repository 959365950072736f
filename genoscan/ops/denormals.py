"""Flush denormal numbers, those below 1e-38 in float32, to zero during sweeps.

A derivative that decays along a window becomes denormal, and an operation on a denormal takes a
processor about a hundred cycles: such sweeps took twenty times as long.  The mode belongs to a
thread.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def flushes_denormals() -> bool:
    """Return whether denormals are flushed to zero on this thread."""
    return sys.float_info.min / 2 == 0


@contextmanager
def flush_denormals(enabled: bool = True) -> Generator[None, None, None]:
    """Flush denormals to zero on this thread, or not, and restore its mode on exit."""
    before = flushes_denormals()
    torch.set_flush_denormal(enabled)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flush_denormals_during(tiles: Generator[Item, None, Result]) -> Generator[Item, None, Result]:
    """Run a generator with denormals flushed to zero; the consumer's mode is unchanged.

    Parameters
    ----------
    tiles : generator
        Tiles of a sweep; each is computed with denormals flushed.

    Returns
    -------
    generator
        The same tiles and the same return value.
    """
    while True:
        with flush_denormals():
            try:
                tile = next(tiles)
            except StopIteration as end:
                result: Result = end.value
                return result
        yield tile
