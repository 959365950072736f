"""Measure all rows for a GPU, most important first; run by benchmarks/gpu.sh.

Rows run in a worker process.  Every number is written to gpu.json at once, so that a killed run
loses nothing.  A row that raises is recorded with its error and the next one runs; if it hangs,
ends the process or leaves the device unusable (after an illegal address every later call fails),
the rest runs in a new process.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any

ROWS = {
    "device": 5,
    "kernels": 30,
    "engine": 30,
    "weights": 10,
    "surrogates": 10,
    "commands": 30,
    "long engine": 10,
    "track": 5,
    "tiles": 40,
    "bigwig": 45,
    "memory": 60,
    "autograd": 15,
    "ceilings": 10,
    "blocks": 10,
    "gibibyte": 20,
    "slots": 40,
    "changes": 30,
    "paper": 45,
    "rounding": 15,
    "scan sweep": 70,
}
"""Rows in order of importance, and the most seconds that each takes if thresholds are met; a row is
skipped when less time is left."""

FORMAT = "genoscan-gpu/1"
_GRACE = 15.0
"""Seconds beyond the budget until a row that is still running is ended."""

Record = dict[str, Any]


def drive(
    command: Sequence[str],
    task: Mapping[str, Any],
    names: Sequence[str],
    budget: float,
    keep: Callable[[Record], object],
    limits: Mapping[str, float] = ROWS,
) -> None:
    """Run rows in a worker process, and the remaining ones in another if it ends early or hangs.

    `keep` is called with every record; `task` is sent to each worker with its rows, the seconds
    left and the values known so far.
    """
    end = time.monotonic() + budget
    left, found = list(names), dict[str, float]()
    while left:
        asked = {"rows": left, "budget": end - time.monotonic(), "found": found}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            worker.stdin.write(json.dumps({**task, **asked}) + "\n")
            worker.stdin.close()
            lines: Queue[str | None] = Queue()
            threading.Thread(target=_read, args=(worker.stdout, lines), daemon=True).start()
            row, since, fault = None, time.monotonic(), "ended before its first row"
            while True:
                allowed = 4 * limits.get(row or "", 30) + 60
                until = min(since + allowed, end + _GRACE)
                try:
                    line = lines.get(timeout=max(0.0, until - time.monotonic()))
                except Empty:
                    worker.kill()
                    fault = f"was ended after {time.monotonic() - since:.0f} s"
                    break
                if line is None:
                    fault = f"its process ended with status {worker.wait()}"
                    break
                event = json.loads(line)
                if "begin" in event:
                    row, since = event["begin"], time.monotonic()
                elif "end" in event:
                    left.remove(event["end"])
                    row, since = None, time.monotonic()
                else:
                    keep(event)
                    if isinstance(event.get("value"), float | int):
                        found[event["name"]] = event["value"]
        if row is not None:
            keep({"row": row, "name": row, "error": fault})
            left.remove(row)
        elif left and worker.returncode not in (0, RESTART):
            # The worker failed before its first row: another one would, too.
            for name in left:
                keep({"row": name, "name": name, "error": fault})
            return


RESTART = 3
"""Exit status of a worker whose device became unusable: another one may continue."""


def _read(stream: IO[str], lines: "Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def work(task: Mapping[str, Any], say: Callable[[Record], object]) -> int:
    """Measure the rows of a task, reporting each begin, number and end; return an exit status."""
    from benchmarks.gpu_rows import MEASURES, Bench
    from benchmarks.interpreted import interpreting

    with interpreting(small=True) if task["dry"] else nullcontext(), Bench.made(task) as bench:
        for row in task["rows"]:
            say({"begin": row})
            started = time.monotonic()
            if not bench.dry and ROWS[row] > bench.left():
                reason = f"takes up to {ROWS[row]} s, {max(0, bench.left()):.0f} s are left"
                say({"row": row, "name": row, "skipped": reason})
                say({"end": row})
                continue
            try:
                for result in MEASURES[row](bench):
                    bench.found[result.name] = result.value
                    say(bench.record(row, result, time.monotonic() - started))
            except Exception as error:
                traceback.print_exc()
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
                say({"row": row, "name": row, "error": text, "device": bench.name})
                if not bench.usable():
                    say({"end": row})
                    return RESTART
            say({"end": row})
    return 0


def _serve() -> int:
    """Run as worker: a task on stdin, events on stdout; output of libraries goes to stderr."""
    task = json.loads(sys.stdin.readline())
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        return work(task, lambda event: print(json.dumps(event), file=answers, flush=True))


def lines(records: Sequence[Record]) -> Iterator[str]:
    """Format records, one per line."""
    width = max((len(record["name"]) for record in records), default=0)
    for record in records:
        name = record["name"].ljust(width)
        if "value" not in record:
            kind = "error" if "error" in record else "skipped"
            yield f"{name}  {kind.upper()}: {record[kind]}"
            continue
        value = record["value"]
        shown = f"{value:,.4g}" if isinstance(value, float | int) else value
        verdict = {True: "met", False: "MISSED", None: ""}[record["met"]]
        threshold = record["threshold"] or ""
        yield f"{name}  {shown:>12} {record['unit']:8} {threshold:>12} {verdict}".rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 1 if a row failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("build/gpu"), help="folder for gpu.json")
    parser.add_argument("--dry-run", action="store_true", help="every row once, tiny, on the CPU, interpreted")
    parser.add_argument(
        "--budget", type=float, default=540, metavar="SECONDS", help="rows that do not fit are skipped (default: 540)"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="ROW",
        choices=list(ROWS),
        help=f"measure this row; may repeat: {', '.join(ROWS)}",
    )
    parser.add_argument("--shape", default="256x16", metavar="WIDTHxLAYERS", help="of the model (default: 256x16)")
    options = parser.parse_args(arguments)
    if options.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"
    output = options.output / "gpu.json"
    options.output.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "format": FORMAT,
        "measured": time.strftime("%Y-%m-%d %H:%M %Z"),
        "dry_run": options.dry_run,
        "rows": [],
    }

    def keep(record: Record) -> None:
        document["rows"].append(record)
        part = output.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        part.replace(output)
        print(*lines([record]), flush=True)

    task = {"dry": options.dry_run, "shape": options.shape}
    worker = [sys.executable, "-m", "benchmarks.gpu", "--worker"]
    drive(worker, task, options.only or list(ROWS), options.budget, keep)
    print("", *lines(document["rows"]), output, sep="\n")
    return int(any("error" in record for record in document["rows"]))


if __name__ == "__main__":
    if site := os.environ.get("GENOSCAN_SITE"):
        sys.path.append(site)
    sys.exit(_serve() if sys.argv[1:] == ["--worker"] else main())
