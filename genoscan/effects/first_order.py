"""First-order predictions of the effects of edits: derivatives instead of changes."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from genoscan.effects.edit_sums import EditSums, Terms
from genoscan.engine.edits import Edit
from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.gradient import stream_gradient
from genoscan.model import Model

_PLACES = "start", "stop", "end"


def first_order_effects(
    model: Model, codes: UInt8[Tensor, " length"], edits: Sequence[Edit], terms: Terms, *, progress: Progress = ignore
) -> Float64[np.ndarray, " edits"]:
    """Return first-order predictions of the changes of the terms of all bases that an edit does not replace.

    Parameters
    ----------
    model, codes, edits, terms, progress
        As for `edit_effects.edit_effects`.

    Returns
    -------
    ndarray
        Derivative of the sum of these terms along the edit: the prediction of `Effects.down`. NaN for edits that
        change the length.

    Notes
    -----
    Exact up to rounding, by tangents that several edits share. Memory: as for `edit_effects`.
    """
    sums = EditSums(model, codes, edits, terms)
    order = sorted((i for i, edit in enumerate(edits) if not edit.shift), key=lambda i: edits[i].start)
    effects = np.full(len(edits), np.nan)
    effects[order] = 0
    chosen = [edits[i] for i in order]
    for tile in model.method.edit_tangents(model.stack, codes, model.table(), chosen, progress=progress):
        rows = [chosen[i] for i in tile.edits.tolist()]
        start, stop, end = (torch.tensor([getattr(edit, name) for edit in rows])[:, None] for name in _PLACES)
        labels = tile.positions + model.label_offset
        counted = (labels >= stop) & (labels < end) & sums.counted(labels)
        if model.bidirectional:
            counted |= (labels < start) & sums.counted(labels)
        change = sums.derivatives(tile, labels)
        effects[[order[i] for i in tile.edits.tolist()]] += torch.where(counted, change, 0.0).sum(1).numpy()
    return effects


def first_order_substitutions(
    model: Model, codes: UInt8[Tensor, " length"], edits: Sequence[Edit], terms: Terms, *, progress: Progress = ignore
) -> Float64[np.ndarray, " edits"]:
    """Return first-order predictions of the effects of substitutions of single bases, from one gradient.

    Parameters
    ----------
    model, codes, edits, terms, progress
        As for `edit_effects.edit_effects`. The parts of all edits must end with the window.

    Returns
    -------
    ndarray
        For a log-likelihood, log p(new base) - log p(observed base) at the base itself plus the derivative of the
        target, with labels held fixed, along the substitution; for other targets, that derivative.

    Notes
    -----
    Memory: as for the gradient, and 8 bytes for each base between the first and the last edit and each symbol.
    """
    sums = EditSums(model, codes, edits, terms)
    starts = np.array([edit.start for edit in edits])
    old, new = model.columns()[codes[starts].long()], model.columns()[[edit.codes[0] for edit in edits]]
    first, last = int(starts.min()), int(starts.max()) + 1
    gradient = torch.zeros(last - first, model.table().shape[1], dtype=torch.float64)

    def receive(_rows: slice, span: slice, x_bar: Tensor) -> None:
        start, stop = max(first, span.start), min(last, span.stop)
        if start < stop:
            gradient[start - first : stop - first] = x_bar[0, start - span.start : stop - span.start].double().cpu()

    stream_gradient(model, codes[None], sums.target(), receive, progress=progress)
    effects = gradient[starts - first, new] - gradient[starts - first, old]
    if terms.weights is None:
        offset = model.label_offset
        counted = torch.from_numpy((starts >= max(terms.first, offset)) & (starts < terms.last))
        log_p = torch.zeros_like(gradient)
        method = model.method.fit(model.stack, len(codes), 1, forward=True)
        for span, outputs in method.forward(model.stack, OneHot(codes[None], model.table())):
            start, stop = max(first, span.start + offset), min(last, span.stop + offset)
            if start < stop:
                rows = outputs[0, start - offset - span.start : stop - offset - span.start]
                log_p[start - first : stop - first] = torch.log_softmax(rows.double().cpu(), -1)
        effects += torch.where(counted, log_p[starts - first, new] - log_p[starts - first, old], 0.0)
    return effects.numpy()
