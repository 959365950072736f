"""Nucleotide dependency maps: how a substitution of each base changes the predictions at each other base.

log-odds     largest |change of log2 p/(1 - p)| over the substitutions of base i and the bases at j
jacobian     largest |change of log p| over the same, with p normalised over A, C, G and T
derivative   as jacobian, with the derivative along e_new - e_observed instead of the change

Rows are the mutated bases i, columns are the read bases j.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from genoscan.dependency.dependency_map import DependencyMap, mark_unknown, symmetrise
from genoscan.dependency.plan import MapPlan, Reading
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import NonFiniteError
from genoscan.genome.region import Region
from genoscan.tracks.atomic import os_errors
from genoscan.tracks.journal import Entry, Journal, checksum, damaged

_EPSILON = 1e-10  # added to each probability before renormalisation, as in the published definition


def compute_map(plan: MapPlan, journal: Journal | None = None, *, progress: Progress = ignore) -> DependencyMap:
    """Compute a dependency map.

    Parameters
    ----------
    plan
        Plan, as returned by `prepare_map`.
    journal
        Journal of the run. Parts of the map that it contains are not computed again. If None, nothing is stored.
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
    and the activations of a few tiles; with a journal, the maps of the strands are memory-mapped files instead.

    The derivative is computed by batched tangents, three directions for each mutated base. An adjoint sweep
    for each read position would take at least three cotangents (the four derivatives of log p add up to zero
    when weighted with p), each of which costs a forward and a backward pass instead of one pass of tangents.
    """
    arrays = _empty_maps(plan, journal)
    for number, reading in enumerate(plan.readings):
        if not len(reading.edits):
            continue
        values, first, last = arrays[reading.window.strand], int(reading.rows.min()), int(reading.rows.max())
        rows = values[first : last + 1]
        if journal is None or number not in journal.entries:
            rows[:] = 0  # what an interrupted run left of this part
            _compute(plan, reading, torch.from_numpy(values), progress)
        if journal is not None:
            _keep(journal, number, reading.window.strand, rows, first)
    total, *others = arrays.values()
    if journal is not None:
        total = np.array(total)  # the checksums are those of the stored map
    for other in others:
        total += other
    if plan.model.bidirectional and others:
        total /= 2
    layout, fetch = plan.layout, plan.genome.fetch
    region, columns = plan.options.region, plan.layout.columns
    row_codes = fetch(region.chrom, region.start, region.end)[layout.rows - region.start]
    column_codes = fetch(columns.chrom, columns.start, columns.end)
    found = symmetrise(DependencyMap(layout, total, row_codes, column_codes), plan.options.symmetrise)
    mark_unknown(found)
    return found


def _empty_maps(plan: MapPlan, journal: Journal | None) -> dict[str, Float[np.ndarray, "rows width"]]:
    """Return a map of zeros, or that of an interrupted run, for each strand."""
    shape = len(plan.layout.rows), plan.layout.width
    dtype = np.float64 if plan.model.dtype == torch.float64 else np.float32
    if journal is None:
        return {strand: np.zeros(shape, dtype) for strand in plan.strands}
    done = sum(len(plan.readings[number].edits) for number in journal.entries)
    journal.log_resumed(done, plan.substitutions, "substitutions")
    return {strand: journal.array(f"map.{strand}", dtype, shape) for strand in plan.strands}


def _keep(journal: Journal, number: int, strand: str, rows: Float[np.ndarray, "rows width"], first: int) -> None:
    """Add a part of a map to the journal, or check that the rows are those that an interrupted run added."""
    found = first, first + len(rows), checksum(rows)
    if number not in journal.entries:
        if isinstance(rows, np.memmap):
            with os_errors(journal.path):
                rows.flush()
        journal.add(Entry(batch=number, checksums=[found]))
    elif journal.entries[number].checksums != [found]:
        raise damaged(journal.path / f"map.{strand}")


def _compute(plan: MapPlan, reading: Reading, values: Float[Tensor, "rows width"], progress: Progress) -> None:
    """Compute the rows of a reading, in the coordinates of the forward strand."""
    layout, window, offset = plan.layout, reading.window, plan.model.label_offset
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
        values.view(-1).scatter_reduce_(0, flat, effect[read].to(values.dtype), "amax")


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
