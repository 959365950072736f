"""Predictions of pooled heads: one row per region, with the probability or logit of each label."""

import csv
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genoscan.composition import describe_difference
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Batch, StrandWindows, Window, batches, by_region, plan, read_windows, whole_genome
from genoscan.genome.region import Region
from genoscan.label_target import LabelTarget
from genoscan.layers.heads import HeadConfig
from genoscan.model import Model
from genoscan.prediction.tracks import PredictOptions
from genoscan.record import input_settings
from genoscan.tracks.atomic import atomic_files, os_errors
from genoscan.tracks.journal import COMMIT_AFTER, Entry, Journal, open_journal
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.record_schema import region_records

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class WindowPrediction:
    """Prediction of pooled heads whose inputs have been checked, with the windows and batches to compute.

    Attributes
    ----------
    genome, model, options
        Inputs to the prediction.
    heads
        Pooled heads by name.
    regions
        Regions in the given order, each of which is read in a separate window.
    windows
        Windows of each region.
    context
        Number of bases read upstream of a region and, for bidirectional models, also downstream of it.
    """

    genome: Genome
    model: Model
    options: PredictOptions
    heads: dict[str, HeadConfig]
    regions: tuple[Region, ...]
    windows: tuple[StrandWindows, ...]
    context: int

    @cached_property
    def batches(self) -> list[Batch]:
        """Windows grouped by equal length."""
        return batches(self.windows, self.options.batch)

    @property
    def positions(self) -> int:
        """Number of positions that the run reports as progress."""
        return sum(len(window) for windows in self.windows for window in windows)

    @cached_property
    def warning(self) -> str | None:
        """Warning if the G+C content of the regions differs from that of the training data; None otherwise."""
        return describe_difference(self.genome, self.regions, self.model.config, self.model.name)


def prepare_windows(
    genome: Genome, model: Model, regions: Sequence[Region], options: PredictOptions
) -> WindowPrediction:
    """Check the inputs to a prediction of pooled heads, and plan its windows and batches.

    Parameters
    ----------
    genome, model
        Genome to read, and model to apply.
    regions
        Regions, each of which is read in a separate window. If there are none, all sequences are used
        in full.
    options
        Settings of the prediction. If `heads` is empty, all pooled heads of the model are used; a `context` of None
        means 0.

    Returns
    -------
    WindowPrediction
        The checked prediction.

    Raises
    ------
    InputError
        If the model has no such pooled head, or an option is invalid.
    """
    pooled = {name: head for name, head in model.config.heads.items() if head.kind == "pooled"}
    for name in options.heads:
        if name not in pooled:
            raise InputError(
                f"--head {name}: {model.name} has no such pooled head, expected one of {', '.join(pooled)}"
            )
    chosen = {name: pooled[name] for name in (options.heads or pooled)}
    if not chosen:
        raise InputError(f"{model.name}: has no pooled head, which a table requires; write tracks, such as -o P.bw")
    if options.calls:
        raise InputError("--call: calls are made from heads that label bases; write them in another run")
    if options.strand not in ("+", "-", "both"):
        raise InputError(f"--strand {options.strand}: expected +, - or both")
    regions = regions or whole_genome(genome.sizes)
    context = options.context or 0
    reach = context if model.bidirectional else 0
    windows = plan(regions, genome.sizes, model.method, context=context, reach=reach, strand=options.strand)
    grouped = tuple(by_region(windows, options.strand))
    return WindowPrediction(genome, model, options, chosen, tuple(regions), grouped, context)


def predict_windows(
    job: WindowPrediction, journal: Journal | None = None, *, progress: Progress = ignore
) -> "pd.DataFrame":
    """Compute predictions of pooled heads.

    Parameters
    ----------
    job
        Prediction, as returned by `prepare_windows`.
    journal
        Journal of the run. Batches that it contains are not computed again. If None, nothing is stored.
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
    NonFiniteError
        If a prediction is not finite.

    Notes
    -----
    For causal models, working memory does not depend on the length of a region. Bidirectional models
    also need memory for the activations between layers.
    """
    import pandas as pd

    # By the number of the batch, and not of the region: the settings determine the windows of each batch, but not the
    # order of the regions.
    stored: dict[int, list[dict[str, float]]] = {}
    if journal is not None:
        for entry in journal.entries.values():
            stored |= {detail["batch"]: detail["predictions"] for detail in entry.details}
        journal.log_resumed(sum(len(job.batches[number]) for number in stored), len(job.regions), "regions")
    rows: dict[StrandWindows, dict[str, float]] = {}
    pending: list[dict[str, Any]] = []
    committed = time.monotonic()
    for number, batch in enumerate(job.batches):
        if number in stored:
            rows |= zip(batch, stored[number], strict=True)
            continue
        predictions = _predict_batch(job, batch)
        rows |= zip(batch, predictions, strict=True)
        pending.append({"batch": number, "predictions": predictions})
        for windows in batch:
            progress(sum(len(window) for window in windows))
        if journal is not None and time.monotonic() - committed > COMMIT_AFTER:
            journal.add(Entry(batch=len(journal.entries), details=pending))
            pending, committed = [], time.monotonic()
    about = pd.DataFrame(
        [(r.chrom, r.start, r.end, r.name, r.strand) for r in job.regions],
        columns=["chrom", "start", "end", "name", "strand"],
    )
    return pd.concat([about, pd.DataFrame([rows[windows] for windows in job.windows])], axis=1)


def write_windows(
    jobs: Sequence[WindowPrediction],
    outputs: Sequence[Path],
    *,
    command: Sequence[str] = (),
    progress: Progress = ignore,
) -> None:
    """Compute predictions, and write them as tables of tab-separated values with a header line, and their records.

    Parameters
    ----------
    jobs
        Predictions, as returned by `prepare_windows`, such as those of the two strands.
    outputs
        File of each prediction; they appear together.
    command
        Command line to store in the records.
    progress
        As for `predict_windows`.

    Raises
    ------
    NonFiniteError
        If a prediction is not finite.
    OutputError
        If a file cannot be written.

    Notes
    -----
    If the run is interrupted, its results are kept, except those of the last seconds.
    """
    with ExitStack() as stack:
        journals = [
            stack.enter_context(open_journal(path, _settings(job))) for job, path in zip(jobs, outputs, strict=True)
        ]
        files = stack.enter_context(atomic_files())
        for job, path, journal in zip(jobs, outputs, journals, strict=True):
            started = time.monotonic()
            table = predict_windows(job, journal, progress=progress)
            record = _settings(job) | {
                "command": list(command),
                "regions": region_records(job.regions),
                "seconds": time.monotonic() - started,
                "torch": torch.__version__,
            }
            part = files.create(path)
            with os_errors(path):
                table.to_csv(part, sep="\t", index=False, float_format="%.6g", quoting=csv.QUOTE_NONE)
            write_provenance(path, record, files)


def _settings(job: WindowPrediction) -> dict[str, Any]:
    options = job.options
    return {
        **input_settings(job.genome, job.model, job.regions, job.batches, job.warning),
        "heads": list(job.heads),
        "logits": options.logits,
        "strand": options.strand,
        "context": job.context,
        "batch": options.batch,
    }


def _predict_batch(job: WindowPrediction, batch: Batch) -> list[dict[str, float]]:
    """Return the predictions for each region of a batch: the mean over its windows, which are on different strands."""
    strands = [_predict_strand(job, windows) for windows in zip(*batch, strict=True)]
    return [
        {name: sum(v[name] for v in values) / len(values) for name in values[0]}
        for values in zip(*strands, strict=True)
    ]


def _predict_strand(job: WindowPrediction, windows: Sequence[Window]) -> list[dict[str, float]]:
    """Return the predictions for windows of equal length on one strand.

    For each window, a dictionary contains one value per label. Its keys have the form HEAD.LABEL, where LABEL
    is the name of the label on the forward strand.
    """
    codes = torch.from_numpy(read_windows(job.genome, windows))
    rows: list[dict[str, float]] = [{} for _ in windows]
    for name, head in job.heads.items():
        found = LabelTarget(name, name, head, 0).predict(windows, codes, job.model.with_head(name))
        for window, row, one in zip(windows, rows, found, strict=True):
            values = one.logits if job.options.logits else head.probabilities(one.logits)
            order = head.complements if window.strand == "-" else range(len(head.labels))
            row |= {f"{name}.{label}": float(values[i]) for label, i in zip(head.labels, order, strict=True)}
    return rows
