"""One HTML file that says what a track holds: curves, logos, profiles, tables; it asks no server.

The page is report.html, whose $names are filled in here.
"""

import html
import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from genoscan.export.finished import Finished, format_locus
from genoscan.export.logo import OUTLINES, logo
from genoscan.export.summary import (
    FLANK,
    SHUFFLES,
    Curve,
    Overview,
    Profile,
    Site,
    overview,
    profile,
    stretches,
)
from genoscan.genome.alphabet import decode
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.tracks.atomic import atomic_write, os_errors
from genoscan.tracks.reader import BigWig

_CURVES = 200
_WIDTH, _STRETCHES = 60, 12
_CANDIDATES, _ROWS = 5_000, 50
_LEFT_OUT = {"command", "format", "regions", "sequences", "target_values", "windows"}
"""Of the record: what is long, or said elsewhere."""

_BLUE, _GREY = "#2a8fd0", "#9a9a9a"


def write_report(
    output: Path, genome: Genome, track: Finished, annotation: Sequence[Region] = ()
) -> None:
    """Write a report of a finished track; features give profiles, and names to the strongest bases.

    Size: 5 MB, most of which is plotly.js, and 20 kB a region, of the 200 with the largest scores.
    Memory: a million bases, the regions, and the page.

    Raises
    ------
    InputError
        If the track cannot be read.
    OutputError
        If the file cannot be written.
    """
    with BigWig(track.path) as scores:
        seen = overview(scores, track.regions, top=_CANDIDATES, curves=_CURVES)
        around = profile(scores, track.regions, annotation)
        logos = "".join(
            _logo(scores, genome, piece)
            for piece in stretches(seen.sites, track.regions, width=_WIDTH, most=_STRETCHES)
        )
    figures = {"curve": _bars(track), "histogram": _histogram(seen)}
    if around is not None:
        figures["profile"] = _profile(around)
    rows = [_row_of(genome, site, annotation) for site in seen.sites[:_ROWS]]
    page = Template(files("genoscan.export").joinpath("report.html").read_text("utf-8"))
    text = page.substitute(
        title=html.escape(track.name),
        told=html.escape(f"{track.description}; {genome.path.name}"),
        left_out=f" The {_CURVES} of {seen.regions:,} regions with the largest scores are here."
        if len(seen.curves) < seen.regions
        else "",
        regions="".join(
            f"<option>{html.escape(format_locus(c.region))}</option>" for c in seen.curves
        ),
        width=_WIDTH,
        outlines=OUTLINES,
        logos=logos,
        profile=_profile_section(around) if around else "",
        scored=f"{seen.scored:,}",
        sites=_table(rows),
        feature_head="<th>feature" if annotation else "",
        rows="".join(_cells(row, named=bool(annotation)) for row in rows),
        settings="".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
            for name, value in _settings(track)
        ),
        checks="".join(f"<li>{html.escape(said)}</li>" for said in _checks(track, genome, seen)),
        plotly=get_plotlyjs(),
        figures=_json({name: json.loads(figure.to_json()) for name, figure in figures.items()}),
        curves=_json([_plain(curve) for curve in seen.curves]),
    )
    with atomic_write(output) as part, os_errors(output):
        part.write_text(text, encoding="utf-8")


def _json(value: Any) -> str:
    """Return JSON that cannot end a script, whatever a name holds."""
    return json.dumps(value).replace("<", "\\u003c")


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(f"{value:.5g}") for value in values]


def _plain(curve: Curve) -> dict[str, Any]:
    return {
        "name": format_locus(curve.region),
        "first": curve.region.start + 1,
        "step": curve.step,
        "low": _numbers(curve.low),
        "high": _numbers(curve.high),
    }


def _figure(*traces: Any, x: str, y: str) -> go.Figure:
    figure = go.Figure(traces)
    figure.update_xaxes(title=x, separatethousands=True).update_yaxes(title=y)
    return figure.update_layout(
        template="none", margin={"t": 20, "r": 10, "b": 50, "l": 70}, bargap=0, showlegend=False
    )


def _bars(track: Finished) -> go.Figure:
    """Return the figure that a region's curve is put into."""
    bars = go.Bar(
        marker={"color": _BLUE, "line": {"width": 0}},
        hovertemplate="%{x:,.0f}: %{customdata[0]:.3g} to %{customdata[1]:.3g}<extra></extra>",
    )
    return _figure(bars, x="", y=str(track.record.get("score", "score")))


def _histogram(seen: Overview) -> go.Figure:
    bars = go.Bar(
        x=((seen.edges[1:] + seen.edges[:-1]) / 2).tolist(), y=seen.counts.tolist(),
        width=float(seen.edges[1] - seen.edges[0]), marker={"color": _BLUE, "line": {"width": 0}},
        hovertemplate="%{x:.3g}: %{y:,} bases<extra></extra>",
    )  # fmt: skip
    return _figure(bars, x="score", y="bases").update_yaxes(type="log", exponentformat="power")


def _profile(around: Profile) -> go.Figure:
    offsets = list(range(-FLANK, FLANK + 1))
    line = {"color": _GREY, "width": 0}
    return _figure(
        go.Scatter(x=offsets, y=_numbers(around.lowest), line=line, mode="lines",
                   hoverinfo="skip"),
        go.Scatter(x=offsets, y=_numbers(around.highest), line=line, mode="lines", fill="tonexty",
                   fillcolor="rgba(140,140,140,0.45)", hoverinfo="skip"),
        go.Scatter(x=offsets, y=_numbers(around.mean), line={"color": _BLUE, "width": 1.5},
                   mode="lines", hovertemplate="%{x}: %{y:.3g}<extra></extra>"),
        x="bases from where a feature begins, along its strand", y="mean size of the score",
    )  # fmt: skip


def _profile_section(around: Profile) -> str:
    return (
        "<section><h2>Where features begin</h2><p>The mean size of the scores around the first "
        f"bases of {around.looked_at:,} of the {around.features:,} features that begin at a base "
        "with a score, each read along its strand (line), and of as many "
        f"places at random among all bases with scores, {SHUFFLES} times over (band: lowest and "
        'highest mean).</p><div class="figure" id="profile" role="group" aria-label="Mean size of '
        'the score around where features begin"></div></section>'
    )


def _logo(scores: BigWig, genome: Genome, piece: Region) -> str:
    bases = decode(genome.fetch(piece.chrom, piece.start, piece.end)).decode()
    told = format_locus(piece)
    drawn = logo(bases, scores.scores(piece.chrom, piece.start, piece.end), told=f"{told}: {bases}")
    return (
        f'<figure><figcaption>{html.escape(told)}</figcaption><div class="scroll" tabindex="0" '
        f'role="group" aria-label="{html.escape(told)}">'
        f"{drawn}</div></figure>\n"
    )


class _Row(NamedTuple):
    """A base of the table, and which features it lies in."""

    site: Site
    base: str
    feature: str


def _row_of(genome: Genome, site: Site, features: Sequence[Region]) -> _Row:
    at = site.base
    base = decode(genome.fetch(at.chrom, at.start, at.end)).decode()
    names = (f.name for f in features if f.chrom == at.chrom and f.start <= at.start < f.end)
    plain = dict.fromkeys(" ".join(name.split()) for name in names if name)
    return _Row(site, base, ", ".join(plain))


def _cells(row: _Row, *, named: bool) -> str:
    place = html.escape(f"{row.site.base.chrom}:{row.site.base.end:,}")
    cells = f'<tr><td>{place}<td>{row.base}<td class="number">{row.site.score:.4g}'
    return cells + (f"<td>{html.escape(row.feature)}" if named else "") + "\n"


def _table(rows: Sequence[_Row]) -> str:
    """Return the strongest bases as a file to be kept, in the page itself."""
    lines = ["#chrom\tstart\tend\tbase\tscore\tfeature\n"]
    for (at, score), base, feature in rows:
        place = f"{at.chrom}\t{at.start}\t{at.end}"
        lines.append(f"{place}\t{base}\t{score:.6g}\t{feature or '.'}\n")
    return "data:text/tab-separated-values;base64," + b64encode("".join(lines).encode()).decode()


def _settings(track: Finished) -> Iterator[tuple[str, str]]:
    record = track.record
    yield "command", " ".join(map(str, record.get("command", [])))
    for name, value in record.items():
        if name not in _LEFT_OUT and value is not None:
            yield name.replace("_", " "), value if isinstance(value, str) else json.dumps(value)


def _checks(track: Finished, genome: Genome, seen: Overview) -> Iterator[str]:
    """Say what was looked at before the page was written."""
    n = len(track.record["sequences"])
    yield (
        f"{n:,} sequence{'s' * (n > 1)} of {genome.path.name} "
        f"{'have' if n > 1 else 'has'} the MD5 of those that the track was made on."
    )
    expected = track.record.get("scored_bases")
    if expected is not None:
        agree = "as many as" if expected == seen.scored else f"NOT the {expected:,} that"
        yield f"{seen.scored:,} bases have scores, {agree} its record says."
