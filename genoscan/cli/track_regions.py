"""Commands of genoscan track for the regions of a BED file."""

from pathlib import Path

import click

from genoscan.cli.messages import log
from genoscan.cli.options import PATH, outputs_option

_MOST_BINS = 1_001

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
    from genoscan.tracks.region_table import summarize_regions
    from genoscan.tracks.tables import check_table, table_text, write_table

    if output is not None:
        check_table(output, [*paths, bed_path])
    table = summarize_regions(paths, bed_path, notify=log)
    if output is None:
        click.echo(table_text(table), nl=False)
    else:
        write_table(output, table)
        click.echo(output)


@click.command("profile")
@TRACKS
@BED
@click.option(
    "--point",
    default="start",
    show_default=True,
    metavar="POINT",
    help="Reference point of a region in the direction of its strand: start, center or end.",
)
@click.option(
    "--upstream", type=int, default=500, show_default=True, metavar="BASES", help="Bases before the reference point."
)
@click.option(
    "--downstream", type=int, default=500, show_default=True, metavar="BASES", help="Bases after the reference point."
)
@click.option(
    "--bin",
    "step",
    type=int,
    metavar="BASES",
    help="Bases that are averaged to one value.  [default: 1, or as many as give 1,001 values]",
)
@click.option(
    "--absolute",
    is_flag=True,
    help="Use absolute scores, as in the profile of a report; signed scores of different bases cancel in a mean.",
)
@outputs_option(
    "File to write; may be repeated. The suffix determines the format: .html (page), .png (picture, requires "
    "kaleido and a Chrome) or .tsv (the mean profiles)."
)
def profile(
    paths: tuple[Path, ...],
    bed_path: Path,
    point: str,
    upstream: int,
    downstream: int,
    step: int | None,
    absolute: bool,
    outputs: tuple[Path, ...],
) -> None:
    """Draw mean profiles and heat maps of tracks around regions.

    TRACK is a bigWig or bedGraph file, also of another tool, or an .npz file written by attribute. Regions of
    strand - are read from right to left. A heat map has a row per region, sorted by the mean of the first track.

    \b
    Example:
      genoscan track profile peaks.bw phylop.bw -R genes.bed --point start -o profile.html
    """
    from genoscan.export.profile_files import check_profile_output, write_profiles
    from genoscan.export.profiles import compute_profiles
    from genoscan.genome.bed import read_bed
    from genoscan.tracks.outputs import check_file
    from genoscan.tracks.profile import Window

    for output in outputs:
        check_profile_output(output)
        check_file(output, [*paths, bed_path])
    width = len(Window(upstream, downstream))
    window = Window(upstream, downstream, -(-width // _MOST_BINS) if step is None else step)
    found = compute_profiles(paths, read_bed(bed_path, None), point, window, absolute=absolute)
    for note in found.notes:
        log(note)
    write_profiles(outputs, found, title=f"{len(found.regions):,} regions of {bed_path.name}")
    for output in outputs:
        click.echo(output)
