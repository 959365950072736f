"""Reader for the structure of a bigWig file: header, chromosome B+ tree, data blocks and their R-tree.

Every offset, size and count is compared with the length of the file before it is used. A damaged file
therefore raises an error instead of causing a read beyond the end of the file or an unlimited allocation.
The data of the zoom levels are not read, because only genome browsers use them. The indexes of the zoom
levels are read to detect truncation.

Reference: Kent et al., "BigWig and BigBed", Bioinformatics 26 (2010), supplement, tables 5 to 17.
"""

import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from genoscan.errors import InputError
from genoscan.tracks.bigwig import FIXED_STEP, HEADER, MAGIC, SECTION, VAR_STEP
from genoscan.tracks.bigwig_index import BLOCK, BLOCKS_HEADER, BLOCKS_MAGIC, BRANCH, CHROMS_HEADER, CHROMS_MAGIC, NODE
from genoscan.tracks.bigwig_zoom import LEVEL

Rows = Shaped[np.ndarray, "_"]

_VERSIONS = range(1, 5)
_BED_GRAPH = 1
_ITEMS = {
    _BED_GRAPH: np.dtype([("start", "<u4"), ("end", "<u4"), ("value", "<f4")]),
    VAR_STEP: np.dtype([("start", "<u4"), ("value", "<f4")]),
    FIXED_STEP: np.dtype([("value", "<f4")]),
}
_MAX_BLOCK = SECTION.size + (2**16 - 1) * _ITEMS[_BED_GRAPH].itemsize
"""Maximum size of a decompressed data block, in bytes.

The size is limited because the number of items in a block is stored in two bytes.
"""

_MAX_DEPTH = 32
"""Maximum number of levels in a tree, which suffices for 2^32 items even with only two items per node."""


class Block(NamedTuple):
    """Location of a data block in the genome and in the file. The fields are those of the dtype `BLOCK`."""

    chrom: int
    start: int
    end_chrom: int
    end: int
    offset: int
    size: int


class Items(NamedTuple):
    """Disjoint intervals of constant score on one sequence, in ascending order.

    Attributes
    ----------
    starts, ends
        Bounds of the intervals, 0-based and half-open.
    values
        Score of each interval.
    """

    starts: Int64[np.ndarray, " items"]
    ends: Int64[np.ndarray, " items"]
    values: Float32[np.ndarray, " items"]


class BigWigLayout:
    """Sequences and data blocks of an open bigWig file.

    Parameters
    ----------
    path
        Path of the file, for error messages.
    descriptor
        File descriptor that is open for reading.

    Attributes
    ----------
    sizes
        Length of each sequence in bases, by name. The sequences are in ascending order of their indices in
        the file.
    blocks
        Rows of dtype `BLOCK`, one per data block, sorted by sequence index and start position.

    Raises
    ------
    InputError
        If the file is not a bigWig file, or is truncated or damaged.

    Notes
    -----
    Memory: 32 bytes per data block, in addition to the names and lengths of the sequences.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._length = os.fstat(descriptor).st_size
        head = os.pread(descriptor, HEADER.size, 0)
        if len(head) < HEADER.size or int.from_bytes(head[:4], "little") != MAGIC:
            raise InputError(f"{path}: not a bigWig")
        _, version, n_levels, chroms, _, index, _, _, _, _, buffer_size, _ = HEADER.unpack(head)
        if version not in _VERSIONS:
            raise InputError(f"{path}: has bigWig version {version}, expected {_VERSIONS[0]} to {_VERSIONS[-1]}")
        self._compressed = buffer_size > 0
        self._check_levels(n_levels)
        self.sizes = self._read_sizes(chroms)
        self._lengths = list(self.sizes.values())
        # pyBigWig writes no R-tree, hence offset 0, if there are no scores.
        self.blocks = self._read_blocks(index) if index else np.zeros(0, BLOCK)

    def items(self, block: Block) -> Items:
        """Read one data block.

        Parameters
        ----------
        block
            Row of `blocks`, converted to Python integers.

        Returns
        -------
        Items
            Intervals in the block, with their scores.

        Raises
        ------
        InputError
            If the block is damaged.
        """
        body = self._read(block.offset, block.size)
        if self._compressed:
            body = self._decompress(body)
        if len(body) < SECTION.size:
            raise self._damaged("a data block is too short")
        chrom, start, _, step, span, kind, _, n_items = SECTION.unpack_from(body)
        if chrom != block.chrom or kind not in _ITEMS:
            raise self._damaged("a data block and its index differ")
        if len(body) < SECTION.size + n_items * _ITEMS[kind].itemsize:
            raise self._damaged(f"a data block has fewer than its {n_items:,} items")
        rows = np.frombuffer(body, _ITEMS[kind], n_items, SECTION.size)
        if kind == FIXED_STEP:
            starts = start + step * np.arange(n_items, dtype=np.int64)
            sorted_and_disjoint = span > 0 and (step >= span or n_items < 2)
        else:
            starts = rows["start"].astype(np.int64)
        ends = rows["end"].astype(np.int64) if kind == _BED_GRAPH else starts + span
        if kind != FIXED_STEP:
            sorted_and_disjoint = bool((starts < ends).all() and (starts[1:] >= ends[:-1]).all())
        if n_items and not (starts[0] >= block.start and ends[-1] <= block.end):
            raise self._damaged("a data block and its index differ")
        if not sorted_and_disjoint:
            raise self._damaged("intervals overlap or are not sorted")
        return Items(starts, ends, rows["value"].astype(np.float32))

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self._path}: damaged: {reason}: write it again")

    def _truncated(self) -> InputError:
        return InputError(f"{self._path}: truncated after {self._length:,} bytes, or damaged: write it again")

    def _read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes at a file offset; raise InputError if they extend past the end of the file."""
        if offset + size > self._length:
            raise self._truncated()
        found = os.pread(self._descriptor, size, offset)
        if len(found) < size:
            raise self._damaged("it became shorter while it was read")
        return found

    def _decompress(self, body: bytes) -> bytes:
        unpacker = zlib.decompressobj()
        try:
            return unpacker.decompress(body, _MAX_BLOCK)
        except zlib.error:
            raise self._damaged("a data block cannot be decompressed") from None

    def _check_levels(self, n_levels: int) -> None:
        for _, _, _, index in LEVEL.iter_unpack(self._read(HEADER.size, LEVEL.size * n_levels)):
            self._read_index(index)

    def _read_sizes(self, offset: int) -> dict[str, int]:
        """Return the sequence lengths in the chromosome B+ tree that begins at `offset`."""
        magic, _, width, value_size, n_chroms, _ = CHROMS_HEADER.unpack(self._read(offset, CHROMS_HEADER.size))
        if magic != CHROMS_MAGIC or value_size != 8 or not 0 < width <= self._length:
            raise self._damaged("the table of sequences cannot be read")
        leaf = np.dtype([("name", f"S{width}"), ("number", "<u4"), ("length", "<u4")])
        branch = np.dtype([("name", f"S{width}"), ("offset", "<u8")])
        rows = self._read_tree(offset + CHROMS_HEADER.size, leaf, branch)
        rows = rows[np.argsort(rows["number"], kind="stable")]
        if len(rows) != n_chroms or not np.array_equal(rows["number"], np.arange(n_chroms)):
            raise self._damaged(f"expected {n_chroms:,} sequences with different numbers")
        if not n_chroms:
            raise InputError(f"{self._path}: has no sequences, expected at least one")
        try:
            names = [name.decode() for name in rows["name"].tolist()]
        except UnicodeDecodeError:
            raise self._damaged("the name of a sequence is not UTF-8") from None
        for name in names:
            if not name or any(letter < " " or letter == "\x7f" for letter in name):
                raise self._damaged(f"a sequence is called {name!r}")
        sizes = dict(zip(names, rows["length"].tolist(), strict=True))
        if len(sizes) < len(names):
            raise self._damaged("two sequences have the same name")
        return sizes

    def _read_blocks(self, offset: int) -> Rows:
        """Read the R-tree at a file offset; return its data blocks in genome order after validating them."""
        rows = self._read_index(offset)
        lengths = np.array(self._lengths)
        if not ((rows["chrom"] == rows["end_chrom"]) & (rows["chrom"] < len(lengths))).all():
            raise self._damaged("a data block is not on one sequence of the file")
        if not ((rows["start"] < rows["end"]) & (rows["start"] < lengths[rows["chrom"]])).all():
            raise self._damaged("a data block is outside its sequence")
        rows = rows[np.lexsort((rows["start"], rows["chrom"]))]
        same = rows["chrom"][1:] == rows["chrom"][:-1]
        if (same & (rows["start"][1:] < rows["end"][:-1])).any():
            raise self._damaged("data blocks overlap on their sequence")
        return rows

    def _read_index(self, offset: int) -> Rows:
        """Read the R-tree at a file offset, and return one row per block.

        The function raises InputError if a block extends past the end of the file, or if blocks overlap in
        the file.
        """
        magic, *_ = BLOCKS_HEADER.unpack(self._read(offset, BLOCKS_HEADER.size))
        if magic != BLOCKS_MAGIC:
            raise self._damaged("there is no index where the header states it")
        rows = self._read_tree(offset + BLOCKS_HEADER.size, BLOCK, BRANCH)
        if max(rows["offset"].max(initial=0), rows["size"].max(initial=0)) > self._length:
            raise self._truncated()
        in_file = rows[np.argsort(rows["offset"], kind="stable")]
        ends = in_file["offset"] + in_file["size"]
        if ends.max(initial=0) > self._length:
            raise self._truncated()
        # Blocks that share bytes would allow a small file to expand without bound.
        if (in_file["offset"][1:] < ends[:-1]).any():
            raise self._damaged("blocks overlap in the file")
        return rows

    def _read_tree(self, root: int, leaf: np.dtype, branch: np.dtype) -> Rows:
        """Return the items of all leaves of a tree, in the order of the leaves.

        `root` is the file offset of the root node. `leaf` and `branch` are the dtypes of the items in
        leaves and in branch nodes.
        """
        found = [np.zeros(0, leaf)]
        pending, n_read = [(root, 1)], 0
        while pending:
            offset, depth = pending.pop()
            is_leaf, _, n_items = NODE.unpack(self._read(offset, NODE.size))
            kind = leaf if is_leaf else branch
            items = np.frombuffer(self._read(offset + NODE.size, n_items * kind.itemsize), kind)
            n_read += NODE.size + items.nbytes
            # The nodes of a tree do not overlap, so that together they are shorter than the file.
            if n_read > self._length or depth > _MAX_DEPTH:
                raise self._damaged("its index refers to itself")
            if is_leaf:
                found.append(items)
            else:
                pending += [(child, depth + 1) for child in reversed(items["offset"].tolist())]
        return np.concatenate(found)
