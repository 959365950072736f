"""Response of a model's predictions to a change of one base."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.engine.tangent import BaseChange
from genoscan.engine.target import LogLikelihood, whole_window
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import BASES, N, reverse_complement
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Window, as_read, region_read
from genoscan.genome.region import Region
from genoscan.model import Model
from genoscan.record import model_record, sequence_records
from genoscan.tracks.atomic import atomic_files
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.record_schema import region_records
from genoscan.tracks.writer import check_output, open_tracks


@dataclass(frozen=True)
class Probe:
    """A change of one base of the genome, with the region and the measure of the response.

    Attributes
    ----------
    at
        Position of the base, a region of length 1.
    base
        New base, on the forward strand. If None, the base with the largest effect is chosen separately
        at each position of the response.
    region
        Region in which to compute the response. If None, it consists of the bases within the model's
        reach of the changed base, downstream for causal models and on both sides for bidirectional
        models.
    strand
        Strand that the model reads: "+" or "-".
    context
        Number of bases to read upstream of the changed base. If None, the value in the model's
        configuration is used.
    of
        "log-p" for the change in log p of the observed base, "logits" for the L2 norm of the change in
        the logits.
    finite
        Whether to compute the finite change instead of the derivative.

    Raises
    ------
    InputError
        If `strand`, `of` or `base` is invalid.
    """

    at: Region
    base: str | None = None
    region: Region | None = None
    strand: str = "+"
    context: int | None = None
    of: Literal["log-p", "logits"] = "log-p"
    finite: bool = False

    def __post_init__(self) -> None:
        if self.strand not in ("+", "-"):
            raise InputError(f"--strand {self.strand}: expected + or -")
        if self.of not in ("log-p", "logits"):
            raise InputError(f"--of {self.of}: expected log-p or logits")
        if self.base is not None and (len(self.base) != 1 or self.base.upper() not in BASES):
            raise InputError(f"--base {self.base}: expected A, C, G or T")


class Response(NamedTuple):
    """Effect of a change at each base of a region.

    Attributes
    ----------
    region
        Region covered by the values.
    values
        Effect at each base of the region, float32; NaN at N.
    window
        Region read by the model.
    """

    region: Region
    values: np.ndarray
    window: Region


def respond(genome: Genome, model: Model, probe: Probe, *, progress: Progress = ignore) -> Response:
    """Return the response to a change of one base.

    Parameters
    ----------
    genome, model
        Genome to read, and model to evaluate.
    probe
        Change of a base, region of the response and measure of the effect.
    progress
        Function called after each processed tile with the number of positions in that tile.

    Returns
    -------
    Response
        Effect of the change at each base of the region.

    Raises
    ------
    InputError
        If the observed base is N or equals the new base, or if the change cannot affect the region.
    NonFiniteError
        If a value at a known base is NaN or infinite.

    Notes
    -----
    The response is the derivative along e_base - e_observed, where e denotes the one-hot encoding of a
    base, or, with `finite`, the finite change. It is exact up to rounding. Upstream of the base, the
    response of a causal model is exactly zero. Memory is needed for one tile and one carry, plus 4
    bytes per position; bidirectional models also need memory for the activations between layers.
    """
    window = _window(genome, model, probe)
    read = genome.fetch(window.region.chrom, window.region.start, window.region.end)
    codes = torch.from_numpy(reverse_complement(read) if window.strand == "-" else read)[None]
    position = window.span_of(probe.at).start
    bases = _new_bases(probe, int(codes[0, position]))
    rows = np.zeros(len(window), np.float32)
    sweep = _finite if probe.finite else _derivative
    for span, change in sweep(model, codes, position, bases, probe, progress):
        # The output at position i predicts the base at position i + label_offset.
        start = span.start + model.label_offset
        values = _strongest(change)[: max(0, len(window) - start)]
        rows[start : start + len(values)] = values
    rows = rows[window.scored_span]
    known = codes[0, window.scored_span].numpy() < N
    if not np.isfinite(rows[known]).all():
        raise NonFiniteError(
            f"{window.scored}: the response of {(~np.isfinite(rows[known])).sum():,} of "
            f"{len(rows):,} bases is not finite; {model.advice_on_overflow}"
        )
    rows[~known] = np.nan
    forward = rows[::-1].copy() if window.strand == "-" else rows
    return Response(window.scored, forward, window.region)


def write_response(
    genome: Genome,
    model: Model,
    probe: Probe,
    outputs: Sequence[Path],
    *,
    command: Sequence[str] = (),
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Write the response to a change of one base as tracks; return the record of the tracks.

    Parameters
    ----------
    genome, model, probe, progress
        As for `respond`.
    outputs
        Tracks to write; the suffix determines the format, and .npz is not supported.
    command
        Command line to store in the record.

    Returns
    -------
    dict
        Record of the tracks, also written as JSON beside each output.

    Raises
    ------
    InputError, NonFiniteError
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
        },
        "window": region_records([found.window])[0],
        "regions": region_records([found.region]),
        "tile": model.method.tile,
        "dtype": str(model.dtype).removeprefix("torch."),
        "seconds": time.monotonic() - started,
    }
    with atomic_files() as files:
        with open_tracks(outputs, genome.sizes, files) as track:
            track.write(found.region, found.values)
        for path in outputs:
            write_provenance(path, record, files)
    return record


def _window(genome: Genome, model: Model, probe: Probe) -> Window:
    """Return the window to read, which extends from the context upstream of the base to the region's end.

    Bidirectional models respond on both sides of the base, so the window includes context on both sides
    of the base and of the region.
    """
    at, size, reach = probe.at, genome.sizes[probe.at.chrom], model.config.reach
    if len(at) != 1:
        raise InputError(f"--at {at}: {len(at):,} bases, expected one")
    if probe.region is not None and probe.region.chrom != at.chrom:
        raise InputError(f"--at {at}: nothing of {probe.region} is on {at.chrom}")
    context = model.config.context if probe.context is None else probe.context
    if context < 0:
        raise InputError(f"--context {context}: expected 0 bases or more")
    span, method = as_read(at, probe.strand, size), model.method
    region = probe.region or region_read(at.chrom, method.affected(span, reach), probe.strand, size)
    written = as_read(region, probe.strand, size)
    # In a causal model, the first prediction that depends on a base is that of the next base.
    if written.stop <= method.affected(span, size).start + model.label_offset:
        raise InputError(
            f"--at {at}: nothing of {region} comes after it as strand {probe.strand} is read; "
            "a causal model responds after the base"
        )
    read = method.extent(span, written, before=context, after=context)
    return Window(region_read(at.chrom, read, probe.strand, size), region, probe.strand)


def _new_bases(probe: Probe, observed: int) -> list[int]:
    """Return the codes of the new bases on the strand that is read."""
    if observed > 3:
        raise InputError(f"--at {probe.at}: the genome has an N there; choose an A, C, G or T")
    if probe.base is None:
        return [code for code in range(4) if code != observed]
    code = BASES.index(probe.base.upper())
    code = 3 - code if probe.strand == "-" else code
    if code == observed:
        raise InputError(f"--base {probe.base}: is the observed base at {probe.at}; choose another")
    return [code]


Changes = Iterator[tuple[slice, Float[Tensor, "changes tile"]]]


def _derivative(
    model: Model, codes: Tensor, position: int, bases: list[int], probe: Probe, progress: Progress
) -> Changes:
    table = model.table()
    directions = BaseChange(position, table[bases] - table[codes[0, position].long()])
    target = whole_window(codes, model.columns(), model.label_offset)
    inputs = OneHot(codes, table)
    for span, outputs, outputs_dot in model.method.tangent(model.stack, inputs, directions, progress=progress):
        if probe.of == "logits":
            yield span, outputs_dot[:, 0].norm(dim=-1)
        else:
            # In float64, like the log-likelihood: 1 - p loses precision if p is near 1.
            change = outputs_dot[:, 0].double()
            mean = (torch.softmax(outputs[0].double(), -1) * change).sum(-1)
            yield span, _of_labels(target, span, change) - mean


def _finite(model: Model, codes: Tensor, position: int, bases: list[int], probe: Probe, progress: Progress) -> Changes:
    changed = codes.repeat(1 + len(bases), 1)
    changed[1:, position] = torch.tensor(bases, dtype=codes.dtype)
    inputs = OneHot(changed, model.table())
    target = whole_window(codes, model.columns(), model.label_offset)
    for span, outputs in model.method.forward(model.stack, inputs, progress=progress):
        if probe.of == "logits":
            yield span, (outputs[1:] - outputs[0]).norm(dim=-1)
        else:
            log_p = _of_labels(target, span, torch.log_softmax(outputs.double(), -1))
            yield span, log_p[1:] - log_p[0]


def _of_labels(
    target: LogLikelihood, span: slice, rows: Float[Tensor, "changes tile symbols"]
) -> Float[Tensor, "changes tile"]:
    """Select, in the row of each output, the entry of the observed base that the output predicts."""
    labels, _ = target.labels(span)
    return rows.gather(-1, labels.to(rows.device).expand(len(rows), -1)[..., None])[..., 0]


def _strongest(change: Float[Tensor, "changes tile"]) -> np.ndarray:
    """Return the change with the largest absolute value at each position."""
    return change.gather(0, change.abs().argmax(0)[None])[0].float().cpu().numpy()
