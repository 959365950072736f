"""Sequence logos in SVG; the height of each letter is proportional to its absolute score."""

import html
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from genoscan.export.gene_strip import Bar

# Colour (Okabe-Ito palette) and outline of each letter, in a 100 x 100 box with y pointing down.
LETTERS = {
    "A": ("#009E73", "M0 100 39 0H61L100 100H79L71 77H29L21 100ZM35 60H65L50 18Z"),
    "C": (
        "#0072B2",
        "M100 68C94 89 77 100 53 100 21 100 0 80 0 50 0 20 21 0 53 0 77 0 94 11 100 32L79 36C75 24 "
        "66 18 53 18 33 18 22 30 22 50 22 70 33 82 53 82 66 82 75 76 79 64Z",
    ),
    "G": (
        "#E69F00",
        "M100 48V86C88 95 72 100 54 100 21 100 0 80 0 50 0 20 21 0 54 0 77 0 93 10 99 29L78 34C75 "
        "24 66 18 54 18 33 18 22 30 22 50 22 70 33 82 55 82 64 82 72 80 79 76V64H56V48Z",
    ),
    "T": ("#D55E00", "M0 0H100V18H61V100H39V18H0Z"),
    "N": ("#777777", "M0 100V0H23L78 66V0H100V100H77L22 34V100Z"),
}
_WIDTH, _HALF = 14.0, 60.0
"""Width of a letter, and height of the logo on either side of the axis, in pixels."""
_LANE = 14
"""Height of a lane of genes, in pixels."""

OUTLINES = "".join(
    f'<symbol id="base-{name}" viewBox="0 0 100 100" preserveAspectRatio="none">'
    f'<path fill="{colour}" d="{outline}"/></symbol>'
    for name, (colour, outline) in LETTERS.items()
)
"""SVG <symbol> elements to which logos refer; a page must include them once, within an <svg> element."""


def logo(
    bases: str, scores: Float32[np.ndarray, " bases"], *, label: str, start: int = 0, genes: Sequence[Bar] = ()
) -> str:
    """Draw a sequence logo.

    Parameters
    ----------
    bases
        Letters of the sequence: A, C, G, T or N.
    scores
        One score per base. A letter is not drawn if its score is NaN or too small to be visible. Letters
        with negative scores are drawn upside down, below the axis.
    label
        Text alternative for the image (aria-label).
    start
        Position of the first base, 0-based.
    genes
        Parts of genes to draw below the letters.

    Returns
    -------
    str
        An <svg> element. The letter with the largest absolute score has the maximum height.
    """
    largest = float(np.nanmax(np.abs(scores), initial=0)) or 1.0
    width = _WIDTH * len(bases)
    letters = []
    for i, (base, score) in enumerate(zip(bases, np.nan_to_num(scores).tolist(), strict=True)):
        height = abs(score) / largest * _HALF
        if height < 0.05:
            continue
        flip = f' transform="matrix(1 0 0 -1 0 {2 * _HALF + height:.2f})"' if score < 0 else ""
        letters.append(
            f'<use href="#base-{base}" x="{i * _WIDTH + 0.5:.1f}" width="{_WIDTH - 1:.1f}" '
            f'y="{_HALF if score < 0 else _HALF - height:.2f}" height="{height:.2f}"{flip}/>'
        )
    height = 2 * _HALF + _LANE * max((bar.lane + 1 for bar in genes), default=0)
    return (
        f'<svg class="logo" role="img" aria-label="{html.escape(label)}" '
        f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
        f'{"".join(letters)}<line class="axis" x2="{width:g}" y1="{_HALF:g}" y2="{_HALF:g}"/>'
        f"{''.join(_gene_bar(bar, start) for bar in genes)}</svg>"
    )


def _gene_bar(bar: Bar, start: int) -> str:
    height = (1, 4, 9)[bar.height]
    middle = 2 * _HALF + _LANE * (bar.lane + 0.5)
    return (
        f'<rect class="gene" x="{(bar.start - start) * _WIDTH:g}" width="{(bar.end - bar.start) * _WIDTH:g}" '
        f'y="{middle - height / 2:g}" height="{height}"><title>{html.escape(bar.name)}</title></rect>'
    )
