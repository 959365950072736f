"""Derivatives of outputs along substitutions of a window, several directions at a time."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from genoscan.engine.edits import Edit
from genoscan.engine.inputs import OneHot, Spans
from genoscan.engine.tangent import Directions, tangent
from genoscan.layer import Carry, Layer
from genoscan.ops.denormals import flush_denormals

_DIRECTIONS = 24
"""Maximum number of directions in one sweep, which share the activations of the window."""

Sweep = Callable[[OneHot, Directions], Iterator[tuple[slice, Tensor, Tensor]]]
"""Function that yields the outputs of a window and their derivatives along directions, tile by tile."""


class TangentTile(NamedTuple):
    """Derivatives of the outputs along several substitutions.

    Attributes
    ----------
    edits
        Indices of the edits.
    positions
        Positions of the outputs in the window.
    tangents
        Derivatives of the outputs along the sum of e_new - e_observed over the replaced bases.
    reference
        Outputs for the window.
    """

    edits: Int64[Tensor, " batch"]
    positions: Int64[Tensor, "batch span"]
    tangents: Float[Tensor, "batch span d_out"]
    reference: Float[Tensor, "batch span d_out"]


class _Substitutions:
    """Directions from the observed bases to others, each of one edit."""

    def __init__(
        self, edits: Sequence[Edit], codes: UInt8[Tensor, " length"], table: Float[Tensor, "codes d_in"], first: int
    ) -> None:
        self._edits, self._codes, self._table, self._first = edits, codes, table, first
        self.count = len(edits)

    def tile(self, span: slice) -> Float[Tensor, "directions batch tile d_in"]:
        x_dot = self._table.new_zeros(self.count, 1, span.stop - span.start, self._table.shape[1])
        start, stop = span.start + self._first, span.stop + self._first
        for row, edit in enumerate(self._edits):
            for at in range(max(start, edit.start), min(stop, edit.stop)):
                new, old = edit.codes[at - edit.start], int(self._codes[at])
                x_dot[row, 0, at - start] = self._table[new] - self._table[old]
        return x_dot


def edit_tangents(
    layer: Layer,
    codes: UInt8[Tensor, " length"],
    table: Float[Tensor, "codes d_in"],
    edits: Sequence[Edit],
    *,
    tile: int,
    progress: Callable[[int], object] = lambda _positions: None,
) -> Iterator[TangentTile]:
    """Yield the derivatives of the outputs of a causal network along substitutions.

    Parameters
    ----------
    layer, codes, table
        Network, base codes of the window, and table of the network's inputs.
    edits
        Substitutions by as many bases, in ascending order of their starts.
    tile
        Maximum number of positions that are processed at once, over all directions.
    progress
        Function called after each tile with the number of positions times the number of directions.

    Yields
    ------
    TangentTile
        Outputs from the first substitution of a batch to the last end.

    Notes
    -----
    Exact up to rounding. A batch starts from the carry before its first substitution, so that the beginning of the
    window is run once. Memory: two tiles for each stage, whatever the number of substitutions.
    """
    carry, reached = layer.begin(1), 0
    for group in _batches(edits):
        members = [edits[i] for i in group]
        start, stop = members[0].start, max(edit.end for edit in members)
        carry, reached = _advance(layer, codes[reached:start], table, carry, tile), start

        sweep = partial(tangent, layer, tile=max(1, 2 * tile // _DIRECTIONS), carry=carry)
        yield from _run(sweep, codes, table, members, group, slice(start, stop), progress)


def edit_tangents_of_windows(
    sweep: Sweep,
    codes: UInt8[Tensor, " length"],
    table: Float[Tensor, "codes d_in"],
    edits: Sequence[Edit],
    *,
    progress: Callable[[int], object] = lambda _positions: None,
) -> Iterator[TangentTile]:
    """Yield all derivatives of a bidirectional network along substitutions.

    The parameters are those of `edit_tangents`; `sweep` runs the network. The network reads the bases from `begin`
    to `end` of each edit. Substitutions with the same window share its activations.
    """
    for group in _batches(edits, same_window=True):
        members = [edits[i] for i in group]
        yield from _run(sweep, codes, table, members, group, slice(members[0].begin, members[0].end), progress)


def _run(
    sweep: Sweep,
    codes: UInt8[Tensor, " length"],
    table: Float[Tensor, "codes d_in"],
    members: Sequence[Edit],
    group: Sequence[int],
    window: slice,
    progress: Callable[[int], object],
) -> Iterator[TangentTile]:
    """Run one batch over its part of the window."""
    directions = _Substitutions(members, codes, table, window.start)
    indices = torch.tensor(group)
    for span, outputs, tangents in sweep(OneHot(codes[None, window], table), directions):
        at = torch.arange(span.start, span.stop) + window.start
        progress(len(at) * len(members))
        yield TangentTile(indices, at.expand(len(members), -1), tangents[:, 0], outputs.expand_as(tangents[:, 0]))


def _batches(edits: Sequence[Edit], *, same_window: bool = False) -> Iterator[list[int]]:
    """Yield batches of substitutions that lie within the window of the first, or have that window."""
    batch: list[int] = []
    for i, edit in enumerate(edits):
        if batch:
            first = edits[batch[0]]
            near = (edit.begin, edit.end) == (first.begin, first.end) if same_window else edit.start < first.end
            if not near or len(batch) == _DIRECTIONS:
                yield batch
                batch = []
        batch.append(i)
    if batch:
        yield batch


def _advance(layer: Layer, codes: UInt8[Tensor, " length"], table: Tensor, carry: Carry, tile: int) -> Carry:
    """Return the carry after some more bases."""
    if len(codes):
        inputs = OneHot(codes[None], table)
        with torch.no_grad(), flush_denormals():
            for span in Spans(inputs.length, tile):
                _, carry = layer.forward(inputs.tile(span), carry)
    return carry
