"""Names of files that contain the results of one strand each."""

from pathlib import Path

from genoscan.tracks.writer import split_suffix

_NAMES = {"+": "plus", "-": "minus"}
_ONE_SUFFIX = ".npz", ".bed", ".tsv"
"""Suffixes of files that are not tracks."""


def strand_path(path: Path, strand: str) -> Path:
    """Return the file that contains the results of one strand.

    Parameters
    ----------
    path
        Output as specified by the user: a track, an archive, a .bed file or a table.
    strand
        Strand, "+" or "-".

    Returns
    -------
    Path
        The same path with "plus" or "minus" before the suffix, as in P.plus.bw for P.bw.

    Raises
    ------
    InputError
        If the suffix is unknown.
    """
    stem, suffix = (path.stem, path.suffix) if path.suffix in _ONE_SUFFIX else split_suffix(path)
    return path.with_name(f"{stem}.{_NAMES[strand]}{suffix}" if stem else f"{_NAMES[strand]}{suffix}")
