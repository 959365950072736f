"""The selective scan in the associative form of Phase Gradient Flow (arXiv 2512.23068, Proposition 3.2).

The elements of the scan are the steps at the bases of a tile, each together with its tangent. Composition
of steps is associative, so all steps of a tile can be composed in log2(tile) passes (recursive doubling).
This module is an independent implementation in plain torch, whereas the compiled kernels advance base by
base. The decays are at most 1 and are combined only by multiplication, so their products cannot overflow.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genoscan.ops import reference
from genoscan.ops.dual import Dual, primal
from genoscan.ops.kernels import Kernels, ScanInputs, is_phi

_TIME = -3


class Step(NamedTuple):
    """One or more steps of the scan: affine maps of the state and of its tangent.

    A step maps the state `h` to `a h + b`, and its tangent `h_dot` to `a h_dot + k h + j`.

    Parameters
    ----------
    a, b : Tensor
        Factor and inflow, of shape (..., tile, channels, states).
    k, j : Tensor
        Tangents of `a` and `b`, with a leading axis of directions.
    """

    a: Tensor
    k: Tensor
    b: Tensor
    j: Tensor


def compose(first: Step, second: Step) -> Step:
    """Return the composition of two steps, in which `first` is applied before `second`."""
    return Step(
        a=second.a * first.a,
        k=second.k * first.a + second.a * first.k,
        b=second.a * first.b + second.b,
        j=second.k * first.b + second.a * first.j + second.j,
    )


def prefix_scan(steps: Step) -> Step:
    """Return, for each base, the composition of all steps up to and including the step at that base.

    Memory is needed for three times the size of `steps`. The computation takes log2(tile) passes over the
    tile.
    """
    length, reach = steps.a.shape[_TIME], 1
    while reach < length:
        done = Step(*(part.narrow(_TIME, 0, reach) for part in steps))
        first = Step(*(part.narrow(_TIME, 0, length - reach) for part in steps))
        second = Step(*(part.narrow(_TIME, reach, length - reach) for part in steps))
        pairs = zip(done, compose(first, second), strict=True)
        steps, reach = Step(*(torch.cat(pair, _TIME) for pair in pairs)), 2 * reach
    return steps


def scan(*tensors: Tensor | None, input_map: str = "euler") -> tuple[Tensor, Tensor]:
    """Return the outputs and the final state of the selective scan.

    The arguments are those of `reference.scan`.
    """
    u, delta, A, B, C, D, state, bias, z = ScanInputs(*tensors)  # type: ignore[arg-type]
    if bias is not None:
        delta = F.softplus(delta + bias, threshold=40)
    rate = delta[..., None] * A
    gain = reference.phi(rate) if is_phi(input_map) else delta[..., None]
    decay, inflow = torch.exp(rate), gain * u[..., None] * B[..., None, :]
    before = state[:, None]
    moving = [part for part in (decay, inflow, before) if isinstance(part, Dual)]
    count = len(moving[0].dots) if moving else 0
    (a, k), (b, j), (h, h_dot) = (_parts(part, count) for part in (decay, inflow, before))
    run = prefix_scan(Step(a, k, b, j))
    states = run.a * h + run.b
    if moving:
        states = Dual.of(states, run.k * h + run.a * h_dot + run.j)
    y = (states * C[..., None, :]).sum(-1) + D * u
    return (y if z is None else y * F.silu(z)), states[:, -1].clone()


def _parts(tensor: Tensor, directions: int) -> tuple[Tensor, Tensor]:
    """Return the tensor without its tangents, and its tangents, which are zero if it is not a `Dual`."""
    if isinstance(tensor, Dual):
        return primal(tensor), tensor.dots
    return tensor, tensor.new_zeros(directions, *tensor.shape)


ASSOCIATIVE = Kernels("associative", scan, reference.conv_silu, reference.rms_norm, reference.pd_scan)
