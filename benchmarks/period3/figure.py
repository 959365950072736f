"""Periodograms and mean scores by codon position as one page."""

from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.figure import OURS, THEIRS
from benchmarks.period3.periodogram import CodonMeans, Periodograms
from benchmarks.period3.track import Comparison

_INSIDE, _OUTSIDE = OURS[0], THEIRS[0]


def period3_figure(periodograms: Periodograms, *, by_codon: CodonMeans | None = None, title: str = "") -> go.Figure:
    """Draw both mean periodograms, and beside them the mean score by codon position if given."""
    panels = 1 if by_codon is None else 2
    figure = make_subplots(rows=1, cols=panels, column_widths=[0.72, 0.28][:panels], horizontal_spacing=0.1)
    for power, n_windows, place, colour, dash in (
        (periodograms.inside, periodograms.n_inside, "inside coding", _INSIDE, "solid"),
        (periodograms.outside, periodograms.n_outside, "outside genes", _OUTSIDE, "dot"),
    ):
        figure.add_scatter(
            x=periodograms.frequencies,
            y=power,
            name=f"{place} ({n_windows:,} windows)",
            mode="lines",
            line={"color": colour, "width": 2, "dash": dash},
            row=1,
            col=1,
        )
    figure.update_xaxes(
        title="frequency (cycles per base)",
        range=[0, 0.5],
        row=1,
        col=1,
        tickvals=[0, 0.1, 0.2, 1 / 3, 0.4, 0.5],
        ticktext=["0", "0.1", "0.2", "1/3", "0.4", "0.5"],
    )
    figure.update_yaxes(title="power over its mean", rangemode="tozero", row=1, col=1)
    if by_codon is not None:
        figure.add_bar(
            x=["1", "2", "3"],
            y=by_codon.means,
            marker_color=_INSIDE,
            showlegend=False,
            error_y={"type": "data", "array": by_codon.errors, "color": "#333"},
            row=1,
            col=2,
        )
        figure.update_xaxes(title="codon position", type="category", row=1, col=2)
        figure.update_yaxes(title="mean score (± standard error)", row=1, col=2)
    figure.update_layout(
        title=title or None,
        template="simple_white",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"t": 90 if title else 50},
    )
    return figure


def draw(found: Comparison, path: Path) -> None:
    """Write the periodograms and the mean score by codon position as one HTML page."""
    title = f"Sensitivity of {found.chrom}: periodograms inside coding sequence and outside genes"
    figure = period3_figure(found.periodograms, by_codon=found.by_codon, title=title)
    figure.update_layout(height=400)
    figure.write_html(path, include_plotlyjs=True, config={"displayModeBar": False})
