"""Plotly figures that show scores as scaled letters or, for long sequences, as a curve."""

import re
from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float32, Float64

from genoscan.export.logo import LETTERS
from genoscan.export.markup import plotly_text
from genoscan.genome.region import Region

LONGEST = 5_000
"""Maximum length, in bases, of a sequence that is drawn as letters; more letters would slow down the page."""

_STEPS = np.linspace(0, 1, 7)[1:, None]
_SIZE = 100.0  # side of the square that contains each letter outline; the y axis points down


def figure(sequence: str, scores: Float32[np.ndarray, " length"], region: Region, *, title: str) -> go.Figure:
    """Return a figure of the scores, with 1-based positions and hover text for each base.

    Parameters
    ----------
    sequence
        Bases of the sequence, as letters.
    scores
        One score per base. Bases whose scores are NaN are not drawn.
    region
        Position of the sequence in its genome.
    title
        Title of the figure.

    Returns
    -------
    plotly.graph_objects.Figure
        Figure with scaled letters or, for long sequences, with a curve.
    """
    made = go.Figure()
    positions = np.arange(region.start + 1, region.end + 1)
    if len(sequence) <= LONGEST:
        for base, (colour, outline) in LETTERS.items():
            at = np.array([letter == base for letter in sequence]) & np.isfinite(scores)
            if at.any():
                x, y = letter_outlines(outline, positions[at], scores[at])
                made.add_scatter(
                    x=x, y=y, fill="toself", fillcolor=colour, line_width=0, mode="lines", name=base, hoverinfo="skip"
                )
    curve = len(sequence) > LONGEST
    made.add_scattergl(
        x=positions,
        y=scores,
        mode="lines" if curve else "markers",
        showlegend=False,
        line_width=1,
        marker_opacity=0,
        text=list(sequence),
        hovertemplate="%{x:,} %{text}: %{y:.4g}<extra></extra>",
    )
    made.update_layout(
        title=plotly_text(title),
        template="plotly_white",
        xaxis_title=plotly_text(region.chrom),
        yaxis_title="score",
        xaxis_tickformat=",d",
        dragmode="zoom",
    )
    return made


def letter_outlines(
    outline: str, positions: np.ndarray, scores: np.ndarray
) -> tuple[list[float | None], list[float | None]]:
    """Return the x and y coordinates of the outlines of a letter at all positions where it occurs.

    Consecutive outlines are separated by None.
    """
    x: list[float | None] = []
    y: list[float | None] = []
    for polygon in _polygons(outline):
        across, up = polygon[:, 0] / _SIZE - 0.5, 1 - polygon[:, 1] / _SIZE
        for position, score in zip(positions.tolist(), scores.tolist(), strict=True):
            x += [*(position + 0.96 * across).tolist(), None]
            y += [*(score * up).tolist(), None]
    return x, y


def _polygons(outline: str) -> Iterator[Float64[np.ndarray, "points 2"]]:
    """Yield the closed curves of an SVG path as polygons.

    The path may contain only the commands M, L, H, V, C and Z.
    """
    points: list[np.ndarray] = []
    for command, text in re.findall(r"([MLHVCZ])([^MLHVCZ]*)", outline):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", text)]
        if command == "Z":
            yield np.array([*points, points[0]])
            points = []
        elif command in "HV":
            for number in numbers:
                x, y = points[-1]
                points.append(np.array([number, y] if command == "H" else [x, number]))
        elif command in "ML":
            points += [*np.array(numbers).reshape(-1, 2)]
        else:
            for curve in np.array(numbers).reshape(-1, 3, 2):
                points += [*_cubic(points[-1], *curve)]


def _cubic(start: np.ndarray, first: np.ndarray, second: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return points on a cubic Bezier curve with the given control points, excluding the start point."""
    t = _STEPS
    return (1 - t) ** 3 * start + 3 * t * (1 - t) * ((1 - t) * first + t * second) + t**3 * end
