"""One target, every base: cotangents pulled from the window's right end to its left."""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.engine.checkpoints import Adjoin, Advance, Drop, Restore, Save, schedule
from genoscan.engine.inputs import Inputs, spans
from genoscan.engine.target import Target
from genoscan.errors import InputError
from genoscan.layer import Carry, Layer, leaves, map_leaves


class AdjointResult(NamedTuple):
    """What is known once the left end is reached.

    value       the target, one a window, summed in float64
    carry       the carry past the window
    carry_bar   cotangent of the carry before the window
    parameters  cotangents of the parameters asked for, summed over windows
    """

    value: Float[Tensor, " batch"]
    carry: Carry
    carry_bar: Carry
    parameters: tuple[Tensor, ...]


def adjoint(
    layer: Layer,
    inputs: Inputs,
    target: Target,
    *,
    tile: int,
    slots: int,
    carry: Carry | None = None,
    parameters: Sequence[Tensor] = (),
    progress: Callable[[int], object] = lambda _positions: None,
) -> Generator[tuple[slice, Float[Tensor, "batch span d_in"]], None, AdjointResult]:
    """Yield the derivative of the target with respect to each input, tile by tile, right to left.

    The generator returns an `AdjointResult`.  `progress` is told the positions of every tile
    that was run, forward or backward.

    Exact: equal to whole-window autograd up to rounding (tests/test_engine.py); different
    slots give identical bits.
    Memory: one tile's activations and `slots` carries, whatever the length.
    Time: each tile once backward, and as often forward as `checkpoints.schedule` needs.
    """
    if tile < 1:
        raise InputError(f"tile {tile}: at least 1 base is needed")
    tiles = spans(inputs.length, tile)
    actions = schedule(len(tiles), slots)
    live = layer.begin(inputs.batch) if carry is None else carry
    live = map_leaves(lambda leaf: leaf.detach(), live)
    carry_bar = map_leaves(torch.zeros_like, live)
    value = torch.zeros(inputs.batch, dtype=torch.float64)
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    saved = _Slots(live, min(slots, len(tiles)))
    past: Carry = None
    for action in actions:
        match action:
            case Save(number):
                saved.save(number, live)
            case Restore(number):
                live = saved.restore(number)
            case Drop(number):
                saved.drop(number)
            case Advance(start, stop):
                with torch.no_grad():
                    for span in tiles[start:stop]:
                        _, live = layer.forward(inputs.tile(span), live)
                        progress(span.stop - span.start)
            case Adjoin(number):
                span = tiles[number]
                part, after, x_bar, carry_bar = _pull(
                    layer, inputs.tile(span), live, target, span, carry_bar, parameters, sums
                )
                past = after if past is None else past
                value += part.double().cpu()
                progress(span.stop - span.start)
                yield span, x_bar
    return AdjointResult(value, past, carry_bar, tuple(sums))


def consume(
    pull: Generator[tuple[slice, Tensor], None, AdjointResult],
    receive: Callable[[slice, Tensor], object] = lambda _span, _x_bar: None,
) -> AdjointResult:
    """Run an adjoint to its left end, handing every tile's derivatives on; return its result."""
    while True:
        try:
            span, x_bar = next(pull)
        except StopIteration as end:
            result: AdjointResult = end.value
            return result
        receive(span, x_bar)


class _Slots:
    """Remembered carries, in blocks of their own.

    Left where they were made, they would lie scattered between the tiles' activations, and the
    holes around them would grow with the length.
    """

    def __init__(self, carry: Carry, slots: int) -> None:
        self._blocks = map_leaves(lambda leaf: leaf.new_empty(slots, *leaf.shape), carry)
        self._free = list(range(slots))
        self._rows: dict[int, int] = {}

    def save(self, number: int, carry: Carry) -> None:
        row = self._rows[number] = self._free.pop()
        for block, leaf in zip(leaves(self._blocks), leaves(carry), strict=True):
            block[row] = leaf

    def restore(self, number: int) -> Carry:
        row = self._rows[number]
        return map_leaves(lambda block: block[row], self._blocks)

    def drop(self, number: int) -> None:
        self._free.append(self._rows.pop(number))


def _pull(
    layer: Layer,
    x: Tensor,
    carry: Carry,
    target: Target,
    span: slice,
    carry_bar: Carry,
    parameters: Sequence[Tensor],
    sums: list[Tensor],
) -> tuple[Tensor, Carry, Tensor, Carry]:
    """Run one tile with its graph and pull the cotangents through it; add up the parameters'."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        before = map_leaves(lambda leaf: leaf.detach().requires_grad_(), carry)
        outputs, after = layer.forward(x, before)
        value = target(outputs, span)
        ends = [(value, torch.ones_like(value))]
        ends += [(a, b) for a, b in zip(leaves(after), leaves(carry_bar), strict=True)]
        ends = [(end, end_bar) for end, end_bar in ends if end.requires_grad]
        bars = torch.autograd.grad(
            [end for end, _ in ends],
            [x, *leaves(before), *parameters],
            [end_bar for _, end_bar in ends],
            allow_unused=True,
            materialize_grads=True,
        )
    n_leaves = len(leaves(before))
    left = iter(bars[1 : 1 + n_leaves])
    carry_bar = map_leaves(lambda _leaf: next(left), before)
    for total, bar in zip(sums, bars[1 + n_leaves :], strict=True):
        total += bar
    return value.detach(), map_leaves(lambda leaf: leaf.detach(), after), bars[0], carry_bar
