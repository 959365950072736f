"""The ghost pulse (Figure 4): the effect of one step on all later ones, also in real DNA."""

from collections.abc import Iterator, Sequence

import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row
from benchmarks.figure import OURS, TORCH, panels
from benchmarks.paper import truth
from benchmarks.paper.layers import noise, operator
from benchmarks.paper.rivals import jvp
from benchmarks.speed.sequence import real_bases, shipped_genome
from benchmarks.threshold import at_most
from genoscan.engine.inputs import OneHot
from genoscan.engine.tangent import BaseChange, tangent
from genoscan.layers.catalogue import find_model
from genoscan.model import load_model
from genoscan.verification.sweeps import relative

_AFTER = 20_000
"""Steps after the pulse compared with float64; in float32 the response underflows earlier."""

_POINTS = 120
_A_LOG = -4.0
_TILE = 128


def measure(cell: Cell, _before: Sequence[Row], environment: Environment) -> list[Row]:
    """Return the norm of the response at several distances from the pulse, ours and float64."""
    torch.set_num_threads(environment.threads)
    if "d_model" in cell.settings:
        before, found, expected = _layer(**cell.settings, device=environment.device)
    else:
        before, found, expected = _dna(**cell.settings, device=environment.device)
    error = relative(found, expected)
    far = torch.logspace(0, 5, _POINTS).long().unique() - 1
    return [
        {
            "length": cell.settings["length"],
            "largest_before": before,
            "error": error,
            "distance": int(at),
            "found": float(found[at].norm()),
            "expected": float(expected[at].norm()),
        }
        for at in far
        if at < len(found)
    ]


def _layer(length: int, d_model: int, d_state: int, device: str) -> tuple[float, Tensor, Tensor]:
    """Return the largest tangent before the pulse, those after it, and the latter in float64."""
    start = int(0.8 * length)
    stop = min(length, start + _AFTER)
    u, _ = noise(length, d_model, scale=0.01)
    u_dot = torch.zeros_like(u)
    u_dot[start] = 1
    made, before, after = operator(d_model, d_state, a_log=_A_LOG, device=device), 0.0, []
    for span, _, y_dot in made.pgf_stream(u.to(device), u_dot.to(device), _TILE):
        split = min(max(start - span.start, 0), len(y_dot))
        if split:
            before = max(before, float(y_dot[:split].abs().max()))
        after.append(y_dot[split:].double().cpu())
    found = torch.cat(after)[: stop - start]
    exact = operator(d_model, d_state, a_log=_A_LOG, dtype=torch.float64)
    A_log, u, u_dot = exact.A_log[:1, None], u[:stop].double(), u_dot[:stop].double()
    state = truth.states(exact, A_log, u, [start])[start]
    return before, found, truth.tangents(exact, A_log, u[start:], u_dot[start:], state)[0]


def _dna(length: int, model: str, device: str) -> tuple[float, Tensor, Tensor]:
    """Return the same for a model's logits when one base of real DNA is substituted."""
    codes = torch.from_numpy(real_bases(shipped_genome(), length))[None]
    at = int(0.8 * length)
    answers = []
    path = find_model(model)
    loaded = load_model(path, device=device)
    exact = load_model(path, dtype=torch.float64, kernels="reference")
    observed = int(codes[0, at])

    def change(table: Tensor) -> Tensor:
        return table[[(observed + 1) % 4]] - table[[observed]]

    inputs = OneHot(codes.to(device), loaded.table())
    direction = BaseChange(at, change(loaded.table()))
    for _, _, dots in tangent(loaded.causal, inputs, direction, tile=1_024):
        answers.append(dots[0, 0].double().cpu())
    found = torch.cat(answers)
    x = OneHot(codes, exact.table()).tile(slice(0, length))
    x_dot = torch.zeros_like(x)
    x_dot[0, at] = change(exact.table())[0]
    with torch.no_grad():
        whole = jvp(lambda x: exact.causal(x, exact.causal.begin(1))[0], (x,), (x_dot,))[1][0]
    return float(found[:at].abs().max()), found[at:], whole[at:]


def _cells(quick: bool) -> list[Cell]:
    lengths = (50, 100) if quick else (10_000, 20_000, 50_000, 100_000, 128_000, 1_000_000)
    layer = {"d_model": 4, "d_state": 2} if quick else {"d_model": 256, "d_state": 16}
    dna = {"length": 200 if quick else 20_000, "model": "bacteria"}
    return [*(Cell(f"{length:,} steps", layer | {"length": length}) for length in lengths), Cell("real DNA", dna)]


def _findings(table: pd.DataFrame) -> Iterator[Finding]:
    for cell, rows in table.groupby("cell", sort=False):
        yield Finding(f"{cell}: largest before the pulse", rows.largest_before.max(), threshold=at_most(0))
        yield Finding(f"{cell}: error after it", rows.error.max(skipna=False), "", at_most(1e-5))
        last = rows[rows.found > 1e-20].distance.max()
        yield Finding(f"{cell}: last above 1e-20 (the published axis' end)", last, "steps on")


def _draw(table: pd.DataFrame) -> go.Figure:
    page = panels(["The paper's layer", "Shipped model on chloroplast DNA"])
    for cell, rows in table.groupby("cell", sort=False):
        col = 2 if cell == "real DNA" else 1
        for kind, label in (("found", "genoscan, float32"), ("expected", "float64")):
            ours = kind == "found"
            page.add_scatter(
                x=rows.distance + 1,
                y=rows[kind].where(rows[kind] > 0),
                name=label,
                legendgroup=label,
                text=[cell] * len(rows),
                showlegend=label not in {trace.name for trace in page.data},
                mode="lines+markers" if ours else "lines",
                line={"color": OURS[0] if ours else TORCH[0], "width": 0.5 if ours else 1.5},
                marker={"size": 5, "symbol": "circle-open"},
                row=1,
                col=col,
            )
    page.update_xaxes(type="log", dtick=1, title="steps from the pulse on, the pulse itself 1")
    page.update_yaxes(type="log", exponentformat="power", title="||response||", dtick=5)
    page.update_yaxes(range=[-45, 2], row=1, col=1)
    page.update_yaxes(dtick=1, row=1, col=2)
    return page


FIG4 = Experiment(
    "the ghost pulse",
    "256 channels of 16 states, A_log -4, tiles of 128, inputs 0.01 x noise, every channel pushed "
    "at 0.8 of the length, as published (100,000 steps in their code, 128,000 in their text), and "
    "1,000,000; the published reference curve was their own output, here it is float64 by another "
    "route.  Then one base of real DNA changed, the shipped model's logits after it.",
    _cells,
    measure,
    _findings,
    _draw,
)
