"""Sessions for IGV and JBrowse, which refer to the genome and the tracks by path.

The paths are relative to the folder of the session file. If a folder contains the session, the genome and
the tracks, it can therefore be moved.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from genoscan.errors import InputError
from genoscan.export.track_file import TrackFile, first_region, format_locus, track_names
from genoscan.genome.annotation import annotation_format
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.tracks.atomic import atomic_write, os_errors

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_igv_session(
    output: Path,
    genome: Genome,
    tracks: Sequence[TrackFile],
    *,
    annotation: Path | None = None,
    locus: Region | None = None,
) -> None:
    """Write a session for IGV (desktop or igv.js).

    Parameters
    ----------
    output
        File to write.
    genome
        Genome on which the tracks were computed. It must be a FASTA file with a .fai index.
    tracks
        Tracks to display.
    annotation
        GFF3, GTF or BED file with genes to display, to which the session refers, too.
    locus
        Locus to display first; by default, the first scored region.

    Raises
    ------
    InputError
        If the genome has no .fai index, the annotation is in another format, or the name of a file or a
        sequence contains a character that XML does not allow.
    OutputError
        If the file cannot be written.

    Notes
    -----
    Tracks show the maximum score per pixel, so that peaks remain visible when the user zooms out. igv.js
    splits a locus at its first colon. If the name of the sequence to display first contains a colon, the
    session therefore displays the whole sequence.
    """
    fasta, first = _relative(output, _indexed_fasta(genome)), first_region(tracks, locus)
    start = first.chrom if ":" in first.chrom else format_locus(first)
    session = ElementTree.Element("Session", genome=fasta, locus=start, version="8")
    resources = ElementTree.SubElement(session, "Resources")
    panel = ElementTree.SubElement(session, "Panel", name="DataPanel")
    for track in tracks:
        path = _relative(output, track.path)
        ElementTree.SubElement(resources, "Resource", path=path, type="bigwig")
        ElementTree.SubElement(
            panel,
            "Track",
            id=path,
            name=track.name,
            autoScale="true",
            windowFunction="max",
            renderer="BAR_CHART",
            height="120",
            color="0,114,178",
        )
    if annotation is not None:
        path = _relative(output, annotation)
        ElementTree.SubElement(resources, "Resource", path=path, type=_gene_format(annotation).lower())
        ElementTree.SubElement(panel, "Track", id=path, name=_display_name(annotation), displayMode="EXPANDED")
    ElementTree.indent(session)
    text = ElementTree.tostring(session, encoding="unicode", xml_declaration=True)
    if excluded := _NOT_XML.search(text):
        raise InputError(
            f"{output}: a file or sequence name contains {excluded[0]!a}, expected characters that XML can "
            "represent: rename it"
        )
    with atomic_write(output) as part, os_errors(output):
        part.write_text(text + "\n", encoding="utf-8")


def write_jbrowse_config(
    output: Path,
    genome: Genome,
    tracks: Sequence[TrackFile],
    *,
    annotation: Path | None = None,
    locus: Region | None = None,
) -> None:
    """Write a config.json for JBrowse 2 with a default session.

    Parameters
    ----------
    output
        File to write.
    genome
        Genome on which the tracks were computed. It must be a FASTA file with a .fai index.
    tracks
        Tracks to display.
    annotation
        GFF3, GTF or BED file with genes to display, to which the session refers, too.
    locus
        Locus to display first; by default, the first scored region.

    Raises
    ------
    InputError
        If the genome has no .fai index, or the annotation is in another format.
    OutputError
        If the file cannot be written.
    """
    fasta = _indexed_fasta(genome)

    def uri(path: Path) -> dict[str, str]:
        return {"uri": quote(os.fsencode(_relative(output, path))), "locationType": "UriLocation"}

    bgzipped = _add_suffix(fasta, ".gzi").is_file()
    adapter = {
        "type": "BgzipFastaAdapter" if bgzipped else "IndexedFastaAdapter",
        "fastaLocation": uri(fasta),
        "faiLocation": uri(_add_suffix(fasta, ".fai")),
    } | ({"gziLocation": uri(_add_suffix(fasta, ".gzi"))} if bgzipped else {})
    assembly = fasta.name.split(".")[0]
    genes = [] if annotation is None else [_jbrowse_genes(annotation, uri(annotation), assembly)]
    config = {
        "assemblies": [
            {
                "name": assembly,
                "sequence": {"type": "ReferenceSequenceTrack", "trackId": f"{assembly}-bases", "adapter": adapter},
            }
        ],
        "tracks": [
            {
                "type": "QuantitativeTrack",
                "trackId": track.name,
                "name": track.name,
                "description": track.description,
                "assemblyNames": [assembly],
                "adapter": {"type": "BigWigAdapter", "bigWigLocation": uri(track.path)},
            }
            for track in tracks
        ]
        + genes,
        "defaultSession": {
            "name": track_names(tracks),
            "views": [
                {
                    "type": "LinearGenomeView",
                    "init": {
                        "assembly": assembly,
                        "loc": format_locus(first_region(tracks, locus)),
                        "tracks": [
                            f"{assembly}-bases",
                            *(track.name for track in tracks),
                            *(track["trackId"] for track in genes),
                        ],
                    },
                }
            ],
        },
    }
    with atomic_write(output) as part, os_errors(output):
        part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _jbrowse_genes(annotation: Path, location: Mapping[str, str], assembly: str) -> dict[str, Any]:
    """Return the configuration of the track of an annotation."""
    kind = _gene_format(annotation)
    return {
        "type": "FeatureTrack",
        "trackId": f"{assembly}-genes",
        "name": _display_name(annotation),
        "assemblyNames": [assembly],
        "adapter": {
            "type": f"{kind.capitalize()}Adapter",
            f"{'gff' if kind == 'GFF3' else kind.lower()}Location": location,
        },
    }


def _gene_format(annotation: Path) -> str:
    """Return "GFF3", "GTF" or "BED"."""
    kind = annotation_format(annotation)
    if kind == "GenBank":
        raise InputError(f"{annotation}: is a GenBank file, expected GFF3, GTF or BED, which genome browsers read")
    return kind


def _display_name(path: Path) -> str:
    return os.fsencode(path.name).decode("utf-8", "replace")


def _indexed_fasta(genome: Genome) -> Path:
    if not _add_suffix(genome.path, ".fai").is_file():
        raise InputError(
            f"{genome.path}: no index {genome.path.name}.fai beside it, as browsers require: "
            "create it with samtools faidx"
        )
    return genome.path


def _add_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _relative(output: Path, path: Path) -> str:
    """Return a path relative to the folder that contains `output`.

    A link is named by its own path, as an index is beside the link and not beside the file to which it points.
    """
    return Path(os.path.relpath(path.parent.resolve() / path.name, output.resolve().parent)).as_posix()
