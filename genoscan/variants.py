"""Effects of variants on a target, and their ranks among random changes.

changes -> stretches -> edits     variant_job.py      plan of the computation
edits -> effects                  edit_effects.py     exact, from a shared run of the reference
effects -> scores                 variants.py         means over strands, ranks, one row for each allele
largest effects -> tracks         variant_tracks.py   gradients around variants, for both alleles
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64

from genoscan.background import rank
from genoscan.edit_effects import edit_effects, masked_log_odds
from genoscan.edit_sums import Effects
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import NonFiniteError
from genoscan.first_order import first_order_effects
from genoscan.genome.variant_files import VariantTable
from genoscan.record import model_record, sequence_records
from genoscan.tracks.atomic import atomic_directory, atomic_files, os_errors
from genoscan.tracks.store import ScoreStore, open_store
from genoscan.variant_job import Stretch, VariantJob, allele_status, stretch_terms
from genoscan.variant_output import as_frame, write_scores
from genoscan.variant_tracks import TOP_TRACKS, select_variants, write_variant_tracks

if TYPE_CHECKING:
    import pandas as pd

_COMMIT_AFTER = 5.0
"""Minimum number of seconds between two commits of finished effects."""


@dataclass(frozen=True)
class VariantScores:
    """Scores of alleles, in input order.

    Attributes
    ----------
    table
        Alleles.
    columns
        Float64 arrays with one entry per allele, NaN where there is no value: `delta`, `own`, `downstream`,
        `jsd`, `first`, `rank`, and `largest_at`, the 1-based position of the base whose term changes most.
    status
        "ok", or the reason why an allele has no scores.
    record
        Record of the run.
    """

    table: VariantTable
    columns: Mapping[str, Float64[np.ndarray, " alleles"]]
    status: Sequence[str]
    record: Mapping[str, Any]

    def to_dataframe(self) -> "pd.DataFrame":
        """Convert the scores to a table.

        Returns
        -------
        pandas.DataFrame
            One row per allele, with the columns of the .tsv file: `chrom`, `pos` (1-based), `id`, `ref`, `alt`,
            `status`, and the scores; missing scores are NaN, or NA for `largest_at`.
        """
        return as_frame(self.table, self.columns, self.status)


def compute_scores(
    job: VariantJob, store: ScoreStore | None = None, *, command: Sequence[str] = (), progress: Progress = ignore
) -> VariantScores:
    """Compute the effects of variants.

    Parameters
    ----------
    job
        Job, as returned by `prepare_variants`.
    store
        Store of the run, without arrays, opened with the settings `job_settings(job)`. Results that it contains are
        not computed again. If None, nothing is stored.
    command
        Command line to store in the record.
    progress
        Function called with the number of positions that were run.

    Returns
    -------
    VariantScores
        Scores of all alleles.

    Raises
    ------
    NonFiniteError
        If an effect is not finite.

    Notes
    -----
    The effects equal the differences between two passes over whole windows, up to rounding. Both windows begin
    at the same base: for causal models that of the stretch, and otherwise `context` bases before the variant.
    Both end at the same base of the genome, `reach` bases after the variant. An interrupted run that is continued
    from its store gives the same bytes.

    Memory: for causal models, working memory does not depend on the number of variants or the length of a
    stretch, apart from 1 byte per base.
    """
    started = time.monotonic()
    means = change_effects(job, store, progress=progress)
    first = _first_order(job, means, store, progress) if job.options.first_order else None
    about = {
        "command": list(command),
        "windows": [f"{stretch.region} {stretch.strand}" for stretch in job.stretches],
        "seconds": time.monotonic() - started,
        "torch": torch.__version__,
    }
    status = [allele_status(allele, job.model, job.target, job.options) for allele in job.table.alleles]
    return VariantScores(job.table, _by_allele(job, means, first), status, job_settings(job) | about)


def change_effects(job: VariantJob, store: ScoreStore | None = None, *, progress: Progress = ignore) -> Effects:
    """Return the effects of all changes of a job.

    Parameters
    ----------
    job, store, progress
        As for `compute_scores`.

    Returns
    -------
    Effects
        Means over the strands that are read, with positions in the genome (0-based).

    Raises
    ------
    NonFiniteError
        If an effect is not finite.
    """
    by_strand = {strand: _empty(len(job.changes)) for strand in ("+", "-")}
    for number, stretch in enumerate(job.stretches):
        found = _Found(number, stretch, by_strand[stretch.strand], store)
        run = masked_log_odds
        if not job.options.masked:
            run = partial(edit_effects, terms=stretch_terms(job, stretch), tolerance=job.options.tolerance)
        codes = torch.from_numpy(stretch.codes(job.genome))
        run(job.model, codes, stretch.edits, done=found.done, finish=found.finish, progress=progress)
        found.commit()
    means = _mean([by_strand[strand] for strand in ("+", "-") if job.options.strand in (strand, "both")])
    _check_finite(job, means)
    return means


def write_variants(
    job: VariantJob,
    outputs: Sequence[Path],
    *,
    tracks: Path | None = None,
    top_tracks: int = TOP_TRACKS,
    command: Sequence[str] = (),
    progress: Progress = ignore,
) -> tuple[VariantScores, list[str]]:
    """Compute the effects of variants, and write them to files.

    Parameters
    ----------
    job, command, progress
        As for `compute_scores`.
    outputs
        Files to write; the suffix selects the format (see variant_output.py).
    tracks
        Folder to create, with tracks around the variants (see variant_tracks.py); None for no tracks.
    top_tracks
        Maximum number of variants with tracks: those with the largest absolute effects.

    Returns
    -------
    scores : VariantScores
        Scores of all alleles.
    messages : list of str
        Messages for the user about the files.

    Raises
    ------
    NonFiniteError
        If an effect or a derivative is not finite.
    OutputError
        If a file cannot be written.

    Notes
    -----
    No file or folder appears before all are complete. To continue an interrupted run, call the function again with
    the same arguments; the effects are kept, in OUTPUT.partial beside the first output, but not the tracks.
    """
    with open_store(outputs[0], (), job_settings(job), columns=False) as store:
        scores = compute_scores(job, store, command=command, progress=progress)
        with _new_folder(tracks) as folder, atomic_files() as files:
            if folder is not None:
                chosen = select_variants(job, scores.columns["delta"], top_tracks)
                write_variant_tracks(folder, job, chosen, scores.record, progress=progress)
            messages = write_scores(outputs, job.table, scores.columns, scores.status, job.genome, files, scores.record)
    return scores, messages


@contextmanager
def _new_folder(path: Path | None) -> Iterator[Path | None]:
    """Context manager that creates a folder atomically, or does nothing if there is no path."""
    if path is None:
        yield None
        return
    with atomic_directory(path) as folder:
        with os_errors(path):
            folder.mkdir()
        yield folder


class _Found:
    """Effects of the changes of one stretch, which are committed to a store from time to time."""

    def __init__(self, number: int, stretch: Stretch, effects: Effects, store: ScoreStore | None) -> None:
        self._number, self._stretch, self._effects, self._store = number, stretch, effects, store
        self._pending: list[int] = []
        self._committed = time.monotonic()
        self.done: set[int] = set()
        for entry in _stored(store, number, "effects"):
            for edit, values in zip(entry["edits"], entry["effects"], strict=True):
                self._set(edit, values)
                self.done.add(edit)

    def finish(self, edits: list[int], effects: Effects) -> None:
        """Take the final effects of a batch of edits."""
        for edit in edits:
            *values, at = (float(array[edit]) for array in _arrays(effects))
            self._set(edit, [*values, self._stretch.position(at)])
        self._pending += edits
        if time.monotonic() - self._committed > _COMMIT_AFTER:
            self.commit()

    def commit(self) -> None:
        """Write finished effects to the store."""
        if self._pending and self._store is not None:
            numbers = [self._stretch.changes[edit] for edit in self._pending]
            values = [[float(array[i]) for array in _arrays(self._effects)] for i in numbers]
            _store(self._store, {"stretch": self._number, "edits": self._pending, "effects": values})
        self._pending, self._committed = [], time.monotonic()

    def _set(self, edit: int, values: Sequence[float]) -> None:
        for array, value in zip(_arrays(self._effects), values, strict=True):
            array[self._stretch.changes[edit]] = value


def _stored(store: ScoreStore | None, number: int, key: str) -> list[Mapping[str, Any]]:
    """Return the stored results of a stretch that contain `key`."""
    entries = [] if store is None else [entry for each in store.details.values() for entry in each]
    return [entry for entry in entries if entry["stretch"] == number and key in entry]


def _store(store: ScoreStore, entry: Mapping[str, Any]) -> None:
    store.commit(len(store.done), [], (), [entry])


def _arrays(effects: Effects) -> tuple[np.ndarray, ...]:
    return effects.own, effects.down, effects.jsd, effects.largest, effects.at


def job_settings(job: VariantJob) -> dict[str, Any]:
    """Return all settings that determine the effects, bit for bit."""
    options, model = job.options, job.model
    names = dict.fromkeys(change.chrom for change in job.changes)
    changes = "".join(f"{change};" for change in job.changes)
    return {
        **model_record(model),
        "sequences": sequence_records(job.genome, names),
        "changes": hashlib.sha256(changes.encode()).hexdigest(),
        "target": options.target,
        "contrast": options.contrast,
        "masked": options.masked,
        "strand": options.strand,
        "context": job.context,
        "reach": job.reach,
        "background": options.background,
        "seed": options.seed,
        "shared_end": options.shared_end,
        "tolerance": options.tolerance,
        "tile": model.method.tile,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "threads": torch.get_num_threads(),
    }


def _empty(count: int) -> Effects:
    return Effects(*(np.zeros(count) for _ in range(5)))


def _mean(strands: Sequence[Effects]) -> Effects:
    """Return the mean over strands; the largest change is that of one strand."""
    if len(strands) == 1:
        return strands[0]
    own, down, jsd = (np.mean([getattr(s, name) for s in strands], 0) for name in ("own", "down", "jsd"))
    a, b = strands
    first = np.abs(np.nan_to_num(a.largest)) >= np.abs(np.nan_to_num(b.largest))
    return Effects(own, down, jsd, np.where(first, a.largest, b.largest), np.where(first, a.at, b.at))


def _check_finite(job: VariantJob, effects: Effects) -> None:
    wrong = np.flatnonzero(~np.isfinite(effects.own + (0 if job.options.masked else effects.down)))
    if len(wrong):
        change = job.changes[wrong[0]]
        raise NonFiniteError(
            f"{change.chrom}:{change.start + 1:,}:{change.ref}>{change.alt}: the effect of this and "
            f"{len(wrong) - 1:,} other variants is not finite; {job.model.advice_on_overflow}"
        )


def _first_order(
    job: VariantJob, effects: Effects, store: ScoreStore | None, progress: Progress
) -> Float64[np.ndarray, " changes"]:
    """Return first-order predictions of the effects of the changes that are not random."""
    total, n_strands = np.zeros(len(job.changes)), 2 if job.options.strand == "both" else 1
    for number, stretch in enumerate(job.stretches):
        if stretch.changes[0] >= job.n_observed:
            continue
        if stored := _stored(store, number, "first"):
            found = np.array(stored[0]["first"])
        else:
            codes = torch.from_numpy(stretch.codes(job.genome))
            terms = stretch_terms(job, stretch)
            found = first_order_effects(job.model, codes, stretch.edits, terms, progress=progress)
            if store is not None:
                _store(store, {"stretch": number, "first": found.tolist()})
        total[list(stretch.changes)] += found / n_strands
    return effects.own + total


def _by_allele(
    job: VariantJob, effects: Effects, first: Float64[np.ndarray, " changes"] | None
) -> dict[str, np.ndarray]:
    """Return the columns of the results, with one entry per allele."""
    observed = slice(job.n_observed)
    delta = effects.own if job.options.masked else effects.delta
    columns = {"delta": delta[observed], "own": effects.own[observed]}
    if not job.options.masked:
        columns |= {"downstream": effects.down[observed], "largest_at": effects.at[observed] + 1}
        if not np.isnan(effects.jsd).all():
            columns["jsd"] = effects.jsd[observed]
    if first is not None:
        columns["first"] = first[observed]
    if job.options.background:
        ranked = job.changes[observed], delta[observed], job.changes[job.n_observed :], delta[job.n_observed :]
        columns["rank"] = rank(job.genome, *ranked)
    numbers = [-1 if number is None else number for number in job.numbers]
    padded = {name: np.append(values, np.nan) for name, values in columns.items()}
    return {name: values[numbers] for name, values in padded.items()}
