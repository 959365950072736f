"""The mechanistic tasks ask what they say, models have equal weights, one learns, and the command runs and resumes."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from commands import benchmark

from benchmarks.learning import UNKNOWN
from benchmarks.mechanistic import axes, experiments, states, summary
from benchmarks.mechanistic.experiments import EXPERIMENTS, QUICK, base_run, kinds
from benchmarks.mechanistic.learn import Mixer, Run, accuracy_without_memory, build, learn, n_weights, width_of
from benchmarks.mechanistic.tasks import MOTIF, N_NOISE, TASKS, Size, facts, n_copied

SIZES = [
    *((name, task.size) for name, task in TASKS.items()),
    ("in-context-recall", Size(64, 32)),
    ("noisy-recall", Size(32, 16, 0.8)),
    ("fuzzy-recall", Size(64, 32)),
    ("selective-copying", Size(64, 32, 0.5)),
]


@pytest.fixture(autouse=True)
def unpictured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no browser here")

    monkeypatch.setattr(go.Figure, "write_image", refuse)


Answers = dict[int, int]
"""The answer at each position that is scored."""


def recalled(tokens: list[int], size: Size) -> Answers:
    """Read pair by pair, and look up keys that occurred before."""
    seen: dict[int, int] = {}
    answers: Answers = {}
    for at in range(0, len(tokens), 2):
        key, value = tokens[at : at + 2]
        if key >= size.vocabulary:
            assert value >= size.vocabulary
            continue
        assert key < size.vocabulary // 2 <= value < size.vocabulary
        if key in seen:
            answers[at] = value
        assert seen.setdefault(key, value) == value
    assert len(tokens) - 2 in answers
    return answers


def recalled_by_motifs(tokens: list[int], size: Size) -> Answers:
    """Split where a value ends and a key begins, and look up keys that occurred before."""
    pad = size.vocabulary - 1
    start = next(i for i, token in enumerate(tokens) if token != pad)
    keyed = [token < pad // 2 for token in tokens]
    seen: dict[tuple[int, ...], list[int]] = {}
    answers: Answers = {}
    at = start
    while at < len(tokens):
        middle = next(i for i in range(at, len(tokens)) if not keyed[i])
        end = next((i for i in range(middle, len(tokens)) if keyed[i]), len(tokens))
        key, value = tuple(tokens[at:middle]), tokens[middle:end]
        assert pad not in (*key, *value)
        assert len(set(key)) == len(key) <= MOTIF
        assert len(set(value)) == len(value) <= MOTIF
        if key in seen:
            answers |= {middle - 1 + i: token for i, token in enumerate(value)}
        assert seen.setdefault(key, value) == value
        at = end
    assert len(tokens) - 2 in answers
    return answers


def copied(tokens: list[int], size: Size) -> Answers:
    """Answer with the tokens before the copy token that are not blank, in order."""
    blank, copy = size.vocabulary - 2, size.vocabulary - 1
    at = tokens.index(copy)
    what = [token for token in tokens[:at] if token != blank]
    assert tokens[at + 1 :] == [blank] * len(what)
    return {at + 1 + i: token for i, token in enumerate(what)}


def compressed(tokens: list[int], size: Size) -> Answers:
    """Answer with every token but the last, which is of its own."""
    assert tokens.index(size.vocabulary - 1) == len(tokens) - 1
    return dict(enumerate(tokens[:-1]))


def memorised(tokens: list[int], size: Size) -> Answers:
    """Answer with the facts at every second position, where the question token is."""
    assert tokens[1::2] == [size.vocabulary - 1] * (len(tokens) // 2)
    return {i + 1: int(facts(size)[tokens[i]]) for i in range(0, len(tokens), 2)}


READERS: dict[str, Callable[[list[int], Size], Answers]] = {
    "in-context-recall": recalled,
    "noisy-recall": recalled,
    "fuzzy-recall": recalled_by_motifs,
    "selective-copying": copied,
    "compression": compressed,
    "memorisation": memorised,
}


@pytest.mark.parametrize(("name", "size"), SIZES)
@pytest.mark.parametrize("part", ["sample", "held_out"])
def test_answers_are_those_of_a_reader(name: str, size: Size, part: str) -> None:
    task = TASKS[name]
    tokens, labels = getattr(task, part)(np.random.default_rng(1), 100, size)
    assert tokens.shape == labels.shape == (100, size.length)
    assert tokens.min() >= 0
    assert tokens.max() < task.n_tokens(size)
    for row, answers in zip(tokens.tolist(), labels, strict=True):
        scored = {int(i): int(answers[i]) for i in np.flatnonzero(answers != UNKNOWN)}
        assert scored == READERS[name](row, size)


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_guessing_is_as_good_as_stated(name: str, size: Size) -> None:
    task = TASKS[name]
    _, labels = task.held_out(np.random.default_rng(1), 2_000, size)
    # The last scored label of each sequence, since those of one sequence may repeat.
    last = [row[row != UNKNOWN][-1] for row in labels]
    counts = np.bincount(np.unique(last, return_inverse=True)[1])
    assert len(counts) == len(task.answers(size))
    assert {int(answer) for row in labels for answer in row[row != UNKNOWN]} <= set(task.answers(size))
    squares = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    freedom = len(counts) - 1
    assert squares < freedom + 4 * (2 * freedom) ** 0.5  # chi-squared, four standard deviations above its mean


def test_the_most_frequent_answer_so_far() -> None:
    size = Size(8, 4)
    tokens = np.array([[0, 2, 1, 3, 1, 3, 0, 2], [0, 3, 0, 3, 1, 2, 1, 2]])
    found = TASKS["in-context-recall"].most_frequent(tokens, size)
    assert found.tolist() == [[2, 2, 2, 2, 2, 3, 3, 2], [2, 3, 3, 3, 3, 3, 3, 2]]
    assert (TASKS["compression"].most_frequent(np.array([[0, 1, 2, 2, 3]]), Size(5, 4)) == 2).all()
    # A sequence of recall has at most eight values, each many times; one of memorisation has none.
    assert 0.25 < accuracy_without_memory(base_run("in-context-recall")) < 0.4
    assert accuracy_without_memory(base_run("memorisation")) == 1 / 127


def test_draws_are_those_of_the_seed_and_differ_between_seeds() -> None:
    for task in TASKS.values():
        first, again, other = (task.sample(np.random.default_rng(seed), 8, task.size) for seed in (1, 1, 2))
        assert all((a == b).all() for a, b in zip(first, again, strict=True))
        assert (first[0] != other[0]).any()


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.8])
def test_the_share_of_noise_in_recall(noise: float) -> None:
    size = Size(128, 16, noise)
    tokens, _ = TASKS["noisy-recall"].sample(np.random.default_rng(1), 2_000, size)
    found = tokens >= size.vocabulary
    assert (found[:, 0::2] == found[:, 1::2]).all()
    assert not found[:, -2:].any()
    assert not found.all(1).any()
    # One pair of 64, and the last, are never replaced.
    assert found.mean() == pytest.approx(noise * 62 / 64, abs=0.005)
    if noise:
        assert set(tokens[found]) == set(range(16, 16 + N_NOISE))


@pytest.mark.parametrize(("length", "noise"), [(64, 0.5), (128, 0.85), (256, 0.95)])
def test_the_share_of_blanks_in_selective_copying(length: int, noise: float) -> None:
    size = Size(length, 16, noise)
    n_read = length - 1 - n_copied(size)
    tokens, _ = TASKS["selective-copying"].sample(np.random.default_rng(1), 2_000, size)
    assert 1 - n_copied(size) / n_read >= noise
    assert 1 - (n_copied(size) + 1) / (n_read - 1) < noise
    # Every position is equally likely to be copied.
    assert (tokens[:, :n_read] != 14).mean(0) == pytest.approx(n_copied(size) / n_read, abs=0.06)


def test_long_keys_are_held_out() -> None:
    task = TASKS["fuzzy-recall"]
    for part, sizes in ((task.sample, {1, 2, 3}), (task.held_out, {3})):
        tokens, _ = part(np.random.default_rng(1), 50, task.size)
        runs = "".join("k" if token < 7 else " " for token in tokens.flat).split()
        assert {len(run) for run in runs} == sizes


def weights_of(run: Run) -> int:
    """Return the number of weights without creating them."""
    with torch.device("meta"):
        return n_weights(Mixer(run, width_of(run)))


@pytest.mark.parametrize("task", TASKS)
def test_models_have_equal_weights(task: str) -> None:
    runs = [replace(base_run(task), kind=kind) for kind in kinds()]
    counts = [weights_of(run) for run in runs]
    assert max(counts) <= 1.02 * min(counts)
    assert counts[0] == pytest.approx(runs[0].weights, rel=0.02)


def test_models_by_size_have_equal_weights() -> None:
    for experiment in axes.EXPERIMENTS.values():
        cells = experiment.cells(False)
        assert len({cell.name for cell in cells}) == len(cells)
        runs = [Run(**cell.settings) for cell in cells]
        # The number of weights depends on that of tokens only.
        by_tokens = {(TASKS[run.task].n_tokens(run.size), run.kind): run for run in runs}
        counts: dict[int, list[int]] = {}
        for (n_tokens, _), run in by_tokens.items():
            counts.setdefault(n_tokens, []).append(weights_of(run))
        for found in counts.values():
            assert len(found) == len(kinds())
            assert max(found) <= 1.02 * min(found)


def test_sizes_differ_from_their_task_in_one_value_and_are_joined_with_it() -> None:
    tables = {}
    for name, experiment in axes.EXPERIMENTS.items():
        task, axis = name.split("-by-")
        runs = [Run(**cell.settings) for cell in experiment.cells(False)]
        assert all(
            replace(run, **{axis: getattr(base_run(task), axis)}, kind="mamba") == base_run(task) for run in runs
        )
        assert all(getattr(run, axis) != getattr(base_run(task), axis) for run in runs)
        tables[name] = pd.DataFrame([asdict(run) | {"test": 0.5} for run in runs])
        tables[task] = pd.DataFrame([asdict(base_run(task)) | {"test": 0.4, "seed": seed} for seed in (1, 2)])
    page = axes.draw_all(tables)
    mamba = [line for line in page.data if line.name == "Mamba"]
    assert [list(line.x) for line in mamba] == [
        [16, 32, 64, 128],
        [64, 128, 256],
        [0, 0.2, 0.4, 0.6, 0.8],
        [16, 32, 64, 128],
        [32, 64, 128],
        [0.5, 0.7, 0.85, 0.95],
    ]
    del tables["selective-copying-by-noise"]
    part = axes.draw_all(tables)
    assert len(part.data) == len(page.data) * 5 // 6
    assert sum(note.text.endswith(": not run") for note in part.layout.annotations) == 1


def test_blocks_have_as_many_states_as_stated() -> None:
    for cell in states.EXPERIMENTS["selective-copying-by-states"].cells(False):
        run = Run(**cell.settings)
        layer = build(run).stack.layers[0]
        found = len(layer.D) if run.kind == "mamba" else layer.size.out_features
        assert found == run.states


def test_compression_reads_the_last_output_alone() -> None:
    model = build(replace(base_run("compression"), **QUICK))
    tokens = torch.randint(15, (3, 32))
    found = model(tokens)
    model.stack.forward, stack = lambda x, carry: (spoilt(stack(x, carry)[0]), carry), model.stack.forward  # type: ignore[method-assign]
    assert torch.equal(model(tokens), found)


def spoilt(outputs: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.full_like(outputs[:, :-1], torch.nan), outputs[:, -1:]], 1)


def tiny(task: str, kind: str, **changes: Any) -> Run:
    return replace(base_run(task), kind=kind, **QUICK | changes)


@pytest.mark.parametrize("kind", kinds())
def test_a_run_repeats_itself(kind: str) -> None:
    found = [learn(tiny("in-context-recall", kind)) for _ in range(2)]
    assert [point[0] for point in found[0].curve] == [0, 1, 2]
    assert found[0].curve[1:] == found[1].curve[1:]
    assert found[0].test == found[1].test
    assert found[0].failure == ""


@pytest.mark.parametrize("kind", ["mamba", "activated"])
def test_a_small_task_is_learnt(kind: str) -> None:
    learnt = learn(
        tiny("memorisation", kind, steps=40, tokens=512, rate=1e-2, every=20, vocabulary=16, sequences=(32, 64))
    )
    assert learnt.curve[0][2] < 0.4
    assert learnt.test > 0.95


def test_training_ends_when_validation_is_all_right() -> None:
    learnt = learn(tiny("memorisation", "mamba", steps=500, tokens=512, rate=1e-2, every=10, vocabulary=16))
    scores = [score for _, _, score in learnt.curve]
    assert scores[-1] == 1
    assert max(scores[:-1]) < 1
    assert learnt.curve[-1][0] < 500


def test_a_run_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(model: Mixer, tokens: torch.Tensor) -> torch.Tensor:
        answers = forward(model, tokens)
        return answers * torch.nan if model.training else answers

    forward = Mixer.forward
    monkeypatch.setattr(Mixer, "forward", diverging)
    cell = EXPERIMENTS["in-context-recall"].cells(True)[0]
    environment = experiments.Environment("cpu", 1, quick=True)
    rows = EXPERIMENTS["in-context-recall"].measure(cell, [], environment)
    assert [row["step"] for row in rows] == [0, 0]
    assert rows[-1]["failure"].startswith("step 1: training: the gradient's norm is nan")
    assert 0 <= rows[-1]["test"] <= 1


def test_the_command_runs_resumes_and_joins_the_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "compression", "memorisation"
    for name in names:
        done = benchmark("mechanistic", name, "--quick", "--threads", "1", "-o", tmp_path)
        assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "mechanistic.csv")
    assert list(table.task) == [name for name in names for _ in kinds()]
    assert list(table.kind) == [*kinds(), *kinds()]
    assert table.failure.isna().all()
    assert (tmp_path / "mechanistic.html").exists()
    # Killed after its first run, it measures the others only.
    path = tmp_path / "compression.csv"
    whole = pd.read_csv(path)
    whole[whole.kind == "mamba"].to_csv(path, index=False)
    measured: list[str] = []
    once = experiments.learn

    def counting(run: Run) -> Any:
        measured.append(run.kind)
        return once(run)

    monkeypatch.setattr(experiments, "learn", counting)
    assert benchmark("mechanistic", "compression", "--quick", "--threads", "1", "-o", tmp_path).code == 0
    assert measured == ["mamba2", "activated", "straight_through"]
    again = pd.read_csv(path)
    assert again.drop(columns="seconds").equals(whole.drop(columns="seconds"))
    refused = benchmark("mechanistic", "recall", "-o", tmp_path)
    assert refused.code == 1
    assert "recall: expected all or one of in-context-recall" in refused.err


@pytest.mark.slow
@pytest.mark.parametrize("option", [(), ("--by-size",)])
def test_every_task_runs(tmp_path: Path, option: tuple[str, ...]) -> None:
    done = benchmark("mechanistic", *option, "--quick", "--threads", "1", "-o", tmp_path)
    assert done.code == 0, done.err
    for name in axes.EXPERIMENTS if option else EXPERIMENTS:
        assert set(pd.read_csv(tmp_path / f"{name}.csv").kind) == set(kinds())
    assert (tmp_path / f"{summary.BY_SIZE if option else summary.NAME}.html").exists()
    for name in states.EXPERIMENTS if option else ():
        assert set(pd.read_csv(tmp_path / f"{name}.csv").kind) == {"mamba", "activated"}
