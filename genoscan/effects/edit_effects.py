"""Exact effects of edits of a sequence on a target, and linear estimates far downstream of an edit."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from genoscan.effects.edit_sums import EditSums, Effects, Terms
from genoscan.engine.edits import Edit, check_positions
from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.layer import Carry
from genoscan.layers.config import MASK
from genoscan.model import Model


def edit_effects(
    model: Model,
    codes: UInt8[Tensor, " length"],
    edits: Sequence[Edit],
    terms: Terms,
    *,
    tolerance: float = 0.0,
    done: set[int] | None = None,
    finish: Callable[[list[int], Effects], object] = lambda _edits, _effects: None,
    progress: Progress = ignore,
) -> Effects:
    """Return the effect of each edit on a target; each edit is applied to a separate copy of the window.

    Parameters
    ----------
    model, codes
        Model, and base codes of the window that it reads.
    edits
        Edits of the window, in any order.
    terms
        Target.
    tolerance
        If 0, the effects are exact. Otherwise, the end of a copy is replaced by a linear estimate once the last
        two parts of the copy deviate by at most this much from their estimates. This requires a causal model, and
        edits whose parts all end with the window.
    done
        Indices of edits that are omitted, because an interrupted run has finished them; their effects are 0.
    finish
        Function that is called with the indices of a batch of edits once their effects are final.
    progress
        Function called with the number of positions that were run.

    Returns
    -------
    Effects
        Effects of the edits.

    Notes
    -----
    The effects are those of two passes over whole windows, up to rounding: for a causal model from the
    beginning of `codes` to the end of the edit's part, for a bidirectional model over the edit's part. Outputs
    are compared in float64. Working memory does not depend on the number of edits.
    """
    sums = EditSums(model, codes, edits, terms)
    finished = _Estimates(sums, tolerance) if tolerance and edits else None
    batch: list[int] = []
    for tile in model.method.edited(
        model.stack,
        codes,
        model.table(),
        edits,
        label_offset=model.label_offset,
        done=done or frozenset(),
        finished=finished,
        progress=progress,
    ):
        if tile.replaced is not None and batch:
            finish(batch, sums.effects)
        if tile.replaced is not None:
            batch = tile.edits.tolist()
        sums.add(tile)
    if batch:
        finish(batch, sums.effects)
    return sums.effects


class _Estimates:
    """Linear estimates of the effects of the carry where copies are compared with the window.

    The estimate of what remains is the cotangent of the window's carry times the change of the carry. Its error
    is of second order in that change. It is judged by the last two parts of the copy: the difference between two
    estimates should be the change of the terms between them. Parts double in length, so that the last one is as
    long as all before it. A single part may deviate little by chance.
    """

    def __init__(self, sums: EditSums, tolerance: float) -> None:
        self._sums, self._tolerance = sums, tolerance
        model = sums.model
        inputs = OneHot(sums.codes[None], model.table())
        positions = check_positions(sums.edits, model.label_offset)
        self._linear = model.method.linearise(model.stack, inputs, sums.target(), positions)
        self._before = np.full((3, len(sums.edits)), np.nan)

    def __call__(self, edits: Sequence[int], at: Sequence[int], carry: Carry, reference: Carry) -> Tensor:
        """Return which copies are finished, and add the estimates to their effects."""
        chosen = np.array(edits)
        estimate = self._linear.change(at, carry, reference).numpy()
        down = self._sums.effects.down[chosen]
        earlier, earlier_estimate, earlier_error = self._before[:, chosen]
        error = np.abs((down - earlier) - (earlier_estimate - estimate))
        done = np.maximum(error, earlier_error) <= self._tolerance
        self._before[:, chosen] = down, estimate, error
        self._sums.effects.down[chosen[done]] += estimate[done]
        return torch.from_numpy(done)


def masked_log_odds(
    model: Model,
    codes: UInt8[Tensor, " length"],
    edits: Sequence[Edit],
    *,
    done: set[int] | None = None,
    finish: Callable[[list[int], Effects], object] = lambda _edits, _effects: None,
    progress: Progress = ignore,
) -> Effects:
    """Return log p(new base) - log p(observed base) for substitutions, with the base masked in the input.

    The parameters are those of `edit_effects`. The result has only `own`; the other arrays are NaN.
    """
    masked = [Edit(edit.start, edit.stop, (MASK,), edit.end, edit.begin) for edit in edits]
    nan = np.full(len(edits), np.nan)
    effects = Effects(np.zeros(len(edits)), *(nan.copy() for _ in range(4)))
    columns = model.columns()
    for tile in model.method.edited(
        model.stack,
        codes,
        model.table(),
        masked,
        label_offset=model.label_offset,
        done=done or frozenset(),
        progress=progress,
    ):
        chosen = tile.edits.tolist()
        for row, i in enumerate(chosen):
            at = int((tile.positions[row] == edits[i].start - model.label_offset).nonzero()[0, 0])
            log_p = torch.log_softmax(tile.outputs[row, at].double().cpu(), -1)
            new, old = columns[edits[i].codes[0]], columns[int(codes[edits[i].start])]
            effects.own[i] = float(log_p[new] - log_p[old])
        finish(chosen, effects)
    return effects
