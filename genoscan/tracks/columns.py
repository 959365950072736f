"""Gradients themselves, four numbers a base, as a numpy archive.

The archive is a plain zip of arrays, none of them pickled: `gradient` (bases, 4) in the order
A, C, G, T, NaN where the base is none of them, `codes` (A 0, C 1, G 2, T 3, else 4), and one entry
a region in `chrom`, `start`, `end`, `name`, `strand` and `offset`, the row of `gradient` where the
region begins.
"""

import mmap
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from genoscan.errors import InputError
from genoscan.genome.region import Region
from genoscan.tracks.atomic import atomic_write, os_errors

_PIECE_BYTES = 16 << 20


def write_columns(
    path: Path,
    *,
    gradient: Float32[np.ndarray, "bases 4"],
    codes: UInt8[np.ndarray, " bases"],
    regions: Sequence[Region],
) -> None:
    """Write the gradient of every region's bases, one region after the other.

    Memory: 16 MB beyond the arrays; of memory maps no more than that is resident at a time,
    unless they are copies on write.

    Raises
    ------
    InputError
        If the regions' lengths do not add up to the gradient's.
    OutputError
        If the file cannot be written.
    """
    lengths = np.array([len(region) for region in regions], np.int64)
    if lengths.sum() != len(gradient) or len(codes) != len(gradient):
        raise InputError(
            f"{path}: {len(gradient):,} gradients and {len(codes):,} bases for regions of "
            f"{lengths.sum():,} bases"
        )
    arrays = {
        "gradient": gradient,
        "codes": codes,
        "chrom": np.array([region.chrom for region in regions], np.str_),
        "start": np.array([region.start for region in regions], np.int64),
        "end": np.array([region.end for region in regions], np.int64),
        "name": np.array([region.name for region in regions], np.str_),
        "strand": np.array([region.strand for region in regions], np.str_),
        "offset": np.cumsum(lengths) - lengths,
    }
    # Stored: scores shrink by less than a tenth, and a reader can map what is not compressed.
    with (
        atomic_write(path) as part,
        os_errors(path),
        zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, array in arrays.items():
            _write_array(archive, f"{name}.npy", array)


class Columns(NamedTuple):
    """An archive's arrays, mapped; `regions` lie in them one after the other."""

    gradient: Float32[np.ndarray, "bases 4"]
    codes: UInt8[np.ndarray, " bases"]
    regions: tuple[Region, ...]


def read_columns(path: Path) -> Columns:
    """Map what `write_columns` has written; nothing is read before it is used.

    Raises
    ------
    InputError
        If it is no such archive, or cut off.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            gradient, codes = (_mapped(path, archive, name) for name in ("gradient", "codes"))
            names = "chrom", "start", "end", "name", "strand"
            rows = []
            for name in names:
                with archive.open(f"{name}.npy") as member:
                    rows.append(np.lib.format.read_array(member, allow_pickle=False).tolist())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: no archive of columns, such as -o FILE.npz: {reason}") from None
    regions = tuple(
        Region(chrom, start, end, name=name, strand=strand)
        for chrom, start, end, name, strand in zip(*rows, strict=True)
    )
    if sum(map(len, regions)) != len(gradient) or len(codes) != len(gradient):
        raise InputError(f"{path}: damaged: its regions are not as long as its columns")
    return Columns(gradient, codes, regions)


def _mapped(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Map an array that lies in a zip as it is, after a header that says how long it is itself."""
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, expected it stored")
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
        file.seek(int(lengths.sum()), 1)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if not np.prod(shape):
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape)


def _write_array(archive: zipfile.ZipFile, name: str, array: Shaped[np.ndarray, "..."]) -> None:
    """Write one array in numpy's format, a piece of its rows at a time."""
    # A ZipInfo of its own has a fixed date: the same arrays give the same bytes.
    with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
        descr = np.lib.format.dtype_to_descr(array.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(member, header)
        rows = max(1, _PIECE_BYTES // max(1, array[:1].nbytes))
        for first in range(0, len(array), rows):
            member.write(array[first : first + rows].tobytes())
            _forget(array)


def _forget(array: Shaped[np.ndarray, "..."]) -> None:
    """Let the pages of a memory map go; the file keeps what they hold."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        # A private map has changes that no file keeps.
        if isinstance(owner, np.memmap) and owner.mode == "c":
            return
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
