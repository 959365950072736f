"""Record of a track: all settings and inputs that determine the values of the track."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from genoscan import __version__
from genoscan.engine.target import LogLikelihood
from genoscan.genome.genome import Genome
from genoscan.genome.plan import Batch
from genoscan.genome.region import Region
from genoscan.job import Job
from genoscan.likelihood import (
    Likelihood,
    count_bases,
    join_warnings,
    likelihood_record,
    likelihood_warning,
    sum_likelihoods,
)
from genoscan.model import Model
from genoscan.targets import TargetSpec

PATH = "path"
"""Key of the results of a method with a baseline in the results for a window."""


def model_record(model: Model) -> dict[str, Any]:
    """Return genoscan's version, name and checksums of the model, and the settings on which rounding depends."""
    return {
        "version": __version__,
        "model": model.name,
        "model_sha256": model.sha256,
        "weights": model.weights_sha256,
        "tile": model.method.tile,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "threads": torch.get_num_threads(),
    }


def sequence_records(genome: Genome, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the name, length and M5 checksum (as in SAM) of each distinct sequence."""
    return [{"name": name, "length": genome.sizes[name], "m5": genome.m5(name)} for name in dict.fromkeys(names)]


def input_settings(
    genome: Genome, model: Model, regions: Sequence[Region], batches: Sequence[Batch], warning: str | None
) -> dict[str, Any]:
    """Return the settings that predictions and derivatives have in common: inputs, windows and device.

    Parameters
    ----------
    genome, model, regions
        Inputs to the computation.
    batches
        Windows of the regions.
    warning
        Warning to include in the record; None if there is no warning.

    Returns
    -------
    dict
        Entries of the record, with JSON values.
    """
    digest = hashlib.sha256()
    for batch in batches:
        for windows in batch:
            for window in windows:
                digest.update(f"{window.region}{''.join(map(str, window.regions))}{window.strand};".encode())
    return {
        **model_record(model),
        "sequences": sequence_records(genome, (region.chrom for region in regions)),
        "windows": digest.hexdigest(),
        **({} if warning is None else {"warning": warning}),
    }


def settings(job: Job) -> dict[str, Any]:
    """Return all settings that determine a result, bit for bit.

    A run can be resumed only with the same settings.
    """
    options = job.options
    return {
        **input_settings(job.genome, job.model, job.regions, job.batches, job.warning),
        "target": options.target,
        "masked": options.masked,
        "contrast": options.contrast,
        "score": options.formula,
        "strand": options.strand,
        "shard": options.shard,
        "all_regions": hashlib.sha256("".join(f"{r}{r.strand};" for r in job.all_regions).encode()).hexdigest(),
        "context": job.context,
        "reach": job.reach,
        "batch": options.batch,
        **({} if options.path is None else {"attribution": asdict(options.path)}),
    }


def predicted_likelihood(job: Job, values: Sequence[Sequence[float]]) -> Likelihood | None:
    """Return the log-likelihood of the observed bases, if this is the target of a causal language model.

    Parameters
    ----------
    job
        Job that was run. Its windows are read again, to count the bases.
    values
        Value of the target for each window, by batch: the mean over the strands if both are read.

    Returns
    -------
    Likelihood or None
        Log-likelihood of the bases of all windows. A base that lies in several windows is counted repeatedly. None
        for other targets and for bidirectional models, which read the base that they predict.
    """
    target = job.target
    if job.model.bidirectional or not isinstance(target, TargetSpec) or target.kind != "log-likelihood":
        return None
    found = []
    for batch, of_batch in zip(job.batches, values, strict=True):
        for windows in zip(*batch, strict=True):
            likelihood = target.for_windows(windows, job.read(windows), job.model)
            assert isinstance(likelihood, LogLikelihood)
            found.append(Likelihood(count_bases(likelihood), sum(of_batch)))
    return sum_likelihoods(found)


def likelihood_entries(model: Model, found: Likelihood | None, warning: str | None) -> dict[str, Any]:
    """Return the entries `likelihood` and `warning` of a record.

    Parameters
    ----------
    model
        Model that predicted the bases.
    found
        Log-likelihood of the bases; None if it was not computed.
    warning
        Warning that was issued before the run; None if there was none.
    """
    entry = None if found is None else likelihood_record(found, model.config.validation)
    if entry is None:
        return join_warnings(warning)
    return {"likelihood": entry, **join_warnings(warning, likelihood_warning(model.name, entry))}


def window_records(job: Job, details: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the results for each window other than the value of the target, as entries of the record.

    Parameters
    ----------
    job
        Job that was run.
    details
        Results for each window, by batch, as returned by `pipeline.attribute_batch`.

    Returns
    -------
    dict
        Entries of the record: `target_labels` for task heads, and `completeness` for methods with a baseline.
    """
    found: dict[str, Any] = {}
    if job.target.head:
        found["target_labels"] = [[{k: v for k, v in one.items() if k != PATH} for one in batch] for batch in details]
    if job.options.path is not None and job.options.path.baseline is not None:
        found["completeness"] = [[one[PATH] for one in batch] for batch in details]
    return found
