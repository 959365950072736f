"""The two trees of a bigWig file: of sequences, by name, and of blocks, by where they lie.

Both are stored alike, so one function writes them: nodes of at most FAN items, each preceded by
four bytes (leaf?, 0, number of items), the root first. All nodes of a level but its last are
full, so that a child's place follows from its number.

Kent et al., "BigWig and BigBed", Bioinformatics 26 (2010), supplement, tables 8 to 17.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped

FAN = 256

# A stretch of the genome, from a base of one sequence to a base of the same or a later one.
EXTENT = [("chrom", "<u4"), ("start", "<u4"), ("end_chrom", "<u4"), ("end", "<u4")]
BLOCK = np.dtype([*EXTENT, ("offset", "<u8"), ("size", "<u8")])
_BRANCH = np.dtype([*EXTENT, ("offset", "<u8")])

_NAMES_MAGIC = 0x78CA8C91
_BLOCKS_MAGIC = 0x2468ACE0
_NODE = struct.Struct("<BBH")
_NAMES_HEADER = struct.Struct("<IIIIQQ")
_BLOCKS_HEADER = struct.Struct("<IIQIIIIQII")

Rows = Shaped[np.ndarray, "_"]

_PIECE = 1024


class Blocks:
    """Compressed blocks at the end of a file, and a row for each: where it lies in the genome."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rows: list[Rows] = []
        self.n_blocks = 0

    def add(self, extent: tuple[int, int, int, int], body: bytes, *, repeats: bool) -> None:
        """Compress and write one block; `repeats` says that it is worth looking for them."""
        # Scores hardly ever repeat, and searching them in vain takes most of zlib's time.
        strategy = zlib.Z_DEFAULT_STRATEGY if repeats else zlib.Z_HUFFMAN_ONLY
        squeeze = zlib.compressobj(1, strategy=strategy)
        packed = squeeze.compress(body) + squeeze.flush()
        if self.n_blocks % _PIECE == 0:
            self._rows.append(np.zeros(_PIECE, BLOCK))
        self._rows[-1][self.n_blocks % _PIECE] = (*extent, self._file.tell(), len(packed))
        self.n_blocks += 1
        self._file.write(packed)

    def rows(self) -> Rows:
        """Return every block's row, in genome order."""
        return np.concatenate([*self._rows, np.zeros(0, BLOCK)])[: self.n_blocks]


def write_names(file: BinaryIO, sizes: Mapping[str, int]) -> None:
    """Write the tree of sequences at the file's end; their numbers follow the order of `sizes`."""
    names = [name.encode() for name in sizes]
    width = max(map(len, names))
    leaves = np.zeros(len(names), [("name", f"S{width}"), ("number", "<u4"), ("length", "<u4")])
    leaves["name"] = names
    leaves["number"] = np.arange(len(names))
    leaves["length"] = list(sizes.values())
    # Readers look names up by bisection.
    leaves = leaves[np.argsort(leaves["name"], kind="stable")]

    def branches(first: Rows, last: Rows) -> Rows:
        rows = np.zeros(len(first), [("name", f"S{width}"), ("offset", "<u8")])
        rows["name"] = first["name"]
        return rows

    file.write(_NAMES_HEADER.pack(_NAMES_MAGIC, FAN, width, 8, len(names), 0))
    _write_nodes(file, leaves, branches)


def write_blocks(file: BinaryIO, blocks: Rows) -> None:
    """Write the tree of blocks, which are in genome order, at the file's end."""

    def branches(first: Rows, last: Rows) -> Rows:
        rows = np.zeros(len(first), _BRANCH)
        rows["chrom"], rows["start"] = first["chrom"], first["start"]
        rows["end_chrom"], rows["end"] = last["end_chrom"], last["end"]
        return rows

    chrom = start = end_chrom = end = 0
    if len(blocks):
        chrom, start = blocks["chrom"][0], blocks["start"][0]
        end_chrom, end = blocks["end_chrom"][-1], blocks["end"][-1]
    place = file.tell()
    file.write(
        _BLOCKS_HEADER.pack(
            _BLOCKS_MAGIC, FAN, len(blocks), chrom, start, end_chrom, end, place, 1, 0
        )
    )
    _write_nodes(file, blocks, branches)


def _write_nodes(file: BinaryIO, leaves: Rows, branches: Callable[[Rows, Rows], Rows]) -> None:
    """Write a tree over the leaves; `branches` makes a parent's items from its children's ends."""
    levels = [leaves]
    while len(levels[0]) > FAN:
        children = levels[0]
        firsts = np.arange(0, len(children), FAN)
        lasts = np.minimum(firsts + FAN, len(children)) - 1
        levels.insert(0, branches(children[firsts], children[lasts]))

    place = file.tell()
    for parents, children in pairwise(levels):
        place += parents.nbytes + _NODE.size * -(-len(parents) // FAN)
        full = _NODE.size + FAN * children.itemsize
        parents["offset"] = place + full * np.arange(len(parents), dtype=np.uint64)

    for level in levels:
        # An empty tree still has a root.
        for first in range(0, max(len(level), 1), FAN):
            items = level[first : first + FAN]
            file.write(_NODE.pack(level is leaves, 0, len(items)) + items.tobytes())
