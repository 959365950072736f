"""Multivariate series and their classes: synthetic ones, and those of the UEA archive."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from genoscan.errors import InputError

LENGTH, CHANNELS = 17_984, 6
"""Sizes of EigenWorms and of the planted task."""

_MOTIF, _NOISE = 64, 0.3


class SeriesError(InputError):
    """A file does not conform to the .ts format."""


@dataclass(frozen=True)
class Series:
    """Series of equal length and their classes."""

    x: Float32[np.ndarray, "cases length channels"]
    labels: Int64[np.ndarray, " cases"]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: Int64[np.ndarray, " some"]) -> "Series":
        """Return a subset of the cases."""
        return Series(self.x[rows], self.labels[rows], self.classes)


def planted(n: int, length: int, seed: int, n_motifs: int = 2) -> Series:
    """Return `n` series of noise with one motif of each of `n_motifs` kinds; the class is the parity of their order.

    For two motifs, it is the motif that comes first.  For three, it is whether the order is a rotation of that
    of the channels, so that no two of them determine it.  A motif is a bump in its share of the channels.  The
    ranges of successive motifs are as long as the gaps between them, with fixed borders.
    """
    random = np.random.default_rng(seed)
    x = _NOISE * random.standard_normal((n, length, CHANNELS), dtype=np.float32)
    bump = 3 * np.hanning(_MOTIF).astype(np.float32)[:, None]
    n_ranges, n_channels = 2 * n_motifs - 1, CHANNELS // n_motifs
    orders = np.argsort(random.random((n, n_motifs)), 1)
    labels = np.zeros(n, np.int64)
    for i, order in enumerate(orders):
        labels[i] = sum(a > b for a, b in combinations(order, 2)) % 2
        for place, motif in enumerate(order):
            first = 2 * place * length // n_ranges
            at = int(random.integers(first, (2 * place + 1) * length // n_ranges - _MOTIF))
            x[i, at : at + _MOTIF, motif * n_channels : (motif + 1) * n_channels] += bump
    return Series(x, labels, ("even", "odd"))


def fresh(n_motifs: int, random: np.random.Generator, n: int, length: int) -> Series:
    """Return `n` new planted series, with a seed drawn from a generator."""
    return planted(n, length, int(random.integers(2**31)), n_motifs)


def read_ts(paths: list[Path]) -> Series:
    """Read files in the .ts format of the UEA archive (Bagnall et al., arXiv 1811.00075) as one.

    Raises
    ------
    SeriesError
        If a file or line is malformed, lengths differ, or a value is missing; with file and line.
    """
    cases: list[np.ndarray] = []
    names: list[str] = []
    for path in paths:
        for number, line in _cases(path):
            *dimensions, name = line.split(":")
            if not dimensions:
                raise SeriesError(f"{path}:{number}: expected dimensions and a class, colons between")
            try:
                case = np.array([d.split(",") for d in dimensions], dtype=np.float32).T
            except ValueError:
                raise SeriesError(f"{path}:{number}: expected numbers, as many in every dimension") from None
            if cases and case.shape != cases[0].shape:
                raise SeriesError(
                    f"{path}:{number}: {case.shape[0]:,} steps of {case.shape[1]} dimensions, "
                    f"expected {cases[0].shape[0]:,} of {cases[0].shape[1]} as in the first case"
                )
            if not np.isfinite(case).all():
                raise SeriesError(f"{path}:{number}: a value is missing or not finite")
            cases.append(case)
            names.append(name.strip())
    classes = tuple(sorted(set(names)))
    if len(classes) < 2:
        raise SeriesError(f"{paths[0]}: {len(classes)} classes, expected at least 2")
    labels = np.array([classes.index(name) for name in names])
    return Series(np.stack(cases), labels, classes)


def _cases(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of every line after @data."""
    begun = False
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                text = line.strip()
                if begun and text:
                    yield number, text.replace("?", "nan")
                begun = begun or text.lower() == "@data"
    except (OSError, UnicodeDecodeError) as error:
        raise SeriesError(f"{path}: cannot be read: {error}") from None
    if not begun:
        raise SeriesError(f"{path}: there is no @data line: expected a .ts file")


def split(series: Series, seed: int) -> tuple[Series, Series, Series]:
    """Return 70, 15 and 15 % of the cases, standardised by mean and spread of the first part."""
    order = np.random.default_rng(seed).permutation(len(series))
    edges = [len(order) * 70 // 100, len(order) * 85 // 100]
    parts = [series.part(rows) for rows in np.split(order, edges)]
    mean, spread = parts[0].x.mean((0, 1)), parts[0].x.std((0, 1)) + 1e-6
    first, second, third = (Series((part.x - mean) / spread, part.labels, part.classes) for part in parts)
    return first, second, third
