"""Progress: a bar on a terminal, a log line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_EVERY = 30.0


@contextmanager
def progress(total: int | None = None, unit: str = "b") -> Iterator[Callable[[int], object]]:
    """Yield a function that is told how much more is done, of `total` if that is known."""
    if sys.stderr.isatty():
        with tqdm(total=total, unit=unit, unit_scale=True, leave=False) as bar:
            yield bar.update
        return
    started = last = time.monotonic()
    done = 0

    def tell(more: int) -> None:
        nonlocal done, last
        done += more
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            rate = done / (now - started)
            told = f"genoscan: {done:,} {unit} done, {rate:,.0f} {unit}/s"
            if total:
                left = max(0, total - done) / rate
                told += f", {100 * done / total:.0f} %, {left:,.0f} s left"
            print(told, file=sys.stderr, flush=True)

    yield tell
