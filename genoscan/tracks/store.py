"""Storage of results at all bases of some regions, in memory or on disk; a run can be resumed from results on disk.

The folder of the journal (see journal.py) contains memory-mapped arrays with the results at all bases of the
concatenated regions. An interrupted batch continues from the last saved states of its sweeps (see snapshots.py).
When a run is resumed, the checksums of all stored results are verified.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from genoscan.genome.region import Region
from genoscan.tracks.atomic import os_errors
from genoscan.tracks.journal import Entry, Journal, checksum, damaged, open_journal
from genoscan.tracks.memory_map import release_pages

_PIECE = 1 << 20
_RELEASED = 1 << 22
"""Number of bases after whose use the resident pages of memory-mapped results are released."""


@dataclass(frozen=True)
class Arrays:
    """Scores, base codes and, optionally, the four derivatives or the predictions at all scored bases.

    Attributes
    ----------
    scores
        Scores at all bases of the concatenated regions, as a float32 array of shape (bases,). For the
        predictions of a language model, these are the log-likelihoods of the observed bases.
    codes
        Codes of the observed bases, as a uint8 array of shape (bases,).
    columns
        Derivatives with respect to A, C, G and T, as a float32 array of shape (bases, 4), or predictions,
        as an array of shape (bases, labels), float32 on disk; None if neither is stored.
    offsets
        Array index of the first base of each region.
    first
        Contribution of the first of two strands to the mean derivatives, as a float32 array of shape
        (bases, 4). On disk, this is a separate array, so that a tile of the second strand can be stored
        again after an interruption; it is None if only one strand is read. In memory, this is by default
        the same array as `columns`.
    """

    scores: np.ndarray
    codes: np.ndarray
    columns: np.ndarray | None
    offsets: Mapping[Region, int]
    first: np.ndarray | None

    def checksum(self, at: slice, *, final: bool = True) -> int:
        """Flush memory-mapped results to disk, and return the CRC-32 of the results.

        Parameters
        ----------
        at
            Slice of the arrays that contains the results.
        final
            If True, include `codes`, `scores` and `columns`; if False, include `codes` and `first`. Arrays
            that are None are omitted.

        Returns
        -------
        int
            CRC-32 of the results.
        """
        crc = 0
        for array in (self.codes, *((self.scores, self.columns) if final else (self.first,))):
            if array is None:
                continue
            if isinstance(array, np.memmap):
                array.flush()
            for start in range(at.start, at.stop, _PIECE):
                piece = array[start : min(start + _PIECE, at.stop)]
                crc = checksum(piece, crc)
                self.used(len(piece))
        return crc

    @cached_property
    def _used(self) -> list[int]:
        """Number of bases whose results were used since pages were released, in a list of one item."""
        return [0]

    def used(self, n_bases: int) -> None:
        """Note that results at `n_bases` bases were stored or read; release the resident pages from time to time.

        The results remain in the files. Pages are not released at every call, because this takes ten microseconds, and
        regions may be many and short.
        """
        self._used[0] += n_bases
        if self._used[0] < _RELEASED:
            return
        self._used[0] = 0
        for array in (self.scores, self.codes, self.columns, self.first):
            if array is not None:
                release_pages(array)

    def slice_of(self, region: Region) -> slice:
        """Return the slice of the arrays that corresponds to a region.

        Parameters
        ----------
        region
            One of the regions in `offsets`.

        Returns
        -------
        slice
            Slice along the first axis of the arrays.
        """
        first = self.offsets[region]
        return slice(first, first + len(region))

    def scores_of(self, region: Region) -> np.ndarray:
        """Return the scores of a region.

        Parameters
        ----------
        region
            One of the regions in `offsets`.

        Returns
        -------
        array of shape (len(region),), float32
            View of the region's scores.
        """
        return self.scores[self.slice_of(region)]


def arrays_in_memory(
    regions: Sequence[Region], *, separate_first: bool = False, width: int = 4, dtype: DTypeLike = np.float32
) -> Arrays:
    """Allocate uninitialised arrays in memory.

    Parameters
    ----------
    regions
        Scored regions.
    separate_first
        Whether `first` is a separate array, as on disk. This is required if the tiles of the second strand
        are stored more than once.
    width, dtype
        Number of columns, and their type.

    Returns
    -------
    Arrays
        Uninitialised arrays. None of them is omitted, although `columns` and `first` are optional.

    Notes
    -----
    Memory: 21 bytes per base for four columns of float32; 37 bytes if `first` is a separate array.
    """
    total = sum(map(len, regions))
    scores, codes = np.empty(total, np.float32), np.empty(total, np.uint8)
    columns = np.empty((total, width), dtype)
    return Arrays(scores, codes, columns, _offsets(regions), np.empty_like(columns) if separate_first else columns)


def count_scores(arrays: Arrays, regions: Sequence[Region]) -> dict[str, int]:
    """Count the bases that have a score, and the regions in which every score is 0.

    Parameters
    ----------
    arrays
        Arrays that contain the scores.
    regions
        Regions whose scores are counted.

    Returns
    -------
    dict
        `scored_bases` is the number of bases that have a score. `zero_regions` is the number of regions
        that have at least one score and no score other than 0.
    """
    scored_bases = zero_regions = 0
    for region in regions:
        scored = zeros = 0
        scores = arrays.scores_of(region)
        for start in range(0, len(scores), _PIECE):
            piece = scores[start : start + _PIECE]
            scored += int(np.isfinite(piece).sum())
            zeros += int((piece == 0).sum())
            arrays.used(len(piece))
        scored_bases += scored
        zero_regions += 0 < scored == zeros
    return {"scored_bases": scored_bases, "zero_regions": zero_regions}


@dataclass(frozen=True)
class ScoreStore(Arrays):
    """Memory-mapped arrays with a journal of finished batches.

    Attributes
    ----------
    journal
        Journal of the run, whose entries contain the target value of each window of a batch, and further results
        for each window.

    Notes
    -----
    Disk: see `bytes_per_base`. Memory: small, because the pages of memory-mapped arrays are released while
    results are stored and read (see `Arrays.used`).
    """

    journal: Journal

    def commit(
        self, batch: int, values: Sequence[float], regions: Sequence[Region], details: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Flush the arrays and mark a batch as finished.

        Parameters
        ----------
        batch
            Number of the batch.
        values
            Target value of each window in the batch.
        regions
            Region of each window in the batch.
        details
            Further results for each window, as JSON values.

        Raises
        ------
        OutputError
            If the results or the journal cannot be written.
        """
        with os_errors(self.journal.path):
            checksums = [(at.start, at.stop, self.checksum(at)) for at in map(self.slice_of, regions)]
        entry = Entry(batch=batch, values=list(values), details=list(map(dict, details)), checksums=checksums)
        self.journal.add(entry)


def bytes_per_base(*, columns: bool, both_strands: bool) -> int:
    """Return the disk space of a store of derivatives, in bytes per base; the arguments are those of `open_store`."""
    return 5 + 16 * columns + 16 * both_strands


@contextmanager
def open_store(
    output: Path,
    regions: Sequence[Region],
    settings: Mapping[str, Any],
    *,
    columns: bool,
    both_strands: bool = False,
    width: int = 4,
) -> Iterator[ScoreStore]:
    """Context manager that creates the store of a run or reopens the store of an interrupted run.

    Parameters
    ----------
    output
        First output file of the run, `OUT`. The store is the folder `OUT.partial/` beside this file.
    regions
        Scored regions.
    settings
        All settings that determine the results, as JSON values.
    columns
        Whether to store several values per base (derivatives or predictions) in addition to the scores.
    both_strands
        Whether the results are means over the two strands.
    width
        Number of values per base in `columns`.

    Yields
    ------
    ScoreStore
        Store of the run, which is kept or deleted as its journal (see `open_journal`).

    Raises
    ------
    InputError
        If the interrupted run had different settings. The message names the first setting that differs.
    OutputError
        If another process is using the store, or if the files cannot be created or are damaged.
    """
    with open_journal(output, settings) as journal:
        total = sum(map(len, regions))
        scores, codes = journal.array("scores", np.float32, (total,)), journal.array("codes", np.uint8, (total,))
        values = journal.array("columns", np.float32, (total, width)) if columns else None
        first = journal.array("first", np.float32, (total, 4)) if both_strands else None
        store = ScoreStore(scores, codes, values, _offsets(regions), first, journal)
        for entry in journal.entries.values():
            for start, stop, crc in entry.checksums:
                if not 0 <= start <= stop <= total or store.checksum(slice(start, stop)) != crc:
                    raise damaged(journal.path / "scores")
        yield store


def _offsets(regions: Sequence[Region]) -> dict[Region, int]:
    edges = np.cumsum([0, *map(len, regions)]).tolist()
    return dict(zip(regions, edges[:-1], strict=True))
