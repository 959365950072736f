"""genoscan track: tracks to tracks."""

from pathlib import Path

import click

from genoscan.cli.options import OUTPUTS, PATH, check_outputs, say


@click.group("track")
def command() -> None:
    """Put tracks together."""


@command.command("merge")
@click.argument("shards", metavar="SHARD.npz...", type=PATH, nargs=-1, required=True)
@click.option(
    "-g", "--genome", metavar="GENOME", type=PATH, required=True,
    help="The genome that the shards were made on: FASTA or GenBank.",
)  # fmt: skip
@OUTPUTS
def merge(shards: tuple[Path, ...], genome: Path, outputs: tuple[Path, ...]) -> None:
    """Make one track of the shards that attribute --shard has left, as one run would have.

    \b
    Example:
      genoscan attribute chr.fa --bed peaks.bed --shard 1/2 -o 1.npz
      genoscan attribute chr.fa --bed peaks.bed --shard 2/2 -o 2.npz
      genoscan track merge 1.npz 2.npz -g chr.fa -o peaks.bw
    """
    from genoscan.genome.genome import open_genome
    from genoscan.merge import write_merged

    check_outputs(outputs, [genome, *shards])
    record = write_merged(shards, open_genome(genome), outputs)
    say(f"{record['scored_bases']:,} bases of {record['shards']} shards")
    for path in outputs:
        click.echo(path)
