"""Writer for bigWig, the indexed binary track format of genome browsers.

A file contains, in this order, the header, the headers of the zoom levels, a summary of the whole track,
the chromosome B+ tree (see bigwig_index.py), the data blocks and their R-tree, and the blocks and the
R-tree of each zoom level. A data block contains consecutive values (fixedStep) or values with their
positions (varStep). A zoom level contains the count, minimum, maximum, sum and sum of squares of the values
in each non-empty bin; the bins of successive levels are 16, 64, 256, … bases wide. Each block is compressed
separately.

Sequences are processed in **slabs** of 2^20 bases, which start at multiples of 2^20. Each slab is divided
evenly into **cells** of 2^13 bases, and no data block extends beyond its cell. Slabs are also divided
evenly into zoom bins. Therefore, only one slab has to be buffered, and the contents of the file do not
depend on how the scores are divided among the calls of `append`. The buffer can contain several short
sequences at the same time. Zoom blocks are buffered in temporary files in the folder of the track. Only the
rows of the R-trees stay in memory, and they need about 0.01 bytes per base.
"""

import struct
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32, Int64

from genoscan.errors import InputError
from genoscan.tracks.bigwig_index import BlockWriter, Rows, write_chrom_tree, write_r_tree
from genoscan.tracks.bigwig_zoom import LEVEL, RECORD, RECORDS, REDUCTIONS, Summary, ZoomLevel, finest_bins, merge_bins

SLAB = 1 << 20
CELL = 1 << 13
BIN_WIDTH = REDUCTIONS[0]
# Below this mean number of values per run, varStep is smaller than one fixedStep block per run,
# whose R-tree rows would also take memory.
_RUN = 64

MAGIC = 0x888FFC26
_VERSION = 4
VAR_STEP, FIXED_STEP = 2, 3
HEADER = struct.Struct("<IHHQQQHHQQIQ")
_SUMMARY = struct.Struct("<Qdddd")
SECTION = struct.Struct("<IIIIIBBH")
_COUNT = struct.Struct("<Q")
_MAX_BLOCK_SIZE = max(SECTION.size + 8 * CELL, RECORD.itemsize * RECORDS)


@dataclass
class _Part:
    """Part of the buffer, which contains one slab.

    Attributes
    ----------
    chrom
        Index of the sequence, in genome order.
    origin
        0-based position of the first base of the slab in the sequence.
    offset
        Index of the first base of the slab in the buffer.
    filled
        Number of bases from the first base of the slab to the last base that was appended, inclusive.
    """

    chrom: int
    origin: int
    offset: int
    filled: int = 0


class BigWigWriter:
    """Writer that appends scores to one bigWig file in genome order.

    Parameters
    ----------
    path
        File to write. Temporary files are created in the same folder.
    sizes
        Sequence lengths in bases, in genome order.
    zoom_levels
        Whether to write zoom levels, which browsers need, and which take a third of the file.

    Raises
    ------
    InputError
        If a sequence has 2^32 bases or more.

    Notes
    -----
    The format is exact: each score is read back as the same float32. Memory: one slab of 2^20 bases, and
    about 0.01 bytes per base for the rows of the R-trees.
    """

    def __init__(self, path: Path, sizes: Mapping[str, int], *, zoom_levels: bool = True) -> None:
        for chrom, length in sizes.items():
            if length >= 1 << 32:
                raise InputError(
                    f"{chrom}: has {length:,} bases, expected at most {(1 << 32) - 1:,} "
                    f"in a bigWig: write a bedGraph instead"
                )
        self._sizes = sizes
        self._chrom_ids = {chrom: number for number, chrom in enumerate(sizes)}
        self._chrom = ""
        self._slab = 0
        self._parts: list[_Part] = []
        self._used = 0
        self._values = np.full(SLAB, np.nan, np.float32)
        self._summary = Summary()
        longest = max(sizes.values())
        with ExitStack() as files:
            self._file: BinaryIO = files.enter_context(path.open("wb", buffering=1 << 20))
            self._levels = [
                ZoomLevel(reduction, files.enter_context(tempfile.TemporaryFile(dir=path.parent)))
                for reduction in REDUCTIONS
                if zoom_levels and (reduction == BIN_WIDTH or reduction < longest)
            ]
            self._file.write(bytes(HEADER.size + LEVEL.size * len(self._levels)))
            self._file.write(bytes(_SUMMARY.size))
            self._chroms_offset = self._file.tell()
            write_chrom_tree(self._file, sizes)
            self._data_offset = self._file.tell()
            self._file.write(bytes(_COUNT.size))
            self._data = BlockWriter(self._file)
            self._files = files.pop_all()

    def append(self, chrom: str, start: int, scores: Float32[np.ndarray, " bases"]) -> None:
        """Append the scores of consecutive bases, which must follow all previous bases in genome order.

        Parameters
        ----------
        chrom
            Sequence name.
        start
            0-based position of the first base.
        scores
            One float32 score per base. Bases with the value NaN are omitted from the file.
        """
        done = 0
        while done < len(scores):
            slab, first = divmod(start + done, SLAB)
            if (chrom, slab) != (self._chrom, self._slab):
                self._begin_slab(chrom, slab)
            part = self._parts[-1]
            piece = scores[done : done + SLAB - first]
            self._values[part.offset + first : part.offset + first + len(piece)] = piece
            part.filled = first + len(piece)
            done += len(piece)

    def finish(self) -> None:
        """Write the R-trees, the zoom levels and the header, and close the file.

        The header is written last, so that an incomplete file is not a valid bigWig file.
        """
        self._flush()
        index_offset = self._file.tell()
        write_r_tree(self._file, self._data.rows())
        level_headers: list[bytes] = []
        previous = 0
        for level in self._levels:
            level.flush()
            # Omit a level if it does not have fewer records than the last level written.
            if not level_headers or level.n_records < previous:
                level_headers.append(level.copy_to(self._file))
                previous = level.n_records
        self._file.write(struct.pack("<I", MAGIC))

        self._file.seek(0)
        self._file.write(
            HEADER.pack(
                *(MAGIC, _VERSION, len(level_headers)),
                *(self._chroms_offset, self._data_offset, index_offset),
                *(0, 0, 0, self._chroms_offset - _SUMMARY.size, _MAX_BLOCK_SIZE, 0),
            )
        )
        self._file.write(b"".join(level_headers))
        self._file.seek(self._chroms_offset - _SUMMARY.size)
        total = self._summary
        self._file.write(_SUMMARY.pack(total.valid, total.low, total.high, total.sum, total.squares))
        self._file.seek(self._data_offset)
        self._file.write(_COUNT.pack(self._data.n_blocks))
        self._file.close()

    def close(self) -> None:
        """Close the files. Errors are ignored, because `append` and `finish` report failed writes."""
        with suppress(OSError):
            self._files.close()

    def _begin_slab(self, chrom: str, slab: int) -> None:
        """Reserve a part of the buffer for a slab of a sequence; if the buffer is full, flush it first."""
        origin = slab * SLAB
        length = -(-min(SLAB, self._sizes[chrom] - origin) // BIN_WIDTH) * BIN_WIDTH
        if self._used + length > SLAB:
            self._flush()
        self._parts.append(_Part(self._chrom_ids[chrom], origin, self._used))
        self._chrom, self._slab = chrom, slab
        self._used += length

    def _flush(self) -> None:
        """Write the data blocks and zoom records of the buffered slabs, and clear the buffer."""
        for part in self._parts:
            filled = self._values[part.offset : part.offset + part.filled]
            for first in range(0, len(filled), CELL):
                _write_cell(self._data, part.chrom, part.origin + first, filled[first : first + CELL])
        if self._parts:
            values = self._values[: self._used]
            offsets = np.array([part.offset for part in self._parts]) // BIN_WIDTH
            n_bins = np.diff(offsets, append=len(values) // BIN_WIDTH)
            chroms = np.repeat([part.chrom for part in self._parts], n_bins)
            origins = np.repeat([part.origin - part.offset for part in self._parts], n_bins)
            self._add_bins(finest_bins(values, chroms, origins + BIN_WIDTH * np.arange(len(origins))))
            values[:] = np.nan
        self._parts, self._used = [], 0

    def _add_bins(self, bins: Rows) -> None:
        for level in self._levels:
            if level.reduction != BIN_WIDTH:
                bins = merge_bins(bins, level.reduction)
            level.add(bins)
        self._summary.add(bins)


def _write_cell(blocks: BlockWriter, chrom: int, origin: int, values: Float32[np.ndarray, " bases"]) -> None:
    """Write the values of one cell in varStep or fixedStep format, depending on which takes less space."""
    # Not flatnonzero and diff, which take most of the time for many short sequences.
    (known,) = (~np.isnan(values)).nonzero()
    if not len(known):
        return
    breaks = (known[1:] - known[:-1] > 1).nonzero()[0] + 1
    if len(known) < _RUN * (len(breaks) + 1):
        items = np.empty(len(known), [("start", "<u4"), ("value", "<f4")])
        items["start"] = origin + known
        items["value"] = values[known]
        _write_section(blocks, chrom, origin + known, VAR_STEP, items.tobytes(), repeats=True)
        return
    for run in np.split(known, breaks):
        piece = values[run[0] : run[-1] + 1]
        repeats = int(np.count_nonzero(piece[1:] == piece[:-1])) * 8 >= len(piece)
        body = piece.astype("<f4").tobytes()
        _write_section(blocks, chrom, origin + run, FIXED_STEP, body, repeats=repeats)


def _write_section(
    blocks: BlockWriter, chrom: int, positions: Int64[np.ndarray, " values"], kind: int, body: bytes, *, repeats: bool
) -> None:
    """Write one data block.

    `positions` contains the positions of the values in ascending order, `kind` is the format (`VAR_STEP` or
    `FIXED_STEP`), and `body` contains the values in this format. For `repeats`, see `BlockWriter.add`.
    """
    start, end = int(positions[0]), int(positions[-1]) + 1
    step = 1 if kind == FIXED_STEP else 0
    head = SECTION.pack(chrom, start, end, step, 1, kind, 0, len(positions))
    blocks.add((chrom, start, chrom, end), head + body, repeats=repeats)
