"""How well a causal language model predicts the observed bases, compared with its validation data.

A sequence is unlike the training data if the model predicts it hardly better than a predictor that knows only
how frequent A, C, G and T are in this sequence. The measure is the difference of the two in bits per base, the
gain, relative to the gain on the validation data. The log-likelihood is a result of the run, so that the
comparison requires no further pass of the model.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from genoscan.engine.target import LogLikelihood
from genoscan.genome.region import Region
from genoscan.layers.config import ValidationResult
from genoscan.tracks.store import Arrays

MIN_BASES = 20_000
"""Fewest bases that are judged. Within a genome, the gain varies between shorter stretches."""

_MIN_GAIN = 0.25
"""Smallest gain, relative to that on the validation data, that is not reported."""

_PIECE = 1 << 16


class Likelihood(NamedTuple):
    """Log-likelihood of observed bases under a language model.

    Attributes
    ----------
    counts
        Number of A, C, G and T that the model predicted. Their order on strand "-" is of no importance.
    log_likelihood
        Sum of the log-probabilities of these bases, in nats.
    """

    counts: tuple[int, int, int, int]
    log_likelihood: float

    @property
    def bits(self) -> float:
        """Bits per base of the model."""
        return -self.log_likelihood / math.log(2) / sum(self.counts)

    @property
    def composition(self) -> float:
        """Entropy of the composition of the bases, in bits."""
        total = sum(self.counts)
        return -sum(n / total * math.log2(n / total) for n in self.counts if n)


def count_bases(target: LogLikelihood) -> tuple[int, int, int, int]:
    """Return how often A, C, G and T are among the labels of a target."""
    counts = np.zeros(4, np.int64)
    for codes, first, last in zip(target.codes.numpy(), target.first.tolist(), target.last.tolist(), strict=True):
        labels = codes[max(first, target.label_offset) : last]
        for start in range(0, len(labels), _PIECE):
            counts += np.bincount(labels[start : start + _PIECE], minlength=len(counts))[: len(counts)]
    a, c, g, t = counts.tolist()
    return a, c, g, t


def likelihood_of_scores(arrays: Arrays, regions: Iterable[Region]) -> Likelihood:
    """Return the likelihood of the bases of regions, where the scores are the log-likelihoods of the bases.

    Parameters
    ----------
    arrays
        Arrays in which a base that was not predicted has the score NaN.
    regions
        Regions, whose bases are counted on the forward strand.
    """
    found = []
    for region in regions:
        at = arrays.slice_of(region)
        for start in range(at.start, at.stop, _PIECE):
            piece = slice(start, min(start + _PIECE, at.stop))
            scores, codes = arrays.scores[piece], arrays.codes[piece]
            known = np.isfinite(scores)
            a, c, g, t = np.bincount(codes[known], minlength=4).tolist()
            found.append(Likelihood((a, c, g, t), float(scores[known].sum(dtype=np.float64))))
            arrays.used(len(scores))
    return sum_likelihoods(found)


def likelihood_record(found: Likelihood, validation: ValidationResult | None) -> dict[str, Any] | None:
    """Return the entry `likelihood` of the record of a track; None if no base was predicted.

    Parameters
    ----------
    found
        Log-likelihood of the bases of a run.
    validation
        Results on the validation data of the model, if they are known.
    """
    if not any(found.counts):
        return None
    known = {} if validation is None else {"validation": validation.model_dump()}
    return {
        "base_counts": list(found.counts),
        "log_likelihood": found.log_likelihood,
        "bits": found.bits,
        "composition": found.composition,
        **known,
    }


def likelihood_warning(model: str, record: Mapping[str, Any]) -> str | None:
    """Return a warning if a model hardly predicts the bases of a run.

    Parameters
    ----------
    model
        Name of the model, which is included in the warning.
    record
        Record of the likelihood, as returned by `likelihood_record`.

    Returns
    -------
    str or None
        The warning. None if fewer than 20,000 bases were predicted, if the gain over the composition of the bases
        is at least a quarter of that on the validation data, or if the latter is unknown or not positive.
    """
    validation = record.get("validation")
    if validation is None or sum(record["base_counts"]) < MIN_BASES:
        return None
    gain, usual = (one["composition"] - one["bits"] for one in (record, validation))
    if usual <= 0 or gain >= _MIN_GAIN * usual:
        return None
    return (
        f"{model} predicts these bases with {record['bits']:.3f} bits per base, its validation data with "
        f"{validation['bits']:.3f} (from the composition alone: {record['composition']:.3f} and "
        f"{validation['composition']:.3f}): they are unlike its training data, and its predictions may not be "
        "meaningful here"
    )


def join_warnings(*warnings: str | None) -> dict[str, str]:
    """Return the entry `warning` of the record of a track; an empty dict if there are no warnings."""
    given = [warning for warning in warnings if warning is not None]
    return {"warning": "; ".join(given)} if given else {}


def sum_likelihoods(found: Iterable[Likelihood]) -> Likelihood:
    """Return the log-likelihood of the bases of several windows or runs together."""
    counts, total = np.zeros(4, np.int64), 0.0
    for one in found:
        counts += one.counts
        total += one.log_likelihood
    a, c, g, t = counts.tolist()
    return Likelihood((a, c, g, t), total)
