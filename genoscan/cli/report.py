"""genoscan report: summarise a track on one page."""

from pathlib import Path

import click

from genoscan.cli.messages import log
from genoscan.cli.options import PATH


@click.command("report")
@click.argument("paths", metavar="TRACK...", type=PATH, nargs=-1, required=True)
@click.option(
    "-g",
    "--genome",
    metavar="GENOME",
    type=PATH,
    required=True,
    help="The genome that the tracks were computed on: FASTA or GenBank.",
)
@click.option(
    "-a",
    "--annotation",
    metavar="FILE",
    type=PATH,
    help="Genes or other features, drawn with their exons, and around whose starts scores are averaged: GenBank, GFF3, "
    "GTF or BED.",
)
@click.option(
    "--variants",
    "variants_path",
    metavar="FILE",
    type=PATH,
    help="Variants to list, with the scores around those with the largest effects: a .tsv or VCF file written by "
    "genoscan variants.",
)
@click.option("-o", "--output", metavar="PATH", type=PATH, required=True, help="File to write.")
def command(
    paths: tuple[Path, ...], genome: Path, annotation: Path | None, variants_path: Path | None, output: Path
) -> None:
    """Write an HTML report on a track: curves, genes, logos, variants, a profile, scores.

    TRACK is a bigWig file written by genoscan, with its .json file in the same folder. More tracks, also of other
    programs, are drawn below it on separate scales; the table of the largest scores lists their values.

    \b
    Examples:
      genoscan report peaks.bw -g chr.fa -a genes.gff3 -o report.html
      genoscan report peaks.bw phylop.bw -g chr.fa -o report.html
    """
    from genoscan.export.report import write_report
    from genoscan.export.scored_variants import read_scored_variants
    from genoscan.export.track_file import load_track, track_notes
    from genoscan.genome.annotation import read_annotation
    from genoscan.genome.genome import open_genome
    from genoscan.tracks.outputs import check_file

    check_file(output, [*paths, genome, annotation, variants_path], ".html")
    opened = open_genome(genome)
    tracks = [load_track(path, opened) for path in paths]
    for note in track_notes(tracks):
        log(note)
    features = [] if annotation is None else read_annotation(annotation, opened.sizes, log)
    variants = None if variants_path is None else read_scored_variants(variants_path, opened)
    write_report(output, opened, tracks, features, variants)
    click.echo(output)
