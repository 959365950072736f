"""Colours and panels shared by all figures."""

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
        vertical_spacing=0.24 / rows,
    )
    return page.update_layout(
        template="simple_white",
        width=1240,
        height=height * rows,
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"},
        margin={"t": 90, "l": 70, "r": 20, "b": 130},
    )
