"""What must hold for every layer, target and engine, and how near is near enough."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from genoscan.engine.target import Target
from genoscan.layer import Carry, Layer, leaves, map_leaves
from genoscan.ops.dual import Dual

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Relative error, ||a - b|| / ||b||; the largest single error may be ten times that."""


def errors(found: Tensor, truth: Tensor) -> tuple[float, float]:
    """Return the relative error in the L2 norm and in the maximum norm."""
    assert found.shape == truth.shape
    found, truth = found.detach().double(), truth.detach().double()
    if not found.numel():
        return 0.0, 0.0
    wrong = found - truth
    # A truth of zeros is to be met exactly.
    scale, top = (float(size) or 1e-300 for size in (truth.norm(), truth.abs().max()))
    return float(wrong.norm()) / scale, float(wrong.abs().max()) / top


def assert_near(found: Any, truth: Any, dtype: torch.dtype | None = None, *, bar: float | None = None) -> None:
    """Compare tensors, or trees of them, at the table's bar for the dtype found, or at `bar`."""
    for a, b in zip(leaves(found), leaves(truth), strict=True):
        allowed = bar if bar is not None else TOLERANCE[dtype or a.dtype]
        l2, top = errors(a, b)
        assert l2 <= allowed, f"relative error {l2:.2e} is over {allowed:.0e}"
        assert top <= 10 * allowed, f"largest relative error {top:.2e} is over {10 * allowed:.0e}"


def assert_same_bits(found: Any, truth: Any) -> None:
    for a, b in zip(leaves(found), leaves(truth), strict=True):
        assert torch.equal(a, b)


def random_like(tree: Carry, seed: int = 1) -> Carry:
    """Return a tree of the same shapes, filled with seeded normal numbers."""
    random = torch.Generator().manual_seed(seed)
    return map_leaves(lambda leaf: torch.randn(leaf.shape, generator=random, dtype=torch.float64).to(leaf), tree)


def inner(a: Carry, b: Carry) -> float:
    """Return the inner product of two trees, summed in float64."""
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(leaves(a), leaves(b), strict=True))


def split_law(layer: Layer, x: Tensor, carry: Carry, cuts: Sequence[int]) -> None:
    """Run whole and in two pieces: outputs and carries agree, wherever the cut."""
    whole, end = layer.forward(x, carry)
    for cut in cuts:
        left, between = layer.forward(x[:, :cut], carry)
        right, found_end = layer.forward(x[:, cut:], between)
        assert_near(torch.cat([left, right], 1), whole)
        assert_near(found_end, end)


def purity_law(layer: Layer, x: Tensor, carry: Carry) -> None:
    """Run twice: the same bits, and neither the arguments nor the layer have changed."""
    parameters = list(layer.parameters())
    held = [x, *leaves(carry), *parameters]
    before = [tensor.clone() for tensor in held]
    attributes = dict(vars(layer))
    first = layer.forward(x, carry)
    second = layer.forward(x, carry)
    assert_same_bits(first, second)
    assert_same_bits(tuple(held), tuple(before))
    assert {name: id(value) for name, value in vars(layer).items()} == {
        name: id(value) for name, value in attributes.items()
    }


def ownership_law(layer: Layer, x: Tensor, carry: Carry) -> None:
    """What is carried shares no memory with the tile, and takes no more room after a long one."""

    def room(length: int) -> list[int]:
        tile = x[:, :length].clone()
        y, after = layer.forward(tile, carry)
        lent = {tensor.untyped_storage().data_ptr() for tensor in (tile, y)}
        assert not lent & {leaf.untyped_storage().data_ptr() for leaf in leaves(after)}
        return [leaf.untyped_storage().nbytes() for leaf in leaves(after)]

    assert room(x.shape[1]) == room(1)


def dot_product_law(layer: Layer, x: Tensor, carry: Carry, bar: float) -> None:
    """<y_bar, J v> == <J' y_bar, v>, over inputs and carries together."""
    ins = (x, carry)
    ins_dot = random_like(ins, seed=2)
    dots = iter(leaves(ins_dot))
    pushed = layer.forward(*map_leaves(lambda leaf: Dual.of(leaf, next(dots)[None]), ins))
    outs_dot = map_leaves(lambda leaf: leaf.dots[0], pushed)
    outs_bar = random_like(outs_dot, seed=3)
    open_ins = map_leaves(lambda leaf: leaf.detach().clone().requires_grad_(), ins)
    outs = layer.forward(*open_ins)
    bars = torch.autograd.grad(leaves(outs), leaves(open_ins), leaves(outs_bar))
    there, back = inner(outs_bar, outs_dot), inner(tuple(bars), tuple(leaves(ins_dot)))
    scale = max(abs(there), abs(back))
    assert abs(there - back) <= bar * scale, (there, back)


def additivity_law(target: Target, outputs: Tensor, cuts: Sequence[int]) -> None:
    """A target over two pieces adds up to the target over the whole, in every window."""
    length = outputs.shape[1]
    whole = target(outputs, slice(0, length))
    assert whole.shape == outputs.shape[:1]
    for cut in cuts:
        left = target(outputs[:, :cut], slice(0, cut))
        right = target(outputs[:, cut:], slice(cut, length))
        assert_near(left + right, whole)


def finish(pull: Generator[tuple[slice, Tensor], None, Any]) -> tuple[Tensor, Any]:
    """Run an adjoint to its end: the derivative over the whole window, and the result."""
    pieces = []
    while True:
        try:
            pieces.append(next(pull)[1])
        except StopIteration as end:
            return torch.cat(pieces[::-1], 1), end.value


def push_through(push: Generator[tuple[slice, Tensor, Tensor], None, None]) -> tuple[Tensor, Tensor]:
    """Run a tangent to its end: outputs and their tangents over the whole window."""
    rows = list(push)
    return torch.cat([row[1] for row in rows], 1), torch.cat([row[2] for row in rows], 2)


def central_differences(
    function: Callable[[Tensor], Tensor], x: Tensor, places: Sequence[tuple[int, int]], step: float
) -> Tensor:
    """Differentiate a sum of terms by each place of x (one window).

    The terms are subtracted one by one before they are summed: most are not changed at all.
    """
    found = []
    for position, column in places:
        moved = x.repeat(2, 1, 1)
        moved[0, position, column] += step
        moved[1, position, column] -= step
        up, down = function(moved)
        found.append(((up - down) / (2 * step)).sum())
    return torch.stack(found)


def by_dual_level(call: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with forward_ad.dual_level():
        call(forward_ad.make_dual(x, torch.ones_like(x)))


def by_recorded_dual_level(call: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Forward over reverse."""
    with torch.enable_grad(), forward_ad.dual_level():
        given = forward_ad.make_dual(x.clone().requires_grad_(), x)
        torch.autograd.grad(call(given), given, create_graph=True)


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Any]] = {
    "jvp": lambda call, x: torch.func.jvp(call, (x,), (torch.ones_like(x),)),
    "grad": lambda call, x: torch.func.grad(call)(x),
    "vmap": lambda call, x: torch.func.vmap(call)(x[None]),
    "vmap of jvp": lambda call, x: torch.func.vmap(lambda dot: torch.func.jvp(call, (x,), (dot,))[1])(x[None]),
    "dual level": by_dual_level,
    "recorded dual level": by_recorded_dual_level,
}
