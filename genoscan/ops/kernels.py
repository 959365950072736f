"""What a kernel set is: the selective scan's forward, jvp and vjp."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class ScanInputs(NamedTuple):
    """The scan's arguments, or one cotangent or tangent for each of them.

    With h the state, per channel and state number:

        h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t
        y_t = sum over states of C_t h_t + D u_t

    u, delta  (batch, tile, channels)   A  (channels, states), <= 0   D  (channels)
    B, C      (batch, tile, states)     state  (batch, channels, states): h before the tile

    Tangents carry one more axis in front, the directions.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    state: Tensor


class ScanKernels(NamedTuple):
    """One implementation of the selective scan.

    forward  (inputs, keep=bool) -> (y, state at the end, what vjp wants kept)
    jvp      (inputs, tangents) -> (tangent of y, tangent of the state at the end)
    vjp      (inputs, kept, cotangent of y, cotangent of the state at the end) -> cotangents
    """

    name: str
    forward: Callable[..., tuple[Tensor, Tensor, tuple[Tensor, ...]]]
    jvp: Callable[[ScanInputs, ScanInputs], tuple[Tensor, Tensor]]
    vjp: Callable[[ScanInputs, tuple[Tensor, ...], Tensor, Tensor], ScanInputs]
