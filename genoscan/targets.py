"""Targets in genome coordinates, and their conversion to targets of the engine.

A target has one of the following forms:

    log-likelihood              log-likelihood of all bases from the start of the scored region to the
                                end of the window; for bidirectional models, of all bases in the window
    log-likelihood:REGION       log-likelihood of all bases in REGION
    logit:CHROM:POS:BASE        logit of BASE in the prediction of the base at POS (1-based)
    log-odds:CHROM:POS:BASE     this logit minus the mean logit of the other three bases
    HEAD:LABEL[@REGION]         logit of a label of a task head (see label_target.py)

POS and BASE refer to the forward strand. If the reverse strand is read, the complement of BASE at the
same position is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from genoscan.engine.target import LogitSum, LogLikelihood, Target, whole_window
from genoscan.errors import InputError
from genoscan.genome.alphabet import BASES
from genoscan.genome.plan import Window
from genoscan.genome.region import Region
from genoscan.label_target import (
    LabelTarget,
    Resolved,
    check_masked,
    mask_spans,
    parse_label_target,
    parse_target_region,
)
from genoscan.layers.heads import RESERVED
from genoscan.model import Model

Kind = Literal["log-likelihood", "logit", "log-odds"]
_LANGUAGE_MODEL = "log-likelihood[:REGION], logit:CHROM:POS:BASE or log-odds:CHROM:POS:BASE"


@dataclass(frozen=True)
class TargetSpec:
    """Target of a language model, in genome coordinates.

    Attributes
    ----------
    text
        Target as specified by the user.
    kind
        Kind of target: "log-likelihood", "logit" or "log-odds".
    region
        Bases in the target. For a logit or log-odds target, this is a single base. If None, the bases
        are determined separately for each window.
    base
        Base code whose logit is used in a logit or log-odds target; None for a log-likelihood.
    """

    text: str
    kind: Kind
    region: Region | None = None
    base: int | None = None

    head: ClassVar = ""
    pooled: ClassVar = False
    can_share: ClassVar = True

    def check_windows(self, windows: Sequence[Window]) -> None:
        """Do nothing, because each window is extended to include the target."""

    def check(self, regions: Sequence[Region], sizes: Mapping[str, int], strand: str, label_offset: int) -> None:
        """Check that an output of the model predicts the target on every strand that is read.

        Raises
        ------
        InputError
            If the target is the first base of a sequence on a strand that is read, because no output
            predicts this base.
        """
        if self.region is None:
            return
        size = sizes[self.region.chrom]
        for direction, before in (("+", self.region.start), ("-", size - self.region.end)):
            read = strand in (direction, "both") or (
                strand == "bed" and any((r.strand == "-") == (direction == "-") for r in regions)
            )
            if read and before + len(self.region) <= label_offset:
                raise InputError(
                    f"--target {self.text}: nothing predicts that base, the first on strand "
                    f"{direction}; choose another position"
                )

    def check_masked(self, model: Model) -> None:
        """Check that the bases of the target can be masked.

        Raises
        ------
        InputError
            If the model has no mask token, or the target has no region.
        """
        check_masked(self.text, self.region, model, "such as log-likelihood:chr1:1,001-1,010")

    def check_path(self, method: str) -> None:
        """Do nothing, because the target is the same function of the outputs for every input."""

    def resolve(
        self,
        windows: Sequence[Window],
        codes: UInt8[Tensor, "batch length"],
        model: Model,
        before: Sequence[Resolved],
        *,
        masked: bool,
    ) -> Resolved:
        """Return the target for windows on one strand; see `LabelTarget.resolve`."""
        target = self.for_windows(windows, codes, model)
        if masked:
            assert self.region is not None
            codes = mask_spans(codes, [window.span_of(self.region) for window in windows])
        return Resolved(target, codes, [])

    def label_weights(self, model: Model, strand: str) -> Tensor | None:
        """Return the weight of each logit in the term of a label, or None if the term is a log-probability."""
        return None if self.kind == "log-likelihood" else self._weights(model, strand)

    def for_windows(self, windows: Sequence[Window], codes: UInt8[Tensor, "batch length"], model: Model) -> Target:
        """Return the target in the format of the engine, for windows of equal length with the given codes."""
        offset = model.label_offset
        if self.kind == "log-likelihood":
            if self.region is None:
                spans = [_affected(window, model) for window in windows]
            else:
                spans = [w.span_of(self.region) for w in windows]
            return LogLikelihood(
                codes,
                model.columns(),
                torch.tensor([span.start for span in spans]),
                torch.tensor([span.stop for span in spans]),
                offset,
            )
        assert self.region is not None
        rows = [self._weights(model, window.strand) for window in windows]
        at = torch.tensor([w.span_of(self.region).start - offset for w in windows])
        return LogitSum(at, at + 1, torch.stack(rows))

    def _weights(self, model: Model, strand: str) -> Tensor:
        assert self.base is not None
        row = torch.zeros(len(model.config.symbols), dtype=torch.float64)
        if self.kind == "log-odds":
            row[list(model.config.base_columns)] = -1 / 3
        row[model.config.base_columns[3 - self.base if strand == "-" else self.base]] = 1
        return row


def whole_target(model: Model, codes: UInt8[Tensor, "batch length"]) -> LogLikelihood | LogitSum:
    """Return a target that depends on all outputs for some windows, for measurements and checks.

    Parameters
    ----------
    model
        Model in which the head to use is selected.
    codes
        Base codes of the windows.

    Returns
    -------
    LogLikelihood or LogitSum
        Log-likelihood of the windows or, for a task head, a weighted sum of all outputs of the head. A
        label and its complement have the same weight. The target of an equivariant head is therefore
        the same for the reverse-complemented windows.
    """
    if not model.head:
        return whole_window(codes, model.columns(), model.label_offset)
    head, weights = model.config.heads[model.head], torch.ones(model.n_outputs)
    if head.pool != "max":
        pairs = [min(i, other) for i, other in enumerate(head.complements)]
        weights += torch.tensor(pairs) / len(pairs)
    batch, length = codes.shape
    return LogitSum(torch.zeros(batch).long(), torch.full((batch,), length), weights.expand(batch, -1))


def parse_target(
    text: str, sizes: Mapping[str, int], model: Model, contrast: str | None = None
) -> TargetSpec | LabelTarget:
    """Parse a target in command-line syntax.

    Parameters
    ----------
    text
        Target as specified by the user.
    sizes
        Length of each sequence, in bases.
    model
        Model whose outputs the target uses.
    contrast
        For a target of a task head, the name of the label whose logit is subtracted, or "strongest". If
        None, no logit is subtracted.

    Returns
    -------
    TargetSpec or LabelTarget
        Target of the language model, or target of a task head.

    Raises
    ------
    InputError
        If the text does not have a valid form, the model does not have the head or label, the base is
        invalid, or the position is outside the genome.
    """
    kind, _, rest = text.partition(":")
    if kind not in RESERVED:
        if not rest:
            raise InputError(f"--target {text}: {_expected(model)}")
        return parse_label_target(text, sizes, model.config, model.name, contrast)
    if not model.config.language_model:
        raise InputError(f"--target {text}: {model.name} has no language model, {_expected(model)}")
    if contrast is not None:
        raise InputError(f"--contrast {contrast}: expected a target of a head, not --target {text}")
    if kind == "log-likelihood":
        if not rest and text == kind:
            return TargetSpec(text, "log-likelihood")
        if rest:
            return TargetSpec(text, "log-likelihood", parse_target_region(text, rest, sizes))
    if kind in ("logit", "log-odds"):
        place, _, base = rest.rpartition(":")
        chrom, _, position = place.rpartition(":")
        if chrom and position.replace(",", "").isdigit() and len(base) == 1:
            if base.upper() not in BASES:
                raise InputError(f"--target {text}: base {base}, expected A, C, G or T")
            name = chrom if chrom.startswith("{") else f"{{{chrom}}}"
            region = parse_target_region(text, f"{name}:{position}-{position}", sizes)
            return TargetSpec(text, kind, region, BASES.index(base.upper()))  # type: ignore[arg-type]
    raise InputError(f"--target {text}: {_expected(model)}")


def _expected(model: Model) -> str:
    """Describe the targets that a model accepts, for error messages."""
    forms = [_LANGUAGE_MODEL] if model.config.language_model else []
    for name, head in model.config.heads.items():
        forms.append(f"{name}:LABEL[@REGION] with a label among {', '.join(head.labels)}")
    return f"expected {' or '.join(forms)}"


def _affected(window: Window, model: Model) -> slice:
    """Return the span of a window in which predictions can depend on the scored bases."""
    affected = model.method.affected(window.scored_span, len(window))
    return slice(max(affected.start, 0), min(affected.stop, len(window)))
