"""Sessions of IGV and JBrowse: small files that say where genome and tracks lie.

Paths are relative to the session, so that a folder with all of them can be moved.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from genoscan.errors import InputError
from genoscan.export.finished import Finished, opening, track_names
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.tracks.atomic import atomic_write, os_errors


def write_igv_session(
    output: Path, genome: Genome, tracks: Sequence[Finished], *, locus: Region | None = None
) -> None:
    """Write a session for IGV (desktop, or igv.js): peaks kept when zoomed out.

    Raises
    ------
    InputError
        If the genome is no FASTA with its index.
    OutputError
        If the file cannot be written.
    """
    session = ElementTree.Element(
        "Session", genome=_from(output, _indexed(genome)), locus=opening(tracks, locus), version="8"
    )
    resources = ElementTree.SubElement(session, "Resources")
    panel = ElementTree.SubElement(session, "Panel", name="DataPanel")
    for track in tracks:
        path = _from(output, track.path)
        ElementTree.SubElement(resources, "Resource", path=path, type="bigwig")
        ElementTree.SubElement(
            panel, "Track", id=path, name=track.name, autoScale="true", windowFunction="max",
            renderer="BAR_CHART", height="120",
        )  # fmt: skip
    ElementTree.indent(session)
    text = ElementTree.tostring(session, encoding="unicode", xml_declaration=True)
    with atomic_write(output) as part, os_errors(output):
        part.write_text(text + "\n", encoding="utf-8")


def write_jbrowse_config(
    output: Path, genome: Genome, tracks: Sequence[Finished], *, locus: Region | None = None
) -> None:
    """Write a config.json for JBrowse 2, with a session that is open when it starts.

    Raises
    ------
    InputError
        If the genome is no FASTA with its index.
    OutputError
        If the file cannot be written.
    """
    fasta = _indexed(genome)

    def uri(path: Path) -> dict[str, str]:
        return {"uri": _from(output, path), "locationType": "UriLocation"}

    packed = _with(fasta, ".gzi").is_file()
    adapter = {
        "type": "BgzipFastaAdapter" if packed else "IndexedFastaAdapter",
        "fastaLocation": uri(fasta),
        "faiLocation": uri(_with(fasta, ".fai")),
    } | ({"gziLocation": uri(_with(fasta, ".gzi"))} if packed else {})
    assembly = fasta.name.split(".")[0]
    config = {
        "assemblies": [
            {
                "name": assembly,
                "sequence": {
                    "type": "ReferenceSequenceTrack",
                    "trackId": f"{assembly}-bases",
                    "adapter": adapter,
                },
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
        ],
        "defaultSession": {
            "name": track_names(tracks),
            "views": [
                {
                    "type": "LinearGenomeView",
                    "init": {
                        "assembly": assembly,
                        "loc": opening(tracks, locus),
                        "tracks": [f"{assembly}-bases", *(track.name for track in tracks)],
                    },
                }
            ],
        },
    }
    with atomic_write(output) as part, os_errors(output):
        part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _indexed(genome: Genome) -> Path:
    if not _with(genome.path, ".fai").is_file():
        raise InputError(
            f"{genome.path}: has no index {genome.path.name}.fai beside it, which a browser needs: "
            "samtools faidx makes one of a FASTA"
        )
    return genome.path


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _from(output: Path, path: Path) -> str:
    """Return a path as seen from the folder of `output`."""
    return Path(os.path.relpath(path.resolve(), output.resolve().parent)).as_posix()
