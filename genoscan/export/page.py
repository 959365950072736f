"""Genome browser pages: HTML files that contain igv.js, the sequence, the tracks and the genes.

If the data are small, they are embedded in the page, which then makes no network requests. Data that are
too large to embed are written to PAGE_files, a folder beside the page. In this case, the page and the
folder must be served by the same web server, and the page makes requests only to this server. The page's
Content-Security-Policy enforces these restrictions.

igv.js is included unmodified (vendor/). Its configuration includes the following settings:

    fastaURL   The sequence around the scored regions, as FASTA text. Each record is a part of a
               chromosome, with its coordinates. The rest of the genome is not included.
    type       "merged". Each track is drawn twice, with the maximum and with the minimum per pixel,
               because a mean would hide narrow peaks.
    graphType  "dynseq" for scores of the observed bases: letters scaled by the scores, where they have room
               (page.js). Probabilities and tracks of other programs are bars ("bar").
    name       Names of tracks are escaped, because igv.js inserts them as HTML. Names of features are
               not escaped, because igv.js draws them on a canvas and page.js creates their popups.
    aliasURL   Other names for sequences whose names igv.js would misread (see igv_names.py).
    search     Disabled, because igv.js would send names that it does not know to a server.
"""

import base64
import gzip
import html
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote

from genoscan.errors import InputError
from genoscan.export.clip import clipped_content, write_clipped
from genoscan.export.igv_names import igv_name_table, igv_names
from genoscan.export.markup import note_list, page_style, script_json, security_policy
from genoscan.export.page_features import gene_tracks, variant_tracks
from genoscan.export.scored_variants import ScoredVariant
from genoscan.export.track_file import (
    TrackFile,
    first_region,
    format_locus,
    format_place,
    shown_tracks,
    track_names,
    track_notes,
)
from genoscan.export.twobit import write_two_bit
from genoscan.genome.alphabet import decode
from genoscan.genome.feature import Feature
from genoscan.genome.genome import Genome
from genoscan.genome.plan import merge
from genoscan.genome.region import Region
from genoscan.tracks.atomic import AtomicFiles, atomic_files, os_errors, resolve

_IGV = "igv-3.8.10.min.js"
_FLANK = 1_000
"""Number of bases shown on either side of each scored region."""

_EMBED_LIMIT = 5_000_000
"""Maximum total number of scored bases in embedded tracks; each base adds 7 to 8 bytes to the page."""

_GENOME = "genome.2bit"

_COLOURS = "#0072b2", "#d55e00", "#009e73", "#cc79a7"


class _Sources(NamedTuple):
    """Sources of the data that a page displays.

    Attributes
    ----------
    bases
        Settings of igv.js for the reference sequence.
    urls
        URL of each track.
    connect
        Value of the directive connect-src of the page's Content-Security-Policy.
    notes
        Remarks of one line each.
    names
        Names within igv.js of the sequences that are renamed there, by their names in the genome.
    """

    bases: Mapping[str, Any]
    urls: Sequence[str]
    connect: str
    notes: Sequence[str]
    names: Mapping[str, str]


def write_page(
    output: Path,
    genome: Genome,
    tracks: Sequence[TrackFile],
    annotation: Sequence[Feature] = (),
    variants: Sequence[ScoredVariant] = (),
    *,
    locus: Region | None = None,
) -> Path | None:
    """Write a genome browser page.

    Parameters
    ----------
    output
        HTML file to write.
    genome
        Genome on which the tracks were computed.
    tracks
        Tracks to display.
    annotation
        Genes or other features to display. Each transcript of a gene is drawn separately. Features
        outside the visible regions are omitted.
    variants
        Scored variants to display with their effects, in one colour for increases and another one for decreases
        of the target. At most 20,000 are displayed, those with the largest effects.
    locus
        Locus to display first; by default, the first scored region.

    Returns
    -------
    Path or None
        Folder with copies of the tracks and with the genome in .2bit format. It is written if the tracks
        have more than 5,000,000 scored bases in total. None if the data are embedded in the page.

    Raises
    ------
    InputError
        If the genome is too large for a .2bit file.
    OutputError
        If a file cannot be written.

    Notes
    -----
    The size of the page is 1.5 MB, plus about 8 bytes per scored base of each track if the tracks are
    embedded.
    """
    regions = _regions(genome, tracks, locus)
    visible = _visible_regions(genome, regions)
    folder = None
    if sum(map(len, regions)) * len(tracks) > _EMBED_LIMIT:
        folder = output.with_name(f"{output.stem}_files")
    shown = list(dict.fromkeys(region.chrom for region in visible)) if folder is None else list(genome.sizes)
    names = igv_names(shown, genome.sizes)
    with atomic_files() as files:
        part = files.create(output)
        if folder is None:
            sources = _embedded(genome, tracks, visible, names)
        else:
            sources = _beside(folder, genome, tracks, visible, names, files)
        if table := igv_name_table(shown, names):
            alias = {"aliasURL": _data("text/plain", table.encode()), "nameSet": "name"}
            sources = sources._replace(bases={**alias, **sources.bases})
        features = [*variant_tracks(variants, visible, names), *gene_tracks(annotation, visible, names)]
        text = _page(genome, tracks, features, regions, locus, sources)
        with os_errors(output):
            part.write_text(text, encoding="utf-8", errors="replace")
    return folder


def _regions(genome: Genome, tracks: Sequence[TrackFile], locus: Region | None) -> list[Region]:
    """Return the regions of the page: those with scores or, without a track of genoscan, the locus."""
    shown = shown_tracks(tracks)
    if locus is not None and not shown[0].has_record:
        return [locus]
    regions = list(merge((r for track in shown for r in track.regions), genome.sizes, by_strand=False))
    if not shown[0].has_record and sum(map(len, regions)) > _EMBED_LIMIT:
        raise InputError(
            f"{shown[0].path}: no record of genoscan lists the regions to show, and the sequences have "
            f"{sum(map(len, regions)):,} bases: choose a region with --region"
        )
    return regions


def _embedded(
    genome: Genome, tracks: Sequence[TrackFile], visible: Sequence[Region], names: Mapping[str, str]
) -> _Sources:
    urls: list[str] = []
    notes = [*track_notes(tracks), *_cut(genome, visible)]
    for track in tracks:
        content = track.path.read_bytes() if track.has_record else None
        if content is None:
            content, n_values = clipped_content(track.path, visible, genome)
            notes += _empty(track, n_values)
        urls.append(_data("application/octet-stream", content))
    bases = {"indexed": False, "fastaURL": _data("application/gzip", _slices(genome, visible, names))}
    return _Sources(bases, urls, "'none'", notes, names)


def _cut(genome: Genome, visible: Sequence[Region]) -> list[str]:
    """Return a remark if the page does not contain the whole of the sequences that it shows."""
    if sum(map(len, visible)) == sum(genome.sizes[chrom] for chrom in {region.chrom for region in visible}):
        return []
    return [f"Bases and features more than {_FLANK:,} bases from the regions with scores are not in this page."]


def _beside(
    folder: Path,
    genome: Genome,
    tracks: Sequence[TrackFile],
    visible: Sequence[Region],
    names: Mapping[str, str],
    files: AtomicFiles,
) -> _Sources:
    """Write the genome and the tracks to a folder."""
    read = {resolve(path) for path in (genome.path, *(track.path for track in tracks))}
    for path in (folder / _GENOME, *(folder / track.path.name for track in tracks)):
        if resolve(path) in read:
            raise InputError(f"{path}: is read from, too; move it elsewhere, or name another page")
    files.make_folder(folder)
    write_two_bit(folder / _GENOME, genome, files, renamed=names)
    notes = list(track_notes(tracks))
    for track in tracks:
        copy = folder / track.path.name
        if track.has_record:
            part = files.create(copy)
            with os_errors(folder):
                shutil.copyfile(track.path, part)
        else:
            notes += _empty(track, write_clipped(track.path, copy, visible, genome, files))
    urls = [_relative_url(folder.name, track.path.name) for track in tracks]
    return _Sources({"twoBitURL": _relative_url(folder.name, _GENOME)}, urls, "'self'", notes, names)


def _empty(track: TrackFile, n_values: int) -> list[str]:
    return [] if n_values else [f"{track.name}: no value in the regions shown."]


def _relative_url(*parts: str) -> str:
    return "/".join(quote(os.fsencode(part), safe="") for part in parts)


def _page(
    genome: Genome,
    tracks: Sequence[TrackFile],
    features: Sequence[Mapping[str, Any]],
    regions: Sequence[Region],
    locus: Region | None,
    sources: _Sources,
) -> str:
    names = sources.names
    initial = first_region(tracks, locus)
    selected = next((region for region in regions if _overlap(initial, region)), None)
    config = {
        "loadDefaultGenomes": False,
        "search": False,
        # The menu of sequences is filled before the table of names is read.
        "showChromosomeWidget": not names,
        "reference": {"id": genome.path.name, "name": genome.path.name, "wholeGenomeView": False, **sources.bases},
        "locus": _igv_locus(initial, names),
        "tracks": [
            *(_track(track, url, _colour(i)) for i, (track, url) in enumerate(zip(tracks, sources.urls, strict=True))),
            *features,
        ],
    }
    options = "".join(
        f"<option{_value(region, names)}{' selected' * (region is selected)}>"
        f"{html.escape(format_place(region))}</option>"
        for region in regions
    )
    descriptions = "".join(
        f'<dt style="--colour: {_colour(i)}">{html.escape(track.name)}</dt><dd>{html.escape(track.description)}</dd>'
        for i, track in enumerate(tracks)
    )
    folder = files("genoscan.export")
    igv = folder.joinpath("vendor", _IGV).read_text("utf-8")
    script = Template(folder.joinpath("page.js").read_text("utf-8")).substitute(
        config=script_json(config), names=script_json(list(names.items()))
    )
    return Template(folder.joinpath("page.html").read_text("utf-8")).substitute(
        policy=security_policy([igv, script], connect=sources.connect),
        style=page_style(),
        title=html.escape(track_names(tracks)),
        descriptions=descriptions,
        notes=note_list(sources.notes),
        options=options,
        igv=igv,
        script=script,
    )


def _value(region: Region, names: Mapping[str, str]) -> str:
    locus = _igv_locus(region, names)
    return "" if locus == format_place(region) else f' value="{html.escape(locus)}"'


def _igv_locus(region: Region, names: Mapping[str, str]) -> str:
    return format_locus(replace(region, chrom=names.get(region.chrom, region.chrom)))


def _overlap(a: Region, b: Region) -> bool:
    return a.chrom == b.chrom and a.start < b.end and b.start < a.end


def _visible_regions(genome: Genome, regions: Sequence[Region]) -> list[Region]:
    """Return the parts of the genome that the page shows: the regions, extended on both sides, and merged."""
    around = [
        Region(region.chrom, max(0, region.start - _FLANK), min(genome.sizes[region.chrom], region.end + _FLANK))
        for region in regions
    ]
    return list(merge(around, genome.sizes, by_strand=False))


def _slices(genome: Genome, visible: Sequence[Region], names: Mapping[str, str]) -> bytes:
    """Return the sequences of the visible regions as gzip-compressed FASTA text.

    Each header contains the coordinates of a region and the length of the whole chromosome.
    """
    pieces = (
        f">{names.get(r.chrom, r.chrom)}:{r.start + 1}-{r.end} @len={genome.sizes[r.chrom]}\n".encode()
        + decode(genome.fetch(r.chrom, r.start, r.end))
        for r in visible
    )
    return gzip.compress(b"\n".join(pieces), mtime=0)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _track(track: TrackFile, url: str, colour: str) -> dict[str, Any]:
    """Return the configuration of a track; `about`, `unit` and `limits` are for page.js."""
    return {
        "type": "wig",
        "format": "bigwig",
        "name": html.escape(track.name),
        "about": track.description,
        "unit": track.unit,
        "limits": track.limits,
        "url": url,
        "graphType": "dynseq" if track.is_by_base else "bar",
        "height": 140,
        "color": colour,
        "altColor": colour,
    }


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
