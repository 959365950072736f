"""Effects of the changes of a job, from the effects of edits of its stretches; stored, so that runs can continue."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from genoscan.effects.edit_effects import edit_effects, masked_log_odds
from genoscan.effects.edit_sums import Effects
from genoscan.effects.stretches import Stretch
from genoscan.effects.variant_job import VariantJob, stretch_terms
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import NonFiniteError
from genoscan.record import model_record, sequence_records
from genoscan.tracks.journal import COMMIT_AFTER, Entry, Journal


def change_effects(job: VariantJob, journal: Journal | None = None, *, progress: Progress = ignore) -> Effects:
    """Return the effects of all changes of a job.

    Parameters
    ----------
    job, journal, progress
        As for `variants.compute_scores`.

    Returns
    -------
    Effects
        Means over the strands that are read, with positions in the genome (0-based).

    Raises
    ------
    NonFiniteError
        If an effect is not finite.
    """
    stored = stored_results(journal, "effects")
    if journal is not None:
        n_stored = sum(len(entry["edits"]) for entries in stored.values() for entry in entries)
        journal.log_resumed(n_stored, sum(len(stretch.edits) for stretch in job.stretches), "effects")
    by_strand = {strand: _empty(len(job.changes)) for strand in ("+", "-")}
    for number, stretch in enumerate(job.stretches):
        found = _Found(number, stretch, by_strand[stretch.strand], journal, stored.get(number, []))
        run = masked_log_odds
        if not job.options.masked:
            run = partial(edit_effects, terms=stretch_terms(job, stretch), tolerance=job.options.tolerance)
        codes = torch.from_numpy(stretch.codes(job.genome))
        run(job.model, codes, stretch.edits, done=found.done, finish=found.finish, progress=progress)
        found.commit()
    means = _mean([by_strand[strand] for strand in job.options.strands])
    _check_finite(job, means)
    return means


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
    }


def stored_results(journal: Journal | None, key: str) -> dict[int, list[Mapping[str, Any]]]:
    """Return the stored results that contain `key`, by the number of their stretch."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for batch in [] if journal is None else journal.entries.values():
        for entry in batch.details:
            if key in entry:
                found.setdefault(entry["stretch"], []).append(entry)
    return found


def store_result(journal: Journal, entry: Mapping[str, Any]) -> None:
    """Add results of a stretch to a journal."""
    journal.add(Entry(batch=len(journal.entries), details=[dict(entry)]))


class _Found:
    """Effects of the changes of one stretch, which are added to a journal from time to time."""

    def __init__(
        self,
        number: int,
        stretch: Stretch,
        effects: Effects,
        journal: Journal | None,
        stored: Sequence[Mapping[str, Any]],
    ) -> None:
        self._number, self._stretch, self._effects, self._journal = number, stretch, effects, journal
        self._pending: list[int] = []
        self._committed = time.monotonic()
        self.done: set[int] = set()
        for entry in stored:
            for edit, values in zip(entry["edits"], entry["effects"], strict=True):
                self._set(edit, values)
                self.done.add(edit)

    def finish(self, edits: list[int], effects: Effects) -> None:
        """Take the final effects of a batch of edits."""
        for edit in edits:
            *values, at = (float(array[edit]) for array in _arrays(effects))
            self._set(edit, [*values, self._stretch.position(at)])
        self._pending += edits
        if time.monotonic() - self._committed > COMMIT_AFTER:
            self.commit()

    def commit(self) -> None:
        """Write finished effects to the journal."""
        if self._pending and self._journal is not None:
            numbers = [self._stretch.changes[edit] for edit in self._pending]
            values = [[float(array[i]) for array in _arrays(self._effects)] for i in numbers]
            store_result(self._journal, {"stretch": self._number, "edits": self._pending, "effects": values})
        self._pending, self._committed = [], time.monotonic()

    def _set(self, edit: int, values: Sequence[float]) -> None:
        for array, value in zip(_arrays(self._effects), values, strict=True):
            array[self._stretch.changes[edit]] = value


def _arrays(effects: Effects) -> tuple[np.ndarray, ...]:
    return effects.own, effects.down, effects.jsd, effects.largest, effects.at


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
