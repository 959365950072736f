"""Current memory use, peak memory use and memory limit of this process or of its device.

On a CPU, the memory in use is the resident set size. On a CUDA device, it is the memory allocated by
torch's caching allocator.
"""

import os
import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

MEBIBYTE, GIBIBYTE, PAGE = 2**20, 2**30, 4_096

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def in_use(device: str) -> int:
    """Return the memory that this process currently uses on a device, in bytes."""
    if device != "cpu":
        return torch.cuda.memory_allocated(device)
    return _resident("VmRSS")


def reset_peak(device: str) -> None:
    """Start a new measurement of the peak memory use on a device."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    elif _RESET.exists():
        # If this is not permitted, the peak since the start of the process is an upper bound.
        try:
            _RESET.write_text("5")
        except OSError:
            return


def peak(device: str) -> int:
    """Return the peak memory use on a device since the last call to `reset_peak`, in bytes."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    return _resident("VmHWM")


def _resident(field: str) -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    # Systems other than Linux report only the peak: macOS in bytes, all others in KiB.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def memory_limit(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Return the memory limit of this process, in bytes.

    The limit is the smallest of the physical memory, the limits of all control groups (v1 or v2) of the
    process, and the limit set by Slurm. The Slurm limit is SLURM_MEM_PER_NODE (in MiB). If this variable is
    not set, the limit is SLURM_MEM_PER_CPU (in MiB) times SLURM_CPUS_ON_NODE.

    Parameters
    ----------
    root
        Folder that contains proc and sys, from which the limits of control groups are read.
    environment
        Environment variables.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_group_limits(root)]
    megabytes = {
        name: int(environment[name])
        for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")
        if environment.get(name, "").isdecimal()
    }
    if node := megabytes.get("SLURM_MEM_PER_NODE"):
        limits.append(node * MEBIBYTE)
    elif each := megabytes.get("SLURM_MEM_PER_CPU"):
        limits.append(each * megabytes.get("SLURM_CPUS_ON_NODE", 1) * MEBIBYTE)
    return min(limits)


def _group_limits(root: Path) -> Iterator[int]:
    """Yield the memory limits of this process's control groups and of their parent groups."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(mount):
                break
            try:
                text = (folder / name).read_text().strip()
            except OSError:  # the root group has none; other groups may not be visible
                continue
            if text.isdecimal():  # "max" means no limit
                yield int(text)
