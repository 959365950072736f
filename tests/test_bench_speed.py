"""The benchmark measures what it says, on what it says, and loses nothing it knows."""

import io
import json
import mmap
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Outcome, bases, benchmark, elsewhere, tiny_model, write_fasta
from laws import assert_near

from benchmarks import machine
from benchmarks.alone import WorkerError
from benchmarks.speed import blocks, contenders, paper, parity, run, scans, workers
from benchmarks.speed.contenders import CONTENDERS
from benchmarks.speed.figure import figure
from benchmarks.speed.report import digits, row_text, summary
from benchmarks.speed.rows import rows
from benchmarks.speed.sequence import real_bases, shipped_genome
from benchmarks.speed.settings import Settings, Task
from benchmarks.speed.worker import main as work
from benchmarks.speed.worker import serve
from benchmarks.speed.workers import Timing
from genoscan import usage
from genoscan.errors import InputError
from genoscan.model import load_model

CPU = ("mambapy", "transformers", "checkpoint", "forward", "scan", "threads", "tangent", "blocks", "regions")
SOME = ("mambapy", "scan", "regions")
CUDA = ("blocks", "bigwig", "memory", "gibibyte", "autograd", "paper", "kernels")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def settings(model_path: Path) -> Settings:
    return Settings(
        model=str(model_path),
        genome=str(shipped_genome()),
        device="cpu",
        threads=2,
        tile=50,
        slots=None,
        batch=2,
        regions=4,
        rounds=2,
        length=128,
    )


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let rows take no time: the n-th contender needs n seconds, and n MiB.  Return who ran."""
    ran: list[str] = []

    def measure(tasks: Mapping[str, Task], rounds: int, **_options: Any) -> dict[str, Timing]:
        ran.extend(tasks)
        return {
            name: Timing(task, "", 9, 8, n * 2**20, {"bytes": n, "elements": n}, [n] * rounds)
            for n, (name, task) in enumerate(tasks.items(), 1)
        }

    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(run, "_check_parity", lambda *_arguments: {"genoscan": 1e-7})
    return ran


def speed(*arguments: object) -> Outcome:
    return benchmark("speed", *arguments)


def quick(model: Path, output: Path, names: Sequence[str]) -> Outcome:
    only = [word for name in names for word in ("--only", name)]
    return elsewhere("speed", "--quick", "-m", model, "-o", output, *only, package="benchmarks")


@pytest.fixture(scope="module")
def done(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    output = tmp_path_factory.mktemp("bench") / "speed.json"
    return quick(model_path, output, SOME), output


def check_rows(outcome: Outcome, output: Path, names: Sequence[str]) -> None:
    assert outcome.code == 0, outcome.err
    document = json.loads(output.read_text())
    assert document["format"] == run.FORMAT
    assert list(document["rows"]) == list(names)
    for name, row in document["rows"].items():
        assert row["status"] == "measured", name
        for timing in row["contenders"].values():
            assert len(timing["seconds"]) == 2
            assert min(timing["seconds"]) > 0
            assert timing["first_seconds"] > 0
            assert timing["start_seconds"] > 0
        for measure in row["measures"]:
            assert measure["lowest"] <= measure["median"] <= measure["highest"]
            assert measure["met"] is None  # a bar speaks of its own length only


@pytest.mark.slow
@pytest.mark.parametrize("names", [CPU, CUDA], ids=["cpu", "cuda"])
def test_all_rows(names: Sequence[str], model_path: Path, tmp_path: Path) -> None:
    """Every row that can be measured without a GPU, those for one too; two cores needed."""
    here = [name for name in names if name != "kernels"]
    check_rows(quick(model_path, tmp_path / "x.json", here), tmp_path / "x.json", here)


@pytest.mark.slow
class TestQuick:
    """The command as a shell runs it: contenders in processes of their own."""

    def test_rows_are_measured(self, done: tuple[Outcome, Path]) -> None:
        check_rows(*done, SOME)

    def test_what_it_ran_on_is_stated(self, done: tuple[Outcome, Path]) -> None:
        document = json.loads(done[1].read_text())
        assert document["machine"]["cpu"]
        assert document["machine"]["device"] == "cpu"
        assert torch.__version__.startswith(document["versions"]["torch"].partition("+")[0])
        assert document["versions"]["mambapy"] is not None
        assert document["settings"]["model"] == "tiny"
        assert document["settings"]["length"] == 128
        assert document["settings"]["genome"] == "chloroplast.fa"

    def test_all_compute_the_same(self, done: tuple[Outcome, Path]) -> None:
        errors = json.loads(done[1].read_text())["parity"]
        assert set(errors) == {"genoscan", "mambapy"}
        assert max(errors.values()) < 1e-5

    def test_words_and_figure(self, done: tuple[Outcome, Path]) -> None:
        outcome, output = done
        for name in SOME:
            assert f"\n{name}: " in f"\n{outcome.out}"
        assert "\nrows: 3 measured, 0 skipped, 0 failed\n" in outcome.out
        page = output.with_suffix(".html").read_text()
        assert "microseconds a base" in page
        assert str(output.with_suffix(".html")) in outcome.out

    def test_a_whole_file_is_left_as_it_is(self, done: tuple[Outcome, Path], model_path: Path) -> None:
        before = done[1].read_bytes()
        again = quick(model_path, done[1], SOME)
        assert again.code == 0, again.err
        assert again.out == done[0].out
        assert done[1].read_bytes() == before


class TestParity:
    def wrong(self, name: str, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
        genuine = CONTENDERS[name]

        def build(model: Any, settings: Settings) -> Callable[[torch.Tensor], Callable[[], Any]]:
            prepare = genuine.build(model, settings)
            return lambda codes: lambda: factor * prepare(codes)()

        monkeypatch.setitem(CONTENDERS, name, replace(genuine, build=build))

    @pytest.mark.parametrize("factor", [1 + 2e-4, float("nan")])
    @pytest.mark.parametrize("name", ["genoscan", "checkpoint", "forward", "tangent-8"])
    def test_a_wrong_contender_stops_the_run(
        self, name: str, factor: float, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.wrong(name, monkeypatch, factor)
        monkeypatch.setattr(run, "measure", lambda *_a, **_o: pytest.fail("something was timed"))
        only = ("checkpoint", "forward", "tangent")
        with pytest.raises(parity.ParityError, match=f"^{name}: relative error .* expected at most"):
            run.run(settings, tmp_path / "out.json", only=only)
        assert not (tmp_path / "out.json").exists()

    def test_a_contender_that_fails(self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def build(_model: Any, _settings: Settings) -> Any:
            raise RuntimeError("no such thing")

        monkeypatch.setitem(CONTENDERS, "forward", replace(CONTENDERS["forward"], build=build))
        with pytest.raises(parity.ParityError, match=r"^forward: fails on 128 bases: RuntimeError: no"):
            run.run(settings, tmp_path / "out.json", only=["forward"])

    def test_all_compute_the_same(self, settings: Settings) -> None:
        every = {name: row for name, row in rows(settings).items() if not row.cuda}
        errors = run._check_parity(settings, load_model(settings.model), every, lambda _line: None)
        checked = {name for name, contender in CONTENDERS.items() if contender.error}
        assert set(errors) == checked
        assert {"genoscan", "autograd", "checkpoint", "mambapy", "transformers"} < checked
        assert max(errors.values()) < 1e-5

    def test_our_engine_is_always_checked(
        self, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.wrong("genoscan", monkeypatch, 2)
        with pytest.raises(parity.ParityError):
            run.run(settings, tmp_path / "out.json", only=["scan"])

    def test_the_window_is_cut_into_several_tiles(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []
        genuine = CONTENDERS["forward"]

        def build(model: Any, settings: Settings) -> Any:
            seen.append(settings.tile)
            return genuine.build(model, settings)

        monkeypatch.setitem(CONTENDERS, "forward", replace(genuine, build=build))
        whole = replace(settings, tile=4096, length=None)
        only = {"forward": rows(whole)["forward"]}
        run._check_parity(whole, load_model(whole.model), only, lambda _line: None)
        assert seen == [parity.TILE]
        assert parity.LENGTH % parity.TILE


class TestRows:
    @pytest.mark.parametrize(
        ("row", "measure", "bar", "length"),
        [
            ("mambapy", "times faster", ">= 20", 4_096),
            ("mambapy", "memory, of mambapy's", "<= 5", 4_096),
            ("transformers", "times faster", ">= 120", 1_024),
            ("checkpoint", "time, of checkpointing's", "<= 1", 65_536),
            ("checkpoint", "memory, of checkpointing's", "<= 10", 65_536),
            ("forward", "time, of forward's", "<= 3.6", 16_384),
            ("scan", "forward, of exp's time", "<= 0.6", None),
            ("scan", "vjp, of forward's time", "<= 2.5", None),
            ("threads", "times faster", ">= 1.7", None),
            ("tangent", "one, of forward's time", "<= 2.2", None),
            ("tangent", "eight at once, of eight sweeps' time", "<= 0.55", None),
            ("blocks", "time, of Mamba's", "<= 1.8", 16_384),
            ("regions", "times faster", ">= 1.3", None),
            ("bigwig", "bases a second", ">= 500,000", 10_485_760),
            ("memory", "at 10,485,760 bp", "<= 4,096", None),
            ("memory", "growth", "<= 5", None),
            ("gibibyte", "memory", "<= 1,024", 1_048_576),
            ("autograd", "time, of autograd's", "<= 1.6", 131_072),
            ("autograd", "memory, of autograd's", "<= 5", 131_072),
            ("paper", "times faster", ">= 200", 100_000),
            ("kernels", "forward reaches", ">= 50", None),
            ("kernels", "vjp reaches", ">= 50", None),
        ],
    )
    def test_bars(self, row: str, measure: str, bar: str, length: int | None, settings: Settings) -> None:
        found = rows(replace(settings, length=None))[row]
        (each,) = (each for each in found.measures if each.name == measure)
        assert each.threshold is not None
        assert f"{each.threshold.sign} {each.threshold.limit:,g}" == bar
        if length:
            assert {task.length for task in found.tasks.values()} == {length}
        # One tile for all, but where little memory is the question.
        tiles = {task.settings.tile for task in found.tasks.values()}
        assert tiles == ({12} if row == "gibibyte" else {50})

    def test_names_and_devices(self, settings: Settings) -> None:
        every = rows(settings)
        assert tuple(name for name, row in every.items() if "cpu" in row.devices) == CPU
        assert tuple(name for name, row in every.items() if "cuda" in row.devices) == CUDA

    def test_every_contender_is_in_a_row(self, settings: Settings) -> None:
        named = {task.contender for row in rows(settings).values() for task in row.tasks.values()}
        assert named == set(CONTENDERS)

    def timings(self, row: str, settings: Settings, **seconds: list[float]) -> dict[str, Timing]:
        return {
            name: Timing(task, "", 1.0, 1.0, 2**20, {}, seconds.get(name.replace("-", "_"), [1.0]))
            for name, task in rows(settings)[row].tasks.items()
        }

    def values(self, row: str, measure: str, settings: Settings, **seconds: Any) -> list[float]:
        (each,) = (m for m in rows(settings)[row].measures if m.name == measure)
        return each.values(self.timings(row, settings, **seconds))

    def test_times_are_compared_round_by_round(self, settings: Settings) -> None:
        found = self.values("mambapy", "times faster", settings, genoscan=[1.0, 2.0], mambapy=[30.0, 50.0])
        assert found == [30, 25]

    def test_eight_sweeps(self, settings: Settings) -> None:
        name = "eight at once, of eight sweeps' time"
        found = self.values("tangent", name, settings, tangent_8=[4.0], tangent_1=[1.0])
        assert found == [0.5]

    def test_speed(self, settings: Settings) -> None:
        length = 80 * 131_072
        found = self.values("bigwig", "bases a second", replace(settings, length=None), attribute=[10.0])
        assert found == [length / 10]

    def test_growth(self, settings: Settings) -> None:
        row = rows(settings)["memory"]
        timings = self.timings("memory", settings)
        for timing, extra in zip(timings.values(), (100, 103, 102), strict=True):
            timing.extra_bytes = extra
        (growth,) = (m for m in row.measures if m.name == "growth")
        assert growth.values(timings) == [pytest.approx(3)]

    @pytest.mark.parametrize(("exponentials", "share"), [(1e12, 20), (4e9, 50)])
    def test_kernels_are_held_against_the_tighter_limit(
        self, exponentials: float, share: float, settings: Settings
    ) -> None:
        timings = self.timings("kernels", settings, scan_forward=[1.0], copy=[1.0])
        timings["copy"].did = {"bytes": 1e10}
        timings["exp-rate"].did = {"elements": exponentials}
        timings["scan-forward"].did = {"bytes": 2e9, "elements": 2e9}
        (each,) = (m for m in rows(settings)["kernels"].measures if m.name == "forward reaches")
        assert each.values(timings) == [pytest.approx(share)]


class TestResume:
    @pytest.fixture
    def output(self, tmp_path: Path) -> Path:
        return tmp_path / "out.json"

    def test_what_is_known_is_kept_at_once(
        self, settings: Settings, output: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = run.measure

        def killed(tasks: Mapping[str, Task], rounds: int, **options: Any) -> dict[str, Timing]:
            if "exp" in tasks:
                raise KeyboardInterrupt
            return fake(tasks, rounds, **options)

        monkeypatch.setattr(run, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            run.run(settings, output, only=["mambapy", "scan", "regions"])
        assert list(json.loads(output.read_text())["rows"]) == ["mambapy"]
        assert timed == ["genoscan", "mambapy"]

        monkeypatch.setattr(run, "measure", fake)
        timed.clear()
        shown: list[str] = []
        document = run.run(
            settings, output, only=["mambapy", "scan", "regions"], show=lambda name, _row: shown.append(name)
        )
        assert timed == ["exp", "scan-forward", "scan-vjp", "regions-batched", "regions-single"]
        assert shown == ["mambapy", "scan", "regions"]
        assert json.loads(output.read_text()) == document

    def test_rows_one_at_a_time(self, settings: Settings, output: Path, timed: list[str]) -> None:
        for name in ("scan", "forward"):
            run.run(settings, output, only=[name])
        assert set(json.loads(output.read_text())["rows"]) == {"scan", "forward"}
        assert timed == ["exp", "scan-forward", "scan-vjp", "genoscan", "forward"]

    @pytest.mark.parametrize(
        ("change", "said"), [({"tile": 40}, "settings"), ({"rounds": 3}, "settings"), ({"regions": 5}, "settings")]
    )
    def test_other_settings_are_refused(
        self, change: dict[str, int], said: str, settings: Settings, output: Path, timed: list[str]
    ) -> None:
        run.run(settings, output, only=["scan"])
        before = output.read_bytes()
        with pytest.raises(InputError, match=f"measured with another {said}: name another output"):
            run.run(replace(settings, **change), output, only=["scan"])
        assert output.read_bytes() == before

    def test_another_commit_or_version_is_refused(
        self, settings: Settings, output: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run.run(settings, output, only=["scan"])
        versions = machine.versions()
        monkeypatch.setattr(machine, "commit", lambda: "another")
        monkeypatch.setattr(machine, "versions", lambda: versions | {"torch": "9"})
        with pytest.raises(InputError, match="another commit and versions"):
            run.run(settings, output, only=["scan"])

    @pytest.mark.parametrize("text", ["", "[]", '{"format": "genoscan-track/1"}'])
    def test_other_files_are_left_alone(self, text: str, settings: Settings, output: Path, timed: list[str]) -> None:
        output.write_text(text)
        with pytest.raises(InputError, match="is there already"):
            run.run(settings, output, only=["scan"])
        assert output.read_text() == text


class TestMissing:
    def test_a_peer_that_is_not_installed(
        self, settings: Settings, tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genuine = contenders.importlib.util.find_spec  # type: ignore[attr-defined]
        monkeypatch.setattr(
            contenders.importlib.util,  # type: ignore[attr-defined]
            "find_spec",
            lambda name: None if name == "mambapy" else genuine(name),
        )
        output = tmp_path / "out.json"
        document = run.run(settings, output, only=["mambapy", "scan"])
        row = document["rows"]["mambapy"]
        assert row["status"] == "skipped"
        assert row["why"] == 'mambapy not installed: pip install ".[bench]"'
        assert "skipped: mambapy not installed" in row_text("mambapy", row)
        assert summary(document["rows"]) == "rows: 1 measured, 1 skipped, 0 failed"
        assert timed == ["exp", "scan-forward", "scan-vjp"]

        # Installed later, it is no reason to refuse what was measured without it.
        record = json.loads(output.read_text())
        output.write_text(json.dumps(record | {"versions": record["versions"] | {"mambapy": None}}))
        monkeypatch.setattr(contenders.importlib.util, "find_spec", genuine)  # type: ignore[attr-defined]
        again = run.run(settings, output, only=["mambapy", "scan"])
        assert again["rows"]["mambapy"]["status"] == "measured"
        assert timed[3:] == ["genoscan", "mambapy"]

    def test_a_second_core(
        self, settings: Settings, tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "cores", lambda: 1)
        row = run.run(settings, tmp_path / "out.json", only=["threads"])["rows"]["threads"]
        assert (row["status"], row["why"]) == ("skipped", "needs 2 cores, this process may use 1")

    def test_a_device(self, settings: Settings, tmp_path: Path, timed: list[str]) -> None:
        row = run.run(settings, tmp_path / "out.json", only=["kernels"])["rows"]["kernels"]
        assert (row["status"], row["why"]) == ("skipped", "needs a CUDA device: give --device cuda")
        assert timed == []


class TestWorkers:
    @pytest.mark.slow
    def test_an_error_is_told(self, settings: Settings) -> None:
        tasks = {"x": Task("exp-rate", 64, settings)}
        with pytest.raises(WorkerError, match=r"^exp-rate: RuntimeError: .*driver"):
            workers.measure(tasks, 1, report=lambda _line: None)

    def test_an_end_is_told(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workers.sys, "executable", "/bin/false")  # type: ignore[attr-defined]
        with pytest.raises(WorkerError, match=r"^genoscan: its process ended with status 1: it said"):
            workers.measure({"x": Task("genoscan", 64, settings)}, 1, report=lambda _line: None)

    def test_a_failure_is_the_rows_own(
        self, settings: Settings, tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = run.measure

        def measure(tasks: Mapping[str, Task], rounds: int, **options: Any) -> dict[str, Timing]:
            if "mambapy" in tasks:
                raise WorkerError("mambapy: OutOfMemoryError: so many bytes")
            return fake(tasks, rounds, **options)

        monkeypatch.setattr(run, "measure", measure)
        found = run.run(settings, tmp_path / "out.json", only=["mambapy", "scan"])["rows"]
        assert found["mambapy"]["status"] == "failed"
        assert found["mambapy"]["why"] == "mambapy: OutOfMemoryError: so many bytes"
        assert found["scan"]["status"] == "measured"

    def test_a_failed_row_is_an_error_at_the_end(
        self, model_path: Path, tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def measure(*_arguments: Any, **_options: Any) -> dict[str, Timing]:
            raise WorkerError("exp: it went wrong")

        monkeypatch.setattr(run, "measure", measure)
        output = tmp_path / "out.json"
        done = speed("--quick", "-m", model_path, "-o", output, "--only", "scan")
        assert done.code == 1
        assert "failed: exp: it went wrong" in done.out
        assert "rows: 0 measured, 0 skipped, 1 failed" in done.out
        assert done.err.endswith("benchmarks: error: scan: not measured, see above\n")
        assert output.with_suffix(".html").exists()

    @pytest.fixture
    def answers(self, settings: Settings) -> Callable[..., Iterator[dict[str, Any]]]:
        def ask(contender: str, *questions: str) -> Iterator[dict[str, Any]]:
            return serve(Task(contender, 100, settings), iter(questions))

        return ask

    @pytest.mark.parametrize("contender", sorted(set(CONTENDERS) - {"exp-rate"}))
    def test_every_contender_runs(self, contender: str, answers: Callable[..., Iterator[dict[str, Any]]]) -> None:
        ready, first, again = answers(contender, "first\n", "again\n")
        assert set(ready) == {"ready"}
        assert first["seconds"] > 0
        assert set(again) == {"seconds"}
        assert again["seconds"] > 0

    def test_what_was_done_is_counted(self, answers: Callable[..., Iterator[dict[str, Any]]]) -> None:
        # Two tiles of 50; 32 channels of 4 states.
        _, first = answers("scan-forward", "first")
        assert first["did"] == {"elements": 100 * 32 * 4, "bytes": 4 * 100 * (3 * 32 + 2 * 4)}
        _, first = answers("scan-vjp", "first")
        assert first["did"] == {"elements": 100 * 32 * 4, "bytes": 4 * 100 * (5 * 32 + 4 * 4)}
        _, first = answers("exp", "first")
        assert first["did"]["elements"] >= 100 * 32 * 4
        _, first = answers("regions-batched", "first")
        assert first["did"] == {"scored_bases": 100, "regions": 1}

    def test_the_task_travels_in_a_line(self, settings: Settings) -> None:
        task = Task("genoscan", 100, replace(settings, slots=3))
        answers = io.StringIO()
        assert Task.load(task.dump()) == task
        work(io.StringIO(f"{task.dump()}\nfirst\nagain\n"), answers)
        lines = [json.loads(line) for line in answers.getvalue().splitlines()]
        assert [sorted(line) for line in lines] == [["ready"], ["did", "extra_bytes", "seconds"], ["seconds"]]

    def test_rivals_may_wait_as_they_like(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both policies are tried on two threads, and the quicker one is measured."""
        policies: list[str] = []

        class Fake:
            started = ready = 0.0

            def __init__(self, task: Task, waits: str) -> None:
                self.task, self.waits = task, waits
                policies.append(waits)

            def __enter__(self) -> "Fake":
                return self

            def __exit__(self, *_error: object) -> None:
                pass

            def answer(self) -> dict[str, Any]:
                return {"ready": 1.0}

            def ask(self, question: str) -> dict[str, Any]:
                seconds = 1.0 if self.waits == "PASSIVE" else 0.5
                return {"seconds": seconds, "extra_bytes": 1, "did": {}}

        monkeypatch.setattr(workers, "_worker", Fake)
        tasks = {name: Task(name, 64, settings) for name in ("genoscan", "mambapy", "checkpoint")}
        found = workers.measure(tasks, 2, report=lambda _line: None)
        assert policies == ["PASSIVE", "PASSIVE", "not set", "PASSIVE", "not set"]
        assert [found[name].waits for name in tasks] == ["PASSIVE", "not set", "not set"]
        assert found["mambapy"].seconds == [0.5, 0.5]
        assert found["genoscan"].seconds == [1.0, 1.0]
        policies.clear()
        single = replace(settings, threads=1)
        workers.measure({"x": Task("mambapy", 64, single)}, 1, report=lambda _line: None)
        assert policies == ["PASSIVE"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts the peak")
def test_memory_is_the_peak_of_what_ran() -> None:
    def fill(size: int) -> None:
        """Take memory of the kernel's own, which no allocator keeps, and give it back."""
        np.frombuffer(mmap.mmap(-1, size), np.uint8).fill(1)

    fill(2**27)
    before = usage.in_use("cpu")
    usage.reset_peak("cpu")
    fill(2**26)
    assert usage.peak("cpu") - before == pytest.approx(2**26, rel=0.1)


class TestSequence:
    def test_real_bases_are_the_genomes(self) -> None:
        path = shipped_genome()
        letters = "".join(path.read_text().splitlines()[1:4])
        assert "".join("ACGT"[code] for code in real_bases(path, 120)) == letters[:120]

    def test_a_long_window_goes_on_elsewhere(self, tmp_path: Path) -> None:
        path = write_fasta(tmp_path / "x.fa", {"a": bases(700, 1), "b": "NNN" + bases(500, 2)})
        found = real_bases(path, 3_000)
        assert len(found) == 3_000
        assert found.max() == 3
        first, second = found[:1200], found[1200:2400]
        assert (np.roll(first, -10_007) == second).all()
        assert (first != second).any()

    def test_too_few(self, tmp_path: Path) -> None:
        path = write_fasta(tmp_path / "x.fa", {"a": "N" * 5_000 + "ACGT"})
        with pytest.raises(InputError, match="holds 4 A, C, G, T, expected at least 1,000"):
            real_bases(path, 3_000)


class TestScans:
    def test_the_scan_reads_what_the_block_gives_it(self, model_path: Path) -> None:
        """The rest of the block around the scan, in plain torch, is the block."""
        model = load_model(model_path)
        codes = torch.from_numpy(real_bases(shipped_genome(), 90))[None]
        inputs = scans.scan_inputs(model, codes)
        y, _ = scans.scan_function(model)(inputs)
        block = model.stack.layers[0]
        x = model.stack.embed(model.table()[codes.long()])
        _, z = block.in_proj(block.norm(x)).chunk(2, -1)
        expected, _ = block(x, block.begin(1))
        assert_near(x + block.out_proj(y * torch.nn.functional.silu(z)), expected)


class TestPaper:
    def test_their_tiles_are_their_recurrence(self, settings: Settings) -> None:
        codes = torch.zeros(1, 200, dtype=torch.uint8)
        found = paper.tile_scan(load_model(settings.model), settings)(codes)()
        assert found.shape == (200, paper.CHANNELS)
        assert_near(found.double(), paper.tile_scan_truth(200), torch.float32)

    def test_ours_is_the_whole_derivative(self, settings: Settings) -> None:
        codes = torch.zeros(1, 130, dtype=torch.uint8)
        found = paper.layer_adjoint(load_model(settings.model), settings)(codes)()
        assert_near(found.double(), paper.layer_adjoint_truth(130), torch.float32)


class TestBlocks:
    @pytest.mark.parametrize("kind", ["mamba", "pd_ssm"])
    def test_ours_is_the_whole_derivative(self, kind: str, settings: Settings) -> None:
        codes = torch.zeros(1, 130, dtype=torch.uint8)
        found = blocks.block_adjoint(kind)(load_model(settings.model), settings)(codes)()
        assert_near(found.double(), blocks.block_adjoint_truth(kind, 130), torch.float32)

    def test_multiply_adds_are_counted(self) -> None:
        # in_proj, x_proj, dt_proj, out_proj, four taps, four a state
        mamba = 128 * 512 + 256 * 40 + 8 * 256 + 256 * 128 + 256 * 4 + 4 * 256 * 16
        assert blocks.multiply_adds("mamba") == mamba


class TestReport:
    def test_a_row_in_words(self, settings: Settings, tmp_path: Path, timed: list[str]) -> None:
        own = replace(settings, length=None)
        rows_of = run.run(own, tmp_path / "out.json", only=["forward"])["rows"]
        assert row_text("forward", rows_of["forward"]).splitlines() == [
            "forward: adjoint against a forward pass of the same model",
            "             bases  seconds  lowest to highest  us/base  MiB extra",
            "  genoscan  16,384        1             1 to 1       61        1.0",
            "  forward   16,384        2             2 to 2      122        2.0",
            "  time, of forward's  0.5 x  0.5 to 0.5  threshold <= 3.6  met",
        ]
        assert summary(rows_of) == "rows: 1 measured, 0 skipped, 0 failed; 1 of 1 thresholds met"

    def test_a_missed_bar_is_said(self, settings: Settings, tmp_path: Path, timed: list[str]) -> None:
        own = replace(settings, length=None)
        rows_of = run.run(own, tmp_path / "out.json", only=["mambapy"])["rows"]
        text = row_text("mambapy", rows_of["mambapy"])
        assert re.search(r"times faster +2 x +2 to 2 +threshold >= 20 +MISSED", text)

    @pytest.mark.parametrize(("value", "text"), [(1234567.8, "1,234,568"), (99.51, "99.5"), (0.012345, "0.0123")])
    def test_digits(self, value: float, text: str) -> None:
        assert digits(value) == text

    def test_the_figure_has_every_contender(self, settings: Settings, tmp_path: Path, timed: list[str]) -> None:
        document = run.run(settings, tmp_path / "out.json", only=[*CPU, *CUDA])
        page = figure(document)
        n_timings = sum(len(row.get("contenders", {})) for row in document["rows"].values())
        times = [bar for bar in page.data if bar.type == "bar" and bar.xaxis == "x"]
        assert sum(len(bar.x) for bar in times) == n_timings
        assert {bar.name for bar in times} == {"genoscan", "torch", "other programs"}


class TestCommand:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["-o", "x.csv"], "--output x.csv: expected a name that ends in .json"),
            (["-o", "x.json", "--shape", "256"], "--shape 256: expected WIDTHxLAYERS"),
            (["-o", "x.json", "--rounds", "0"], "--rounds 0: expected at least 1"),
            (["-o", "x.json", "--only", "all"], "--only all: expected one of mambapy, transformers"),
            (["-o", "x.json", "--device", "cuda:99"], "--device cuda:99: torch finds"),
            (["-o", "x.json", "--genome", "no.fa"], "no.fa"),
        ],
    )
    def test_bad_input(
        self, arguments: list[str], said: str, tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        done = speed(*arguments)
        assert done.code == 1
        assert done.err.startswith(f"benchmarks: error: {said}")
        assert done.err.count("\n") == 1

    def test_a_fresh_model_of_a_shape(self, tmp_path: Path, timed: list[str]) -> None:
        output = tmp_path / "out.json"
        for _ in range(2):  # the same weights every time: the second run goes on with the first
            done = speed("--shape", "32x3", "-o", output, "--only", "scan", "--quick")
            assert done.code == 0, done.err
        settings = json.loads(output.read_text())["settings"]
        assert (settings["model"], settings["shape"]) == ("fresh-32x3", "32x3")
        assert timed == ["exp", "scan-forward", "scan-vjp"]

    def test_sizes_override_quick(self, model_path: Path, tmp_path: Path, timed: list[str]) -> None:
        output = tmp_path / "out.json"
        done = speed("--quick", "--tile", 33, "--rounds", 4, "-t", 1, "-m", model_path, "-o", output, "--only", "scan")
        assert done.code == 0, done.err
        settings = json.loads(output.read_text())["settings"]
        chosen = {key: settings[key] for key in ("tile", "rounds", "length", "threads", "slots")}
        assert chosen == {"tile": 33, "rounds": 4, "length": 128, "threads": 1, "slots": None}

    def test_a_comparison_follows(self, model_path: Path, tmp_path: Path, timed: list[str]) -> None:
        old, new = tmp_path / "old.json", tmp_path / "new.json"
        arguments = "--quick", "-m", model_path, "--only", "scan"
        assert speed(*arguments, "-o", old).code == 0
        done = speed(*arguments, "-o", new, "--compare", old)
        assert done.code == 0, done.err
        assert f"\n\nold: {old}, measured " in done.out
        assert "\ncompared: 5 numbers; beyond the spread of the rounds: none\n" in done.out

    def test_a_comparison_with_itself(self, tmp_path: Path, timed: list[str]) -> None:
        done = speed("-o", tmp_path / "x.json", "--compare", tmp_path / "x.json")
        assert (done.code, timed) == (1, [])
        assert "x.json: is the output, expected an earlier file" in done.err

    def test_what_cannot_be_compared_stops_before_anything_is_timed(self, tmp_path: Path, timed: list[str]) -> None:
        (tmp_path / "old.json").write_text("[]")
        done = speed("-o", tmp_path / "x.json", "--compare", tmp_path / "old.json")
        assert (done.code, timed) == (1, [])
        assert "old.json: the file: " in done.err

    def test_settings_say_all(self, settings: Settings) -> None:
        assert all(value is not None for key, value in asdict(settings).items() if key != "slots")
        assert settings.slots_for(101) == 3
        assert replace(settings, slots=2).slots_for(101) == 2
        assert settings.region == 128
        assert replace(settings, length=None).region == 2_114
