"""Random changes of a sequence, with which variants are compared, and ranks among them."""

import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from genoscan.genome.alphabet import BASES, N, decode
from genoscan.genome.genome import Genome
from genoscan.genome.variant import Change, normalise

Kind = tuple[str, int, int, str]
"""Sequence, length of REF, length of ALT, and a text: of one base that is replaced by one, it and its neighbours; of
several that are replaced by as many, which differ (X) and which do not (=)."""

_TRIES = 20


def kind_of(genome: Genome, change: Change) -> Kind:
    """Return the kind of a change; changes of equal kind are comparable."""
    like = ""
    if change.kind == "SNV":
        size = genome.sizes[change.chrom]
        codes = genome.fetch(change.chrom, max(0, change.start - 1), min(size, change.stop + 1))
        like = decode(codes).decode()
    elif change.kind == "MNV":
        like = "".join("=" if old == new else "X" for old, new in zip(change.ref, change.alt, strict=True))
    return change.chrom, len(change.ref), len(change.alt), like


def draw_background(genome: Genome, changes: Sequence[Change], count: int, distance: int, seed: int) -> list[Change]:
    """Draw random changes of the same kinds as the given changes.

    Parameters
    ----------
    genome
        Genome of the changes.
    changes
        Changes for which random ones are drawn.
    count
        Number of changes to draw for each kind on each sequence. Fewer are drawn if there are fewer positions.
    distance
        Maximum distance, in bases, from one of the given changes.
    seed
        Seed of the random numbers. The draws for one kind do not depend on the other kinds.

    Returns
    -------
    list of Change
        Random normalised changes without duplicates, none of which is one of the given changes, ordered by
        sequence, kind and position. A substitution of a single base replaces one with the same neighbours.
        Other new bases are drawn uniformly; positions with an N are omitted.
    """
    if not count:
        return []
    by_kind: dict[Kind, list[Change]] = {}
    for change in changes:
        by_kind.setdefault(kind_of(genome, change), []).append(change)
    drawn = []
    for kind in sorted(by_kind):
        random = np.random.default_rng([seed, zlib.crc32(repr(kind).encode())])
        drawn += _draw(genome, kind, by_kind[kind], count, distance, random)
    return drawn


def rank(
    genome: Genome,
    changes: Sequence[Change],
    deltas: Float64[np.ndarray, " changes"],
    background: Sequence[Change],
    background_deltas: Float64[np.ndarray, " background"],
) -> Float64[np.ndarray, " changes"]:
    """Return the share of random changes of the same kind whose effect is smaller in absolute value.

    An equal effect counts as half. The rank is NaN if there are no random changes of the kind.
    """
    sizes: dict[Kind, list[float]] = {}
    for change, delta in zip(background, background_deltas, strict=True):
        sizes.setdefault(kind_of(genome, change), []).append(abs(float(delta)))
    ordered = {kind: np.sort(values) for kind, values in sizes.items()}
    ranks = np.full(len(changes), np.nan)
    for i, change in enumerate(changes):
        others = ordered.get(kind_of(genome, change))
        if others is not None:
            below, upto = (np.searchsorted(others, abs(deltas[i]), side) for side in ("left", "right"))
            ranks[i] = (below + upto) / 2 / len(others)
    return ranks


def _draw(
    genome: Genome, kind: Kind, changes: Sequence[Change], count: int, distance: int, random: np.random.Generator
) -> list[Change]:
    """Draw up to `count` changes of one kind near the given ones."""
    chrom, n_ref, *_ = kind
    size = genome.sizes[chrom]
    found: set[Change] = set()
    taken = set(changes)
    for _ in range(_TRIES):
        if len(found) == count:
            break
        near = changes[int(random.integers(len(changes)))].start
        first, last = max(0, near - distance), min(size, near + distance + n_ref)
        codes = genome.fetch(chrom, first, last)
        for at in random.permutation(max(1, last - first - n_ref + 1))[: max(count, 256)].tolist():
            if len(found) == count:
                break
            change = _change_at(genome, codes, first, at, kind, random)
            if change is not None and change.start >= first and change not in taken:
                found.add(change)
    return sorted(found, key=lambda change: (change.start, change.ref, change.alt))


def _change_at(
    genome: Genome, codes: np.ndarray, first: int, at: int, kind: Kind, random: np.random.Generator
) -> Change | None:
    """Return a random change at a position, or None if none there, or not the one drawn, is of the kind."""
    chrom, n_ref, n_alt, like = kind
    old = codes[at : at + n_ref]
    if len(old) < n_ref or (old >= N).any():
        return None
    if n_ref != n_alt:
        new = random.integers(4, size=n_alt)
    elif n_ref > 1:
        new = (old + random.integers(1, 4, size=n_ref) * (np.array(list(like)) == "X")) % 4
    elif decode(codes[max(0, at - 1) : at + 2]).decode() == like:
        new = (old + random.integers(1, 4, size=1)) % 4
    else:
        return None
    change = normalise(genome, chrom, first + at, decode(old).decode(), "".join(BASES[code] for code in new))
    return change if kind_of(genome, change) == kind else None
