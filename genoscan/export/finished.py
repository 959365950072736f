"""A finished track: its file, how it came to be, and the genome that it was made on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genoscan.errors import InputError
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region, parse_region
from genoscan.tracks.provenance import check_genome, read_provenance
from genoscan.tracks.writer import BIGWIG


@dataclass(frozen=True)
class Finished:
    """A bigWig that genoscan wrote; `regions` is where it has scores."""

    path: Path
    record: dict[str, Any]
    regions: tuple[Region, ...]

    @property
    def name(self) -> str:
        """What a browser calls it."""
        return self.path.stem

    @property
    def description(self) -> str:
        """How it came to be, in a line."""
        said = self.record
        # A response says what was changed, and not what was asked.
        asked = said.get("target") or f"response to {said.get('response', {}).get('at', '')}"
        return f"{said['model']}: {asked}" + (f", {said['score']}" if "score" in said else "")


def track_names(tracks: Sequence[Finished]) -> str:
    """Return what tracks are called together."""
    return ", ".join(track.name for track in tracks)


def opening(tracks: Sequence[Finished], locus: Region | None) -> str:
    """Return where a browser opens: at `locus`, or the first region."""
    return format_locus(locus or tracks[0].regions[0])


def format_locus(region: Region) -> str:
    """Return a region in the words of browsers, which know no quotes."""
    return f"{region.chrom}:{region.start + 1:,}-{region.end:,}"


def finished(path: Path, genome: Genome) -> Finished:
    """Return the track at `path`, made sure to be of this genome.

    Raises
    ------
    InputError
        If it is no bigWig, has no record beside it, or a sequence is not the one that it was made
        on.
    """
    if path.suffix.lower() not in BIGWIG:
        raise InputError(f"{path}: expected a bigWig: write one with attribute -o {path.stem}.bw")
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a bigWig that genoscan wrote")
    record = read_provenance(path)
    check_genome(path, record, genome)
    regions = tuple(parse_region(text, genome.sizes) for text in record["regions"])
    return Finished(path, record, regions)
