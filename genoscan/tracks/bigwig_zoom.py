"""Zoom levels of a bigWig file: summaries that genome browsers draw when one pixel covers many bases."""

import struct
from shutil import copyfileobj
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32, Int64

from genoscan.tracks.bigwig_index import BlockWriter, Rows, write_r_tree

REDUCTIONS = tuple(16 << 2 * level for level in range(9))
RECORDS = 1024
LEVEL = struct.Struct("<IIQQ")
RECORD = np.dtype(
    [
        *[("chrom", "<u4"), ("start", "<u4"), ("end", "<u4"), ("valid", "<u4")],
        *[("low", "<f4"), ("high", "<f4"), ("sum", "<f4"), ("squares", "<f4")],
    ]
)
# `start` and `end` delimit the bases with values in a bin; sums are accumulated in float64.
BIN = np.dtype(
    [
        *[("chrom", "u4"), ("start", "i8"), ("end", "i8"), ("valid", "i8"), ("low", "f4"), ("high", "f4")],
        *[("sum", "f8"), ("squares", "f8")],
    ]
)
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class ZoomLevel:
    """Writer for the records of one zoom level, which are stored in a temporary file.

    Parameters
    ----------
    reduction
        Bin width in bases.
    file
        Empty temporary file that is open for reading and writing.

    Attributes
    ----------
    reduction
        Bin width in bases.
    n_records
        Number of records added so far.
    """

    def __init__(self, reduction: int, file: BinaryIO) -> None:
        self.reduction = reduction
        self.n_records = 0
        self._file = file
        self._blocks = BlockWriter(file)
        self._pending = np.zeros(0, RECORD)

    def add(self, bins: Rows) -> None:
        """Add one record for each bin.

        Parameters
        ----------
        bins
            Rows of dtype `BIN`, in genome order. The sums and the sums of squares are clipped to the range
            of float32.
        """
        records = np.zeros(len(bins), RECORD)
        for field in ("chrom", "start", "end", "valid", "low", "high"):
            records[field] = bins[field]
        for field in ("sum", "squares"):
            records[field] = np.clip(bins[field], -_FLOAT32_MAX, _FLOAT32_MAX)
        self.n_records += len(records)
        self._pending = np.concatenate([self._pending, records])
        while len(self._pending) >= RECORDS:
            self._write(self._pending[:RECORDS])
            self._pending = self._pending[RECORDS:]

    def flush(self) -> None:
        """Write the pending records, which do not fill a complete block, as the last block of the level."""
        if len(self._pending):
            self._write(self._pending)
            self._pending = self._pending[:0]

    def copy_to(self, file: BinaryIO) -> bytes:
        """Append the record count, blocks and R-tree of the level to a bigWig file.

        Parameters
        ----------
        file
            bigWig file that is open for writing and positioned at its end.

        Returns
        -------
        bytes
            Header of the level, which must be written at the start of the bigWig file.
        """
        offset = file.tell()
        file.write(struct.pack("<I", self.n_records))
        rows = self._blocks.rows()
        rows["offset"] += np.uint64(file.tell())
        self._file.seek(0)
        copyfileobj(self._file, file, 1 << 20)
        index_offset = file.tell()
        write_r_tree(file, rows)
        return LEVEL.pack(self.reduction, 0, offset, index_offset)

    def _write(self, records: Rows) -> None:
        first, last = records[0].item(), records[-1].item()
        extent = (first[0], first[1], last[0], last[2])
        self._blocks.add(extent, records.tobytes(), repeats=True)


def finest_bins(
    values: Float32[np.ndarray, " bases"], chroms: Int64[np.ndarray, " bins"], starts: Int64[np.ndarray, " bins"]
) -> Rows:
    """Summarize the scores in each bin of the finest zoom level.

    Parameters
    ----------
    values
        One score per base, or NaN at bases without a score. The number of bases must be a multiple of the
        bin width.
    chroms, starts
        Sequence index of each bin, and 0-based position of the first base of each bin.

    Returns
    -------
    array of dtype `BIN`
        One row per bin that contains a score.
    """
    width = REDUCTIONS[0]
    rows = values.reshape(-1, width)
    present = ~np.isnan(rows)
    valid = np.count_nonzero(present, axis=1)
    known = np.flatnonzero(valid)
    rows, present = rows[known], present[known]
    exact = np.where(present, rows, 0).astype(np.float64)
    bins = np.zeros(len(known), BIN)
    bins["chrom"] = chroms[known]
    bins["start"] = starts[known] + present.argmax(axis=1)
    bins["end"] = starts[known] + width - present[:, ::-1].argmax(axis=1)
    bins["valid"] = valid[known]
    bins["low"] = np.fmin.reduce(rows, axis=1)
    bins["high"] = np.fmax.reduce(rows, axis=1)
    bins["sum"] = exact.sum(axis=1)
    bins["squares"] = (exact * exact).sum(axis=1)
    return bins


def merge_bins(bins: Rows, reduction: int) -> Rows:
    """Merge the bins of one zoom level into the wider bins of another level.

    Parameters
    ----------
    bins
        Rows of dtype `BIN`, in genome order.
    reduction
        Width of the wider bins in bases.

    Returns
    -------
    array of dtype `BIN`
        One row per wider bin that contains a score.
    """
    if not len(bins):
        return bins
    groups = (bins["chrom"].astype(np.int64) << 32) + bins["start"] // reduction
    firsts = np.flatnonzero(np.diff(groups, prepend=-1))
    lasts = np.append(firsts[1:], len(bins)) - 1
    wider = np.zeros(len(firsts), BIN)
    wider["chrom"] = bins["chrom"][firsts]
    wider["start"] = bins["start"][firsts]
    wider["end"] = bins["end"][lasts]
    wider["low"] = np.minimum.reduceat(bins["low"], firsts)
    wider["high"] = np.maximum.reduceat(bins["high"], firsts)
    for field in ("valid", "sum", "squares"):
        wider[field] = np.add.reduceat(bins[field], firsts)
    return wider


class Summary:
    """Summary of all values in a track.

    Attributes
    ----------
    valid
        Number of values.
    low, high, sum, squares
        Minimum, maximum, sum and sum of squares of the values; 0 if there are no values.
    """

    def __init__(self) -> None:
        self.valid = 0
        self.low = self.high = self.sum = self.squares = 0.0

    def add(self, bins: Rows) -> None:
        """Add the values in bins to the summary.

        The bins must be in genome order. Their sums are added sequence by sequence.
        """
        if not len(bins):
            return
        first = self.valid == 0
        low, high = float(bins["low"].min()), float(bins["high"].max())
        self.low, self.high = (low, high) if first else (min(self.low, low), max(self.high, high))
        starts = np.flatnonzero(np.diff(bins["chrom"].astype(np.int64), prepend=-1))
        # reduceat adds the pairwise sum of the other values to the first value, which is the previous
        # total for the sums of a single sequence, and here -0.0, the neutral element.
        places = starts + np.maximum(np.arange(len(starts)) - first, 0)
        for field in ("sum", "squares"):
            sums = np.add.reduceat(np.insert(bins[field], starts[int(first) :], -0.0), places)
            setattr(self, field, sum(sums.tolist(), start=-0.0 if first else getattr(self, field)))
        self.valid += int(bins["valid"].sum())
