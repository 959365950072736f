"""Writer for bigWig, the indexed binary track format of genome browsers.

File layout: header; zoom level headers; summary of the whole track; chromosome B+ tree
(bigwig_index.py); data blocks and their R-tree; blocks and R-tree of each zoom level.
A data block contains consecutive values (fixedStep) or values with their positions (varStep).
A zoom level contains the count, minimum, maximum, sum and sum of squares of the values in each
non-empty bin; the bins of successive levels are 16, 64, 256, … bases wide. Each block is compressed
separately.

Sequences are processed in **slabs** of 2^20 bases, aligned to multiples of 2^20. Data blocks are cut
at the boundaries of **cells** of 2^13 bases. Cells and zoom bins divide a slab evenly, so that only
one slab is buffered, and the file does not depend on how the caller splits the scores into pieces.
Zoom blocks are buffered in temporary files beside the track. Besides the slab, only the rows of
the R-trees remain in memory, at about 0.01 bytes per base.
"""

import struct
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32, Int64

from genoscan.errors import InputError
from genoscan.tracks.bigwig_index import BlockWriter, write_chrom_tree, write_r_tree
from genoscan.tracks.bigwig_zoom import BIN, LEVEL, RECORD, RECORDS, REDUCTIONS, ZoomLevel, finest_bins, merge_bins

SLAB = 1 << 20
CELL = 1 << 13
# Below this mean number of values per run, one varStep block is smaller than a fixedStep block for
# each run, and needs fewer R-tree rows in memory.
_RUN = 64

MAGIC = 0x888FFC26
_VERSION = 4
VAR_STEP, FIXED_STEP = 2, 3
HEADER = struct.Struct("<IHHQQQHHQQIQ")
_SUMMARY = struct.Struct("<Qdddd")
SECTION = struct.Struct("<IIIIIBBH")
_COUNT = struct.Struct("<Q")
_MAX_BLOCK_SIZE = max(SECTION.size + 8 * CELL, RECORD.itemsize * RECORDS)


class BigWigWriter:
    """Writer that appends scores to one bigWig file in genome order.

    Parameters
    ----------
    path
        File to write; temporary files are created beside it.
    sizes
        Sequence lengths in bases, in genome order.

    Raises
    ------
    InputError
        If a sequence has 2^32 bases or more.

    Notes
    -----
    Exact: each score reads back as the same float32. Memory: one slab of 2^20 bases, and about
    0.01 bytes per base for the rows of the R-trees.
    """

    def __init__(self, path: Path, sizes: Mapping[str, int]) -> None:
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
        self._filled = 0
        self._values = np.full(SLAB, np.nan, np.float32)
        self._summary = np.zeros(0, BIN)
        longest = max(sizes.values())
        with ExitStack() as files:
            self._file: BinaryIO = files.enter_context(path.open("wb", buffering=1 << 20))
            self._levels = [
                ZoomLevel(reduction, files.enter_context(tempfile.TemporaryFile(dir=path.parent)))
                for reduction in REDUCTIONS
                if reduction == REDUCTIONS[0] or reduction < longest
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
        """Append the scores of consecutive bases, which must be downstream of all previous bases.

        Parameters
        ----------
        chrom
            Sequence name.
        start
            0-based position of the first score, at or after the end of the previous scores.
        scores
            One float32 score per base; NaN leaves a gap.
        """
        done = 0
        while done < len(scores):
            slab, first = divmod(start + done, SLAB)
            if (chrom, slab) != (self._chrom, self._slab):
                self._flush()
                self._chrom, self._slab = chrom, slab
            piece = scores[done : done + SLAB - first]
            self._values[first : first + len(piece)] = piece
            self._filled = first + len(piece)
            done += len(piece)

    def finish(self) -> None:
        """Write the R-trees and zoom levels, then the header, and close the file.

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
        fields = ["valid", "low", "high", "sum", "squares"]
        totals = self._summary[fields][0].item() if len(self._summary) else (0, 0, 0, 0, 0)
        self._file.write(_SUMMARY.pack(*totals))
        self._file.seek(self._data_offset)
        self._file.write(_COUNT.pack(self._data.n_blocks))
        self._file.close()

    def close(self) -> None:
        """Close the files and ignore errors; failed writes raise errors in `append` and `finish`."""
        with suppress(OSError):
            self._files.close()

    def _flush(self) -> None:
        """Write the data blocks and zoom records of the current slab, and clear the slab."""
        if not self._filled:
            return
        number = self._chrom_ids[self._chrom]
        origin = self._slab * SLAB
        filled = self._values[: self._filled]
        for first in range(0, len(filled), CELL):
            _write_cell(self._data, number, origin + first, filled[first : first + CELL])
        whole_bins = -(-self._filled // REDUCTIONS[0]) * REDUCTIONS[0]
        bins = finest_bins(self._values[:whole_bins], origin)
        for level in self._levels:
            if level.reduction != REDUCTIONS[0]:
                bins = merge_bins(bins, bins["start"] // level.reduction)
            level.add(number, bins)
        bins_so_far = np.concatenate([self._summary, bins])
        self._summary = merge_bins(bins_so_far, np.zeros(len(bins_so_far), np.int64))
        filled[:] = np.nan
        self._filled = 0


def _write_cell(blocks: BlockWriter, chrom: int, origin: int, values: Float32[np.ndarray, " bases"]) -> None:
    """Write the values of one cell as varStep or fixedStep, whichever is smaller."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return
    breaks = np.flatnonzero(np.diff(known) > 1) + 1
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
    """Write one data block; `positions` must be in ascending order."""
    start, end = int(positions[0]), int(positions[-1]) + 1
    step = 1 if kind == FIXED_STEP else 0
    head = SECTION.pack(chrom, start, end, step, 1, kind, 0, len(positions))
    blocks.add((chrom, start, chrom, end), head + body, repeats=repeats)
