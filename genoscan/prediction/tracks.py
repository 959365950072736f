"""Predictions at each base, which are written as tracks.

task head         one track per label, named HEAD.LABEL, with probabilities or logits
language model    six tracks: the log-likelihood of the observed base; the entropy, in bits, of the
                  predicted distribution of bases; and the probabilities of A, C, G and T; or four
                  tracks, the logits of the bases
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from genoscan.composition import describe_difference
from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import BASES, N, reverse_complement
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Batch, Window, batches, by_region, merge, plan, read_windows, whole_genome
from genoscan.genome.region import Region
from genoscan.likelihood import Likelihood, likelihood_of_scores, likelihood_warning
from genoscan.model import Model
from genoscan.prediction.files import LANGUAGE_MODEL, Column, prediction_files, write_prediction
from genoscan.record import input_settings, likelihood_entries
from genoscan.tracks.atomic import atomic_files
from genoscan.tracks.outputs import check_file, check_outputs
from genoscan.tracks.record_schema import region_records
from genoscan.tracks.store import Arrays, ScoreStore, arrays_in_memory, open_store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictOptions:
    """Settings of a prediction.

    Attributes
    ----------
    heads
        Names of per-base task heads, or "language-model". If empty, all per-base heads are used or, if
        the model has no such head, the language model.
    logits
        Whether to return the logits of labels or bases instead of their probabilities.
    strand
        Strand to read: "+", "-" or "both" for the mean of the two predictions.
    context
        Number of bases to read upstream of a region and, for bidirectional models, also downstream of
        it. If None, the value in the model's configuration is used.
    batch
        Number of windows of equal length processed together.
    calls
        Names of the labels to call. The bases at which the probability of such a label is at least
        `threshold` are written to a BED file.
    threshold
        Lowest probability at which a label is called.
    """

    heads: tuple[str, ...] = ()
    logits: bool = False
    strand: str = "+"
    context: int | None = None
    batch: int = 4
    calls: tuple[str, ...] = ()
    threshold: float = 0.5


@dataclass(frozen=True)
class Prediction:
    """Prediction whose inputs have been checked, with the windows and batches to compute.

    Attributes
    ----------
    genome, model, options
        Inputs to the prediction.
    outputs
        Output files, as specified by the user.
    heads
        Names of the task heads, or "language-model".
    columns
        Predicted quantities to store.
    regions
        Merged regions in genome order.
    batches
        Windows of the regions, grouped by equal length.
    context
        Number of bases read upstream of a region and, for bidirectional models, also downstream of it.
    """

    genome: Genome
    model: Model
    options: PredictOptions
    outputs: tuple[Path, ...]
    heads: tuple[str, ...]
    columns: tuple[Column, ...]
    regions: tuple[Region, ...]
    batches: tuple[Batch, ...]
    context: int

    @property
    def paths(self) -> list[Path]:
        """Files to write."""
        logits = self.options.logits
        return [path for output in self.outputs for path, _ in prediction_files(output, self.columns, logits=logits)]

    @property
    def calls(self) -> list[Column]:
        """Columns of the labels whose calls are written to a BED file."""
        names = self.options.calls
        return [c for c in self.columns if c.label in names or f"{c.head}:{c.label}" in names]

    @cached_property
    def warning(self) -> str | None:
        """Warning if the G+C content of the regions differs from that of the training data; None otherwise."""
        return describe_difference(self.genome, self.regions, self.model.config, self.model.name)

    @property
    def positions(self) -> int:
        """Total number of positions that the run reports as progress."""
        passes = self.model.method.forward_passes(self.model.network)
        return passes * sum(len(window) for batch in self.batches for windows in batch for window in windows)


def prepare_prediction(
    genome: Genome,
    model: Model,
    regions: Sequence[Region],
    outputs: Sequence[Path],
    options: PredictOptions,
    inputs: Sequence[Path | None] = (),
) -> Prediction:
    """Check the inputs to a prediction, and plan its windows and batches.

    Parameters
    ----------
    genome, model
        Genome to read, and model to apply.
    regions
        Regions in any order. If there are none, all sequences are used in full.
    outputs
        Files to write. For a track such as PREFIX.bw or PREFIX.bedgraph, one file is written per
        quantity, with the name of the quantity before the suffix, as in PREFIX.NAME.bw. For FOLDER/.bw,
        the files are named FOLDER/NAME.bw. A .npz archive contains all quantities except
        log-likelihoods and entropies, and a .bed file contains the calls.
    options
        Settings of the prediction.
    inputs
        Files, other than the genome, that must not be overwritten. None stands for an option that was not given.

    Returns
    -------
    Prediction
        The checked prediction, which `write_predicted` computes.

    Raises
    ------
    InputError
        If an option is invalid.
    OutputError
        If an output cannot be written.
    """
    if options.strand not in ("+", "-", "both"):
        raise InputError(f"--strand {options.strand}: expected +, - or both")
    if not 0 <= options.threshold <= 1:
        raise InputError(f"--threshold {options.threshold}: expected a probability, 0 to 1")
    heads = _heads(model, options)
    columns = tuple(_columns(model, heads))
    _check_calls(options, heads, columns, outputs)
    merged = merge(regions or whole_genome(genome.sizes), genome.sizes, by_strand=False)
    context = model.config.context if options.context is None else options.context
    windows = plan(
        merged,
        genome.sizes,
        model.method,
        context=context,
        reach=context if model.bidirectional else 0,
        strand=options.strand,
        label_offset=model.config.label_offset,
    )
    order = tuple(batches(by_region(windows, options.strand), options.batch))
    job = Prediction(genome, model, options, tuple(outputs), heads, columns, tuple(merged), order, context)
    check_outputs([path for path in job.paths if path.suffix != ".bed"], [genome.path, *inputs])
    for path in job.paths:
        if path.suffix == ".bed":
            check_file(path, [genome.path, *inputs])
    return job


def write_predicted(
    jobs: Sequence[Prediction],
    *,
    command: Sequence[str] = (),
    progress: Progress = ignore,
    notify: Callable[[str], None] = _log.warning,
) -> list[Path]:
    """Compute predictions and write them as tracks.

    Parameters
    ----------
    jobs
        Predictions, as returned by `prepare_prediction`, such as those of the two strands. Their outputs must
        differ, and appear together.
    command
        Command line to store in the records.
    progress
        Function called after each processed tile with the number of positions in that tile.
    notify
        Function called with a one-line warning if a language model hardly predicts the bases.

    Returns
    -------
    list of Path
        Files that were written.

    Raises
    ------
    NonFiniteError
        If a prediction is not finite.

    Notes
    -----
    The predictions equal those of a forward pass over the whole window, up to rounding. If the run is
    interrupted, the results of finished batches are kept.

    Memory: for causal models, working memory does not depend on the length of a region. Bidirectional
    models also need memory for the activations between layers.

    Disk space during the run: 5 bytes per base, plus 4 bytes per base for each predicted label.
    """
    with ExitStack() as stack:
        stores = [
            stack.enter_context(
                open_store(job.outputs[0], job.regions, _settings(job), columns=True, width=len(job.columns))
            )
            for job in jobs
        ]
        files = stack.enter_context(atomic_files())
        seconds = [_compute(job, store, progress) for job, store in zip(jobs, stores, strict=True)]
        for job, store, taken in zip(jobs, stores, seconds, strict=True):
            record = _settings(job) | {
                "command": list(command),
                "regions": region_records(job.regions),
                "seconds": taken,
                "torch": torch.__version__,
                **likelihood_entries(job.model, _likelihood(job, store), job.warning),
            }
            for output in job.outputs:
                write_prediction(
                    output,
                    store,
                    job.columns,
                    job.regions,
                    job.genome.sizes,
                    record,
                    files,
                    logits=job.options.logits,
                    calls=job.calls,
                    threshold=job.options.threshold,
                )
            if "likelihood" in record and (unlike := likelihood_warning(job.model.name, record["likelihood"])):
                notify(unlike)
    return [path for job in jobs for path in job.paths]


def predict_in_memory(job: Prediction, *, progress: Progress = ignore) -> Arrays:
    """Compute predictions in memory.

    Parameters
    ----------
    job
        Prediction, as returned by `prepare_prediction`, without outputs.
    progress
        Function called after each processed tile with the number of positions in that tile.

    Returns
    -------
    Arrays
        Arrays whose `columns` contain the predicted quantities, in the model's dtype.

    Raises
    ------
    NonFiniteError
        If a prediction is not finite.
    """
    dtype = torch.empty(0, dtype=job.model.dtype).numpy().dtype
    arrays = arrays_in_memory(job.regions, width=len(job.columns), dtype=dtype)
    for batch in job.batches:
        _predict_batch(job, batch, arrays, progress)
    return arrays


def _likelihood(job: Prediction, arrays: Arrays) -> Likelihood | None:
    """Return the log-likelihood of the observed bases, if a causal language model predicted them on one strand."""
    # The mean of the probabilities on two strands is not comparable with the validation data.
    if LANGUAGE_MODEL not in job.heads or job.model.bidirectional or job.options.strand == "both":
        return None
    return likelihood_of_scores(arrays, job.regions)


def _compute(job: Prediction, store: ScoreStore, progress: Progress) -> float:
    """Compute the batches that are not in the store; return the time in seconds."""
    started = time.monotonic()
    done = store.journal.entries
    store.journal.log_resumed(sum(len(job.batches[number]) for number in done), len(job.regions), "regions")
    for number, batch in enumerate(job.batches):
        if number not in done:
            _predict_batch(job, batch, store, progress)
            store.commit(number, [], [windows[0].scored for windows in batch])
    return time.monotonic() - started


def _check_calls(
    options: PredictOptions, heads: Sequence[str], columns: Sequence[Column], outputs: Sequence[Path]
) -> None:
    called = {column.label for column in columns} | {f"{column.head}:{column.label}" for column in columns}
    for call in options.calls:
        if call not in called or LANGUAGE_MODEL in heads:
            raise InputError(f"--call {call}: expected a label of a head: {', '.join(c.label for c in columns)}")
    beds = any(path.suffix == ".bed" for path in outputs)
    if beds != bool(options.calls):
        raise InputError("--call and -o FILE.bed: expected both, or neither")
    if beds and options.logits:
        raise InputError("--logits: calls are made from probabilities; write them in another run")


def _heads(model: Model, options: PredictOptions) -> tuple[str, ...]:
    per_base = tuple(name for name, head in model.config.heads.items() if head.kind == "per_base")
    for name in options.heads:
        if name not in per_base and not (name == LANGUAGE_MODEL and model.config.language_model):
            known = ", ".join((*per_base, *([LANGUAGE_MODEL] if model.config.language_model else [])))
            pooled = " (it labels windows, not bases)" if name in model.config.heads else ""
            raise InputError(f"--head {name}: {model.name} has no such head{pooled}, expected one of {known}")
    if options.heads:
        return tuple(dict.fromkeys(options.heads))
    if not per_base and not model.config.language_model:
        raise InputError(f"{model.name}: its heads label windows, expected a model that predicts bases")
    return per_base or (LANGUAGE_MODEL,)


def _columns(model: Model, heads: Sequence[str]) -> Iterator[Column]:
    number = 0
    for head in heads:
        labels = tuple(BASES) if head == LANGUAGE_MODEL else model.config.heads[head].labels
        for label in labels:
            yield Column(label if head == LANGUAGE_MODEL else f"{head}.{label}", head, label, number)
            number += 1


def _settings(job: Prediction) -> dict[str, Any]:
    options = job.options
    return {
        **input_settings(job.genome, job.model, job.regions, job.batches, job.warning),
        "heads": list(job.heads),
        "predicted": [column.name for column in job.columns],
        "logits": options.logits,
        "strand": options.strand,
        "context": job.context,
        "batch": options.batch,
    }


def _predict_batch(job: Prediction, batch: Batch, arrays: Arrays, progress: Progress) -> None:
    for index, windows in enumerate(zip(*batch, strict=True)):
        read = read_windows(job.genome, windows)
        if not index:
            for window, codes in zip(windows, read, strict=True):
                at, scored = arrays.slice_of(window.scored), codes[window.scored_span]
                arrays.codes[at] = reverse_complement(scored) if window.strand == "-" else scored
        inputs = OneHot(torch.from_numpy(read), job.model.table())
        method = job.model.method.fit(job.model.network, inputs.length, len(windows), forward=True)
        for span, outputs in method.forward(job.model.network, inputs, progress=progress):
            for row, window in enumerate(windows):
                for head in job.heads:
                    _store(job, arrays, window, span, outputs[row], head, index, len(batch[0]))
            arrays.used(len(windows) * (span.stop - span.start))


def _store(
    job: Prediction, arrays: Arrays, window: Window, span: slice, outputs: Tensor, head: str, index: int, n_strands: int
) -> None:
    """Store the predictions of a head for the scored bases of a tile, oriented to the forward strand.

    The first tile includes the bases that no output predicts, such as the first base that a causal
    language model reads. The predictions for these bases are NaN.
    """
    assert arrays.columns is not None
    config, language_model = job.model.config, head == LANGUAGE_MODEL
    offset = config.label_offset if language_model else 0
    scored = window.scored_span
    start = max(span.start + offset if span.start else 0, scored.start)
    stop = min(span.stop + offset, scored.stop)
    if start >= stop:
        return
    first, last = (max(at - offset - span.start, 0) for at in (start, stop))
    logits = outputs[first:last, config.output_columns["" if language_model else head]].double().cpu()
    order: Sequence[int] = (3, 2, 1, 0)
    if language_model:
        log_p = torch.log_softmax(logits, -1)[:, list(config.base_columns)]
        values = logits[:, list(config.base_columns)] if job.options.logits else log_p.exp()
    else:
        values = logits if job.options.logits else config.heads[head].probabilities(logits)
        order = config.heads[head].complements
    if not (logits.isfinite().all() and values.float().isfinite().all()):
        raise NonFiniteError(f"{window.scored}: a prediction is not finite; {job.model.advice_on_overflow}")

    def forward(values: Tensor) -> Tensor:
        """Insert NaN for bases without predictions, and convert bases and labels to the forward strand."""
        values = pad(values, (0, 0, stop - start - len(values), 0), value=torch.nan)
        return values.flip(0)[:, list(order)] if window.strand == "-" else values

    at = arrays.offsets[window.scored] + (scored.stop - stop if window.strand == "-" else start - scored.start)
    rows = slice(at, at + stop - start)
    numbers = [column.number for column in job.columns if column.head == head]
    columns = slice(numbers[0], numbers[-1] + 1)
    before = arrays.columns[rows, columns] if index else np.float32(0)
    own = forward(values).numpy().astype(arrays.columns.dtype)
    arrays.columns[rows, columns] = before + own / own.dtype.type(n_strands)
    if language_model:
        # From logarithms, because small probabilities underflow; the mean over strands is that of probabilities.
        codes = torch.from_numpy(arrays.codes[rows]).long()
        observed = forward(log_p).gather(1, codes.clamp(max=N - 1)[:, None])[:, 0] - math.log(n_strands)
        observed[codes == N] = torch.nan
        if index:
            observed = torch.logaddexp(torch.from_numpy(arrays.scores[rows]).double(), observed)
        arrays.scores[rows] = observed.numpy()
