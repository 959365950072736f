"""Provenance records: OUT.json, beside a track OUT, records how the track was computed.

A record is a JSON object with the format "genoscan-track/1". `TrackRecord` lists the keys that
genoscan reads; all other keys are kept. Regions are objects with `chrom`, `start` and `end` (0-based,
half-open, as in BED), `name` and `strand`. In records of earlier versions, which can still be read,
regions are strings such as "chr1:1,001-2,000" (1-based, inclusive).
"""

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    Tag,
    ValidationError,
    field_validator,
)

from genoscan.errors import InputError
from genoscan.genome.files import read_errors
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region, parse_region
from genoscan.json_input import first_problem, parse_json
from genoscan.tracks.atomic import AtomicFiles, joined, os_errors
from genoscan.tracks.score import SCORES

FORMAT = "genoscan-track/1"
_BYTES, _SHA256 = "track_bytes", "track_sha256"

TRACK_KEYS = _BYTES, _SHA256
"""Keys of the size and the checksum of the track file, which are missing in older records."""

_MAX_BYTES = 1 << 28
_TEXT, _FIELDS = "text", "fields"
_ABSOLUTE = re.compile(r"(?P<option>-[A-Za-z]|--[\w-]+=|)(?P<path>/.*)", re.DOTALL)

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Name without control characters, which would break the rows of a table."""


class _Table(BaseModel):
    """JSON object in which additional keys are kept."""

    model_config = ConfigDict(extra="allow", strict=True)


class SequenceRecord(_Table):
    """Sequence of the genome.

    Attributes
    ----------
    name
        Name of the sequence.
    length
        Length in bases.
    m5
        MD5 checksum, as in the M5 tag of SAM headers.
    """

    name: Text
    length: NonNegativeInt
    m5: str


class RegionRecord(_Table):
    """Region, 0-based and half-open, in forward coordinates.

    Attributes
    ----------
    chrom
        Name of the sequence.
    start, end
        Positions of the first base and of the base after the last.
    name
        Name, as in BED; "" if there is none.
    strand
        "+", "-" or ".".
    """

    chrom: Text
    start: NonNegativeInt
    end: PositiveInt
    name: str = ""
    strand: Literal["+", "-", "."] = "."


def _region_kind(value: object) -> str:
    return _TEXT if isinstance(value, str) else _FIELDS


AnyRegion = Annotated[Annotated[str, Tag(_TEXT)] | Annotated[RegionRecord, Tag(_FIELDS)], Discriminator(_region_kind)]


class ResponseRecord(_Table):
    """Perturbed base of a response.

    Attributes
    ----------
    at
        Region that consists of the perturbed base.
    """

    at: AnyRegion


class TrackRecord(_Table):
    """Keys of a provenance record that genoscan reads; the keys present depend on the command.

    Attributes
    ----------
    format
        Format of the record.
    model
        Name of the model.
    command
        Command line, without absolute paths.
    sequences
        Sequences on which the track was computed.
    regions
        Scored regions.
    response
        Perturbed base, in the record of a response.
    target, score, shard
        Values of the command-line options with these names.
    scored_bases, zero_regions
        Number of bases with a score, and number of regions in which all scores are 0.
    target_values
        Value of the target for each window, grouped by batch; null if the value is not finite.
    seconds
        Duration of the run, in seconds.
    """

    format: Literal["genoscan-track/1"]
    model: str = ""
    command: list[str] = []
    sequences: list[SequenceRecord] = []
    regions: list[AnyRegion] = []
    response: ResponseRecord | None = None
    target: str | None = None
    score: str | None = None
    shard: str | None = None
    scored_bases: NonNegativeInt = 0
    zero_regions: NonNegativeInt = 0
    target_values: list[list[FiniteFloat | None]] = []
    seconds: FiniteFloat = 0.0

    @field_validator("score")
    @classmethod
    def _score_exists(cls, score: str | None) -> str | None:
        if score is not None and score not in SCORES:
            raise ValueError(f"expected one of {', '.join(SCORES)}")
        return score

    @field_validator("sequences")
    @classmethod
    def _names_differ(cls, sequences: list[SequenceRecord]) -> list[SequenceRecord]:
        if len({sequence.name for sequence in sequences}) < len(sequences):
            raise ValueError("two sequences have the same name")
        return sequences


def provenance_path(path: Path) -> Path:
    """Return the path of a track's provenance record.

    Parameters
    ----------
    path
        Track file.

    Returns
    -------
    Path
        The same path with ".json" appended.
    """
    return path.with_name(path.name + ".json")


def write_provenance(path: Path, record: Mapping[str, Any], files: AtomicFiles | None = None) -> Path:
    """Write the provenance record of a complete track.

    Parameters
    ----------
    path
        Track file.
    record
        Contents of the record, which may include paths, numpy scalars and arrays. The size and the
        checksum of the track are added.
    files
        Transaction in which the track was written, and at the end of which the record is replaced. If
        None, the track must exist, and the record is written immediately.

    Returns
    -------
    Path
        Path of the record.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Notes
    -----
    `format` is the first key; the others follow in alphabetical order. NaN and infinity are written
    as null, because JSON does not support them. `command` is written without absolute
    paths; see `portable_command`.
    """
    target = provenance_path(path)
    with joined(files) as together:
        track = together.current(path)
        with os_errors(path):
            file = {_BYTES: track.stat().st_size, _SHA256: file_sha256(track)}
        content = _to_json({**record, **file})
        if "command" in content:
            content["command"] = portable_command(content["command"])
        document = {"format": FORMAT, **{key: content[key] for key in content if key != "format"}}
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        part = together.create(target)
        with os_errors(target):
            part.write_text(text + "\n", encoding="utf-8")
    return target


def check_track(path: Path, record: Mapping[str, Any]) -> None:
    """Check that a track is the file that its record describes.

    Parameters
    ----------
    path
        Track file.
    record
        Provenance record of the track. A record without size and checksum, as written by earlier
        versions, is accepted.

    Raises
    ------
    InputError
        If the file is missing, or its size or checksum differs from the record.

    Notes
    -----
    The whole file is read.
    """
    if _SHA256 not in record:
        return
    with read_errors(path):
        same = path.stat().st_size == record[_BYTES] and file_sha256(path) == record[_SHA256]
    if not same:
        source = provenance_path(path)
        raise InputError(
            f"{path}: is not the file that {source.name} describes: one of the two was replaced: copy both "
            "from one run, or write the track again"
        )


def read_provenance(path: Path, *, required: Collection[str] = ()) -> dict[str, Any]:
    """Read the provenance record of a track.

    Parameters
    ----------
    path
        Track file.
    required
        Keys that must exist and not be empty.

    Returns
    -------
    dict
        The record, including `format` and all additional keys.

    Raises
    ------
    InputError
        If the record is missing, is not JSON, has an unknown format, lacks a required key, describes
        another file, or has a value that does not fit `TrackRecord`; the message names the key.
    """
    source = provenance_path(path)
    with read_errors(source), source.open("rb") as file:
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise InputError(f"{source}: longer than {_MAX_BYTES >> 20} MiB, expected the record of a track")
    try:
        record = parse_json(text)
    except ValueError as error:
        raise InputError(f"{source}: not valid JSON: {error}") from None
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise InputError(f'{source}: format is {found!r}, expected "{FORMAT}"')
    try:
        TrackRecord.model_validate(record)
    except ValidationError as error:
        raise InputError(f"{source}: {first_problem(error, omit=(_TEXT, _FIELDS))}") from None
    for key in required:
        if record.get(key) in (None, "", []):
            raise InputError(f"{source}: {key} is missing or empty: write the track again")
    check_track(path, record)
    return dict(record)


def region_records(regions: Iterable[Region]) -> list[dict[str, Any]]:
    """Convert regions to the objects that are stored in a record.

    Parameters
    ----------
    regions
        Regions to convert.

    Returns
    -------
    list of dict
        `chrom`, `start`, `end` (0-based, half-open), `name` and `strand` of each region.
    """
    return [
        {"chrom": region.chrom, "start": region.start, "end": region.end, "name": region.name, "strand": region.strand}
        for region in regions
    ]


def region_of(stored: str | Mapping[str, Any], sizes: Mapping[str, int], *, where: str) -> Region:
    """Convert a region from a record, in which it is stored as an object or, in older records, a string.

    Parameters
    ----------
    stored
        Value in the record.
    sizes
        Sequence lengths in bases.
    where
        Record and key, for error messages.

    Returns
    -------
    Region
        The converted region.

    Raises
    ------
    InputError
        If the region is not within one of the sequences.
    """
    if isinstance(stored, str):
        region = parse_region(stored, sizes, clip=True, option=f"{where}:")
        if region.clipped:
            raise InputError(f"{where}: {stored} ends past {region.chrom}, which has {sizes[region.chrom]:,} bases")
        return replace(region, source="")
    chrom, start, end = stored["chrom"], stored["start"], stored["end"]
    if not start < end <= sizes.get(chrom, 0):
        length = f"has {sizes[chrom]:,} bases" if chrom in sizes else "is not one of its sequences"
        raise InputError(f"{where}: found {chrom} from {start:,} to {end:,}, but {chrom} {length}")
    return Region(chrom, start, end, name=stored.get("name", ""), strand=stored.get("strand", "."))


def scored_regions(path: Path, record: Mapping[str, Any], genome: Genome) -> tuple[Region, ...]:
    """Return the scored regions of a track.

    Parameters
    ----------
    path
        Track file, for error messages.
    record
        Provenance record of the track.
    genome
        Genome on which the track was computed.

    Returns
    -------
    tuple of Region
        Disjoint regions, in the order of the genome.

    Raises
    ------
    InputError
        If a region is not within a sequence of the record, or if regions overlap.
    """
    source = provenance_path(path)
    sizes = {s["name"]: s["length"] for s in record["sequences"]}
    regions = tuple(
        region_of(stored, sizes, where=f"{source}: regions.{number}") for number, stored in enumerate(record["regions"])
    )
    rank = {chrom: number for number, chrom in enumerate(genome.sizes)}
    regions = tuple(sorted(regions, key=lambda region: (rank[region.chrom], region.start)))
    for one, other in pairwise(regions):
        if one.chrom == other.chrom and other.start < one.end:
            raise InputError(f"{source}: regions: {one} and {other} overlap, expected disjoint regions")
    return regions


def portable_command(arguments: Sequence[str]) -> list[str]:
    """Return a command line without absolute paths.

    Parameters
    ----------
    arguments
        Program and arguments.

    Returns
    -------
    list of str
        The arguments, with each absolute path replaced by its last component, including paths attached
        to an option as in `--genome=/data/chr.fa` or `-o/tmp/x.bw`. The path of the program is replaced
        by its name; relative paths are unchanged.
    """
    if not arguments:
        return []
    program = PurePath(arguments[0])
    # `python -m genoscan` states the path of the module.
    name = program.parent.name if program.name == "__main__.py" else program.name
    return [name, *map(_without_folder, arguments[1:])]


def _without_folder(argument: str) -> str:
    found = _ABSOLUTE.fullmatch(argument)
    return argument if found is None else found["option"] + PurePath(found["path"]).name


def check_genome(path: Path, record: Mapping[str, Any], genome: Genome) -> None:
    """Check that a track was computed on the sequences of a genome.

    Parameters
    ----------
    path
        Track file, named in error messages.
    record
        Provenance record of the track.
    genome
        Genome to compare with, by sequence name, length and MD5.

    Raises
    ------
    InputError
        If a sequence of the track is missing from the genome, or differs in length or MD5.
    """
    for sequence in record["sequences"]:
        name, length = sequence["name"], sequence["length"]
        found = genome.sizes.get(name)
        if found is None:
            raise InputError(f"{path}: computed on {name}, which is not in {genome.path}")
        if found != length or genome.m5(name) != sequence["m5"]:
            raise InputError(
                f"{path}: computed on another {name} ({length:,} bases, MD5 {sequence['m5']}) than "
                f"that of {genome.path} ({found:,} bases, MD5 {genome.m5(name)}): give the genome "
                "that was used"
            )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file.

    Parameters
    ----------
    path
        File, which is read in chunks.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_json(value: Any) -> Any:
    """Convert a value to JSON types, with the keys in alphabetical order."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _to_json(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
