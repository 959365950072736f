"""Processing of the gradients of windows: cropping, reorientation, averaging and scoring.

Gradients are cropped to the scored bases, mapped to the forward strand, averaged over strands, and reduced
to scores.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from genoscan.errors import NonFiniteError
from genoscan.genome.alphabet import N, reverse_complement
from genoscan.genome.plan import Window
from genoscan.genome.region import Region
from genoscan.tracks.score import SCORES, blank_unknown
from genoscan.tracks.snapshots import FileSnapshots
from genoscan.tracks.store import Arrays


class Sink:
    """Receiver for the gradients of a batch of windows that are read on the same strand.

    The gradients are received in tiles, which are blocks of consecutive positions. Tiles may arrive in any
    order.

    Parameters
    ----------
    arrays
        Arrays in which the scores are stored. The four derivatives are stored too, unless `arrays.columns`
        is None.
    windows
        Windows of the batch, which have equal lengths.
    codes
        Base codes of the windows, in the reading direction.
    score
        Name of the score, a key of `SCORES`.
    by_base
        Function that converts a tile from the format of the engine to derivatives with respect to A, C, G
        and T. It returns a float32 array of shape (rows, span, 4).
    strand_index, n_strands
        Index of this strand, and number of strands over which gradients are averaged. Scores are computed
        when the gradients of the last strand are stored.
    """

    def __init__(
        self,
        arrays: Arrays,
        windows: Sequence[Window],
        codes: UInt8[np.ndarray, "windows length"],
        score: str,
        by_base: Callable[[Any], Float32[np.ndarray, "rows span 4"]],
        strand_index: int,
        n_strands: int,
    ) -> None:
        self._arrays, self._windows, self._codes = arrays, windows, codes
        self._strand_index, self._n_strands = strand_index, n_strands
        self._score, self._by_base = SCORES[score], by_base
        self._non_finite = np.zeros(len(windows), np.int64)
        self._stored: list[list[slice]] = [[] for _ in windows]

    def snapshots(self, folder: Path, batch: int, rows: slice) -> FileSnapshots:
        """Return the storage for the intermediate states of a sweep over some windows of the batch.

        Parameters
        ----------
        folder
            Folder in which the states are stored as files.
        batch
            Number of the batch.
        rows
            Slice that selects the windows from the batch.

        Returns
        -------
        FileSnapshots
            Storage for the states. The names of the files identify the batch, the strand and the windows.
        """
        final = self._strand_index == self._n_strands - 1
        prefix = f"{batch}.{self._strand_index}.{rows.start}."
        checksum = partial(self._arrays.checksum, final=final)
        return FileSnapshots(folder, prefix, partial(self._take_stored, rows), checksum)

    def receive(self, rows: slice, span: slice, tile: Any, *, weight: float = 1.0, add: bool = False) -> None:
        """Store the gradients of one tile, or add them to the stored ones.

        Parameters
        ----------
        rows
            Slice that selects the windows of the tile from the batch.
        span
            Positions of the tile in each window, counted in the reading direction.
        tile
            Derivatives, in the format of the engine.
        weight
            Factor by which the derivatives are multiplied.
        add
            Whether to add the derivatives to those that are stored for the same positions and strand. This
            requires that `arrays.columns` is not None.

        Notes
        -----
        Several threads may call this method concurrently if their rows are disjoint.
        """
        for row, gradient in zip(range(rows.start, rows.stop), self._by_base(tile), strict=True):
            self._receive(row, span, gradient * np.float32(weight), add)

    def check_finite(self, values: Float64[np.ndarray, " windows"], advice: str) -> None:
        """Check that the target values and the derivatives at known bases are finite.

        Parameters
        ----------
        values
            Target value of each window.
        advice
            Suggested remedy, which is appended to the error message.

        Raises
        ------
        NonFiniteError
            If a target value, or a derivative at a known base, is NaN or infinite.
        """
        for window, value, count in zip(self._windows, values, self._non_finite, strict=True):
            if count:
                found = f"{count:,} of {sum(map(len, window.regions)):,} bases are not finite"
                raise NonFiniteError(f"{window.scored}: the derivatives at {found}; {advice}")
            if not np.isfinite(value):
                raise NonFiniteError(f"{window.scored}: the target is {value}; {advice}")

    def _receive(self, row: int, span: slice, gradient: np.ndarray, add: bool) -> None:
        for region in self._windows[row].regions:
            scored = self._windows[row].span_of(region)
            start, stop = max(span.start, scored.start), min(span.stop, scored.stop)
            if start < stop:
                part = gradient[start - span.start : stop - span.start]
                self._receive_part(row, region, slice(start, stop), part, add)

    def _receive_part(self, row: int, region: Region, span: slice, gradient: np.ndarray, add: bool) -> None:
        """Store the gradients at positions `span` of a window, which lie in a region."""
        window, (start, stop) = self._windows[row], (span.start, span.stop)
        scored, codes = window.span_of(region), np.minimum(self._codes[row, span], N)
        gradient = blank_unknown(gradient, codes)
        self._non_finite[row] += (~np.isfinite(gradient).all(1) & (codes < N)).sum()
        if self._non_finite[row]:
            return
        at = slice(start - scored.start, stop - scored.start)
        if window.strand == "-":
            # Reverse complement: reverse the positions, and exchange A with T and C with G.
            at = slice(scored.stop - stop, scored.stop - start)
            codes, gradient = reverse_complement(codes), gradient[::-1, ::-1]
        offset = self._arrays.offsets[region]
        at = slice(offset + at.start, offset + at.stop)
        self._store(at, codes, gradient, add)
        self._note(self._stored[row], at)

    def _store(self, at: slice, codes: np.ndarray, gradient: np.ndarray, add: bool) -> None:
        arrays, n_strands = self._arrays, self._n_strands
        arrays.codes[at] = codes
        final = self._strand_index == n_strands - 1
        columns = arrays.columns if final else arrays.first
        stored = columns if add else arrays.first if self._strand_index else None
        if columns is not None or stored is not None:
            before = np.float32(0) if stored is None else stored[at]
            gradient = before + gradient / np.float32(n_strands)
        if columns is not None:
            columns[at] = gradient
        if final:
            arrays.scores[at] = self._score(gradient, codes)
        arrays.used(len(codes))

    @staticmethod
    def _note(stored: list[slice], at: slice) -> None:
        """Append a slice to a list, or merge it with the last slice in the list if the two are adjacent."""
        if stored and stored[-1].start == at.stop:
            at = slice(at.start, stored.pop().stop)
        elif stored and stored[-1].stop == at.start:
            at = slice(stored.pop().start, at.stop)
        stored.append(at)

    def _take_stored(self, rows: slice) -> list[slice] | None:
        """Return the slices of the arrays that have been filled since the last call.

        If a derivative of the windows in `rows` is not finite, None is returned.
        """
        if self._non_finite[rows].any():
            return None
        stored = [at for row in self._stored[rows] for at in row if at.stop > at.start]
        for row in self._stored[rows]:
            row.clear()
        return stored
