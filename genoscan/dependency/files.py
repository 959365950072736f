"""Files that contain a dependency map: arrays, contact matrices, tables of pairs, pages and tracks."""

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genoscan.dependency.compute import compute_map
from genoscan.dependency.dependency_map import DependencyMap
from genoscan.dependency.page import LARGEST_SIDE, write_dependency_page
from genoscan.dependency.plan import MapPlan
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError
from genoscan.genome.alphabet import decode
from genoscan.genome.region import Region
from genoscan.record import model_record, sequence_records
from genoscan.temporary import temporary
from genoscan.tracks.atomic import AtomicFiles, atomic_files, os_errors, resolve
from genoscan.tracks.journal import open_journal
from genoscan.tracks.outputs import check_distinct, check_file, check_outputs
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.record_schema import region_records
from genoscan.tracks.writer import open_tracks, split_suffix, write_in_pieces

if TYPE_CHECKING:
    import pandas as pd

_PAGE, _COOL, _MCOOL = ".html", ".cool", ".mcool"
_COARSEST = 256
"""Number of bins below which the values of an `.mcool` file are not aggregated further."""
_CHUNK = 10_000_000


def check_map_outputs(outputs: Sequence[Path], inputs: Sequence[Path | None]) -> None:
    """Check that the files of a dependency map can be written and do not overwrite an input.

    Parameters
    ----------
    outputs
        Files to write.
    inputs
        Files that the command reads; None for an option that was not given.

    Raises
    ------
    InputError
        If a suffix is unknown, an output is given twice or is an input, or cooler is not installed.
    OutputError
        If an output cannot be written.
    """
    tracks = [path for path in outputs if path.suffix.lower() not in _WRITERS]
    for path in tracks:
        if path.suffix.lower() not in (".bw", ".bigwig", ".bedgraph", ".bg", ".gz"):
            raise InputError(
                f'{path}: unknown suffix "{path.suffix}", expected one of {", ".join(_WRITERS)}, .bw, .bedgraph, '
                ".bedgraph.gz"
            )
        split_suffix(path)
    check_outputs(tracks, inputs)
    check_distinct(outputs)
    for path in outputs:
        if path not in tracks:
            check_file(path, inputs)
        if path.suffix.lower() in (_COOL, _MCOOL) and find_spec("cooler") is None:
            raise InputError(f"{path}: requires cooler: pip install cooler")


def write_map(
    plan: MapPlan,
    outputs: Sequence[Path],
    *,
    top: int = 1_000,
    command: Sequence[str] = (),
    progress: Progress = ignore,
) -> dict[str, Any]:
    """Compute a dependency map, and write it.

    Parameters
    ----------
    plan
        Plan, as returned by `prepare_map`.
    outputs
        Files to write; the suffix of each determines its contents. `.npz`: the map and its coordinates.
        `.cool`: the values other than 0, in bins of one base. `.mcool`: the same, and sums of the values in bins
        of 2, 4, 8, ... bases. `.bedpe`: the strongest pairs, mutated base first. `.html`: a heat map. A track
        (`.bw`, `.bedgraph`, `.bedgraph.gz`): the influence of each mutated base.
    top
        Number of pairs in a `.bedpe` file.
    command
        Command line to store in the record.
    progress
        Function called after each tile with the number of positions in the tile.

    Returns
    -------
    dict
        Record of the run, which is also written beside each file except `.html`, which includes it.

    Raises
    ------
    InputError
        If `top` is not positive, or the map is too large for a `.html` file.
    NonFiniteError
        If a value is NaN or infinite.
    OutputError
        If a file cannot be written.

    Notes
    -----
    To continue an interrupted run, call the function again with the same arguments.
    """
    started = time.monotonic()
    if top < 1:
        raise InputError(f"--top {top}: expected 1 pair or more")
    for path in outputs:
        side = max(len(plan.layout.rows), len(plan.layout.columns))
        if path.suffix.lower() == _PAGE and side > LARGEST_SIDE:
            raise InputError(f"{path}: a map of {side:,} bases, expected at most {LARGEST_SIDE:,}; write .npz or .cool")
    settings = _settings(plan)
    tracks = [path for path in outputs if path.suffix.lower() not in _WRITERS]
    with open_journal(outputs[0], settings) as journal, atomic_files() as files:
        found = compute_map(plan, journal, progress=progress)
        settings |= {"command": list(command)}
        record = settings | {"seconds": time.monotonic() - started}
        for path in outputs:
            if path not in tracks:
                _WRITERS[path.suffix.lower()](path, files, plan, found, settings, top)
        if tracks:
            _write_influence(tracks, files, plan, found)
        for path in outputs:
            if path.suffix.lower() != _PAGE:
                write_provenance(path, record, files)
    return record


def _settings(plan: MapPlan) -> dict[str, Any]:
    """Return all settings that determine the map, bit for bit."""
    options, region = plan.options, plan.options.region
    return {
        **model_record(plan.model),
        "sequences": sequence_records(plan.genome, [region.chrom]),
        "dependency": {
            "map": options.definition,
            "symmetrise": options.symmetrise,
            "band": options.band,
            "columns": region_records([plan.layout.columns])[0],
            "n_rows": len(plan.layout.rows),
            "rows": hashlib.sha256(plan.layout.rows.tobytes()).hexdigest(),
            "width": plan.layout.width,
        },
        "strand": "both" if len(plan.strands) > 1 else plan.strands[0],
        "context": plan.context,
        "regions": region_records([region]),
    }


def _write_arrays(
    path: Path, files: AtomicFiles, plan: MapPlan, found: DependencyMap, record: dict[str, Any], _top: int
) -> None:
    columns, band = plan.layout.columns, plan.layout.band
    axis: dict[str, Any] = {"columns": np.arange(columns.start, columns.end)}
    if band is not None:
        axis = {"offsets": np.arange(-band, band + 1), "column_range": np.array([columns.start, columns.end])}
    part = files.create(path)
    with os_errors(path), part.open("wb") as file:
        np.savez(
            file,
            map=found.values.astype(np.float32, copy=False),
            rows=plan.layout.rows,
            **axis,
            row_codes=found.row_codes,
            column_codes=found.column_codes,
            chrom=np.array(columns.chrom),
            definition=np.array(plan.options.definition),
            provenance=np.array(json.dumps(record, default=str)),
        )


def _write_pairs(
    path: Path, files: AtomicFiles, plan: MapPlan, found: DependencyMap, _record: dict[str, Any], top: int
) -> None:
    columns = plan.layout.columns
    rows, read = decode(found.row_codes).decode(), decode(found.column_codes).decode()
    part = files.create(path)
    with os_errors(path), part.open("w", encoding="utf-8") as file:
        file.write("#chrom1\tstart1\tend1\tchrom2\tstart2\tend2\tname\tscore\tstrand1\tstrand2\n")
        for row, column, value in found.strongest(top):
            name = f"{rows[np.searchsorted(plan.layout.rows, row)]}{row + 1}>{read[column - columns.start]}{column + 1}"
            one, other = f"{columns.chrom}\t{row}\t{row + 1}", f"{columns.chrom}\t{column}\t{column + 1}"
            file.write(f"{one}\t{other}\t{name}\t{value:.6g}\t.\t.\n")


def _write_cool(
    path: Path, files: AtomicFiles, plan: MapPlan, found: DependencyMap, record: dict[str, Any], _top: int
) -> None:
    import cooler
    import pandas as pd

    columns = plan.layout.columns
    bases = np.union1d(plan.layout.rows, np.arange(columns.start, columns.end))
    # One bin for each gap, so that the bins cover the sequence and coordinates are those of the genome.
    starts = np.unique(np.concatenate([[0], bases, bases + 1]))
    size = plan.genome.sizes[columns.chrom]
    starts = starts[starts < size]
    bins = pd.DataFrame({"chrom": columns.chrom, "start": starts, "end": np.append(starts[1:], size)})
    part = files.create(path)
    # HDF5 locks its files itself, which the lock of the temporary file would prevent.
    with os_errors(path), temporary(resolve(path.with_name(f"{path.name}.hdf5")), folder=True) as folder:
        made = folder.path / "map.cool"
        cooler.create_cooler(
            str(made),
            bins,
            _pixels(found, starts),
            columns=["count"],
            dtypes={"count": np.float32},
            ordered=True,
            symmetric_upper=found.symmetric,
            triucheck=found.symmetric,
            mode="w",
            metadata=json.loads(json.dumps(record, default=str)),
        )
        if path.suffix.lower() == _MCOOL:
            widths = [1 << i for i in range(max(2, (len(starts) // _COARSEST).bit_length() + 1))]
            single, made = made, folder.path / "map.mcool"
            with warnings.catch_warnings():
                # cooler sets an option for symmetric matrices itself, and then warns that it changes it.
                warnings.filterwarnings("ignore", "Creating a non-symmetric matrix")
                cooler.zoomify_cooler(str(single), str(made), widths, _CHUNK, columns=["count"])
        shutil.copyfile(made, part)


def _pixels(found: DependencyMap, starts: np.ndarray) -> "Iterator[pd.DataFrame]":
    """Yield the values other than 0 in order of their bins; of a symmetric map, the upper triangle."""
    import pandas as pd

    for rows, positions, values in found.blocks():
        places = np.broadcast_to(found.layout.rows[rows, None], positions.shape)
        kept = np.isfinite(values) & (values != 0)
        if found.symmetric:
            kept &= places < positions
        yield pd.DataFrame(
            {
                "bin1_id": np.searchsorted(starts, places[kept]),
                "bin2_id": np.searchsorted(starts, positions[kept]),
                "count": values[kept].astype(np.float32),
            }
        )


def _write_html(
    path: Path, files: AtomicFiles, plan: MapPlan, found: DependencyMap, record: dict[str, Any], _top: int
) -> None:
    part = files.create(path)
    with os_errors(path):
        write_dependency_page(part, found, record, title=path.stem)


def _write_influence(tracks: Sequence[Path], files: AtomicFiles, plan: MapPlan, found: DependencyMap) -> None:
    """Write the mean over the read bases of the values of each mutated base."""
    region, influence = plan.options.region, found.influence()
    scores = np.full(len(region), np.nan, np.float32)
    scores[plan.layout.rows - region.start] = influence
    with open_tracks(tracks, plan.genome.sizes, files) as track:
        write_in_pieces(track, Region(region.chrom, region.start, region.end), scores)


_WRITERS: dict[str, Callable[[Path, AtomicFiles, MapPlan, DependencyMap, dict[str, Any], int], None]] = {
    ".npz": _write_arrays,
    _COOL: _write_cool,
    _MCOOL: _write_cool,
    ".bedpe": _write_pairs,
    _PAGE: _write_html,
}
