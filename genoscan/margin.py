"""Tracks of the margins by which PD-SSM layers select their transitions.

The derivative of a PD-SSM layer treats the selected transitions as constants. It therefore does not
include the jump in the output that occurs if a substitution changes the selection. A small margin
indicates that a small change in the input may change the selection.
"""

import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import N
from genoscan.genome.plan import Window
from genoscan.job import Job
from genoscan.layers.margins import margins
from genoscan.record import settings
from genoscan.temporary import allocate
from genoscan.tracks.atomic import atomic_files, os_errors, resolve
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.record_schema import region_records
from genoscan.tracks.writer import check_output, open_tracks, write_in_pieces


def check_margins(job: Job, path: Path, others: Sequence[Path] = ()) -> None:
    """Check the arguments of `write_margins`, and that `path` differs from the paths of all other outputs."""
    if resolve(path) in map(resolve, others):
        raise InputError(f"--with-margin {path}: an output is given twice: name each once")
    check_output(path)
    if path.suffix == ".npz":
        raise InputError(f"--with-margin {path}: expected a track, such as a .bw")
    margins(job.model.stack)


def write_margins(job: Job, path: Path, *, command: Sequence[str] = (), progress: Progress = ignore) -> dict[str, Any]:
    """Write the smallest margin at each base as a track; return the record of the track.

    The margin of a head is the probability of the selected transition minus the probability of the
    second most probable transition. At each base, the track contains the smallest margin over all layers
    and heads, over both directions of bidirectional layers and, if both strands are read, over both strands.
    The track has no value at bases other than A, C, G and T.

    Parameters
    ----------
    job
        Job that specifies the model, the regions and the strands; the model must have PD-SSM layers.
    path
        Path of the track. The suffix determines the format.
    command
        Command line to store in the record.
    progress
        Function called after each processed tile. Its argument is the number of positions in the tile.

    Returns
    -------
    dict
        Record of the track. It is also written to a JSON file beside the track.

    Raises
    ------
    InputError
        If the suffix is .npz or unknown.
    UnsupportedModelError
        If the model has no PD-SSM layer.
    NonFiniteError
        If a margin at an A, C, G or T is NaN or infinite.

    Notes
    -----
    The margins are computed exactly, in a forward pass. Memory is needed for the activations of one tile,
    for one carry, and for 1 byte per base of a window; bidirectional models also need memory for the activations
    between layers. The margins of a region are stored in a temporary file.
    """
    check_margins(job, path)
    windows_of = {region: windows for batch in job.batches for windows in batch for region in windows[0].regions}
    record = settings(job) | {
        "command": list(command),
        "regions": region_records(job.regions),
        "track": "margin",
        "scored_bases": 0,
    }
    with atomic_files() as files:
        with open_tracks([path], job.genome.sizes, files) as track:
            for windows, regions in groupby(job.regions, windows_of.__getitem__):
                scored = windows[0].scored
                with tempfile.TemporaryFile(dir=path.parent) as file:
                    with os_errors(path):
                        allocate(file.fileno(), len(scored) * np.dtype(np.float32).itemsize)
                    smallest = np.memmap(file, np.float32, "r+", shape=(len(scored),))
                    smallest[:] = np.inf
                    for window in windows:
                        _update_minimum(job, window, smallest, progress)
                    for region in regions:
                        at = slice(region.start - scored.start, region.end - scored.start)
                        write_in_pieces(track, region, smallest[at])
                        record["scored_bases"] += int(np.isfinite(smallest[at]).sum())
        write_provenance(path, record, files)
    return record


def _update_minimum(job: Job, window: Window, smallest: np.ndarray, progress: Progress) -> None:
    """Compute the margins in a window, and lower `smallest` in place wherever a computed margin is smaller."""
    codes, scored = job.read([window]), window.scored_span
    rows = smallest if window.strand == "+" else smallest[::-1]
    network, inputs = margins(job.model.stack), OneHot(codes, job.model.table())
    method = job.model.method.fit(network, inputs.length, inputs.batch, forward=True)
    for span, found in method.forward(network, inputs, progress=progress):
        start, stop = max(span.start, scored.start), min(span.stop, scored.stop)
        if start >= stop:
            continue
        at = slice(start - scored.start, stop - scored.start)
        part = found[0, start - span.start : stop - span.start, 0].float().cpu().numpy().copy()
        known = codes[0, start:stop].numpy() < N
        if not np.isfinite(part[known]).all():
            raise NonFiniteError(
                f"{window.scored}: margins are not finite; run {job.model.name} with --dtype "
                "float64, or check its weights"
            )
        part[~known] = np.nan
        rows[at] = np.minimum(rows[at], part)
