"""What every test starts from: fixed seeds, two threads, and memory that is never zero by luck."""

import logging
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Before torch is loaded: threads that wait in a spin stand in the way where cores are few.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
import torch
from toys import tiny_stack

from genoscan.layer import leaves, map_leaves
from genoscan.ops.dispatch import choose
from genoscan.ops.dual import Dual
from genoscan.ops.kernels import Kernels


def pytest_configure(config: pytest.Config) -> None:
    # torch's own: the first forward-mode derivative loads a table that torch still scripts.
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Compile the kernels once, before the tests' own processes load them; both precisions at the same time."""
    script = str(Path(__file__).with_name("compile_kernels.py"))
    both = [subprocess.Popen([sys.executable, script, precision]) for precision in ("float32", "float64")]
    assert [process.wait() for process in both] == [0, 0]


# Which test compiles a kernel first depends on the order, and the messages of commands must not.
logging.getLogger("genoscan.ops.kernel_cache").setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def seeds() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def autograd_as_it_was() -> Iterator[None]:
    """A generator that is left in torch.no_grad would turn it off for all that follows."""
    yield
    assert torch.is_grad_enabled()


@pytest.fixture(params=["reference", "cpu"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """Every kernel set that runs on this device."""
    return choose("cpu", request.param)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(scope="session")
def compiled_kernels() -> None:
    """Compile the CPU kernels, or load them: numba must see numpy as it is while it does."""
    # torch lists its constructors at the first use of a device; it must see them as they are too.
    with torch.device("cpu"):
        torch.empty(0)
    for dtype in (torch.float64, torch.float32):
        stack = tiny_stack(dtype=dtype)
        for trained in (False, True):
            stack.requires_grad_(trained)
            x = torch.ones(1, 2, 4, dtype=dtype, requires_grad=True)
            outputs, carry = stack(x, stack.begin(1))
            ends = [outputs, *leaves(carry)]
            torch.autograd.grad(ends, x, [torch.ones_like(end) for end in ends])
        stack.requires_grad_(False)
        stack(*map_leaves(lambda leaf: Dual.of(leaf, leaf[None]), (x, stack.begin(1))))


@pytest.fixture
def poisoned_memory(compiled_kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what `empty` returns with NaN, so that an entry nobody wrote is seen."""
    for module, name in [(torch, "empty"), (torch, "empty_like"), (np, "empty"), (np, "empty_like")]:
        genuine = getattr(module, name)

        def poisoned(*arguments, genuine=genuine, **options):  # type: ignore[no-untyped-def]
            room = genuine(*arguments, **options)
            if isinstance(room, torch.Tensor):
                return room.fill_(torch.nan) if room.is_floating_point() else room
            if np.issubdtype(room.dtype, np.floating):
                room.fill(np.nan)
            return room

        monkeypatch.setattr(module, name, poisoned)
