"""Dependency maps: one value for each pair of a mutated base (row) and a read base (column).

A dense map stores every pair of a row and a column. A band stores, for each row, only the columns at most
`band` bases away.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import N
from genoscan.genome.region import Region
from genoscan.notebook import ROWS_SHOWN, show_frame

_BLOCK = 1 << 20


def layout_width(columns: Region, band: int | None) -> int:
    """Return the number of values stored for each row of a map (see `Layout`)."""
    return len(columns) if band is None else 2 * band + 1


@dataclass(frozen=True, eq=False)
class Layout:
    """Pairs of bases of which a map consists.

    Attributes
    ----------
    rows
        Positions of the mutated bases, 0-based and ascending.
    columns
        Region of the read bases.
    band
        Maximum distance, in bases, of the two bases of a pair. If None, all pairs are stored.
    """

    rows: Int64[np.ndarray, " rows"]
    columns: Region
    band: int | None = None

    @property
    def width(self) -> int:
        """Number of values stored for each row."""
        return layout_width(self.columns, self.band)

    @property
    def size(self) -> int:
        """Number of stored values."""
        return len(self.rows) * self.width

    @property
    def first(self) -> Int64[np.ndarray, " rows"]:
        """Position to which the first stored value of each row belongs; it may lie outside `columns`."""
        return np.full(len(self.rows), self.columns.start) if self.band is None else self.rows - self.band


class Block(NamedTuple):
    """Some consecutive rows of a map.

    Attributes
    ----------
    rows
        Indices of the rows.
    positions
        Position of the read base of each value.
    values
        Values of the rows, as a view of the map.
    """

    rows: slice
    positions: Int64[np.ndarray, "rows width"]
    values: Float[np.ndarray, "rows width"]


class Pair(NamedTuple):
    """A mutated base, a read base (0-based positions) and the value of the pair."""

    row: int
    column: int
    value: float


@dataclass(frozen=True, eq=False, repr=False)
class DependencyMap:
    """Dependency map of a part of a genome.

    Attributes
    ----------
    layout
        Pairs of bases of which the map consists.
    values
        Values, one row per mutated base. The diagonal is 0. Values at N, and values of a band outside
        `layout.columns`, are NaN.
    row_codes, column_codes
        Base codes of the mutated and of the read bases.
    symmetric
        Whether the map is equal to its transpose.
    """

    layout: Layout
    values: Float[np.ndarray, "rows width"]
    row_codes: UInt8[np.ndarray, " rows"]
    column_codes: UInt8[np.ndarray, " columns"]
    symmetric: bool = False

    def __repr__(self) -> str:
        read = self.layout.columns
        band = "" if self.layout.band is None else f" at most {self.layout.band:,} bases away"
        largest = f"; largest value {pairs[0].value:.3g}" if (pairs := self.strongest(1)) else ""
        return f"DependencyMap({read}, {len(self.values):,} mutated and {len(read):,} read bases{band}{largest})"

    def blocks(self) -> Iterator[Block]:
        """Yield the map in blocks of rows, of about a million values each."""
        step, first = max(1, _BLOCK // self.layout.width), self.layout.first
        for start in range(0, len(self.values), step):
            rows = slice(start, min(start + step, len(self.values)))
            yield Block(rows, first[rows, None] + np.arange(self.layout.width), self.values[rows])

    def influence(self) -> Float32[np.ndarray, " rows"]:
        """Return the mean over all other read bases of the values of each mutated base; NaN at N."""
        found = np.full(len(self.values), np.nan, np.float32)
        for rows, positions, values in self.blocks():
            counted = np.isfinite(values) & (positions != self.layout.rows[rows, None])
            n = counted.sum(1)
            total = np.where(counted, values, 0).sum(1, dtype=np.float64)
            found[rows] = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
        return found

    def strongest(self, count: int) -> list[Pair]:
        """Return the pairs of the largest values, in descending order; pairs of value 0 are left out.

        Of a symmetric map, each pair is returned once, with the smaller position as `row`.
        """
        kept: list[np.ndarray] = []
        for rows, positions, values in self.blocks():
            places = np.broadcast_to(self.layout.rows[rows, None], positions.shape)
            chosen = values > 0
            if self.symmetric:
                chosen &= places < positions
            if 0 < count < np.count_nonzero(chosen):
                # Sorting all of them would take most of the time; equal values are kept.
                chosen &= values >= np.partition(values[chosen], -count)[-count]
            kept.append(np.stack([places[chosen], positions[chosen], values[chosen].astype(np.float64)]))
            merged = np.concatenate(kept, 1)
            # Ties are broken by position, so that the result does not depend on the blocks.
            order = np.lexsort((merged[1], merged[0], -merged[2]))[:count]
            kept = [merged[:, order]]
        return [Pair(int(row), int(column), float(value)) for row, column, value in kept[0].T]

    def dense(self) -> Float32[np.ndarray, "rows columns"]:
        """Return the map with a value for each row and column; those outside a band are NaN."""
        if self.layout.band is None:
            return self.values.astype(np.float32)
        found = np.full((len(self.values), len(self.layout.columns)), np.nan, np.float32)
        for rows, positions, values in self.blocks():
            inside = np.isfinite(values)
            which, _ = np.nonzero(inside)
            found[rows][which, positions[inside] - self.layout.columns.start] = values[inside]
        return found

    def _repr_html_(self) -> str:
        import pandas as pd

        pairs = self.strongest(ROWS_SHOWN)
        rows = [(pair.row + 1, pair.column + 1, pair.value) for pair in pairs]
        return show_frame(self, pd.DataFrame(rows, columns=["mutated position", "read position", "value"]))


def mark_unknown(found: DependencyMap) -> None:
    """Set the values at N, and the values of a band outside the columns, to NaN, in place."""
    known = found.column_codes < N
    for rows, positions, values in found.blocks():
        at = positions - found.layout.columns.start
        inside = (at >= 0) & (at < len(known))
        values[~inside | ~known[at.clip(0, len(known) - 1)]] = np.nan
        values[found.row_codes[rows] >= N] = np.nan


def symmetrise(found: DependencyMap, how: str) -> DependencyMap:
    """Combine each value with that of the pair in which the two bases are exchanged.

    Parameters
    ----------
    found
        Map whose rows are all bases of its columns.
    how
        "mean" for (x + x') / 2, or "max" for the larger of the two; "none" returns the map unchanged.

    Returns
    -------
    DependencyMap
        Symmetric map.

    Raises
    ------
    InputError
        If `how` is invalid, or the rows and columns differ.
    """
    if how == "none":
        return found
    check_symmetrise(found.layout, how)
    values = found.values.copy()
    if found.layout.band is None:
        values = _combine(values, values.T, how)
    else:
        band = found.layout.band
        for distance in range(1, min(band + 1, len(values))):
            both = _combine(values[:-distance, band + distance], values[distance:, band - distance], how)
            values[:-distance, band + distance] = values[distance:, band - distance] = both
    return replace(found, values=values, symmetric=True)


def check_symmetrise(layout: Layout, how: str) -> None:
    """Raise an error if `how` is invalid, or if a map of this layout cannot be symmetric."""
    if how not in ("none", "mean", "max"):
        raise InputError(f"--symmetrise {how}: expected none, mean or max")
    square = len(layout.rows) == len(layout.columns) and layout.rows[0] == layout.columns.start
    if how != "none" and not square:
        raise InputError(
            f"--symmetrise {how}: the mutated and the read bases differ, expected the same; leave out --rows and "
            "--columns, or --symmetrise"
        )


def _combine(one: np.ndarray, other: np.ndarray, how: str) -> np.ndarray:
    if how == "max":
        return np.maximum(one, other)
    return (one + other) / 2
