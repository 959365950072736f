"""Measuring in a process of its own, so that a peak of memory is that of one thing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

from genoscan import usage
from genoscan.bench.clock import timed
from genoscan.errors import GenoscanError

WARM_UP = 64
"""Steps: enough to import, compile and start threads, too few to leave memory behind."""

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
    timed(warm_up, device)
    before = usage.in_use(device)
    usage.forget_peak(device)
    first, _ = timed(run, device)
    extra = usage.peak(device) - before
    times = [timed(run, device)[0] for _ in range(0 if first > _LONG else again)]
    return {"seconds": median(times or [first]), "extra_bytes": extra}
