"""Tiles that are replayed as CUDA graphs give what they give when run; on a simulated card if there is none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from laws import assert_near
from simulated_cuda import SimulatedGraph, simulated_cuda
from test_cuda import MODELS, THERE
from toys import genome, mixed_stack, tiny_stack

from benchmarks.interpreted import interpreting
from genoscan.engine import captured
from genoscan.engine.captured import Captured
from genoscan.engine.forward import forward
from genoscan.engine.inputs import OneHot
from genoscan.engine.stages import StagePipeline
from genoscan.engine.target import whole_window
from genoscan.gradient import gradient
from genoscan.layers.pd_ssm import with_surrogate
from genoscan.layers.surrogate import Surrogate
from genoscan.model import load_model

pytestmark = [pytest.mark.gpu] if THERE else []


@pytest.fixture(autouse=True)
def card() -> Iterator[None]:
    if THERE:
        yield
        return
    with interpreting(small=True), simulated_cuda():
        yield


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """The graphs that were replayed, in order."""
    kind = torch.cuda.CUDAGraph if THERE else SimulatedGraph
    genuine, found = kind.replay, list[object]()

    def replay(graph: SimulatedGraph) -> None:
        found.append(graph)
        genuine(graph)

    monkeypatch.setattr(kind, "replay", replay)
    yield found


QUICK = "causal", "both directions"


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in MODELS])
def test_replayed_tiles_give_the_same(kind: str, tmp_path: Path, replays: list[object]) -> None:
    """For windows of other bases, and of another length, too."""
    path = MODELS[kind](tmp_path / "model", 1)
    # torch's one_hot, which the definition of PD-SSM's scan uses, is not simulated.
    kernels = "triton" if THERE or kind == "PD-SSM" else "reference"
    there = load_model(path, device="cuda", dtype=torch.float64, kernels=kernels, tile=4, slots=2)
    here = load_model(path, dtype=torch.float64, kernels="reference", tile=4, slots=2)
    for number, length in enumerate((18, 18, 14)):
        codes = genome(length, seed=number)
        target = whole_window(codes, here.columns(), here.config.label_offset)
        found, expected = (gradient(model, codes, target) for model in (there, here))
        assert_near(found.gradient.cpu(), expected.gradient)
        assert_near(torch.from_numpy(found.value), torch.from_numpy(expected.value))
        outputs = [
            torch.cat([tile.cpu() for _, tile in model.method.forward(model.stack, OneHot(codes, model.table()))], 1)
            for model in (there, here)
        ]
        assert_near(*outputs)
    assert replays


def test_a_gradient_of_an_earlier_tile_is_refused(replays: list[object]) -> None:
    """The memory of its activations has been used again."""
    layer = Captured(tiny_stack(8, 1, kernels="reference").to("cuda"))
    x, carry = torch.randn(1, 5, 4, dtype=torch.float64, device="cuda").requires_grad_(), layer.begin(1)
    carry = tuple(tuple(leaf.requires_grad_() for leaf in part) for part in carry)
    outputs = [layer.forward(x, carry)[0] for _ in range(captured._AFTER + 2)]
    assert len(replays) == 2
    torch.autograd.grad(outputs[-1].sum(), x)
    with pytest.raises(RuntimeError, match="another tile before"):
        torch.autograd.grad(outputs[-2].sum(), x)


def test_results_outlast_the_next_tile(replays: list[object]) -> None:
    stack = tiny_stack(8, 1, kernels="reference").to("cuda")
    table = torch.eye(6, 4, dtype=torch.float64, device="cuda")
    tiles = [tile for _, tile in forward(stack, OneHot(genome(40), table), tile=5)]
    assert replays
    with torch.no_grad():
        whole, _ = stack(OneHot(genome(40), table).tile(slice(0, 40)), stack.begin(1))
    assert_near(torch.cat(tiles, 1).cpu(), whole.cpu())


def test_graphs_are_captured_on_their_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it is not the current device, on whose stream torch captures by default."""
    streams: list[torch.device] = []
    genuine = torch.cuda.graph

    def record(graph: Any, pool: Any, stream: Any) -> Any:
        streams.append(stream if isinstance(stream, torch.device) else stream.device)
        return genuine(graph, pool=pool, stream=stream)

    monkeypatch.setattr(torch.cuda, "graph", record)
    stack = tiny_stack(8, 1, kernels="reference").to("cuda")
    table = torch.eye(6, 4, dtype=torch.float64, device="cuda")
    list(forward(stack, OneHot(genome(40), table), tile=5))
    assert streams
    assert set(streams) == {table.device}


@pytest.mark.skipif(not THERE, reason="the simulated card knows no inference mode")
def test_graphs_of_inference_mode_are_replayed_outside_it(replays: list[object]) -> None:
    stack = tiny_stack(8, 1, kernels="reference").to("cuda")
    layer, x = Captured(stack), torch.randn(1, 5, 4, dtype=torch.float64, device="cuda")
    with torch.inference_mode():
        for _ in range(captured._AFTER + 1):
            layer.forward(x, layer.begin(1))
    with torch.no_grad():
        found, _ = layer.forward(x, layer.begin(1))
        assert_near(found.cpu(), stack(x, stack.begin(1))[0].cpu())
    assert len(replays) == 2
    assert replays[0] is replays[1]


@pytest.mark.parametrize("kind", ["straight_through", "activated"])
def test_surrogates_are_not_captured(kind: Literal["straight_through", "activated"]) -> None:
    stack = mixed_stack(8, ("pd_ssm",), kernels="reference").to("cuda")
    assert isinstance(StagePipeline(stack).stages[0], Captured)
    estimated = with_surrogate(stack, Surrogate(kind))
    assert StagePipeline(estimated).stages == [estimated]


def test_few_graphs_are_kept() -> None:
    """Tiles of ever other lengths would fill the memory of the device."""
    stack = tiny_stack(8, 1, kernels="reference").to("cuda")
    layer = Captured(stack)
    with torch.no_grad():
        for length in range(3, 11):
            for _ in range(captured._AFTER + 1):
                layer.forward(torch.randn(1, length, 4, dtype=torch.float64, device="cuda"), layer.begin(1))
    assert len(captured._captures[stack]._graphs) == captured._GRAPHS


def test_layers_that_are_trained_are_not_captured(replays: list[object]) -> None:
    """Nothing would be known of the cotangents of their weights."""
    stack = tiny_stack(8, 1, kernels="reference").to("cuda").requires_grad_(True)
    table = torch.eye(6, 4, dtype=torch.float64, device="cuda")
    list(forward(stack, OneHot(genome(40), table), tile=5))
    assert not replays


def test_graphs_of_weights_that_changed_are_dropped(replays: list[object]) -> None:
    stack = tiny_stack(8, 1, kernels="reference").to("cuda")
    x = torch.randn(1, 5, 4, dtype=torch.float64, device="cuda")
    with torch.no_grad():
        for factor in (1, 2):
            stack.head.weight.mul_(factor)
            layer = Captured(stack)
            for _ in range(captured._AFTER + 1):
                found, _ = layer.forward(x, layer.begin(1))
            assert_near(found.cpu(), stack(x, stack.begin(1))[0].cpu())
    assert len(replays) == 2
    assert replays[0] is not replays[1]


def test_graphs_end_with_their_layer() -> None:
    stack = tiny_stack(8, 1, kernels="reference").to("cuda")
    layer, x = Captured(stack), torch.randn(1, 5, 4, dtype=torch.float64, device="cuda")
    with torch.no_grad():
        for _ in range(captured._AFTER + 1):
            layer.forward(x, layer.begin(1))
    before = len(captured._captures)
    del layer
    del stack
    assert len(captured._captures) == before - 1
