"""A layer cut into stages, each on a thread of its own, with tiles handed from one to the next.

While one stage works on a tile, the stage before it is already at the next: nothing is shared
between them but what is handed on, so that threads wait for one another once a tile and not once
an operation.  Each stage does what it would do alone: the number of stages changes no bit.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import torch

from genoscan.layer import Carry, Chain, Layer

Item = TypeVar("Item")


class Stopped(Exception):  # noqa: N818
    """The sweep that a stage belongs to has ended, or another of its stages has failed."""


class Sweep:
    """The stages of one run over a window, and the threads that all but one of them run on."""

    def __init__(self, layer: Layer) -> None:
        threads = torch.get_num_threads()
        parameter = next(layer.parameters(), None)
        on_cpu = parameter is None or parameter.device.type == "cpu"
        self.stages = layer.cut(threads) if isinstance(layer, Chain) and on_cpu else [layer]
        self._threads = threads
        self._changed = threading.Condition()
        self._ended = False
        self._failure: BaseException | None = None

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

    @contextmanager
    def beside(self, *work: Callable[[], object]) -> Iterator[None]:
        """Run the work on threads of their own, each with its share of torch's, until all is done.

        Whatever a thread raises is raised here; when the body fails or is left, they stop.
        """
        if not work:
            yield
            return
        share = max(1, self._threads // len(self.stages))
        crew = [threading.Thread(target=self._run, args=(part, share)) for part in work]
        torch.set_num_threads(share)
        try:
            for thread in crew:
                thread.start()
            with suppress(Stopped):  # another stage has failed; below it is said why
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
            self._changed.wait_for(lambda: ready() or self._ended())
            if self._ended():
                raise Stopped
