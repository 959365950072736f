"""The comparisons and their thresholds, which never change what is computed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.speed.settings import Settings, Task
from benchmarks.speed.workers import Timing
from benchmarks.threshold import Threshold, at_least, at_most
from genoscan.usage import MEBIBYTE

Timings = Mapping[str, Timing]
Values = Callable[[Timings], list[float]]

_CUDA = ("cuda",)


@dataclass(frozen=True)
class Measure:
    """A number computed from the timings: one per round, or a single one."""

    name: str
    unit: str
    values: Values
    threshold: Threshold | None = None


@dataclass(frozen=True)
class Row:
    """Contenders that run in turn, and measures of their timings.

    devices  kinds of devices on which the row is measured by default
    cores    cores needed;  cuda: whether a CUDA device is needed
    """

    title: str
    tasks: Mapping[str, Task]
    measures: tuple[Measure, ...]
    devices: tuple[str, ...] = ("cpu",)
    cores: int = 1
    cuda: bool = False


def ratio(above: str, below: str, *, scale: float = 1.0) -> Values:
    """Return the measure of one contender's time over another's, per round."""
    return lambda t: [scale * a / b for a, b in zip(t[above].seconds, t[below].seconds, strict=True)]


def memory_share(above: str, below: str) -> Values:
    """Return the measure of one contender's extra memory in percent of another's."""
    return lambda t: [100 * t[above].extra_bytes / max(t[below].extra_bytes, 1)]


def speed(name: str) -> Values:
    """Return the measure of bases per second."""
    return lambda t: [t[name].task.length / seconds for seconds in t[name].seconds]


def memory(name: str) -> Values:
    """Return the measure of extra memory in MiB."""
    return lambda t: [t[name].extra_bytes / MEBIBYTE]


def rows(settings: Settings) -> dict[str, Row]:
    """Return all rows by name, those for the CPU first."""
    return _on_cpu(settings) | _on_cuda(settings)


def _tasks(settings: Settings, length: int, *contenders: str) -> dict[str, Task]:
    length = settings.length or length
    return {name: Task(name, length, settings) for name in contenders}


def _on_cpu(settings: Settings) -> dict[str, Row]:
    single = replace(settings, threads=1)
    regions = settings.regions * settings.region
    return {
        "mambapy": Row(
            "adjoint against mambapy's autograd",
            _tasks(settings, 4_096, "genoscan", "mambapy"),
            (
                Measure("times faster", "x", ratio("mambapy", "genoscan"), at_least(20)),
                Measure("memory, of mambapy's", "%", memory_share("genoscan", "mambapy"), at_most(5)),
            ),
        ),
        "transformers": Row(
            "adjoint against transformers' autograd",
            _tasks(settings, 1_024, "genoscan", "transformers", "transformers-mambapy"),
            (
                Measure("times faster", "x", ratio("transformers", "genoscan"), at_least(120)),
                Measure("times faster than with mambapy's scan", "x", ratio("transformers-mambapy", "genoscan")),
            ),
        ),
        "checkpoint": Row(
            "adjoint against per-block checkpointing of our own layers",
            _tasks(settings, 65_536, "genoscan", "checkpoint", "autograd"),
            (
                Measure("time, of checkpointing's", "x", ratio("genoscan", "checkpoint"), at_most(1)),
                Measure("memory, of checkpointing's", "%", memory_share("genoscan", "checkpoint"), at_most(10)),
                Measure("time, of plain autograd's", "x", ratio("genoscan", "autograd")),
            ),
        ),
        "forward": Row(
            "adjoint against a forward pass of the same model",
            _tasks(settings, 16_384, "genoscan", "forward"),
            (Measure("time, of forward's", "x", ratio("genoscan", "forward"), at_most(3.6)),),
        ),
        "scan": Row(
            "scan against torch.exp of as many elements, and its vjp against it; one thread",
            _tasks(single, 16_384, "exp", "scan-forward", "scan-vjp"),
            (
                Measure("forward, of exp's time", "x", ratio("scan-forward", "exp"), at_most(0.6)),
                Measure("vjp, of forward's time", "x", ratio("scan-vjp", "scan-forward"), at_most(2.5)),
            ),
        ),
        "threads": Row(
            "whole adjoint, two threads against one",
            {
                f"genoscan, {n}": Task("genoscan", settings.length or 16_384, with_threads)
                for n, with_threads in ((1, single), (2, replace(settings, threads=2)))
            },
            (Measure("times faster", "x", ratio("genoscan, 1", "genoscan, 2"), at_least(1.7)),),
            cores=2,
        ),
        "tangent": Row(
            "tangent against forward; eight directions in one sweep against eight sweeps",
            _tasks(settings, 8_192, "forward", "tangent-1", "tangent-8"),
            (
                Measure("one, of forward's time", "x", ratio("tangent-1", "forward"), at_most(2.2)),
                Measure(
                    "eight at once, of eight sweeps' time",
                    "x",
                    ratio("tangent-8", "tangent-1", scale=1 / 8),
                    at_most(0.55),
                ),
            ),
        ),
        "blocks": Row(
            "one block of 128 channels, adjoint: PD-SSM against Mamba",
            _tasks(settings, 16_384, "pd_ssm-block", "mamba-block"),
            (Measure("time, of Mamba's", "x", ratio("pd_ssm-block", "mamba-block"), at_most(1.8)),),
            devices=("cpu", "cuda"),
        ),
        "regions": Row(
            f"{settings.regions:,} regions of {settings.region:,} bp, FASTA to bigWig, "
            f"{settings.batch} side by side against one at a time",
            {name: Task(name, regions, settings) for name in ("regions-batched", "regions-single")},
            (Measure("times faster", "x", ratio("regions-single", "regions-batched"), at_least(1.3)),),
        ),
    }


def _on_cuda(settings: Settings) -> dict[str, Row]:
    base = settings.length or 131_072
    windows = {f"{n:,} bp": Task("genoscan", n, settings) for n in (base, 8 * base, 80 * base)}
    small = replace(settings, tile=max(1, settings.tile // 4))
    return {
        "bigwig": Row(
            "whole adjoint, FASTA to finished bigWig",
            _tasks(settings, 80 * 131_072, "attribute"),
            (
                Measure("bases a second", "bp/s", speed("attribute"), at_least(500_000)),
                Measure("its first run, apart", "s", lambda t: [t["attribute"].first_seconds]),
                Measure("start and warm-up, apart", "s", lambda t: [t["attribute"].start_seconds]),
            ),
            devices=_CUDA,
        ),
        "memory": Row(
            "memory above the weights as the window grows",
            windows,
            (
                *(Measure(f"at {name}", "MiB", memory(name), at_most(4 * 1024)) for name in windows),
                Measure("growth", "%", _growth, at_most(5)),
                *(Measure(f"speed at {name}", "bp/s", speed(name)) for name in windows),
            ),
            devices=_CUDA,
        ),
        "gibibyte": Row(
            f"the same in little memory: tiles of {small.tile:,}",
            {"genoscan": Task("genoscan", 8 * base, small)},
            (
                Measure("memory", "MiB", memory("genoscan"), at_most(1024)),
                Measure("bases a second", "bp/s", speed("genoscan")),
            ),
            devices=_CUDA,
        ),
        "autograd": Row(
            "adjoint against whole-window autograd with the same kernels",
            _tasks(settings, 131_072, "genoscan", "autograd", "checkpoint"),
            (
                Measure("time, of autograd's", "x", ratio("genoscan", "autograd"), at_most(1.6)),
                Measure("memory, of autograd's", "%", memory_share("genoscan", "autograd"), at_most(5)),
                Measure("time, of checkpointing's", "x", ratio("genoscan", "checkpoint")),
            ),
            devices=_CUDA,
        ),
        "paper": Row(
            "one layer, 256 channels: all derivatives against PGF's tile scan, one direction",
            _tasks(settings, 100_000, "paper-adjoint", "paper-tangent"),
            (Measure("times faster", "x", ratio("paper-tangent", "paper-adjoint"), at_least(200)),),
            devices=_CUDA,
        ),
        "kernels": Row(
            "scan kernels against what bandwidth and exponentials allow",
            _tasks(settings, 131_072, "copy", "exp-rate", "scan-forward", "scan-vjp"),
            (
                Measure("forward reaches", "%", _share("scan-forward"), at_least(50)),
                Measure("vjp reaches", "%", _share("scan-vjp"), at_least(50)),
                Measure("bandwidth", "GB/s", _rate("copy", "bytes")),
                Measure("exponentials", "G/s", _rate("exp-rate", "elements")),
            ),
            cuda=True,
            devices=_CUDA,
        ),
    }


def _growth(timings: Timings) -> list[float]:
    """Return the growth of memory from the shortest window to the largest, in percent."""
    first, *others = (timing.extra_bytes for timing in timings.values())
    return [100 * (max(others) / max(first, 1) - 1)]


def _rate(name: str, what: str) -> Values:
    """Return the measure of billions of bytes or elements per second."""
    return lambda t: [t[name].did[what] / seconds / 1e9 for seconds in t[name].seconds]


def _share(name: str) -> Values:
    """Return the measure of the machine's lower bound in percent of the time taken."""

    def values(timings: Timings) -> list[float]:
        scan = timings[name]
        bandwidth = median(_rate("copy", "bytes")(timings)) * 1e9
        exponentials = median(_rate("exp-rate", "elements")(timings)) * 1e9
        least = max(scan.did["bytes"] / bandwidth, scan.did["elements"] / exponentials)
        return [100 * least / seconds for seconds in scan.seconds]

    return values
