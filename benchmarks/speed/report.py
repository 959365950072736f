"""Rows of the document as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from genoscan.usage import MEBIBYTE

_VERDICTS = {True: "met", False: "MISSED", None: ""}


def row_text(name: str, row: Mapping[str, Any]) -> str:
    """Format one row: its contenders, then its measures with threshold and verdict."""
    lines = [f"{name}: {row['title']}"]
    if row["status"] != "measured":
        return "\n".join([*lines, f"  {row['status']}: {row['why']}"])
    lines += aligned(
        [
            ["", "bases", "seconds", "lowest to highest", "us/base", "MiB extra"],
            *(_contender(label, timing) for label, timing in row["contenders"].items()),
        ]
    )
    return "\n".join([*lines, *aligned(list(_measures(row)))])


def summary(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one line that counts rows by status, and thresholds met."""
    counts = {
        status: sum(row["status"] == status for row in rows.values()) for status in ("measured", "skipped", "failed")
    }
    bars = [
        measure["met"] for row in rows.values() for measure in row.get("measures", []) if measure["met"] is not None
    ]
    counted = ", ".join(f"{n} {status}" for status, n in counts.items())
    judged = f"; {sum(bars)} of {len(bars)} thresholds met" if bars else ""
    return f"rows: {counted}{judged}"


def _contender(label: str, timing: Mapping[str, Any]) -> list[str]:
    return [
        label,
        f"{timing['length']:,}",
        digits(timing["median_seconds"]),
        f"{digits(timing['lowest_seconds'])} to {digits(timing['highest_seconds'])}",
        digits(timing["microseconds_per_base"]),
        f"{timing['extra_bytes'] / MEBIBYTE:,.1f}",
    ]


def _measures(row: Mapping[str, Any]) -> Iterator[list[str]]:
    for measure in row["measures"]:
        bar = f"threshold {measure['bar']}" if measure["bar"] else ""
        yield [
            measure["name"],
            f"{digits(measure['median'])} {measure['unit']}",
            spread(measure),
            bar,
            _VERDICTS[measure["met"]],
        ]


def spread(measure: Mapping[str, Any]) -> str:
    """Format the range of a measure's values; empty for a single one."""
    if len(measure["values"]) == 1:
        return ""
    return f"{digits(measure['lowest'])} to {digits(measure['highest'])}"


def digits(value: float) -> str:
    """Format a number with three significant digits, or as an integer from 100 on."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def aligned(cells: list[list[str]]) -> list[str]:
    """Return lines with aligned columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
