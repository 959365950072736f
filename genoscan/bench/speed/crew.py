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

_SETTLE = 0.25
"""Seconds after which the threads that the last contender used have ceased to spin."""


class WorkerError(GenoscanError):
    """A contender could not do what it was asked."""


@dataclass
class Timing:
    """What was measured of one contender.

    start_seconds  from the start of its process until it was warmed up (imports, compilation)
    first_seconds  of its first run over all bases
    seconds        of every later run, one a round
    extra_bytes    its peak in the first run, beyond what was in use before
    did            counts that its run returned
    """

    task: Task
    start_seconds: float = 0.0
    first_seconds: float = 0.0
    extra_bytes: int = 0
    seconds: list[float] = field(default_factory=list)
    did: dict[str, float] = field(default_factory=dict)


def measure(
    tasks: Mapping[str, Task], rounds: int, *, report: Callable[[str], object]
) -> dict[str, Timing]:
    """Run every task once, then `rounds` times in turn; every other round backwards.

    Raises
    ------
    WorkerError
        If a contender fails; the message is its own.
    """
    timings = {name: Timing(task) for name, task in tasks.items()}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(_worker(task)) for name, task in tasks.items()}
        for name, worker in workers.items():
            worker.answer()
            timings[name].start_seconds = time.monotonic() - worker.started
        for name, worker in workers.items():
            report(f"{name}: first run")
            first = worker.ask("first")
            timings[name].first_seconds = first["seconds"]
            timings[name].extra_bytes = first["extra_bytes"]
            timings[name].did = first["did"]
        for turn in range(rounds):
            report(f"round {turn + 1} of {rounds}")
            for name in [*workers] if turn % 2 == 0 else reversed([*workers]):
                timings[name].seconds.append(workers[name].ask("again")["seconds"])
    return timings


@dataclass
class _Worker:
    task: Task
    process: "subprocess.Popen[str]"
    errors: Any
    started: float

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
def _worker(task: Task) -> Iterator[_Worker]:
    """Start a worker; its process ends with the block."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "genoscan.bench.speed.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=_environment(task.contender),
        )
        worker = _Worker(task, process, errors, time.monotonic())
        try:
            worker.tell(task.dump())
            yield worker
        finally:
            process.kill()
            process.communicate()


def _environment(contender: str) -> dict[str, str]:
    """Return the environment that is best for the contender.

    Our kernels and torch's run on pools of their own, so a pool that waits in a spin stands in
    the other's way; the command line sets it to sleep.  Peers have one pool, as torch made it.
    """
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if not CONTENDERS[contender].needs:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    return environment
