"""Pages that show a dependency map as a heat map with the sequence on both axes.

An axis shows letters where they have room, and positions elsewhere. The page includes plotly.js, and its
Content-Security-Policy blocks all network requests.
"""

import html
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from genoscan.dependency.dependency_map import DependencyMap
from genoscan.export.markup import page_style, plotly_text, script_json, security_policy
from genoscan.export.track_file import format_locus
from genoscan.genome.alphabet import decode
from genoscan.genome.region import Region

LARGEST_SIDE = 2_000
"""Largest number of rows or columns of a heat map; the page has 5 bytes per value in addition to 5 MB."""

_SHOWN = 0.995  # quantile of the positive values at which the colour scale ends
_UNITS = {"log-odds": "|Δ log2 odds|", "jacobian": "|Δ log p|", "derivative": "|d log p|"}
_OMITTED = {"command", "sequences", "regions"}


def dependency_figure(found: DependencyMap, definition: str) -> go.Figure:
    """Return a heat map: mutated bases from top to bottom, read bases from left to right.

    Parameters
    ----------
    found
        Dependency map with at most `LARGEST_SIDE` rows and columns.
    definition
        Definition of the map, which determines the title of the colour scale.

    Returns
    -------
    plotly.graph_objects.Figure
        Square heat map. The colour scale ends at the 99.5 % quantile of the values above 0.
    """
    values, columns = found.dense(), found.layout.columns
    positive = values[np.isfinite(values) & (values > 0)]
    rows = found.layout.rows + 1
    figure = go.Figure(
        go.Heatmap(
            x0=columns.start + 1,
            dx=1,
            # Rows that are not consecutive are categories, because a numeric axis would show them with gaps.
            y=rows if _consecutive(found) else [f"{row:,}" for row in rows],
            z=values,
            zmin=0,
            zmax=float(np.quantile(positive, _SHOWN)) if positive.size else 1,
            colorscale="RdBu_r",
            colorbar={"title": _UNITS[definition]},
            hovertemplate="mutated %{y:,d}, read %{x:,d}: %{z:.4g}<extra></extra>"
            if _consecutive(found)
            else "mutated %{y}, read %{x:,d}: %{z:.4g}<extra></extra>",
        )
    )
    figure.update_layout(
        template="none", font_size=11, margin={"t": 20, "r": 10, "b": 60, "l": 90}, xaxis={"constrain": "domain"}
    )
    figure.update_xaxes(title=plotly_text(f"read base, {columns.chrom}"), tickformat=",d", showgrid=False)
    figure.update_yaxes(title="mutated base", autorange="reversed", tickformat=",d", showgrid=False)
    if _consecutive(found):
        figure.update_yaxes(scaleanchor="x", constrain="domain")
    return figure


def write_dependency_page(output: Path, found: DependencyMap, record: Mapping[str, Any], *, title: str) -> None:
    """Write a page with a heat map of a dependency map.

    Parameters
    ----------
    output
        HTML file to write.
    found
        Dependency map with at most `LARGEST_SIDE` rows and columns.
    record
        Record of the map, which is listed on the page.
    title
        Title of the page.

    Notes
    -----
    5 MB, mostly plotly.js, and 5 bytes for each value of the map.
    """
    definition = str(record["dependency"]["map"])
    figure = json.loads(dependency_figure(found, definition).to_json())
    columns = found.layout.columns
    plotly = get_plotlyjs()
    script = _template("page.js").substitute(
        figure=script_json(figure),
        read=script_json({"first": columns.start + 1, "letters": decode(found.column_codes).decode()}),
        mutated=script_json(
            {"first": int(found.layout.rows[0]) + 1, "letters": decode(found.row_codes).decode()}
            if _consecutive(found)
            else None
        ),
    )
    region = Region(columns.chrom, record["regions"][0]["start"], record["regions"][0]["end"])
    text = _template("page.html").substitute(
        policy=security_policy([plotly, script]),
        style=page_style(),
        title=html.escape(title),
        description=html.escape(
            f"Dependency map ({definition}) of {format_locus(region)}, read bases {format_locus(columns)}, by "
            f"{record['model']}, strand {record['strand']}"
        ),
        settings="".join(
            f"<dt>{html.escape(name.replace('_', ' '))}</dt><dd>{html.escape(_text(value))}</dd>"
            for name, value in record.items()
            if name not in _OMITTED and value is not None
        ),
        plotly=plotly,
        script=script,
    )
    output.write_text(text, encoding="utf-8", errors="replace")


def _consecutive(found: DependencyMap) -> bool:
    rows = found.layout.rows
    return bool(len(rows) > 1 and rows[-1] - rows[0] + 1 == len(rows))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _template(name: str) -> Template:
    return Template(files("genoscan.dependency").joinpath(name).read_text("utf-8"))
