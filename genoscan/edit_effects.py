"""Effects of edits of a sequence on a target, as sums over labels.

A target is a sum of one term per label: the log-probability of a base, or a weighted sum of logits. The
effect of an edit is the sum over the edited copy minus the sum over the original. It has two parts: the
terms of the new bases minus those of the replaced bases, and the changes of the terms of all other bases.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from genoscan.engine.edit_tangents import TangentTile
from genoscan.engine.edits import Edit, EditedTile, check_positions
from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.engine.target import LogitSum, LogLikelihood, Target
from genoscan.genome.alphabet import N
from genoscan.gradient import stream_gradient
from genoscan.layer import Carry
from genoscan.layers.config import MASK
from genoscan.model import Model

_EVERYWHERE = 1 << 62
_PLACES = "start", "stop", "end"


@dataclass(frozen=True)
class Terms:
    """Terms of a target, one for each label.

    Attributes
    ----------
    weights
        Weights of the logits. If None, the term is the log-probability of the label.
    first, last
        Labels at positions `first` to `last - 1` are included, and bases inserted between two of them.
    distribution
        Whether a softmax of the outputs is a probability distribution, so that distributions can be compared.
    """

    weights: Float64[Tensor, " d_out"] | None = None
    first: int = -1
    last: int = _EVERYWHERE
    distribution: bool = True

    def edited(self, edit: Edit) -> "Terms":
        """Return the terms in positions of an edited copy; an insertion at an edge of the labels is outside them."""
        if self.last <= edit.start:
            return self
        first, last = max(self.first, edit.stop) + edit.shift, max(self.last, edit.stop) + edit.shift
        if self.first < edit.start or self.first == edit.start < edit.stop:
            first = self.first
        return replace(self, first=first, last=last)

    def target(self, model: Model, codes: UInt8[Tensor, " length"]) -> Target:
        """Return the sum of the terms of a window, in the format of the engine."""
        first, last = torch.tensor([self.first]), torch.tensor([min(self.last, len(codes))])
        if self.weights is None:
            return LogLikelihood(codes[None], model.columns(), first, last, model.label_offset)
        return LogitSum(first - model.label_offset, last - model.label_offset, self.weights[None])


@dataclass(frozen=True)
class Effects:
    """Effects of edits, as float64 arrays with one entry per edit.

    Attributes
    ----------
    own
        Terms of the new bases minus terms of the replaced bases.
    down
        Sum of the changes of the terms of all other bases. For causal models, these are downstream.
    jsd
        Mean Jensen-Shannon divergence, in nats, between the distributions predicted for these bases with
        and without the edit; NaN if the outputs are not a distribution.
    largest, at
        Change of the term that changes most, with its sign, and the position of its label; NaN if no other
        base has a term.
    """

    own: Float64[np.ndarray, " edits"]
    down: Float64[np.ndarray, " edits"]
    jsd: Float64[np.ndarray, " edits"]
    largest: Float64[np.ndarray, " edits"]
    at: Float64[np.ndarray, " edits"]

    @property
    def delta(self) -> Float64[np.ndarray, " edits"]:
        """Change of the target."""
        return self.own + self.down


def edit_effects(
    model: Model,
    codes: UInt8[Tensor, " length"],
    edits: Sequence[Edit],
    terms: Terms,
    *,
    tolerance: float = 0.0,
    done: set[int] | None = None,
    finish: Callable[[list[int], Effects], object] = lambda _edits, _effects: None,
    progress: Progress = ignore,
) -> Effects:
    """Return the effects of edits on a target, each applied to a copy of its own.

    Parameters
    ----------
    model, codes
        Model, and base codes of the window that it reads.
    edits
        Edits of the window, in any order.
    terms
        Target.
    tolerance
        If 0, the effects are exact. Otherwise, the end of a copy is replaced by a linear estimate once the last
        two parts of the copy deviate by at most this much from their estimates. This requires a causal model, and
        edits whose parts all end with the window.
    done
        Indices of edits that are omitted, because an interrupted run has finished them; their effects are 0.
    finish
        Function that is called with the indices of a batch of edits once their effects are final.
    progress
        Function called with the number of positions that were run.

    Returns
    -------
    Effects
        Effects of the edits.

    Notes
    -----
    The effects are those of two passes over whole windows, up to rounding: for a causal model from the
    beginning of `codes` to the end of the edit's part, for a bidirectional model over the edit's part. Outputs
    are compared in float64. Working memory does not depend on the number of edits.
    """
    sums = _Sums(model, codes, edits, terms)
    finished = _Estimates(sums, tolerance) if tolerance and edits else None
    batch: list[int] = []
    for tile in model.method.edited(
        model.stack,
        codes,
        model.table(),
        edits,
        label_offset=model.label_offset,
        done=done or frozenset(),
        finished=finished,
        progress=progress,
    ):
        if tile.replaced is not None and batch:
            finish(batch, sums.effects)
        if tile.replaced is not None:
            batch = tile.edits.tolist()
        sums.add(tile)
    if batch:
        finish(batch, sums.effects)
    return sums.effects


class _Sums:
    """Sums over the tiles that have been added."""

    def __init__(self, model: Model, codes: UInt8[Tensor, " length"], edits: Sequence[Edit], terms: Terms) -> None:
        self.model, self.codes, self.edits, self.terms = model, codes, edits, terms
        self._columns = model.columns()
        shape = len(edits)
        empty = np.zeros(shape) if terms.distribution else np.full(shape, np.nan)
        nan = np.full(shape, np.nan)
        self.effects = Effects(np.zeros(shape), np.zeros(shape), empty, nan, nan.copy())

    def add(self, tile: EditedTile) -> None:
        """Add the outputs of a tile."""
        chosen = tile.edits.numpy()
        edits = [self.edits[i] for i in chosen]
        start, stop, last = (
            torch.tensor([getattr(edit, name) for edit in edits])[:, None] for name in ("start", "stop", "last")
        )
        offset = self.model.label_offset
        copied, label = tile.positions + offset, tile.aligned + offset
        common = (tile.aligned >= 0) & (label < torch.tensor([edit.end for edit in edits])[:, None])
        if not self.model.bidirectional:
            # Outputs before the edit do not depend on it, and would add rounding errors.
            common &= label >= stop
        new = (tile.positions >= 0) & (copied >= start) & (copied < last)
        bases = torch.where(new, self._new_bases(edits, copied - start), self._bases(label))
        edited, original = self._values(tile.outputs, bases), self._values(tile.reference, bases)
        counted = self.counted(label)
        change = torch.where(common & counted, edited - original, 0.0)
        effects = self.effects
        effects.down[chosen] += change.sum(1).numpy()
        # An insertion at an edge of the target is outside it, whatever strand is read.
        inside = self.counted(start) & ((start < stop) | (start > self.terms.first))
        effects.own[chosen] += torch.where(new & inside, edited, 0.0).sum(1).numpy()
        if tile.replaced is not None and tile.replaced.shape[1]:
            at = start + torch.arange(tile.replaced.shape[1])
            begin = torch.tensor([edit.begin for edit in edits])[:, None]
            old = (at < stop) & (at - offset >= begin) & self.counted(at)
            values = self._values(tile.replaced, self._bases(at))
            effects.own[chosen] -= torch.where(old, values, 0.0).sum(1).numpy()
        self._add_largest(chosen, change, label, common & counted)
        if self.terms.distribution:
            count = torch.tensor([self._compared(edit) for edit in edits]).clamp(min=1)
            divergence = _divergence(tile.outputs, tile.reference)
            effects.jsd[chosen] += ((divergence * common).sum(1) / count).numpy()

    def _compared(self, edit: Edit) -> int:
        """Return the number of labels, other than new bases, that are predicted with and without the edit."""
        begin = edit.begin if self.model.bidirectional else 0
        first = begin + self.model.label_offset
        left = max(0, edit.start - first) if self.model.bidirectional else 0
        return left + edit.end - max(edit.stop, first, first - edit.shift)

    def counted(self, labels: Int64[Tensor, "batch span"]) -> Tensor:
        """Return which labels the target includes."""
        return (labels >= self.terms.first) & (labels < self.terms.last)

    def _bases(self, labels: Int64[Tensor, "batch span"]) -> UInt8[Tensor, "batch span"]:
        return self.codes[labels.clamp(0, len(self.codes) - 1)]

    def _new_bases(self, edits: Sequence[Edit], at: Int64[Tensor, "batch span"]) -> UInt8[Tensor, "batch span"]:
        widest = max(1, *(len(edit.codes) for edit in edits)) if edits else 1
        rows = [[*edit.codes, *[N] * (widest - len(edit.codes))] for edit in edits]
        return torch.tensor(rows, dtype=torch.uint8).gather(1, at.clamp(0, widest - 1))

    def _values(self, outputs: Tensor, bases: UInt8[Tensor, "batch span"]) -> Float64[Tensor, "batch span"]:
        """Return the term of each label; that of a base which the model does not predict is 0."""
        outputs = outputs.double().cpu()
        if self.terms.weights is not None:
            return outputs @ self.terms.weights
        columns = self._columns[bases.clamp(max=N).long()]
        log_p = torch.log_softmax(outputs, -1).gather(-1, columns.clamp(min=0)[..., None])[..., 0]
        return torch.where(columns >= 0, log_p, 0.0)

    def derivatives(self, tile: TangentTile, labels: Int64[Tensor, "batch span"]) -> Float64[Tensor, "batch span"]:
        """Return the derivative of the term of each label along the edits of a tile."""
        change = tile.tangents.double().cpu()
        if self.terms.weights is not None:
            return change @ self.terms.weights
        columns = self._columns[self._bases(labels).clamp(max=N).long()]
        mean = (torch.softmax(tile.reference.double().cpu(), -1) * change).sum(-1)
        found = change.gather(-1, columns.clamp(min=0)[..., None])[..., 0] - mean
        return torch.where(columns >= 0, found, 0.0)

    def _add_largest(self, chosen: np.ndarray, change: Tensor, label: Tensor, counted: Tensor) -> None:
        sizes, where = torch.where(counted, change.abs(), -1.0).max(1)
        value, at = (of.gather(1, where[:, None])[:, 0].numpy() for of in (change, label))
        size = sizes.numpy()
        larger = (size >= 0) & ~(np.abs(self.effects.largest[chosen]) >= size)
        self.effects.largest[chosen[larger]] = value[larger]
        self.effects.at[chosen[larger]] = at[larger]

    def target(self) -> Target:
        """Return the target for the window itself, in the format of the engine."""
        return self.terms.target(self.model, self.codes)


class _Estimates:
    """Linear estimates of the effects of the carry where copies are compared with the window.

    The estimate of what remains is the cotangent of the window's carry times the change of the carry. Its error
    is of second order in that change. It is judged by the last two parts of the copy: the difference between two
    estimates should be the change of the terms between them. Parts double in length, so that the last one is as
    long as all before it. A single part may deviate little by chance.
    """

    def __init__(self, sums: _Sums, tolerance: float) -> None:
        self._sums, self._tolerance = sums, tolerance
        model = sums.model
        inputs = OneHot(sums.codes[None], model.table())
        positions = check_positions(sums.edits, model.label_offset)
        self._linear = model.method.linearise(model.stack, inputs, sums.target(), positions)
        self._before = np.full((3, len(sums.edits)), np.nan)

    def __call__(self, edits: Sequence[int], at: Sequence[int], carry: Carry, reference: Carry) -> Tensor:
        """Return which copies are finished, and add the estimates to their effects."""
        chosen = np.array(edits)
        estimate = self._linear.change(at, carry, reference).numpy()
        down = self._sums.effects.down[chosen]
        earlier, earlier_estimate, earlier_error = self._before[:, chosen]
        error = np.abs((down - earlier) - (earlier_estimate - estimate))
        done = np.maximum(error, earlier_error) <= self._tolerance
        self._before[:, chosen] = down, estimate, error
        self._sums.effects.down[chosen[done]] += estimate[done]
        return torch.from_numpy(done)


def _divergence(a: Tensor, b: Tensor) -> Float64[Tensor, "batch span"]:
    """Return the Jensen-Shannon divergence, in nats, of the distributions predicted by two outputs."""
    log_p, log_q = (torch.log_softmax(outputs.double().cpu(), -1) for outputs in (a, b))
    log_m = torch.logaddexp(log_p, log_q) - np.log(2)
    parts = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    # Rounding could make it slightly negative.
    return (parts.sum(-1) / 2).clamp(min=0)


def first_order_effects(
    model: Model, codes: UInt8[Tensor, " length"], edits: Sequence[Edit], terms: Terms, *, progress: Progress = ignore
) -> Float64[np.ndarray, " edits"]:
    """Return first-order predictions of the changes of the terms of all bases that an edit does not replace.

    Parameters
    ----------
    model, codes, edits, terms, progress
        As for `edit_effects`.

    Returns
    -------
    ndarray
        Derivative of the sum of these terms along the edit: the prediction of `Effects.down`. NaN for edits that
        change the length.

    Notes
    -----
    Exact up to rounding, by tangents that several edits share. Memory: as for `edit_effects`.
    """
    sums = _Sums(model, codes, edits, terms)
    order = sorted((i for i, edit in enumerate(edits) if not edit.shift), key=lambda i: edits[i].start)
    effects = np.full(len(edits), np.nan)
    effects[order] = 0
    chosen = [edits[i] for i in order]
    for tile in model.method.edit_tangents(model.stack, codes, model.table(), chosen, progress=progress):
        rows = [chosen[i] for i in tile.edits.tolist()]
        start, stop, end = (torch.tensor([getattr(edit, name) for edit in rows])[:, None] for name in _PLACES)
        labels = tile.positions + model.label_offset
        counted = (labels >= stop) & (labels < end) & sums.counted(labels)
        if model.bidirectional:
            counted |= (labels < start) & sums.counted(labels)
        change = sums.derivatives(tile, labels)
        effects[[order[i] for i in tile.edits.tolist()]] += torch.where(counted, change, 0.0).sum(1).numpy()
    return effects


def masked_log_odds(
    model: Model,
    codes: UInt8[Tensor, " length"],
    edits: Sequence[Edit],
    *,
    done: set[int] | None = None,
    finish: Callable[[list[int], Effects], object] = lambda _edits, _effects: None,
    progress: Progress = ignore,
) -> Effects:
    """Return log p(new base) - log p(observed base) for substitutions, with the base masked in the input.

    The parameters are those of `edit_effects`. The result has only `own`; the other arrays are NaN.
    """
    masked = [Edit(edit.start, edit.stop, (MASK,), edit.end, edit.begin) for edit in edits]
    nan = np.full(len(edits), np.nan)
    effects = Effects(np.zeros(len(edits)), *(nan.copy() for _ in range(4)))
    columns = model.columns()
    for tile in model.method.edited(
        model.stack,
        codes,
        model.table(),
        masked,
        label_offset=model.label_offset,
        done=done or frozenset(),
        progress=progress,
    ):
        chosen = tile.edits.tolist()
        for row, i in enumerate(chosen):
            at = int((tile.positions[row] == edits[i].start - model.label_offset).nonzero()[0, 0])
            log_p = torch.log_softmax(tile.outputs[row, at].double().cpu(), -1)
            new, old = columns[edits[i].codes[0]], columns[int(codes[edits[i].start])]
            effects.own[i] = float(log_p[new] - log_p[old])
        finish(chosen, effects)
    return effects


def first_order_substitutions(
    model: Model, codes: UInt8[Tensor, " length"], edits: Sequence[Edit], terms: Terms, *, progress: Progress = ignore
) -> Float64[np.ndarray, " edits"]:
    """Return first-order predictions of the effects of substitutions of single bases, from one gradient.

    Parameters
    ----------
    model, codes, edits, terms, progress
        As for `edit_effects`. The parts of all edits must end with the window.

    Returns
    -------
    ndarray
        For a log-likelihood, log p(new base) - log p(observed base) at the base itself plus the derivative of the
        target, with labels held fixed, along the substitution; for other targets, that derivative.

    Notes
    -----
    Memory: as for the gradient, and 8 bytes for each base between the first and the last edit and each symbol.
    """
    sums = _Sums(model, codes, edits, terms)
    starts = np.array([edit.start for edit in edits])
    old, new = model.columns()[codes[starts].long()], model.columns()[[edit.codes[0] for edit in edits]]
    first, last = int(starts.min()), int(starts.max()) + 1
    gradient = torch.zeros(last - first, model.table().shape[1], dtype=torch.float64)

    def receive(_rows: slice, span: slice, x_bar: Tensor) -> None:
        start, stop = max(first, span.start), min(last, span.stop)
        if start < stop:
            gradient[start - first : stop - first] = x_bar[0, start - span.start : stop - span.start].double().cpu()

    stream_gradient(model, codes[None], sums.target(), receive, progress=progress)
    effects = gradient[starts - first, new] - gradient[starts - first, old]
    if terms.weights is None:
        offset = model.label_offset
        counted = torch.from_numpy((starts >= max(terms.first, offset)) & (starts < terms.last))
        log_p = torch.zeros_like(gradient)
        for span, outputs in model.method.forward(model.stack, OneHot(codes[None], model.table())):
            start, stop = max(first, span.start + offset), min(last, span.stop + offset)
            if start < stop:
                rows = outputs[0, start - offset - span.start : stop - offset - span.start]
                log_p[start - first : stop - first] = torch.log_softmax(rows.double().cpu(), -1)
        effects += torch.where(counted, log_p[starts - first, new] - log_p[starts - first, old], 0.0)
    return effects.numpy()
