"""Gradients of a target with respect to every base in a batch of windows."""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from genoscan.engine.adjoint import consume
from genoscan.engine.inputs import Inputs, OneHot
from genoscan.engine.methods import Method, Progress, ignore
from genoscan.engine.recovery import Snapshots
from genoscan.engine.stages import run_in_parallel, shares
from genoscan.engine.target import Target
from genoscan.model import Model

Receive: TypeAlias = Callable[[slice, slice, Tensor], object]
"""Callback for one tile. Its arguments are the rows of the batch, the span of positions and the gradient."""

Rows: TypeAlias = Callable[[slice], Inputs]
"""Function that takes a slice of rows of a batch and returns the input to the network for these windows."""


class Gradient(NamedTuple):
    """Value and gradient of a target.

    Attributes
    ----------
    value
        Value of the target for each window.
    gradient
        Derivative of the target with respect to each symbol at each position. The positions are in
        window order.
    """

    value: Float64[np.ndarray, " batch"]
    gradient: Float[Tensor, "batch length symbols"]


def gradient(
    model: Model,
    codes: UInt8[Tensor, "batch length"],
    target: Target,
    method: Method | None = None,
    progress: Progress = ignore,
) -> Gradient:
    """Return the gradient of a target with respect to every base.

    Parameters
    ----------
    model
        The model; its weights are treated as constants.
    codes
        Base codes of windows that have the same length. Codes 0 to 3 are A, C, G and T, 4 is N, and 5
        is the mask.
    target
        Target to differentiate. It has one scalar value for each window.
    method
        Method of differentiation. If None, the model's own method is used.
    progress
        As for `stream_gradient`.

    Returns
    -------
    Gradient
        Value and gradient of the target. The gradient has the device and the dtype of the model.

    Notes
    -----
    The gradient equals that of whole-window autograd up to rounding. The function needs as much memory
    as `stream_gradient`, plus memory for the result.
    """
    table = model.table()
    whole = table.new_empty(*codes.shape, table.shape[1])

    def receive(rows: slice, span: slice, x_bar: Tensor) -> None:
        whole[rows, span] = x_bar

    return Gradient(stream_gradient(model, codes, target, receive, method, progress=progress), whole)


def stream_gradient(
    model: Model,
    codes: UInt8[Tensor, "batch length"],
    target: Target,
    receive: Receive,
    method: Method | None = None,
    *,
    inputs: Rows | None = None,
    snapshots: Callable[[slice], Snapshots] | None = None,
    progress: Progress = ignore,
) -> Float64[np.ndarray, " batch"]:
    """Compute the gradient tile by tile and pass each tile to `receive`.

    Parameters
    ----------
    model, codes, target, method
        As for `gradient`.
    receive
        Function called with each tile of the gradient. Several threads may call it concurrently, each
        with different rows of the batch.
    inputs
        Function that takes a slice of rows of the batch and returns the input at which the gradient is
        computed. If None, the input is the one-hot encoding of the bases.
    snapshots
        Function that takes a slice of rows of the batch and returns the snapshots for these rows. The
        state of the sweep is saved in the snapshots, and an interrupted sweep is resumed from them. If
        None, no state is saved.
    progress
        Function called after each tile in a forward or backward pass. Its argument is the number of
        positions in the tile times the number of windows.

    Returns
    -------
    ndarray
        Value of the target for each window.

    Notes
    -----
    Memory is needed for the activations of one tile, and for the carries or boundaries that the method
    stores. The windows are distributed over torch's threads. The stages of the network are distributed
    over any remaining threads.
    """
    method = (method or model.method).fit(model.stack, codes.shape[1], len(codes))

    inputs = inputs or OneHot(codes, model.table()).rows

    def run(rows: slice, report: Progress) -> np.ndarray:
        saved = snapshots(rows) if snapshots is not None else None
        pull = method.gradient(model.stack, inputs(rows), target.rows(rows), snapshots=saved, progress=report)
        return consume(pull, partial(receive, rows)).value.numpy()

    return _run_shares(model, len(codes), run, progress)


def stream_value(
    model: Model, inputs: Rows, shape: tuple[int, int], target: Target, *, progress: Progress = ignore
) -> Float64[np.ndarray, " batch"]:
    """Compute the value of a target by a forward pass.

    Parameters
    ----------
    model, target, progress
        As for `stream_gradient`.
    inputs
        Function that takes a slice of rows of the batch and returns the input to the network.
    shape
        Number of windows, and their length.

    Returns
    -------
    ndarray
        Value of the target for each window.

    Notes
    -----
    Memory is needed for the activations of one tile and for one carry. Bidirectional models also need
    memory for the activations between layers.
    """
    method = model.method.fit(model.stack, shape[1], shape[0], forward=True)

    def run(rows: slice, report: Progress) -> np.ndarray:
        own, value = target.rows(rows), np.zeros(rows.stop - rows.start)
        for span, outputs in method.forward(model.stack, inputs(rows), progress=report):
            value += own(outputs, span).double().cpu().numpy()
        return value

    return _run_shares(model, shape[0], run, progress)


def _run_shares(
    model: Model, batch: int, run: Callable[[slice, Progress], np.ndarray], progress: Progress
) -> np.ndarray:
    """Run a function on slices of the windows in parallel, and concatenate the results."""
    counting = Lock()

    def run_share(rows: slice, check: Callable[[], None]) -> np.ndarray:
        def report(positions: int) -> None:
            check()
            with counting:
                progress(positions * (rows.stop - rows.start))

        return run(rows, report)

    return np.concatenate(run_in_parallel([partial(run_share, rows) for rows in shares(batch, model.device)]))
