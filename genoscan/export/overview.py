"""Overview of several results: an HTML file with a row for each, and links to its files."""

import html
import os
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple
from urllib.parse import quote

from genoscan.errors import InputError
from genoscan.export.markup import page_style, security_policy
from genoscan.export.scored_variants import read_scored_variants, strongest
from genoscan.export.summary import summarize
from genoscan.export.track_file import load_track
from genoscan.genome.genome import Genome
from genoscan.tracks.atomic import atomic_write, os_errors
from genoscan.tracks.provenance import check_genome, read_provenance, scored_regions
from genoscan.tracks.reader import BigWig

_TRACK, _VARIANTS, _MUTATIONS = ".bw", ".tsv", ".npz"
_ASKED = "model", "target", "strand"
_NUMBER = ' class="number"'


class _Cell(NamedTuple):
    """Cell of a table: encoded HTML, aligned right if it is a number."""

    content: str
    number: bool = False


_Row = dict[str, _Cell]
"""Cells of a row, by the heading of their columns."""


def write_overview(output: Path, genome: Genome, results: Sequence[Path], *, title: str) -> None:
    """Write an overview of results.

    Parameters
    ----------
    output
        HTML file to write.
    genome
        Genome on which all results were computed.
    results
        Tracks (.bw), tables of effects of variants (.tsv) and archives of effects of substitutions (.npz), each
        with its provenance record beside it. Pages, reports and other files of the same name in the same folder
        are linked, too.
    title
        Title of the page.

    Raises
    ------
    InputError
        If a result cannot be read, was computed on another genome, or has another suffix.
    OutputError
        If the file cannot be written.

    Notes
    -----
    Each track is read twice, a million bases at a time.
    """
    tables: dict[str, list[_Row]] = {"Tracks": [], "Effects of variants": [], "Effects of substitutions": []}
    for path in results:
        links = _links(path, output)
        if path.suffix == _TRACK:
            tables["Tracks"].append(_track_row(path, genome, links))
        elif path.suffix == _VARIANTS:
            tables["Effects of variants"].append(_variants_row(path, genome, links))
        elif path.suffix == _MUTATIONS:
            tables["Effects of substitutions"].append(_mutations_row(path, genome, links))
        else:
            raise InputError(f"{path}: expected a track (.bw), a table of variants (.tsv) or an archive (.npz)")
    template = Template(files("genoscan.export").joinpath("overview.html").read_text(encoding="utf-8"))
    text = template.substitute(
        policy=security_policy([]),
        style=page_style(),
        title=html.escape(title),
        description=html.escape(f"{len(results):,} result{'s' * (len(results) != 1)} on {genome.path.name}"),
        sections="".join(_section(heading, rows) for heading, rows in tables.items() if rows),
    )
    with atomic_write(output) as part, os_errors(output):
        part.write_text(text, encoding="utf-8", errors="replace")


def _track_row(path: Path, genome: Genome, links: _Cell) -> _Row:
    track = load_track(path, genome)
    with BigWig(path) as scores:
        summary = summarize(scores, track.regions, top=1, curves=0)
    cells = {
        "name": _text(track.name),
        "files": links,
        "model, target, score": _text(track.description),
        "strand": _text(str(track.record.get("strand", ""))),
        "regions": _count(summary.regions),
        "bases with a score": _count(summary.scored),
    }
    for site in summary.sites:
        cells["strongest score"] = _Cell(f"{site.score:.4g}", number=True)
        cells["at"] = _text(f"{site.base.chrom}:{site.base.end:,}")
    return cells


def _variants_row(path: Path, genome: Genome, links: _Cell) -> _Row:
    record = read_provenance(path, required=_ASKED)
    variants = read_scored_variants(path, genome)
    cells = {
        "name": _text(path.stem),
        "files": links,
        "model, target": _text(f"{record['model']}: {record['target']}"),
        "strand": _text(str(record["strand"])),
        "alleles": _count(len(variants)),
        "with an effect": _count(sum(variant.region is not None for variant in variants)),
    }
    for variant in strongest(variants, 1):
        cells["strongest effect"] = _Cell(f"{variant.delta:.4g}", number=True)
        cells["of"] = _text(f"{variant.allele.chrom}:{variant.allele.pos:,} {variant.alleles}")
    return cells


def _mutations_row(path: Path, genome: Genome, links: _Cell) -> _Row:
    record = read_provenance(path, required=["sequences", "regions", *_ASKED])
    if "convention" not in record:
        raise InputError(f"{path}: has no effects of substitutions, expected an archive of genoscan mutate")
    check_genome(path, record, genome)
    regions = scored_regions(path, record, genome)
    return {
        "name": _text(path.stem),
        "files": links,
        "model, target": _text(f"{record['model']}: {record['target']}"),
        "strand": _text(str(record["strand"])),
        "regions": _count(len(regions)),
        "bases": _count(sum(map(len, regions))),
    }


def _links(path: Path, output: Path) -> _Cell:
    """Return links to a result and to the files that belong to it, relative to the folder of the page."""
    kinds = {
        ".html": "page",
        ".report.html": "report",
        ".bw": "bigWig",
        ".tsv": "table",
        ".vcf.gz": "VCF",
        ".npz": "archive",
    }
    beside = {path.with_name(path.stem + suffix): kind for suffix, kind in kinds.items()}
    found = {file: kind for file, kind in beside.items() if file.is_file()}
    urls = {quote(os.fsencode(os.path.relpath(file, output.parent))): kind for file, kind in found.items()}
    return _Cell(", ".join(f'<a href="{url}">{kind}</a>' for url, kind in urls.items()))


def _section(heading: str, rows: Sequence[_Row]) -> str:
    """Return a table. Cells that a row lacks are empty."""
    columns = {name: cell.number for row in rows for name, cell in row.items()}

    def line(tag: str, cells: Iterator[_Cell]) -> str:
        texts = (f"<{tag}{_NUMBER * cell.number}>{cell.content}</{tag}>" for cell in cells)
        return f"<tr>{''.join(texts)}</tr>\n"

    head = line("th", (_Cell(html.escape(name), number) for name, number in columns.items()))
    body = "".join(line("td", (row.get(name, _Cell("")) for name in columns)) for row in rows)
    return (
        f"<section>\n<h2>{heading}</h2>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{heading}">\n'
        f"<table><thead>\n{head}</thead><tbody>\n{body}</tbody></table></div>\n</section>\n"
    )


def _text(text: str) -> _Cell:
    return _Cell(html.escape(text))


def _count(number: int) -> _Cell:
    return _Cell(f"{number:,}", number=True)
