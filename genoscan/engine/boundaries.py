"""Where boundaries are kept while a window is worked on: in memory, or in files.

A boundary is length x width numbers.  Its room is that of one, as long as somebody refers to it.
The carries of a layer are kept there, too: one a tile, next to which a boundary is large.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.ops.dual import Dual, primal


@dataclass(frozen=True)
class Boundary:
    """A boundary's numbers, somewhere; tiles of it are read to, and written from, a device.

    What is read is the boundary itself, where it lies on that device: to be used before it is
    written over.
    """

    numbers: Float[Tensor, "batch length width"]
    device: torch.device

    @property
    def batch(self) -> int:
        return len(self.numbers)

    def read(self, span: slice) -> Float[Tensor, "batch tile width"]:
        return self.numbers[:, span].to(self.device)

    def write(self, span: slice, tile: Float[Tensor, "batch tile width"]) -> None:
        self.numbers[:, span] = tile.detach()


@dataclass(frozen=True)
class MovedBoundary:
    """A boundary and its tangents in one."""

    numbers: Boundary
    dots: Boundary

    @property
    def batch(self) -> int:
        return self.numbers.batch

    def read(self, span: slice) -> Dual:
        dots = self.dots.read(span).unflatten(0, (-1, self.batch))
        return Dual.of(self.numbers.read(span), dots)

    def write(self, span: slice, tile: Tensor) -> None:
        assert isinstance(tile, Dual)
        self.numbers.write(span, primal(tile))
        self.dots.write(span, tile.dots.flatten(0, 1))


Between: TypeAlias = Boundary | MovedBoundary


@dataclass(frozen=True)
class Shelf:
    """Room for boundaries of one length, on a device or in files of a folder that nobody names."""

    length: int
    place: torch.device | Path

    def boundary(self, like: Float[Tensor, "batch tile width"]) -> Between:
        """Return a boundary with room for such tiles, and for their tangents if they have some."""
        if isinstance(like, Dual):
            return MovedBoundary(self._plain(primal(like)), self._plain(like.dots.flatten(0, 1)))
        return self._plain(like)

    def block(self, count: int, like: Tensor) -> Tensor:
        """Return room for so many of such tensors."""
        return self._numbers((count, *like.shape), like)

    def _plain(self, like: Float[Tensor, "batch tile width"]) -> Boundary:
        return Boundary(self._numbers((len(like), self.length, like.shape[-1]), like), like.device)

    def _numbers(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        if isinstance(self.place, torch.device):
            return torch.empty(shape, dtype=like.dtype, device=self.place)
        return torch.from_numpy(_unnamed(self.place, shape, like.numpy(force=True).dtype))


def _unnamed(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array in a file that is gone when the array is, or the process."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(int(np.prod(shape)) * dtype.itemsize)
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
