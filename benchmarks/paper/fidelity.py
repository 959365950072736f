"""Errors against float64: Figure 2, stiffness (A.1) and precision (A.2).

An error is ||found - truth|| / ||truth|| over all steps up to a length; NaN or infinity anywhere
counts as a failure and is never left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row
from benchmarks.figure import OURS, THEIRS, panels
from benchmarks.paper import rivals, truth
from benchmarks.paper.layers import noise, operator
from benchmarks.threshold import at_most
from genoscan.pgf import FrechetMambaOperator
from genoscan.verification.sweeps import relative

LIMIT = 1e-5
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PUBLISHED = {
    "d_model": 64,
    "d_state": 16,
    "a_logs": [-8 + 0.5 * i for i in range(15)],
    "tiles": [128],
    "lengths": [1_000, 2_000, 5_000, 10_000],
    "seeds": 5,
    "theirs": 10_000,
    "gradient": False,
}


def measure(cell: Cell, _before: Sequence[Row], environment: Environment) -> list[Row]:
    """Measure every decay of a cell, shared out to one process per thread."""
    a_logs = cell.settings["a_logs"]
    # A quick run stays in this process, on one thread: torch.func keeps its level in a global.
    count = 1 if environment.quick else min(environment.threads, len(a_logs))
    shares = [a_logs[i::count] for i in range(count)]
    single = replace(environment, threads=1)

    def measured(share: Sequence[float]) -> list[Row]:
        rows: list[Row] = single.alone(errors, {"wanted": {**cell.settings, "a_logs": share}})["rows"]
        return rows

    with ThreadPoolExecutor(len(shares)) as run_in_parallel:
        rows = [row for found in run_in_parallel.map(measured, shares) for row in found]
    return sorted(rows, key=lambda row: a_logs.index(row["a_log"]))


def errors(wanted: Mapping[str, Any], *, device: str, threads: int) -> Row:
    """Measure every decay, tile and length in this process, with one float64 reference.

    Tangents do not depend on later steps: errors to all lengths come from one run.
    """
    torch.set_num_threads(threads)
    longest, seeds = max(wanted["lengths"]), range(1, wanted["seeds"] + 1)
    u, other = (
        torch.stack(parts)
        for parts in zip(*(noise(longest, wanted["d_model"], scale=0.01, seed=seed) for seed in seeds), strict=True)
    )
    sizes = wanted["d_model"], wanted["d_state"]
    exact = operator(*sizes, dtype=torch.float64)
    A_logs = torch.tensor(wanted["a_logs"], dtype=torch.float64)[:, None]
    slopes = truth.tangents(exact, A_logs, u.double(), other.double())
    rows: list[Row] = []
    for a_log, expected in zip(wanted["a_logs"], slopes, strict=True):
        made = operator(*sizes, a_log=a_log, device=device)
        for tile in wanted["tiles"]:
            found = _ours(made, u, other, tile)
            rows += _errors("genoscan", a_log, tile, found, expected, wanted["lengths"])
            stop = wanted["theirs"]
            found = _theirs(made, u[:, :stop], other[:, :stop], tile)
            lengths = [length for length in wanted["lengths"] if length <= stop]
            rows += _errors("tile-scan", a_log, tile, found, expected, lengths)
    if wanted["gradient"]:
        gradients = truth.gradients(exact, A_logs, u.double(), other.double())
        for a_log, expected in zip(wanted["a_logs"], gradients, strict=True):
            made = operator(*sizes, a_log=a_log, device=device)
            for tile in wanted["tiles"]:
                given = u.to(device), other.to(device)
                # One state per tile: thousands of tiles would otherwise be recomputed repeatedly.
                found = made.pgf_vjp(*given, tile, slots=-(-longest // tile))
                rows += _errors("genoscan", a_log, tile, found, expected, [longest], answer="inputs")
    return {"rows": rows}


def _ours(made: FrechetMambaOperator, u: Tensor, u_dot: Tensor, tile: int) -> Tensor:
    device = made.D.device
    return made.pgf_forward(u.to(device), u_dot.to(device), tile)[1]


def _theirs(made: FrechetMambaOperator, u: Tensor, u_dot: Tensor, tile: int) -> Tensor:
    place = made.D.device, made.D.dtype
    sequences = zip(u.to(*place), u_dot.to(*place), strict=True)
    return torch.stack(
        [torch.cat([part for _, part in rivals.pushed(rivals.tile, made, *pair, tile)]) for pair in sequences]
    )


def _errors(
    contender: str,
    a_log: float,
    tile: int,
    found: Tensor,
    expected: Tensor,
    lengths: Sequence[int],
    *,
    answer: str = "direction",
) -> Iterator[Row]:
    for length in lengths:
        for seed, (one, truly) in enumerate(zip(found, expected, strict=True), 1):
            error = relative(one[:length], truly[:length])
            yield {
                "contender": contender,
                "answer": answer,
                "a_log": a_log,
                "tile": tile,
                "length": length,
                "seed": seed,
                "error": error,
                "finite": float(one[:length].isfinite().double().mean()),
            }


def _a1_cells(quick: bool) -> list[Cell]:
    published = _PUBLISHED
    stiff = published | {
        "a_logs": [float(a) for a in range(-8, 4)],
        "tiles": [32, 64, 128, 256, 1_024],
        "lengths": [1_024, 8_192, 131_072],
        "seeds": 1,
        "theirs": 8_192,
        "gradient": True,
    }
    if quick:
        small = {"d_model": 4, "d_state": 2, "lengths": [40, 80], "theirs": 40, "seeds": 2}
        published = published | small | {"a_logs": [-8.0, -1.0], "tiles": [16]}
        stiff = stiff | small | {"a_logs": [-8.0, 3.0], "tiles": [16, 40]}
    return [Cell("published grid", published), Cell("to the stiff side", stiff)]


def _fig2_cells(quick: bool) -> list[Cell]:
    surface = _PUBLISHED | {
        "d_model": 256,
        "a_logs": [-8.0, -6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0],
        "tiles": [32, 128, 1_024],
        "lengths": [128, 1_024, 4_096, 16_384, 32_768],
        "seeds": 1,
        "theirs": 4_096,
    }
    if quick:
        surface |= {"d_model": 4, "d_state": 2, "lengths": [20, 40], "theirs": 20}
    return [Cell("surface", surface)]


def _findings(table: pd.DataFrame) -> Iterator[Finding]:
    for (cell, contender, answer), rows in table.groupby(["cell", "contender", "answer"], sort=False):
        most, none = (at_most(LIMIT), at_most(0)) if contender == "genoscan" else (None, None)
        name, failures = f"{cell}, {contender}, {answer}", float((rows.finite < 1).sum())
        worst = rows.error.max(skipna=False)
        yield Finding(f"{name}: largest error", worst, "", most)
        yield Finding(f"{name}: runs with NaN or infinity, of {len(rows):,}", failures, "", none)


def _fig2_draw(table: pd.DataFrame) -> go.Figure:
    """Draw log10 of the error over length and decay, one panel per tile, ours above theirs."""
    tiles = sorted(table.tile.unique())
    names = {"genoscan": "genoscan", "tile-scan": "the paper's scan"}
    titles = [f"{label}, tiles of {tile:,}" for label in names.values() for tile in tiles]
    page = panels(titles, rows=2, height=360)
    for row, name in enumerate(names, 1):
        for col, tile in enumerate(tiles, 1):
            chosen = table[(table.contender == name) & (table.tile == tile)]
            grid = chosen.pivot_table(index="a_log", columns="length", values="error", dropna=False)
            page.add_heatmap(
                x=[f"{length:,}" for length in grid.columns],
                y=[f"{a:g}" for a in grid.index],
                z=np.log10(grid.to_numpy(float)),
                zmin=-8,
                zmax=-4,
                colorscale="Viridis",
                colorbar={"title": "log10<br>error"},
                hoverongaps=True,
                row=row,
                col=col,
            )
    page.update_xaxes(title="steps", row=2)
    page.update_yaxes(title="A_log", col=1)
    page.update_layout(plot_bgcolor="#D55E00", margin_b=60)
    page.add_annotation(
        text="orange: NaN", xref="paper", yref="paper", x=1, y=1.08, showarrow=False, font_color="#D55E00"
    )
    return page


def _a1_draw(table: pd.DataFrame) -> go.Figure:
    """Draw the largest error against decay, and the share of finite numbers."""
    cells = list(table.cell.unique())
    page = panels([f"largest error, {c}" for c in cells] + ["numbers that are finite, stiff side"])
    shades = {"genoscan": OURS[0], "tile-scan": THEIRS[0]}
    dashes = ("solid", "dot", "dash", "longdash", "dashdot")
    for col, cell in enumerate([*cells, cells[-1]], 1):
        chosen = table[(table.cell == cell) & (table.answer == "direction")]
        kind = "error" if col <= len(cells) else "finite"
        for (name, tile), rows in chosen.groupby(["contender", "tile"], sort=False):
            best = rows.groupby("a_log")[kind]
            found = best.max() if kind == "error" else best.min()
            label = f"{'genoscan' if name == 'genoscan' else 'the paper'}, tiles of {tile:,}"
            page.add_scatter(
                x=found.index,
                y=found,
                name=label,
                legendgroup=label,
                showlegend=label not in {trace.name for trace in page.data},
                mode="lines+markers",
                row=1,
                col=col,
                line={"color": shades[str(name)], "dash": dashes[sorted(table.tile.unique()).index(tile) % 5]},
            )
        if kind == "error":
            page.update_yaxes(type="log", exponentformat="power", row=1, col=col)
    page.update_xaxes(title="A_log (A = -exp(A_log): stiff to the right)")
    return page


def _a2_cells(quick: bool) -> list[Cell]:
    size = {"d_model": 64, "d_state": 16, "a_log": -4.0, "tile": 128}
    lengths, seeds = ((20, 40), (1, 2)) if quick else ((2_000, 5_000, 10_000), range(1, 6))
    if quick:
        size |= {"d_model": 4, "d_state": 2, "tile": 16}
    return [
        Cell(f"{name} seed {seed}", size | {"precision": name, "seed": seed, "lengths": lengths})
        for name in _TYPES
        for seed in seeds
    ]


def _measure_a2(cell: Cell, _before: Sequence[Row], environment: Environment) -> list[Row]:
    """Compare every way with float64 on the same rounded numbers, and on the exact ones."""
    torch.set_num_threads(environment.threads)
    wanted = cell.settings
    kind, lengths, tile = _TYPES[wanted["precision"]], wanted["lengths"], wanted["tile"]
    exact_u, exact_dot = noise(max(lengths), wanted["d_model"], scale=0.01, seed=wanted["seed"])
    u, u_dot = exact_u.to(kind), exact_dot.to(kind)

    def layer(dtype: torch.dtype) -> FrechetMambaOperator:
        """Return the layer in float64 with weights rounded to this type."""
        sizes = wanted["d_model"], wanted["d_state"]
        return operator(*sizes, a_log=wanted["a_log"], dtype=dtype).double()

    def truly(made: FrechetMambaOperator, u: Tensor, u_dot: Tensor) -> Tensor:
        return truth.tangents(made, made.A_log[None], u.double(), u_dot.double())[0]

    exactly = truly(layer(torch.float64), exact_u, exact_dot)
    rounded = truly(layer(kind), u, u_dot)
    low = layer(kind).to(kind)
    loop = torch.cat([part for _, part in rivals.pushed(rivals.piece, low, u, u_dot, tile)])
    scanned = _theirs(low, u[None], u_dot[None], tile)[0]
    # Ours stores low precision and computes in float32, the minimum for carries.
    ours = _ours(layer(kind).float(), u.float()[None], u_dot.float()[None], tile)[0]
    answers = {
        "genoscan": (ours, rounded),
        "tile-scan": (scanned, rounded),
        "loop": (loop, rounded),
        "tile-scan against the loop": (scanned, loop),
        "rounding of weights and inputs": (rounded, exactly),
    }
    return [
        {
            "precision": wanted["precision"],
            "seed": wanted["seed"],
            "length": length,
            "contender": name,
            "error": relative(found[:length], expected[:length]),
            "finite": float(found[:length].isfinite().double().mean()),
        }
        for name, (found, expected) in answers.items()
        for length in lengths
    ]


def _a2_findings(table: pd.DataFrame) -> Iterator[Finding]:
    for (name, precision), rows in table.groupby(["contender", "precision"], sort=False):
        threshold = at_most(LIMIT) if name == "genoscan" else None
        yield Finding(f"{precision}, {name}: largest error", rows.error.max(skipna=False), threshold=threshold)


def _a2_draw(table: pd.DataFrame) -> go.Figure:
    page = panels(list(_TYPES))
    shades = [OURS[0], THEIRS[0], "#777777", THEIRS[1], "#000000"]
    for col, precision in enumerate(_TYPES, 1):
        for shade, (name, rows) in zip(
            shades, table[table.precision == precision].groupby("contender", sort=False), strict=False
        ):
            found = rows.groupby("length").error.median()
            page.add_scatter(
                x=found.index,
                y=found,
                name=name,
                legendgroup=name,
                showlegend=col == 1,
                mode="lines+markers",
                line_color=shade,
                row=1,
                col=col,
            )
    page.update_xaxes(title="steps", type="log")
    page.update_yaxes(type="log", exponentformat="power", range=[-8.5, 0.5])
    page.update_yaxes(title="relative error, median of seeds", row=1, col=1)
    return page


FIG2 = Experiment(
    "fidelity over length, decay and tile",
    "no script and no data were published; 256 channels of 16 states, inputs 0.01 x noise, one "
    "direction, float32 against float64.",
    _fig2_cells,
    measure,
    _findings,
    _fig2_draw,
)
A1 = Experiment(
    "stiffness",
    "64 channels of 16 states, A_log from -8 to -1, 5 seeds, lengths to 10,000, tiles of 128, as "
    "published, which is the weak side: A is -exp(A_log).  Then to +3, tiles 32 to 1,024, lengths "
    "to 131,072, one direction and every input.  The published count of successes takes NaN for "
    "one; here it is a failure.",
    _a1_cells,
    measure,
    _findings,
    _a1_draw,
)
A2 = Experiment(
    "precision",
    "64 channels of 16 states, A_log -4, tiles of 128, 5 seeds, as published, where the reference "
    "ran in the same low precision; here it is float64 with the same rounded weights and inputs. "
    "Ours keeps few bits and computes in float32.",
    _a2_cells,
    _measure_a2,
    _a2_findings,
    _a2_draw,
)
