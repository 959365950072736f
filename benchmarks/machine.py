"""Machine, versions and commit that numbers were measured on."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT
from genoscan import __version__

_PACKAGES = ("torch", "numba", "numpy", "triton", "transformers", "mambapy")
_SOURCES = ("genoscan", "benchmarks", ":!benchmarks/results")


def cores() -> int:
    """Return the number of cores that this process may use, on Linux its CPU affinity."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(device: str) -> dict[str, object]:
    """Return the processor, its cores, the operating system and the device."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
    }


def versions() -> dict[str, str | None]:
    """Return the versions of genoscan, Python and numerical packages; None: not installed."""
    found: dict[str, str | None] = {"genoscan": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def circumstances(device: str) -> dict[str, Any]:
    """Return machine, versions and commit, as the JSON of every benchmark contains them."""
    return {"machine": machine(device), "versions": versions(), "commit": commit()}


def commit() -> str | None:
    """Return the checkout's commit, with "+changes." and their checksum if sources differ; None without git."""
    if not (ROOT / ".git").exists():
        return None
    try:
        head = _git("rev-parse", "HEAD")
        changes = _git("diff", "HEAD", "--", *_SOURCES)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + (f"+changes.{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
