"""What rounding may do to the scan: the exponentials under it, and 131,072 bases of it."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
import torch
from laws import TOLERANCE, assert_near, assert_same_bits, errors, random_like
from operations import bars_for, directions_for, rules, truth
from torch import Tensor
from toys import each, scan_problem

from genoscan.ops import lane_math, lanes
from genoscan.ops.cpu import CPU
from genoscan.ops.kernels import Kernels, ScanInputs

pytestmark = pytest.mark.usefixtures("poisoned_memory")

KINDS = pytest.mark.parametrize("kind", [np.float64, np.float32], ids=["float64", "float32"])
BARS = {np.float64: 1e-15, np.float32: 2.5e-7}
"""A little over two units in the last place of float32, as relative errors."""


# The exponentials


@pytest.fixture(scope="module")
def by_lanes() -> Callable[[Any, np.ndarray], np.ndarray]:
    """Return what calls a function of `lanes` on an array, sixteen numbers at a time."""
    # Compiled anew, once a run: a stored one would not know of a change in what it calls.
    fillers: dict[Any, Any] = {}

    def filler(function: Any) -> Any:
        @numba.njit(fastmath={"contract", "nsz"}, error_model="numpy")
        def fill(x, out):  # type: ignore[no-untyped-def]
            lanes.use_widest_vectors()
            for i in range(len(x) // lanes.LANES):
                lanes.store(out, i, function(lanes.load(x, i)))

        return fill

    def apply(function: Any, x: np.ndarray) -> np.ndarray:
        if function not in fillers:
            fillers[function] = filler(function)
        filled = np.resize(x, -(-len(x) // lanes.LANES) * lanes.LANES)
        out = np.zeros_like(filled)
        fillers[function](filled, out)
        return out[: len(x)]

    return apply


@numba.njit(inline="always")
def sine(x):  # type: ignore[no-untyped-def]
    return lane_math.sine(x, 0.0)


@numba.njit(inline="always")
def cosine(x):  # type: ignore[no-untyped-def]
    return lane_math.sine(x, 1.0)


def lowest(kind: type) -> int:
    """Return the least k for which 2^k is a normal number."""
    return int(np.finfo(kind).minexp)


def negatives(kind: type, least: float, seams: np.ndarray) -> np.ndarray:
    """Numbers from 0 to the least one: of every order, a dense sweep, and around the seams."""
    # A result below the normal numbers, as ln 2 times the smallest is, has not all its digits.
    smallest = 2 * float(np.finfo(kind).tiny)
    near = [seams * (1 + step) for step in (-1e-6, -1e-15, 0, 1e-15, 1e-6)]
    sizes = [np.geomspace(smallest, -least, 20_001), np.linspace(1e-6, min(60, -least), 60_001)]
    x = -np.concatenate([*sizes, *near]).astype(kind)
    return x[x >= least]


def worst(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs((found - exact) / exact).max())


@KINDS
def test_decay_to_the_last_place(kind: type, by_lanes: Any) -> None:
    seams = np.append(np.arange(0.5, 60), [1, 2, 3])
    z2 = negatives(kind, lowest(kind), seams)
    found, long = by_lanes(lane_math.decay, z2), z2.astype(np.longdouble)
    keeps = z2 > -1
    exact = np.where(keeps, np.expm1(long * np.log(np.longdouble(2))), np.exp2(long))
    assert worst(found, exact) <= BARS[kind]
    # What tells the forms apart.
    assert (found[keeps] <= 0).all()
    assert (found[~keeps] > 0).all()
    assert keeps.any() and not keeps.all()
    assert by_lanes(lane_math.decay, np.array([0.0, -0.0], kind)).tolist() == [0, 0]
    just_above = np.nextafter(kind(-1), kind(0))
    ends = by_lanes(lane_math.decay, np.array([-1, just_above], kind))
    assert np.allclose(ends, [0.5, -0.5], rtol=2 * BARS[kind], atol=0)


@KINDS
def test_decay_beyond_all_numbers_is_next_to_nothing_and_not_nothing(kind: type, by_lanes: Any) -> None:
    least = lowest(kind)
    beyond = by_lanes(lane_math.decay, np.array([1.5 * least, 1000 * least, -1e30, -np.inf], kind))
    assert (beyond > 0).all()
    assert (beyond < 4 * np.finfo(kind).tiny).all()


@KINDS
def test_exponential_to_the_last_place(kind: type, by_lanes: Any) -> None:
    seams = np.arange(0.5, 60) * np.log(2)
    x = np.append(negatives(kind, lowest(kind) * np.log(2) * (1 - 1e-6), seams), kind(0))
    found = by_lanes(lane_math.exponential, x)
    assert worst(found, np.exp(x.astype(np.longdouble))) <= BARS[kind]
    assert by_lanes(lane_math.exponential, np.array([0.0, -0.0], kind)).tolist() == [1, 1]
    beyond = by_lanes(lane_math.exponential, np.array([1.5, 1000, np.inf], kind) * lowest(kind))
    assert (beyond >= 0).all()
    assert (beyond < 4 * np.finfo(kind).tiny).all()


@KINDS
def test_one_minus_exponential_near_0(kind: type, by_lanes: Any) -> None:
    seams = np.append(np.log(2) * np.arange(0.5, 4), np.log(2))
    x = np.append(
        negatives(kind, lowest(kind) * np.log(2) * (1 - 1e-6), seams), -np.geomspace(1e-30, 1, 999).astype(kind)
    )
    found = by_lanes(lane_math.one_minus_exponential, x)
    assert worst(found, -np.expm1(x.astype(np.longdouble))) <= 2 * BARS[kind]
    assert by_lanes(lane_math.one_minus_exponential, np.array([0.0, -0.0, -np.inf], kind)).tolist() == [0, 0, 1]


def both_sides(kind: type) -> np.ndarray:
    seams = np.arange(0.5, 60) * np.log(2)
    left = negatives(kind, lowest(kind) * np.log(2) * (1 - 1e-6), seams)
    far = np.geomspace(100, 1e30, 101).astype(kind)
    return np.concatenate([left, -left, far, np.zeros(1, kind)])


@KINDS
def test_sigmoid_to_the_last_place(kind: type, by_lanes: Any) -> None:
    x = both_sides(kind)
    long = x.astype(np.longdouble)
    small = np.exp(-np.abs(long))
    exact = np.where(x > 0, 1, small) / (1 + small)
    assert worst(by_lanes(lane_math.sigmoid, x), exact) <= 1.5 * BARS[kind]


@KINDS
@pytest.mark.parametrize(("function", "exact"), [(sine, np.sin), (cosine, np.cos)])
def test_sine_to_the_last_place_of_one(kind: type, function: Any, exact: Any, by_lanes: Any) -> None:
    random = np.random.default_rng(1)
    seams = np.arange(-5200, 5200) * (np.pi / 4)
    x = np.concatenate([random.uniform(-8192, 8192, 50_000), random.normal(size=50_000), seams, [0.0]]).astype(kind)
    found = by_lanes(function, x)
    assert np.abs(found - exact(x.astype(np.longdouble))).max() <= 2 * np.finfo(kind).eps
    assert np.isnan(by_lanes(function, np.array([np.nan, np.inf], kind))).all()


@KINDS
def test_softplus_to_the_last_place(kind: type, by_lanes: Any) -> None:
    x = both_sides(kind)
    long = x.astype(np.longdouble)
    exact = np.log1p(np.exp(-np.abs(long))) + np.maximum(long, 0)
    assert worst(by_lanes(lane_math.softplus, x), exact) <= 1.5 * BARS[kind]


# The long run


def test_checkpoints_do_not_change_the_answer(dtype: torch.dtype) -> None:
    inputs = scan_problem(length=70, channels=20, states=17, dtype=dtype)
    with_checkpoints, checkpoints = CPU.scan.forward(inputs, save=True)
    without, nothing = CPU.scan.forward(inputs, save=False)
    assert_same_bits(with_checkpoints, without)
    assert sum(part.numel() for part in checkpoints) > 0
    assert sum(part.numel() for part in nothing) == 0


def decay_grid(dtype: torch.dtype) -> ScanInputs:
    """Decays from exp(-1e-10) to exp(-1e5), steps that change from base to base."""
    inputs = scan_problem(length=70, channels=24, states=8, dtype=dtype)
    rates = torch.logspace(-4, 3, 8)
    steps = torch.logspace(-6, 2, 24).roll(5)
    A = -rates.expand(24, 8).to(dtype)
    delta = torch.stack([steps.roll(shift) for shift in range(70)])[None].to(dtype)
    return inputs._replace(A=A, delta=delta)


def test_no_decay_makes_nan(kernels: Kernels, dtype: torch.dtype) -> None:
    inputs = decay_grid(dtype)[:7]
    asked = inputs, bars_for("scan", inputs), directions_for(inputs, 2)
    found, expected = rules(kernels, "scan", *asked), truth("scan", *asked)
    for tensors in found:
        assert all(torch.isfinite(tensor).all() for tensor in tensors)
    if kernels is CPU or dtype == torch.float64:
        assert_near(found, expected, dtype)


LONG = 131_072
DECAYS = -torch.logspace(-10, 5, 31, dtype=torch.float64)
INFLOWS = ("normal", "positive", "three-valued", "constant")


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


def doubled(inputs: ScanInputs) -> ScanInputs:
    return each(Tensor.double, inputs)


def forward(inputs: ScanInputs) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Return y, the state at the end and the checkpoints."""
    (y, state), checkpoints = CPU.scan.forward(inputs, save=True)
    return y, state, checkpoints


def vjp(inputs: ScanInputs, checkpoints: tuple[Tensor, ...], *bars: Tensor) -> ScanInputs:
    return ScanInputs(*CPU.scan.vjp(inputs, checkpoints, bars, (True,) * len(inputs)))


def jvp(inputs: ScanInputs, dots: ScanInputs) -> tuple[Tensor, Tensor]:
    """Return the tangents of y and of the state at the end."""
    _, (y_dot, state_dot) = CPU.scan.jvp(inputs, dots)
    return y_dot, state_dot


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
    problems = [long_problem(kind) for kind in INFLOWS]
    decay = np.expm1(DECAYS.float().double().numpy())
    h = np.stack([problem.state[0, :, 0].double().numpy() for problem in problems])
    b = np.stack([problem.B[0, :, 0].double().numpy() for problem in problems])
    rows = []
    for t in range(LONG):
        h = h + (decay * h + b[:, t, None])
        if t % 64 == 63:
            rows.append(h)
    for i, problem in enumerate(problems):
        y, _, _ = forward(doubled(problem))
        expected = torch.from_numpy(np.stack([row[i] for row in rows]))
        assert by_channel(y[0, 63::64], expected, 1) <= 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("kind", INFLOWS)
def test_float32_keeps_every_decay_over_a_long_run(kind: str) -> None:
    """The bar of rounding: 1e-5 against float64 at 131,072 bases.

    What has a number at every base is held to it in every channel, however small its numbers;
    what is one number a channel, and may cancel to nothing there, over all channels.
    """
    inputs = long_problem(kind)
    exact = doubled(inputs)
    y, state, saved = forward(inputs)
    y_exact, state_exact, kept_exact = forward(exact)
    # With u and C at one and D at zero, y is the state at every base.
    measured = {"y": by_channel(y, y_exact, 2), "state": overall(state, state_exact)}

    # The same kind of numbers comes back from the right as went in from the left.
    y_bar = inflow(kind).flip(0)[None, :, None].expand_as(y).contiguous()
    bars = vjp(inputs, saved, y_bar, state)
    bars_exact = vjp(exact, kept_exact, y_bar.double(), state.double())
    for name in ("u", "delta"):
        found, expected = getattr(bars, name), getattr(bars_exact, name)
        measured[f"{name}_bar"] = by_channel(found, expected, 2)
    for name in ("A", "B", "C", "state"):
        measured[f"{name}_bar"] = overall(getattr(bars, name), getattr(bars_exact, name))

    # Tangents: of the inputs alone, and of the decays alone.
    nothing = each(torch.zeros_like, inputs)
    into_b = nothing._replace(B=inputs.B.flip(1), state=inputs.state)
    into_delta = nothing._replace(delta=inputs.B.expand_as(inputs.delta))
    dots = ScanInputs(*map(torch.stack, zip(into_b[:7], into_delta[:7], strict=True)))
    y_dot, state_dot = jvp(inputs, dots)
    y_dot_exact, state_dot_exact = jvp(exact, doubled(dots))
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
    _, state, saved = forward(inputs)
    left = torch.exp(-3 * rates.double())[None, :, None]
    bars = vjp(inputs, saved, torch.zeros_like(inputs.u), torch.ones_like(state))
    nothing = each(lambda tensor: torch.zeros_like(tensor)[None], inputs)
    _, state_dot = jvp(inputs, nothing._replace(state=torch.ones_like(inputs.state)[None]))
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
    nothing = each(lambda tensor: torch.zeros_like(tensor)[None], inputs)
    dots = nothing._replace(state=inputs.state[None], u=inputs.u[None])
    y_bar = random_like(inputs.u)
    y_bar[:, :30] = 0

    def all_rules(given: ScanInputs) -> tuple[Tensor, ...]:
        y, state, saved = forward(given)
        bars = vjp(given, saved, y_bar.to(y), torch.ones_like(state))
        y_dot, state_dot = jvp(given, each(lambda dot: dot.to(y), dots))
        return y[:, 30:], state, bars.state, y_dot[0, :, 30:], state_dot[0]

    for found, expected in zip(all_rules(inputs), all_rules(doubled(inputs)), strict=True):
        assert_near(found, expected)
