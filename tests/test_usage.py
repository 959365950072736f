"""What this process may take: of the machine, its control groups and Slurm, whichever is least."""

import os
from pathlib import Path

import pytest

from genoscan.cli.inputs import parse_size
from genoscan.errors import InputError
from genoscan.usage import GIBIBYTE, memory_limit

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def system(root: Path, groups: str, limits: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **limits}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {}, MACHINE),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": "max\n"}, MACHINE),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": f"{GIBIBYTE}\n"}, GIBIBYTE),
        (
            "0::/a/b\n",
            {"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": f"{GIBIBYTE}\n"},
            GIBIBYTE,
        ),
        (
            "4:cpu,memory:/slurm/job\n1:name=systemd:/\n0::/\n",
            {"sys/fs/cgroup/memory/slurm/job/memory.limit_in_bytes": f"{GIBIBYTE}\n"},
            GIBIBYTE,
        ),
        # In a container the path may be the host's, and the limit that of the mount itself.
        ("4:memory:/docker/1a2b\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIBIBYTE}\n"}, GIBIBYTE),
        ("4:memory:/\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63}\n"}, MACHINE),
    ],
)
def test_control_groups(tmp_path: Path, groups: str, limits: dict[str, str], expected: int) -> None:
    assert memory_limit(system(tmp_path, groups, limits), {}) == expected


def test_slurm(tmp_path: Path) -> None:
    def limit(**environment: str) -> int:
        return memory_limit(tmp_path, environment)

    assert limit() == MACHINE
    assert limit(SLURM_MEM_PER_NODE="512") == 512 * 2**20
    assert limit(SLURM_MEM_PER_NODE="0") == MACHINE  # all of the node's
    assert limit(SLURM_MEM_PER_CPU="100", SLURM_CPUS_ON_NODE="3") == 300 * 2**20
    assert limit(SLURM_MEM_PER_CPU="100") == 100 * 2**20
    assert limit(SLURM_MEM_PER_NODE="unlimited") == MACHINE


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("8gib", 8 * 2**30),
        ("8Gi", 8 * 2**30),
        ("1.5 MiB", 3 * 2**19),
        ("8GB", 8 * 10**9),
        ("8G", 8 * 10**9),
        ("500M", 5 * 10**8),
        ("0", 0),
        ("1000000", 10**6),
        ("12B", 12),
        ("2TiB", 2**41),
        ("3kB", 3000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_automatic_sizes() -> None:
    assert (parse_size("auto"), parse_size(None)) == ("auto", None)


@pytest.mark.parametrize("text", ["4", "1.5", "64 "])
def test_a_small_number_needs_a_unit(text: str) -> None:
    with pytest.raises(
        InputError, match=rf"a number without a unit is in bytes; expected a unit, as in {text.strip()}GB"
    ):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "8iB", "GiB", "-1", "8PB", "8 apples", "1e9", "٣GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="expected auto, or a size such as 8GB, 8GiB or 500MB"):
        parse_size(text)
