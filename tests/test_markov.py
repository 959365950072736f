"""The Markov baseline on synthetic sequences whose answers are known by thought."""

import math
from bisect import bisect
from collections import Counter

import numpy as np
import pytest

from genoscan.errors import InputError
from genoscan.training.markov import SMOOTHINGS, bits_per_base, count_words, markov_baseline, select_order

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
            [uniform(100_000, 0)], [uniform(20_000, 1)], {"other": [uniform(20_000, 2)]}, highest_order=8
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

    @pytest.mark.parametrize(("letters", "n_scored"), [("ACGT", 3), ("ACNNGT", 3), ("NACG", 3), ("A", 0), ("NNN", 0)])
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
