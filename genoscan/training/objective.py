"""Training objectives: log-likelihoods of bases and labels, which are implemented as targets of the engine.

An objective is a weighted sum of the following means over a batch:

    next base       mean of log p(base | preceding bases) over all known bases of the windows
    masked bases    mean of log p(base | unmasked bases) over the masked bases (BERT, arXiv 1810.04805)
    softmax head    mean of log p(class) over all bases whose class is not ignored
    sigmoid head    mean of log p(label) over all labels of all bases, except ignored labels; p(label)
                    is the probability that the label is present or absent, as annotated
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
"""What a language-model head is trained to predict; "none" if there is no such head, or it is not trained."""

MASKED, REPLACED, KEPT = 0.15, 0.1, 0.1
"""Share of bases to predict; of these bases, the share replaced by random bases and the share left unchanged."""


@dataclass(frozen=True)
class LabelLikelihood:
    """Target that is the log-likelihood of the labels of one head.

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
        """Return two masks of shape (batch, tile, labels): present labels, and labels that are not ignored."""
        bits = torch.arange(len(self.config.labels), device=device)
        labels = self.labels[:, span].to(device)[..., None]
        return (labels >> bits & 1).bool(), ~(labels >> (bits + MAX_LABELS) & 1).bool()

    def count(self) -> int:
        """Return the number of terms in the log-likelihood.

        For a softmax head, there is one term for each base whose class is not ignored. For other heads,
        there is one term for each label at each base, except for ignored labels.
        """
        whole = slice(0, self.labels.shape[1])
        _, counted = self.at(whole, self.labels.device)
        return int((counted.all(-1) if self.config.link == "softmax" else counted).sum())

    def rows(self, rows: slice) -> "LabelLikelihood":
        """Return the target for a slice of the windows in the batch."""
        return replace(self, labels=self.labels[rows])


@dataclass(frozen=True)
class Part:
    """Term of an objective: a weight times a target that is computed from a slice of the output columns."""

    columns: slice
    target: Target
    weight: float


@dataclass(frozen=True)
class Objective:
    """Weighted sum of targets, each of which is computed from a slice of the output columns."""

    parts: tuple[Part, ...]

    def __call__(self, outputs: Float[Tensor, "batch tile d_out"], span: slice) -> Float[Tensor, " batch"]:
        terms = [part.weight * part.target(outputs[..., part.columns], span).double() for part in self.parts]
        return torch.stack(terms).sum(0)

    def rows(self, rows: slice) -> "Objective":
        """Return the objective for a slice of the windows in the batch."""
        return Objective(tuple(replace(part, target=part.target.rows(rows)) for part in self.parts))


@dataclass(frozen=True)
class Batch:
    """Windows that are used in one update of the weights.

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
    """Prepare the windows and the objective for one update of the weights.

    Parameters
    ----------
    config
        Configuration of the model.
    codes
        Base codes of the windows. If the next base is predicted, each window has one more base than
        the model reads.
    labels
        Labels of each base that the model reads, keyed by the name of the task head.
    language_model
        What the language-model head is trained to predict: "next-base", "masked" or "none".
    weights
        Weight of each task head in the objective, by name. If a head is not listed, its weight is 1.
    random
        Random number generator for the selection and replacement of masked bases.

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
    """Mask or replace random bases as in BERT; return the new codes and a mask of the bases to predict."""
    drawn = torch.from_numpy(random.random(codes.shape))
    fate = torch.from_numpy(random.random(codes.shape))
    bases = torch.from_numpy(random.integers(0, N, codes.shape).astype(np.uint8))
    hidden = drawn < MASKED
    read = torch.where(hidden & (fate >= KEPT), torch.tensor(MASK, dtype=torch.uint8), codes)
    return torch.where(hidden & (fate >= KEPT) & (fate < KEPT + REPLACED), bases, read), hidden
