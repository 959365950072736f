"""benchmarks/gpu.sh: every row runs, and nothing that goes wrong takes the other rows along."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT

with pytest.MonkeyPatch.context() as patch:
    # Read when triton is loaded and when kernels are declared: nothing may load it before.
    patch.setenv("TRITON_INTERPRET", "1")
    pytest.importorskip("triton", reason="made for Linux on x86-64 and for CUDA devices")
    import torch

    if not torch.cuda.is_available():
        import genoscan.ops.triton_gpu  # noqa: F401

from benchmarks import gpu

DRY = {"dry": True, "shape": "256x16", "budget": 1.0, "found": {}}
on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are not interpreted")


SLOW = "memory", "scan sweep", "autograd", "blocks"


@on_cpu
@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.slow if row in SLOW else ()) for row in gpu.ROWS])
def test_a_row_runs(row: str) -> None:
    """At tiny sizes, where its derivatives are as exact as at any."""
    events: list[dict[str, Any]] = []
    assert gpu.work({**DRY, "rows": [row]}, events.append) == 0
    begin, *records, end = events
    assert (begin, end) == ({"begin": row}, {"end": row})
    assert records
    for record in json.loads(json.dumps(records)):
        assert "error" not in record, record["error"]
        assert record["row"] == row
        assert record["met"] in (True, None), record
        assert {"name", "value", "unit", "threshold", "device", "seconds"} <= set(record)
        assert {"torch", "triton", "driver", "genoscan"} <= set(record["versions"])
    assert len({record["name"] for record in records}) == len(records)


def test_rows_are_those_that_are_measured() -> None:
    from benchmarks.gpu_rows import MEASURES

    assert list(MEASURES) == list(gpu.ROWS)


def test_an_error_is_the_rows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_rows

    def fail(_bench: gpu_rows.Bench) -> Any:
        yield gpu_rows.Result("kernels: one", 2.0, "x", gpu_rows.at_most(1), exact=True)
        raise RuntimeError("no such\nkernel")

    monkeypatch.setitem(gpu_rows.MEASURES, "kernels", fail)
    events: list[dict[str, Any]] = []
    assert gpu.work({**DRY, "rows": ["kernels", "device"]}, events.append) == 0
    records = [event for event in events if "row" in event]
    assert [record["row"] for record in records] == ["kernels", "kernels", "device", "device"]
    assert records[0]["met"] is False
    assert records[1]["error"] == "RuntimeError: no such kernel"


def test_a_device_that_is_of_no_more_use_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_rows

    def fail(bench: gpu_rows.Bench) -> Any:
        raise RuntimeError("illegal memory access")

    monkeypatch.setitem(gpu_rows.MEASURES, "kernels", fail)
    monkeypatch.setattr(gpu_rows.Bench, "tidy", fail)
    events: list[dict[str, Any]] = []
    assert gpu.work({**DRY, "rows": ["kernels", "device"]}, events.append) == gpu.RESTART
    assert events[-1] == {"end": "kernels"}


def test_what_does_not_fit_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_rows

    monkeypatch.setattr(gpu_rows.Bench, "device", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    events: list[dict[str, Any]] = []
    task = {**DRY, "dry": False, "shape": "8x1", "rows": ["bigwig"]}
    assert gpu.work(task, events.append) == 0
    (record,) = (event for event in events if "row" in event)
    assert record["skipped"] == f"takes up to {gpu.ROWS['bigwig']} s, 1 s are left"


WORKER = """
import json, os, sys, time
task = json.loads(sys.stdin.readline())
def say(**event): print(json.dumps(event), flush=True)
for row in task["rows"]:
    say(begin=row)
    if row == "ends": os._exit(7)
    if row == "hangs": time.sleep(60)
    say(row=row, name=row + ": x", value=len(task["found"]), unit="", met=None, threshold=None)
    say(end=row)
    if row == "spoils": sys.exit(3)
"""


def driven(*names: str, worker: str = WORKER, budget: float = 60.0) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    limits = {"hangs": -14.9}
    gpu.drive([sys.executable, "-c", worker], {}, names, budget, kept.append, limits)
    return kept


def test_a_new_worker_goes_on_where_one_ended() -> None:
    a, ends, spoils, b = driven("a", "ends", "spoils", "b")
    assert (a["value"], spoils["value"], b["value"]) == (0, 1, 2)
    assert ends == {"row": "ends", "name": "ends", "error": "its process ended with status 7"}


def test_a_row_that_hangs_is_ended() -> None:
    hangs, b = driven("hangs", "b")
    assert hangs["error"] == "was ended after 0 s"
    assert b["row"] == "b"


def test_a_worker_that_never_begins_is_not_started_again() -> None:
    found = driven("a", "b", worker="raise SystemExit(5)")
    assert [record["error"] for record in found] == ["its process ended with status 5"] * 2


def test_every_number_is_kept_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def drive(_command: Any, _task: Any, names: Any, _budget: float, keep: Any) -> None:
        for name in names:
            keep({"row": name, "name": name, "value": 1.0, "unit": "s", "met": None, "threshold": None})
            sizes.append(len(json.loads((tmp_path / "gpu.json").read_text())["rows"]))
        keep({"row": "x", "name": "x", "error": "it broke"})

    monkeypatch.setattr(gpu, "drive", drive)
    assert gpu.main(["-o", str(tmp_path), "--only", "paper", "--only", "device"]) == 1
    assert sizes == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def test_the_script_is_bash() -> None:
    subprocess.run(["bash", "-n", ROOT / "benchmarks" / "gpu.sh"], check=True)


@pytest.mark.slow
@on_cpu
def test_the_whole_script(tmp_path: Path) -> None:
    environment = os.environ | {"OUT": str(tmp_path)}
    command = ["bash", ROOT / "benchmarks" / "gpu.sh", "--dry-run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert document["dry_run"] is True
    assert {record["row"] for record in document["rows"]} == set(gpu.ROWS)
    assert (tmp_path / "gpu.log").read_text() == done.stdout
