"""Loading of the tracks to export, with checks that they belong to the given genome.

A track of genoscan has a provenance record, with which its genome is checked. A track without a record was written
by another program: it is displayed under the name of its file, and only names and lengths of its sequences can be
checked.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genoscan.errors import InputError
from genoscan.genome.files import excerpt
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.tracks.description import describe
from genoscan.tracks.provenance import check_genome, provenance_path, read_provenance, scored_regions
from genoscan.tracks.reader import BigWig
from genoscan.tracks.writer import BIGWIG

_OTHER = "values of another program"


@dataclass(frozen=True)
class TrackFile:
    """bigWig file to export.

    Attributes
    ----------
    path
        bigWig file.
    record
        Provenance record, which is the contents of the JSON file beside the track; empty for a track of another
        program.
    regions
        Scored regions; for a track of another program, the sequences that it shares with the genome.
    """

    path: Path
    record: Mapping[str, Any]
    regions: tuple[Region, ...]

    @property
    def has_record(self) -> bool:
        """Whether genoscan wrote the track."""
        return bool(self.record)

    @property
    def name(self) -> str:
        """File name without its suffix, for display.

        Bytes that are not valid UTF-8 are replaced with U+FFFD.
        """
        return os.fsencode(self.path.stem).decode("utf-8", "replace")

    @property
    def description(self) -> str:
        """One-line description of the track: model, target, score, unit and sign."""
        return describe(self.record).line if self.has_record else _OTHER

    @property
    def short_description(self) -> str:
        """Quantity and unit, for places with room for few characters."""
        return describe(self.record).short if self.has_record else _OTHER

    @property
    def is_by_base(self) -> bool:
        """Whether the values are scores of the observed bases, which browsers can draw as letters."""
        return self.has_record and not self.record.get("prediction")

    @property
    def unit(self) -> str:
        """Unit of the values; empty if there is none, or if it is unknown."""
        return describe(self.record).measure.unit if self.has_record else ""

    @property
    def limits(self) -> tuple[float, float] | None:
        """Smallest and largest possible value; None if there are none, or if they are unknown."""
        return describe(self.record).measure.limits if self.has_record else None


def track_notes(tracks: Sequence[TrackFile]) -> Iterator[str]:
    """Yield remarks on tracks, of one line each, to be displayed with them.

    Parameters
    ----------
    tracks
        Tracks to export.

    Yields
    ------
    str
        Tracks without a record, warnings of runs, and tracks without any score.
    """
    others = [track for track in tracks if not track.has_record]
    if others:
        yield (
            f"{track_names(others)}: without a record of genoscan; names and lengths of sequences agree with the "
            "genome, the sequences cannot be compared."
        )
    for track in tracks:
        if warning := track.record.get("warning"):
            yield f"{track.name}: {warning}"
        if track.record.get("scored_bases") == 0:
            yield f"{track.name}: no base has a score."


def shown_tracks(tracks: Sequence[TrackFile]) -> Sequence[TrackFile]:
    """Return the tracks whose regions are displayed: those of genoscan or, if there are none, all."""
    return [track for track in tracks if track.has_record] or tracks


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


def first_region(tracks: Sequence[TrackFile], locus: Region | None) -> Region:
    """Return the region that a browser displays first.

    Parameters
    ----------
    tracks
        Tracks to export.
    locus
        Requested region, or None for the first scored region.
    """
    return locus or shown_tracks(tracks)[0].regions[0]


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


def format_place(region: Region) -> str:
    """Format a region for menus and captions.

    Parameters
    ----------
    region
        Any region.

    Returns
    -------
    str
        Locus, preceded by the name of the region if it has one: "GATA1, chr1:1,001-2,000". A long name is
        shortened.
    """
    locus = format_locus(region)
    return f"{excerpt(region.name)}, {locus}" if region.name else locus


def load_track(path: Path, genome: Genome) -> TrackFile:
    """Load a track and check that it belongs to a genome.

    Parameters
    ----------
    path
        bigWig file, with its provenance record beside it if genoscan wrote it.
    genome
        Genome whose sequence names, lengths and MD5 checksums are compared with the record; names and lengths
        with the file, if there is no record.

    Returns
    -------
    TrackFile
        Track with its provenance record and scored regions.

    Raises
    ------
    InputError
        If the file is not a bigWig file, a sequence of the track differs from the sequence with the same name in
        the genome, or a track without a record shares no sequence with the genome.
    """
    if path.suffix.lower() not in BIGWIG:
        raise InputError(f"{path}: expected a bigWig: write one with attribute -o {path.stem}.bw")
    if not path.is_file():
        raise InputError(f"{path}: file not found, expected a bigWig")
    if not provenance_path(path).exists():
        return TrackFile(path, {}, _shared_sequences(path, genome))
    record = read_provenance(path, required=("model", "sequences", "regions"))
    check_genome(path, record, genome)
    return TrackFile(path, record, scored_regions(path, record, genome))


def _shared_sequences(path: Path, genome: Genome) -> tuple[Region, ...]:
    """Return the sequences of a bigWig file that the genome has with the same length, in the order of the genome."""
    with BigWig(path) as track:
        sizes = track.sizes
    shared = [chrom for chrom in genome.sizes if chrom in sizes]
    for chrom in shared:
        if sizes[chrom] != genome.sizes[chrom]:
            raise InputError(
                f"{path}: {chrom} has {sizes[chrom]:,} bases, {genome.sizes[chrom]:,} in {genome.path}: "
                "give a track of this assembly"
            )
    if not shared:
        named = " and ".join(excerpt(next(iter(names), "no sequence")) for names in (sizes, genome.sizes))
        raise InputError(
            f"{path}: shares no sequence with {genome.path} (the first are {named}): give a track of this genome, "
            "with the same names"
        )
    return tuple(Region(chrom, 0, genome.sizes[chrom]) for chrom in shared if genome.sizes[chrom])


def load_any_track(path: Path) -> TrackFile:
    """Load the provenance record of a track that is not compared with a genome.

    Parameters
    ----------
    path
        Track file in any format.

    Returns
    -------
    TrackFile
        Track with its record, if it has one, and without regions.

    Raises
    ------
    InputError
        If there is a record, but it cannot be read or describes another file.
    """
    record = read_provenance(path, required=["model"]) if provenance_path(path).exists() else {}
    return TrackFile(path, record, ())
