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
from operations import (
    OPERATIONS,
    called,
    directions_for,
    pd_by_matrices,
    pd_problem,
    problem,
)
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd import functional as by_autograd
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from toys import mamba2_block, mixed_stack, tiny_stack

from genoscan.engine.adjoint import adjoint
from genoscan.engine.boundaries import Shelf
from genoscan.engine.by_layer import adjoint_by_layer, tangent_by_layer
from genoscan.engine.inputs import Dense
from genoscan.engine.tangent import DenseDirections, tangent
from genoscan.engine.target import WeightedSum
from genoscan.errors import InputError
from genoscan.layers.linear import Linear
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.norm import RMSNorm
from genoscan.layers.stack import Stack
from genoscan.layers.surrogate import Surrogate, straight_through
from genoscan.layers.two_way import TwoWay, TwoWayConfig, TwoWayStack
from genoscan.ops.cpu import CPU
from genoscan.ops.dual import Dual
from genoscan.ops.kernels import choose
from genoscan.ops.reference import REFERENCE
from genoscan.pgf import FrechetMambaOperator

# torch's own, of the reference cycle that it makes.
pytestmark = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True")

Call = Callable[..., Any]
Tensors = tuple[Tensor, ...]
BAR = 1e-10


def flat(outputs: Any) -> Tensors:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def energy(call: Call) -> Callable[..., Tensor]:
    """Return one number of all outputs, no derivative of which is constant."""
    return lambda *inputs: sum(out.pow(2).sum() + out.sin().sum() for out in flat(call(*inputs)))


def few(call: Call) -> Callable[..., Tensor]:
    """Return three numbers of all outputs."""
    return lambda *inputs: sum(
        torch.stack([out.sum(), out.pow(2).sum(), out.sin().sum()]) for out in flat(call(*inputs))
    )


def opened(inputs: Tensors) -> Tensors:
    return tuple(part.detach().clone().requires_grad_() for part in inputs)


def penalty(call: Call, inputs: Tensors, _dots: Tensors) -> Tensors:
    """Differentiate the squared gradient of the first input by all of them."""
    given = opened(inputs)
    (bar,) = torch.autograd.grad(energy(call)(*given), given[0], create_graph=True)
    return torch.autograd.grad(bar.pow(2).sum(), given)


def third(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    given = opened(inputs)
    total = energy(call)(*given)
    for _ in range(2):
        bars = torch.autograd.grad(total, given, create_graph=True, materialize_grads=True)
        total = sum((bar * dot).sum() for bar, dot in zip(bars, dots, strict=True))
    return torch.autograd.grad(total, given, materialize_grads=True)


def checkpointed(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    return penalty(lambda *given: checkpoint(call, *given, use_reentrant=False), inputs, dots)


def backward(call: Call, inputs: Tensors, _dots: Tensors) -> Tensors:
    """Accumulate first derivatives, and then those of a penalty on top."""
    given = opened(inputs)
    energy(call)(*given).backward(create_graph=True)
    sum(part.grad.pow(2).sum() for part in given).backward()
    return tuple(part.grad for part in given)


def batched(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    """Pull several cotangents back at once."""
    given = opened(inputs)
    numbers = few(call)(*given)
    return torch.autograd.grad(
        numbers, given, torch.eye(len(numbers), dtype=numbers.dtype), is_grads_batched=True
    )


def dual_level(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    with forward_ad.dual_level():
        outputs = flat(call(*map(forward_ad.make_dual, inputs, dots)))
        return tuple(forward_ad.unpack_dual(out).tangent for out in outputs)


def recorded_dual_level(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    """Forward over reverse."""
    with forward_ad.dual_level():
        given = tuple(map(forward_ad.make_dual, opened(inputs), dots))
        bars = torch.autograd.grad(energy(call)(*given), given)
        return tuple(forward_ad.unpack_dual(bar).tangent for bar in bars)


def moving_cotangents(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    """Pull back cotangents that have tangents, through inputs that have none."""
    given = opened(inputs)
    outputs = flat(call(*given))
    bars = random_like(tuple(out.detach() for out in outputs), 5)
    with forward_ad.dual_level():
        moved = tuple(map(forward_ad.make_dual, bars, random_like(bars, 6)))
        pulled = torch.autograd.grad(outputs, given, moved)
        return tuple(forward_ad.unpack_dual(bar).tangent for bar in pulled)


def dependent(call: Call, inputs: Tensors, _dots: Tensors) -> Tensors:
    """Make all inputs of one: no derivative may be counted twice."""
    (seed,) = opened((torch.tensor(0.3, dtype=torch.float64),))
    given: list[Tensor] = []
    for part in inputs:
        before = given[-1].sum() if given else seed
        given.append(part + 0.1 * torch.sin(before))
    (bar,) = torch.autograd.grad(energy(call)(*given), seed, create_graph=True)
    return torch.autograd.grad(bar, seed)


def each(inputs: Tensors) -> tuple[int, ...]:
    return tuple(range(len(inputs)))


def smallest(inputs: Tensors) -> int:
    return min(each(inputs), key=lambda i: inputs[i].numel())


def func_vjp(call: Call, inputs: Tensors, _dots: Tensors) -> Tensors:
    outputs, pull = torch.func.vjp(call, *inputs)
    bars = random_like(flat(outputs), 5)
    return pull(bars if isinstance(outputs, tuple) else bars[0])


def func_vmap(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    pairs = (torch.stack([part, part + 0.01 * dot]) for part, dot in zip(inputs, dots, strict=True))
    return flat(torch.func.vmap(call)(*pairs))


def vmapped_jvp(call: Call, inputs: Tensors, dots: Tensors) -> Tensors:
    many = tuple(torch.stack([dot, -2 * dot.flip(0)]) for dot in dots)
    return flat(torch.func.vmap(lambda *dot: torch.func.jvp(call, inputs, dot)[1])(*many))


WAYS: dict[str, Callable[[Call, Tensors, Tensors], Any]] = {
    "functional.jvp": lambda call, x, dots: flat(by_autograd.jvp(call, x, dots)[1]),
    "functional.hvp": lambda call, x, dots: by_autograd.hvp(energy(call), x, dots)[1],
    "functional.vhp": lambda call, x, dots: by_autograd.vhp(energy(call), x, dots)[1],
    "functional.hessian": lambda call, x, _: by_autograd.hessian(
        lambda part: energy(call)(*x[: smallest(x)], part, *x[smallest(x) + 1 :]), x[smallest(x)]
    ),
    "functional.jacobian": lambda call, x, _: by_autograd.jacobian(few(call), x, vectorize=True),
    "functional.jacobian, forward": lambda call, x, _: by_autograd.jacobian(
        lambda part: few(call)(*x[: smallest(x)], part, *x[smallest(x) + 1 :]),
        x[smallest(x)], vectorize=True, strategy="forward-mode",
    ),
    "func.jvp": lambda call, x, dots: flat(torch.func.jvp(call, x, dots)[1]),
    "func.vjp": func_vjp,
    "func.grad": lambda call, x, _: torch.func.grad(energy(call), each(x))(*x),
    "func.vmap": func_vmap,
    "func.vmap of func.jvp": vmapped_jvp,
    "func.hessian": lambda call, x, _: torch.func.hessian(energy(call), smallest(x))(*x),
    "func.jacrev": lambda call, x, _: torch.func.jacrev(few(call), each(x))(*x),
    "func.jacfwd": lambda call, x, _: torch.func.jacfwd(few(call), smallest(x))(*x),
    "func.jvp of func.grad": lambda call, x, dots: torch.func.jvp(
        torch.func.grad(energy(call), each(x)), x, dots
    )[1],
    "dual level": dual_level,
    "recorded dual level": recorded_dual_level,
    "moving cotangents": moving_cotangents,
    "batched cotangents": batched,
    "gradient penalty": penalty,
    "gradient penalty, checkpointed": checkpointed,
    "backward twice": backward,
    "third derivative": third,
    "dependent inputs": dependent,
}  # fmt: skip


FORWARD_OVER_REVERSE = ("recorded dual level", "moving cotangents")
SETS = ("cpu", "reference")


def hold(way: str, found: Call, truth: Call, inputs: Tensors) -> None:
    """Compare, and see that there was something to compare."""
    dots = tuple(dot[0] for dot in directions_for(inputs, 1))
    try:
        expected = WAYS[way](truth, inputs, dots)
    except NotImplementedError:  # torch has no tangent of silu's own derivative
        assert way in FORWARD_OVER_REVERSE
        with pytest.raises(NotImplementedError):
            WAYS[way](found, inputs, dots)
        return
    assert_near(WAYS[way](found, inputs, dots), expected, bar=BAR)
    assert any(bool(part.any()) for part in flat(expected))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation(name: str, way: str) -> None:
    operation = OPERATIONS[name]
    inputs = problem(name, 3, 3, 2)

    def truth(*given: Tensor) -> Any:
        return operation.definition(*given, **operation.numbers)

    hold(way, called(CPU, name), truth, inputs)


@pytest.mark.parametrize("way", WAYS)
def test_the_permutation_diagonal_scan(way: str) -> None:
    inputs, chosen = pd_problem(3, 2, 3)
    hold(
        way,
        lambda *given: CPU.pd_scan(*given, **chosen),
        # vmap lays no axis on the loops over maps; autograd knows them as they are.
        lambda *given: (pd_by_matrices if "func." not in way else REFERENCE.pd_scan)(
            *given, **chosen
        ),
        inputs,
    )


class Whole(nn.Module):
    """A model on a whole window, the way `Model.whole` runs it."""

    def __init__(self, stack: Any) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.stack, TwoWayStack):
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


def two_way_stack(kernels: str, **options: Any) -> TwoWayStack:
    width, shared = 4, {"kernels": choose("cpu", kernels)}
    torch.manual_seed(6)
    inner = options.pop("inner", MambaConfig(d_state=2, dt_rank=1))
    config = TwoWayConfig(inner=inner, **options)
    held = 2 * width if config.rcps else width
    return TwoWayStack(
        Linear(4, held, bias=False, **shared),
        [TwoWay(config, width, eps=1e-5, **shared)],
        RMSNorm(width, eps=1e-5, **shared),
        Linear(held, 4, bias=False, **shared),
    )


def pgf_operator(kernels: str) -> FrechetMambaOperator:
    torch.manual_seed(2)
    return FrechetMambaOperator(4, 2, kernels=kernels)


LAYERS: dict[str, Callable[[str], nn.Module]] = {
    "mamba": lambda kernels: Whole(tiny_stack(4, 1, d_state=2, kernels=kernels)),
    "mamba2": lambda kernels: Whole(mamba2_stack(kernels)),
    "pd_ssm": lambda kernels: Whole(
        mixed_stack(4, ("pd_ssm", "mamba"), d_state=3, kernels=kernels)
    ),
    "two-way": lambda kernels: Whole(two_way_stack(kernels, tied=False)),
    "two-way, both strands": lambda kernels: Whole(
        two_way_stack(kernels, rcps=True, fused_add_norm=True)
    ),
    "two-way, product of Mamba-2": lambda kernels: Whole(
        two_way_stack(kernels, strategy="multiply", inner=Mamba2Config(d_state=2, head_dim=4))
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LAYERS)
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
    if isinstance(stack, TwoWayStack):
        room = Shelf(x.shape[1], torch.device("cpu"))
        settings: dict[str, Any] = {"tile": 2, "room": room}
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
    scores, dictionary = random_like(
        (torch.zeros(2, 3, 2, 3).double(), torch.zeros(2, 3, 3, 3).double())
    )
    given = opened((inflow, scores, dictionary))

    def total() -> Tensor:
        inflow, scores, dictionary = given
        marked = straight_through(
            inflow, decay, state, Surrogate("straight_through"), scores, dictionary,
            chosen["route"], chosen["maps"], CPU,
        )  # fmt: skip
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


def test_derivatives_of_derivatives_are_not_rounded_by_autocast() -> None:
    inputs = opened(problem("linear", 3, 3, 2, dtype=torch.float32))
    with torch.autocast("cpu", enabled=False):
        total = energy(CPU.linear)(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(total, inputs, create_graph=True)
    assert_near(found, torch.autograd.grad(energy(REFERENCE.linear)(*inputs), inputs))
