"""Token ids of the bases, which are given by the user or read from a checkpoint's vocabulary."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genoscan.errors import ModelError
from genoscan.genome.alphabet import BASES
from genoscan.json_input import parse_json
from genoscan.layers.downloads import check_downloaded
from genoscan.layers.foreign.source import Source

_MAX_TOKENS = 64
"""Maximum number of tokens in the vocabulary of a model that reads one base per token."""


class Vocabulary(NamedTuple):
    """Vocabulary of a model; the attributes are the same as those of `ModelConfig`."""

    symbols: str
    base_columns: tuple[int, int, int, int]
    unknown: int | None
    mask: int | None
    complement: tuple[int, ...]


def parse_tokens(text: str) -> dict[str, int]:
    """Parse the token ids of the bases, as given by the option --tokens.

    Parameters
    ----------
    text
        Token ids, such as "A=7,C=8,G=9,T=10". N is optional.

    Returns
    -------
    dict
        Token ids by upper-case letter.

    Raises
    ------
    ModelError
        If the text does not have this form.
    """
    found = {}
    for part in text.upper().split(","):
        letter, _, number = part.strip().partition("=")
        if letter not in (*BASES, "N") or not number.isdecimal() or letter in found:
            raise ModelError(f"--tokens {text}: expected A=7,C=8,G=9,T=10 or similar, and N=11")
        found[letter] = int(number)
    return found


def vocabulary(source: Source, size: int, given: Mapping[str, int] | None) -> Vocabulary:
    """Return the vocabulary of a model that reads one base per token.

    Parameters
    ----------
    source
        The checkpoint.
    size
        Number of tokens in the vocabulary.
    given
        Token ids of the bases. If None, the token ids are read from tokenizer.json, vocab.json or
        vocab.txt.

    Returns
    -------
    Vocabulary
        Symbols, columns of the bases and of N, and complement of each column. There is no mask symbol.

    Raises
    ------
    ModelError
        If the token ids of the bases are unknown or invalid, or if the vocabulary is too large.
    """
    if size > _MAX_TOKENS:
        raise ModelError(
            f"{source.path}: a vocabulary of {size:,} tokens: expected at most {_MAX_TOKENS}, with one base per token; "
            "models of words of several bases (k-mers, BPE) are not supported"
        )
    tokens = dict(given) if given is not None else _tokens_in_files(source)
    missing = [letter for letter in BASES if letter not in tokens]
    if missing:
        raise ModelError(
            f"{source.folder}: no token found for {', '.join(missing)}: expected tokenizer.json, "
            "vocab.json or vocab.txt with these letters, or --tokens A=7,C=8,G=9,T=10"
        )
    places = [tokens[letter] for letter in (*BASES, "N") if letter in tokens]
    if len(set(places)) < len(places) or not 0 <= min(places) <= max(places) < size:
        raise ModelError(f"{source.folder}: tokens {tokens}: expected distinct ones below {size}")
    symbols = ["."] * size
    for letter, token in tokens.items():
        symbols[token] = letter
    complement = list(range(size))
    for one, other in ("AT", "TA", "CG", "GC"):
        complement[tokens[one]] = tokens[other]
    a, c, g, t = (tokens[letter] for letter in BASES)
    return Vocabulary("".join(symbols), (a, c, g, t), tokens.get("N"), None, tuple(complement))


def _tokens_in_files(source: Source) -> dict[str, int]:
    """Read the token ids of the bases from the vocabulary files of a checkpoint.

    If a file contains the bases in upper and lower case, the upper-case tokens are used. If no file
    contains all four bases, the result is empty.
    """
    for name in ("tokenizer.json", "vocab.json", "vocab.txt"):
        file = source.folder / name
        if not file.is_file():
            continue
        check_downloaded(file, "a vocabulary" if name == "vocab.txt" else "JSON")
        try:
            known = _tokens(file)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ModelError(f"{file}: not a table of tokens ({error})") from None
        if words := sorted(token for token in known if re.fullmatch("[ACGTN]{2,}", token.upper())):
            raise ModelError(
                f"{file}: token {words[0]!r}: expected one base per token; models of words of several bases "
                "(k-mers, BPE) are not supported"
            )
        for letters in (str.upper, str.lower):
            found = {b: known[letters(b)] for b in (*BASES, "N") if letters(b) in known}
            if set(BASES) <= set(found):
                return found
    return {}


def _tokens(file: Path) -> dict[str, int]:
    """Return the ids of all tokens in a vocabulary file."""
    if file.name == "vocab.txt":  # one token per line
        return {token: number for number, token in enumerate(file.read_text(encoding="utf-8").splitlines())}
    content: Any = parse_json(file.read_bytes())
    table = content.get("model", {}).get("vocab", {}) if file.name == "tokenizer.json" else content
    return {str(token): int(number) for token, number in table.items()}
