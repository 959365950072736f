"""How threads share the work: windows side by side, or a layer cut into stages.

Windows of a batch have nothing to do with one another: each thread takes its share of them.  For
one window the layer is cut, and tiles are handed from one stage to the next: while one stage works
on a tile, the stage before it is already at the next.  Nothing is shared but what is handed on, so
that threads wait for one another once a tile and not once an operation.  Each stage does what it
would do alone: the number of stages changes no bit.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from typing import Any, Generic, TypeVar

import torch

from genoscan.errors import InputError
from genoscan.layer import Carry, Chain, Layer
from genoscan.ops.dual import refuse_transforms
from genoscan.ops.memory import buffer_pool

_LOOK_UP = 1.0
"""Seconds after which a thread that waits checks whether the program is ending."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopped(Exception):  # noqa: N818
    """What a thread works for has ended, or another thread that works for it has failed."""


class Crew:
    """Threads that work beside this one; torch's threads are shared out among them all."""

    def __init__(self, members: int) -> None:
        self._members, self._threads = members, torch.get_num_threads()
        self._changed = threading.Condition()
        self._ended = False
        self._failure: BaseException | None = None

    def check(self) -> None:
        """Raise `Stopped` once another member has failed, or all is over."""
        if self._ended:
            raise Stopped

    @contextmanager
    def beside(self, *work: Callable[[], object]) -> Iterator[None]:
        """Run the work on threads of their own, each with its share of torch's, until all is done.

        Whatever a thread raises is raised here; when the body fails or is left, they stop.
        """
        if not work:
            with buffer_pool():
                yield
            return
        share = max(1, self._threads // self._members)
        crew = [threading.Thread(target=self._run, args=(part, share)) for part in work]
        torch.set_num_threads(share)
        try:
            for thread in crew:
                thread.start()
            with buffer_pool(), suppress(Stopped):  # another stage has failed; below it is said why
                yield
        except BaseException:
            self._end()
            raise
        finally:
            # Not ended by force where the body has run through: the last stage may still be at it.
            for thread in crew:
                thread.join()
            torch.set_num_threads(self._threads)
        if self._failure is not None:
            raise self._failure

    def _run(self, work: Callable[[], object], share: int) -> None:
        torch.set_num_threads(share)
        try:
            with buffer_pool():
                work()
        except Stopped:
            pass
        except BaseException as failure:
            self._failure = failure
            self._end()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Sweep(Crew):
    """The stages of one run over a window, and the threads that all but one of them run on."""

    def __init__(self, layer: Layer) -> None:
        if not isinstance(layer, Layer):
            raise InputError(
                f"{type(layer).__name__}: expected a causal layer (begin, forward); Layerwise "
                "differentiates bidirectional networks"
            )
        refuse_transforms(*layer.parameters())
        parameter = next(layer.parameters(), None)
        on_cpu = parameter is None or parameter.device.type == "cpu"
        threads = torch.get_num_threads()
        self.stages = layer.cut(threads) if isinstance(layer, Chain) and on_cpu else [layer]
        super().__init__(len(self.stages))

    def split(self, carry: Carry) -> list[Carry]:
        """Cut the whole layer's carry into the stages' own."""
        if len(self.stages) == 1:
            return [carry]
        left = iter(carry)
        return [tuple(next(left) for _ in stage.begin(1)) for stage in self.stages]

    def join(self, carries: list[Carry]) -> Carry:
        """Put the stages' carries together to the whole layer's."""
        return carries[0] if len(carries) == 1 else sum(carries, ())

    def relay(self, room: int) -> "Relay[Any]":
        """Return a relay between two stages that holds at most `room` items."""
        return Relay(self._changed, lambda: self._ended, room)


class Relay(Generic[Item]):
    """What one stage hands to another: first in, first out, and no more than there is room for."""

    def __init__(self, changed: threading.Condition, ended: Callable[[], bool], room: int) -> None:
        self._changed, self._ended, self._room = changed, ended, room
        self._items: deque[Item] = deque()

    def hand(self, item: Item) -> None:
        """Wait until there is room, and leave the item."""
        self._wait(lambda: len(self._items) < self._room)
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def take(self, _span: slice | None = None) -> Item:
        """Wait until there is an item, and take it; tiles come in the order they are asked for."""
        self._wait(lambda: bool(self._items))
        with self._changed:
            item = self._items.popleft()
            self._changed.notify_all()
        return item

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            while not self._changed.wait_for(lambda: ready() or self._ended(), _LOOK_UP):
                # An uncaught exception of the caller leaves its generator unfinished, and Python
                # waits for all threads before it exits.
                if not threading.main_thread().is_alive():
                    raise Stopped
            if self._ended():
                raise Stopped


def shares(windows: int, device: torch.device) -> list[slice]:
    """Cut a batch of windows into one part a thread, as far as they go round."""
    parts = min(torch.get_num_threads(), windows) if device.type == "cpu" else 1
    edges = [windows * i // parts for i in range(parts + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


def side_by_side(work: Sequence[Callable[[Callable[[], None]], Result]]) -> list[Result]:
    """Do all the work at once, each on a thread of its own; return the results in order.

    Each is given a check, to be called now and then: it raises `Stopped` once another has failed.
    """
    crew = Crew(len(work))
    results: dict[int, Result] = {}

    def run(i: int) -> None:
        results[i] = work[i](crew.check)

    with crew.beside(*(partial(run, i) for i in range(1, len(work)))):
        run(0)
    return [results[i] for i in range(len(work))]
