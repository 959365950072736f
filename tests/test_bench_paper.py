"""The paper's experiments run, keep what they know, and call a failure one."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from commands import benchmark
from laws import assert_near

from benchmarks.alone import WorkerError, alone
from benchmarks.experiment import Cell, Environment, Finding, Row
from benchmarks.paper import costs, rivals, truth
from benchmarks.paper.contenders import CONTENDERS
from benchmarks.paper.experiments import EXPERIMENTS
from benchmarks.paper.layers import noise, operator
from benchmarks.run import lines, run
from benchmarks.threshold import at_least, at_most
from genoscan.errors import InputError
from genoscan.verification.sweeps import relative

QUICK = Environment("cpu", 2, quick=True)
FIG4 = EXPERIMENTS["fig4"]


@pytest.fixture(autouse=True)
def unpictured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser is started for one picture only."""

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no browser here")

    monkeypatch.setattr(go.Figure, "write_image", refuse)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("fig1", "fig3", "a2", "a4") else n for n in EXPERIMENTS]
)
def test_every_experiment_runs(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    cells = EXPERIMENTS[name].cells(True)
    findings = run(name, EXPERIMENTS[name], tmp_path, QUICK, progress=lambda n: said.append("."), report=said.append)
    assert said.count(".") == len(cells)
    table = pd.read_csv(tmp_path / f"{name}.csv")
    assert list(table.cell.unique()) == [cell.name for cell in cells]
    assert (tmp_path / f"{name}.html").stat().st_size > 1_000_000  # plotly is inside
    assert said[-1].startswith(f"{name}.png not drawn: no browser here")
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert len(record["findings"]) == len(findings) > 0
    assert all(found["met"] is None for found in record["findings"])  # nothing is judged
    # Sizes are too small for a cost to mean anything; an error means what it says.
    for finding in findings:
        if "error" in finding.name or "difference" in finding.name or "NaN" in finding.name:
            assert finding.met is not False, finding
    assert len(list(lines(findings, judged=False))) == len(findings)
    if name == "fig3":
        check_every_way(table)


def check_every_way(table: pd.DataFrame) -> None:
    """Every way gives the layer's derivative, but the published one that begins anew."""
    errors = table.groupby("contender").error.max()
    assert set(errors.index) == {n for n, c in CONTENDERS.items() if c.answer in ("direction", "inputs")}
    assert errors.pop("checkpoint-published") > 1e-3
    assert (errors < 1e-5).all()


@pytest.mark.parametrize("seeds", [(), (2,)])
def test_the_truth_is_what_the_operator_computes_in_float64(seeds: tuple[int, ...]) -> None:
    made = operator(5, 3, dtype=torch.float64)
    u, other = (part.double() for part in noise(*seeds, 150, 5))
    rows = torch.stack([made.A_log, torch.full_like(made.A_log, 2.0)])
    slopes, bars = truth.tangents(made, rows, u, other), truth.gradients(made, rows, u, other)
    assert slopes.shape == bars.shape == (2, *u.shape)
    for A_log, slope, bar in zip(rows, slopes, bars, strict=True):
        made.A_log.copy_(A_log)
        assert_near(made.pgf_forward(u, other)[1], slope)
        assert_near(made.pgf_vjp(u, other), bar)


def test_a_truth_begun_later_goes_on(tmp_path: Path) -> None:
    made = operator(4, 3, a_log=-1.0, dtype=torch.float64)
    u, u_dot = (part.double() for part in noise(300, 4))
    u_dot[:200] = 0
    A_log = made.A_log[:1, None]
    states = truth.states(made, A_log, u, [200, 150])
    assert set(states) == {150, 200}
    late = truth.tangents(made, A_log, u[200:], u_dot[200:], states[200])
    assert_near(late, truth.tangents(made, A_log, u, u_dot)[:, 200:])


def test_the_truth_takes_float64_alone() -> None:
    made = operator(4, 3)
    with pytest.raises(TypeError, match="float64"):
        truth.tangents(made, made.A_log[None], *noise(9, 4))


def test_the_truths_phi_is_right_on_both_sides() -> None:
    far, near = torch.linspace(-30, -1, 200).double(), -torch.logspace(-12, -3, 50).double()
    assert_near(truth.phi(far), torch.expm1(far) / far)
    assert_near(truth.phi(near), 1 + near / 2 + near**2 / 6 + near**3 / 24 + near**4 / 120)


def test_nothing_finite_is_asked_of_nan() -> None:
    assert np.isnan(relative(torch.tensor([1.0, torch.nan]), torch.ones(2)))
    assert Finding("error", float("nan"), threshold=at_most(1e-5)).met is False
    assert Finding("error", float("nan")).met is None
    assert Finding("times", np.float64(3), threshold=at_least(3)).met is True
    (line,) = lines([Finding("error", float("nan"), threshold=at_most(1e-5))], judged=True)
    assert line.split() == ["error", "nan", "threshold", "<=", "1e-05", "MISSED"]


def test_their_tile_scan_overflows_where_decays_are_stiff() -> None:
    """The reason for ours: a tile that decays by more than float32's range."""
    u, u_dot = noise(128, 6)
    made = operator(6, 4, a_log=1.0)
    ours = made.pgf_forward(u, u_dot, 128)[1]
    (theirs,) = (part for _, part in rivals.pushed(rivals.tile, made, u, u_dot, 128))
    assert ours.isfinite().all()
    assert not theirs.isfinite().all()


def test_what_is_known_is_not_measured_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def measured(stop_at: str) -> None:
        def measure(cell: Cell, before: Sequence[Row], place: Environment) -> list[Row]:
            if cell.name == stop_at:
                raise KeyboardInterrupt
            asked.append(cell.name)
            return FIG4.measure(cell, before, place)

        run("fig4", replace(FIG4, measure=measure), tmp_path, QUICK)

    with pytest.raises(KeyboardInterrupt):
        measured("100 steps")
    measured("")
    table = (tmp_path / "fig4.csv").read_bytes()
    assert asked == ["50 steps", "100 steps", "real DNA"]
    measured("")
    assert len(asked) == 3
    assert (tmp_path / "fig4.csv").read_bytes() == table


def test_rows_of_another_run_are_not_mixed_in(tmp_path: Path) -> None:
    run("fig4", FIG4, tmp_path, QUICK)
    with pytest.raises(InputError, match=r"fig4\.json: was measured with another settings: name"):
        run("fig4", FIG4, tmp_path, replace(QUICK, threads=1))
    record = json.loads((tmp_path / "fig4.json").read_text())
    record["commit"], record["setup"] = "another", "as it was then"
    (tmp_path / "fig4.json").write_text(json.dumps(record))
    # All is measured: only the figure is drawn anew, and the rows stay that commit's.
    run("fig4", FIG4, tmp_path, QUICK)
    found = json.loads((tmp_path / "fig4.json").read_text())
    assert (found["commit"], found["setup"]) == ("another", "as it was then")
    # Cells of the same names with other settings are others.
    changed = replace(FIG4, cells=lambda quick: [replace(c, settings=c.settings | {"x": 1}) for c in FIG4.cells(quick)])
    with pytest.raises(InputError, match="measured with another cells"):
        run("fig4", changed, tmp_path, QUICK)
    rows = (tmp_path / "fig4.csv").read_text().splitlines()
    (tmp_path / "fig4.csv").write_text("\n".join(rows[:3]) + "\n")
    with pytest.raises(InputError, match="another commit"):
        run("fig4", FIG4, tmp_path, QUICK)
    (tmp_path / "fig4.json").write_text(json.dumps({key: found[key] for key in found if key != "cells"}))
    with pytest.raises(InputError, match=r"fig4\.json: without 'cells', from an earlier version"):
        run("fig4", FIG4, tmp_path, QUICK)
    (tmp_path / "fig4.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        run("fig4", FIG4, tmp_path, QUICK)


def test_what_would_take_too_much_is_skipped_and_says_so() -> None:
    settings = {"contender": "autograd", "d_model": 256, "d_state": 16}
    row = {**settings, "length": 10_000, "status": "measured", "why": "", "seconds": 40.0}

    def measured(length: int, *before: Row) -> Row:
        (found,) = costs.measure(Cell("", settings | {"length": length}), before, Environment("no", 1))
        return found

    large = measured(100_000, row | {"extra_bytes": 2 * 2**30})
    assert large["status"] == "skipped"
    assert large["why"] == "predicted 20 GiB at 100,000, limit 12 GiB"
    slow = measured(100_000, row | {"extra_bytes": 2**20})
    assert slow["why"] == "predicted 400 s at 100,000, limit 300 s"
    larger = measured(200_000, row | {"extra_bytes": 2**20}, slow)
    assert larger["why"] == slow["why"]


def add(a: int, b: int) -> dict[str, int]:
    return {"sum": a + b}


@pytest.mark.slow
def test_a_process_of_its_own_answers_or_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    assert alone(add, {"a": 1, "b": 2}) == {"sum": 3}
    with pytest.raises(WorkerError, match="ended with 1: TypeError") as error:
        alone(add, {"a": 1})
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_cost_is_the_runs_own(tmp_path: Path) -> None:
    place = Environment("cpu", 1)
    task = {"contender": "autograd", "length": 300, "d_model": 64, "d_state": 16, "again": 1}
    found = place.alone(costs.contenders_cost, task)
    # The recurrence keeps several arrays of (length, channels, states).
    array = 300 * 64 * 16 * 4
    assert 3 * array < found["temporary_bytes"] < 30 * array
    assert found["input_output_bytes"] == 3 * 300 * 64 * 4


def test_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    done = benchmark("paper", "fig4", "--quick", "-o", folder)
    assert done.code == 0
    assert "fig4: the ghost pulse" in done.out
    assert str(folder / "fig4.html") in done.out
    assert "MISSED" not in done.out  # nothing is judged
    refused = benchmark("paper", "fig9", "-o", tmp_path)
    assert refused.code == 1
    assert "fig9: expected all or one of fig1, fig2" in refused.err
    refused = benchmark("paper", "fig4", "-o", folder / "fig4.html")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "fig4.html: cannot be written" in refused.err
