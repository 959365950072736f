"""Do verify and the tests notice small faults in the source?  See mutation/."""

import ast
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from mutation.groups import EQUIVALENT, GROUPS, TESTS, chosen, sources
from mutation.operators import OPERATORS, edits
from mutation.run import BAR, ROOT, run, share_settled, table

FEWEST = 8
RESULTS = Path(__file__).with_name("mutation") / "results.json"
SEED = 1

SAMPLE = '''
def f(start, end: int = 2, *, x: "a + b" = -1) -> "c - d":
    """Left alone: 1 + 2."""
    if start < end and x:
        raise ValueError(start + end)
    assert start - end
    prefetch(start + 1)
    x += 3
    g(x, f"{start + end}")
    return x[start:end, 0] * 4
'''


def test_operators_make_the_faults_that_they_say() -> None:
    faults = [edit.mutant("sample.py", SAMPLE) for edit in edits(SAMPLE)]
    made = {(fault.operator, fault.before, fault.after) for fault in faults}
    signature = 'def f(start, end: int = 2, *, x: "a + b" = -1) -> "c - d":'
    condition, result = "if start < end and x:", "return x[start:end, 0] * 4"
    assert made == {
        ("sign", signature, signature.replace("-1", "1")),
        ("off by one", signature, signature.replace("-1", "-2")),
        ("off by one", condition, "if start <= end and x:"),
        ("drop", condition, "if x:"),
        ("drop", condition, "if start < end :"),
        ("sign", "x += 3", "x -= 3"),
        ("drop", "x += 3", "pass"),
        ("drop", 'g(x, f"{start + end}")', "pass"),
        ("off by one", result, "return x[start:(end) + 1, 0] * 4"),
        ("off by one", result, "return x[start:end, 1] * 4"),
        ("off by one", result, "return x[start:end, 0] * 5"),
        ("swap", result, "return x[0, start:end] * 4"),
        ("drop", result, "return x[start:end, 0]"),
        ("drop", result, "return 4"),
    }


def test_chosen_mutants_compile_and_differ_from_the_source() -> None:
    made = list(chosen(ROOT, SEED))
    assert list(islice(chosen(ROOT, SEED), 12)) == made[:12]
    assert len({mutant for _, mutant in made}) == len(made)
    per_group = Counter(group for group, _ in made)
    assert all(per_group[group] >= FEWEST for group in GROUPS)
    assert len({mutant.operator for _, mutant in made}) == len(OPERATORS)
    for _, mutant in made:
        source = (ROOT / mutant.file).read_text()
        fault = ast.parse(mutant.apply(source))
        assert ast.dump(fault) != ast.dump(ast.parse(source)), mutant


def test_every_source_has_tests_that_answer_for_it() -> None:
    for group in GROUPS:
        for file in sources(ROOT, group):
            assert any(file.startswith(prefix) for prefix in TESTS), file
    for name in {name for names in TESTS.values() for name in names}:
        assert (ROOT / "tests" / f"test_{name}.py").exists(), name


def test_equivalent_mutants_are_of_the_present_source() -> None:
    for file, before, _ in EQUIVALENT:
        assert before in " ".join((ROOT / file).read_text().split()), before


def test_recorded_run_caught_enough() -> None:
    rows = json.loads(RESULTS.read_text())["mutants"]
    per_group = Counter(row["group"] for row in rows)
    assert all(per_group[group] >= FEWEST for group in GROUPS)
    assert share_settled(rows) >= BAR, table(rows)


@pytest.mark.slow
def test_faults_are_caught() -> None:
    """About an hour; what build/mutation.json holds is not run again."""
    rows = run(SEED, ROOT / "build" / "mutation.json")
    assert share_settled(rows) >= BAR, table(rows)
