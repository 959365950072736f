"""Options that commands share, and what they turn into; each is defined once."""

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


def together(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Apply several option decorators, first on top in the help."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


# Whether a file can be read is asked when it is opened: a refusal is no usage error.
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
    help="Where to write; may repeat. The suffix picks the format: .bw, .bedgraph, "
    ".bedgraph.gz (bgzip with its tabix index), .npz (all four columns).",
)

REGIONS = together(
    click.option(
        "-r", "--region", "region_texts", metavar="REGION", multiple=True,
        help="Region as in samtools: chr1, chr1:5,000-6,000, chr1:500- (1-based, inclusive); "
        "may repeat. Without --region and --bed, every sequence.",
    ),
    click.option(
        "-R", "--bed", "bed_path", metavar="BED", type=PATH,
        help="Regions as BED, plain or gzip (0-based, half-open).",
    ),
    click.option("--clip", is_flag=True, help="Trim regions that run past a sequence's end."),
)  # fmt: skip

MODEL = click.option(
    "-m", "--model", "model_name", metavar="MODEL", default="bacteria", show_default=True,
    help="A model's name (genoscan models list) or folder.",
)  # fmt: skip

QUESTION = together(
    click.option(
        "--target", default="log-likelihood", show_default=True, metavar="TARGET",
        help="What is differentiated: log-likelihood[:REGION], logit:CHROM:POS:BASE or "
        "log-odds:CHROM:POS:BASE (POS 1-based).",
    ),
    click.option(
        "--masked", is_flag=True,
        help="Hide the target's own bases from a masked model; they have no score then.",
    ),
    click.option(
        "--score", default="centred", show_default=True, metavar="SCORE",
        help="Four derivatives to one number: centred, observed, magnitude or substitution.",
    ),
    click.option(
        "--strand", default="+", show_default=True, metavar="STRAND",
        help="Reading direction: +, -, both (mean of the two targets) or bed (column 6).",
    ),
    click.option(
        "--context", type=int, metavar="BASES",
        help="Bases read before a region.  [default: the model's own]",
    ),
    click.option(
        "--reach", type=int, metavar="BASES",
        help="Bases past a region whose likelihood counts.  [default: the model's own]",
    ),
)  # fmt: skip

COMPUTE = together(
    click.option(
        "--tile", type=int, default=1024, show_default=True, metavar="BASES",
        help="Bases of a window processed at once.",
    ),
    click.option(
        "--slots", type=int, default=64, show_default=True, metavar="N",
        help="Carries remembered, of models that read one way: fewer cost time, never exactness.",
    ),
    click.option(
        "--memory", metavar="SIZE",
        help="Memory budget for activations between the layers of bidirectional models, such as "
        "8GB or 8GiB; less costs time, never exactness.  [default: half of the GPU's, if that is "
        "enough, or else half of what this process may use: of the machine, its control group "
        "and Slurm's limit]",
    ),
    click.option(
        "--spill", metavar="FOLDER", type=PATH,
        help="Keep what lies between their layers in files of this folder instead.",
    ),
    click.option(
        "--batch", type=int, default=4, show_default=True, metavar="N",
        help="Windows of one length read side by side.",
    ),
    click.option(
        "--shard", metavar="I/N",
        help="Do the I-th of N shards of the work alone, such as 2/7; genoscan track merge puts "
        "their .npz together.",
    ),
)  # fmt: skip

THREADS = click.option(
    "-t", "--threads", type=int, metavar="N", help="CPU threads.  [default: all cores]"
)

MACHINE = together(
    click.option(
        "--dtype", default="float32", show_default=True, metavar="TYPE",
        help="float32, or float64 for proof.",
    ),
    click.option(
        "--device", default="auto", show_default=True, metavar="DEVICE",
        help="auto, cpu, cuda or cuda:1. auto is the CPU: the kernels for GPUs have not been run "
        "on a card yet.",
    ),
    THREADS,
)  # fmt: skip


JOB = together(GENOME, REGIONS, OUTPUTS, MODEL, QUESTION, COMPUTE, MACHINE)
"""What `attribute` takes, and `plan` as well."""


def check_outputs(outputs: Sequence[Path], inputs: Sequence[Path | None] = ()) -> None:
    """Say before anything is read what would keep results from being written."""
    from genoscan.tracks.writer import check_output

    named: set[Path] = set()
    for path in outputs:
        check_output(path)
        check_unread(path, inputs)
        if path.resolve() in named:
            raise InputError(f"{path}: an output is given twice: name each once")
        named.add(path.resolve())


def check_unread(output: Path, inputs: Sequence[Path | None]) -> None:
    """Make sure that what is written is not what is read."""
    if output.resolve() in {path.resolve() for path in inputs if path is not None}:
        raise InputError(f"{output}: it is read from, too: name another output")


def check_page(output: Path, tracks: Sequence[Path], others: Sequence[Path | None]) -> None:
    """Say what would keep something to look at from being written, or cost a track its record."""
    from genoscan.tracks.provenance import provenance_path

    check_unread(output, [*tracks, *map(provenance_path, tracks), *others])


def set_threads(threads: int | None) -> None:
    """Give torch, and with it the kernels, their threads."""
    import torch

    if threads is not None and threads < 1:
        raise InputError(f"--threads {threads}: expected at least 1")
    # Linux may give a process fewer cores than there are.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads or cores or 1)


def parse_dtype(text: str) -> "torch.dtype":
    """Turn --dtype into torch's."""
    import torch

    known = {"float32": torch.float32, "float64": torch.float64}
    if text not in known:
        raise InputError(f"--dtype {text}: expected {' or '.join(known)}")
    return known[text]


def parse_size(text: str) -> int:
    """Turn a size such as 8GB (10^9 bytes each), 8GiB (2^30), 500M or 1000000 into bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i)?)?b?", text.strip().lower(), re.ASCII)
    if not match:
        raise InputError(f"--memory {text}: expected a size such as 8GB, 8GiB or 500MB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index(match[2] or " "))


def parse_device(text: str) -> str:
    """Turn --device into a device that is there."""
    import torch

    if text in ("auto", "cpu"):
        return "cpu"
    kind, _, number = text.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise InputError(f"--device {text}: expected auto, cpu, cuda or cuda:N")
    if int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {text}: torch sees {torch.cuda.device_count()} CUDA devices")
    return text


def load_chosen(name: str, dtype: str, device: str, threads: int | None, **method: Any) -> "Model":
    """Load the model that the options name, with the settings of its method."""
    set_threads(threads)
    from genoscan.model import load_model

    return load_model(name, device=parse_device(device), dtype=parse_dtype(dtype), **method)


def read_regions(
    genome: "Genome", texts: Iterable[str], bed_path: Path | None, clip: bool
) -> "list[Region]":
    """Read --region and --bed; say how many were trimmed."""
    from genoscan.genome.bed import read_bed
    from genoscan.genome.region import parse_region

    regions = [parse_region(text, genome.sizes, clip=clip) for text in texts]
    if bed_path is not None:
        regions += read_bed(bed_path, genome.sizes, clip=clip)
    trimmed = sum(region.clipped for region in regions)
    if trimmed:
        say(f"{trimmed:,} of {len(regions):,} regions trimmed at a sequence's end")
    return regions


def prepare_job(
    *, genome: Path, region_texts: tuple[str, ...], bed_path: Path | None, clip: bool,
    outputs: tuple[Path, ...], model_name: str, dtype: str, device: str, threads: int | None,
    tile: int, slots: int, memory: str | None, spill: Path | None, **options: Any,
) -> "Job":  # fmt: skip
    """Turn the options of `JOB` into a job; say how many regions were merged."""
    from genoscan.genome.genome import open_genome
    from genoscan.job import Options, prepare

    check_outputs(outputs, [genome, bed_path])
    opened = open_genome(genome)
    regions = read_regions(opened, region_texts, bed_path, clip)
    allowed = None if memory is None else parse_size(memory)
    method = {"tile": tile, "slots": slots, "memory": allowed, "spill": spill}
    settings = Options(**options)
    model = load_chosen(model_name, dtype, device, threads, **method)
    job = prepare(opened, model, regions, settings)
    trained = job.model.config.window
    if trained is not None and job.longest > trained:
        say(
            f"windows of up to {job.longest:,} bases: {model_name} was trained on {trained:,} at "
            "most"
        )
    if len(job.regions) < len(regions):
        say(f"{len(regions):,} regions merged to {len(job.regions):,} that do not overlap")
    return job


def say(text: str) -> None:
    """Talk goes to stderr; results go to files or stdout."""
    click.echo(text, err=True)


def table(rows: Mapping[str, object]) -> str:
    """Lay out names and values in two columns."""
    width = max(len(name) for name in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows.items())
