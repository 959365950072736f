"""Columns as other tools take them, with their coordinates: cut out, or the strongest bases."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int8

from genoscan.errors import InputError
from genoscan.genome.alphabet import BASES
from genoscan.genome.region import Region
from genoscan.genome.region_index import RegionIndex
from genoscan.tracks.atomic import atomic_directory, atomic_write, os_errors
from genoscan.tracks.columns import read_columns
from genoscan.tracks.score import SCORES, blank_unknown
from genoscan.tracks.strongest import Strongest

_PIECE = 1 << 20


def write_modisco(
    output: Path, columns: Path, rows: Sequence[Region], *, width: int, chrombpnet: bool = False
) -> None:
    """Write a folder for TF-MoDISco and Fi-NeMo, `width` bases around the middle of each row.

    ohe.npz         (rows, 4, width) int8, A C G T; 0 in all four at N
    attr.npz        (rows, 4, width) float32: the derivatives less the mean of the four, which are
                    the hypothetical contributions of a gradient; 0 in all four at N
    cut.narrowPeak  where each was cut, in the same order, on the forward strand: BED with a
                    summit, the middle, as Fi-NeMo wants it beside them
    contribs.h5     with `chrombpnet`: the same arrays as raw/seq and shap/seq, and their product
                    as projected_shap/seq, as ChromBPNet lays them out; needs h5py
    Memory: 20 bytes a base that is cut.

    Raises
    ------
    InputError
        If the folder is there already, a row reaches past what the columns hold, or there is no
        h5py.
    OutputError
        If something cannot be written.
    """
    if output.exists():
        raise InputError(f"{output}: is there already: name a folder that is not")
    if width < 1:
        raise InputError(f"--width {width}: expected 1 base or more")
    if chrombpnet and find_spec("h5py") is None:
        raise InputError('--chrombpnet: needs h5py: pip install "genoscan[h5]"')
    held = read_columns(columns)
    index, cut = RegionIndex(held.regions), [_around(row, width) for row in rows]
    bases = np.zeros((len(cut), 4, width), np.int8)
    scores = np.zeros((len(cut), 4, width), np.float32)
    for i, (row, region) in enumerate(zip(rows, cut, strict=True)):
        at = index.slice_of(region)
        if at is None:
            raise InputError(
                f"{row.where}: {region.chrom}:{region.start + 1:,}-{region.end:,} is not wholly in "
                f"{columns}: attribute regions of at least {width:,} bases, or give a smaller "
                "--width"
            )
        codes = held.codes[at]
        gradient = held.gradient[at]
        centred = gradient - gradient.mean(1, keepdims=True)
        bases[i] = codes == np.arange(4)[:, None]
        scores[i] = blank_unknown(centred, codes, fill=0.0).T
    with os_errors(output), atomic_directory(output) as folder:
        folder.mkdir()
        np.savez(folder / "ohe.npz", bases)
        np.savez(folder / "attr.npz", scores)
        rest = f"0\t.\t0\t-1\t-1\t{width // 2}"
        lines = (f"{r.chrom}\t{r.start}\t{r.end}\t{r.name or '.'}\t{rest}\n" for r in cut)
        (folder / "cut.narrowPeak").write_text("".join(lines), encoding="utf-8")
        if chrombpnet:
            _write_hdf5(folder / "contribs.h5", bases, scores)


def _write_hdf5(
    path: Path, bases: Int8[np.ndarray, "rows 4 width"], scores: Float32[np.ndarray, "rows 4 width"]
) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in (
            ("raw", bases), ("shap", scores), ("projected_shap", bases * scores),
        ):  # fmt: skip
            file.create_dataset(f"{name}/seq", data=array, compression="gzip")


def _around(row: Region, width: int) -> Region:
    start = (row.start + row.end) // 2 - width // 2
    return Region(row.chrom, start, start + width, name=row.name)


def write_sites(output: Path, columns: Path, *, score: str, top: int) -> None:
    """Write the bases of the largest scores, by size, as a table; equal ones in genome order.

    A row is a BED row and more: chrom, start, end (0-based, half-open), base, score, and the
    derivatives along A, C, G and T.
    Memory: a piece of a million bases, and the rows.

    Raises
    ------
    InputError
        If `top` is not positive, or the file is no archive of columns.
    OutputError
        If the table cannot be written.
    """
    if top < 1:
        raise InputError(f"--top {top}: expected 1 base or more")
    held = read_columns(columns)
    strongest = Strongest(top)
    for start in range(0, len(held.codes), _PIECE):
        piece = slice(start, start + _PIECE)
        strongest.add(start, SCORES[score](held.gradient[piece], held.codes[piece]))
    index = RegionIndex(held.regions)
    with atomic_write(output) as part, os_errors(output), part.open("w", encoding="utf-8") as file:
        file.write("#chrom\tstart\tend\tbase\tscore\tA\tC\tG\tT\n")
        for number, value in strongest.ranked():
            at = index.base_at(number)
            base, four = BASES[held.codes[number]], held.gradient[number]
            derivatives = "\t".join(f"{x:.6g}" for x in four)
            file.write(f"{at.chrom}\t{at.start}\t{at.end}\t{base}\t{value:.6g}\t{derivatives}\n")
