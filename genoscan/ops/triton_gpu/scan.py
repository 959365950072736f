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
"""Bases per chunk: few enough for uncompensated sums, and enough for a fast carry kernel."""
CHECKPOINT_INTERVAL = 8
"""Bases from one stored state of the forward pass to the next. Divides `CHUNK`."""
BASES_IN_REGISTERS = 4
"""Consecutive bases whose states the vjp keeps in registers. Divides `CHECKPOINT_INTERVAL`.

For each such group, the vjp recomputes the states from the checkpoint before it: on average, each base is computed
`(CHECKPOINT_INTERVAL / BASES_IN_REGISTERS - 1) / 2` times more than without checkpoints.
"""
AHEAD = 16
"""Chunks that the carry kernel loads at once, so that it waits for memory less often."""
WIDTH = 32
"""State values per program of the carry kernel, a power of two: one for each thread of a warp."""
STAGES = 3
"""Bases that are loaded through shared memory before they are used (Triton's `num_stages`)."""
BLOCK = 512
"""State values per program: all states of as many channels as fit. A power of two."""
SLABS = 2
"""Slabs per program of the vjp; a power of two.

A slab is a block of adjacent channels with all of their states. Each thread processes one channel of every slab.
"""
BLOCK_BAR = 128
"""State values per slab, a power of two; fewer than `BLOCK`, because those of several bases are in registers."""


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
    checkpoints = u.new_empty(batch, triton.cdiv(length, CHECKPOINT_INTERVAL), *A.shape) if save else None
    arguments = (u, delta, A, B, C, D, ends, y, checkpoints, length, n_chunks)
    launch(scan_kernels.replay, grid, *arguments, warps=1, **sizes, CHECKPOINT_INTERVAL=CHECKPOINT_INTERVAL)
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
    sizes = _sizes(
        inputs,
        BLOCK_BAR,
        CHUNK=CHUNK,
        CHECKPOINT_INTERVAL=CHECKPOINT_INTERVAL,
        BASES_IN_REGISTERS=BASES_IN_REGISTERS,
        E=SLABS,
        PHI=is_phi(input_map),
    )
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
    sizes = _sizes(inputs, BLOCK // together, CHUNK=CHUNK, G=together, PHI=is_phi(input_map))
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
