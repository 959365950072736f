"""Measurement of how much the scores of a model depend on the window.

At places drawn from a genome, scores are computed with several contexts and reaches, and compared with those of
a much longer window. The results are a `WindowErrors`, which is stored in the configuration of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import BASES
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.gradient import gradient
from genoscan.job import Job, Options, prepare
from genoscan.layers.window_error import DistantShare, WindowError, WindowErrors
from genoscan.model import Model
from genoscan.window_ladder import LIKELIHOOD, REGION, Ladder, default_target, ladder

PLACES = 16
"""Default number of places."""

_DISTANCES = 64, 256, 1_024, 4_096, 16_384
_MAX_UNKNOWN = 0.01
_DRAWS = 100
_BATCH = 4


@dataclass(frozen=True)
class Measurement:
    """Prepared measurement.

    Attributes
    ----------
    ladder
        Contexts and reaches to measure.
    genome, target, seed
        Name of the genome, and as for `WindowErrors`.
    long
        Jobs that compute the scores of all places with the long window.
    short
        Jobs that compute the same scores with each context and reach of the ladder.
    logits
        Jobs that compute the sensitivity of a single logit at each place, with the position of the logit.
    """

    ladder: Ladder
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
    places: int = PLACES,
    longest: int | None = None,
    seed: int = 1,
    name: str | None = None,
) -> Measurement:
    """Draw places from a genome, and prepare the jobs that compute their scores.

    Parameters
    ----------
    model
        Model to measure.
    genome
        Genome, with a sequence that is longer than the long window.
    head
        Task head to measure (see `default_target`). Its labels are taken in turn.
    places
        Number of places.
    longest
        Context and reach of the long window, in bases (see `ladder`).
    seed
        Seed with which the places are drawn.
    name
        Name of the genome in the results. If None, the name of its file.

    Returns
    -------
    Measurement
        The prepared measurement.

    Raises
    ------
    InputError
        If an option is invalid, or the genome does not have enough places where at least 99 % of the bases of
        the long window are known.
    """
    if places < 1:
        raise InputError(f"--places {places}: expected at least 1")
    if not 0 <= seed < 1 << 63:
        raise InputError(f"--seed {seed}: expected 0 to 2^63 - 1")
    target = default_target(model, head)
    chosen = ladder(model, target, longest)
    drawn = draw_places(genome, places, margin=chosen.context, seed=seed)
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
        chosen,
        name or genome.path.name,
        target,
        seed,
        jobs(chosen.context, chosen.reach),
        tuple(jobs(*pair) for pair in chosen.pairs),
        tuple(
            _logit_job(model, genome, one, region, chosen.context) for one, part in groups.items() for region in part
        ),
    )


def draw_places(genome: Genome, n: int, *, margin: int, seed: int) -> list[Region]:
    """Return random regions of 128 bases that do not overlap, in the order of the genome.

    Parameters
    ----------
    genome
        Genome to draw from.
    n
        Number of regions.
    margin
        Smallest number of bases on both sides of each region.
    seed
        Seed of the random numbers.

    Raises
    ------
    InputError
        If there are not enough regions without unknown bases, with at most 1 % unknown bases including the margins.
    """
    starts = {chrom: size - REGION - 2 * margin + 1 for chrom, size in genome.sizes.items()}
    starts = {chrom: count for chrom, count in starts.items() if count > 0}
    if not starts:
        longest = max(genome.sizes.values(), default=0)
        raise InputError(
            f"{genome.path}: the longest sequence has {longest:,} bases, expected at least {REGION + 2 * margin:,}, as "
            f"the long window; a shorter window is read with --longest {max((longest - REGION) // 2, 1)}"
        )
    chroms, ends = list(starts), np.cumsum(list(starts.values()))
    random = np.random.default_rng(seed)
    found: list[Region] = []
    for _ in range(_DRAWS * n):
        at = int(random.integers(ends[-1]))
        which = int(np.searchsorted(ends, at, side="right"))
        chrom = chroms[which]
        start = margin + at - int(ends[which] - starts[chrom])
        if any(one.chrom == chrom and abs(one.start - start) < REGION for one in found):
            continue
        unknown = genome.fetch(chrom, start - margin, start + REGION + margin) > 3
        if unknown[margin : margin + REGION].any() or unknown.mean() > _MAX_UNKNOWN:
            continue
        found.append(Region(chrom, start, start + REGION))
        if len(found) == n:
            rank = {name: i for i, name in enumerate(genome.sizes)}
            return sorted(found, key=lambda one: (rank[one.chrom], one.start))
    raise InputError(
        f"{genome.path}: found {len(found):,} of {n:,} places with {margin:,} known bases on both sides in "
        f"{_DRAWS * n:,} draws; give fewer --places, or a smaller --longest"
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


def measure(prepared: Measurement, progress: Progress = ignore) -> WindowErrors:
    """Run a measurement.

    Parameters
    ----------
    prepared
        Measurement to run.
    progress
        As for `gradient.stream_gradient`.

    Returns
    -------
    WindowErrors
        Median and largest error of the places for each context and reach, and the shares of distant bases.

    Raises
    ------
    NonFiniteError
        If a derivative is not finite, or all derivatives at a place are 0.
    """
    truth = _columns(prepared.long, progress)
    norms = {place: float(np.linalg.norm(columns)) for place, columns in truth.items()}
    for place, norm in norms.items():
        if not norm:
            raise NonFiniteError(
                f"{place}: the target does not depend on any base of the region, so that its error is 0/0"
            )
    errors = []
    for (context, reach), jobs in zip(prepared.ladder.pairs, prepared.short, strict=True):
        found = _columns(jobs, progress)
        relative = [float(np.linalg.norm(found[place] - truth[place])) / norms[place] for place in truth]
        median, worst = _summary(relative)
        errors.append(WindowError(context=context, reach=reach, median=median, worst=worst))
    shares = np.array([_distant_shares(job, at, prepared.ladder.context, progress) for job, at in prepared.logits])
    distances = [distance for distance in _DISTANCES if distance < prepared.ladder.context]
    summaries = [_summary(column) for column in shares.T]
    return WindowErrors(
        genome=prepared.genome,
        target=prepared.target,
        places=len(truth),
        bases=REGION,
        seed=prepared.seed,
        context=prepared.ladder.context,
        reach=prepared.ladder.reach,
        errors=tuple(errors),
        distant=tuple(
            DistantShare(distance=distance, median=median, worst=worst)
            for distance, (median, worst) in zip(distances, summaries, strict=True)
        ),
    )


def _summary(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the median and the maximum, with four significant digits."""
    median, worst = float(f"{np.median(values):.4g}"), float(f"{np.max(values):.4g}")
    return median, worst


def _distant_shares(job: Job, at: int, longest: int, progress: Progress) -> list[float]:
    """Return the share of the sensitivity to other bases that belongs to bases further away than each distance."""
    ((region, columns),) = _columns([job], progress).items()
    distances = np.abs(np.arange(region.start, region.end) - at)
    sizes = np.where(distances > 0, np.abs(columns).sum(1), 0.0)
    total = sizes.sum()
    if not total:
        raise NonFiniteError(f"{region}: the target does not depend on any other base, so that shares are 0/0")
    return [float(sizes[distances > distance].sum() / total) for distance in _DISTANCES if distance < longest]


def _columns(jobs: Sequence[Job], progress: Progress) -> dict[Region, Float64[np.ndarray, "bases 4"]]:
    """Return the derivatives minus their mean at each base, by region."""
    found = {}
    for job in jobs:
        model = job.model
        for batch in job.batches:
            windows = [window for (window,) in batch]
            resolved = job.target.resolve(windows, job.read(windows), model, [], masked=job.options.masked)
            whole = gradient(model, resolved.codes, resolved.target, progress=progress).gradient
            for window, rows in zip(windows, whole, strict=True):
                columns = model.by_base(rows[window.scored_span]).astype(np.float64)
                if not np.isfinite(columns).all():
                    raise NonFiniteError(f"{window.scored}: a derivative is not finite; {model.advice_on_overflow}")
                found[window.scored] = columns - columns.mean(1, keepdims=True)
    return found
