"""Binomial checkpointing: a schedule that determines which carries an adjoint sweep stores.

An adjoint sweep needs the carry at the left edge of every tile, from the last tile to the first. At
most `slots` carries are stored. Every other carry is recomputed from the nearest stored carry to its
left. The binomial schedule minimises the number of forward passes over tiles (Griewank and Walther,
Algorithm 799, ACM TOMS 26, 2000).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import comb
from typing import NamedTuple

from genoscan.errors import InputError


class Advance(NamedTuple):
    """Action that runs tiles `start` to `stop - 1` forward and keeps only the last carry."""

    start: int
    stop: int


class Save(NamedTuple):
    """Action that stores the carry at the left edge of a tile."""

    tile: int


class Restore(NamedTuple):
    """Action that loads the stored carry at the left edge of a tile."""

    tile: int


class Drop(NamedTuple):
    """Action that frees the stored carry at the left edge of a tile."""

    tile: int


class Adjoin(NamedTuple):
    """Action that runs tiles `start` to `stop - 1` forward and then, from last to first, backward."""

    start: int
    stop: int


Action = Advance | Save | Restore | Drop | Adjoin


def schedule(n_tiles: int, slots: int, stored: Sequence[int] = (), kept: int = 1) -> Iterator[Action]:
    """Return the actions that run all tiles backward, from last to first, with the fewest forward passes.

    At most `slots` carries are stored at any time, including the carry of the first tile. `stored`
    lists the tiles whose carries an interrupted sweep has already stored, in ascending order from 0. If
    `stored` is empty, the sweep starts with the carry of the first tile. The activations of up to `kept`
    tiles fit in memory, so that these tiles are run forward only once before they are run backward.

    Raises
    ------
    InputError
        If `n_tiles`, `slots` or `kept` is less than 1. The exception is raised when the function is called,
        not during iteration.
    """
    _check(n_tiles, slots, kept)
    return _actions(n_tiles, slots, stored, kept)


def _actions(n_tiles: int, slots: int, stored: Sequence[int], kept: int) -> Iterator[Action]:
    yield Restore(stored[-1]) if stored else Save(0)
    edges = pairwise([*(stored or [0]), n_tiles])
    # (first tile, whose carry is stored; number of tiles; slots, including its own)
    pending = [(first, last - first, slots - i) for i, (first, last) in enumerate(edges)]
    while pending:
        first, n, free = pending.pop()
        while n > kept and free > 1:
            left = kept * _split(-(-n // kept), free)
            yield Advance(first, first + left)
            yield Save(first + left)
            pending.append((first, left, free))
            first, n, free = first + left, n - left, free - 1
        starts = range(first, first + n, kept)
        if len(starts) > 1:
            yield Advance(first, starts[-1])
        for start in reversed(starts[1:]):
            yield Adjoin(start, min(start + kept, first + n))
            yield Restore(first)
            if start > starts[1]:
                yield Advance(first, start - kept)
        yield Adjoin(first, min(first + kept, first + n))
        yield Drop(first)
        if pending:
            yield Restore(pending[-1][0])


def advances(n_tiles: int, slots: int, kept: int = 1) -> int:
    """Return the number of forward passes over tiles in a schedule, excluding those in `Adjoin` actions."""
    _check(n_tiles, slots, kept)
    blocks = -(-n_tiles // kept)
    rounds = _rounds(blocks, slots)
    return kept * (rounds * blocks - comb(slots + rounds, slots + 1))


def _check(n_tiles: int, slots: int, kept: int) -> None:
    if n_tiles < 1:
        raise InputError(f"{n_tiles} tiles: at least one is needed")
    if slots < 1:
        raise InputError(f"slots {slots}: at least 1 carry must be kept")
    if kept < 1:
        raise InputError(f"{kept} tiles in memory: at least one is needed")


def _rounds(n: int, slots: int) -> int:
    """Return the largest number of forward passes over a single tile in a schedule for `n` tiles."""
    rounds = 0
    while comb(slots + rounds, slots) < n:
        rounds += 1
    return rounds


def _split(n: int, slots: int) -> int:
    """Return how many of `n` tiles lie to the left of the next carry to be stored."""
    rounds = _rounds(n, slots)
    fewest_left = comb(slots + rounds - 2, slots) if rounds > 1 else 1
    return max(fewest_left, n - comb(slots - 1 + rounds, slots - 1))
