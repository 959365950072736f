"""The mixer of a PD-SSM block for the CPU, implemented as a single autograd function.

Separate operations of torch make some forty passes over arrays of states. Here, one kernel computes decays,
states and what is read of them, and another their cotangents. The notation is that of `pd_mix`.
"""

# Functions compiled by numba have no annotations; their callers do.
# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genoscan.ops.cpu_linear import add_product_, as_matrix, concatenate, product
from genoscan.ops.dual import transformed
from genoscan.ops.lane_math import exponential, one_minus_exponential, sigmoid, sine
from genoscan.ops.lanes import (
    LANES,
    compiled,
    load,
    pad_lanes,
    parallel_for,
    store,
    unpad_lanes,
    use_widest_vectors,
    where,
)
from genoscan.ops.memory import aligned_empty
from genoscan.ops.pd_mix import PdMixWeights, by_head, in_planes, pd_mix_by_operations, step_of
from genoscan.ops.pd_scan import check_indices
from genoscan.ops.primitive import Tensors, check_precision, vjp_by_definition
from genoscan.ops.reference import REFERENCE

_LARGEST_ANGLE = 8192.0


@compiled
def _forward(step, angle, inflow, C, largest, state, route, maps, coupled, decay, x, read, dx, b, first, last):
    """Write the decays, the states `x`, and `read`; `dx` is a buffer for the states of one head.

    In coupled blocks, `angle` is the phase that has been multiplied by the step.
    """
    use_widest_vectors()
    groups = step.shape[-1] // LANES
    for head in range(first, last):
        before = state[b, head]
        for t in range(step.shape[1]):
            poison = 0 * largest[b, t, head]
            for g in range(groups):
                turn = load(angle, (b, t, head, g))
                modulus = exponential(0.0 - load(step, (b, t, head, g))) + poison
                d_re, d_im = modulus * sine(turn, 1.0), modulus * sine(turn, 0.0)
                store(decay, (b, t, head, 0, g), d_re)
                store(decay, (b, t, head, 1, g), d_im)
                x_re, x_im = load(before, (0, g)), load(before, (1, g))
                store(dx, (0, g), d_re * x_re - d_im * x_im)
                store(dx, (1, g), d_re * x_im + d_im * x_re)
            now, p = x[b, t, head], maps[head, route[b, t, head]]
            for plane in range(2):
                for g in range(groups):
                    value = load(inflow, (b, t, head, plane, g))
                    if coupled:
                        value = value * one_minus_exponential(0.0 - load(step, (b, t, head, g)))
                    store(now, (plane, g), value)
                for q in range(len(p)):
                    now[plane, p[q]] += dx[plane, q]
            for g in range(groups):
                real = load(C, (b, t, head, 0, g)) * load(now, (0, g))
                store(read, (b, t, head, g), real - load(C, (b, t, head, 1, g)) * load(now, (1, g)))
            before = now


@compiled
def _vjp(
    step, phase, inflow, decay, C, state, route, maps, coupled, x, read_bar, bars, state_bar, sent, b, first, last
):
    """Write the cotangents `bars` of size, phase, inflow and C.

    The size is what the step is computed from: `softplus(size)` in coupled blocks, whose derivative is
    `1 - exp(-step)`, and `relu(size)` in others.

    On entry, `state_bar` is the cotangent of the final state; on exit, it is the cotangent of the initial
    state. `sent` is a buffer for the states of one head.
    """
    use_widest_vectors()
    size_bar, phase_bar, inflow_bar, C_bar = bars
    groups = step.shape[-1] // LANES
    for head in range(first, last):
        carried = state_bar[b, head]
        for t in range(step.shape[1] - 1, -1, -1):
            here, now = inflow_bar[b, t, head], x[b, t, head]
            for g in range(groups):
                bar = load(read_bar, (b, t, head, g))
                store(here, (0, g), load(carried, (0, g)) + bar * load(C, (b, t, head, 0, g)))
                store(here, (1, g), load(carried, (1, g)) - bar * load(C, (b, t, head, 1, g)))
                store(C_bar, (b, t, head, 0, g), bar * load(now, (0, g)))
                store(C_bar, (b, t, head, 1, g), 0.0 - bar * load(now, (1, g)))
            p = maps[head, route[b, t, head]]
            for plane in range(2):
                for q in range(len(p)):
                    sent[plane, q] = here[plane, p[q]]
            before = x[b, t - 1, head] if t > 0 else state[b, head]
            for g in range(groups):
                s_re, s_im = load(sent, (0, g)), load(sent, (1, g))
                x_re, x_im = load(before, (0, g)), load(before, (1, g))
                d_re, d_im = load(decay, (b, t, head, 0, g)), load(decay, (b, t, head, 1, g))
                re_bar, im_bar = x_re * s_re + x_im * s_im, x_re * s_im - x_im * s_re
                store(carried, (0, g), d_re * s_re + d_im * s_im)
                store(carried, (1, g), d_re * s_im - d_im * s_re)
                a = load(step, (b, t, head, g))
                step_bar, angle_bar = 0.0 - (d_re * re_bar + d_im * im_bar), d_re * im_bar - d_im * re_bar
                if coupled:
                    here_re, here_im = load(here, (0, g)), load(here, (1, g))
                    b_re, b_im = load(inflow, (b, t, head, 0, g)), load(inflow, (b, t, head, 1, g))
                    step_bar = step_bar + exponential(0.0 - a) * (here_re * b_re + here_im * b_im)
                    step_bar = step_bar + angle_bar * load(phase, (b, t, head, g))
                    angle_bar = angle_bar * a
                    gain = one_minus_exponential(0.0 - a)
                    store(here, (0, g), here_re * gain)
                    store(here, (1, g), here_im * gain)
                    store(size_bar, (b, t, head, g), step_bar * gain)
                else:
                    store(size_bar, (b, t, head, g), where(a <= 0.0, 0.0, step_bar))
                store(phase_bar, (b, t, head, g), angle_bar)


@compiled
def _gate_rows(mixed, u, z, D, y, first, last):
    use_widest_vectors()
    for row in range(first, last):
        for g in range(mixed.shape[1] // LANES):
            gate = load(z, (row, g))
            value = load(mixed, (row, g)) + load(D, g) * load(u, (row, g))
            store(y, (row, g), value * gate * sigmoid(gate))


@compiled
def _gate_bar_rows(mixed, u, z, D, y_bar, mixed_bar, u_bar, z_bar, first, last):
    use_widest_vectors()
    for row in range(first, last):
        for g in range(mixed.shape[1] // LANES):
            gate, skip, bar = load(z, (row, g)), load(D, g), load(y_bar, (row, g))
            up = sigmoid(gate)
            value = load(mixed, (row, g)) + skip * load(u, (row, g))
            passed = bar * gate * up
            store(mixed_bar, (row, g), passed)
            store(u_bar, (row, g), passed * skip)
            store(z_bar, (row, g), bar * value * up * (1.0 + gate * (1.0 - up)))


class _Saved(NamedTuple):
    """Tensors that are saved for the vjp of a tile; `mixed` is the output of `state_out`.

    `inflow` is not yet scaled. If the block is not coupled, phase and inflow are not needed, and are empty.
    """

    u: Tensor
    z: Tensor
    state: Tensor
    step: Tensor
    phase: Tensor
    inflow: Tensor
    C: Tensor
    decay: Tensor
    states: Tensor
    route: Tensor
    mixed: Tensor


class _PdMix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, coupled: bool, u: Tensor, z: Tensor, state: Tensor, *given: Tensor
    ) -> tuple[Tensor, Tensor]:
        weights = PdMixWeights(*given)
        heads, n_maps, n_states = maps.shape
        u, z = u.contiguous(), z.contiguous()
        low = product(u, weights.low.mT).chunk(3, -1)
        size, phase, C = (
            product(part.contiguous(), weight.mT).add_(bias)
            for part, weight, bias in zip(low, weights[2:8:2], weights[3:8:2], strict=True)
        )
        step, phase = by_head(step_of(size, coupled=coupled), heads), by_head(phase, heads)
        inflow, C = in_planes(product(u, weights.B_proj.mT), heads), in_planes(C, heads)
        angle = step * phase if coupled else phase
        least, most = angle.aminmax()
        if max(-float(least), float(most)) > _LARGEST_ANGLE:  # more than `sine` takes
            angle = torch.remainder(angle.double(), 2 * torch.pi).to(angle)
        scores = product(u, weights.router.mT).unflatten(-1, (heads, n_maps))
        route = scores.argmax(-1).to(torch.int16)
        check_indices("maps", maps, n_states)
        padded = [pad_lanes(part) for part in (step, angle, inflow, C)]
        largest, *choices = _arrays(scores.amax(-1), route, maps)
        decay, x, read = (aligned_empty(padded[like].shape, padded[0]) for like in (2, 2, 0))
        first_state = pad_lanes(state)

        def run(i_batch: int, _part: int, first: int, last: int) -> None:
            dx = np.empty(x.shape[-2:], x.dtype)
            _forward(*padded, largest, first_state, *choices, coupled, decay, x, read, dx, i_batch, first, last)

        parallel_for(run, *state.shape[:2])
        mixed = product(unpad_lanes(read, n_states).flatten(-2), weights.state_out.mT)
        (y,) = _over_rows(_gate_rows, (mixed, u, z), weights.D, 1)
        scaled = (phase, inflow) if coupled else (phase.new_empty(0, 0, 0, 0), inflow.new_empty(0, 0, 0, 0, 0))
        states = (torch.from_numpy(part) for part in (decay, x))
        saved = _Saved(u, z, state, step, *scaled, C, *states, route, mixed)
        ctx.coupled = coupled
        ctx.save_for_backward(maps, *weights, *saved)
        return y, unpad_lanes(x[:, -1], n_states).clone()

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor, end_bar: Tensor) -> Any:
        maps, *tensors = ctx.saved_tensors
        n_weights = len(PdMixWeights._fields)
        weights, saved = PdMixWeights(*tensors[:n_weights]), _Saved(*tensors[n_weights:])
        if torch.is_grad_enabled() or transformed((y_bar, end_bar)):
            inputs, flags = (saved.u, saved.z, saved.state, *weights), ctx.needs_input_grad[2:]
            pulled = vjp_by_definition(_definition, inputs, (y_bar, end_bar), flags, maps=maps, coupled=ctx.coupled)
            return None, None, *pulled
        rows = saved.mixed, saved.u, saved.z, y_bar
        mixed_bar, u_bar, z_bar = _over_rows(_gate_bar_rows, rows, weights.D, 3)
        read_bar = by_head(product(mixed_bar, weights.state_out), len(maps))
        padded = saved.step, saved.phase, saved.inflow, saved.C, saved.state, read_bar
        step, phase, inflow, C, state, bar = map(pad_lanes, padded)
        decay, x, *choices = _arrays(saved.decay, saved.states, saved.route, maps)
        bars = tuple(aligned_empty(like.shape, step) for like in (step, step, decay, decay))
        state_bar = pad_lanes(end_bar).copy()

        def run(i_batch: int, _part: int, first: int, last: int) -> None:
            sent = np.empty(x.shape[-2:], x.dtype)
            inputs = step, phase, inflow, decay, C, state, *choices, ctx.coupled, x, bar
            _vjp(*inputs, bars, state_bar, sent, i_batch, first, last)

        parallel_for(run, *state.shape[:2])
        n_states = maps.shape[-1]
        size_bar, phase_bar, inflow_bar, C_bar = (unpad_lanes(part, n_states).flatten(2) for part in bars)
        parts = (size_bar, weights.size), (phase_bar, weights.phase), (C_bar, weights.C_proj)
        low_bar = concatenate([product(part, weight) for part, weight in parts], -1)
        u_bar = add_product_(add_product_(u_bar, low_bar, weights.low), inflow_bar, weights.B_proj)
        needs = PdMixWeights(*ctx.needs_input_grad[-n_weights:])
        weight_bars: dict[str, Any] = dict.fromkeys(PdMixWeights._fields)
        low = product(saved.u, weights.low.mT).chunk(3, -1) if any(needs[2:8]) else ()
        names = ("size", "size_bias"), ("phase", "phase_bias"), ("C_proj", "C_bias")
        for (name, bias), given, (given_bar, _) in zip(names, low, parts, strict=False):
            weight_bars |= {name: _outer(given_bar, given), bias: as_matrix(given_bar).sum(0)}
        if needs.B_proj:
            weight_bars["B_proj"] = _outer(inflow_bar, saved.u)
        if needs.low:
            weight_bars["low"] = _outer(low_bar, saved.u)
        if needs.state_out:
            states = unpad_lanes(x, n_states)
            read = (saved.C * states * saved.C.new_tensor([1.0, -1.0])[:, None]).sum(-2)
            weight_bars["state_out"] = _outer(mixed_bar, read.flatten(2))
        if needs.D:
            weight_bars["D"] = as_matrix(mixed_bar * saved.u).sum(0)
        return None, None, u_bar, z_bar, unpad_lanes(state_bar, n_states), *weight_bars.values()


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum over all bases of the outer products of two tensors of shape (batch, tile, features)."""
    return product(as_matrix(a).mT, as_matrix(b))


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.contiguous().numpy(force=True) for tensor in tensors]


def _over_rows(kernel: Any, inputs: Tensors, D: Tensor, n_outputs: int) -> list[Tensor]:
    """Return the outputs of a kernel over the rows of tensors of shape (batch, tile, channels)."""
    rows = [pad_lanes(part).reshape(-1, -(-len(D) // LANES) * LANES) for part in inputs]
    outputs = [aligned_empty(rows[0].shape, rows[0]) for _ in range(n_outputs)]
    mixed, u, z, *others = rows
    weight = pad_lanes(D)

    def run(_batch: int, _part: int, first: int, last: int) -> None:
        kernel(mixed, u, z, weight, *others, *outputs, first, last)

    parallel_for(run, 1, len(mixed))
    return [unpad_lanes(output, len(D)).view_as(inputs[0]) for output in outputs]


def _definition(
    u: Tensor, z: Tensor, state: Tensor, *weights: Any, maps: Tensor, coupled: bool
) -> tuple[Tensor, Tensor]:
    return pd_mix_by_operations(REFERENCE, u, z, state, PdMixWeights(*weights), maps=maps, coupled=coupled)


def pd_mix(
    u: Tensor, z: Tensor, state: Tensor, weights: PdMixWeights, *, maps: Tensor, coupled: bool
) -> tuple[Tensor, Tensor]:
    """Compute the mixer over a tile as a single autograd function.

    Parameters
    ----------
    u, z, state, weights, maps, coupled
        See `pd_mix.pd_mix_by_operations`.

    Returns
    -------
    tuple of Tensor
        Outputs before the output projection, of the same shape as `u`, and the final state.

    Notes
    -----
    The function is exact up to rounding: it computes the operations of `pd_mix_by_operations`, and its backward
    pass computes the vjps of these operations in reverse order.

    For each base, the tensors saved for the vjp are three values per channel, and seven per state of a head
    (ten if the block is coupled).
    """
    inputs = u, z, state, *weights
    check_precision(inputs)
    if transformed(inputs):
        return _definition(*inputs, maps=maps, coupled=coupled)
    outputs: tuple[Tensor, Tensor] = _PdMix.apply(maps, coupled, *inputs)
    return outputs
