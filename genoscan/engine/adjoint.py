"""Adjoint sweep from right to left: the derivative of one target with respect to every input."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.engine.checkpoints import Action, Adjoin, Advance, Drop, Restore, Save, schedule
from genoscan.engine.inputs import Inputs, Spans
from genoscan.engine.recovery import Recorder, Snapshots, load_adjoint
from genoscan.engine.stages import BoundedQueue, StagePipeline
from genoscan.engine.target import Target
from genoscan.layer import Carry, Layer, leaves, map_leaves
from genoscan.ops.denormals import flush_denormals_during
from genoscan.ops.dual import refuse_transforms

Result = TypeVar("Result")
Allocate = Callable[[int, Tensor], Tensor]
"""Function of `count` and `like` that allocates `count` tensors with the shape and dtype of `like` as one block."""

Observe = Callable[[int, int, Carry], object]
"""Function that is called with the index of a stage, the start of a tile, and the cotangent of the carry there."""


@runtime_checkable
class Cotangents(Protocol):
    """Cotangents of a layer's outputs, which are read tile by tile and are used instead of a target."""

    def tile(self, span: slice) -> Float[Tensor, "batch tile d_out"]:
        """Return the cotangents of the outputs at the positions of the span."""
        ...


class AdjointResult(NamedTuple):
    """Results of an adjoint sweep other than the gradient.

    Attributes
    ----------
    value
        Value of the target for each window, summed over tiles in float64. It is 0 if cotangents are
        used instead of a target.
    carry
        Carry after the window. It is None if the sweep was continued from a saved state.
    carry_bar
        Cotangent of the carry before the window.
    parameters
        Cotangents of the parameters passed to `adjoint`, summed over the windows.
    """

    value: Float[Tensor, " batch"]
    carry: Carry
    carry_bar: Carry
    parameters: tuple[Tensor, ...]


def adjoint(
    layer: Layer,
    inputs: Inputs,
    target: Target | Cotangents,
    *,
    tile: int,
    slots: int,
    kept: int = 1,
    allocate: Allocate = lambda count, like: like.new_empty(count, *like.shape),
    carry: Carry | None = None,
    parameters: Sequence[Tensor] = (),
    snapshots: Snapshots | None = None,
    progress: Callable[[int], object] = lambda _positions: None,
    spans: Sequence[slice] | None = None,
    observe: Observe = lambda _stage, _at, _carry_bar: None,
) -> Generator[tuple[slice, Float[Tensor, "batch span d_in"]], None, AdjointResult]:
    """Yield the derivative of the target with respect to each input, tile by tile, from right to left.

    The generator returns an `AdjointResult`. The function `allocate` provides storage for the carries.
    Each time a tile has been run forward, or forward and backward, `progress` is called with the number
    of positions in the tile. If `snapshots` is given, the state of the sweep is saved from time to
    time, and an interrupted sweep continues from the last saved state. A tile is not yielded again if
    the caller received its gradient before that state was saved. A state contains no cotangents of
    parameters: these are refused with `snapshots`. If `spans` is given, these are the tiles, and `tile` is
    not used. `observe` is called after the backward pass over each tile, in the thread of the stage.

    Notes
    -----
    The derivative equals that computed by autograd over the whole window, up to rounding
    (tests/test_engine.py). The results are bitwise identical for any number of slots and stages. On a
    CPU, a `Chain` is divided into stages, at most one for each torch thread (see stages.py).

    Memory: the activations of `kept` tiles and `slots` carries, regardless of the length of the window.
    With `s` stages, the first stage stores its activations for `kept + s - 1` tiles, and the last stage stores
    its activations for `kept` tiles.

    Time: one backward pass over each tile, and the forward passes listed by `checkpoints.schedule`.
    """
    if parameters and snapshots is not None:
        raise ValueError("snapshots contain no cotangents of parameters: expected one of the two")
    tiles = Spans(inputs.length, tile) if spans is None else spans
    sweep = StagePipeline(layer)
    count = len(sweep.stages)
    carry = layer.begin(inputs.batch) if carry is None else carry
    state = load_adjoint(snapshots, carry, inputs.batch, len(tiles), slots)
    if state.carries and not state.left:
        return AdjointResult(state.value.cpu(), None, state.carry_bar, ())
    carries = sweep.split(carry)
    carry_bars = sweep.split(state.carry_bar)
    stored = {number: sweep.split(saved) for number, saved in state.carries.items()}
    recorder = Recorder(snapshots, count, sweep.join)
    outputs = [sweep.queue(1) for _ in range(count - 1)]
    cotangents = [sweep.queue(count) for _ in range(count - 1)]
    last = _TargetEnd(target, state.value)
    runs = [
        flush_denormals_during(
            _stage(
                stage,
                carries[i],
                carry_bars[i],
                schedule(state.left, slots, list(stored), kept),
                tiles,
                stored={number: parts[i] for number, parts in stored.items()},
                slots=min(slots, state.left),
                index=i,
                recorder=recorder,
                allocate=allocate,
                parameters=parameters,
                ahead=count - 1 - i,
                read=inputs.tile if i == 0 else outputs[i - 1].get,
                right=_NextStage(outputs[i], cotangents[i]) if i < count - 1 else last,
                progress=progress if i == 0 else lambda _positions: None,
                observe=partial(observe, i),
            )
        )
        for i, stage in enumerate(sweep.stages)
    ]
    ends: list[_End | None] = [None] * count

    def drive(i: int) -> None:
        ends[i] = consume(runs[i], lambda _span, x_bar: cotangents[i - 1].put(x_bar))

    with sweep.beside(*(partial(drive, i) for i in range(1, count))):
        ends[0] = yield from runs[0]
    done = [end for end in ends if end is not None]
    return AdjointResult(
        last.sum.cpu(),
        None if stored else sweep.join([end.carry for end in done]),
        sweep.join([end.carry_bar for end in done]),
        tuple(torch.stack(parts).sum(0) for parts in zip(*(end.sums for end in done), strict=True)),
    )


def consume(
    pull: Generator[tuple[slice, Tensor], None, Result],
    receive: Callable[[slice, Tensor], object] = lambda _span, _x_bar: None,
) -> Result:
    """Run an adjoint sweep to its end, and call `receive` with the span and the gradient of each tile.

    The function returns the value that the generator `pull` returns. If `receive` raises an exception,
    the threads of the sweep are stopped before the exception propagates.
    """
    with closing(pull):
        while True:
            try:
                span, x_bar = next(pull)
            except StopIteration as end:
                result: Result = end.value
                return result
            receive(span, x_bar)


class _TargetEnd:
    """Source of cotangents for the last stage: the target, or the cotangents that replace it."""

    def __init__(self, target: Target | Cotangents, value: Float[Tensor, " batch"]) -> None:
        self._target = target
        # On the device of the outputs: reading it at every tile would synchronise.
        self.sum: Tensor = value

    def put(self, outputs: Tensor) -> None:
        """Do nothing, because no stage follows the last stage."""

    def pulled(self, outputs: Tensor, span: slice) -> tuple[Tensor, Tensor]:
        """Return the value to differentiate for a tile, and the cotangent of this value."""
        if isinstance(self._target, Cotangents):
            return outputs, self._target.tile(span)
        value = self._target(outputs, span)
        refuse_transforms(value)
        part = value.detach().double()
        self.sum = self.sum.to(part.device) + part
        return value, torch.ones_like(value)


class _NextStage:
    """Source of cotangents for every stage except the last one: the next stage."""

    sum = None

    def __init__(self, outputs: BoundedQueue[Tensor], cotangents: BoundedQueue[Tensor]) -> None:
        self._outputs, self._cotangents = outputs, cotangents

    def put(self, outputs: Tensor) -> None:
        """Pass the outputs to the next stage."""
        self._outputs.put(outputs.detach())

    def pulled(self, outputs: Tensor, _span: slice) -> tuple[Tensor, Tensor]:
        """Return the outputs and the cotangent that the next stage has computed for them."""
        return outputs, self._cotangents.get()


class _End(NamedTuple):
    """Results of one stage.

    `carry` and `carry_bar` are defined as in `AdjointResult`. `sums` contains the cotangents of the
    parameters.
    """

    carry: Carry
    carry_bar: Carry
    sums: list[Tensor]


class _Graph(NamedTuple):
    """Autograd graph of a tile whose backward pass is pending."""

    tile: int
    span: slice
    x: Tensor
    before: Carry
    outputs: Tensor
    after: Carry


def _stage(
    stage: Layer,
    live: Carry,
    carry_bar: Carry,
    actions: Iterable[Action],
    tiles: Spans | Sequence[slice],
    *,
    stored: Mapping[int, Carry],
    index: int,
    recorder: Recorder,
    slots: int,
    allocate: Allocate,
    parameters: Sequence[Tensor],
    ahead: int,
    read: Callable[[slice], Tensor],
    right: _TargetEnd | _NextStage,
    progress: Callable[[int], object],
    observe: Callable[[int, Carry], object],
) -> Generator[tuple[slice, Tensor], None, _End]:
    """Run one stage and yield the cotangents of its inputs, tile by tile, from right to left.

    The backward passes of up to `ahead` tiles may be pending while subsequent actions are carried out.
    """
    live = map_leaves(lambda leaf: leaf.detach(), live)
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    saved = _Slots(live, slots, allocate)
    for number, carry in stored.items():
        saved.save(number, carry)
    past: Carry = None
    graphs: deque[_Graph] = deque()
    for action in chain(actions, [None]):
        match action:
            case Save(number):
                saved.save(number, live)
                if past is None:
                    recorder.stored(index, number, live)
            case Restore(number):
                live = saved.restore(number)
            case Drop(number):
                saved.drop(number)
            case Advance(start, stop):
                with torch.no_grad():
                    for number in range(start, stop):
                        span = tiles[number]
                        outputs, live = stage.forward(read(span), live)
                        right.put(outputs)
                        progress(span.stop - span.start)
            case Adjoin(start, stop):
                block = []
                for number in range(start, stop):
                    block.append(_forward(stage, number, read(tiles[number]), live, tiles[number]))
                    right.put(block[-1].outputs)
                    live = map_leaves(lambda leaf: leaf.detach(), block[-1].after)
                graphs.extend(reversed(block))
                block.clear()  # so that each graph is freed after its backward pass
                past = live if past is None else past
        while len(graphs) > (ahead if action else 0):
            tile, span = graphs[0][:2]
            x_bar, carry_bar = _pull(graphs.popleft(), right, carry_bar, parameters, sums)
            recorder.pulled(index, tile, carry_bar, right.sum)
            observe(span.start, carry_bar)
            progress(span.stop - span.start)
            yield span, x_bar
            recorder.received(index, tile)
    return _End(past, carry_bar, sums)


class _Slots:
    """Storage for carries, which are copied into blocks of memory that are allocated only once.

    Without these copies, the carries would be scattered among the activations of the tiles, and heap
    fragmentation would increase with the length of the window.
    """

    def __init__(self, carry: Carry, slots: int, allocate: Allocate) -> None:
        self._device = next((leaf.device for leaf in leaves(carry)), None)
        self._blocks = map_leaves(partial(allocate, slots), carry)
        self._free = list(range(slots))
        self._rows: dict[int, int] = {}

    def save(self, number: int, carry: Carry) -> None:
        row = self._rows[number] = self._free.pop()
        for block, leaf in zip(leaves(self._blocks), leaves(carry), strict=True):
            block[row] = leaf

    def restore(self, number: int) -> Carry:
        row = self._rows[number]
        return map_leaves(lambda block: block[row].to(device=self._device), self._blocks)

    def drop(self, number: int) -> None:
        self._free.append(self._rows.pop(number))


def _forward(stage: Layer, tile: int, x: Tensor, carry: Carry, span: slice) -> _Graph:
    """Run one tile forward and record its autograd graph."""
    refuse_transforms(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        # A copy: the slot may be reused before the cotangents of this tile are available.
        before = map_leaves(lambda leaf: leaf.detach().clone().requires_grad_(), carry)
        outputs, after = stage.forward(x, before)
    return _Graph(tile, span, x, before, outputs, after)


def _pull(
    graph: _Graph, right: _TargetEnd | _NextStage, carry_bar: Carry, parameters: Sequence[Tensor], sums: list[Tensor]
) -> tuple[Tensor, Carry]:
    """Return the cotangents of a tile's input and carry; add the parameters' cotangents to `sums`."""
    with torch.enable_grad():
        ends = [right.pulled(graph.outputs, graph.span)]
    ends += zip(leaves(graph.after), leaves(carry_bar), strict=True)
    ends = [(end, end_bar) for end, end_bar in ends if end.requires_grad]
    bars = torch.autograd.grad(
        [end for end, _ in ends],
        [graph.x, *leaves(graph.before), *parameters],
        [end_bar for _, end_bar in ends],
        allow_unused=True,
        materialize_grads=True,
    )
    n_leaves = len(leaves(graph.before))
    left = iter(bars[1 : 1 + n_leaves])
    for total, bar in zip(sums, bars[1 + n_leaves :], strict=True):
        total += bar
    return bars[0], map_leaves(lambda _leaf: next(left), graph.before)
