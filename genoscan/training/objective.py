"""Training objectives: log-likelihoods of bases and labels, as targets of the engine.

Each part of an objective is a mean over the batch, so that the parts can be added:

    next base       log p(base | bases before it), over all known bases of the windows
    masked bases    log p(base | unmasked bases), over the masked bases (BERT, arXiv 1810.04805)
    softmax head    log p(class), over all bases with a class
    sigmoid head    log p(label present or absent), over all bases and labels that are not ignored
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from genoscan.engine.target import LogLikelihood, Target, whole_window
from genoscan.genome.alphabet import N
from genoscan.layers.config import MASK, ModelConfig
from genoscan.layers.heads import HeadConfig
from genoscan.training.labels import MAX_LABELS

LanguageModel: TypeAlias = Literal["next-base", "masked", "none"]
"""How a language-model head is trained; "none" if there is no such head, or it is not trained."""

MASKED, REPLACED, KEPT = 0.15, 0.1, 0.1
"""Share of bases to predict, and the shares of these that are replaced by random bases or kept."""


@dataclass(frozen=True)
class LabelLikelihood:
    """Log-likelihood of the labels of one head.

    Attributes
    ----------
    labels
        Labels of each base, as bits (see labels.py).
    config
        Configuration of the head.
    """

    labels: Int64[Tensor, "batch length"]
    config: HeadConfig

    def __call__(self, outputs: Float[Tensor, "batch tile labels"], span: slice) -> Float[Tensor, " batch"]:
        present, counted = self.at(span, outputs.device)
        if self.config.link == "softmax":
            log_p = torch.log_softmax(outputs, -1)
            return (log_p * (present & counted)).sum((-1, -2))
        log_p = -F.binary_cross_entropy_with_logits(outputs, present.to(outputs), reduction="none")
        return (log_p * counted).sum((-1, -2))

    def at(self, span: slice, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return masks of the labels that are present and of those that count, of shape (batch, tile, labels)."""
        bits = torch.arange(len(self.config.labels), device=device)
        labels = self.labels[:, span].to(device)[..., None]
        return (labels >> bits & 1).bool(), ~(labels >> (bits + MAX_LABELS) & 1).bool()

    def count(self) -> int:
        """Return the number of terms in the sum, which are bases for a softmax head, and otherwise labels of bases."""
        whole = slice(0, self.labels.shape[1])
        _, counted = self.at(whole, self.labels.device)
        return int((counted.all(-1) if self.config.link == "softmax" else counted).sum())

    def rows(self, rows: slice) -> "LabelLikelihood":
        """Return the target for a slice of the batch."""
        return replace(self, labels=self.labels[rows])


@dataclass(frozen=True)
class Part:
    """Term of an objective: a target that uses certain output columns, with a weight."""

    columns: slice
    target: Target
    weight: float


@dataclass(frozen=True)
class Objective:
    """Weighted sum of targets, each of which uses its own output columns."""

    parts: tuple[Part, ...]

    def __call__(self, outputs: Float[Tensor, "batch tile d_out"], span: slice) -> Float[Tensor, " batch"]:
        terms = [part.weight * part.target(outputs[..., part.columns], span).double() for part in self.parts]
        return torch.stack(terms).sum(0)

    def rows(self, rows: slice) -> "Objective":
        """Return the objective for a slice of the batch."""
        return Objective(tuple(replace(part, target=part.target.rows(rows)) for part in self.parts))


@dataclass(frozen=True)
class Batch:
    """Windows that are used in one update.

    Attributes
    ----------
    codes
        Base codes that the model reads.
    objective
        Objective to evaluate on the windows.
    """

    codes: UInt8[Tensor, "batch length"]
    objective: Objective


def prepare_batch(
    config: ModelConfig,
    codes: UInt8[np.ndarray, "batch bases"],
    labels: Mapping[str, np.ndarray],
    *,
    language_model: LanguageModel,
    weights: Mapping[str, float],
    random: np.random.Generator,
) -> Batch:
    """Return the windows that are used in one update, with the objective.

    Parameters
    ----------
    config
        Configuration of the model.
    codes
        Base codes. If the next base is predicted, each window is one base longer than what is read.
    labels
        Labels of each task head, of the shape of the windows that are read.
    language_model
        How the language-model head is trained.
    weights
        Weight of each head in the objective; 1 if it is not given.
    random
        Source of the masked positions.

    Returns
    -------
    Batch
        Windows and objective.
    """
    known = torch.from_numpy(np.ascontiguousarray(codes))
    read, columns = known, torch.tensor([*config.base_columns, -1])
    outputs = config.output_columns
    parts: list[Part] = []
    if language_model == "next-base":
        read = known[:, :-1]
        target: LogLikelihood = whole_window(known, columns)
        n_labels = int((known[:, 1:] < N).sum())
        parts.append(Part(outputs[""], target, 1 / max(1, n_labels)))
    elif language_model == "masked":
        read, hidden = mask_bases(known, random)
        target = whole_window(torch.where(hidden, known, torch.tensor(N, dtype=torch.uint8)), columns, 0)
        parts.append(Part(outputs[""], target, 1 / max(1, int((hidden & (known < N)).sum()))))
    for name, found in labels.items():
        likelihood = LabelLikelihood(torch.from_numpy(found.astype(np.int64)), config.heads[name])
        parts.append(Part(outputs[name], likelihood, weights.get(name, 1.0) / max(1, likelihood.count())))
    return Batch(read.contiguous(), Objective(tuple(parts)))


def mask_bases(codes: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mask and replace bases as in BERT; return the new codes and a mask of the bases to predict."""
    drawn = torch.from_numpy(random.random(codes.shape))
    fate = torch.from_numpy(random.random(codes.shape))
    bases = torch.from_numpy(random.integers(0, N, codes.shape).astype(np.uint8))
    hidden = drawn < MASKED
    read = torch.where(hidden & (fate >= KEPT), torch.tensor(MASK, dtype=torch.uint8), codes)
    return torch.where(hidden & (fate >= KEPT) & (fate < KEPT + REPLACED), bases, read), hidden
