"""Planning of windows, which are the intervals that the model reads, and of batches of windows.

A window contains a region to score, `context` bases upstream of the region and `reach` bases downstream of
the region. Upstream and downstream refer to the reading direction. Windows are clipped at the ends of the
chromosome. Windows that overlap can be joined to a single one, which contains several regions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region, check_bounds


@dataclass(frozen=True, slots=True)
class Window:
    """Interval that the model reads to score one or more regions, and the strand on which it is read.

    Attributes
    ----------
    region
        Interval that the model reads, in forward-strand coordinates.
    regions
        Scored parts of `region`, in forward-strand coordinates and in ascending order.
    strand
        "+" if `region` is read on the forward strand; "-" if its reverse complement is read.
    """

    region: Region
    regions: tuple[Region, ...]
    strand: str

    def __len__(self) -> int:
        return len(self.region)

    @property
    def scored(self) -> Region:
        """Interval from the first to the last scored base."""
        first, last = self.regions[0], self.regions[-1]
        return first if len(self.regions) == 1 else Region(first.chrom, first.start, last.end)

    @property
    def scored_span(self) -> slice:
        """Positions from the first to the last scored base in the window, counted in the reading direction."""
        return self.span_of(self.scored)

    def span_of(self, part: Region) -> slice:
        """Return the positions of a part of the window, counted in the reading direction.

        Parameters
        ----------
        part
            Part of `region`, in forward-strand coordinates.

        Returns
        -------
        slice
            Positions in the window. Position 0 is the first base that the model reads.
        """
        if self.strand == "-":
            return slice(self.region.end - part.end, self.region.end - part.start)
        return slice(part.start - self.region.start, part.end - self.region.start)


def whole_genome(sizes: Mapping[str, int]) -> list[Region]:
    """Return one region for each non-empty sequence, in the order of the genome.

    Parameters
    ----------
    sizes
        Length of each sequence, in bases.

    Returns
    -------
    list of Region
        Regions that cover whole sequences.
    """
    return [Region(chrom, 0, size) for chrom, size in sizes.items() if size > 0]


def merge(regions: Iterable[Region], sizes: Mapping[str, int], *, by_strand: bool) -> list[Region]:
    """Merge overlapping regions.

    Parameters
    ----------
    regions
        Regions in any order.
    sizes
        Length of each sequence, in bases.
    by_strand
        If True, require overlapping regions to be on the same strand, where "." is treated as "+". If
        False, ignore the strands.

    Returns
    -------
    list of Region
        Merged regions, in the order of the genome. Adjacent regions that do not overlap remain separate.
        The names of merged regions are joined with commas.

    Raises
    ------
    InputError
        If a sequence is unknown, if a region extends past its end, or if `by_strand` is True and regions on
        different strands overlap.
    """
    merged: list[Region] = []
    group: list[Region] = []
    last: Region | None = None  # region with the largest end in the group
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


@runtime_checkable
class ContextRule(Protocol):
    """Protocol for a rule that determines which outputs of a model depend on which inputs.

    Each method of differentiation has a separate rule. Positions are counted in the reading direction.
    """

    def affected(self, span: slice, reach: int) -> slice:
        """Return the positions of the outputs that depend on the inputs at the positions in `span`.

        Outputs more than `reach` positions away from `span` are ignored.
        """
        ...

    def extent(self, span: slice, outputs: slice | None, *, before: int, after: int) -> slice:
        """Return the positions of the window needed to differentiate outputs with respect to the inputs in `span`.

        `outputs` contains the positions of these outputs; None stands for all outputs of the window.
        `before` and `after` are the numbers of context positions before and after the span. The result may
        extend beyond the ends of the sequence.
        """
        ...


def plan(
    regions: Iterable[Region],
    sizes: Mapping[str, int],
    rule: ContextRule,
    *,
    context: int,
    reach: int,
    strand: str,
    target: Region | None = None,
    label_offset: int = 0,
) -> list[Window]:
    """Plan the windows that the model reads to score regions.

    Parameters
    ----------
    regions
        Regions to score, in the order of the genome.
    sizes
        Length of each sequence, in bases.
    rule
        Rule that determines which outputs of the model depend on which inputs.
    context, reach
        Number of bases to read upstream of each region, and number of bases to read downstream of it.
        Upstream and downstream refer to the reading direction.
    strand
        Strand to read: "+", "-", "both" (two windows per region, "+" first) or "bed" (the strand of each
        region, where "." is treated as "+").
    target
        Region of a target at a fixed position in the genome. Every window then extends to this region. If
        None, each window has its own target.
    label_offset
        Distance in bases from an output of the model to the base that it predicts: 1 for causal models, 0
        for masked models.

    Returns
    -------
    list of Window
        One window per region, or two windows per region if `strand` is "both". The windows are in the order
        of the regions.

    Raises
    ------
    InputError
        If a region is not inside its sequence, `context` or `reach` is negative, `strand` has an invalid value,
        or `target` cannot depend on a region. A target cannot depend on a region on another chromosome or, if
        the model is causal, on a region that is downstream of the target.
    """
    for option, length in (("--context", context), ("--reach", reach)):
        if length < 0:
            raise InputError(f"{option} {length}: expected 0 bases or more")
    if strand not in ("+", "-", "both", "bed"):
        raise InputError(f"--strand {strand}: expected +, -, both or bed")
    windows = []
    for scored in regions:
        check_bounds(scored, sizes, clip=False)
        size = sizes[scored.chrom]
        for direction in _directions(scored, strand):
            span, outputs = as_read(scored, direction, size), None
            if target is not None:
                _check_target(scored, direction, size, target, rule, label_offset)
                labels = as_read(target, direction, size)
                outputs = slice(labels.start - label_offset, labels.stop)
            read = rule.extent(span, outputs, before=context, after=reach)
            region = replace(
                region_read(scored.chrom, read, direction, size),
                name=scored.name,
                strand=scored.strand,
                source=scored.source,
            )
            windows.append(Window(region, (scored,), direction))
    return windows


def as_read(region: Region, direction: str, size: int) -> slice:
    """Return the positions of a region on its chromosome, counted in the reading direction.

    If `direction` is "-", positions are counted from the end of the chromosome, whose length is `size`
    bases.
    """
    if direction == "+":
        return slice(region.start, region.end)
    return slice(size - region.end, size - region.start)


def region_read(chrom: str, span: slice, direction: str, size: int) -> Region:
    """Return the region at given positions of a chromosome, clipped to the chromosome.

    The positions in `span` are counted in the reading direction. If `direction` is "-", they are counted
    from the end of the chromosome, whose length is `size` bases.
    """
    start, end = max(span.start, 0), min(span.stop, size)
    return Region(chrom, *((start, end) if direction == "+" else (size - end, size - start)))


def read_windows(genome: Genome, windows: Sequence[Window]) -> UInt8[np.ndarray, "windows length"]:
    """Read the base codes of windows of equal length, in the reading direction of each window.

    Parameters
    ----------
    genome
        Genome that contains the windows.
    windows
        Windows of equal length.

    Returns
    -------
    array of shape (windows, length), uint8
        Base codes: 0 for A, 1 for C, 2 for G, 3 for T, and 4 for all other bases.
    """
    rows = []
    for window in windows:
        codes = genome.fetch(window.region.chrom, window.region.start, window.region.end)
        rows.append(reverse_complement(codes) if window.strand == "-" else codes)
    return rows[0][None] if len(rows) == 1 else np.stack(rows)  # a single window is not copied


StrandWindows = tuple[Window, ...]
"""Windows of the same regions: a single window or, if both strands are read, one window per strand."""

Batch = tuple[StrandWindows, ...]
"""Windows of several regions that are computed together, because their lengths are equal."""


def by_region(windows: Sequence[Window], strand: str) -> list[StrandWindows]:
    """Group windows by region.

    Parameters
    ----------
    windows
        Windows returned by `plan`.
    strand
        Strand that was passed to `plan`.

    Returns
    -------
    list of StrandWindows
        Windows of each region, in the original order.
    """
    step = 2 if strand == "both" else 1
    return [tuple(windows[i : i + step]) for i in range(0, len(windows), step)]


def join_windows(regions: Sequence[StrandWindows]) -> list[StrandWindows]:
    """Join the windows of consecutive regions that overlap or touch, so that no base is read twice.

    Parameters
    ----------
    regions
        Windows of each region, as returned by `by_region`, in the order of the genome.

    Returns
    -------
    list of StrandWindows
        Windows that contain one or more regions, in the same order. Windows on different strands are not joined.
    """
    joined: list[list[StrandWindows]] = []
    for windows in regions:
        if joined and all(map(_touch, joined[-1][-1], windows)):
            joined[-1].append(windows)
        else:
            joined.append([windows])
    return [tuple(map(_join, zip(*group, strict=True))) for group in joined]


def _touch(one: Window, other: Window) -> bool:
    a, b = one.region, other.region
    return one.strand == other.strand and a.chrom == b.chrom and max(a.start, b.start) <= min(a.end, b.end)


def _join(windows: Sequence[Window]) -> Window:
    if len(windows) == 1:
        return windows[0]
    start, end = min(window.region.start for window in windows), max(window.region.end for window in windows)
    regions = tuple(region for window in windows for region in window.regions)
    return Window(Region(windows[0].region.chrom, start, end), regions, windows[0].strand)


def batches(regions: Sequence[StrandWindows], size: int) -> list[Batch]:
    """Group windows with equal lengths into batches.

    Parameters
    ----------
    regions
        Windows, as returned by `by_region` or `join_windows`.
    size
        Maximum number of windows of a strand per batch.

    Returns
    -------
    list of Batch
        Batches, in the order of their first regions. The batches depend only on the arguments, so that
        resumed and sharded runs use the same batches as an uninterrupted run.

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
    checked = [check_bounds(region, sizes, clip=False) for region in regions]
    return sorted(checked, key=lambda region: (rank[region.chrom], region.start, region.end))


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
    scored: Region, direction: str, size: int, target: Region, rule: ContextRule, label_offset: int
) -> None:
    if target.chrom != scored.chrom:
        raise InputError(
            f"{scored.where}: the target lies at {target}, expected it on {scored.chrom}; "
            f"choose regions on the target's chromosome"
        )
    affected = rule.affected(as_read(scored, direction, size), size)
    if affected.start >= as_read(target, direction, size).stop - label_offset:
        raise InputError(
            f"{scored.where}: lies wholly after the target at {target} as strand {direction} is "
            f"read, where no base can matter to it; choose regions before the target"
        )
