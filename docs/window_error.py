"""Draw how the errors of the included models fall with context and with reach.

    python docs/window_error.py docs/window-error.png

Needs kaleido.
"""

import sys
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from genoscan.layers.config import read_config

MODELS = Path(__file__).parents[1] / "models"
COLOURS = {
    "bacteria": "#0072B2",
    "bacteria-pd-ssm": "#D55E00",
    "arabidopsis-genes": "#009E73",
    "bacteria-genes": "#CC79A7",
}


def draw() -> go.Figure:
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    others: tuple[set[int], set[int]] = set(), set()
    for name, colour in COLOURS.items():
        config = read_config(MODELS / name)
        errors = config.window_errors
        assert errors is not None
        context, reach = errors.contexts[-1], errors.reaches[-1]
        others[0].add(reach)
        others[1].add(context)
        curves = (
            ([one for one in errors.errors if one.reach == reach], "context", config.context),
            ([one for one in errors.errors if one.context == context], "reach", config.reach),
        )
        for column, (chosen, axis, default) in enumerate(curves, 1):
            lengths = [getattr(one, axis) for one in chosen]
            figure.add_scatter(
                x=lengths,
                y=[one.median for one in chosen],
                name=name,
                mode="lines+markers",
                line={"color": colour},
                marker={"size": [13 if length == default else 6 for length in lengths], "line_width": 0, "opacity": 1},
                showlegend=column == 1,
                row=1,
                col=column,
            )
    figure.update_xaxes(type="log", tickvals=[256, 1024, 4096, 16_384], tickformat=",d")
    figure.update_xaxes(title=f"context in bases, with reach {_range(others[0])}", row=1, col=1)
    figure.update_xaxes(title=f"reach in bases, with context {_range(others[1])}", row=1, col=2)
    figure.update_yaxes(type="log", tickformat=".1~%", tickvals=[0.001, 0.01, 0.1, 1], range=[-3, 0])
    figure.update_yaxes(title="window error, median", row=1, col=1)
    figure.update_layout(
        template="simple_white",
        width=1000,
        height=420,
        font_size=14,
        margin={"t": 40, "b": 60, "l": 80, "r": 20},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": 1.02, "yanchor": "bottom"},
    )
    return figure


def _range(lengths: set[int]) -> str:
    shortest, longest = min(lengths), max(lengths)
    return f"{longest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"


if __name__ == "__main__":
    draw().write_image(sys.argv[1], scale=1.5)
