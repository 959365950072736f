"""Measurement of how much the scores of a model depend on the window.

In regions drawn from a genome, scores are computed with several contexts and reaches, and compared with those of
a much longer window. The results are a `WindowErrors`, which is stored in the configuration of the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float64

from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import BASES
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Window
from genoscan.genome.region import Region
from genoscan.gradient import gradient
from genoscan.job import Job, Options, prepare
from genoscan.layers.window_error import LIKELIHOOD, MAX_ERROR, DistantShare, WindowError, WindowErrors
from genoscan.model import Model
from genoscan.record import model_record, sequence_records
from genoscan.tracks.journal import Entry, Journal
from genoscan.tracks.record_schema import region_records
from genoscan.window_error.grid import SCORED_BASES, WindowGrid, chosen_target, window_grid

_DISTANCES = 64, 256, 1_024, 4_096, 16_384
_MAX_UNKNOWN = 0.01
_DRAWS = 100
_BATCH = 4


@dataclass(frozen=True)
class Measurement:
    """Prepared measurement.

    Attributes
    ----------
    grid
        Contexts and reaches to measure.
    genome, target, seed
        Name of the genome, and as for `WindowErrors`.
    long
        Jobs that compute the scores of all regions with the long window.
    short
        Jobs that compute the same scores with each context and reach of the grid.
    logits
        Jobs that compute the sensitivity of a single logit in each region, with the position of the logit.
    """

    grid: WindowGrid
    genome: str
    target: str
    seed: int
    long: tuple[Job, ...]
    short: tuple[tuple[Job, ...], ...]
    logits: tuple[tuple[Job, int], ...]

    @property
    def jobs(self) -> list[Job]:
        """All jobs."""
        return [*self.long, *(job for jobs in self.short for job in jobs), *(job for job, _ in self.logits)]


def prepare_measurement(
    model: Model,
    genome: Genome,
    *,
    head: str | None = None,
    n_regions: int,
    longest: int | None = None,
    seed: int = 1,
    name: str | None = None,
) -> Measurement:
    """Draw regions from a genome, and prepare the jobs that compute their scores.

    Parameters
    ----------
    model
        Model to measure.
    genome
        Genome, with a sequence that is longer than the long window.
    head
        Task head to measure (see `chosen_target`). Its labels are taken in turn.
    n_regions
        Number of regions.
    longest
        Context and reach of the long window, in bases (see `window_grid`).
    seed
        Seed with which the regions are drawn.
    name
        Name of the genome in the results. If None, the name of its file.

    Returns
    -------
    Measurement
        The prepared measurement.

    Raises
    ------
    InputError
        If an option is invalid, or the genome does not have enough regions where at least 99 % of the bases of
        the long window are known.
    """
    if n_regions < 1:
        raise InputError(f"--regions {n_regions}: expected at least 1")
    if not 0 <= seed < 1 << 63:
        raise InputError(f"--seed {seed}: expected 0 to 2^63 - 1")
    target = chosen_target(model, head)
    grid = window_grid(model, target, longest)
    drawn = draw_regions(genome, n_regions, margin=grid.context, smallest=grid.shortest, seed=seed)
    if target == LIKELIHOOD:
        groups = {target: drawn}
    else:
        labels = model.config.heads[target].labels
        groups = {f"{target}:{label}": drawn[i :: len(labels)] for i, label in enumerate(labels[: len(drawn)])}

    def jobs(context: int, reach: int) -> tuple[Job, ...]:
        return tuple(
            prepare(genome, model, regions, Options(target=one, context=context, reach=reach, apart=True, batch=_BATCH))
            for one, regions in groups.items()
        )

    return Measurement(
        grid,
        name or genome.path.name,
        target,
        seed,
        jobs(grid.context, grid.reach),
        tuple(jobs(*pair) for pair in grid.pairs),
        tuple(_logit_job(model, genome, one, region, grid.context) for one, part in groups.items() for region in part),
    )


def draw_regions(genome: Genome, n: int, *, margin: int, smallest: int, seed: int) -> list[Region]:
    """Return random regions of 128 bases that do not overlap, in the order of the genome.

    Parameters
    ----------
    genome
        Genome to draw from.
    n
        Number of regions.
    margin
        Number of bases on both sides of each region that are read.
    smallest
        Smallest margin that an error may advise to choose (`--longest`).
    seed
        Seed of the random numbers.

    Raises
    ------
    InputError
        If there are not enough regions without unknown bases, with at most 1 % unknown bases including the margins.
    """
    starts = {chrom: size - SCORED_BASES - 2 * margin + 1 for chrom, size in genome.sizes.items()}
    starts = {chrom: count for chrom, count in starts.items() if count > 0}
    if not starts:
        size = max(genome.sizes.values(), default=0)
        possible = (size - SCORED_BASES) // 2
        if possible < smallest:
            remedy = f"use a genome with a sequence of at least {SCORED_BASES + 2 * smallest:,} bases"
        else:
            remedy = f"a shorter window is read with --longest {possible}"
        raise InputError(
            f"{genome.path}: the longest sequence has {size:,} bases, expected at least {SCORED_BASES + 2 * margin:,}, "
            f"as the long window; {remedy}"
        )
    chroms, ends = list(starts), np.cumsum(list(starts.values()))
    random = np.random.default_rng(seed)
    found: list[Region] = []
    for _ in range(_DRAWS * n):
        at = int(random.integers(ends[-1]))
        which = int(np.searchsorted(ends, at, side="right"))
        chrom = chroms[which]
        start = margin + at - int(ends[which] - starts[chrom])
        if any(one.chrom == chrom and abs(one.start - start) < SCORED_BASES for one in found):
            continue
        unknown = genome.fetch(chrom, start - margin, start + SCORED_BASES + margin) > 3
        if unknown[margin : margin + SCORED_BASES].any() or unknown.mean() > _MAX_UNKNOWN:
            continue
        found.append(Region(chrom, start, start + SCORED_BASES))
        if len(found) == n:
            rank = {name: i for i, name in enumerate(genome.sizes)}
            return sorted(found, key=lambda one: (rank[one.chrom], one.start))
    remedies = ["give fewer --regions"] * (n > 1) + [f"a --longest of {smallest} to {margin - 1}"] * (margin > smallest)
    raise InputError(
        f"{genome.path}: found {len(found):,} of {n:,} regions with {margin:,} known bases on both sides in "
        f"{_DRAWS * n:,} draws; {', or '.join([*remedies, 'another genome'])}"
    )


def _logit_job(model: Model, genome: Genome, target: str, region: Region, distance: int) -> tuple[Job, int]:
    """Return the job that computes the sensitivity of the logit at the centre of a region, and its position."""
    chrom, at = region.chrom, (region.start + region.end) // 2
    masked = False
    if target == LIKELIHOOD:
        base = BASES[genome.fetch(chrom, at, at + 1)[0]]
        target = f"logit:{{{chrom}}}:{at + 1}:{base}"
        masked = model.config.mask is not None
        end = at if model.label_offset else at + 1
    else:
        target, end = f"{target}@{{{chrom}}}:{at + 1}-{at + 1}", at + 1
    read = Region(chrom, at - distance, at + distance + 1 if model.bidirectional else end)
    return prepare(genome, model, [read], Options(target=target, context=0, reach=0, masked=masked)), at


def measurement_settings(prepared: Measurement) -> dict[str, Any]:
    """Return all settings that determine the results of a measurement, bit for bit."""
    regions = [region for job in prepared.long for region in job.regions]
    genome, model = prepared.long[0].genome, prepared.long[0].model
    return {
        **model_record(model),
        "sequences": sequence_records(genome, [region.chrom for region in regions]),
        "target": prepared.target,
        "regions": region_records(regions),
        "long window": [prepared.grid.context, prepared.grid.reach],
        "windows": list(map(list, prepared.grid.pairs)),
    }


def measure(prepared: Measurement, journal: Journal | None = None, *, progress: Progress = ignore) -> WindowErrors:
    """Run a measurement.

    Parameters
    ----------
    prepared
        Measurement to run.
    journal
        Journal of the run, opened with the settings `measurement_settings(prepared)`. Results that it contains are
        not computed again. If None, nothing is stored.
    progress
        As for `gradient.stream_gradient`.

    Returns
    -------
    WindowErrors
        Median and largest error of the regions for each context and reach, and the shares of distant bases.

    Raises
    ------
    NonFiniteError
        If a derivative is not finite, or all derivatives in a region are 0 or almost 0.
    """
    if journal is not None:
        journal.log_resumed(len(journal.entries), sum(len(job.batches) for job in prepared.jobs), "batches")
    results = _Results(journal)
    truth = _columns(prepared.long, results, progress)
    norms = {region: float(np.linalg.norm(columns)) for region, columns in truth.items()}
    for region, norm in norms.items():
        if not norm:
            raise NonFiniteError(
                f"{region}: the target does not depend on any base of the region, so that its error is 0/0"
            )
    errors = []
    for (context, reach), jobs in zip(prepared.grid.pairs, prepared.short, strict=True):
        found = _columns(jobs, results, progress)
        relative = [_relative_error(found[region], truth[region], norms[region], region) for region in truth]
        median, worst = _summary(relative)
        errors.append(WindowError(context=context, reach=reach, median=median, worst=worst))
    longest = prepared.grid.context
    distant = [results.get(partial(_distant_shares, job, at, longest, progress)) for job, at in prepared.logits]
    distances = [distance for distance in _DISTANCES if distance < longest]
    summaries = map(_summary, zip(*distant, strict=True))
    return WindowErrors(
        genome=prepared.genome,
        target=prepared.target,
        regions=len(truth),
        bases=SCORED_BASES,
        seed=prepared.seed,
        context=longest,
        reach=prepared.grid.reach,
        errors=tuple(errors),
        distant=tuple(
            DistantShare(distance=distance, median=median, worst=worst)
            for distance, (median, worst) in zip(distances, summaries, strict=True)
        ),
    )


class _Results:
    """Results in the order in which they are asked for; those in a journal are not computed again."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal, self._asked = journal, 0

    def get(self, compute: Callable[[], list[float]]) -> list[float]:
        """Return the next result."""
        number, journal = self._asked, self._journal
        self._asked += 1
        if journal is None:
            return compute()
        if number not in journal.entries:
            journal.add(Entry(batch=number, values=compute()))
        return journal.entries[number].values


def _relative_error(
    found: Float64[np.ndarray, "bases 4"], truth: Float64[np.ndarray, "bases 4"], norm: float, region: Region
) -> float:
    """Return the norm of the difference, relative to the norm of the true values."""
    error = float(np.linalg.norm(found - truth)) / norm
    if not error <= MAX_ERROR:
        raise NonFiniteError(
            f"{region}: with the long window the derivatives have the norm {norm:.3g}, and their error is {error:.3g} "
            f"times as large, expected at most {MAX_ERROR:,.0f}: the target hardly depends on the region"
        )
    return error


def _summary(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the median and the maximum, with four significant digits."""
    median, worst = float(f"{np.median(values):.4g}"), float(f"{np.max(values):.4g}")
    return median, worst


def _distant_shares(job: Job, at: int, longest: int, progress: Progress) -> list[float]:
    """Return the share of the sensitivity to other bases that belongs to bases further away than each distance."""
    (((window,),),) = job.batches
    region, columns = window.scored, np.reshape(_derivatives(job, [window], progress), (-1, 4))
    distances = np.abs(np.arange(region.start, region.end) - at)
    sizes = np.where(distances > 0, np.abs(columns).sum(1), 0.0)
    total = sizes.sum()
    if not total:
        raise NonFiniteError(f"{region}: the target does not depend on any other base, so that shares are 0/0")
    return [float(sizes[distances > distance].sum() / total) for distance in _DISTANCES if distance < longest]


def _columns(
    jobs: Sequence[Job], results: _Results, progress: Progress
) -> dict[Region, Float64[np.ndarray, "bases 4"]]:
    """Return the derivatives minus their mean at each base, by region."""
    found: dict[Region, Float64[np.ndarray, "bases 4"]] = {}
    for job in jobs:
        for batch in job.batches:
            windows = [window for (window,) in batch]
            values = results.get(partial(_derivatives, job, windows, progress))
            found |= zip((window.scored for window in windows), np.reshape(values, (-1, SCORED_BASES, 4)), strict=True)
    return found


def _derivatives(job: Job, windows: Sequence[Window], progress: Progress) -> list[float]:
    """Return the derivatives minus their mean at each base of the windows' regions, base by base."""
    model = job.model
    resolved = job.target.resolve(windows, job.read(windows), model, [], masked=job.options.masked)
    whole = gradient(model, resolved.codes, resolved.target, progress=progress).gradient
    found: list[float] = []
    for window, rows in zip(windows, whole, strict=True):
        columns = model.by_base(rows[window.scored_span]).astype(np.float64)
        if not np.isfinite(columns).all():
            raise NonFiniteError(f"{window.scored}: a derivative is not finite; {model.advice_on_overflow}")
        found += (columns - columns.mean(1, keepdims=True)).ravel().tolist()
    return found
