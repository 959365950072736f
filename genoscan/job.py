"""A job: what is to be computed, decided and checked before the first tile runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from genoscan.errors import InputError
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Batch, Window, batches, by_region, merge, plan, whole_genome
from genoscan.genome.region import Region
from genoscan.model import Model
from genoscan.shards import shard_of
from genoscan.targets import TargetSpec, parse_target
from genoscan.tracks.score import SCORES


@dataclass(frozen=True)
class Options:
    """What is computed of each region; defaults are those of the command line.

    Attributes
    ----------
    target
        What is differentiated (targets.py).
    score
        How four derivatives become one number (tracks/score.py).
    strand
        Reading direction: "+", "-", "both" or "bed".
    context, reach
        Bases read before and past a region; None: the model's own.
    batch
        Windows of one length that are read side by side.
    masked
        Whether the target's own bases are hidden.
    shard
        "I/N" for the I-th of N parts; None for all.
    """

    target: str = "log-likelihood"
    score: str = "centred"
    strand: str = "+"
    context: int | None = None
    reach: int | None = None
    batch: int = 4
    masked: bool = False
    shard: str | None = None

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise InputError(f"--score {self.score}: expected one of {', '.join(SCORES)}")
        if self.batch < 1:
            raise InputError(f"--batch {self.batch}: expected at least 1")


@dataclass(frozen=True)
class Job:
    """Regions of a genome, a model, a target, and the order of work.

    Attributes
    ----------
    regions
        Merged, in genome order.
    batches
        Regions' windows, those of equal lengths side by side.
    """

    genome: Genome
    model: Model
    target: TargetSpec
    options: Options
    context: int
    reach: int
    regions: tuple[Region, ...]
    batches: tuple[Batch, ...]

    @property
    def longest(self) -> int:
        """Length of the longest window, in bases."""
        return max((len(windows[0]) for batch in self.batches for windows in batch), default=0)

    @property
    def widest(self) -> int:
        """Windows in the largest batch."""
        return max((len(batch) for batch in self.batches), default=0)

    def read(self, windows: Sequence[Window]) -> UInt8[Tensor, "windows length"]:
        """Fetch windows of one length as they are read, 1 byte a base."""
        if len(windows) == 1:
            return torch.from_numpy(_fetch(self.genome, windows[0])[None])
        return torch.from_numpy(np.stack([_fetch(self.genome, window) for window in windows]))


def prepare(genome: Genome, model: Model, regions: Sequence[Region], options: Options) -> Job:
    """Merge the regions and plan their windows; no regions means every sequence.

    Raises
    ------
    InputError
        If an option has no valid value, the target cannot depend on a region, or the memory
        allowed does not suffice for the longest windows.
    """
    target = parse_target(options.target, genome.sizes)
    if options.masked:
        target.check_masked(model)
    context = model.config.context if options.context is None else options.context
    reach = model.config.reach if options.reach is None else options.reach
    if target.region is not None and not model.bidirectional:
        reach = 0  # outputs of a causal model depend on nothing past them
    merged = merge(
        regions or whole_genome(genome.sizes), genome.sizes, by_strand=options.strand == "bed"
    )
    target.check(merged, genome.sizes, options.strand, model.config.label_offset)
    windows = plan(
        merged,
        genome.sizes,
        model.method,
        context=context,
        reach=reach,
        strand=options.strand,
        target=target.region,
        label_offset=model.config.label_offset,
    )
    order = batches(by_region(windows, options.strand), options.batch)
    if options.shard is not None:
        order = shard_of(order, options.shard)
        scored = {windows[0].scored for batch in order for windows in batch}
        merged = [region for region in merged if region in scored]
    job = Job(genome, model, target, options, context, reach, tuple(merged), tuple(order))
    model.method.fit(model.stack, job.longest, job.widest)
    return job


def _fetch(genome: Genome, window: Window) -> UInt8[np.ndarray, " bases"]:
    codes = genome.fetch(window.region.chrom, window.region.start, window.region.end)
    return reverse_complement(codes) if window.strand == "-" else codes
