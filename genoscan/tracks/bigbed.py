"""Writer for bigBed, the indexed binary annotation format of genome browsers.

A file contains, in this order, the header, a summary of the coverage, the chromosome B+ tree, the blocks of rows, and
their R-tree; the indexes are those of bigWig (bigwig_index.py). There are no zoom levels: readers summarise the rows.

Reference: Kent et al., "BigWig and BigBed", Bioinformatics 26 (2010), supplement.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from genoscan.genome.feature import Feature
from genoscan.tracks.bigwig_index import BlockWriter, write_chrom_tree, write_r_tree

_MAGIC, _VERSION, _FIELDS = 0x8789F2EB, 4, 12
_HEADER = struct.Struct("<IHHQQQHHQQIQ")
_SUMMARY = struct.Struct("<Qdddd")
_COUNT = struct.Struct("<Q")
_ROW = struct.Struct("<III")
_PER_BLOCK = 256

_Row = tuple[int, int, int, str]
"""Number of the sequence, start, end, and columns 4 to 12 of BED."""


def write_bigbed(output: Path, features: Sequence[Feature], sizes: Mapping[str, int]) -> int:
    """Write the transcripts of features, or the features themselves, as rows of BED with 12 columns.

    Parameters
    ----------
    output
        File to write.
    features
        Features in any order.
    sizes
        Sequence lengths in bases.

    Returns
    -------
    int
        Number of rows.

    Notes
    -----
    Memory: all rows.
    """
    numbers = {chrom: number for number, chrom in enumerate(sizes)}
    rows = sorted(
        (row for feature in features for row in _rows(feature, numbers[feature.chrom])), key=itemgetter(0, 1, 2)
    )
    largest = 0
    with output.open("wb") as file:
        file.write(bytes(_HEADER.size + _SUMMARY.size))
        chroms_offset = file.tell()
        write_chrom_tree(file, sizes)
        data_offset = file.tell()
        file.write(_COUNT.pack(len(rows)))
        blocks = BlockWriter(file)
        for number, group in groupby(rows, itemgetter(0)):
            found, end = list(group), 0
            for first in range(0, len(found), _PER_BLOCK):
                block = found[first : first + _PER_BLOCK]
                # Rows overlap; the nodes of the R-tree end where their last block does.
                end = max(end, *(row[2] for row in block))
                body = b"".join(_ROW.pack(*row[:3]) + row[3].encode() + b"\0" for row in block)
                largest = max(largest, len(body))
                blocks.add((number, block[0][1], number, end), body, repeats=True)
        index_offset = file.tell()
        write_r_tree(file, blocks.rows())
        file.write(struct.pack("<I", _MAGIC))
        file.seek(0)
        file.write(
            _HEADER.pack(
                *(_MAGIC, _VERSION, 0),
                *(chroms_offset, data_offset, index_offset),
                *(_FIELDS, _FIELDS, 0, _HEADER.size, largest, 0),
            )
        )
        file.write(_SUMMARY.pack(*_coverage(rows)))
    return len(rows)


def _rows(feature: Feature, number: int) -> Iterator[_Row]:
    name = " ".join(feature.name.split()) or "."
    strand = feature.strand if feature.strand in ("+", "-") else "."
    for transcript in feature.drawn:
        # Blocks must reach from the start of the row to its end.
        start, end = transcript.exons[0][0], transcript.exons[-1][1]
        thick = (start, end) if transcript.coding is None else transcript.coding
        thick = thick if thick[0] < thick[1] else (start, start)
        sizes = ",".join(str(b - a) for a, b in transcript.exons)
        starts = ",".join(str(a - start) for a, _ in transcript.exons)
        columns = [name, "0", strand, *map(str, thick), "0", str(len(transcript.exons)), sizes, starts]
        yield number, start, end, "\t".join(columns)


def _coverage(rows: Sequence[_Row]) -> tuple[int, float, float, float, float]:
    """Return the number of covered bases, and the minimum, maximum, sum and sum of squares of their depth."""
    widths: list[np.ndarray] = [np.zeros(0, np.int64)]
    depths: list[np.ndarray] = [np.zeros(0, np.int64)]
    for _, found in groupby(rows, itemgetter(0)):
        intervals = np.array([row[1:3] for row in found], np.int64)
        positions, at = np.unique(intervals, return_inverse=True)
        starts, ends = at.reshape(-1, 2).T
        change = np.bincount(starts, minlength=len(positions)) - np.bincount(ends, minlength=len(positions))
        widths.append(np.diff(positions))
        depths.append(np.cumsum(change)[:-1])
    width, depth = np.concatenate(widths), np.concatenate(depths)
    width, depth = width[depth > 0], depth[depth > 0]
    if not len(depth):
        return 0, 0.0, 0.0, 0.0, 0.0
    return (
        int(width.sum()),
        float(depth.min()),
        float(depth.max()),
        float((width * depth).sum()),
        float((width * depth * depth).sum()),
    )
