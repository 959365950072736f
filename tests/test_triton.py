"""The GPU's kernels: under Triton's interpreter, compiled for cards that are not here, and on one.

Without a card, TRITON_INTERPRET runs them on the CPU, one numpy call an operation: sizes are
small, and chunks are shortened so that there are several.  Where there is a card, `-m gpu` runs
all of this on it.

As a script, with an architecture, this file compiles the kernels for it, without a card, and
prints what each takes.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from laws import TOLERANCE, assert_near, assert_same_bits, errors, random_like
from operations import (
    OPERATIONS,
    Rules,
    by_layers,
    by_rules,
    by_torch,
    directions_for,
    doubled,
    normals,
    pd_problem,
    pd_rules,
    tupled,
)
from torch import Tensor
from torch.nn import functional as F
from toys import each, scan_problem
from ways import hold

from benchmarks.interpreted import interpreting
from genoscan.errors import InputError, ModelError
from genoscan.ops.cpu import CPU
from genoscan.ops.dual import Dual, primal
from genoscan.ops.kernels import ScanInputs
from genoscan.ops.primitive import OptionalTensors, Primitive, Tensors
from genoscan.ops.reference import REFERENCE

CARD = torch.cuda.is_available()
DEVICE = "cuda" if CARD else "cpu"
INTERPRETED = not CARD and __name__ != "__main__"

with pytest.MonkeyPatch.context() as patch:
    if INTERPRETED:
        # Read when triton is loaded and when kernels are declared: nothing may load it before.
        patch.setenv("TRITON_INTERPRET", "1")
    triton = pytest.importorskip("triton", reason="made for Linux on x86-64 and for CUDA devices")
    tl = pytest.importorskip("triton.language")
    from benchmarks.speed import exponentials
    from genoscan.ops.triton_gpu import TRITON
    from genoscan.ops.triton_gpu.conv import CONV_SILU
    from genoscan.ops.triton_gpu.pd_scan import PD_SCAN
    from genoscan.ops.triton_gpu.pointwise import GATE, RMS_NORM, STEP_SIZE
    from genoscan.ops.triton_gpu.scan import SCAN


class Piece(NamedTuple):
    """What is written in Triton, and the same in plain torch."""

    primitive: Primitive
    definition: Callable[..., Any]
    problem: Callable[[int, int, int, int], Tensors]
    weights: tuple[int, ...]
    options: dict[str, Any]


def step_size_problem(batch: int, length: int, channels: int, _inner: int) -> Tensors:
    return normals((batch, length, channels), (channels,))


def gate_problem(batch: int, length: int, channels: int, _inner: int) -> Tensors:
    return normals((batch, length, channels), (batch, length, channels))


def as_in_reference(primitive: Primitive, name: str, *weights: int) -> Piece:
    operation = OPERATIONS[name]
    return Piece(primitive, getattr(REFERENCE, name), operation.problem, weights, operation.options)


PIECES = {
    "scan": as_in_reference(SCAN, "scan", 2, 5),
    "phi scan": Piece(SCAN, REFERENCE.scan, OPERATIONS["scan"].problem, (2, 5), {"input_map": "phi"}),
    "conv_silu": as_in_reference(CONV_SILU, "conv_silu", 1, 2),
    "step_size": Piece(STEP_SIZE, lambda x, bias: F.softplus(x + bias, threshold=40), step_size_problem, (1,), {}),
    "gate": Piece(GATE, lambda y, z: y * F.silu(z), gate_problem, (), {}),
    "rms_norm": as_in_reference(RMS_NORM, "rms_norm", 1),
}
NAMES = tuple(PIECES)
pytestmark = [pytest.mark.gpu] if CARD else []


def on_card(test: Any) -> Any:
    """Mark a test that is too much for the interpreter."""
    return pytest.mark.gpu(pytest.mark.skipif(not CARD, reason="there is no CUDA device")(test))


@pytest.fixture(autouse=INTERPRETED)
def interpreter() -> Iterator[None]:
    with interpreting():
        yield


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new memory with NaN, so that an unwritten entry is seen."""
    for owner, name in [(torch, "empty_like"), (Tensor, "new_empty")]:
        genuine = getattr(owner, name)

        def poisoned(*arguments: Any, genuine: Any = genuine, **options: Any) -> Tensor:
            found = genuine(*arguments, **options)
            return found.fill_(torch.nan if found.is_floating_point() else -(2**14))

        monkeypatch.setattr(owner, name, poisoned)


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    from genoscan.ops.triton_gpu import scan as module

    for name, value in {
        "CHUNK": 8,
        "CHECKPOINT_INTERVAL": 4,
        "BASES_IN_REGISTERS": 2,
        "AHEAD": 2,
        "WIDTH": 512,
    }.items():
        monkeypatch.setattr(module, name, value)


def there(tensors: OptionalTensors) -> OptionalTensors:
    return tuple(None if tensor is None else tensor.to(DEVICE) for tensor in tensors)


def here(found: Any) -> Any:
    return found.cpu() if isinstance(found, Tensor) else tuple(map(here, found))


def called(name: str) -> Callable[..., Tensors]:
    return tupled(PIECES[name].primitive, **PIECES[name].options)


def defined(name: str) -> Callable[..., Tensors]:
    return tupled(PIECES[name].definition, **PIECES[name].options)


def bars_for(name: str, inputs: Tensors) -> Tensors:
    """Return a cotangent for each output."""
    return random_like(defined(name)(*inputs), 2)


def questions(
    name: str, *size: int, batch: int = 2, dtype: torch.dtype = torch.float64, directions: int = 3
) -> tuple[Tensors, Tensors, Tensors]:
    """Return arguments, cotangents and tangents."""
    inputs = tuple(tensor.to(dtype) for tensor in PIECES[name].problem(batch, *size))
    return inputs, bars_for(name, inputs), directions_for(inputs, directions)


def answers(name: str, inputs: Tensors, bars: Tensors, dots: OptionalTensors) -> Rules:
    primitive, options = PIECES[name].primitive, PIECES[name].options
    return Rules(*here(by_rules(primitive, there(inputs), there(bars), there(dots), **options)))


def truth(name: str, inputs: Tensors, bars: Tensors, dots: Tensors) -> Rules:
    """By torch's autograd through the definition, in float64."""
    return by_torch(defined(name), doubled(inputs), doubled(bars), doubled(dots))


SIZES = [
    *[("scan", length, 5, 4) for length in (1, 2, 7, 8, 9, 20)],
    *[("phi scan", length, 5, 4) for length in (1, 8, 20)],
    *[("phi scan", 9, 33, 4), ("phi scan", 2, 1, 17)],
    *[("scan", 9, 33, 4), ("scan", 3, 16, 16), ("scan", 2, 1, 17), ("scan", 5, 20, 1)],
    ("scan", 2, 3, 40),
    *[("conv_silu", 1, 1, 4), ("conv_silu", 2, 5, 8)],
    pytest.param("conv_silu", 20, 70, 4, marks=pytest.mark.slow),
    *[("conv_silu", 9, 16, 1), ("conv_silu", 5, 33, 2)],
    *[(name, *size, 0) for name in ("step_size", "gate", "rms_norm") for size in ((1, 1), (2, 5), (40, 33), (3, 200))],
]


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize(("name", "length", "channels", "inner"), SIZES)
def test_every_rule_equals_autograd(name: str, length: int, channels: int, inner: int) -> None:
    asked = questions(name, length, channels, inner)
    assert_near(answers(name, *asked), truth(name, *asked))


@pytest.mark.slow
def test_chunks_as_long_as_they_are() -> None:
    asked = questions("scan", 130, 3, 2, batch=1, dtype=torch.float32)
    assert_near(answers("scan", *asked), truth("scan", *asked), torch.float32)


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("name", NAMES)
def test_float32(name: str) -> None:
    asked = questions(name, 20, 20, 5, dtype=torch.float32, batch=1)
    assert_near(answers(name, *asked), truth(name, *asked), torch.float32)


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_directions(name: str, count: int) -> None:
    asked = questions(name, 9, 3, 2, batch=1, directions=count)
    assert_near(answers(name, *asked), truth(name, *asked))


HIGHER = (
    *("functional.hvp", "func.jvp", "func.vmap", "dual level", "batched cotangents"),
    *("gradient penalty", "gradient penalty, checkpointed"),
)


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("way", HIGHER)
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_of_every_order(name: str, way: str) -> None:
    hold(way, called(name), defined(name), there(PIECES[name].problem(2, 9, 3, 2)))


@pytest.mark.parametrize("way", HIGHER)
def test_derivatives_of_every_order_of_the_permutation_diagonal_scan(way: str) -> None:
    inputs, chosen = pd_problem(3, 2, 3)
    chosen = dict(zip(chosen, there(tuple(chosen.values())), strict=True))
    hold(way, partial(PD_SCAN, **chosen), partial(REFERENCE.pd_scan, **chosen), there(inputs))


@pytest.mark.parametrize("index", [-1, 3])
def test_a_route_that_leads_nowhere_gives_nan(index: int) -> None:
    """Not numbers from elsewhere in memory; an error message would wait for the GPU at every tile."""
    inputs, chosen = pd_problem(9, 2, 5)
    chosen["route"][0, 4, 1] = index
    states, end = TRITON.pd_scan(*there(inputs), **dict(zip(chosen, there(tuple(chosen.values())), strict=True)))
    assert states.isnan().any()
    assert end.isnan().any()


def test_maps_that_changed_are_checked_again() -> None:
    inputs, chosen = pd_problem(9, 2, 5)
    route, maps = there((chosen["route"], chosen["maps"]))
    TRITON.pd_scan(*there(inputs), route=route, maps=maps)
    maps[0, 0, 0] = 5
    with pytest.raises(ModelError, match="maps: 0 to 5, expected 0 to 4"):
        TRITON.pd_scan(*there(inputs), route=route, maps=maps)


def test_more_states_than_a_block_has_are_refused() -> None:
    inputs, chosen = pd_problem(1, 1, 1_025)
    with pytest.raises(InputError, match="1,025 states per head: expected at most 1,024 on a GPU"):
        PD_SCAN.forward(inputs, save=False, **chosen)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_refused(name: str) -> None:
    inputs = there(PIECES[name].problem(1, 3, 3, 2))
    for kind in (torch.float16, torch.bfloat16):
        with pytest.raises(InputError, match="expected float32 or float64"):
            called(name)(*(part.to(kind) for part in inputs))


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_wanted_and_only_what_moves(name: str) -> None:
    inputs, bars, dots = questions(name, 9, 3, 2, batch=1, directions=1)
    primitive, options = PIECES[name].primitive, PIECES[name].options
    _, saved = primitive.forward(there(inputs), save=True, **options)
    expected = truth(name, inputs, bars, dots).bars
    for i in range(len(inputs)):
        alone = tuple(j == i for j in range(len(inputs)))
        found = primitive.vjp(there(inputs), saved, there(bars), alone, **options)
        assert_near(here(found[i]), expected[i])
        given = tuple(dot if moves else None for moves, dot in zip(alone, dots, strict=True))
        still = tuple(0 * dot if j != i else dot for j, dot in enumerate(dots))
        pushed = truth(name, inputs, bars, still)
        found = primitive.jvp(there(inputs), there(given), **options)
        assert_near(here(found), (pushed.outputs, pushed.dots))


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("name", NAMES)
def test_operations_pass_gradcheck(name: str) -> None:
    inputs, *_ = questions(name, 3, 2, 2, batch=1)
    given = tuple(tensor.requires_grad_() for tensor in there(inputs))
    assert torch.autograd.gradcheck(called(name), given, fast_mode=True)


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("name", NAMES)
def test_all_directions_are_one_at_a_time(name: str) -> None:
    inputs, _, dots = questions(name, 9, 3, 2, batch=1)
    inputs, dots = there(inputs), there(dots)

    def push(*dots: Tensor) -> Tensors:
        return called(name)(*map(Dual.of, inputs, dots))

    together = push(*dots)
    assert_near(tuple(map(primal, together)), called(name)(*inputs))
    singly = [[dual.dots for dual in push(*(dot[i : i + 1] for dot in dots))] for i in range(3)]
    expected = tuple(map(torch.cat, zip(*singly, strict=True)))
    assert_near(tuple(dual.dots for dual in together), expected)


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("optional", [("bias",), ("z",), ("bias", "z")])
def test_the_scan_softens_its_steps_and_gates_its_outputs(optional: tuple[str, ...]) -> None:
    def through(scan: Callable[..., Tensors]) -> Callable[..., Tensors]:
        return lambda *inputs: scan(*ScanInputs(*inputs[:7], **dict(zip(optional, inputs[7:], strict=True))))

    inputs, bars, _ = questions("scan", 9, 5, 4)
    shapes = {"bias": (5,), "z": inputs[0].shape}
    inputs += normals(*(shapes[name] for name in optional), seed=5)
    dots = directions_for(inputs, 3)
    found = by_layers(through(TRITON.scan), there(inputs), there(bars), there(dots))
    assert_near(Rules(*here(found)), by_torch(through(REFERENCE.scan), inputs, bars, dots))


def strided(tensor: Tensor) -> Tensor:
    return torch.stack([tensor, tensor.new_full(tensor.shape, torch.nan)], -1)[..., 0]


def shifted(tensor: Tensor) -> Tensor:
    """In one piece, but not where wide reads could begin."""
    rows = torch.cat([tensor.new_full((1,), torch.nan), tensor.flatten()])
    return rows[1:].view(tensor.shape)


@pytest.mark.usefixtures("short_chunks")
@pytest.mark.parametrize("view", [strided, shifted])
@pytest.mark.parametrize("name", NAMES)
def test_arguments_may_be_views(name: str, view: Callable[[Tensor], Tensor]) -> None:
    asked = questions(name, 9, 8, 2, batch=1)
    views = [tuple(map(view, there(tensors))) for tensors in asked]
    found, expected = answers(name, *views), answers(name, *asked)
    if CARD and view is shifted:  # for such addresses Triton compiles another kernel, of other roundings on a GPU
        assert_near(found, expected)
    else:
        assert_same_bits(found, expected)


@pytest.mark.usefixtures("short_chunks")
def test_checkpoints_do_not_change_the_answer_nor_does_a_second_run() -> None:
    asked = questions("scan", 20, 20, 5, dtype=torch.float32, batch=1)
    first = answers("scan", *asked)
    assert_same_bits(answers("scan", *asked), first)
    without, checkpoints = SCAN.forward(there(asked[0]), save=False)
    assert_same_bits(here(without), first.outputs)
    assert checkpoints == ()


# Rounding


def far_ends() -> Tensor:
    sizes = torch.tensor([1e-30, 1e-6, 0.3, 1, 5, 17, 40, 87, 100, 800, 1e30], dtype=torch.float64)
    return torch.cat([-sizes.flip(0), torch.zeros(1), sizes])


@pytest.mark.parametrize("name", ["step_size", "gate", "conv_silu"])
def test_far_ends(name: str, dtype: torch.dtype) -> None:
    """Each number keeps its digits, however small what comes of it is."""
    x = far_ends().to(dtype)
    one, zero = torch.ones(len(x), 1, dtype=dtype), torch.zeros(len(x), dtype=dtype)
    rows = x.expand(1, 1, -1).contiguous()
    inputs = {
        "step_size": (rows, zero),
        "gate": (torch.ones_like(rows), rows),
        "conv_silu": (rows, one, zero, rows[:, :0]),
    }[name]
    bars = bars_for(name, inputs)
    dots = tuple(torch.ones_like(tensor)[None] for tensor in inputs)
    found = answers(name, inputs, bars, dots)
    long = x.double()
    small = torch.exp(-long.abs())
    exact = torch.log1p(small) + long.clamp(min=0)
    if name != "step_size":
        exact = long * torch.where(long > 0, 1, small) / (1 + small)
    # Below the normal numbers there are fewer digits.
    some = exact.abs() > 1e-37
    off = found.outputs[0][0, 0].double()[some] / exact[some] - 1
    assert off.abs().max() <= TOLERANCE[dtype]
    for tensor in (*found.outputs, *found.bars, *found.dots):
        assert torch.isfinite(tensor).all()


@pytest.mark.usefixtures("short_chunks")
def test_no_decay_makes_nan(dtype: torch.dtype) -> None:
    """Decays from exp(-1e-10) to exp(-1e5), steps that change from base to base."""
    inputs = scan_problem(length=20, channels=12, states=4, dtype=dtype)
    steps = torch.logspace(-6, 2, 12).roll(5)
    inputs = inputs._replace(
        A=-torch.logspace(-4, 3, 4).expand(12, 4).to(dtype),
        delta=torch.stack([steps.roll(shift) for shift in range(20)])[None].to(dtype),
    )
    asked = inputs[:7], bars_for("scan", inputs), directions_for(inputs[:7], 2)
    assert_near(answers("scan", *asked), truth("scan", *asked), dtype)


@pytest.mark.usefixtures("short_chunks")
def test_what_a_strong_decay_leaves_keeps_its_digits(dtype: torch.dtype) -> None:
    """One number enters, at the far end, and is forgotten: what is left of it is still right."""
    rates = torch.linspace(0.5, 28, 16)
    inputs = scan_problem(length=3, channels=16, states=1, dtype=dtype)
    zeros = each(torch.zeros_like, inputs)
    inputs = zeros._replace(
        A=-rates.to(dtype)[:, None],
        delta=torch.ones_like(inputs.delta),
        B=inputs.B,
        C=inputs.C,
        state=torch.ones_like(inputs.state),
    )
    bars = (torch.zeros_like(inputs.u), torch.ones_like(inputs.state))
    dots = tuple(dot[None] for dot in zeros._replace(state=inputs.state)[:7])
    found = answers("scan", inputs[:7], bars, dots)
    left = torch.exp(-3 * rates.double())
    for state in (found.outputs[1], found.bars[-1], found.dots[1][0]):
        assert ((state[0, :, 0].double() - left) / left).abs().max() <= TOLERANCE[dtype]


DECAYS = -torch.logspace(-10, 5, 31, dtype=torch.float64)
INFLOWS = ("normal", "positive", "three-valued", "constant")


def inflow(kind: str, length: int) -> Tensor:
    """Return what enters the state at each base of a long run."""
    normal = torch.randn(length, generator=torch.Generator().manual_seed(7))
    return {
        "normal": normal,
        "positive": normal.abs(),
        "three-valued": torch.tensor([0.3, 0.7, 1.1])[(normal * 5).long() % 3],
        "constant": torch.full((length,), 0.7),
    }[kind]


def long_questions(kinds: tuple[str, ...], decays: Tensor, length: int) -> Any:
    """Return a channel for every kind and decay; every number exact in float32."""
    b = torch.stack([inflow(kind, length) for kind in kinds], 1)
    u = b.repeat_interleave(len(decays), 1)[None]
    channels = u.shape[2]
    random = torch.Generator().manual_seed(8)
    inputs = ScanInputs(
        u=u,
        delta=torch.ones(1, length, channels),
        A=decays.float().repeat(len(kinds))[:, None],
        B=torch.ones(1, length, 1),
        C=torch.ones(1, length, 1),
        D=torch.zeros(channels),
        state=torch.randn(1, channels, 1, generator=random),
    )
    # The same kind of numbers comes back from the right as went in from the left.
    bars = u.flip(1), torch.randn(1, channels, 1, generator=random)
    nothing = each(torch.zeros_like, inputs)
    into_u = nothing._replace(u=u.flip(1), state=inputs.state)
    into_delta = nothing._replace(delta=u)
    dots = tuple(map(torch.stack, zip(into_u[:7], into_delta[:7], strict=True)))
    return inputs[:7], bars, dots


def worst_channel(found: Tensor, expected: Tensor) -> float:
    """Return the largest error of a channel, or a tenth of its largest single one if more."""
    pairs = zip(found.unbind(-1), expected.unbind(-1), strict=True)
    return max(max(l2, top / 10) for l2, top in (errors(*pair) for pair in pairs))


def long_errors(found: Rules, expected: Rules) -> dict[str, float]:
    """Return errors channel by channel; over all of them where a channel has one number."""
    measured = {
        "y": worst_channel(found.outputs[0], expected.outputs[0]),
        "state": errors(found.outputs[1], expected.outputs[1])[0],
        "y along u": worst_channel(found.dots[0][0], expected.dots[0][0]),
        "y along delta": worst_channel(found.dots[0][1], expected.dots[0][1]),
    }
    for name, a, b in zip(ScanInputs._fields[:7], found.bars, expected.bars, strict=True):
        by_base = name in ("u", "delta")
        measured[f"{name}_bar"] = worst_channel(a, b) if by_base else errors(a, b)[0]
    print(*(f"{name} {error:.1e}" for name, error in measured.items()), sep=", ")
    return measured


@pytest.mark.slow
def test_float32_keeps_every_decay_over_some_chunks() -> None:
    """As far as the interpreter goes in a few seconds; the bar is for 131,072 bases, below."""
    asked = long_questions(INFLOWS, DECAYS[::4], 512)
    measured = long_errors(answers("scan", *asked), truth("scan", *asked))
    assert max(measured.values()) <= 1e-5, measured


@on_card
@pytest.mark.parametrize("kind", INFLOWS)
def test_float32_keeps_every_decay_over_a_long_run(kind: str) -> None:
    """The bar of rounding: 1e-5 against float64 at 131,072 bases."""
    inputs, bars, dots = long_questions((kind,), DECAYS, 131_072)
    expected = by_rules(CPU.scan, doubled(inputs), doubled(bars), doubled(dots))
    measured = long_errors(answers("scan", inputs, bars, dots), expected)
    assert max(measured.values()) <= 1e-5, measured


# On a card, at the size of a model


@on_card
@pytest.mark.parametrize("name", NAMES)
def test_sizes_of_a_model(name: str) -> None:
    """Right, the same bits again, and nobody waits for the device."""
    inner = 4 if name == "conv_silu" else 16
    asked = questions(name, 5000, 512, inner, dtype=torch.float32, directions=5)
    exact, options = map(doubled, asked), PIECES[name].options
    # The reference goes base by base.
    scan = PIECES[name].primitive is SCAN
    expected = by_rules(CPU.scan, *exact, **options) if scan else by_torch(defined(name), *exact)
    on_device = tuple(map(there, asked))
    first = by_rules(PIECES[name].primitive, *on_device, **options)
    assert_near(here(first), expected, torch.float32)
    torch.cuda.set_sync_debug_mode("error")
    try:
        second = by_rules(PIECES[name].primitive, *on_device, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_same_bits(here(second), here(first))


@on_card
@pytest.mark.parametrize("permute", [False, True])
@pytest.mark.parametrize("n_states", [3, 16, 64])
def test_many_chunks_of_the_permutation_diagonal_scan(n_states: int, permute: bool) -> None:
    """With few states, several warps compute the same ones: right, and the same bits in every run."""
    inputs, chosen = pd_problem(40 * 128, 8, n_states, permute=permute, batch=16, dtype=torch.float32)
    bars = random_like((inputs[1], inputs[2]), 2)

    def answers(primitive: Any, given: Tensors, options: dict[str, Tensor], bars: Tensors) -> Tensors:
        outputs, saved = primitive.forward(given, save=True, **options)
        return (*outputs, *primitive.vjp(given, saved, bars, (True,) * 3, **options))

    on_device = there(inputs), {name: part.to(DEVICE) for name, part in chosen.items()}, there(bars)
    first = here(answers(PD_SCAN, *on_device))
    exact = tuple(part.double().requires_grad_() for part in inputs)
    outputs = CPU.pd_scan(*exact, **chosen)
    found = torch.autograd.grad(outputs, exact, tuple(bar.double() for bar in bars))
    assert_near(first, (*(part.detach() for part in outputs), *found), torch.float32)
    for _ in range(50):
        assert_same_bits(here(answers(PD_SCAN, *on_device)), first)


# Without a card: compiled


class Driver:
    """What Triton asks of a device in order to compile for it."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch

    def get_current_stream(self, _device: int) -> int:
        return 0


def compile_for(capability: int) -> list[dict[str, Any]]:
    """Call every operation as a layer of 512 channels does, but compile where it would launch."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    driver.set_active(Driver(capability))
    genuine, found = JITFunction.run, {}

    def compiled(program: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = genuine(program, *arguments, grid=grid, warmup=True, **options)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            Path(file.name).write_bytes(kernel.asm["cubin"])
            command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
            usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        sizes = {name: int(size) for name, size in re.findall(r"(REG|STACK):(\d+)", usage)}
        still = tuple(i for i, argument in enumerate(arguments) if argument is None)
        name, block = (program.__name__, {key: options[key] for key in ("G", "E", "PERMUTE", "PHI") if key in options})
        key = (name, still, *block.items())
        found[key] = {"name": name, "none": still, **block, **sizes}
        found[key]["shared"] = kernel.metadata.shared

    JITFunction.run = compiled
    for name in NAMES:
        primitive, _, problem, weights, options = PIECES[name]
        inputs = problem(2, 256, 512, 4 if name == "conv_silu" else 16)
        inputs = tuple(tensor.float() for tensor in inputs)
        outputs, saved = primitive.forward(inputs, save=True, **options)
        primitive.forward(inputs, save=False, **options)
        inner = tuple(i not in weights for i in range(len(inputs)))
        for needs_grad in (inner, (True,) * len(inputs)):
            primitive.vjp(inputs, saved, outputs, needs_grad, **options)
        for count in (1, 4):
            dots = directions_for(inputs, count)
            moving = tuple(dot if moves else None for moves, dot in zip(inner, dots, strict=True))
            primitive.jvp(inputs, moving, **options)
    for permute in (False, True):
        inputs, chosen = pd_problem(256, 2, 64, permute=permute, dtype=torch.float32)
        outputs, saved = PD_SCAN.forward(inputs, save=True, **chosen)
        PD_SCAN.vjp(inputs, saved, outputs, (True,) * 3, **chosen)
        PD_SCAN.jvp(inputs, directions_for(inputs, 2), **chosen)
    exponentials.many_exponentials(x := torch.ones(4096), torch.empty_like(x))
    return list(found.values())


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_kernels_compile_for_cards_that_are_not_here(capability: int) -> None:
    """For an A100 and an H100 or H200; nothing spills where no weights are asked about."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # pytest's own additions
    command = [sys.executable, __file__, str(capability)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    kernels = json.loads(run.stdout)
    assert len({kernel["name"] for kernel in kernels}) == 26
    for kernel in kernels:
        # The scan's vjp keeps its sums for A in registers that it has not got, a few words of it.
        training = kernel["name"] == "replay_bar" and not kernel["none"]
        assert kernel["STACK"] <= (128 if training else 0), kernel
        assert kernel["shared"] <= 4096, kernel
        print(*(f"{key} {value}" for key, value in kernel.items()), sep=", ")


def test_grids_of_many_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first axis of a grid may exceed 65,535 programs."""
    from genoscan.ops.triton_gpu import conv, pd_scan

    grids: list[tuple[int, ...]] = []
    monkeypatch.setattr(pd_scan, "launch", lambda _program, grid, *_arguments, **_sizes: grids.append(grid))
    inputs, chosen = pd_problem(1, 2, 1, batch=40_000)
    states, end = pd_scan.PD_SCAN.forward(inputs, save=True, **chosen)[0]
    pd_scan.PD_SCAN.vjp(inputs, (states,), (states, end), (True, True, True), **chosen)
    assert len(grids) == 6
    assert set(grids) == {(80_000,)}

    x, weight, tail = torch.zeros(70_000, 1, 1), torch.zeros(1, 2), torch.zeros(70_000, 1, 1)
    with pytest.raises(InputError, match="found 70,000 sequences or directions at once, expected at most 65,535"):
        conv.CONV_SILU.forward((x, weight, torch.zeros(1), tail), save=False)


@pytest.mark.parametrize("permute", [False, True])
@pytest.mark.parametrize(
    ("length", "heads", "n_states"), [(1, 1, 1), (5, 2, 3), pytest.param(21, 2, 8, marks=pytest.mark.slow)]
)
def test_states_move_as_by_matrices(
    permute: bool, length: int, heads: int, n_states: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genoscan.ops.triton_gpu import pd_scan

    monkeypatch.setattr(pd_scan, "CHUNK", 4)
    inputs, chosen = pd_problem(length, heads, n_states, permute=permute)
    pd_rules(
        lambda *parts, **chosen: here(TRITON.pd_scan(*there(parts), **chosen)),
        inputs,
        {name: part.to(DEVICE) for name, part in chosen.items()},
    )


def test_exponentials_are_as_many_as_counted() -> None:
    """exp(-x) over and over tends to the omega constant; two steps are two exponentials."""
    x = torch.rand(1500).to(DEVICE)
    out = torch.empty_like(x)
    exponentials.many_exponentials(x, out)
    assert_near(out.cpu(), torch.full((1500,), 0.5671432904097838), torch.float32)


if __name__ == "__main__":
    print(json.dumps(compile_for(int(sys.argv[1]))))
