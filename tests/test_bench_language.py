"""Stories are labelled with true words, the corpus is split by document, models have equal weights and read only the
past, a killed run gives the same bits, and the command runs and resumes."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from commands import benchmark

from benchmarks.experiment import Environment
from benchmarks.language import modelling, probe, training
from benchmarks.language.checkpoint import Checkpoint
from benchmarks.language.corpus import END, held_out, read_corpus, shuffled
from benchmarks.language.experiments import experiments
from benchmarks.language.kinds import KINDS
from benchmarks.language.model import Attention, Hybrid, build, hybrid, width_of
from benchmarks.language.modelling import SIZES, ModellingRun, bits
from benchmarks.language.probe import ProbeRun
from benchmarks.language.stories import NUMBERS, TASKS, encode, story
from benchmarks.language.training import Learnt, train
from benchmarks.learning import UNKNOWN
from benchmarks.recurrent import n_weights
from genoscan.errors import InputError
from genoscan.ops.dispatch import choose


@pytest.fixture(autouse=True)
def unpictured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no browser here")

    monkeypatch.setattr(go.Figure, "write_image", refuse)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a package's folder of 80 short documents."""
    sources = tmp_path / "corpus/usr/share/doc/python9/html/_sources"
    (sources / "library").mkdir(parents=True)
    for i in range(80):
        (sources / f"library/part{i}.rst.txt").write_text(f"Part {i}\n======\n\nThis part describes {i} things.\n")
    (tmp_path / "corpus/package.txt").write_text("python9-doc 9.1-2\n")
    return tmp_path / "corpus"


def read(words: list[str], n_facts: int) -> Iterator[tuple[int, str]]:
    """Follow a story sentence by sentence; yield the position of each word that is known, and the word."""
    state: dict[str, str] = {}
    start = 0
    while start < len(words):
        stop = words.index(".", start)
        n_facts -= 1
        match words[start:stop]:
            case [person, "has", "the", thing]:
                if n_facts < 0:
                    yield start + 3, state[person]
                state[person] = thing
            case ["The", thing, "is", "in", "the", box, "box"]:
                if n_facts < 0:
                    yield start + 5, state[thing]
                state[thing] = box
            case [one, "swaps", "with", other]:
                assert one != other
                state[one], state[other] = state[other], state[one]
            case ["The", thing, "is", "moved", "from", "the", before, "box", "to", "the", after, "box"]:
                assert state[thing] == before != after
                state[thing] = after
            case unknown:
                raise AssertionError(unknown)
        start = stop + 1


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(("n_events", "statements"), [(0, 0.0), (1, 1.0), (8, 0.0), (8, 0.5), (32, 0.0)])
def test_labels_are_the_words_of_a_reader(name: str, n_events: int, statements: float) -> None:
    random, names = np.random.default_rng(1), dict(map(reversed, NUMBERS.items()))
    tokens, labels = encode([list(story(TASKS[name], random, n_events, statements)) for _ in range(50)])
    n_known = 0
    for row, known in zip(tokens, labels, strict=True):
        words = [names[token] for token in row if token]
        found = {int(i) + 1: names[known[i]] for i in np.flatnonzero(known != UNKNOWN)}
        assert found == dict(read(words, 2 if "two" in name else 3))
        assert all(words[i] == word for i, word in found.items())
        assert sum(word in ("swaps", "moved") for word in words) == n_events
        n_known += len(found)
    assert n_known == 50 if statements == 0 else n_known > 50


@pytest.mark.parametrize("name", TASKS)
def test_guessing_is_as_good_as_stated(name: str) -> None:
    task, random = TASKS[name], np.random.default_rng(1)
    words = [list(story(task, random, 16))[-1].word for _ in range(1_500)]
    counts = np.unique(words, return_counts=True)[1]
    assert len(counts) == task.answers
    freedom = len(counts) - 1
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < freedom + 4 * (2 * freedom) ** 0.5


def test_the_corpus_is_split_by_document(corpus: Path) -> None:
    found = read_corpus(corpus)
    texts = {split: bytes(getattr(found, split)).split(END)[:-1] for split in ("training", "validation", "test")}
    assert sorted(document for documents in texts.values() for document in documents) == sorted(
        path.read_bytes() for path in corpus.rglob("*.rst.txt")
    )
    assert found.facts["package"] == "python9-doc 9.1-2"
    for split, documents in texts.items():
        assert found.facts[split] == {"documents": len(documents), "bytes": len(getattr(found, split))}
    # Another version of a document is in the same split; its checksum is another.
    (corpus / "usr/share/doc/python9/html").rename(corpus / "another")
    next(corpus.rglob("part7.rst.txt")).write_text("Changed.\n")
    again = read_corpus(corpus)
    assert again.facts["sha256"] != found.facts["sha256"]
    changed = [split for split in texts if bytes(getattr(again, split)).split(END)[:-1] != texts[split]]
    assert len(changed) == 1
    next(corpus.rglob("package.txt")).unlink()
    with pytest.raises(InputError, match=r"corpus: found no package\.txt; run benchmarks/language/fetch\.sh"):
        read_corpus(corpus)


def test_every_window_is_read_once_a_round() -> None:
    text = np.arange(201, dtype=np.uint8)
    rounds: list[list[int]] = [[], []]
    for step in range(1, 9):
        tokens, labels = shuffled(text, 1, step, n=5, length=10)
        assert (labels == tokens + 1).all()
        rounds[(step - 1) // 4] += tokens[:, 0].tolist()
    assert rounds[0] != rounds[1]
    assert sorted(rounds[0]) == sorted(rounds[1]) == list(range(0, 200, 10))
    assert (shuffled(text, 1, 3, n=5, length=10)[0][:, 0] == rounds[0][10:15]).all()
    assert held_out(text, 10)[0].ravel().tolist() == list(range(200))
    assert held_out(text, 10, 4)[0][:, 0].tolist() == [0, 50, 100, 150]


RUNS = [*(ModellingRun(kind="mamba2", seed=1, **size) for size in SIZES.values()), probe._base("moves", False)]


@pytest.mark.parametrize("run", RUNS)
def test_models_have_equal_weights(run: training.Run) -> None:
    counts = []
    for kind in KINDS:
        of_kind = replace(run, kind=kind)
        with torch.device("meta"):
            counts.append(n_weights(hybrid(of_kind, width_of(of_kind))))
    assert max(counts) <= 1.02 * min(counts)
    assert counts[0] == pytest.approx(run.weights, rel=0.02)


def tiny(kind: str, **changes: Any) -> ModellingRun:
    return ModellingRun(kind=kind, seed=1, **modelling.QUICK | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [4, 0])
def test_a_model_reads_only_the_past(kind: str, every: int) -> None:
    model, trained = build(tiny(kind, attention_every=every), 1)
    assert sum(isinstance(layer, Attention) for layer in model.layers) == (1 if every else 0)
    tokens = torch.randint(256, (2, 20))
    changed = tokens.clone()
    changed[:, 12] = (changed[:, 12] + 1) % 256
    found, other = model(tokens), model(changed)
    assert torch.equal(found[:, :12], other[:, :12])
    assert (found[:, 12:] != other[:, 12:]).any(-1).all()
    torch.testing.assert_close(trained(tokens), found)


def test_attention_is_its_definition() -> None:
    torch.manual_seed(1)
    block = Attention(24, 2, kernels=choose("cpu"))
    x = torch.randn(1, 5, 24)
    q, k, v = (part.unflatten(-1, (2, 32)) for part in block.in_proj(block.norm(x))[0].chunk(3, -1))
    rows = []
    for i in range(5):
        weights = torch.einsum("hc,jhc->hj", q[i], k[: i + 1]).div(math.sqrt(32)).softmax(-1)
        rows.append(torch.einsum("hj,jhc->hc", weights, v[: i + 1]).flatten())
    torch.testing.assert_close(block(x)[0], x[0] + block.out_proj(torch.stack(rows)))


def learnt(run: ModellingRun, path: Path, *, stop: int = 0, seconds: float = 0.0) -> Learnt:
    """Train on random bytes; with `stop`, be interrupted before that step."""

    def draw(step: int) -> Any:
        if step == stop:
            raise KeyboardInterrupt
        return np.split(np.random.default_rng(step).integers(256, size=(4, 16)), 2)

    windows = draw(99)
    return train(
        run,
        draw,
        lambda model: -bits(model, windows, device="cpu"),
        Checkpoint(path, {"rate": run.rate}, seconds),
        device="cpu",
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_killed_run_gives_the_same_bits(kind: str, stop: int, tmp_path: Path) -> None:
    run, path = tiny(kind, steps=6, every=2, rate=1e-2), tmp_path / "run.safetensors"
    whole = learnt(run, tmp_path / "none", seconds=math.inf)
    with pytest.raises(KeyboardInterrupt):
        learnt(run, path, stop=stop)
    assert path.exists() == (stop > 1)
    joined = learnt(run, path)
    assert joined.curve[1:] == whole.curve[1:]
    assert [step for step, _, _ in joined.curve] == [0, 2, 4, 6]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(joined.model.state_dict()[name], weight)
    # Killed after its last step, it trains no more.
    again = learnt(run, path, stop=1)
    assert again.curve[1:] == whole.curve[1:]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run, path = tiny("activated", steps=3), tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        learnt(run, path, stop=3)
    whole = bytearray(path.read_bytes())
    with pytest.raises(InputError, match=r"run\.safetensors: from a run with other settings; remove it"):
        learnt(replace(run, rate=1e-4), path)
    for at in (2, 40, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(InputError, match=r"run\.safetensors: damaged: .*; remove it"):
            learnt(run, path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_text_is_learnt(kind: str, tmp_path: Path) -> None:
    def draw(_step: int) -> Any:
        text = np.frombuffer(b"The key is in the red box. " * 3, np.uint8).astype(np.int64)
        return text[None, :-1], text[None, 1:]

    run = tiny(kind, steps=40, every=40, rate=1e-2)
    checkpoint = Checkpoint(tmp_path / "run.safetensors", {})
    found = train(run, draw, lambda model: -bits(model, draw(0), device="cpu"), checkpoint, device="cpu")
    assert -found.curve[0][2] > 7
    assert -found.curve[-1][2] < 1


def test_a_run_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forward = Hybrid.forward

    def diverging(model: Hybrid, tokens: torch.Tensor) -> torch.Tensor:
        found = forward(model, tokens)
        return found * torch.nan if torch.is_grad_enabled() else found

    monkeypatch.setattr(Hybrid, "forward", diverging)
    swaps = experiments(tmp_path, None, "cpu")["swaps-of-two"]
    rows = swaps.measure(swaps.cells(True)[0], [], Environment("cpu", 1, quick=True))
    assert [row["step"] for row in rows] == [0, 0, 0, 0]
    assert rows[-1]["failure"].startswith("step 1: training: the gradient's norm is nan")
    assert [row["events"] for row in rows[1:]] == [1, 2, 4]


def test_the_command_runs_and_resumes(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = "--quick", "--threads", "1", "-o", tmp_path
    done = benchmark("language", "--corpus", corpus, *where)
    assert done.code == 0, done.err
    found = read_corpus(corpus).facts
    assert json.loads((tmp_path / "modelling.json").read_text())["data"] == found
    for name in ("modelling", "costs", *TASKS):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert set(table.kind) == set(KINDS)
        assert (tmp_path / f"{name}.html").exists()
    assert not list(tmp_path.glob("*.safetensors"))
    # Killed after its first run, it measures the other only.
    path = tmp_path / "modelling.csv"
    whole = pd.read_csv(path)
    whole[whole.kind == "mamba2"].to_csv(path, index=False)
    once, measured = modelling.train, []

    def counting(run: ModellingRun, *arguments: Any, **named: Any) -> Learnt:
        measured.append(run.kind)
        return once(run, *arguments, **named)

    monkeypatch.setattr(modelling, "train", counting)
    assert benchmark("language", "modelling", "--corpus", corpus, *where).code == 0
    assert measured == ["activated"]
    assert pd.read_csv(path).drop(columns="seconds").equals(whole.drop(columns="seconds"))
    next(corpus.rglob("part7.rst.txt")).write_text("Changed.\n")
    refused = benchmark("language", "modelling", "--corpus", corpus, *where)
    assert refused.code == 1
    assert "modelling.json: was measured with another data: name another folder" in refused.err


def test_the_command_asks_for_a_corpus(tmp_path: Path) -> None:
    for names in ((), ("modelling",), ("all",)):
        refused = benchmark("language", *names, "-o", tmp_path)
        assert refused.code == 1
        assert "--corpus: needed for modelling" in refused.err
    assert (
        "swap: expected all or one of costs, swaps-of-two, swaps-of-three, moves"
        in benchmark("language", "swap", "-o", tmp_path).err
    )


@pytest.mark.parametrize("name", TASKS)
def test_the_first_facts_alone_are_not_enough(name: str) -> None:
    """A model that ignores all events is right by chance, however many there are."""
    run = ProbeRun(kind="mamba2", seed=1, task=name, stories=(0, 200))
    names = dict(map(reversed, NUMBERS.items()))
    subject, value = (0, 3) if "swaps" in name else (1, 5)

    def lookup(tokens: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(*tokens.shape, run.n_tokens)
        for row, told in zip(found, tokens.tolist(), strict=True):
            words = [names[token] for token in told if token]
            # The last statement is as long as the first fact, and its subject is told of there.
            start = len(words) - words.index(".") - 1
            first = words.index(words[start + subject])
            row[start + value - 1, NUMBERS[words[first - subject + value]]] = 1
        return found

    for n_events in (8, 16):
        share = probe.accuracy(lookup, *probe.held_out(run, "test", n_events), device="cpu")  # type: ignore[arg-type]
        assert share == pytest.approx(1 / TASKS[name].answers, abs=0.15)


def test_a_probe_run_can_be_drawn_again() -> None:
    run = ProbeRun(kind="mamba2", seed=1, task="moves")
    for one, other in zip(probe.batch(run, 7), probe.batch(run, 7), strict=True):
        assert (one == other).all()
    n_events = [(probe.batch(run, step)[0][0] == NUMBERS["moved"]).sum() for step in range(1, run.steps, 9)]
    assert max(n_events[:3]) == 0
    assert max(n_events) == run.longest
