"""Storage of the activations between layers, in memory or in files.

A boundary is an array that contains `width` values for each position of a window. It is freed when
its last reference is deleted. The carries of a layer, one per tile, are stored in the same way. The
carries are small compared with a boundary.
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
from genoscan.temporary import allocate


@dataclass(frozen=True)
class TensorBoundary:
    """Boundary that may be stored on any device.

    Tiles are copied to and from the device of the network. If the boundary is stored on that device,
    `read` returns a view of the boundary, which is valid until the tile is overwritten.
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
class DualBoundary:
    """Boundary that also stores tangents."""

    numbers: TensorBoundary
    dots: TensorBoundary

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


Boundary: TypeAlias = TensorBoundary | DualBoundary


@dataclass(frozen=True)
class BoundaryStore:
    """Allocator for boundaries of equal length, on a device or in unnamed files in a folder."""

    length: int
    place: torch.device | Path

    def boundary(self, like: Float[Tensor, "batch tile width"]) -> Boundary:
        """Allocate a boundary for tiles that have the batch size, width and dtype of `like`.

        If `like` has tangents, the boundary also stores tangents.
        """
        if isinstance(like, Dual):
            return DualBoundary(self._plain(primal(like)), self._plain(like.dots.flatten(0, 1)))
        return self._plain(like)

    def block(self, count: int, like: Tensor) -> Tensor:
        """Allocate one block of storage for `count` tensors with the shape and dtype of `like`."""
        return self._numbers((count, *like.shape), like)

    def _plain(self, like: Float[Tensor, "batch tile width"]) -> TensorBoundary:
        return TensorBoundary(self._numbers((len(like), self.length, like.shape[-1]), like), like.device)

    def _numbers(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        if isinstance(self.place, torch.device):
            return torch.empty(shape, dtype=like.dtype, device=self.place)
        return torch.from_numpy(_unnamed(self.place, shape, like.numpy(force=True).dtype))


def _unnamed(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array mapped to a file that is deleted when the array is freed or the process exits."""
    if not np.prod(shape):  # such as the inputs before a convolution of one tap; an empty file cannot be mapped
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        allocate(file.fileno(), int(np.prod(shape)) * dtype.itemsize)
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
