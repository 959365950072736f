"""Measurements on synthetic sequences and tracks whose answers are known by thought."""

import math
from bisect import bisect
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from genoscan.bench.markov import (
    SMOOTHINGS,
    bits_per_base,
    count_words,
    markov_baseline,
    select_order,
)
from genoscan.bench.period3 import (
    _fill_peaks,
    _window_starts,
    mean_by_codon_position,
    mean_periodograms,
    period3,
    period3_figure,
)
from genoscan.errors import InputError

N = 4


def encode(letters: str) -> np.ndarray:
    return np.array(["ACGTN".index(letter) for letter in letters], np.uint8)


def uniform(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, length, dtype=np.uint8)


def entropy(probabilities: np.ndarray) -> float:
    return float(-(probabilities * np.log2(probabilities)).sum())


def order_2_source() -> tuple[np.ndarray, float]:
    """Return word probabilities that read the same on both strands, and their bits per base.

    Counting both strands learns a source exactly only if its strands look alike. The mean of a
    source's words and of their reverse complements belongs to such a source.
    """
    step = np.random.default_rng(3).dirichlet([0.4] * 4, size=(4, 4))
    pairs = np.full((4, 4), 1 / 16)
    for _ in range(2000):
        pairs = (pairs[:, :, None] * step).sum(axis=0)
    words = pairs[:, :, None] * step
    words = (words + words.transpose(2, 1, 0)[::-1, ::-1, ::-1]) / 2
    return words, entropy(words) - entropy(words.sum(axis=2))


def draw(words: np.ndarray, length: int, seed: int) -> np.ndarray:
    steps = np.cumsum(words / words.sum(axis=2, keepdims=True), axis=2).tolist()
    bases = [0, 1]
    for value in np.random.default_rng(seed).random(length - 2).tolist():
        bases.append(min(bisect(steps[bases[-2]][bases[-1]], value), 3))
    return np.array(bases, np.uint8)


class PlainMarkov:
    """The same model from the definition, on strings."""

    def __init__(self, training: list[np.ndarray]) -> None:
        self.counts: Counter[str] = Counter()
        for codes in training:
            text = self.text(codes)
            complement = text[::-1].translate(str.maketrans("0123", "3210"))
            for strand in (text, complement):
                for start in range(len(strand)):
                    for end in range(start + 1, min(start + 6, len(strand)) + 1):
                        self.counts[strand[start:end]] += 1

    @staticmethod
    def text(codes: np.ndarray) -> str:
        return "".join(map(str, codes))

    def bits(self, codes: np.ndarray, order: int, a: float) -> list[float]:
        text = self.text(codes)
        bits = []
        for i in range(1, len(text)):
            if text[i] == "4":
                continue
            context = text[max(0, i - order) : i].rsplit("4", maxsplit=1)[-1]
            total = sum(self.counts[context + base] for base in "0123")
            bits.append(-math.log2((self.counts[context + text[i]] + a) / (total + 4 * a)))
        return bits


class TestMarkov:
    def test_uniform_bases_take_two_bits(self) -> None:
        baseline = markov_baseline(
            [uniform(100_000, 0)],
            [uniform(20_000, 1)],
            {"other": [uniform(20_000, 2)]},
            highest_order=8,
        )
        assert baseline.held_out["other"].bits == pytest.approx(2, abs=0.002)
        assert baseline.validation_bits == pytest.approx(2, abs=0.002)

    def test_the_source_is_recovered(self) -> None:
        words, bits = order_2_source()
        baseline = markov_baseline(
            [draw(words, 200_000, 0)],
            [draw(words, 50_000, 1)],
            {"other": [draw(words, 50_000, 2), draw(words, 50_000, 3)]},
            highest_order=6,
        )
        assert bits < 1.7
        assert baseline.order == 2
        assert baseline.held_out["other"].bits == pytest.approx(bits, abs=0.01)
        assert baseline.held_out["other"].n_bases == 99_998
        assert baseline.by_order[0].validation_bits > bits + 0.05

    @pytest.mark.parametrize("order", [0, 1, 3, 5])
    def test_equals_the_definition(self, order: int) -> None:
        rng = np.random.default_rng(4)
        alphabet = [0.28, 0.22, 0.2, 0.25, 0.05]
        training = [rng.choice(5, size, p=alphabet).astype(np.uint8) for size in (400, 1, 90)]
        scored = [rng.choice(5, size, p=alphabet).astype(np.uint8) for size in (200, 70)]
        plain = PlainMarkov(training)
        counts = count_words(training, 5)
        bits, n_bases = bits_per_base(counts, scored, order, [0.1, 7.0])
        for a, found in zip([0.1, 7.0], bits, strict=True):
            expected = [value for codes in scored for value in plain.bits(codes, order, a)]
            assert n_bases == len(expected)
            assert found == pytest.approx(np.mean(expected), rel=1e-12)

    def test_both_strands_count_alike(self) -> None:
        sequence = draw(order_2_source()[0], 5_000, 5)
        sequence[700:720] = N
        complement = np.where(sequence == N, N, 3 - sequence)[::-1].astype(np.uint8)
        forward, backward = count_words([sequence], 4), count_words([complement], 4)
        assert np.array_equal(forward.counts, backward.counts)
        assert forward.n_bases == 4_980

    @pytest.mark.parametrize(
        ("letters", "n_scored"), [("ACGT", 3), ("ACNNGT", 3), ("NACG", 3), ("A", 0), ("NNN", 0)]
    )
    def test_every_base_but_a_first_one_is_scored(self, letters: str, n_scored: int) -> None:
        counts = count_words([uniform(100, 6)], 3)
        bits, n_bases = bits_per_base(counts, [encode(letters)], 3, [1.0])
        assert n_bases == n_scored
        assert np.isnan(bits[0]) == (n_scored == 0)

    def test_words_do_not_cross_an_edge_or_n(self) -> None:
        """Of A, C alone no pair is ever seen, so one base says nothing about the next."""
        for pieces in (["A", "C"] * 50, ["ANC" * 50]):
            counts = count_words([encode(piece) for piece in pieces], 1)
            bits, _ = bits_per_base(counts, [encode("AC")], 1, [0.01])
            assert bits[0] == pytest.approx(2)

    def test_validation_chooses_and_held_out_does_not(self) -> None:
        words, _ = order_2_source()
        training, validation = [draw(words, 20_000, 0)], [draw(words, 5_000, 1)]
        choices = [
            markov_baseline(training, validation, {"x": [sequence]}, highest_order=4)
            for sequence in (uniform(500, 7), draw(words, 500, 8))
        ]
        assert choices[0].by_order == choices[1].by_order
        assert [score.order for score in choices[0].by_order] == [1, 2, 3, 4]
        best = min(choices[0].by_order, key=lambda score: score.validation_bits)
        assert (choices[0].order, choices[0].smoothing) == (best.order, best.smoothing)
        counts = count_words(training, 4)
        bits, _ = bits_per_base(counts, validation, best.order, SMOOTHINGS)
        assert best.validation_bits == bits.min()

    def test_input_errors(self) -> None:
        sequence, unknown = uniform(50, 9), encode("NNNN")
        counts = count_words([sequence], 2)
        with pytest.raises(InputError, match="training sequences"):
            count_words([unknown], 2)
        with pytest.raises(InputError, match="highest order 0"):
            count_words([sequence], 0)
        with pytest.raises(InputError, match="validation sequences"):
            select_order(counts, [unknown], [1.0])
        with pytest.raises(InputError, match="order 3"):
            bits_per_base(counts, [sequence], 3, [1.0])
        with pytest.raises(InputError, match="above zero"):
            bits_per_base(counts, [sequence], 2, [1.0, 0.0])
        with pytest.raises(InputError, match="held-out empty"):
            markov_baseline([sequence], [sequence], {"empty": []}, highest_order=2)


LENGTH = 120_000
GENES = [(start, start + 900) for start in range(500, LENGTH - 2_000, 1_500)]
RHYTHM = np.cos(2 * np.pi * np.arange(LENGTH) / 3)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=LENGTH)


def inside_genes() -> np.ndarray:
    mask = np.zeros(LENGTH, bool)
    for start, end in GENES:
        mask[start:end] = True
    return mask


class TestPeriod3:
    def test_a_planted_rhythm_is_found(self) -> None:
        scores = (noise() + RHYTHM * inside_genes()).astype(np.float32)
        found = period3(scores, GENES, GENES)
        assert found.ratio > 10
        assert found.p == 1 / 1001
        assert found.n_inside == 6 * len(GENES)
        assert found.n_outside == 4 * (len(GENES) - 1) + 3 + (LENGTH - GENES[-1][1]) // 150
        assert (found.n_dropped, found.n_shifts) == (0, 1000)

    def test_white_noise_has_none(self) -> None:
        found = period3(noise(), GENES, GENES)
        assert found.ratio == pytest.approx(1, abs=0.15)
        assert found.mean_inside == pytest.approx(1, abs=0.15)
        assert found.p > 0.01

    @pytest.mark.parametrize("rhythm", [0, 1])
    def test_p_is_uniform_where_nothing_is_bound_to_genes(self, rhythm: float) -> None:
        """A rhythm everywhere is as little a gene's as none at all."""
        found = [
            period3(noise(seed) + rhythm * RHYTHM, GENES, GENES, n_shifts=99) for seed in range(30)
        ]
        p = np.array([measure.p for measure in found])
        assert np.median(p) == pytest.approx(0.5, abs=0.25)
        assert (p <= 0.05).sum() <= 4
        assert np.mean([measure.ratio for measure in found]) == pytest.approx(1, abs=0.05)

    def test_a_pure_rhythm_peaks_at_half_the_width(self) -> None:
        scores = np.where(inside_genes(), RHYTHM, noise())
        assert period3(scores, GENES, GENES, n_shifts=1).mean_inside == pytest.approx(75)

    def test_the_seed_settles_p(self) -> None:
        scores = noise() + 0.1 * RHYTHM * inside_genes()
        assert period3(scores, GENES, GENES) == period3(scores, GENES, GENES)

    @pytest.mark.parametrize("width", [3, 9, 12, 150])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_peaks_equal_the_fourier_transform(self, width: int, dtype: type) -> None:
        scores = (np.random.default_rng(1).normal(size=500) + 40).astype(dtype)
        peaks = np.empty(len(scores) - width + 1)
        _fill_peaks(scores, width, peaks)
        windows = np.lib.stride_tricks.sliding_window_view(scores.astype(np.float64), width)
        power = np.abs(np.fft.rfft(windows, axis=1)) ** 2
        expected = power[:, width // 3] / power[:, 1:].mean(axis=1)
        np.testing.assert_allclose(peaks, expected, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("missing", [np.nan, np.inf])
    def test_windows_without_a_peak_are_dropped(self, missing: float) -> None:
        scores = noise()
        scores[700] = missing
        scores[1_450] = missing
        scores[GENES[3][0] : GENES[3][0] + 300] = 0.1
        found = period3(scores, GENES, GENES, n_shifts=20)
        whole = period3(noise(), GENES, GENES, n_shifts=20)
        assert found.n_dropped == 4
        assert found.n_inside == whole.n_inside - 3
        assert found.n_outside == whole.n_outside - 1
        periodograms = mean_periodograms(scores, GENES, GENES)
        assert (periodograms.n_inside, periodograms.n_outside) == (found.n_inside, found.n_outside)

    def test_windows_share_no_base_and_outside_touches_no_gene(self) -> None:
        coding = [(100, 1_000), (990, 1_700), (400, 700), (3_000, 3_149)]
        genic = [(1_900, 2_000), (1_950, 1_960)]
        inside, outside = _window_starts(4_000, coding, genic, 150)
        assert inside.tolist() == [*range(100, 851, 150), *range(1_000, 1_551, 150)]
        assert outside.tolist() == [
            1_700,
            *range(2_000, 2_851, 150),
            *range(3_149, 3_750, 150),
        ]
        assert all(b - a >= 150 for a, b in pairwise(sorted([*inside, *outside])))

    def test_input_errors(self) -> None:
        scores = noise()
        with pytest.raises(InputError, match="multiple of three"):
            period3(scores, GENES, GENES, width=100)
        with pytest.raises(InputError, match="coding interval 5-5"):
            period3(scores, [(5, 5)], GENES)
        with pytest.raises(InputError, match="genic interval"):
            period3(scores, GENES, [(0, LENGTH + 1)])
        with pytest.raises(InputError, match="0 outside genes"):
            period3(scores, GENES, [(0, LENGTH)])
        with pytest.raises(InputError, match="0 windows"):
            period3(scores[:100], [(0, 50)], [])
        with pytest.raises(InputError, match="0 shifts"):
            period3(scores, GENES, GENES, n_shifts=0)


class TestPeriod3Figure:
    def test_the_curves_hold_the_measure(self) -> None:
        scores = noise() + RHYTHM * inside_genes()
        measure = period3(scores, GENES, GENES, n_shifts=1)
        periodograms = mean_periodograms(scores, GENES, GENES)
        assert periodograms.frequencies[49] == pytest.approx(1 / 3)
        assert periodograms.frequencies[-1] == 0.5
        assert periodograms.inside[49] == pytest.approx(measure.mean_inside)
        assert periodograms.outside[49] == pytest.approx(measure.mean_outside)
        assert periodograms.inside.mean() == pytest.approx(1)

    def test_codon_positions_follow_the_strand(self) -> None:
        scores = np.full(100, 9.0)
        scores[10:40] = np.tile([1.0, 2.0, 3.0], 10)
        scores[50:82] = [8.0, 8.0, *np.tile([3.0, 2.0, 1.0], 10)]
        scores[10] = np.nan
        scores[90:93] = np.nan
        found = mean_by_codon_position(scores, [(10, 40), (50, 82), (90, 93)], ["+", "-", "+"])
        assert found.means.tolist() == [1, 2, 3]
        assert found.errors.tolist() == [0, 0, 0]
        assert found.n_intervals == 2

    def test_codon_position_errors(self) -> None:
        scores = noise()
        with pytest.raises(InputError, match="1 strands for 2"):
            mean_by_codon_position(scores, GENES[:2], ["+"])
        with pytest.raises(InputError, match=r'strand "\."'):
            mean_by_codon_position(scores, GENES[:2], ["+", "."])
        with pytest.raises(InputError, match="at least two"):
            mean_by_codon_position(scores, GENES[:1], ["+"])

    def test_it_is_drawn(self, tmp_path) -> None:
        scores = noise()
        periodograms = mean_periodograms(scores, GENES, GENES)
        by_codon = mean_by_codon_position(scores, GENES, ["+"] * len(GENES))
        assert len(period3_figure(periodograms).data) == 2
        figure = period3_figure(periodograms, by_codon=by_codon, title="noise")
        assert len(figure.data) == 3
        path = tmp_path / "period3.html"
        figure.write_html(path, include_plotlyjs=False)
        assert "inside coding (474 windows)" in path.read_text()
