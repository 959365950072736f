"""Numbers too small for their exponent, below 1e-38 in float32, are nought while tiles are swept.

A derivative that fades along a window ends among them, and a processor takes a hundred cycles for
an operation on one: such sweeps took twenty times as long.  Whether they are nought is a mode that
each thread has for itself.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def are_nought() -> bool:
    """Return this thread's mode."""
    return sys.float_info.min / 2 == 0


@contextmanager
def nought(mode: bool = True) -> Generator[None, None, None]:
    """Take them for nought on this thread, or not, and leave its mode as it was."""
    before = are_nought()
    torch.set_flush_denormal(mode)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def without(tiles: Generator[Item, None, Result]) -> Generator[Item, None, Result]:
    """Take them for nought while the next tile is made, and not while somebody else has it."""
    while True:
        with nought():
            try:
                tile = next(tiles)
            except StopIteration as end:
                result: Result = end.value
                return result
        yield tile
