"""Which token is which base, where the checkpoint or the user says so."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from genoscan.errors import ModelError
from genoscan.genome.alphabet import BASES
from genoscan.layers.foreign.source import Source

_MOST = 64
"""Tokens, of which a model that reads one base a token has no more."""


class Vocabulary(NamedTuple):
    """Fields of a `ModelConfig`."""

    symbols: str
    base_columns: tuple[int, int, int, int]
    unknown: int | None
    mask: int | None
    complement: tuple[int, ...]


def parse_tokens(text: str) -> dict[str, int]:
    """Read A=7,C=8,G=9,T=10 and, if there is one, N=11.

    Raises
    ------
    ModelError
        If it says anything else.
    """
    found = {}
    for part in text.upper().split(","):
        letter, _, number = part.strip().partition("=")
        if letter not in (*BASES, "N") or not number.isdecimal() or letter in found:
            raise ModelError(f"--tokens {text}: expected A=7,C=8,G=9,T=10 or the like, and N=11")
        found[letter] = int(number)
    return found


def vocabulary(source: Source, size: int, given: Mapping[str, int] | None) -> Vocabulary:
    """Return the tokens of a model that reads one base a token.

    Raises
    ------
    ModelError
        If they are not known, or are those of another kind of model.
    """
    if size > _MOST:
        raise ModelError(
            f"{source.path}: a vocabulary of {size:,} tokens: expected at most {_MOST}, one base "
            "a token"
        )
    tokens = dict(given) if given is not None else _in_files(source)
    missing = [letter for letter in BASES if letter not in tokens]
    if missing:
        raise ModelError(
            f"{source.folder}: which token is {', '.join(missing)}? expected a tokenizer.json or "
            "vocab.json with them, or --tokens A=7,C=8,G=9,T=10"
        )
    places = [tokens[letter] for letter in (*BASES, "N") if letter in tokens]
    if len(set(places)) < len(places) or not 0 <= min(places) <= max(places) < size:
        raise ModelError(f"{source.folder}: tokens {tokens}: expected different ones below {size}")
    symbols = ["."] * size
    for letter, token in tokens.items():
        symbols[token] = letter
    complement = list(range(size))
    for one, other in ("AT", "TA", "CG", "GC"):
        complement[tokens[one]] = tokens[other]
    a, c, g, t = (tokens[letter] for letter in BASES)
    return Vocabulary("".join(symbols), (a, c, g, t), tokens.get("N"), None, tuple(complement))


def _in_files(source: Source) -> dict[str, int]:
    """Return the tokens that are single letters, capitals before small ones."""
    for name in ("tokenizer.json", "vocab.json"):
        file = source.folder / name
        if not file.is_file():
            continue
        try:
            held: Any = json.loads(file.read_text(encoding="utf-8"))
            table = held.get("model", {}).get("vocab", {}) if name.startswith("tok") else held
            known = {str(token): int(number) for token, number in table.items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ModelError(f"{file}: not a table of tokens ({error})") from None
        for letters in (str.upper, str.lower):
            found = {b: known[letters(b)] for b in (*BASES, "N") if letters(b) in known}
            if set(BASES) <= set(found):
                return found
    return {}
