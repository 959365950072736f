"""Options shared by several commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def combine(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Combine option decorators into one decorator; --help lists the options in the given order."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


# Not checked by click, so that an unreadable file is an error with status 1, not a usage error.
PATH = click.Path(path_type=Path, readable=False)

GENOME = click.argument("genome", metavar="GENOME", type=PATH)

_SCORES = ".bw, .bedgraph, .bedgraph.gz (bgzip with tabix index)"


def outputs_option(text: str) -> Callable[[Command], Command]:
    """Return the option --output, which may be repeated, with the given help."""
    return click.option("-o", "--output", "outputs", metavar="FILE", type=PATH, multiple=True, required=True, help=text)


_TRACK = "Track to write; may be repeated. The suffix determines the format: "
OUTPUTS = outputs_option(f"{_TRACK}{_SCORES}, .npz (all four derivatives at each base).")
SCORE_OUTPUTS = outputs_option(f"{_TRACK}{_SCORES}.")
"""The same for tracks that have one score per base only."""

ANNOTATION = click.option(
    "-a",
    "--annotation",
    metavar="FILE",
    type=PATH,
    help="Genes whose names --region also accepts, as in -r GATA1: GFF3, GTF, GenBank or BED.",
)


def _regions(default: str) -> Callable[[Command], Command]:
    return combine(
        click.option(
            "-r",
            "--region",
            "region_texts",
            metavar="REGION",
            multiple=True,
            help="Region as in samtools: chr1, chr1:5,000-6,000, chr1:500- (1-based, inclusive), or, with "
            f"--annotation, the name of a gene; may be repeated.{default}",
        ),
        ANNOTATION,
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


REGIONS = _regions("  [default, without --bed: all sequences]")
CHOSEN_REGIONS = _regions("  [required, without --bed]")
"""The same for commands that do not take whole genomes."""

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
        metavar="SCORE",
        help="How the four derivatives at a base become one score: centred (the observed base's "
        "minus the mean), observed, magnitude (L2 norm after centring) or substitution (the "
        "largest first-order effect, signed).  [default: centred; observed for methods with a baseline, "
        "whose columns are relative to it]",
    ),
    click.option(
        "--strand",
        default="+",
        show_default=True,
        metavar="STRAND",
        help="Strand to read: +, -, both (mean of the two targets), separate (both, in separate files: -o P.bw "
        "writes P.plus.bw and P.minus.bw) or bed (column 6 of the file, or that of a gene).",
    ),
    click.option(
        "--context",
        type=int,
        metavar="BASES",
        help="Bases upstream of the region that the model also reads.  [default: from the model's configuration; 0 "
        "for heads that label windows]",
    ),
    click.option(
        "--reach",
        type=int,
        metavar="BASES",
        help="Bases downstream of the region that the model also reads and predicts; with 0, scores fade "
        "towards the region's end.  [default: from the model's configuration; 0 for heads that label windows]",
    ),
)

METHOD = combine(
    click.option(
        "--method",
        default="gradient",
        show_default=True,
        metavar="METHOD",
        help="gradient: at the sequence; integrated-gradients: averaged over the straight line from a baseline "
        "to the sequence; expected-gradients: over lines from shuffled sequences, at one random point each; "
        "smoothgrad: over the sequence with Gaussian noise. The target, with its labels, is the same at all points.",
    ),
    click.option(
        "--steps",
        metavar="N",
        help="Gradients to average; the time is proportional to it. auto doubles it, from 16 up to 1,024, until "
        "the sum of the integrated gradients is within 1 % of the difference that it should be.  [default: 50]",
    ),
    click.option(
        "--baseline",
        metavar="BASELINE",
        help="Start of the line: uniform (1/4 of each base), zeros, or dinucleotide-shuffle (a random sequence "
        "with the same dinucleotide counts).  [default: uniform; dinucleotide-shuffle for expected-gradients]",
    ),
    click.option(
        "--seed",
        type=int,
        default=1,
        show_default=True,
        metavar="N",
        help="Seed of shuffles, random points and noise; another one shows how much the result depends on them.",
    ),
    click.option(
        "--sigma",
        type=float,
        default=0.15,
        show_default=True,
        metavar="SIGMA",
        help="Standard deviation of the noise for smoothgrad, relative to the 1 of a one-hot base.",
    ),
)

EFFECT = combine(
    click.option("--contrast", metavar="LABEL", help="Subtract the logit of another label of the same head."),
    click.option(
        "--strand",
        default="+",
        show_default=True,
        metavar="STRAND",
        help="Strand to read: +, - or both (mean of the two).",
    ),
)
"""Decorator that adds the options shared by the commands `variants` and `mutate`."""

TILE = click.option(
    "--tile",
    type=int,
    metavar="BASES",
    help="Bases processed at once; larger tiles take more memory.  [default: 1024 on a CPU, 8192 on a GPU]",
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
    help="Memory for activations, such as 8GB or 8GiB, or auto: half of the memory available to this process under "
    "control-group and Slurm limits. Less takes more time, with the same results. Causal models on a CPU run parts of "
    "a window that fit only once instead of twice (genoscan plan states how much a window takes); bidirectional "
    "models keep the activations between their layers.  [default: none for causal models; for bidirectional ones "
    "the GPU's memory if half of it is sufficient, otherwise auto]",
)

SPILL = click.option(
    "--spill", metavar="FOLDER", type=PATH, help="Store these activations in files in this folder instead of memory."
)

APART = click.option(
    "--apart",
    is_flag=True,
    help="Read each region in a separate window, even where windows overlap. By default, overlapping windows of "
    "causal models are joined, which takes less time, and gives regions more context and reach.",
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
    help="Compute only shard I of N, such as 2/7; genoscan track merge combines the .bw files of all shards, which "
    "have no zoom levels.",
)

COMPUTE = combine(TILE, SLOTS, MEMORY, SPILL, APART, BATCH, SHARD)

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
        help="auto (a GPU if there is one), cpu, cuda or cuda:N.",
    ),
    THREADS,
)


JOB = combine(GENOME, REGIONS, OUTPUTS, MODEL, TARGET, METHOD, COMPUTE, MACHINE)
"""Decorator that adds the arguments and options shared by the commands `attribute` and `plan`."""
