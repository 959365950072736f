"""Tasks ask what they say, runs repeat themselves, and both commands run."""

from functools import partial
from itertools import pairwise, permutations
from math import prod
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from commands import benchmark
from laws import assert_near

from benchmarks.learning import UNKNOWN, outputs
from benchmarks.recurrent import n_weights
from benchmarks.series.data import SeriesError, fresh, planted, read_ts, split
from benchmarks.series.learn import Change, build, derivatives
from benchmarks.series.learn import Run as SeriesRun
from benchmarks.series.learn import learn as learn_series
from benchmarks.tracking.experiments import EXPERIMENTS
from benchmarks.tracking.learn import Run, last_outputs, learn
from benchmarks.tracking.learn import build as tracking_model
from benchmarks.tracking.tasks import TASKS


@pytest.fixture(autouse=True)
def unpictured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no browser here")

    monkeypatch.setattr(go.Figure, "write_image", refuse)


def answer(name: str, tokens: list[int]) -> int:
    """Say what the task asks for, from its definition."""
    if name == "parity":
        return tokens.count(1) % 2
    if name == "even-pairs":
        changes = sum(a != b for a, b in pairwise(tokens))
        return int(changes % 2 == 0)
    if name == "cycle-navigation":
        return (tokens.count(1) - tokens.count(2)) % 5
    signs = {5: "+", 6: "-", 7: "*"}
    text = "".join(signs.get(token, str(token)) for token in tokens[:-1])
    products = [part.split("*") for part in text.replace("-", "+-").split("+")]
    return sum(prod(map(int, product)) for product in products) % 5


@pytest.mark.parametrize("name", ["parity", "even-pairs", "cycle-navigation", "modular-arithmetic"])
@pytest.mark.parametrize("length", [2, 3, 4, 9, 40])
def test_the_last_answer_is_the_tasks(name: str, length: int) -> None:
    tokens, labels = TASKS[name].sample(np.random.default_rng(1), 200, length)
    assert tokens.shape == labels.shape
    assert tokens.shape[1] - length in ({0, 1} if name == "modular-arithmetic" else {0})
    assert (labels[:, :-1] == UNKNOWN).all()
    assert labels[:, -1].tolist() == [answer(name, row.tolist()) for row in tokens]
    assert set(labels[:, -1]) <= set(range(TASKS[name].n_labels))
    assert set(tokens.flat) <= set(range(TASKS[name].n_tokens))


@pytest.mark.parametrize(("name", "order"), [("A5", 60), ("S5", 120)])
def test_a_word_problem_is_its_groups(name: str, order: int) -> None:
    task = TASKS[name]
    assert task.n_labels == order
    tokens, labels = task.sample(np.random.default_rng(1), 300, 60)
    # Two generators make the whole group, and what follows depends on the element and the next
    # generator alone, by a permutation of the elements.
    assert set(labels.flat) == set(range(order))
    moves: dict[tuple[int, int], int] = {}
    for word, elements in zip(tokens, labels, strict=True):
        for t in range(1, len(word)):
            step = int(elements[t - 1]), int(word[t])
            assert moves.setdefault(step, int(elements[t])) == elements[t]
    for generator in range(2):
        assert len({moves[e, generator] for e in range(order)}) == order


SMALL = {
    "width": 16,
    "heads": 2,
    "d_state": 4,
    "n_maps": 4,
    "steps": 3,
    "batch": 4,
    "longest": 6,
    "held_out": (6, 12),
    "very_long": 20,
    "sequences": (32, 32, 4),
    "every": 2,
}


@pytest.mark.parametrize("kind", ["maps_only", "pd_ssm", "mamba"])
def test_a_run_repeats_itself(kind: str) -> None:
    found = [learn(Run("parity", kind, 1, **SMALL)) for _ in range(2)]  # type: ignore[arg-type]
    assert [point[0] for point in found[0].curve] == [0, 2, 3]
    assert found[0].curve[1:] == found[1].curve[1:]  # the first loss is NaN
    assert (found[0].test, found[0].very_long) == (found[1].test, found[1].very_long)
    assert 0 <= found[0].test <= 1


def test_long_sequences_are_read_in_tiles() -> None:
    task = TASKS["events"]
    stack = tracking_model(Run("events", "pd_ssm", 1), task)
    tokens = torch.from_numpy(task.sample(np.random.default_rng(1), 3, 1_100)[0])
    with torch.no_grad():
        assert_near(last_outputs(stack, tokens, task.n_tokens), outputs(stack, tokens, task.n_tokens)[:, -1:])


@pytest.mark.slow
def test_every_task_runs(tmp_path: Path) -> None:
    done = benchmark("state-tracking", "all", "--quick", "-o", tmp_path)
    assert done.code == 0, done.err
    for name in EXPERIMENTS:
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert set(table.kind) == {"maps_only", "pd_ssm", "mamba"}
        assert table.test.notna().sum() == 3
    refused = benchmark("state-tracking", "A6", "-o", tmp_path)
    assert refused.code == 1
    assert "A6: expected all or one of parity" in refused.err


# Long series


def test_planted_motifs_are_far_apart_and_the_first_one_is_the_class() -> None:
    series = planted(40, 3_000, seed=1)
    halves = series.x.reshape(40, 3_000, 2, 3).mean(-1)
    kernel = np.hanning(32)
    for i in range(40):
        peaks = [int(np.convolve(halves[i, :, half], kernel, "same").argmax()) for half in (0, 1)]
        assert abs(peaks[0] - peaks[1]) > 900
        assert (peaks[1] < peaks[0]) == bool(series.labels[i])


def test_the_class_of_three_motifs_is_whether_their_order_is_a_rotation() -> None:
    series = planted(60, 3_000, seed=1, n_motifs=3)
    pairs = series.x.reshape(60, 3_000, 3, 2).mean(-1)
    orders = np.stack(
        [np.apply_along_axis(np.convolve, 1, pairs[..., i], np.hanning(32), "same").argmax(1) for i in range(3)]
    )
    first = orders.argsort(0)
    assert {tuple(order) for order in first.T.tolist()} == set(permutations(range(3)))
    rotated = (np.diff(np.vstack([first, first[:1]]), axis=0) % 3 == 1).all(0)
    assert (rotated == (series.labels == 0)).all()


def test_derivatives_in_tiles_are_whole_series_autograds() -> None:
    run = SeriesRun("mamba", 1, width=8)
    series = planted(3, 1_100, seed=2)
    stack = build(run, 6, 2).double()
    x, labels = torch.from_numpy(series.x).double(), torch.from_numpy(series.labels)
    loss, bars = derivatives(stack, x, labels)
    outputs, _ = stack(x, stack.begin(3))
    expected = torch.nn.functional.cross_entropy(outputs.mean(1), labels)
    assert_near(loss, expected)
    assert_near(list(bars), list(torch.autograd.grad(expected, list(stack.parameters()))))


def test_a_gradient_that_is_not_finite_ends_a_run_and_is_a_row() -> None:
    found = learn(Run("parity", "mamba", 1, **SMALL | {"rate": 1e30, "steps": 20}))  # type: ignore[arg-type]
    assert "gradient's norm is" in found.failure
    assert 0 <= found.test <= 1
    run = SeriesRun("mamba", 1, width=8, d_state=8, lengths=(256,), rate=1e30, batch=2)
    answers = learn_series(run, partial(fresh, 2), planted(4, 256, 1), planted(4, 256, 2))
    assert "gradient's norm is" in answers.failure
    assert 0 <= answers.test <= 1


@pytest.mark.parametrize("task", TASKS)
def test_kinds_have_equal_weights(task: str) -> None:
    runs = [Run(**cell.settings) for cell in EXPERIMENTS[task].cells(False)]
    with torch.device("meta"):
        counts = [n_weights(tracking_model(run, TASKS[task])) for run in runs if run.seed == 1]
    assert max(counts) <= 1.02 * min(counts)


def test_kinds_have_equal_weights_on_series() -> None:
    with torch.device("meta"):
        counts = [n_weights(build(SeriesRun(kind, 1), 6, 2)) for kind in ("pd_ssm", "mamba")]
    assert max(counts) <= 1.02 * min(counts)


TS = """# a comment
@problemName Two
@dimensions 2
@classLabel true a b
@data
1,2,3:4,5,6:b
7,8,9:1,1,1:a
"""


def test_a_ts_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "Two_TRAIN.ts"
    path.write_text(TS)
    series = read_ts([path, path])
    assert series.x.shape == (4, 3, 2)
    assert series.x[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert series.labels.tolist() == [1, 0, 1, 0]
    assert series.classes == ("a", "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TS.replace("@data\n", ""), "there is no @data line"),
        (TS.replace("7,8,9", "7,8"), r":7: expected numbers, as many in every dimension"),
        (TS.replace("7,8,9:1,1,1", "7,8:1,1"), r":7: 2 steps of 2 dimensions, expected 3 of 2"),
        (TS.replace("7,8", "7,x"), r":7: expected numbers"),
        (TS.replace("7,8", "7,?"), r":7: a value is missing"),
        (TS.replace(":a\n", ":b\n"), "1 classes, expected at least 2"),
        ("@data\n\x00", r":2: "),
    ],
)
def test_a_ts_file_that_is_not_one(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "Two_TRAIN.ts"
    path.write_text(text)
    with pytest.raises(SeriesError, match=said):
        read_ts([path])
    done = benchmark("long-series", path, "--quick", "-o", tmp_path)
    assert done.code == 1
    assert done.err.count("\n") == 1


def test_parts_share_no_case_and_the_first_sets_the_scale() -> None:
    series = planted(40, 200, seed=1)
    parts = split(series, 7)
    assert [len(part) for part in parts] == [28, 6, 6]
    assert abs(float(parts[0].x.mean())) < 1e-5
    assert abs(float(parts[0].x.std()) - 1) < 1e-3


def test_ablations_run(tmp_path: Path) -> None:
    done = benchmark("long-series", "--ablations", "--quick", "-o", tmp_path)
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "long-series-ablations.csv")
    assert set(table.without) == {change or "nothing" for change in get_args(Change)}
    assert table.test.between(0, 1).all()


def test_long_series_runs(tmp_path: Path) -> None:
    done = benchmark("long-series", "--quick", "-o", tmp_path)
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "long-series-of-2.csv")
    assert set(table.what) == {"step", "curve", "answer"}
    assert set(table.kind) == {"pd_ssm", "mamba"}
