"""The centre: the gradient of a target with respect to every base of a batch of windows."""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from genoscan.engine.adjoint import consume
from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Method, Progress, ignore
from genoscan.engine.stages import run_in_parallel, shares
from genoscan.engine.target import Target
from genoscan.model import Model

Receive: TypeAlias = Callable[[slice, slice, Tensor], object]
"""Takes rows of the batch, a span of positions, and the gradient there: (rows, span, symbols)."""


class Gradient(NamedTuple):
    """A target's value and gradient.

    Attributes
    ----------
    value
        The target, one a window.
    gradient
        Its derivative with respect to each symbol at each position, as read.
    """

    value: Float64[np.ndarray, " batch"]
    gradient: Float[Tensor, "batch length symbols"]


def gradient(
    model: Model, codes: UInt8[Tensor, "batch length"], target: Target, method: Method | None = None
) -> Gradient:
    """Return the gradient of a target with respect to every base.

    Parameters
    ----------
    model
        The model; its weights are constants.
    codes
        Windows of one length, read side by side: 0 to 3 are A, C, G, T; 4 is N; 5 the mask.
    target
        The scalar that is differentiated, one a window.
    method
        How; None: the model's own.

    Returns
    -------
    Gradient
        On the model's device, in its dtype.

    Notes
    -----
    Exact: whole-window autograd's, up to rounding. Memory: the result, and `stream_gradient`'s.
    """
    table = model.table()
    whole = table.new_empty(*codes.shape, table.shape[1])

    def receive(rows: slice, span: slice, x_bar: Tensor) -> None:
        whole[rows, span] = x_bar

    return Gradient(stream_gradient(model, codes, target, receive, method), whole)


def stream_gradient(
    model: Model,
    codes: UInt8[Tensor, "batch length"],
    target: Target,
    receive: Receive,
    method: Method | None = None,
    *,
    progress: Progress = ignore,
) -> Float64[np.ndarray, " batch"]:
    """Pass the gradient on tile by tile; return the target's value, one a window.

    Parameters
    ----------
    model, codes, target, method
        As of `gradient`.
    receive
        Called with every tile of the gradient, on several threads at a time, each with rows of its
        own.
    progress
        Called with the number of positions of every tile that has been run, forward or backward.

    Notes
    -----
    Memory: one tile's activations and the method's carries or boundaries, whatever the length.
    Threads: windows are shared out among torch's threads, and the stages of the network among those
    that are left.
    """
    method = (method or model.method).fit(model.stack, codes.shape[1], len(codes))
    counting = Lock()

    def run(rows: slice, check: Callable[[], None]) -> np.ndarray:
        def report(positions: int) -> None:
            check()
            with counting:
                progress(positions * (rows.stop - rows.start))

        inputs = OneHot(codes[rows], model.table())
        pull = method.gradient(model.stack, inputs, target.rows(rows), progress=report)
        return consume(pull, partial(receive, rows)).value.numpy()

    parts = shares(len(codes), model.device)
    return np.concatenate(run_in_parallel([partial(run, rows) for rows in parts]))
