"""Targets: the scalars to differentiate, which are computed tile by tile as sums over positions.

The output of a model at position `t` predicts the base at position `t + label_offset`. The offset is 1
for a causal model, which predicts the next base. Labels are constants: the derivative is taken only
with respect to the input.
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor


@runtime_checkable
class Target(Protocol):
    """Scalar to differentiate, with one value per window.

    A target is additive over positions. Let `target([a, b))` denote its value for the outputs at
    positions `a` to `b - 1`. Then `target([0, n)) == target([0, k)) + target([k, n))` for 0 <= k <= n.
    """

    def __call__(self, outputs: Float[Tensor, "batch tile d_out"], span: slice) -> Float[Tensor, " batch"]:
        """Return the contribution of the outputs at the positions of the span to the target."""
        ...

    def rows(self, rows: slice) -> "Target":
        """Return the target for a slice of the windows in the batch."""
        ...


@dataclass(frozen=True)
class LogLikelihood:
    """Log-likelihood, in nats, of the labels at positions `first` to `last - 1`.

    The log-likelihood is the sum, over these labels, of the log-probability that the model assigns to
    the label. `first` and `last` are 0-based positions in the window. `columns` maps each base code to
    an output column of the model, or to -1 if the base has no column. Labels that have no column or lie
    outside the window are omitted.
    """

    codes: UInt8[Tensor, "batch length"]
    columns: Int64[Tensor, " codes"]
    first: Int64[Tensor, " batch"]
    last: Int64[Tensor, " batch"]
    label_offset: int = 1

    def __call__(self, outputs: Float[Tensor, "batch tile d_out"], span: slice) -> Float[Tensor, " batch"]:
        labels, counted = self.labels(span)
        # In float64: the derivative is 1 - p, which loses precision in float32 if p is near 1.
        log_p = torch.log_softmax(outputs.double(), -1)
        log_p = log_p.gather(-1, labels.to(outputs.device)[..., None])[..., 0]
        return (log_p * counted.to(log_p)).sum(-1)

    def rows(self, rows: slice) -> "LogLikelihood":
        """Return the target for a slice of the windows in the batch."""
        own = {name: getattr(self, name)[rows] for name in ("codes", "first", "last")}
        return replace(self, **own)

    def labels(self, span: slice) -> tuple[Int64[Tensor, "batch tile"], Bool[Tensor, "batch tile"]]:
        """Return the column of the base that each output predicts, and a mask of the included bases."""
        length = self.codes.shape[1]
        at = torch.arange(span.start, span.stop) + self.label_offset
        columns = self.columns[self.codes[:, at.clamp(max=length - 1)].long()]
        last = self.last.clamp(max=length)
        inside = (at >= self.first[:, None]) & (at < last[:, None])
        return columns.clamp(min=0), inside & (columns >= 0)


@dataclass(frozen=True)
class LogitSum:
    """Weighted sum of the logits of the outputs at positions `first` to `last - 1`.

    `weights` has one entry per output column. For a single logit, the weights are one-hot. For
    log-odds, the weight is 1 for one symbol and -1/3 for each of the other three symbols. Positions
    outside the window contribute 0.
    """

    first: Int64[Tensor, " batch"]
    last: Int64[Tensor, " batch"]
    weights: Float[Tensor, "batch d_out"]

    def __call__(self, outputs: Float[Tensor, "batch tile d_out"], span: slice) -> Float[Tensor, " batch"]:
        at = torch.arange(span.start, span.stop)
        inside = (at >= self.first[:, None]) & (at < self.last[:, None])
        return ((outputs * self.weights.to(outputs)[:, None]).sum(-1) * inside.to(outputs)).sum(-1)

    def rows(self, rows: slice) -> "LogitSum":
        """Return the target for a slice of the windows in the batch."""
        return LogitSum(self.first[rows], self.last[rows], self.weights[rows])


@dataclass(frozen=True)
class PooledMaximum:
    """Weighted sum of the maximum of each output column over all positions, plus an offset.

    `positions` contains the position of each maximum, as determined by a forward pass. The derivative
    is therefore that of the selected outputs. It is discontinuous where two outputs are equal.
    """

    positions: Int64[Tensor, "batch d_out"]
    weights: Float[Tensor, "batch d_out"]
    offset: Float[Tensor, " batch"]

    def __call__(self, outputs: Float[Tensor, "batch tile d_out"], span: slice) -> Float[Tensor, " batch"]:
        inside = (self.positions >= span.start) & (self.positions < span.stop)
        at = (self.positions - span.start).clamp(0, outputs.shape[1] - 1).to(outputs.device)
        rows = outputs.gather(1, at[:, None])[:, 0]
        # Each column carries an equal part of the offset, so that the parts of all tiles sum to it.
        part = self.offset[:, None] / self.positions.shape[1]
        return ((rows * self.weights.to(outputs) + part.to(outputs)) * inside.to(outputs)).sum(-1)

    def rows(self, rows: slice) -> "PooledMaximum":
        """Return the target for a slice of the windows in the batch."""
        return PooledMaximum(self.positions[rows], self.weights[rows], self.offset[rows])


@dataclass(frozen=True)
class WeightedSum:
    """Inner product of all outputs with fixed weights, which is used in the dot-product test."""

    weights: Float[Tensor, "batch length d_out"]

    def __call__(self, outputs: Float[Tensor, "batch tile d_out"], span: slice) -> Float[Tensor, " batch"]:
        return (outputs * self.weights[:, span].to(outputs)).sum((-1, -2))

    def rows(self, rows: slice) -> "WeightedSum":
        """Return the target for a slice of the windows in the batch."""
        return WeightedSum(self.weights[rows])


def whole_window(
    codes: UInt8[Tensor, "batch length"], columns: Int64[Tensor, " codes"], label_offset: int = 1
) -> LogLikelihood:
    """Return the `LogLikelihood` of all bases in the window that an output predicts."""
    batch, length = codes.shape
    return LogLikelihood(codes, columns, torch.zeros(batch).long(), torch.full((batch,), length), label_offset)
