"""Draw README's picture of a track: a stretch of genes, and sixty bases of it.

    genoscan attribute data/chloroplast.fa -o chloroplast.npz
    python docs/pictures.py chloroplast.npz data/chloroplast.genes.bed track.html

A browser turns the page into docs/track.png (1200 x 620).
"""

import sys
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from genoscan.genome.alphabet import BASES
from genoscan.genome.bed import read_bed
from genoscan.tracks.score import centred

STRETCH = slice(52_000, 62_000)
LETTERS = slice(60_296, 60_356)  # around the end of ycf4
# Okabe and Ito's, which every common kind of colour vision tells apart.
COLOURS = {"A": "#009E73", "C": "#0072B2", "G": "#E69F00", "T": "#D55E00"}


def draw(archive: Path, genes: Path) -> go.Figure:
    with np.load(archive, allow_pickle=False) as track:
        scores, codes = centred(track["gradient"], track["codes"]), track["codes"]
        chrom = str(track["chrom"][0])
    figure = make_subplots(rows=2, cols=1, row_heights=[0.55, 0.45], vertical_spacing=0.16)
    # Highest and lowest score of every ten bases: no peak is lost.
    rows = scores[STRETCH].reshape(-1, 10)
    at = np.arange(STRETCH.start, STRETCH.stop, 10) + 5
    for edge in (np.nanmax(rows, 1), np.nanmin(rows, 1)):
        figure.add_bar(x=at, y=edge, width=10, marker_color="#0072B2", row=1, col=1)
    top = float(np.nanmax(rows)) * 1.1
    for gene in read_bed(genes, {chrom: len(codes)}):
        if gene.start < STRETCH.stop and gene.end > STRETCH.start:
            ends = max(gene.start, STRETCH.start), min(gene.end, STRETCH.stop)
            figure.add_shape(
                type="rect", x0=ends[0], x1=ends[1], y0=top, y1=top * 1.12, fillcolor="#999", line_width=0, row=1, col=1
            )
            if ends[1] - ends[0] > 250:
                arrow = "▶" if gene.strand == "+" else "◀"
                figure.add_annotation(
                    x=sum(ends) / 2,
                    y=top * 1.22,
                    text=f"{gene.name} {arrow}",
                    showarrow=False,
                    font_size=12,
                    row=1,
                    col=1,
                )
    letters = np.array(list(BASES))[codes[LETTERS]]
    positions = np.arange(LETTERS.start, LETTERS.stop) + 1
    for base, colour in COLOURS.items():
        mine = letters == base
        figure.add_bar(
            x=positions[mine],
            y=scores[LETTERS][mine],
            marker_color=colour,
            text=base,
            textposition="outside",
            textfont={"color": colour, "size": 13},
            cliponaxis=False,
            row=2,
            col=1,
        )
    figure.update_xaxes(tickformat=",d", title=f"{chrom}, position", row=2, col=1)
    figure.update_xaxes(tickformat=",d", row=1, col=1)
    figure.update_yaxes(title="sensitivity (nats)")
    figure.update_layout(
        template="simple_white",
        showlegend=False,
        barmode="overlay",
        bargap=0.15,
        width=1200,
        height=620,
        margin={"t": 30, "b": 60, "l": 80, "r": 30},
    )
    return figure


if __name__ == "__main__":
    archive, genes, page = (Path(argument) for argument in sys.argv[1:])
    draw(archive, genes).write_html(page, include_plotlyjs=True, config={"displayModeBar": False})
