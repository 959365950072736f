"""Thresholds that measurements are compared with."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Threshold:
    """A lower (`>=`) or upper (`<=`) limit of a measured number.

    Parameters
    ----------
    sign
        `>=` or `<=`.
    limit
        In the unit of the number.
    """

    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:,g}"

    def met(self, value: float) -> bool:
        """Return whether a value meets the threshold; NaN never does."""
        # A comparison of numpy scalars is not a bool.
        return bool(value >= self.limit if self.sign == ">=" else value <= self.limit)


def at_least(limit: float) -> Threshold:
    """Return the threshold `>= limit`."""
    return Threshold(">=", limit)


def at_most(limit: float) -> Threshold:
    """Return the threshold `<= limit`."""
    return Threshold("<=", limit)


def row(name: str, value: float, unit: str, threshold: Threshold | None = None, **details: Any) -> dict[str, Any]:
    """Return a measured number with its threshold, if any, as in the JSON of benchmarks that are not experiments."""
    met = None if threshold is None else threshold.met(value)
    return {"name": name, "value": value, "unit": unit, "threshold": str(threshold or ""), "met": met, **details}
