"""Wall-clock times, including work queued on a device."""

import time
from collections.abc import Callable
from typing import Any

import torch


def timed(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Return the seconds of a call until the device has finished, and the call's result."""
    _wait(device)
    started = time.perf_counter()
    result = run()
    _wait(device)
    return time.perf_counter() - started, result


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
