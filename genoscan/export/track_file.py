"""Loading of the tracks to export, with a check that they were computed on the given genome."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genoscan.errors import InputError
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.tracks.provenance import check_genome, read_provenance, scored_regions
from genoscan.tracks.writer import BIGWIG


@dataclass(frozen=True)
class TrackFile:
    """bigWig file written by genoscan, with its provenance record.

    Attributes
    ----------
    path
        bigWig file.
    record
        Provenance record, which is the contents of the JSON file beside the track.
    regions
        Scored regions.
    """

    path: Path
    record: dict[str, Any]
    regions: tuple[Region, ...]

    @property
    def name(self) -> str:
        """File name without its suffix, for display.

        Bytes that are not valid UTF-8 are replaced with U+FFFD.
        """
        return os.fsencode(self.path.stem).decode("utf-8", "replace")

    @property
    def description(self) -> str:
        """One-line description of the track.

        It contains the name of the model, either the target, the method (if it is not the gradient) and the
        score or the predicted quantity, and the warning of the run, if there is one.
        """
        record = self.record
        warning = f"; {record['warning']}" if record.get("warning") else ""
        if prediction := record.get("prediction"):
            return f"{record['model']}: predicted {prediction}{', logits' if record.get('logits') else ''}{warning}"
        # The record of a response has a perturbed position instead of a target.
        target, score = record.get("target"), record.get("score")
        if response := record.get("response"):
            at = response["at"]
            base = at if isinstance(at, str) else f"{at['chrom']}:{at['end']:,}"
            target = f"response to {base}"
        method = f", {record['attribution']['name']}" if record.get("attribution") else ""
        return f"{record['model']}: {target}{method}" + (f", {score}" if score else "") + warning


def track_names(tracks: Sequence[TrackFile]) -> str:
    """Return the names of tracks, separated by commas.

    Parameters
    ----------
    tracks
        Tracks to export.

    Returns
    -------
    str
        Names, such as "a, b, c".
    """
    return ", ".join(track.name for track in tracks)


def initial_locus(tracks: Sequence[TrackFile], locus: Region | None) -> str:
    """Return the locus that a browser displays first.

    Parameters
    ----------
    tracks
        Tracks to export.
    locus
        Requested locus, or None for the first scored region.

    Returns
    -------
    str
        Locus, as formatted by `format_locus`.
    """
    return format_locus(locus or tracks[0].regions[0])


def format_locus(region: Region) -> str:
    """Format a region as a locus for genome browsers.

    Unlike `str(region)`, the function never encloses the name of the sequence in braces, because browsers
    do not support them.

    Parameters
    ----------
    region
        Any region.

    Returns
    -------
    str
        Locus with 1-based, inclusive coordinates, such as "chr1:1,001-2,000".
    """
    return f"{region.chrom}:{region.start + 1:,}-{region.end:,}"


def load_track(path: Path, genome: Genome) -> TrackFile:
    """Load a track and check that it was computed on a given genome.

    Parameters
    ----------
    path
        bigWig file, with its provenance record beside it.
    genome
        Genome whose sequence names, lengths and MD5 checksums are compared with the record.

    Returns
    -------
    TrackFile
        Track with its provenance record and scored regions.

    Raises
    ------
    InputError
        If the file is not a bigWig file, its record is missing, or a sequence of the track differs from
        the sequence with the same name in the genome.
    """
    if path.suffix.lower() not in BIGWIG:
        raise InputError(f"{path}: expected a bigWig: write one with attribute -o {path.stem}.bw")
    if not path.is_file():
        raise InputError(f"{path}: file not found, expected a bigWig written by genoscan")
    record = read_provenance(path, required=("model", "sequences", "regions"))
    check_genome(path, record, genome)
    return TrackFile(path, record, scored_regions(path, record, genome))
