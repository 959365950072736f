"""Writer for bedGraph, a text format with one line for each run of bases with equal scores.

Each line contains the sequence name, start, end and score, separated by tabs. Positions are 0-based and
half-open, as in BED. Each score is written with the fewest digits from which the same float32 can be read
back. Because 0.0 and -0.0 are different float32 values, bases with these scores are in separate runs. No
track line is written, because tabix and bedGraphToBigWig do not accept one.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pysam
from Bio.bgzf import BgzfWriter
from jaxtyping import Float32

from genoscan.errors import InputError

INDEX_SUFFIXES = ".tbi", ".csi"
"""File name suffixes of tabix indexes."""

_ROWS = 200_000
# A .tbi index addresses at most 2^29 bases of a sequence.
_TABIX_LIMIT = 1 << 29
_BGZF_LEVEL = 4


class _Run(NamedTuple):
    """Run of consecutive bases with the same score, which is stored as text."""

    chrom: str
    start: int
    end: int
    value: str

    def line(self) -> str:
        return f"{self.chrom}\t{self.start}\t{self.end}\t{self.value}\n"


class BedGraphWriter:
    """Writer that appends scores to one bedGraph file in genome order.

    Parameters
    ----------
    path
        File to write.
    sizes
        Sequence lengths in bases, in genome order.
    index
        Path of the tabix index. If a path is given, the file is compressed with bgzip and indexed. If None,
        the file is neither compressed nor indexed.

    Notes
    -----
    The format is exact: each score is read back as the same float32. Memory: the text of up to 200,000
    lines.
    """

    def __init__(self, path: Path, sizes: Mapping[str, int], *, index: Path | None = None) -> None:
        self._path = path
        self._index = index
        self._csi = index_suffix(sizes) == ".csi"
        self._raw: BinaryIO = path.open("wb")
        # Biopython's writer is used, because pysam's does not report why a write failed.
        self._file = BgzfWriter(fileobj=self._raw, compresslevel=_BGZF_LEVEL) if index else self._raw
        self._open: _Run | None = None

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

        Raises
        ------
        InputError
            If a line that begins with the name of the sequence is not a line of data.
        """
        if chrom.startswith("#") or chrom in ("track", "browser"):
            raise InputError(f"{self._path}: programs skip lines that begin with {chrom}: write a bigWig instead")
        for first in range(0, len(scores), _ROWS):
            self._append_piece(chrom, start + first, scores[first : first + _ROWS])

    def finish(self) -> None:
        """Write the last line, close the file and, if requested, write the index."""
        if self._open is not None:
            self._file.write(self._open.line().encode())
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
        """Close the file. Errors are ignored, because `append` and `finish` report failed writes."""
        with suppress(OSError):
            self._raw.close()

    def _append_piece(self, chrom: str, start: int, scores: Float32[np.ndarray, " bases"]) -> None:
        """Write all runs of a piece except the last run, which may continue in the next piece."""
        bits = scores.view(np.uint32)
        edges = (np.flatnonzero(bits[1:] != bits[:-1]) + 1).tolist()
        values = scores[[0, *edges]].astype("U").tolist()
        ends = zip([0, *edges], [*edges, len(scores)], values, strict=True)
        runs = [(start + first, start + last, value) for first, last, value in ends if value != "nan"]
        if not runs:
            return
        lines = []
        if self._open is not None:
            start, end, value = runs[0]
            if (chrom, start, value) == (self._open.chrom, self._open.end, self._open.value):
                runs[0] = self._open.start, end, value
            else:
                lines.append(self._open.line())
        self._open = _Run(chrom, *runs.pop())
        lines += [f"{chrom}\t{start}\t{end}\t{value}\n" for start, end, value in runs]
        self._file.write("".join(lines).encode())


def index_suffix(sizes: Mapping[str, int]) -> str:
    """Return the suffix of a tabix index format that can address every position in the given sequences.

    Parameters
    ----------
    sizes
        Sequence lengths in bases.

    Returns
    -------
    str
        ".csi" if a sequence is longer than the 2^29 bases that a .tbi index can address, and ".tbi"
        otherwise.
    """
    return ".csi" if max(sizes.values()) > _TABIX_LIMIT else ".tbi"
