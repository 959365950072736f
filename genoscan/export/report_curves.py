"""Curves of the regions of a report: the scores, other tracks on separate scales, and genes.

report.js draws the curves of one region at a time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from genoscan.export.gene_strip import GeneIndex, GeneStrip, gene_strip
from genoscan.export.markup import plotly_text
from genoscan.export.summary import Curve, region_curve
from genoscan.export.track_file import format_place
from genoscan.tracks.reader import BigWig

_LANES = 6


def curves_json(curves: Sequence[Curve], others: Sequence[BigWig], genes: GeneIndex) -> list[dict[str, Any]]:
    """Return the data that report.js draws.

    Parameters
    ----------
    curves
        Curves of the track of the report.
    others
        Tracks to draw below it.
    genes
        Features to draw below the tracks.

    Returns
    -------
    list of dict
        One JSON object per region: its name, its 1-based first position, the bin width, the range of the values in
        each bin for each track, and the genes.

    Raises
    ------
    InputError
        If a track cannot be read.
    """
    return [
        {
            "name": format_place(curve.region),
            "title": plotly_text(format_place(curve.region)),
            "first": curve.region.start + 1,
            "step": curve.step,
            "tracks": [
                {"low": numbers(found.low), "high": numbers(found.high)}
                for found in [curve, *(region_curve(track, curve.region, curve.step) for track in others)]
            ],
            "genes": _genes_json(gene_strip(genes.overlapping(curve.region), curve.region, max_lanes=_LANES)),
        }
        for curve in curves
    ]


def numbers(values: Float[np.ndarray, "..."]) -> list[float | None]:
    """Return values with five significant digits, and None for NaN, as JSON has no NaN."""
    return [None if np.isnan(value) else float(f"{value:.5g}") for value in values]


def _genes_json(strip: GeneStrip) -> dict[str, Any]:
    """Return bars as [first, last, lane, height, number of the name]; positions are 1-based and inclusive."""
    n_drawn = sum(bar.height == 0 for bar in strip.bars)
    if strip.omitted > n_drawn:  # a small part would look like all of them
        strip = GeneStrip((), 0, strip.omitted + n_drawn)
    names = list(dict.fromkeys(bar.name for bar in strip.bars))
    number = {name: i for i, name in enumerate(names)}
    return {
        "lanes": strip.lanes,
        "omitted": strip.omitted,
        "names": [plotly_text(name) for name in names],
        "bars": [[bar.start + 1, bar.end, bar.lane, bar.height, number[bar.name]] for bar in strip.bars],
    }
