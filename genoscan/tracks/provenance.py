"""Provenance records, which state how tracks were computed.

The record of a track OUT is the file OUT.json in the same folder. It contains a JSON object in the format
"genoscan-track/1". The keys of the object are described in record_schema.py.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from pydantic import ValidationError

from genoscan.errors import InputError
from genoscan.genome.files import read_errors
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.json_input import first_problem, parse_json
from genoscan.tracks.atomic import AtomicFiles, joined, os_errors
from genoscan.tracks.record_schema import REGION_KINDS, TrackRecord, region_of

FORMAT = "genoscan-track/1"
_BYTES, _SHA256 = "track_bytes", "track_sha256"

TRACK_KEYS = _BYTES, _SHA256
"""Keys for the size and the checksum of the track file, which are missing in older records."""

_MAX_BYTES = 1 << 30  # about eight million regions
_ABSOLUTE = re.compile(r"(?P<option>-[A-Za-z]|--[\w-]+=|)(?P<path>/.*)", re.DOTALL)


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
        Contents of the record, which may include paths, numpy scalars and numpy arrays. The size and the
        checksum of the track are added.
    files
        Transaction in which the track was written. An existing record is replaced when the transaction
        ends. If None, the track must exist, and the record is written immediately.

    Returns
    -------
    Path
        Path of the record.

    Raises
    ------
    OutputError
        If the record cannot be written, or the track cannot be read.

    Notes
    -----
    The key `format` is written first, and the other keys follow in alphabetical order. NaN and infinity are
    written as null, because JSON does not support them. `command` is written without absolute paths; see
    `portable_command`.
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
        Provenance record of the track. Records of earlier versions may lack the size and the checksum; such
        records are accepted.

    Raises
    ------
    InputError
        If the file is missing, or its size or checksum differs from the value in the record.

    Notes
    -----
    The whole file is read if its size is equal to the size in the record.
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
        Keys that must be present and have non-empty values.

    Returns
    -------
    dict
        Contents of the record, including `format` and any keys that genoscan does not use.

    Raises
    ------
    InputError
        If the record is missing, is not JSON, has an unknown format, lacks a required key, describes a
        different track file, or has a value that `TrackRecord` does not allow. If the error concerns a key,
        the message names the key.
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
        raise InputError(f"{source}: {first_problem(error, omit=REGION_KINDS)}") from None
    for key in required:
        if record.get(key) in (None, "", []):
            raise InputError(f"{source}: {key} is missing or empty: write the track again")
    check_track(path, record)
    return dict(record)


def scored_regions(path: Path, record: Mapping[str, Any], genome: Genome) -> tuple[Region, ...]:
    """Return the scored regions of a track.

    Parameters
    ----------
    path
        Path of the track file, for error messages.
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
        If a region is not within one of the sequences in the record, or if regions overlap.
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
        Program and its arguments.

    Returns
    -------
    list of str
        Command line in which each absolute path is replaced with its last component. This includes paths
        that are attached to an option, as in `--genome=/data/chr.fa` or `-o/tmp/x.bw`. The path of the
        program is replaced with the program's name, and relative paths are unchanged. Bytes that are not
        valid UTF-8 are replaced with U+FFFD.
    """
    if not arguments:
        return []
    program = PurePath(arguments[0])
    # `python -m genoscan` states the path of the module.
    name = program.parent.name if program.name == "__main__.py" else program.name
    portable = (name, *map(_without_folder, arguments[1:]))
    return [os.fsencode(argument).decode("utf-8", "replace") for argument in portable]


def _without_folder(argument: str) -> str:
    found = _ABSOLUTE.fullmatch(argument)
    return argument if found is None else found["option"] + PurePath(found["path"]).name


def check_genome(path: Path, record: Mapping[str, Any], genome: Genome) -> None:
    """Check that a track was computed on the sequences of a genome.

    Parameters
    ----------
    path
        Path of the track file, for error messages.
    record
        Provenance record of the track.
    genome
        Genome whose sequence names, lengths and MD5 checksums are compared with the record.

    Raises
    ------
    InputError
        If a sequence of the track is missing from the genome, or its length or MD5 checksum differs.
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
        Path of the file, which is read in chunks.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_json(value: Any) -> Any:
    """Convert a value to JSON types, with sorted keys and with null in place of non-finite numbers."""
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
