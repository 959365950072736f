"""Record of a track: all settings and inputs that determine the values of the track."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch

from genoscan import __version__
from genoscan.composition import describe_difference
from genoscan.genome.genome import Genome
from genoscan.job import Job
from genoscan.model import Model


def model_record(model: Model) -> dict[str, Any]:
    """Return the version of genoscan, and the name and checksums of the model."""
    return {"version": __version__, "model": model.name, "model_sha256": model.sha256, "weights": model.weights_sha256}


def sequence_records(genome: Genome, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the name, length and M5 checksum (as in SAM) of each distinct sequence."""
    return [{"name": name, "length": genome.sizes[name], "m5": genome.m5(name)} for name in dict.fromkeys(names)]


def settings(job: Job) -> dict[str, Any]:
    """Return the settings that determine the exact bits of a result.

    A run can be resumed only with the same settings.
    """
    digest = hashlib.sha256()
    for batch in job.batches:
        for windows in batch:
            for window in windows:
                digest.update(f"{window.region}{window.scored}{window.strand};".encode())
    options, model = job.options, job.model
    unlike = describe_difference(job.genome, job.regions, model.config, model.name)
    return {
        **model_record(model),
        "sequences": sequence_records(job.genome, (region.chrom for region in job.regions)),
        "windows": digest.hexdigest(),
        "target": options.target,
        "masked": options.masked,
        "contrast": options.contrast,
        "score": options.score,
        "strand": options.strand,
        "shard": options.shard,
        "context": job.context,
        "reach": job.reach,
        "tile": model.method.tile,
        "batch": options.batch,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "threads": torch.get_num_threads(),
        **({} if unlike is None else {"warning": unlike}),
    }
