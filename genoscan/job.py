"""Jobs: settings, windows and batches, all of which are checked before the computation starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from genoscan.averages.path_method import GRADIENT, PathMethod, path_method
from genoscan.composition import describe_difference
from genoscan.errors import InputError
from genoscan.genome.genome import Genome
from genoscan.genome.plan import (
    Batch,
    Window,
    batches,
    by_region,
    join_windows,
    merge,
    plan,
    read_windows,
    whole_genome,
)
from genoscan.genome.region import Region
from genoscan.label_target import LabelTarget
from genoscan.model import Model
from genoscan.shards import shard_of
from genoscan.targets import TargetSpec, parse_target
from genoscan.tracks.score import SCORES


@dataclass(frozen=True)
class Options:
    """Settings of the computation; the defaults are those of the command line.

    Attributes
    ----------
    target
        Quantity to differentiate (see targets.py).
    score
        Name of the formula that reduces the four derivatives at a base to one score (see
        tracks/score.py). If None, it is "observed" for methods with a baseline, otherwise "centred".
    strand
        Strand to read: "+", "-", "both" for the mean over the two strands, or "bed" for the strand of
        each region.
    context, reach
        Number of bases to read upstream of a region, and number to read downstream of it. If None, the
        value in the model's configuration is used.
    apart
        Whether each region has a separate window. If False, windows of causal models that overlap are joined if
        their regions can have a common target (see `can_share`).
    batch
        Number of windows of equal length processed together.
    masked
        Whether the bases of the target are replaced by the mask token in the input.
    contrast
        For a target of a task head, the label whose logit is subtracted, or "strongest" for the label
        with the largest logit, other than the label of the target. If None, no logit is subtracted.
    shard
        Text of the form "I/N", to compute only shard I of N. If None, the whole job is computed.
    method, steps, baseline, seed, sigma
        Method that averages gradients over several inputs, and its settings (see averages/path_method.py). If
        `method` is "gradient", the gradient is computed at the sequence only, and the others are ignored.

    Raises
    ------
    InputError
        If `score`, `batch` or a setting of the method is invalid.
    """

    target: str = "log-likelihood"
    score: str | None = None
    strand: str = "+"
    context: int | None = None
    reach: int | None = None
    apart: bool = False
    batch: int = 4
    masked: bool = False
    contrast: str | None = None
    shard: str | None = None
    method: str = GRADIENT
    steps: int | str | None = None
    baseline: str | None = None
    seed: int = 1
    sigma: float = 0.15

    def __post_init__(self) -> None:
        if self.score is not None and self.score not in SCORES:
            raise InputError(f"--score {self.score}: expected one of {', '.join(SCORES)}")
        if self.batch < 1:
            raise InputError(f"--batch {self.batch}: expected at least 1")
        _ = self.path

    @cached_property
    def path(self) -> PathMethod | None:
        """Method that averages gradients over several inputs; None if there is only the gradient."""
        return path_method(self.method, self.steps, self.baseline, self.seed, self.sigma)

    @property
    def formula(self) -> str:
        """Name of the formula that reduces the four derivatives at a base to one score."""
        # The columns of a method with a baseline are relative to the baseline.
        has_baseline = self.path is not None and self.path.baseline is not None
        return self.score or ("observed" if has_baseline else "centred")


@dataclass(frozen=True)
class Job:
    """Regions, model, target and batches of one run.

    Attributes
    ----------
    genome, model, target, options
        Inputs to the job.
    context, reach
        Number of bases read upstream of a region, and number read downstream of it.
    regions
        Merged regions in genome order.
    batches
        Windows of the regions, grouped by length, in the order in which they are computed.
    all_regions
        Regions of all shards; the same as `regions` if the job is not divided into shards.
    """

    genome: Genome
    model: Model
    target: TargetSpec | LabelTarget
    options: Options
    context: int
    reach: int
    regions: tuple[Region, ...]
    batches: tuple[Batch, ...]
    all_regions: tuple[Region, ...]

    @property
    def longest(self) -> int:
        """Length of the longest window, in bases."""
        return max((len(windows[0]) for batch in self.batches for windows in batch), default=0)

    @property
    def widest(self) -> int:
        """Largest number of windows that are processed together."""
        return max((len(batch) for batch in self.batches), default=0)

    @property
    def read_bases(self) -> int:
        """Total number of bases in all windows."""
        return sum(len(window) for batch in self.batches for windows in batch for window in windows)

    @property
    def context_share(self) -> float:
        """Share of the bases read that are not scored, from 0 to 1."""
        windows = (window for batch in self.batches for windows in batch for window in windows)
        scored = sum(len(region) for window in windows for region in window.regions)
        return 1 - scored / self.read_bases if scored else 0.0

    @cached_property
    def warning(self) -> str | None:
        """Warning if the G+C content of the regions differs from that of the training data; None otherwise."""
        return describe_difference(self.genome, self.all_regions, self.model.config, self.model.name)

    def stores_columns(self, outputs: Sequence[Path]) -> bool:
        """Return whether a run stores the four derivatives at each base, rather than the scores only.

        It does so if an output is a .npz file, or if derivatives are averaged over several inputs.
        """
        return self.options.path is not None or any(path.suffix == ".npz" for path in outputs)

    def read(self, windows: Sequence[Window]) -> UInt8[Tensor, "windows length"]:
        """Return the base codes of windows of equal length, each in its reading direction."""
        return torch.from_numpy(read_windows(self.genome, windows))


def prepare(genome: Genome, model: Model, regions: Sequence[Region], options: Options) -> Job:
    """Merge regions, plan windows and batches, and return the job.

    Parameters
    ----------
    genome, model
        Genome to read, and model to differentiate.
    regions
        Regions in any order. If there are none, all sequences are used in full.
    options
        Settings of the computation.

    Returns
    -------
    Job
        The checked job, which `pipeline.run` computes.

    Raises
    ------
    InputError
        If an option is invalid, the target cannot depend on a region, or the memory budget is too
        small for the longest windows.
    """
    target = parse_target(options.target, genome.sizes, model, options.contrast)
    model = model.with_head(target.head)
    if options.path is not None:
        target.check_path(options.method)
    if options.masked:
        target.check_masked(model)
    context = _default(options.context, 0 if target.pooled else model.config.context)
    reach = _default(options.reach, 0 if target.pooled else model.config.reach)
    if not model.bidirectional and not target.pooled and (target.head or target.region is not None):
        reach = 0  # causal outputs do not depend on bases downstream of them
    merged = merge(regions or whole_genome(genome.sizes), genome.sizes, by_strand=options.strand == "bed")
    target.check(merged, genome.sizes, options.strand, model.label_offset)
    windows = plan(
        merged,
        genome.sizes,
        model.method,
        context=context,
        reach=reach,
        strand=options.strand,
        target=None if target.pooled else target.region,
        label_offset=model.label_offset,
    )
    target.check_windows(windows)
    read = by_region(windows, options.strand)
    if not options.apart and not model.bidirectional and target.can_share:
        read = join_windows(read)
    order, every = batches(read, options.batch), tuple(merged)
    if options.shard is not None:
        order = shard_of(order, options.shard)
        scored = {region for batch in order for windows in batch for region in windows[0].regions}
        merged = [region for region in merged if region in scored]
    job = Job(genome, model, target, options, context, reach, tuple(merged), tuple(order), every)
    model.method.fit(model.stack, job.longest, job.widest)
    return job


def _default(given: int | None, default: int) -> int:
    return default if given is None else given
