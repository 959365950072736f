"""Progress reports: a progress bar on a terminal; otherwise, at most one line of text every 30 seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_INTERVAL = 30.0  # seconds


@contextmanager
def progress(total: int | None = None, unit: str = "b") -> Iterator[Callable[[int], object]]:
    """Context manager that reports progress on standard error.

    Parameters
    ----------
    total : int, optional
        Total amount of work, which is the sum of all increments. None if it is not known.
    unit : str
        Unit of the increments, such as "b" for bases.

    Yields
    ------
    callable
        Function to call with the amount of work completed since the previous call.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, unit=unit, unit_scale=True, leave=False) as bar:
            yield bar.update
        return
    started = last = time.monotonic()
    done = 0

    def advance(increment: int) -> None:
        nonlocal done, last
        done += increment
        now = time.monotonic()
        if now - last >= _INTERVAL:
            last = now
            rate = done / (now - started)
            line = f"genoscan: {done:,} {unit} done, {rate:,.0f} {unit}/s"
            if total:
                left = max(0, total - done) / rate
                line += f", {100 * done / total:.0f} %, {left:,.0f} s left"
            print(line, file=sys.stderr, flush=True)

    yield advance
