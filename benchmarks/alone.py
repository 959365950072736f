"""Measure in a separate process, so that peak memory is that of one measurement alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks import ROOT
from benchmarks.clock import timed
from genoscan import usage
from genoscan.errors import GenoscanError

WARM_UP = 64
"""Steps of a warm-up: it imports, compiles and starts threads, but hardly raises peak memory."""

_LONG = 20.0
"""Seconds above which a single run is enough."""


class WorkerError(GenoscanError):
    """A measurement failed in its worker process."""


def worker_variables(omp_wait_policy: str | None = "PASSIVE") -> dict[str, str]:
    """Return the environment variables of a worker process, which imports from this checkout.

    Parameters
    ----------
    omp_wait_policy
        How idle OpenMP threads wait; spinning ones slow each other down. None: torch's default.
    """
    variables = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if omp_wait_policy is not None:
        variables["OMP_WAIT_POLICY"] = omp_wait_policy
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return variables | {"PYTHONPATH": os.pathsep.join(paths)}


def alone(function: Callable[..., dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Call a module-level function with `settings` in a separate process; return its result.

    Settings and result pass through JSON.

    Raises
    ------
    WorkerError
        If the process fails, with the last line that it wrote to stderr.
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
        env=worker_variables(),
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise WorkerError(f"{settings}: its process ended with {done.returncode}: {last}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def cost(warm_up: Callable[[], object], run: Callable[[], object], device: str, *, again: int) -> dict[str, Any]:
    """Return the seconds of a run, and its peak memory above that in use after the warm-up.

    Parameters
    ----------
    again
        Runs after the first, of which the median is returned; if the first takes longer than 20 s
        or there are none, it is the first run's.

    Returns
    -------
    dict
        `seconds`, and `extra_bytes` of the first run.
    """
    timed(warm_up, device)
    before = usage.in_use(device)
    usage.reset_peak(device)
    first, _ = timed(run, device)
    extra = usage.peak(device) - before
    times = [timed(run, device)[0] for _ in range(0 if first > _LONG else again)]
    return {"seconds": median(times or [first]), "extra_bytes": extra}
