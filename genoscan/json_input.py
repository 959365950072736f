"""Parsing of JSON files that were written by users, by other programs or by other versions of genoscan."""

import json
import re
from collections.abc import Collection
from typing import Any, NoReturn

from pydantic import ValidationError

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SHORT = 60


def parse_json(text: bytes, *, constants: bool = False) -> Any:
    """Parse a JSON document.

    Parameters
    ----------
    text
        JSON document encoded in UTF-8.
    constants
        Whether to accept NaN and Infinity, which are not valid JSON but are written by Python's json
        module.

    Returns
    -------
    object
        Contents of the document, as a dict, list, str, int, float, bool or None.

    Raises
    ------
    ValueError
        If the document is not valid JSON, is nested too deeply to be parsed, repeats a key within an
        object, or contains an unpaired surrogate, which has no UTF-8 encoding.
    """
    try:
        content = json.loads(
            text.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=None if constants else _refuse_constant
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _SURROGATE.search(text):
        # An escaped character may be half of a pair, which has no encoding.
        json.dumps(content, ensure_ascii=False).encode()
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f'the key "{key}" appears twice')
            seen.add(key)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"found {name}, which is not a JSON number")


def first_problem(error: ValidationError, *, omit: Collection[str] = ()) -> str:
    """Return a one-line description of the first validation error in a document.

    Parameters
    ----------
    error
        Validation error raised by pydantic.
    omit
        Parts of the location to leave out, because pydantic inserts them and they are not keys of the
        document.

    Returns
    -------
    str
        Location of the error, such as "sequences.1.length", the value found there, and the expected
        value.
    """
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"] if part not in omit) or "the file"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "model_type":
        reason = "Input should be an object"
    if first["type"] == "missing" or not first["loc"]:
        return " ".join(f"{place}: {reason}".split())
    found = json.dumps(first["input"], ensure_ascii=False, default=repr)
    if len(found) > _SHORT:
        found = found[:_SHORT] + "…"
    return " ".join(f"{place} is {found}: {reason}".split())
