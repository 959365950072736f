"""Derivatives of weights (A.4): error against autograd, memory against length, and training.

The paper's experiment of this name differentiates by an input.  Ours is that of `genoscan train`.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from benchmarks.alone import WARM_UP, cost
from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row
from benchmarks.figure import OURS, THEIRS, TORCH, panels
from benchmarks.paper.costs import contenders_cost
from benchmarks.paper.layers import SEED
from benchmarks.speed.sequence import real_bases, shipped_genome
from benchmarks.threshold import at_most
from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.inputs import OneHot
from genoscan.engine.target import whole_window
from genoscan.layers.config import ModelConfig
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.stack import Stack
from genoscan.layers.weights import build
from genoscan.training.optimizer import adamw
from genoscan.usage import MEBIBYTE, PAGE
from genoscan.verification.sweeps import relative

_COLUMNS = torch.tensor([0, 1, 2, 3, -1])
_SLOTS = 8
_LAST = 10
"""Last steps, whose mean loss is reported."""

Pulled = tuple[Tensor, tuple[Tensor, ...]]

_LABELS = {
    "stack": "genoscan, stack",
    "autograd": "autograd through genoscan's scan, stack",
    "ours-parameters": "genoscan, the paper's layer",
    "deep stack": "genoscan, 16 layers",
    "autograd-parameters": "autograd, loop, the paper's layer",
}


def measure(cell: Cell, _before: Sequence[Row], environment: Environment) -> list[Row]:
    """Compare a stack's derivatives with autograd's, or measure their cost."""
    wanted = dict(cell.settings)
    kind = wanted.pop("kind")
    row: Row = {"kind": kind} | wanted
    if kind != "memory":
        function = _compared if kind == "exact" else _trained
        return [row | function(**wanted, environment=environment)]
    cost_of = stack_cost if "n_layers" in wanted else contenders_cost
    return [row | environment.alone(cost_of, wanted)]


def _stack(n_layers: int, d_model: int, d_state: int, *, device: str = "cpu", kernels: str = "auto") -> Stack:
    """Return trainable Mamba blocks with seeded weights."""
    block = MambaConfig(d_state=d_state, d_conv=4, expand=2, dt_rank=-(-d_model // 16))
    config = ModelConfig(d_model=d_model, layers=(block,) * n_layers, context=0, reach=0, trained_on="nothing")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        stack = build(config, device=device, kernels=kernels).requires_grad_()
    assert isinstance(stack, Stack)
    return stack


def _codes(batch: int, length: int) -> Tensor:
    random = torch.Generator().manual_seed(SEED)
    return torch.randint(4, (batch, length), generator=random).to(torch.uint8)


def _pulled(stack: Stack, codes: Tensor, tile: int, slots: int = _SLOTS) -> Pulled:
    """Return the log-likelihood and its derivatives by the weights, computed by the engine."""
    weights = list(stack.parameters())
    inputs = OneHot(codes, torch.eye(4).to(weights[0]))
    target = whole_window(codes, _COLUMNS)
    result = consume(adjoint(stack, inputs, target, tile=tile, slots=slots, parameters=weights))
    return result.value.sum(), result.parameters


def _by_autograd(stack: Stack, codes: Tensor) -> Pulled:
    """Return the same by torch's autograd over the whole sequence."""
    weights = list(stack.parameters())
    x = torch.eye(4).to(weights[0])[codes.long()]
    y, _ = stack(x, stack.begin(len(codes)))
    value = whole_window(codes, _COLUMNS)(y, slice(0, codes.shape[1])).sum()
    return value.detach(), torch.autograd.grad(value, weights)


def _compared(
    n_layers: int, length: int, d_model: int, d_state: int, batch: int, tile: int, dtype: str, environment: Environment
) -> Row:
    """Return the largest relative error of a weight's derivative against float64 autograd."""
    torch.set_num_threads(environment.threads)
    codes, sizes = _codes(batch, length), (n_layers, d_model, d_state)
    stack = _stack(*sizes, device=environment.device)
    plain = _stack(*sizes, kernels="reference").double()
    if dtype == "float64":
        stack = stack.double()
    names = [name for name, _ in plain.named_parameters()]
    pairs = zip(_pulled(stack, codes, tile, slots=3)[1], _by_autograd(plain, codes)[1], strict=True)
    errors = [relative(found, expected) for found, expected in pairs]
    worst = max(range(len(errors)), key=errors.__getitem__)
    return {"error": errors[worst], "worst": names[worst], "n_weights": len(errors)}


def stack_cost(
    way: str,
    n_layers: int,
    length: int,
    d_model: int,
    d_state: int,
    batch: int,
    tile: int,
    *,
    device: str,
    threads: int,
) -> dict[str, Any]:
    """Measure the weights' derivatives of a stack in this process, by engine or autograd."""
    torch.set_num_threads(threads)
    stack = _stack(n_layers, d_model, d_state, device=device)
    codes = _codes(batch, length)

    def run(codes: Tensor) -> object:
        return _by_autograd(stack, codes) if way == "autograd" else _pulled(stack, codes, tile)

    warm = codes[:, :WARM_UP].clone()
    return cost(lambda: run(warm), lambda: run(codes), device, again=0)


def _trained(
    way: str,
    n_layers: int,
    steps: int,
    length: int,
    d_model: int,
    d_state: int,
    batch: int,
    tile: int,
    environment: Environment,
) -> Row:
    """Train a stack on real bases by the engine's or autograd's derivatives; return its loss."""
    torch.set_num_threads(environment.threads)
    stack = _stack(n_layers, d_model, d_state, device=environment.device)
    optimiser = adamw(stack, rate=1e-3, decay=0.01)
    bases = torch.from_numpy(real_bases(shipped_genome(), steps * batch * length))
    losses = []
    for codes in bases.view(steps, batch, length):
        value, bars = _by_autograd(stack, codes) if way == "autograd" else _pulled(stack, codes, tile)
        losses.append(-float(value) / (batch * (length - 1)) / math.log(2))
        for weight, bar in zip(stack.parameters(), bars, strict=True):
            weight.grad = -bar / (batch * length)
        optimiser.step()
    return {"first_bits": losses[0], "last_bits": sum(losses[-_LAST:]) / len(losses[-_LAST:])}


def _cells(quick: bool) -> list[Cell]:
    exact = {"length": 512, "d_model": 64, "d_state": 16, "batch": 2, "tile": 128}
    large = {"n_layers": 8, "d_model": 128, "d_state": 16, "batch": 2, "tile": 256}
    layer = {"d_model": 128, "d_state": 16}
    deep = {"n_layers": 16, "d_model": 64, "d_state": 16, "batch": 1, "tile": 1_024}
    train = {"steps": 100, "length": 1_024, "d_model": 64, "d_state": 16, "batch": 2, "tile": 128}
    depths, lengths = (2, 4, 8, 16), (8_192, 32_768, 131_072, 262_144)
    million = 1_000_000
    rivals, published = (512, 1_024, 2_048, 4_096, 8_192), (1_000, 5_000, 10_000, 20_000)
    if quick:
        exact |= {"length": 40, "d_model": 8, "d_state": 4, "tile": 16}
        large |= {"n_layers": 2, "d_model": 8, "d_state": 4, "tile": 32}
        layer = {"d_model": 8, "d_state": 4}
        deep |= {"n_layers": 3, "d_model": 8, "d_state": 4, "tile": 32}
        train |= {"steps": 3, "length": 64, "d_model": 8, "d_state": 4, "tile": 16}
        million = 100
        depths, lengths, rivals, published = (2,), (64, 128), (64,), (64,)  # type: ignore[assignment]
    ways = [("stack", length) for length in lengths] + [("autograd", length) for length in rivals]
    return [
        *(
            Cell(f"{n} layers, {dtype}", {"kind": "exact", "n_layers": n, "dtype": dtype} | exact)
            for n in depths
            for dtype in ("float32", "float64")
        ),
        *(Cell(f"{way} {length:,}", {"kind": "memory", "way": way, "length": length} | large) for way, length in ways),
        *(
            Cell(f"{name} {length:,}", {"kind": "memory", "contender": name, "length": length, "again": 0} | layer)
            for name in ("ours-parameters", "autograd-parameters")
            for length in published
        ),
        Cell("a million", {"kind": "memory", "way": "deep stack", "length": million} | deep),
        *(
            Cell(f"trained by {way}, {n} layers", {"kind": "train", "way": way, "n_layers": n} | train)
            for n in depths[:3]
            for way in ("engine", "autograd")
        ),
    ]


def _findings(table: pd.DataFrame) -> Iterator[Finding]:
    exact = table[table.kind == "exact"]
    for dtype, limit in (("float32", 1e-5), ("float64", 1e-11)):
        for row in exact[exact["dtype"] == dtype].to_dict("records"):
            yield Finding(
                f"{row['n_layers']:.0f} layers, {dtype}: largest difference to autograd ({row['worst']})",
                row["error"],
                threshold=at_most(limit),
            )
    memory = table[table.kind == "memory"]
    sizes = memory[memory.way == "stack"].set_index("length").extra_bytes
    yield Finding(
        f"peak memory at {sizes.index[-1]:,} against {sizes.index[0]:,}",
        sizes.iloc[-1] / max(sizes.iloc[0], PAGE),
        "times",
        at_most(1.05),
    )
    yield Finding("peak memory of the stack", sizes.max() / MEBIBYTE, "MiB")
    rival = memory[memory.way == "autograd"].set_index("length").extra_bytes
    yield Finding(f"autograd's at {rival.index[-1]:,}", rival.iloc[-1] / MEBIBYTE, "MiB")
    for row in memory[memory.way == "deep stack"].to_dict("records"):
        name = f"{row['n_layers']:.0f} layers, {row['length']:,} bases"
        yield Finding(f"{name}: peak memory", row["extra_bytes"] / MEBIBYTE, "MiB")
        yield Finding(f"{name}: a step of training", row["seconds"], "s")
    trained = table[table.kind == "train"].set_index(["n_layers", "way"])
    for n_layers in trained.index.unique("n_layers"):
        bits = trained.last_bits[n_layers]
        name = f"{n_layers:.0f} layers trained"
        yield Finding(f"{name}: bits a base at the end", bits["engine"])
        yield Finding(f"{name}: less those by autograd", bits["engine"] - bits["autograd"])


def _draw(table: pd.DataFrame) -> go.Figure:
    page = panels(["Peak memory of every parameter's derivative", "Difference to float64 autograd"])
    memory = table[table.kind == "memory"]
    shades = dict(zip(_LABELS, (OURS[0], TORCH[1], OURS[1], TORCH[2], THEIRS[0]), strict=True))
    for name, rows in memory.groupby(memory.way.fillna(memory.contender), sort=False):
        page.add_scatter(
            x=rows.length,
            y=rows.extra_bytes / MEBIBYTE,
            name=_LABELS[str(name)],
            mode="lines+markers",
            line_color=shades[str(name)],
            row=1,
            col=1,
        )
    exact = table[table.kind == "exact"]
    for shade, (dtype, rows) in zip(TORCH, exact.groupby("dtype", sort=False), strict=False):
        page.add_scatter(
            x=rows.n_layers, y=rows.error, name=str(dtype), mode="lines+markers", line_color=shade, row=1, col=2
        )
    page.update_xaxes(type="log", title="steps", dtick=1, exponentformat="SI", row=1, col=1)
    page.update_yaxes(type="log", title="MiB", row=1, col=1)
    page.update_xaxes(type="log", title="layers", tickvals=[2, 4, 8, 16], row=1, col=2)
    page.update_yaxes(type="log", exponentformat="power", title="relative", row=1, col=2)
    return page


A4 = Experiment(
    "derivatives of weights",
    "one layer of 128 channels of 16 states to 20,000 steps, as published, where an input's "
    "derivative is computed; here every weight's.  Stacks of 2 to 16 Mamba blocks, 2 x 512 bases, "
    "64 channels, against whole-window float64 autograd; memory of 8 blocks of 128 channels, a "
    "batch of 2, tiles of 256, 8 carries, which is what `genoscan train` runs; a step of 16 blocks "
    "on 1,000,000 bases.  Then 100 steps of AdamW (1e-3) on 2 x 1,024 bases of a chloroplast, "
    "which stands in for WikiText, by the engine's derivatives and by autograd's.",
    _cells,
    measure,
    _findings,
    _draw,
)
