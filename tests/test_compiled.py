"""Kernels compute the same bits in the run that compiles them as in later runs, which load them from the cache."""

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

from genoscan import ops

HASHES = """
import hashlib, torch
from operations import OPERATIONS, pd_problem, questions, rules
from genoscan.ops.cpu import CPU
digest = hashlib.sha256()
def add(tensors):
    for tensor in tensors:
        if tensor is not None:
            digest.update(tensor.detach().contiguous().numpy().tobytes())
for dtype in (torch.float32, torch.float64):
    for name in OPERATIONS:
        for part in rules(CPU, name, *questions(name, 70, 20, 4, dtype=dtype)):
            add(part)
    inputs, chosen = pd_problem(70, 4, 32, dtype=dtype)
    outputs, saved = CPU.pd_scan.forward(inputs, save=True, **chosen)
    add(outputs)
    add(CPU.pd_scan.vjp(inputs, saved, tuple(map(torch.ones_like, outputs)), (True,) * 3, **chosen))
print(digest.hexdigest())
"""


def kernels() -> Iterator[tuple[str, Dispatcher]]:
    """Yield the functions of `genoscan.ops` whose machine code numba caches."""
    for module in pkgutil.iter_modules(ops.__path__, "genoscan.ops."):
        if ".triton" not in module.name:
            for name, member in vars(importlib.import_module(module.name)).items():
                if isinstance(member, Dispatcher) and member.targetoptions.get("inline") != "always":
                    yield f"{module.name}.{name}", member


def test_no_cached_kernel_calls_another() -> None:
    """A callee is linked to the caller's own copy from the cache, and to the callee's when both are compiled:
    where multiplications and additions are fused differently, so are the last bits."""
    cached = dict(kernels())
    assert len(cached) > 8
    for name, kernel in cached.items():
        called = {
            global_name
            for global_name in kernel.py_func.__code__.co_names
            if isinstance(kernel.py_func.__globals__.get(global_name), Dispatcher)
            and kernel.py_func.__globals__[global_name].targetoptions.get("inline") != "always"
        }
        assert not called, (name, called)


@pytest.mark.slow
def test_first_and_later_runs_give_the_same_bits(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    here = Path(__file__).parent
    command = [sys.executable, "-c", HASHES]
    runs = [
        subprocess.run(command, env=environment, cwd=here, capture_output=True, text=True, check=True) for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
