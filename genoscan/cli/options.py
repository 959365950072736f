"""Options shared by several commands, and functions that check and convert option values."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from genoscan.errors import InputError

if TYPE_CHECKING:
    import torch

    from genoscan.genome.genome import Genome
    from genoscan.genome.region import Region
    from genoscan.job import Job
    from genoscan.model import Model

Command = TypeVar("Command", bound=Callable[..., Any])


def combine(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Combine option decorators into one; the help lists the options in the given order."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


# Not checked by click, so that an unreadable file is an error with status 1, not a usage error.
PATH = click.Path(path_type=Path, readable=False)

GENOME = click.argument("genome", metavar="GENOME", type=PATH)

OUTPUTS = click.option(
    "-o",
    "--output",
    "outputs",
    metavar="FILE",
    type=PATH,
    multiple=True,
    required=True,
    help="Track to write; may be repeated. The suffix determines the format: .bw, .bedgraph, "
    ".bedgraph.gz (bgzip with tabix index), .npz (all four derivatives at each base).",
)

REGIONS = combine(
    click.option(
        "-r",
        "--region",
        "region_texts",
        metavar="REGION",
        multiple=True,
        help="Region as in samtools: chr1, chr1:5,000-6,000, chr1:500- (1-based, inclusive); "
        "may be repeated.  [default, without --bed: all sequences]",
    ),
    click.option(
        "-R",
        "--bed",
        "bed_path",
        metavar="BED",
        type=PATH,
        help="BED file of regions, plain or gzip (0-based, half-open).",
    ),
    click.option("--clip", is_flag=True, help="Trim regions that extend past a sequence's end."),
)

MODEL = click.option(
    "-m",
    "--model",
    "model_name",
    metavar="MODEL",
    default="bacteria",
    show_default=True,
    help="Name (see genoscan models list) or folder of the model.",
)

TARGET = combine(
    click.option(
        "--target",
        default="log-likelihood",
        show_default=True,
        metavar="TARGET",
        help="Quantity to differentiate. Language models: log-likelihood[:REGION], "
        "logit:CHROM:POS:BASE or log-odds:CHROM:POS:BASE (POS 1-based; the logit minus the mean of the "
        "other three). Task heads (see genoscan models show): HEAD:LABEL[@REGION], the logit of a label, "
        "summed over REGION (one base: @chr1:500-500) or over each scored region.",
    ),
    click.option(
        "--contrast",
        metavar="LABEL",
        help="Subtract the logit of another label of the same head; strongest for the label with the "
        "largest logit, chosen for each region.",
    ),
    click.option(
        "--masked",
        is_flag=True,
        help="Replace the bases of the target by the mask token (masked models only); these bases then have no score.",
    ),
    click.option(
        "--score",
        default="centred",
        show_default=True,
        metavar="SCORE",
        help="How the four derivatives at a base become one score: centred (the observed base's "
        "minus the mean), observed, magnitude (L2 norm after centring) or substitution (the "
        "largest first-order effect, signed).",
    ),
    click.option(
        "--strand",
        default="+",
        show_default=True,
        metavar="STRAND",
        help="Strand to read: +, -, both (mean of the two targets) or bed (column 6 of the file).",
    ),
    click.option(
        "--context",
        type=int,
        metavar="BASES",
        help="Bases upstream of the region that the model also reads (for bidirectional models, on "
        "both sides).  [default: from the model's configuration]",
    ),
    click.option(
        "--reach",
        type=int,
        metavar="BASES",
        help="Bases downstream of the region included in the log-likelihood; with 0, scores fade "
        "towards the region's end.  [default: from the model's configuration]",
    ),
)

TILE = click.option(
    "--tile",
    type=int,
    default=1024,
    show_default=True,
    metavar="BASES",
    help="Bases processed at once; larger tiles take more memory.",
)

SLOTS = click.option(
    "--slots",
    type=int,
    default=64,
    show_default=True,
    metavar="N",
    help="Carries stored as checkpoints (causal models); fewer take less memory and more time, with the same results.",
)

MEMORY = click.option(
    "--memory",
    metavar="SIZE",
    help="Memory budget for activations between the layers of bidirectional models, such as "
    "8GB or 8GiB; a smaller budget takes more time, with the same results.  [default: half of "
    "the GPU's memory if sufficient, otherwise half of the memory available to this process "
    "under control-group and Slurm limits]",
)

SPILL = click.option(
    "--spill", metavar="FOLDER", type=PATH, help="Store these activations in files in this folder instead of memory."
)

BATCH = click.option(
    "--batch",
    type=int,
    default=4,
    show_default=True,
    metavar="N",
    help="Windows of equal length processed together; more can be faster and take more memory.",
)

SHARD = click.option(
    "--shard",
    metavar="I/N",
    help="Compute only shard I of N, such as 2/7; genoscan track merge combines the .npz files of all shards.",
)

COMPUTE = combine(TILE, SLOTS, MEMORY, SPILL, BATCH, SHARD)

THREADS = click.option("-t", "--threads", type=int, metavar="N", help="Number of CPU threads.  [default: all cores]")

MACHINE = combine(
    click.option(
        "--dtype",
        default="float32",
        show_default=True,
        metavar="TYPE",
        help="float32, or float64: slower, for models that overflow and for checks.",
    ),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="DEVICE",
        help="auto, cpu, cuda or cuda:N. auto selects the CPU: the GPU kernels have not yet been run on a GPU.",
    ),
    THREADS,
)


JOB = combine(GENOME, REGIONS, OUTPUTS, MODEL, TARGET, COMPUTE, MACHINE)
"""Options of `attribute` and `plan`."""


def set_threads(threads: int | None) -> None:
    """Set the number of threads for torch and the kernels; None selects all available cores."""
    import torch

    if threads is not None and threads < 1:
        raise InputError(f"--threads {threads}: expected at least 1")
    # CPU affinity may restrict a process to some of the cores.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads or cores or 1)


def parse_dtype(text: str) -> "torch.dtype":
    """Convert the value of --dtype to a torch.dtype."""
    import torch

    known = {"float32": torch.float32, "float64": torch.float64}
    if text not in known:
        raise InputError(f"--dtype {text}: expected {' or '.join(known)}")
    return known[text]


def parse_size(text: str) -> int:
    """Return the number of bytes in a size such as 8GB, 8GiB, 500M or 1000000.

    1 GB is 10^9 bytes, and 1 GiB is 2^30 bytes.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i)?)?b?", text.strip().lower(), re.ASCII)
    if not match:
        raise InputError(f"--memory {text}: expected a size such as 8GB, 8GiB or 500MB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2] or " "))


def parse_device(text: str) -> str:
    """Convert the value of --device to a torch device; raise an error if the device is unavailable."""
    import torch

    if text in ("auto", "cpu"):
        return "cpu"
    kind, _, number = text.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise InputError(f"--device {text}: expected auto, cpu, cuda or cuda:N")
    if int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {text}: torch finds {torch.cuda.device_count()} CUDA devices")
    return text


def open_model(name: str, dtype: str, device: str, threads: int | None, **method: Any) -> "Model":
    """Load the model selected by the options.

    The keyword arguments in `method` are the settings of the gradient method.
    """
    set_threads(threads)
    from genoscan.model import load_model

    return load_model(name, device=parse_device(device), dtype=parse_dtype(dtype), **method)


def read_regions(genome: "Genome", texts: Iterable[str], bed_path: Path | None, clip: bool) -> "list[Region]":
    """Return the regions given by --region and --bed; log the number of trimmed regions."""
    from genoscan.genome.bed import read_bed
    from genoscan.genome.region import PastEndError, parse_region

    try:
        regions = [parse_region(text, genome.sizes, clip=clip) for text in texts]
        if bed_path is not None:
            regions += read_bed(bed_path, genome.sizes, clip=clip)
    except PastEndError as error:
        raise InputError(f"{error}, and --clip trims regions") from None
    trimmed = sum(region.clipped for region in regions)
    if trimmed:
        log(f"{trimmed:,} of {len(regions):,} regions trimmed at the end of a sequence")
    return regions


def prepare_job(
    *,
    genome: Path,
    region_texts: tuple[str, ...],
    bed_path: Path | None,
    clip: bool,
    outputs: tuple[Path, ...],
    model_name: str,
    dtype: str,
    device: str,
    threads: int | None,
    tile: int,
    slots: int,
    memory: str | None,
    spill: Path | None,
    **options: Any,
) -> "Job":
    """Return the job specified by the options in `JOB`; log the number of regions after merging."""
    from genoscan.genome.genome import open_genome
    from genoscan.job import Options, prepare
    from genoscan.tracks.outputs import check_outputs

    check_outputs(outputs, [genome, bed_path])
    opened = open_genome(genome)
    regions = read_regions(opened, region_texts, bed_path, clip)
    allowed = None if memory is None else parse_size(memory)
    method = {"tile": tile, "slots": slots, "memory": allowed, "spill": spill}
    settings = Options(**options)
    model = open_model(model_name, dtype, device, threads, **method)
    job = prepare(opened, model, regions, settings)
    if options["strand"] == "bed":
        _warn_about_strands(regions, bed_path)
    _warn_about_options(job, outputs, spill)
    trained = job.model.config.window
    if trained is not None and job.longest > trained:
        log(f"windows of up to {job.longest:,} bases: {model_name} was trained on {trained:,} at most")
    warn_about_composition(job.genome, job.regions, job.model)
    if len(job.regions) < len(regions):
        log(f"{len(regions):,} regions merged to {len(job.regions):,} that do not overlap")
    return job


def warn_about_composition(genome: "Genome", regions: "Sequence[Region]", model: "Model") -> None:
    """Log a warning if the regions are unlike the training data of the model."""
    from genoscan.composition import describe_difference

    if (unlike := describe_difference(genome, regions, model.config, model.name)) is not None:
        log(unlike)


def _warn_about_strands(regions: "Sequence[Region]", bed_path: Path | None) -> None:
    """Log how many regions have no strand; these regions are read on the forward strand."""
    absent = sum(region.strand == "." for region in regions)
    where = "--strand bed" if bed_path is None else f"{bed_path}: --strand bed"
    if absent == len(regions):
        log(f"{where}: no region has a strand (column 6 of a BED file), all are read on strand +")
    elif absent:
        log(f"{where}: {absent:,} of {len(regions):,} regions have no strand (column 6), these are read on strand +")


def _warn_about_options(job: "Job", outputs: Sequence[Path], spill: Path | None) -> None:
    """Log which of the given options have no effect with this model, target and output format."""
    reasons = {}
    if job.model.bidirectional:
        reasons["slots"] = "the model is bidirectional"
        if spill is not None:
            reasons["memory"] = "--spill stores the activations in files"
    else:
        reasons["memory"] = reasons["spill"] = "the model is causal"
        if job.target.region is not None:
            reasons["reach"] = "the model is causal, and the target is at a fixed position"
    if all(path.suffix == ".npz" for path in outputs):
        reasons["score"] = "a .npz file contains the four derivatives; only export sites uses the score"
    warn_without_effect(**reasons)


def warn_without_effect(**reasons: str) -> None:
    """Log, in one line, which options given to the current command have no effect.

    Parameters
    ----------
    **reasons
        Reasons why parameters of the command have no effect, by parameter name. Parameters that were
        not given on the command line are ignored.
    """
    context = click.get_current_context()
    given = [
        f"{parameter.opts[-1]} ({reasons[parameter.name]})"
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name in reasons
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        log(f"without effect: {'; '.join(given)}")


def log(text: str) -> None:
    """Write a message to standard error; standard output is reserved for results."""
    click.echo(text, err=True)


def table(rows: Mapping[str, object]) -> str:
    """Format names and values in two columns."""
    width = max(len(name) for name in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows.items())
