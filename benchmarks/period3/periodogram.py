"""Period 3 of a score inside coding sequence and outside genes.

Codons give coding sequence a period of three bases that other sequence lacks. A model that has
learned it is more sensitive at some codon positions than at others, so its track has that period
inside genes and not outside. The measure compares non-overlapping windows inside coding sequence
with windows outside genes.

The **peak** of a window is the power of its scores' periodogram at frequency 1/3, over the mean
power at all frequencies above zero: 1 for white noise, half the window's width for a pure period of
three. It depends neither on the scores' scale nor on the strand or frame of the gene.

Coordinates are 0-based, half-open. The sequence is taken to be circular where the annotation is
shifted along it; windows of the annotation as given do not cross the origin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numba import njit

from genoscan.errors import InputError

Interval = tuple[int, int]

WIDTH = 150
N_SHIFTS = 1000


@dataclass(frozen=True, slots=True)
class Period3:
    """The mean peak inside coding sequence over the mean peak outside genes.

    `p` is (1 + the shifts whose ratio is at least the observed one) / (1 + `n_shifts`).
    `n_dropped` windows, of either kind, have no peak: a score is missing or all are equal.
    """

    ratio: float
    mean_inside: float
    mean_outside: float
    n_inside: int
    n_outside: int
    n_dropped: int
    p: float
    n_shifts: int


@dataclass(frozen=True, slots=True)
class Periodograms:
    """The mean periodogram inside coding sequence and outside genes.

    Each window's power is divided by its mean over the frequencies, so that every window weighs
    the same; the values at frequency 1/3 are `Period3`'s means.
    """

    frequencies: Float[np.ndarray, " frequencies"]
    inside: Float[np.ndarray, " frequencies"]
    outside: Float[np.ndarray, " frequencies"]
    n_inside: int
    n_outside: int


@dataclass(frozen=True, slots=True)
class CodonMeans:
    """The mean score at codon positions 1, 2, 3 over coding intervals, and its standard error."""

    means: Float[np.ndarray, "3"]
    errors: Float[np.ndarray, "3"]
    n_intervals: int


def period3(
    scores: Float[np.ndarray, " length"],
    coding: Sequence[Interval],
    genic: Sequence[Interval],
    *,
    width: int = WIDTH,
    n_shifts: int = N_SHIFTS,
    seed: int = 0,
) -> Period3:
    """Compare period 3 inside coding sequence with that outside genes.

    `genic` are all annotated genes, such as tRNA and rRNA; coding sequence always counts as genic.
    Circular shifts keep the order and lengths of genes and gaps but not their relation to scores.

    Memory: 8 bytes a base beside the scores.
    Time: `width` additions per base, regardless of the number of shifts, and one look-up for each window
    and shift.

    Raises
    ------
    InputError
        If an interval lies off the sequence, the width is no multiple of three, or no window with
        scores lies inside coding sequence, or none outside genes.
    """
    if n_shifts < 1:
        raise InputError(f"{n_shifts} shifts: at least one is needed for a p value")
    inside, outside = _window_starts(len(scores), coding, genic, width)
    peaks = _peaks_everywhere(scores, width)
    mean_inside, n_inside = _mean_peak(peaks, inside)
    mean_outside, n_outside = _mean_peak(peaks, outside)
    _need_windows(n_inside, n_outside, width)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.divide(mean_inside, mean_outside))

    random = np.random.default_rng(seed)
    n_as_large = 0
    for shift in random.integers(1, len(scores), size=n_shifts):
        shifted_inside, _ = _mean_peak(peaks, (inside + shift) % len(scores))
        shifted_outside, _ = _mean_peak(peaks, (outside + shift) % len(scores))
        # A shift that leaves no windows has a NaN here, and counts against the track.
        n_as_large += not shifted_inside < ratio * shifted_outside
    return Period3(
        ratio=ratio,
        mean_inside=mean_inside,
        mean_outside=mean_outside,
        n_inside=n_inside,
        n_outside=n_outside,
        n_dropped=len(inside) + len(outside) - n_inside - n_outside,
        p=(1 + n_as_large) / (1 + n_shifts),
        n_shifts=n_shifts,
    )


def mean_periodograms(
    scores: Float[np.ndarray, " length"], coding: Sequence[Interval], genic: Sequence[Interval], *, width: int = WIDTH
) -> Periodograms:
    """Average the periodograms of the windows that `period3` compares.

    Raises
    ------
    InputError
        As `period3`.
    """
    inside, outside = _window_starts(len(scores), coding, genic, width)
    mean_inside, n_inside = _mean_periodogram(scores, inside, width)
    mean_outside, n_outside = _mean_periodogram(scores, outside, width)
    _need_windows(n_inside, n_outside, width)
    return Periodograms(
        frequencies=np.arange(1, width // 2 + 1) / width,
        inside=mean_inside,
        outside=mean_outside,
        n_inside=n_inside,
        n_outside=n_outside,
    )


def mean_by_codon_position(
    scores: Float[np.ndarray, " length"], coding: Sequence[Interval], strands: Sequence[str]
) -> CodonMeans:
    """Average the scores by codon position, `strands` is "+" or "-" for each interval.

    Every interval must begin with a whole codon in its reading direction: leave out later
    parts of a joined CDS whose earlier parts are no multiple of three. Bases past the last whole
    codon are left out, as are intervals that lack a score altogether at one of the positions.

    Raises
    ------
    InputError
        If there is not one strand for each interval, an interval lies off the sequence, or fewer
        than two intervals are left.
    """
    _check_intervals("coding", coding, len(scores))
    if len(strands) != len(coding):
        raise InputError(f"{len(strands)} strands for {len(coding)} coding intervals")
    rows = []
    for (start, end), strand in zip(coding, strands, strict=True):
        if strand not in ("+", "-"):
            raise InputError(f'strand "{strand}" of coding interval {start}-{end}: expected + or -')
        read = scores[start:end] if strand == "+" else scores[start:end][::-1]
        codons = read[: len(read) // 3 * 3].reshape(-1, 3).astype(np.float64)
        if np.isfinite(codons).any(axis=0).all():
            rows.append(np.mean(codons, axis=0, where=np.isfinite(codons)))
    if len(rows) < 2:
        raise InputError(f"{len(rows)} coding intervals with scores: at least two are needed")
    means = np.array(rows)
    return CodonMeans(
        means=means.mean(axis=0), errors=means.std(axis=0, ddof=1) / np.sqrt(len(rows)), n_intervals=len(rows)
    )


def _window_starts(
    length: int, coding: Sequence[Interval], genic: Sequence[Interval], width: int
) -> tuple[Int[np.ndarray, " inside"], Int[np.ndarray, " outside"]]:
    """Return the starts of the windows wholly inside coding sequence, and wholly outside genes."""
    if width < 3 or width % 3:
        raise InputError(f"windows of {width} bases: expected a multiple of three")
    _check_intervals("coding", coding, length)
    _check_intervals("genic", genic, length)
    # Where genes overlap, the later one gives way, so that no two windows share a base and yet
    # each lies in one reading frame.
    inside = []
    covered = 0
    for start, end in sorted(coding):
        inside.append(_tile(max(start, covered), end, width))
        covered = max(covered, end)
    outside = []
    covered = 0
    for start, end in [*sorted([*genic, *coding]), (length, length)]:
        outside.append(_tile(covered, start, width))
        covered = max(covered, end)
    return np.concatenate([np.empty(0, np.int64), *inside]), np.concatenate(outside)


def _tile(start: int, end: int, width: int) -> Int[np.ndarray, " windows"]:
    """Return the starts of the consecutive windows that fit."""
    return np.arange(start, end - width + 1, width, dtype=np.int64)


def _check_intervals(name: str, intervals: Sequence[Interval], length: int) -> None:
    for start, end in intervals:
        if not 0 <= start < end <= length:
            raise InputError(
                f"{name} interval {start}-{end}: expected 0 <= start < end <= {length}, the number of scores"
            )


def _need_windows(n_inside: int, n_outside: int, width: int) -> None:
    if n_inside == 0 or n_outside == 0:
        raise InputError(
            f"{n_inside} windows of {width} bases inside coding sequence and {n_outside} outside "
            "genes have scores: at least one of each is needed"
        )


def _mean_peak(peaks: Float[np.ndarray, " length"], starts: Int[np.ndarray, " windows"]) -> tuple[float, int]:
    """Return the mean over the windows that have a peak, NaN if none has, and their number."""
    found = peaks[starts]
    found = found[~np.isnan(found)]
    return (float(found.mean()) if found.size else np.nan), found.size


def _mean_periodogram(
    scores: Float[np.ndarray, " length"], starts: Int[np.ndarray, " windows"], width: int
) -> tuple[Float[np.ndarray, " frequencies"], int]:
    """Return the mean periodogram of the windows that have a peak, and their number."""
    total = np.zeros(width // 2)
    n_windows = 0
    for piece in np.array_split(starts, len(starts) // 4096 + 1):
        windows = scores[piece[:, None] + np.arange(width)].astype(np.float64)
        windows = windows[np.isfinite(windows).all(axis=1) & (np.ptp(windows, axis=1) > 0)]
        power = np.abs(np.fft.rfft(windows, axis=1)[:, 1:]) ** 2
        total += (power / power.mean(axis=1, keepdims=True)).sum(axis=0)
        n_windows += len(windows)
    return (total / n_windows if n_windows else total), n_windows


def _peaks_everywhere(scores: Float[np.ndarray, " length"], width: int) -> Float[np.ndarray, " length"]:
    """Return the peak of the window that starts at each base, round the end to the beginning."""
    if len(scores) < width:
        return np.full(len(scores), np.nan)
    peaks = np.empty(len(scores))
    _fill_peaks(np.concatenate([scores, scores[: width - 1]]), width, peaks)
    return peaks


@njit(nogil=True)
def _fill_peaks(scores, width, peaks):  # type: ignore[no-untyped-def]
    """Fill in the peak of the window at each base; NaN where a score is missing or all are equal.

    At frequency 1/3 the transform needs only the three sums at every third base. By Parseval the
    power over all frequencies is the width times the squares about the mean; each positive
    frequency counts twice in it, but for 1/2, which an even width has and which counts once.
    """
    for start in range(peaks.size):
        # Measured from the first score, equal scores are exactly zero, however the mean rounds.
        first = float(scores[start])
        mean = 0.0
        for i in range(start, start + width):
            mean += scores[i] - first
        mean /= width
        squares = 0.0
        half = 0.0
        sign = 1.0
        sum_0 = 0.0
        sum_1 = 0.0
        sum_2 = 0.0
        for i in range(start, start + width, 3):
            value_0 = scores[i] - first - mean
            value_1 = scores[i + 1] - first - mean
            value_2 = scores[i + 2] - first - mean
            sum_0 += value_0
            sum_1 += value_1
            sum_2 += value_2
            squares += value_0 * value_0 + value_1 * value_1 + value_2 * value_2
            half += sign * (value_0 - value_1 + value_2)
            sign = -sign
        third = ((sum_0 - sum_1) ** 2 + (sum_1 - sum_2) ** 2 + (sum_2 - sum_0) ** 2) / 2
        positive = width * squares / 2
        if width % 2 == 0:
            positive += half * half / 2
        if positive > 0:
            peaks[start] = third * (width // 2) / positive
        else:
            peaks[start] = np.nan
