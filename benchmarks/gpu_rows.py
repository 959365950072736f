"""The measurements behind each row of gpu.py.

Contenders, costs and thresholds are those of `python -m benchmarks speed`; here they run one after
another in one process, because a process for each would take half of the available time.
"""

import gc
import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch

from benchmarks import machine
from benchmarks.clock import timed
from benchmarks.gpu_commands import command_errors, command_speeds
from benchmarks.gpu_parity import (
    ENGINES,
    engine_error,
    kernel_errors,
    long_engine_error,
    scan_rounding,
    surrogate_error,
    weights_error,
    write_small_model,
)
from benchmarks.gpu_parity import track_error as measured_track_error
from benchmarks.speed import blocks
from benchmarks.speed.model import write_fresh_model
from benchmarks.speed.rows import rows
from benchmarks.speed.sequence import shipped_genome
from benchmarks.speed.settings import Settings, Task
from benchmarks.speed.worker import serve
from benchmarks.speed.workers import Timing
from benchmarks.threshold import Threshold, at_most
from genoscan import usage
from genoscan.layers.surrogate import Surrogate
from genoscan.ops.kernels import ScanInputs

TILES = (2_048, 4_096, 8_192, 12_288)
SLOTS = 64
_TINY, _TINY_TILE = 3, 2
"""Bases of a window and of a tile in a dry run."""
_LONG = 5.0
"""Seconds above which the first run of a contender counts as warm."""


@dataclass(frozen=True)
class Result:
    """A measured number.

    exact  an error rather than a time or a size: judged in dry runs, too
    """

    name: str
    value: float
    unit: str
    threshold: Threshold | None = None
    exact: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Device and model that rows are measured on, and results of earlier rows."""

    dry: bool
    folder: Path
    model: Path
    found: dict[str, float]
    deadline: float
    versions: Mapping[str, Any]
    name: str

    @staticmethod
    @contextmanager
    def made(task: Mapping[str, Any]) -> Iterator["Bench"]:
        """Prepare a temporary folder with the model."""
        dry = task["dry"]
        torch.manual_seed(1)
        if dry:
            torch.set_num_threads(1)  # the interpreter takes one at a time
        with (
            tempfile.TemporaryDirectory(prefix="genoscan-gpu-") as name,
            mock.patch.object(blocks, "CHANNELS", 16 if dry else blocks.CHANNELS),
        ):
            folder = Path(name)
            model = write_fresh_model(folder, "8x1" if dry else task["shape"])
            deadline = time.monotonic() + task["budget"]
            where = "cpu" if dry else torch.cuda.get_device_name()
            yield Bench(dry, folder, model, dict(task["found"]), deadline, _versions(), where)

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    def size(self, full: int, tiny: int) -> int:
        """Return a size, the tiny one in a dry run."""
        return tiny if self.dry else full

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.monotonic()

    def settings(self, tile: int, slots: int | None = SLOTS, **others: Any) -> Settings:
        return Settings(
            model=str(self.model),
            genome=str(shipped_genome()),
            device=self.device,
            threads=torch.get_num_threads(),
            tile=self.size(tile, _TINY_TILE),
            slots=slots,
            batch=4,
            regions=2,
            rounds=3,
            kernels="triton",
            **others,
        )

    def fastest(self, mebibytes: float, otherwise: int) -> int:
        """Return the fastest tile measured by row `tiles` within so much memory."""
        speeds = {
            self.found[f"tiles: {tile:,}, speed"]: tile
            for tile in TILES
            if self.found.get(f"tiles: {tile:,}, memory", math.inf) <= mebibytes
        }
        return speeds[max(speeds)] if speeds else otherwise

    def usable(self) -> bool:
        """Return whether the device still responds."""
        try:
            self.tidy()
        except RuntimeError:
            return False
        return True

    def tidy(self) -> None:
        """Free all cached memory, so that a peak is that of the next run alone."""
        gc.collect()
        if not self.dry:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def record(self, row: str, result: Result, seconds: float) -> dict[str, Any]:
        """Return a result as a JSON record."""
        judged = result.threshold is not None and (result.exact or not self.dry)
        return {
            "row": row,
            "name": result.name,
            # JSON has no NaN.
            "value": result.value if math.isfinite(result.value) else str(result.value),
            "unit": result.unit,
            "threshold": None if result.threshold is None else str(result.threshold),
            "met": result.threshold.met(result.value) if judged and result.threshold else None,
            "device": self.name,
            "versions": self.versions,
            "seconds": round(seconds, 2),
            **result.details,
        }


def _versions() -> dict[str, Any]:
    found = {name: machine.versions()[name] for name in ("genoscan", "python", "torch", "triton")}
    return found | {"cuda": torch.version.cuda, "driver": _driver(), "commit": machine.commit()}


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.split("\n")[0].strip()


def device(bench: Bench) -> Iterator[Result]:
    """Memory of the device, and whether float32 products use tf32."""
    exact = not (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)
    memory, cores = 0, machine.cores()
    if not bench.dry:
        properties = torch.cuda.get_device_properties(0)
        memory, cores = properties.total_memory, properties.multi_processor_count
    details = {"multiprocessors": cores, "machine": machine.machine(bench.device)}
    yield Result("device: memory", memory / usage.GIBIBYTE, "GiB", details=details)
    matmul = torch.backends.cuda.matmul.allow_tf32
    yield Result("device: tf32 in products", float(matmul), "", at_most(0), exact=True, details={"tf32_nowhere": exact})


def kernels(bench: Bench) -> Iterator[Result]:
    """Every rule of every kernel against plain torch in float64."""
    limits = {torch.float32: 1e-5, torch.float64: 1e-12}
    for dtype, limit in list(limits.items())[: bench.size(2, 1)]:
        for name, error in kernel_errors(bench.device, dtype, tiny=bench.dry):
            kind = str(dtype).removeprefix("torch.")
            yield _error(f"kernels: {name}, {kind}", error, limit)


def engine(bench: Bench) -> Iterator[Result]:
    """The engine against whole-window autograd through plain torch in float64."""
    # Both strands run the code of both directions, at twice the time.
    for kind in list(ENGINES)[: bench.size(len(ENGINES), 3)]:
        for dtype, limit in list(ENGINES[kind].items())[: bench.size(2, 1)]:
            length = bench.size(4_096 if kind == "causal" else 1_024, _TINY)
            path = bench.model if kind == "causal" else bench.folder / kind.replace(" ", "-")
            if not path.exists():
                write_small_model(kind, path, bench.size(2, 1))
            # Enough tiles of equal length that most are replayed.
            error = engine_error(path, dtype, bench.device, length, bench.size(100, _TINY_TILE))
            name = str(dtype).removeprefix("torch.")
            yield _error(f"engine: {kind}, {length:,} bp, {name}", error, limit)


def weights(bench: Bench) -> Iterator[Result]:
    """The derivatives that a training uses, of a model with a task head, against float64 autograd."""
    for kind in ("causal", "both directions", "both strands")[: bench.size(3, 2)]:
        path = bench.folder / f"trained-{kind.replace(' ', '-')}"
        write_small_model(kind, path, bench.size(2, 1))
        error = weights_error(path, bench.device, bench.size(512, _TINY), bench.size(200, _TINY_TILE))
        yield _error(f"weights: {kind}", error, 1e-5)


def surrogates(bench: Bench) -> Iterator[Result]:
    """The estimates that PD-SSM is trained with, against plain torch in float64."""
    path = bench.folder / "surrogates"
    write_small_model("PD-SSM, coupled", path, bench.size(2, 1))
    for kind in ("activated", "straight_through"):
        error = surrogate_error(path, Surrogate(kind), bench.device, bench.size(512, _TINY))
        yield _error(f"surrogates: {kind}", error, 1e-12)


def rounding(bench: Bench) -> Iterator[Result]:
    """The scan in float32 against float64 over a long run, decays of every size."""
    length = bench.size(131_072, 2 * _TINY)
    for name, error in scan_rounding(bench.device, length):
        yield _error(f"rounding: {name}, {length:,} bp", error, 1e-5)


def long_engine(bench: Bench) -> Iterator[Result]:
    """The engine in float32 against itself in float64, over a long window."""
    length, tile = bench.size(131_072, _TINY), bench.size(8_192, _TINY_TILE)
    error = long_engine_error(bench.model, bench.device, length, tile)
    yield _error(f"long engine: float32 against float64, {length:,} bp", error, 1e-5)


def track(bench: Bench) -> Iterator[Result]:
    """A track from FASTA to bigWig, read back, against float64 autograd."""
    error = measured_track_error(
        bench.model, bench.folder, bench.device, bench.size(2_048, _TINY), bench.size(500, _TINY_TILE)
    )
    yield _error("track: scores read back", error, 1e-5)


def commands(bench: Bench) -> Iterator[Result]:
    """Variants, mutagenesis, dependency maps, paths and joined windows against the CPU in float64."""
    for kind in list(ENGINES)[: bench.size(3, 1)]:
        path = bench.folder / f"commands-{kind.replace(' ', '-')}"
        write_small_model(kind, path, bench.size(2, 1))
        for name, error in command_errors(path, bench.folder, bench.device, bench.size(60, 5)):
            limit = 1e-7 if "float64" in name else 1e-5  # tracks and maps are float32
            yield _error(f"commands: {kind}, {name}", error, limit)


def changes(bench: Bench) -> Iterator[Result]:
    """Speed of variants and of regions whose windows are joined, with a model that ships."""
    for row in command_speeds(bench.device, bench.model if bench.dry else "bacteria", bench.size(500, 4)):
        details = {key: value for key, value in row.items() if key not in ("name", "value", "unit", "threshold", "met")}
        yield Result(row["name"], row["value"], row["unit"], details={"details": details})


def _error(name: str, error: float, limit: float) -> Result:
    return Result(name, error, "relative", at_most(limit), exact=True)


def timings(
    bench: Bench, tasks: Mapping[str, Task], again: int = 3
) -> tuple[dict[str, Timing], dict[str, dict[str, Any]]]:
    """Run each contender once and then `again` times; return medians of the second half, and all numbers."""
    found, details = {}, {}
    for name, task in tasks.items():
        length = min(task.length, bench.size(task.length, _TINY))
        bench.tidy()
        times: list[float] = []

        def questions(times: list[float] = times) -> Iterator[str]:
            yield "first"
            counted = times[0] > _LONG
            for _ in range(0 if bench.dry else again - counted):
                if 1.2 * times[0] > bench.left():
                    break
                yield "again"

        started = time.time()
        answers = serve(replace(task, length=length), questions())
        ready, first = next(answers), next(answers)
        reserved = 0 if bench.dry else torch.cuda.max_memory_reserved()
        times.append(first["seconds"])
        times += [answer["seconds"] for answer in answers]
        warm = times[len(times) // 2 :]
        found[name] = Timing(
            replace(task, length=length),
            "",
            ready["ready"] - started,
            first["seconds"],
            first["extra_bytes"],
            first["did"],
            [median(warm)],
        )
        details[name] = {
            "length": length,
            "tile": task.settings.tile,
            "slots": task.settings.slots_for(length),
            "times": warm,
            "all_times": times,
            "warm_up": ready["ready"] - started,
            "extra_bytes": first["extra_bytes"],
            "reserved_bytes": reserved,
        }
    return found, details


def of_speed(
    name: str, mebibytes: float, tile: int, *, parts: int = 1, again: int = 3
) -> Callable[[Bench], Iterator[Result]]:
    """Return the measurement of a row of `python -m benchmarks speed`.

    Its tile is the fastest within so much memory, times `parts` if the row uses a fraction of it.
    """

    def measure(bench: Bench) -> Iterator[Result]:
        settings = bench.settings(parts * bench.fastest(mebibytes, tile))
        row = rows(settings)[name]
        found, details = timings(bench, row.tasks, again)
        for each in row.measures:
            value = median(each.values(found))
            yield Result(f"{name}: {each.name}", value, each.unit, each.threshold, details={"contenders": details})
        for contender, numbers in details.items():
            reserved = numbers["reserved_bytes"] / usage.MEBIBYTE
            yield Result(f"{name}: {contender}, reserved by the allocator", reserved, "MiB")

    return measure


def tiles(bench: Bench) -> Iterator[Result]:
    """Speed and memory by tile."""
    for tile in TILES[: bench.size(len(TILES), 1)]:
        task = Task("genoscan", 4 * 131_072, bench.settings(tile))
        found, details = timings(bench, {"genoscan": task}, again=1)
        timing = found["genoscan"]
        speed = timing.task.length / timing.seconds[0]
        yield Result(f"tiles: {tile:,}, speed", speed, "bp/s", details=details["genoscan"])
        yield Result(f"tiles: {tile:,}, memory", timing.extra_bytes / usage.MEBIBYTE, "MiB")
    for limit in (1024, 4096):
        yield Result(f"tiles: fastest in {limit:,} MiB", bench.fastest(limit, 0), "bases")


def slots(bench: Bench) -> Iterator[Result]:
    """FASTA to bigWig with one carry kept per tile: more memory, one pass less."""
    settings = bench.settings(bench.fastest(3 * 1024, 4_096), slots=None)
    task = Task("attribute", 80 * 131_072, settings)
    found, details = timings(bench, {"attribute": task}, again=1)
    speed = found["attribute"].task.length / found["attribute"].seconds[0]
    yield Result("slots: one a tile, speed", speed, "bp/s", details=details["attribute"])
    memory = found["attribute"].extra_bytes / usage.MEBIBYTE
    yield Result("slots: one a tile, memory", memory, "MiB")


SWEPT: dict[str, Sequence[int]] = {
    "CHECKPOINT_INTERVAL": (4, 8, 16),
    "BASES_IN_REGISTERS": (2, 4, 8),
    "CHUNK": (32, 64, 128),
    "STAGES": (1, 3, 5),
    "AHEAD": (8, 16, 32),
}
"""The scan's tunables (genoscan/ops/README.md), in genoscan/ops/triton_gpu/scan.py."""


def scan_sweep(bench: Bench) -> Iterator[Result]:
    """Two forward passes and one vjp of the scan, by each tunable and by the best of each."""
    from genoscan.ops.triton_gpu import scan

    usual = {name: getattr(scan, name) for name in SWEPT}
    inputs, bars = _sweep_problem(bench)
    elements = inputs.u.numel() * inputs.A.shape[1]
    best = dict(usual)
    try:
        expected, base = _sweep_step(bench, inputs, bars)
        yield Result("scan sweep: as it is", 1e12 * base / elements, "ps", details=usual)
        for name, values in SWEPT.items():
            lowest = base
            for value in values[: bench.size(len(values), 2)]:
                if value == usual[name]:
                    continue
                setattr(scan, name, value)
                found, seconds = _sweep_step(bench, inputs, bars)
                setattr(scan, name, usual[name])
                _same(found, expected)
                yield Result(f"scan sweep: {name} = {value}", 1e12 * seconds / elements, "ps")
                if seconds < lowest:
                    lowest, best[name] = seconds, value
        for name, value in best.items():
            setattr(scan, name, value)
        found, seconds = _sweep_step(bench, inputs, bars)
        _same(found, expected)
        yield Result("scan sweep: best of each together", 1e12 * seconds / elements, "ps", details=best)
    finally:
        for name, value in usual.items():
            setattr(scan, name, value)


def _sweep_problem(bench: Bench) -> tuple[ScanInputs, tuple[torch.Tensor, torch.Tensor]]:
    """Return inputs of a scan over one tile, and cotangents of its outputs."""
    length, channels, states = bench.size(8_192, _TINY), bench.size(512, 4), bench.size(16, 2)
    random = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random).to(bench.device)

    u, B, C = normal(1, length, channels), normal(1, length, states), normal(1, length, states)
    A = -torch.arange(1.0, states + 1).expand(channels, states).to(bench.device)
    state, delta = normal(1, channels, states), 0.05 * normal(1, length, channels).abs()
    inputs = ScanInputs(u, delta, A, B, C, normal(channels), state)
    return inputs, (normal(1, length, channels), normal(1, channels, states))


def _sweep_step(
    bench: Bench, inputs: ScanInputs, bars: tuple[torch.Tensor, torch.Tensor]
) -> tuple[list[torch.Tensor], float]:
    from genoscan.ops.triton_gpu.scan import SCAN

    given, needs_grad = inputs[:7], (True, True, False, True, True, False, True)

    def step() -> list[torch.Tensor]:
        SCAN.forward(given, save=False)
        outputs, saved = SCAN.forward(given, save=True)
        cotangents = SCAN.vjp(given, saved, bars, needs_grad)
        return [*outputs, *(bar for bar in cotangents if bar is not None)]

    found = step()
    times = [timed(step, bench.device)[0] for _ in range(bench.size(10, 1))]
    return found, median(times)


def _same(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        error = float((a.double() - b.double()).norm() / b.double().norm())
        if not error <= 1e-5:
            raise ValueError(f"another result: relative error {error:.1e}")


MEASURES: dict[str, Callable[[Bench], Iterator[Result]]] = {
    "device": device,
    "kernels": kernels,
    "engine": engine,
    "weights": weights,
    "surrogates": surrogates,
    "commands": commands,
    "long engine": long_engine,
    "track": track,
    "tiles": tiles,
    "bigwig": of_speed("bigwig", 4096, 8_192, again=1),
    "memory": of_speed("memory", 4096, 8_192, again=1),
    # 5 % of what whole-window autograd takes of 131,072 bases is about 2 GiB.
    "autograd": of_speed("autograd", 1900, 4_096),
    "ceilings": of_speed("kernels", 4096, 8_192),
    "blocks": of_speed("blocks", 4096, 8_192, again=40),
    # The row takes a quarter of the tile.
    "gibibyte": of_speed("gibibyte", 1024, 2_048, parts=4, again=1),
    "slots": slots,
    "changes": changes,
    "paper": of_speed("paper", 4096, 8_192),
    "rounding": rounding,
    "scan sweep": scan_sweep,
}
