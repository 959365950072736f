"""The two kinds of recurrent layers, and what is reported of all their runs."""

from collections.abc import Iterator

import pandas as pd

from benchmarks.experiment import Finding
from benchmarks.figure import OURS, THEIRS
from benchmarks.recurrent import Kind, equal_weights

KINDS: tuple[Kind, ...] = ("mamba2", "activated")

LABELS: dict[str, tuple[str, str]] = {"mamba2": ("Mamba-2", THEIRS[0]), "activated": ("PD-SSM", OURS[0])}
"""Name and colour of each kind."""


def about_runs(rows: pd.DataFrame) -> Iterator[Finding]:
    """Yield failures, times and numbers of weights of runs, one row each."""
    for kind, (label, _) in LABELS.items():
        runs = rows[rows.kind == kind]
        yield Finding(f"{label}, runs that failed", float(runs.failure.notna().sum()))
        yield Finding(f"{label}, a run", runs.seconds.mean() / 60, "processor minutes")
    yield equal_weights(rows)
