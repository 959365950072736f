"""Which carries to remember so that tiles can be adjoined right to left: integers and verbs.

The adjoint needs the carry at the left edge of every tile, last tile first.  With room for
`slots` carries the rest are recomputed from the nearest one on the left.  The split is the
binomial one, which needs the fewest forward tiles (Griewank and Walther, Algorithm 799,
ACM TOMS 26, 2000).
"""

from collections.abc import Iterator
from math import comb
from typing import NamedTuple

from genoscan.errors import InputError


class Advance(NamedTuple):
    """Run tiles start..stop forward; keep only the carry."""

    start: int
    stop: int


class Save(NamedTuple):
    """Remember the carry at this tile's left edge."""

    tile: int


class Restore(NamedTuple):
    """Go back to the remembered carry at this tile's left edge."""

    tile: int


class Drop(NamedTuple):
    """Forget the carry at this tile's left edge."""

    tile: int


class Adjoin(NamedTuple):
    """Run this tile and pull the cotangents back through it."""

    tile: int


Action = Advance | Save | Restore | Drop | Adjoin


def schedule(n_tiles: int, slots: int) -> Iterator[Action]:
    """Return the actions that adjoin every tile, last to first, in the fewest forward tiles.

    At most `slots` carries are remembered at any time, the first tile's among them.

    Raises
    ------
    InputError
        At once, if there is no tile or no slot.
    """
    _check(n_tiles, slots)
    return _actions(n_tiles, slots)


def _actions(n_tiles: int, slots: int) -> Iterator[Action]:
    yield Save(0)
    pending = [(0, n_tiles, slots)]  # (first tile, its carry remembered; tiles; slots with it)
    while pending:
        first, n, free = pending.pop()
        while n > 1 and free > 1:
            left = _split(n, free)
            yield Advance(first, first + left)
            yield Save(first + left)
            pending.append((first, left, free))
            first, n, free = first + left, n - left, free - 1
        if n > 1:
            yield Advance(first, first + n - 1)
        for tile in range(first + n - 1, first, -1):
            yield Adjoin(tile)
            yield Restore(first)
            if tile > first + 1:
                yield Advance(first, tile - 1)
        yield Adjoin(first)
        yield Drop(first)
        if pending:
            yield Restore(pending[-1][0])


def advances(n_tiles: int, slots: int) -> int:
    """Return how many tiles `schedule` runs forward, besides the one inside each Adjoin."""
    _check(n_tiles, slots)
    rounds = _rounds(n_tiles, slots)
    return rounds * n_tiles - comb(slots + rounds, slots + 1)


def _check(n_tiles: int, slots: int) -> None:
    if n_tiles < 1:
        raise InputError(f"{n_tiles} tiles: at least one is needed")
    if slots < 1:
        raise InputError(f"slots {slots}: at least 1 carry must be kept")


def _rounds(n: int, slots: int) -> int:
    """Return how often the most recomputed of n tiles is run forward."""
    rounds = 0
    while comb(slots + rounds, slots) < n:
        rounds += 1
    return rounds


def _split(n: int, slots: int) -> int:
    """Return how many of n tiles lie left of the next remembered carry."""
    rounds = _rounds(n, slots)
    fewest_left = comb(slots + rounds - 2, slots) if rounds > 1 else 1
    return max(fewest_left, n - comb(slots - 1 + rounds, slots - 1))
