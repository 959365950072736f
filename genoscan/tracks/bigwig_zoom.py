"""The zoom levels of a bigWig file: what a browser draws when a pixel spans many bases."""

import struct
from shutil import copyfileobj
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32, Int64

from genoscan.tracks.bigwig_index import Blocks, Rows, write_blocks

REDUCTIONS = tuple(16 << 2 * level for level in range(9))
RECORDS = 1024
LEVEL = struct.Struct("<IIQQ")
RECORD = np.dtype(
    [
        *[("chrom", "<u4"), ("start", "<u4"), ("end", "<u4"), ("valid", "<u4")],
        *[("low", "<f4"), ("high", "<f4"), ("sum", "<f4"), ("squares", "<f4")],
    ]
)
# From the first to the last base with a value, and kept in double precision on the way up.
BIN = np.dtype(
    [
        *[("start", "i8"), ("end", "i8"), ("valid", "i8"), ("low", "f4"), ("high", "f4")],
        *[("sum", "f8"), ("squares", "f8")],
    ]
)
_GREATEST = float(np.finfo(np.float32).max)


class Level:
    """One zoom level: records that wait to fill a block, and blocks in a temporary file."""

    def __init__(self, reduction: int, file: BinaryIO) -> None:
        self.reduction = reduction
        self.n_records = 0
        self._file = file
        self._blocks = Blocks(file)
        self._waiting = np.zeros(0, RECORD)

    def add(self, chrom: int, bins: Rows) -> None:
        """Add a record for each bin."""
        records = np.zeros(len(bins), RECORD)
        records["chrom"] = chrom
        for field in ("start", "end", "valid", "low", "high"):
            records[field] = bins[field]
        for field in ("sum", "squares"):
            records[field] = np.clip(bins[field], -_GREATEST, _GREATEST)
        self.n_records += len(records)
        self._waiting = np.concatenate([self._waiting, records])
        while len(self._waiting) >= RECORDS:
            self._write(self._waiting[:RECORDS])
            self._waiting = self._waiting[RECORDS:]

    def flush(self) -> None:
        """Write the records that wait, though they fill no block."""
        if len(self._waiting):
            self._write(self._waiting)
            self._waiting = self._waiting[:0]

    def copy_to(self, file: BinaryIO) -> bytes:
        """Append count, blocks and tree to the track; return what the header says of the level."""
        place = file.tell()
        file.write(struct.pack("<I", self.n_records))
        rows = self._blocks.rows()
        rows["offset"] += np.uint64(file.tell())
        self._file.seek(0)
        copyfileobj(self._file, file, 1 << 20)
        index_place = file.tell()
        write_blocks(file, rows)
        return LEVEL.pack(self.reduction, 0, place, index_place)

    def _write(self, records: Rows) -> None:
        first, last = records[0].item(), records[-1].item()
        extent = (first[0], first[1], last[0], last[2])
        self._blocks.add(extent, records.tobytes(), repeats=True)


def finest_bins(values: Float32[np.ndarray, " bases"], origin: int) -> Rows:
    """Return the bins of the finest level that have a value; the first begins at `origin`."""
    width = REDUCTIONS[0]
    rows = values.reshape(-1, width)
    present = ~np.isnan(rows)
    valid = np.count_nonzero(present, axis=1)
    kept = np.flatnonzero(valid)
    rows, present = rows[kept], present[kept]
    exact = np.where(present, rows, 0).astype(np.float64)
    bins = np.zeros(len(kept), BIN)
    bins["start"] = origin + width * kept + present.argmax(axis=1)
    bins["end"] = origin + width * (kept + 1) - present[:, ::-1].argmax(axis=1)
    bins["valid"] = valid[kept]
    bins["low"] = np.fmin.reduce(rows, axis=1)
    bins["high"] = np.fmax.reduce(rows, axis=1)
    bins["sum"] = exact.sum(axis=1)
    bins["squares"] = (exact * exact).sum(axis=1)
    return bins


def merged(bins: Rows, groups: Int64[np.ndarray, " bins"]) -> Rows:
    """Return one bin for each run of equal group numbers."""
    if not len(bins):
        return bins
    firsts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    lasts = np.append(firsts[1:], len(bins)) - 1
    wider = np.zeros(len(firsts), BIN)
    wider["start"] = bins["start"][firsts]
    wider["end"] = bins["end"][lasts]
    wider["low"] = np.minimum.reduceat(bins["low"], firsts)
    wider["high"] = np.maximum.reduceat(bins["high"], firsts)
    for field in ("valid", "sum", "squares"):
        wider[field] = np.add.reduceat(bins[field], firsts)
    return wider
