"""Colours and panels shared by all figures."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

# Okabe and Ito's palette, distinct in all common kinds of colour vision; ours are the blues.
OURS, THEIRS = ("#0072B2", "#56B4E9"), ("#D55E00", "#E69F00", "#CC79A7")
TORCH = ("#000000", "#777777", "#009E73")


def panels(titles: list[str], *, rows: int = 1, height: int = 480) -> go.Figure:
    """Return an empty figure with titled panels, row by row."""
    page = make_subplots(
        rows=rows,
        cols=len(titles) // rows,
        subplot_titles=titles,
        horizontal_spacing=0.08,
        vertical_spacing=0.34 / rows,
    )
    return page.update_layout(
        template="simple_white",
        width=1240,
        height=height * rows,
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        margin={"t": 90, "l": 70, "r": 20, "b": 130},
    )


def add_curves(
    page: go.Figure, table: pd.DataFrame, labels: Mapping[str, tuple[str, str]], *, x: str, y: str, row: int, col: int
) -> None:
    """Add a line of markers for each kind and seed, in the kind's colour, dashed by seed.

    `labels` contains the label and colour of each kind. Those of the first panel and seed are in the legend.
    """
    seeds = list(table.seed.unique())
    for (kind, seed), rows in table.groupby(["kind", "seed"], sort=False):
        label, shade = labels[str(kind)]
        page.add_scatter(
            x=rows[x],
            y=rows[y],
            name=label,
            legendgroup=label,
            mode="lines+markers",
            line={"color": shade, "dash": ("solid", "dot", "dash")[seeds.index(seed) % 3]},
            showlegend=bool((row, col) == (1, 1) and seed == seeds[0]),
            row=row,
            col=col,
        )


def add_seeds(
    page: go.Figure, table: pd.DataFrame, labels: Mapping[str, tuple[str, str]], *, y: str, row: int, col: int
) -> None:
    """Add a marker for each row, in a column for each kind."""
    for kind, (label, shade) in labels.items():
        values = table[table.kind == kind][y]
        page.add_scatter(
            x=[label.replace(", ", "<br>")] * len(values),
            y=values,
            mode="markers",
            marker_color=shade,
            showlegend=False,
            row=row,
            col=col,
        )


def add_level(page: go.Figure, value: float, *, row: int, col: int) -> None:
    """Add a dotted line at a value, for example the accuracy of guessing."""
    # The template's lines have no width.
    line = {"color": TORCH[1], "dash": "dot", "width": 1.5}
    page.add_hline(y=value, line=line, opacity=1, row=row, col=col)
