"""Merging of a job's shards into the tracks that a single run would have written."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from genoscan.errors import InputError
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.layers.config import ValidationResult
from genoscan.likelihood import Likelihood, join_warnings, likelihood_record, likelihood_warning, sum_likelihoods
from genoscan.shards import parse_shard
from genoscan.tracks.atomic import atomic_files
from genoscan.tracks.provenance import TRACK_KEYS, check_genome, read_provenance, scored_regions, write_provenance
from genoscan.tracks.record_schema import region_records
from genoscan.tracks.track_reader import TrackReader, open_scores, read_scores
from genoscan.tracks.writer import BIGWIG, open_tracks
from genoscan.window_error.expected import merge_entries

_PIECE = 1 << 20  # bases
_LISTED = 5
_REQUIRED = "score", "sequences", "regions", "scored_bases"
_SUFFIXES = *BIGWIG, ".npz"
_SUMS = "scored_bases", "zero_regions", "seconds"
_SHARD_KEYS = (
    "command",
    "context_share",
    "read_bases",
    "regions",
    "scored_bases",
    "seconds",
    "sequences",
    "shard",
    "method",
    "completeness",
    "target_labels",
    "target_values",
    *TRACK_KEYS,
    "likelihood",
    "warning",
    "window_error",
    "windows",
    "zero_regions",
)
"""Keys of the record whose values may differ between shards; all other values must be equal."""


class _Shard(NamedTuple):
    path: Path
    record: dict[str, Any]
    regions: tuple[Region, ...]


def write_merged(
    paths: Sequence[Path], genome: Genome, outputs: Sequence[Path], *, command: Sequence[str] = ()
) -> dict[str, Any]:
    """Write the tracks of a job from the files of all shards; return the record of the tracks.

    Parameters
    ----------
    paths
        One .bw or .npz file per shard, in any order.
    genome
        Genome for which the shards were computed.
    outputs
        Paths of the tracks. The suffixes determine the formats.
    command
        Command line to store in the record.

    Returns
    -------
    dict
        Record of the tracks. It is also written to a JSON file beside each track.

    Raises
    ------
    InputError
        If a shard is missing, incomplete or given twice, or if the shards are from different jobs or genomes.
    OutputError
        If a file cannot be written.

    Notes
    -----
    Because shards consist of whole batches, the tracks are byte-identical to those of a single run with
    the same number of threads. Memory: about one million scores, the regions, and 0.01 bytes per base for the
    indexes of the bigWig files.
    """
    shards = _read_shards(paths, genome)
    first = shards[0].record
    rank = {chrom: i for i, chrom in enumerate(genome.sizes)}
    placed = [(region, number) for number, shard in enumerate(shards) for region in shard.regions]
    placed.sort(key=lambda at: (rank[at[0].chrom], at[0].start))
    records = [shard.record for shard in shards]
    met = {s["name"]: s for record in records for s in record["sequences"]}
    record = {key: value for key, value in first.items() if key not in _SHARD_KEYS} | {
        "command": list(command),
        "shards": len(shards),
        "sequences": [met[name] for name in genome.sizes if name in met],
        "regions": region_records(region for region, _ in placed),
        **merge_entries(records, [sum(map(len, shard.regions)) for shard in shards]),
        **_likelihood(records),
        **_joined_lists(records, ("target_values", "target_labels", "completeness")),
        **{key: sum(record[key] for record in records) for key in _SUMS if all(key in record for record in records)},
    }
    with atomic_files() as files:
        with open_tracks(outputs, genome.sizes, files) as track:
            for region, scores in _scores(shards, placed):
                track.write(region, scores)
        for path in outputs:
            write_provenance(path, record, files)
    return record


def _scores(
    shards: Sequence[_Shard], placed: Sequence[tuple[Region, int]]
) -> Iterator[tuple[Region, Float32[np.ndarray, " bases"]]]:
    """Yield the scores of regions, in pieces, and check that each shard has as many scores as its record states.

    `placed` contains each region with the index of its shard. A shard is open from its first region to its last,
    because there may be more shards than files that a process may open.
    """
    last = {number: i for i, (_, number) in enumerate(placed)}
    missing = [shard.record["scored_bases"] for shard in shards]
    with ExitStack() as stack:
        opened: dict[int, tuple[TrackReader, ExitStack]] = {}
        for i, (region, number) in enumerate(placed):
            if number not in opened:
                file = stack.enter_context(ExitStack())
                opened[number] = file.enter_context(open_scores(shards[number].path)), file
            track, file = opened[number]
            for start in range(region.start, region.end, _PIECE):
                end = min(start + _PIECE, region.end)
                scores = read_scores(track, region.chrom, start, end)
                missing[number] -= int(np.isfinite(scores).sum())
                yield Region(region.chrom, start, end), scores
            if i == last[number]:
                file.close()
                del opened[number]
                _check_complete(shards[number], missing[number])


def _check_complete(shard: _Shard, missing: int) -> None:
    if missing:
        stated = shard.record["scored_bases"]
        raise InputError(
            f"{shard.path}: has {stated - missing:,} scores in its regions, expected {stated:,}, as its record states: "
            "compute the shard again"
        )


def _likelihood(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the entries `likelihood` and `warning` of all shards together."""
    parts = [part for record in records for part in (record.get("warning") or "").split("; ") if part]
    found = [record["likelihood"] for record in records if record.get("likelihood")]
    model = records[0].get("model", "")
    own = {likelihood_warning(model, one) for one in found}
    others = dict.fromkeys(part for part in parts if part not in own)
    if not found:
        return join_warnings(*others)
    total = sum_likelihoods(Likelihood(tuple(one["base_counts"]), one["log_likelihood"]) for one in found)
    known = found[0].get("validation")
    validation = known and ValidationResult(bits=known["bits"], composition=known["composition"])
    entry = likelihood_record(total, validation)
    assert entry is not None
    return {"likelihood": entry, **join_warnings(*others, likelihood_warning(model, entry))}


def _joined_lists(records: Sequence[dict[str, Any]], keys: Sequence[str]) -> dict[str, list[Any]]:
    """Concatenate, for each key, the lists that the records contain under this key.

    Keys that do not occur in any record are omitted.
    """
    return {
        key: [value for record in records for value in record.get(key, [])]
        for key in keys
        if any(key in record for record in records)
    }


def _read_shards(paths: Sequence[Path], genome: Genome) -> list[_Shard]:
    """Read the records of a job's shards, check that each shard is given exactly once, and return them in order."""
    found: dict[int, _Shard] = {}
    checked: dict[str, Any] = {}  # sequences of earlier shards; a checksum takes a second per 300 Mb
    for path in paths:
        if not path.name.lower().endswith(_SUFFIXES):
            raise InputError(f"{path}: expected a shard as {' or '.join(_SUFFIXES)}, written by attribute --shard")
        record = read_provenance(path, required=_REQUIRED)
        if not record.get("shard"):
            raise InputError(f"{path}: is not a shard: expected output of attribute --shard")
        sequences = [sequence for sequence in record["sequences"] if checked.get(sequence["name"]) != sequence]
        check_genome(path, {"sequences": sequences}, genome)
        checked |= {sequence["name"]: sequence for sequence in sequences}
        shard = _Shard(path, record, scored_regions(path, record, genome))
        i, n = parse_shard(record["shard"])
        if found:
            _check_same(next(iter(found.values())), shard)
        if i in found:
            raise InputError(f"{path}: is shard {i}/{n}, as is {found[i].path}: give each once")
        found[i] = shard
    if len(found) < n:
        missing = ", ".join(islice((str(i) for i in range(1, n + 1) if i not in found), _LISTED))
        more = n - len(found) - _LISTED
        raise InputError(f"{paths[0]}: shard {missing}{f' and {more:,} more' * (more > 0)} of {n} is missing")
    return [found[i] for i in range(1, n + 1)]


def _check_same(one: _Shard, other: _Shard) -> None:
    settings = [
        {key: value for key, value in shard.record.items() if key not in _SHARD_KEYS}
        | {"shards": parse_shard(shard.record["shard"])[1]}
        for shard in (one, other)
    ]
    for name in sorted({*settings[0], *settings[1]}):
        values = [setting.get(name) for setting in settings]
        if values[0] != values[1]:
            raise InputError(f"{other.path}: has {name} {values[1]}, {one.path} has {values[0]}: expected one job")
