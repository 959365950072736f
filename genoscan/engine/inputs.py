"""Inputs to the engine: windows that are read tile by tile."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genoscan.errors import InputError

_N_BASES = 4
_BLOCK = 1024
"""Number of positions whose noise is generated together."""


@runtime_checkable
class Inputs(Protocol):
    """A window, or a batch of windows of equal length, that is read tile by tile."""

    @property
    def length(self) -> int:
        """Number of positions in a window."""
        ...

    @property
    def batch(self) -> int:
        """Number of windows in the batch."""
        ...

    def tile(self, span: slice) -> Float[Tensor, "batch tile d_in"]:
        """Return the input to the network at the positions of the span."""
        ...


@dataclass(frozen=True)
class OneHot:
    """Bases stored as one-byte codes; each tile is converted to network input when it is read.

    `table` has one row per code and one column per symbol of the model.
    """

    codes: UInt8[Tensor, "batch length"]
    table: Float[Tensor, "codes symbols"]

    @property
    def length(self) -> int:
        return self.codes.shape[1]

    @property
    def batch(self) -> int:
        return self.codes.shape[0]

    def rows(self, rows: slice) -> "OneHot":
        """Return the input for a slice of the windows in the batch."""
        return replace(self, codes=self.codes[rows])

    def tile(self, span: slice) -> Float[Tensor, "batch tile symbols"]:
        return self.table[self.codes[:, span].to(self.table.device, torch.long)]


@dataclass(frozen=True)
class Dense:
    """Inputs stored as one array."""

    x: Float[Tensor, "batch length d_in"]

    @property
    def length(self) -> int:
        return self.x.shape[1]

    @property
    def batch(self) -> int:
        return self.x.shape[0]

    def tile(self, span: slice) -> Float[Tensor, "batch tile d_in"]:
        return self.x[:, span]


@dataclass(frozen=True)
class Mixture:
    """Points on the straight lines from a baseline to the bases, `baseline + alpha * (bases - baseline)`.

    Both ends are stored as one-byte codes. Each tile is created when it is read.

    Attributes
    ----------
    codes, table
        Base codes, and the input for each code, as in `OneHot`.
    baseline_codes, baseline_table
        The same for the baseline.
    alpha
        Position on the line: 0 at the baseline, 1 at the bases.
    """

    codes: UInt8[Tensor, "batch length"]
    table: Float[Tensor, "codes symbols"]
    baseline_codes: UInt8[Tensor, "batch length"]
    baseline_table: Float[Tensor, "codes symbols"]
    alpha: float

    @property
    def length(self) -> int:
        return self.codes.shape[1]

    @property
    def batch(self) -> int:
        return self.codes.shape[0]

    @property
    def bases(self) -> OneHot:
        """Input at the end of the lines."""
        return OneHot(self.codes, self.table)

    @property
    def baseline(self) -> OneHot:
        """Input at the start of the lines."""
        return OneHot(self.baseline_codes, self.baseline_table)

    def rows(self, rows: slice) -> "Mixture":
        """Return the input for a slice of the windows in the batch."""
        return replace(self, codes=self.codes[rows], baseline_codes=self.baseline_codes[rows])

    def tile(self, span: slice) -> Float[Tensor, "batch tile symbols"]:
        return torch.lerp(self.baseline.tile(span), self.bases.tile(span), self.alpha)


@dataclass(frozen=True)
class Noisy:
    """Bases with Gaussian noise in the four columns of the bases; unknown and masked bases have no noise.

    Attributes
    ----------
    codes, table
        Base codes, and the input for each code, as in `OneHot`.
    sigma
        Standard deviation of the noise. The input for an observed base is 1 in one column.
    seeds
        Seed of each window. The noise at a position depends only on the seed and on the position, because
        a tile may be read several times.
    """

    codes: UInt8[Tensor, "batch length"]
    table: Float[Tensor, "codes symbols"]
    sigma: float
    seeds: tuple[tuple[int, ...], ...]

    @property
    def length(self) -> int:
        return self.codes.shape[1]

    @property
    def batch(self) -> int:
        return self.codes.shape[0]

    def rows(self, rows: slice) -> "Noisy":
        """Return the input for a slice of the windows in the batch."""
        return replace(self, codes=self.codes[rows], seeds=self.seeds[rows])

    def tile(self, span: slice) -> Float[Tensor, "batch tile symbols"]:
        noise = torch.stack([torch.from_numpy(_normal(seed, span)) for seed in self.seeds])
        noise *= (self.codes[:, span] < _N_BASES)[..., None]
        bases = OneHot(self.codes, self.table).tile(span)
        return bases + self.sigma * noise.to(bases) @ self.table[:_N_BASES]


def _normal(seed: tuple[int, ...], span: slice) -> np.ndarray:
    """Return normal numbers for the four bases at each position of a span, generated block by block."""
    blocks = range(span.start // _BLOCK, -(-span.stop // _BLOCK))
    parts = [np.random.default_rng((*seed, block)).standard_normal((_BLOCK, _N_BASES)) for block in blocks]
    start = span.start - blocks.start * _BLOCK
    return np.concatenate(parts)[start : start + span.stop - span.start]


class Spans:
    """Sequence of the spans of all tiles in a window, from left to right.

    The tiles cover positions 0 to `length - 1`. The first tile may be shorter than the others. The
    sequence uses the same amount of memory for any `length`.
    """

    def __init__(self, length: int, tile: int) -> None:
        if tile < 1:
            raise InputError(f"tile {tile}: at least 1 base is needed")
        self._stops = range((length - 1) % tile + 1, length + 1, tile)

    def __len__(self) -> int:
        return len(self._stops)

    def __getitem__(self, number: int) -> slice:
        return slice(self._stops[number - 1] if number else 0, self._stops[number])

    def __iter__(self) -> Iterator[slice]:
        return map(self.__getitem__, range(len(self)))
