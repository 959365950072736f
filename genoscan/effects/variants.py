"""Effects of variants on a target, and their ranks among random changes.

changes -> stretches -> edits     variant_job.py      plan of the computation
edits -> effects                  change_effects.py   exact, from a shared run of the reference
effects -> scores                 variants.py         means over strands, ranks, one row for each allele
largest effects -> tracks         variant_tracks.py   gradients around variants, for both alleles
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64

from genoscan.effects.background import rank
from genoscan.effects.change_effects import change_effects, job_settings, store_result, stored_results
from genoscan.effects.edit_sums import Effects
from genoscan.effects.first_order import first_order_effects
from genoscan.effects.variant_job import VariantJob, allele_status, stretch_terms
from genoscan.effects.variant_output import as_frame, write_scores
from genoscan.effects.variant_tracks import TOP_TRACKS, select_variants, write_variant_tracks
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import NonFiniteError
from genoscan.genome.variant_files import VariantTable
from genoscan.notebook import ROWS_SHOWN, show_frame
from genoscan.tracks.atomic import atomic_directory, atomic_files, os_errors
from genoscan.tracks.journal import Journal, open_journal

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        target, model = self.record["target"], self.record["model"]
        return f"VariantScores({len(self):,} alleles, {self.status.count('ok'):,} scored; {target}; model {model})"

    def __len__(self) -> int:
        return len(self.status)

    def to_dataframe(self) -> "pd.DataFrame":
        """Convert the scores to a table.

        Returns
        -------
        pandas.DataFrame
            One row per allele, with the columns of the .tsv file: `chrom`, `pos` (1-based), `id`, `ref`, `alt`,
            `status`, and the scores; missing scores are NaN, or NA for `largest_at`.
        """
        return as_frame(self.table, self.columns, self.status)

    def _repr_html_(self) -> str:
        first = slice(ROWS_SHOWN)  # before the conversion, as there may be millions
        table = replace(self.table, alleles=self.table.alleles[first])
        columns = {name: values[first] for name, values in self.columns.items()}
        return show_frame(self, as_frame(table, columns, self.status[first]))


def compute_scores(
    job: VariantJob, journal: Journal | None = None, *, command: Sequence[str] = (), progress: Progress = ignore
) -> VariantScores:
    """Compute the effects of variants.

    Parameters
    ----------
    job
        Job, as returned by `prepare_variants`.
    journal
        Journal of the run, opened with the settings `job_settings(job)`. Results that it contains are not computed
        again. If None, nothing is stored.
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
    The effects equal the differences between two passes over whole windows, up to rounding, in the terms of the
    target that both have (see edit_sums.py). Both windows begin at the same base: for causal models that of the
    stretch, and otherwise `context` bases before the variant. Both end at the same base of the genome, `reach`
    bases after the variant. An interrupted run that is continued from its journal gives the same bytes.

    Memory: for causal models, working memory does not depend on the number of variants or the length of a
    stretch, apart from 1 byte per base.
    """
    started = time.monotonic()
    means = change_effects(job, journal, progress=progress)
    first = _first_order(job, means, journal, progress) if job.options.first_order else None
    about = {
        "command": list(command),
        "windows": [f"{stretch.region} {stretch.strand}" for stretch in job.stretches],
        "seconds": time.monotonic() - started,
        "torch": torch.__version__,
    }
    status = [allele_status(allele, job.model, job.target, job.options) for allele in job.table.alleles]
    return VariantScores(job.table, _by_allele(job, means, first), status, job_settings(job) | about)


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
    with open_journal(outputs[0], job_settings(job)) as journal:
        scores = compute_scores(job, journal, command=command, progress=progress)
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


def _first_order(
    job: VariantJob, effects: Effects, journal: Journal | None, progress: Progress
) -> Float64[np.ndarray, " changes"]:
    """Return first-order predictions of the effects of the changes that are not random."""
    total, n_strands = np.zeros(len(job.changes)), len(job.options.strands)
    stored = stored_results(journal, "first")
    for number, stretch in enumerate(job.stretches):
        if stretch.changes[0] >= job.n_observed:
            continue
        if number in stored:
            found = np.array(stored[number][0]["first"])
        else:
            codes = torch.from_numpy(stretch.codes(job.genome))
            terms = stretch_terms(job, stretch)
            found = first_order_effects(job.model, codes, stretch.edits, terms, progress=progress)
            if journal is not None:
                store_result(journal, {"stretch": number, "first": found.tolist()})
        total[list(stretch.changes)] += found / n_strands
    first = effects.own + total
    for change, value in zip(job.changes[: job.n_observed], first, strict=False):
        # Changes of the length have none.
        if len(change.ref) == len(change.alt) and not np.isfinite(value):
            raise NonFiniteError(
                f"{change.chrom}:{change.start + 1:,}:{change.ref}>{change.alt}: the first-order prediction is not "
                f"finite; {job.model.advice_on_overflow}"
            )
    return first


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
