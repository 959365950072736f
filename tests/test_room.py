"""Room that is used again."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from genoscan.ops.memory import reused, room

LIKE = np.empty(0, np.float32)
LARGE = (3, 100, 128)


def start(array: np.ndarray) -> int:
    return array.ctypes.data


def test_room_is_of_the_shape_and_kind_asked_for() -> None:
    for like in (LIKE, LIKE.astype(np.float64)):
        for shape in (LARGE, (2, 3), (1, 5), (10_000,)):
            with reused():
                array = room(shape, like)
            assert (array.shape, array.dtype) == (shape, like.dtype)
            assert start(array) % 64 == 0
            assert array.flags.c_contiguous
            assert array.flags.writeable


def test_room_is_used_again_once_nobody_holds_it() -> None:
    with reused():
        first = room(LARGE, LIKE)
        at = start(first)
        second = room(LARGE, LIKE)
        assert start(second) != at
        del first
        assert start(room(LARGE, LIKE)) == at


@pytest.mark.parametrize("view", ["slice", "tensor", "graph"])
def test_a_view_holds_the_room(view: str) -> None:
    with reused():
        array = room(LARGE, LIKE)
        at = start(array)
        held: object
        if view == "slice":
            held = array[1:, ::2]
        elif view == "tensor":
            held = torch.from_numpy(array).flatten()[5:]
        else:
            weight = torch.ones(2, 128, requires_grad=True)
            held = torch.from_numpy(array) @ weight.mT
        del array
        assert start(room(LARGE, LIKE)) != at
        del held
        gc.collect()
        assert start(room(LARGE, LIKE)) == at


def test_larger_room_serves_where_none_fits() -> None:
    with reused():
        at = start(room((100, 128), LIKE))
        assert start(room((99, 128), LIKE)) == at
        assert start(room((101, 128), LIKE)) != at


def test_nothing_is_kept_when_nobody_sweeps() -> None:
    with reused(), reused():
        outlives = room(LARGE, LIKE)
        shelf = outlives.base._shelf
    del outlives
    with reused():
        assert len(shelf) == 1
        assert start(room(LARGE, LIKE)) != shelf[0].address


def test_threads_never_share_room() -> None:
    wrong = []

    def work(number: int) -> None:
        with reused():
            for size in range(2000):
                array = room((100, 100 + size % 3), LIKE)
                array[:] = number
                if (array != number).any():
                    wrong.append(number)

    crew = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert not wrong


def test_a_thread_that_has_ended_keeps_nothing() -> None:
    held = []

    def work() -> None:
        with reused():
            block = room(LARGE, LIKE).base._block
            held.append(weakref.ref(block))

    with reused():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert [ref() for ref in held] == [None]
