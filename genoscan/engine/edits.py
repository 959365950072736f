"""Outputs of a network for many edited copies of one window.

A causal network computes the same carry for the window and for an edited copy up to the edit. The window is
therefore run once, and each copy is run only from a stored carry shortly before its edit to its end, or to
a position at which its carry equals that of the window. Copies are processed in batches.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from genoscan.engine.captured import Captured
from genoscan.engine.forward import rightward
from genoscan.engine.inputs import OneHot
from genoscan.engine.stages import StagePipeline, run_in_parallel, shares
from genoscan.genome.alphabet import N
from genoscan.layer import Carry, Layer, leaves, map_leaves
from genoscan.ops.denormals import flush_denormals

_GRID = 32
"""Carries are stored at multiples of this number of positions, so that edits close to each other share them."""
STEP = 128
"""Maximum number of positions for which the copies of a batch are run at once."""
_FIRST_CHECK = 1024
"""Number of positions after which carries are compared for the first time; the distance then doubles."""

Finished = Callable[[Sequence[int], Sequence[int], Carry, Carry], Bool[Tensor, " batch"]]
"""Function that determines which copies need not be run further.

Its arguments are the indices of the edits, the positions in the window, and the carries of the copies and of
the window there.
"""


@dataclass(frozen=True, slots=True)
class Edit:
    """Replacement of some inputs of a window by other bases.

    Attributes
    ----------
    start, stop
        Positions `start` to `stop - 1` of the window are replaced.
    codes
        Codes of the new bases, of which there may be any number.
    begin, end
        Part of the window that a bidirectional network reads. A causal network reads from the beginning
        of the window to `end`.
    """

    start: int
    stop: int
    codes: tuple[int, ...]
    end: int
    begin: int = 0

    @property
    def shift(self) -> int:
        """Number of positions by which bases downstream of the edit are moved to the right."""
        return len(self.codes) - (self.stop - self.start)

    @property
    def last(self) -> int:
        """Position after the new bases in the edited copy."""
        return self.start + len(self.codes)


class EditedTile(NamedTuple):
    """Outputs for some positions of some edited copies, and the corresponding outputs for the window.

    Attributes
    ----------
    edits
        Indices of the edits.
    positions
        Positions of the outputs in the edited copies; -1 for outputs to be ignored.
    aligned
        Positions in the window of the outputs for the same labels; -1 for labels that are new bases.
    outputs
        Outputs for the edited copies.
    reference
        Outputs for the window at the positions `aligned`.
    replaced
        Outputs for the window that predict the replaced bases, from the first base on. None except in the
        first tile of each edit.
    """

    edits: Int64[Tensor, " batch"]
    positions: Int64[Tensor, "batch span"]
    aligned: Int64[Tensor, "batch span"]
    outputs: Float[Tensor, "batch span d_out"]
    reference: Float[Tensor, "batch span d_out"]
    replaced: Float[Tensor, "batch replaced d_out"] | None


def edited_copy(codes: UInt8[np.ndarray, " length"], edit: Edit, start: int, stop: int) -> UInt8[np.ndarray, " span"]:
    """Return the codes at positions `start` to `stop - 1` of an edited copy; positions past its end are N."""
    parts = [
        codes[start : min(stop, edit.start)],
        np.array(edit.codes[max(0, start - edit.start) : max(0, stop - edit.start)], np.uint8),
        codes[max(start - edit.shift, edit.stop) : max(stop - edit.shift, edit.stop)],
    ]
    copy = np.concatenate([part for part in parts if len(part)] or [codes[:0]])
    return np.concatenate([copy, np.full(stop - start - len(copy), N, np.uint8)])


def align(edits: Sequence[Edit], positions: Int64[Tensor, "batch span"], label_offset: int) -> tuple[Tensor, Tensor]:
    """Return `positions` and `aligned`, as in `EditedTile`, for given positions in the edited copies."""
    start, last, shift, end, begin = (
        torch.tensor([getattr(edit, name) for edit in edits])[:, None]
        for name in ("start", "last", "shift", "end", "begin")
    )
    labels = positions + label_offset
    aligned = torch.where(labels < start, positions, positions - shift)
    new = (labels >= start) & (labels < last)
    inside = (positions >= begin) & (positions < end + shift)
    return torch.where(inside, positions, -1), torch.where(inside & ~new, aligned, -1)


def edited_outputs(
    layer: Layer,
    codes: UInt8[Tensor, " length"],
    table: Float[Tensor, "codes symbols"],
    edits: Sequence[Edit],
    *,
    tile: int,
    label_offset: int,
    done: Set[int] = frozenset(),
    finished: Finished | None = None,
    first_check: int | None = None,
    progress: Callable[[int], object] = lambda _positions: None,
) -> Iterator[EditedTile]:
    """Yield the outputs for edited copies of a window of a causal network.

    Parameters
    ----------
    layer, codes, table
        Network, base codes of the window, and table of the network's inputs (see `OneHot`).
    edits
        Edits in any order. Each is applied to a copy of its own.
    tile
        Maximum number of positions that are processed at once.
    label_offset
        Offset of the labels (see `target`).
    done
        Indices of edits to omit, because their outputs were yielded by an interrupted run. All edits of a batch
        must be omitted, or none.
    finished
        Function that determines which copies need not be run further. If None, those are the copies whose
        carries equal the carries of the window bit by bit, so that all later outputs are equal, too.
    first_check
        Number of positions after which copies are first compared with the window. If None, 128 if `finished` is
        given, and 1,024 otherwise.
    progress
        Function called with the number of positions that were run.

    Yields
    ------
    EditedTile
        Outputs from the last base before the edit to the end of the edit's part of the window. All tiles of an
        edit are yielded in order; edits are processed in the order of their starts.

    Notes
    -----
    The outputs equal those of a pass over the whole edited copy, up to rounding. They are bitwise identical
    whatever edits are omitted.

    Memory: the outputs for the window from the first edit of a batch to the end of the last; the activations of
    `tile` positions for each thread; a carry for each edit of a batch and for every 32 positions around it. It
    does not depend on the number of edits.
    """
    if not edits:
        return
    order = sorted(range(len(edits)), key=lambda i: (edits[i].start, i))
    plan = _Plan.of(edits, label_offset, first_check, early=finished is not None)
    reference = _Reference(layer, codes, table, plan.cuts(edits), tile, progress)
    threads = torch.get_num_threads() if table.device.type == "cpu" else 1
    size = max(1, tile // STEP) * threads
    for group in (order[i : i + size] for i in range(0, len(order), size)):
        if set(group) <= done:
            continue
        reference.drop(plan.first(edits[group[0]]))
        yield from _batch(reference, edits, group, plan, finished or _equal, progress)


def check_positions(edits: Sequence[Edit], label_offset: int) -> set[int]:
    """Return the positions at which `edited_outputs` compares carries, if copies may be finished early."""
    plan = _Plan.of(edits, label_offset, None, early=True)
    return {at for edit in edits for at in plan.compared(edit)}


@dataclass(frozen=True)
class _Plan:
    """Positions at which copies begin and are compared with the window.

    Attributes
    ----------
    label_offset
        Offset of the labels.
    grid
        Copies begin at multiples of this number.
    checks
        Numbers of positions after which carries are compared.
    """

    label_offset: int
    grid: int
    checks: tuple[int, ...]

    @staticmethod
    def of(edits: Sequence[Edit], label_offset: int, first: int | None, *, early: bool) -> "_Plan":
        """Return the plan for some edits; `early` is True if copies may be finished before they are equal."""
        first = first or (STEP if early else _FIRST_CHECK)
        longest = max(edit.end + edit.shift - edit.start for edit in edits)
        # Carries are hardly ever equal after a short run, and storing them takes time.
        rare = longest < 2 * first and not early
        checks = () if rare else tuple(first << i for i in range((longest // first).bit_length()))
        return _Plan(label_offset, STEP if early else _GRID, checks)

    def first(self, edit: Edit) -> int:
        """Return the position from which a copy is run: at or before the output that predicts its first new base."""
        return max(0, edit.start - self.label_offset) // self.grid * self.grid

    def length(self, edit: Edit) -> int:
        """Return the number of positions of a copy that are run."""
        return edit.end + edit.shift - self.first(edit)

    def compared(self, edit: Edit) -> list[int]:
        """Return the positions in the window at which the carry of a copy is compared with that of the window."""
        ends = (self.first(edit) + n - edit.shift for n in self.checks)
        return [at for at in ends if edit.stop < at < edit.end]

    def cuts(self, edits: Sequence[Edit]) -> set[int]:
        """Return the positions in the window at which its carries are stored."""
        return {at for edit in edits for at in (self.first(edit), *self.compared(edit))}


class _Reference:
    """The window itself, which is run once from left to right, as far as needed."""

    def __init__(
        self,
        layer: Layer,
        codes: UInt8[Tensor, " length"],
        table: Tensor,
        cuts: Set[int],
        tile: int,
        progress: Callable[[int], object],
    ) -> None:
        self.layer, self.codes, self.table = layer, codes.numpy(), table
        self._inputs = OneHot(codes[None], table)
        self._cuts, self._tile, self._progress = cuts, tile, progress
        # The same in every run, whatever edits are done already, so that results are equal bit by bit.
        self._ends = sorted({*cuts, *range(tile, len(codes), tile), len(codes)} - {0})
        self._at = self._kept = 0
        self._live = layer.begin(1)
        self._carries = {0: self._live}
        self._outputs: list[Tensor] = []

    def drop(self, before: int) -> None:
        """Free the outputs and carries at positions before the given one."""
        self._join(before)
        self._carries = {at: carry for at, carry in self._carries.items() if at >= before}

    def run_to(self, position: int) -> None:
        """Run the window at least to the given position."""
        ends = self._ends
        if position <= self._at or self._at == ends[-1]:
            return
        # Several tiles at once, because starting the stages takes time.
        wanted = max(position, self._at + 4 * self._tile)
        first, last = bisect_right(ends, self._at), min(bisect_left(ends, wanted), len(ends) - 1)
        spans = [slice(start, end) for start, end in pairwise([self._at, *ends[first : last + 1]])]
        stop = ends[last]
        sweep = StagePipeline(self.layer, replay=False)
        parts: dict[int, dict[int, Carry]] = {}

        def store(stage: int, at: int, carry: Carry) -> None:
            if at in self._cuts or at == stop:
                parts.setdefault(at, {})[stage] = map_leaves(torch.clone, carry)

        for _, outputs in rightward(sweep, sweep.split(self._live), spans, self._inputs.tile, store):
            self._outputs.append(outputs[0].clone())
            self._progress(len(outputs[0]))
        joined = {at: sweep.join([found[i] for i in range(len(sweep.stages))]) for at, found in parts.items()}
        self._live, self._at = joined[stop], stop
        self._carries |= {at: carry for at, carry in joined.items() if at in self._cuts}

    def carry(self, position: int) -> Carry:
        """Return the carry at one of the positions at which carries are stored."""
        self.run_to(position)
        return self._carries[position]

    def outputs(self, positions: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape d_out"]:
        """Return the outputs at the given positions; those at negative positions are arbitrary."""
        last = int(positions.max()) if positions.numel() else 0
        self.run_to(max(last, self._kept) + 1)
        self._join(self._kept)
        return self._outputs[0][(positions - self._kept).clamp(min=0).to(self.table.device)]

    def _join(self, first: int) -> None:
        """Join the stored outputs to one tensor that begins at position `first`."""
        if len(self._outputs) == 1 and first <= self._kept:
            return
        if self._outputs:
            first = min(first, self._at)
            self._outputs = [torch.cat(self._outputs)[max(0, first - self._kept) :].clone()]
        self._kept = max(self._kept, min(first, self._at))


@dataclass
class _Copies:
    """Edited copies that one thread runs side by side, with their current carries."""

    edits: list[int]
    firsts: list[int]
    carry: Carry

    def keep(self, rows: Bool[Tensor, " batch"]) -> None:
        """Keep only some of the copies."""
        chosen = rows.nonzero()[:, 0]
        self.edits, self.firsts = ([of[i] for i in chosen.tolist()] for of in (self.edits, self.firsts))
        self.carry = map_leaves(lambda leaf: leaf[chosen.to(leaf.device)], self.carry)


def _batch(
    reference: _Reference,
    edits: Sequence[Edit],
    group: Sequence[int],
    plan: _Plan,
    finished: Finished,
    progress: Callable[[int], object],
) -> Iterator[EditedTile]:
    """Run the copies of one batch, and yield their outputs step by step."""
    device = reference.table.device
    parts = []
    for rows in shares(len(group), device):
        own = list(group[rows])
        firsts = [plan.first(edits[i]) for i in own]
        parts.append(_Copies(own, firsts, _stack([reference.carry(at) for at in firsts])))
    lengths = {i: plan.length(edits[i]) for i in group}
    longest = max(lengths.values())
    step = STEP if plan.checks else -(-longest // -(-longest // STEP))
    layer = Captured(reference.layer) if device.type == "cuda" else reference.layer

    def run(part: _Copies, n: int, _check: Callable[[], None]) -> Tensor:
        starts = [first + n for first in part.firsts]
        rows = [edited_copy(reference.codes, edits[i], at, at + step) for i, at in zip(part.edits, starts, strict=True)]
        x = reference.table[torch.from_numpy(np.stack(rows)).to(device, torch.long)]
        with torch.no_grad(), flush_denormals():
            outputs, part.carry = layer.forward(x, part.carry)
        return outputs.clone()

    for n in range(0, longest, step):
        for part in parts:
            part.keep(torch.tensor([lengths[i] > n for i in part.edits]))
            if n in plan.checks:
                _drop_finished(part, reference, edits, n, finished)
        parts = [part for part in parts if part.edits]
        if not parts:
            return
        outputs = torch.cat(run_in_parallel([partial(run, part, n) for part in parts]))
        progress(outputs.shape[0] * step)
        own = [i for part in parts for i in part.edits]
        starts = torch.tensor([first + n for part in parts for first in part.firsts])
        positions, aligned = align([edits[i] for i in own], starts[:, None] + torch.arange(step), plan.label_offset)
        replaced = None
        if n == 0:
            widest = max(edits[i].stop - edits[i].start for i in own)
            before = torch.tensor([edits[i].start - plan.label_offset for i in own])[:, None] + torch.arange(widest)
            replaced = reference.outputs(before.clamp(max=len(reference.codes) - 1))
        yield EditedTile(torch.tensor(own), positions, aligned, outputs, reference.outputs(aligned), replaced)


def _drop_finished(part: _Copies, reference: _Reference, edits: Sequence[Edit], n: int, finished: Finished) -> None:
    """Drop the copies that need not be run beyond their first `n` positions."""
    rows = [
        row
        for row, (i, first) in enumerate(zip(part.edits, part.firsts, strict=True))
        if edits[i].stop < first + n - edits[i].shift < edits[i].end
    ]
    if not rows:
        return
    at = [part.firsts[row] + n - edits[part.edits[row]].shift for row in rows]
    theirs = map_leaves(lambda leaf: leaf[rows], part.carry)
    done = finished([part.edits[row] for row in rows], at, theirs, _stack([reference.carry(p) for p in at]))
    keep = torch.ones(len(part.edits), dtype=torch.bool)
    keep[rows] = ~done.cpu()
    part.keep(keep)


def _stack(carries: Sequence[Carry]) -> Carry:
    """Return the carry of a batch, given the carries of single windows."""
    columns = zip(*(leaves(carry) for carry in carries), strict=True)
    joined = iter([torch.cat(column) for column in columns])
    return map_leaves(lambda _leaf: next(joined), carries[0])


def _equal(_edits: Sequence[int], _at: Sequence[int], carry: Carry, reference: Carry) -> Bool[Tensor, " batch"]:
    """Return which carries are equal to those of the window."""
    pairs = zip(leaves(carry), leaves(reference), strict=True)
    return torch.stack([(a == b).flatten(1).all(1) for a, b in pairs]).all(0)
