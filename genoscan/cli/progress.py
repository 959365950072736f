"""Progress reports: a bar on a terminal, or otherwise at most one log line every 30 seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_INTERVAL = 30.0  # seconds


@contextmanager
def progress(total: int | None = None, unit: str = "b") -> Iterator[Callable[[int], object]]:
    """Report progress; yield a function to call with each increment.

    Parameters
    ----------
    total : int, optional
        Sum of all increments. None if the sum is unknown.
    unit : str
        Unit of the increments.

    Yields
    ------
    callable
        Function that adds an increment to the progress.
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
