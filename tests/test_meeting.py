"""Two sweeps that meet: every base is put together once, whoever comes first."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genoscan.engine.boundaries import Between, Shelf
from genoscan.engine.inputs import Spans
from genoscan.engine.meeting import Meeting

CPU = torch.device("cpu")


def said(length: int, way: int) -> Tensor:
    """Return numbers that tell a base and a sweep apart from any other."""
    return torch.arange(1.0, length + 1)[None, :, None] * (1, 1000)[way]


def sweep(length: int, tile: int, way: int) -> Iterator[tuple[slice, Tensor]]:
    for span in Spans(length, tile):
        here = slice(length - span.stop, length - span.start) if way else span
        yield here, said(length, way)[:, here]


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2]))
def test_who_comes_second_puts_both_together(length: int, tile: int, threads: int) -> None:
    torch.set_num_threads(threads)

    def together(kept: Between, span: slice, left: Tensor, right: Tensor) -> None:
        assert torch.equal(left, said(length, 0)[:, span])
        assert torch.equal(right, said(length, 1)[:, span])
        kept.write(span, left + right)

    meeting = Meeting(Shelf(length, CPU), CPU, together)
    kept = meeting.run(sweep(length, tile, 0), sweep(length, tile, 1))
    assert torch.equal(kept.read(slice(0, length)), said(length, 0) + said(length, 1))


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
        Meeting(Shelf(9, CPU), CPU, lambda *_said: None).run(*ways)
