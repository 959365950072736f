"""Run an experiment cell by cell, saving each at once; then write its findings and figure.

An experiment NAME writes NAME.csv, one row per measurement; NAME.json with machine, set-up and
findings; NAME.html and, if kaleido and Chrome are installed, NAME.png.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from benchmarks import machine
from benchmarks.experiment import Cell, Environment, Experiment, Finding, Row
from genoscan.errors import InputError
from genoscan.tracks.atomic import atomic_write, os_errors

FORMAT = "genoscan-bench/1"
_PNG_SCALE = 1.5


def run(
    name: str,
    experiment: Experiment,
    folder: Path,
    environment: Environment,
    *,
    progress: Callable[[int], object] = lambda _n: None,
    report: Callable[[str], object] = lambda _line: None,
) -> list[Finding]:
    """Measure an experiment into `folder`; return its findings.

    Parameters
    ----------
    name
        Stem of the files; cells that their table contains are not measured again.
    progress
        Called with 1 after each cell.
    report
        Called with a line for each cell that is measured.

    Raises
    ------
    InputError
        If the folder contains this experiment from another machine, version or setting.
    """
    cells = experiment.cells(environment.quick)
    record, rows = _resumed(folder / name, _record(name, experiment, environment, cells), len(cells))
    write_text(folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
    done = {row["cell"] for row in rows}
    for cell in cells:
        if cell.name not in done:
            report(f"{name}: {cell.name}")
            rows += [{"cell": cell.name} | r for r in experiment.measure(cell, rows, environment)]
            write_table(pd.DataFrame(rows), folder / f"{name}.csv")
        progress(1)
    table = pd.read_csv(folder / f"{name}.csv")
    findings = list(experiment.findings(table))
    record["findings"] = [_plain(finding, judged=not environment.quick) for finding in findings]
    write_text(folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
    figure = experiment.draw(table).update_layout(title_text=f"{name}: {experiment.title}")
    write_figure(figure, folder / name, report)
    return findings


def _record(name: str, experiment: Experiment, environment: Environment, cells: Sequence[Cell]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "experiment": name,
        "title": experiment.title,
        "setup": experiment.setup,
        "data": dict(experiment.data),
        **machine.circumstances(environment.device),
        "settings": asdict(environment),
        "cells": _sha256(cells),
    }


def _sha256(cells: Sequence[Cell]) -> str:
    """Return the SHA-256 of the names and settings of cells."""
    settings = [(cell.name, dict(cell.settings)) for cell in cells]
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def _resumed(path: Path, record: dict[str, Any], n_cells: int) -> tuple[dict[str, Any], list[Row]]:
    """Return record and rows of an earlier run with the same settings, or a fresh record.

    A complete run keeps its set-up, machine and versions; only figure and findings are made anew.
    """
    known, table = path.with_suffix(".json"), path.with_suffix(".csv")
    if not known.exists() or not table.exists():
        return record, []
    try:
        found = json.loads(known.read_text(encoding="utf-8"))
        rows = pd.read_csv(table)
        measured = {key: found[key] for key in ("machine", "versions", "commit")}
        settings = {key: found[key] for key in ("settings", "data", "cells")}
        described = {key: found[key] for key in ("title", "setup")}
    except KeyError as error:
        raise InputError(f"{known}: without {error}, from an earlier version: name another folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{known}: is there already and cannot be read: {error}") from None
    must = settings if rows["cell"].nunique() >= n_cells else settings | measured
    if differing := [key for key in must if must[key] != record[key]]:
        raise InputError(
            f"{known}: was measured with another {' and '.join(differing)}: name another folder, or remove it"
        )
    named = (dict(zip(rows.columns, row, strict=True)) for row in rows.itertuples(index=False))
    return record | measured | described, list(named)


def _plain(finding: Finding, *, judged: bool) -> dict[str, Any]:
    value = float(finding.value)
    return {
        "name": finding.name,
        # JSON has no NaN.
        "value": value if math.isfinite(value) else str(value),
        "unit": finding.unit,
        "bar": None if finding.threshold is None else str(finding.threshold),
        "met": finding.met if judged else None,
    }


def lines(findings: list[Finding], *, judged: bool) -> Iterator[str]:
    """Format findings, one per line."""
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        bar = "" if finding.threshold is None else f"threshold {finding.threshold}"
        met = {True: "met", False: "MISSED", None: ""}[finding.met if judged else None]
        value = f"{finding.value:.3g} {finding.unit}".strip()
        yield f"  {finding.name:<{width}}  {value:>14}  {bar} {met}".rstrip()


def write_text(path: Path, text: str) -> None:
    """Write a text file, replacing the file at once."""
    with atomic_write(path) as part, os_errors(path):
        part.write_text(text, encoding="utf-8")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, replacing the file at once."""
    write_text(path, table.to_csv(index=False))


def write_figure(figure: go.Figure, stem: Path, report: Callable[[str], object]) -> None:
    """Write STEM.html and, if kaleido and Chrome are installed, STEM.png."""
    figure.write_html(f"{stem}.html", include_plotlyjs=True, config={"displayModeBar": False})
    try:
        figure.write_image(f"{stem}.png", scale=_PNG_SCALE)
    except (ValueError, RuntimeError) as error:
        lacking = str(error).strip().splitlines()[0]
        report(f'{stem.name}.png not drawn: {lacking} (pip install ".[bench]", and a Chrome)')
