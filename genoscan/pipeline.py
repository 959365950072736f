"""START HERE: the whole program on one screen.

regions -> windows -> batches            job.py        what is to be computed
window -> tiles -> derivatives           engine/       how: exact, in flat memory
derivatives -> scores -> tracks          tracks/       where the numbers go
"""

import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genoscan.engine.adjoint import consume
from genoscan.engine.inputs import OneHot
from genoscan.engine.stages import shares, side_by_side
from genoscan.errors import NonFiniteError
from genoscan.genome.alphabet import N, reverse_complement
from genoscan.genome.plan import Batch, Window
from genoscan.job import Job, Options
from genoscan.tracks.columns import write_columns
from genoscan.tracks.partial import Partial, open_partial
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.score import SCORES, blank_unknown
from genoscan.tracks.writer import check_output, open_tracks, write_in_pieces

_PIECE = 1 << 20


def write_sensitivities(
    job: Job, outputs: Sequence[Path], *, progress: Callable[[int], object] = lambda _n: None
) -> dict[str, Any]:
    """Write d target / d base of every region's bases to every output; return the provenance.

    Exact: the derivative itself, to rounding, whatever tile, slots and batch.
    Memory: a batch's windows at 1 byte a base, and the engine's tile and carries; scores and
    columns lie on disk beside the first output, 5 (or 21) bytes a base, until all is done.
    Resumable: a killed run that is started again goes on after its last finished batch.
    """
    for path in outputs:
        check_output(path)
    started = time.monotonic()
    archives = [path for path in outputs if path.suffix == ".npz"]
    columns = bool(archives) or job.options.strand == "both"  # strands meet in the columns
    settings = job.settings() | {"columns": columns}
    with open_partial(outputs[0], job.regions, settings, columns=columns) as partial:
        for number, batch in enumerate(job.batches):
            if number not in partial.done:
                partial.keep(number, _run_batch(job, batch, partial, progress))
        _write_tracks(job, partial, outputs)
        record = settings | {
            "command": sys.argv,
            "slots": job.options.slots,
            **_counts(job, partial),
            "regions": [str(region) for region in job.regions],
            "target_values": [partial.done[number] for number in range(len(job.batches))],
            "seconds": time.monotonic() - started,
            "torch": torch.__version__,
        }
        for path in outputs:
            write_provenance(path, record)
    return record


def _run_batch(
    job: Job, batch: Batch, partial: Partial, progress: Callable[[int], object]
) -> list[float]:
    """Compute a batch's scores into the maps; return the target's value, one a region."""
    turns = len(batch[0])
    values = np.zeros(len(batch))
    for turn, windows in enumerate(zip(*batch, strict=True)):
        found = _run_turn(job, windows, partial, turn, turns, progress)
        for window, value in zip(windows, found, strict=True):
            if not np.isfinite(value):
                raise NonFiniteError(f"{window.scored}: the target is {value}; {_advice(job)}")
        values += found / turns
    return values.tolist()


def _advice(job: Job) -> str:
    """Return what to do about non-finite results."""
    if job.model.dtype == torch.float64:
        return f"{job.model.name} overflows on this sequence even in float64: check its weights"
    return f"{job.model.name} overflows on this sequence: run it with --dtype float64"


def _run_turn(
    job: Job,
    windows: Sequence[Window],
    partial: Partial,
    turn: int,
    turns: int,
    progress: Callable[[int], object],
) -> np.ndarray:
    """Read a batch along one strand; return the target's value, one a window."""
    codes = job.read(windows)
    counting = Lock()

    def run_share(share: slice, check: Callable[[], None]) -> np.ndarray:
        def report(positions: int) -> None:
            check()
            with counting:
                progress(positions * len(windows[share]))

        return _run_windows(job, windows[share], codes[share], partial, turn, turns, report)

    parts = shares(len(windows), job.model.device)
    return np.concatenate(side_by_side([functools.partial(run_share, part) for part in parts]))


def _run_windows(
    job: Job,
    windows: Sequence[Window],
    codes: Tensor,
    partial: Partial,
    turn: int,
    turns: int,
    progress: Callable[[int], object],
) -> np.ndarray:
    """Run windows of one length side by side; return the target's value, one a window."""
    model, options = job.model, job.options
    read = job.question.hidden(windows, codes) if options.masked else codes

    non_finite = np.zeros(len(windows), np.int64)

    def receive(span: slice, x_bar: Tensor) -> None:
        gradients = x_bar[..., list(model.config.base_columns)].float().cpu().numpy()
        for i, (window, bases) in enumerate(zip(windows, read.numpy(), strict=True)):
            part = _scored_part(window, span, np.minimum(bases[span], N), gradients[i])
            non_finite[i] += (~np.isfinite(part.gradient).all(1) & (part.codes < N)).sum()
            if not non_finite[i]:
                _keep(part, partial, partial.offsets[window.scored], turn, turns, options)

    pull = job.engine.adjoint(
        model.stack,
        OneHot(read, model.table()),
        job.question.target(windows, codes, model),
        progress=progress,
    )
    values = consume(pull, receive).value.numpy()
    for window, count in zip(windows, non_finite.tolist(), strict=True):
        if count:
            raise NonFiniteError(
                f"{window.scored}: the derivatives of {count:,} of {len(window.scored):,} bases "
                f"are not finite; {_advice(job)}"
            )
    return values


class _Part(NamedTuple):
    """A scored stretch in forward orientation; `at` counts from the region's start."""

    at: slice
    codes: np.ndarray
    gradient: np.ndarray


def _scored_part(window: Window, span: slice, codes: np.ndarray, gradient: np.ndarray) -> _Part:
    """Cut a tile to what was asked for, and turn it to the forward strand."""
    scored = window.scored_span
    start = min(max(span.start, scored.start), scored.stop)
    stop = max(min(span.stop, scored.stop), start)
    inside = slice(max(start - span.start, 0), max(stop - span.start, 0))
    codes, gradient = codes[inside], blank_unknown(gradient[inside], codes[inside])
    if window.strand == "+":
        return _Part(slice(start - scored.start, stop - scored.start), codes, gradient)
    # Positions reversed; A and T, C and G exchanged.
    at = slice(scored.stop - stop, scored.stop - start)
    return _Part(at, reverse_complement(codes), gradient[::-1, ::-1])


def _keep(
    part: _Part, partial: Partial, offset: int, turn: int, turns: int, options: Options
) -> None:
    """Put a part into the maps: the mean over the turns, scored when the last has come."""
    at = slice(offset + part.at.start, offset + part.at.stop)
    gradient = part.gradient
    partial.codes[at] = part.codes
    if partial.columns is not None:
        before = partial.columns[at] if turn else np.float32(0)
        partial.columns[at] = before + gradient / np.float32(turns)
        gradient = np.asarray(partial.columns[at])
    if turn == turns - 1:
        partial.scores[at] = SCORES[options.score](gradient, part.codes)


def _counts(job: Job, partial: Partial) -> dict[str, int]:
    """Count the bases that have a score, and the regions in which every score is 0."""
    scored_bases = zero_regions = 0
    for region in job.regions:
        first = partial.offsets[region]
        scored = zeros = 0
        for piece in _pieces(partial.scores[first : first + len(region)]):
            scored += int(np.isfinite(piece).sum())
            zeros += int((piece == 0).sum())
        scored_bases += scored
        zero_regions += 0 < scored == zeros
    return {"scored_bases": scored_bases, "zero_regions": zero_regions}


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Read a map a piece at a time."""
    for start in range(0, len(array), _PIECE):
        yield array[start : start + _PIECE]


def _write_tracks(job: Job, partial: Partial, outputs: Sequence[Path]) -> None:
    """Write the finished maps as tracks, front to back."""
    tracks = [path for path in outputs if path.suffix != ".npz"]
    if tracks:
        with open_tracks(tracks, job.genome.sizes) as track:
            for region in job.regions:
                first = partial.offsets[region]
                write_in_pieces(track, region, partial.scores[first : first + len(region)])
    for path in outputs:
        if path.suffix == ".npz":
            assert partial.columns is not None
            write_columns(path, gradient=partial.columns, codes=partial.codes, regions=job.regions)
