"""Every operation of the kernel sets against torch's own autograd, and what torch asks of them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from laws import assert_near, assert_same_bits
from operations import (
    OPERATIONS,
    Rules,
    bars_for,
    by_layers,
    by_torch,
    called,
    directions_for,
    doubled,
    normals,
    of,
    problem,
    questions,
    rules,
    truth,
)
from torch import Tensor
from torch.nn import functional as F

from genoscan.errors import InputError
from genoscan.ops.associative import ASSOCIATIVE
from genoscan.ops.cpu import CPU
from genoscan.ops.dispatch import choose
from genoscan.ops.dual import Dual, primal
from genoscan.ops.kernels import ConvInputs, Kernels, ScanInputs
from genoscan.ops.primitive import OptionalTensors, Primitive, Tensors
from genoscan.ops.reference import REFERENCE

pytestmark = pytest.mark.usefixtures("poisoned_memory")

NAMES = tuple(OPERATIONS)
ALL_SIZES = [(name, *size) for name in NAMES for size in OPERATIONS[name].sizes]
MODEST_SIZES = [
    pytest.param(name, *size, marks=pytest.mark.slow if size == (33, 48, 40) else ())
    for name in NAMES
    for size in OPERATIONS[name].modest
]
SMALL_SIZES = [(name, *size) for name in NAMES for size in OPERATIONS[name].small]
MEDIUM = (33, 20, 4)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def alone_and_all_but(count: int) -> Iterator[tuple[bool, ...]]:
    """Yield, for every input, that one alone and all but that one."""
    for chosen in range(count):
        yield tuple(i == chosen for i in range(count))
        yield tuple(i != chosen for i in range(count))


# What they compute


@pytest.mark.parametrize(("name", "length", "channels", "inner"), ALL_SIZES)
def test_every_rule_equals_autograd(name: str, length: int, channels: int, inner: int, dtype: torch.dtype) -> None:
    asked = questions(name, length, channels, inner, dtype=dtype)
    assert_near(rules(CPU, name, *asked), truth(name, *asked), dtype)


@pytest.mark.parametrize(("name", "length", "channels", "inner"), MODEST_SIZES)
def test_operations_are_what_they_are_said_to_be(
    kernels: Kernels, name: str, length: int, channels: int, inner: int, dtype: torch.dtype
) -> None:
    """Against definitions that share no code with genoscan."""

    def definition(*inputs: Tensor) -> Tensors:
        return OPERATIONS[name].definition(*inputs, **OPERATIONS[name].options)

    asked = questions(name, length, channels, inner, dtype=dtype)
    expected = by_torch(definition, *map(doubled, asked))
    assert_near(by_layers(called(kernels, name), *asked), expected, dtype)


@pytest.mark.parametrize("optional", ["bias", "z"])
def test_steps_are_softened_without_a_gate_and_gated_when_given_ready(kernels: Kernels, optional: str) -> None:
    def call(*inputs: Tensor) -> Tensors:
        *others, given = inputs
        return kernels.scan(*ScanInputs(*others, **{optional: given}))

    def definition(*inputs: Tensor) -> Tensors:
        *others, given = inputs
        return OPERATIONS["scan"].definition(*others, **{optional: given})

    inputs = problem("scan", *MEDIUM)
    bars = bars_for("scan", inputs)
    inputs += normals((20,) if optional == "bias" else inputs[0].shape, seed=5)
    asked = inputs, bars, directions_for(inputs, 3)
    assert_near(by_layers(call, *asked), by_torch(definition, *asked))


def test_more_windows_than_threads(kernels: Kernels, name: str) -> None:
    asked = questions(name, *MEDIUM, batch=5)
    assert_near(rules(kernels, name, *asked), truth(name, *asked))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_directions(name: str, count: int) -> None:
    asked = questions(name, *MEDIUM, directions=count)
    assert_near(rules(CPU, name, *asked), truth(name, *asked))


def test_only_what_is_wanted_is_asked_for(name: str, dtype: torch.dtype) -> None:
    inputs, bars, dots = questions(name, *MEDIUM, dtype=dtype)
    primitive, options = of(CPU, name), OPERATIONS[name].options
    _, saved = primitive.forward(inputs, save=True, **options)
    expected = truth(name, inputs, bars, dots).bars
    for needs_grad in alone_and_all_but(len(inputs)):
        found = primitive.vjp(inputs, saved, bars, needs_grad, **options)
        for i in range(len(inputs)):
            if needs_grad[i]:
                assert_near(found[i], expected[i], dtype)


@pytest.mark.parametrize(
    ("name", "fields", "weights"),
    [("gated_scan", ScanInputs._fields, {"A", "D", "bias"}), ("conv_silu", ConvInputs._fields, {"weight", "bias"})],
)
def test_weights_take_no_work_where_none_is_wanted(name: str, fields: tuple[str, ...], weights: set[str]) -> None:
    inputs, bars, _ = questions(name, *MEDIUM)
    _, saved = of(CPU, name).forward(inputs, save=True)
    needs_grad = tuple(field not in weights for field in fields)
    found = of(CPU, name).vjp(inputs, saved, bars, needs_grad)
    assert {field for field, bar in zip(fields, found, strict=True) if bar is None} == weights


def test_inputs_that_do_not_move(name: str, dtype: torch.dtype) -> None:
    inputs, bars, dots = questions(name, *MEDIUM, dtype=dtype)
    for moves in alone_and_all_but(len(inputs)):
        pairs = list(zip(moves, dots, strict=True))
        given = tuple(dot if moving else None for moving, dot in pairs)
        still = tuple(dot if moving else torch.zeros_like(dot) for moving, dot in pairs)
        expected = truth(name, inputs, bars, still)
        found = of(CPU, name).jvp(inputs, given, **OPERATIONS[name].options)
        assert_near(found, (expected.outputs, expected.dots), dtype)


# What they may be given


def strided(tensor: Tensor) -> Tensor:
    """Every other number of a row."""
    return torch.stack([tensor, tensor.new_full(tensor.shape, torch.nan)], -1)[..., 0]


def turned(tensor: Tensor) -> Tensor:
    """The last axis, not the last but one, goes in the long steps."""
    return tensor if tensor.ndim < 2 else tensor.mT.clone(memory_format=torch.contiguous_format).mT


def shifted(tensor: Tensor) -> Tensor:
    """In one piece, but where no vector register would begin."""
    rows = torch.cat([tensor.new_full((1,), torch.nan), tensor.flatten()])
    return rows[1:].view(tensor.shape)


def cut(tensor: Tensor) -> Tensor:
    """A slice of wider rows, as `split` leaves them."""
    return F.pad(tensor, (3, 2), value=torch.nan)[..., 3:-2]


def alike(kernels: Kernels, name: str) -> Callable[..., None]:
    """How alike answers are: torch's own sums may go in the order that the numbers lie in."""
    compiled = kernels is CPU and name != "linear"
    return assert_same_bits if compiled else assert_near


@pytest.mark.parametrize("view", [strided, turned, shifted, cut])
@pytest.mark.parametrize("channels", [16, 20])
def test_arguments_may_be_views(kernels: Kernels, name: str, view: Callable[[Tensor], Tensor], channels: int) -> None:
    asked = questions(name, 33, channels, 5)
    views = [tuple(map(view, tensors)) for tensors in asked]
    alike(kernels, name)(rules(kernels, name, *views), rules(kernels, name, *asked))


def test_arguments_may_be_one_number_everywhere(name: str) -> None:
    """As `expand` makes them, and the derivative of a sum."""
    inputs, bars, dots = questions(name, *MEDIUM)
    ones = tuple(bar.new_ones(()).expand(bar.shape) for bar in bars)
    same = tuple(tensor.flatten()[0].expand(tensor.shape) for tensor in inputs)
    moved = tuple(dot[:1, ...].expand(dot.shape) for dot in dots)
    alike(CPU, name)(
        rules(CPU, name, same, ones, moved),
        rules(CPU, name, *[tuple(t.contiguous() for t in given) for given in (same, ones, moved)]),
    )


@pytest.mark.parametrize("channels", [16, 20])
@pytest.mark.parametrize("length", [1, 33])
def test_arguments_are_left_alone(name: str, length: int, channels: int) -> None:
    asked = questions(name, length, channels, 4)
    before = [tuple(tensor.clone() for tensor in tensors) for tensors in asked]
    found = rules(CPU, name, *asked)
    assert_same_bits(asked, before)
    lent = {tensor.untyped_storage().data_ptr() for tensors in asked for tensor in tensors}
    for tensors in found:
        assert not lent & {tensor.untyped_storage().data_ptr() for tensor in tensors}


def test_denormal_inputs(kernels: Kernels, name: str, dtype: torch.dtype) -> None:
    inputs, bars, dots = questions(name, 40, 20, 4, dtype=dtype)
    small = 1e-40 if dtype == torch.float32 else 1e-310

    def assert_finite(given: Tensors, dots: Tensors) -> None:
        found = rules(kernels, name, given, bars, dots)
        assert all(torch.isfinite(tensor).all() for tensors in found for tensor in tensors)

    for i in range(len(inputs)):
        assert_finite((*inputs[:i], inputs[i] * small, *inputs[i + 1 :]), dots)
    denormal = tuple(tensor * small for tensor in inputs)
    assert_finite(denormal, tuple(tensor[None] for tensor in denormal))


def test_what_is_not_a_number_stays_seen(kernels: Kernels, name: str, dtype: torch.dtype) -> None:
    inputs = problem(name, 5, 3, 2, dtype=dtype)
    for i in range(len(inputs)):
        given = tuple(tensor.clone() for tensor in inputs)
        given[i].view(-1)[0] = torch.nan
        found = called(kernels, name)(*given)
        assert any(torch.isnan(output).any() for output in found), i


# What torch asks of them


@pytest.mark.parametrize(("name", "length", "channels", "inner"), SMALL_SIZES)
def test_operations_pass_gradcheck(kernels: Kernels, name: str, length: int, channels: int, inner: int) -> None:
    inputs = problem(name, length, channels, inner, batch=1)
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(called(kernels, name), inputs)


def test_gradcheck_where_only_some_inputs_are_open(kernels: Kernels, name: str) -> None:
    inputs = problem(name, 9, 2, 3, batch=1)
    for opened in alone_and_all_but(len(inputs)):
        given = [tensor.detach().requires_grad_(is_open) for tensor, is_open in zip(inputs, opened, strict=True)]
        assert torch.autograd.gradcheck(called(kernels, name), given)


@pytest.mark.parametrize(("name", "length", "channels", "inner"), SMALL_SIZES)
def test_tangents_are_central_differences(kernels: Kernels, name: str, length: int, channels: int, inner: int) -> None:
    inputs = problem(name, length, channels, inner)
    dots, call = directions_for(inputs, 1), called(kernels, name)
    step = 1e-5
    up, down = (call(*(x + way * dot[0] for x, dot in zip(inputs, dots, strict=True))) for way in (step, -step))
    for found, above, below in zip(call(*map(Dual.of, inputs, dots)), up, down, strict=True):
        assert_near(found.dots[0], (above - below) / (2 * step), bar=1e-7)


def test_torch_finds_what_the_rules_say(name: str, dtype: torch.dtype) -> None:
    asked = questions(name, *MEDIUM, dtype=dtype)
    assert_same_bits(by_layers(called(CPU, name), *asked), rules(CPU, name, *asked))


def test_duals_take_every_direction_along(kernels: Kernels, name: str) -> None:
    inputs, bars, dots = questions(name, *MEDIUM)
    for moves in [(True,) * len(inputs), *alone_and_all_but(len(inputs))]:
        triples = list(zip(moves, inputs, dots, strict=True))
        given = [Dual.of(x, dot) if moving else x for moving, x, dot in triples]
        still = tuple(dot if moving else torch.zeros_like(dot) for moving, _, dot in triples)
        expected = truth(name, inputs, bars, still)
        for i, found in enumerate(called(kernels, name)(*given)):
            assert isinstance(found, Dual) or not expected.dots[i].any()
            assert_near(primal(found), expected.outputs[i])
            if isinstance(found, Dual):
                assert_near(found.dots, expected.dots[i])


BETWEEN_KERNELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda x, y: x * y,
    "product with a number": lambda x, _: 3 * x * 0.5,
    "product with fewer axes": lambda x, y: x * y[0, 0],
    "product with more axes": lambda x, y: x[0, 0] * y,
    "product along an axis": lambda x, y: x[:, :1] * y[..., :1],
    "sum": lambda x, y: x + y,
    "softplus": lambda x, _: F.softplus(50 * x, threshold=40),
    "anything": lambda x, y: torch.sin(x).cumsum(1) * y.exp(),
}


@pytest.mark.parametrize("moving", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("function", BETWEEN_KERNELS.values(), ids=list(BETWEEN_KERNELS))
def test_what_layers_do_between_kernels_is_pushed(
    function: Callable[[Tensor, Tensor], Tensor], moving: tuple[bool, bool]
) -> None:
    inputs = normals((2, 5, 3), (2, 5, 3))
    dots = tuple(dot * moves for dot, moves in zip(directions_for(inputs, 4), moving, strict=True))
    expected = [torch.func.jvp(function, inputs, direction) for direction in zip(*dots, strict=True)]
    triples = zip(moving, inputs, dots, strict=True)
    found = function(*(Dual.of(x, dot) if moves else x for moves, x, dot in triples))
    assert_near(primal(found), expected[0][0])
    if isinstance(found, Dual):
        assert_near(found.dots, torch.stack([dot for _, dot in expected]))
    else:
        assert not any(dot.any() for _, dot in expected)


@pytest.mark.parametrize("name", [name for name in NAMES if of(CPU, name).outputs > 1])
def test_outputs_that_nobody_uses(name: str) -> None:
    inputs, bars, dots = questions(name, *MEDIUM)
    for used in range(len(bars)):
        given = tuple(tensor.detach().requires_grad_() for tensor in inputs)
        output = called(CPU, name)(*given)[used]
        found = torch.autograd.grad(output, given, bars[used], materialize_grads=True)
        others = tuple(bar if i == used else torch.zeros_like(bar) for i, bar in enumerate(bars))
        assert_near(found, truth(name, inputs, others, dots).bars)


def test_directions_together_are_one_at_a_time(kernels: Kernels, name: str) -> None:
    inputs, call = problem(name, 40, 20, 5), called(kernels, name)
    dots = directions_for(inputs, 4)

    def push(*dots: Tensor) -> Tensors:
        return tuple(output.dots for output in call(*map(Dual.of, inputs, dots)))

    together = push(*dots)
    singly = [push(*(dot[i : i + 1] for dot in dots)) for i in range(4)]
    # torch's own sums may go in another order where there is one more axis.
    same = assert_same_bits if kernels is CPU else assert_near
    same(together, tuple(map(torch.cat, zip(*singly, strict=True))))


def test_a_primitive_passes_save_saved_needs_grad_and_tangents() -> None:
    """z = c x^2 y, which says what it was asked."""
    calls: list[tuple[Any, ...]] = []

    def forward(inputs: Tensors, *, save: bool, c: float) -> tuple[Tensors, Tensors]:
        calls.append(("forward", save))
        x, y = inputs
        return (c * x * x * y,), (x * x,) if save else ()

    def jvp(inputs: Tensors, dots: OptionalTensors, *, c: float) -> tuple[Tensors, Tensors]:
        calls.append(("jvp", *(None if dot is None else len(dot) for dot in dots)))
        (x, y), (x_dot, y_dot) = inputs, (0.0 if dot is None else dot for dot in dots)
        return (c * x * x * y,), (c * (2 * x * y * x_dot + x * x * y_dot),)

    def vjp(
        inputs: Tensors, saved: Tensors, bars: Tensors, needs_grad: tuple[bool, ...], *, c: float
    ) -> OptionalTensors:
        calls.append(("vjp", len(saved), len(bars), *needs_grad))
        (x, y), (squared,), (bar,) = inputs, saved, bars
        return 2 * c * x * y * bar if needs_grad[0] else None, c * squared * bar if needs_grad[1] else None

    def definition(x: Tensor, y: Tensor, *, c: float) -> Tensor:
        calls.append(("definition",))
        return c * x * x * y

    primitive = Primitive(forward, jvp, vjp, definition)
    x, y = torch.tensor([3.0]), torch.tensor([5.0])
    open_x, open_y = x.clone().requires_grad_(), y.clone().requires_grad_()
    assert primitive(x, y, c=2.0).item() == 90
    with torch.no_grad():
        assert not primitive(open_x, open_y, c=2.0).requires_grad
    assert torch.autograd.grad(primitive(open_x, y, c=2.0), open_x)[0].item() == 60
    assert torch.autograd.grad(primitive(x, open_y, c=2.0), open_y)[0].item() == 18
    both = torch.autograd.grad(primitive(open_x, open_y, c=2.0), [open_x, open_y])
    assert [bar.item() for bar in both] == [60, 18]
    assert calls == [
        ("forward", False),
        ("forward", False),
        *(("forward", True), ("vjp", 1, 1, True, False)),
        *(("forward", True), ("vjp", 1, 1, False, True)),
        *(("forward", True), ("vjp", 1, 1, True, True)),
    ]

    calls.clear()
    pushed = primitive(Dual.of(x, torch.tensor([[1.0], [10.0], [100.0]])), y, c=2.0)
    assert pushed.item() == 90
    assert pushed.dots.flatten().tolist() == [60, 600, 6000]
    assert calls == [("jvp", 3, None)]

    calls.clear()
    (bar,) = torch.autograd.grad(primitive(open_x, open_y, c=2.0), open_x, create_graph=True)
    assert [part.item() for part in torch.autograd.grad(bar, [open_x, open_y])] == [20, 12]
    assert torch.func.grad(lambda x: primitive(x, y, c=2.0).sum())(x).item() == 60
    assert calls == [("forward", True), ("definition",), ("definition",)]


def test_the_device_chooses_the_kernels() -> None:
    assert choose("cpu") is CPU
    assert choose(torch.device("cpu")) is CPU
    assert choose("meta") is REFERENCE
    assert choose("cpu", "reference") is REFERENCE
    for name in ("refernce", "CPU", "", "numba"):
        with pytest.raises(InputError, match=f'kernels "{name}": expected one of auto, cpu'):
            choose("cpu", name)
    with pytest.raises(InputError, match="expected the CPU"):
        choose("meta", "cpu")


@pytest.mark.parametrize("kernels", [CPU, REFERENCE, ASSOCIATIVE])
def test_an_input_map_that_is_none_is_refused(kernels: Kernels) -> None:
    inputs = problem("scan", *MEDIUM)
    with pytest.raises(InputError, match='input map "Phi": expected "euler" or "phi"'):
        kernels.scan(*inputs, input_map="Phi")


# Numbers that are not finite


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so(name: str, value: float, dtype: torch.dtype) -> None:
    """No kernel turns NaN or infinity into a number where its definition does not."""
    inputs = [tensor.to(dtype) for tensor in problem(name, *MEDIUM)]
    for i, given in enumerate(inputs):
        spoilt = given.clone()
        spoilt.view(-1)[spoilt.numel() // 2] = value
        arguments = [*inputs[:i], spoilt, *inputs[i + 1 :]]
        found = called(CPU, name)(*arguments)
        truth = called(REFERENCE, name)(*arguments)
        for one, other in zip(found, truth, strict=True):
            assert bool((~one.isfinite() | other.isfinite()).all())


@pytest.mark.parametrize("side", ["forward", "vjp", "jvp"])
def test_a_norm_that_overflows_is_nan(kernels: Kernels, dtype: torch.dtype, side: str) -> None:
    """Not 0, which would pass for an answer."""
    x = torch.ones(1, 3, 20, dtype=dtype)
    x[0, 1] = torch.finfo(dtype).max ** 0.5 * 2
    weight = torch.ones(20, dtype=dtype)
    if side == "jvp":
        made = kernels.rms_norm(Dual.of(x, torch.ones_like(x)[None]), weight, eps=1e-5)
        found = made.dots[0]
    elif side == "vjp":
        x.requires_grad_()
        (found,) = torch.autograd.grad(kernels.rms_norm(x, weight, eps=1e-5).sum(), x)
    else:
        found = kernels.rms_norm(x, weight, eps=1e-5)
    assert found[0, 1].isnan().all()
    assert found[0, ::2].isfinite().all()


# Far ends


class Ends(NamedTuple):
    """Functions of x in numpy's longest floats, and the size of what silu's slope is made of."""

    sigmoid: np.ndarray
    softplus: np.ndarray
    silu: np.ndarray
    slope: np.ndarray
    slope_terms: np.ndarray


def exact_ends(given: Tensor) -> Ends:
    x = given.numpy().astype(np.longdouble)
    small, ones = np.exp(-np.abs(x)), np.ones_like(x)
    opened, closed = np.where(x > 0, (ones, small), (small, ones)) / (1 + small)
    return Ends(
        sigmoid=opened,
        softplus=np.log1p(small) + np.maximum(x, 0),
        silu=x * opened,
        slope=opened + x * opened * closed,
        slope_terms=opened + np.abs(x * opened),
    )


class FoundEnds(NamedTuple):
    """What the operations make of x, by whatever way."""

    sigmoid: list[Tensor]
    softplus: list[Tensor]
    silu: list[Tensor]
    slope: list[Tensor]


def found_ends(x: Tensor) -> FoundEnds:
    """Step sizes are seen in the state after one base, gates in the outputs: a channel each."""
    zeros, ones = torch.zeros_like(x), torch.ones_like(x)
    row, zero_row, one_row = x[None, None], zeros[None, None], ones[None, None]
    zero, one = x.new_zeros(1, 1, 1), x.new_ones(1, 1, 1)

    def ask(name: str, *inputs: Tensor | None, along: int) -> Rules:
        bars = tuple(map(torch.ones_like, called(CPU, name)(*inputs)))
        dots = (torch.ones_like(t)[None] if i == along else None for i, t in enumerate(inputs))
        return rules(CPU, name, inputs, bars, tuple(dots))

    scan = ScanInputs(u=one_row, delta=zero_row, A=zeros[:, None], B=zero, C=zero, D=zeros, state=zeros[None, :, None])
    step = ask("gated_scan", *scan._replace(delta=row, bias=zeros, B=one), along=1)
    gate = ask("gated_scan", *scan._replace(z=row, D=ones), along=8)
    conv = ask("conv_silu", row, ones[:, None], zeros, one_row[:, :0], along=0)
    return FoundEnds(
        sigmoid=[step.bars[1], step.dots[1]],
        softplus=[step.outputs[1]],
        silu=[gate.outputs[0], gate.bars[0], conv.outputs[0]],
        slope=[gate.bars[8], gate.dots[0], conv.bars[0], conv.dots[0]],
    )


def units(found: Tensor, exact: np.ndarray, scale: np.ndarray) -> float:
    """Return the largest error, in units of the precision, relative to the scale."""
    wrong = np.abs(found.flatten().numpy().astype(np.longdouble) - exact)
    return float((wrong / np.where(exact == 0, 1, np.abs(scale))).max()) / torch.finfo(found.dtype).eps


def test_both_ends_keep_their_digits(dtype: torch.dtype) -> None:
    """Every single number, to full relative precision."""
    random = torch.Generator().manual_seed(3)
    smallest, lowest = torch.finfo(dtype).tiny, -87.3 if dtype == torch.float32 else -708
    orders = torch.logspace(np.log10(smallest) + 0.1, 30, 4001, dtype=torch.float64)
    where_exp_is_normal = torch.linspace(lowest, -lowest, 40_001, dtype=torch.float64)
    middle = torch.randn(40_001, generator=random, dtype=torch.float64) * 8
    x = torch.cat([orders, -orders, where_exp_is_normal, middle, torch.zeros(1)]).to(dtype)
    x = x[x >= lowest]
    found, exact = found_ends(x), exact_ends(x)
    for name in ("sigmoid", "softplus", "silu"):
        for way in getattr(found, name):
            assert units(way, getattr(exact, name), getattr(exact, name)) <= 3, name
    for way in found.slope:
        # It crosses zero at -1.28, and on the right 1 - sigmoid(x) is what float holds of it.
        assert units(way, exact.slope, exact.slope_terms) <= 3
        left = (x < -2).numpy()
        assert units(way.flatten()[left], exact.slope[left], exact.slope[left]) <= 5


def test_the_far_ends_are_flat(dtype: torch.dtype) -> None:
    x = torch.tensor([-1e30, -800.0, -100.0, -1e-30, 0.0, 1e-30, 100.0, 800.0, 1e30], dtype=dtype)
    found, expected = found_ends(x), x.double()
    for way in found.silu:
        assert_near(way.flatten(), F.silu(expected), dtype)
    for way in found.softplus:
        assert_near(way.flatten(), F.softplus(expected), dtype)
    for way in found.sigmoid + found.slope:
        half_way = torch.tensor([0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1], dtype=dtype)
        assert torch.allclose(way.flatten(), half_way, rtol=0, atol=1e-6)


def test_left_of_all_that_exp_can_hold_there_is_nothing(dtype: torch.dtype) -> None:
    x = torch.tensor([-1e3, -1e10, -1e30, torch.finfo(dtype).min], dtype=dtype)
    found = found_ends(x)
    for ways in found:
        for way in ways:
            assert (way.abs() <= 1e-30).all()


# Threads


def test_one_thread_and_two_agree(name: str, dtype: torch.dtype) -> None:
    for batch in (1, 3):
        asked = questions(name, 130, 70, 17, batch=batch, dtype=dtype, directions=2)
        two = rules(CPU, name, *asked)
        torch.set_num_threads(1)
        one = rules(CPU, name, *asked)
        torch.set_num_threads(2)
        assert_near(one, two)
        assert_same_bits(one.outputs, two.outputs)
        assert_same_bits(one.dots, two.dots)


def test_equal_threads_give_equal_bits(name: str, dtype: torch.dtype) -> None:
    asked = questions(name, 130, 70, 17, batch=1, dtype=dtype, directions=2)
    assert_same_bits(rules(CPU, name, *asked), rules(CPU, name, *asked))


def test_kernels_may_be_called_from_several_threads() -> None:
    problems = [
        (name, questions(name, 200, 40, 5, batch=batch, dtype=torch.float32, directions=1))
        for name in NAMES
        for batch in (1, 2)
    ]
    alone = [rules(CPU, name, *asked) for name, asked in problems]

    def again(number: int) -> Rules:
        # Threads that disagree on their number share no pool, and must not end one another's.
        torch.set_num_threads(2 + number % 2)
        name, asked = problems[number % len(problems)]
        return rules(CPU, name, *asked)

    with ThreadPoolExecutor(3) as pool:
        for number, found in enumerate(pool.map(again, range(8 * len(problems)))):
            expected = alone[number % len(problems)]
            assert_same_bits(found.outputs, expected.outputs)
            assert_near(found, expected)
