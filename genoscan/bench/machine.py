"""What the numbers were measured on."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

from genoscan import __version__

_PACKAGES = ("torch", "numba", "numpy", "triton", "transformers", "mambapy")


def cores() -> int:
    """Return how many cores this process may use: Linux may give it fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(device: str) -> dict[str, object]:
    """Return the processor, its cores and, where one is used, the device."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
    }


def versions() -> dict[str, str | None]:
    """Return the versions of all that computes; None: not installed."""
    found: dict[str, str | None] = {
        "genoscan": __version__,
        "python": platform.python_version(),
    }
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def commit() -> str | None:
    """Return the checkout's commit, "+changes" behind it where files differ; None: no checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "genoscan")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", root, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
