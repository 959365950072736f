"""A job: what is to be computed, decided and checked before the first tile runs."""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from genoscan import __version__
from genoscan.engine.checkpoints import advances
from genoscan.engine.engine import Engine
from genoscan.errors import InputError
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Batch, Window, batches, by_region, merge, plan, whole_genome
from genoscan.genome.region import Region
from genoscan.layer import TwoWayChain
from genoscan.layers.weights import Model
from genoscan.targets import Question, parse_target
from genoscan.tracks.score import SCORES
from genoscan.usage import memory_limit


@dataclass(frozen=True)
class Options:
    """How to compute; defaults are those of the command line.

    context, reach  bases read before and past a region; None: the model's own
    tile            bases of a window that are processed at once
    slots           carries remembered
    batch           windows of one length that are read side by side
    masked          whether the target's own bases are hidden
    memory, spill   of a bidirectional model: the bytes that activations between layers may take
                    (None: half of what this process may), or the folder that stores them instead
    """

    target: str = "log-likelihood"
    score: str = "centred"
    strand: str = "+"
    context: int | None = None
    reach: int | None = None
    tile: int = 1024
    slots: int = 64
    batch: int = 4
    masked: bool = False
    memory: int | None = None
    spill: Path | None = None
    shard: str | None = None

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise InputError(f"--score {self.score}: expected one of {', '.join(SCORES)}")
        for name in ("tile", "slots", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: expected at least 1")
        if self.spill is not None and not self.spill.is_dir():
            raise InputError(f"--spill {self.spill}: expected a folder that exists")


@dataclass(frozen=True)
class Job:
    """Regions of a genome, a model, a question, and the order of work.

    regions  merged, in genome order
    batches  windows of equal lengths, side by side
    """

    genome: Genome
    model: Model
    question: Question
    options: Options
    context: int
    reach: int
    regions: tuple[Region, ...]
    batches: tuple[Batch, ...]

    @property
    def engine(self) -> Engine:
        """What sweeps a window; what lies between layers stays on a GPU that has room for it.

        Raises
        ------
        InputError
            If its memory does not hold what two layers need.
        """
        options = self.options
        engine = Engine(tile=options.tile, slots=options.slots)
        if options.spill is not None:
            return replace(engine, place=options.spill)
        longest = max((len(r[0]) for batch in self.batches for r in batch), default=0)
        width = max((len(batch) for batch in self.batches), default=0)
        stack, device = self.model.stack, self.model.device
        if device.type == "cuda" and options.memory is None:
            # All of it and not what is free, which changes while a job runs.
            room = torch.cuda.get_device_properties(device).total_memory // 2
            if engine.boundary_bytes(stack, longest, width) <= room:
                return replace(engine, place=device)
        memory = memory_limit() // 2 if options.memory is None else options.memory
        return engine.within(memory, stack, longest, width)

    def work(self) -> int:
        """Return how many positions of windows will be run through the model, forward or back."""
        stack, engine, total = self.model.stack, self.engine, 0
        for batch in self.batches:
            for windows in zip(*batch, strict=True):
                length = len(windows[0])
                passes = 1 + engine.again(stack, length)
                if isinstance(stack, TwoWayChain):
                    n_layers = len(stack.two_way)
                    run = advances(n_layers, engine.boundaries or n_layers) + 1
                    passes = 2 * (n_layers * passes + run)
                total += len(windows) * round(length * passes)
        return total

    def read(self, windows: Sequence[Window]) -> UInt8[Tensor, "windows length"]:
        """Fetch windows of one length as they are read, 1 byte a base."""
        if len(windows) == 1:
            return torch.from_numpy(_fetch(self.genome, windows[0])[None])
        return torch.from_numpy(np.stack([_fetch(self.genome, window) for window in windows]))

    def sequences(self) -> Iterator[dict[str, Any]]:
        """Yield name, length and M5 of every sequence that is read."""
        for chrom in dict.fromkeys(region.chrom for region in self.regions):
            yield {
                "name": chrom,
                "length": self.genome.sizes[chrom],
                "m5": self.genome.m5(chrom),
            }

    def settings(self) -> dict[str, Any]:
        """Return all that decides the result, bit by bit: a resumed run must have the same."""
        windows = hashlib.sha256()
        for batch in self.batches:
            for strand_windows in batch:
                for window in strand_windows:
                    windows.update(f"{window.region}{window.scored}{window.strand};".encode())
        return {
            "version": __version__,
            "model": self.model.name,
            "model_sha256": self.model.sha256,
            "weights": self.model.weights_sha256,
            "sequences": list(self.sequences()),
            "windows": windows.hexdigest(),
            "target": self.options.target,
            "masked": self.options.masked,
            "score": self.options.score,
            "strand": self.options.strand,
            "shard": self.options.shard,
            "context": self.context,
            "reach": self.reach,
            "tile": self.options.tile,
            "batch": self.options.batch,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "threads": torch.get_num_threads(),
        }


def prepare(genome: Genome, model: Model, regions: Sequence[Region], options: Options) -> Job:
    """Merge the regions and plan their windows; no regions means every sequence.

    Raises
    ------
    InputError
        If an option has no sense, or the target cannot depend on a region.
    """
    question = parse_target(options.target, genome.sizes)
    if options.masked:
        question.check_masked(model)
    context = model.config.context if options.context is None else options.context
    reach = model.config.reach if options.reach is None else options.reach
    if question.region is not None and not model.bidirectional:
        reach = 0  # outputs of a causal model depend on nothing past them
    merged = merge(
        regions or whole_genome(genome.sizes), genome.sizes, by_strand=options.strand == "bed"
    )
    question.check(merged, genome.sizes, options.strand, model.config.label_offset)
    windows = plan(
        merged,
        genome.sizes,
        context=context,
        reach=reach,
        strand=options.strand,
        target=question.region,
        label_offset=model.config.label_offset,
        bidirectional=model.bidirectional,
    )
    order = batches(by_region(windows, options.strand), options.batch)
    if options.shard is not None:
        order = _shard(order, options.shard)
        scored = {windows[0].scored for batch in order for windows in batch}
        merged = [region for region in merged if region in scored]
    return Job(genome, model, question, options, context, reach, tuple(merged), tuple(order))


def parse_shard(text: str) -> tuple[int, int]:
    """Return which shard of how many "2/7" names.

    Raises
    ------
    InputError
        If it names none.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {text}: expected I/N, such as 2/7: the second of seven")
    return int(found[1]), int(found[2])


def _shard(order: Sequence[Batch], shard: str) -> list[Batch]:
    """Return some of the batches, whole ones, which are what they are in one run."""
    i, n = parse_shard(shard)
    if n > len(order):
        raise InputError(
            f"--shard {shard}: there are {len(order):,} batches, which make as many shards at most"
        )
    return list(order[cut(order, n)[i - 1]])


def cut(order: Sequence[Batch], n: int) -> list[slice]:
    """Return n runs of batches, none of them empty, of about as many bases as can be."""
    bases = [sum(len(window) for windows in batch for window in windows) for batch in order]
    middles = [end - own / 2 for own, end in zip(bases, accumulate(bases), strict=True)]
    total, edges = sum(bases), [0]
    for i in range(1, n + 1):
        near = bisect_right(middles, total * i / n)
        edges.append(min(max(near, edges[-1] + 1), len(order) - (n - i)))
    return [slice(*edge) for edge in pairwise(edges)]


def _fetch(genome: Genome, window: Window) -> UInt8[np.ndarray, " bases"]:
    codes = genome.fetch(window.region.chrom, window.region.start, window.region.end)
    return reverse_complement(codes) if window.strand == "-" else codes
