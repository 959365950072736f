"""Progress reports: a progress bar on a terminal; otherwise, at most one line of text every 30 seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from genoscan.cli.messages import format_duration, log

_INTERVAL = 30.0  # seconds


@contextmanager
def progress(
    total: int | None = None, amount: int | None = None, unit: str = "bases"
) -> Iterator[Callable[[int], object]]:
    """Context manager that reports progress on standard error.

    Parameters
    ----------
    total : int, optional
        Total work, which is the sum of all increments, such as the number of positions that are run, with context and
        repetitions. None if it is not known; positions are then reported.
    amount : int, optional
        Size of the result, which is reported in proportion to the work done, such as the bases of the regions.
        None to report the work itself.
    unit : str
        Unit of `amount`.

    Yields
    ------
    callable
        Function to call with the work completed since the previous call.
    """
    if amount is None:
        amount, unit = total, "positions"
    scale = amount / total if amount and total else 1.0
    if sys.stderr.isatty():
        with tqdm(total=amount, unit=f" {unit}", unit_scale=True, leave=False) as bar:
            yield lambda increment: bar.update(increment * scale)
        return
    started = last = time.monotonic()
    done = 0

    def advance(increment: int) -> None:
        nonlocal done, last
        done += increment
        now = time.monotonic()
        if now - last >= _INTERVAL:
            last = now
            log(f"genoscan: {_describe(done * scale, amount, unit, now - started)}")

    yield advance


def _describe(done: float, amount: int | None, unit: str, seconds: float) -> str:
    """Return a line such as "1,000 of 4,000 bases, 25 %, 100 bases/s, 30 s left"."""
    rate = done / seconds
    if not amount:
        return f"{done:,.0f} {unit}, {rate:,.0f} {unit}/s"
    done = min(done, amount)  # the work is an estimate if its repetitions are not known in advance
    left = format_duration((amount - done) / rate) if rate else "unknown time"
    return f"{done:,.0f} of {amount:,} {unit}, {100 * done / amount:.0f} %, {rate:,.0f} {unit}/s, {left} left"
