"""A track hub for UCSC's browser: a folder to put behind any web server.

hub.txt                 what to give the browser
genomes.txt             the assembly: UCSC's by its name, or the .2bit here
ASSEMBLY/trackDb.txt    the tracks, and how they are drawn
ASSEMBLY/*.bw           copies
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from genoscan.errors import InputError
from genoscan.export.finished import Finished, opening, track_names
from genoscan.export.twobit import write_two_bit
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.tracks.atomic import atomic_directory, os_errors

_SHORT = 17
"""Letters of a short label that UCSC shows."""


def write_hub(
    output: Path,
    genome: Genome,
    tracks: Sequence[Finished],
    *,
    email: str,
    assembly: str | None = None,
    locus: Region | None = None,
) -> None:
    """Write the folder; without an assembly of UCSC's the genome goes along as .2bit.

    Raises
    ------
    InputError
        If the folder is there already.
    OutputError
        If something cannot be written.
    """
    if output.exists():
        raise InputError(f"{output}: is there already: name a folder that is not")
    name = assembly or _plain(genome.path.name.split(".")[0])
    with os_errors(output), atomic_directory(output) as folder:
        (folder / name).mkdir(parents=True)
        told = track_names(tracks)
        hub = {
            "hub": "genoscan", "shortLabel": told[:_SHORT], "longLabel": told[:80],
            "genomesFile": "genomes.txt", "email": email,
        }  # fmt: skip
        about = {"genome": name, "trackDb": f"{name}/trackDb.txt"}
        if assembly is None:
            write_two_bit(folder / name / f"{name}.2bit", genome)
            about |= {
                "twoBitPath": f"{name}/{name}.2bit", "organism": name, "scientificName": name,
                "description": genome.path.name, "orderKey": "1",
                "defaultPos": opening(tracks, locus).replace(",", ""),
            }  # fmt: skip
        for track in tracks:
            shutil.copyfile(track.path, folder / name / track.path.name)
        (folder / "hub.txt").write_text(_stanza(hub), encoding="utf-8")
        (folder / "genomes.txt").write_text(_stanza(about), encoding="utf-8")
        stanzas = "\n".join(_stanza(_drawn(track)) for track in tracks)
        (folder / name / "trackDb.txt").write_text(stanzas, encoding="utf-8")


def _drawn(track: Finished) -> dict[str, str]:
    return {
        "track": f"genoscan_{_plain(track.name)}",
        "bigDataUrl": track.path.name,
        "shortLabel": track.name[:_SHORT],
        "longLabel": f"{track.name}: {track.description}"[:80],
        "type": "bigWig",
        "visibility": "full",
        "autoScale": "on",
        "windowingFunction": "maximum",  # a mean would hide a peak of some bases
        "logo": "on",  # letters, where they can be read
        "maxHeightPixels": "128:80:16",
        "color": "0,114,178",
    }


def _plain(name: str) -> str:
    """Return a name of letters, digits and underscores alone, as UCSC wants them."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _stanza(settings: Mapping[str, str]) -> str:
    return "".join(f"{key} {' '.join(value.split())}\n" for key, value in settings.items())
