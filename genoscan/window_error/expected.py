"""Expected error of scores due to the limited windows of a job, from the errors measured for the model."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from genoscan.genome.plan import Window
from genoscan.job import Job
from genoscan.layers.window_error import LIKELIHOOD, WindowErrors, percent
from genoscan.window_error.grid import measuring_command

_EDGE = np.geomspace(1e-5, 0.5, 24)
_NODES = np.concatenate([[0], _EDGE, 1 - _EDGE[-2::-1], [1]])
"""Relative positions in a region at which the error is evaluated; close to the ends, where it changes most."""

_WEIGHTS = np.convolve(np.diff(_NODES), [0.5, 0.5])
_PIECE = 4096
_TOLERANCE = 1.25
"""Factor by which a distance may lie outside the measured range, without a note."""


@dataclass(frozen=True)
class ExpectedError:
    """Expected error of the scores of a job.

    Attributes
    ----------
    median, worst
        Root of the mean square of the errors at all bases, interpolated from the medians and from the largest
        errors of the measured regions.
    bound
        "at least" if some bases are closer to the end of their window than was measured; "at most" if
        most are further away than was measured; otherwise None.
    """

    median: float
    worst: float
    bound: Literal["at least", "at most"] | None = None

    def __str__(self) -> str:
        """Return text such as "about 11%" or "at least 51%"."""
        return f"{self.bound or 'about'} {percent(self.median)}"


def matching_errors(job: Job) -> WindowErrors | None:
    """Return the measured errors of a job's model; None if they do not apply to the scores of the job.

    They apply to scores of centred derivatives of the quantity that was measured: the log-likelihood, or the logit of
    a label of the same head, of each region.
    """
    found = job.model.config.window_errors
    if found is None or found.target != _target(job) or _cannot_be_measured(job) is not None:
        return None
    return found


def _target(job: Job) -> str:
    """Return the target of a job, as in `WindowErrors`."""
    return job.target.head or LIKELIHOOD


def _cannot_be_measured(job: Job) -> str | None:
    """Return the option for which no errors can be measured; None if there is none."""
    options = job.options
    if options.path is not None:
        return f"--method {options.method}"
    if options.contrast is not None:
        return f"--contrast {options.contrast}"
    if job.target.region is not None:
        return f"--target {job.target.text}, whose position is fixed"
    if options.formula == "observed":
        return "--score observed, which is not centred"
    return None


def expected_error(job: Job) -> ExpectedError | None:
    """Return the expected error of the scores of a job, relative to those with much longer windows.

    Parameters
    ----------
    job
        Job with at least one window. The distance of each base from the ends of the window that is
        read is used, also where windows are joined. At the end of a sequence nothing is left out.

    Returns
    -------
    ExpectedError or None
        Expected error; None if it was not measured for the model and target (see `matching_errors`).

    Notes
    -----
    The squared error is averaged over the bases of all regions and both strands, as if the scores of all
    regions were of the same size.
    """
    measured = matching_errors(job)
    if measured is None or not job.batches:
        return None
    squares, n_bases, close, far = np.zeros(2), 0, 0.0, 0.0
    longest = 2 * max(measured.contexts[-1], measured.reaches[-1])
    geometry, counts = np.unique(np.array(list(_distances(job, longest))), axis=0, return_counts=True)
    for start in range(0, len(geometry), _PIECE):
        lengths, first, last = geometry[start : start + _PIECE].T[:, :, None]
        n = counts[start : start + _PIECE, None] * lengths
        before = first + _NODES * (lengths - 1)
        after = last + (1 - _NODES) * (lengths - 1) if measured.reach else np.full_like(before, np.inf)
        weights = n * _WEIGHTS
        whole = np.isinf(before) & np.isinf(after)
        for i, errors in enumerate(measured.interpolate(before, after)):
            squares[i] += (weights * np.where(whole, 0, errors**2)).sum()
        n_bases += int(n.sum())
        contexts, reaches = measured.contexts, measured.reaches
        close += weights[(before * _TOLERANCE < contexts[0]) | (after * _TOLERANCE < reaches[0])].sum()
        far += weights[~whole & _beyond(before, contexts[-1]) & _beyond(after, reaches[-1])].sum()
    median, worst = np.sqrt(squares / n_bases).tolist()
    return ExpectedError(median, worst, "at least" if close else "at most" if far > n_bases / 2 else None)


def _beyond(distances: np.ndarray, longest: int) -> np.ndarray:
    return distances > _TOLERANCE * longest + 1


def _distances(job: Job, longest: int) -> Iterator[tuple[float, float, float]]:
    """Yield, for each region in each window, its length and the distances of its ends from those of the window.

    The distances are in the reading direction, and infinite if the window ends where the sequence ends. Distances
    above `longest`, at which the error does not differ, are reduced to it.
    """
    for batch in job.batches:
        for windows in batch:
            for window in windows:
                first, last = _open_ends(window, job.genome.sizes[window.region.chrom])
                for region in window.regions:
                    span = window.span_of(region)
                    before, after = min(span.start, longest), min(len(window) - span.stop, longest)
                    yield len(region), first + before, last + after


def _open_ends(window: Window, size: int) -> tuple[float, float]:
    """Return infinity for each end of a window where the sequence ends, otherwise 0; first the end read first."""
    ends = [math.inf if end else 0.0 for end in (window.region.start == 0, window.region.end == size)]
    first, last = ends if window.strand == "+" else ends[::-1]
    return first, last


def describe_windows(job: Job) -> str | None:
    """Return a line about the context that a job reads, and the expected error of its scores; None if there is neither.

    Parameters
    ----------
    job
        Job with at least one window.
    """
    found, parts = expected_error(job), []
    if job.context_share:
        parts.append(f"{job.context_share:.0%} of the bases read are context")
    if found is not None and found.median:
        measured = matching_errors(job)
        assert measured is not None
        parts.append(f"scores differ by {found} (relative L2) from those with {measured.long_window}")
    return "; ".join(parts) or None


def describe_expected_error(job: Job, model_name: str, genome: str) -> str | None:
    """Return the expected error and what it was measured on or, if it is unknown, why, or how to measure it.

    Parameters
    ----------
    job
        Job with at least one window.
    model_name, genome
        Name or folder of the model, and path of the genome, for a command that measures the errors.

    Returns
    -------
    str or None
        Text such as "about 11%, worst region 20% (...)", "none: ...", "unknown: ..." or "not measured; ...". None
        for heads that label whole windows, which are read without context.
    """
    if job.target.pooled:
        return None
    if _reads_everything(job):
        return "none: the windows contain all bases that the target depends on"
    if (option := _cannot_be_measured(job)) is not None:
        return f"unknown: models measure does not measure it for {option}"
    measured, found = matching_errors(job), expected_error(job)
    if measured is None or found is None:
        command = measuring_command(job.model, model_name, genome, _target(job))
        other = job.model.config.window_errors
        known = "not measured" if other is None else f"measured only for {other.measured_target}"
        return f"{known}; to measure it: {command}"
    return (
        f"{found}, worst region {percent(found.worst)} (relative L2 distance to {measured.long_window}; "
        f"{measured.regions:,} regions of {measured.genome})"
    )


def _reads_everything(job: Job) -> bool:
    """Return whether no base outside the windows of a job affects its scores."""
    # The outputs of a causal model do not depend on the bases that follow, and a sum over given outputs neither.
    last_matters = job.model.bidirectional or not (job.target.head or job.target.region is not None)
    for batch in job.batches:
        for windows in batch:
            for window in windows:
                first, last = _open_ends(window, job.genome.sizes[window.region.chrom])
                if not (first and (last or not last_matters)):
                    return False
    return True


def expected_error_entries(job: Job) -> dict[str, Any]:
    """Return the entries `read_bases`, `context_share` and `window_error` of the record of a job."""
    measured, found = matching_errors(job), expected_error(job)
    entries: dict[str, Any] = {"read_bases": job.read_bases, "context_share": job.context_share}
    if measured is None or found is None:
        return entries
    about = measured.model_dump(include={"genome", "target", "regions", "bases", "context", "reach"})
    return entries | {"window_error": {"median": found.median, "worst": found.worst, "bound": found.bound, **about}}


def merge_entries(records: Sequence[Mapping[str, Any]], n_bases: Sequence[int]) -> dict[str, Any]:
    """Return the entries of the record of all shards of a job together (see `expected_error_entries`).

    Parameters
    ----------
    records
        Record of each shard. Those of earlier versions do not have these entries, which are then omitted. So is
        the expected error if those of the shards come from different measurements.
    n_bases
        Number of scored bases of each shard.
    """
    entries: dict[str, Any] = {}
    read = [record.get("read_bases") or 0 for record in records]
    if all(read) and all(record.get("context_share") is not None for record in records):
        context = sum(record["context_share"] * n for record, n in zip(records, read, strict=True))
        entries |= {"read_bases": sum(read), "context_share": context / sum(read)}
    errors = [error for record in records if (error := record.get("window_error"))]
    if len(errors) == len(records) and all(_measurement(error) == _measurement(errors[0]) for error in errors):
        bounds = {error.get("bound") for error in errors}
        bound = "at least" if "at least" in bounds else "at most" if bounds == {"at most"} else None
        mean = {
            key: math.sqrt(sum(error[key] ** 2 * n for error, n in zip(errors, n_bases, strict=True)) / sum(n_bases))
            for key in ("median", "worst")
        }
        entries["window_error"] = {**errors[0], **mean, "bound": bound}
    return entries


def _measurement(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return on what an expected error was measured."""
    return {key: value for key, value in error.items() if key not in ("median", "worst", "bound")}
