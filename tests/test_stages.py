"""Threads share the work, and nothing that is written shows how."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.forward import forward
from genoscan.engine.inputs import Dense, Spans
from genoscan.engine.stages import StagePipeline, run_in_parallel, shares
from genoscan.engine.tangent import DenseDirections, tangent
from genoscan.engine.target import WeightedSum
from genoscan.engine.workers import workers
from genoscan.layer import leaves
from genoscan.layers.config import ModelConfig
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.stack import Stack
from genoscan.layers.weights import build

LENGTH, TILE = 67, 16


class Counted(Dense):
    """Inputs that count how often a tile is read."""

    reads = 0

    def tile(self, span: slice) -> Tensor:
        object.__setattr__(self, "reads", self.reads + 1)
        return super().tile(span)


@pytest.fixture
def stack() -> Stack:
    torch.manual_seed(0)
    layers = (MambaConfig(d_state=4, dt_rank=2),) * 3
    config = ModelConfig(d_model=16, layers=layers, context=0, reach=0, trained_on="nothing")
    return build(config).requires_grad_(False)


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def everything(stack: Stack, threads: int) -> list[Tensor]:
    """Run all three sweeps on so many threads."""
    torch.set_num_threads(threads)
    random = torch.Generator().manual_seed(1)
    x, x_dot = (torch.randn(2, 1, LENGTH, 4, generator=random) for _ in range(2))
    target = WeightedSum(torch.randn(1, LENGTH, 4, generator=random))
    found: list[Tensor] = [outputs for _, outputs in forward(stack, Dense(x[0]), tile=TILE)]
    for _, *both in tangent(stack, Dense(x[0]), DenseDirections(x_dot), tile=TILE):
        found += both
    pull = adjoint(stack, Dense(x[1]), target, tile=TILE, slots=2)
    end = consume(pull, lambda _span, x_bar: found.append(x_bar))
    return [*found, end.value, *leaves(end.carry), *leaves(end.carry_bar)]


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_the_number_of_stages_changes_no_bit(stack: Stack, threads: int) -> None:
    alone, together = everything(stack, 1), everything(stack, threads)
    assert len(alone) == len(together)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize(("threads", "stages"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_a_model_is_cut_into_a_stage_a_thread(stack: Stack, threads: int, stages: int) -> None:
    torch.set_num_threads(threads)
    assert len(StagePipeline(stack).stages) == stages


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_more_tiles_wait_for_cotangents_than_there_are_stages(stack: Stack, threads: int) -> None:
    torch.set_num_threads(threads)
    inputs, tiles = Counted(torch.randn(1, LENGTH, 4)), len(Spans(LENGTH, TILE))
    target = WeightedSum(torch.randn(1, LENGTH, 4))
    pull = adjoint(stack, inputs, target, tile=TILE, slots=tiles)
    # Every tile but the last is run once on the way there.
    waiting = [inputs.reads - (tiles - 1) - pulled for pulled, _ in enumerate(pull)]
    assert max(waiting) == threads
    assert inputs.reads == 2 * tiles - 1


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_stage_that_fails_is_heard_and_leaves_no_thread(
    stack: Stack, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(3)
    block, ran = stack.layers[stage], []

    def fails(*_arguments: object) -> None:
        ran.append(1)
        raise ValueError("a stage")

    monkeypatch.setattr(block, "forward", fails)
    with pytest.raises(ValueError, match="a stage"):
        list(forward(stack, Dense(torch.randn(1, LENGTH, 4)), tile=TILE))
    assert ran and not [t for t in threading.enumerate() if t.name.startswith("Thread-")]
    assert torch.get_num_threads() == 3


def test_an_exception_of_the_caller_leaves_no_thread(stack: Stack) -> None:
    torch.set_num_threads(3)
    target = WeightedSum(torch.randn(1, LENGTH, 4))

    def failing(_span: slice, _x_bar: Tensor) -> None:
        raise ValueError("the caller")

    pull = adjoint(stack, Dense(torch.randn(1, LENGTH, 4)), target, tile=TILE, slots=2)
    with pytest.raises(ValueError, match="the caller") as held:  # and with it its frames
        consume(pull, failing)
    assert not [t for t in threading.enumerate() if t.name.startswith("Thread-")]
    assert torch.get_num_threads() == 3
    assert held.tb is not None


def test_a_sweep_that_is_abandoned_does_not_keep_the_program_alive(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(3)
    monkeypatch.setattr("genoscan.engine.stages._LOOK_UP", 0.01)
    sweep = forward(stack, Dense(torch.randn(1, LENGTH, 4)), tile=TILE)
    next(sweep)
    beside = [t for t in threading.enumerate() if t.name.startswith("Thread-")]
    assert beside
    # As it is when Python exits and waits for its threads.
    ended = SimpleNamespace(is_alive=lambda: False)
    monkeypatch.setattr(threading, "main_thread", lambda: ended)
    for thread in beside:
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.mark.parametrize(("windows", "threads"), [(1, 2), (2, 2), (5, 2), (3, 8), (8, 3)])
def test_shares_hold_every_window_once(windows: int, threads: int) -> None:
    torch.set_num_threads(threads)
    parts = shares(windows, torch.device("cpu"))
    assert len(parts) == min(windows, threads)
    assert [i for part in parts for i in range(windows)[part]] == list(range(windows))
    sizes = [len(range(windows)[part]) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_gpu_takes_all_windows_together() -> None:
    torch.set_num_threads(2)
    assert shares(4, torch.device("cuda")) == [slice(0, 4)]


def test_work_side_by_side_is_done_at_once_and_told_in_order() -> None:
    torch.set_num_threads(2)
    meet = threading.Barrier(2, timeout=10)

    def work(number: int) -> Callable[[Callable[[], None]], tuple[int, int]]:
        def run(_check: Callable[[], None]) -> tuple[int, int]:
            meet.wait()
            return number, torch.get_num_threads()

        return run

    assert run_in_parallel([work(1), work(2)]) == [(1, 1), (2, 1)]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("fails", [0, 1])
@pytest.mark.parametrize("sweep", ["forward", "adjoint"])
def test_a_failure_in_a_window_ends_the_stages_of_another(stack: Stack, sweep: str, fails: int) -> None:
    begun, found = threading.Barrier(2, timeout=10), []

    def endless(check: Callable[[], None]) -> None:
        x = Dense(torch.randn(1, LENGTH, 4))
        begun.wait()
        while True:
            if sweep == "forward":
                list(forward(stack, x, tile=TILE, progress=lambda _positions: check()))
            else:
                pull = adjoint(stack, x, WeightedSum(x.x), tile=TILE, slots=2, progress=lambda _positions: check())
                consume(pull)

    def failing(_check: Callable[[], None]) -> None:
        begun.wait()
        raise ValueError("a window")

    def run() -> None:
        torch.set_num_threads(4)  # two stages for each of two windows
        work = [endless, endless]
        work[fails] = failing
        with pytest.raises(ValueError, match="a window"):
            run_in_parallel(work)
        found.append(torch.get_num_threads())

    watched = threading.Thread(target=run, daemon=True)  # which may hang
    watched.start()
    watched.join(timeout=20)
    assert found == [4]


def test_threads_that_begin_later_have_as_many_threads_as_before() -> None:
    torch.set_num_threads(3)
    with workers(2) as group:
        assert group.run([torch.get_num_threads] * 2) == [1, 1]
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [3]


@pytest.mark.parametrize("fails", [0, 1])
def test_a_failure_beside_stops_the_others(fails: int) -> None:
    torch.set_num_threads(2)

    def endless(check: Callable[[], None]) -> None:
        while True:
            check()
            time.sleep(0.001)

    def failing(_check: Callable[[], None]) -> None:
        raise KeyboardInterrupt if fails == 0 else ValueError("there")

    work = [endless, endless]
    work[fails] = failing
    with pytest.raises(KeyboardInterrupt if fails == 0 else ValueError):
        run_in_parallel(work)
