"""Parallel computation in threads, which share the windows of a batch or the stages of a network.

The windows of a batch are independent of each other, and each thread computes a share of them. For a
single window, the network is divided into stages, and tiles are passed from stage to stage through
queues. While one stage computes a tile, the preceding stage computes the next tile. Threads
synchronise once per tile rather than once per operation. The results are bitwise identical for any
number of stages.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, Generic, TypeVar

import torch

from genoscan.engine.captured import Captured
from genoscan.errors import InputError
from genoscan.layer import Carry, Chain, Layer
from genoscan.ops.dual import refuse_transforms
from genoscan.ops.memory import buffer_pool

_LOOK_UP = 1.0
"""Interval in seconds at which a waiting thread checks whether the main thread has ended."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopped(Exception):  # noqa: N818
    """Exception raised in a thread if its group has ended or another thread of the group has failed."""


class ThreadGroup:
    """Threads that run in parallel with the caller; each receives an equal share of torch's threads."""

    def __init__(self, members: int) -> None:
        self._members, self._threads = members, torch.get_num_threads()
        self._changed = threading.Condition()
        self._ended = False
        self._failure: BaseException | None = None

    def check(self) -> None:
        """Raise `Stopped` if another thread of the group has failed or the group has ended."""
        if self._ended:
            raise Stopped

    @contextmanager
    def beside(self, *work: Callable[[], object]) -> Iterator[None]:
        """Run each function in its own thread during the `with` body, and wait for all threads on exit.

        An exception in a thread is raised again on exit. If the body raises an exception, the threads
        are stopped.
        """
        if not work:
            with buffer_pool():
                yield
            return
        share = max(1, self._threads // self._members)
        threads = [threading.Thread(target=self._run, args=(part, share)) for part in work]
        torch.set_num_threads(share)
        try:
            for thread in threads:
                thread.start()
            with buffer_pool():
                try:
                    yield
                except Stopped:
                    if not self._ended:  # the group in which this one runs has ended
                        raise
        except BaseException as failure:
            self._end(failure)
            raise
        finally:
            # If the body has completed, the last stage may still be running: wait for it.
            for thread in threads:
                thread.join()
            torch.set_num_threads(self._threads)
        if self._failure is not None:
            raise self._failure

    def _run(self, work: Callable[[], object], share: int) -> None:
        torch.set_num_threads(share)
        try:
            with buffer_pool():
                work()
        except BaseException as failure:
            self._end(failure)

    def _end(self, failure: BaseException) -> None:
        """End the group, unless it has ended, because of an exception, which may be the `Stopped` of another group."""
        with self._changed:
            if not self._ended:
                self._ended, self._failure = True, failure
            self._changed.notify_all()


class StagePipeline(ThreadGroup):
    """Stages of one sweep over a window; every stage except one runs in a thread of the group."""

    def __init__(self, layer: Layer) -> None:
        if not isinstance(layer, Layer):
            raise InputError(
                f"{type(layer).__name__}: expected a causal layer (begin, forward); Layerwise "
                "differentiates bidirectional networks"
            )
        weights = list(layer.parameters())
        refuse_transforms(*weights)
        device = weights[0].device.type if weights else "cpu"
        self.stages: list[Layer] = [layer]
        if device == "cpu" and isinstance(layer, Chain):
            self.stages = layer.cut(torch.get_num_threads())
        elif device == "cuda" and not any(weight.requires_grad for weight in weights) and _capturable(layer):
            self.stages = [Captured(layer)]
        super().__init__(len(self.stages))

    def split(self, carry: Carry) -> list[Carry]:
        """Split the carry of the network into the carries of the stages."""
        if len(self.stages) == 1:
            return [carry]
        left = iter(carry)
        return [tuple(next(left) for _ in stage.begin(1)) for stage in self.stages]

    def join(self, carries: list[Carry]) -> Carry:
        """Concatenate the carries of the stages into the carry of the network."""
        return carries[0] if len(carries) == 1 else sum(carries, ())

    def queue(self, maxsize: int) -> "BoundedQueue[Any]":
        """Create a queue between two stages."""
        return BoundedQueue(self._changed, lambda: self._ended, maxsize)


def _capturable(layer: Layer) -> bool:
    """Return whether a layer and its modules can be captured; one that cannot has `capturable` False (see layer.py)."""
    parts = layer.modules() if isinstance(layer, torch.nn.Module) else [layer]
    return all(getattr(part, "capturable", True) for part in parts)


class BoundedQueue(Generic[Item]):
    """Queue of at most `maxsize` items; when the group ends, waiting threads receive `Stopped`."""

    def __init__(self, changed: threading.Condition, ended: Callable[[], bool], maxsize: int) -> None:
        self._changed, self._ended, self._maxsize = changed, ended, maxsize
        self._items: deque[Item] = deque()

    def put(self, item: Item) -> None:
        """Wait while the queue is full, and then append an item."""
        self._wait(lambda: len(self._items) < self._maxsize)
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def get(self, _span: slice | None = None) -> Item:
        """Wait while the queue is empty, and then remove and return its first item."""
        self._wait(lambda: bool(self._items))
        with self._changed:
            item = self._items.popleft()
            self._changed.notify_all()
        return item

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            while not self._changed.wait_for(lambda: ready() or self._ended(), _LOOK_UP):
                # After an uncaught exception the generator is never closed, and Python would wait
                # for this thread before it exits.
                if not threading.main_thread().is_alive():
                    raise Stopped
            if self._ended():
                raise Stopped


def shares(windows: int, device: torch.device) -> list[slice]:
    """Divide a batch into slices of windows: one per torch thread on a CPU, or a single slice on a GPU."""
    parts = min(torch.get_num_threads(), windows) if device.type == "cpu" else 1
    edges = [windows * i // parts for i in range(parts + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


def run_in_parallel(work: Sequence[Callable[[Callable[[], None]], Result]]) -> list[Result]:
    """Run functions in parallel, each in its own thread, and return their results in order.

    Each function is called with one argument: a callable that raises `Stopped` if another function has
    failed. The function should call this callable regularly.
    """
    group = ThreadGroup(len(work))
    results: dict[int, Result] = {}

    def run(i: int) -> None:
        results[i] = work[i](group.check)

    with group.beside(*(partial(run, i) for i in range(1, len(work)))):
        run(0)
    return [results[i] for i in range(len(work))]
