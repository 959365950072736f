"""The selective scan on the GPU: functions that launch the kernels of `scan_kernels`.

The notation is that of `scan_kernels`.
"""

import torch
import triton
from torch import Tensor

from genoscan.ops import reference
from genoscan.ops.kernels import ScanInputs, is_phi
from genoscan.ops.primitive import Flags, OptionalTensors, Primitive, Tensors
from genoscan.ops.triton_gpu import scan_kernels
from genoscan.ops.triton_gpu.arithmetic import contiguous, contiguous_tangents, launch, sum_blocks

CHUNK = 64
"""Number of bases per chunk: small enough for uncompensated sums, and large enough for a fast carry kernel."""
EVERY = 8
"""Number of bases between checkpoints, which must be a divisor of `CHUNK`."""
SUB = 4
"""Number of bases whose states are kept in registers, which must be a divisor of `EVERY`."""
AHEAD = 16
"""Number of chunks that the carry kernel loads at once, so that it waits for memory less often."""
WIDTH = 32
"""Number of state values that each program of the carry kernel processes."""
STAGES = 3
"""Number of bases that loops over bases load at the same time, through shared memory."""
BLOCK = 512
"""Number of state values per program: of all states of as many channels as fit."""
BLOCK_BAR = 128
"""The same for each slab of `replay_bar`, which keeps the states of `SUB` bases."""
SLABS = 2
"""Number of slabs per program of `replay_bar`."""


def _sizes(inputs: ScanInputs, budget: int, **axes: int) -> dict[str, int]:
    """Return the compile-time sizes of a kernel that processes all states of as many channels as possible.

    `budget` limits the product of `N`, the number of states rounded up to a power of two, and `LANES`, the
    number of channels, which is between 1 and 32. The threads of a warp are laid out first along the
    channels and then along the states. The sizes in `axes` are also returned.
    """
    channels, states = inputs.A.shape
    n = triton.next_power_of_2(states)
    lanes = max(1, min(32, budget // n))
    return {"CHANNELS": channels, "STATES": states, **axes, "N": n, "LANES": lanes}


def _allocate_chunks(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Allocate the tensors `ends` and `totals`, uninitialised.

    Their shapes are (batch, chunks, states, channels) and (batch, chunks, channels).
    """
    batch, length, channels = inputs.u.shape
    totals = inputs.u.new_empty(batch, triton.cdiv(length, CHUNK), channels)
    return totals.new_empty(*totals.shape[:2], *inputs.A.T.shape), totals


def _states_first(A: Tensor) -> Tensor:
    """Return `A`, or its tangents, with the state axis before the channel axis, as the kernels require."""
    return A.transpose(-1, -2).contiguous()


def _carry_chunks(ends: Tensor, totals: Tensor, A: Tensor, first: Tensor, *, reverse: bool) -> Tensor:
    """Replace `ends` with the states at the starts of the chunks, and return the final state.

    `first` is the initial state. If `reverse` is true, the states are cotangents, and the chunks are
    processed from right to left.
    """
    batch, n_chunks, channels = totals.shape
    last = torch.empty_like(first)
    launch(
        scan_kernels.carry,
        (triton.cdiv(A.numel(), WIDTH), batch),
        *(ends, totals, A, first, last, n_chunks),
        warps=1,
        CHANNELS=channels,
        STATES=len(A),
        REVERSE=reverse,
        AHEAD=AHEAD,
        LANES=WIDTH,
    )
    return last


def _contiguous_inputs(given: Tensors) -> ScanInputs:
    """Return the inputs detached and contiguous; separate kernels process the bias and the gate."""
    u, delta, A, B, C, D, state = contiguous(given)
    return ScanInputs(u, delta, A, B, C, D, state)


def _forward(given: Tensors, *, save: bool, input_map: str = "euler") -> tuple[Tensors, Tensors]:
    inputs = _contiguous_inputs(given)
    u, delta, _, B, C, D, state, *_ = inputs
    batch, length, channels = u.shape
    A = _states_first(inputs.A)
    ends, totals = _allocate_chunks(inputs)
    n_chunks = totals.shape[1]
    sizes = _sizes(inputs, BLOCK, CHUNK=CHUNK, STAGES=STAGES, PHI=is_phi(input_map))
    grid = (n_chunks * triton.cdiv(channels, sizes["LANES"]), batch)
    chunks = ends, totals, length, n_chunks
    launch(scan_kernels.chunk_ends, grid, u, delta, A, B, *chunks, warps=1, **sizes)
    state_end = _carry_chunks(ends, totals, A, state, reverse=False)
    y = torch.empty_like(u)
    checkpoints = u.new_empty(batch, triton.cdiv(length, EVERY), *A.shape) if save else None
    arguments = (u, delta, A, B, C, D, ends, y, checkpoints, length, n_chunks)
    launch(scan_kernels.replay, grid, *arguments, warps=1, **sizes, EVERY=EVERY)
    return (y, state_end), () if checkpoints is None else (checkpoints,)


def _vjp(
    given: Tensors, saved: Tensors, bars: Tensors, needs_grad: Flags, *, input_map: str = "euler"
) -> OptionalTensors:
    inputs, needs = _contiguous_inputs(given), ScanInputs(*needs_grad)
    u, delta, _, B, C, D, *_ = inputs
    (checkpoints,), (y_bar, state_end_bar) = saved, contiguous(bars)
    batch, length, channels = u.shape
    A = _states_first(inputs.A)
    ends, totals = _allocate_chunks(inputs)
    n_chunks = totals.shape[1]
    sizes = _sizes(inputs, BLOCK, CHUNK=CHUNK, STAGES=STAGES)
    grid = (n_chunks * triton.cdiv(channels, sizes["LANES"]), batch)
    arguments = (delta, A, C, y_bar, ends, totals, length, n_chunks)
    launch(scan_kernels.chunk_ends_bar, grid, *arguments, warps=1, **sizes)
    state_bar = _carry_chunks(ends, totals, A, state_end_bar, reverse=True)
    sizes = _sizes(inputs, BLOCK_BAR, CHUNK=CHUNK, EVERY=EVERY, SUB=SUB, E=SLABS, PHI=is_phi(input_map))
    n_blocks = triton.cdiv(channels, sizes["E"] * sizes["LANES"])
    u_bar, delta_bar = torch.empty_like(u), torch.empty_like(delta)
    partial_sums = u.new_empty(2, n_blocks, *B.shape)
    A_bar = torch.empty_like(ends) if needs.A else None
    D_bar = torch.empty_like(totals) if needs.D else None
    launch(
        scan_kernels.replay_bar,
        (n_chunks * n_blocks, batch),
        *(u, delta, A, B, C, D, checkpoints, y_bar, ends),
        *(u_bar, delta_bar, *partial_sums, A_bar, D_bar),
        *(length, n_chunks, batch * length),
        warps=1,
        **sizes,
    )
    if A_bar is not None:
        A_bar = sum_blocks(A_bar.flatten(0, 1)).T
    if D_bar is not None:
        D_bar = sum_blocks(D_bar.flatten(0, 1))
    B_bar, C_bar = partial_sums.sum(1)
    return u_bar, delta_bar, A_bar, B_bar, C_bar, D_bar, state_bar


def _jvp(given: Tensors, tangents: OptionalTensors, *, input_map: str = "euler") -> tuple[Tensors, Tensors]:
    inputs = _contiguous_inputs(given)
    dots = ScanInputs(*contiguous_tangents(given, tangents, optional=(2, 5)))
    u, delta, _, B, C, D, state, *_ = inputs
    batch, length, channels = u.shape
    count = len(dots.u)
    A, A_dot = _states_first(inputs.A), None if dots.A is None else _states_first(dots.A)
    ends, totals = _allocate_chunks(inputs)
    ends_dot, totals_dot = (like.new_empty(count, *like.shape) for like in (ends, totals))
    n_chunks = totals.shape[1]
    together = min(4, triton.next_power_of_2(count))
    sizes = _sizes(inputs, 512 // together, CHUNK=CHUNK, G=together, PHI=is_phi(input_map))
    grid = (n_chunks * triton.cdiv(channels, sizes["LANES"]), batch, triton.cdiv(count, together))
    launch(
        scan_kernels.chunk_ends_dot,
        grid,
        *(u, delta, A, B, dots.u, dots.delta, A_dot, dots.B, ends, totals, ends_dot, totals_dot),
        *(length, n_chunks, count),
        warps=1,
        **sizes,
    )
    state_end = _carry_chunks(ends, totals, A, state, reverse=False)
    state_end_dot = torch.empty_like(dots.state)
    launch(
        scan_kernels.carry_dot,
        (triton.cdiv(A.numel(), WIDTH), batch, count),
        *(ends, totals, ends_dot, totals_dot, A, A_dot, dots.state, state_end_dot, n_chunks),
        warps=1,
        CHANNELS=channels,
        STATES=len(A),
        AHEAD=AHEAD,
        LANES=WIDTH,
    )
    y, y_dot = torch.empty_like(u), torch.empty_like(dots.u)
    launch(
        scan_kernels.replay_dot,
        grid,
        *(u, delta, A, B, C, D, dots.u, dots.delta, A_dot, dots.B, dots.C, dots.D),
        *(ends, ends_dot, y, y_dot, length, n_chunks, count),
        warps=1,
        **sizes,
    )
    return (y, state_end), (y_dot, state_end_dot)


SCAN = Primitive(_forward, _jvp, _vjp, reference.scan, outputs=2)
