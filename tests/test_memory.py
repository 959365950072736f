"""Memory that does not grow with the window: carries counted, and peaks of processes measured."""

import ctypes
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import RunningSum, genome, one_hot_table, output_columns, tiny_stack
from truth import caduceus

from genoscan.engine import boundaries
from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.inputs import Dense, OneHot
from genoscan.engine.methods import Layerwise
from genoscan.engine.tangent import BaseChange, tangent
from genoscan.engine.target import WeightedSum, whole_window
from genoscan.layer import Carry
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.stack import Stack
from genoscan.layers.weights import write_model
from genoscan.model import load_model

MEBIBYTE = 2**20


class Counted(RunningSum):
    """A running sum that knows how many of its carries are still held by anyone."""

    def __init__(self) -> None:
        super().__init__(channels=3)
        self.held = 0
        self.peak = 0

    def _lent(self, carry: Tensor) -> Tensor:
        # torch holds the array for as long as anything holds the tensor or a view of it.
        array = carry.numpy().copy()
        self.held += 1
        self.peak = max(self.peak, self.held)
        weakref.finalize(array, self._returned)
        return torch.from_numpy(array)

    def _returned(self) -> None:
        self.held -= 1

    def begin(self, batch: int) -> Carry:
        return self._lent(super().begin(batch))

    def forward(self, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        y, after = super().forward(x, carry)
        return y, after if after.requires_grad else self._lent(after)


@pytest.mark.parametrize("slots", [1, 2, 5, 30])
def test_a_layers_own_carries_are_not_held(slots: int) -> None:
    layer, x = Counted(), torch.ones(1, 100, 3, dtype=torch.float64)
    result = consume(adjoint(layer, Dense(x), WeightedSum(x), tile=3, slots=slots))
    # Those remembered are copies, as many as there are slots (test_checkpoints.py).  Of the
    # layer's own: the one that a tile starts from, the one it ends with, the one past the window.
    assert layer.peak <= 3
    del result
    assert layer.held == 0


def sweep(kind: str, stack: Stack, inputs: OneHot, slots: int) -> None:
    if kind == "adjoint":
        target = whole_window(inputs.codes, output_columns())
        consume(adjoint(stack, inputs, target, tile=1024, slots=slots))
    else:
        change = BaseChange(10, torch.tensor([[-1.0, 1.0, 0.0, 0.0]]))
        for _ in tangent(stack, inputs, change, tile=1024):
            pass


def in_status(field: str) -> int:
    """Return one of the kernel's numbers about this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def report(kind: str, length: int, width: int, n_layers: int, slots: int, n_warm: int) -> None:
    """Print how far the peak of a sweep lies above what its first tiles left behind."""
    torch.set_num_threads(2)
    stack = tiny_stack(width, n_layers, d_state=16, dtype=torch.float32)
    codes, table = genome(length), one_hot_table(torch.float32)
    sweep(kind, stack, OneHot(codes[:, : 1024 * n_warm].clone(), table), slots)
    # What the warm-up has left to the allocator would hide as much of the peak.
    ctypes.CDLL(None).malloc_trim(0)
    before = in_status("VmRSS")
    # Forget the peak of import, genome and warm-up.
    Path("/proc/self/clear_refs").write_text("5")
    sweep(kind, stack, OneHot(codes, table), slots)
    print(in_status("VmHWM") - before)


def peak(kind: str, length: int, *, width: int, n_layers: int, slots: int, n_warm: int) -> int:
    """Return the peak of a sweep in a process of its own, beside the bases that it reads."""
    arguments = (kind, length, width, n_layers, slots, n_warm)
    done = subprocess.run(
        [sys.executable, "-c", f"import test_memory; test_memory.report(*{arguments})"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


linux_only = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the kernel's own peak is read: Linux only"
)


@linux_only
@pytest.mark.parametrize(
    ("kind", "n_layers", "length"), [("adjoint", 2, 16_384), pytest.param("tangent", 1, 16_384, marks=pytest.mark.slow)]
)
def test_peak_does_not_grow_with_the_window(kind: str, n_layers: int, length: int) -> None:
    # So small a model lies within what the allocator keeps back: it is warmed up for longer.
    size = {"width": 16, "n_layers": n_layers, "slots": 16, "n_warm": 16}
    short = peak(kind, length, **size)
    # What chance there is adds to a peak, and never takes from it.
    long = min(peak(kind, 4 * length, **size) for _ in range(2))
    print(f"peaks {short / MEBIBYTE:.1f} and {long / MEBIBYTE:.1f} MiB")
    assert long <= 1.05 * max(short, 0) + 2 * MEBIBYTE, (short, long)


@linux_only
@pytest.mark.slow
def test_peak_at_a_megabase_is_that_at_65_kilobases() -> None:
    size = {"width": 128, "n_layers": 6, "slots": 64, "n_warm": 1}
    short, long = (peak("adjoint", length, **size) for length in (65_536, 1_048_576))
    print(f"peaks {short / MEBIBYTE:.1f} and {long / MEBIBYTE:.1f} MiB")
    assert long <= 1.05 * short + 2 * MEBIBYTE, (short, long)


def report_two_way(model_path: str, length: int, trained: bool = False) -> None:
    """Print a two-way sweep's peak, its boundaries' most, what is planned for them, and seconds.

    If `trained` is true, the cotangents of all parameters are summed too.
    """
    torch.set_num_threads(2)
    model = load_model(model_path)
    held, most, new = 0, 0, boundaries.BoundaryStore._numbers

    def counted(shelf: boundaries.BoundaryStore, shape: tuple[int, ...], like: Tensor) -> Tensor:
        nonlocal held, most
        made = new(shelf, shape, like)
        size = made.nbytes

        def returned() -> None:
            nonlocal held
            held -= size

        held += size
        most = max(most, held)
        weakref.finalize(made, returned)
        return made

    boundaries.BoundaryStore._numbers = counted  # type: ignore[method-assign]
    method, codes = Layerwise(), genome(length)
    parameters = list(model.stack.requires_grad_().parameters()) if trained else []

    def run(codes: Tensor) -> None:
        target = whole_window(codes, model.columns(), 0)
        consume(method.gradient(model.stack, OneHot(codes, model.table()), target, parameters=parameters))

    run(codes[:, :1024].clone())
    ctypes.CDLL(None).malloc_trim(0)
    before, most = in_status("VmRSS"), 0
    Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    run(codes)
    seconds = time.perf_counter() - started
    planned = method.cost(model.stack, length, 1).boundary_bytes
    print(in_status("VmHWM") - before, most, planned, seconds)


def two_way(length: int, *, width: int, n_layers: int, trained: bool = False) -> tuple[float, float, float, float]:
    """Return what `report_two_way` prints, from a process of its own; bytes in MiB."""
    config = caduceus.config(d_model=width, n_layer=n_layers)
    with tempfile.TemporaryDirectory() as folder:
        foreign, ours = Path(folder) / "foreign", Path(folder) / "ours"
        caduceus.write(foreign, config, caduceus.tensors(config))
        write_model(ours, *read_foreign(foreign), "")
        script = f"import test_memory; test_memory.report_two_way({str(ours)!r}, {length}, {trained})"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    peak, most, planned, seconds = map(float, done.stdout.split())
    sizes = [f"{size / MEBIBYTE:,.1f}" for size in (peak, most, planned)]
    print(f"{length:,}: peak {sizes[0]} MiB, boundaries {sizes[1]}, planned {sizes[2]}; {seconds} s")
    return peak / MEBIBYTE, most / MEBIBYTE, planned / MEBIBYTE, seconds


@linux_only
@pytest.mark.slow
def test_beside_the_boundaries_nothing_grows_with_the_window() -> None:
    size = {"width": 16, "n_layers": 2}
    short, long = (two_way(length, **size) for length in (8_192, 32_768))
    assert short[1] == short[2]
    assert long[1] == long[2]
    assert long[0] - long[1] <= 1.05 * (short[0] - short[1]) + 2


@linux_only
@pytest.mark.slow
def test_beside_the_boundaries_nothing_grows_in_training() -> None:
    size = {"width": 16, "n_layers": 2, "trained": True}
    short, long = (two_way(length, **size) for length in (8_192, 131_072))
    assert long[0] - long[1] <= 1.05 * (short[0] - short[1]) + 2


@linux_only
@pytest.mark.slow
def test_a_caduceus_sized_model_at_131_kilobases() -> None:
    size = {"width": 256, "n_layers": 16}
    short, long = (two_way(length, **size) for length in (16_384, 131_072))
    assert long[0] - long[1] <= 1.05 * (short[0] - short[1]) + 2
    assert abs(long[0] - long[2]) <= 0.1 * long[0]


def test_what_an_adjoint_yields_is_not_held() -> None:
    """A tile's derivatives are the caller's alone."""
    stack = tiny_stack(8, 1)
    inputs = OneHot(genome(200), one_hot_table())
    held: list[weakref.ref[Tensor]] = []
    pull = adjoint(stack, inputs, whole_window(inputs.codes, output_columns()), tile=20, slots=3)
    for _, x_bar in pull:
        held.append(weakref.ref(x_bar))
        assert x_bar.untyped_storage().nbytes() == x_bar.numel() * x_bar.element_size()
        assert sum(ref() is not None for ref in held) <= 2
    assert np.sum([ref() is not None for ref in held]) <= 1
