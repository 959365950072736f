"""Time and memory: Figures 1 and 3, and the paper's complexity experiment (A.3)."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from benchmarks.alone import WARM_UP, cost
from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row
from benchmarks.figure import panels
from benchmarks.paper import truth
from benchmarks.paper.contenders import CONTENDERS, Parts
from benchmarks.paper.figure import curves
from benchmarks.paper.layers import noise, operator
from benchmarks.threshold import at_least, at_most
from genoscan.usage import GIBIBYTE, MEBIBYTE, PAGE
from genoscan.verification.sweeps import relative

MOST_BYTES, MOST_SECONDS = 12 * GIBIBYTE, 300.0
"""A contender predicted to take more is skipped and recorded as such."""

_JUDGED = 10_000
"""Steps up to which a result is compared with float64, which is slow."""
_DIRECTION = ("ours-direction", "tile-scan", "jvp", "jvp-published")
_INPUTS = ("ours-inputs", "autograd", "autograd-published", "pieces", "fused")
_LAYER = {"d_model": 256, "d_state": 16}
_SMALL = {"d_model": 4, "d_state": 2, "init_window": 1, "block": 32}


def measure(cell: Cell, before: Sequence[Row], environment: Environment) -> list[Row]:
    """Measure one contender at one size, unless it is predicted to take too much."""
    settings = cell.settings
    row = {name: settings[name] for name in ("contender", "length", "d_model", "d_state")}
    row |= {"answer": CONTENDERS[settings["contender"]].answer, "status": "measured", "why": ""}
    if why := _too_much(row, before):
        return [row | {"status": "skipped", "why": why}]
    return [row | environment.alone(contenders_cost, settings)]


def contenders_cost(
    contender: str,
    length: int,
    d_model: int,
    d_state: int,
    *,
    device: str,
    threads: int,
    init_window: int = 3,
    block: int = 64,
    again: int = 3,
    judged: bool = False,
) -> Row:
    """Measure one contender at one size in this process; with `judged`, also its error."""
    torch.set_num_threads(threads)
    chosen = CONTENDERS[contender]
    made = operator(d_model, d_state, init_window=init_window, device=device)
    u, other = noise(length, d_model, device=device)

    def run(u: Tensor, other: Tensor) -> Parts:
        return chosen.run(made, u, other, block)

    heads = u[:WARM_UP].clone(), other[:WARM_UP].clone()
    found = cost(lambda: deque(run(*heads), 0), lambda: deque(run(u, other), 0), device, again=again)
    array = u.numel() * u.element_size()
    carries = chosen.slots * d_model * d_state * u.element_size()
    found |= {
        "input_output_bytes": (2 + chosen.arrays) * array,
        "carry_bytes": carries,
        "temporary_bytes": max(found["extra_bytes"] - chosen.arrays * array - carries, 0),
    }
    if judged:
        answer = torch.empty_like(u)
        for span, part in run(u, other):
            answer[span] = part
        truly = truth.tangents if chosen.answer == "direction" else truth.gradients
        exact, u, other = made.double().cpu(), u.double().cpu(), other.double().cpu()
        found["error"] = relative(answer, truly(exact, exact.A_log[None], u, other)[0])
    return found


def _too_much(row: Row, before: Sequence[Row]) -> str:
    """Return why a contender is skipped, extrapolating linearly from its last size, or ""."""
    same = ("contender", "d_model", "d_state")
    known = [old for old in before if old["length"] < row["length"] and all(old[name] == row[name] for name in same)]
    if not known:
        return ""
    last = max(known, key=lambda old: old["length"])
    if last["status"] == "skipped":
        return str(last["why"])
    times = row["length"] / last["length"]
    size, seconds = times * last["extra_bytes"], times * last["seconds"]
    if CONTENDERS[row["contender"]].side == "ours":
        size = 0  # only its outputs grow
    if size > MOST_BYTES:
        return f"predicted {size / GIBIBYTE:.0f} GiB at {row['length']:,}, limit 12 GiB"
    if seconds > MOST_SECONDS:
        return f"predicted {seconds:.0f} s at {row['length']:,}, limit {MOST_SECONDS:.0f} s"
    return ""


def _cells(names: Iterable[str], sizes: Iterable[dict[str, int]], **common: object) -> list[Cell]:
    return [
        Cell(
            f"{name} {size.get('length', '')} {size['d_model']}x{size['d_state']}",
            {"contender": name, **size, **common},
        )
        for name in names
        for size in sizes
    ]


def _fig1_cells(quick: bool) -> list[Cell]:
    lengths = (100, 200) if quick else (10_000, 20_000, 50_000, 100_000)
    ours = (*lengths, 400) if quick else (*lengths, 1_000_000)
    layer = {"d_model": 8, "d_state": 4} if quick else _LAYER
    return [
        cell
        for name in (*_DIRECTION, *_INPUTS)
        for cell in _cells(
            [name], [layer | {"length": n} for n in (ours if CONTENDERS[name].side == "ours" else lengths)], again=0
        )
    ]


def _fig1_findings(table: pd.DataFrame) -> Iterator[Finding]:
    measured = table[table.status == "measured"].set_index(["contender", "length"])
    # At least a page, the kernel's unit.
    temporaries = measured.temporary_bytes.clip(lower=PAGE)
    lengths = sorted(table.length.unique())
    for length in lengths[:2]:
        for ours in ("ours-inputs", "ours-direction"):
            for theirs in ("autograd", "autograd-published"):
                part = temporaries[ours, length] / temporaries[theirs, length]
                yield Finding(
                    f"temporaries saved at {length:,}: {ours} against {theirs}",
                    100 * (1 - part),
                    "%",
                    at_least(97) if theirs == "autograd" else None,
                )
    for ours in ("ours-inputs", "ours-direction"):
        sizes = temporaries[ours]
        yield Finding(
            f"temporaries of {ours} at {lengths[-1]:,} against {lengths[0]:,}",
            sizes[lengths[-1]] / sizes[lengths[0]],
            "times",
        )
    for theirs in ("autograd", "autograd-published"):
        sizes = measured.extra_bytes[theirs]
        slope = np.polyfit(sizes.index.to_numpy(float), sizes.to_numpy(float), 1)[0]
        yield Finding(f"{theirs}: memory a step", slope / 1024, "KiB")


def _fig1_draw(table: pd.DataFrame) -> go.Figure:
    page = panels(
        ["Temporary memory, one direction", "Temporary memory, every input", "genoscan, every input: what there is"]
    )
    table = table.assign(MiB=table.temporary_bytes / MEBIBYTE)
    for col, answer in enumerate(("direction", "inputs"), 1):
        curves(page, table[table.answer == answer], "length", "MiB", row=1, col=col)
    ours = table[table.contender == "ours-inputs"]
    kinds = {"input and output": "#777777", "temporaries": "#0072B2", "carries": "#E69F00"}
    for kind, colour in kinds.items():
        column = {"input and output": "input_output", "temporaries": "temporary"}.get(kind, "carry")
        page.add_scatter(
            x=ours.length,
            y=ours[f"{column}_bytes"] / MEBIBYTE,
            name=kind,
            mode="lines+markers",
            line_color=colour,
            row=1,
            col=3,
        )
    page.update_xaxes(type="log", dtick=1, exponentformat="SI", title="steps")
    page.update_yaxes(type="log", title="MiB", row=1, col=1)
    page.update_yaxes(type="log", row=1, col=3)
    return page


def _fig3_cells(quick: bool) -> list[Cell]:
    small = (50, 100) if quick else (100, 500, 1_000, 5_000, 10_000)
    large = (100,) if quick else (1_000, 10_000, 20_000)
    layer = {"d_model": 8, "d_state": 4} if quick else _LAYER
    names = (*_DIRECTION, *_INPUTS, "checkpoint-published")
    return [
        cell
        for name in names
        for sizes in ([_SMALL | {"length": n} for n in small], [layer | {"length": n} for n in large])
        for size in sizes
        for cell in _cells([name], [size], judged=size["length"] <= _JUDGED)
    ]


def _fig3_findings(table: pd.DataFrame) -> Iterator[Finding]:
    large = table[(table.d_model == table.d_model.max()) & (table.status == "measured")]
    for length in sorted(large.length.unique())[-2:]:
        rows = large[large.length == length].set_index("contender")
        ours, pushed = rows.seconds["ours-inputs"], rows.seconds["ours-direction"]
        yield Finding(f"every input at {length:,}, a step", 1e6 * ours / length, "us", at_most(39))
        yield Finding(f"one direction at {length:,}, a step", 1e6 * pushed / length, "us")
        thresholds = {"autograd-published": at_least(23), "tile-scan": at_least(3)}
        for theirs in rows.index[~rows.index.str.startswith("ours")]:
            yield Finding(
                f"every input at {length:,}: {theirs} takes as long",
                rows.seconds[theirs] / ours,
                "times",
                thresholds.get(theirs),
            )
        for theirs in ("tile-scan", "jvp"):
            yield Finding(
                f"one direction at {length:,}: {theirs} takes as long", rows.seconds[theirs] / pushed, "times"
            )
    for name, rows in large[large.length <= _JUDGED].groupby("contender", sort=False):
        yield Finding(f"{name}: largest error", rows.error.max(skipna=False))


def _fig3_draw(table: pd.DataFrame) -> go.Figure:
    widths = sorted(table.d_model.unique())
    kinds = {"direction": "one direction", "inputs": "every input"}
    columns = [(width, answer) for width in widths for answer in kinds]
    titles = [f"{kinds[answer]}, {width} channels" for width, answer in columns]
    page = panels([*titles, *("" for _ in titles)], rows=2, height=420)
    table = table.assign(MiB=table.temporary_bytes / MEBIBYTE)
    for col, (width, answer) in enumerate(columns, 1):
        chosen = table[(table.d_model == width) & (table.answer == answer)]
        curves(page, chosen, "length", "seconds", row=1, col=col)
        curves(page, chosen, "length", "MiB", row=2, col=col)
        page.update_xaxes(title="steps", row=2, col=col)
    page.update_yaxes(title="seconds", row=1, col=1)
    page.update_yaxes(title="temporaries (MiB)", row=2, col=1)
    return page


def _a3_cells(quick: bool) -> list[Cell]:
    states = (2, 4) if quick else (8, 16, 32, 64, 128, 256)
    short, long = (20, 40) if quick else (100, 4_096)
    width = 4 if quick else 64

    def sizes(length: int) -> list[dict[str, int]]:
        return [{"length": length, "d_model": width, "d_state": n} for n in states]

    fair = ("ours-direction", "ours-inputs", "tile-scan", "autograd")
    return [*_cells((*fair, "dense"), sizes(short)), *_cells(fair, sizes(long))]


def _a3_findings(table: pd.DataFrame) -> Iterator[Finding]:
    for (name, length), rows in table.groupby(["contender", "length"], sort=False):
        rows = rows[rows.d_state >= rows.d_state.max() // 4]
        slope = np.polyfit(np.log(rows.d_state), np.log(rows.seconds), 1)[0]
        yield Finding(f"{name} at {length:,}: time grows as states to the power", slope, "")


def _a3_draw(table: pd.DataFrame) -> go.Figure:
    lengths = sorted(table.length.unique())
    page = panels([f"{length:,} steps" for length in lengths])
    for col, length in enumerate(lengths, 1):
        curves(page, table[table.length == length], "d_state", "seconds", row=1, col=col)
    page.update_xaxes(title="states a channel", dtick=None, tickvals=sorted(table.d_state.unique()))
    page.update_yaxes(title="seconds", row=1, col=1)
    return page


FIG1 = Experiment(
    "memory against length",
    "256 channels of 16 states, inputs 0.1 x noise, their scan in tiles of 64, as published; "
    "beside their autograd loop one that does not ask for the weights' gradients and computes "
    "projections for all steps together, the same in pieces of which only the states are kept, and "
    "autograd through genoscan's scan.  Memory is the process's own peak beyond what was there "
    "after a warm-up of 64 steps; temporaries leave out inputs, outputs and carries.",
    _fig1_cells,
    measure,
    _fig1_findings,
    _fig1_draw,
)
FIG3 = Experiment(
    "time and memory against length, like against like",
    "4 channels of 2 states, tiles of 32, as published, and the layer of Figure 1: at 4 channels "
    "one measures calls, not work.  One direction is compared with one direction, every input "
    "with every input, after a warm-up, median of 3 runs; errors against float64.",
    _fig3_cells,
    measure,
    _fig3_findings,
    _fig3_draw,
)
A3 = Experiment(
    "cost against state size",
    "64 channels, 100 steps, as published, where calls are most of the time, and 4,096 steps; the "
    "published rival multiplies dense matrices for a transition that is diagonal, and computes "
    "another thing; the paper's own scan and autograd stand beside it.",
    _a3_cells,
    measure,
    _a3_findings,
    _a3_draw,
)
