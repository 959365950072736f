"""The Markov baseline: how well does counting words predict the next base?

A model that is given more of the sequence should predict its next base better than word counts do.
This is the count-based model that it is compared with, at its best: the order and the smoothing
are chosen on the validation sequences, and the words are counted on both strands of the whole
training split.

p(base | the k bases before it) = (n(word) + a) / (n(context) + 4 a)

where n(word) counts the k bases with the base, n(context) the k bases with any base, and a is the
smoothing. Where fewer than k bases of A, C, G, T come before, as near a sequence's start and after
an N, the model of that lower order predicts, so that every A, C, G, T is scored but a sequence's
first base: the bases that a next-base model is scored on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8, UInt32
from numba import njit

from genoscan.errors import InputError

HIGHEST_ORDER = 12
SMOOTHINGS = tuple(float(a) for a in np.logspace(-2, 3, 21).round(4))


@dataclass(frozen=True, slots=True)
class WordCounts:
    """How often each word of 1 to `highest_order` + 1 bases occurs, on both strands.

    Memory: 4 bytes a word, 358 MB at order 12.
    """

    highest_order: int
    counts: UInt32[np.ndarray, " words"]
    n_bases: int


@dataclass(frozen=True, slots=True)
class OrderScore:
    """What one order reaches on the validation sequences, at the smoothing that suits it best."""

    order: int
    smoothing: float
    validation_bits: float


@dataclass(frozen=True, slots=True)
class HeldOutScore:
    """The chosen model's bits per base on one set of held-out sequences."""

    bits: float
    n_bases: int


@dataclass(frozen=True, slots=True)
class MarkovBaseline:
    """The Markov model that validation chose, and its bits per base.

    `training_bases` counts one strand; `by_order` holds every order that was tried, ascending.
    """

    order: int
    smoothing: float
    validation_bits: float
    validation_bases: int
    training_bases: int
    held_out: Mapping[str, HeldOutScore]
    by_order: tuple[OrderScore, ...]


def markov_baseline(
    training: Sequence[UInt8[np.ndarray, " _"]],
    validation: Sequence[UInt8[np.ndarray, " _"]],
    held_out: Mapping[str, Sequence[UInt8[np.ndarray, " _"]]],
    *,
    highest_order: int = HIGHEST_ORDER,
    smoothings: Sequence[float] = SMOOTHINGS,
) -> MarkovBaseline:
    """Choose a Markov model's order and smoothing on validation, and score it on held-out bases.

    The held-out sequences play no part in the choice. Words cross neither a sequence's edge nor
    an N, so a sequence cut into pieces counts as pieces.

    Memory: 4 bytes for each word, 358 MB at order 12, whatever the sequences' length.

    Raises
    ------
    InputError
        If the training, the validation or a held-out set holds no base that can be scored, or
        an order or smoothing is not positive.
    """
    counts = count_words(training, highest_order)
    by_order, validation_bases = select_order(counts, validation, smoothings)
    best = min(by_order, key=lambda score: score.validation_bits)
    scores = {}
    for name, sequences in held_out.items():
        bits, n_bases = bits_per_base(counts, sequences, best.order, [best.smoothing])
        if n_bases == 0:
            raise InputError(f"held-out {name}: no base to score, expected A, C, G or T")
        scores[name] = HeldOutScore(float(bits[0]), n_bases)
    return MarkovBaseline(
        order=best.order,
        smoothing=best.smoothing,
        validation_bits=best.validation_bits,
        validation_bases=validation_bases,
        training_bases=counts.n_bases,
        held_out=scores,
        by_order=by_order,
    )


def count_words(sequences: Sequence[UInt8[np.ndarray, " _"]], highest_order: int) -> WordCounts:
    """Count the words of 1 to `highest_order` + 1 bases of the sequences and of their complements.

    Memory: 4 bytes for each word that there can be, 358 MB at order 12.

    Raises
    ------
    InputError
        If the order is below 1, or there is no A, C, G, T in the sequences.
    """
    if highest_order < 1:
        raise InputError(f"highest order {highest_order}: expected 1 or more")
    counts = np.zeros(_offset(highest_order + 1), np.uint32)
    n_bases = 0
    for codes in sequences:
        n_bases += _count(codes, highest_order, counts)
        # With A0 C1 G2 T3 the complement is 3 - code; N wraps round to 255 and stays no base.
        _count(3 - codes[::-1], highest_order, counts)
    if n_bases == 0:
        raise InputError("training sequences: no base to count, expected A, C, G or T")
    return WordCounts(highest_order, counts, n_bases)


def select_order(
    counts: WordCounts, validation: Sequence[UInt8[np.ndarray, " _"]], smoothings: Sequence[float]
) -> tuple[tuple[OrderScore, ...], int]:
    """Find each order's best smoothing; return the orders, and how many bases were scored.

    Raises
    ------
    InputError
        If no base can be scored, or a smoothing is not above zero.
    """
    by_order = []
    n_bases = 0
    for order in range(1, counts.highest_order + 1):
        bits, n_bases = bits_per_base(counts, validation, order, smoothings)
        if n_bases == 0:
            raise InputError("validation sequences: no base to score, expected A, C, G or T")
        best = int(np.argmin(bits))
        by_order.append(OrderScore(order, float(smoothings[best]), float(bits[best])))
    return tuple(by_order), n_bases


def bits_per_base(
    counts: WordCounts,
    sequences: Sequence[UInt8[np.ndarray, " _"]],
    order: int,
    smoothings: Sequence[float],
) -> tuple[Float[np.ndarray, " smoothings"], int]:
    """Return the mean of -log2 p over the bases for each smoothing, and how many bases there were.

    The mean is NaN where there is no base to score.

    Raises
    ------
    InputError
        If the order was not counted, or a smoothing is not above zero.
    """
    if not 0 <= order <= counts.highest_order:
        raise InputError(f"order {order}: expected 0 to {counts.highest_order}, which was counted")
    if not smoothings or min(smoothings) <= 0:
        raise InputError(f"smoothings {list(smoothings)}: expected values above zero")
    grid = np.asarray(smoothings, np.float64)
    bits = np.zeros(grid.size)
    n_bases = 0
    for codes in sequences:
        n_bases += _surprise(codes, order, counts.counts, grid, bits)
    return (bits / n_bases if n_bases else np.full(grid.size, np.nan)), n_bases


@njit(nogil=True)
def _offset(order):  # type: ignore[no-untyped-def]
    """Return where the words of `order` + 1 bases begin in the table of counts."""
    return ((4 << (2 * order)) - 4) // 3


@njit(nogil=True)
def _count(codes, highest_order, counts):  # type: ignore[no-untyped-def]
    """Add the words that end at each base; return the number of bases."""
    mask = (4 << (2 * highest_order)) - 1
    word = 0
    before = 0
    n_bases = 0
    for code in codes:
        if code > 3:
            before = 0
            continue
        word = ((word << 2) | np.int64(code)) & mask
        for order in range(min(before, highest_order) + 1):
            counts[_offset(order) + (word & ((4 << (2 * order)) - 1))] += 1
        before += 1
        n_bases += 1
    return n_bases


@njit(nogil=True)
def _surprise(codes, order, counts, smoothings, bits):  # type: ignore[no-untyped-def]
    """Add -log2 p of each base but the first to `bits`; return the number of bases."""
    mask = (4 << (2 * order)) - 1
    word = 0
    before = 0
    n_bases = 0
    for position in range(codes.size):
        code = codes[position]
        if code > 3:
            before = 0
            continue
        word = ((word << 2) | np.int64(code)) & mask
        known = min(before, order)
        before += 1
        if position == 0:
            continue
        found = _offset(known) + (word & ((4 << (2 * known)) - 1))
        context = found - code
        n_word = float(counts[found])
        n_context = 0.0
        for base in range(4):
            n_context += counts[context + base]
        for i in range(smoothings.size):
            a = smoothings[i]
            bits[i] += np.log2((n_context + 4 * a) / (n_word + a))
        n_bases += 1
    return n_bases
