"""Provenance records: OUT.json, beside track OUT, records how the track was computed."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genoscan.errors import InputError
from genoscan.genome.files import read_errors
from genoscan.genome.genome import Genome
from genoscan.tracks.atomic import AtomicFiles, joined, os_errors

FORMAT = "genoscan-track/1"
_BYTES, _SHA256 = "track_bytes", "track_sha256"

TRACK_KEYS = _BYTES, _SHA256
"""Keys of the size and the checksum of the track file; records of earlier versions lack them."""


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
        Content of the record; may contain paths, numpy scalars and arrays. Size and checksum of the
        track are added.
    files
        Transaction in which the track was written, and at whose end the record is replaced; None:
        the track exists, and the record is written immediately.

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
    as null, because JSON does not support them.
    """
    target = provenance_path(path)
    with joined(files) as together:
        track = together.current(path)
        with os_errors(path):
            file = {_BYTES: track.stat().st_size, _SHA256: file_sha256(track)}
        content = _to_json({**record, **file})
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
        Its record; one without size and checksum, of an earlier version, is accepted.

    Raises
    ------
    InputError
        If the file is missing or differs.

    Notes
    -----
    Reads the whole file.
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


def read_provenance(path: Path) -> dict[str, Any]:
    """Read the provenance record of a track.

    Parameters
    ----------
    path
        Track file.

    Returns
    -------
    dict
        The record, including `format`.

    Raises
    ------
    InputError
        If the record is missing, is not JSON, has an unknown format, or describes another file.
    """
    source = provenance_path(path)
    try:
        record = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{source}: not valid JSON: {error}") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise InputError(f'{source}: format is {found!r}, expected "{FORMAT}"')
    check_track(path, record)
    return record


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
    """Return the SHA-256 of a file.

    Parameters
    ----------
    path
        Any file; read in chunks.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_json(value: Any) -> Any:
    """Convert a value to JSON types, with sorted keys."""
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
