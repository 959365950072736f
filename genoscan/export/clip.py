"""Copies of bigWig files that contain only some regions.

Tracks of other programs often cover a whole genome, of which a page shows a small part.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.tracks.atomic import AtomicFiles
from genoscan.tracks.reader import PIECE, BigWig
from genoscan.tracks.writer import open_tracks


def write_clipped(
    path: Path, output: Path, regions: Sequence[Region], genome: Genome, files: AtomicFiles | None = None
) -> int:
    """Copy some regions of a bigWig file to another bigWig file.

    Parameters
    ----------
    path
        bigWig file to read.
    output
        bigWig file to write.
    regions
        Regions to copy, disjoint and in the order of the genome. Those on sequences that the file lacks are left
        out.
    genome
        Genome of the track.
    files
        Transaction in which the copy is written; if None, it is written immediately.

    Returns
    -------
    int
        Number of bases with a value in the regions.

    Raises
    ------
    InputError
        If the file is damaged, or a value in the regions is infinite.
    OutputError
        If the copy cannot be written.

    Notes
    -----
    Values are copied unchanged, one per base. Memory: a million values.
    """
    n_values = 0
    with BigWig(path) as track:
        sizes = {chrom: size for chrom, size in genome.sizes.items() if chrom in track.sizes}
        with open_tracks([output], sizes, files) as copy:
            for piece, values in _pieces(track, regions):
                n_values += int((~np.isnan(values)).sum())
                copy.write(piece, values)
    return n_values


def clipped_content(path: Path, regions: Sequence[Region], genome: Genome) -> tuple[bytes, int]:
    """Return the content of such a copy, and the number of bases with a value."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "clipped.bw"
        n_values = write_clipped(path, copy, regions, genome)
        return copy.read_bytes(), n_values


def _pieces(track: BigWig, regions: Sequence[Region]) -> Iterator[tuple[Region, Float32[np.ndarray, " bases"]]]:
    for region in regions:
        if region.chrom not in track.sizes:
            continue
        for start in range(region.start, region.end, PIECE):
            piece = Region(region.chrom, start, min(start + PIECE, region.end))
            yield piece, track.finite_scores(piece.chrom, piece.start, piece.end)
