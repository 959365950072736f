"""Section of a report with variants: a table of the largest effects, and the scores around the strongest ones."""

import html
import math
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from genoscan.effects.variant_output import COLUMNS
from genoscan.export.markup import plotly_text
from genoscan.export.scored_variants import ScoredVariant, strongest
from genoscan.export.track_file import format_locus
from genoscan.genome.alphabet import decode
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.genome.variant import OK
from genoscan.tracks.reader import BigWig

_ROWS, _FIGURES = 50, 12
FLANK = 50
"""Number of bases in a figure on either side of a variant."""

_LABELS = {"largest_at": "largest change at"}
_BLUE, _MARK = "#2a8fd0", "rgba(213,94,0,0.35)"


class VariantSection(NamedTuple):
    """Section of a report.

    Attributes
    ----------
    html
        HTML text of the section.
    figures
        Figures by the id of the elements in which they are drawn.
    """

    html: str
    figures: dict[str, go.Figure]


def variant_section(variants: Sequence[ScoredVariant], scores: BigWig, genome: Genome) -> VariantSection:
    """Return a section with a table of variants, and figures of a track around the strongest ones.

    Parameters
    ----------
    variants
        Variants of one file.
    scores
        Track whose scores are shown.
    genome
        Genome of the variants and of the track.

    Returns
    -------
    VariantSection
        The 50 variants with the largest absolute effects, largest first, and figures of at most 12 of them:
        those around which the track has scores.

    Raises
    ------
    InputError
        If the track cannot be read.
    """
    rows = strongest(variants, _ROWS)
    names = [c.name for c in COLUMNS if any(not math.isnan(variant.scores[c.name]) for variant in rows)]
    figures: dict[str, go.Figure] = {}
    drawn = []
    for variant in rows:
        if len(figures) < _FIGURES and (figure := _figure(variant, scores, genome)) is not None:
            name = f"variant{len(figures)}"
            figures[name] = figure
            drawn.append(
                f"<figure><figcaption>{html.escape(_caption(variant))}</figcaption>"
                f'<div class="figure small" id="{name}" role="group" aria-label="Scores around a variant"></div>'
                "</figure>"
            )
    head = "".join(f'<th class="number">{html.escape(_LABELS.get(name, name))}' for name in names)
    body = "".join(_row(variant, names) for variant in rows)
    text = (
        f"<section><h2>Variants</h2><p>{html.escape(_summary(variants, len(rows)))}</p>"
        f"<dl>{_definitions(names)}</dl>"
        f'<p><a download="variants.tsv" href="{_table_url(rows, names)}">Download these rows (TSV)</a></p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of the variants with the largest effects">'
        f"<table><thead><tr><th>position<th>ID<th>alleles{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )
    if drawn:
        text += (
            f"<h2>Scores around the strongest variants</h2><p>Scores of the track within {FLANK} bases of a variant, "
            f'which is marked.</p><div class="logos">{"".join(drawn)}</div>'
        )
    return VariantSection(text + "</section>", figures)


def _definitions(names: Sequence[str]) -> str:
    """Return what the columns contain, which the descriptions say of their INFO tags."""
    lines = []
    for column in COLUMNS:
        if column.name in names:
            text = column.description.format(unit="nats for log-likelihoods, in logits for other targets")
            for other in COLUMNS:
                text = text.replace(other.tag, other.name)
            label = _LABELS.get(column.name, column.name)
            lines.append(f"<dt>{html.escape(label)}</dt><dd>{html.escape(text)}</dd>")
    return "".join(lines)


def _summary(variants: Sequence[ScoredVariant], shown: int) -> str:
    # In parentheses, a status states the bases that differ.
    counts = Counter(variant.status.partition(" (")[0] for variant in variants)
    scored = counts.pop(OK, 0)
    text = f"{scored:,} of {len(variants):,} alleles have scores"
    if counts:
        text += f" ({'; '.join(f'{count:,} {reason}' for reason, count in counts.most_common(5))})"
    return f"{text}. The {shown:,} with the largest absolute effects (delta) are listed."


def _place(variant: ScoredVariant) -> str:
    return f"{_text(variant.allele.chrom)}:{variant.allele.pos:,}"


def _caption(variant: ScoredVariant) -> str:
    name = "" if variant.allele.id == "." else f" ({_text(variant.allele.id)})"
    return f"{_place(variant)} {_text(variant.alleles)}{name}: {variant.delta:.4g}"


def _text(value: str) -> str:
    """Replace bytes that are not text, and white space that would break rows of a table."""
    return " ".join(value.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split())


def _number(variant: ScoredVariant, name: str, digits: str, place: str = ".0f") -> str:
    value = variant.scores[name]
    if math.isnan(value):
        return "."
    return f"{value:{place}}" if name == "largest_at" else f"{value:{digits}}"


def _row(variant: ScoredVariant, names: Sequence[str]) -> str:
    texts = _place(variant), _text(variant.allele.id), _text(variant.alleles)
    cells = "".join(f"<td>{html.escape(text)}" for text in texts)
    return (
        "<tr>" + cells + "".join(f'<td class="number">{_number(variant, name, ".4g", ",.0f")}' for name in names) + "\n"
    )


def _table_url(rows: Sequence[ScoredVariant], names: Sequence[str]) -> str:
    lines = ["\t".join(["#chrom", "pos", "id", "ref", "alt", *names])]
    for variant in rows:
        allele = variant.allele
        fields = [allele.chrom, str(allele.pos), allele.id, allele.ref or "-", allele.alt or "-"]
        lines.append("\t".join([*map(_text, fields), *(_number(variant, name, ".9g") for name in names)]))
    text = "\n".join([*lines, ""])
    return "data:text/tab-separated-values;base64," + b64encode(text.encode()).decode()


def _figure(variant: ScoredVariant, scores: BigWig, genome: Genome) -> go.Figure | None:
    """Return the scores around a variant as bars, or None if there are none."""
    at = variant.region
    assert at is not None
    around = Region(at.chrom, max(0, at.start - FLANK), min(genome.sizes[at.chrom], at.end + FLANK))
    if around.chrom not in scores.sizes:
        return None
    values = scores.scores(around.chrom, around.start, around.end)
    if np.isnan(values).all():
        return None
    bases = decode(genome.fetch(around.chrom, around.start, around.end)).decode()
    bars = go.Bar(
        x=list(range(around.start + 1, around.end + 1)),
        y=[None if np.isnan(value) else float(f"{value:.5g}") for value in values],
        text=list(bases),
        textposition="none",
        marker={"color": _BLUE, "line": {"width": 0}},
        hovertemplate="%{x:,} %{text}: %{y:.3g}<extra></extra>",
    )
    figure = go.Figure(bars)
    figure.add_vrect(x0=at.start + 0.5, x1=at.end + 0.5, fillcolor=_MARK, line_width=0, layer="below")
    figure.update_xaxes(title=plotly_text(format_locus(around)), tickformat=",d")
    return figure.update_layout(
        template="none", margin={"t": 28, "r": 10, "b": 45, "l": 60}, bargap=0, showlegend=False
    )
