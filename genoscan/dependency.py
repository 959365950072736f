"""Nucleotide dependency maps: how a substitution of each base changes the predictions at each other base.

log-odds     largest |change of log2 p/(1 - p)| over the substitutions of base i and the bases at j
jacobian     largest |change of log p| over the same, with p normalised over A, C, G and T
derivative   as jacobian, with the derivative along e_new - e_observed instead of the change

Rows are the mutated bases i, columns are the read bases j.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from genoscan.dependency_map import DependencyMap, Layout, check_symmetrise, mark_unknown, symmetrise
from genoscan.engine.edits import Edit
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError, NonFiniteError, UnsupportedModelError
from genoscan.genome.alphabet import N
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Window, as_read, read_windows, region_read
from genoscan.genome.region import Region
from genoscan.model import Model

DEFINITIONS = "log-odds", "jacobian", "derivative"

LARGEST = 100_000_000
"""Largest number of values of a map, which take 4 bytes each (8 in float64)."""

_EPSILON = 1e-10  # added to each probability before renormalisation, as in the published definition


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
    """A window read on one strand, and the substitutions to compute.

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

    def outputs(self) -> int:
        """Return the number of outputs from each substitution to its end, in total."""
        return 3 * int((self.ends - self._positions).sum())


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
        Windows and substitutions, one for each strand.
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
        return sum(reading.edits.outputs() for reading in self.readings)


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
    layout = Layout(_positions(options), columns, options.band)
    check_symmetrise(layout, options.symmetrise)
    if layout.size > LARGEST:
        fewer = "--band BASES, --columns or --rows" if options.band is None else "a smaller --band, or --rows"
        raise InputError(
            f"{region.where}: the map would have {len(layout.rows):,} x {layout.width:,} values, expected at most "
            f"{LARGEST:,}; give {fewer}"
        )
    context = model.config.context if options.context is None else options.context
    both = options.strand == "both" or (options.strand is None and not model.bidirectional)
    strands = ("+", "-") if both else (options.strand or "+",)
    readings = tuple(_reading(genome, model, layout, region, context, strand) for strand in strands)
    known = genome.fetch(region.chrom, region.start, region.end)[layout.rows - region.start] < N
    if known.any() and not any(len(reading.edits) for reading in readings):
        raise InputError(
            f"{region.where}: no read base can depend on a mutated one; expected at least two bases, of which, on "
            f"strand {strands[0]} of a causal model, the read one comes later"
        )
    return MapPlan(genome, model, options, layout, readings, context)


def compute_map(plan: MapPlan, *, progress: Progress = ignore) -> DependencyMap:
    """Compute a dependency map.

    Parameters
    ----------
    plan
        Plan, as returned by `prepare_map`.
    progress
        Function called after each tile with the number of positions in the tile.

    Returns
    -------
    DependencyMap
        Map, in float32, or in float64 if the model is.

    Raises
    ------
    NonFiniteError
        If a value is NaN or infinite.

    Notes
    -----
    Exact up to rounding; log-odds and log-probabilities are computed in float64 from the model's logits. In
    causal models, only predictions downstream of a base depend on it: the map of strand + is strictly
    upper triangular, that of strand - is strictly lower triangular, and "both" is their sum. For
    bidirectional models, "both" is the mean of the two maps. Memory: the map, twice if two strands are read,
    and the activations of a few tiles.

    The derivative is computed by batched tangents, three directions for each mutated base. An adjoint sweep
    for each read position would take at least three cotangents (the four derivatives of log p add up to zero
    when weighted with p), each of which costs a forward and a backward pass instead of one pass of tangents.
    """
    total: Tensor | None = None
    for reading in plan.readings:
        part = _compute(plan, reading, progress)
        total = part if total is None else total.add_(part)
    assert total is not None
    if plan.model.bidirectional and len(plan.readings) > 1:
        total /= 2
    layout, fetch = plan.layout, plan.genome.fetch
    region, columns = plan.options.region, plan.layout.columns
    row_codes = fetch(region.chrom, region.start, region.end)[layout.rows - region.start]
    column_codes = fetch(columns.chrom, columns.start, columns.end)
    found = symmetrise(DependencyMap(layout, total.numpy(), row_codes, column_codes), plan.options.symmetrise)
    mark_unknown(found)
    return found


def _positions(options: MapOptions) -> Int64[np.ndarray, " rows"]:
    """Return the positions of the mutated bases."""
    region = options.region
    for part in options.rows:
        if part.chrom != region.chrom or part.start < region.start or part.end > region.end:
            raise InputError(f"{part.where}: expected bases of {region}, the region of the map")
    parts = options.rows or (region,)
    return np.unique(np.concatenate([np.arange(part.start, part.end) for part in parts]))


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


def _compute(plan: MapPlan, reading: Reading, progress: Progress) -> Float[Tensor, "rows width"]:
    """Return the map of one reading, in the coordinates of the forward strand."""
    layout, window, offset = plan.layout, reading.window, plan.model.label_offset
    dtype = torch.float64 if plan.model.dtype == torch.float64 else torch.float32
    values = torch.zeros(len(layout.rows), layout.width, dtype=dtype)
    places, first = torch.from_numpy(layout.rows), torch.from_numpy(layout.first)
    for edits, positions, effect in _effects(plan, reading, progress):
        rows = reading.rows[edits][:, None]
        labels = positions + offset
        at = window.region.end - 1 - labels if window.strand == "-" else window.region.start + labels
        index = at - first[rows]
        read = (positions >= 0) & (index >= 0) & (index < layout.width)
        read &= (at >= layout.columns.start) & (at < layout.columns.end)
        ahead = places[rows] - at if window.strand == "-" else at - places[rows]
        # Outputs of a causal model before a substitution are yielded, too, but differ by rounding at most.
        read &= ahead != 0 if plan.model.bidirectional else ahead >= offset
        effect = effect.cpu()
        if not torch.isfinite(effect[read]).all():
            bad = torch.nonzero(read & ~torch.isfinite(effect))[0]
            place = int(places[rows[bad[0], 0]])
            raise NonFiniteError(
                f"{Region(layout.columns.chrom, place, place + 1)}: the change of the predictions by this base is "
                f"not finite; {plan.model.advice_on_overflow}"
            )
        flat = (rows * layout.width + index)[read]
        values.view(-1).scatter_reduce_(0, flat, effect[read].to(dtype), "amax")
    return values


Effects = Iterator[tuple[Int64[Tensor, " batch"], Int64[Tensor, "batch span"], Float[Tensor, "batch span"]]]


def _effects(plan: MapPlan, reading: Reading, progress: Progress) -> Effects:
    """Yield the largest effect of each substitution on a prediction, over the predicted bases."""
    model, columns = plan.model, list(plan.model.config.base_columns)
    if plan.options.definition == "derivative":
        edits = reading.codes, model.table(), reading.edits
        for tile in model.method.edit_tangents(model.stack, *edits, progress=progress):
            # In float64: 1 - p loses precision if p is near 1.
            change, log_p = tile.tangents[..., columns].double(), _log_p(tile.reference, columns)
            mean = (log_p.exp() * change).sum(-1, keepdim=True)
            yield tile.edits, tile.positions, (change - mean).abs().amax(-1)
        return
    measure = _log_odds if plan.options.definition == "log-odds" else _log_p
    sweep = model.method.edited(
        model.stack, reading.codes, model.table(), reading.edits, label_offset=model.label_offset, progress=progress
    )
    for edited in sweep:
        change = measure(edited.outputs, columns) - measure(edited.reference, columns)
        yield edited.edits, edited.positions, change.abs().amax(-1)


def _log_odds(outputs: Float[Tensor, "*shape d_out"], columns: list[int]) -> Float[Tensor, "*shape 4"]:
    """Return log2 p/(1 - p) of A, C, G and T.

    p is the softmax over all symbols, plus 1e-10, renormalised over the four bases. 1 - p is computed as the
    sum of the other three, which keeps its precision where p is near 1.
    """
    p = torch.log_softmax(outputs.double(), -1)[..., columns].exp() + _EPSILON
    return torch.log2(p) - torch.log2(p @ (1 - torch.eye(4, dtype=p.dtype, device=p.device)))


def _log_p(outputs: Float[Tensor, "*shape d_out"], columns: list[int]) -> Float[Tensor, "*shape 4"]:
    """Return log p of A, C, G and T, normalised over the four bases."""
    return torch.log_softmax(outputs[..., columns].double(), -1)
