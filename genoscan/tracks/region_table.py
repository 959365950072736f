"""Tables that summarise tracks within regions: a row per region, the same statistics for each track."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from genoscan.genome.bed import read_bed
from genoscan.genome.region import Region, unknown_sequence
from genoscan.tracks.region_scores import region_scores
from genoscan.tracks.track_reader import TrackReader, open_scores, track_labels

if TYPE_CHECKING:
    import pandas as pd

STATISTICS = "covered", "mean", "mean_abs", "sum", "max", "max_position", "min", "min_position"
"""Names of the columns of each track, after the name of the track."""


def summarize_regions(
    tracks: Sequence[str | Path] | str | Path,
    regions: Sequence[Region] | str | Path,
    *,
    notify: Callable[[str], object] = lambda _: None,
) -> "pd.DataFrame":
    """Summarise the scores of tracks within regions.

    Parameters
    ----------
    tracks
        Track, or list of tracks: bigWig, bedGraph, or archive of gradients (.npz).
    regions
        Regions, or BED file. Regions may overlap, extend past their sequences or be on unknown sequences.
    notify
        Function called with one line for each track in which regions have no score.

    Returns
    -------
    pandas.DataFrame
        A row per region, in the given order, with the columns `chrom`, `start`, `end` (0-based, half-open),
        `name` and `strand`, followed by the columns of each track. Their names begin with the name of the
        track and a dot: `covered`, the number of bases with a score; `mean` and `mean_abs`, the means of score
        and absolute score over these bases; `sum`; `max` and `min`, the largest and the smallest score; and
        `max_position` and `min_position`, the first positions with these scores (1-based). If no base has a
        score, `covered` is 0, and all other values are missing.

    Raises
    ------
    InputError
        If a file cannot be read, a track is given twice, or a score is infinite.

    Notes
    -----
    Sums are computed in float64. Memory: about 100 bytes per region and track, the scores of 2^20 bases, and 20
    bytes per row of a bedGraph.
    """
    import pandas as pd

    paths = [Path(tracks)] if isinstance(tracks, str | Path) else [Path(path) for path in tracks]
    rows = read_bed(regions, None) if isinstance(regions, str | Path) else list(regions)
    places = [(row.chrom, row.start, row.end, row.name or ".", row.strand) for row in rows]
    parts = [pd.DataFrame(places, columns=["chrom", "start", "end", "name", "strand"])]
    for label, path in zip(track_labels(paths), paths, strict=True):
        with open_scores(path) as track:
            found = _Statistics(track, rows)
            for line in _notes(track, rows, found.covered):
                notify(f"{path}: {line}")
        parts.append(found.table().add_prefix(f"{label}."))
    return pd.concat(parts, axis=1)


class _Statistics:
    """Statistics of each region, in arrays of shape (regions,)."""

    def __init__(self, track: TrackReader, regions: Sequence[Region]) -> None:
        n = len(regions)
        self.covered = np.zeros(n, np.int64)
        self._sum, self._absolute = np.zeros(n), np.zeros(n)
        self._max, self._min = np.full(n, -np.inf), np.full(n, np.inf)
        self._max_at, self._min_at = np.zeros(n, np.int64), np.zeros(n, np.int64)
        for i, start, scores in region_scores(track, regions):
            known = np.flatnonzero(~np.isnan(scores))
            if not len(known):
                continue
            values = scores[known].astype(np.float64)
            self.covered[i] += len(known)
            self._sum[i] += values.sum()
            self._absolute[i] += np.abs(values).sum()
            highest, lowest = values.argmax(), values.argmin()
            if values[highest] > self._max[i]:
                self._max[i], self._max_at[i] = values[highest], start + known[highest] + 1
            if values[lowest] < self._min[i]:
                self._min[i], self._min_at[i] = values[lowest], start + known[lowest] + 1

    def table(self) -> "pd.DataFrame":
        """Return a table in which the values of regions without a score are missing."""
        import pandas as pd

        n = np.maximum(self.covered, 1)
        columns = (
            *(self.covered, self._sum / n, self._absolute / n, self._sum),
            *(self._max, self._max_at, self._min, self._min_at),
        )
        table = pd.DataFrame(dict(zip(STATISTICS, columns, strict=True)))
        table = table.astype({"max_position": "Int64", "min_position": "Int64"})
        table.loc[self.covered == 0, list(STATISTICS[1:])] = None
        return table


def _notes(track: TrackReader, regions: Sequence[Region], covered: np.ndarray) -> Iterator[str]:
    """Yield a line about the regions without a score, and one about regions that extend past their sequences."""
    without = int(np.count_nonzero(covered == 0))
    unknown = [region.chrom for region in regions if region.chrom not in track.sizes] if track.sizes else []
    if without:
        reason = f" ({len(unknown):,} because {unknown_sequence(unknown[0], track.sizes)})" if unknown else ""
        yield f"{without:,} of {len(regions):,} regions without a score{reason}"
    if track.states_lengths:
        past = sum(region.end > track.sizes.get(region.chrom, region.end) for region in regions)
        if past:
            yield f"{past:,} of {len(regions):,} regions extend past the ends of their sequences"
