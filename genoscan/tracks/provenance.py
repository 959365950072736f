"""Provenance records: OUT.json, beside track OUT, records how the track was computed."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genoscan.errors import InputError
from genoscan.genome.genome import Genome
from genoscan.tracks.atomic import atomic_write, os_errors

FORMAT = "genoscan-track/1"


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


def write_provenance(path: Path, record: Mapping[str, Any]) -> Path:
    """Write the provenance record of a track.

    Parameters
    ----------
    path
        Track file.
    record
        Content of the record; may contain paths, numpy scalars and arrays.

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
    content = _to_json(dict(record))
    document = {"format": FORMAT, **{key: content[key] for key in content if key != "format"}}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(target) as part, os_errors(target):
        part.write_text(text + "\n", encoding="utf-8")
    return target


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
        If the record is missing, is not JSON, or has an unknown format.
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
