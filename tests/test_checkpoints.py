"""The schedule of carries: orders written out by hand, and what holds for every size."""

import time
from collections.abc import Sequence
from functools import cache
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genoscan.engine.checkpoints import Action, Adjoin, Advance, Drop, Restore, Save, advances, schedule
from genoscan.errors import InputError

BY_HAND: dict[tuple[int, int], list[Action]] = {
    (1, 1): [Save(0), Adjoin(0, 1), Drop(0)],
    (1, 5): [Save(0), Adjoin(0, 1), Drop(0)],
    (2, 1): [Save(0), Advance(0, 1), Adjoin(1, 2), Restore(0), Adjoin(0, 1), Drop(0)],
    (3, 1): [
        Save(0),
        Advance(0, 2),
        Adjoin(2, 3),
        Restore(0),
        Advance(0, 1),
        Adjoin(1, 2),
        Restore(0),
        Adjoin(0, 1),
        Drop(0),
    ],
    (3, 3): [
        Save(0),
        Advance(0, 1),
        Save(1),
        Advance(1, 2),
        Save(2),
        Adjoin(2, 3),
        Drop(2),
        Restore(1),
        Adjoin(1, 2),
        Drop(1),
        Restore(0),
        Adjoin(0, 1),
        Drop(0),
    ],
    (4, 2): [
        Save(0),
        Advance(0, 1),
        Save(1),
        Advance(1, 3),
        Adjoin(3, 4),
        Restore(1),
        Advance(1, 2),
        Adjoin(2, 3),
        Restore(1),
        Adjoin(1, 2),
        Drop(1),
        Restore(0),
        Adjoin(0, 1),
        Drop(0),
    ],
}


@pytest.mark.parametrize(("n_tiles", "slots"), BY_HAND)
def test_orders_by_hand(n_tiles: int, slots: int) -> None:
    assert list(schedule(n_tiles, slots)) == BY_HAND[n_tiles, slots]


def follow(n_tiles: int, slots: int, stored: Sequence[int] = (), kept: int = 1) -> int:
    """Obey the schedule as an engine would; return how many tiles were advanced over."""
    saved = set(stored)
    live = None if stored else 0
    adjoined: list[int] = []
    cost = 0
    for action in schedule(n_tiles, slots, stored, kept):
        match action:
            case Save(tile):
                assert live == tile
                assert tile not in saved
                saved.add(tile)
                assert len(saved) <= slots
            case Restore(tile):
                assert tile in saved
                live = tile
            case Drop(tile):
                saved.remove(tile)
            case Advance(start, stop):
                assert live == start < stop
                live = stop
                cost += stop - start
            case Adjoin(start, stop):
                assert live == start
                assert 0 < stop - start <= kept
                adjoined += range(stop - 1, start - 1, -1)
                live = None
    assert adjoined == list(range(n_tiles - 1, -1, -1))
    assert not saved
    return cost


@cache
def fewest(n_tiles: int, slots: int) -> int:
    """Try every place for the next remembered carry."""
    if n_tiles == 1:
        return 0
    alone = n_tiles * (n_tiles - 1) // 2
    if slots == 1:
        return alone
    splits = (left + fewest(n_tiles - left, slots - 1) + fewest(left, slots) for left in range(1, n_tiles))
    return min(alone, *splits)


@pytest.mark.parametrize("slots", range(1, 13))
def test_every_size_takes_the_fewest_advances(slots: int) -> None:
    for n_tiles in range(1, 61):
        assert follow(n_tiles, slots) == fewest(n_tiles, slots) == advances(n_tiles, slots)


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
@pytest.mark.parametrize("kept", [2, 3, 7, 100])
def test_tiles_in_memory_are_not_run_again(slots: int, kept: int) -> None:
    for n_tiles in range(1, 61):
        cost = follow(n_tiles, slots, kept=kept)
        assert cost == kept * fewest(-(-n_tiles // kept), slots) == advances(n_tiles, slots, kept)
    assert advances(kept, slots, kept) == 0


@given(st.integers(1, 60), st.integers(1, 8), st.data())
def test_any_stored_carries_serve(n_tiles: int, slots: int, data: st.DataObject) -> None:
    """Those of an interrupted sweep cost at most as much as a single one."""
    others = data.draw(st.sets(st.integers(1, n_tiles - 1), max_size=slots - 1)) if n_tiles > 1 else set()
    kept = data.draw(st.integers(1, 9))
    assert follow(n_tiles, slots, [0, *sorted(others)], kept) <= n_tiles * (n_tiles - 1) // 2


def test_known_costs() -> None:
    # Griewank and Walther: with s carries and each tile forward at most r times, C(s + r, s)
    # tiles can be had.
    assert advances(comb(3 + 2, 3), 3) == 2 * 10 - comb(5, 4)
    assert [advances(100, slots) for slots in (1, 100, 1000)] == [4950, 99, 99]


@pytest.mark.parametrize(("n_tiles", "slots"), [(100_000, 64), (100_000, 2), (3_000, 5_000)])
def test_long_windows_are_scheduled_at_once(n_tiles: int, slots: int) -> None:
    start = time.process_time()
    expected = advances(n_tiles, slots)
    if expected < 10**6:
        assert follow(n_tiles, slots) == expected
    else:
        actions = schedule(n_tiles, slots)
        first = next(action for action in actions if isinstance(action, Adjoin))
        assert first == Adjoin(n_tiles - 1, n_tiles)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(("n_tiles", "slots"), [(0, 1), (-3, 1), (1, 0), (5, -1)])
def test_nothing_to_do_or_nothing_to_keep_is_an_error(n_tiles: int, slots: int) -> None:
    for act in (lambda: list(schedule(n_tiles, slots)), lambda: advances(n_tiles, slots)):
        with pytest.raises(InputError, match="at least") as raised:
            act()
        assert "\n" not in str(raised.value)
