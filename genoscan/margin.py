"""Where a derivative does not know: how near a base's routes are to being others, as a track.

A PD-SSM's derivative takes its routes as they are; a substitution that changes one is a jump that
it cannot see.  The margin is small where that is near.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genoscan.engine.forward import forward
from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import N
from genoscan.genome.plan import Window
from genoscan.job import Job
from genoscan.layers.margins import Margins
from genoscan.record import settings
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.writer import check_output, open_tracks, write_in_pieces


def check_margins(job: Job, path: Path, others: Sequence[Path] = ()) -> None:
    """Refuse what `write_margins` would, and a file that is another output, before any work."""
    if path.resolve() in {other.resolve() for other in others}:
        raise InputError(f"--with-margin {path}: an output is given twice: name each once")
    check_output(path)
    if path.suffix == ".npz":
        raise InputError(f"--with-margin {path}: one number a base, expected a track: name a .bw")
    Margins(job.model.causal)


def write_margins(
    job: Job, path: Path, *, command: Sequence[str] = (), progress: Progress = ignore
) -> dict[str, Any]:
    """Write the least margin of all layers and heads at every region's bases.

    The margin of a head is the probability of the map it takes less that of the next; where both
    strands are read, the smaller of theirs; a gap where the base is no A, C, G or T.
    Exact: the model's own numbers, in a forward pass.
    Memory: a window at 1 byte a base, one tile and one carry; a region's margins lie on disk.
    """
    check_margins(job, path)
    windows_of = {windows[0].scored: windows for batch in job.batches for windows in batch}
    with open_tracks([path], job.genome.sizes) as track:
        for region in job.regions:
            with tempfile.TemporaryFile(dir=path.parent) as room:
                margins = np.memmap(room, np.float32, "w+", shape=(len(region),))
                margins[:] = np.inf
                for window in windows_of[region]:
                    _lower(job, window, margins, progress)
                write_in_pieces(track, region, margins)
    record = settings(job) | {"command": list(command), "track": "margin"}
    write_provenance(path, record)
    return record


def _lower(job: Job, window: Window, margins: np.ndarray, progress: Progress) -> None:
    """Take the smaller of what is there and a window's margins."""
    codes, scored = job.read([window]), window.scored_span
    rows = margins if window.strand == "+" else margins[::-1]
    layer, inputs = Margins(job.model.causal), OneHot(codes, job.model.table())
    for span, found in forward(layer, inputs, tile=job.model.method.tile, progress=progress):
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
