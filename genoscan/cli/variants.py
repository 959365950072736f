"""genoscan variants: compute the effects of variants on a target."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genoscan.cli.inputs import open_model, parse_size, storage_without_effect
from genoscan.cli.messages import log, warn_without_effect
from genoscan.cli.options import EFFECT, GENOME, MACHINE, MEMORY, MODEL, PATH, SPILL, TILE, outputs_option
from genoscan.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genoscan.effects.variant_job import VariantJob
    from genoscan.genome.genome import Genome
    from genoscan.genome.variant_files import VariantTable


_MOST_REASONS = 6
"""Number of distinct statuses up to which they are listed in full."""


@click.command("variants")
@GENOME
@click.argument("variants_path", metavar="[VARIANTS]", type=PATH, required=False)
@click.option(
    "--variant",
    "texts",
    metavar="VARIANT",
    multiple=True,
    help="Variant such as 'chr1:1,024:A>C' (in quotes; 1-based; may be repeated), instead of a file.",
)
@outputs_option(
    "What to write; may be repeated. The suffix determines the format: .vcf.gz (bgzip with tabix index), "
    ".vcf, .tsv or .parquet."
)
@click.option(
    "--tracks",
    metavar="FOLDER",
    type=PATH,
    help="Folder to create, with two bigWig files for each variant: the derivatives of the target (score: centred) at "
    "the bases within 100 bp of the variant, for the reference (NAME.ref.bw) and for the alternate allele "
    "(NAME.alt.bw), each in its own window of --context and --reach bases.",
)
@click.option(
    "--top-tracks",
    type=int,
    default=50,
    show_default=True,
    metavar="N",
    help="Maximum number of variants with tracks: those with the largest |delta|, the absolute effect. Each takes "
    "about as long as genoscan attribute on two regions.",
)
@MODEL
@click.option(
    "--target",
    default="log-likelihood",
    show_default=True,
    metavar="TARGET",
    help="Quantity whose change is computed. Language models: log-likelihood[:REGION], logit:CHROM:POS:BASE or "
    "log-odds:CHROM:POS:BASE. Task heads: HEAD:LABEL[@REGION], the logit of a label, summed over REGION or over all "
    "bases that are compared.",
)
@click.option(
    "--masked",
    is_flag=True,
    help="Compute log p(ALT) - log p(REF) with the base masked instead (masked models, single-base substitutions).",
)
@EFFECT
@click.option(
    "--context",
    type=int,
    metavar="BASES",
    help="Bases upstream of the variant that the model also reads.  [default: from the model's configuration]",
)
@click.option(
    "--reach",
    type=int,
    metavar="BASES",
    help="Bases downstream of the variant whose predictions are compared.  [default: from the model's configuration]",
)
@click.option(
    "--background",
    default=0,
    show_default=True,
    metavar="N",
    help="Rank each variant among up to N random changes nearby of the same type and length (substitutions: of the "
    "same trinucleotide), by the size of the effect. Takes as long as N more variants for each type.",
)
@click.option(
    "--first-order",
    is_flag=True,
    help="Also write the first-order prediction of the effect (first, GS_FIRST) for alleles of equal length; takes "
    "about as long again.",
)
@click.option("--seed", default=1, show_default=True, metavar="N", help="Seed of the random changes.")
@TILE
@MEMORY
@SPILL
@MACHINE
def command(
    genome: Path,
    variants_path: Path | None,
    texts: tuple[str, ...],
    outputs: tuple[Path, ...],
    tracks: Path | None,
    top_tracks: int,
    **options: Any,
) -> None:
    """Write the effect of each variant on the target, with a status for each allele.

    VARIANTS is a VCF or BCF file (plain or compressed with bgzip), or a tab-separated table with the columns chrom,
    pos, ref, alt and optionally id. Every allele is in every output, in input order. The effect (delta, GS_DELTA)
    is the target with ALT minus the target with REF. Its two parts are the terms of the allele's own bases (own) and
    the change at all other bases (downstream). To continue an interrupted run, repeat the same command.

    \b
    Example:
      genoscan variants chr.fa calls.vcf.gz -o scores.vcf.gz -o scores.tsv --tracks tracks
    """
    from genoscan.cli.progress import progress
    from genoscan.effects.variant_output import check_variant_outputs
    from genoscan.effects.variant_tracks import check_tracks, expected_positions
    from genoscan.effects.variants import write_variants

    check_variant_outputs(outputs, [genome, variants_path])
    if tracks is None:
        warn_without_effect(top_tracks="without --tracks")
    else:
        check_tracks(tracks, top_tracks, outputs, masked=options["masked"])
    job = prepare(genome=genome, variants_path=variants_path, texts=texts, **options)
    if tracks is None and not job.model.bidirectional:
        warn_without_effect(memory="the model is causal, and there are no --tracks")
    total = job.positions + (0 if tracks is None else expected_positions(job, top_tracks))
    with progress(total, len(job.table.alleles), "alleles") as advance:
        scores, messages = write_variants(
            job, outputs, tracks=tracks, top_tracks=top_tracks, command=sys.argv, progress=advance
        )
    for message in messages:
        log(message)
    _report(scores.status, scores.record["seconds"])
    for path in outputs if tracks is None else (*outputs, tracks):
        click.echo(path)


def prepare(
    *,
    genome: Path,
    variants_path: Path | None,
    texts: tuple[str, ...],
    model_name: str,
    tile: int | None,
    memory: str | None,
    spill: Path | None,
    dtype: str,
    device: str,
    threads: int | None,
    **options: Any,
) -> "VariantJob":
    """Return the job that the options specify; log warnings about variants and genome."""
    from genoscan.effects.variant_job import VariantOptions, allele_status, prepare_variants
    from genoscan.genome.genome import open_genome

    settings = VariantOptions(**options)
    opened = open_genome(genome)
    table = _read(opened, variants_path, texts)
    model = open_model(model_name, dtype, device, threads, tile=tile, memory=parse_size(memory), spill=spill)
    without_effect = storage_without_effect(model, spill)
    if not settings.background:
        without_effect["seed"] = "without --background"
    warn_without_effect(**without_effect)
    job = prepare_variants(opened, model, table, settings)
    if table.alleles and not job.n_observed:
        _, reasons = _count([allele_status(allele, job.model, job.target, settings) for allele in table.alleles])
        source = variants_path or "--variant"
        raise InputError(f"{source}: none of {len(table.alleles):,} alleles can be scored: {_format(reasons)}")
    if job.warning is not None:
        log(job.warning)
    return job


def _read(genome: "Genome", path: Path | None, texts: tuple[str, ...]) -> "VariantTable":
    """Return the variants that the arguments specify; log which sequences were renamed, and which are unknown."""
    from genoscan.genome.region import unknown_sequence
    from genoscan.genome.variant_files import parse_variants, read_variants

    if (path is None) == (not texts):
        raise InputError("VARIANTS: expected a file of variants, or one or more --variant")
    table = parse_variants(texts, genome) if path is None else read_variants(path, genome)
    for name, (theirs, ours) in table.other_lengths.items():
        log(f"{path}: {name} has {theirs:,} bases in its header and {ours:,} in the genome; is it of another assembly?")
    if table.renamed:
        names = ", ".join(f"{theirs} as {ours}" for theirs, ours in list(table.renamed.items())[:3])
        more = f" and {len(table.renamed) - 3:,} more" if len(table.renamed) > 3 else ""
        log(f"{path or '--variant'}: sequences are matched by name: {names}{more}")
    named = {*genome.sizes, *table.renamed, *table.other_lengths}
    unknown = dict.fromkeys(allele.chrom for allele in table.alleles if allele.chrom not in named)
    if unknown:
        first, *others = unknown
        more = f" {len(others):,} more names are not in the genome" if others else ""
        log(f"{path or '--variant'}: {unknown_sequence(first, genome.sizes)}{more}")
    return table


def _count(status: "Sequence[str]") -> tuple[int, Counter[str]]:
    """Return the number of alleles that are scored, and those of the others by reason."""
    counts = Counter(status)
    if len(counts) > _MOST_REASONS:
        counts = Counter(reason.partition(" (")[0] for reason in status)  # without the bases of each allele
    return counts.pop("ok", 0), counts


def _format(reasons: Counter[str]) -> str:
    return "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())


def _report(status: "Sequence[str]", seconds: float) -> None:
    """Log how many alleles were scored, and why the others were not."""
    from genoscan.genome.variant import OTHER_REF

    scored, reasons = _count(status)
    log(f"{scored:,} of {len(status):,} alleles scored in {seconds:.1f} s ({scored / max(seconds, 1e-9):,.1f}/s)")
    if reasons:
        log(f"not scored: {_format(reasons)}")
    other_ref = sum(reason.startswith(OTHER_REF) for reason in status)
    if other_ref > 0.1 * len(status):
        log(f"{other_ref:,} alleles have another REF than the genome: are they of another assembly?")
