"""The ways to compute a derivative: along one direction, of every input, or of every parameter.

Only ways with the same result are compared.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from benchmarks.paper import rivals
from genoscan.pgf import FrechetMambaOperator

TILE, SLOTS = 1_024, 64
"""Ours, in every cell: the defaults of `genoscan attribute`."""

Parts = Iterator[tuple[slice, Tensor]]
Run = Callable[[FrechetMambaOperator, Tensor, Tensor, int], Parts]
Answer = Literal["direction", "inputs", "parameters", "nothing"]


@dataclass(frozen=True)
class Contender:
    """One way to compute a derivative.

    label   in figures
    answer  direction: y's tangent along one direction; inputs: derivative of a weighted sum of y
            with respect to every input; parameters: and every parameter; nothing: no derivative
    run     (layer, u, direction or weights, block length) -> spans and parts of the derivative
    side    ours; theirs: as published; torch: its best way, as far as we know
    arrays  arrays of the inputs' size that are returned
    slots   states kept
    """

    label: str
    answer: Answer
    run: Run
    side: Literal["ours", "theirs", "torch"]
    arrays: int = 0
    slots: int = 0


def _ours_direction(made: FrechetMambaOperator, u: Tensor, u_dot: Tensor, _block: int) -> Parts:
    for span, _, y_dot in made.pgf_stream(u, u_dot, TILE):
        yield span, y_dot


def _ours_inputs(made: FrechetMambaOperator, u: Tensor, y_bar: Tensor, _block: int) -> Parts:
    yield slice(0, len(u)), made.pgf_vjp(u, y_bar, TILE, slots=SLOTS)


def _ours_parameters(made: FrechetMambaOperator, u: Tensor, y_bar: Tensor, _block: int) -> Parts:
    yield slice(0, len(u)), made.pgf_gradients(u, y_bar, TILE, slots=SLOTS).u


def _pushed_with_graph(made: FrechetMambaOperator, u: Tensor, u_dot: Tensor, _block: int) -> Parts:
    with _asking(made):
        y_dot = rivals.jvp(partial(rivals.by_steps, made), (u,), (u_dot,))[1]
    yield slice(0, len(u)), y_dot


def _by_autograd(call: Callable[[FrechetMambaOperator, Tensor], Tensor], *, trained: bool = False) -> Run:
    """Return a run of torch's derivative by the inputs and, if `trained`, the parameters."""

    def run(made: FrechetMambaOperator, u: Tensor, y_bar: Tensor, _block: int) -> Parts:
        x = u.detach().requires_grad_()
        with _asking(made) if trained else nullcontext():
            wanted = [x, *made.parameters()] if trained else [x]
            x_bar, *_ = torch.autograd.grad((call(made, x) * y_bar).sum(), wanted)
        yield slice(0, len(u)), x_bar

    return run


@contextmanager
def _asking(made: FrechetMambaOperator) -> Iterator[None]:
    """Let the weights require gradients."""
    made.requires_grad_()
    try:
        yield
    finally:
        made.requires_grad_(False)


def _dense(made: FrechetMambaOperator, u: Tensor, _other: Tensor, _block: int) -> Parts:
    yield slice(0, len(u)), rivals.dense_recursion(made, u)


CONTENDERS = {
    "ours-direction": Contender("genoscan, one direction", "direction", _ours_direction, "ours"),
    "tile-scan": Contender("the paper's tile scan", "direction", partial(rivals.pushed, rivals.tile), "theirs"),
    "jvp": Contender(
        "forward mode, loop over the recurrence", "direction", partial(rivals.pushed, rivals.piece), "torch"
    ),
    "jvp-published": Contender(
        "forward mode, loop over all of a step, and a graph (as published)",
        "direction",
        _pushed_with_graph,
        "theirs",
        arrays=2,
    ),
    "ours-inputs": Contender("genoscan, every input", "inputs", _ours_inputs, "ours", arrays=1, slots=SLOTS),
    "autograd-published": Contender(
        "autograd, loop over all of a step (as published)",
        "inputs",
        _by_autograd(rivals.by_steps, trained=True),
        "theirs",
        arrays=1,
    ),
    "autograd": Contender(
        "autograd, loop over the recurrence", "inputs", _by_autograd(rivals.whole), "torch", arrays=1
    ),
    "pieces": Contender("autograd, that loop in pieces", "inputs", rivals.in_pieces, "torch", arrays=0),
    "checkpoint-published": Contender(
        "checkpointing that begins anew (as published)", "inputs", _by_autograd(rivals.restarted), "theirs", arrays=1
    ),
    "fused": Contender(
        "autograd through genoscan's scan, whole sequence",
        "inputs",
        _by_autograd(lambda made, u: made(u)),
        "torch",
        arrays=1,
    ),
    "ours-parameters": Contender(
        "genoscan, every parameter", "parameters", _ours_parameters, "ours", arrays=1, slots=SLOTS
    ),
    "autograd-parameters": Contender(
        "autograd, every parameter", "parameters", _by_autograd(rivals.whole, trained=True), "torch", arrays=1
    ),
    "dense": Contender("product of dense transitions (as published)", "nothing", _dense, "theirs"),
}
