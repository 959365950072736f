"""Time, memory and disk space that a chromosome takes apart from the model: storing, writing and merging of scores.

The pass of the model is replaced by random derivatives, which arrive tile by tile as from the model.
"""

import filecmp
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from benchmarks import machine
from benchmarks.alone import alone
from benchmarks.run import write_text
from benchmarks.threshold import at_most, row
from genoscan import pipeline, usage
from genoscan.engine.recovery import Snapshots
from genoscan.engine.target import Target
from genoscan.genome.genome import open_genome
from genoscan.gradient import Receive
from genoscan.job import Options, prepare
from genoscan.merge import write_merged
from genoscan.model import Model, load_model
from genoscan.tracks.bigwig import HEADER
from genoscan.tracks.reader import BigWig

_LINE = 60
_TILE = 1 << 13
_WARM_UP = 100_000
"""Bases of the sequence whose track is written before the peak is measured."""


def write_genome(path: Path, length: int) -> None:
    """Write a FASTA file with one sequence of random bases, a hundredth of which are N."""
    draw = np.random.default_rng(1)
    with path.open("wb") as file:
        file.write(b">chr1\n")
        for start in range(0, length, _LINE << 16):
            count = min(_LINE << 16, length - start)
            letters = np.frombuffer(b"ACGT", np.uint8)[draw.integers(0, 4, count)]
            letters[: count // 100] = ord("N")
            lines = -(-count // _LINE)
            padded = np.full((lines, _LINE + 1), ord("\n"), np.uint8)
            padded[:, :-1].flat[:count] = letters
            file.write(padded.tobytes()[: count + lines - 1] + b"\n")


def random_gradient(
    model: Model,
    codes: UInt8[Tensor, "batch length"],
    target: Target,
    receive: Receive,
    *,
    snapshots: Callable[[slice], Snapshots] | None = None,
    progress: Callable[[int], None] = lambda _positions: None,
) -> Float64[np.ndarray, " batch"]:
    """Pass random derivatives to `receive`, from the last tile to the first, and save states as a sweep does."""
    batch, length = codes.shape
    draw = torch.Generator().manual_seed(1)
    rows = slice(0, batch)
    gradient = torch.randn(batch, 2 * _TILE, len(model.config.symbols), generator=draw)
    saved = None if snapshots is None else snapshots(rows)
    for stop in range(length, 0, -_TILE):
        start = max(0, stop - _TILE)
        shift = start // _TILE * 97 % _TILE
        receive(rows, slice(start, stop), gradient[:, shift : shift + stop - start])
        progress(batch * (stop - start))
        if saved is not None and saved.due(0):
            saved.save("sweep", {"start": np.array(start)})
    return np.full(batch, -1.3 * length)


def attribute(genome: str, model: str, output: str, shard: str | None, threads: int) -> dict[str, Any]:
    """Write the track of all sequences without running the model; return what it took."""
    torch.set_num_threads(threads)
    loaded, options = load_model(model, device="cpu"), Options(shard=shard)
    path = Path(output)
    with mock.patch.object(pipeline, "stream_gradient", random_gradient), tempfile.TemporaryDirectory() as folder:
        write_genome(Path(folder) / "short.fa", _WARM_UP)
        short = prepare(open_genome(Path(folder) / "short.fa"), loaded, [], options)
        pipeline.run(short, [Path(folder) / path.name])

        def run() -> None:
            pipeline.run(prepare(open_genome(Path(genome)), loaded, [], options), [path])

        return _cost(run, path)


def merge(genome: str, shard: str, output: str, threads: int) -> dict[str, Any]:
    """Merge the only shard of a job; return what it took."""
    torch.set_num_threads(threads)
    path = Path(output)
    return _cost(lambda: write_merged([Path(shard)], open_genome(Path(genome)), [path]), path)


def _cost(run: Callable[[], object], path: Path) -> dict[str, Any]:
    before = usage.in_use("cpu")
    usage.reset_peak("cpu")
    started, processor = time.monotonic(), time.process_time()
    with _disk(path.parent) as most:
        run()
    seconds, processor_seconds = time.monotonic() - started, time.process_time() - processor
    with path.open("rb") as file:
        levels = HEADER.unpack(file.read(HEADER.size))[2]
    with BigWig(path) as track:
        bases = sum(track.sizes.values())
    return {
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "extra_bytes": usage.peak("cpu") - before,
        "disk_bytes": most[0],
        "file_bytes": path.stat().st_size,
        "zoom_levels": levels,
        "bases": bases,
    }


@contextmanager
def _disk(folder: Path) -> Iterator[list[int]]:
    """Context manager that yields a list with the largest disk space of a folder above that at the start."""
    most, ended = [0], threading.Event()
    first = _allocated(folder)

    def watch() -> None:
        while not ended.wait(0.1):
            most[0] = max(most[0], _allocated(folder) - first)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def _allocated(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:  # renamed or removed since it was listed
            continue
    return total


def measure(model: str, output: Path, *, length: int, threads: int, scratch: Path) -> list[dict[str, Any]]:
    """Measure a track, a shard and its merging for a sequence of `length` bases; write the rows to chromosome.json.

    Parameters
    ----------
    model
        Model, whose weights are not used.
    output
        Folder to write to.
    length
        Length of the sequence, in bases.
    threads
        Number of CPU threads.
    scratch
        Folder for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="genoscan-bench-", dir=scratch) as name:
        folder = Path(name)
        genome, whole, shard, merged = (str(folder / file) for file in ("g.fa", "whole.bw", "shard.bw", "merged.bw"))
        write_genome(Path(genome), length)
        open_genome(Path(genome))
        common = {"genome": genome, "threads": threads}
        parts = {
            "track": alone(attribute, common | {"model": model, "output": whole, "shard": None}),
            "shard": alone(attribute, common | {"model": model, "output": shard, "shard": "1/1"}),
            "merge": alone(merge, common | {"shard": shard, "output": merged}),
        }
        equal = filecmp.cmp(whole, merged, shallow=False)
    apart = parts["shard"]["seconds"] + parts["merge"]["seconds"]
    most = max(part["extra_bytes"] for part in parts.values()) / 1e6
    rows = [
        row("track: time", parts["track"]["seconds"], "s", at_most(180)),
        row("shard and merge: time", apart, "s", at_most(180)),
        row("memory above the process, largest", most, "MB", at_most(300)),
        row("merged track differs from that of one run", float(not equal), "", at_most(0)),
        *(
            row(f"{name}: {text}", parts[name][key] / size, unit)
            for name in parts
            for key, text, size, unit in _DETAILS
        ),
    ]
    document = {
        **machine.circumstances("cpu"),
        "threads": threads,
        "load": os.getloadavg(),
        "bases": length,
        "model": model,
        "rows": rows,
    }
    write_text(output / "chromosome.json", json.dumps(document, indent=1) + "\n")
    return rows


_DETAILS = (
    ("seconds", "time", 1, "s"),
    ("processor_seconds", "processor time", 1, "s"),
    ("extra_bytes", "memory above the process", 1e6, "MB"),
    ("disk_bytes", "disk space until done", 1e6, "MB"),
    ("file_bytes", "size of the file", 1e6, "MB"),
    ("zoom_levels", "zoom levels", 1, ""),
)
