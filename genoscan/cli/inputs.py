"""Functions that check and convert the values of options, and that open the input files of commands."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genoscan.cli.messages import log, warn_without_effect
from genoscan.errors import InputError

if TYPE_CHECKING:
    import torch

    from genoscan.genome.genome import Genome
    from genoscan.genome.region import Region
    from genoscan.job import Job
    from genoscan.model import Model

_LEAST_WITHOUT_UNIT = 10**6
"""Smallest size, in bytes, that is accepted without a unit; "--memory 4" is not meant as 4 bytes."""


def prepare_torch(threads: int | None) -> None:
    """Set the number of threads of torch and the kernels, all cores if None, and the precision of matrix products."""
    import torch

    if threads is not None and threads < 1:
        raise InputError(f"--threads {threads}: expected at least 1")
    # CPU affinity may restrict a process to some of the cores.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads or cores or 1)
    # Variables of the environment may let torch round float32 in matrix products.
    torch.set_float32_matmul_precision("highest")


def parse_dtype(text: str) -> "torch.dtype":
    """Convert the value of the option --dtype to a torch.dtype."""
    from genoscan.model import find_dtype

    return find_dtype(text, "--dtype")


def parse_size(text: str | None) -> int | Literal["auto"] | None:
    """Convert the value of the option --memory, such as 8GB, 8GiB, 500M or 1000000, to a number of bytes.

    1 GB is 10^9 bytes, and 1 GiB is 2^30 bytes. "auto", and None for an option that was not given, are returned.
    """
    if text is None:
        return None
    if text == "auto":
        return "auto"
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i)?)?b?", text.strip().lower(), re.ASCII)
    if not match:
        raise InputError(f"--memory {text}: expected auto, or a size such as 8GB, 8GiB or 500MB")
    size = int(float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2] or " "))
    if 0 < size < _LEAST_WITHOUT_UNIT and not text.strip()[-1].isalpha():
        raise InputError(f"--memory {text}: a number without a unit is in bytes; expected a unit, as in {match[1]}GB")
    return size


def parse_device(text: str) -> str:
    """Convert the value of the option --device to the name of a torch device that is available."""
    from genoscan.model import find_device

    return find_device(text, "--device")


def open_model(name: str, dtype: str, device: str, threads: int | None, **method: Any) -> "Model":
    """Set the number of threads, and load the model that the options select.

    The keyword arguments in `method` are passed to `load_model`. They determine how derivatives are
    computed.
    """
    prepare_torch(threads)
    from genoscan.model import load_model

    return load_model(name, device=parse_device(device), dtype=parse_dtype(dtype), **method)


def read_region(genome: "Genome", text: str, annotation: Path | None, option: str = "--region") -> "Region":
    """Return the region given by an option: a region string or, with --annotation, the name of a gene."""
    return _parse(genome, [text], annotation, option=option)[0]


def read_regions(
    genome: "Genome", texts: Sequence[str], annotation: Path | None, bed_path: Path | None, clip: bool
) -> "list[Region]":
    """Return the regions given by the options --region and --bed; log how many of them were trimmed."""
    from genoscan.genome.bed import read_bed
    from genoscan.genome.region import PastEndError

    try:
        regions = _parse(genome, texts, annotation, clip=clip)
        warn_about_annotation(regions)
        if bed_path is not None:
            regions += read_bed(bed_path, genome.sizes, clip=clip)
    except PastEndError as error:
        raise InputError(f"{error}, and --clip trims regions") from None
    trimmed = sum(region.clipped for region in regions)
    if trimmed:
        log(f"{trimmed:,} of {len(regions):,} regions trimmed at the end of a sequence")
    return regions


def warn_about_annotation(regions: "Sequence[Region]") -> None:
    """Log that the option --annotation has no effect if none of the regions is that of a gene."""
    if not any(region.name for region in regions):
        warn_without_effect(annotation="no region is given by the name of a gene")


def _parse(genome: "Genome", texts: Sequence[str], annotation: Path | None, **settings: Any) -> "list[Region]":
    from genoscan.genome.gene_names import parse_regions
    from genoscan.genome.region import UnknownSequenceError

    try:
        return parse_regions(texts, genome.sizes, annotation, notify=log, **settings)
    except UnknownSequenceError as error:
        raise InputError(f"{error}; the name of a gene requires --annotation") from None


def read_strands(text: str, *others: str) -> tuple[str, ...]:
    """Return the strand of each job that the option --strand specifies: two if it is "separate".

    `others` are the values that the command accepts in addition to +, - and separate.
    """
    if text == "separate":
        return "+", "-"
    if text not in ("+", "-", *others):
        expected = ["+", "-", *others, "separate"]
        raise InputError(f"--strand {text}: expected {', '.join(expected[:-1])} or {expected[-1]}")
    return (text,)


def prepare_jobs(
    *,
    genome: Path,
    region_texts: tuple[str, ...],
    annotation: Path | None,
    bed_path: Path | None,
    clip: bool,
    outputs: tuple[Path, ...],
    model_name: str,
    dtype: str,
    device: str,
    threads: int | None,
    tile: int | None,
    slots: int,
    memory: str | None,
    spill: Path | None,
    strand: str,
    **options: Any,
) -> "list[tuple[Job, tuple[Path, ...]]]":
    """Return the attribution jobs that the options in `JOB` specify, with their outputs.

    There are two jobs for --strand separate, otherwise one. Warnings about options and regions are logged.
    """
    from genoscan.genome.genome import open_genome
    from genoscan.job import Options, prepare
    from genoscan.tracks.outputs import check_outputs
    from genoscan.tracks.strands import strand_path

    strands = read_strands(strand, "both", "bed")
    files = [outputs]
    if len(strands) > 1:
        files = [tuple(strand_path(path, one) for path in outputs) for one in strands]
    for paths in files:
        check_outputs(paths, [genome, annotation, bed_path])
    opened = open_genome(genome)
    regions = read_regions(opened, region_texts, annotation, bed_path, clip)
    method = {"tile": tile, "slots": slots, "memory": parse_size(memory), "spill": spill}
    settings = [Options(strand=one, **options) for one in strands]
    model = open_model(model_name, dtype, device, threads, **method)
    jobs = [prepare(opened, model, regions, one) for one in settings]
    job = jobs[0]
    if strand == "bed":
        _warn_about_strands(regions, bed_path)
    _warn_about_options(job, spill)
    trained = job.model.config.window
    if trained is not None and (longest := max(one.longest for one in jobs)) > 2 * trained:
        log(f"windows of up to {longest:,} bases: {model_name} was trained on {trained:,} at most")
    if job.warning is not None:
        log(job.warning)
    if len(job.all_regions) < len(regions):
        log(f"{len(regions):,} regions merged to {len(job.all_regions):,} that do not overlap")
    if job.options.shard is not None:
        log(f"shard {job.options.shard}: {len(job.regions):,} of {len(job.all_regions):,} regions")
    return list(zip(jobs, files, strict=True))


def _warn_about_strands(regions: "Sequence[Region]", bed_path: Path | None) -> None:
    """Log the number of regions without a strand, which are read on the forward strand."""
    absent = sum(region.strand == "." for region in regions)
    where = "--strand bed" if bed_path is None else f"{bed_path}: --strand bed"
    if absent == len(regions):
        log(f"{where}: no region has a strand (column 6 of a BED file), all are read on strand +")
    elif absent:
        log(f"{where}: {absent:,} of {len(regions):,} regions have no strand (column 6), these are read on strand +")


def storage_without_effect(model: "Model", spill: Path | None) -> dict[str, str]:
    """Return which of the options --memory and --spill have no effect with a model, with the reason."""
    if not model.bidirectional:
        return {"spill": "the model is causal"}
    return {} if spill is None else {"memory": "--spill stores the activations in files"}


def _warn_about_options(job: "Job", spill: Path | None) -> None:
    """Log which of the given options have no effect with the model and target of the job."""
    reasons = storage_without_effect(job.model, spill)
    if job.model.bidirectional:
        reasons["slots"] = "the model is bidirectional"
    else:
        if job.model.device.type == "cuda":
            reasons["memory"] = "the model is causal and on a GPU"
        if job.target.region is not None:
            reasons["reach"] = "the model is causal, and the target is at a fixed position"
        elif job.target.head and not job.target.pooled:
            reasons["reach"] = "the model is causal: labels do not depend on bases after them"
    path = job.options.path
    if path is None:
        reasons |= dict.fromkeys(("steps", "baseline", "seed", "sigma"), "there is one gradient with --method gradient")
    elif path.sigma is None:
        reasons["sigma"] = f"--method {path.name} has no noise"
        if path.seed is None:
            reasons["seed"] = f"the baseline {path.baseline} is not random"
    else:
        reasons["baseline"] = f"--method {path.name} has no baseline"
    warn_without_effect(**reasons)
