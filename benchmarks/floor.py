"""Lower bounds of the default model's adjoint on this CPU, and the times it reaches.

    python -m benchmarks.floor benchmarks/results/speed/cpu-floor.json

One thread, float32, one tile repeatedly; the minimum of many repetitions, because other load only
adds time.  Times are microseconds per base, all layers together.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import commit, machine, versions
from benchmarks.speed.windows import question
from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.forward import forward
from genoscan.layers.catalogue import find_model
from genoscan.layers.mamba import Mamba
from genoscan.model import Model, load_model

TILE, TILES = 1024, 16


def least(run: Callable[[], Any], repetitions: int = 30) -> float:
    """Return the seconds of the fastest run."""
    run()
    return min(_seconds(run) for _ in range(repetitions))


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def ceilings() -> dict[str, float]:
    """Measure torch's own rates: matrix products, copies, exponentials."""
    square, vector = torch.randn(1024, 1024), torch.randn(2**22)
    small, out, room = torch.randn(2**17), torch.empty(2**17), torch.empty_like(vector)
    return {
        "GFLOP/s": 2 * 1024**3 / least(lambda: square @ square) / 1e9,
        "GB/s": 2 * vector.nbytes / least(lambda: room.copy_(vector)) / 1e9,
        "Gexp/s": len(small) / least(lambda: torch.exp(small, out=out)) / 1e9,
    }


def both_ways(run: Callable[..., Any], *inputs: Tensor) -> tuple[float, float]:
    """Return the seconds of an operation without a graph, and of its vjp alone."""
    with torch.no_grad():
        forth = least(lambda: run(*inputs))
    leaves = [tensor.requires_grad_() for tensor in inputs]
    outputs = run(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    bars = [torch.randn_like(output) for output in outputs]
    back = least(lambda: torch.autograd.grad(outputs, leaves, bars, retain_graph=True))
    return forth, back


def parts(block: Mamba, limits: dict[str, float]) -> dict[str, dict[str, float]]:
    """Measure the parts of a block, and compute the lower bound of each."""
    width, channels, config = (block.out_proj.out_features, block.in_proj.out_features // 2, block.config)
    x, u = torch.randn(1, TILE, width), torch.randn(1, TILE, channels)
    tail, state = block.begin(1)
    A = -torch.exp(block.A_log)
    B, C = torch.randn(2, 1, TILE, config.d_state)
    products = {
        "in_proj": (x, block.in_proj.weight),
        "x_proj": (u, block.x_proj.weight),
        "dt_proj": (torch.randn(1, TILE, config.dt_rank), block.dt_proj.weight),
        "out_proj": (u, block.out_proj.weight),
    }
    found = {}
    for name, (given, weight) in products.items():
        floor = 2 * TILE * weight.numel() / limits["GFLOP/s"] / 1e9
        times = both_ways(lambda g, w=weight: F.linear(g, w), given.clone())
        found[name] = (*times, floor, floor)
    a_pass = u.nbytes / limits["GB/s"] / 1e9
    exponentials = u.numel() * config.d_state / limits["Gexp/s"] / 1e9
    scan = both_ways(
        lambda u, delta, B, C, state, z: block.kernels.scan(u, delta, A, B, C, block.D, state, block.dt_proj.bias, z),
        *(torch.randn(1, TILE, channels) for _ in range(2)),
        *(B, C, state),
        torch.randn(1, TILE, channels),
    )
    found["scan"] = (*scan, exponentials, exponentials)
    conv = both_ways(
        lambda u, tail: block.kernels.conv_silu(u, block.conv.weight, block.conv.bias, tail), *(u.clone(), tail)
    )
    found["conv_silu"] = (*conv, 2 * a_pass, 3 * a_pass)
    assert block.norm is not None
    norm = both_ways(block.norm, x.clone())
    found["rms_norm"] = (*norm, a_pass, 1.5 * a_pass)
    names = ("forward", "vjp", "forward_floor", "vjp_floor")
    return {name: dict(zip(names, times, strict=True)) for name, times in found.items()}


def whole(model: Model) -> tuple[float, float]:
    """Return the seconds of a forward sweep and of an adjoint with one slot per tile."""
    codes = torch.randint(0, 4, (1, TILE * TILES), dtype=torch.uint8)
    inputs, target = question(model, codes)
    forth = least(lambda: [None for _ in forward(model.causal, inputs, tile=TILE)], 7)
    back = least(lambda: consume(adjoint(model.causal, inputs, target, tile=TILE, slots=TILES)), 7)
    return forth, back


def main(path: Path) -> None:
    """Measure, print a table and write the numbers."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load_model(find_model("bacteria"))
    limits = ceilings()
    block = model.causal.layers[0]
    assert isinstance(block, Mamba)
    scale = len(model.causal.layers) / TILE * 1e6
    rows = {
        name: {way: seconds * scale for way, seconds in times.items()} for name, times in parts(block, limits).items()
    }
    forth, back = (seconds / TILE / TILES * 1e6 for seconds in whole(model))
    # With one slot per tile an adjoint runs every tile forward twice and backward once.
    taken = sum(2 * row["forward"] + row["vjp"] for row in rows.values())
    floor = sum(2 * row["forward_floor"] + row["vjp_floor"] for row in rows.values())
    print(" ".join(f"{limit:.1f} {unit}" for unit, limit in limits.items()))
    for name, row in rows.items():
        print(f"{name:10}" + "".join(f"{number:8.2f}" for number in row.values()))
    print(f"forward {forth:.1f}, adjoint {back:.1f}; its parts {taken:.1f}, floor {floor:.1f}")
    record = {
        "date": str(date.today()),
        "machine": machine("cpu"),
        "versions": versions(),
        "commit": commit(),
        "tile": TILE,
        "ceilings": limits,
        "parts": rows,
        "forward": forth,
        "adjoint": back,
        "adjoint_parts": taken,
        "adjoint_floor": floor,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
