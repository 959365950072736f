"""Predictions of pooled heads: one row per region, with the probability or logit of each label."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError
from genoscan.genome.genome import Genome
from genoscan.genome.plan import StrandWindows, Window, batches, by_region, plan, read_windows, whole_genome
from genoscan.genome.region import Region
from genoscan.label_target import LabelTarget
from genoscan.layers.heads import HeadConfig
from genoscan.model import Model
from genoscan.tracks.atomic import atomic_write


def predict_windows(
    genome: Genome,
    model: Model,
    regions: Sequence[Region],
    *,
    heads: Sequence[str] = (),
    logits: bool = False,
    strand: str = "+",
    context: int | None = None,
    batch: int = 4,
    progress: Progress = ignore,
) -> pd.DataFrame:
    """Return the predictions of pooled heads for regions of a genome.

    Parameters
    ----------
    genome, model
        Genome to read, and model to apply.
    regions
        Regions, each of which is read in a separate window. If there are none, all sequences are used
        in full.
    heads
        Names of pooled heads. If there are none, all pooled heads of the model are used.
    logits
        Whether to return logits instead of probabilities.
    strand
        Strand to read: "+", "-" or "both" for the mean of the two predictions.
    context
        Number of bases that the window includes upstream of the region and, for bidirectional models,
        also downstream of it. None means 0.
    batch
        Number of windows of equal length processed together.
    progress
        Function called once per region, after the batch has been processed, with the number of
        positions in the windows of the region.

    Returns
    -------
    DataFrame
        Table with one row per region, in the given order. The columns are `chrom`, `start`, `end`
        (0-based, half-open), `name`, `strand`, and one column HEAD.LABEL for each label.

    Raises
    ------
    InputError
        If the model has no such pooled head, or an option is invalid.
    NonFiniteError
        If a prediction is not finite.

    Notes
    -----
    For causal models, working memory does not depend on the length of a region. Bidirectional models
    also need memory for the activations between layers.
    """
    pooled = {name: head for name, head in model.config.heads.items() if head.kind == "pooled"}
    for name in heads:
        if name not in pooled:
            raise InputError(
                f"--head {name}: {model.name} has no such pooled head, expected one of {', '.join(pooled)}"
            )
    chosen = {name: pooled[name] for name in (heads or pooled)}
    if not chosen:
        raise InputError(f"{model.name}: has no pooled head, which a table requires; write tracks, such as -o P.bw")
    if strand not in ("+", "-", "both"):
        raise InputError(f"--strand {strand}: expected +, - or both")
    regions = regions or whole_genome(genome.sizes)
    around = context or 0
    reach = around if model.bidirectional else 0
    windows = plan(regions, genome.sizes, model.method, context=around, reach=reach, strand=strand)
    grouped = by_region(windows, strand)
    rows: dict[StrandWindows, dict[str, float]] = {}
    for group in batches(grouped, batch):
        found = [_batch(genome, model, one, chosen, logits) for one in zip(*group, strict=True)]
        for strands, *values in zip(group, *found, strict=True):
            rows[strands] = {name: sum(v[name] for v in values) / len(values) for name in values[0]}
            progress(sum(len(window) for window in strands))
    about = pd.DataFrame(
        [(r.chrom, r.start, r.end, r.name, r.strand) for r in regions],
        columns=["chrom", "start", "end", "name", "strand"],
    )
    return pd.concat([about, pd.DataFrame([rows[strands] for strands in grouped])], axis=1)


def write_windows(predictions: pd.DataFrame, output: Path) -> None:
    """Write predictions as a table of tab-separated values with a header line.

    Parameters
    ----------
    predictions
        Predictions, as returned by `predict_windows`.
    output
        File to write.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with atomic_write(output) as part:
        predictions.to_csv(part, sep="\t", index=False, float_format="%.6g")


def _batch(
    genome: Genome, model: Model, windows: Sequence[Window], heads: dict[str, HeadConfig], logits: bool
) -> list[dict[str, float]]:
    """Return the predictions for windows of equal length on one strand.

    For each window, a dictionary contains one value per label. Its keys have the form HEAD.LABEL, where LABEL
    is the name of the label on the forward strand.
    """
    codes = torch.from_numpy(read_windows(genome, windows))
    rows: list[dict[str, float]] = [{} for _ in windows]
    for name, head in heads.items():
        found = LabelTarget(name, name, head, 0).predict(windows, codes, model.with_head(name))
        for window, row, one in zip(windows, rows, found, strict=True):
            values = one.logits if logits else head.probabilities(one.logits)
            order = head.complements if window.strand == "-" else range(len(head.labels))
            row |= {f"{name}.{label}": float(values[i]) for label, i in zip(head.labels, order, strict=True)}
    return rows
