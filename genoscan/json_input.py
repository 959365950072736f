"""Parse JSON that users, other programs or other versions may have written."""

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
        Document in UTF-8.
    constants
        Whether to accept NaN and Infinity, which JSON lacks but Python's json module writes.

    Returns
    -------
    object
        Content as dict, list, str, int, float, bool or None.

    Raises
    ------
    ValueError
        If the text is not JSON, is nested too deeply to be parsed, has a key twice in one object, or
        a string with half of a surrogate pair, which cannot be written to a file.
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
    """Describe the first problem that a schema found in a document, in one line.

    Parameters
    ----------
    error
        Error raised by pydantic.
    omit
        Parts of the location that pydantic inserts and that are not keys of the document.

    Returns
    -------
    str
        Location, such as "sequences.1.length", the value found there, and what was expected.
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
