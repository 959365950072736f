"""How long something takes."""

import time
from collections.abc import Callable
from typing import Any

import torch


def timed(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Return the seconds until the device is done too, and the result."""
    _wait(device)
    started = time.perf_counter()
    result = run()
    _wait(device)
    return time.perf_counter() - started, result


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
