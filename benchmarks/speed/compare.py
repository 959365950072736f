"""Two documents of `python -m benchmarks speed`: what became faster or slower between them.

A ratio is new over old, of the medians of the rounds. Its range is from the fastest new over the slowest old round to
the slowest new over the fastest old one, and a ratio is marked only if this range does not contain 1, in other words
if the ranges of the rounds do not overlap. A number that has one round in both files is not marked.

Seconds, and measures such as bases a second, of different machines are shown but not marked. Measures that are ratios
of programs that ran in turn are marked then, too: they depend on the machine much less. Rows of other work (another
length, model or number of threads) are shown but not marked. Settings that do not change the work, such as the tile,
are only stated.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, PositiveFloat, ValidationError

from benchmarks.speed.report import aligned, digits
from genoscan.errors import InputError
from genoscan.json_input import first_problem, parse_json

_MACHINE = "cpu", "cores", "device"
_WORK_OF_A_RUN = "shape", "device"
_WORK_OF_A_CONTENDER = "length", "threads"
_RELATIVE = "x", "%"  # units of measures that relate programs, or a program and its machine
_WEIGHTS = "weights", "model_sha256"  # hashes: that they differ is said, not how
_DIGITS_OF_A_HASH = 7
_VERDICTS: dict[tuple[bool | None, bool | None], str] = {(True, False): "now MISSED", (False, True): "now met"}
_ONLY_OLD, _ONLY_NEW = "only in old", "only in new"
_HEAD = ["", "old", "new", "new/old", "lowest to highest", "memory new/old", ""]


class TimingRecord(BaseModel):
    """Times of one contender, and the work that they depend on."""

    length: int
    threads: int
    seconds: list[PositiveFloat] = Field(min_length=1)
    extra_bytes: int


class MeasureRecord(BaseModel):
    """A measure of a row, one value per round or a single one."""

    name: str
    unit: str
    values: list[FiniteFloat] = Field(min_length=1)
    bar: str | None = None
    met: bool | None = None


class RowRecord(BaseModel):
    """A row; contenders and measures are empty if it was not measured."""

    title: str
    status: str
    contenders: dict[str, TimingRecord] = {}
    measures: list[MeasureRecord] = []


class DocumentRecord(BaseModel):
    """The parts of a document that are compared; keys that it lacks are reported by `compare`."""

    format: Literal["genoscan-bench-speed/1"]
    measured: str
    machine: dict[str, str | int]
    versions: dict[str, str | None] = {}
    commit: str | None = None
    settings: dict[str, str | int | None]
    rows: dict[str, Any]


@dataclass(frozen=True)
class Results:
    """Contents of a file.

    path      the file
    document  all of it, rows not yet checked
    rows      measured rows by name
    unread    rows that cannot be read, with the reason
    missing   names of rows that were not measured
    """

    path: Path
    document: DocumentRecord
    rows: Mapping[str, RowRecord]
    unread: Mapping[str, str]
    missing: Sequence[str]


@dataclass(frozen=True)
class Ratio:
    """New over old, with its range over the rounds; single: both are one value, without a spread."""

    median: float
    lowest: float
    highest: float
    single: bool

    def mark(self, more: str, less: str) -> str:
        """Return a word if 1 is outside the range; none if rounds overlap, or a single value has no spread."""
        if self.single or self.lowest <= 1 <= self.highest:
            return ""
        return more if self.lowest > 1 else less


def read_results(path: Path) -> Results:
    """Read a document of this or an earlier version; rows that cannot be read are named in `unread`.

    Raises
    ------
    InputError
        If the file cannot be read, or is not a document of this benchmark.
    """
    try:
        document = DocumentRecord.model_validate(parse_json(path.read_bytes()))
    except FileNotFoundError:
        raise InputError(f"{path}: file not found") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}; expected a file of `benchmarks speed`") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    rows, unread = {}, {}
    for name, content in document.rows.items():
        try:
            rows[name] = RowRecord.model_validate(content)
        except ValidationError as error:
            unread[name] = first_problem(error)
    measured = {name: row for name, row in rows.items() if row.status == "measured"}
    return Results(path, document, measured, unread, [name for name in rows if name not in measured])


def compare(old: Results, new: Results) -> str:
    """Return the comparison of two runs as text: what differs between the runs, each row, and a summary."""
    machine = [key for key in _MACHINE if old.document.machine.get(key) != new.document.machine.get(key)]
    settings = _differing(old.document.settings, new.document.settings)
    lines = [*_runs(old, new), *_conditions(old, new, machine, settings), *_unpaired(old, new)]
    reason = next((f"other {key}" for key in _WORK_OF_A_RUN if key in settings), "")
    marks: list[str] = []
    for name, row in new.rows.items():
        if name in old.rows:
            cells = list(_row(old.rows[name], row, "other machine" if machine else "", reason))
            marks += [line[-1] for line in cells]
            lines += ["", f"{name}: {row.title}", *_aligned([_HEAD, *cells])]
    return "\n".join([*lines, "", _summary(marks)])


def _runs(old: Results, new: Results) -> Iterator[str]:
    for name, one in (("old", old), ("new", new)):
        document = one.document
        commit = document.commit or "not recorded"
        changed = "+changes" if commit.endswith("+changes") else ""
        yield (
            f"{name}: {one.path}, measured {document.measured}, genoscan {document.versions.get('genoscan')}, "
            f"commit {commit[:_DIGITS_OF_A_HASH] if document.commit else commit}{changed}"
        )


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the keys that both contain, with different values."""
    return [key for key in old if key in new and old[key] != new[key]]


def _conditions(old: Results, new: Results, machine: Sequence[str], settings: Sequence[str]) -> Iterator[str]:
    """Describe differences between the conditions of two runs."""
    if machine:
        described = _changes(old.document.machine, new.document.machine, machine)
        yield f"other machine: {described}; seconds are not marked, only ratios of programs on the same machine"
    if settings:
        yield f"other settings: {_changes(old.document.settings, new.document.settings, settings)}"
    before, after = ({**one.document.versions, "system": one.document.machine.get("system")} for one in (old, new))
    if versions := _differing(before, after):
        yield f"other versions: {_changes(before, after, versions)}"
    recorded = set(old.document.settings) ^ set(new.document.settings)
    if recorded:
        yield f"settings in one file only, not compared: {', '.join(sorted(recorded))}"
    n, m = old.document.settings.get("rounds"), new.document.settings.get("rounds")
    if isinstance(n, int) and isinstance(m, int) and n + m > 2:  # single values are not marked
        chance = comb(n + m, n) // 2
        yield f"rounds: {n} and {m}; equal programs are marked by chance in 1 of {chance} comparisons"


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(
        key if key in _WEIGHTS else f"{key} {_value(old.get(key))}, now {_value(new.get(key))}" for key in keys
    )


def _value(value: str | int | None) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _unpaired(old: Results, new: Results) -> Iterator[str]:
    """Name rows that cannot be compared."""
    for one in (old, new):
        for name, why in one.unread.items():
            yield f"{one.path}: row {name} is left out: {why}"
        if one.missing:
            yield f"not measured in {one.path}: {', '.join(one.missing)}"
    for one, other in ((old, new), (new, old)):
        known = {*other.document.rows}
        if alone := [name for name in one.document.rows if name not in known]:
            yield f"only in {one.path}: {', '.join(alone)}"


def _row(old: RowRecord, new: RowRecord, machine: str, reason: str) -> Iterator[list[str]]:
    """Yield the cells of contenders and measures, the mark or the reason for none last."""
    reasons = []
    for label, timing in new.contenders.items():
        before = old.contenders.get(label)
        if before is None:
            yield [f"{label}, s", "", digits(median(timing.seconds)), "", "", "", _ONLY_NEW]
            continue
        own = reason or _other_work(before, timing)
        reasons.append(own)
        ratio = ratio_of(before.seconds, timing.seconds)
        memory = ratio_of([before.extra_bytes], [timing.extra_bytes])
        mark = own or machine or (ratio.mark("slower", "faster") if ratio else "")
        yield [
            f"{label}, s",
            *_cells(before.seconds, timing.seconds, ratio),
            "" if memory is None else _times(memory.median),
            mark,
        ]
    for label, timing in old.contenders.items():
        if label not in new.contenders:
            yield [f"{label}, s", digits(median(timing.seconds)), "", "", "", "", _ONLY_OLD]
    yield from _measures(old, new, machine, next(filter(None, reasons), ""))


def _measures(old: RowRecord, new: RowRecord, machine: str, reason: str) -> Iterator[list[str]]:
    known = {measure.name: measure for measure in old.measures}
    for measure in new.measures:
        label = f"{measure.name}, {measure.unit}"
        before = known.pop(measure.name, None)
        if before is None:
            yield [label, "", digits(median(measure.values)), "", "", "", _ONLY_NEW]
            continue
        ratio = ratio_of(before.values, measure.values)
        more, less = {">=": ("better", "worse"), "<=": ("worse", "better")}.get(
            (measure.bar or "")[:2], ("higher", "lower")
        )
        verdict = _VERDICTS.get((before.met, measure.met), "")
        own = reason or (machine if measure.unit not in _RELATIVE else "")
        marks = [own or (ratio.mark(more, less) if ratio else ""), verdict]
        yield [label, *_cells(before.values, measure.values, ratio), "", ", ".join(filter(None, marks))]
    for name, before in known.items():
        yield [f"{name}, {before.unit}", digits(median(before.values)), "", "", "", "", _ONLY_OLD]


def ratio_of(old: Sequence[float], new: Sequence[float]) -> Ratio | None:
    """Return new over old with its range; None if a value is not positive."""
    if min(*old, *new) <= 0:
        return None
    single = len(old) == len(new) == 1
    return Ratio(median(new) / median(old), min(new) / max(old), max(new) / min(old), single)


def _cells(old: Sequence[float], new: Sequence[float], ratio: Ratio | None) -> list[str]:
    cells = [digits(median(old)), digits(median(new))]
    if ratio is None:
        return [*cells, "", ""]
    if ratio.single:
        return [*cells, _times(ratio.median), "one value"]
    return [*cells, _times(ratio.median), f"{_times(ratio.lowest)} to {_times(ratio.highest)}"]


def _aligned(cells: Sequence[list[str]]) -> list[str]:
    """Align columns, the marks to the left."""
    width = max(len(line[-1]) for line in cells)
    return aligned([[*line[:-1], line[-1].ljust(width)] for line in cells])


def _times(ratio: float) -> str:
    """Format a ratio, with two decimals if it is small."""
    return f"{ratio:.2f}" if ratio < 10 else digits(ratio)


def _other_work(old: TimingRecord, new: TimingRecord) -> str:
    keys = [key for key in _WORK_OF_A_CONTENDER if getattr(old, key) != getattr(new, key)]
    return f"other {' and '.join(keys)}" if keys else ""


def _summary(marks: Sequence[str]) -> str:
    """Count the numbers that both files contain, and those that are marked."""
    counted = ("faster", "slower", "better", "worse", "higher", "lower", "now met", "now MISSED")
    counts = {word: sum(word in mark.split(", ") for mark in marks) for word in counted}
    described = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    compared = sum(mark not in (_ONLY_OLD, _ONLY_NEW) for mark in marks)
    return f"compared: {compared} numbers; beyond the spread of the rounds: {described or 'none'}"
