"""Report on a track: an HTML file with score ranges, genes, logos, a mean profile and tables.

The page is rendered from the templates report.html and report.js. Its Content-Security-Policy blocks
all network requests, and all scripts except those of the page.
"""

import html
import json
import math
import shlex
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from genoscan.export.gene_strip import GeneIndex, gene_strip
from genoscan.export.logo import OUTLINES, logo
from genoscan.export.markup import note_list, page_style, plotly_text, script_json, security_policy
from genoscan.export.report_curves import curves_json, numbers
from genoscan.export.scored_variants import ScoredVariant
from genoscan.export.summary import FLANK, SHUFFLES, Profile, Site, Summary, profile, summarize, top_windows
from genoscan.export.track_file import TrackFile, format_locus, format_place, shown_tracks, track_notes
from genoscan.export.variant_section import variant_section
from genoscan.genome.alphabet import decode
from genoscan.genome.feature import Feature
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.tracks.atomic import atomic_write, os_errors
from genoscan.tracks.profile import FEWEST
from genoscan.tracks.reader import BigWig

_CURVES = 200
_WIDTH, _WINDOWS = 60, 12
_CANDIDATES, _ROWS = 5_000, 50
_LANES = 2
"""Number of lanes of genes below a logo."""
_LEAST_COVERED = 0.01
"""Smallest part of the bases that must have a score for a profile, whose random bases are drawn from all bases."""
_OMITTED = {"command", "format", "regions", "sequences", "target_values", "windows"}
"""Keys of the provenance record that are not listed as settings on the page.

Their values are long or are shown elsewhere on the page.
"""

_BLUE, _GREY = "#2a8fd0", "#9a9a9a"


def write_report(
    output: Path,
    genome: Genome,
    tracks: Sequence[TrackFile],
    annotation: Sequence[Feature] = (),
    variants: Sequence[ScoredVariant] | None = None,
) -> None:
    """Write a report on a track.

    Parameters
    ----------
    output
        HTML file to write.
    genome
        Genome of the tracks.
    tracks
        Tracks. The report is on the first track that genoscan wrote, or on the first one. Of the others, the
        curves along the same regions are included, and the values at the bases with the largest absolute scores.
    annotation
        Features, which are drawn with their exons, and around whose first bases the scores are averaged. The
        table of the bases with the largest absolute scores lists the features that contain each base.
    variants
        Scored variants to list, largest effects first; None for no such section.

    Raises
    ------
    InputError
        If a track cannot be read.
    OutputError
        If the file cannot be written.

    Notes
    -----
    The size of the file is 5 MB (mostly plotly.js), plus 20 kB for each region and track whose curve is included.
    Curves are included for the 200 regions with the largest absolute scores. Memory is needed for the
    scores of at most a million bases at a time, for the regions and for the page.
    """
    track = shown_tracks(tracks)[0]
    others = [other for other in tracks if other is not track]
    genes = GeneIndex(annotation)
    with ExitStack() as stack:
        scores, *readers = (stack.enter_context(BigWig(file.path)) for file in (track, *others))
        summary = summarize(scores, track.regions, top=_CANDIDATES, curves=_CURVES)
        is_dense = summary.scored >= _LEAST_COVERED * sum(map(len, track.regions))
        averages = profile(scores, track.regions, annotation) if is_dense else None
        logos = "".join(
            _logo(scores, genome, piece, genes)
            for piece in top_windows(summary.sites, track.regions, width=_WIDTH, limit=_WINDOWS)
        )
        section = None if variants is None else variant_section(variants, scores, genome)
        curves = curves_json(summary.curves, readers, genes)
        rows = [_row(genome, site, genes, readers) for site in summary.sites[:_ROWS]]
    figures = {"curve": _figure(_curve_bars(), x="", y=""), "histogram": _histogram(summary)}
    if section is not None:
        figures |= section.figures
    if averages is not None and averages.features >= FEWEST:
        figures["profile"] = _profile_figure(averages)
    columns = [other.name for other in others]
    is_named = any(region.name for region in track.regions)
    plotly = get_plotlyjs()
    script = _template("report.js").substitute(
        figures=script_json({name: json.loads(figure.to_json()) for name, figure in figures.items()}),
        curves=script_json(curves),
        axes=script_json([plotly_text(name) for name in [_axis_title(track), *columns]]),
    )
    text = _template("report.html").substitute(
        policy=security_policy([plotly, script]),
        style=page_style(),
        title=html.escape(track.name),
        descriptions=_descriptions(track, others, genome),
        notes=note_list(list(_notes([track, *others], summary))),
        empty="" if summary.scored else " hidden",
        legend=" Each track has a separate scale." * bool(others)
        + " Coding exons are drawn as thick bars, untranslated ones as thin bars, introns as lines." * bool(annotation),
        omitted=f" The {_CURVES} of {summary.regions:,} regions with the largest scores are shown."
        if len(summary.curves) < summary.regions
        else "",
        regions="".join(f"<option>{html.escape(format_place(c.region))}</option>" for c in summary.curves),
        width=_WIDTH,
        outlines=OUTLINES,
        logos=logos,
        profile=_profile_section(averages, is_dense=is_dense) if annotation and summary.scored else "",
        variants=section.html if section else "",
        scored=f"{summary.scored:,}",
        sites=_table_url(rows, columns),
        heads="".join(f'<th class="number">{html.escape(name)}' for name in columns)
        + "<th>region" * is_named
        + "<th>feature" * bool(annotation),
        rows="".join(_table_row(row, region=is_named, feature=bool(annotation)) for row in rows),
        settings="".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in _settings(track)
        ),
        checks="".join(f"<li>{html.escape(s)}</li>" for s in _checks(track, genome, summary)),
        plotly=plotly,
        script=script,
    )
    with atomic_write(output) as part, os_errors(output):
        part.write_text(text, encoding="utf-8", errors="replace")


def _descriptions(track: TrackFile, others: Sequence[TrackFile], genome: Genome) -> str:
    lines = [(file.name, file.description) for file in (track, *others)] + [("genome", genome.path.name)]
    return "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(line)}</dd>" for name, line in lines)


def _notes(tracks: Sequence[TrackFile], summary: Summary) -> Iterator[str]:
    yield from track_notes(tracks)
    if not summary.scored and tracks[0].record.get("scored_bases") != 0:
        yield f"{tracks[0].name}: no base has a score."


def _axis_title(track: TrackFile) -> str:
    return str(track.record.get("score") or track.record.get("prediction") or track.name)


def _template(name: str) -> Template:
    return Template(files("genoscan.export").joinpath(name).read_text("utf-8"))


def _figure(*traces: Any, x: str, y: str) -> go.Figure:
    figure = go.Figure(traces)
    figure.update_xaxes(title=x, separatethousands=True).update_yaxes(title=y)
    return figure.update_layout(
        template="none", margin={"t": 20, "r": 10, "b": 50, "l": 70}, bargap=0, showlegend=False
    )


def _curve_bars() -> go.Bar:
    """Return bars without data, for the curves that a script of the page draws."""
    return go.Bar(
        marker={"color": _BLUE, "line": {"width": 0}},
        hovertemplate="%{x:,.0f}: %{customdata[0]:.3g} to %{customdata[1]:.3g}<extra></extra>",
    )


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
        go.Scatter(x=offsets, y=numbers(profile.lowest), line=line, mode="lines", hoverinfo="skip"),
        go.Scatter(
            x=offsets,
            y=numbers(profile.highest),
            line=line,
            mode="lines",
            fill="tonexty",
            fillcolor="rgba(140,140,140,0.45)",
            hoverinfo="skip",
        ),
        go.Scatter(
            x=offsets,
            y=numbers(profile.mean),
            line={"color": _BLUE, "width": 1.5},
            mode="lines",
            hovertemplate="%{x}: %{y:.3g}<extra></extra>",
        ),
        x="offset from the first base (bp)",
        y="mean absolute score",
    )


def _profile_section(profile: Profile | None, *, is_dense: bool) -> str:
    heading = "<section><h2>Mean profile around feature starts</h2>"
    n_features = 0 if profile is None else profile.features
    if not is_dense:
        return f"{heading}<p>No profile: fewer than {_LEAST_COVERED:.0%} of the bases have a score.</p></section>"
    if profile is None or n_features < FEWEST:
        begin = "1 feature begins" if n_features == 1 else f"{n_features or 'no'} features begin"
        return (
            f"{heading}<p>No profile: {begin} at a base with a score; a mean of fewer than {FEWEST} would show single "
            "features.</p></section>"
        )
    return (
        f"{heading}<p>Mean absolute score around the "
        f"first bases of {profile.n_sampled:,} of the {profile.features:,} features whose first "
        "base has a score, in the direction of their strand (line), and around the same number of "
        f"random bases with scores, in {SHUFFLES} random samples (band: minimum and maximum of the "
        'means).</p><div class="figure" id="profile" role="group" aria-label="Mean absolute score '
        'around the first bases of features"></div></section>'
    )


def _logo(scores: BigWig, genome: Genome, piece: Region, genes: GeneIndex) -> str:
    bases = decode(genome.fetch(piece.chrom, piece.start, piece.end)).decode()
    label, bars = format_locus(piece), gene_strip(genes.overlapping(piece), piece, max_lanes=_LANES).bars
    names = ", ".join(dict.fromkeys(bar.name for bar in bars if bar.name))
    values = scores.scores(piece.chrom, piece.start, piece.end)
    svg = logo(bases, values, label=f"{label}: {bases}", start=piece.start, genes=bars)
    place = format_place(piece)
    caption = f"{place}, {names}" if names not in ("", piece.name) else place
    return (
        f'<figure><figcaption>{html.escape(caption)}</figcaption><div class="scroll" tabindex="0" '
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
    values
        Values of the other tracks at the base; NaN where they have none.
    feature
        Names of the features that contain the base, separated by commas.
    """

    site: Site
    base: str
    values: tuple[float, ...]
    feature: str


def _row(genome: Genome, site: Site, genes: GeneIndex, others: Sequence[BigWig]) -> _Row:
    at = site.base
    base = decode(genome.fetch(at.chrom, at.start, at.end)).decode()
    values = tuple(
        float(other.finite_scores(at.chrom, at.start, at.end)[0]) if at.chrom in other.sizes else math.nan
        for other in others
    )
    inside = (f for f in genes.overlapping(at) if f.name)
    plain = dict.fromkeys(" ".join(f.name.split()) + " (intron)" * f.is_intron(at.start) for f in inside)
    return _Row(site, base, values, ", ".join(plain))


def _table_row(row: _Row, *, region: bool, feature: bool) -> str:
    """Return a row of the HTML table, with the optional columns that the table has."""
    place = html.escape(f"{row.site.base.chrom}:{row.site.base.end:,}")
    numbers = "".join(f'<td class="number">{_number(value, ".4g")}' for value in (row.site.score, *row.values))
    names = [row.site.base.name] * region + [row.feature] * feature
    return f"<tr><td>{place}<td>{row.base}{numbers}{''.join(f'<td>{html.escape(name)}' for name in names)}\n"


def _table_url(rows: Sequence[_Row], columns: Sequence[str]) -> str:
    """Return a data URL from which the table of bases can be downloaded as a TSV file."""
    names = [" ".join(name.split()) for name in columns]
    lines = ["\t".join(["#chrom", "start", "end", "base", "score", *names, "region", "feature"])]
    for (at, score), base, values, feature in rows:
        numbers = [_number(value, ".6g") for value in (score, *values)]
        region = " ".join(at.name.split())
        lines.append("\t".join([at.chrom, str(at.start), str(at.end), base, *numbers, region or ".", feature or "."]))
    text = "\n".join([*lines, ""])
    return "data:text/tab-separated-values;base64," + b64encode(text.encode()).decode()


def _number(value: float, digits: str) -> str:
    return "." if math.isnan(value) else f"{value:{digits}}"


def _settings(track: TrackFile) -> Iterator[tuple[str, str]]:
    record = track.record
    if command := record.get("command"):
        yield "command", shlex.join(map(str, command))
    for name, value in record.items():
        if name not in _OMITTED and not _is_empty(value):
            yield name.replace("_", " "), value if isinstance(value, str) else json.dumps(_rounded(value))


def _is_empty(value: Any) -> bool:
    """Return whether a JSON value is null, or consists of empty lists and objects."""
    return value is None or value == {} or (isinstance(value, list) and all(map(_is_empty, value)))


def _rounded(value: Any) -> Any:
    """Round the numbers in a JSON value to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _checks(track: TrackFile, genome: Genome, summary: Summary) -> Iterator[str]:
    """Yield sentences that state the results of two checks.

    The first sentence is about the checksums of the sequences. The second is about the number of scored
    bases, and is omitted if the track's record does not state this number.
    """
    if not track.has_record:
        yield f"Names and lengths of {len(track.regions):,} sequences are those of {genome.path.name}."
        return
    n = len(track.record["sequences"])
    yield (
        f"{n:,} sequence{'s' * (n > 1)} of {genome.path.name}: "
        f"MD5 {'checksums match' if n > 1 else 'checksum matches'} the track's record."
    )
    expected = track.record.get("scored_bases")
    if expected is not None:
        agreement = "as" if expected == summary.scored else f"NOT {expected:,} as"
        yield f"{summary.scored:,} bases have scores, {agreement} stated in its record."
