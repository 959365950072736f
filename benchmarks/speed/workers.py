"""Measure a row: start a worker process per contender, and run them one at a time in turn."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.alone import WorkerError, worker_variables
from benchmarks.speed.contenders import CONTENDERS
from benchmarks.speed.settings import Task

_SLEEP, _AS_TORCH = "PASSIVE", "not set"
_SETTLE = 0.25
"""Seconds after which the threads of the previous contender no longer spin."""


@dataclass
class Timing:
    """Measurements of one contender.

    waits          OMP_WAIT_POLICY of its process
    start_seconds  from process start to the end of the warm-up (imports, compilation)
    first_seconds  of the first run over all bases
    seconds        of every later run, one per round
    extra_bytes    peak memory of the first run above that in use before it
    did            counts returned by the run
    """

    task: Task
    waits: str
    start_seconds: float
    first_seconds: float
    extra_bytes: int
    did: dict[str, float]
    seconds: list[float] = field(default_factory=list)


def measure(tasks: Mapping[str, Task], rounds: int, *, report: Callable[[str], object]) -> dict[str, Timing]:
    """Run every task once, then `rounds` times in turn, every other round in reverse order.

    Raises
    ------
    WorkerError
        If a contender fails, with its error message.
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
        for i in range(rounds):
            report(f"round {i + 1} of {rounds}")
            for name in [*chosen] if i % 2 == 0 else reversed([*chosen]):
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
    """Return the wait policies to try for a contender's threads; the faster one is measured.

    Our threads sleep, as under the command line: our kernels and torch's have separate thread
    pools, and a spinning one slows the other down.  Others may also use torch's default, to spin
    briefly and then sleep, which can be faster on an idle machine; beside other busy processes it
    was up to ten times slower.
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
        """Send a request, once idle threads have settled, and wait for the answer."""
        if self.task.settings.threads > 1:
            time.sleep(_SETTLE)
        self.send(question)
        return self.answer()

    def send(self, line: str) -> None:
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
    """Start a worker process, and end it with the context."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=worker_variables(None if waits == _AS_TORCH else waits),
        )
        worker = _Worker(task, waits, process, errors, time.time())
        try:
            worker.send(task.dump())
            yield worker
        finally:
            process.kill()
            process.communicate()
