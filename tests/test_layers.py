"""Every layer under every law, and the Mamba block against the paper's formulas."""

from collections.abc import Callable

import pytest
import torch
from laws import assert_near, assert_same_bits, dot_product_law, ownership_law, purity_law, random_like, split_law
from torch import Tensor
from toys import (
    MovingAverage,
    RunningSum,
    biased_stack,
    mamba2_block,
    mixed_stack,
    pd_block,
    straight_mamba,
    straight_stack,
    tiny_config,
    tiny_stack,
)

from genoscan.layer import Carry, Layer, leaves, map_leaves
from genoscan.layers.mamba import Mamba
from genoscan.layers.stack import Stack
from genoscan.layers.weights import build

pytestmark = pytest.mark.usefixtures("poisoned_memory")

LENGTH = 71


def block(width: int, dtype: torch.dtype, kernels: str = "cpu", **options: int) -> Mamba:
    stack = tiny_stack(width, 1, dtype=dtype, kernels=kernels, **options)
    return stack.layers[0]


LAYERS: dict[str, tuple[int, Callable[[torch.dtype], Layer]]] = {
    "running sum": (3, lambda dtype: RunningSum(3, dtype)),
    "moving average": (3, lambda dtype: MovingAverage(3, 5, dtype)),
    "mamba": (16, lambda dtype: block(16, dtype)),
    "mamba, reference kernels": (16, lambda dtype: block(16, dtype, "reference")),
    "mamba, odd sizes": (10, lambda dtype: block(10, dtype, d_state=17, d_conv=3)),
    "mamba, one tap": (8, lambda dtype: block(8, dtype, d_conv=1)),
    "mamba, eight taps": (8, lambda dtype: block(8, dtype, d_conv=8)),
    "mamba2": (8, lambda dtype: mamba2_block(8, dtype=dtype)),
    "mamba2, reference kernels": (8, lambda dtype: mamba2_block(8, dtype=dtype, kernels="reference")),
    "mamba2, groups and odd sizes": (
        10,
        lambda dtype: mamba2_block(10, heads=4, n_groups=2, d_state=17, d_conv=3, dtype=dtype),
    ),
    "mamba2, limited steps": (8, lambda dtype: mamba2_block(8, dt_limit=(0.01, 0.5), dtype=dtype)),
    "pd_ssm": (8, lambda dtype: pd_block(8, dtype=dtype)),
    "pd_ssm, reference kernels": (8, lambda dtype: pd_block(8, dtype=dtype, kernels="reference")),
    "pd_ssm, odd sizes": (10, lambda dtype: pd_block(10, heads=3, d_state=17, dtype=dtype)),
    "mamba and pd_ssm": (4, lambda dtype: mixed_stack(8, ("mamba", "pd_ssm"), dtype=dtype)),
    "layer norm and biases": (8, lambda dtype: biased_stack(dtype=dtype).layers[0]),
    "layer norm and biases, reference kernels": (
        8,
        lambda dtype: biased_stack(dtype=dtype, kernels="reference").layers[0],
    ),
    "mamba2, layer norm": (8, lambda dtype: biased_stack("mamba2", dtype=dtype).layers[0]),
    "pd_ssm, layer norm": (8, lambda dtype: biased_stack("pd_ssm", dtype=dtype).layers[0]),
    "stack, layer norm and biases": (4, lambda dtype: biased_stack(dtype=dtype)),
    "stack": (4, lambda dtype: tiny_stack(16, 3, dtype=dtype)),
    "stack, odd sizes": (4, lambda dtype: tiny_stack(22, 2, d_state=5, dtype=dtype)),
}


@pytest.fixture(params=LAYERS)
def case(request: pytest.FixtureRequest, dtype: torch.dtype) -> tuple[Layer, Tensor, Carry]:
    """A layer, two windows of its input, and a carry that is not the one it begins with."""
    width, make = LAYERS[request.param]
    layer = make(dtype)
    x = random_like(torch.zeros(2, LENGTH, width, dtype=dtype))
    return layer, x, random_like(layer.begin(2), seed=4)


def test_split_law(case: tuple[Layer, Tensor, Carry]) -> None:
    split_law(*case, cuts=[1, 2, 5, 32, 64, LENGTH - 1])


def test_split_into_single_bases(case: tuple[Layer, Tensor, Carry]) -> None:
    layer, x, carry = case
    whole, end = layer.forward(x, carry)
    rows = []
    for t in range(LENGTH):
        row, carry = layer.forward(x[:, t : t + 1], carry)
        rows.append(row)
    assert_near(torch.cat(rows, 1), whole)
    assert_near(carry, end)


def test_purity_law(case: tuple[Layer, Tensor, Carry]) -> None:
    purity_law(*case)


def test_carries_own_their_memory(case: tuple[Layer, Tensor, Carry]) -> None:
    ownership_law(*case)


def test_dot_product_law(case: tuple[Layer, Tensor, Carry], dtype: torch.dtype) -> None:
    dot_product_law(*case, bar=1e-12 if dtype == torch.float64 else 1e-4)


def test_windows_side_by_side_are_windows_alone(case: tuple[Layer, Tensor, Carry]) -> None:
    layer, x, carry = case
    together = layer.forward(x, carry)
    for i in range(2):
        alone = layer.forward(x[i : i + 1], map_leaves(lambda leaf, i=i: leaf[i : i + 1], carry))
        assert_near(alone, map_leaves(lambda leaf, i=i: leaf[i : i + 1], together))


def test_begin_is_the_carry_after_nothing(case: tuple[Layer, Tensor, Carry]) -> None:
    layer, x, _ = case
    begin = layer.begin(2)
    # What a convolution has seen is nothing; a state may start anywhere, in every window the same.
    assert all(leaf.dtype == x.dtype and torch.equal(leaf[0], leaf[1]) for leaf in leaves(begin))
    assert_same_bits(map_leaves(lambda leaf: leaf[:1], begin), layer.begin(1))
    _, after = layer.forward(x, begin)
    assert [leaf.shape for leaf in leaves(after)] == [leaf.shape for leaf in leaves(begin)]


def test_a_base_changes_nothing_to_its_left(case: tuple[Layer, Tensor, Carry]) -> None:
    layer, x, carry = case
    moved = x.clone()
    moved[:, 40] += 1
    before, after = layer.forward(x, carry)[0], layer.forward(moved, carry)[0]
    assert torch.equal(before[:, :40], after[:, :40])
    assert not torch.equal(before[:, 40], after[:, 40])


def test_toys_by_thought() -> None:
    x = torch.tensor([1.0, 2, 4, 8], dtype=torch.float64)[None, :, None]
    total, average = RunningSum(1), MovingAverage(1, 2)
    assert total.forward(x, total.begin(1))[0].flatten().tolist() == [1, 3, 7, 15]
    assert average.forward(x, average.begin(1))[0].flatten().tolist() == [0.5, 1.5, 3, 6]


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@pytest.mark.parametrize(("width", "d_state", "d_conv"), [(16, 4, 4), (10, 17, 3), (32, 16, 1)])
def test_mamba_block_is_the_papers(kernels: str, width: int, d_state: int, d_conv: int, dtype: torch.dtype) -> None:
    layer = block(width, dtype, kernels, d_state=d_state, d_conv=d_conv)
    exact = block(width, torch.float32, "reference", d_state=d_state, d_conv=d_conv).double()
    x = random_like(torch.zeros(2, LENGTH, width, dtype=dtype))
    carry = random_like(layer.begin(2), seed=4)
    truth = straight_mamba(exact, x.double(), tuple(leaf.double() for leaf in carry))
    assert_near(layer.forward(x, carry)[0], truth, dtype)


def pulled(layer: Mamba, ins: Carry, bars: Carry) -> tuple[Carry, Carry, dict[str, Tensor]]:
    """Return a block's outputs, its inputs' cotangents, and those of the weights that want one."""
    given = map_leaves(lambda leaf: leaf.detach().requires_grad_(), ins)
    outs = layer.forward(*given)
    weights = {name: weight for name, weight in layer.named_parameters() if weight.requires_grad}
    asked = leaves(outs), [*leaves(given), *weights.values()], leaves(bars)
    found = torch.autograd.grad(*asked, retain_graph=True)
    # What is kept is not used up: a graph may be gone through again.
    assert_same_bits(found, torch.autograd.grad(*asked))
    trained = found[len(found) - len(weights) :]
    inputs_bars = found[: len(found) - len(weights)]
    return (map_leaves(lambda leaf: leaf.detach(), outs), inputs_bars, dict(zip(weights, trained, strict=True)))


@pytest.mark.parametrize("length", [1, 2, 31, 33, LENGTH])
@pytest.mark.parametrize(("width", "d_state", "d_conv"), [(16, 4, 4), (10, 17, 3), (32, 16, 1)])
def test_a_block_as_one_step_is_the_block(
    width: int, d_state: int, d_conv: int, length: int, dtype: torch.dtype
) -> None:
    """It is what it is operation by operation, by the reference; whatever is trained."""
    layer = block(width, dtype, d_state=d_state, d_conv=d_conv).requires_grad_()
    exact = block(width, torch.float32, "reference", d_state=d_state, d_conv=d_conv).double()
    x = random_like(torch.zeros(2, length, width, dtype=dtype))
    ins = x, random_like(layer.begin(2), seed=4)
    bars = random_like(map_leaves(lambda leaf: leaf.detach(), layer.forward(*ins)), seed=5)
    found = pulled(layer, ins, bars)
    double = map_leaves(lambda leaf: leaf.double(), (ins, bars))
    expected = pulled(exact.requires_grad_(), *double)
    assert_near(found[:2], expected[:2], dtype)
    assert found[2].keys() == expected[2].keys()
    for name, bar in found[2].items():
        assert_near(bar, expected[2][name], dtype)
    for name in (None, *found[2]):
        layer.requires_grad_(False)
        if name is not None:
            layer.get_parameter(name).requires_grad_()
        alone = pulled(layer, ins, bars)
        assert_same_bits(alone[:2], found[:2])
        assert_same_bits(list(alone[2].values()), [found[2][n] for n in alone[2]])


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
def test_stack_is_the_papers(kernels: str, dtype: torch.dtype) -> None:
    layer = tiny_stack(22, 3, d_state=5, dtype=dtype, kernels=kernels)
    exact = tiny_stack(22, 3, d_state=5, dtype=torch.float32).double()
    x = random_like(torch.zeros(2, LENGTH, 4, dtype=dtype))
    carry = random_like(layer.begin(2), seed=4)
    truth = straight_stack(exact, x.double(), map_leaves(lambda leaf: leaf.double(), carry))
    assert_near(layer.forward(x, carry)[0], truth, dtype)


def test_fresh_weights_are_mambas() -> None:
    torch.manual_seed(3)
    stack: Stack = build(tiny_config(32, 1, d_state=6))
    layer = stack.layers[0]
    rates = torch.exp(layer.A_log)
    assert torch.allclose(rates, torch.arange(1.0, 7).expand_as(rates))
    steps = torch.nn.functional.softplus(layer.dt_proj.bias)
    assert 0.001 <= steps.min() <= steps.max() <= 0.1
    assert torch.equal(layer.D, torch.ones(64))
    assert layer.conv.weight.abs().max() <= 0.5
    torch.manual_seed(3)
    again = build(tiny_config(32, 1, d_state=6))
    pairs = zip(stack.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
