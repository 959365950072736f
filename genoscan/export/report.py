"""Report on a track: an HTML file with score ranges, logos, a mean profile and tables.

The page is rendered from the templates report.html and report.js. Its Content-Security-Policy blocks
all network requests, and all scripts except those of the page.
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

from genoscan.export.logo import OUTLINES, logo
from genoscan.export.markup import plotly_text, script_json, security_policy
from genoscan.export.scored_variants import ScoredVariant
from genoscan.export.summary import FLANK, SHUFFLES, Curve, Profile, Site, Summary, profile, summarize, top_windows
from genoscan.export.track_file import TrackFile, format_locus
from genoscan.export.variant_section import variant_section
from genoscan.genome.alphabet import decode
from genoscan.genome.feature import Feature
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.tracks.atomic import atomic_write, os_errors
from genoscan.tracks.reader import BigWig

_CURVES = 200
_WIDTH, _WINDOWS = 60, 12
_CANDIDATES, _ROWS = 5_000, 50
_OMITTED = {"command", "format", "regions", "sequences", "target_values", "windows"}
"""Keys of the provenance record that are not listed as settings on the page.

Their values are long or are shown elsewhere on the page.
"""

_BLUE, _GREY = "#2a8fd0", "#9a9a9a"


def write_report(
    output: Path,
    genome: Genome,
    track: TrackFile,
    annotation: Sequence[Feature] = (),
    variants: Sequence[ScoredVariant] | None = None,
) -> None:
    """Write a report on a track.

    Parameters
    ----------
    output
        HTML file to write.
    genome
        Genome on which the track was computed.
    track
        Track to report on.
    annotation
        Features around whose first bases the scores are averaged. The table of the bases with the
        largest absolute scores lists the features that contain each base.
    variants
        Scored variants to list, largest effects first; None for no such section.

    Raises
    ------
    InputError
        If the track cannot be read.
    OutputError
        If the file cannot be written.

    Notes
    -----
    The size of the file is 5 MB (mostly plotly.js), plus 20 kB for each region whose curve is included.
    Curves are included for the 200 regions with the largest absolute scores. Memory is needed for the
    scores of at most a million bases at a time, for the regions and for the page.
    """
    with BigWig(track.path) as scores:
        summary = summarize(scores, track.regions, top=_CANDIDATES, curves=_CURVES)
        averages = profile(scores, track.regions, annotation)
        logos = "".join(
            _logo(scores, genome, piece)
            for piece in top_windows(summary.sites, track.regions, width=_WIDTH, limit=_WINDOWS)
        )
        section = None if variants is None else variant_section(variants, scores, genome)
    figures = {"curve": _bars(track), "histogram": _histogram(summary)}
    if section is not None:
        figures |= section.figures
    if averages is not None:
        figures["profile"] = _profile_figure(averages)
    rows = [_row(genome, site, annotation) for site in summary.sites[:_ROWS]]
    plotly = get_plotlyjs()
    script = _template("report.js").substitute(
        figures=script_json({name: json.loads(figure.to_json()) for name, figure in figures.items()}),
        curves=script_json([_curve_json(curve) for curve in summary.curves]),
    )
    text = _template("report.html").substitute(
        policy=security_policy([plotly, script]),
        title=html.escape(track.name),
        description=html.escape(f"{track.description}; {genome.path.name}"),
        omitted=f" The {_CURVES} of {summary.regions:,} regions with the largest scores are shown."
        if len(summary.curves) < summary.regions
        else "",
        regions="".join(f"<option>{html.escape(format_locus(c.region))}</option>" for c in summary.curves),
        width=_WIDTH,
        outlines=OUTLINES,
        logos=logos,
        profile=_profile_section(averages) if averages else "",
        variants=section.html if section else "",
        scored=f"{summary.scored:,}",
        sites=_table_url(rows),
        feature_head="<th>feature" if annotation else "",
        rows="".join(_table_row(row, named=bool(annotation)) for row in rows),
        settings="".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in _settings(track)
        ),
        checks="".join(f"<li>{html.escape(s)}</li>" for s in _checks(track, genome, summary)),
        plotly=plotly,
        script=script,
    )
    with atomic_write(output) as part, os_errors(output):
        part.write_text(text, encoding="utf-8", errors="replace")


def _template(name: str) -> Template:
    return Template(files("genoscan.export").joinpath(name).read_text("utf-8"))


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(f"{value:.5g}") for value in values]


def _curve_json(curve: Curve) -> dict[str, Any]:
    return {
        "name": format_locus(curve.region),
        "title": plotly_text(format_locus(curve.region)),
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


def _bars(track: TrackFile) -> go.Figure:
    """Return an empty bar chart, in which a script of the page draws the curve of the selected region."""
    bars = go.Bar(
        marker={"color": _BLUE, "line": {"width": 0}},
        hovertemplate="%{x:,.0f}: %{customdata[0]:.3g} to %{customdata[1]:.3g}<extra></extra>",
    )
    return _figure(bars, x="", y=plotly_text(str(track.record.get("score", "score"))))


def _histogram(summary: Summary) -> go.Figure:
    bars = go.Bar(
        x=((summary.edges[1:] + summary.edges[:-1]) / 2).tolist(),
        y=summary.counts.tolist(),
        width=float(np.diff(summary.edges)[0]),
        marker={"color": _BLUE, "line": {"width": 0}},
        hovertemplate="%{x:.3g}: %{y:,} bases<extra></extra>",
    )
    return _figure(bars, x="score", y="bases").update_yaxes(type="log", exponentformat="power")


def _profile_figure(profile: Profile) -> go.Figure:
    offsets = list(range(-FLANK, FLANK + 1))
    line = {"color": _GREY, "width": 0}
    return _figure(
        go.Scatter(x=offsets, y=_numbers(profile.lowest), line=line, mode="lines", hoverinfo="skip"),
        go.Scatter(
            x=offsets,
            y=_numbers(profile.highest),
            line=line,
            mode="lines",
            fill="tonexty",
            fillcolor="rgba(140,140,140,0.45)",
            hoverinfo="skip",
        ),
        go.Scatter(
            x=offsets,
            y=_numbers(profile.mean),
            line={"color": _BLUE, "width": 1.5},
            mode="lines",
            hovertemplate="%{x}: %{y:.3g}<extra></extra>",
        ),
        x="offset from a feature's first base, along its strand (bp)",
        y="mean absolute score",
    )


def _profile_section(profile: Profile) -> str:
    return (
        "<section><h2>Mean profile around feature starts</h2><p>Mean absolute score around the "
        f"first bases of {profile.n_sampled:,} of the {profile.features:,} features whose first "
        "base has a score, in the direction of their strand (line), and around the same number of "
        f"random bases with scores, in {SHUFFLES} random samples (band: minimum and maximum of the "
        'means).</p><div class="figure" id="profile" role="group" aria-label="Mean absolute score '
        'around the first bases of features"></div></section>'
    )


def _logo(scores: BigWig, genome: Genome, piece: Region) -> str:
    bases = decode(genome.fetch(piece.chrom, piece.start, piece.end)).decode()
    label = format_locus(piece)
    svg = logo(bases, scores.scores(piece.chrom, piece.start, piece.end), label=f"{label}: {bases}")
    return (
        f'<figure><figcaption>{html.escape(label)}</figcaption><div class="scroll" tabindex="0" '
        f'role="group" aria-label="{html.escape(label)}">'
        f"{svg}</div></figure>\n"
    )


class _Row(NamedTuple):
    """Row of the table of the bases with the largest absolute scores.

    Attributes
    ----------
    site
        Position and score of the base.
    base
        Letter of the base.
    feature
        Names of the features that contain the base, separated by commas.
    """

    site: Site
    base: str
    feature: str


def _row(genome: Genome, site: Site, features: Sequence[Feature]) -> _Row:
    at = site.base
    base = decode(genome.fetch(at.chrom, at.start, at.end)).decode()
    inside = (f for f in features if f.name and f.chrom == at.chrom and f.start <= at.start < f.end)
    plain = dict.fromkeys(" ".join(f.name.split()) + " (intron)" * f.is_intron(at.start) for f in inside)
    return _Row(site, base, ", ".join(plain))


def _table_row(row: _Row, *, named: bool) -> str:
    place = html.escape(f"{row.site.base.chrom}:{row.site.base.end:,}")
    cells = f'<tr><td>{place}<td>{row.base}<td class="number">{row.site.score:.4g}'
    return cells + (f"<td>{html.escape(row.feature)}" if named else "") + "\n"


def _table_url(rows: Sequence[_Row]) -> str:
    """Return a data URL from which the table of bases can be downloaded as a TSV file."""
    lines = ["#chrom\tstart\tend\tbase\tscore\tfeature\n"]
    for (at, score), base, feature in rows:
        place = f"{at.chrom}\t{at.start}\t{at.end}"
        lines.append(f"{place}\t{base}\t{score:.6g}\t{feature or '.'}\n")
    return "data:text/tab-separated-values;base64," + b64encode("".join(lines).encode()).decode()


def _settings(track: TrackFile) -> Iterator[tuple[str, str]]:
    record = track.record
    yield "command", " ".join(map(str, record.get("command", [])))
    for name, value in record.items():
        if name not in _OMITTED and value is not None:
            yield name.replace("_", " "), value if isinstance(value, str) else json.dumps(value)


def _checks(track: TrackFile, genome: Genome, summary: Summary) -> Iterator[str]:
    """Yield sentences that state the results of two checks.

    The first sentence is about the checksums of the sequences. The second is about the number of scored
    bases, and is omitted if the track's record does not state this number.
    """
    n = len(track.record["sequences"])
    yield (
        f"{n:,} sequence{'s' * (n > 1)} of {genome.path.name}: "
        f"MD5 {'checksums match' if n > 1 else 'checksum matches'} the track's record."
    )
    expected = track.record.get("scored_bases")
    if expected is not None:
        agreement = "as" if expected == summary.scored else f"NOT {expected:,} as"
        yield f"{summary.scored:,} bases have scores, {agreement} stated in its record."
