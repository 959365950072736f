"""Kernel sets against torch's own autograd, and the bars that rounding has to keep."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np
import pytest
import torch
from laws import TOLERANCE, assert_near, assert_same_bits, errors, random_like
from torch import Tensor
from torch.nn import functional as F
from toys import scan_problem

from genoscan.ops import cpu, lanes, reference
from genoscan.ops.causal_conv import causal_conv_silu
from genoscan.ops.cpu import CPU
from genoscan.ops.kernels import ScanInputs, ScanKernels
from genoscan.ops.reference import REFERENCE
from genoscan.ops.selective_scan import choose, selective_scan

pytestmark = pytest.mark.usefixtures("poisoned_memory")

LENGTHS = (1, 2, 31, 32, 33, 63, 64, 65, 130)
SIZES = [(length, 20, 17) for length in LENGTHS] + [
    (33, channels, states) for channels in (1, 16, 20, 48) for states in (1, 4, 16, 17, 40)
]


class Rules(NamedTuple):
    """All that a kernel set says about one problem."""

    y: Tensor
    state: Tensor
    bars: ScanInputs
    y_dot: Tensor
    state_dot: Tensor


def directions_of(inputs: ScanInputs, count: int) -> ScanInputs:
    return ScanInputs(
        *(
            random_like(tensor.new_empty(count, *tensor.shape), seed=10 + i)
            for i, tensor in enumerate(inputs)
        )
    )


def run(kernels: ScanKernels, inputs: ScanInputs, dots: ScanInputs) -> Rules:
    y, state, kept = kernels.forward(inputs, keep=True)
    bars = kernels.vjp(inputs, kept, random_like(y, 2), random_like(state, 3))
    return Rules(y, state, bars, *kernels.jvp(inputs, dots))


def truth(inputs: ScanInputs, dots: ScanInputs) -> Rules:
    """The same by torch's autograd through the reference's forward, in float64."""

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        y, state, _ = reference.forward(ScanInputs(*tensors), keep=False)
        return y, state

    inputs = ScanInputs(*(tensor.double().requires_grad_() for tensor in inputs))
    y, state = scan(*inputs)
    bars = torch.autograd.grad([y, state], inputs, [random_like(y, 2), random_like(state, 3)])
    with torch.no_grad():
        closed = tuple(tensor.detach() for tensor in inputs)
        pushed = [
            torch.func.jvp(scan, closed, tuple(dot[i].double() for dot in dots))[1]
            for i in range(len(dots.u))
        ]
    return Rules(
        y.detach(),
        state.detach(),
        ScanInputs(*bars),
        torch.stack([p[0] for p in pushed]),
        torch.stack([p[1] for p in pushed]),
    )


@pytest.mark.parametrize(("length", "channels", "states"), SIZES)
def test_every_rule_equals_autograd(
    kernels: ScanKernels, length: int, channels: int, states: int
) -> None:
    inputs = scan_problem(batch=2, length=length, channels=channels, states=states)
    dots = directions_of(inputs, 3)
    expected = truth(inputs, dots)
    assert_near(run(kernels, inputs, dots), expected)
    if length in (1, 33, 130):
        single = ScanInputs(*(tensor.float() for tensor in inputs))
        single_dots = ScanInputs(*(tensor.float() for tensor in dots))
        expected = truth(single, single_dots)
        assert_near(run(kernels, single, single_dots), expected, torch.float32)


def test_more_windows_than_threads(kernels: ScanKernels) -> None:
    inputs = scan_problem(batch=5, length=40, channels=20, states=5)
    dots = directions_of(inputs, 2)
    assert_near(run(kernels, inputs, dots), truth(inputs, dots))


def test_marks_do_not_change_the_answer(kernels: ScanKernels) -> None:
    inputs = scan_problem(length=70, channels=20, states=17)
    with_marks, without = kernels.forward(inputs, keep=True), kernels.forward(inputs, keep=False)
    assert_same_bits(with_marks[:2], without[:2])
    assert sum(tensor.numel() for tensor in without[2]) == 0


def test_arguments_may_be_views(kernels: ScanKernels) -> None:
    inputs = scan_problem(batch=2, length=33, channels=20, states=5)
    dots = directions_of(inputs, 2)

    def strided(tensor: Tensor) -> Tensor:
        return torch.stack([tensor, tensor.new_full(tensor.shape, torch.nan)], -1)[..., 0]

    views = ScanInputs(*map(strided, inputs))
    view_dots = ScanInputs(*map(strided, dots))
    assert_same_bits(run(kernels, views, view_dots), run(kernels, inputs, dots))


def bound(kernels: ScanKernels) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda *inputs: selective_scan(*inputs, kernels=kernels)


@pytest.mark.parametrize(("length", "channels", "states"), [(3, 3, 2), (34, 2, 1), (2, 1, 17)])
def test_scan_passes_gradcheck(
    kernels: ScanKernels, length: int, channels: int, states: int
) -> None:
    inputs = scan_problem(length=length, channels=channels, states=states)
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(bound(kernels), tuple(inputs), check_forward_ad=True)


def test_scan_where_only_some_inputs_are_open(kernels: ScanKernels) -> None:
    inputs = scan_problem(length=9, channels=2, states=3)
    for open_one in range(len(inputs)):
        given = [tensor.detach().requires_grad_(i == open_one) for i, tensor in enumerate(inputs)]
        assert torch.autograd.gradcheck(bound(kernels), given, check_forward_ad=True)


def test_vmap_of_jvp_is_one_direction_at_a_time(kernels: ScanKernels) -> None:
    inputs = scan_problem(batch=2, length=40, channels=20, states=5)
    dots = directions_of(inputs, 4)
    scan = bound(kernels)

    def push(*dots: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(scan, tuple(inputs), dots)[1]

    together = torch.func.vmap(push)(*dots)
    singly = [push(*(dot[i] for dot in dots)) for i in range(4)]
    assert_same_bits(together[0], torch.stack([one[0] for one in singly]))
    assert_same_bits(together[1], torch.stack([one[1] for one in singly]))


def test_vmap_over_inputs_is_refused() -> None:
    inputs = scan_problem(length=4, channels=2, states=2)
    with pytest.raises(NotImplementedError, match="batch them instead"):
        torch.func.vmap(lambda u: selective_scan(u, *inputs[1:], kernels=CPU))(inputs.u[None])


def test_second_derivatives_are_refused() -> None:
    inputs = scan_problem(length=4, channels=2, states=2)
    u = inputs.u.requires_grad_()
    y, _ = selective_scan(*inputs, kernels=CPU)
    (u_bar,) = torch.autograd.grad(y.square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        u_bar.sum().backward()


def test_the_device_chooses_the_kernels() -> None:
    assert choose("cpu") is CPU
    assert choose(torch.device("cpu")) is CPU
    assert choose("meta") is REFERENCE
    assert choose("cpu", "reference") is REFERENCE


# The convolution


def conv_problem(length: int, channels: int, taps: int, batch: int = 2) -> tuple[Tensor, ...]:
    like = torch.empty(0, dtype=torch.float64)
    shapes = [
        (batch, length, channels),
        (channels, taps),
        (channels,),
        (batch, taps - 1, channels),
    ]
    return tuple(random_like(like.new_empty(shape), seed) for seed, shape in enumerate(shapes))


def plain_conv(x: Tensor, weight: Tensor, bias: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    padded = torch.cat([tail, x], 1)
    groups, taps = weight.shape
    y = F.conv1d(padded.transpose(1, 2), weight[:, None], bias, groups=groups).transpose(1, 2)
    return y * torch.sigmoid(y), padded[:, padded.shape[1] - (taps - 1) :]


@pytest.fixture(params=[True, False], ids=["fused", "plain"])
def conv(request: pytest.FixtureRequest) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda *inputs: causal_conv_silu(*inputs, fused=request.param)


@pytest.mark.parametrize("length", [1, 2, 3, 33, 130])
@pytest.mark.parametrize(("channels", "taps"), [(1, 4), (16, 1), (20, 4), (48, 8), (33, 2)])
def test_convolution_equals_autograd(
    conv: Callable[..., tuple[Tensor, Tensor]], length: int, channels: int, taps: int
) -> None:
    for dtype in TOLERANCE:
        inputs = [
            tensor.to(dtype).requires_grad_() for tensor in conv_problem(length, channels, taps)
        ]
        exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
        found, expected = conv(*inputs), plain_conv(*exact)
        assert_near(found, expected, dtype)
        bars = random_like(expected, 9)
        found_bars = torch.autograd.grad(found, inputs, [bar.to(dtype) for bar in bars])
        expected_bars = torch.autograd.grad(expected, exact, bars)
        # A single channel's sums over the tile may come to next to nothing.
        few = channels == 1 and dtype == torch.float32
        assert_near(found_bars, expected_bars, bar=1e-4 if few else TOLERANCE[dtype])
        dots = tuple(random_like(tensor.detach(), 20) for tensor in inputs)
        closed = tuple(tensor.detach() for tensor in inputs)
        _, found_dot = torch.func.jvp(conv, closed, dots)
        _, expected_dot = torch.func.jvp(
            plain_conv, tuple(t.double() for t in closed), tuple(dot.double() for dot in dots)
        )
        assert_near(found_dot, expected_dot, dtype)


@pytest.mark.parametrize(("length", "channels", "taps"), [(1, 2, 4), (5, 3, 4), (3, 1, 1)])
def test_convolution_passes_gradcheck(
    conv: Callable[..., tuple[Tensor, Tensor]], length: int, channels: int, taps: int
) -> None:
    inputs = [tensor.requires_grad_() for tensor in conv_problem(length, channels, taps, batch=1)]
    assert torch.autograd.gradcheck(conv, inputs, check_forward_ad=True)


def test_vmap_of_the_convolutions_jvp_is_one_direction_at_a_time(
    conv: Callable[..., tuple[Tensor, Tensor]],
) -> None:
    inputs = conv_problem(33, 20, 4)
    dots = tuple(
        random_like(tensor.new_empty(4, *tensor.shape), 30 + i) for i, tensor in enumerate(inputs)
    )

    def push(*dots: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(conv, inputs, dots)[1]

    together = torch.func.vmap(push)(*dots)
    singly = [push(*(dot[i] for dot in dots)) for i in range(4)]
    assert_near(together[0], torch.stack([one[0] for one in singly]))
    assert_near(together[1], torch.stack([one[1] for one in singly]))


def test_convolution_at_the_far_ends_of_silu() -> None:
    x = torch.tensor([-1e30, -800.0, -100.0, -1e-30, 0.0, 1e-30, 100.0, 800.0, 1e30])
    for dtype in TOLERANCE:
        given = x.to(dtype)[None, :, None].requires_grad_()
        one, zero = torch.ones(1, 1, dtype=dtype), torch.zeros(1, dtype=dtype)
        y, _ = causal_conv_silu(given, one, zero, one[None, :0], fused=True)
        (slope,) = torch.autograd.grad(y.sum(), given)
        expected = F.silu(given.detach().double())
        assert_near(y, expected, dtype)
        assert torch.isfinite(slope).all()
        flat = [0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0]
        assert torch.allclose(slope[0, :, 0].double(), torch.tensor(flat).double(), atol=1e-6)


# Rounding


def compiled_decay(z: np.ndarray) -> np.ndarray:
    # Compiled anew each time: a stored one would not know of a change in what it calls.
    @numba.njit(fastmath={"contract", "nsz"})
    def fill(z, out):  # type: ignore[no-untyped-def]
        for i in range(len(z)):
            out[i] = lanes.decay(z[i])

    out = np.zeros_like(z)
    fill(z, out)
    return out


@pytest.mark.parametrize(
    ("kind", "bar", "lowest"), [(np.float64, 1e-15, -708), (np.float32, 2.5e-7, -87)]
)
def test_decay_to_the_last_place(kind: type, bar: float, lowest: float) -> None:
    smallest = float(np.finfo(kind).tiny)
    # Sizes of every order, a dense sweep where exp is neither 0 nor 1, and the seams: of the
    # reduction by ln 2, and between the two forms.
    seams = np.append(np.arange(0.5, 40) * math.log(2), 0.7)
    z = -np.concatenate(
        [
            np.geomspace(smallest, -lowest, 20_001),
            np.linspace(1e-6, 60, 60_001),
            *(seams * (1 + step) for step in (-1e-6, -1e-15, 0, 1e-15, 1e-6)),
        ]
    ).astype(kind)
    found, long = compiled_decay(z), z.astype(np.longdouble)
    expected = np.where(z > kind(-0.7), np.expm1(long), np.exp(long))
    worst = np.abs((found - expected) / expected).max()
    assert worst <= bar, float(worst)
    # What tells the forms apart.
    assert (found[z > kind(-0.7)] <= 0).all()
    assert (found[z <= kind(-0.7)] > 0).all()
    assert compiled_decay(np.array([0.0, -0.0], kind)).tolist() == [0, 0]
    beyond = compiled_decay(np.array([1.5 * lowest, 1000 * lowest, -1e30, -np.inf], kind))
    assert (beyond > 0).all()
    assert (beyond < 4 * smallest).all()


def decay_grid(dtype: torch.dtype) -> ScanInputs:
    """Decays from exp(-1e-10) to exp(-1e5), steps that change from base to base."""
    inputs = scan_problem(length=70, channels=24, states=8, dtype=dtype)
    rates = torch.logspace(-4, 3, 8)
    steps = torch.logspace(-6, 2, 24).roll(5)
    A = -rates.expand(24, 8).to(dtype)
    delta = torch.stack([steps.roll(shift) for shift in range(70)])[None].to(dtype)
    return inputs._replace(A=A, delta=delta)


def test_no_decay_makes_nan(kernels: ScanKernels, dtype: torch.dtype) -> None:
    inputs = decay_grid(dtype)
    dots = directions_of(inputs, 2)
    found, expected = run(kernels, inputs, dots), truth(inputs, dots)
    for tensor in [found.y, found.state, found.y_dot, found.state_dot, *found.bars]:
        assert torch.isfinite(tensor).all()
    if kernels is CPU or dtype == torch.float64:
        assert_near(found, expected, dtype)


def test_denormal_inputs(kernels: ScanKernels, dtype: torch.dtype) -> None:
    inputs = scan_problem(length=40, channels=20, states=4, dtype=dtype)
    small = 1e-40 if dtype == torch.float32 else 1e-310
    for name in ScanInputs._fields:
        given = inputs._replace(**{name: getattr(inputs, name) * small})
        for tensor in run(kernels, given, directions_of(given, 1)).bars:
            assert torch.isfinite(tensor).all()
    denormal = ScanInputs(*(tensor * small for tensor in inputs))
    found = run(kernels, denormal, ScanInputs(*(tensor[None] for tensor in denormal)))
    assert all(torch.isfinite(tensor).all() for tensor in found[:2])


LONG = 131_072
DECAYS = -torch.logspace(-10, 5, 31, dtype=torch.float64)


def inflow(kind: str) -> Tensor:
    """Return what enters the state at each of the long run's bases."""
    random = torch.Generator().manual_seed(7)
    normal = torch.randn(LONG, generator=random)
    return {
        "normal": normal,
        "positive": normal.abs(),
        "three-valued": torch.tensor([0.3, 0.7, 1.1])[(normal * 5).long() % 3],
        "constant": torch.full((LONG,), 0.7),
    }[kind]


def long_problem(kind: str) -> ScanInputs:
    """One decay a channel, over the whole long run; every number exact in float32."""
    random = torch.Generator().manual_seed(8)
    channels = len(DECAYS)
    return ScanInputs(
        u=torch.ones(1, LONG, channels),
        delta=torch.ones(1, LONG, channels),
        A=DECAYS.float()[:, None],
        B=inflow(kind)[None, :, None],
        C=torch.ones(1, LONG, 1),
        D=torch.zeros(channels),
        state=torch.randn(1, channels, 1, generator=random),
    )


def overall(found: Tensor, truth: Tensor) -> float:
    """Return the relative error, or a tenth of the largest one if that is more."""
    l2, top = errors(found, truth)
    return max(l2, top / 10)


def by_channel(found: Tensor, truth: Tensor, axis: int) -> float:
    """Return the largest relative error that any one channel has."""
    pairs = zip(found.unbind(axis), truth.unbind(axis), strict=True)
    return max(overall(a, b) for a, b in pairs)


def test_float64_kernels_keep_the_long_run() -> None:
    """They are the truth of the tests below; here numpy is theirs, one base after another."""
    kinds = ["normal", "positive", "three-valued", "constant"]
    problems = [long_problem(kind) for kind in kinds]
    decay = np.expm1(DECAYS.float().double().numpy())
    h = np.stack([problem.state[0, :, 0].double().numpy() for problem in problems])
    b = np.stack([problem.B[0, :, 0].double().numpy() for problem in problems])
    rows = []
    for t in range(LONG):
        h = h + (decay * h + b[:, t, None])
        if t % 64 == 63:
            rows.append(h)
    for i, problem in enumerate(problems):
        exact = ScanInputs(*(tensor.double() for tensor in problem))
        y, _, _ = cpu.forward(exact, keep=False)
        expected = torch.from_numpy(np.stack([row[i] for row in rows]))
        assert by_channel(y[0, 63::64], expected, 1) <= 1e-11


@pytest.mark.parametrize("kind", ["normal", "positive", "three-valued", "constant"])
def test_float32_keeps_every_decay_over_a_long_run(kind: str) -> None:
    """The bar of rounding: 1e-5 against float64 at 131,072 bases.

    What has a number at every base is held to it in every channel, however small its numbers;
    what is one number a channel, and may cancel to nothing there, over all channels.
    """
    inputs = long_problem(kind)
    exact = ScanInputs(*(tensor.double() for tensor in inputs))
    y, state, kept = cpu.forward(inputs, keep=True)
    y_exact, state_exact, kept_exact = cpu.forward(exact, keep=True)
    # With u and C at one and D at zero, y is the state at every base.
    measured = {"y": by_channel(y, y_exact, 2), "state": overall(state, state_exact)}

    # The same kind of numbers comes back from the right as went in from the left.
    y_bar = inflow(kind).flip(0)[None, :, None].expand_as(y).contiguous()
    bars = cpu.vjp(inputs, kept, y_bar, state)
    bars_exact = cpu.vjp(exact, kept_exact, y_bar.double(), state.double())
    for name in ("u", "delta"):
        found, expected = getattr(bars, name), getattr(bars_exact, name)
        measured[f"{name}_bar"] = by_channel(found, expected, 2)
    for name in ("A", "B", "C", "state"):
        measured[f"{name}_bar"] = overall(getattr(bars, name), getattr(bars_exact, name))

    # Tangents: of the inputs alone, and of the decays alone.
    nothing = ScanInputs(*map(torch.zeros_like, inputs))
    into_b = nothing._replace(B=inputs.B.flip(1), state=inputs.state)
    into_delta = nothing._replace(delta=inputs.B.expand_as(inputs.delta))
    dots = ScanInputs(*map(torch.stack, zip(into_b, into_delta, strict=True)))
    y_dot, state_dot = cpu.jvp(inputs, dots)
    y_dot_exact, state_dot_exact = cpu.jvp(exact, ScanInputs(*(dot.double() for dot in dots)))
    for i, name in enumerate(("B_dot", "delta_dot")):
        measured[f"y along {name}"] = by_channel(y_dot[i], y_dot_exact[i], 2)
        measured[f"state along {name}"] = overall(state_dot[i], state_dot_exact[i])

    print(*(f"{name} {error:.1e}" for name, error in measured.items()), sep=", ")
    worst = max(measured, key=lambda name: measured[name])
    assert measured[worst] <= 1e-5, (worst, measured)


def test_what_a_strong_decay_leaves_keeps_its_digits(dtype: torch.dtype) -> None:
    """One number enters, at the far end, and is forgotten: what is left of it is still right."""
    rates = torch.linspace(0.5, 28, 16)
    inputs = scan_problem(length=3, channels=16, states=1, dtype=dtype)
    inputs = inputs._replace(
        A=-rates.to(dtype)[:, None],
        delta=torch.ones_like(inputs.delta),
        u=torch.zeros_like(inputs.u),
        D=torch.zeros_like(inputs.D),
        state=torch.ones_like(inputs.state),
    )
    _, state, kept = cpu.forward(inputs, keep=True)
    left = torch.exp(-3 * rates.double())[None, :, None]
    y_bar = torch.zeros_like(inputs.u)
    bars = cpu.vjp(inputs, kept, y_bar, torch.ones_like(state))
    _, state_dot = cpu.jvp(
        inputs,
        ScanInputs(*(torch.zeros_like(tensor)[None] for tensor in inputs))._replace(
            state=torch.ones_like(inputs.state)[None]
        ),
    )
    for found in (state, bars.state, state_dot[0]):
        assert by_channel(found, left, 1) <= TOLERANCE[dtype]
    assert by_channel(bars.A[None], 3 * left, 1) <= TOLERANCE[dtype]


def test_a_strong_decay_after_weak_ones_keeps_its_digits() -> None:
    """What the compensation held back is forgotten with the rest, forward and backward."""
    inputs = scan_problem(length=60, channels=16, states=3, dtype=torch.float32)
    delta = torch.full_like(inputs.delta, 1e-3)
    delta[:, 30] = 10
    u = inputs.u.clone()
    u[:, 30:] = 0
    inputs = inputs._replace(A=-torch.ones_like(inputs.A), delta=delta, u=u)
    inputs = inputs._replace(D=torch.zeros_like(inputs.D))
    nothing = ScanInputs(*(torch.zeros_like(tensor)[None] for tensor in inputs))
    dots = nothing._replace(state=inputs.state[None], u=inputs.u[None])
    y_bar = random_like(inputs.u)
    y_bar[:, :30] = 0

    def rules(given: ScanInputs) -> tuple[Tensor, ...]:
        y, state, kept = cpu.forward(given, keep=True)
        bars = cpu.vjp(given, kept, y_bar.to(y), torch.ones_like(state))
        y_dot, state_dot = cpu.jvp(given, ScanInputs(*(dot.to(y) for dot in dots)))
        return y[:, 30:], state, bars.state, y_dot[0, :, 30:], state_dot[0]

    for found, expected in zip(
        rules(inputs), rules(ScanInputs(*(tensor.double() for tensor in inputs))), strict=True
    ):
        assert_near(found, expected)


# Threads


def test_one_thread_and_two_agree(dtype: torch.dtype) -> None:
    for batch in (1, 3):
        inputs = scan_problem(batch=batch, length=130, channels=70, states=17, dtype=dtype)
        dots = directions_of(inputs, 2)
        two = run(CPU, inputs, dots)
        torch.set_num_threads(1)
        one = run(CPU, inputs, dots)
        torch.set_num_threads(2)
        assert_near(one, two)
        assert_same_bits(one[:2], two[:2])


def test_equal_threads_give_equal_bits(dtype: torch.dtype) -> None:
    inputs = scan_problem(length=130, channels=70, states=17, dtype=dtype)
    dots = directions_of(inputs, 2)
    assert_same_bits(run(CPU, inputs, dots), run(CPU, inputs, dots))


def test_kernels_may_be_called_from_several_threads() -> None:
    problems = [
        scan_problem(length=200, channels=40, states=5, seed=seed, dtype=torch.float32)
        for seed in range(6)
    ]
    alone = [run(CPU, problem, directions_of(problem, 1)) for problem in problems]

    def again(number: int) -> Rules:
        # Threads that disagree on their number share no pool, and must not end one another's.
        torch.set_num_threads(2 + number % 2)
        problem = problems[number % len(problems)]
        return run(CPU, problem, directions_of(problem, 1))

    with ThreadPoolExecutor(3) as pool:
        for number, found in enumerate(pool.map(again, range(48))):
            expected = alone[number % len(problems)]
            assert_same_bits(found[:2], expected[:2])
            assert_near(found, expected)
