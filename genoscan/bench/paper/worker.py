"""Measuring in a process of its own, so that a peak of memory is that of one thing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from genoscan.bench import memory
from genoscan.errors import GenoscanError

_LONG = 20.0
"""Seconds from which one run is enough."""


class WorkerError(GenoscanError):
    """Something could not be measured."""


def alone(function: Callable[..., dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a module's function returns, called by a process of its own.

    Raises
    ------
    WorkerError
        If it fails; the message is its own.
    """
    script = (
        f"import json, sys; from {function.__module__} import {function.__name__} as call; "
        "print(json.dumps(call(**json.load(sys.stdin))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        check=False,
        # Threads that wait in a spin stand in each other's way.
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise WorkerError(f"{settings}: its process ended with {done.returncode}: {last}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def cost(
    warm_up: Callable[[], object], run: Callable[[], object], device: str, *, again: int
) -> dict[str, Any]:
    """Return seconds, and the peak of the first run beyond what was there after the warm-up.

    The seconds are the median of the runs `again`, or, where one takes long, those of the first.
    """
    _timed(warm_up, device)
    before = memory.in_use(device)
    memory.forget_peak(device)
    first = _timed(run, device)
    extra = memory.peak(device) - before
    times = [_timed(run, device) for _ in range(0 if first > _LONG else again)]
    return {"seconds": median(times or [first]), "extra_bytes": extra}


def _timed(run: Callable[[], object], device: str) -> float:
    """Return the seconds until the device is done too."""
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
