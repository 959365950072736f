"""A track in another format, or as another tool wrote it: the same score at every base."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from genoscan.errors import InputError
from genoscan.genome.region import Region
from genoscan.tracks.provenance import provenance_path, read_provenance, write_provenance
from genoscan.tracks.reader import BigWig, Stretch, is_bigwig, read_bedgraph, sequences
from genoscan.tracks.writer import open_track


def write_converted(
    path: Path,
    output: Path,
    sizes: Mapping[str, int] | None = None,
    *,
    command: Sequence[str] = (),
) -> int:
    """Write the track at `path` as the suffix of `output` says; return how many bases have scores.

    sizes  the genome's sequences, which a bedGraph does not tell; a bigWig has its own

    Sequences are written in the order of a bedGraph's rows, whatever that of the genome.

    Exact: the same float32.  What genoscan wrote keeps its record, so that it can be exported.
    Memory: a million bases.

    Raises
    ------
    InputError
        If the track cannot be read, or its rows are not in order.
    OutputError
        If the output cannot be written.
    """
    record = read_provenance(path) if provenance_path(path).exists() else None
    with ExitStack() as stack:
        if is_bigwig(path):
            track = stack.enter_context(BigWig(path))
            sizes, stretches = track.sizes, _scored(track)
        elif sizes is None:
            raise InputError(f"{path}: does not say how long its sequences are: give --genome")
        else:
            met = [chrom for chrom in sequences(path) if chrom in sizes]
            sizes = {chrom: sizes[chrom] for chrom in [*met, *sizes]}
            stretches = read_bedgraph(path, sizes)
        writer, bases = stack.enter_context(open_track(output, sizes)), 0
        for region, scores in stretches:
            writer.write(region, scores)
            bases += len(region)
    if record is not None:
        write_provenance(output, record | {"command": list(command)})
    else:  # what lies there is of another track
        provenance_path(output).unlink(missing_ok=True)
    return bases


def _scored(track: BigWig) -> Iterator[Stretch]:
    """Yield the stretches that have scores."""
    for piece, scores in track.pieces():
        edges = np.flatnonzero(np.diff(np.isnan(scores), prepend=True, append=True))
        for first, last in edges.reshape(-1, 2).tolist():
            region = Region(piece.chrom, piece.start + first, piece.start + last)
            yield region, scores[first:last]
