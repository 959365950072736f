"""The selective scan, compiled for the CPU by numba and vectorised over channels.

Speed
    Sixteen channels are processed side by side in vector registers, and the exponential is an inlined
    polynomial. Channel groups are divided among `torch.get_num_threads()` threads, and the kernels release
    the GIL.

Accuracy
    A decay is computed as exp(z) - 1 if it is close to 1, and as exp(z) otherwise (see `lane_math.decay`).
    Kahan summation is used along the sequence. As a result, errors do not grow with the length of the
    sequence: tests/test_scan.py checks that the error relative to float64 over 131,072 bases is at most
    1e-5, for decays from exp(-1e-10) to exp(-1e5). There are no divisions and no logarithms.

Memory
    The vjp recomputes the states from checkpoints, which are saved once every `SUB` bases. As a result,
    each exponential is evaluated twice, but the checkpoints take only 1 / `SUB` of the memory that all
    states would take.
"""

from collections.abc import Sequence
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor

from genoscan.ops import cpu_scan_kernels, reference
from genoscan.ops.cpu_scan_kernels import STATES, SUB
from genoscan.ops.kernels import ScanInputs, is_phi
from genoscan.ops.lanes import LANES, pad_lanes, parallel_for, unpad_lanes
from genoscan.ops.memory import aligned_empty, contiguous
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors, materialize_tangents


def _arrays(inputs: ScanInputs) -> tuple[np.ndarray, ...]:
    """Return padded inputs, or their tangents, as arrays for the kernels; an absent one as an empty array."""
    u, delta, A, B, C, D, state, bias, z = inputs
    bias = D[..., :0] if bias is None else bias
    z = u.new_empty([0] * u.dim()) if z is None else z
    return tuple(map(_array, (u, delta, A, B, C, D, state, bias, z)))


def _padded(inputs: ScanInputs) -> ScanInputs:
    """Return the inputs with those whose last axis is the channel axis padded to whole vectors."""
    by_channel = {"u": inputs.u, "delta": inputs.delta, "D": inputs.D, "bias": inputs.bias, "z": inputs.z}
    return inputs._replace(**{name: _pad(part) for name, part in by_channel.items() if part is not None})


def _pad(tensor: Tensor) -> Tensor:
    return torch.from_numpy(pad_lanes(tensor))


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = contiguous(tensor).numpy(force=True)
    return array


def _split_states(inputs: ScanInputs) -> list[ScanInputs]:
    """Pad the inputs, and split them into groups of at most `STATES` states.

    The sum of the outputs of all groups equals the output of the scan.
    """
    inputs, n_states = _padded(inputs), inputs.B.shape[-1]
    if n_states <= STATES:
        return [inputs]
    return [
        inputs._replace(
            A=inputs.A[..., n : n + STATES],
            B=inputs.B[..., n : n + STATES],
            C=inputs.C[..., n : n + STATES],
            # The skip connection is added only once.
            D=inputs.D if n == 0 else torch.zeros_like(inputs.D),
            state=inputs.state[..., n : n + STATES],
        )
        for n in range(0, n_states, STATES)
    ]


def _phi_flag(input_map: str) -> bool | None:
    """Return True if the input map is "phi", and None otherwise.

    Because True and None have different types, numba compiles separate kernels for the two input maps.
    """
    return True if is_phi(input_map) else None


def _forward_group(inputs: ScanInputs, *, save: bool, phi: bool | None, donate: bool) -> tuple[Tensor, Tensor, Tensor]:
    arrays = u, delta, *_, state, _, _ = _arrays(inputs)
    batch, length, width = u.shape
    groups, n_checkpoints = width // LANES, -(-length // SUB) if save else 0
    # y may overwrite delta: the kernel reads the steps of a block before it writes the outputs.
    y, state_end = delta if donate else aligned_empty(u.shape, u), aligned_empty(state.shape, u)
    checkpoints = aligned_empty((batch, n_checkpoints, groups, state.shape[-1] * LANES), u)
    parallel_for(
        lambda i_batch, _part, first, last: cpu_scan_kernels.forward(
            arrays, y, state_end, checkpoints, phi, i_batch, first, last
        ),
        batch,
        groups,
    )
    return torch.from_numpy(y), torch.from_numpy(state_end), torch.from_numpy(checkpoints)


def forward(
    inputs: OptionalTensors, *, save: bool, input_map: str = "euler", donate: bool = False
) -> tuple[Tensors, Tensors]:
    """Return the outputs and the final state as a pair, and a tuple of checkpoints.

    If `save` is false, the tuple is empty. If `donate` is true, `delta` may be overwritten.
    """
    parts = _split_states(ScanInputs(*inputs))
    donate = donate and len(parts) == 1
    run = partial(_forward_group, save=save, phi=_phi_flag(input_map), donate=donate)
    y, state_end, checkpoints = zip(*map(run, parts), strict=True)
    return (_unpad(_sum(y), inputs[0]), _concatenate(state_end)), checkpoints if save else ()


def _vjp_group(
    inputs: ScanInputs,
    checkpoints: Tensor,
    y_bar: Tensor,
    state_end_bar: Tensor,
    *,
    weights: bool,
    phi: bool | None,
    donate: bool,
) -> ScanInputs:
    arrays = u, delta, A, B, *_, state, _, z = _arrays(inputs)
    outs_bar = _array(y_bar)
    batch, _, width = u.shape
    groups, n_states, threads = width // LANES, A.shape[-1], torch.get_num_threads()
    # delta_bar and z_bar may overwrite delta and y_bar, which are read first in each sub-tile.
    delta_bar = delta if donate else aligned_empty(u.shape, u)
    z_bar = outs_bar if donate and z.size else aligned_empty(z.shape, u)
    # One sum per sequence, in float64 because each sum has many small terms.
    n_sums = batch if weights else 0
    A_bar = np.zeros((n_sums, groups, n_states * LANES))
    D_bar, bias_bar = np.zeros((n_sums, width)), np.zeros((n_sums, width))
    B_bar, C_bar = (aligned_empty((threads, *B.shape), u) for _ in range(2))
    u_bar, state_bar = aligned_empty(u.shape, u), aligned_empty(state.shape, u)
    carry = aligned_empty((batch, 3, groups, n_states * LANES), u)
    saved, bars = checkpoints.numpy(), (outs_bar, _array(state_end_bar))

    def run(i_batch: int, i_part: int, first: int, last: int) -> None:
        sums = A_bar, B_bar[i_part], C_bar[i_part], D_bar
        outputs = u_bar, delta_bar, *sums, state_bar, bias_bar, z_bar
        cpu_scan_kernels.vjp(arrays, saved, bars, outputs, carry, phi, i_batch, first, last)

    parts = parallel_for(run, batch, groups)
    by_channel, dtype = A_bar.sum(0).reshape(groups, n_states, LANES).swapaxes(1, 2), inputs.D.dtype
    return ScanInputs(
        u=torch.from_numpy(u_bar),
        delta=torch.from_numpy(delta_bar),
        A=torch.from_numpy(by_channel.reshape(width, n_states)[: len(A)]).to(dtype),
        B=_sum(torch.from_numpy(B_bar[:parts]).unbind()),
        C=_sum(torch.from_numpy(C_bar[:parts]).unbind()),
        D=torch.from_numpy(D_bar.sum(0)).to(dtype),
        state=torch.from_numpy(state_bar),
        bias=torch.from_numpy(bias_bar.sum(0)).to(dtype),
        z=torch.from_numpy(z_bar),
    )


def vjp(
    inputs: OptionalTensors,
    saved: Tensors,
    bars: Tensors,
    needs_grad: Flags,
    *,
    input_map: str = "euler",
    donate: bool = False,
) -> OptionalTensors:
    """Return the cotangents of the inputs.

    If none of the cotangents of `A`, `D` and `bias` is needed, all three are None. If `donate` is true,
    `delta` and the cotangent of the output may be overwritten.
    """
    y_bar, state_end_bar = bars
    needs = ScanInputs(*needs_grad)
    weights = bool(needs.A or needs.D or needs.bias)
    donate = donate and len(saved) == 1
    run = partial(_vjp_group, weights=weights, phi=_phi_flag(input_map), donate=donate)
    groups = _split_states(ScanInputs(*inputs))
    outs_bar, ends = _pad(y_bar), state_end_bar.split(STATES, -1)
    parts = [run(*part) for part in zip(groups, saved, [outs_bar] * len(groups), ends, strict=True)]
    u, delta, A, B, C, D, state, bias, z = zip(*parts, strict=True)

    def by_channel(parts: Sequence[Tensor]) -> Tensor:
        return _unpad(_sum(parts), inputs[0])

    cotangents = (
        *(by_channel(u), by_channel(delta), _concatenate(A) if weights else None),
        *(_concatenate(B), _concatenate(C), _unpad(D[0], inputs[0]) if weights else None),
        *(_concatenate(state), by_channel(bias) if weights else None, by_channel(z)),
    )
    return cotangents[: len(inputs)]


def _jvp_group(inputs: ScanInputs, dots: ScanInputs, phi: bool | None) -> tuple[Tensor, ...]:
    arrays, arrays_dot = _arrays(inputs), _arrays(dots)
    u, state, u_dot, state_dot = (group[i] for group in (arrays, arrays_dot) for i in (0, 6))
    outputs = tuple(aligned_empty(like.shape, u) for like in (u, state, u_dot, state_dot))
    batch, groups = len(u), u.shape[-1] // LANES
    carry = aligned_empty((batch, groups, 2, len(u_dot), state.shape[-1] * LANES), u)
    parallel_for(
        lambda i_batch, _part, first, last: cpu_scan_kernels.jvp(
            arrays, arrays_dot, outputs, carry, phi, i_batch, first, last
        ),
        batch,
        groups,
    )
    return tuple(map(torch.from_numpy, outputs))


def jvp(inputs: OptionalTensors, tangents: OptionalTensors, *, input_map: str = "euler") -> tuple[Tensors, Tensors]:
    """Return the outputs and the final state as a pair, and the pair of their tangents along all directions."""
    dots = ScanInputs(*tangents)
    groups_dot = _split_states(ScanInputs(*materialize_tangents(inputs, tangents)))
    if dots.A is None and dots.D is None and dots.bias is None:
        groups_dot = [dot._replace(A=dot.A[:, :0], D=dot.D[:, :0], bias=None) for dot in groups_dot]
    phi = _phi_flag(input_map)
    pairs = zip(_split_states(ScanInputs(*inputs)), groups_dot, strict=True)
    groups = [_jvp_group(group, dot, phi) for group, dot in pairs]
    y, state_end, y_dot, state_end_dot = zip(*groups, strict=True)
    outputs, outputs_dot = (_unpad(_sum(group), inputs[0]) for group in (y, y_dot))
    return (outputs, _concatenate(state_end)), (outputs_dot, _concatenate(state_end_dot))


def _sum(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum, which replaces the first part."""
    return reduce(Tensor.add_, parts)


def _unpad(tensor: Tensor, u: Tensor) -> Tensor:
    return unpad_lanes(tensor.numpy(), u.shape[-1])


def _concatenate(states: Sequence[Tensor]) -> Tensor:
    return states[0] if len(states) == 1 else torch.cat(list(states), -1)


SCAN = Primitive(forward, jvp, vjp, reference.scan, outputs=2)
