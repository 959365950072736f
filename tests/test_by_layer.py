"""Two-way models: whole windows under torch's autograd are what their sweeps must give."""

import copy
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import assert_near
from torch import Tensor
from torch.func import jvp
from torch.nn import functional as F
from toys import mixed_stack
from truth import caduceus, models

from genoscan.engine.adjoint import consume
from genoscan.engine.boundaries import BoundaryStore
from genoscan.engine.by_layer import adjoint_by_layer, forward_by_layer, tangent_by_layer
from genoscan.engine.inputs import Dense, Spans
from genoscan.engine.methods import Layerwise
from genoscan.engine.tangent import DenseDirections
from genoscan.engine.target import WeightedSum
from genoscan.errors import InputError
from genoscan.layer import BidirectionalNetwork
from genoscan.layers.bidirectional import BidirectionalStack
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.weights import write_model
from genoscan.model import load_model

LENGTH, TILE = 24, 5
KINDS: dict[str, dict[str, Any]] = {
    "Ph": {"rcps": False},
    "PS fused": {"fused": True},
    "PS fused, odd": {"fused": True, "n_layer": 3},
    "PS unfused": {"fused": False},
    "Mamba-2 inside": {"mamba2": True},
    "product": {"strategy": "ew_multiply"},
}


NATIVE = "PD-SSM inside, both strands", "PD-SSM and Mamba inside, untied, product"


@pytest.fixture(params=[*KINDS, *NATIVE])
def problem(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[BidirectionalStack, Tensor, Any]:
    """Return a model in float64, a window, and the logits by the definition."""
    if request.param not in KINDS:
        made = models.native(tmp_path / "native", models.PD_SSM_BOTH_WAYS[request.param])
        stack = load_model(made.folder, dtype=torch.float64).stack
        assert isinstance(stack, BidirectionalStack)
        codes = torch.randint(4, (LENGTH,), generator=torch.Generator().manual_seed(1))
        return stack, F.one_hot(codes, len(made.config["symbols"])).double()[None], lambda x: made.logits(x[0])[None]
    config = caduceus.config(**KINDS[request.param])
    tensors = caduceus.tensors(config)
    caduceus.write(tmp_path / "foreign", config, tensors)
    native, made = read_foreign(tmp_path / "foreign")
    write_model(tmp_path / "native", native, made, "")
    stack = load_model(tmp_path / "native", dtype=torch.float64).stack
    assert isinstance(stack, BidirectionalStack)
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(7, 11, (LENGTH,), generator=random)
    x = F.one_hot(ids, config["vocab_size"]).double()[None]
    return stack, x, lambda x: caduceus.logits(config, tensors, x[0])[None]


def store() -> BoundaryStore:
    return BoundaryStore(LENGTH, torch.device("cpu"))


def weights(x: Tensor) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)


def pulled(stack: BidirectionalStack, x: Tensor, **options: Any) -> Tensor:
    settings: dict[str, Any] = {"tile": TILE, "boundaries": 9, "store": store()}
    x_bar = torch.full_like(x, torch.nan)
    target = WeightedSum(weights(x))
    for span, part in adjoint_by_layer(stack, Dense(x), target, **settings | options):
        x_bar[:, span] = part
    return x_bar


def test_outputs_are_the_definitions(problem: tuple[BidirectionalStack, Tensor, Any]) -> None:
    stack, x, logits = problem
    assert isinstance(stack, BidirectionalNetwork)
    with torch.no_grad():
        assert_near(stack(x), logits(x))
    parts = forward_by_layer(stack, Dense(x), tile=TILE, store=store())
    assert_near(torch.cat([part for _, part in parts], 1), logits(x))


def test_the_adjoint_is_whole_window_autograds(problem: tuple[BidirectionalStack, Tensor, Any]) -> None:
    stack, x, logits = problem
    whole = x.clone().requires_grad_()
    (truth,) = torch.autograd.grad((logits(whole) * weights(x)).sum(), whole)
    assert_near(pulled(stack, x), truth)


def test_the_tangent_is_whole_window_jvps(problem: tuple[BidirectionalStack, Tensor, Any]) -> None:
    stack, x, logits = problem
    x_dot = torch.stack([weights(x), weights(x).flip(1)])
    parts = list(tangent_by_layer(stack, Dense(x), DenseDirections(x_dot), tile=TILE, store=store()))
    assert_near(torch.cat([outputs for _, outputs, _ in parts], 1), logits(x))
    dots = torch.cat([dots for _, _, dots in parts], 2)
    for direction, dot in zip(x_dot, dots, strict=True):
        assert_near(dot, jvp(logits, (x,), (direction,))[1])


def test_parameters_are_whole_window_autograds(problem: tuple[BidirectionalStack, Tensor, Any]) -> None:
    """For any tiles, boundaries and threads; boundaries, and the timing of the directions, change no bit."""
    stack, x, _ = problem
    stack = copy.deepcopy(stack).requires_grad_()
    parameters = list(stack.parameters())
    # Nothing that a deployed model computes varies with a dictionary or a router.
    truth = torch.autograd.grad((stack(x) * weights(x)).sum(), parameters, allow_unused=True, materialize_grads=True)

    def found(**options: Any) -> tuple[Tensor, ...]:
        settings: dict[str, Any] = {"tile": TILE, "boundaries": 9, "store": store()}
        pull = adjoint_by_layer(stack, Dense(x), WeightedSum(weights(x)), parameters=parameters, **settings | options)
        return consume(pull).parameters

    whole = found()
    for parameter, expected in zip(whole, truth, strict=True):
        assert_near(parameter, expected)
    for parameter, expected in zip(found(tile=LENGTH), truth, strict=True):
        assert_near(parameter, expected)
    assert all(map(torch.equal, found(boundaries=1), whole))
    assert all(map(torch.equal, found(), whole))
    torch.set_num_threads(1)
    for parameter, expected in zip(found(), truth, strict=True):
        assert_near(parameter, expected)


@pytest.mark.parametrize("tile", [2, LENGTH, 100])
def test_any_tile(problem: tuple[BidirectionalStack, Tensor, Any], tile: int) -> None:
    stack, x, _ = problem
    assert_near(pulled(stack, x, tile=tile), pulled(stack, x))


def test_boundaries_and_where_they_lie_change_no_bit(
    problem: tuple[BidirectionalStack, Tensor, Any], tmp_path: Path
) -> None:
    stack, x, _ = problem
    whole = pulled(stack, x)
    for boundaries in (1, 2):
        assert torch.equal(pulled(stack, x, boundaries=boundaries), whole)
    assert torch.equal(pulled(stack, x, store=BoundaryStore(LENGTH, tmp_path)), whole)
    assert list(tmp_path.glob("tmp*")) == []


def test_directions_side_by_side_change_no_bit(problem: tuple[BidirectionalStack, Tensor, Any]) -> None:
    stack, x, _ = problem
    beside = pulled(stack, x)
    torch.set_num_threads(1)
    assert torch.equal(pulled(stack, x), beside)


def test_batches_are_their_windows(problem: tuple[BidirectionalStack, Tensor, Any]) -> None:
    stack, x, _ = problem
    both = torch.cat([x, x.flip(1)])
    target = WeightedSum(weights(both))
    settings: dict[str, Any] = {"tile": TILE, "boundaries": 1, "store": store()}
    x_bar = torch.empty_like(both)
    for span, part in adjoint_by_layer(stack, Dense(both), target, **settings):
        x_bar[:, span] = part
    alone = torch.empty_like(x)
    only = WeightedSum(weights(both)[1:])
    for span, part in adjoint_by_layer(stack, Dense(x.flip(1)), only, **settings):
        alone[:, span] = part
    assert_near(x_bar[1:], alone)


def test_sweeps_side_by_side_leave_autograd_as_it_was(problem: tuple[BidirectionalStack, Tensor, Any]) -> None:
    stack, x, _ = problem
    sweeps = [forward_by_layer(stack, Dense(x), tile=TILE, store=store()) for _ in range(2)]
    for _ in zip(*sweeps, strict=True):
        assert torch.is_grad_enabled()
    next(forward_by_layer(stack, Dense(x), tile=TILE, store=store()))
    assert torch.is_grad_enabled()


def test_a_direction_that_fails_stops_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = caduceus.config(strategy="ew_multiply", rcps=False, n_layer=1)
    caduceus.write(tmp_path / "foreign", config, caduceus.tensors(config))
    write_model(tmp_path / "native", *read_foreign(tmp_path / "foreign"), "")
    stack = load_model(tmp_path / "native", dtype=torch.float64).stack
    assert isinstance(stack, BidirectionalStack)
    failed, tiles = threading.Event(), len(Spans(LENGTH, TILE))
    ran = dict.fromkeys(("fwd", "rev"), 0)

    def counted(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            ran[name] += 1
            # Once for the layer's output, then once more for what its derivative depends on.
            if ran[name] > tiles:
                if name == "fwd":
                    failed.set()
                    raise ValueError("one direction")
                assert failed.wait(timeout=10)
                time.sleep(0.02)
            return forward(*given)

        return run

    for name in ran:
        mixer = getattr(stack.blocks[0], name)
        monkeypatch.setattr(mixer, "forward", counted(name, mixer.forward))
    torch.set_num_threads(2)
    with pytest.raises(ValueError, match="one direction"):
        pulled(stack, torch.rand(1, LENGTH, config["vocab_size"], dtype=torch.float64))
    assert ran["rev"] < 2 * tiles


def test_a_forward_pass_needs_two_boundaries(problem: tuple[BidirectionalStack, Tensor, Any]) -> None:
    stack, x, _ = problem
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    class Counting(BoundaryStore):
        def _numbers(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
            nonlocal most
            numbers = super()._numbers(shape, like)
            alive.append(weakref.ref(numbers))
            most = max(most, sum(ref() is not None for ref in alive))
            return numbers

    list(forward_by_layer(stack, Dense(x), tile=TILE, store=Counting(LENGTH, torch.device("cpu"))))
    assert most == 2
    enough = 2 * x.shape[0] * LENGTH * stack.width * x.element_size()
    assert Layerwise(tile=TILE, memory=enough).fit(stack, LENGTH, 1, forward=True).boundaries == 1
    for memory, forward in ((enough - 1, True), (enough, False)):
        with pytest.raises(InputError, match="need at least"):
            Layerwise(tile=TILE, memory=memory).fit(stack, LENGTH, 1, forward=forward)


def test_memory_is_planned_for_the_layer_that_needs_most() -> None:
    """Whichever comes first: the carries of PD-SSM and Mamba differ."""
    orders = [("mamba", "pd_ssm"), ("pd_ssm", "mamba")]
    planned = [
        Layerwise(tile=TILE).cost(mixed_stack(8, kinds, n_maps=2, d_state=50, two_way={}), LENGTH, 1).boundary_bytes
        for kinds in orders
    ]
    assert planned[0] == planned[1]
    assert planned[0] > Layerwise(tile=TILE).cost(mixed_stack(8, ("mamba",) * 2, two_way={}), LENGTH, 1).boundary_bytes
