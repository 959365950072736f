"""Outputs of a network for many edited copies of one window.

A causal network computes the same carry for the window and for an edited copy up to the edit. The window is
therefore run once, and each copy is run only from a stored carry shortly before its edit to its end, or to
a position at which its carry equals that of the window. Copies are processed in batches.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from genoscan.engine.captured import Captured
from genoscan.engine.reference import Reference
from genoscan.engine.stages import shares
from genoscan.engine.workers import Workers, workers
from genoscan.genome.alphabet import N
from genoscan.layer import Carry, Layer, leaves, map_leaves

_GRID = 32
"""Carries are stored at multiples of this number of positions, so that edits close to each other share them."""
STEP = 128
"""Number of positions for which the copies of a batch are run at once."""
_LONGEST_STEP = 160
"""The same at most, if carries are not compared."""
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
        Edits in any order. Each edit is applied to a separate copy of the window.
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

    Memory: the outputs for the window from the first edit of a batch to the end of the next batch; the activations
    of two tiles for each thread; a carry for each edit of two batches. It does not depend on the number of edits.
    """
    if not edits:
        return
    order = sorted(range(len(edits)), key=lambda i: (edits[i].start, i))
    plan = _Plan.of(edits, label_offset, first_check, early=finished is not None)
    step = plan.step(edits)
    threads = torch.get_num_threads() if table.device.type == "cpu" else 0
    # Each thread runs a tile, so that many copies take little more memory than a few; a GPU needs more at once.
    size = max(1, tile // step) * (threads or 2)
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    left = [batch for batch in batches if not set(batch) <= done]
    with workers(threads) as group:
        reference = Reference(layer, codes, table, plan.cuts(edits), tile, group, progress)
        for batch, following in pairwise([*left, []]):
            reference.drop(plan.first(edits[batch[0]]))
            reference.run_to(max(plan.needed(edits[i]) for i in batch))
            if following:
                reference.start(max(plan.needed(edits[i]) for i in following))
            yield from _batch(reference, edits, batch, plan, step, finished or _equal, group, progress)


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
    early
        Whether copies may be finished before they are equal to the window.
    checks
        Numbers of positions after which carries are compared.
    """

    label_offset: int
    early: bool
    checks: tuple[int, ...]

    @staticmethod
    def of(edits: Sequence[Edit], label_offset: int, first: int | None, *, early: bool) -> "_Plan":
        """Return the plan for some edits; `early` is True if copies may be finished before they are equal."""
        first = first or (STEP if early else _FIRST_CHECK)
        longest = max(edit.end + edit.shift - edit.start for edit in edits)
        # Carries are hardly ever equal after a short run, and storing them takes time.
        rare = longest < 2 * first and not early
        checks = () if rare else tuple(first << i for i in range((longest // first).bit_length()))
        return _Plan(label_offset, early, checks)

    def first(self, edit: Edit) -> int:
        """Return the position from which a copy is run: at or before the output that predicts its first new base."""
        grid = STEP if self.early else _GRID
        return max(0, edit.start - self.label_offset) // grid * grid

    def length(self, edit: Edit) -> int:
        """Return the number of positions of a copy that are run."""
        return edit.end + edit.shift - self.first(edit)

    def step(self, edits: Sequence[Edit]) -> int:
        """Return the number of positions that are run at once: the same in all batches, so that memory is reused."""
        longest = max(1, *map(self.length, edits))
        return STEP if self.checks else -(-longest // -(-longest // _LONGEST_STEP))

    def needed(self, edit: Edit) -> int:
        """Return the position to which the window is run before the edit's copy is."""
        return min(edit.end, self.first(edit) + 2 * STEP) if self.early else edit.end

    def compared(self, edit: Edit) -> list[int]:
        """Return the positions in the window at which the carry of a copy is compared with that of the window."""
        ends = (self.first(edit) + n - edit.shift for n in self.checks)
        return [at for at in ends if edit.stop < at < edit.end]

    def cuts(self, edits: Sequence[Edit]) -> set[int]:
        """Return the positions in the window at which its carries are stored."""
        return {at for edit in edits for at in (self.first(edit), *self.compared(edit))}


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
    reference: Reference,
    edits: Sequence[Edit],
    group: Sequence[int],
    plan: _Plan,
    step: int,
    finished: Finished,
    threads: Workers,
    progress: Callable[[int], object],
) -> Iterator[EditedTile]:
    """Run the copies of one batch, and yield their outputs step by step."""
    device = reference.table.device
    parts = []
    for rows in shares(len(group), device):
        own = list(group[rows])
        firsts = [plan.first(edits[i]) for i in own]
        parts.append(_Copies(own, firsts, _stack([reference.carry(at) for at in firsts])))
    if not plan.checks:
        reference.drop_carries(parts[-1].firsts[-1])
    lengths = {i: plan.length(edits[i]) for i in group}
    longest = max(lengths.values())
    layer = Captured(reference.layer) if device.type == "cuda" else reference.layer

    def run(part: _Copies, n: int) -> Tensor:
        starts = [first + n for first in part.firsts]
        rows = [edited_copy(reference.codes, edits[i], at, at + step) for i, at in zip(part.edits, starts, strict=True)]
        x = reference.table[torch.from_numpy(np.stack(rows)).to(device, torch.long)]
        outputs, part.carry = layer.forward(x, part.carry)
        return outputs.clone()

    def begin(n: int) -> _Step | None:
        """Start to run the copies that are not finished from their position `n` on."""
        for part in parts:
            part.keep(torch.tensor([lengths[i] > n for i in part.edits]))
            if n in plan.checks:
                _drop_finished(part, reference, edits, n, finished)
        parts[:] = [part for part in parts if part.edits]
        if not parts:
            return None
        starts = torch.tensor([first + n for part in parts for first in part.firsts])
        outputs = [threads.submit(partial(run, part, n)) for part in parts]
        return _Step([i for part in parts for i in part.edits], starts, outputs)

    following = begin(0)
    for n in range(0, longest, step):
        if following is None:
            return
        own, starts, results = following
        outputs = torch.cat([result.result() for result in results])
        if not plan.early:
            following = begin(n + step)
        progress(outputs.shape[0] * step)
        positions, aligned = align([edits[i] for i in own], starts[:, None] + torch.arange(step), plan.label_offset)
        replaced = None
        if n == 0:
            widest = max(edits[i].stop - edits[i].start for i in own)
            before = torch.tensor([edits[i].start - plan.label_offset for i in own])[:, None] + torch.arange(widest)
            replaced = reference.outputs(before.clamp(max=len(reference.codes) - 1))
        yield EditedTile(torch.tensor(own), positions, aligned, outputs, reference.outputs(aligned), replaced)
        if plan.early:  # after the outputs have been used, on which `finished` may depend
            following = begin(n + step)


class _Step(NamedTuple):
    """Step of a batch that is being run: the edits, the positions in their copies, and the outputs of each part."""

    edits: list[int]
    starts: Int64[Tensor, " batch"]
    outputs: "list[Future[Tensor]]"


def _drop_finished(part: _Copies, reference: Reference, edits: Sequence[Edit], n: int, finished: Finished) -> None:
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
