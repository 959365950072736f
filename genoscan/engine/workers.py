"""Threads that run tasks of a sweep, each with the memory of its arrays reused from task to task."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from genoscan.ops.denormals import flush_denormals
from genoscan.ops.memory import buffer_pool

Result = TypeVar("Result")


class Workers:
    """Threads that run tasks in the order in which they are submitted; without any, a task is run at once."""

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool = pool
        self.ended = False

    def submit(self, task: Callable[[], Result]) -> "Future[Result]":
        """Run a task in one of the threads, without gradients."""
        if self._pool is not None:
            return self._pool.submit(self._run, task)
        done: Future[Result] = Future()
        done.set_result(self._run(task))
        return done

    def run(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run tasks in parallel, and return their results in order."""
        return [future.result() for future in [self.submit(task) for task in tasks]]

    def _run(self, task: Callable[[], Result]) -> Result:
        with torch.no_grad(), flush_denormals():
            return task()


@contextmanager
def workers(threads: int) -> Iterator[Workers]:
    """Context manager that provides threads, each of which uses one of torch's threads.

    With 0 threads, tasks are run by the caller, as they must be on a GPU: nothing else may use it while a CUDA graph
    is captured. On exit, tasks that have not begun are dropped, and `ended` is set, which long tasks should look up.
    """
    if not threads:
        yield Workers(None)
        return
    pools = []

    def begin() -> None:
        torch.set_num_threads(1)
        # Open as long as the thread runs, so that buffers are reused from task to task.
        pool = buffer_pool()
        pool.__enter__()
        pools.append(pool)

    before = torch.get_num_threads()
    executor = ThreadPoolExecutor(threads, initializer=begin)
    group = Workers(executor)
    try:
        yield group
    finally:
        group.ended = True
        executor.shutdown(cancel_futures=True)
        # Threads that are started later begin with the number that was set last, in any thread.
        torch.set_num_threads(before)
