"""Saturation mutagenesis: the effect of every substitution of every base of some regions.

The substitutions are changes of one variant job per run, whose windows all extend to the end of their stretch,
so that all effects are on the same target. With `screen`, only the substitutions of the largest first-order
effect are computed exactly.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from genoscan.effects.change_effects import change_effects, job_settings
from genoscan.effects.first_order import first_order_substitutions
from genoscan.effects.mutagenesis_files import MutationEffects, check_mutation_outputs, write_mutations
from genoscan.effects.variant_job import VariantJob, VariantOptions, choose_target, plan_changes, stretch_terms
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import BASES, N
from genoscan.genome.genome import Genome
from genoscan.genome.plan import merge
from genoscan.genome.region import Region
from genoscan.genome.variant import Change
from genoscan.genome.variant_files import VariantTable
from genoscan.model import Model
from genoscan.tracks.atomic import atomic_files
from genoscan.tracks.journal import Journal, open_journal
from genoscan.tracks.record_schema import region_records

CONVENTIONS = "raw", "centred", "hypothetical"


@dataclass(frozen=True)
class MutationJob:
    """Substitutions to compute, and where their effects belong.

    Attributes
    ----------
    job
        Job with one change for each substitution of an A, C, G or T.
    regions
        Merged regions in genome order.
    codes
        Codes of the observed bases of the concatenated regions.
    rows, columns
        Index of the base, and code of the new base, of each change.
    screen
        Number of substitutions to compute exactly; None for all.
    """

    job: VariantJob
    regions: tuple[Region, ...]
    codes: UInt8[np.ndarray, " bases"]
    rows: np.ndarray
    columns: np.ndarray
    screen: int | None = None

    @property
    def positions(self) -> int:
        """Approximate number of positions that a run processes."""
        return self.job.positions


def prepare_mutations(
    genome: Genome, model: Model, regions: Sequence[Region], options: VariantOptions, *, screen: int | None = None
) -> MutationJob:
    """Plan a saturation mutagenesis.

    Parameters
    ----------
    genome, model
        Genome to read, and model to apply.
    regions
        Regions in any order. Overlapping regions are merged.
    options
        Settings of the computation. `shared_end` is set; `masked`, `first_order` and `background` do not apply.
    screen
        Number of substitutions to compute exactly, those of the largest first-order effect. If None, all are.

    Returns
    -------
    MutationJob
        The checked job.

    Raises
    ------
    InputError
        If an option is invalid or does not apply, there are no regions, or no base is A, C, G or T.
    UnsupportedModelError
        If the model or the target does not permit the computation.
    """
    if not regions:
        raise InputError("--region: expected at least one region to mutate")
    if screen is not None and screen < 0:
        raise InputError(f"--screen {screen}: expected 0 or more")
    for name in ("masked", "first_order", "background"):
        if getattr(options, name):
            raise InputError(f"{name}: does not apply to saturation mutagenesis; score the variants instead")
    options = replace(options, shared_end=True)
    model, target = choose_target(genome, model, options)
    merged = tuple(merge(regions, genome.sizes, by_strand=False))
    codes = np.concatenate([genome.fetch(region.chrom, region.start, region.end) for region in merged])
    places = [(region.chrom, at) for region in merged for at in range(region.start, region.end)]
    rows, columns = (codes[:, None] != np.arange(4)).nonzero()
    known = codes[rows] < N
    rows, columns = rows[known], columns[known]
    if not len(rows):
        raise InputError(f"{merged[0]}: no base is A, C, G or T, expected at least one")
    changes = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        chrom, at = places[row]
        changes.append(Change(chrom, at, BASES[codes[row]], BASES[column]))
    job = plan_changes(genome, model, target, changes, options, VariantTable(()))
    return MutationJob(job, merged, codes, rows, columns, screen)


def compute_mutations(
    job: MutationJob, journal: Journal | None = None, *, progress: Progress = ignore
) -> MutationEffects:
    """Compute the effects of all substitutions.

    Parameters
    ----------
    job
        Job, as returned by `prepare_mutations`.
    journal
        Journal of the run. Effects that it contains are not computed again. If None, nothing is stored.
    progress
        Function called with the number of positions that were run.

    Returns
    -------
    MutationEffects
        Effects of the substitutions.

    Raises
    ------
    NonFiniteError
        If an effect is not finite.

    Notes
    -----
    The effects are exact up to rounding, unless a tolerance or a screen is given. Memory: about 1 KB for each base
    of the regions, in addition to that of `variants.compute_scores`.
    """
    effects, exact = np.zeros((len(job.codes), 4)), np.ones((len(job.codes), 4), bool)
    effects[job.codes >= N] = np.nan
    run = np.arange(len(job.rows))
    if job.screen is not None:
        first = _first_order(job, progress)
        effects[job.rows, job.columns] = first
        run = np.sort(np.argsort(-np.abs(first), kind="stable")[: job.screen])
        exact[job.rows, job.columns] = False
        exact[job.rows[run], job.columns[run]] = True
    if len(run):
        found = change_effects(_restrict(job.job, set(run.tolist())), journal, progress=progress)
        effects[job.rows[run], job.columns[run]] = found.delta[run]
    return MutationEffects(job.regions, job.codes, effects, exact if job.screen is not None else None)


def write_mutagenesis(
    job: MutationJob,
    outputs: Sequence[Path],
    *,
    convention: str = "raw",
    command: Sequence[str] = (),
    progress: Progress = ignore,
) -> MutationEffects:
    """Compute the effects of all substitutions, and write them to files.

    Parameters
    ----------
    job, progress
        As for `compute_mutations`.
    outputs
        Files to write; the suffix selects the format (see mutagenesis_files.py).
    convention
        What archives contain: "raw", the changes of the target (0 for the observed base); "hypothetical", these
        minus their mean over A, C, G and T; or "centred", the same with 0 for all but the observed base.
    command
        Command line to store in the records.

    Returns
    -------
    MutationEffects
        Effects of the substitutions.

    Raises
    ------
    NonFiniteError
        If an effect is not finite.
    OutputError
        If a file cannot be written.

    Notes
    -----
    To continue an interrupted run, call the function again with the same arguments.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"--convention {convention}: expected one of {', '.join(CONVENTIONS)}")
    check_mutation_outputs(outputs, [job.job.genome.path])
    started = time.monotonic()
    settings = job_settings(job.job) | {"screen": job.screen}
    with open_journal(outputs[0], settings) as journal, atomic_files() as files:
        effects = compute_mutations(job, journal, progress=progress)
        record = settings | {
            "command": list(command),
            "regions": region_records(job.regions),
            "convention": convention,
            "windows": [f"{stretch.region} {stretch.strand}" for stretch in job.job.stretches],
            "seconds": time.monotonic() - started,
            "torch": torch.__version__,
        }
        write_mutations(outputs, effects, job.job.genome.sizes, convention, record, files)
    return effects


def _restrict(job: VariantJob, chosen: set[int]) -> VariantJob:
    """Return a job for some of the changes, whose windows are those of all."""
    stretches = []
    for stretch in job.stretches:
        kept = [i for i, change in enumerate(stretch.changes) if change in chosen]
        if kept:
            changes = tuple(stretch.changes[i] for i in kept)
            edits = tuple(stretch.edits[i] for i in kept)
            stretches.append(replace(stretch, changes=changes, edits=edits))
    return replace(job, stretches=tuple(stretches))


def _first_order(job: MutationJob, progress: Progress) -> Float64[np.ndarray, " changes"]:
    """Return the first-order effect of each change, as a mean over the strands that are read."""
    total, n_strands = np.zeros(len(job.rows)), len(job.job.options.strands)
    for stretch in job.job.stretches:
        codes = torch.from_numpy(stretch.codes(job.job.genome))
        terms = stretch_terms(job.job, stretch)
        found = first_order_substitutions(job.job.model, codes, stretch.edits, terms, progress=progress)
        total[list(stretch.changes)] += found / n_strands
    if not np.isfinite(total).all():
        advice = job.job.model.advice_on_overflow
        raise NonFiniteError(f"{job.regions[0]}: a first-order effect is not finite; {advice}")
    return total
