"""Response of a model's predictions to a change in one base."""

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
from genoscan.errors import InputError, NonFiniteError, UnsupportedModelError
from genoscan.genome.alphabet import BASES, N
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Window, as_read, read_windows, region_read
from genoscan.genome.region import Region
from genoscan.model import Model
from genoscan.record import model_record, sequence_records
from genoscan.tracks.atomic import atomic_files
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.record_schema import region_records
from genoscan.tracks.writer import check_output, open_tracks


@dataclass(frozen=True)
class Probe:
    """A change in one base of the genome, and the settings that define the response.

    Attributes
    ----------
    at
        Position of the base, as a region of length 1.
    base
        New base, on the forward strand. If None, the base with the largest effect is chosen separately
        for each position of the region.
    region
        Region in which to compute the response. If None, the region extends from the changed base to
        the limit of the model's reach, downstream for causal models and on both sides for bidirectional
        models.
    strand
        Strand that the model reads: "+" or "-".
    context
        Number of bases to read upstream of the changed base or, for bidirectional models, on both sides.
        If None, the value in the model's configuration is used.
    of
        Measure of the response at a position: "log-p" for the change in the log-probability of the
        observed base, or "logits" for the L2 norm of the change in the logits.
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
    """Effect of changing one base, measured at each base of a region.

    Attributes
    ----------
    region
        Region in which the effect was measured.
    values
        Effect at each base of the region, as float32. The value at an N is NaN.
    window
        Region that the model read.
    """

    region: Region
    values: np.ndarray
    window: Region


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
    of the changed base. Memory is needed for the activations of one tile, for one carry, and for 4 bytes
    per position. Bidirectional models also need memory for the activations between layers.
    """
    window = _window(genome, model, probe)
    codes = torch.from_numpy(read_windows(genome, [window]))
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
    """Return the window that the model reads.

    For a causal model, the window extends from the context upstream of the changed base to the end of the
    region. For a bidirectional model, it contains the base, the region, and context on both sides of them.
    """
    at, size, reach = probe.at, genome.sizes[probe.at.chrom], model.config.reach
    if len(at) != 1:
        raise InputError(f"--at {at}: {len(at):,} bases, expected one")
    if probe.region is not None and probe.region.chrom != at.chrom:
        raise InputError(f"--at {at}: nothing of {probe.region} is on {at.chrom}")
    if model.head:
        raise UnsupportedModelError(f"{model.name}: has no language model, which a response requires")
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
    """Return the codes of the new bases, on the strand that the model reads.

    If the probe does not specify a new base, these are the three bases other than the observed base.
    """
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
    """Return one entry of each row: the entry for the observed base at the position that the row predicts.

    There is one row for each changed sequence and each output of the model.
    """
    labels, _ = target.labels(span)
    return rows.gather(-1, labels.to(rows.device).expand(len(rows), -1)[..., None])[..., 0]


def _strongest(change: Float[Tensor, "changes tile"]) -> np.ndarray:
    """Return the change with the largest absolute value at each position, with its sign."""
    return change.gather(0, change.abs().argmax(0)[None])[0].float().cpu().numpy()
