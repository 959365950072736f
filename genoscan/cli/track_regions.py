"""Commands of genoscan track for the regions of a BED file."""

from pathlib import Path

import click

from genoscan.cli.messages import log
from genoscan.cli.options import PATH

TRACKS = click.argument("paths", metavar="TRACK...", type=PATH, nargs=-1, required=True)

BED = click.option(
    "-R",
    "--bed",
    "bed_path",
    metavar="BED",
    type=PATH,
    required=True,
    help="BED file of regions, plain or gzip (0-based, half-open).",
)


@click.command("summarize")
@TRACKS
@BED
@click.option("-o", "--output", metavar="TSV", type=PATH, help="Table to write.  [default: standard output]")
def summarize(paths: tuple[Path, ...], bed_path: Path, output: Path | None) -> None:
    """Write a table of tracks within regions: coverage, means, sum and extremes.

    TRACK is a bigWig or bedGraph file, also of another tool, or an .npz file written by attribute. The table has
    a row per row of the BED file, with its name and strand, in the order of the file. The columns of each track
    are covered (bases with a score), mean and mean_abs (of the score and of its absolute value, over these
    bases), sum, max and min with the first positions of both (1-based). If a region has no score, covered is 0
    and the rest is empty.

    \b
    Example:
      genoscan track summarize peaks.bw phylop.bw -R peaks.bed -o peaks.tsv
    """
    from genoscan.tracks.outputs import check_file
    from genoscan.tracks.region_table import summarize_regions
    from genoscan.tracks.tables import table_text, write_table

    if output is not None:
        check_file(output, [*paths, bed_path])
    table = summarize_regions(paths, bed_path, notify=log)
    if output is None:
        click.echo(table_text(table), nl=False)
    else:
        write_table(output, table)
        click.echo(output)
