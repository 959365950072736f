"""Profiles of tracks around the reference points of the same regions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32

from genoscan.errors import InputError
from genoscan.export.track_file import load_any_track
from genoscan.genome.region import Region, unknown_sequence
from genoscan.tracks.profile import (
    FEWEST,
    MeanProfile,
    Window,
    mean_of_known,
    mean_profile,
    reference_base,
    scores_around,
)
from genoscan.tracks.track_reader import open_scores, track_labels


@dataclass(frozen=True)
class Profiles:
    """Profiles of tracks around the reference points of the same regions.

    Attributes
    ----------
    regions
        Regions with a score in the window in any track, by decreasing mean in the first track.
    n_given
        Number of regions that were given.
    point, window
        Reference point and window.
    absolute
        Whether absolute scores were used.
    other_names
        A remark about each track that has none of the sequences of the regions.
    labels, descriptions
        Short name and one-line description of each track.
    scores
        For each track, the mean score in each bin around each region, as float32 of shape (regions, bins).
    means
        Mean over regions for each track.
    """

    regions: tuple[Region, ...]
    n_given: int
    point: str
    window: Window
    absolute: bool
    other_names: tuple[str, ...]
    labels: tuple[str, ...]
    descriptions: tuple[str, ...]
    scores: tuple[Float32[np.ndarray, "regions bins"], ...]
    means: tuple[MeanProfile, ...]

    @property
    def notes(self) -> list[str]:
        """Remarks on the regions that are needed to read the profile."""
        n, notes = len(self.regions), list(self.other_names)
        if n < self.n_given:
            notes.append(
                f"{self.n_given - n:,} of {self.n_given:,} regions have no score in any track and are left out."
            )
        if n < FEWEST:
            some = "1 region shows that region" if n == 1 else f"{n} regions shows single regions"
            notes.append(f"A mean of {some}, not a profile: give at least {FEWEST}.")
        unstranded = sum(region.strand == "." for region in self.regions)
        if unstranded:
            notes.append(f"{unstranded:,} of {n:,} regions have no strand and are read on strand +.")
        return notes


def compute_profiles(
    paths: Sequence[Path], regions: Sequence[Region], point: str, window: Window, *, absolute: bool = False
) -> Profiles:
    """Compute the profiles of tracks around the reference points of regions.

    Parameters
    ----------
    paths
        Tracks: bigWig, bedGraph, or archive of gradients (.npz).
    regions
        Regions, which may be outside the sequences of a track.
    point, window
        Reference point of each region, and the window around it, in the direction of the strand.
    absolute
        Whether to use absolute scores.

    Returns
    -------
    Profiles
        Scores around each region, and their means.

    Raises
    ------
    InputError
        If a file cannot be read, a track is given twice, a score is infinite, or no region has a score.

    Notes
    -----
    Memory: 8 bytes per region, bin and track.
    """
    labels = track_labels(paths)
    bases = [reference_base(region, point) for region in regions]
    scores, other_names = [], []
    for path, label in zip(paths, labels, strict=True):
        with open_scores(path) as track:
            scores.append(scores_around(track, bases, window, absolute=absolute))
            if track.sizes and not any(region.chrom in track.sizes for region in regions):
                why = unknown_sequence(regions[0].chrom, track.sizes) if regions else "there are no regions"
                other_names.append(f"{label}: no region has a score: {why}")
    known = np.any([~np.isnan(values).all(1) for values in scores], axis=0)
    if not known.any():
        where = regions[0].where if regions else "no region"
        why = f" ({other_names[0]})" if other_names else ""
        raise InputError(f"{where}: no base around it, nor around any other one, has a score{why}: give other regions")
    order = np.argsort(-np.nan_to_num(mean_of_known(scores[0], axis=1), nan=-np.inf), kind="stable")
    kept = order[known[order]]
    scores = [values[kept] for values in scores]
    return Profiles(
        regions=tuple(regions[i] for i in kept.tolist()),
        n_given=len(regions),
        point=point,
        window=window,
        absolute=absolute,
        other_names=tuple(other_names),
        labels=tuple(labels),
        descriptions=tuple(load_any_track(path).description for path in paths),
        scores=tuple(scores),
        means=tuple(map(mean_profile, scores)),
    )


def profile_table(found: Profiles) -> pd.DataFrame:
    """Return the mean profiles as a table with a row per track and bin.

    Parameters
    ----------
    found
        Profiles.

    Returns
    -------
    pandas.DataFrame
        Columns track; first_offset and last_offset of the bin, relative to the reference point; regions, the number
        of regions with a score in the bin; mean and standard_error.
    """
    first = found.window.offsets
    last = np.minimum(first + found.window.step - 1, found.window.downstream)
    parts = [
        pd.DataFrame(
            {
                "track": label,
                "first_offset": first,
                "last_offset": last,
                "regions": mean.n,
                "mean": mean.mean,
                "standard_error": mean.standard_error,
            }
        )
        for label, mean in zip(found.labels, found.means, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)
