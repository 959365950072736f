"""Writer for bedGraph, a text format with one line per run of equal scores.

Each line contains the sequence name, start, end and score, separated by tabs. Positions are 0-based
and half-open, as in BED. Scores are written with the fewest digits that round-trip to the same float32;
0.0 and -0.0 form separate runs. No track line is written, because tabix and bedGraphToBigWig do not
accept one.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pysam
from Bio.bgzf import BgzfWriter
from jaxtyping import Float32, Int64

INDEX_SUFFIXES = ".tbi", ".csi"
"""Suffixes of tabix indexes."""

_ROWS = 200_000
# A .tbi index addresses at most 2^29 bases of a sequence.
_TABIX_LIMIT = 1 << 29
_BGZF_LEVEL = 4


class BedGraphWriter:
    """Writer that appends scores to one bedGraph file in genome order.

    Parameters
    ----------
    path
        File to write.
    sizes
        Sequence lengths in bases, in genome order.
    index
        Path of the tabix index. If it is given, the file is compressed with bgzip and indexed.

    Notes
    -----
    Exact: each score reads back as the same float32. Memory: the text of 200,000 lines.
    """

    def __init__(self, path: Path, sizes: Mapping[str, int], *, index: Path | None = None) -> None:
        self._path = path
        self._index = index
        self._csi = index_suffix(sizes) == ".csi"
        self._raw: BinaryIO = path.open("wb")
        # Biopython's writer is used, because pysam's does not report why a write failed.
        self._file = BgzfWriter(fileobj=self._raw, compresslevel=_BGZF_LEVEL) if index else self._raw
        self._chrom = ""
        self._start = self._end = 0
        self._value = np.zeros(0, np.float32)

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
        for first in range(0, len(scores), _ROWS):
            self._append_piece(chrom, start + first, scores[first : first + _ROWS])

    def finish(self) -> None:
        """Write the last line, close the file and, if requested, write the index."""
        self._write_open_run()
        # For a BgzfWriter, this also writes bgzip's end-of-file block.
        self._file.close()
        if self._index is None:
            return
        verbosity = pysam.set_verbosity(0)
        try:
            pysam.tabix_index(
                str(self._path), force=True, preset="bed", index=str(self._index), keep_original=True, csi=self._csi
            )
        finally:
            pysam.set_verbosity(verbosity)

    def close(self) -> None:
        """Close the file and ignore errors; failed writes raise errors in `append` and `finish`."""
        with suppress(OSError):
            self._raw.close()

    def _append_piece(self, chrom: str, start: int, scores: Float32[np.ndarray, " bases"]) -> None:
        """Write all runs of a piece except the last, which may continue in the next piece."""
        bits = scores.view(np.uint32)
        breaks = np.flatnonzero(bits[1:] != bits[:-1]) + 1
        firsts = np.concatenate([np.zeros(1, np.int64), breaks])
        lasts = np.append(breaks, len(scores))
        known = ~np.isnan(scores[firsts])
        starts, ends, values = start + firsts[known], start + lasts[known], scores[firsts[known]]
        if not len(starts):
            return
        if (chrom, int(starts[0])) == (self._chrom, self._end) and values[:1].tobytes() == self._value.tobytes():
            starts[0] = self._start
        else:
            self._write_open_run()
        self._write(chrom, starts[:-1], ends[:-1], values[:-1])
        self._chrom, self._start, self._end = chrom, int(starts[-1]), int(ends[-1])
        self._value = values[-1:]

    def _write_open_run(self) -> None:
        ends = np.full(len(self._value), self._end, np.int64)
        starts = np.full(len(self._value), self._start, np.int64)
        self._write(self._chrom, starts, ends, self._value)
        self._value = self._value[:0]

    def _write(
        self,
        chrom: str,
        starts: Int64[np.ndarray, " runs"],
        ends: Int64[np.ndarray, " runs"],
        values: Float32[np.ndarray, " runs"],
    ) -> None:
        columns = starts.tolist(), ends.tolist(), values.astype("U").tolist()
        lines = [f"{chrom}\t{start}\t{end}\t{value}\n" for start, end, value in zip(*columns, strict=True)]
        self._file.write("".join(lines).encode())


def index_suffix(sizes: Mapping[str, int]) -> str:
    """Return the suffix of a tabix index that can address all sequences.

    Parameters
    ----------
    sizes
        Sequence lengths in bases.

    Returns
    -------
    str
        ".tbi", or ".csi" if a sequence is longer than the 2^29 bases that .tbi can address.
    """
    return ".csi" if max(sizes.values()) > _TABIX_LIMIT else ".tbi"
