"""Period 3 of synthetic scores whose answers are known by thought."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.period3.figure import period3_figure
from benchmarks.period3.periodogram import (
    _fill_peaks,
    _window_starts,
    mean_by_codon_position,
    mean_periodograms,
    period3,
)
from genoscan.errors import InputError

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
        found = [period3(noise(seed) + rhythm * RHYTHM, GENES, GENES, n_shifts=99) for seed in range(30)]
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
        assert outside.tolist() == [1_700, *range(2_000, 2_851, 150), *range(3_149, 3_750, 150)]
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
