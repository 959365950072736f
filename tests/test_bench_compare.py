"""A comparison of two runs marks what changed, and nothing that may be noise."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, benchmark

from benchmarks.speed.compare import compare, ratio_of, read_results
from benchmarks.speed.run import FORMAT

COMMITTED = ROOT / "benchmarks/results/speed/cpu.json"
RELEASES = ROOT / "benchmarks/results/releases"

Document = dict[str, Any]
Change = Callable[[Document], object]


def timing(*seconds: float, **sizes: int) -> Document:
    return {"length": 128, "threads": 2, "seconds": list(seconds), "extra_bytes": 2**20} | sizes


def measure(name: str, *values: float, bar: str | None = None, met: bool | None = None) -> Document:
    return {"name": name, "unit": "x", "values": list(values), "bar": bar, "met": met}


def document() -> Document:
    """Return a document of one row, its rounds 10 % apart."""
    return {
        "format": FORMAT,
        "measured": "2026-11-22 10:37 UTC",
        "machine": {"cpu": "Xeon", "cores": 2, "system": "Linux", "device": "cpu"},
        "versions": {"genoscan": "0.1.0", "torch": "2.13.0"},
        "commit": "0123456789abcdef",
        "settings": {"tile": 1024, "shape": "128x6", "weights": "aa"},
        "rows": {
            "forward": {
                "title": "adjoint against forward",
                "status": "measured",
                "contenders": {"genoscan": timing(1.0, 1.05, 1.1), "forward": timing(0.5, 0.55)},
                "measures": [
                    measure("time, of forward's", 2.0, 2.1, 2.2, bar="<= 3.6", met=True),
                    measure("speed", 10.0, 11.0),
                    measure("memory", 4.0),
                ],
            }
        },
    }


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., list[str]]:
    def compared(new: Change = lambda _document: None, old: Change = lambda _document: None) -> list[str]:
        """Return the lines of a comparison of the document with itself after changes."""
        paths = []
        for name, change in (("old", old), ("new", new)):
            content = document()
            change(content)
            paths.append(tmp_path / f"{name}.json")
            paths[-1].write_text(json.dumps(content))
        return compare(*map(read_results, paths)).replace(f"{tmp_path}/", "").splitlines()

    return compared


def line_of(lines: list[str], label: str) -> str:
    (found,) = (line for line in lines if line.startswith(f"  {label}, "))
    return re.sub(" {2,}", " | ", found.strip())


def row(content: Document) -> Document:
    found: Document = content["rows"]["forward"]
    return found


class TestMarks:
    def test_nothing_is_marked_in_the_same_run(self, compared: Callable[..., list[str]]) -> None:
        lines = compared()
        assert lines[-1] == "compared: 5 numbers; beyond the spread of the rounds: none"
        assert line_of(lines, "genoscan") == "genoscan, s | 1.05 | 1.05 | 1.00 | 0.91 to 1.10 | 1.00"
        assert line_of(lines, "memory") == "memory, x | 4 | 4 | 1.00 | one value"

    @pytest.mark.parametrize(
        ("seconds", "mark"),
        [
            ([1.11, 1.2, 1.3], " | slower"),
            ([1.09, 1.2, 1.3], ""),  # one round is within the old range
            ([0.8, 0.9, 0.99], " | faster"),
            ([0.8, 0.9, 1.0], ""),
        ],
    )
    def test_a_time_is_marked_if_the_rounds_do_not_overlap(
        self, seconds: list[float], mark: str, compared: Callable[..., list[str]]
    ) -> None:
        def change(content: Document) -> None:
            row(content)["contenders"]["genoscan"] = timing(*seconds)

        lines = compared(change)
        assert line_of(lines, "genoscan").endswith(f" | 1.00{mark}")
        word = mark.removeprefix(" | ")
        assert lines[-1].endswith(f": 1 {word}" if word else ": none")

    @pytest.mark.parametrize(
        ("bar", "values", "mark"),
        [
            ("<= 3.6", [3.0, 3.1], "worse"),
            ("<= 3.6", [1.0, 1.1], "better"),
            (">= 1.5", [3.0, 3.1], "better"),
            (">= 1.5", [1.0, 1.1], "worse"),
            (None, [3.0, 3.1], "higher"),
            (None, [1.0, 1.1], "lower"),
        ],
    )
    def test_direction_of_a_measure(
        self, bar: str | None, values: list[float], mark: str, compared: Callable[..., list[str]]
    ) -> None:
        def change(content: Document) -> None:
            row(content)["measures"][0] = measure("time, of forward's", *values, bar=bar)

        assert line_of(compared(change), "time, of forward's").endswith(f" | {mark}")

    @pytest.mark.parametrize(("met", "mark"), [(False, "now MISSED"), (True, "")])
    def test_a_threshold_that_is_missed_now(self, met: bool, mark: str, compared: Callable[..., list[str]]) -> None:
        def change(content: Document) -> None:
            row(content)["measures"][0]["met"] = met

        assert line_of(compared(change), "time, of forward's").endswith(mark or "0.91 to 1.10")

    def test_single_values_have_no_spread(self, compared: Callable[..., list[str]]) -> None:
        def change(content: Document) -> None:
            row(content)["measures"][2]["values"] = [8.0]

        assert line_of(compared(change), "memory") == "memory, x | 4 | 8 | 2.00 | one value"

    def test_no_ratio_of_zero(self) -> None:
        assert ratio_of([0.0], [1.0]) is None
        assert ratio_of([1.0], [-1.0]) is None

    def test_range_of_a_ratio(self) -> None:
        found = ratio_of([1.0, 2.0, 4.0], [2.0, 3.0, 8.0])
        assert found is not None
        assert (found.median, found.lowest, found.highest) == (1.5, 0.5, 8.0)


class TestConditions:
    def slower(self, content: Document) -> None:
        row(content)["contenders"]["genoscan"] = timing(10.0, 10.5)
        row(content)["measures"][0]["values"] = [20.0, 21.0]

    def test_another_machine(self, compared: Callable[..., list[str]]) -> None:
        """Its seconds are shown without a mark; ratios of programs on one machine are marked."""

        def change(content: Document) -> None:
            self.slower(content)
            content["machine"]["cpu"] = "EPYC"
            row(content)["measures"][1] |= {"values": [1.0, 2.0], "unit": "bp/s"}

        lines = compared(change)
        assert line_of(lines, "speed").endswith("other machine")
        assert "other machine: cpu Xeon, now EPYC; seconds are not marked" in lines[2]
        assert line_of(lines, "genoscan").endswith(" | 9.76 | 9.09 to 10.5 | 1.00 | other machine")
        assert line_of(lines, "time, of forward's").endswith("worse")
        assert lines[-1].endswith(": 1 worse")

    def test_another_tile_is_stated(self, compared: Callable[..., list[str]]) -> None:
        def change(content: Document) -> None:
            self.slower(content)
            content["settings"] |= {"tile": 4096, "weights": "bb"}

        lines = compared(change)
        assert lines[2] == "other settings: tile 1,024, now 4,096, weights"
        assert lines[-1].endswith(": 1 slower, 1 worse")

    def test_a_model_of_another_size(self, compared: Callable[..., list[str]]) -> None:
        def change(content: Document) -> None:
            self.slower(content)
            content["settings"]["shape"] = "256x16"

        lines = compared(change)
        assert lines[2] == "other settings: shape 128x6, now 256x16"
        assert line_of(lines, "genoscan").endswith("other shape")
        assert line_of(lines, "speed").endswith("other shape")
        assert lines[-1].endswith(": none")

    def test_another_length(self, compared: Callable[..., list[str]]) -> None:
        def change(content: Document) -> None:
            row(content)["contenders"]["genoscan"] = timing(10.0, 10.5, length=256)

        lines = compared(change)
        assert line_of(lines, "genoscan").endswith("other length")
        assert line_of(lines, "speed").endswith("other length")  # of the same row
        assert line_of(lines, "forward").endswith("1.00")

    def test_versions_and_settings_in_one_file_only(self, compared: Callable[..., list[str]]) -> None:
        def change(content: Document) -> None:
            content["versions"]["torch"] = "2.14.0"
            content["settings"]["kernels"] = "auto"
            content["machine"]["system"] = "Linux-7"

        assert compared(change)[2:4] == [
            "other versions: torch 2.13.0, now 2.14.0, system Linux, now Linux-7",
            "settings in one file only, not compared: kernels",
        ]

    @pytest.mark.parametrize(("rounds", "chance"), [(5, "1 of 126"), (2, "1 of 10")])
    def test_chance_marks(self, rounds: int, chance: str, compared: Callable[..., list[str]]) -> None:
        """Of all orders of the rounds of equal programs, two have none of one between those of the other."""
        lines = compared(
            lambda content: content["settings"].update(rounds=rounds),
            lambda content: content["settings"].update(rounds=5),
        )
        (line,) = (line for line in lines if line.startswith("rounds: "))
        assert line == f"rounds: 5 and {rounds}; equal programs are marked by chance in {chance} comparisons"

    def test_no_chance_marks_of_single_values(self, compared: Callable[..., list[str]]) -> None:
        def change(content: Document) -> None:
            content["settings"]["rounds"] = 1

        assert not [line for line in compared(change, change) if line.startswith("rounds: ")]


class TestRows:
    def test_rows_in_one_file_only(self, compared: Callable[..., list[str]]) -> None:
        def old(content: Document) -> None:
            content["rows"] |= {"scan": row(content), "threads": {"title": "", "status": "skipped", "why": "one core"}}

        def new(content: Document) -> None:
            content["rows"] |= {"blocks": row(content), "threads": row(content)}

        lines = compared(new, old)
        assert lines[2:5] == ["not measured in old.json: threads", "only in old.json: scan", "only in new.json: blocks"]
        assert [line for line in lines if line.endswith("forward")] == ["forward: adjoint against forward"]

    def test_contenders_and_measures_in_one_file_only(self, compared: Callable[..., list[str]]) -> None:
        def change(content: Document) -> None:
            contenders, measures = row(content)["contenders"], row(content)["measures"]
            contenders["mambapy"] = contenders.pop("forward")
            measures[1]["name"] = "bases a second"

        lines = compared(change)
        assert line_of(lines, "mambapy") == "mambapy, s | 0.525 | only in new"
        assert line_of(lines, "forward") == "forward, s | 0.525 | only in old"
        assert line_of(lines, "bases a second") == "bases a second, x | 10.5 | only in new"
        assert line_of(lines, "speed") == "speed, x | 10.5 | only in old"
        assert lines[-1].startswith("compared: 3 numbers;")

    @pytest.mark.parametrize("seconds", [[], [0.0], ["x"], None])
    def test_a_row_that_cannot_be_read(self, seconds: Any, compared: Callable[..., list[str]]) -> None:
        def change(content: Document) -> None:
            content["rows"]["scan"] = {**row(content), "contenders": {"exp": timing() | {"seconds": seconds}}}

        lines = compared(old=change)
        assert lines[2].startswith("old.json: row scan is left out: contenders.exp.seconds")
        assert line_of(lines, "genoscan")


class TestFiles:
    def test_the_committed_file(self) -> None:
        """It lacks settings that are recorded now."""
        results = read_results(COMMITTED)
        assert not results.unread
        assert not results.missing
        told = compare(results, results)
        numbers = sum(len(one.contenders) + len(one.measures) for one in results.rows.values())
        assert f"\ncompared: {numbers} numbers; beyond the spread of the rounds: none" in told

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "file not found"),
            ("{", "not JSON: "),
            ('{"format": Infinity}', "not JSON: found Infinity"),
            ("[]", "the file: Input should be "),
            ('{"format": "genoscan-gpu/1"}', 'format is "genoscan-gpu/1": '),
        ],
    )
    def test_other_files(self, text: str | None, said: str, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        if text is not None:
            path.write_text(text)
        done = benchmark("compare", COMMITTED, path)
        assert done.code == 1
        assert done.err.startswith(f"benchmarks: error: {path}: {said}")
        assert done.err.count("\n") == 1

    def test_command(self) -> None:
        done = benchmark("compare", COMMITTED, COMMITTED)
        assert done.code == 0, done.err
        assert done.out.startswith(f"old: {COMMITTED}, measured 2026")


def test_every_release_has_its_numbers() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (\S+?), (.*)$", text, re.MULTILINE)
    assert headings
    released = {version for version, date in headings if date != "unreleased"}
    assert {path.stem for path in RELEASES.glob("*.json")} == released
    for version in released:
        assert read_results(RELEASES / f"{version}.json").document.versions["genoscan"] == version
