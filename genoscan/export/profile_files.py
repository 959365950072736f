"""Profiles of tracks around the reference points of regions, as a page, a picture or a table.

The page is rendered from the templates profile.html and profile.js. It includes plotly.js, and its
Content-Security-Policy blocks all network requests.
"""

import html
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from string import Template

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float32
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from genoscan.errors import InputError, OutputError
from genoscan.export.markup import note_list, page_style, plotly_text, script_json, security_policy
from genoscan.export.profiles import Profiles, profile_table
from genoscan.export.track_file import format_place
from genoscan.tracks.atomic import AtomicFiles, atomic_files, os_errors
from genoscan.tracks.profile import MeanProfile, mean_of_known
from genoscan.tracks.tables import table_text

_PAGE, _PICTURE, _TABLE = ".html", ".png", ".tsv"
SUFFIXES = _PAGE, _PICTURE, _TABLE

_ROWS = 1_000
"""Largest number of rows of a heat map; beyond it, neighbours are averaged."""

_SHOWN = 0.99  # quantile of the absolute values at which a colour scale ends
_LINE, _BAND = "#2a8fd0", "rgba(42,143,208,0.3)"
_BLANK = {"fillcolor": "rgba(140,140,140,0.45)", "line_width": 0}
_HEIGHT, _WIDTH = 760, 420  # of the figure and of each of its columns, in pixels
_NARROW = 300  # smallest width of a column on a page


def check_profile_output(output: Path) -> None:
    """Check that a file for a profile has a known suffix, and that the programs it needs are installed.

    Parameters
    ----------
    output
        File to write.

    Raises
    ------
    InputError
        If the suffix is unknown, or a picture is requested and kaleido is not installed.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise InputError(f'{output}: unknown suffix "{output.suffix}", expected one of {", ".join(SUFFIXES)}')
    if output.suffix.lower() == _PICTURE and find_spec("kaleido") is None:
        raise InputError(f"{output}: requires kaleido (pip install kaleido) and Chrome, or write .html")


def write_profiles(outputs: Sequence[Path], found: Profiles, *, title: str) -> None:
    """Write profiles as pages (.html), pictures (.png) or tables (.tsv).

    Parameters
    ----------
    outputs
        Files to write; the suffix of each determines its contents.
    found
        Profiles.
    title
        Title of pages and pictures.

    Raises
    ------
    InputError
        If `check_profile_output` raises it.
    OutputError
        If a file cannot be written, or no picture can be drawn.

    Notes
    -----
    A page has 5 MB, mostly plotly.js, and 5 bytes for each value of its heat maps, which have at most 1,000 rows;
    if there are more regions, the rows are means of consecutive regions.
    """
    for path in outputs:
        check_profile_output(path)
    with atomic_files() as together:
        for path in outputs:
            _WRITERS[path.suffix.lower()](path, found, title, together)


def profile_figure(found: Profiles) -> go.Figure:
    """Return a figure with a column per track: the mean profile above a heat map with a row per region.

    Parameters
    ----------
    found
        Profiles of at least one region.

    Returns
    -------
    plotly.graph_objects.Figure
        Figure. Each colour scale ends at the 99 % quantile of the absolute values.
    """
    n = len(found.labels)
    figure = make_subplots(
        rows=2,
        cols=n,
        shared_xaxes=True,
        row_heights=[0.3, 0.7],
        vertical_spacing=0.03,
        horizontal_spacing=0.25 / n,
        column_titles=[plotly_text(label) for label in found.labels],
    )
    x = found.window.offsets + (found.window.step - 1) / 2
    for column, (scores, mean) in enumerate(zip(found.scores, found.means, strict=True), 1):
        for trace in _mean_traces(x, mean):
            figure.add_trace(trace, row=1, col=column)
        domain = figure.layout[f"xaxis{column if column > 1 else ''}"].domain
        figure.add_trace(_heat_map(x, _group_rows(scores), domain), row=2, col=column)
        # Bases without a score differ from those with a score of 0, which are white.
        number = n + column
        figure.add_shape(
            xref=f"x{number} domain", yref=f"y{number} domain", x0=0, x1=1, y0=0, y1=1, layer="below", **_BLANK
        )
    figure.update_layout(
        template="none",
        showlegend=False,
        margin={"t": 60, "r": 20, "b": 130, "l": 80},
        font_size=12,
        hovermode="closest",
    )
    score = "absolute score" if found.absolute else "score"
    figure.update_xaxes(
        row=2, title=f"offset from the {found.point} (bp)", separatethousands=True, showgrid=False, zeroline=False
    )
    figure.update_yaxes(row=2, autorange="reversed", showgrid=False, separatethousands=True, zeroline=False)
    figure.update_yaxes(row=1, col=1, title=f"mean {score}")
    return figure.update_yaxes(row=2, col=1, title="regions, by mean in the first track")


def _mean_traces(x: np.ndarray, mean: MeanProfile) -> list[go.Scatter]:
    """Return the band of the standard error, and the mean."""
    error = np.nan_to_num(mean.standard_error)
    edge = {"x": x, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    return [
        go.Scatter(y=mean.mean - error, **edge),
        go.Scatter(y=mean.mean + error, fill="tonexty", fillcolor=_BAND, **edge),
        go.Scatter(
            x=x,
            y=mean.mean,
            mode="lines",
            line={"color": _LINE, "width": 1.5},
            hovertemplate="%{x}: %{y:.4g}<extra></extra>",
        ),
    ]


def _heat_map(x: np.ndarray, rows: Float32[np.ndarray, "rows bins"], domain: Sequence[float]) -> go.Heatmap:
    known = rows[~np.isnan(rows)]
    largest = float(np.quantile(np.abs(known), _SHOWN)) if known.size else 0.0
    largest = largest or float(np.abs(known).max(initial=0)) or 1.0
    signed = bool(known.size and known.min() < 0)
    return go.Heatmap(
        x=x,
        y=np.arange(1, len(rows) + 1),
        z=rows,
        zmin=-largest if signed else 0,
        zmax=largest,
        colorscale="RdBu_r" if signed else "Blues",
        colorbar={
            "orientation": "h",
            "x": sum(domain) / 2,
            "len": domain[1] - domain[0],
            "y": -0.12,
            "yanchor": "top",
            "thickness": 10,
            "nticks": 5,
        },
        hovertemplate="row %{y}, offset %{x}: %{z:.4g}<extra></extra>",
    )


def _group_rows(scores: Float32[np.ndarray, "regions bins"]) -> Float32[np.ndarray, "rows bins"]:
    """Return at most `_ROWS` rows, each of which is a mean of consecutive regions."""
    if len(scores) <= _ROWS:
        return scores
    edges = _edges(len(scores))
    return np.stack([mean_of_known(scores[a:b], axis=0) for a, b in pairwise(edges)]).astype(np.float32)


def _edges(n_regions: int) -> list[int]:
    """Return the first region of each row of a heat map, and the number of regions."""
    return np.linspace(0, n_regions, min(n_regions, _ROWS) + 1).astype(int).tolist()


def _row_names(found: Profiles) -> list[str]:
    """Return the region, or the number of regions, in each row of the heat maps."""
    edges = _edges(len(found.regions))
    return [
        format_place(found.regions[a]) + f", strand {found.regions[a].strand}" if b == a + 1 else f"{b - a} regions"
        for a, b in pairwise(edges)
    ]


def _write_page(output: Path, found: Profiles, title: str, together: AtomicFiles) -> None:
    plotly = get_plotlyjs()
    script = _template("profile.js").substitute(
        figure=script_json(json.loads(profile_figure(found).to_json())), names=script_json(_row_names(found))
    )
    text = _template("profile.html").substitute(
        policy=security_policy([plotly, script]),
        title=html.escape(title),
        tracks="".join(
            f"<dt>{html.escape(label)}</dt><dd>{html.escape(description)}</dd>"
            for label, description in zip(found.labels, found.descriptions, strict=True)
        ),
        explanation=html.escape(_explanation(found)),
        notes=note_list(found.notes),
        style=page_style(),
        width=len(found.labels) * _NARROW,
        plotly=plotly,
        script=script,
    )
    part = together.create(output)
    with os_errors(output):
        part.write_text(text, encoding="utf-8", errors="replace")


def _explanation(found: Profiles) -> str:
    n, window = len(found.regions), found.window
    score = "absolute score" if found.absolute else "score"
    bins = f", in bins of {window.step} bases" if window.step > 1 else ""
    rows = "" if n <= _ROWS else f" Each row of a heat map is a mean of {n // _ROWS} or {n // _ROWS + 1} regions."
    return (
        f"Mean {score} (line) and its standard error (band) of {n:,} region{'s' * (n != 1)}, from "
        f"{window.upstream:,} bases upstream to {window.downstream:,} bases downstream of the {found.point} of each, "
        f"in the direction of its strand{bins}.{rows} Bases without a score are left out of means, and are grey in "
        "heat maps."
    )


def _write_picture(output: Path, found: Profiles, title: str, together: AtomicFiles) -> None:
    figure = profile_figure(found).update_layout(title=plotly_text(title), margin_t=80)
    try:
        picture = figure.to_image("png", scale=2, width=_WIDTH * len(found.labels) + 100, height=_HEIGHT)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise OutputError(f"{output}: no picture drawn: {reason}: install a Chrome, or write .html") from None
    part = together.create(output)
    with os_errors(output):
        part.write_bytes(picture)


def _write_table(output: Path, found: Profiles, title: str, together: AtomicFiles) -> None:
    part = together.create(output)
    with os_errors(output):
        part.write_text(table_text(profile_table(found)), encoding="utf-8")


_WRITERS: dict[str, Callable[[Path, Profiles, str, AtomicFiles], None]] = {
    _PAGE: _write_page,
    _PICTURE: _write_picture,
    _TABLE: _write_table,
}


def _template(name: str) -> Template:
    return Template(files("genoscan.export").joinpath(name).read_text("utf-8"))
