"""Does a model know the reading frame?  A linear read-out of the codon position from activations.

The activation is the vector before the model's head at a base of a gene, computed from the
chromosome up to that base.  The read-out is a logistic regression, fitted on genes in the first
half of the chromosome and tested on those in the second.  For comparison, the same read-out of the
preceding bases themselves measures what nearby sequence reveals of the frame.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row, checksums
from benchmarks.figure import OURS, THEIRS, TORCH
from genoscan.engine.forward import forward
from genoscan.engine.inputs import OneHot
from genoscan.errors import InputError
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.genbank import GenBankGenome, read_features
from genoscan.layers.catalogue import find_model
from genoscan.layers.stack import Stack
from genoscan.model import load_model

_DISTANCES = 10, 30, 100, 300, 1_000, 3_000
_ASKED = 30
"""Consecutive bases tested at a distance, equally many of each codon position."""
_FITTED = 24
"""Random bases of a gene that the read-out is fitted on."""
_NEARBY = 30
_BASES = f"the last {_NEARBY} bases"
_TILE, _PENALTY, _QUICK = 2_048, 1e-3, 60_000

_SHADES = TORCH[0], THEIRS[0], *OURS

Vectors = Float32[np.ndarray, "points features"]
Points = Int64[np.ndarray, " points"]


def experiment(genome: Path, models: Sequence[str]) -> Experiment:
    """Return the experiment for the first sequence of an annotated genome.

    Raises
    ------
    InputError
        If a model does not exist.
    """
    paths = {name: find_model(name) for name in models}
    return Experiment(
        f"codon position in {genome.name}",
        "Vectors before the head, the first sequence read from end to end on both strands; "
        f"logistic regression (L2 {_PENALTY:g}) fitted on {_FITTED} bases of every gene in its "
        f"first half, asked about {_ASKED} in a row at each distance into the second half's genes. "
        "Genes: CDS of one part. Standard errors over genes.",
        lambda _quick: [Cell(name, {"reader": name}) for name in (_BASES, *paths)],
        partial(_measure, genome, paths),
        _findings,
        _draw,
        data=checksums([genome]),
    )


def _measure(
    path: Path, models: Mapping[str, Path], cell: Cell, _before: Sequence[Row], environment: Environment
) -> list[Row]:
    """Return one row per distance."""
    torch.set_num_threads(environment.threads)
    genome, reader = GenBankGenome(path), cell.settings["reader"]
    chrom, size = next(iter(genome.sizes.items()))
    codes = genome.fetch(chrom, 0, min(size, _QUICK) if environment.quick else size)
    points = _points(path, chrom, len(codes))
    fitted = points.distance.isna().to_numpy()
    if fitted.all() or not fitted.any():
        raise InputError(f"{path}: {chrom}: expected genes (CDS) in both its halves")
    vectors: dict[int, Vectors] = {}
    for strand, rows in points.groupby("strand"):
        on_strand, at = codes if strand == "+" else reverse_complement(codes), rows["at"].to_numpy()
        read = _nearby(on_strand, at) if reader == _BASES else _held(models[reader], on_strand, at, environment.device)
        vectors |= zip(rows.index, read, strict=True)
    x, phases = np.stack([vectors[i] for i in points.index]), points.phase.to_numpy()
    found = _read_out(x[fitted], phases[fitted], x[~fitted])
    asked = points[~fitted].assign(right=found == phases[~fitted])
    by_gene = asked.groupby(["distance", "strand", "gene"], as_index=False).agg({"right": "mean"})
    return [
        {
            "reader": reader,
            "distance": distance,
            "genes": len(genes),
            "right": genes.right.mean(),
            "error": genes.right.std() / len(genes) ** 0.5,
        }
        for distance, genes in by_gene.groupby("distance")
    ]


def _points(path: Path, chrom: str, size: int) -> pd.DataFrame:
    """Return the bases to read: strand, gene, position on that strand, phase and distance.

    The distance is that of the tested stretch into its gene; bases to fit on have none.
    """
    random, tables = np.random.default_rng(0), []
    for feature in read_features(path):
        part = feature.parts[0]
        if (feature.kind, feature.chrom, len(feature.parts)) != ("CDS", chrom, 1):
            continue
        length = part.end - part.start
        if part.end > size or length % 3 or length < _FITTED or feature.strand not in "+-":
            continue
        start = part.start if feature.strand == "+" else size - part.end
        if part.start < size / 2:
            into = random.choice(length, _FITTED, replace=False)
            distance = np.full(len(into), np.nan)
        else:
            distance = np.repeat([d for d in _DISTANCES if d + _ASKED <= length], _ASKED)
            into = distance + np.arange(len(distance)) % _ASKED
        tables.append(
            pd.DataFrame(
                {"strand": feature.strand, "gene": start, "at": start + into, "phase": into % 3, "distance": distance}
            )
        )
    columns = ["strand", "gene", "at", "phase", "distance"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _held(path: Path, codes: UInt8[np.ndarray, " bases"], at: Points, device: str) -> Vectors:
    """Return the model's activations at these positions, computed from the sequence's start."""
    model = load_model(path, device=device)
    stack = model.causal
    headless = Stack(stack.embed, list(stack.layers), stack.norm, nn.Identity())
    inputs = OneHot(torch.from_numpy(codes)[None], model.table())
    vectors = np.empty((len(at), model.config.d_model), np.float32)
    for span, held in forward(headless, inputs, tile=_TILE):
        here = (at >= span.start) & (at < span.stop)
        vectors[here] = held[0, at[here] - span.start].numpy(force=True)
    return vectors


def _nearby(codes: UInt8[np.ndarray, " bases"], at: Points) -> Vectors:
    """Return the last bases, one-hot; zeros before the sequence's start."""
    places = at[:, None] - np.arange(_NEARBY)
    last = np.where(places < 0, 4, codes[places])
    return (last[..., None] == np.arange(4)).reshape(len(at), -1).astype(np.float32)


def _read_out(known: Vectors, phases: Points, asked: Vectors) -> Points:
    """Fit a logistic regression on the known phases, and return its predictions for the others."""
    mean, spread = known.mean(0), known.std(0) + 1e-6
    x, others = (torch.from_numpy((v - mean) / spread).double() for v in (known, asked))
    labels = torch.from_numpy(phases)
    weight = torch.zeros(3, x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=500, line_search_fn="strong_wolfe")

    def scores(vectors: Tensor) -> Tensor:
        return F.linear(vectors, weight[:, :-1], weight[:, -1])

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(scores(x), labels) + _PENALTY * weight[:, :-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return scores(others).argmax(-1).numpy()


def _findings(table: pd.DataFrame) -> Iterator[Finding]:
    yield Finding("guessing", 1 / 3)
    for reader, rows in table.groupby("reader", sort=False):
        for row in rows.to_dict("records"):
            yield Finding(
                f"{reader}, {row['distance']:,.0f} bases into {row['genes']:,.0f} genes",
                row["right"],
                f"+/- {row['error']:.3f}",
            )


def _draw(table: pd.DataFrame) -> go.Figure:
    page = go.Figure()
    for shade, (reader, rows) in zip(_SHADES, table.groupby("reader", sort=False), strict=False):
        page.add_scatter(
            x=rows.distance,
            y=rows.right,
            name=reader,
            mode="lines+markers",
            line_color=shade,
            error_y={"type": "data", "array": rows.error},
        )
    page.add_hline(y=1 / 3, line_dash="dot", line_color="#777777", annotation_text="guessing")
    page.update_xaxes(title="bases into the gene", type="log", tickvals=_DISTANCES, tickformat=",")
    return page.update_yaxes(title="codon position right", range=[0, 1.02], tickformat=".0%")
