"""Markov baseline: next-base prediction from word counts.

Trained models are compared with a Markov chain. The order k and the smoothing a of the chain are selected
on the validation sequences. The probability of a base is computed from counts of words, on both strands
of the training sequences:

p(base | preceding k bases) = (n(word) + a) / (n(context) + 4 a)

where n(word) is the count of the k bases followed by the base, and n(context) is the count of the k bases
followed by any base. Near the start of a sequence or after an N, fewer than k known bases may precede a
base. In this case, the order is reduced to the number of known bases. Therefore, every A, C, G and T
except the first base of each sequence is scored, as for next-base models.
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
    """Counts of all words of 1 to `highest_order` + 1 bases, on both strands.

    Attributes
    ----------
    highest_order
        Length of the longest context, in bases.
    counts
        Count of each possible word. Shorter words precede longer words.
    n_bases
        Number of bases counted, on one strand.

    Notes
    -----
    The counts need 4 bytes of memory per possible word (358 MB at order 12).
    """

    highest_order: int
    counts: UInt32[np.ndarray, " words"]
    n_bases: int


@dataclass(frozen=True, slots=True)
class OrderScore:
    """Validation score of the Markov chain of one order, with the best smoothing for this order.

    Attributes
    ----------
    order
        Length of the context, in bases.
    smoothing
        Additive smoothing that gives the best score.
    validation_bits
        Bits per base on the validation sequences.
    """

    order: int
    smoothing: float
    validation_bits: float


@dataclass(frozen=True, slots=True)
class HeldOutScore:
    """Score of the selected chain on one set of held-out sequences.

    Attributes
    ----------
    bits
        Bits per base.
    n_bases
        Number of bases scored.
    """

    bits: float
    n_bases: int


@dataclass(frozen=True, slots=True)
class MarkovBaseline:
    """Markov chain that was selected on the validation sequences, and its scores.

    Attributes
    ----------
    order
        Length of the context, in bases.
    smoothing
        Additive smoothing.
    validation_bits
        Bits per base on the validation sequences.
    validation_bases
        Number of validation bases scored.
    training_bases
        Number of training bases counted, on one strand.
    held_out
        Score on each set of held-out sequences, keyed by the name of the set.
    by_order
        Validation score of each order, from the lowest order to the highest.
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
    """Select a Markov chain on validation sequences and score it on held-out sequences.

    Parameters
    ----------
    training, validation
        Base codes, one array per sequence.
    held_out
        Sets of sequences, by name. They are not used to select the chain.
    highest_order
        Highest order to try.
    smoothings
        Additive smoothing values to try.

    Returns
    -------
    MarkovBaseline
        The selected chain and its scores.

    Raises
    ------
    InputError
        If the training set, the validation set or a held-out set has no base that can be scored, or if
        `highest_order` or a smoothing is not positive.

    Notes
    -----
    Words that contain an N or extend over two sequences are not counted. The counts need 4 bytes of
    memory per possible word (358 MB at order 12), regardless of the length of the sequences.
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
    """Count all words of 1 to `highest_order` + 1 bases, on both strands.

    Parameters
    ----------
    sequences
        Base codes, one array per sequence.
    highest_order
        Length of the longest context, in bases.

    Returns
    -------
    WordCounts
        Counts of all words.

    Raises
    ------
    InputError
        If `highest_order` is below 1, or the sequences contain no A, C, G or T.

    Notes
    -----
    The counts need 4 bytes of memory per possible word (358 MB at order 12).
    """
    if highest_order < 1:
        raise InputError(f"highest order {highest_order}: expected 1 or more")
    counts = np.zeros(_offset(highest_order + 1), np.uint32)
    n_bases = 0
    for codes in sequences:
        n_bases += _count(codes, highest_order, counts)
        # With codes 0 to 3 for A, C, G, T the complement is 3 - code; N wraps to 255, which is not a base.
        _count(3 - codes[::-1], highest_order, counts)
    if n_bases == 0:
        raise InputError("training sequences: no base to count, expected A, C, G or T")
    return WordCounts(highest_order, counts, n_bases)


def select_order(
    counts: WordCounts, validation: Sequence[UInt8[np.ndarray, " _"]], smoothings: Sequence[float]
) -> tuple[tuple[OrderScore, ...], int]:
    """Score the Markov chain of each order, with the best smoothing for this order.

    Parameters
    ----------
    counts
        Word counts of the training sequences.
    validation
        Base codes, one array per sequence.
    smoothings
        Additive smoothing values to try.

    Returns
    -------
    by_order
        Score of each order from 1 to `counts.highest_order`.
    n_bases
        Number of bases scored.

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
    counts: WordCounts, sequences: Sequence[UInt8[np.ndarray, " _"]], order: int, smoothings: Sequence[float]
) -> tuple[Float[np.ndarray, " smoothings"], int]:
    """Return the mean of -log2 p(base) over all scored bases, for each smoothing.

    Parameters
    ----------
    counts
        Word counts.
    sequences
        Base codes, one array per sequence.
    order
        Length of the context, in bases.
    smoothings
        Additive smoothing values.

    Returns
    -------
    bits
        Mean for each smoothing; NaN if there is no base to score.
    n_bases
        Number of bases scored.

    Raises
    ------
    InputError
        If `order` is negative or above `counts.highest_order`, or a smoothing is not above zero.
    """
    if not 0 <= order <= counts.highest_order:
        raise InputError(f"order {order}: expected 0 to {counts.highest_order}, as counted")
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
    """Return the offset, in the table of counts, of the words that have `order` + 1 bases."""
    return ((4 << (2 * order)) - 4) // 3


@njit(nogil=True)
def _count(codes, highest_order, counts):  # type: ignore[no-untyped-def]
    """Increment `counts` for the words that end at each base; return the number of known bases."""
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
    """Add the sum of -log2 p(base) over all scored bases to `bits`; return the number of scored bases.

    `bits` has one entry per smoothing. Every A, C, G and T is scored, except at position 0.
    """
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
