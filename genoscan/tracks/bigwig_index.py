"""Writers for the two indexes of a bigWig file: the chromosome B+ tree and the R-tree of the blocks.

Both trees are written level by level, starting with the root. Each node starts with four bytes: a flag that
marks a leaf (1 byte), a zero (1 byte) and the number of items (2 bytes). At most `FAN` items follow. In
each level, all nodes except the last node are full. The file offset of a child node can therefore be
computed from the index of the child in its level.

Reference: Kent et al., "BigWig and BigBed", Bioinformatics 26 (2010), supplement, tables 8 to 17.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped

FAN = 256

# Fields of a genomic interval that may span several sequences.
EXTENT = [("chrom", "<u4"), ("start", "<u4"), ("end_chrom", "<u4"), ("end", "<u4")]
BLOCK = np.dtype([*EXTENT, ("offset", "<u8"), ("size", "<u8")])
BRANCH = np.dtype([*EXTENT, ("offset", "<u8")])

CHROMS_MAGIC = 0x78CA8C91
BLOCKS_MAGIC = 0x2468ACE0
NODE = struct.Struct("<BBH")
CHROMS_HEADER = struct.Struct("<IIIIQQ")
BLOCKS_HEADER = struct.Struct("<IIQIIIIQII")

Rows = Shaped[np.ndarray, "_"]

_PIECE = 1024


class BlockWriter:
    """Writer that appends compressed blocks to a file and collects one R-tree row for each block.

    Parameters
    ----------
    file
        File that is open for writing and positioned at its end.

    Attributes
    ----------
    n_blocks
        Number of blocks written so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rows: list[Rows] = []
        self.n_blocks = 0

    def add(self, extent: tuple[int, int, int, int], body: bytes, *, repeats: bool) -> None:
        """Compress and write one block.

        Parameters
        ----------
        extent
            Genomic interval that the block covers: index of the first sequence, start position on that
            sequence, index of the last sequence, and end position on that sequence. Positions are 0-based
            and half-open.
        body
            Uncompressed contents of the block.
        repeats
            Whether to search for repeated byte strings during compression. The search takes time, but it
            reduces the size of a block that contains many repeated strings.
        """
        # Scores rarely contain repeats, and the search takes most of zlib's time.
        strategy = zlib.Z_DEFAULT_STRATEGY if repeats else zlib.Z_HUFFMAN_ONLY
        compressor = zlib.compressobj(1, strategy=strategy)
        packed = compressor.compress(body) + compressor.flush()
        if self.n_blocks % _PIECE == 0:
            self._rows.append(np.zeros(_PIECE, BLOCK))
        self._rows[-1][self.n_blocks % _PIECE] = (*extent, self._file.tell(), len(packed))
        self.n_blocks += 1
        self._file.write(packed)

    def rows(self) -> Rows:
        """Return an array of dtype `BLOCK` with one row per block, in genome order."""
        return np.concatenate([*self._rows, np.zeros(0, BLOCK)])[: self.n_blocks]


def write_chrom_tree(file: BinaryIO, sizes: Mapping[str, int]) -> None:
    """Append the chromosome B+ tree to a bigWig file.

    Parameters
    ----------
    file
        File that is open for writing and positioned at its end.
    sizes
        Sequence lengths in bases. The order of this mapping determines the indices of the sequences.
    """
    names = [name.encode() for name in sizes]
    width = max(map(len, names))
    leaves = np.zeros(len(names), [("name", f"S{width}"), ("number", "<u4"), ("length", "<u4")])
    leaves["name"] = names
    leaves["number"] = np.arange(len(names))
    leaves["length"] = list(sizes.values())
    # Sorted by name, because readers find names by binary search.
    leaves = leaves[np.argsort(leaves["name"], kind="stable")]

    def branches(first: Rows, last: Rows) -> Rows:
        rows = np.zeros(len(first), [("name", f"S{width}"), ("offset", "<u8")])
        rows["name"] = first["name"]
        return rows

    file.write(CHROMS_HEADER.pack(CHROMS_MAGIC, FAN, width, 8, len(names), 0))
    _write_nodes(file, leaves, branches)


def write_r_tree(file: BinaryIO, blocks: Rows) -> None:
    """Append the R-tree of data blocks or zoom blocks to a bigWig file.

    Parameters
    ----------
    file
        File that is open for writing and positioned at its end.
    blocks
        Rows of dtype `BLOCK`, one for each block, in genome order.
    """

    def branches(first: Rows, last: Rows) -> Rows:
        rows = np.zeros(len(first), BRANCH)
        rows["chrom"], rows["start"] = first["chrom"], first["start"]
        rows["end_chrom"], rows["end"] = last["end_chrom"], last["end"]
        return rows

    chrom = start = end_chrom = end = 0
    if len(blocks):
        chrom, start = blocks["chrom"][0], blocks["start"][0]
        end_chrom, end = blocks["end_chrom"][-1], blocks["end"][-1]
    offset = file.tell()
    file.write(BLOCKS_HEADER.pack(BLOCKS_MAGIC, FAN, len(blocks), chrom, start, end_chrom, end, offset, 1, 0))
    _write_nodes(file, blocks, branches)


def _write_nodes(file: BinaryIO, leaves: Rows, branches: Callable[[Rows, Rows], Rows]) -> None:
    """Write the nodes of a tree level by level, starting with the root.

    `leaves` contains the items of all leaf nodes. `branches` is called for each level with the first item
    and the last item of every node. It returns the items of the parent level, one for each node.
    """
    levels = [leaves]
    while len(levels[0]) > FAN:
        children = levels[0]
        firsts = np.arange(0, len(children), FAN)
        lasts = np.minimum(firsts + FAN, len(children)) - 1
        levels.insert(0, branches(children[firsts], children[lasts]))

    offset = file.tell()
    for parents, children in pairwise(levels):
        offset += parents.nbytes + NODE.size * -(-len(parents) // FAN)
        full = NODE.size + FAN * children.itemsize
        parents["offset"] = offset + full * np.arange(len(parents), dtype=np.uint64)

    for level in levels:
        # An empty tree still has a root.
        for first in range(0, max(len(level), 1), FAN):
            items = level[first : first + FAN]
            file.write(NODE.pack(level is leaves, 0, len(items)) + items.tobytes())
