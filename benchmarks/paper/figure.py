"""Curves, one per contender."""

import pandas as pd
import plotly.graph_objects as go

from benchmarks.figure import OURS, THEIRS, TORCH
from benchmarks.paper.contenders import CONTENDERS

_PALETTES = {"ours": OURS, "theirs": THEIRS, "torch": TORCH}


def curves(page: go.Figure, table: pd.DataFrame, x: str, y: str, *, row: int, col: int) -> None:
    """Draw y against x for every contender in the table on logarithmic axes."""
    for name, rows in table.groupby("contender", sort=False):
        rows = rows.dropna(subset=[y])
        contender = CONTENDERS[str(name)]
        page.add_scatter(
            x=rows[x],
            y=rows[y],
            name=contender.label,
            legendgroup=contender.label,
            showlegend=contender.label not in {trace.name for trace in page.data},
            mode="lines+markers",
            line={"color": colour(str(name)), "dash": _dash(contender.side)},
            row=row,
            col=col,
        )
    page.update_xaxes(type="log", dtick=1, exponentformat="SI", row=row, col=col)
    page.update_yaxes(type="log", exponentformat="SI", row=row, col=col)


def colour(name: str) -> str:
    """Return a contender's colour, from the palette of its side."""
    side = CONTENDERS[name].side
    peers = [peer for peer, contender in CONTENDERS.items() if contender.side == side]
    return _PALETTES[side][peers.index(name) % len(_PALETTES[side])]


def _dash(side: str) -> str:
    return {"ours": "solid", "theirs": "dot", "torch": "dash"}[side]
