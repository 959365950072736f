"""The mixer of a PD-SSM block as one function against its separate operations in plain torch."""

from functools import partial

import pytest
import torch
from laws import assert_near, assert_same_bits, random_like
from operations import normals, pd_problem
from torch import Tensor
from toys import pd_block
from ways import hold

from genoscan.ops.cpu import CPU
from genoscan.ops.cpu_pd_mix import pd_mix
from genoscan.ops.pd_mix import PdMixWeights, pd_mix_by_operations
from genoscan.ops.reference import REFERENCE

reference = partial(pd_mix_by_operations, REFERENCE)
Problem = tuple[tuple[Tensor, Tensor, Tensor], PdMixWeights, Tensor]


def problem(heads: int = 2, states: int = 17, channels: int = 20, length: int = 33, batch: int = 2) -> Problem:
    """Return inputs, weights and maps; half of the decays are exactly 1 in size."""
    rank, n_maps = 3, 3
    u, z = normals((batch, length, channels), (batch, length, channels))
    (_, _, state), chosen = pd_problem(length, heads, states, batch=batch)
    shapes = {
        "B_proj": (heads * 2 * states, channels),
        "low": (3 * rank, channels),
        "size": (heads * states, rank),
        "size_bias": (heads * states,),
        "phase": (heads * states, rank),
        "phase_bias": (heads * states,),
        "C_proj": (heads * 2 * states, rank),
        "C_bias": (heads * 2 * states,),
        "router": (heads * n_maps, channels),
        "state_out": (channels, heads * states),
        "D": (channels,),
    }
    weights = PdMixWeights(*(w / w.shape[-1] ** 0.5 for w in normals(*shapes.values(), seed=2)))
    return (u, z, state), weights, chosen["maps"]


def answers(
    kernels: str, inputs: tuple[Tensor, ...], weights: PdMixWeights, maps: Tensor, *, coupled: bool
) -> list[Tensor]:
    """Return outputs, and the cotangents of the inputs and of all weights but the router's."""
    opened = PdMixWeights(*(part.detach().requires_grad_() for part in weights))._replace(router=weights.router)
    states = tuple(part.detach().requires_grad_() for part in inputs)
    given = (*states, *(weight for weight in opened if weight.requires_grad))
    outputs = (pd_mix if kernels == "cpu" else reference)(*states, opened, maps=maps, coupled=coupled)
    bars = random_like(tuple(part.detach() for part in outputs), 3)
    return [*(part.detach() for part in outputs), *torch.autograd.grad(outputs, given, bars)]


SIZES = [(1, 1, 1, 1, 1), (2, 17, 20, 33, 2), (1, 16, 16, 2, 1), (3, 64, 48, 20, 1), (2, 5, 33, 7, 3)]


COUPLED = pytest.mark.parametrize("coupled", [False, True])


@COUPLED
@pytest.mark.parametrize("size", SIZES)
def test_outputs_and_derivatives_are_those_of_the_operations(
    size: tuple[int, ...], dtype: torch.dtype, coupled: bool
) -> None:
    inputs, weights, maps = problem(*size)
    given, rounded = (tuple(part.to(dtype) for part in parts) for parts in (inputs, weights))
    found = answers("cpu", given, PdMixWeights(*rounded), maps, coupled=coupled)
    exact = PdMixWeights(*(part.double() for part in rounded))
    expected = answers("reference", tuple(part.double() for part in given), exact, maps, coupled=coupled)
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b, dtype)


@COUPLED
@pytest.mark.parametrize("turns", [1e3, 1e6])
def test_angles_may_be_large(turns: float, coupled: bool) -> None:
    inputs, weights, maps = problem()
    weights = weights._replace(phase_bias=turns * weights.phase_bias)
    found, truth = (answers(kernels, inputs, weights, maps, coupled=coupled) for kernels in ("cpu", "reference"))
    for a, b in zip(found, truth, strict=True):
        assert_near(a, b, bar=1e-9)


def test_scores_that_overflow_give_nan() -> None:
    inputs, weights, maps = problem(batch=1)
    u = inputs[0].clone()
    u[0, 20] = torch.inf
    y, state = pd_mix(u, *inputs[1:], weights, maps=maps, coupled=False)
    assert y[0, :20].isfinite().all()
    assert y[0, 20:].isnan().all()
    assert state.isnan().any()


def test_parts_of_a_tile_give_the_results_of_the_tile_up_to_rounding() -> None:
    (u, z, state), weights, maps = problem()
    whole, end = pd_mix(u, z, state, weights, maps=maps, coupled=False)
    first, between = pd_mix(u[:, :10], z[:, :10], state, weights, maps=maps, coupled=False)
    second, last = pd_mix(u[:, 10:], z[:, 10:], between, weights, maps=maps, coupled=False)
    assert_near(torch.cat([first, second], 1), whole)
    assert_near(last, end)


@COUPLED
@pytest.mark.parametrize("way", ["functional.hvp", "func.jvp", "func.vmap", "batched cotangents", "gradient penalty"])
def test_derivatives_of_every_order(way: str, coupled: bool) -> None:
    inputs, weights, maps = problem(1, 3, 4, 5, 2)
    found, truth = (
        lambda *given, mix=mix: mix(*given, weights, maps=maps, coupled=coupled) for mix in (pd_mix, reference)
    )
    hold(way, found, truth, inputs)


@pytest.mark.parametrize("trained", [False, True])
def test_a_graph_does_not_change_the_bits_of_a_block(trained: bool) -> None:
    layer = pd_block(kernels="cpu").requires_grad_(trained)
    assert layer.kernels is CPU
    x = random_like(torch.zeros(1, 40, 8, dtype=torch.float64))
    with torch.no_grad():
        plain, _ = layer(x, layer.begin(1))
    recorded, _ = layer(x.requires_grad_(), layer.begin(1))
    assert_same_bits(recorded.detach(), plain)
