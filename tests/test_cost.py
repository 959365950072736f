"""Time per base does not grow with length, beyond what recomputation must cost.

    pytest -n 0 -m slow tests/test_cost.py -s     about 10 minutes on two cores, alone

Windows of both lengths are run in turn, so that a machine whose speed drifts is fair to both.
"""

import time

import pytest
import torch

from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.inputs import OneHot
from genoscan.engine.target import whole_window
from genoscan.layers.catalogue import find_model
from genoscan.model import Model, load_model

SHORT, LONG, TILE = 65_536, 1_048_576, 1_024


def seconds_per_base(model: Model, length: int, slots: int) -> float:
    random = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 4, (1, length), generator=random, dtype=torch.uint8)
    inputs = OneHot(codes, model.table())
    target = whole_window(codes, model.columns())
    started = time.process_time()
    consume(adjoint(model.stack, inputs, target, tile=TILE, slots=slots))
    return (time.process_time() - started) / length


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "limit"), [(64, 1.35), (LONG // TILE, 1.1)])
def test_time_per_base(slots: int, limit: float) -> None:
    model = load_model(find_model("bacteria"))
    torch.set_num_threads(1)  # processor time of one thread: no waiting is counted
    short = [seconds_per_base(model, SHORT, slots)]
    long = seconds_per_base(model, LONG, slots)
    short += [seconds_per_base(model, SHORT, slots) for _ in range(2)]
    ratio = long / sorted(short)[1]
    print(f"{slots} slots: {1e6 * long:.1f} us a base at {LONG:,}, {ratio:.3f} times {SHORT:,}")
    assert ratio <= limit
