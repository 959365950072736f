"""START HERE: check parity, then measure row by row, saving each at once.

The document is the JSON file: machine, versions, commit, settings, parity, and for each row every
repetition, the measures, and whether their thresholds are met.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import machine
from benchmarks.speed import parity
from benchmarks.speed.contenders import CONTENDERS
from benchmarks.speed.rows import Measure, Row, rows
from benchmarks.speed.sequence import real_bases
from benchmarks.speed.settings import Settings
from benchmarks.speed.workers import Timing, WorkerError, measure
from genoscan.errors import GenoscanError, InputError
from genoscan.genome.genome import open_genome
from genoscan.model import Model, load_model
from genoscan.tracks.atomic import atomic_write, os_errors

FORMAT = "genoscan-bench-speed/1"
_SAME = ("machine", "commit", "settings")

Document = dict[str, Any]


def run(
    settings: Settings,
    output: Path,
    *,
    only: Sequence[str] = (),
    show: Callable[[str, Mapping[str, Any]], object] = lambda _name, _row: None,
    report: Callable[[str], object] = lambda _line: None,
) -> Document:
    """Measure the device's rows, or those named, into `output`; return the document.

    Rows already measured in the file are kept.  A row that cannot run here (no peer, no second
    core) is recorded as skipped, one whose contender fails as failed; both are tried again by the
    next run into the same file.

    Parameters
    ----------
    only
        Names of rows; none: all of the device.
    show
        Called with name and content of every row in its turn.
    report
        Called with a line before each step.

    Raises
    ------
    ParityError
        Before anything is timed, if a contender's result differs from the reference.
    InputError
        If a row is unknown, or the file has rows from another machine, version or setting.
    """
    every = rows(settings)
    if unknown := [name for name in only if name not in every]:
        raise InputError(f"--only {unknown[0]}: expected one of {', '.join(every)}")
    kind = "cuda" if settings.cuda else "cpu"
    asked = {name: row for name, row in every.items() if name in (only or _on(kind, every))}
    model = load_model(settings.model, device=settings.device)
    document = _resumed(output, _fresh(settings, model))
    done = {name for name in asked if document["rows"].get(name, {}).get("status") == "measured"}
    lacking = {name: _lacks(row) for name, row in asked.items()}
    wanted = {name: row for name, row in asked.items() if not (lacking[name] or name in done)}
    if wanted:
        document["parity"] |= _check_parity(settings, model, wanted, report)
        _write(output, document)  # an error here comes before hours of work
    del model  # the workers need its memory on the device
    for name, row in asked.items():
        if name in wanted:
            report(f"{name}: {row.title}")
            document["rows"][name] = _measured(row, settings, report)
        elif name not in done:
            document["rows"][name] = {"title": row.title, "status": "skipped", "why": lacking[name]}
        _write(output, document)
        show(name, document["rows"][name])
    return document


def _on(kind: str, every: Mapping[str, Row]) -> list[str]:
    return [name for name, row in every.items() if kind in row.devices]


def _fresh(settings: Settings, model: Model) -> Document:
    """Return a document without rows, which names model and genome but no paths."""
    genome = open_genome(settings.genome)
    return {
        "format": FORMAT,
        "measured": _now(),
        "machine": machine.machine(settings.device),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "settings": asdict(settings)
        | {
            "model": model.name,
            "model_sha256": model.sha256,
            "weights": model.weights_sha256,
            "shape": f"{model.config.d_model}x{len(model.config.layers)}",
            "genome": genome.path.name,
            "genome_length": sum(genome.sizes.values()),
        },
        "parity_limit": parity.LIMIT,
        "parity": {},
        "rows": {},
    }


def _resumed(output: Path, fresh: Document) -> Document:
    """Return the document of an unfinished run with the same settings, or the fresh one."""
    if not output.exists():
        return fresh
    try:
        found = json.loads(output.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{output}: is there already and cannot be read: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{output}: is there already, and not from this command")
    differing = [key for key in _SAME if found.get(key) != fresh[key]]
    # A peer installed since does not count as another version.
    if any(old not in (None, fresh["versions"].get(k)) for k, old in found.get("versions", {}).items()):
        differing.append("versions")
    if differing:
        raise InputError(
            f"{output}: its rows were measured with another {' and '.join(differing)}: name "
            "another output, or remove it"
        )
    return found | {"versions": fresh["versions"]}


def _lacks(row: Row) -> str | None:
    """Return why the row cannot be measured here; None if it can."""
    missing = {name for task in row.tasks.values() for name in CONTENDERS[task.contender].missing}
    if missing:
        return f'{", ".join(sorted(missing))} not installed: pip install ".[bench]"'
    if row.cores > machine.cores():
        return f"needs {row.cores} cores, this process may use {machine.cores()}"
    if row.cuda and any(not task.settings.cuda for task in row.tasks.values()):
        return "needs a CUDA device: give --device cuda"
    return None


def _check_parity(
    settings: Settings, model: Model, wanted: Mapping[str, Row], report: Callable[[str], object]
) -> dict[str, float]:
    """Compare every contender's result on a short window with the reference's."""
    length = min(parity.LENGTH, settings.length or parity.LENGTH)
    codes = torch.from_numpy(real_bases(settings.genome, length))[None]
    # Tiles do not divide the window, so that carries and a short tile are checked, too.
    short = replace(settings, tile=min(settings.tile, parity.TILE), slots=None)
    truth = parity.truth(settings, codes)
    names = {task.contender for row in wanted.values() for task in row.tasks.values()}
    errors = {}
    for name, contender in CONTENDERS.items():
        if contender.error is None or name not in names | {"genoscan"}:
            continue
        try:
            found = contender.build(model, short)(codes)()
        except GenoscanError:
            raise
        except Exception as reason:
            raise parity.ParityError(f"{name}: fails on {length} bases: {type(reason).__name__}: {reason}") from reason
        error = contender.error(found, truth)
        report(f"parity: {name} {error:.1e}")
        if not error <= parity.LIMIT:
            raise parity.ParityError(
                f"{name}: relative error {error:.1e} against float64 autograd on "
                f"{length} bases, expected at most {parity.LIMIT:.0e}; nothing was timed"
            )
        errors[name] = error
    return errors


def _measured(row: Row, settings: Settings, report: Callable[[str], object]) -> Document:
    """Measure one row; if a contender fails, the row is recorded as failed."""
    try:
        timings = measure(row.tasks, settings.rounds, report=report)
    except WorkerError as error:
        return {"title": row.title, "status": "failed", "why": str(error)}
    return {
        "title": row.title,
        "status": "measured",
        "measured": _now(),
        "contenders": {name: _timing(timing) for name, timing in timings.items()},
        "measures": [_judged(each, each.values(timings), judged=settings.length is None) for each in row.measures],
    }


def _timing(timing: Timing) -> Document:
    task = timing.task
    middle = median(timing.seconds)
    return {
        "contender": task.contender,
        "about": CONTENDERS[task.contender].about,
        "length": task.length,
        "threads": task.settings.threads,
        "omp_wait_policy": timing.waits,
        "tile": task.settings.tile,
        "slots": task.settings.slots_for(task.length),
        "seconds": timing.seconds,
        "median_seconds": middle,
        "lowest_seconds": min(timing.seconds),
        "highest_seconds": max(timing.seconds),
        "microseconds_per_base": 1e6 * middle / task.length,
        "first_seconds": timing.first_seconds,
        "start_seconds": timing.start_seconds,
        "extra_bytes": timing.extra_bytes,
        "did": timing.did,
    }


def _judged(each: Measure, values: Sequence[float], *, judged: bool) -> Document:
    """Return median, range and verdict; thresholds are judged only at the row's own length."""
    middle = median(values)
    threshold = each.threshold
    return {
        "name": each.name,
        "unit": each.unit,
        "values": list(values),
        "median": middle,
        "lowest": min(values),
        "highest": max(values),
        "bar": None if threshold is None else str(threshold),
        "met": None if threshold is None or not judged else threshold.met(middle),
    }


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M %Z")


def _write(output: Path, document: Document) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False)
    with atomic_write(output) as part, os_errors(output):
        part.write_text(text + "\n", encoding="utf-8")
