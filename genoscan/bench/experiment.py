"""What an experiment is: cells that are measured one by one, what they say, and a picture."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from genoscan.bench.alone import alone
from genoscan.bench.bar import Bar

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where and how large.

    device   cpu, cuda or cuda:1
    threads  CPU threads
    quick    small sizes, to see that all runs; nothing is judged
    """

    device: str
    threads: int
    quick: bool = False

    def alone(self, function: Callable[..., Row], settings: Mapping[str, Any]) -> Row:
        """Call a cost function in a process of its own; where nothing is judged, in this one."""
        everything = {**settings, "device": self.device, "threads": self.threads}
        return function(**everything) if self.quick else alone(function, everything)


@dataclass(frozen=True)
class Cell:
    """The smallest piece of an experiment that is measured, and kept, at once.

    name      tells it from the others of its experiment
    settings  all that it depends on
    """

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """A number that the rows give, and the bar it has to reach, if there is one."""

    name: str
    value: float
    unit: str = ""
    bar: Bar | None = None

    @property
    def met(self) -> bool | None:
        """Say whether the bar is reached; None: there is no bar."""
        return None if self.bar is None else self.bar.met(self.value)


@dataclass(frozen=True)
class Experiment:
    """What is measured, and what is made of it.

    title     what is measured
    setup     as published, and what is corrected and why
    cells     all of them, in order
    measure   rows of one cell; it is told the rows so far, from which it may predict a cost
    findings  what the rows say
    draw      the picture
    """

    title: str
    setup: str
    cells: Callable[[bool], Sequence[Cell]]
    measure: Callable[[Cell, Sequence[Row], Place], list[Row]]
    findings: Callable[[pd.DataFrame], Iterable[Finding]]
    draw: Callable[[pd.DataFrame], go.Figure]
