"""Targets of task heads, and their conversion to targets of the engine.

A target has the form HEAD:LABEL or HEAD:LABEL@REGION. Its value depends on the kind of head:

    per-base head     sum of the logits of LABEL over the bases of REGION; without a region, over the
                      bases of each scored region
    pooled head       logit of LABEL, pooled over the bases of REGION; without a region, over the
                      whole window

If a contrast is specified, the logit of another label is subtracted. LABEL refers to the forward strand.
If the reverse strand is read, the complement of LABEL is used.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genoscan.engine.inputs import OneHot
from genoscan.engine.target import LogitSum, PooledMaximum, Target
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.plan import Window
from genoscan.genome.region import Region, UnknownSequenceError, parse_region
from genoscan.layers.config import MASK, ModelConfig
from genoscan.layers.heads import HeadConfig
from genoscan.model import Model

STRONGEST = "strongest"
"""Contrast that selects the label with the largest logit, other than the label of the target."""


@dataclass(frozen=True)
class LabelLogits:
    """Logits of all labels of a head for one window.

    Attributes
    ----------
    logits
        Logits for the positions of the target, summed for a per-base head or pooled for a pooled head.
        The labels refer to the strand that is read.
    positions
        Position of the maximum of each feature channel, for max pooling; otherwise None.
    """

    logits: Float[Tensor, " labels"]
    positions: Tensor | None


LabelValue: TypeAlias = dict[str, float | str]
"""Values reported for a region, if they are defined.

`probability` is the probability of the label, and `contrast` is the name of the label that is subtracted.
"""


class Resolved(NamedTuple):
    """Target for windows of equal length, read on one strand.

    Attributes
    ----------
    target
        Target in the format of the engine.
    codes
        Base codes of the input, in which the bases of the target may be masked.
    labels
        Probability and contrast for each window; empty if the target belongs to the language model.
    """

    target: Target
    codes: UInt8[Tensor, "batch length"]
    labels: list[LabelValue]


def mean_over_strands(resolved: Sequence[Resolved]) -> list[LabelValue]:
    """Return the probability and contrast for each region, with probabilities averaged over strands."""
    merged = []
    for strands in zip(*(one.labels for one in resolved), strict=True):
        value = dict(strands[0])
        if "probability" in value:
            value["probability"] = sum(float(strand["probability"]) for strand in strands) / len(strands)
        merged.append(value)
    return merged


def check_masked(text: str, region: Region | None, model: Model, example: str) -> None:
    """Check that the bases of a target can be masked.

    Parameters
    ----------
    text, region
        Target as specified by the user, and the region that it includes. The region is None if the
        target does not specify one.
    model
        Model that is to read the masked bases.
    example
        Example of a target with a region, for the error message.

    Raises
    ------
    InputError
        If the model has no mask token, or the target has no region.
    """
    if model.config.mask is None:
        raise InputError(f"--masked: {model.name} has no mask token; choose a masked model")
    if region is None:
        raise InputError(f"--masked: --target {text} would mask all bases; specify a region, {example}")


def mask_spans(codes: UInt8[Tensor, "batch length"], spans: Iterable[slice]) -> UInt8[Tensor, "batch length"]:
    """Return a copy of the codes in which one span of each window is replaced by mask tokens."""
    hidden = codes.clone()
    for row, span in zip(hidden, spans, strict=True):
        row[span] = MASK
    return hidden


@dataclass(frozen=True)
class LabelTarget:
    """Target of a task head, in genome coordinates.

    Attributes
    ----------
    text
        Target as specified by the user.
    head
        Name of the head.
    config
        Configuration of the head.
    label
        Index of the label, for the forward strand.
    region
        Bases in the target. If None, the target includes the bases of each scored region or, for a
        pooled head, the bases of each window.
    contrast
        Index of the label whose logit is subtracted, for the forward strand. "strongest" if this label
        is chosen separately for each window; None if no logit is subtracted.
    """

    text: str
    head: str
    config: HeadConfig
    label: int
    region: Region | None = None
    contrast: int | str | None = None

    @property
    def can_share(self) -> bool:
        """Whether several regions in one window can have a common target, rather than each its own labels."""
        return self.region is not None and not self.pooled

    @property
    def pooled(self) -> bool:
        """Whether the head labels whole windows rather than single bases."""
        return self.config.kind == "pooled"

    @property
    def needs_prediction(self) -> bool:
        """Whether a forward pass is needed to define the target or to report the probability of the label."""
        one_base = self.region is not None and len(self.region) == 1
        return self.pooled or one_base or self.contrast == STRONGEST

    def check(self, regions: Sequence[Region], sizes: Mapping[str, int], strand: str, label_offset: int) -> None:
        """Do nothing, because task heads have an output at every base."""

    def check_windows(self, windows: Sequence[Window]) -> None:
        """Check that every window contains the region of a target of a pooled head.

        Raises
        ------
        InputError
            If a window does not contain the whole region.
        """
        if not self.pooled or self.region is None:
            return
        for window in windows:
            read, region = window.region, self.region
            if region.chrom != read.chrom or region.start < read.start or region.end > read.end:
                raise InputError(
                    f"--target {self.text}: extends beyond the window read, {read}, which a pooled target does "
                    "not extend; give a larger --context and --reach"
                )

    def check_masked(self, model: Model) -> None:
        """Check that the bases of the target can be masked.

        Raises
        ------
        InputError
            If the model has no mask token, or the target has no region.
        """
        check_masked(self.text, self.region, model, f"{self.text}@REGION")

    def check_path(self, method: str) -> None:
        """Check that the target is the same function of the outputs for every input.

        Raises
        ------
        InputError
            If the head pools by the maximum, because its position depends on the input.
        """
        if self.config.pool == "max":
            raise InputError(
                f"--method {method}: head {self.head} takes the maximum over positions, whose position changes "
                "along the path; choose --method gradient, or a head that pools otherwise"
            )

    def resolve(
        self,
        windows: Sequence[Window],
        codes: UInt8[Tensor, "batch length"],
        model: Model,
        before: Sequence[Resolved],
        *,
        masked: bool,
    ) -> Resolved:
        """Return the target for windows on one strand, with the probability and contrast for each window.

        Parameters
        ----------
        windows
            Windows of equal length.
        codes
            Base codes of the windows.
        model
            Model in which the head of the target is selected.
        before
            Resolved targets for the same regions on the strands that have already been processed. A
            contrast of "strongest" is determined on the first strand.
        masked
            Whether to mask the bases of the target.

        Returns
        -------
        Resolved
            The target, the base codes to read, and the values to report.
        """
        if masked:
            codes = mask_spans(codes, map(self._span, windows))
        predictions = self.predict(windows, codes, model) if self.needs_prediction else []
        values: list[LabelValue] = []
        contrasts: list[int | None] = []
        for i, window in enumerate(windows):
            prediction = predictions[i] if predictions else None
            chosen = before[0].labels[i].get("contrast") if before else None
            contrast = self._contrast(window, prediction) if chosen is None else self.config.labels.index(str(chosen))
            contrasts.append(contrast)
            value: LabelValue = {} if contrast is None else {"contrast": self.config.labels[contrast]}
            probability = None if prediction is None else self.probability(window, prediction)
            values.append(value if probability is None else value | {"probability": probability})
        return Resolved(self._target(windows, model, predictions, contrasts), codes, values)

    def _target(
        self,
        windows: Sequence[Window],
        model: Model,
        predictions: Sequence[LabelLogits],
        contrasts: Sequence[int | None],
    ) -> Target:
        spans = [self._span(window) for window in windows]
        rows = [self._weights(window.strand, contrast) for window, contrast in zip(windows, contrasts, strict=True)]
        weights = torch.stack(rows)
        if self.config.pool == "max":
            matrix, bias = _linear(model)
            positions = torch.stack([p.positions for p in predictions if p.positions is not None])
            return PooledMaximum(positions, weights @ matrix, weights @ bias)
        first, last = (torch.tensor(edges) for edges in zip(*map(self._summed, spans), strict=True))
        if self.config.pool == "mean":
            weights = weights / (last - first)[:, None]
        return LogitSum(first, last, weights)

    def predict(
        self, windows: Sequence[Window], codes: UInt8[Tensor, "batch length"], model: Model
    ) -> list[LabelLogits]:
        """Run a forward pass over windows of equal length, and return the logits of all labels.

        Raises
        ------
        NonFiniteError
            If an output at the positions of the target is not finite.
        """
        spans = [self._summed(self._span(window)) for window in windows]
        best: list[tuple[Tensor, Tensor] | None] = [None] * len(windows)
        totals = [torch.zeros(len(self.config.labels), dtype=torch.float64) for _ in windows]
        method = model.method.fit(model.stack, codes.shape[1], len(codes), forward=True)
        for tile, outputs in method.forward(model.stack, OneHot(codes, model.table())):
            for i, (start, stop) in enumerate(spans):
                first, last = max(tile.start, start), min(tile.stop, stop)
                if first >= last:
                    continue
                part = outputs[i, first - tile.start : last - tile.start].detach().double().cpu()
                if not part.isfinite().all():
                    raise NonFiniteError(f"{windows[i].scored}: a prediction is not finite; {model.advice_on_overflow}")
                if self.config.pool == "max":
                    best[i] = _larger(best[i], *part.max(0), first)
                else:
                    totals[i] += part.sum(0)
        if self.config.pool == "max":
            matrix, bias = _linear(model)
            found = [one for one in best if one is not None]
            return [LabelLogits(matrix @ features + bias, positions) for features, positions in found]
        if self.config.pool == "mean":
            totals = [total / (stop - start) for total, (start, stop) in zip(totals, spans, strict=True)]
        return [LabelLogits(total, None) for total in totals]

    def _contrast(self, window: Window, prediction: LabelLogits | None) -> int | None:
        """Return the index of the label whose logit is subtracted, for the forward strand.

        The result is None if no logit is subtracted.
        """
        if self.contrast != STRONGEST:
            assert not isinstance(self.contrast, str)
            return self.contrast
        assert prediction is not None
        logits = prediction.logits.clone()
        logits[self._read(self.label, window.strand)] = -torch.inf
        return self._read(int(logits.argmax()), window.strand)

    def probability(self, window: Window, prediction: LabelLogits) -> float | None:
        """Return the probability of the label.

        The result is None if the target is a sum over bases, or if the head does not define probabilities.
        """
        if not self.pooled and (self.region is None or len(self.region) > 1):
            return None
        if self.config.link == "none":
            return None
        return float(self.config.probabilities(prediction.logits)[self._read(self.label, window.strand)])

    def label_weights(self, model: Model, strand: str) -> Tensor:
        """Return the weight of each logit in the term of a base read on the given strand."""
        assert not isinstance(self.contrast, str)
        return self._weights(strand, self.contrast)

    def _weights(self, strand: str, contrast: int | None) -> Tensor:
        row = torch.zeros(len(self.config.labels), dtype=torch.float64)
        row[self._read(self.label, strand)] = 1
        if contrast is not None:
            row[self._read(contrast, strand)] -= 1
        return row

    def _read(self, label: int, strand: str) -> int:
        """Convert the index of a label between the forward strand and the strand that is read."""
        return self.config.complements[label] if strand == "-" else label

    def _span(self, window: Window) -> slice:
        """Return the positions of the target in a window."""
        if self.region is not None:
            return window.span_of(self.region)
        return slice(0, len(window)) if self.pooled else window.scored_span

    def _summed(self, span: slice) -> tuple[int, int]:
        """Return the first of the positions to sum over, and the position after the last one.

        `span` contains the positions of the target. First or last pooling selects one of them.
        """
        if self.config.pool == "first":
            return span.start, span.start + 1
        if self.config.pool == "last":
            return span.stop - 1, span.stop
        return span.start, span.stop


def _linear(model: Model) -> tuple[Tensor, Tensor]:
    """Return the weights and the biases of the selected head as float64 tensors."""
    (head,) = model.stack.heads
    matrix, offset = head.matrix().double().cpu(), head.offset()  # type: ignore[operator]
    return matrix, matrix.new_zeros(len(matrix)) if offset is None else offset.double().cpu()


def _larger(best: tuple[Tensor, Tensor] | None, values: Tensor, positions: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Combine the maxima over two parts of a window, and return them with their positions.

    `best` contains the maxima and positions of the left part. `values` and `positions` belong to the
    right part, which begins at position `start`. If two values are equal, the first one
    is kept.
    """
    positions = positions + start
    if best is None:
        return values, positions
    greater = values > best[0]
    return torch.where(greater, values, best[0]), torch.where(greater, positions, best[1])


def parse_label_target(
    text: str, sizes: Mapping[str, int], config: ModelConfig, name: str, contrast: str | None
) -> LabelTarget:
    """Parse a target of a task head in command-line syntax.

    Parameters
    ----------
    text
        Target of the form HEAD:LABEL or HEAD:LABEL@REGION.
    sizes
        Length of each sequence, in bases.
    config
        Configuration of the model.
    name
        Name of the model, for error messages.
    contrast
        Name of the label whose logit is subtracted, or "strongest". If None, no logit is subtracted.

    Returns
    -------
    LabelTarget
        The target.

    Raises
    ------
    InputError
        If the model has no such head or label, or the region or the contrast is invalid.
    """
    named, _, place = text.partition("@")
    head, _, label = named.partition(":")
    if head not in config.heads:
        heads = ", ".join(config.heads) or "none"
        raise InputError(
            f"--target {text}: {name} has no head {head!r}{_near(head, config.heads)} (its heads: {heads})"
        )
    one = config.heads[head]
    number = _label(text, "--target", label, head, one)
    region = None
    if "@" in text:
        region = parse_target_region(text, place, sizes)
    other: int | str | None = None
    if contrast == STRONGEST:
        if len(one.labels) < 2:
            raise InputError(f"--contrast {contrast}: head {head} has no other label")
        other = STRONGEST
    elif contrast is not None:
        other = _label(contrast, "--contrast", contrast, head, one)
        if other == number:
            raise InputError(f"--contrast {contrast}: is the label of the target, expected another one")
    return LabelTarget(text, head, one, number, region, other)


def parse_target_region(text: str, place: str, sizes: Mapping[str, int]) -> Region:
    """Parse the region `place` of a target `text`; raise `InputError` if it has no valid coordinates."""
    if not place.strip():
        raise InputError(f"--target {text}: expected a region, such as chr1:1,001-2,000, after @")
    try:
        return parse_region(place, sizes, option=f"--target {text}: region")
    except UnknownSequenceError as error:
        raise InputError(f"{error}; a target's region has coordinates (chr1:1,001-2,000), not a gene's name") from None


def _label(text: str, option: str, label: str, head: str, config: HeadConfig) -> int:
    if label not in config.labels:
        labels = ", ".join(config.labels)
        raise InputError(
            f"{option} {text}: head {head} has no label {label!r}{_near(label, config.labels)} (its labels: {labels})"
        )
    return config.labels.index(label)


def _near(name: str, known: Mapping[str, object] | Sequence[str]) -> str:
    stranded = [one for one in known if one in (f"{name}+", f"{name}-")]
    near = stranded or difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
