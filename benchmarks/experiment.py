"""Definition of an experiment: cells measured one by one, findings and a figure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from benchmarks.alone import alone
from benchmarks.threshold import Threshold
from genoscan.tracks.provenance import file_sha256

Row = dict[str, Any]


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of files by name, as the `data` of an experiment."""
    return {path.name: file_sha256(path) for path in paths}


@dataclass(frozen=True)
class Environment:
    """Device, threads and size of a run.

    device   cpu, cuda or cuda:1
    threads  CPU threads
    quick    small sizes, to check that everything runs; thresholds do not apply
    """

    device: str
    threads: int
    quick: bool = False

    def alone(self, function: Callable[..., Row], settings: Mapping[str, Any]) -> Row:
        """Call a cost function in a separate process, or in this one for a quick run."""
        everything = {**settings, "device": self.device, "threads": self.threads}
        return function(**everything) if self.quick else alone(function, everything)


@dataclass(frozen=True)
class Cell:
    """The smallest part of an experiment that is measured and saved at once.

    name      unique in its experiment
    settings  everything that its result depends on
    """

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """A number computed from the rows, and its threshold, if any."""

    name: str
    value: float
    unit: str = ""
    threshold: Threshold | None = None

    @property
    def met(self) -> bool | None:
        """Whether the threshold is met; None without one."""
        return None if self.threshold is None else self.threshold.met(self.value)


@dataclass(frozen=True)
class Experiment:
    """What is measured, and how it is evaluated.

    title     what is measured
    setup     the published set-up, what is corrected and why
    cells     quick or not -> all cells, in order
    measure   cell, rows so far (from which costs may be predicted), environment -> rows
    findings  table of all rows -> findings
    draw      the same table -> figure
    data      files that the cells read: names, versions, checksums; the same if a run is resumed
    """

    title: str
    setup: str
    cells: Callable[[bool], Sequence[Cell]]
    measure: Callable[[Cell, Sequence[Row], Environment], list[Row]]
    findings: Callable[[pd.DataFrame], Iterable[Finding]]
    draw: Callable[[pd.DataFrame], go.Figure]
    data: Mapping[str, Any] = field(default_factory=dict)
