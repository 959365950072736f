"""Plain text of a Debian package with sources of Sphinx, unpacked by fetch.sh and split by document."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from genoscan.errors import InputError

END = b"\0"
"""End of a document."""

_PATTERN = "*.rst.txt"
_HELD_OUT = 13
"""First bytes of a checksum, of 256, for which a document belongs to the test set; as many for validation."""

Text = UInt8[np.ndarray, " bytes"]
Windows = Int64[np.ndarray, "windows length"]


@dataclass(frozen=True)
class Corpus:
    """Documents of a package, one after another, as bytes.

    facts  package, version, checksum, and numbers of documents and bytes of each split
    """

    training: Text
    validation: Text
    test: Text
    facts: dict[str, Any]


def read_corpus(folder: Path) -> Corpus:
    """Read the documents below a folder, and split them by the checksum of their names.

    Parameters
    ----------
    folder
        Folder into which fetch.sh unpacked a package.

    Raises
    ------
    InputError
        If files are missing, or all documents belong to one split.
    """
    package, documents = folder / "package.txt", sorted(folder.rglob(_PATTERN))
    if not package.is_file() or not documents:
        missing = f"{_PATTERN} below it" if package.is_file() else package.name
        raise InputError(f"{folder}: found no {missing}; run benchmarks/language/fetch.sh {folder} first")
    splits: dict[str, list[bytes]] = {"training": [], "validation": [], "test": []}
    whole = hashlib.sha256()
    for path in documents:
        # The name below _sources, which does not depend on the package's version.
        name, content = path.relative_to(folder).as_posix().rpartition("_sources/")[2], path.read_bytes()
        splits[_split(name)].append(content + END)
        whole.update(name.encode() + END + content + END)
    if empty := [split for split, parts in splits.items() if not parts]:
        raise InputError(
            f"{folder}: none of {len(documents)} documents belongs to {empty[0]}; expected a larger corpus"
        )
    facts: dict[str, Any] = {
        "package": " ".join(package.read_text(encoding="utf-8").split()),
        "sha256": whole.hexdigest(),
    }
    facts |= {split: {"documents": len(parts), "bytes": sum(map(len, parts))} for split, parts in splits.items()}
    return Corpus(**{split: np.frombuffer(b"".join(parts), np.uint8) for split, parts in splits.items()}, facts=facts)


def _split(name: str) -> str:
    first = hashlib.sha256(name.encode()).digest()[0]
    return "test" if first < _HELD_OUT else "validation" if first < 2 * _HELD_OUT else "training"


def windows(text: Text, at: Int64[np.ndarray, " windows"], length: int) -> tuple[Windows, Windows]:
    """Return the windows that begin at the given bytes, and for each of their bytes the next one."""
    found = text[at[:, None] + np.arange(length + 1)].astype(np.int64)
    return found[:, :-1], found[:, 1:]


def shuffled(text: Text, seed: int, step: int, *, n: int, length: int) -> tuple[Windows, Windows]:
    """Return the windows of a training step: all windows of the text in random order, then again in another.

    Parameters
    ----------
    step
        Step, counted from 1. The windows depend only on the arguments, not on earlier calls.
    n
        Windows of a step.
    """
    n_windows = (len(text) - 1) // length
    at = np.arange((step - 1) * n, step * n)
    rounds = at // n_windows
    orders = {r: np.random.default_rng([seed, r]).permutation(n_windows) for r in np.unique(rounds).tolist()}
    chosen = np.array([orders[r][i] for r, i in zip(rounds.tolist(), (at % n_windows).tolist(), strict=True)])
    return windows(text, chosen * length, length)


def held_out(text: Text, length: int, n: int | None = None) -> tuple[Windows, Windows]:
    """Return all windows of a text, or `n` at equal distances."""
    at = np.arange((len(text) - 1) // length) * length
    return windows(text, at if n is None else at[:: max(1, len(at) // n)][:n], length)
