"""The document as one page: time per base and extra memory of every contender, and thresholds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.speed.contenders import CONTENDERS
from benchmarks.speed.report import digits, spread
from genoscan.usage import MEBIBYTE

# Okabe and Ito's blue, grey and orange, distinct in all common kinds of colour vision.
_SIDES = {"ours": ("genoscan", "#0072B2"), "baseline": ("torch", "#999999"), "peer": ("other programs", "#D55E00")}
_BAR, _LINE, _HEAD = 26, 28, 200


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write the page."""
    figure(document).write_html(path, include_plotlyjs=True, config={"displayModeBar": False})


def figure(document: Mapping[str, Any]) -> go.Figure:
    """Draw bars of us per base and MiB for every measured row, above a table of all measures."""
    measured = {n: row for n, row in document["rows"].items() if row["status"] == "measured"}
    bars = [
        (row, label, timing) for row, content in measured.items() for label, timing in content["contenders"].items()
    ]
    lines = [(n, m) for n, row in measured.items() for m in row["measures"]]
    heights = [max(len(bars), 1) * _BAR, (len(lines) + 2) * _LINE]
    page = make_subplots(
        rows=2,
        cols=2,
        specs=[[{}, {}], [{"type": "table", "colspan": 2}, None]],
        row_heights=heights,
        vertical_spacing=70 / (sum(heights) + _HEAD),
        horizontal_spacing=0.03,
        shared_yaxes=True,
    )
    for side, (kind, colour) in _SIDES.items():
        chosen = [bar for bar in bars if CONTENDERS[bar[2]["contender"]].side == side]
        places = [[row for row, _, _ in chosen], [_label(*bar[1:]) for bar in chosen]]
        timings = [timing for _, _, timing in chosen]
        times = [timing["microseconds_per_base"] for timing in timings]
        page.add_bar(
            x=times,
            y=places,
            orientation="h",
            name=kind,
            legendgroup=kind,
            marker_color=colour,
            text=[digits(time) for time in times],
            textposition="outside",
            cliponaxis=False,
            error_x=_whiskers(timings),
            row=1,
            col=1,
        )
        extra = [max(timing["extra_bytes"], 0) / MEBIBYTE for timing in timings]
        page.add_bar(
            x=extra,
            y=places,
            orientation="h",
            legendgroup=kind,
            showlegend=False,
            marker_color=colour,
            text=[digits(mebibytes) for mebibytes in extra],
            textposition="outside",
            cliponaxis=False,
            row=1,
            col=2,
        )
    page.add_trace(_table(lines), row=2, col=1)
    page.update_xaxes(type="log", dtick=1, title="microseconds a base", row=1, col=1)
    page.update_xaxes(type="log", dtick=1, title="extra memory (MiB)", row=1, col=2)
    page.update_yaxes(autorange="reversed", row=1)
    page.update_layout(
        title=_title(document),
        template="simple_white",
        width=1200,
        height=sum(heights) + _HEAD,
        bargap=0.15,
        barmode="overlay",
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        margin={"t": 120, "b": 20, "l": 20, "r": 70},
    )
    return page


def _label(label: str, timing: Mapping[str, Any]) -> str:
    return label if label.endswith("bp") else f"{label}, {timing['length']:,} bp"


def _whiskers(timings: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return whiskers from the lowest to the highest repetition."""
    per_base = [1e6 / timing["length"] for timing in timings]
    above = [t["highest_seconds"] - t["median_seconds"] for t in timings]
    below = [t["median_seconds"] - t["lowest_seconds"] for t in timings]
    return {
        "type": "data",
        "array": [a * unit for a, unit in zip(above, per_base, strict=True)],
        "arrayminus": [b * unit for b, unit in zip(below, per_base, strict=True)],
        "color": "#333",
        "thickness": 1,
        "width": 2,
    }


def _table(lines: list[tuple[str, Mapping[str, Any]]]) -> go.Table:
    verdicts = {True: "met", False: "missed", None: ""}
    colours = {True: "#E3F1E3", False: "#F9E3D9", None: "white"}
    columns = [
        [row for row, _ in lines],
        [measure["name"] for _, measure in lines],
        [f"{digits(measure['median'])} {measure['unit']}" for _, measure in lines],
        [spread(measure) for _, measure in lines],
        [(measure["bar"] or "").replace(">=", "≥").replace("<=", "≤") for _, measure in lines],
        [verdicts[measure["met"]] for _, measure in lines],
    ]
    return go.Table(
        header={
            "values": ["row", "measure", "median", "lowest to highest", "threshold", ""],
            "align": "left",
            "fill_color": "#EEE",
        },
        cells={
            "values": columns,
            "align": "left",
            "height": _LINE,
            "fill_color": [[colours[measure["met"]] for _, measure in lines]],
        },
        columnwidth=[1, 2.6, 1, 1.3, 0.8, 0.6],
    )


def _title(document: Mapping[str, Any]) -> dict[str, Any]:
    machine, settings = document["machine"], document["settings"]
    device = machine["cpu"] if machine["device"] == "cpu" else machine["device"]
    threads = f"{settings['threads']} thread{'s' * (settings['threads'] > 1)}"
    return {
        "text": f"benchmarks speed: {device}, {threads}, {document['measured']}",
        "subtitle": {
            "text": f"model {settings['model']} ({settings['shape']}), tile {settings['tile']:,}; "
            f"median of {settings['rounds']} repetitions in turn, whiskers lowest to highest; "
            f"genoscan {document['versions']['genoscan']} {(document['commit'] or '')[:7]}, "
            f"torch {document['versions']['torch']}"
        },
        "yref": "container",
        "y": 1,
        "yanchor": "top",
        "pad": {"t": 20},
    }
