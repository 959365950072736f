"""Whatever torch can differentiate, it differentiates here, in every way and to every order.

Every operation and every kind of layer, in float64, against plain torch: the definitions of
operations in `operations.py`, and layers on the reference kernels.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from laws import TRANSFORMS, assert_near, random_like
from operations import OPERATIONS, called, directions_for, pd_by_matrices, pd_problem, problem
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from toys import mamba2_block, mixed_stack, tiny_stack
from ways import WAYS, Call, Tensors, energy, hold, opened

from genoscan.engine.adjoint import adjoint
from genoscan.engine.boundaries import BoundaryStore
from genoscan.engine.by_layer import adjoint_by_layer, tangent_by_layer
from genoscan.engine.inputs import Dense
from genoscan.engine.tangent import DenseDirections, tangent
from genoscan.engine.target import WeightedSum
from genoscan.errors import InputError
from genoscan.layers.bidirectional import BidirectionalBlock, BidirectionalConfig, BidirectionalStack
from genoscan.layers.linear import Linear
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.norm import NormConfig, RMSNorm
from genoscan.layers.pd_ssm import PdSsmConfig
from genoscan.layers.stack import Stack
from genoscan.layers.surrogate import Surrogate, straight_through
from genoscan.ops.cpu import CPU
from genoscan.ops.dispatch import choose
from genoscan.ops.dual import Dual
from genoscan.ops.reference import REFERENCE
from genoscan.pgf import FrechetMambaOperator

# torch's own, of the reference cycle that it makes.
pytestmark = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True")

SETS = ("cpu", "reference")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation(name: str, way: str) -> None:
    operation = OPERATIONS[name]
    inputs = problem(name, 3, 3, 2)

    def truth(*given: Tensor) -> Any:
        return operation.definition(*given, **operation.options)

    hold(way, called(CPU, name), truth, inputs)


@pytest.mark.parametrize("way", WAYS)
def test_the_permutation_diagonal_scan(way: str) -> None:
    inputs, chosen = pd_problem(3, 2, 3)
    hold(
        way,
        lambda *given: CPU.pd_scan(*given, **chosen),
        # vmap lays no axis on the loops over maps; autograd knows them as they are.
        lambda *given: (pd_by_matrices if "func." not in way else REFERENCE.pd_scan)(*given, **chosen),
        inputs,
    )


class Whole(nn.Module):
    """A model on a whole window, the way `Model.whole` runs it."""

    def __init__(self, stack: Any) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.stack, BidirectionalStack):
            return self.stack(x)
        outputs: Tensor = self.stack(x, self.stack.begin(len(x)))[0]
        return outputs


def mamba2_stack(kernels: str) -> Stack:
    width, shared = 4, {"kernels": choose("cpu", kernels)}
    torch.manual_seed(5)
    return Stack(
        Linear(4, width, bias=False, **shared),
        [mamba2_block(width, n_groups=2, dt_limit=(0.01, 1.0), kernels=kernels)],
        RMSNorm(width, eps=1e-5, **shared),
        Linear(width, 4, bias=False, **shared),
    )


def two_way_stack(kernels: str, **options: Any) -> BidirectionalStack:
    width, shared = 4, {"kernels": choose("cpu", kernels)}
    torch.manual_seed(6)
    inner = options.pop("inner", MambaConfig(d_state=2, dt_rank=1))
    config = BidirectionalConfig(inner=inner, **options)
    held = 2 * width if config.rcps else width
    return BidirectionalStack(
        Linear(4, held, bias=False, **shared),
        [BidirectionalBlock(config, width, norm=NormConfig(), **shared)],
        RMSNorm(width, eps=1e-5, **shared),
        Linear(held, 4, bias=False, **shared),
    )


def pgf_operator(kernels: str) -> FrechetMambaOperator:
    torch.manual_seed(2)
    return FrechetMambaOperator(4, 2, kernels=kernels)


LAYERS: dict[str, Callable[[str], nn.Module]] = {
    "mamba": lambda kernels: Whole(tiny_stack(4, 1, d_state=2, kernels=kernels)),
    "mamba2": lambda kernels: Whole(mamba2_stack(kernels)),
    "pd_ssm": lambda kernels: Whole(mixed_stack(4, ("pd_ssm", "mamba"), d_state=3, kernels=kernels)),
    "two-way": lambda kernels: Whole(two_way_stack(kernels, tied=False)),
    "two-way, both strands": lambda kernels: Whole(two_way_stack(kernels, rcps=True, fused_add_norm=True)),
    "two-way, product of Mamba-2": lambda kernels: Whole(
        two_way_stack(kernels, strategy="multiply", inner=Mamba2Config(d_state=2, head_dim=4))
    ),
    "two-way, PD-SSM": lambda kernels: Whole(
        two_way_stack(kernels, inner=PdSsmConfig(heads=1, d_state=3, n_maps=2, rank=1))
    ),
    "Phase Gradient Flow": pgf_operator,
}


def with_weights(module: nn.Module) -> tuple[Call, Tensors]:
    """Return a function of input and weights, and the weights."""
    # Which map a step takes has no derivative, and those that choose it would be chosen by vmap.
    named = {
        name: weight.detach()
        for name, weight in module.named_parameters()
        if not name.endswith(("dictionary", "router.weight"))
    }

    def call(x: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(module, dict(zip(named, weights, strict=True)), (x,))

    return call, tuple(named.values())


@pytest.mark.parametrize(
    ("name", "way"),
    [
        pytest.param(name, way, marks=pytest.mark.slow if (i + j) % 2 else ())
        for i, name in enumerate(LAYERS)
        for j, way in enumerate(WAYS)
    ],
)
def test_every_layer(name: str, way: str) -> None:
    modules = [LAYERS[name](kernels).double().requires_grad_(False) for kernels in SETS]
    modules[0].load_state_dict(modules[1].state_dict())
    (found, weights), (truth, _) = map(with_weights, modules)
    x = random_like(torch.zeros(1, 4, 4, dtype=torch.float64))
    hold(way, found, truth, (x, *weights))


def test_first_derivatives_never_take_the_definition() -> None:
    """However other threads use torch's forward mode, whose level all threads share."""
    inputs = problem("rms_norm", 5, 3)

    def definition(*_: Tensor, **__: float) -> Tensor:
        raise AssertionError("the definition was run")

    norm = replace(CPU.rms_norm, definition=definition)
    entered, done = threading.Event(), threading.Event()

    def wait(x: Tensor) -> Tensor:
        entered.set()
        assert done.wait(60)
        return x

    x = torch.ones(2)
    other = threading.Thread(target=lambda: torch.func.jvp(wait, (x,), (x,)))
    other.start()
    try:
        assert entered.wait(60)
        assert forward_ad._current_level >= 0
        given = opened(inputs)
        norm(*given, eps=1e-3).sum().backward()
        checkpoint(norm, *given, eps=1e-3, use_reentrant=False).sum().backward()
        norm(*map(Dual.of, inputs, directions_for(inputs, 2)), eps=1e-3)
        norm(*inputs, eps=1e-3)
    finally:
        done.set()
        other.join()


def test_a_dual_records_no_graph_that_would_lack_its_kernels() -> None:
    inputs = opened(problem("rms_norm", 5, 3))
    pushed = CPU.rms_norm(*map(Dual.of, inputs, directions_for(inputs, 2)), eps=1e-3)
    twice = torch.nn.functional.silu(2 * pushed * inputs[1])
    assert not twice.requires_grad
    assert not twice.dots.requires_grad


def sweeps(stack: Any, x: Tensor) -> dict[str, Callable[[], object]]:
    """Return each way to sweep in tiles."""
    weights = WeightedSum(torch.ones_like(x))
    if isinstance(stack, BidirectionalStack):
        store = BoundaryStore(x.shape[1], torch.device("cpu"))
        settings: dict[str, Any] = {"tile": 2, "store": store}
        pull = lambda: adjoint_by_layer(stack, Dense(x), weights, boundaries=1, **settings)  # noqa: E731
        push = lambda: tangent_by_layer(  # noqa: E731
            stack, Dense(x), DenseDirections(x[None]), **settings
        )
    else:
        pull = lambda: adjoint(stack, Dense(x), weights, tile=2, slots=2)  # noqa: E731
        push = lambda: tangent(stack, Dense(x), DenseDirections(x[None]), tile=2)  # noqa: E731
    return {"adjoint": lambda: list(pull()), "tangent": lambda: list(push())}


@pytest.mark.parametrize("sweep", ["adjoint", "tangent"])
@pytest.mark.parametrize("name", ["mamba", "two-way"])
def test_sweeps_refuse_what_would_be_lost(name: str, sweep: str) -> None:
    module = LAYERS[name]("cpu").double().requires_grad_(False)
    x = random_like(torch.zeros(1, 4, 4, dtype=torch.float64))

    def summed(x: Tensor) -> Tensor:
        sweeps(module.stack, x)[sweep]()
        return x.sum()

    summed(x)
    for transform in TRANSFORMS.values():
        with pytest.raises(NotImplementedError, match="whole window"):
            transform(summed, x)
    weight = module.stack.head.weight
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="whole window"):
        moved = {"stack.head.weight": forward_ad.make_dual(weight, weight)}
        functional_call(_Summed(module, summed), {f"module.{k}": v for k, v in moved.items()}, (x,))


class _Summed(nn.Module):
    def __init__(self, module: nn.Module, summed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module, self.summed = module, summed

    def forward(self, x: Tensor) -> Tensor:
        return self.summed(x)


def test_an_estimator_has_no_second_derivative() -> None:
    (decay, inflow, state), chosen = pd_problem(3, 2, 3)
    scores, dictionary = random_like((torch.zeros(2, 3, 2, 3).double(), torch.zeros(2, 3, 3, 3).double()))
    given = opened((inflow, scores, dictionary))

    def total() -> Tensor:
        inflow, scores, dictionary = given
        marked = straight_through(
            inflow,
            decay,
            state,
            Surrogate("straight_through"),
            scores,
            dictionary,
            chosen["route"],
            chosen["maps"],
            CPU,
        )
        return CPU.pd_scan(decay, marked, state, **chosen)[0].pow(2).sum()

    first = torch.autograd.grad(total(), given)
    assert all(bool(part.any()) for part in first)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(total(), given, create_graph=True)


def refused(call: Call, *inputs: Tensor) -> None:
    with pytest.raises(InputError, match="expected float32 or float64"):
        call(*inputs)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_refuse_half_precision(name: str, kind: torch.dtype) -> None:
    inputs, call = problem(name, 3, 3, 2, dtype=torch.float32), called(CPU, name)
    half = tuple(part.to(kind) for part in inputs)
    refused(call, *half)
    refused(call, *opened(half))
    refused(call, half[0], *inputs[1:])
    refused(call, inputs[0].double(), *inputs[1:])
    refused(call, *(Dual.of(part, part[None]) for part in half))
    with torch.autocast("cpu", dtype=kind):
        refused(call, *inputs)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_refuse_half_precision(name: str, kind: torch.dtype) -> None:
    module, x = LAYERS[name]("cpu"), torch.ones(1, 4, 4)
    with torch.autocast("cpu", dtype=kind):
        refused(module.float(), x)
    refused(module, x.to(kind))
    refused(module.to(kind), x.to(kind))
    refused(module.requires_grad_(False), x)


@pytest.mark.parametrize("backend", [None, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul])
def test_products_that_torch_may_round_are_refused(backend: Any) -> None:
    stack, x = tiny_stack(8, 1, dtype=torch.float32), torch.rand(1, 5, 4)
    expected = stack(x, stack.begin(1))[0]
    try:
        if backend is None:
            torch.set_float32_matmul_precision("high")
        else:
            backend.fp32_precision = "tf32"
        with pytest.raises(InputError, match=r'torch\.set_float32_matmul_precision\("highest"\) first'):
            stack(x, stack.begin(1))
        exact = tiny_stack(8, 1)
        exact(x.double(), exact.begin(1))  # float64 is not rounded
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(stack(x, stack.begin(1))[0], expected)


def test_derivatives_of_derivatives_are_not_rounded_by_autocast() -> None:
    inputs = opened(problem("linear", 3, 3, 2, dtype=torch.float32))
    with torch.autocast("cpu", enabled=False):
        total = energy(CPU.linear)(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(total, inputs, create_graph=True)
    assert_near(found, torch.autograd.grad(energy(REFERENCE.linear)(*inputs), inputs))
