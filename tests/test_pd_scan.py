"""The permutation-diagonal scan against dense complex matrices, and PD-SSM blocks."""

import pytest
import torch
from laws import assert_near, random_like
from operations import pd_problem, pd_pulled, pd_rules

from genoscan.errors import ModelError
from genoscan.ops.cpu import CPU
from genoscan.ops.dual import Dual
from genoscan.ops.kernels import Kernels
from genoscan.ops.pd_scan import argmax_maps
from genoscan.ops.reference import REFERENCE

SIZES = [(1, 1, 1), (2, 2, 3), (33, 2, 8), (65, 3, 5), (130, 1, 64)]


@pytest.mark.parametrize("kernels", [CPU, REFERENCE], ids=lambda kernels: kernels.name)
@pytest.mark.parametrize("permute", [False, True])
@pytest.mark.parametrize(("length", "heads", "n_states"), SIZES)
def test_all_three_rules(kernels: Kernels, permute: bool, length: int, heads: int, n_states: int) -> None:
    pd_rules(kernels.pd_scan, *pd_problem(length, heads, n_states, permute=permute))


@pytest.mark.parametrize("moving", range(3))
def test_one_input_may_move_alone(moving: int) -> None:
    inputs, chosen = pd_problem(20, 2, 5)
    dots = random_like(tuple(part.expand(2, *part.shape) for part in inputs), 7)
    given = [Dual.of(p, d) if i == moving else p for i, (p, d) in enumerate(zip(inputs, dots, strict=True))]
    still = [torch.zeros_like(dot) if i != moving else dot for i, dot in enumerate(dots)]
    everything = REFERENCE.pd_scan(*map(Dual.of, inputs, still), **chosen)
    for found, truth in zip(CPU.pd_scan(*given, **chosen), everything, strict=True):
        assert_near(found.dots, truth.dots)


@pytest.mark.parametrize("cut", [1, 17, 32, 63])
def test_a_sequence_may_be_cut_anywhere(cut: int) -> None:
    (decay, inflow, state), chosen = pd_problem(64, 2, 8)
    whole, end = CPU.pd_scan(decay, inflow, state, **chosen)
    parts, carried = [], state
    for span in (slice(0, cut), slice(cut, None)):
        route = chosen["route"][:, span]
        part, carried = CPU.pd_scan(decay[:, span], inflow[:, span], carried, route=route, maps=chosen["maps"])
        parts.append(part)
    assert torch.equal(torch.cat(parts, 1), whole)
    assert torch.equal(carried, end)


def test_single_precision_is_as_good_as_it_can_be() -> None:
    inputs, chosen = pd_problem(1000, 2, 16)
    single = tuple(part.float() for part in inputs)
    found = pd_pulled(CPU.pd_scan, single, chosen)
    truth = pd_pulled(REFERENCE.pd_scan, tuple(part.double() for part in single), chosen)
    bars = random_like(tuple(part for part in truth[0]), 3)
    assert bars[0].dtype == torch.float64
    assert_near(found[0], tuple(part.float() for part in truth[0]), torch.float32)


def test_states_that_meet_add_up() -> None:
    """All states go to the last; only the first map is ever chosen."""
    ones = torch.zeros(1, 1, 1, 2, 3, dtype=torch.float64)
    ones[..., 0, :] = 1
    state = torch.tensor([[[[1.0, 2.0, 4.0], [1.0, 0.0, 0.0]]]], dtype=torch.float64)
    maps, route = (torch.full((1, 1, 3), 2, dtype=torch.int16), torch.zeros(1, 1, 1, dtype=torch.int16))
    _, end = CPU.pd_scan(ones, torch.zeros_like(ones), state, route=route, maps=maps)
    assert end.flatten().tolist() == [0, 0, 7, 0, 0, 1]


def test_a_dictionary_hardens_to_its_largest_entries() -> None:
    dictionary = torch.randn(2, 3, 5, 5)
    maps = argmax_maps(dictionary)
    assert maps.dtype == torch.int16
    assert torch.equal(maps.long(), dictionary.argmax(-2))
    assert torch.equal(argmax_maps(torch.zeros(1, 2, 1, 1)).flatten(), torch.zeros(2).short())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (float("nan"), "head 1, map 2, column 3: an entry that is NaN"),
        (0.0, "head 1, map 2, column 3: all entries equal"),
    ],
)
def test_a_column_without_a_largest_entry_is_refused(fault: float, message: str) -> None:
    dictionary = torch.randn(2, 3, 5, 5)
    dictionary[1, 2, :, 3] = fault
    with pytest.raises(ModelError, match=message):
        argmax_maps(dictionary)


def test_more_states_than_an_index_holds_are_refused() -> None:
    with pytest.raises(ModelError, match="32,768 states: expected at most 32,767"):
        argmax_maps(torch.empty(1, 1, 1, 1).expand(1, 1, 32_768, 32_768))


def test_more_maps_than_an_index_holds_are_refused() -> None:
    with pytest.raises(ModelError, match="40,000 maps: expected at most 32,767"):
        argmax_maps(torch.empty(1, 1, 1, 1).expand(1, 40_000, 1, 1))


@pytest.mark.parametrize(
    ("name", "index", "message"),
    [
        ("route", -1, "route: -1 to 2, expected 0 to 2"),
        ("route", 3, "route: 0 to 3, expected 0 to 2"),
        ("maps", 5, "maps: 0 to 5, expected 0 to 4"),
    ],
)
def test_what_leads_nowhere_is_refused_where_kernels_would_go_there(name: str, index: int, message: str) -> None:
    inputs, chosen = pd_problem(60, 2, 5)
    chosen[name][0, 1, 0] = index
    with pytest.raises(ModelError, match=message):
        CPU.pd_scan(*inputs, **chosen)
