"""Export of the four derivatives at each base, as input files for TF-MoDISco or as a table."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int8

from genoscan.errors import InputError
from genoscan.genome.alphabet import BASES
from genoscan.genome.region import Region
from genoscan.genome.region_index import RegionIndex
from genoscan.tracks.atomic import atomic_directory, atomic_write, check_new_folder, os_errors
from genoscan.tracks.columns import read_columns
from genoscan.tracks.score import SCORES, blank_unknown
from genoscan.tracks.top_scores import TopScores

_PIECE = 1 << 20


def write_modisco(
    output: Path, columns: Path, rows: Sequence[Region], *, width: int, chrombpnet: bool = False
) -> list[Region]:
    """Write sequences and hypothetical contributions for TF-MoDISco and Fi-NeMo.

    Parameters
    ----------
    output
        Folder to create.
    columns
        Archive (.npz) of the four derivatives at each base, as written by `write_columns`.
    rows
        Regions. One window is exported around the centre of each region.
    width
        Window length in bases.
    chrombpnet
        Whether to also write contribs.h5, which requires h5py.

    Returns
    -------
    list of Region
        Elements of `rows` that were left out because their windows do not lie within a single region of
        the archive.

    Raises
    ------
    InputError
        If the folder exists, no window lies within a region of the archive, `width` is not positive, or
        `chrombpnet` is true and h5py is not installed.
    OutputError
        If a file cannot be written.

    Notes
    -----
    The folder contains:

    ohe.npz
        One-hot sequences in the order A, C, G, T, as an int8 array of shape (windows, 4, width). All
        four values are 0 at an N.
    attr.npz
        Hypothetical contributions: the four derivatives at each base, from which their mean has been
        subtracted, as a float32 array of shape (windows, 4, width). All four values are 0 at an N.
    cut.narrowPeak
        Coordinates of the windows on the forward strand, in the same order as in the arrays. The summit
        of each window is its centre. Fi-NeMo requires this file.
    contribs.h5
        The sequences (raw/seq), the contributions (shap/seq) and their product (projected_shap/seq), in
        the layout of ChromBPNet.

    The memory needed is 20 bytes per base of each window.
    """
    check_new_folder(output)
    if width < 1:
        raise InputError(f"--width {width}: expected 1 base or more")
    if chrombpnet and find_spec("h5py") is None:
        raise InputError("--chrombpnet: requires h5py: pip install h5py")
    archive = read_columns(columns)
    index = RegionIndex(archive.regions)
    windows = [(row, _window_around(row, width)) for row in rows]
    cut = [(window, at) for _, window in windows if window is not None and (at := index.slice_of(window)) is not None]
    left_out = [row for row, window in windows if window is None or index.slice_of(window) is None]
    if not cut:
        others = f" (nor is any of {len(rows) - 1:,} other rows)" if len(rows) > 1 else ""
        raise InputError(
            f"{left_out[0].where}: the window of {width:,} bases around the centre is not within {columns}{others}: "
            f"attribute regions of at least {width:,} bases, or reduce --width"
        )
    bases = np.zeros((len(cut), 4, width), np.int8)
    scores = np.zeros((len(cut), 4, width), np.float32)
    for i, (_, at) in enumerate(cut):
        codes = archive.codes[at]
        gradient = archive.gradient[at]
        centred = gradient - gradient.mean(1, keepdims=True)
        bases[i] = codes == np.arange(4)[:, None]
        scores[i] = blank_unknown(centred, codes, fill=0.0).T
    with os_errors(output), atomic_directory(output) as folder:
        folder.mkdir()
        np.savez(folder / "ohe.npz", bases)
        np.savez(folder / "attr.npz", scores)
        rest = f"0\t.\t0\t-1\t-1\t{width // 2}"
        lines = (f"{r.chrom}\t{r.start}\t{r.end}\t{r.name or '.'}\t{rest}\n" for r, _ in cut)
        (folder / "cut.narrowPeak").write_text("".join(lines), encoding="utf-8")
        if chrombpnet:
            _write_hdf5(folder / "contribs.h5", bases, scores)
    return left_out


def _write_hdf5(
    path: Path, bases: Int8[np.ndarray, "rows 4 width"], scores: Float32[np.ndarray, "rows 4 width"]
) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in (("raw", bases), ("shap", scores), ("projected_shap", bases * scores)):
            file.create_dataset(f"{name}/seq", data=array, compression="gzip")


def _window_around(row: Region, width: int) -> Region | None:
    """Return the window around the centre of a region, or None if it would start before position 0."""
    start = (row.start + row.end) // 2 - width // 2
    return None if start < 0 else Region(row.chrom, start, start + width, name=row.name)


def write_sites(output: Path, columns: Path, *, score: str, top: int) -> int:
    """Write a table of the bases with the largest absolute scores.

    Parameters
    ----------
    output
        TSV file to write.
    columns
        Archive (.npz) of the four derivatives at each base, as written by `write_columns`.
    score
        Name of the score, such as "centred" (a key of `SCORES`).
    top
        Maximum number of bases to write.

    Returns
    -------
    int
        Number of rows written. It is less than `top` if fewer bases have a score.

    Raises
    ------
    InputError
        If `top` is not positive, or `columns` is not an archive written by `write_columns`.
    OutputError
        If the table cannot be written.

    Notes
    -----
    The columns of the table are chrom, start, end (0-based, half-open, as in BED), base, score, the
    derivatives with respect to A, C, G and T, and the name of the region, "." if it has none. Rows are sorted
    by decreasing absolute score; rows with equal absolute scores are in genome order. Memory is needed for the
    derivatives at a million bases and for the rows of the table.
    """
    if top < 1:
        raise InputError(f"--top {top}: expected 1 base or more")
    archive = read_columns(columns)
    selected = TopScores(top)
    for start in range(0, len(archive.codes), _PIECE):
        piece = slice(start, start + _PIECE)
        selected.add(start, SCORES[score](archive.gradient[piece], archive.codes[piece]))
    index = RegionIndex(archive.regions)
    with atomic_write(output) as part, os_errors(output), part.open("w", encoding="utf-8") as file:
        file.write("#chrom\tstart\tend\tbase\tscore\tA\tC\tG\tT\tname\n")
        ranked = list(selected.ranked())
        for number, value in ranked:
            at = index.base_at(number)
            base, four = BASES[archive.codes[number]], archive.gradient[number]
            derivatives = "\t".join(f"{x:.6g}" for x in four)
            file.write(f"{at.chrom}\t{at.start}\t{at.end}\t{base}\t{value:.6g}\t{derivatives}\t{at.name or '.'}\n")
    return len(ranked)
