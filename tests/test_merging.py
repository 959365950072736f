"""Two opposite sweeps: every position is merged once, whichever reaches it first."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genoscan.engine.boundaries import Boundary, BoundaryStore
from genoscan.engine.inputs import Spans
from genoscan.engine.merging import merge_directions

CPU = torch.device("cpu")


def values(length: int, way: int) -> Tensor:
    """Return numbers that tell a base and a sweep apart from any other."""
    return torch.arange(1.0, length + 1)[None, :, None] * (1, 1000)[way]


def sweep(length: int, tile: int, way: int) -> Iterator[tuple[slice, Tensor]]:
    for span in Spans(length, tile):
        here = slice(length - span.stop, length - span.start) if way else span
        yield here, values(length, way)[:, here]


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2]))
def test_the_second_sweep_to_reach_a_position_merges_both(length: int, tile: int, threads: int) -> None:
    torch.set_num_threads(threads)

    def merge(kept: Boundary, span: slice, left: Tensor, right: Tensor) -> None:
        assert torch.equal(left, values(length, 0)[:, span])
        assert torch.equal(right, values(length, 1)[:, span])
        kept.write(span, left + right)

    sweeps = sweep(length, tile, 0), sweep(length, tile, 1)
    kept = merge_directions(BoundaryStore(length, CPU), CPU, merge, *sweeps)
    assert torch.equal(kept.read(slice(0, length)), values(length, 0) + values(length, 1))


@pytest.mark.parametrize("way", [0, 1])
def test_when_one_fails_the_other_stops(way: int) -> None:
    came: list[slice] = []

    def endless() -> Iterator[tuple[slice, Tensor]]:
        while True:
            came.append(slice(0, 0))
            yield slice(0, 0), torch.zeros(1, 0, 1)

    def fails() -> Iterator[tuple[slice, Tensor]]:
        yield from ()
        raise ValueError("not today")

    ways = (fails(), endless()) if way == 0 else (endless(), fails())
    with pytest.raises(ValueError, match="not today"):
        merge_directions(BoundaryStore(9, CPU), CPU, lambda *_given: None, *ways)
