"""Draw README's picture: a gene, what a model predicts, and the sensitivity of the prediction to each base.

    genoscan attribute data/arabidopsis.fa -r Chr1_part:11,801-14,700 -m arabidopsis-genes \
        --target genes:CDS+ -o coding.npz
    genoscan predict data/arabidopsis.fa -r Chr1_part:11,801-14,700 -m arabidopsis-genes -o predicted.npz
    python docs/pictures.py coding.npz predicted.npz data/arabidopsis.gff3 docs/track.png

Needs kaleido.
"""

import sys
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from genoscan.export.logo import LETTERS
from genoscan.genome.alphabet import BASES
from genoscan.genome.annotation import read_annotation
from genoscan.plot import letter_outlines
from genoscan.tracks.score import centred
from genoscan.training.labels import coding_parts, longest_coding

SHOWN = {
    "genes.CDS+": ("coding sequence", "#0072B2"),
    "sites.donor+": ("splice donor", "#D55E00"),
    "sites.acceptor+": ("splice acceptor", "#009E73"),
}
"""Predicted labels, and their names and colours in the picture."""
SITES = ((12_655, 12_706, "end of exon 2"), (13_353, 13_404, "end of exon 3"))
"""First and last of the bases that are drawn as letters, and what they show."""


_LONGEST = 1 << 31
"""Upper bound on the length of the sequence, of which the tracks contain only a region."""


def draw(attribution: Path, prediction: Path, annotation: Path) -> go.Figure:
    with np.load(attribution, allow_pickle=False) as track:
        scores, codes = centred(track["gradient"], track["codes"]), track["codes"]
        chrom, start = str(track["chrom"][0]), int(track["start"][0])
    with np.load(prediction, allow_pickle=False) as track:
        predicted = dict(zip(track["labels"].tolist(), track["predictions"].T, strict=True))
    positions = np.arange(start, start + len(codes)) + 1
    figure = make_subplots(
        rows=4,
        cols=2,
        specs=[[{"colspan": 2}, None], [{"colspan": 2}, None], [{"colspan": 2}, None], [{}, {}]],
        row_heights=[0.08, 0.26, 0.3, 0.36],
        vertical_spacing=0.06,
        horizontal_spacing=0.06,
    )
    draw_genes(figure, annotation, chrom, positions)
    for label, (name, colour) in SHOWN.items():
        figure.add_scatter(
            x=positions, y=predicted[label], name=name, line={"color": colour, "width": 1.5}, row=2, col=1
        )
    figure.add_scatter(x=positions, y=scores, line={"color": "#555", "width": 1}, showlegend=False, row=3, col=1)
    for column, (first, last, title) in enumerate(SITES, 1):
        at = (positions >= first) & (positions <= last)
        for base, letter in enumerate(BASES):
            mine = at & (codes == base)
            colour, outline = LETTERS[letter]
            x, y = letter_outlines(outline, positions[mine], scores[mine])
            figure.add_scatter(
                x=x,
                y=y,
                fill="toself",
                fillcolor=colour,
                line_width=0,
                mode="lines",
                showlegend=False,
                row=4,
                col=column,
            )
        figure.update_xaxes(range=[first - 0.5, last + 0.5], title=f"{title}, {chrom}", row=4, col=column)
        for row in (2, 3):
            figure.add_vrect(x0=first, x1=last, fillcolor="#999", opacity=0.25, line_width=0, row=row, col=1)
    for row in (1, 2, 3):
        figure.update_xaxes(range=[positions[0], positions[-1]], showticklabels=row == 3, row=row, col=1)
    figure.update_xaxes(tickformat=",d")
    figure.update_yaxes(title="probability", range=[0, 1.05], row=2, col=1)
    figure.update_yaxes(title="score, logits", row=3, col=1)
    figure.update_yaxes(title="score by base, logits", row=4, col=1)
    figure.update_layout(
        template="simple_white",
        width=1200,
        height=760,
        margin={"t": 20, "b": 60, "l": 80, "r": 20},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0.885, "yanchor": "bottom"},
    )
    return figure


def draw_genes(figure: go.Figure, annotation: Path, chrom: str, positions: np.ndarray) -> None:
    """Draw exons of the transcript with the longest CDS: the CDS as high boxes, UTRs as low ones."""
    for gene in read_annotation(annotation, {chrom: _LONGEST}):
        chosen = longest_coding(gene)
        if chosen is None or gene.end < positions[0] or gene.start > positions[-1]:
            continue
        figure.add_scatter(
            x=[gene.start + 1, gene.end],
            y=[0, 0],
            mode="lines",
            line={"color": "#333", "width": 1},
            showlegend=False,
            row=1,
            col=1,
        )
        for parts, height, colour in ((chosen.exons, 0.25, "#aaa"), (coding_parts(chosen), 0.5, "#444")):
            for first, last in parts:
                figure.add_shape(
                    type="rect",
                    x0=first + 1,
                    x1=last,
                    y0=-height,
                    y1=height,
                    fillcolor=colour,
                    opacity=1,
                    line_width=0,
                    row=1,
                    col=1,
                )
        figure.add_annotation(
            x=positions[0],
            y=0,
            xanchor="left",
            text=f"<i>{gene.name}</i> {'▶' if gene.strand == '+' else '◀'}",
            showarrow=False,
            font_size=14,
            yshift=14,
            row=1,
            col=1,
        )
    figure.update_yaxes(visible=False, range=[-0.7, 0.7], row=1, col=1)
    figure.update_xaxes(visible=False, row=1, col=1)


if __name__ == "__main__":
    attribution, prediction, annotation, picture = (Path(argument) for argument in sys.argv[1:])
    draw(attribution, prediction, annotation).write_image(picture)
