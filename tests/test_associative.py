"""The associative form: its law, and the same numbers as the kernels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import assert_near, random_like
from operations import OPERATIONS, by_layers, called, problem, questions, truth
from torch import Tensor

from genoscan.ops.associative import ASSOCIATIVE, Step, compose, prefix_scan
from genoscan.pgf import FrechetMambaOperator

SCANS = ("scan", "gated_scan", "phi_scan")

decays = st.floats(0, 1)
others = st.floats(-10, 10)
steps = st.builds(Step, *(kind.map(torch.tensor) for kind in (decays, others, others, others)))
steps = steps.map(lambda step: Step(*(part.double() for part in step)))


def sized(step: Step) -> Step:
    return Step(*(part.abs() for part in step))


@given(steps, steps, steps)
def test_composition_is_associative(one: Step, two: Step, three: Step) -> None:
    left, right = compose(compose(one, two), three), compose(one, compose(two, three))
    # Rounding goes by what is added up, and not by what is left of it.
    added = compose(compose(sized(one), sized(two)), sized(three))
    for a, b, size in zip(left, right, added, strict=True):
        assert abs(a - b) <= 1e-14 * size


@given(steps, others, others)
def test_nothing_before_or_after_changes_nothing(step: Step, h: float, h_dot: float) -> None:
    nothing = Step(*(torch.tensor(x, dtype=torch.float64) for x in (1, 0, 0, 0)))
    assert compose(nothing, step) == compose(step, nothing) == step


@given(steps, steps, others, others)
def test_composition_is_one_step_after_the_other(one: Step, two: Step, h: float, h_dot: float) -> None:
    """And the tangent is that of the step: the two-fold recurrence itself."""

    def taken(step: Step, h: Tensor, h_dot: Tensor) -> tuple[Tensor, Tensor]:
        return step.a * h + step.b, step.a * h_dot + step.k * h + step.j

    start = torch.tensor(h).double(), torch.tensor(h_dot).double()
    found, expected = taken(compose(one, two), *start), taken(two, *taken(one, *start))
    added = taken(compose(sized(one), sized(two)), *(abs(part) for part in start))
    for a, b, size in zip(found, expected, added, strict=True):
        assert abs(a - b) <= 1e-14 * size


@pytest.mark.parametrize("length", [1, 2, 3, 8, 37])
def test_prefixes_are_steps_taken_in_turn(length: int) -> None:
    shape = (2, length, 3, 4)
    a, b, k, j = random_like((torch.zeros(shape).double(),) * 2 + (torch.zeros(5, *shape).double(),) * 2)
    rows = Step(a.sigmoid(), k, b, j)
    found, so_far = prefix_scan(rows), Step(*(part[..., 0, :, :] for part in rows))
    for t in range(length):
        if t:
            so_far = compose(so_far, Step(*(part[..., t, :, :] for part in rows)))
        assert_near(tuple(part[..., t, :, :] for part in found), tuple(so_far))


@pytest.mark.parametrize(("name", "size"), [(name, size) for name in SCANS for size in OPERATIONS[name].modest])
def test_the_scan_is_the_reference(name: str, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    asked = questions(name, *size, dtype=dtype)
    assert_near(by_layers(called(ASSOCIATIVE, name), *asked), truth(name, *asked), dtype)


@pytest.mark.parametrize("rate", [1e-10, 1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e5])
def test_no_decay_is_too_slow_or_too_fast(rate: float) -> None:
    """Where cumulative sums of logarithms overflow, from rate 0.1 on in tiles of 1,024."""
    u, _, _, *others = problem("scan", 1024, 4, 3, dtype=torch.float32)
    delta = 0.5 + torch.rand(u.shape, generator=torch.Generator().manual_seed(1))
    inputs = u, delta, -rate * torch.ones(4, 3), *others
    y, state = ASSOCIATIVE.scan(*inputs, input_map="phi")
    exact = ASSOCIATIVE.scan(*(part.double() for part in inputs), input_map="phi")
    assert_near((y, state), exact, bar=1e-5)


def test_the_operator_has_it_as_a_second_route() -> None:
    torch.manual_seed(1)
    made = FrechetMambaOperator(12, 4).double()
    u, du, y_bar = random_like((torch.zeros(300, 12).double(),) * 3)
    y, dy = made.pgf_forward(u, du)
    gradients = made.pgf_gradients(u, y_bar)
    made.kernels = "associative"
    assert_near(made.pgf_forward(u, du), (y, dy))
    again = made.pgf_gradients(u, y_bar)
    assert_near(again.u, gradients.u)
    for name, bar in gradients.parameters.items():
        assert_near(again.parameters[name], bar)
