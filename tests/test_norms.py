"""LayerNorm and biases: against torch's own, by every rule, and in blocks against straight lines."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from laws import assert_near, random_like
from test_higher_order import two_way_stack
from torch import Tensor
from torch.nn import functional as F
from toys import biased_stack
from truth import mamba

from genoscan.layers.norm import LayerNorm, NormConfig, RMSNorm, build_norm
from genoscan.ops.dispatch import choose
from genoscan.ops.dual import Dual

EPS = 1e-3


def norm_of(width: int, dtype: torch.dtype) -> LayerNorm:
    norm = build_norm(NormConfig(kind="layer", eps=EPS), width, choose("cpu"))
    assert isinstance(norm, LayerNorm)
    with torch.no_grad():
        norm.weight.add_(torch.randn(width))
        norm.bias.add_(torch.randn(width))
    return norm.to(dtype)


def inputs(width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return an input far from the origin, a cotangent and three tangents."""
    x, bar, dots = random_like(
        tuple(torch.zeros(shape, dtype=dtype) for shape in ((2, 5, width),) * 2 + ((3, 2, 5, width),))
    )
    return x + 7, bar, dots


@pytest.mark.parametrize("width", [2, 8, 33])
def test_every_rule_is_torchs(width: int, dtype: torch.dtype) -> None:
    norm = norm_of(width, dtype)
    x, bar, dots = inputs(width, dtype)
    exact = [t.detach().double() for t in (x, norm.weight, norm.bias)]

    def truth(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, (width,), weight, bias, EPS)

    made = norm(x.requires_grad_())
    assert_near(made.detach(), truth(*exact), dtype)
    _, pull = torch.func.vjp(truth, *exact)
    asked = [x, norm.weight, norm.bias]
    assert_near(torch.autograd.grad(made, asked, bar), pull(bar.double()), dtype)
    pushed = norm.requires_grad_(False)(Dual.of(x.detach(), dots))
    assert_near(pushed, truth(*exact), dtype)
    for dot, found in zip(dots, pushed.dots, strict=True):
        _, expected = torch.func.jvp(lambda x: truth(x, *exact[1:]), (exact[0],), (dot.double(),))
        assert_near(found, expected, dtype)


def test_second_derivatives_are_torchs() -> None:
    norm = norm_of(4, torch.float64)
    x, _, _ = inputs(4, torch.float64)
    assert torch.autograd.gradcheck(norm, (x.requires_grad_(),))
    assert torch.autograd.gradgradcheck(norm, (x,))


def test_other_tangents_are_torchs_too() -> None:
    """Weights with tangents, and norms over several axes, have no rule of their own."""
    norm = norm_of(5, torch.float64)
    x, _, dots = inputs(5, torch.float64)
    given = [t.detach() for t in (x, norm.weight, norm.bias)]
    tangents = [dots[:1], *random_like((given[1][None], given[2][None]))]

    def call(*tensors: Tensor) -> Tensor:
        return F.layer_norm(tensors[0], (5,), *tensors[1:], EPS)

    found = call(*map(Dual.of, given, tangents))
    _, expected = torch.func.jvp(call, tuple(given), tuple(t[0] for t in tangents))
    assert_near(found.dots[0], expected)
    both = F.layer_norm(Dual.of(x, dots), (5, 5))
    _, expected = torch.func.jvp(lambda x: F.layer_norm(x, (5, 5)), (x,), (dots[0],))
    assert_near(both.dots[0], expected)


@pytest.mark.parametrize("how", ["plain", "dual", "autograd"])
def test_squares_that_overflow_are_not_a_number(how: str) -> None:
    norm = norm_of(4, torch.float32)
    x = torch.tensor([[[1.0, 2, 3, 4], [1e20, 2, 3, 4]]])
    if how == "dual":
        y = norm.requires_grad_(False)(Dual.of(x, torch.ones_like(x)[None])).dots[0]
    elif how == "autograd":
        (y,) = torch.autograd.grad(norm(x.requires_grad_()).sum(), x)
    else:
        y = norm(x)
    assert y[0, 0].isfinite().all()
    assert y[0, 1].isnan().all()


def straight(stack: Any, x: Tensor) -> Tensor:
    """Return the logits of a biased stack of Mamba blocks, whole and from its weights alone."""
    w = dict(stack.named_parameters())

    def normed(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + EPS) * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = x @ w["embed.weight"].T + w["embed.bias"]
    for i in range(len(stack.layers)):
        own = {k.removeprefix(f"layers.{i}."): v for k, v in w.items() if k.startswith(f"layers.{i}.")}
        x = x + mamba.mixer(own, normed(x, f"layers.{i}.norm"))
    return normed(x, "norm") @ w["head.weight"].T


@pytest.mark.parametrize("kernels", ["cpu", "reference", "associative"])
def test_a_biased_stack_is_its_formula(kernels: str) -> None:
    """Outputs, the adjoint of inputs and of every weight, and the tangent."""
    stack = biased_stack(kernels=kernels).requires_grad_()
    (x, bar) = random_like((torch.zeros(1, 40, 4, dtype=torch.float64),) * 2)
    weights = list(stack.parameters())

    def by(call: Callable[[Tensor], Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        given = x.clone().requires_grad_()
        y = call(given)
        return y.detach(), torch.autograd.grad(y, [given, *weights], bar)

    found, expected = by(lambda x: stack(x, stack.begin(1))[0]), by(lambda x: straight(stack, x[0])[None])
    assert_near(found, expected, bar=1e-11)
    pushed = stack(Dual.of(x, bar[None]), stack.begin(1))[0]
    _, dot = torch.func.jvp(lambda x: straight(stack, x[0])[None], (x,), (bar,))
    assert_near(pushed.dots[0], dot, bar=1e-11)


def test_layer_norm_in_bidirectional_blocks() -> None:
    """The mixers are those of a block with RMSNorm; only the norms differ."""
    stack = two_way_stack("cpu", rcps=True).double()
    x = random_like(torch.zeros(1, 30, 4, dtype=torch.float64))
    with torch.no_grad():
        before = stack(x)
        for holder in (stack, stack.layers[0]):
            assert isinstance(holder.norm, RMSNorm)
            holder.norm = norm_of(4, torch.float64)
        block, h = stack.layers[0], stack.embed(x)

        def normed(h: Tensor, norm: LayerNorm) -> Tensor:
            return torch.cat([F.layer_norm(half, (4,), norm.weight, norm.bias, EPS) for half in h.chunk(2, -1)], -1)

        read = normed(h, block.norm)
        left, _ = block.left_to_right.forward(read, block.left_to_right.begin(1))
        right, _ = block.right_to_left.forward(read.flip(1), block.right_to_left.begin(1))
        expected = stack.outputs(normed(h + left + right.flip(1), stack.norm))
        found = stack(x)
    assert_near(found, expected)
    assert (found - before).norm() > 0.1 * before.norm()
