"""bigWig: the indexed binary track that every genome browser reads.

The file, in order: header; places of the zoom levels; summary of the whole track; tree of
sequences (bigwig_index.py); data blocks and their tree; every zoom level's blocks and their tree.
A data block holds neighbouring values (fixedStep), or single ones with their positions (varStep).
A zoom level holds count, least, greatest, sum and sum of squares of each bin of 16, 64, 256 …
bases that has a value. Blocks are compressed each on its own.

A sequence is taken in **slabs** of 2^20 bases, cut at multiples of 2^20. The bins of all levels and
the cells that data blocks are cut at nest in a slab, so that one slab is all that is ever held,
and the file does not depend on how the scores came in pieces. Zoom blocks wait in temporary files
beside the track; only the trees' rows stay in memory: about 0.01 bytes a base.
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
from genoscan.tracks.bigwig_index import Blocks, write_blocks, write_names
from genoscan.tracks.bigwig_zoom import (
    BIN,
    LEVEL,
    RECORD,
    RECORDS,
    REDUCTIONS,
    Level,
    finest_bins,
    merged,
)

SLAB = 1 << 20
CELL = 1 << 13
# Below this many values a run, positions stored with every value cost less than blocks of their
# own, whose rows would also fill the memory.
_RUN = 64

_MAGIC = 0x888FFC26
_VERSION = 4
_VAR_STEP, _FIXED_STEP = 2, 3
_HEADER = struct.Struct("<IHHQQQHHQQIQ")
_SUMMARY = struct.Struct("<Qdddd")
_SECTION = struct.Struct("<IIIIIBBH")
_COUNT = struct.Struct("<Q")
_BIGGEST_BLOCK = max(_SECTION.size + 8 * CELL, RECORD.itemsize * RECORDS)


class BigWigWriter:
    """Scores on their way into one bigWig file, front to back.

    Memory: one slab, whatever the length.
    """

    def __init__(self, path: Path, sizes: Mapping[str, int]) -> None:
        for chrom, length in sizes.items():
            if length >= 1 << 32:
                raise InputError(
                    f"{chrom}: has {length:,} bases, a bigWig file holds sequences of up to "
                    f"{(1 << 32) - 1:,}: write a bedGraph instead"
                )
        self._sizes = sizes
        self._numbers = {chrom: number for number, chrom in enumerate(sizes)}
        self._chrom = ""
        self._slab = 0
        self._filled = 0
        self._values = np.full(SLAB, np.nan, np.float32)
        self._summary = np.zeros(0, BIN)
        longest = max(sizes.values())
        with ExitStack() as files:
            self._file: BinaryIO = files.enter_context(path.open("wb", buffering=1 << 20))
            self._levels = [
                Level(reduction, files.enter_context(tempfile.TemporaryFile(dir=path.parent)))
                for reduction in REDUCTIONS
                if reduction == REDUCTIONS[0] or reduction < longest
            ]
            self._file.write(bytes(_HEADER.size + LEVEL.size * len(self._levels)))
            self._file.write(bytes(_SUMMARY.size))
            self._names_place = self._file.tell()
            write_names(self._file, sizes)
            self._data_place = self._file.tell()
            self._file.write(bytes(_COUNT.size))
            self._data = Blocks(self._file)
            self._files = files.pop_all()

    def append(self, chrom: str, start: int, scores: Float32[np.ndarray, " bases"]) -> None:
        """Add scores that begin at `start`, at or after the end of all that came before."""
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
        """Write the trees and the zoom levels, and then the header that makes the file valid."""
        self._flush()
        index_place = self._file.tell()
        write_blocks(self._file, self._data.rows())
        heads: list[bytes] = []
        fewest = 0
        for level in self._levels:
            level.flush()
            # A level that has no fewer records than a finer one shows nothing new.
            if not heads or level.n_records < fewest:
                heads.append(level.copy_to(self._file))
                fewest = level.n_records
        self._file.write(struct.pack("<I", _MAGIC))

        self._file.seek(0)
        self._file.write(
            _HEADER.pack(
                *(_MAGIC, _VERSION, len(heads)),
                *(self._names_place, self._data_place, index_place),
                *(0, 0, 0, self._names_place - _SUMMARY.size, _BIGGEST_BLOCK, 0),
            )
        )
        self._file.write(b"".join(heads))
        self._file.seek(self._names_place - _SUMMARY.size)
        fields = ["valid", "low", "high", "sum", "squares"]
        totals = self._summary[fields][0].item() if len(self._summary) else (0, 0, 0, 0, 0)
        self._file.write(_SUMMARY.pack(*totals))
        self._file.seek(self._data_place)
        self._file.write(_COUNT.pack(self._data.n_blocks))
        self._file.close()

    def close(self) -> None:
        """Let go of the files.  Never fails: what cannot be written was said by then."""
        with suppress(OSError):
            self._files.close()

    def _flush(self) -> None:
        """Write the slab in hand, data and zoom records, and empty it."""
        if not self._filled:
            return
        number = self._numbers[self._chrom]
        origin = self._slab * SLAB
        filled = self._values[: self._filled]
        for first in range(0, len(filled), CELL):
            _write_cell(self._data, number, origin + first, filled[first : first + CELL])
        whole_bins = -(-self._filled // REDUCTIONS[0]) * REDUCTIONS[0]
        bins = finest_bins(self._values[:whole_bins], origin)
        for level in self._levels:
            if level.reduction != REDUCTIONS[0]:
                bins = merged(bins, bins["start"] // level.reduction)
            level.add(number, bins)
        everything = np.concatenate([self._summary, bins])
        self._summary = merged(everything, np.zeros(len(everything), np.int64))
        filled[:] = np.nan
        self._filled = 0


def _write_cell(
    blocks: Blocks, chrom: int, origin: int, values: Float32[np.ndarray, " bases"]
) -> None:
    """Write the values of one cell, in whichever kind of block they cost least."""
    kept = np.flatnonzero(~np.isnan(values))
    if not len(kept):
        return
    breaks = np.flatnonzero(np.diff(kept) > 1) + 1
    if len(kept) < _RUN * (len(breaks) + 1):
        items = np.empty(len(kept), [("place", "<u4"), ("value", "<f4")])
        items["place"] = origin + kept
        items["value"] = values[kept]
        _write_section(blocks, chrom, origin + kept, _VAR_STEP, items.tobytes(), repeats=True)
        return
    for run in np.split(kept, breaks):
        piece = values[run[0] : run[-1] + 1]
        repeats = int(np.count_nonzero(piece[1:] == piece[:-1])) * 8 >= len(piece)
        body = piece.astype("<f4").tobytes()
        _write_section(blocks, chrom, origin + run, _FIXED_STEP, body, repeats=repeats)


def _write_section(
    blocks: Blocks,
    chrom: int,
    places: Int64[np.ndarray, " values"],
    kind: int,
    body: bytes,
    *,
    repeats: bool,
) -> None:
    """Write one data block over the places, which ascend."""
    start, end = int(places[0]), int(places[-1]) + 1
    step = 1 if kind == _FIXED_STEP else 0
    head = _SECTION.pack(chrom, start, end, step, 1, kind, 0, len(places))
    blocks.add((chrom, start, chrom, end), head + body, repeats=repeats)
