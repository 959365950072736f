"""Archives of gradients (four derivatives per base) in numpy's .npz format.

An archive is an uncompressed zip file of arrays, without pickled objects:

- `gradient` has shape (bases, 4), with columns for A, C, G and T; it is NaN at unknown bases.
- `codes` contains the base codes (0 for A, 1 for C, 2 for G, 3 for T, and 4 for all others).
- `chrom`, `start`, `end`, `name`, `strand` and `offset` have one entry per region; `offset` is the
  row of `gradient` at which the region begins.
"""

import math
import re
import struct
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped, UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import N
from genoscan.genome.files import check_file, read_errors
from genoscan.genome.region import Region
from genoscan.tracks.atomic import AtomicFiles, joined, os_errors
from genoscan.tracks.memory_map import release_pages

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
        Derivatives with respect to A, C, G and T at all bases of the concatenated regions, as a float32
        array of shape (bases, 4).
    codes
        Codes of the observed bases, as a uint8 array of shape (bases,).
    regions
        Regions, in the order in which they are concatenated in the arrays.
    files
        Transaction in which the file is written. The file is moved to `path` when the transaction ends or,
        if `files` is None, as soon as the file is complete.

    Raises
    ------
    InputError
        If the length of an array differs from the total length of the regions.
    OutputError
        If the file cannot be written.

    Notes
    -----
    Memory: 16 MB in addition to the arrays. If an array is a memory map, at most 16 MB of the array are
    resident in memory at a time, unless the map is copy-on-write.
    """
    lengths = np.array([len(region) for region in regions], np.int64)
    if lengths.sum() != len(gradient) or len(codes) != len(gradient):
        raise InputError(
            f"{path}: found {len(gradient):,} gradients and {len(codes):,} bases, expected "
            f"{lengths.sum():,}, the total length of the regions"
        )
    _write_archive(path, {"gradient": gradient, "codes": codes}, regions, files)


def write_predictions(
    path: Path,
    predictions: Float32[np.ndarray, "bases labels"],
    labels: Sequence[str],
    codes: UInt8[np.ndarray, " bases"],
    regions: Sequence[Region],
    files: AtomicFiles | None = None,
) -> None:
    """Write the predictions for regions to an archive.

    Parameters
    ----------
    path
        File to write (.npz). The archive contains `predictions`, `labels`, `codes` and the arrays that
        describe the regions.
    predictions
        Predictions at all bases of the concatenated regions, as a float32 array of shape (bases, labels).
    labels
        Name of each column of `predictions`.
    codes
        Codes of the observed bases, as a uint8 array of shape (bases,).
    regions
        Regions, in the order in which they are concatenated in the arrays.
    files
        Transaction in which the file is written. The file is moved to `path` when the transaction ends or,
        if `files` is None, as soon as the file is complete.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    arrays = {"predictions": predictions, "labels": np.array(labels, np.str_), "codes": codes}
    _write_archive(path, arrays, regions, files)


def write_effects(
    path: Path,
    effects: Float64[np.ndarray, "bases 4"],
    exact: Bool[np.ndarray, "bases 4"] | None,
    codes: UInt8[np.ndarray, " bases"],
    regions: Sequence[Region],
    files: AtomicFiles | None = None,
) -> None:
    """Write the effects of substitutions to an archive (.npz, or .h5 with the same arrays as datasets).

    Parameters
    ----------
    path
        File to write.
    effects
        Effect of A, C, G and T at each base of the concatenated regions.
    exact
        Whether each effect is exact; None to leave this array out.
    codes
        Codes of the observed bases.
    regions
        Regions, in the order in which they are concatenated in the arrays.
    files
        Transaction in which the file is written.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    arrays = {"effects": effects, "codes": codes} | ({} if exact is None else {"exact": exact})
    if path.suffix != ".h5":
        _write_archive(path, arrays, regions, files)
        return
    import h5py

    # The temporary file is locked already.
    with joined(files) as together, os_errors(path), h5py.File(together.create(path), "w", locking=False) as file:
        for name, array in (arrays | _describe(regions)).items():
            file[name] = array.astype(h5py.string_dtype()) if array.dtype.kind == "U" else array


def _describe(regions: Sequence[Region]) -> dict[str, np.ndarray]:
    """Return arrays that describe regions, with one entry for each."""
    lengths = np.array([len(region) for region in regions], np.int64)
    return {
        "chrom": np.array([region.chrom for region in regions], np.str_),
        "start": np.array([region.start for region in regions], np.int64),
        "end": np.array([region.end for region in regions], np.int64),
        "name": np.array([region.name for region in regions], np.str_),
        "strand": np.array([region.strand for region in regions], np.str_),
        "offset": np.cumsum(lengths) - lengths,
    }


def _write_archive(
    path: Path, arrays: Mapping[str, np.ndarray], regions: Sequence[Region], files: AtomicFiles | None
) -> None:
    """Write arrays to an archive, together with arrays that describe the regions."""
    # Uncompressed, so that readers can memory-map the arrays; compression would save less than 10%.
    with (
        joined(files) as together,
        os_errors(path),
        zipfile.ZipFile(together.create(path), "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, array in (dict(arrays) | _describe(regions)).items():
            _write_array(archive, f"{name}.npy", array)


class Columns(NamedTuple):
    """Contents of an archive, with memory-mapped arrays.

    Attributes
    ----------
    gradient
        Derivatives with respect to A, C, G and T at all bases of the concatenated regions, as a float32
        array of shape (bases, 4).
    codes
        Codes of the observed bases, as a uint8 array of shape (bases,).
    regions
        Regions, in the order in which they are concatenated in the arrays.
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
        Contents of the archive. The gradient and the codes are memory-mapped.

    Raises
    ------
    InputError
        If the file is not an archive written by `write_columns`, or is truncated or damaged.

    Notes
    -----
    Before any array is read, the names, types and shapes of all arrays are checked, and their positions are
    compared with the size of the file. The checksums of all arrays are verified, except the checksum of the
    gradient, because the gradient is not read.
    """
    check_file(path)
    with read_errors(path):
        try:
            with zipfile.ZipFile(path) as archive:
                return _read_archive(path, archive)
        # zipfile raises all of these for damaged or encrypted files.
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, LookupError, ValueError, struct.error) as error:
            if isinstance(error, InputError):
                raise
            if path.suffix != ".npz" and not zipfile.is_zipfile(path):
                raise InputError(
                    f"{path}: expected an archive written by attribute -o FILE.npz, four derivatives at each base; "
                    f"a track such as a bigWig contains one score at each base alone"
                ) from None
            raise _not_columns(path, " ".join(str(error).split())) from None


def _not_columns(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: not an archive written by -o FILE.npz, or damaged: {reason}")


def _read_archive(path: Path, archive: zipfile.ZipFile) -> Columns:
    members = _find_members(path, archive)
    gradient, codes = members["gradient"], members["codes"]
    n_bases, n_regions = codes.shape[0], members["start"].shape[0]
    for name, member in members.items():
        expected = _KINDS[name].shape(n_bases if name in ("gradient", "codes") else n_regions)
        if member.shape != expected:
            raise _not_columns(path, f"{name} has shape {member.shape}, expected {expected}")
    _check_codes(path, archive, codes)
    columns = {}
    for name in ("chrom", "start", "end", "name", "strand", "offset"):
        # zipfile compares the checksum of a member that is read completely.
        body = archive.read(f"{name}.npy")
        array = np.frombuffer(body, members[name].dtype, n_regions, len(body) - members[name].n_bytes)
        columns[name] = array.tolist() if array.dtype.kind == "i" else _decode(path, name, array)
    regions = _regions(path, columns)
    if sum(map(len, regions)) != n_bases:
        raise _not_columns(path, "the lengths of regions and arrays differ")
    return Columns(gradient.map(path), codes.map(path), regions)


class _Kind(NamedTuple):
    """Expected data type of an array, as a regular expression and in words, and expected number of columns.

    The number of columns is 0 if the array is one-dimensional.
    """

    descr: str
    words: str
    n_columns: int = 0

    def shape(self, n_rows: int) -> tuple[int, ...]:
        return (n_rows, self.n_columns) if self.n_columns else (n_rows,)


_KINDS = {
    "gradient": _Kind("<f4", "float32", 4),
    "codes": _Kind(r"\|u1", "uint8"),
    "chrom": _Kind(r"<U\d{1,7}", "text"),
    "start": _Kind("<i8", "int64"),
    "end": _Kind("<i8", "int64"),
    "name": _Kind(r"<U\d{1,7}", "text"),
    "strand": _Kind("<U1", "text of length 1"),
    "offset": _Kind("<i8", "int64"),
}
_NPY_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[^']+)', 'fortran_order': False, 'shape': \((?P<shape>\d{1,18}(?:,|, \d))\), \} *\n",
    re.ASCII,
)
"""Regular expression for the header that numpy writes.

numpy's own reader is not used, because it would evaluate the header as a Python expression.
"""

_LOCAL = struct.Struct("<4s5H3I2H")  # header of a member of a zip file


class _Member(NamedTuple):
    """Location of an array in an archive: data type, shape, file offset of the data, and size of the data in bytes."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    n_bytes: int

    def map(self, path: Path) -> np.ndarray:
        """Return a memory map of the array."""
        if not self.n_bytes:
            return np.zeros(self.shape, self.dtype)
        return np.memmap(path, self.dtype, "r", self.start, self.shape)


def _find_members(path: Path, archive: zipfile.ZipFile) -> dict[str, _Member]:
    """Return the location of each array in an archive, by name, without reading the data."""
    infos = archive.infolist()
    members, spans = {}, []
    with path.open("rb") as file:
        for name in _KINDS:
            same = [info for info in infos if info.filename == f"{name}.npy"]
            if len(same) != 1:
                raise _not_columns(path, f"{len(same)} arrays are called {name}, expected one")
            info = same[0]
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
                raise _not_columns(path, f"{name} is compressed or encrypted, expected it stored")
            file.seek(info.header_offset)
            local = file.read(_LOCAL.size)
            if len(local) < _LOCAL.size or local[:4] != b"PK\3\4":
                raise _not_columns(path, f"{name} is not where the archive states it")
            *_, n_name, n_extra = _LOCAL.unpack(local)
            start = info.header_offset + _LOCAL.size + n_name + n_extra
            spans.append((info.header_offset, start + info.file_size))
            if spans[-1][1] > archive.start_dir:
                raise _not_columns(path, f"{name} exceeds the archive")
            file.seek(start)
            members[name] = _read_npy_header(path, name, file, start, info.file_size)
    spans.sort()
    if any(start < end for (_, end), (start, _) in pairwise(spans)):
        raise _not_columns(path, "arrays overlap")
    return members


def _read_npy_header(path: Path, name: str, file: BinaryIO, start: int, size: int) -> _Member:
    """Read the header of an array, and check that the header agrees with the size of the archive member."""
    head = file.read(10)
    n_header = int.from_bytes(head[8:], "little")
    text = file.read(n_header).decode("latin1")
    found = _NPY_HEADER.fullmatch(text)
    if head[:8] != b"\x93NUMPY\x01\x00" or found is None or not re.fullmatch(_KINDS[name].descr, found["descr"]):
        raise _not_columns(path, f"{name} is not an array of {_KINDS[name].words}")
    dtype = np.dtype(found["descr"])
    shape = tuple(int(n) for n in found["shape"].split(",") if n)
    n_bytes = math.prod(shape) * dtype.itemsize
    if 10 + n_header + n_bytes != size:
        raise _not_columns(path, f"{name} has {size - 10 - n_header:,} bytes, its shape {shape} requires {n_bytes:,}")
    return _Member(dtype, shape, start + 10 + n_header, n_bytes)


def _check_codes(path: Path, archive: zipfile.ZipFile, codes: _Member) -> None:
    """Check that all codes are valid; zipfile verifies their checksum while they are read."""
    with archive.open("codes.npy") as file:
        file.read(archive.getinfo("codes.npy").file_size - codes.n_bytes)
        while piece := file.read(_PIECE_BYTES):
            if (highest := int(np.frombuffer(piece, np.uint8).max())) > N:
                raise _not_columns(path, f"codes has the value {highest}, expected at most {N}")


def _decode(path: Path, name: str, array: np.ndarray) -> list[str]:
    """Convert a numpy array of text to a list of strings, and check that the text is valid."""
    letters = array.view("<u4").reshape(len(array), -1) if array.itemsize else np.zeros((len(array), 0), "<u4")
    surrogate = (letters >= 0xD800) & (letters < 0xE000)
    control = ((letters > 0) & (letters < 32)) | (letters == 127)
    inside = (letters[:, 1:] > 0) & (letters[:, :-1] == 0)
    if (letters > sys.maxunicode).any() or surrogate.any() or control.any() or inside.any():
        raise _not_columns(path, f"{name} is not valid text")
    texts: list[str] = array.tolist()
    return texts


def _regions(path: Path, columns: Mapping[str, list[Any]]) -> tuple[Region, ...]:
    regions, offset = [], 0
    rows = zip(*(columns[key] for key in ("chrom", "start", "end", "name", "strand", "offset")), strict=True)
    for number, (chrom, start, end, name, strand, stated) in enumerate(rows, 1):
        where = f"{path}: region {number}"
        if not chrom or stated != offset:
            raise InputError(f"{where}: sequence is {chrom!r} and offset {stated}, expected a name and {offset}")
        region = Region(chrom, start, end, name=name, strand=strand, source=where)
        regions.append(replace(region, source=""))
        offset += len(region)
    return tuple(regions)


def _write_array(archive: zipfile.ZipFile, name: str, array: Shaped[np.ndarray, "..."]) -> None:
    """Write an array in numpy's .npy format, several rows at a time."""
    # An explicit ZipInfo has a fixed date, so that equal arrays give identical files.
    with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
        descr = np.lib.format.dtype_to_descr(array.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(member, header)
        rows = max(1, _PIECE_BYTES // max(1, array[:1].nbytes))
        for first in range(0, len(array), rows):
            member.write(array[first : first + rows].tobytes())
            release_pages(array)
