"""Targets of task heads, HEAD:LABEL[@REGION], and their conversion to the engine's targets for windows.

    per-base head     sum of the logit of LABEL over REGION or, without one, over each scored region
    pooled head       logit of LABEL for the window or, with REGION, for the positions of REGION in it

With a contrast, the logit of another label is subtracted. LABEL refers to the forward strand: if the
reverse strand is read, the target is the complement of the label.
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
from genoscan.genome.region import Region, parse_region
from genoscan.layers.config import MASK, ModelConfig
from genoscan.layers.heads import HeadConfig
from genoscan.model import Model

STRONGEST = "strongest"
"""Contrast with the label that has the largest logit, other than the label of the target."""


@dataclass(frozen=True)
class LabelLogits:
    """Logits of all labels of a head for one window.

    Attributes
    ----------
    logits
        Logits, summed over the positions of the target, in the order of the labels of the strand read.
    positions
        For max pooling, the position of the maximum of each feature channel; None otherwise.
    """

    logits: Float[Tensor, " labels"]
    positions: Tensor | None


LabelValue: TypeAlias = dict[str, float | str]
"""Values reported for a region: `probability` of the label, and `contrast`, the label that is subtracted."""


class Resolved(NamedTuple):
    """Target for windows of equal length, read on one strand.

    Attributes
    ----------
    target
        Target in the engine's format.
    codes
        Base codes of the input, in which the bases of the target may be masked.
    labels
        Probability and contrast of each window; empty if the target is one of the language model's.
    """

    target: Target
    codes: UInt8[Tensor, "batch length"]
    labels: list[LabelValue]


def mean_over_strands(resolved: Sequence[Resolved]) -> list[LabelValue]:
    """Return the probability and contrast of each region, with probabilities averaged over strands."""
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
        Target as specified by the user, and the bases in it.
    model
        Model that reads the masked bases.
    example
        Target to recommend if there is no region.

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
    """Return a copy of the codes with one span of each window replaced with the mask token."""
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
        Index of the label, on the forward strand.
    region
        Bases in the target. If None, those of each scored region or, for a pooled head, of each window.
    contrast
        Index of the label that is subtracted, on the forward strand; "strongest" if it is chosen for
        each window; None if there is no contrast.
    """

    text: str
    head: str
    config: HeadConfig
    label: int
    region: Region | None = None
    contrast: int | str | None = None

    @property
    def pooled(self) -> bool:
        """Whether the head labels a window rather than a base."""
        return self.config.kind == "pooled"

    @property
    def needs_prediction(self) -> bool:
        """Whether a forward pass is needed before the target can be defined or its probability reported."""
        one_base = self.region is not None and len(self.region) == 1
        return self.pooled or one_base or self.contrast == STRONGEST

    def check(self, regions: Sequence[Region], sizes: Mapping[str, int], strand: str, label_offset: int) -> None:
        """Accept any region, because every base has an output."""

    def check_windows(self, windows: Sequence[Window]) -> None:
        """Check that a pooled region is within every window.

        Raises
        ------
        InputError
            If it is not.
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

    def resolve(
        self,
        windows: Sequence[Window],
        codes: UInt8[Tensor, "batch length"],
        model: Model,
        before: Sequence[Resolved],
        *,
        masked: bool,
    ) -> Resolved:
        """Return the target for windows on one strand, with the probability and contrast of each window.

        Parameters
        ----------
        windows
            Windows of equal length.
        codes
            Base codes of the windows.
        model
            Model whose selected head is that of the target.
        before
            Resolved targets of the same regions on strands that were handled earlier. A contrast that is
            chosen for each window is chosen on the first strand.
        masked
            Whether to mask the bases of the target.
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
        rows = []
        for window, contrast in zip(windows, contrasts, strict=True):
            row = torch.zeros(len(self.config.labels), dtype=torch.float64)
            row[self._read(self.label, window)] = 1
            if contrast is not None:
                row[self._read(contrast, window)] -= 1
            rows.append(row)
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
        """Return the logits of all labels for windows of equal length, by one forward pass.

        Raises
        ------
        NonFiniteError
            If an output over the positions of the target is not finite.
        """
        spans = [self._summed(self._span(window)) for window in windows]
        best: list[tuple[Tensor, Tensor] | None] = [None] * len(windows)
        totals = [torch.zeros(len(self.config.labels), dtype=torch.float64) for _ in windows]
        for tile, outputs in model.method.forward(model.stack, OneHot(codes, model.table())):
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
        """Return the label that is subtracted, on the forward strand; None if there is no contrast."""
        if self.contrast != STRONGEST:
            assert not isinstance(self.contrast, str)
            return self.contrast
        assert prediction is not None
        logits = prediction.logits.clone()
        logits[self._read(self.label, window)] = -torch.inf
        return self._read(int(logits.argmax()), window)

    def probability(self, window: Window, prediction: LabelLogits) -> float | None:
        """Return the probability of the label.

        It is None if the target is a sum over several bases, or if the head defines no probabilities.
        """
        if not self.pooled and (self.region is None or len(self.region) > 1):
            return None
        if self.config.link == "none":
            return None
        return float(self.config.probabilities(prediction.logits)[self._read(self.label, window)])

    def _read(self, label: int, window: Window) -> int:
        """Convert a label between the forward strand and the strand on which a window is read."""
        return self.config.complements[label] if window.strand == "-" else label

    def _span(self, window: Window) -> slice:
        """Return the positions of the target in a window."""
        if self.region is not None:
            return window.span_of(self.region)
        return slice(0, len(window)) if self.pooled else window.scored_span

    def _summed(self, span: slice) -> tuple[int, int]:
        """Return the positions to sum over, as the first position and the position after the last one."""
        if self.config.pool == "first":
            return span.start, span.start + 1
        if self.config.pool == "last":
            return span.stop - 1, span.stop
        return span.start, span.stop


def _linear(model: Model) -> tuple[Tensor, Tensor]:
    """Return the weights and the biases of the selected head, in float64."""
    (head,) = model.stack.heads
    matrix, offset = head.matrix().double().cpu(), head.offset()  # type: ignore[operator]
    return matrix, matrix.new_zeros(len(matrix)) if offset is None else offset.double().cpu()


def _larger(best: tuple[Tensor, Tensor] | None, values: Tensor, positions: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Return the maxima over two parts of a window, with their positions; the first of equal values is kept."""
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
        HEAD:LABEL or HEAD:LABEL@REGION.
    sizes
        Sequence lengths in bases.
    config
        Configuration of the model.
    name
        Name of the model.
    contrast
        Label to subtract, or "strongest"; None for no contrast.

    Returns
    -------
    LabelTarget
        The target.

    Raises
    ------
    InputError
        If the model has no such head or label, or the region is not valid.
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
        region = parse_region(place, sizes, option="--target")
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


def _label(text: str, option: str, label: str, head: str, config: HeadConfig) -> int:
    if label not in config.labels:
        labels = ", ".join(config.labels)
        raise InputError(
            f"{option} {text}: head {head} has no label {label!r}{_near(label, config.labels)} (its labels: {labels})"
        )
    return config.labels.index(label)


def _near(name: str, known: Mapping[str, object] | Sequence[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""
