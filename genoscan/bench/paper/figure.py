"""What all figures share: colours, labels, curves."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from genoscan.bench.paper.contenders import CONTENDERS

# Okabe and Ito's, which every common kind of colour vision tells apart; ours are the blues.
OURS, THEIRS = ("#0072B2", "#56B4E9"), ("#D55E00", "#E69F00", "#CC79A7")
TORCH = ("#000000", "#777777", "#009E73")
_PALETTES = {"ours": OURS, "theirs": THEIRS, "torch": TORCH}


def panels(titles: list[str], *, rows: int = 1, height: int = 480) -> go.Figure:
    """Return an empty page of panels, row by row."""
    page = make_subplots(
        rows=rows,
        cols=len(titles) // rows,
        subplot_titles=titles,
        horizontal_spacing=0.08,
        vertical_spacing=0.24 / rows,
    )
    return page.update_layout(
        template="simple_white",
        width=1240,
        height=height * rows,
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        margin={"t": 90, "l": 70, "r": 20, "b": 130},
    )


def curves(page: go.Figure, table: pd.DataFrame, x: str, y: str, *, row: int, col: int) -> None:
    """Draw y against x for every contender in the table, both axes logarithmic."""
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
    """Return a contender's colour, one of its side's."""
    side = CONTENDERS[name].side
    peers = [peer for peer, contender in CONTENDERS.items() if contender.side == side]
    return _PALETTES[side][peers.index(name) % len(_PALETTES[side])]


def _dash(side: str) -> str:
    return {"ours": "solid", "theirs": "dot", "torch": "dash"}[side]
