"""Run mutants in copies of the source tree, and note which check catches each.

A mutant is caught when its module cannot be imported, when `genoscan verify` fails on one of the
tiny models, when a test fails, or when one of these takes far longer than without it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from . import probe
from .groups import GROUPS, chosen, reason, tests_of
from .operators import Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = (*("genoscan", "tests", "models", "data", "docs", "workflows", "benchmarks"), *("pyproject.toml", "README.md"))
AT_ONCE = 2
"""Mutants that run at a time."""
BAR = 0.95

_UNCAUGHT = ("equivalent", "survived")
_KEY = ("file", "line", "operator", "before", "after")
_SLACK, _FACTOR, _LONGEST, _STEP = 120.0, 4.0, 1800.0, 1.0
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


class _Ended(NamedTuple):
    code: int | None  # None: it ran out of time
    output: str
    seconds: float


class Results:
    """The results file: written anew after every mutant, so that a stopped run can go on."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = path, seed
        self._lock = threading.Lock()
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            before = json.loads(path.read_text())
            if before["seed"] != seed:
                raise SystemExit(f"{path}: has seed {before['seed']}, not {seed}: name another")
            self.rows = before["mutants"]

    def find(self, mutant: Mutant) -> dict[str, Any] | None:
        """Return the row of a mutant that need not run again."""
        wanted = [getattr(mutant, name) for name in _KEY]
        return next((row for row in self.rows if [row[name] for name in _KEY] == wanted), None)

    def put(self, row: dict[str, Any]) -> None:
        """Add a row, or replace that of the same mutant."""
        with self._lock:
            key = [row[name] for name in _KEY]
            self.rows = [old for old in self.rows if [old[name] for name in _KEY] != key] + [row]
            self.write()

    def keep(self, rows: Sequence[dict[str, Any]]) -> None:
        """Put these rows in place of all, in their order."""
        self.rows = list(rows)
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        document = {"seed": self.seed, "mutants": self.rows}
        part.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        part.replace(self.path)


class Trees:
    """Copies of the repository: one without a fault, whose caches are warm, and one a mutant."""

    def __init__(self, folder: Path) -> None:
        self.base, self.folder, self._lock = folder / "base", folder, threading.Lock()
        self.models = folder / "models"
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                leave_out = shutil.ignore_patterns("__pycache__", "results", ".hypothesis")
                shutil.copytree(source, self.base / name, ignore=leave_out, dirs_exist_ok=True)
            else:
                shutil.copy2(source, self.base / name)
        shutil.rmtree(self.models, ignore_errors=True)
        self.models.mkdir()
        made = _run(self.base, ["tests/mutation/probe.py", "make", str(self.models)], 600)
        if made.code != 0:
            raise SystemExit(f"the models cannot be made:\n{made.output}")

    def copied(self, name: str) -> Path:
        """Return a copy of the tree without a fault."""
        tree = self.folder / name
        with self._lock:
            shutil.rmtree(tree, ignore_errors=True)
            shutil.copytree(self.base, tree, ignore=shutil.ignore_patterns("tmp"))
        return tree

    def mutated(self, number: int, mutant: Mutant) -> Path:
        """Return a copy with the fault in it."""
        tree = self.copied(f"mutant-{number}")
        file = tree / mutant.file
        file.write_text(mutant.apply(file.read_text()))
        if mutant.file.endswith(("ops/lanes.py", "ops/lane_math.py")):
            # Inlined into kernels of other files, whose cache numba would take as valid.
            for cached in file.parent.glob("__pycache__/*.nb?"):
                cached.unlink()
        return tree

    def keep_caches(self, tree: Path) -> None:
        """Keep what was compiled in a copy without a fault, for all copies to come."""
        with self._lock:
            for cached in tree.rglob("__pycache__"):
                kept = self.base / cached.relative_to(tree)
                shutil.copytree(cached, kept, dirs_exist_ok=True)


def _run(tree: Path, arguments: Sequence[str], limit: float) -> _Ended:
    """Run Python in a tree, all it starts in one process group that ends with it."""
    scratch = tree / "tmp"
    scratch.mkdir(exist_ok=True)
    process = subprocess.Popen(
        ["nice", "-n", "10", sys.executable, *arguments],
        cwd=tree,
        env=os.environ | _ENVIRONMENT | {"PYTHONPATH": str(tree), "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    code: int | None = None
    output, seconds = "", 0.0
    try:
        while code is None and seconds < limit:
            # Counted in small steps: time in which everything is paused does not count.
            began = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=_STEP)
                code = process.returncode
            seconds += min(time.monotonic() - began, 2 * _STEP)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return _Ended(code, output, seconds)


def _verify(trees: Trees, tree: Path, file: str, limit: float) -> _Ended:
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return _run(tree, ["tests/mutation/probe.py", "run", str(trees.models), module], limit)


def _tests(tree: Path, tests: Sequence[str], limit: float) -> _Ended:
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=1", "-n", "0"]
    return _run(tree, ["-m", "pytest", *options, *tests], limit)


class _Control:
    """What passes without a fault: a check that fails there, too, catches nothing."""

    def __init__(self, trees: Trees) -> None:
        self._trees, self.verify_limit = trees, 0.0

    def verify(self) -> None:
        """Run `verify` once, to compile all kernels and to know how long it takes."""
        for seconds in (_LONGEST, _LONGEST):  # the second is the one without compilation
            ended = _verify(self._trees, self._trees.base, "genoscan/job.py", seconds)
            if ended.code != 0:
                raise SystemExit(f"without a fault, verify fails:\n{ended.output[-4000:]}")
        self.verify_limit = _SLACK + _FACTOR * ended.seconds
        _say("no fault", ended.seconds, "verify")

    def confirm(self, number: int, tests: Sequence[str]) -> None:
        """Run tests that failed with a fault, or took too long, without it."""
        tree = self._trees.copied(f"control-{number}")
        ended = _tests(tree, tests, _LONGEST)
        if ended.code != 0:
            raise SystemExit(f"without a fault, this fails:\n{ended.output[-4000:]}")
        self._trees.keep_caches(tree)
        shutil.rmtree(tree)


def _say(caught: str, seconds: float, what: str) -> None:
    print(f"{caught:9}{seconds:6.0f} s  {what}", flush=True)


def _judge(trees: Trees, control: _Control, number: int, group: str, mutant: Mutant) -> dict[str, Any]:
    """Run one mutant; return its row."""
    caught, by, seconds = "", "", 0.0
    tree = trees.folder / f"mutant-{number}"
    # Triton runs in its own tests alone, under its interpreter.
    if group != "gpu kernels":
        trees.mutated(number, mutant)
        ended = _verify(trees, tree, mutant.file, control.verify_limit)
        seconds = ended.seconds
        if ended.code != 0:
            imported = probe.IMPORTED in ended.output.splitlines()
            caught = "timeout" if ended.code is None else "verify" if imported else "import"
            by = _last_line(ended.output)
    if not caught:
        if not tree.exists():
            trees.mutated(number, mutant)
        files = [f"tests/test_{name}.py" for name in tests_of(mutant.file)]
        ended = _tests(tree, files, _LONGEST)
        seconds += ended.seconds
        if ended.code != 0:
            caught = "timeout" if ended.code is None else "tests"
            failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", ended.output, re.MULTILINE)
            by = failed[1] if failed else _last_line(ended.output)
            control.confirm(number, [failed[1].partition("[")[0]] if failed else files)
    shutil.rmtree(tree, ignore_errors=True)
    by = by.replace(f"{trees.folder}{os.sep}", "")
    row = {"group": group} | {name: getattr(mutant, name) for name in _KEY}
    return row | {"caught": caught, "by": by, "seconds": round(seconds, 1), "commit": _commit()}


def _last_line(output: str) -> str:
    return next((line for line in output.splitlines()[::-1] if line.strip()), "")[:160]


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip()


def run(seed: int, output: Path, groups: Sequence[str] = tuple(GROUPS)) -> list[dict[str, Any]]:
    """Run what the results file does not hold yet, and survivors again; return all rows."""
    results = Results(output, seed)
    wanted = [(group, mutant) for group, mutant in chosen(ROOT, seed) if group in groups]
    left = []
    for number, (group, mutant) in enumerate(wanted):
        row = results.find(mutant)
        if row is None or not (row["caught"] or reason(mutant)):
            left.append((number, group, mutant))
    if left:
        folder = output.resolve().with_name(output.name + ".trees")
        folder.mkdir(parents=True, exist_ok=True)
        trees = Trees(folder)
        control = _Control(trees)
        control.verify()

        def judge(job: tuple[int, str, Mutant]) -> None:
            row = _judge(trees, control, *job)
            results.put(row)
            where = f"{row['file']}:{row['line']}  {row['operator']}: {row['before'][:80]}"
            _say(row["caught"] or "SURVIVED", row["seconds"], where)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(judge, left))
    if tuple(groups) == tuple(GROUPS):
        # Rows of other sources, from before a change, are dropped.
        rows = [row for _, mutant in wanted if (row := results.find(mutant))]
        results.keep([row | {"equivalent": why} if (why := _why(row)) else row for row in rows])
    return results.rows


def _why(row: dict[str, Any]) -> str | None:
    from .groups import EQUIVALENT

    return EQUIVALENT.get((row["file"], row["before"], row["after"])) if not row["caught"] else None


def share_settled(rows: Sequence[dict[str, Any]]) -> float:
    """Return the share of mutants that are caught, or survive and are shown to be equivalent."""
    return sum(bool(row["caught"] or _why(row)) for row in rows) / len(rows)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the summary, a line a group."""
    heads = ("verify", "tests", "import", "timeout")
    lines = ["group        made" + "".join(f"{head:>11}" for head in (*heads, *_UNCAUGHT))]
    for group in (*GROUPS, "all"):
        own = [row for row in rows if group in ("all", row["group"])]
        counts = [sum(row["caught"] == head for row in own) for head in heads]
        equal = sum(_why(row) is not None for row in own)
        counts += [equal, sum(not row["caught"] for row in own) - equal]
        lines.append(f"{group:11}{len(own):>6}" + "".join(f"{count:>11}" for count in counts))
    return "\n".join(lines)
