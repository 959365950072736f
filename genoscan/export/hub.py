"""Track hubs for the UCSC Genome Browser: folders that any web server can serve.

A track hub contains:

    hub.txt                 entry point, whose URL the user enters in the browser
    genomes.txt             assembly: a UCSC name, or the path of a .2bit file in the hub
    ASSEMBLY/trackDb.txt    tracks and their display settings
    ASSEMBLY/*.bw           copies of the tracks
    ASSEMBLY/genes.bb       genes; included only if there is an annotation
    ASSEMBLY/*.2bit         genome; included only if genomes.txt does not contain a UCSC name
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from genoscan.errors import InputError
from genoscan.export.track_file import TrackFile, first_region, track_names
from genoscan.export.twobit import write_two_bit
from genoscan.genome.alphabet import BASES
from genoscan.genome.feature import Feature
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.tracks.atomic import atomic_directory, check_new_folder, os_errors
from genoscan.tracks.bigbed import write_bigbed

_LABEL_LENGTH = 17
_LONG_LABEL = 80
"""Maximum lengths of labels in the UCSC Genome Browser, in characters."""

_GENES = "genes.bb"

_ASSEMBLY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""Pattern that assembly names must match; an assembly name is also the name of a folder in the hub."""


def write_hub(
    output: Path,
    genome: Genome,
    tracks: Sequence[TrackFile],
    annotation: Sequence[Feature] = (),
    *,
    email: str,
    assembly: str | None = None,
    locus: Region | None = None,
) -> None:
    """Write a track hub.

    Parameters
    ----------
    output
        Folder to create.
    genome
        Genome on which the tracks were computed.
    tracks
        Tracks to copy.
    annotation
        Genes to include as a bigBed file, with their exons and coding parts.
    email
        E-mail address that UCSC displays as the contact for the hub.
    assembly
        UCSC name of the genome, such as hg38. If None, the genome is included as a .2bit file.
    locus
        Locus to display first; by default, the first scored region. It is used only if `assembly` is
        None.

    Raises
    ------
    InputError
        If the folder exists, `assembly` is invalid, or the genome is too large for a .2bit file. A valid
        name of an assembly consists of at most 100 letters, digits, "_", "." and "-", and does not start
        with "." or "-".
    OutputError
        If a file cannot be written.
    """
    if assembly is not None and not _ASSEMBLY.fullmatch(assembly):
        raise InputError(f"--assembly {assembly!r}: expected UCSC's name, such as hg38: letters, digits, _, . and -")
    check_new_folder(output)
    name = assembly or _identifier(genome.path.name.split(".")[0]) or "genome"
    with os_errors(output), atomic_directory(output) as folder:
        (folder / name).mkdir(parents=True)
        names = track_names(tracks)
        hub = {
            "hub": "genoscan",
            "shortLabel": names[:_LABEL_LENGTH],
            "longLabel": names[:_LONG_LABEL],
            "genomesFile": "genomes.txt",
            "email": email,
        }
        assembly_settings = {"genome": name, "trackDb": f"{name}/trackDb.txt"}
        if assembly is None:
            start = first_region(tracks, locus)
            write_two_bit(folder / name / f"{name}.2bit", genome)
            assembly_settings |= {
                "twoBitPath": f"{name}/{name}.2bit",
                "organism": name,
                "scientificName": name,
                "description": os.fsencode(genome.path.name).decode("utf-8", "replace"),
                "orderKey": "1",
                "defaultPos": f"{start.chrom}:{start.start + 1}-{start.end}",
            }
        for track in tracks:
            shutil.copyfile(track.path, folder / name / track.path.name)
        (folder / "hub.txt").write_text(_stanza(hub), encoding="utf-8")
        (folder / "genomes.txt").write_text(_stanza(assembly_settings), encoding="utf-8")
        settings = list(_track_settings(tracks))
        if annotation:
            write_bigbed(folder / name / _GENES, annotation, genome.sizes)
            settings.append(_gene_settings())
        stanzas = "\n".join(map(_stanza, settings))
        (folder / name / "trackDb.txt").write_text(stanzas, encoding="utf-8")


def _track_settings(tracks: Sequence[TrackFile]) -> Iterator[dict[str, str]]:
    used: set[str] = set()

    def identify(name: str) -> str:
        identifier = f"genoscan_{_identifier(name)}"
        while identifier in used:  # different names may have the same identifier
            identifier += "_"
        used.add(identifier)
        return identifier

    for name, bases in _base_probabilities(tracks).items():
        container = identify(name)
        yield {
            "track": container,
            "container": "multiWig",
            "shortLabel": name[:_LABEL_LENGTH],
            "longLabel": f"{name}: probabilities of A, C, G and T"[:_LONG_LABEL],
            "type": "bigWig",
            "visibility": "full",
            "aggregate": "stacked",
            "logo": "on",  # draws a sequence logo of four tracks in the order A, C, G, T
            "viewLimits": "0:1",
            "maxHeightPixels": "128:80:16",
        }
        for track in bases:
            yield {
                "track": identify(track.name),
                "parent": container,
                "bigDataUrl": quote(os.fsencode(track.path.name)),
                "shortLabel": track.name[:_LABEL_LENGTH],
                "longLabel": _long_label(track),
                "type": "bigWig",
            }
    grouped = {track.path for bases in _base_probabilities(tracks).values() for track in bases}
    for track in [track for track in tracks if track.path not in grouped]:
        yield {
            "track": identify(track.name),
            "bigDataUrl": quote(os.fsencode(track.path.name)),
            "shortLabel": track.name[:_LABEL_LENGTH],
            "longLabel": _long_label(track),
            "type": "bigWig",
            "visibility": "full",
            **_scale(track),
            "windowingFunction": "mean+whiskers",  # draws the maximum and the minimum, too
            **({"logo": "on"} if track.is_by_base else {}),  # draws bases as letters when zoomed in
            "maxHeightPixels": "128:80:16",
            "color": "0,114,178",
        }


def _long_label(track: TrackFile) -> str:
    """Return name, quantity and unit, with at most 80 characters, as UCSC requires."""
    label = f"{track.name}: {track.short_description}"
    return label if len(label) <= _LONG_LABEL else f"{label[: _LONG_LABEL - 3]}..."


def _scale(track: TrackFile) -> dict[str, str]:
    return {"viewLimits": "{:g}:{:g}".format(*track.limits)} if track.limits else {"autoScale": "on"}


def _gene_settings() -> dict[str, str]:
    return {
        "track": "genes",
        "bigDataUrl": _GENES,
        "shortLabel": "genes",
        "longLabel": "genes with exons, introns and coding parts",
        "type": "bigBed 12",
        "visibility": "pack",
        "color": "0,0,150",
    }


def _base_probabilities(tracks: Sequence[TrackFile]) -> dict[str, list[TrackFile]]:
    """Group the tracks that contain the predicted probabilities of A, C, G and T.

    Returns
    -------
    dict of str to list of TrackFile
        Tracks for A, C, G and T, in this order, by the part of their names that precedes the base.
        Groups in which a base is missing are omitted.
    """
    found: dict[str, dict[str, TrackFile]] = {}
    for track in tracks:
        stem, _, base = track.name.rpartition(".")
        if base in BASES and track.record.get("prediction") == base and not track.record.get("logits"):
            found.setdefault(stem or "probabilities", {})[base] = track
    return {name: [bases[base] for base in BASES] for name, bases in found.items() if len(bases) == len(BASES)}


def _identifier(name: str) -> str:
    """Replace all characters except letters, digits and underscores with "_", as UCSC requires."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _stanza(settings: Mapping[str, str]) -> str:
    """Format settings as lines of a name and a value; replace runs of whitespace in values with one space."""
    return "".join(f"{key} {' '.join(value.split())}\n" for key, value in settings.items())
