"""Regions to windows: what the model reads for each region, and in which batches.

A window is a region and its surroundings: `context` bases before it and `reach` bases past it in
reading direction, as far as the chromosome goes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from genoscan.errors import InputError
from genoscan.genome.region import Region, unknown_sequence


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch that the model reads for one region, and the direction in which it does.

    Both regions are in forward coordinates; `strand` is "+" or "-".
    """

    region: Region
    scored: Region
    strand: str

    def __len__(self) -> int:
        return len(self.region)

    @property
    def scored_span(self) -> slice:
        """Where the scored part lies in the window as it is read."""
        return self.span_of(self.scored)

    def span_of(self, part: Region) -> slice:
        """Return where a part of the window lies in it, counted in reading direction."""
        if self.strand == "-":
            return slice(self.region.end - part.end, self.region.end - part.start)
        return slice(part.start - self.region.start, part.end - self.region.start)


def whole_genome(sizes: Mapping[str, int]) -> list[Region]:
    """Return every sequence that has bases as one region, in the genome's order."""
    return [Region(chrom, 0, size) for chrom, size in sizes.items() if size > 0]


def merge(regions: Iterable[Region], sizes: Mapping[str, int], *, by_strand: bool) -> list[Region]:
    """Return the regions in the genome's order, overlapping ones made one.

    Touching regions stay apart. The names of merged regions are joined by commas. With
    `by_strand`, "." is "+"; without, the strand does not matter.

    Raises
    ------
    InputError
        If regions of different strands overlap and `by_strand` is asked for.
    """
    merged: list[Region] = []
    group: list[Region] = []
    last: Region | None = None  # the one of the group that ends last
    for region in _in_genome_order(regions, sizes):
        if last is not None and region.chrom == last.chrom and region.start < last.end:
            if by_strand and _direction(region) != _direction(last):
                raise InputError(
                    f"{region.where}: on strand {region.strand}, overlaps {last.where} on strand "
                    f"{last.strand}, expected one strand a base; give --strand +, - or both"
                )
            group.append(region)
            last = region if region.end > last.end else last
            continue
        if group:
            merged.append(_union(group))
        group, last = [region], region
    if group:
        merged.append(_union(group))
    return merged


def plan(
    regions: Iterable[Region],
    sizes: Mapping[str, int],
    *,
    context: int,
    reach: int,
    strand: str,
    target: Region | None = None,
    label_offset: int = 0,
    bidirectional: bool = False,
) -> list[Window]:
    """Return the windows of the regions, in their order.

    Parameters
    ----------
    regions
        What is scored, in genome order.
    sizes
        Length of every sequence, in bases.
    context, reach
        Bases read before and past a region, in reading direction.
    strand
        Reading direction: "+", "-", "both" (two windows a region, "+" first) or "bed" (each
        region's own; "." is "+").
    target
        The stretch that a positional target reads; None for each window's own. Every window is
        extended to contain it.
    label_offset
        The model's: how far before a base lies the output that predicts it.
    bidirectional
        Whether the model's outputs depend on bases on both sides. A causal model needs nothing
        past `target`, so that its windows end there or with the region; a bidirectional one needs
        context on both sides of `target` as it does of the region.

    Raises
    ------
    InputError
        If a length is negative, or `target` cannot depend on a region: it lies on another
        chromosome or, in a causal model, before all that the region's bases can change.
    """
    for option, length in (("--context", context), ("--reach", reach)):
        if length < 0:
            raise InputError(f"{option} {length}: expected 0 bases or more")
    if strand not in ("+", "-", "both", "bed"):
        raise InputError(f"--strand {strand}: expected +, -, both or bed")
    windows = []
    for scored in regions:
        for direction in _directions(scored, strand):
            if target is not None:
                _check_target(scored, direction, target, label_offset, bidirectional)
            past = 0 if target is not None and not bidirectional else reach
            before, after = (context, past) if direction == "+" else (past, context)
            start, end = scored.start - before, scored.end + after
            if target is not None:
                first, last = (label_offset, 0) if direction == "+" else (0, label_offset)
                if bidirectional:
                    first, last = first + before, last + after
                start, end = min(start, target.start - first), max(end, target.end + last)
            region = Region(
                scored.chrom,
                max(start, 0),
                min(end, sizes[scored.chrom]),
                name=scored.name,
                strand=scored.strand,
                source=scored.source,
            )
            windows.append(Window(region, scored, direction))
    return windows


StrandWindows = tuple[Window, ...]
"""The windows of one region: one, or with strand "both" one for each direction."""

Batch = tuple[StrandWindows, ...]
"""Regions whose windows have equal lengths and are computed together."""


def by_region(windows: Sequence[Window], strand: str) -> list[StrandWindows]:
    """Group the windows of `plan` by region."""
    step = 2 if strand == "both" else 1
    return [tuple(windows[i : i + step]) for i in range(0, len(windows), step)]


def batches(regions: Sequence[StrandWindows], size: int) -> list[Batch]:
    """Return the regions' windows in batches of equal window lengths and at most `size` regions.

    Batches come in the order of their first regions. They depend on nothing but the arguments: a
    resumed or shared run meets the same batches.

    Raises
    ------
    InputError
        If `size` is not positive.
    """
    if size < 1:
        raise InputError(f"--batch {size}: expected 1 window or more")
    done: list[list[StrandWindows]] = []
    growing: dict[tuple[int, ...], list[StrandWindows]] = {}
    for windows in regions:
        lengths = tuple(len(window) for window in windows)
        batch = growing.get(lengths)
        if batch is None or len(batch) == size:
            batch = growing[lengths] = []
            done.append(batch)
        batch.append(windows)
    return [tuple(batch) for batch in done]


def _in_genome_order(regions: Iterable[Region], sizes: Mapping[str, int]) -> list[Region]:
    rank = {chrom: i for i, chrom in enumerate(sizes)}
    regions = list(regions)
    for region in regions:
        if region.chrom not in rank:
            raise InputError(f"{region.where}: {unknown_sequence(region.chrom, sizes)}")
    return sorted(regions, key=lambda region: (rank[region.chrom], region.start, region.end))


def _union(group: list[Region]) -> Region:
    first = group[0]
    if len(group) == 1:
        return first
    strands = {region.strand for region in group}
    if strands == {"+", "."}:
        strands = {"+"}
    return replace(
        first,
        end=max(region.end for region in group),
        name=",".join(dict.fromkeys(region.name for region in group if region.name)),
        strand=strands.pop() if len(strands) == 1 else ".",
        source=f"{first.where} and {len(group) - 1:,} more",
        clipped=any(region.clipped for region in group),
    )


def _direction(region: Region) -> str:
    return "-" if region.strand == "-" else "+"


def _directions(region: Region, strand: str) -> tuple[str, ...]:
    if strand == "both":
        return "+", "-"
    return (_direction(region),) if strand == "bed" else (strand,)


def _check_target(
    scored: Region, direction: str, target: Region, label_offset: int, bidirectional: bool
) -> None:
    if target.chrom != scored.chrom:
        raise InputError(
            f"{scored.where}: the target lies at {target}, expected it on {scored.chrom}; "
            f"choose regions on the target's chromosome"
        )
    if bidirectional:
        return
    # A base affects the outputs from its own position on.
    if direction == "+":
        is_after = scored.start >= target.end - label_offset
    else:
        is_after = scored.end <= target.start + label_offset
    if is_after:
        raise InputError(
            f"{scored.where}: lies wholly after the target at {target} as strand {direction} is "
            f"read, where no base can matter to it; choose regions before the target"
        )
