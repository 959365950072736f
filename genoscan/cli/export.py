"""genoscan export: export tracks to web pages, genome browsers and motif tools."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genoscan.cli.inputs import read_region
from genoscan.cli.messages import log, warn_without_effect
from genoscan.cli.options import PATH, combine
from genoscan.errors import InputError

if TYPE_CHECKING:
    from genoscan.export.track_file import TrackFile
    from genoscan.genome.genome import Genome
    from genoscan.genome.region import Region


@click.group("export")
def command() -> None:
    """Export tracks to web pages, genome browsers and motif tools.

    TRACK is a bigWig file written by genoscan, with its .json file in the same folder. GENOME must be
    the genome on which the track was computed, which is verified by comparing checksums. bigWigs of other
    programs, such as conservation or accessibility, may be added: only names and lengths of their sequences
    are compared with the genome.
    """


TRACKS = combine(
    click.argument("paths", metavar="TRACK...", type=PATH, nargs=-1, required=True),
    click.option(
        "-g",
        "--genome",
        metavar="GENOME",
        type=PATH,
        required=True,
        help="The genome that the tracks were computed on: FASTA or GenBank.",
    ),
    click.option(
        "-a",
        "--annotation",
        metavar="FILE",
        type=PATH,
        help="Genes to display, with exons, introns and coding parts: GFF3, GTF, BED or, for html and hub, GenBank.",
    ),
    click.option(
        "-r",
        "--region",
        "region_text",
        metavar="REGION",
        help="Region shown first.  [default: the first region with scores]",
    ),
    click.option("-o", "--output", metavar="PATH", type=PATH, required=True, help="File or folder to write."),
)


@command.command("html")
@TRACKS
@click.option(
    "--variants",
    "variants_path",
    metavar="FILE",
    type=PATH,
    help="Variants to display with their effects: a .tsv or VCF file written by genoscan variants.",
)
def page(
    paths: tuple[Path, ...],
    genome: Path,
    annotation: Path | None,
    region_text: str | None,
    output: Path,
    variants_path: Path | None,
) -> None:
    """Write an HTML page with a genome browser that shows bases, tracks, genes and variants.

    The page opens in any web browser and loads nothing from the internet. When the user zooms in, bases
    are shown as letters scaled by their scores. If the tracks are too large for one HTML file, they are
    written to a folder beside it, and the page must be viewed with genoscan serve.

    \b
    Example:
      genoscan export html peaks.bw -g chr.fa -a genes.gff3 -o peaks.html
    """
    from genoscan.export.page import write_page
    from genoscan.export.scored_variants import read_scored_variants
    from genoscan.genome.annotation import read_annotation
    from genoscan.tracks.outputs import check_file

    check_file(output, [*paths, genome, annotation, variants_path], ".html")
    opened, tracks, locus = _open_inputs(paths, genome, region_text, annotation)
    genes = [] if annotation is None else read_annotation(annotation, opened.sizes, log)
    variants = [] if variants_path is None else read_scored_variants(variants_path, opened)
    beside = write_page(output, opened, tracks, genes, variants, locus=locus)
    if beside is not None:
        log(f"some tracks are in {beside}: view the page with genoscan serve {output.parent}")
    click.echo(output)


@command.command("igv")
@TRACKS
def igv(paths: tuple[Path, ...], genome: Path, annotation: Path | None, region_text: str | None, output: Path) -> None:
    """Write an IGV session file that refers to the genome and the tracks by path.

    \b
    Example:
      genoscan export igv peaks.bw -g chr.fa -a genes.gff3 -o peaks.xml
    """
    from genoscan.export.session import write_igv_session
    from genoscan.genome.annotation import read_annotation
    from genoscan.tracks.outputs import check_file

    check_file(output, [*paths, genome, annotation], ".xml")
    opened, tracks, locus = _open_inputs(paths, genome, region_text, annotation)
    if annotation is not None:
        read_annotation(annotation, opened.sizes, log)
    write_igv_session(output, opened, tracks, annotation=annotation, locus=locus)
    click.echo(output)


@command.command("jbrowse")
@TRACKS
def jbrowse(
    paths: tuple[Path, ...], genome: Path, annotation: Path | None, region_text: str | None, output: Path
) -> None:
    """Write a config.json for JBrowse 2 that refers to the genome and the tracks by path.

    \b
    Example:
      genoscan export jbrowse peaks.bw -g chr.fa -a genes.gff3 -o config.json
    """
    from genoscan.export.session import write_jbrowse_config
    from genoscan.genome.annotation import read_annotation
    from genoscan.tracks.outputs import check_file

    check_file(output, [*paths, genome, annotation], ".json")
    opened, tracks, locus = _open_inputs(paths, genome, region_text, annotation)
    if annotation is not None:
        read_annotation(annotation, opened.sizes, log)
    write_jbrowse_config(output, opened, tracks, annotation=annotation, locus=locus)
    click.echo(output)


@command.command("hub")
@TRACKS
@click.option("--email", metavar="ADDRESS", required=True, help="Contact e-mail of the hub.")
@click.option(
    "--assembly",
    metavar="NAME",
    help="UCSC's name of the assembly, such as hg38.  [default: include the genome as .2bit]",
)
def hub(
    paths: tuple[Path, ...],
    genome: Path,
    annotation: Path | None,
    region_text: str | None,
    output: Path,
    email: str,
    assembly: str | None,
) -> None:
    """Write a track hub for the UCSC Genome Browser: a folder to publish on a web server.

    \b
    Example:
      genoscan export hub peaks.bw -g chr.fa -a genes.gff3 --email you@lab.org -o hub
    """
    from genoscan.export.hub import write_hub
    from genoscan.genome.annotation import read_annotation
    from genoscan.tracks.atomic import check_new_folder

    check_new_folder(output)
    opened, tracks, locus = _open_inputs(paths, genome, region_text, annotation)
    genes = [] if annotation is None else read_annotation(annotation, opened.sizes, log)
    if assembly is not None:
        warn_without_effect(region_text=f"browsers open {assembly} at their default position")
    write_hub(output, opened, tracks, genes, email=email, assembly=assembly, locus=locus)
    click.echo(output / "hub.txt")


@command.command("overview")
@click.argument("results", metavar="FILE...", type=PATH, nargs=-1, required=True)
@click.option(
    "-g",
    "--genome",
    metavar="GENOME",
    type=PATH,
    required=True,
    help="The genome that the results were computed on: FASTA or GenBank.",
)
@click.option("--title", default="Results of genoscan", show_default=True, metavar="TEXT", help="Title of the page.")
@click.option("-o", "--output", metavar="HTML", type=PATH, required=True, help="Page to write.")
def overview(results: tuple[Path, ...], genome: Path, title: str, output: Path) -> None:
    """Write a page with a row for each result, and links to its files.

    Each FILE is a track (.bw), a table of effects of variants (.tsv) or an archive of effects of
    substitutions (.npz), with its .json file in the same folder. Pages and reports of the same name are linked.

    \b
    Example:
      genoscan export overview promoters.bw enhancers.bw calls.tsv -g chr.fa -o index.html
    """
    from genoscan.export.overview import write_overview
    from genoscan.genome.genome import open_genome
    from genoscan.tracks.outputs import check_file

    check_file(output, [*results, genome])
    write_overview(output, open_genome(genome), results, title=title)
    click.echo(output)


@command.command("modisco")
@click.argument("columns", metavar="COLUMNS.npz", type=PATH)
@click.option(
    "-R",
    "--bed",
    "bed",
    metavar="BED",
    type=PATH,
    required=True,
    help="Intervals to export, each around the midpoint of a row.",
)
@click.option("--width", type=int, default=400, show_default=True, metavar="BASES", help="Interval width.")
@click.option("--chrombpnet", is_flag=True, help="Also write contribs.h5, in ChromBPNet's HDF5 layout.")
@click.option("-o", "--output", metavar="FOLDER", type=PATH, required=True, help="Folder to create.")
def modisco(columns: Path, bed: Path, width: int, chrombpnet: bool, output: Path) -> None:
    """Export sequences and hypothetical contributions for TF-MoDISco and Fi-NeMo.

    COLUMNS.npz is a file written by attribute -o FILE.npz. The command writes the sequences (ohe.npz),
    the contributions (attr.npz) and the coordinates (cut.narrowPeak). These files are the values of the
    options -s, -a and -p of Fi-NeMo's extract-regions-modisco-fmt.

    \b
    Example:
      genoscan export modisco peaks.npz --bed peaks.bed -o cut
      modisco motifs -s cut/ohe.npz -a cut/attr.npz -n 2000 -o motifs.h5
    """
    from genoscan.export.handoff import write_modisco
    from genoscan.genome.bed import read_bed
    from genoscan.tracks.atomic import check_new_folder
    from genoscan.tracks.provenance import read_provenance

    check_new_folder(output)
    sizes = {s["name"]: s["length"] for s in read_provenance(columns, required=["sequences"])["sequences"]}
    rows = read_bed(bed, sizes)
    left_out = write_modisco(output, columns, rows, width=width, chrombpnet=chrombpnet)
    if left_out:
        places = ", ".join(row.where for row in left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        log(
            f"{len(left_out):,} of {len(rows):,} rows left out, because the {width:,} bases around the centre "
            f"are not within {columns}: {places}"
        )
    click.echo(output)


@command.command("sites")
@click.argument("columns", metavar="COLUMNS.npz", type=PATH)
@click.option("--top", type=int, default=100, show_default=True, metavar="N", help="Number of bases.")
@click.option("-o", "--output", metavar="TSV", type=PATH, required=True, help="Table to write.")
def sites(columns: Path, top: int, output: Path) -> None:
    """Write a table of the bases with the largest absolute scores, largest first.

    COLUMNS.npz is a file written by attribute -o FILE.npz. The first three columns of the table are
    chrom, start and end, as in BED files; the last one is the name of the region in the BED file of attribute.

    \b
    Example:
      genoscan export sites peaks.npz --top 500 -o sites.tsv
    """
    from genoscan.export.handoff import write_sites
    from genoscan.tracks.outputs import check_file
    from genoscan.tracks.provenance import read_provenance

    check_file(output, [columns])
    if not write_sites(output, columns, score=read_provenance(columns, required=["score"])["score"], top=top):
        log(f"no base of {columns} has a score: the table has no rows")
    click.echo(output)


def _open_inputs(
    paths: Sequence[Path], genome: Path, region_text: str | None, annotation: Path | None
) -> "tuple[Genome, list[TrackFile], Region | None]":
    from genoscan.export.track_file import load_track, track_notes
    from genoscan.genome.genome import open_genome

    named: dict[str, Path] = {}
    for path in paths:
        if (other := named.setdefault(path.stem, path)) is not path:
            raise InputError(f"{path}: has the name of {other}, by which tracks are shown: rename one of them")
    opened = open_genome(genome)
    locus = read_region(opened, region_text, annotation) if region_text else None
    tracks = [load_track(path, opened) for path in paths]
    for note in track_notes(tracks):
        log(note)
    return opened, tracks, locus
