"""How a track came to be, as JSON in a file beside it: OUT.json for OUT."""

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
    """Return where the record of the track at `path` lies."""
    return path.with_name(path.name + ".json")


def write_provenance(path: Path, record: Mapping[str, Any]) -> Path:
    """Write the record of the track at `path`, and return where it went.

    The format comes first, then the record's keys in alphabetical order. JSON has no NaN and no
    infinity: both become null. Paths become strings, numpy's numbers and arrays plain ones.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    target = provenance_path(path)
    plain = _plain(dict(record))
    document = {"format": FORMAT, **{key: plain[key] for key in plain if key != "format"}}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(target) as part, os_errors(target):
        part.write_text(text + "\n", encoding="utf-8")
    return target


def read_provenance(path: Path) -> dict[str, Any]:
    """Return the record of the track at `path`.

    Raises
    ------
    InputError
        If there is none, or it is of another format.
    """
    source = provenance_path(path)
    try:
        record = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{source}: is not JSON: {error}") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise InputError(f'{source}: format is {found!r}, expected "{FORMAT}"')
    return record


def check_genome(path: Path, record: Mapping[str, Any], genome: Genome) -> None:
    """Make sure that a track was made on the sequences of this genome.

    Raises
    ------
    InputError
        If a sequence is not there, or is another one.
    """
    for sequence in record["sequences"]:
        name, length = sequence["name"], sequence["length"]
        found = genome.sizes.get(name)
        if found is None:
            raise InputError(f"{path}: made on {name}, which is not in {genome.path}")
        if found != length or genome.m5(name) != sequence["m5"]:
            raise InputError(
                f"{path}: made on another {name} ({length:,} bases, MD5 {sequence['m5']}) than "
                f"that of {genome.path} ({found:,} bases, MD5 {genome.m5(name)}): name the genome "
                "that the track was made on"
            )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """Return the value in JSON's types, keys sorted."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
