"""Sums of the terms of a target over labels, with and without edits of a sequence.

A target is a sum of one term per label: the log-probability of a base, or a weighted sum of logits. The
effect of an edit is the sum over the edited copy minus the sum over the original. It has two parts: the
terms of the new bases minus those of the replaced bases, and the changes of the terms of all other bases. A base
that is predicted only with the edit or only without it, because it is or was the first of the sequence, has no change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from genoscan.engine.edit_tangents import TangentTile
from genoscan.engine.edits import Edit, EditedTile
from genoscan.engine.target import LogitSum, LogLikelihood, Target
from genoscan.genome.alphabet import N
from genoscan.model import Model

_EVERYWHERE = 1 << 62


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


class EditSums:
    """Effects of edits, as sums over the tiles that have been added.

    Attributes
    ----------
    model, codes, edits, terms
        As for `edit_effects.edit_effects`.
    effects
        Sums so far.
    """

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


def _divergence(a: Tensor, b: Tensor) -> Float64[Tensor, "batch span"]:
    """Return the Jensen-Shannon divergence, in nats, of the distributions predicted by two outputs."""
    log_p, log_q = (torch.log_softmax(outputs.double().cpu(), -1) for outputs in (a, b))
    log_m = torch.logaddexp(log_p, log_q) - np.log(2)
    parts = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    # Rounding could make it slightly negative.
    return (parts.sum(-1) / 2).clamp(min=0)
