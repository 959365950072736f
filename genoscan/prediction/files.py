"""Files that contain predictions: one track per predicted quantity, an archive, or calls in BED format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from genoscan.genome.region import Region
from genoscan.tracks.atomic import AtomicFiles, os_errors
from genoscan.tracks.columns import write_predictions
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.store import Arrays
from genoscan.tracks.writer import open_tracks, split_suffix

LANGUAGE_MODEL = "language-model"
LOG_LIKELIHOOD, ENTROPY = "log-likelihood", "entropy"
_PIECE = 1 << 18


class Column(NamedTuple):
    """Predicted quantity that is stored in one column of the arrays.

    Attributes
    ----------
    name
        Name of the track: HEAD.LABEL, or a base for the language model.
    head
        Name of the task head, or "language-model".
    label
        Name of the label, or letter of the base.
    number
        Index of the column in the arrays.
    """

    name: str
    head: str
    label: str
    number: int


def prediction_files(output: Path, columns: Sequence[Column], *, logits: bool) -> list[tuple[Path, str]]:
    """Return the files that belong to an output, and the quantity that each contains.

    Parameters
    ----------
    output
        A track such as PREFIX.bw or FOLDER/.bw, a .npz archive, or a .bed file.
    columns
        Predicted quantities.
    logits
        Whether they are logits: the log-likelihoods and entropies of a language model are then not written.

    Returns
    -------
    list of (Path, str)
        For a track, the path and the name of each quantity. For an archive or a .bed file, a single
        pair of `output` and "".
    """
    if output.suffix in (".npz", ".bed"):
        return [(output, "")]
    stem, suffix = split_suffix(output)
    names = [column.name for column in columns]
    if not logits and any(column.head == LANGUAGE_MODEL for column in columns):
        names += [LOG_LIKELIHOOD, ENTROPY]
    return [(output.with_name(f"{stem}.{name}{suffix}" if stem else f"{name}{suffix}"), name) for name in names]


def write_prediction(
    output: Path,
    arrays: Arrays,
    columns: Sequence[Column],
    regions: Sequence[Region],
    sizes: Mapping[str, int],
    record: dict[str, Any],
    files: AtomicFiles,
    *,
    logits: bool,
    calls: Sequence[Column],
    threshold: float,
) -> None:
    """Write all files that belong to an output, with their records.

    Parameters
    ----------
    output
        Output as in `prediction_files`.
    arrays
        Predictions for all regions: `arrays.columns` contains the predicted quantities, and
        `arrays.scores` contains the log-likelihoods of a language model.
    columns
        Predicted quantities.
    regions
        Regions in genome order.
    sizes
        Length of each sequence, in bases.
    record
        Provenance record, without the name of the quantity.
    files
        Transaction in which the files are written.
    logits
        Whether the predicted quantities are logits.
    calls
        Columns of the labels whose calls are written to a .bed file.
    threshold
        Lowest probability at which a label is called.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    assert arrays.columns is not None
    for path, name in prediction_files(output, columns, logits=logits):
        if path.suffix == ".bed":
            _write_calls(path, arrays, regions, files, calls, threshold)
            continue
        if path.suffix == ".npz":
            names = [column.name for column in columns]
            write_predictions(path, arrays.columns, names, arrays.codes, regions, files)
        else:
            with open_tracks([path], sizes, files) as track:
                for region in regions:
                    first = arrays.offsets[region]
                    for start in range(0, len(region), _PIECE):
                        stop = min(start + _PIECE, len(region))
                        scores = _quantity(arrays, slice(first + start, first + stop), columns, name)
                        track.write(Region(region.chrom, region.start + start, region.start + stop), scores)
                        arrays.used(len(scores))
        write_provenance(path, record | ({"prediction": name} if name else {}), files)


def _quantity(arrays: Arrays, rows: slice, columns: Sequence[Column], name: str) -> Float32[np.ndarray, " bases"]:
    """Return the values of the quantity `name` for a slice of the arrays."""
    assert arrays.columns is not None
    if name == LOG_LIKELIHOOD:
        return np.array(arrays.scores[rows])
    if name != ENTROPY:
        return np.array(arrays.columns[rows, next(column.number for column in columns if column.name == name)])
    first = next(column.number for column in columns if column.head == LANGUAGE_MODEL)
    p = np.asarray(arrays.columns[rows, first : first + 4], np.float64)
    p /= p.sum(1, keepdims=True)
    terms = p * np.log2(p, where=p > 0, out=np.zeros_like(p))
    return np.abs(terms.sum(1)).astype(np.float32)


def _write_calls(
    path: Path, arrays: Arrays, regions: Sequence[Region], files: AtomicFiles, calls: Sequence[Column], threshold: float
) -> None:
    """Write the bases at which a label is called to a BED file.

    The score in the file is the probability times 1000, rounded to an integer.
    """
    assert arrays.columns is not None
    numbers = [call.number for call in calls]
    with os_errors(path), files.create(path).open("w", encoding="utf-8") as file:
        for region in regions:
            at = arrays.slice_of(region)
            for start in range(at.start, at.stop, _PIECE):
                part = np.asarray(arrays.columns[start : min(start + _PIECE, at.stop)])[:, numbers]
                for row, i in np.argwhere(part >= threshold).tolist():
                    position, label = region.start + start - at.start + row, calls[i].label
                    strand = label[-1] if label[-1] in "+-" else "."
                    score = round(1000 * float(part[row, i]))
                    file.write(f"{region.chrom}\t{position}\t{position + 1}\t{label}\t{score}\t{strand}\n")
                arrays.used(len(part))
