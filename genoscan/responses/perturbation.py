"""Response of a model's predictions, or of its sensitivities, to a change in one base."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.engine.tangent import BaseChange
from genoscan.engine.target import LogLikelihood, whole_window
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import N
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Window, read_windows
from genoscan.genome.region import Region
from genoscan.model import Model
from genoscan.record import model_record, sequence_records
from genoscan.responses.interaction import sensitivity_changes
from genoscan.responses.probe import Probe, new_bases, response_window, sensitivity_window
from genoscan.tracks.atomic import atomic_files
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.record_schema import region_records
from genoscan.tracks.writer import check_output, open_tracks


class Response(NamedTuple):
    """Effect of changing one base, measured at each base of a region.

    Attributes
    ----------
    region
        Region in which the effect was measured.
    values
        Effect at each base of the region, as float32. The value at an N is NaN, as is that of a changed base
        that the model does not predict.
    window
        Region that the model read.
    totals
        For "log-p", the sum of the effects on all bases of the region for each new base, including the
        site's own term, even if the changed base is outside the region; otherwise empty.
    own
        For "log-p", the site's own term for each new base: log p(new base) - log p(observed base) at the
        changed position. It is None if the model does not predict the changed base.
    strongest
        Position of the largest absolute effect, as a region of length 1, and the effect. The changed base
        itself is excluded. None if the region has no other base with an effect.
    """

    region: Region
    values: np.ndarray
    window: Region
    totals: dict[str, float]
    own: dict[str, float] | None
    strongest: tuple[Region, float] | None

    def __repr__(self) -> str:
        totals = "".join(f"; total of {base} {total:.3g}" for base, total in self.totals.items())
        most = f"; largest effect {self.strongest[1]:.3g} at {self.strongest[0]}" if self.strongest else ""
        return f"Response({self.region}, {len(self.values):,} bases{totals}{most})"


def respond(genome: Genome, model: Model, probe: Probe, *, progress: Progress = ignore) -> Response:
    """Return the response to a change in one base.

    Parameters
    ----------
    genome, model
        Genome, and model that reads it.
    probe
        Change in one base, and settings that define the response.
    progress
        Function called after each processed tile. Its argument is the number of positions in the tile.

    Returns
    -------
    Response
        Effect of the change at each base of the region.

    Raises
    ------
    InputError
        If the observed base is N or equals the new base, if the change cannot affect the region, or if
        `probe.context` is negative.
    UnsupportedModelError
        If the language-model head is not selected in the model.
    NonFiniteError
        If the response at an A, C, G or T is NaN or infinite.

    Notes
    -----
    If `probe.finite` is true, the response is the finite change. Otherwise, it is the derivative along
    e_new - e_observed, where e_new and e_observed are the one-hot encodings of the new base and the
    observed base. The response is exact up to rounding. In a causal model, it is exactly zero upstream
    of the changed base.

    For "log-p", the value at the changed base includes the site's own term, the change of its label, which
    is a finite change in both cases. With `probe.finite`, the sum of the values for one new base is
    therefore the change in the log-likelihood of the sequence. For the derivative, the own term is that of
    the prediction before the change.

    Memory is needed for the activations of one tile, for one carry, and for 4 bytes per position.
    Bidirectional models also need memory for the activations between layers. Changes in sensitivity need
    the memory of a gradient (see interaction.py).
    """
    window = (sensitivity_window if probe.of == "sensitivity" else response_window)(genome, model, probe)
    codes = torch.from_numpy(read_windows(genome, [window]))
    position, scored = window.span_of(probe.at).start, window.scored_span
    bases = new_bases(probe, int(codes[0, position]))
    known = codes[0].numpy() < N
    rows, totals, own = np.zeros(len(window), np.float32), np.zeros(len(bases)), None
    for at, change, label in _changes(model, window, codes, position, bases, probe, progress):
        if label is not None:
            own = label
            change[:, position - at.start] += label
        rows[at] = _strongest(change)
        inside = slice(max(at.start, scored.start), max(at.start, min(at.stop, scored.stop)))
        part = change[:, inside.start - at.start : inside.stop - at.start].double().cpu().numpy()
        totals += part[:, known[inside]].sum(1)
    if own is not None and not scored.start <= position < scored.stop:
        totals += own.cpu().numpy()
    if not np.isfinite(rows[scored][known[scored]]).all() or not np.isfinite(totals).all():
        wrong = (~np.isfinite(rows[scored][known[scored]])).sum()
        raise NonFiniteError(
            f"{window.scored}: the response of {wrong:,} of {len(window.scored):,} bases is not finite; "
            f"{model.advice_on_overflow}"
        )
    rows[~known] = np.nan
    strongest = _largest(rows, position, window)
    if probe.of == "log-p" and own is None:
        rows[position] = np.nan
    forward = rows[scored][::-1].copy() if window.strand == "-" else rows[scored]
    names = [probe.forward_base(base) for base in bases]
    return Response(
        window.scored,
        forward,
        window.region,
        dict(zip(names, totals.tolist(), strict=True)) if probe.of == "log-p" else {},
        None if own is None else dict(zip(names, own.tolist(), strict=True)),
        strongest,
    )


def _largest(rows: np.ndarray, position: int, window: Window) -> tuple[Region, float] | None:
    """Return the base of the region with the largest absolute effect, other than the changed base."""
    scored = window.scored_span
    sizes = np.nan_to_num(np.abs(rows[scored]))
    if scored.start <= position < scored.stop:
        sizes[position - scored.start] = 0
    if not sizes.any():
        return None
    i = int(sizes.argmax())
    start = window.scored.end - 1 - i if window.strand == "-" else window.scored.start + i
    return Region(window.scored.chrom, start, start + 1), float(rows[scored.start + i])


def write_response(
    genome: Genome,
    model: Model,
    probe: Probe,
    outputs: Sequence[Path],
    *,
    command: Sequence[str] = (),
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Write the response to a change in one base as tracks; return the record of the tracks.

    Parameters
    ----------
    genome, model, probe, progress
        As for `respond`.
    outputs
        Paths of the tracks. The suffixes determine the formats. The format .npz is not supported.
    command
        Command line to store in the record.

    Returns
    -------
    dict
        Record of the tracks. It is also written to a JSON file beside each track.

    Raises
    ------
    InputError
        As for `respond`, or if a suffix is not supported.
    UnsupportedModelError, NonFiniteError
        As for `respond`.
    OutputError
        If a file cannot be written.
    """
    for path in outputs:
        check_output(path)
        if path.suffix == ".npz":
            raise InputError(f"{path}: a response has no four columns, expected a track such as a .bw")
    started = time.monotonic()
    found = respond(genome, model, probe, progress=progress)
    record = {
        **model_record(model),
        "command": list(command),
        "sequences": sequence_records(genome, [probe.at.chrom]),
        "response": {
            "at": region_records([probe.at])[0],
            "base": probe.base,
            "of": probe.of,
            "finite": probe.finite,
            "strand": probe.strand,
            "total": found.totals,
            "own": found.own,
            "strongest": None
            if found.strongest is None
            else {"at": region_records([found.strongest[0]])[0], "effect": found.strongest[1]},
        },
        "window": region_records([found.window])[0],
        "regions": region_records([found.region]),
        "seconds": time.monotonic() - started,
    }
    with atomic_files() as files:
        with open_tracks(outputs, genome.sizes, files) as track:
            track.write(found.region, found.values)
        for path in outputs:
            write_provenance(path, record, files)
    return record


Change = tuple[slice, Float[Tensor, "changes tile"], Float[Tensor, " changes"] | None]
"""Positions of some bases, the effects of the changes on them and, if they include the changed base and the
effect is on log p, the site's own terms."""


def _changes(
    model: Model, window: Window, codes: Tensor, position: int, bases: list[int], probe: Probe, progress: Progress
) -> Iterator[Change]:
    """Yield the effects on all bases that depend on the change, in any order."""
    if probe.of == "sensitivity":
        for span, change in sensitivity_changes(model, window, codes, position, bases, progress):
            yield span, change, None
        return
    sweep = _finite if probe.finite else _derivative
    for span, change, label in sweep(model, codes, position, bases, probe, progress):
        # The output at position i predicts the base at position i + label_offset.
        start = span.start + model.label_offset
        change = change[:, : max(0, len(window) - start)]
        yield slice(start, start + change.shape[1]), change, label


def _derivative(
    model: Model, codes: Tensor, position: int, bases: list[int], probe: Probe, progress: Progress
) -> Iterator[Change]:
    table = model.table()
    directions = BaseChange(position, table[bases] - table[codes[0, position].long()])
    target = whole_window(codes, model.columns(), model.label_offset)
    inputs = OneHot(codes, table)
    for span, outputs, outputs_dot in model.method.tangent(model.stack, inputs, directions, progress=progress):
        if probe.of == "logits":
            yield span, outputs_dot[:, 0].norm(dim=-1), None
        else:
            # In float64, like the log-likelihood: 1 - p loses precision if p is near 1.
            change, log_p = outputs_dot[:, 0].double(), torch.log_softmax(outputs[0].double(), -1)
            labels = _of_labels(target, span, change) - (log_p.exp() * change).sum(-1)
            yield span, labels, _own(model, log_p.expand_as(change), span, codes, position, bases)


def _finite(
    model: Model, codes: Tensor, position: int, bases: list[int], probe: Probe, progress: Progress
) -> Iterator[Change]:
    changed = codes.repeat(1 + len(bases), 1)
    changed[1:, position] = torch.tensor(bases, dtype=codes.dtype)
    inputs = OneHot(changed, model.table())
    target = whole_window(codes, model.columns(), model.label_offset)
    for span, outputs in model.method.forward(model.stack, inputs, progress=progress):
        if probe.of == "logits":
            yield span, (outputs[1:] - outputs[0]).norm(dim=-1), None
        else:
            log_p = torch.log_softmax(outputs.double(), -1)
            labels = _of_labels(target, span, log_p)
            yield span, labels[1:] - labels[0], _own(model, log_p[1:], span, codes, position, bases)


def _own(
    model: Model,
    log_p: Float[Tensor, "changes tile symbols"],
    span: slice,
    codes: Tensor,
    position: int,
    bases: list[int],
) -> Float[Tensor, " changes"] | None:
    """Return log p(new base) - log p(observed base) at the changed position, if an output in the span predicts it."""
    output = position - model.label_offset
    if not span.start <= output < span.stop:
        return None
    row, columns = log_p[:, output - span.start], model.columns()
    new = row.gather(-1, columns[bases].to(row.device)[:, None])[:, 0]
    return new - row[:, int(columns[int(codes[0, position])])]


def _of_labels(
    target: LogLikelihood, span: slice, rows: Float[Tensor, "changes tile symbols"]
) -> Float[Tensor, "changes tile"]:
    """Return one entry of each row: the entry for the observed base at the position that the row predicts.

    There is one row for each changed sequence and each output of the model.
    """
    labels, _ = target.labels(span)
    return rows.gather(-1, labels.to(rows.device).expand(len(rows), -1)[..., None])[..., 0]


def _strongest(change: Float[Tensor, "changes tile"]) -> np.ndarray:
    """Return the change with the largest absolute value at each position, with its sign."""
    return change.gather(0, change.abs().argmax(0)[None])[0].float().cpu().numpy()
