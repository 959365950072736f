"""How much memory this process or its device takes, and took at most.

CPU: the kernel's resident set.  CUDA: what torch's allocator has handed out.
"""

import resource
import sys
from pathlib import Path

import torch

MEBIBYTE, GIBIBYTE, PAGE = 2**20, 2**30, 4_096

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_use(device: str) -> int:
    """Return the bytes taken at this moment."""
    if device != "cpu":
        return torch.cuda.memory_allocated(device)
    return _resident("VmRSS")


def forget_peak(device: str) -> None:
    """Let the next peak be that of what follows."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    elif _FORGET.exists():
        # Where the kernel refuses, the peak since the start stands in: too much, never too little.
        try:
            _FORGET.write_text("5")
        except OSError:
            return


def peak(device: str) -> int:
    """Return the most bytes taken since the peak was forgotten."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    return _resident("VmHWM")


def _resident(field: str) -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    # Other systems keep only the peak; macOS counts it in bytes, the rest in KiB.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
