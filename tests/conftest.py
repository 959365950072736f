"""What every test starts from: fixed seeds, two threads, and memory that is never zero by luck."""

import os
import random
from collections.abc import Iterator

# Before torch is loaded: threads that wait in a spin stand in the way where cores are few.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
import torch
from toys import scan_problem

from genoscan.ops.kernels import ScanInputs, ScanKernels
from genoscan.ops.selective_scan import choose


def pytest_configure(config: pytest.Config) -> None:
    # torch's own: the first forward-mode derivative loads a table that torch still scripts.
    config.addinivalue_line(
        "filterwarnings", "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
    )


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


@pytest.fixture(params=["reference", "cpu"])
def kernels(request: pytest.FixtureRequest) -> ScanKernels:
    """Every kernel set that runs on this device."""
    return choose("cpu", request.param)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(scope="session")
def compiled_kernels() -> None:
    """Compile the CPU kernels, or load them: numba must see numpy as it is while it does."""
    from genoscan.ops import cpu, cpu_conv

    # torch lists its constructors at the first use of a device; it must see them as they are too.
    with torch.device("cpu"):
        torch.empty(0)
    for dtype in (torch.float64, torch.float32):
        inputs = scan_problem(length=2, channels=1, states=1, dtype=dtype)
        y, state, kept = cpu.forward(inputs, keep=True)
        cpu.forward(inputs, keep=False)
        cpu.vjp(inputs, kept, y, state)
        cpu.jvp(inputs, ScanInputs(*(tensor[None] for tensor in inputs)))
        x, weight, bias = (torch.ones(shape, dtype=dtype) for shape in ((1, 3, 2), (2, 2), (2,)))
        cpu_conv.vjp(x, weight, bias, cpu_conv.forward(x, weight, bias))


@pytest.fixture
def poisoned_memory(compiled_kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what `empty` returns with NaN, so that an entry nobody wrote is seen."""
    for module, name in [
        (torch, "empty"),
        (torch, "empty_like"),
        (np, "empty"),
        (np, "empty_like"),
    ]:
        genuine = getattr(module, name)

        def poisoned(*arguments, genuine=genuine, **options):  # type: ignore[no-untyped-def]
            room = genuine(*arguments, **options)
            if isinstance(room, torch.Tensor):
                return room.fill_(torch.nan) if room.is_floating_point() else room
            if np.issubdtype(room.dtype, np.floating):
                room.fill(np.nan)
            return room

        monkeypatch.setattr(module, name, poisoned)
