"""The engine against whole-window autograd, finite differences, thought, and itself."""

import gc
import weakref
from dataclasses import dataclass, replace

import pytest
import torch
from laws import (
    additivity_law,
    assert_near,
    assert_same_bits,
    central_differences,
    errors,
    finish,
    inner,
    push_through,
    random_like,
)
from torch import Tensor
from toys import N_CODE, MovingAverage, RunningSum, genome, one_hot_table, output_columns, straight_stack, tiny_stack

from genoscan.engine.activations import activation_bytes
from genoscan.engine.adjoint import AdjointResult, adjoint, consume
from genoscan.engine.checkpoints import advances
from genoscan.engine.inputs import Dense, OneHot, Spans
from genoscan.engine.methods import Adjoint
from genoscan.engine.tangent import BaseChange, DenseDirections, tangent
from genoscan.engine.target import LogitSum, LogLikelihood, Target, WeightedSum, whole_window
from genoscan.errors import InputError
from genoscan.layer import Carry, leaves, map_leaves
from genoscan.layers.stack import Stack

F64, F32 = torch.float64, torch.float32
EVERY_TILE = (1, 7, 64, 1000)


def windows(length: int, dtype: torch.dtype = F64, batch: int = 1, seed: int = 1) -> OneHot:
    """Return windows of random bases, one in fifty of them N."""
    codes = genome(length, batch=batch, n_share=0.02, seed=seed)
    return OneHot(codes, one_hot_table(dtype))


def likelihood(inputs: OneHot, first: int, last: int, label_offset: int = 1) -> LogLikelihood:
    """Return the log-likelihood of the same bases of every window."""
    every = torch.ones(inputs.batch, dtype=torch.long)
    return LogLikelihood(inputs.codes, output_columns(), first * every, last * every, label_offset)


def log_p_of_next(outputs: Tensor, codes: Tensor) -> Tensor:
    """Return log p(base) where the base before it predicts it, 0 where it is N."""
    labels = codes[:, 1:].long()
    log_p = torch.log_softmax(outputs[:, :-1], -1)
    picked = log_p.gather(-1, labels.clamp(max=3)[..., None])[..., 0]
    return torch.where(labels == N_CODE, 0.0, picked)


def assert_rows_near(found: Tensor, truth: Tensor, inputs: OneHot, dtype: torch.dtype | None = None) -> None:
    """Compare derivatives, once more without those of N, which are large enough to hide others."""
    assert_near(found, truth, dtype)
    bases = inputs.codes != N_CODE
    assert_near(found[bases], truth[bases], dtype)


@dataclass(frozen=True)
class Truth:
    """One window, one region's log-likelihood, and all its derivatives by plain torch."""

    stack: Stack
    inputs: OneHot
    target: LogLikelihood
    carry: Carry
    value: Tensor
    x_bar: Tensor
    carry_bar: Carry
    parameters: list[Tensor]

    def adjoint(self, **options: int) -> tuple[Tensor, AdjointResult]:
        return finish(
            adjoint(self.stack, self.inputs, self.target, carry=self.carry, **options)  # type: ignore[arg-type]
        )

    def check(self, x_bar: Tensor, result: AdjointResult, dtype: torch.dtype = F64) -> None:
        assert_rows_near(x_bar, self.x_bar, self.inputs, dtype)
        assert_near(result.value, self.value, dtype)
        assert_near(result.carry_bar, self.carry_bar, dtype)


def by_torch(length: int, width: int) -> Truth:
    stack = tiny_stack(width, 2)
    inputs = windows(length)
    first, last = length // 8, length - length // 16
    carry = map_leaves(lambda leaf: leaf * 0.3, random_like(stack.begin(1), seed=5))
    opened = [inputs.tile(slice(0, length)), *leaves(carry), *stack.parameters()]
    for tensor in opened:
        tensor.requires_grad_()
    outputs = straight_stack(stack, opened[0], carry)
    # Entry t of the terms is about base t + 1.
    value = log_p_of_next(outputs, inputs.codes)[:, first - 1 : last - 1].sum(1)
    bars = list(torch.autograd.grad(value, opened))
    for tensor in opened:
        tensor.requires_grad_(False)
    n_leaves = len(leaves(carry))
    rest = iter(bars[1 : 1 + n_leaves])
    return Truth(
        stack,
        inputs,
        likelihood(inputs, first, last),
        carry,
        value.detach(),
        bars[0],
        map_leaves(lambda _leaf: next(rest), carry),
        bars[1 + n_leaves :],
    )


@pytest.fixture(scope="module")
def long_truth() -> Truth:
    return by_torch(4096, 16)


@pytest.fixture(scope="module")
def short_truth() -> Truth:
    return by_torch(301, 22)


# The adjoint


@pytest.mark.parametrize("tile", [64, 1000, 5000])
def test_adjoint_is_whole_window_autograd(long_truth: Truth, tile: int) -> None:
    assert (long_truth.inputs.codes == N_CODE).any()
    long_truth.check(*long_truth.adjoint(tile=tile, slots=8))


@pytest.mark.parametrize(
    ("tile", "slots"),
    [
        *(pytest.param(1, slots, marks=pytest.mark.slow) for slots in (5, 400)),
        *((tile, slots) for tile in (13, 64, 301, 1000) for slots in (1, 3, 400)),
    ],
)
def test_any_tile_and_any_slots(short_truth: Truth, tile: int, slots: int) -> None:
    short_truth.check(*short_truth.adjoint(tile=tile, slots=slots))


def test_parameters_cotangents_are_autograds(long_truth: Truth) -> None:
    parameters = list(long_truth.stack.requires_grad_(True).parameters())
    try:
        x_bar, result = long_truth.adjoint(tile=600, slots=3, parameters=parameters)  # type: ignore[arg-type]
    finally:
        long_truth.stack.requires_grad_(False)
    long_truth.check(x_bar, result)
    assert len(result.parameters) == len(parameters)
    for found, expected in zip(result.parameters, long_truth.parameters, strict=True):
        assert_near(found, expected)


def test_derivative_of_an_n_is_the_true_one(long_truth: Truth) -> None:
    """A row of zeros has a derivative like any other."""
    at = (long_truth.inputs.codes[0] == N_CODE).nonzero()[0, 0]
    x_bar, _ = long_truth.adjoint(tile=1000, slots=8)
    assert x_bar[0, at].abs().min() > 0
    assert_near(x_bar[0, at], long_truth.x_bar[0, at], bar=1e-11)


@pytest.mark.parametrize("dtype", [F64, F32])
def test_slots_do_not_change_a_bit(dtype: torch.dtype) -> None:
    stack, inputs = tiny_stack(22, 2, dtype=dtype), windows(700, dtype)
    target = whole_window(inputs.codes, output_columns())
    expected = None
    for slots in (1, 2, 5, 100):
        for kept in (1, 2, 7, 100):
            found = finish(adjoint(stack, inputs, target, tile=30, slots=slots, kept=kept))
            assert_same_bits(found, expected or found)
            expected = found


def test_tiles_in_memory_are_run_once() -> None:
    stack, inputs = tiny_stack(8, 2), windows(700, F64)
    run: list[int] = []
    target = whole_window(inputs.codes, output_columns())
    finish(adjoint(stack, inputs, target, tile=100, slots=9, kept=7, progress=run.append))
    assert sum(run) == 700  # one report for each tile, after its backward pass


def test_the_method_keeps_what_fits() -> None:
    stack, inputs = tiny_stack(16, 2, dtype=F32), windows(4_000, F32)
    each = activation_bytes(stack, inputs.tile(slice(0, 256)))
    assert each == pytest.approx(activation_bytes(stack, inputs.tile(slice(0, 512))), rel=0.02)
    method = Adjoint(tile=256, slots=4, position_bytes=each)
    assert method.fit(stack, 4_000, 1) == method
    half = replace(method, memory=8 * 256 * each)
    assert [half.fit(stack, length, batch).kept for length, batch in ((4_000, 1), (4_000, 4), (300, 1))] == [8, 2, 2]
    assert replace(method, memory=1).fit(stack, 4_000, 1).kept == 1
    costs = [one.fit(stack, 4_000, 1).cost(stack, 4_000, 1).recomputed for one in (method, half)]
    assert costs[0] > costs[1] == 8 / 16


def test_tiles_agree_in_float32() -> None:
    stack, inputs = tiny_stack(32, 2, d_state=16, dtype=F32), windows(2048, F32)
    target = whole_window(inputs.codes, output_columns())
    expected, _ = finish(adjoint(stack, inputs, target, tile=5000, slots=1))
    for tile in (7, 64, 1000):
        found, _ = finish(adjoint(stack, inputs, target, tile=tile, slots=300))
        assert_rows_near(found, expected, inputs)


def test_float32_is_float64_to_rounding(long_truth: Truth) -> None:
    stack = tiny_stack(16, 2, dtype=F32)
    inputs = OneHot(long_truth.inputs.codes, one_hot_table(F32))
    carry = map_leaves(lambda leaf: leaf.float(), long_truth.carry)
    pull = adjoint(stack, inputs, long_truth.target, tile=512, slots=8, carry=carry)
    long_truth.check(*finish(pull), F32)


def test_spans_come_right_to_left_and_cover_the_window() -> None:
    stack, inputs = tiny_stack(8, 1), windows(100)
    target = whole_window(inputs.codes, output_columns())
    rows = list(adjoint(stack, inputs, target, tile=30, slots=2))
    assert [(span.start, span.stop) for span, _ in rows] == [(70, 100), (40, 70), (10, 40), (0, 10)]
    assert [x_bar.shape for _, x_bar in rows] == [*[(1, 30, 4)] * 3, (1, 10, 4)]
    assert not any(x_bar.requires_grad for _, x_bar in rows)


def test_progress_counts_every_tile_that_was_run() -> None:
    stack, inputs = tiny_stack(8, 1), windows(330)
    target = whole_window(inputs.codes, output_columns())
    told: list[int] = []
    finish(adjoint(stack, inputs, target, tile=30, slots=3, progress=told.append))
    assert set(told) == {30}
    assert len(told) == 11 + advances(11, 3)


def test_consume_hands_every_tile_on() -> None:
    stack, inputs = tiny_stack(8, 1), windows(100)
    target = whole_window(inputs.codes, output_columns())
    expected, expected_result = finish(adjoint(stack, inputs, target, tile=30, slots=2))
    found = torch.zeros_like(expected)

    def receive(span: slice, x_bar: Tensor) -> None:
        found[:, span] = x_bar

    result = consume(adjoint(stack, inputs, target, tile=30, slots=2), receive)
    assert_same_bits((found, result), (expected, expected_result))


def test_windows_side_by_side_are_windows_alone() -> None:
    stack, inputs = tiny_stack(22, 2), windows(200, batch=3)
    target = LogLikelihood(inputs.codes, output_columns(), torch.tensor([0, 50, 120]), torch.tensor([200, 130, 121]))
    together, result = finish(adjoint(stack, inputs, target, tile=33, slots=3))
    for i in range(3):
        one = OneHot(inputs.codes[i : i + 1], inputs.table)
        alone, value = finish(
            adjoint(stack, one, likelihood(one, int(target.first[i]), int(target.last[i])), tile=33, slots=3)
        )
        assert_near(together[i : i + 1], alone)
        assert_near(result.value[i : i + 1], value.value)


def test_carry_past_the_window_is_the_forward_one(short_truth: Truth) -> None:
    whole = short_truth.inputs.tile(slice(0, 301))
    _, expected = short_truth.stack.forward(whole, short_truth.carry)
    for tile in (64, 302):
        _, result = short_truth.adjoint(tile=tile, slots=2)
        assert_near(result.carry, expected)
        assert not any(leaf.requires_grad for leaf in leaves(result.carry))


def test_a_window_goes_on_from_the_carry_of_another() -> None:
    """Cut at 180: the right part, begun with the left part's carry, has the whole's derivatives."""
    stack, inputs = tiny_stack(22, 2), windows(300)
    target = likelihood(inputs, 200, 300)
    expected, whole = finish(adjoint(stack, inputs, target, tile=40, slots=4))
    _, between = stack.forward(inputs.tile(slice(0, 180)), stack.begin(1))
    right = OneHot(inputs.codes[:, 180:], inputs.table)
    found, part = finish(adjoint(stack, right, likelihood(right, 20, 120), tile=40, slots=4, carry=between))
    assert_near(found, expected[:, 180:])
    assert_near(part.value, whole.value)


def test_bases_after_the_target_are_zero_to_the_bit() -> None:
    stack, inputs = tiny_stack(22, 2, dtype=F32), windows(300, F32)
    target = LogitSum(torch.tensor([123]), torch.tensor([124]), torch.eye(4)[1:2])
    x_bar, _ = finish(adjoint(stack, inputs, target, tile=50, slots=4))
    assert not x_bar[:, 124:].any()
    assert x_bar[:, 123].all()


def test_an_abandoned_adjoint_leaves_no_harm() -> None:
    stack, inputs = tiny_stack(8, 1), windows(200)
    target = whole_window(inputs.codes, output_columns())
    expected = finish(adjoint(stack, inputs, target, tile=20, slots=3))
    pull = adjoint(stack, inputs, target, tile=20, slots=3)
    _, x_bar = next(pull)
    assert torch.is_grad_enabled()
    held = weakref.ref(x_bar)
    next(pull)
    pull.close()
    del x_bar, pull
    gc.collect()
    assert held() is None
    assert torch.is_grad_enabled()
    assert_same_bits(finish(adjoint(stack, inputs, target, tile=20, slots=3)), expected)


def test_two_adjoints_may_take_turns() -> None:
    stack, inputs = tiny_stack(8, 1), windows(200)
    targets = [likelihood(inputs, 0, 200), likelihood(inputs, 100, 150)]
    expected = [finish(adjoint(stack, inputs, target, tile=20, slots=3))[0] for target in targets]
    pulls = [adjoint(stack, inputs, target, tile=20, slots=3) for target in targets]
    for (span, first), (_, second) in zip(*pulls, strict=True):
        assert_same_bits((first, second), (expected[0][:, span], expected[1][:, span]))


@pytest.mark.parametrize("grad", [True, False])
def test_the_callers_grad_mode_does_not_matter(grad: bool) -> None:
    stack, inputs = tiny_stack(8, 1), windows(100)
    target = whole_window(inputs.codes, output_columns())
    expected = finish(adjoint(stack, inputs, target, tile=30, slots=2))
    with torch.set_grad_enabled(grad):
        assert_same_bits(finish(adjoint(stack, inputs, target, tile=30, slots=2)), expected)


@pytest.mark.parametrize(
    ("length", "tile", "slots", "words"),
    [
        (50, 0, 3, "tile 0: at least 1"),
        (50, -7, 3, "tile -7: at least 1"),
        (50, 10, 0, "slots 0: at least 1"),
        (0, 10, 3, "0 tiles: at least one"),
    ],
)
def test_impossible_sizes_are_errors(length: int, tile: int, slots: int, words: str) -> None:
    stack, inputs = tiny_stack(8, 1), windows(length)
    target = whole_window(inputs.codes, output_columns())
    with pytest.raises(InputError, match=words):
        finish(adjoint(stack, inputs, target, tile=tile, slots=slots))


def test_a_tangents_tile_of_none_is_an_error() -> None:
    stack, inputs = tiny_stack(8, 1), windows(50)
    with pytest.raises(InputError, match="tile 0: at least 1"):
        next(tangent(stack, inputs, BaseChange(3, torch.eye(4, dtype=F64)), tile=0))


# Layers whose answers are known by thought


@pytest.mark.parametrize("tile", EVERY_TILE)
def test_running_sum_by_thought(tile: int) -> None:
    layer, x = RunningSum(2), random_like(torch.zeros(2, 50, 2, dtype=F64))
    weights = random_like(x, seed=2)
    x_bar, result = finish(adjoint(layer, Dense(x), WeightedSum(weights), tile=tile, slots=3))
    assert_near(x_bar, weights.flip(1).cumsum(1).flip(1))
    assert_near(result.value, (weights * x.cumsum(1)).sum((1, 2)))
    assert_near(result.carry_bar, weights.sum(1))
    assert_near(result.carry, x.sum(1))


@pytest.mark.parametrize("tile", EVERY_TILE)
def test_moving_average_by_thought(tile: int) -> None:
    layer = MovingAverage(1, 5)
    x = torch.zeros(1, 40, 1, dtype=F64)
    weights = torch.zeros_like(x)
    weights[0, 20] = 10
    x_bar, _ = finish(adjoint(layer, Dense(x), WeightedSum(weights), tile=tile, slots=3))
    assert x_bar.flatten().tolist() == [0] * 16 + [2] * 5 + [0] * 19
    x_dot = torch.zeros(1, 1, 40, 1, dtype=F64)
    x_dot[0, 0, 20] = 10
    _, y_dot = push_through(tangent(layer, Dense(x), DenseDirections(x_dot), tile=tile))
    assert y_dot.flatten().tolist() == [0] * 20 + [2] * 5 + [0] * 15


# The tangent


def test_tangent_is_whole_window_jvp(short_truth: Truth) -> None:
    inputs = short_truth.inputs
    x = inputs.tile(slice(0, inputs.length))
    x_dot = random_like(x.new_zeros(3, *x.shape))

    def whole(x: Tensor) -> Tensor:
        return straight_stack(short_truth.stack, x, short_truth.carry)

    expected = [torch.func.jvp(whole, (x,), (one,)) for one in x_dot]
    for tile in (7, 64, 302):
        push = tangent(short_truth.stack, inputs, DenseDirections(x_dot), tile=tile, carry=short_truth.carry)
        outputs, outputs_dot = push_through(push)
        assert_near(outputs, expected[0][0])
        assert_near(outputs_dot, torch.stack([y_dot for _, y_dot in expected]))


@pytest.mark.parametrize("dtype", [F64, F32])
def test_directions_together_are_directions_alone(dtype: torch.dtype) -> None:
    stack, inputs = tiny_stack(22, 2, dtype=dtype), windows(150, dtype, batch=2)
    x_dot = random_like(torch.zeros(4, 2, 150, 4, dtype=dtype))
    outputs, together = push_through(tangent(stack, inputs, DenseDirections(x_dot), tile=40))
    assert_near(outputs, stack.forward(inputs.tile(slice(0, 150)), stack.begin(2))[0])
    for i in range(4):
        one = DenseDirections(x_dot[i : i + 1])
        _, alone = push_through(tangent(stack, inputs, one, tile=40))
        assert_near(together[i : i + 1], alone)


@pytest.mark.parametrize("tile", [1, 64, 100, 1000])
def test_tangent_is_zero_to_the_bit_before_its_first_base(tile: int) -> None:
    stack, inputs = tiny_stack(22, 2, dtype=F32), windows(200, F32)
    present = inputs.tile(slice(100, 101))[0, 0]
    changes = torch.eye(4) - present
    _, y_dot = push_through(tangent(stack, inputs, BaseChange(100, changes), tile=tile))
    assert not y_dot[:, :, :100].any()
    others = changes.any(1)
    assert y_dot[others][:, :, 100].any(-1).all()
    # From a base to itself nothing changes anywhere.
    assert not y_dot[~others].any()


def test_a_base_change_is_a_dense_direction() -> None:
    stack, inputs = tiny_stack(22, 2), windows(90)
    changes = random_like(torch.zeros(3, 4, dtype=F64))
    x_dot = torch.zeros(3, 1, 90, 4, dtype=F64)
    x_dot[:, 0, 37] = changes
    found = push_through(tangent(stack, inputs, BaseChange(37, changes), tile=20))
    expected = push_through(tangent(stack, inputs, DenseDirections(x_dot), tile=20))
    assert_same_bits(found, expected)


def test_an_abandoned_tangent_leaves_no_harm() -> None:
    stack, inputs = tiny_stack(8, 1), windows(100)
    change = BaseChange(0, torch.eye(4, dtype=F64))
    expected = push_through(tangent(stack, inputs, change, tile=20))
    push = tangent(stack, inputs, change, tile=20)
    next(push)
    assert torch.is_grad_enabled()
    push.close()
    assert_same_bits(push_through(tangent(stack, inputs, change, tile=20)), expected)


# Both


@pytest.mark.parametrize(("length", "tile"), [(500, 64), (65_536, 4096)])
def test_dot_product_identity(length: int, tile: int) -> None:
    """<w, J v> == <J' w, v>, whatever the length: no whole-window graph is needed."""
    stack, inputs = tiny_stack(16, 2), windows(length)
    weights = random_like(torch.zeros(1, length, 4, dtype=F64), seed=2)
    x_dot = random_like(torch.zeros(1, 1, length, 4, dtype=F64), seed=3)
    x_bar, _ = finish(adjoint(stack, inputs, WeightedSum(weights), tile=tile, slots=4))
    _, y_dot = push_through(tangent(stack, inputs, DenseDirections(x_dot), tile=tile))
    there, back = inner(weights, y_dot[0]), inner(x_bar, x_dot[0])
    error = abs(there - back) / abs(there)
    print(f"relative error {error:.1e}")
    assert error <= 1e-10


def test_finite_differences() -> None:
    length = 600
    stack, inputs = tiny_stack(22, 2), windows(length)
    target = whole_window(inputs.codes, output_columns())
    x_bar, _ = finish(adjoint(stack, inputs, target, tile=100, slots=3))
    random = torch.Generator().manual_seed(9)
    # Not an N: where the norm meets a row of zeros, its slope is far from straight.
    bases = (inputs.codes[0, :-1] != N_CODE).nonzero()[:, 0]
    positions = bases[torch.randperm(len(bases), generator=random)][:32].tolist()
    places = [(position, column) for position in positions for column in range(4)]

    def terms(x: Tensor) -> Tensor:
        outputs, _ = stack.forward(x, stack.begin(len(x)))
        return log_p_of_next(outputs, inputs.codes.expand(len(x), -1))

    found = central_differences(terms, inputs.tile(slice(0, length)), places, 1e-5)
    expected = torch.stack([x_bar[0, position, column] for position, column in places])
    print(f"relative error {errors(expected, found)[0]:.1e}")
    assert_near(expected, found, bar=1e-6)


# Targets


def test_every_target_adds_up() -> None:
    outputs = random_like(torch.zeros(3, 60, 4, dtype=F64))
    codes = genome(60, batch=3, n_share=0.1)
    per_window = torch.tensor([0, 17, 58]), torch.tensor([60, 30, 900])
    targets: list[Target] = [
        whole_window(codes, output_columns()),
        whole_window(codes, output_columns(), label_offset=0),
        LogLikelihood(codes, output_columns(), *per_window),
        LogLikelihood(codes, output_columns(), *per_window, label_offset=0),
        LogitSum(torch.tensor([0, 31, 59]), torch.tensor([1, 32, 60]), random_like(torch.zeros(3, 4, dtype=F64))),
        WeightedSum(random_like(outputs, seed=2)),
    ]
    for target in targets:
        additivity_law(target, outputs, cuts=[1, 16, 17, 18, 31, 32, 59])


@pytest.mark.parametrize("label_offset", [0, 1])
def test_log_likelihood_by_hand(label_offset: int) -> None:
    codes = torch.tensor([[0, 1, 2, 3, N_CODE, 1], [3, 3, 3, 3, 3, 3]], dtype=torch.uint8)
    # A model of six symbols that keeps its bases in columns 5, 2, 3 and 0.
    columns = torch.tensor([5, 2, 3, 0, -1])
    outputs = random_like(torch.zeros(2, 6, 6, dtype=F64))
    log_p = torch.log_softmax(outputs, -1)
    target = LogLikelihood(codes, columns, torch.tensor([0, 2]), torch.tensor([99, 4]), label_offset)
    first = {0: [(0, 5), (1, 2), (2, 3), (3, 0), (5, 2)], 1: [(0, 2), (1, 3), (2, 0), (4, 2)]}[label_offset]
    second = {0: [(2, 0), (3, 0)], 1: [(1, 0), (2, 0)]}[label_offset]
    expected = [sum(log_p[0, t, c] for t, c in first), sum(log_p[1, t, c] for t, c in second)]
    assert_near(target(outputs, slice(0, 6)), torch.stack(expected))


def test_log_likelihood_of_nothing_is_zero() -> None:
    codes = torch.full((1, 20), N_CODE, dtype=torch.uint8)
    stack, inputs = tiny_stack(8, 1), OneHot(codes, one_hot_table())
    x_bar, result = finish(adjoint(stack, inputs, whole_window(codes, output_columns()), tile=7, slots=2))
    assert not x_bar.any()
    assert result.value.tolist() == [0]


def test_labels_are_held_fixed() -> None:
    """The last base is a label only: nothing that it changes as input is counted."""
    stack, inputs = tiny_stack(8, 1), windows(60)
    target = whole_window(inputs.codes, output_columns())
    x_bar, _ = finish(adjoint(stack, inputs, target, tile=16, slots=2))
    assert not x_bar[:, -1].any()


def test_logit_at_by_hand() -> None:
    outputs = random_like(torch.zeros(2, 6, 4, dtype=F64))
    odds = torch.tensor([[-1 / 3, 1, -1 / 3, -1 / 3], [1, 0, 0, 0]], dtype=F64)
    target = LogitSum(torch.tensor([2, 5]), torch.tensor([3, 6]), odds)
    expected = torch.stack([outputs[0, 2, 1] - outputs[0, 2, [0, 2, 3]].mean(), outputs[1, 5, 0]])
    assert_near(target(outputs, slice(0, 6)), expected)
    assert target(outputs[:, :2], slice(0, 2)).tolist() == [0, 0]


# Inputs


def test_one_hot_reads_its_table() -> None:
    inputs = OneHot(torch.tensor([[0, 3, N_CODE]], dtype=torch.uint8), one_hot_table())
    assert (inputs.batch, inputs.length) == (1, 3)
    assert inputs.tile(slice(1, 3)).tolist() == [[[0, 0, 0, 1], [0.25] * 4]]


def test_spans_cover_the_window() -> None:
    assert [(span.start, span.stop) for span in Spans(7, 3)] == [(0, 1), (1, 4), (4, 7)]
    assert [(span.start, span.stop) for span in Spans(6, 3)] == [(0, 3), (3, 6)]
    assert [(span.start, span.stop) for span in Spans(2, 3)] == [(0, 2)]
