"""Conversion of tracks between bigWig and bedGraph, including tracks written by other tools."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from genoscan.errors import InputError
from genoscan.tracks.atomic import AtomicFiles, atomic_files
from genoscan.tracks.provenance import provenance_path, read_provenance, write_provenance
from genoscan.tracks.reader import BigWig, is_bigwig, read_bedgraph, sequence_names
from genoscan.tracks.writer import open_tracks


def write_converted(
    path: Path, output: Path, sizes: Mapping[str, int] | None = None, *, command: Sequence[str] = ()
) -> int:
    """Convert a track to the format that corresponds to the suffix of the output file.

    Parameters
    ----------
    path
        bigWig or bedGraph file; a bedGraph file may be gzip-compressed.
    output
        File to write.
    sizes
        Sequence lengths in bases. They are required for a bedGraph file, which does not contain them, and
        they are ignored for a bigWig file.
    command
        Command line to store in the provenance record.

    Returns
    -------
    int
        Number of bases with a score.

    Raises
    ------
    InputError
        If the track cannot be read, its rows are not sorted, or `sizes` is missing for a bedGraph file.
    OutputError
        If the output cannot be written.

    Notes
    -----
    The conversion is exact: it does not change float32 scores. If the input has a provenance record, the
    record is copied, and the new command line is stored in the copy. If the input is a bedGraph file, the
    sequences are written in the order of its rows. Memory: the scores of at most 2^20 bases at a time.
    """
    record = read_provenance(path) if provenance_path(path).exists() else None
    with atomic_files() as files:
        bases = _copy_scores(path, output, sizes, files)
        if record is not None:
            write_provenance(output, record | {"command": list(command)}, files)
        else:  # an existing record belongs to the overwritten track
            files.remove(provenance_path(output))
    return bases


def _copy_scores(path: Path, output: Path, sizes: Mapping[str, int] | None, files: AtomicFiles) -> int:
    with ExitStack() as stack:
        if is_bigwig(path):
            track = stack.enter_context(BigWig(path))
            sizes, pieces = track.sizes, track.pieces()
        elif sizes is None:
            raise InputError(f"{path}: does not state sequence lengths: give --genome")
        else:
            found = [chrom for chrom in sequence_names(path) if chrom in sizes]
            sizes = {chrom: sizes[chrom] for chrom in [*found, *sizes]}
            pieces = read_bedgraph(path, sizes)
        writer, bases = stack.enter_context(open_tracks([output], sizes, files)), 0
        for region, scores in pieces:
            writer.write(region, scores)
            bases += len(scores) - int(np.count_nonzero(np.isnan(scores)))
    return bases
