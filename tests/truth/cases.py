"""Drawn jobs: a chromosome, regions, a target and options, valid together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from truth.windows import BASES, UNCERTAIN, Region, encode, merged, parse

CHROM = "chr1"
TARGETS = ("log-likelihood", "log-likelihood of a region", "logit", "log-odds")


@dataclass(frozen=True)
class Case:
    letters: str
    regions: tuple[Region, ...]
    target: str
    strand: str
    context: int
    reach: int
    masked: bool = False
    score: str = "centred"
    tile: int = 16
    slots: int = 64
    batch: int = 4
    threads: int = 1

    @property
    def codes(self) -> np.ndarray:
        return encode(self.letters)

    @property
    def merged(self) -> list[Region]:
        return merged(self.regions)

    def strands(self, region: Region) -> tuple[str, ...]:
        if self.strand == "bed":
            return ("-" if region.strand == "-" else "+",)
        return ("+", "-") if self.strand == "both" else (self.strand,)


def letters(random: np.random.Generator, length: int, regions: Sequence[Region]) -> str:
    """Return bases in both cases of letters, with N here and there: at edges, in runs, all over."""
    bases = random.choice(list(BASES), length)
    holes = np.zeros(length, bool)
    for how in random.choice(6, random.integers(0, 4), replace=False):
        region = regions[random.integers(len(regions))]
        if how == 0:  # a region's first and last base
            holes[[region.start, region.end - 1]] = True
        elif how == 1:  # either side of it
            holes[max(region.start - 1, 0)] = holes[min(region.end, length - 1)] = True
        elif how == 2:  # the chromosome's ends, and with them some windows'
            holes[: random.integers(1, 9)] = holes[-random.integers(1, 9) :] = True
        elif how == 3:  # a run, longer than a convolution
            start = random.integers(length)
            holes[start : start + 12] = True
        elif how == 4:  # here and there
            holes |= random.random(length) < 0.06
        elif random.random() < 0.4:  # all of a region
            holes[region.start : region.end] = True
    uncertain = np.where(random.random(length) < 0.6, "N", random.choice(list(UNCERTAIN), length))
    bases = np.where(holes, uncertain, bases)
    soft = np.repeat(random.random(length // 7 + 1) < 0.4, 7)[:length]
    return "".join(np.where(soft, np.char.lower(bases), bases))


def draw(
    seed: int, *, kind: str, offset: int, masked: bool = False, length: int | None = None, strand: str | None = None
) -> Case:
    """Return a case of this kind of target that makes sense to a model of this label offset."""
    random = np.random.default_rng(seed)
    for _ in range(10_000):
        case = _drawn(random, kind, masked, length or int(random.integers(40, 90)), strand)
        if sensible(case, offset):
            return case
    raise AssertionError("no case of that kind makes sense")


def sensible(case: Case, offset: int) -> bool:
    """Whether every region has a base that the target can depend on, and something predicts it."""
    where = parse(case.target).where
    return where is None or all(
        _matters(region, strand, where, offset, len(case.letters))
        for region in case.merged
        for strand in case.strands(region)
    )


def _matters(region: Region, strand: str, where: Region, offset: int, size: int) -> bool:
    if not offset:
        return True
    if strand == "+":
        return where.end > offset and region.start < where.end - offset
    return size - where.start > offset and region.end > where.start + offset


def _drawn(random: np.random.Generator, kind: str, masked: bool, length: int, strand: str | None) -> Case:
    regions = _regions(random, length)
    strand = strand or str(random.choice(["+", "-", "both", "bed"]))
    sizes = [0, 1, 2, 9, 30, 1000]
    return Case(
        letters=letters(random, length, regions),
        regions=regions,
        target=_target(random, kind, length),
        strand=strand,
        context=int(random.choice(sizes)),
        reach=int(random.choice(sizes)),
        masked=masked,
        score=str(random.choice(["centred", "observed", "magnitude", "substitution"])),
        tile=int(random.choice([5, 16, 25, 50, 1024])),
        slots=int(random.choice([1, 2, 64])),
        batch=int(random.choice([1, 2, 4])),
        threads=int(random.choice([1, 1, 2])),
    )


def _regions(random: np.random.Generator, length: int) -> tuple[Region, ...]:
    """Return one to three regions: far apart, touching or overlapping, of a strand each.

    The first has some length: single bases may have derivatives that are small differences.
    """
    n = int(random.integers(1, 4)) if length > 20 else 1
    size = int(random.choice([11, 25, length]))
    made: list[Region] = []
    for i in range(n):
        own = size if i == 0 or random.random() < 0.5 else int(random.integers(1, 20))
        own = min(own, length)
        start = int(random.integers(0, length - own + 1))
        if made and random.random() < 0.3 and made[-1].end + own <= length:
            start = made[-1].end
        made.append(Region(CHROM, start, start + own, str(random.choice(["+", "-", "."]))))
    if len(merged(made)) < n:  # rows of one strand merge, rows of different strands are refused
        made = [region._replace(strand=made[0].strand) for region in made]
    return tuple(made)


def _target(random: np.random.Generator, kind: str, length: int) -> str:
    if kind == "log-likelihood":
        return kind
    if kind == "log-likelihood of a region":
        start = int(random.integers(0, length))
        end = min(start + int(random.choice([1, 2, 10])), length)
        return f"log-likelihood:{CHROM}:{start + 1}-{end}"
    return f"{kind}:{CHROM}:{random.integers(length) + 1}:{random.choice(list(BASES))}"
