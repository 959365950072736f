"""The workers of one row: started together, asked one at a time, in turn."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from genoscan.bench.speed.contenders import CONTENDERS
from genoscan.bench.speed.settings import Task
from genoscan.errors import GenoscanError

_SLEEP, _AS_TORCH = "PASSIVE", "not set"
_SETTLE = 0.25
"""Seconds after which the threads that the last contender used have ceased to spin."""


class WorkerError(GenoscanError):
    """A contender could not do what it was asked."""


@dataclass
class Timing:
    """What was measured of one contender.

    waits          how its threads wait for one another (OMP_WAIT_POLICY)
    start_seconds  from the start of its process until it was warmed up (imports, compilation)
    first_seconds  of its first run over all bases
    seconds        of every later run, one a round
    extra_bytes    its peak in the first run, beyond what was in use before
    did            counts that its run returned
    """

    task: Task
    waits: str
    start_seconds: float
    first_seconds: float
    extra_bytes: int
    did: dict[str, float]
    seconds: list[float] = field(default_factory=list)


def measure(
    tasks: Mapping[str, Task], rounds: int, *, report: Callable[[str], object]
) -> dict[str, Timing]:
    """Run every task once, then `rounds` times in turn; every other round backwards.

    Raises
    ------
    WorkerError
        If a contender fails; the message is its own.
    """
    with ExitStack() as stack:
        workers = {
            name: [stack.enter_context(_worker(task, waits)) for waits in _policies(task)]
            for name, task in tasks.items()
        }
        for worker in (worker for several in workers.values() for worker in several):
            worker.ready = worker.answer()["ready"]
        timings, chosen = {}, {}
        for name, several in workers.items():
            report(f"{name}: first run")
            firsts = [_first(worker) for worker in several]
            best = min(range(len(firsts)), key=lambda i: firsts[i].first_seconds)
            timings[name], chosen[name] = firsts[best], several[best]
        for turn in range(rounds):
            report(f"round {turn + 1} of {rounds}")
            for name in [*chosen] if turn % 2 == 0 else reversed([*chosen]):
                timings[name].seconds.append(chosen[name].ask("again")["seconds"])
    return timings


def _first(worker: "_Worker") -> Timing:
    first = worker.ask("first")
    return Timing(
        task=worker.task,
        waits=worker.waits,
        start_seconds=worker.ready - worker.started,
        first_seconds=first["seconds"],
        extra_bytes=first["extra_bytes"],
        did=first["did"],
    )


def _policies(task: Task) -> tuple[str, ...]:
    """Return the ways in which a contender's threads may wait; the quicker one is measured.

    Ours sleep, as the command line lets them: our kernels and torch's run on pools of their own,
    and one that waits in a spin stands in the other's way.  Rivals may do as torch does where
    nothing is said, spin a little and then sleep, which may suit a quiet machine; beside other
    busy processes it was up to ten times slower.
    """
    rival = CONTENDERS[task.contender].side != "ours"
    pool = task.settings.threads > 1 and not task.settings.cuda
    return (_SLEEP, _AS_TORCH) if rival and pool else (_SLEEP,)


@dataclass
class _Worker:
    task: Task
    waits: str
    process: "subprocess.Popen[str]"
    errors: Any
    started: float
    ready: float = 0.0

    def ask(self, question: str) -> dict[str, Any]:
        """Ask, once nothing else takes the cores, and wait for the answer."""
        if self.task.settings.threads > 1:
            time.sleep(_SETTLE)
        self.tell(question)
        return self.answer()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._ended()) from None

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(self._ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.task.contender}: {answer['error']}")
        return answer

    def _ended(self) -> str:
        status = self.process.wait()
        self.errors.seek(0)
        last = (self.errors.read().strip().splitlines() or ["it said nothing"])[-1]
        return f"{self.task.contender}: its process ended with status {status}: {last}"


@contextmanager
def _worker(task: Task, waits: str) -> Iterator[_Worker]:
    """Start a worker; its process ends with the block."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if waits != _AS_TORCH:
        environment["OMP_WAIT_POLICY"] = waits
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "genoscan.bench.speed.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        worker = _Worker(task, waits, process, errors, time.time())
        try:
            worker.tell(task.dump())
            yield worker
        finally:
            process.kill()
            process.communicate()
