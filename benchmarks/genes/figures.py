"""Precision-recall curves, and profiles of attributions around sites, as pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from plotly.subplots import make_subplots

from benchmarks.figure import OURS, THEIRS, TORCH, panels
from benchmarks.run import write_figure

LETTERS = {"A": "#109648", "C": "#255C99", "G": "#F7B32B", "T": "#D62839"}
_STYLES = {"model": (OURS[0], "solid"), "Markov model": (THEIRS[0], "dash"), "weight matrix": (TORCH[1], "dot")}
_POINTS = 300


def draw_curves(curves: Mapping[str, Mapping[str, Any]], output: Path, report: Callable[[str], object]) -> None:
    """Draw one panel of precision-recall curves for each kind of site.

    Parameters
    ----------
    curves
        Scores of the model and of its baselines, by panel and name.
    output
        Name of the .html and .png files, without suffix.
    report
        Function called with a message if the .png file cannot be drawn.
    """
    figure = panels(list(curves), rows=-(-len(curves) // 4), height=400)
    width = len(curves) // -(-len(curves) // 4)
    for number, named in enumerate(curves.values()):
        at = {"row": number // width + 1, "col": number % width + 1}
        for name, found in named.items():
            precision, recall = _curve(found.scores, found.truth)
            colour, dash = _STYLES[name]
            line = {"color": colour, "dash": dash, "width": 2}
            figure.add_scatter(x=recall, y=precision, name=name, line=line, showlegend=not number, **at)
        figure.update_xaxes(title="recall", range=[0, 1], **at)
        figure.update_yaxes(title="precision", range=[0, 1], **at)
    write_figure(figure, output, report)


def _curve(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / hits[-1]
    shown = np.searchsorted(recall, np.linspace(0.002, 1, _POINTS))
    return precision[shown], recall[shown]


def draw_profiles(name: str, found: Mapping[str, Any], output: Path, report: Callable[[str], object]) -> None:
    """Draw the mean absolute score of sites, decoys and random weights, and the mean score by letter.

    Parameters
    ----------
    name
        Name of the site.
    found
        Profiles, as in the results.
    output
        Name of the .html and .png files, without suffix.
    report
        Function called with a message if the .png file cannot be drawn.
    """
    positions = np.asarray(found["sites"]["positions"])
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.08,
        subplot_titles=[f"mean |score| around {name}s", f"mean score by letter at annotated {name}s"],
    )
    styles = (
        ("sites", f"annotated {name}s", OURS[0], "solid"),
        ("decoys", "decoys", THEIRS[0], "solid"),
        ("random", "random weights", TORCH[1], "dot"),
    )
    for key, label, colour, dash in styles:
        summary = found[key]
        scale = 1.0 if key != "random" else max(found["sites"]["absolute"]) / max(summary["absolute"])
        label = f"{label} ({summary['n']:,})" + (" scaled to the same maximum" if key == "random" else "")
        figure.add_scatter(
            x=positions,
            y=np.asarray(summary["absolute"]) * scale,
            name=label,
            row=1,
            col=1,
            line={"color": colour, "dash": dash, "width": 2},
        )
    for letter, colour in LETTERS.items():
        values = found["sites"]["letters"][letter]
        seen = np.asarray(values["share"]) > 0.02
        figure.add_scatter(
            x=positions[seen],
            y=np.asarray(values["mean"])[seen],
            name=letter,
            mode="markers+lines",
            row=2,
            col=1,
            line={"color": colour, "width": 1},
            marker={"size": 5},
        )
    first, last = found["window"]
    figure.add_vrect(x0=first - 0.5, x1=last + 0.5, fillcolor="#999", opacity=0.15, line_width=0)
    figure.update_xaxes(title=f"position relative to the {name}, in the direction of the gene", row=2, col=1)
    figure.update_layout(template="simple_white", width=1000, height=720, legend={"orientation": "h", "y": -0.12})
    write_figure(figure, output, report)
