"""Settings of dependency maps, and the windows and substitutions that a map consists of (see compute.py)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from genoscan.dependency.dependency_map import Layout, check_symmetrise, layout_width
from genoscan.engine.edits import Edit
from genoscan.errors import InputError, UnsupportedModelError
from genoscan.genome.alphabet import N
from genoscan.genome.feature import Interval, merge_overlapping
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Window, as_read, read_windows, region_read
from genoscan.genome.region import Region
from genoscan.model import Model

DEFINITIONS = "log-odds", "jacobian", "derivative"

LARGEST = 100_000_000
"""Largest number of values of a map, which take 4 bytes each (8 in float64)."""

_PART = 32
"""Outputs of the substitutions that are stored at once, as a multiple of those of the window."""


@dataclass(frozen=True)
class MapOptions:
    """Settings that define a dependency map.

    Attributes
    ----------
    region
        Region whose bases are mutated and read.
    definition
        "log-odds", "jacobian" or "derivative".
    strand
        "+", "-" or "both". If None, both strands are read by causal models, and "+" by others.
    symmetrise
        "none", "mean" or "max".
    columns
        Region whose bases are read; if None, `region`.
    rows
        Regions within `region` whose bases are mutated; if there are none, all bases of `region`.
    band
        Maximum distance of a pair of bases; if None, all pairs are computed.
    context
        Number of bases to read upstream of the bases and, for bidirectional models, also downstream. If
        None, the value in the model's configuration is used.

    Raises
    ------
    InputError
        If `definition`, `strand`, `band` or `context` is invalid.
    """

    region: Region
    definition: str = "log-odds"
    strand: str | None = None
    symmetrise: str = "none"
    columns: Region | None = None
    rows: tuple[Region, ...] = ()
    band: int | None = None
    context: int | None = None

    def __post_init__(self) -> None:
        if self.definition not in DEFINITIONS:
            raise InputError(f"--map {self.definition}: expected {', '.join(DEFINITIONS[:-1])} or {DEFINITIONS[-1]}")
        if self.strand not in (None, "+", "-", "both"):
            raise InputError(f"--strand {self.strand}: expected +, - or both")
        if self.band is not None and self.band < 1:
            raise InputError(f"--band {self.band}: expected 1 base or more")
        if self.context is not None and self.context < 0:
            raise InputError(f"--context {self.context}: expected 0 bases or more")


class Reading(NamedTuple):
    """A window read on one strand, and some substitutions to compute.

    Attributes
    ----------
    window
        Window that the model reads.
    codes
        Base codes of the window, in the reading direction.
    edits
        Three substitutions of each mutated base.
    rows
        Row of the map to which each substitution belongs.
    """

    window: Window
    codes: UInt8[Tensor, " length"]
    edits: "Substitutions"
    rows: Int64[Tensor, " edits"]


class Substitutions(Sequence[Edit]):
    """Sequence of the three substitutions of each base, which are created when they are accessed."""

    def __init__(
        self, positions: Int64[np.ndarray, " bases"], observed: UInt8[np.ndarray, " bases"], ends: np.ndarray
    ) -> None:
        self._positions, self._observed, self.ends = positions, observed, ends

    def __len__(self) -> int:
        return 3 * len(self._positions)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        base, change = divmod(range(len(self))[number], 3)
        position = int(self._positions[base])
        code = (int(self._observed[base]) + 1 + change) % 4
        return Edit(position, position + 1, (code,), int(self.ends[base]))

    def outputs(self) -> Int64[np.ndarray, " bases"]:
        """Return the number of outputs from each base to its end, for all three substitutions."""
        return 3 * (self.ends - self._positions)

    def part(self, bases: slice) -> "Substitutions":
        """Return the substitutions of some of the bases."""
        return Substitutions(self._positions[bases], self._observed[bases], self.ends[bases])


@dataclass(frozen=True, eq=False)
class MapPlan:
    """A dependency map whose settings have been checked.

    Attributes
    ----------
    genome, model, options
        Inputs to the computation.
    layout
        Pairs of bases of which the map consists.
    readings
        Windows and substitutions: for each strand, those of consecutive rows of the map in parts that are stored
        when they are complete.
    context
        Number of context bases.
    """

    genome: Genome
    model: Model
    options: MapOptions
    layout: Layout
    readings: tuple[Reading, ...]
    context: int

    @property
    def substitutions(self) -> int:
        """Number of substitutions; each is a forward pass, or a direction of the derivative."""
        return sum(len(reading.edits) for reading in self.readings)

    @property
    def bases(self) -> int:
        """Number of outputs to compare: in a causal model, those after each substitution."""
        if self.model.bidirectional:
            return sum(len(reading.edits) * len(reading.codes) for reading in self.readings)
        return sum(int(reading.edits.outputs().sum()) for reading in self.readings)

    @property
    def strands(self) -> tuple[str, ...]:
        """Strands that are read."""
        return tuple(dict.fromkeys(reading.window.strand for reading in self.readings))


def prepare_map(genome: Genome, model: Model, options: MapOptions) -> MapPlan:
    """Check the settings of a dependency map, and plan its windows and substitutions.

    Parameters
    ----------
    genome, model
        Genome, and model that reads it.
    options
        Settings of the map.

    Returns
    -------
    MapPlan
        Plan, which `compute_map` carries out.

    Raises
    ------
    InputError
        If an option is invalid, the map is too large, or no base depends on another.
    UnsupportedModelError
        If the model has no language model.
    """
    if model.head:
        raise UnsupportedModelError(f"{model.name}: has no language model, which a dependency map requires")
    region, columns = options.region, options.columns or options.region
    if columns.chrom != region.chrom:
        raise InputError(f"{columns.where}: expected a part of {region.chrom}, where the mutated bases are")
    parts = _mutated(options)
    n_rows, width = sum(end - start for start, end in parts), layout_width(columns, options.band)
    if n_rows * width > LARGEST:
        fewer = "--band BASES, --columns or --rows" if options.band is None else "a smaller --band, or --rows"
        raise InputError(
            f"{region.where}: the map would have {n_rows:,} x {width:,} values, expected at most {LARGEST:,}; "
            f"give {fewer}"
        )
    layout = Layout(np.concatenate([np.arange(*part) for part in parts]), columns, options.band)
    check_symmetrise(layout, options.symmetrise)
    context = model.config.context if options.context is None else options.context
    both = options.strand == "both" or (options.strand is None and not model.bidirectional)
    strands = ("+", "-") if both else (options.strand or "+",)
    readings = tuple(
        part
        for strand in strands
        for part in _parts(_reading(genome, model, layout, region, context, strand), bidirectional=model.bidirectional)
    )
    known = genome.fetch(region.chrom, region.start, region.end)[layout.rows - region.start] < N
    if known.any() and not any(len(reading.edits) for reading in readings):
        raise InputError(
            f"{region.where}: no read base can depend on a mutated one; expected at least two bases, of which, on "
            f"strand {strands[0]} of a causal model, the read one comes later"
        )
    return MapPlan(genome, model, options, layout, readings, context)


def _mutated(options: MapOptions) -> tuple[Interval, ...]:
    """Return the disjoint intervals of the mutated bases, in ascending order."""
    region = options.region
    for part in options.rows:
        if part.chrom != region.chrom or part.start < region.start or part.end > region.end:
            raise InputError(f"{part.where}: expected bases of {region}, the region of the map")
    return merge_overlapping((part.start, part.end) for part in options.rows or (region,))


def _reading(genome: Genome, model: Model, layout: Layout, region: Region, context: int, strand: str) -> Reading:
    """Return the window that the model reads on a strand, and the substitutions with a base to be read."""
    size, columns = genome.sizes[region.chrom], layout.columns
    first, last = int(layout.rows[0]), int(layout.rows[-1])
    pairs = Region(region.chrom, min(first, columns.start), max(last + 1, columns.end))
    span = as_read(pairs, strand, size)
    read = model.method.extent(span, span, before=context, after=context)
    window = Window(region_read(region.chrom, read, strand, size), (pairs,), strand)
    codes = read_windows(genome, [window])[0]
    at = window.region.end - 1 - layout.rows if strand == "-" else layout.rows - window.region.start
    order = np.argsort(at)
    at, labels = at[order], window.span_of(columns)
    last_label = np.full(len(at), labels.stop) if layout.band is None else np.minimum(labels.stop, at + layout.band + 1)
    first_label = labels.start if layout.band is None else np.maximum(labels.start, at - layout.band)
    if not model.bidirectional:
        first_label = np.maximum(first_label, at + model.label_offset)
    some = (codes[at] < N) & (last_label > first_label)
    at, order, ends = at[some], order[some], (last_label - model.label_offset)[some]
    if model.bidirectional:
        ends = np.full(len(at), len(codes))  # read as a whole
    return Reading(
        window, torch.from_numpy(codes), Substitutions(at, codes[at], ends), torch.from_numpy(np.repeat(order, 3))
    )


def _parts(reading: Reading, *, bidirectional: bool) -> Iterator[Reading]:
    """Divide the substitutions of a reading, in order, so that each part but the last has enough outputs."""
    bases = reading.edits.ends.size
    outputs = np.full(bases, 3 * len(reading.codes)) if bidirectional else reading.edits.outputs()
    number = np.cumsum(outputs) // (_PART * len(reading.codes))
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), bases]
    for start, stop in pairwise(edges):
        edits, rows = reading.edits.part(slice(start, stop)), reading.rows[3 * start : 3 * stop]
        yield reading._replace(edits=edits, rows=rows)
