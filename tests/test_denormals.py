"""Denormals are flushed to zero during sweeps, on every thread, and only then."""

from collections.abc import Generator

import pytest
import torch
from torch import Tensor
from toys import genome, one_hot_table, tiny_stack

from genoscan.engine.adjoint import adjoint
from genoscan.engine.inputs import OneHot
from genoscan.ops.denormals import flush_denormals, flush_denormals_during, flushes_denormals
from genoscan.ops.lanes import parallel_for

TINY = 1e-40


def denormals_are_zero() -> bool:
    return (torch.tensor([TINY]) * 1).item() == 0


def counting() -> Generator[bool, None, str]:
    for _ in range(3):
        yield denormals_are_zero()
    return "end"


def test_only_while_the_next_tile_is_made() -> None:
    tiles = flush_denormals_during(counting())
    for made in tiles:
        assert made
        assert not denormals_are_zero()
    assert not flushes_denormals()

    first, second = flush_denormals_during(counting()), flush_denormals_during(counting())
    next(first)
    next(second)
    first.close()
    second.close()
    assert not denormals_are_zero()


def test_a_callers_own_mode_is_kept() -> None:
    with flush_denormals():
        list(flush_denormals_during(counting()))
        assert denormals_are_zero()
    assert not denormals_are_zero()


@pytest.mark.parametrize("mode", [False, True])
def test_kernel_threads_work_in_the_callers_mode(mode: bool) -> None:
    seen: list[bool] = []
    with flush_denormals(mode):
        parallel_for(lambda *_part: seen.append(denormals_are_zero()), batch=1, groups=8)
    assert seen == [mode, mode]


class Fading:
    """A target that asks for the last output alone, and hardly."""

    def __call__(self, outputs: Tensor, span: slice) -> Tensor:
        weight = TINY * 1e3 if span.stop == 300 else 0.0
        return weight * outputs[:, -1].sum(-1)


@pytest.mark.parametrize("threads", [1, 2])
def test_derivatives_that_fade_end_in_zero(threads: int) -> None:
    stack, inputs = (tiny_stack(8, 2, dtype=torch.float32), OneHot(genome(300), one_hot_table(torch.float32)))
    torch.set_num_threads(threads)
    x_bar = torch.cat([bar for _, bar in adjoint(stack, inputs, Fading(), tile=50, slots=3)], 1)
    assert not ((x_bar != 0) & (x_bar.abs() < torch.finfo(torch.float32).tiny)).any()
