"""START HERE: the pipeline from genome regions to tracks.

regions -> windows -> batches            job.py           plan of the computation
window -> tiles -> gradient              gradient.py      exact, in constant memory
or an average of gradients               averages/             integrated gradients and similar methods
gradient -> scores -> tracks             tracks/sink.py   one score per base, written as tracks
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genoscan.averages.path_attribution import PathResult, average_gradients, completeness
from genoscan.engine.methods import Progress, ignore
from genoscan.genome.plan import Batch
from genoscan.gradient import stream_gradient
from genoscan.job import Job
from genoscan.label_target import Resolved, mean_over_strands
from genoscan.record import PATH, likelihood_entries, predicted_likelihood, settings, window_records
from genoscan.tracks.atomic import AtomicFiles, atomic_files
from genoscan.tracks.columns import write_columns
from genoscan.tracks.outputs import check_outputs
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.record_schema import region_records
from genoscan.tracks.sink import Sink
from genoscan.tracks.store import Arrays, count_scores, open_store
from genoscan.tracks.writer import open_tracks, write_in_pieces
from genoscan.window_error.expected import expected_error_entries


def run(
    job: Job, outputs: Sequence[Path], *, command: Sequence[str] = (), progress: Progress = ignore
) -> dict[str, Any]:
    """Compute the derivatives of the target at every base of the regions, and write them as tracks.

    Parameters
    ----------
    job
        Job to run, as returned by `prepare`.
    outputs
        Files to write. The suffix of each file determines its format.
    command
        Command line to store in the record.
    progress
        Function called after each processed tile with the number of positions in that tile.

    Returns
    -------
    dict
        Record of the run, which is also written as a JSON file beside each output.

    Notes
    -----
    The derivatives are exact up to rounding, for any tile size, number of slots and batch size. To
    continue an interrupted run, even within a window, call the function again with the same arguments.

    Memory: that of the method of differentiation, plus 1 byte per base of a batch. If the baseline is a
    shuffled sequence, it is 2 bytes, and 5 more for one window while it is shuffled.

    Disk space during the run: 5 bytes per base; 16 more if the four derivatives are stored (see
    `Job.stores_columns`), and 16 more if both strands are read.
    """
    return run_all([(job, outputs)], command=command, progress=progress)[0]


def run_all(
    jobs: Sequence[tuple[Job, Sequence[Path]]], *, command: Sequence[str] = (), progress: Progress = ignore
) -> list[dict[str, Any]]:
    """Run several jobs, such as those of the two strands; the files of all jobs appear together.

    Parameters
    ----------
    jobs
        Each job with its files, whose names must differ between jobs.
    command, progress
        As for `run`.

    Returns
    -------
    list of dict
        Record of each job. Files and records are those that a run of each job alone writes.
    """
    for job, outputs in jobs:
        check_outputs(outputs, [job.genome.path])
    with ExitStack() as stack:
        runs = [_Run(job, outputs, stack) for job, outputs in jobs]
        files = stack.enter_context(atomic_files())
        for each in runs:
            each.compute(progress)
        return [each.write(command, files) for each in runs]


class _Run:
    """Run of one job, whose results are stored until those of all jobs are complete."""

    def __init__(self, job: Job, outputs: Sequence[Path], stack: ExitStack) -> None:
        both = job.options.strand == "both"
        columns = job.stores_columns(outputs)
        self._job, self._outputs, self._seconds = job, outputs, 0.0
        self._settings = settings(job) | {"columns": columns}
        store = open_store(outputs[0], job.regions, self._settings, columns=columns, both_strands=both)
        self._store = stack.enter_context(store)

    def compute(self, progress: Progress) -> None:
        """Compute the batches that are not in the store."""
        started, store, batches = time.monotonic(), self._store, self._job.batches
        scored = [[region for windows in batch for region in windows[0].regions] for batch in batches]
        done = store.journal.entries
        store.journal.log_resumed(sum(len(scored[number]) for number in done), len(self._job.regions), "regions")
        for number, batch in enumerate(batches):
            if number not in done:
                values, details = attribute_batch(self._job, batch, store, progress, (store.journal.path, number))
                store.commit(number, values, scored[number], details)
        self._seconds = time.monotonic() - started

    def write(self, command: Sequence[str], files: AtomicFiles) -> dict[str, Any]:
        """Write the tracks and their records; return the record."""
        started, job, store = time.monotonic(), self._job, self._store
        write_tracks(job, store, self._outputs, files)
        entries = [store.journal.entries[number] for number in range(len(job.batches))]
        values = [entry.values for entry in entries]
        record = self._settings | {
            "command": list(command),
            "method": repr(job.model.method),
            **count_scores(store, job.regions),
            "regions": region_records(job.regions),
            "target_values": values,
            **expected_error_entries(job),
            **likelihood_entries(job.model, predicted_likelihood(job, values), job.warning),
            **window_records(job, [entry.details for entry in entries]),
            "seconds": self._seconds + time.monotonic() - started,
            "torch": torch.__version__,
        }
        for path in self._outputs:
            write_provenance(path, record, files)
        return record


def attribute_batch(
    job: Job, batch: Batch, arrays: Arrays, progress: Progress = ignore, saved: tuple[Path, int] | None = None
) -> tuple[list[float], list[dict[str, Any]]]:
    """Compute the scores of a batch and write them to `arrays`.

    The function returns the value of the target for each region, and further values to report for each
    region (see `LabelValue` and `completeness`). `saved` is the folder and the batch number under which states of
    the sweeps are saved. If it is None, no states are saved.
    """
    model, options = job.model, job.options
    values, resolved, n_strands = np.zeros(len(batch)), list[Resolved](), len(batch[0])
    paths: list[PathResult] = []
    for index, windows in enumerate(zip(*batch, strict=True)):
        resolved.append(job.target.resolve(windows, job.read(windows), model, resolved, masked=options.masked))
        target, codes, _ = resolved[-1]
        sink = Sink(arrays, windows, codes.numpy(), options.formula, model.by_base, index, n_strands)
        if options.path is None:
            snapshots = None if saved is None else partial(sink.snapshots, *saved)
            found = stream_gradient(model, codes, target, sink.receive, snapshots=snapshots, progress=progress)
        else:
            paths.append(average_gradients(model, windows, codes, target, options.path, sink.receive, progress))
            found = paths[-1].value
        sink.check_finite(found, model.advice_on_overflow)
        values += found / n_strands
    labels = mean_over_strands(resolved) or [{}] * len(batch)
    reports = [{PATH: report} for report in completeness(paths)] or [{}] * len(batch)
    return values.tolist(), [{**label, **report} for label, report in zip(labels, reports, strict=True)]


def write_tracks(job: Job, arrays: Arrays, outputs: Sequence[Path], files: AtomicFiles) -> None:
    """Write the completed arrays of a job to the output files, in genome order."""
    tracks = [path for path in outputs if path.suffix != ".npz"]
    if tracks:
        # The zoom levels of a shard would be written, stored and discarded: merging computes those of the whole track.
        with open_tracks(tracks, job.genome.sizes, files, zoom_levels=job.options.shard is None) as track:
            for region in job.regions:
                write_in_pieces(track, region, arrays.scores_of(region))
                arrays.used(len(region))
    for path in outputs:
        if path not in tracks:
            assert arrays.columns is not None
            write_columns(path, gradient=arrays.columns, codes=arrays.codes, regions=job.regions, files=files)
