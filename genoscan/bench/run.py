"""An experiment's cells one by one, each kept at once; then its findings and a figure.

An experiment NAME leaves in its folder NAME.csv, a row a measurement; NAME.json, what it ran on,
its set-up and its findings; NAME.html and, where kaleido and a Chrome are there, NAME.png.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from genoscan.bench import machine
from genoscan.bench.experiment import Experiment, Finding, Place, Row
from genoscan.errors import InputError
from genoscan.tracks.atomic import explained, replacing

FORMAT = "genoscan-bench/1"
_PNG_SCALE = 1.5


def run(
    name: str,
    experiment: Experiment,
    folder: Path,
    place: Place,
    *,
    progress: Callable[[int], object] = lambda _n: None,
    report: Callable[[str], object] = lambda _line: None,
) -> list[Finding]:
    """Measure an experiment into `folder`; return its findings.

    Cells that its table holds are not measured again; `progress` is told of each that is done.

    Raises
    ------
    InputError
        If the folder holds this experiment measured elsewhere or otherwise.
    """
    cells = experiment.cells(place.quick)
    record, rows = _resumed(folder / name, _record(name, experiment, place), len(cells))
    _write(folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
    done = {row["cell"] for row in rows}
    for cell in cells:
        if cell.name not in done:
            report(f"{name}: {cell.name}")
            rows += [{"cell": cell.name} | row for row in experiment.measure(cell, rows, place)]
            _write(folder / f"{name}.csv", pd.DataFrame(rows).to_csv(index=False))
        progress(1)
    table = pd.read_csv(folder / f"{name}.csv")
    findings = list(experiment.findings(table))
    record["findings"] = [_plain(finding, judged=not place.quick) for finding in findings]
    _write(folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
    figure = experiment.draw(table).update_layout(title_text=f"{name}: {experiment.title}")
    figure.write_html(
        folder / f"{name}.html", include_plotlyjs=True, config={"displayModeBar": False}
    )
    _picture(figure, folder / f"{name}.png", report)
    return findings


def _record(name: str, experiment: Experiment, place: Place) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "experiment": name,
        "title": experiment.title,
        "setup": experiment.setup,
        "machine": machine.machine(place.device),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "settings": asdict(place),
    }


def _resumed(path: Path, record: dict[str, Any], n_cells: int) -> tuple[dict[str, Any], list[Row]]:
    """Return the record and the rows of an earlier run of the same kind.

    Where all is measured, what it was measured on stays, and only figure and findings are new.
    """
    known, table = path.with_suffix(".json"), path.with_suffix(".csv")
    if not known.exists() or not table.exists():
        return record, []
    try:
        found = json.loads(known.read_text(encoding="utf-8"))
        rows = pd.read_csv(table)
        measured = {key: found[key] for key in ("machine", "versions", "commit")}
        settings = {"settings": found["settings"]}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{known}: is there already and cannot be read: {error}") from None
    must = settings if rows["cell"].nunique() >= n_cells else settings | measured
    if differing := [key for key in must if must[key] != record[key]]:
        raise InputError(
            f"{known}: was measured with another {' and '.join(differing)}: name another folder, "
            "or remove it"
        )
    named = (dict(zip(rows.columns, row, strict=True)) for row in rows.itertuples(index=False))
    return record | measured, list(named)


def _plain(finding: Finding, *, judged: bool) -> dict[str, Any]:
    value = float(finding.value)
    return {
        "name": finding.name,
        # JSON knows no NaN.
        "value": value if math.isfinite(value) else str(value),
        "unit": finding.unit,
        "bar": None if finding.bar is None else str(finding.bar),
        "met": finding.met if judged else None,
    }


def lines(findings: list[Finding], *, judged: bool) -> Iterator[str]:
    """Print findings, one a line."""
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        bar = "" if finding.bar is None else f"bar {finding.bar}"
        met = {True: "met", False: "MISSED", None: ""}[finding.met if judged else None]
        told = f"{finding.value:.3g} {finding.unit}".strip()
        yield f"  {finding.name:<{width}}  {told:>14}  {bar} {met}".rstrip()


def _write(path: Path, text: str) -> None:
    with replacing(path) as part, explained(path):
        part.write_text(text, encoding="utf-8")


def _picture(figure: go.Figure, path: Path, report: Callable[[str], object]) -> None:
    """Draw the PNG, if there is something to draw it with."""
    try:
        figure.write_image(path, scale=_PNG_SCALE)
    except (ValueError, RuntimeError) as error:
        lacking = str(error).strip().splitlines()[0]
        report(f'{path.name} not drawn: {lacking} (pip install "genoscan[bench]", and a Chrome)')
