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
    """Threads that run tasks in the order in which they are submitted."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self.ended = False

    def submit(self, task: Callable[[], Result]) -> "Future[Result]":
        """Run a task in one of the threads, without gradients."""
        return self._pool.submit(self._run, task)

    def run(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run tasks in parallel, and return their results in order."""
        return [future.result() for future in [self.submit(task) for task in tasks]]

    def _run(self, task: Callable[[], Result]) -> Result:
        with torch.no_grad(), flush_denormals():
            return task()


@contextmanager
def workers(threads: int) -> Iterator[Workers]:
    """Context manager that provides threads, each of which uses one of torch's threads.

    On exit, tasks that have not begun are dropped, and `ended` is set, which long tasks should look up.
    """
    pools = []

    def begin() -> None:
        torch.set_num_threads(1)
        pool = buffer_pool()
        pool.__enter__()
        pools.append(pool)

    executor = ThreadPoolExecutor(threads, initializer=begin)
    group = Workers(executor)
    try:
        yield group
    finally:
        group.ended = True
        executor.shutdown(cancel_futures=True)
