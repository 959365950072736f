"""Stretches: parts of a sequence that are read at once for all changes whose windows overlap."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from genoscan.engine.edits import Edit
from genoscan.genome.alphabet import encode, reverse_complement
from genoscan.genome.genome import Genome
from genoscan.genome.plan import as_read, region_read
from genoscan.genome.region import Region
from genoscan.genome.variant import Change
from genoscan.label_target import LabelTarget
from genoscan.model import Model
from genoscan.targets import TargetSpec


@dataclass(frozen=True)
class Stretch:
    """Part of a sequence that is read on one strand for several changes.

    Attributes
    ----------
    region
        Bases that are read, in forward-strand coordinates.
    strand
        "+" or "-".
    changes
        Indices of the changes.
    edits
        Edit of each change, in positions of the stretch in its reading direction.
    """

    region: Region
    strand: str
    changes: tuple[int, ...]
    edits: tuple[Edit, ...]

    def codes(self, genome: Genome) -> np.ndarray:
        """Return the base codes in the reading direction."""
        codes = genome.fetch(self.region.chrom, self.region.start, self.region.end)
        return reverse_complement(codes) if self.strand == "-" else codes

    def position(self, at: float) -> float:
        """Return the 0-based position in the genome of a position in the stretch."""
        return self.region.start + at if self.strand == "+" else self.region.end - 1 - at


def plan_stretches(
    genome: Genome,
    model: Model,
    target: TargetSpec | LabelTarget,
    changes: Sequence[Change],
    numbers: Iterable[int],
    strand: str,
    context: int,
    reach: int,
    shared_end: bool,
) -> list[Stretch]:
    """Return the stretches of some changes on one strand.

    Parameters
    ----------
    genome, model, target
        Genome, model with the head of the target selected, and target.
    changes, numbers
        Changes, and the indices of those to plan.
    strand
        "+" or "-".
    context, reach
        Number of bases read upstream and downstream of a change.
    shared_end
        Whether the windows of all changes in a stretch extend to its end.

    Returns
    -------
    list of Stretch
        Stretches in genome order.
    """
    windows = []
    for number in numbers:
        change = changes[number]
        size = genome.sizes[change.chrom]
        span = slice(change.start, change.stop)
        span = span if strand == "+" else slice(size - span.stop, size - span.start)
        outputs = None
        if target.region is not None:
            labels = as_read(target.region, strand, size)
            outputs = slice(labels.start - model.label_offset, labels.stop)
        read = model.method.extent(span, outputs, before=context, after=reach)
        windows.append(_Window(change.chrom, max(0, read.start), min(size, read.stop), span, number))
    order = {chrom: i for i, chrom in enumerate(genome.sizes)}
    merged: list[list[_Window]] = []
    chrom, stop = "", 0
    for window in sorted(windows, key=lambda window: (order[window.chrom], window.start, window.number)):
        if window.chrom == chrom and window.start < stop:
            merged[-1].append(window)
            stop = max(stop, window.stop)
        else:
            merged.append([window])
            chrom, stop = window.chrom, window.stop
    stretches = []
    for part in merged:
        chrom, start, stop = part[0].chrom, part[0].start, max(window.stop for window in part)
        if shared_end:
            part = [window._replace(start=start, stop=stop) for window in part]
        edits = tuple(_edit(changes[window.number], window, strand, start) for window in part)
        region = region_read(chrom, slice(start, stop), strand, genome.sizes[chrom])
        stretches.append(Stretch(region, strand, tuple(window.number for window in part), edits))
    return stretches


class _Window(NamedTuple):
    """Part of a sequence, in its reading direction, that is read for the change with the given number at `span`."""

    chrom: str
    start: int
    stop: int
    span: slice
    number: int


def _edit(change: Change, window: _Window, strand: str, start: int) -> Edit:
    """Return a change as an edit of a stretch that begins at `start`."""
    codes = encode(change.alt.encode(), record=change.chrom, offset=change.start)
    codes = reverse_complement(codes) if strand == "-" else codes
    first, last, begin, end = (at - start for at in (window.span.start, window.span.stop, window.start, window.stop))
    return Edit(first, last, tuple(codes.tolist()), end, begin)
