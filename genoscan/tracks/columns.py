"""Archives of gradients (four derivatives per base) in numpy's .npz format.

An archive is an uncompressed zip file of arrays, without pickled objects:

- `gradient` has shape (bases, 4), with columns A, C, G and T; it is NaN at unknown bases.
- `codes` contains the base codes (A 0, C 1, G 2, T 3, others 4).
- `chrom`, `start`, `end`, `name`, `strand` and `offset` have one entry per region; `offset` is the
  row of `gradient` at which the region begins.
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
from genoscan.tracks.atomic import AtomicFiles, joined, os_errors

_PIECE_BYTES = 16 << 20


def write_columns(
    path: Path,
    *,
    gradient: Float32[np.ndarray, "bases 4"],
    codes: UInt8[np.ndarray, " bases"],
    regions: Sequence[Region],
    files: AtomicFiles | None = None,
) -> None:
    """Write the gradients and bases of regions to an archive.

    Parameters
    ----------
    path
        File to write (.npz).
    gradient
        Derivatives along A, C, G and T, float32, with the regions concatenated.
    codes
        Codes of the observed bases, uint8.
    regions
        Regions, in the order in which they are concatenated in the arrays.
    files
        Transaction at the end of which the file appears; None: as soon as it is complete.

    Raises
    ------
    InputError
        If the length of an array differs from the total length of the regions.
    OutputError
        If the file cannot be written.

    Notes
    -----
    Memory: 16 MB in addition to the arrays. If an array is a memory map, at most 16 MB of it are
    resident at a time, unless the map is copy-on-write.
    """
    lengths = np.array([len(region) for region in regions], np.int64)
    if lengths.sum() != len(gradient) or len(codes) != len(gradient):
        raise InputError(
            f"{path}: found {len(gradient):,} gradients and {len(codes):,} bases, expected "
            f"{lengths.sum():,}, the total length of the regions"
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
    # Uncompressed, so that readers can memory-map the arrays; compression would save less than 10%.
    with (
        joined(files) as together,
        os_errors(path),
        zipfile.ZipFile(together.create(path), "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, array in arrays.items():
            _write_array(archive, f"{name}.npy", array)


class Columns(NamedTuple):
    """Memory-mapped content of an archive.

    Attributes
    ----------
    gradient
        Derivatives along A, C, G and T, float32, with the regions concatenated.
    codes
        Codes of the observed bases, uint8.
    regions
        Regions, in the order in which the arrays concatenate them.
    """

    gradient: Float32[np.ndarray, "bases 4"]
    codes: UInt8[np.ndarray, " bases"]
    regions: tuple[Region, ...]


def read_columns(path: Path) -> Columns:
    """Memory-map an archive written by `write_columns`.

    Parameters
    ----------
    path
        Archive (.npz).

    Returns
    -------
    Columns
        Content of the archive; gradient and codes are read from disk on access.

    Raises
    ------
    InputError
        If the file is not an archive written by `write_columns`, or is truncated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            gradient, codes = (_map_array(path, archive, name) for name in ("gradient", "codes"))
            names = "chrom", "start", "end", "name", "strand"
            rows = []
            for name in names:
                with archive.open(f"{name}.npy") as member:
                    rows.append(np.lib.format.read_array(member, allow_pickle=False).tolist())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not an archive written by -o FILE.npz: {reason}") from None
    regions = tuple(
        Region(chrom, start, end, name=name, strand=strand)
        for chrom, start, end, name, strand in zip(*rows, strict=True)
    )
    if sum(map(len, regions)) != len(gradient) or len(codes) != len(gradient):
        raise InputError(f"{path}: damaged: the lengths of regions and arrays differ")
    return Columns(gradient, codes, regions)


def _map_array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Memory-map an uncompressed array in a zip file.

    The array's offset is computed from the headers in the file, which have variable length.
    """
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, expected it stored uncompressed")
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
    """Write one array in numpy's format, several rows at a time."""
    # An explicit ZipInfo has a fixed date, so that equal arrays give identical files.
    with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
        descr = np.lib.format.dtype_to_descr(array.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(member, header)
        rows = max(1, _PIECE_BYTES // max(1, array[:1].nbytes))
        for first in range(0, len(array), rows):
            member.write(array[first : first + rows].tobytes())
            _release_pages(array)


def _release_pages(array: Shaped[np.ndarray, "..."]) -> None:
    """Release the resident pages of a memory map; their content remains in the file."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        # Changes to a copy-on-write map exist only in memory.
        if isinstance(owner, np.memmap) and owner.mode == "c":
            return
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
