"""Checks before a computation: all outputs must be writable, and none may overwrite an input."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from genoscan.errors import InputError
from genoscan.temporary import temporary_path
from genoscan.tracks.atomic import check_writable, partial_folder, resolve
from genoscan.tracks.provenance import provenance_path
from genoscan.tracks.writer import BEDGRAPH, BIGWIG, check_output, index_paths

_BYTES_PER_BASE = {".npz": 17.0, **dict.fromkeys(BIGWIG, 5.4), **dict.fromkeys(BEDGRAPH, 36.0)}
_INDEXED_BYTES_PER_BASE, _SHARD_BYTES_PER_BASE = 10.0, 3.8
"""Sizes of files with a score at every base: tracks of the chloroplast in data/. Repeated scores take less."""

_INDEXES = ".fai", ".gzi", ".tbi", ".csi"


def check_outputs(outputs: Sequence[Path], inputs: Iterable[Path | None] = ()) -> None:
    """Check that the tracks and archives of a command can be written and do not overwrite an input.

    Parameters
    ----------
    outputs
        Files to write.
    inputs
        Files that the command will read. The entry for an option that was not given is None.

    Raises
    ------
    InputError
        If a suffix is unknown, an output is given twice, or a file to write is also an input.
    OutputError
        If an output cannot be written.
    """
    check_each(outputs, inputs, check_output, index_paths)


def file_bytes(path: Path, bases: int, *, shard: bool = False) -> int:
    """Return the approximate size of a track or archive with a score at each of `bases` bases.

    Parameters
    ----------
    path
        File, whose suffix determines its format.
    bases
        Number of bases that have a score.
    shard
        Whether the file is that of a shard. If it is a bigWig, it has no zoom levels.

    Returns
    -------
    int
        Size in bytes.
    """
    name = path.name.lower()
    if name.endswith(".gz"):
        return round(_INDEXED_BYTES_PER_BASE * bases)
    if shard and name.endswith(BIGWIG):
        return round(_SHARD_BYTES_PER_BASE * bases)
    return round(_BYTES_PER_BASE[path.suffix.lower()] * bases)


def check_each(
    outputs: Sequence[Path],
    inputs: Iterable[Path | None],
    check: Callable[[Path], None],
    indexes: Callable[[Path], Sequence[Path]],
) -> None:
    """Check that outputs with provenance records can be written and do not overwrite an input.

    Parameters
    ----------
    outputs
        Files to write.
    inputs
        Files that the command will read. The entry for an option that was not given is None.
    check
        Function that checks that one output has a known suffix and can be written.
    indexes
        Function that returns the paths at which the index of an output may be written.

    Raises
    ------
    InputError
        If `check` raises it, an output is given twice, or a file to write is also an input.
    OutputError
        If an output cannot be written.
    """
    read = _read(inputs)
    for path in outputs:
        check(path)
        written = [path, provenance_path(path), *indexes(path)]
        _check_not_read(path, [*written, partial_folder(path)], read)
    check_distinct(outputs)


def check_distinct(outputs: Sequence[Path]) -> None:
    """Raise an error if an output is given twice."""
    named: set[Path] = set()
    for path in outputs:
        if resolve(path) in named:
            raise InputError(f"{path}: an output is given twice: name each once")
        named.add(resolve(path))


def check_file(output: Path, inputs: Iterable[Path | None], suffix: str = "") -> None:
    """Check that an output without a provenance record can be written and would not overwrite an input.

    Parameters
    ----------
    output
        File to write, such as a page or a table.
    inputs
        Files that the command will read. The entry for an option that was not given is None.
    suffix
        Suffix by which other programs recognise the file, such as ".html".

    Raises
    ------
    InputError
        If the file is also an input, or is the provenance record or an index of an input, or lacks the suffix.
    OutputError
        If the file cannot be written.
    """
    check_writable(output)
    _check_not_read(output, [output], _read(inputs))
    if not output.name.lower().endswith(suffix):
        found = f'suffix "{output.suffix}"' if output.suffix else "no suffix"
        raise InputError(f"{output}: found {found}, expected a name that ends in {suffix}")


def _read(inputs: Iterable[Path | None]) -> set[Path]:
    """Return the paths of the inputs, and of the provenance records and indexes that the inputs may have."""
    return {
        resolve(file)
        for path in inputs
        if path is not None
        for file in (path, provenance_path(path), *(path.with_name(path.name + suffix) for suffix in _INDEXES))
    }


def _check_not_read(output: Path, written: Sequence[Path], read: set[Path]) -> None:
    for path in [*written, *(temporary_path(resolve(path)) for path in written)]:
        if resolve(path) in read:
            also = "" if path == output else f" {path.name}, which is written beside it,"
            raise InputError(f"{output}:{also or ' it'} is read from, too: name another output")
