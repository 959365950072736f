"""genoscan export: finished tracks to where they are looked at."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genoscan.cli.options import PATH, check_page, check_unread, say, together
from genoscan.errors import InputError

if TYPE_CHECKING:
    from genoscan.export.track_file import TrackFile
    from genoscan.genome.genome import Genome
    from genoscan.genome.region import Region


@click.group("export")
def command() -> None:
    """Make pages and browser sessions of finished tracks.

    TRACK is a bigWig of attribute or response, with its .json beside it; the genome is the one that
    it was made on, which is checked.
    """


TRACKS = together(
    click.argument("paths", metavar="TRACK...", type=PATH, nargs=-1, required=True),
    click.option(
        "-g", "--genome", metavar="GENOME", type=PATH, required=True,
        help="The genome that the tracks were made on: FASTA or GenBank.",
    ),
    click.option(
        "-r", "--region", "region_text", metavar="REGION",
        help="Where it opens.  [default: the first region with scores]",
    ),
    click.option(
        "-o", "--output", metavar="PATH", type=PATH, required=True, help="Where to write."
    ),
)  # fmt: skip


@command.command("html")
@TRACKS
@click.option(
    "-a", "--annotation", metavar="FILE", type=PATH,
    help="Genes to show: GenBank, GFF3 or BED.",
)  # fmt: skip
def page(
    paths: tuple[Path, ...], genome: Path, region_text: str | None, output: Path,
    annotation: Path | None,
) -> None:  # fmt: skip
    """Write one HTML file that holds all: browser, bases, tracks and genes.

    It opens in any web browser and asks no server for anything. Bases are letters, as high as their
    score, from where letters can be read. Tracks too large for one file lie in PAGE_files beside
    it, and both are looked at through genoscan serve.

    \b
    Example:
      genoscan export html peaks.bw -g chr.fa -a genes.gff3 -o peaks.html
    """
    from genoscan.export.annotation import read_annotation
    from genoscan.export.page import write_page

    opened, tracks, locus = _opened(paths, genome, region_text, output, annotation)
    genes = [] if annotation is None else read_annotation(annotation, opened.sizes)
    beside = write_page(output, opened, tracks, genes, locus=locus)
    if beside is not None:
        say(f"too large for one file: {beside} goes with it; genoscan serve {output.parent}")
    click.echo(output)


@command.command("igv")
@TRACKS
def igv(
    paths: tuple[Path, ...], genome: Path, region_text: str | None, output: Path
) -> None:  # fmt: skip
    """Write a session file for IGV; genome and tracks stay where they are.

    \b
    Example:
      genoscan export igv peaks.bw -g chr.fa -o peaks.xml
    """
    from genoscan.export.session import write_igv_session

    opened, tracks, locus = _opened(paths, genome, region_text, output)
    write_igv_session(output, opened, tracks, locus=locus)
    click.echo(output)


@command.command("jbrowse")
@TRACKS
def jbrowse(
    paths: tuple[Path, ...], genome: Path, region_text: str | None, output: Path
) -> None:  # fmt: skip
    """Write a config.json for JBrowse 2; genome and tracks stay where they are.

    \b
    Example:
      genoscan export jbrowse peaks.bw -g chr.fa -o config.json
    """
    from genoscan.export.session import write_jbrowse_config

    opened, tracks, locus = _opened(paths, genome, region_text, output)
    write_jbrowse_config(output, opened, tracks, locus=locus)
    click.echo(output)


@command.command("hub")
@TRACKS
@click.option("--email", metavar="ADDRESS", required=True, help="Whom UCSC's users may ask.")
@click.option(
    "--assembly", metavar="NAME",
    help="UCSC's name of the genome, such as hg38.  [default: the genome goes along as .2bit]",
)  # fmt: skip
def hub(
    paths: tuple[Path, ...], genome: Path, region_text: str | None, output: Path, email: str,
    assembly: str | None,
) -> None:  # fmt: skip
    """Write a track hub for UCSC's browser: a folder to put behind a web server.

    \b
    Example:
      genoscan export hub peaks.bw -g chr.fa --email you@lab.org -o hub
    """
    from genoscan.export.hub import write_hub

    opened, tracks, locus = _opened(paths, genome, region_text, output)
    write_hub(output, opened, tracks, email=email, assembly=assembly, locus=locus)
    click.echo(output / "hub.txt")


@command.command("modisco")
@click.argument("columns", metavar="COLUMNS.npz", type=PATH)
@click.option(
    "-R", "--bed", "bed", metavar="BED", type=PATH, required=True,
    help="Where to cut: around the middle of each row.",
)  # fmt: skip
@click.option(
    "--width", type=int, default=400, show_default=True, metavar="BASES", help="How wide to cut."
)
@click.option(
    "--chrombpnet", is_flag=True, help="Write them in ChromBPNet's HDF5 layout, too: contribs.h5."
)
@click.option(
    "-o", "--output", metavar="FOLDER", type=PATH, required=True, help="Where to write."
)  # fmt: skip
def modisco(columns: Path, bed: Path, width: int, chrombpnet: bool, output: Path) -> None:
    """Cut sequences and hypothetical contributions for TF-MoDISco and Fi-NeMo.

    COLUMNS.npz is what attribute -o FILE.npz wrote. Leaves ohe.npz, attr.npz and, with where each
    was cut, cut.narrowPeak: what Fi-NeMo's extract-regions-modisco-fmt takes as -s, -a and -p.

    \b
    Example:
      genoscan export modisco peaks.npz --bed peaks.bed -o cut
      modisco motifs -s cut/ohe.npz -a cut/attr.npz -n 2000 -o motifs.h5
    """
    from genoscan.export.handoff import write_modisco
    from genoscan.genome.bed import read_bed
    from genoscan.tracks.provenance import read_provenance

    sizes = {s["name"]: s["length"] for s in read_provenance(columns)["sequences"]}
    write_modisco(output, columns, read_bed(bed, sizes), width=width, chrombpnet=chrombpnet)
    click.echo(output)


@command.command("sites")
@click.argument("columns", metavar="COLUMNS.npz", type=PATH)
@click.option(
    "--top", type=int, default=100, show_default=True, metavar="N", help="How many bases."
)
@click.option(
    "-o", "--output", metavar="TSV", type=PATH, required=True, help="Where to write."
)  # fmt: skip
def sites(columns: Path, top: int, output: Path) -> None:
    """Write the bases of the largest scores as a table, strongest first.

    COLUMNS.npz is what attribute -o FILE.npz wrote. Rows begin as in BED: chrom, start, end.

    \b
    Example:
      genoscan export sites peaks.npz --top 500 -o sites.tsv
    """
    from genoscan.export.handoff import write_sites
    from genoscan.tracks.provenance import read_provenance

    check_unread(output, [columns])
    write_sites(output, columns, score=read_provenance(columns)["score"], top=top)
    click.echo(output)


def _opened(
    paths: Sequence[Path],
    genome: Path,
    region_text: str | None,
    output: Path,
    annotation: Path | None = None,
) -> "tuple[Genome, list[TrackFile], Region | None]":
    from genoscan.export.track_file import load_track
    from genoscan.genome.genome import open_genome
    from genoscan.genome.region import parse_region

    check_page(output, paths, [genome, annotation])
    if len({path.stem for path in paths}) < len(paths):
        raise InputError(f"{paths[0]}: two tracks have one name: rename one of them")
    opened = open_genome(genome)
    locus = parse_region(region_text, opened.sizes) if region_text else None
    return opened, [load_track(path, opened) for path in paths], locus
