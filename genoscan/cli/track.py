"""genoscan track: merge, convert, compare and summarise tracks."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genoscan.cli.messages import aligned, log, warn_without_effect
from genoscan.cli.options import PATH, SCORE_OUTPUTS
from genoscan.cli.track_regions import TRACKS, profile, summarize
from genoscan.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from genoscan.tracks.compare import Comparison


@click.group("track")
def command() -> None:
    """Merge, convert, compare and summarise tracks."""


command.add_command(profile)
command.add_command(summarize)


@command.command("merge")
@click.argument("shards", metavar="SHARD.bw...", type=PATH, nargs=-1, required=True)
@click.option(
    "-g",
    "--genome",
    metavar="GENOME",
    type=PATH,
    required=True,
    help="The genome that the shards were computed on: FASTA or GenBank.",
)
@SCORE_OUTPUTS
def merge(shards: tuple[Path, ...], genome: Path, outputs: tuple[Path, ...]) -> None:
    """Merge the shards of a job into tracks.

    The shards are the .bw files written by attribute --shard, or its .npz files, which are four times as large. The
    tracks are identical to those that a single run would have written.

    \b
    Example:
      genoscan attribute chr.fa --bed peaks.bed --shard 1/2 -o 1.bw
      genoscan attribute chr.fa --bed peaks.bed --shard 2/2 -o 2.bw
      genoscan track merge 1.bw 2.bw -g chr.fa -o peaks.bw
    """
    from genoscan.genome.genome import open_genome
    from genoscan.merge import write_merged
    from genoscan.tracks.outputs import check_outputs

    check_outputs(outputs, [genome, *shards])
    for path in outputs:
        if path.suffix == ".npz":
            raise InputError(f"{path}: shards are merged to tracks only, expected .bw, .bedgraph or .bedgraph.gz")
    record = write_merged(shards, open_genome(genome), outputs, command=sys.argv)
    log(f"{record['scored_bases']:,} bases of {record['shards']} shards")
    if not record["scored_bases"]:
        log("no base of the shards has a score: the track is valid but empty")
    for path in outputs:
        click.echo(path)


@command.command("convert")
@click.argument("track", metavar="TRACK", type=PATH)
@click.option(
    "-g",
    "--genome",
    metavar="GENOME",
    type=PATH,
    help="FASTA or GenBank with the sequence lengths, required to convert a bedGraph.",
)
@click.option("-o", "--output", metavar="FILE", type=PATH, required=True, help="File to write.")
def convert(track: Path, genome: Path | None, output: Path) -> None:
    """Convert a bigWig file to bedGraph, or a bedGraph file to bigWig.

    The suffixes of the file names determine the formats.

    \b
    Example:
      genoscan track convert peaks.bw -o peaks.bedgraph.gz
      genoscan track convert other.bedgraph -g chr.fa -o other.bw
    """
    from genoscan.tracks.convert import write_converted
    from genoscan.tracks.outputs import check_outputs
    from genoscan.tracks.reader import is_bigwig

    check_outputs([output], [track, genome])
    if is_bigwig(track):
        warn_without_effect(genome="a bigWig contains the lengths of its sequences")
    sizes = None
    if genome is not None:
        from genoscan.genome.genome import open_genome

        sizes = open_genome(genome).sizes
    bases = write_converted(track, output, sizes, command=sys.argv)
    log(f"{bases:,} bases with scores" if bases else "no base has a score: the track is valid but empty")
    click.echo(output)


@command.command("compare")
@TRACKS
@click.option(
    "-n",
    "--top",
    type=int,
    default=10,
    show_default=True,
    metavar="N",
    help="Number of positions to print for two tracks, by the size of the difference.",
)
@click.option("-o", "--output", metavar="TSV", type=PATH, help="Table to write, with a row for each pair of tracks.")
def compare(paths: tuple[Path, ...], top: int, output: Path | None) -> None:
    """Print the correlations of tracks and, for two tracks, their largest differences.

    TRACK is a bigWig or bedGraph file, also of another tool, or an .npz file written by attribute; all are of the
    same genome. Correlations are computed over the bases that have a score in both tracks.

    \b
    Example:
      genoscan track compare mamba.bw pd-ssm.bw phylop.bw -o correlations.tsv
    """
    from genoscan.export.track_file import load_any_track
    from genoscan.tracks.compare import compare as compared
    from genoscan.tracks.tables import check_table, write_table

    if output is not None:
        check_table(output, paths)
    if len(paths) > 2:
        warn_without_effect(top="differences are listed for two tracks")
    descriptions = [load_any_track(path).description for path in paths]
    found = compared(paths, top=top)
    bases = [f"{n:,}" for n in found.shared.diagonal()]
    rows = [("track", "bases", "description"), *zip(found.labels, bases, descriptions, strict=True)]
    click.echo(aligned(rows, right=[1]))
    pairs = found.pairs()
    if len(paths) == 2:
        pearson, spearman = (_number(float(matrix[0, 1]), ".6g") for matrix in (found.pearson, found.spearman))
        click.echo(f"\nin both {found.shared[0, 1]:,} bases, Pearson {pearson}, Spearman {spearman}")
    else:
        _print_matrix("bases with a score in both tracks", found.labels, found.shared, ",d")
        _print_matrix("Pearson correlation", found.labels, found.pearson, ".4f")
        _print_matrix("Spearman correlation", found.labels, found.spearman, ".4f")
    apart = [f"{row.first} and {row.second}" for row in pairs.itertuples() if not row.both]
    if apart:
        log("no base has a score in both tracks" + f": {', '.join(apart)}" * (len(paths) > 2))
    elif len(paths) == 2 and top:
        _print_differences(found)
    if output is not None:
        write_table(output, pairs)
        click.echo(output)


def _print_matrix(title: str, labels: Sequence[str], matrix: "np.ndarray", form: str) -> None:
    """Print a matrix with a row and a column for each track."""
    cells = [[_number(value, form) for value in row] for row in matrix.tolist()]
    rows = [["", *labels], *([label, *row] for label, row in zip(labels, cells, strict=True))]
    click.echo(f"\n{title}\n{aligned(rows, right=range(1, len(rows)))}")


def _number(value: float, form: str) -> str:
    """Format a number; an undefined correlation is "-"."""
    return "-" if math.isnan(value) else format(value, form)


def _print_differences(found: "Comparison") -> None:
    if not found.largest:
        click.echo(f"\nequal scores at all {found.shared[0, 1]:,} bases with a score in both tracks")
        return
    click.echo("\n#chrom\tstart\tend\tfirst\tsecond\tdifference")
    for base, one, other in found.largest:
        row = base.chrom, base.start, base.end, f"{one:.6g}", f"{other:.6g}", f"{one - other:.6g}"
        click.echo("\t".join(map(str, row)))
