"""genoscan track: merge, convert and compare tracks."""

import sys
from pathlib import Path

import click

from genoscan.cli.messages import log, warn_without_effect
from genoscan.cli.options import OUTPUTS, PATH


@click.group("track")
def command() -> None:
    """Merge, convert and compare tracks."""


@command.command("merge")
@click.argument("shards", metavar="SHARD.npz...", type=PATH, nargs=-1, required=True)
@click.option(
    "-g",
    "--genome",
    metavar="GENOME",
    type=PATH,
    required=True,
    help="The genome that the shards were computed on: FASTA or GenBank.",
)
@OUTPUTS
def merge(shards: tuple[Path, ...], genome: Path, outputs: tuple[Path, ...]) -> None:
    """Merge the shards of a job into tracks.

    The shards are the .npz files written by attribute --shard. The tracks are identical to those that a
    single run would have written.

    \b
    Example:
      genoscan attribute chr.fa --bed peaks.bed --shard 1/2 -o 1.npz
      genoscan attribute chr.fa --bed peaks.bed --shard 2/2 -o 2.npz
      genoscan track merge 1.npz 2.npz -g chr.fa -o peaks.bw
    """
    from genoscan.genome.genome import open_genome
    from genoscan.merge import write_merged
    from genoscan.tracks.outputs import check_outputs

    check_outputs(outputs, [genome, *shards])
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
@click.argument("first", metavar="TRACK", type=PATH)
@click.argument("second", metavar="TRACK", type=PATH)
@click.option(
    "-n",
    "--top",
    type=int,
    default=10,
    show_default=True,
    metavar="N",
    help="Number of positions to print, by the size of the difference.",
)
def compare(first: Path, second: Path, top: int) -> None:
    """Print the correlations and the largest differences between two bigWig files.

    The two files must contain tracks of the same genome.

    \b
    Example:
      genoscan track compare mamba.bw pd-ssm.bw
    """
    from genoscan.tracks.compare import compare as compared

    found = compared(first, second, top=top)
    if not found.both:
        log("no base has a score in both tracks")
    for name in ("both", "only_first", "only_second", "pearson", "spearman"):
        value = getattr(found, name)
        click.echo(f"#{name}\t{value if isinstance(value, int) else format(value, '.6g')}")
    click.echo("#chrom\tstart\tend\tfirst\tsecond\tdifference")
    for base, one, other in found.largest:
        row = base.chrom, base.start, base.end, f"{one:.6g}", f"{other:.6g}", f"{one - other:.6g}"
        click.echo("\t".join(map(str, row)))
