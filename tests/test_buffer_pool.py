"""Buffers are reused within a pool."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from genoscan.ops.memory import aligned_empty, buffer_pool

LIKE = np.empty(0, np.float32)
LARGE = (3, 100, 128)


def start(array: np.ndarray) -> int:
    return array.ctypes.data


def test_arrays_have_the_requested_shape_and_dtype() -> None:
    for like in (LIKE, LIKE.astype(np.float64)):
        for shape in (LARGE, (2, 3), (1, 5), (10_000,)):
            with buffer_pool():
                array = aligned_empty(shape, like)
            assert (array.shape, array.dtype) == (shape, like.dtype)
            assert start(array) % 64 == 0
            assert array.flags.c_contiguous
            assert array.flags.writeable


def test_a_buffer_is_reused_once_unreferenced() -> None:
    with buffer_pool():
        first = aligned_empty(LARGE, LIKE)
        at = start(first)
        second = aligned_empty(LARGE, LIKE)
        assert start(second) != at
        del first
        assert start(aligned_empty(LARGE, LIKE)) == at


@pytest.mark.parametrize("view", ["slice", "tensor", "graph"])
def test_a_view_keeps_the_buffer(view: str) -> None:
    with buffer_pool():
        array = aligned_empty(LARGE, LIKE)
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
        assert start(aligned_empty(LARGE, LIKE)) != at
        del held
        gc.collect()
        assert start(aligned_empty(LARGE, LIKE)) == at


def test_a_larger_buffer_is_used_where_none_fits() -> None:
    with buffer_pool():
        at = start(aligned_empty((100, 128), LIKE))
        assert start(aligned_empty((99, 128), LIKE)) == at
        assert start(aligned_empty((101, 128), LIKE)) != at


def test_nothing_is_kept_after_the_outermost_context() -> None:
    with buffer_pool(), buffer_pool():
        outlives = aligned_empty(LARGE, LIKE)
        free = outlives.base.__del__.func.__self__
    del outlives
    with buffer_pool():
        assert len(free) == 1
        assert start(aligned_empty(LARGE, LIKE)) != free[0].address


def test_threads_share_no_buffers() -> None:
    wrong = []

    def work(number: int) -> None:
        with buffer_pool():
            for size in range(2000):
                array = aligned_empty((100, 100 + size % 3), LIKE)
                array[:] = number
                if (array != number).any():
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_thread_that_has_ended_keeps_nothing() -> None:
    held = []

    def work() -> None:
        with buffer_pool():
            block = aligned_empty(LARGE, LIKE).base.__del__.args[0]
            held.append(weakref.ref(block))

    with buffer_pool():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert [ref() for ref in held] == [None]
