"""Derivatives of a model's outputs along many substitutions of one window, several directions at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from genoscan.engine.edits import Edit
from genoscan.engine.inputs import OneHot, Spans
from genoscan.engine.tangent import tangent
from genoscan.layer import Carry
from genoscan.ops.denormals import flush_denormals

_DIRECTIONS = 24
"""Number of directions in one sweep, which share the undisturbed activations."""


class TangentTile(NamedTuple):
    """Derivatives of the outputs along several substitutions.

    Attributes
    ----------
    edits
        Indices into the sequence of edits.
    positions
        Position in the window of each output.
    tangents
        Derivatives of the outputs along e_new - e_observed.
    reference
        Outputs of the window.
    """

    edits: Int64[Tensor, " batch"]
    positions: Int64[Tensor, "batch span"]
    tangents: Float[Tensor, "batch span d_out"]
    reference: Float[Tensor, "batch span d_out"]


class _BaseChanges:
    """Directions from the observed base to another one, each at its own position of one window."""

    def __init__(self, positions: Int64[Tensor, " directions"], changes: Float[Tensor, "directions d_in"]) -> None:
        self._positions, self._changes = positions, changes
        self.count = len(changes)

    def tile(self, span: slice) -> Float[Tensor, "directions batch tile d_in"]:
        x_dot = self._changes.new_zeros(self.count, 1, span.stop - span.start, self._changes.shape[1])
        inside = torch.nonzero((self._positions >= span.start) & (self._positions < span.stop))[:, 0]
        x_dot[inside, 0, self._positions[inside] - span.start] = self._changes[inside]
        return x_dot


def edit_tangents(
    model: Any,
    codes: UInt8[Tensor, " length"],
    edits: Sequence[Edit],
    *,
    progress: Callable[[int], object] = lambda _positions: None,
) -> Iterator[TangentTile]:
    """Yield the derivative of every output along each of many substitutions.

    Parameters
    ----------
    model
        Model to differentiate (`genoscan.model.Model`).
    codes
        Base codes of the window, in the reading direction.
    edits
        Substitutions of one base by one base, in ascending order of position.
    progress
        Function called after each tile with the number of positions times the number of directions.

    Yields
    ------
    TangentTile
        For causal models, the tiles begin at the first substitution of their batch.

    Notes
    -----
    Exact up to rounding. In a causal model, the tangents of a batch start from the carry before its first
    substitution, so that the window's beginning is computed once. Memory: one tile for each stage, with 24
    tangents; tiles are shorter than those of other sweeps by the same factor.
    """
    table = model.table()
    carry, reached = (None, 0) if model.bidirectional else (model.causal.begin(1), 0)
    for first in range(0, len(edits), _DIRECTIONS):
        members = [edits[i] for i in range(first, min(first + _DIRECTIONS, len(edits)))]
        positions = torch.tensor([edit.start for edit in members])
        new = torch.tensor([edit.codes[0] for edit in members])
        changes = table[new] - table[codes[positions].long()]
        start, stop = 0, len(codes)
        if not model.bidirectional:
            start, stop = int(positions[0]), max(edit.end for edit in members)
            carry, reached = _advance(model, codes[reached:start], carry), start
        inputs = OneHot(codes[None, start:stop], table)
        directions = _BaseChanges(positions - start, changes)

        def advance(size: int, count: int = len(members)) -> None:
            progress(size * count)

        if model.bidirectional:
            sweep = model.method.tangent(model.stack, inputs, directions, progress=advance)
        else:
            tile = max(1, 2 * model.method.tile // _DIRECTIONS)
            sweep = tangent(model.stack, inputs, directions, tile=tile, carry=carry, progress=advance)
        indices = torch.arange(first, first + len(members))
        for span, outputs, tangents in sweep:
            at = torch.arange(span.start, span.stop) + start
            yield TangentTile(indices, at.expand(len(members), -1), tangents[:, 0], outputs.expand_as(tangents[:, 0]))


def _advance(model: Any, codes: UInt8[Tensor, " length"], carry: Carry) -> Carry:
    """Return the carry after some more bases."""
    if len(codes):
        inputs = OneHot(codes[None], model.table())
        with torch.no_grad(), flush_denormals():
            for span in Spans(inputs.length, model.method.tile):
                _, carry = model.stack.forward(inputs.tile(span), carry)
    return carry
