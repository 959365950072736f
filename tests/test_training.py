"""Training: the bases that it reads, what it learns, and that stopping it changes nothing."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import N_CODE, genome, straight_stack, tiny_config, tiny_stack

from genoscan.errors import InputError
from genoscan.genome.alphabet import encode, reverse_complement
from genoscan.genome.fasta import FastaGenome
from genoscan.layers.stack import Stack
from genoscan.layers.weights import build
from genoscan.training import train as training
from genoscan.training.data import Split, split_genomes, walks
from genoscan.training.train import (
    Progress,
    TrainOptions,
    bits_per_base,
    learning_rate,
    train,
)

F32 = torch.float32
CONFIG = tiny_config(16, 1)


def bases(length: int, seed: int = 1, n_share: float = 0.0) -> np.ndarray:
    return genome(length, seed=seed, n_share=n_share)[0].numpy()


def codes(letters: bytes) -> np.ndarray:
    return encode(letters, record="toy", offset=0)


def repeats(length: int) -> np.ndarray:
    """Return a genome that says the same eleven bases over and over."""
    return np.resize(codes(b"ACGGTTAGCAT"), length)


SPLIT = Split(training=[repeats(3000), bases(500)], validation=[repeats(700)])
OPTIONS = TrainOptions(
    steps=14, window=48, walk=4, batch=2, rate=1e-2, warm_up=3, tile=32, slots=2, report_every=4
)


# What is read


def test_walks_are_stretches_of_the_sequences() -> None:
    sequences = [bases(300), bases(20, seed=2), bases(150, seed=3)]
    texts = [codes.tobytes() for codes in sequences]
    backward = [reverse_complement(codes).tobytes() for codes in sequences]
    seen = set()
    for stretch in islice(walks(sequences, window=10, walk=3, batch=4, seed=5), 60):
        assert stretch.shape == (4, 31)
        for row in stretch:
            places = [
                (strand, i, text.find(row.tobytes()))
                for strand, strand_texts in (("+", texts), ("-", backward))
                for i, text in enumerate(strand_texts)
                if row.tobytes() in text
            ]
            assert len(places) == 1
            seen.add(places[0])
    assert {(strand, i) for strand, i, _ in seen} == {(s, i) for s in "+-" for i in (0, 2)}
    # In proportion to their lengths, from end to end.
    starts = sorted(start for strand, i, start in seen if i == 0)
    assert starts[0] < 15
    assert starts[-1] > 255


def test_every_place_can_be_drawn() -> None:
    sequences = [bases(12), bases(3, seed=2), bases(11, seed=3)]
    rows = {
        min(row.tobytes(), reverse_complement(row).tobytes())
        for stretch in islice(walks(sequences, window=5, walk=2, batch=4, seed=1), 40)
        for row in stretch
    }
    assert len(rows) == 3


def test_walks_depend_on_seed_and_number_alone() -> None:
    sequences = [bases(400)]
    size = {"window": 10, "walk": 3, "batch": 4}
    once = list(islice(walks(sequences, seed=5, **size), 9))
    again = list(islice(walks(sequences, seed=5, **size), 9))
    later = list(islice(walks(sequences, seed=5, first=6, **size), 3))
    other = next(walks(sequences, seed=6, **size))
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(once[6:], later, strict=True))
    assert not np.array_equal(once[0], other)
    assert not np.array_equal(once[0], once[1])


@pytest.mark.parametrize("sequences", [[], [bases(30)], [bases(30), bases(0)]])
def test_walks_longer_than_every_sequence_are_an_error(sequences: list[np.ndarray]) -> None:
    with pytest.raises(InputError, match="no sequence holds a walk of 31 bases"):
        next(walks(sequences, window=10, walk=3, batch=1, seed=1))


def test_split_holds_out_the_end_of_every_sequence(tmp_path: Path) -> None:
    path = tmp_path / "two.fa"
    path.write_text(">a\nACGTACGTAC\n>b\nGGGGCCCNNN\n")
    split = split_genomes([FastaGenome(path)], validation=0.3)
    assert [part.tolist() for part in split.training] == [
        codes(b"ACGTACG").tolist(),
        codes(b"GGGGCCC").tolist(),
    ]
    assert [part.tolist() for part in split.validation] == [
        codes(b"TAC").tolist(),
        codes(b"NNN").tolist(),
    ]
    assert (split.n_training, split.n_validation) == (14, 6)
    for share in (0, 1, -0.5, 1.5):
        with pytest.raises(InputError, match="between 0 and 1"):
            split_genomes([], validation=share)


# What is measured


def by_hand(stack: Stack, codes: np.ndarray) -> tuple[float, int]:
    """Return the bits of all bases but the first, and how many count."""
    one_hot = F.one_hot(torch.from_numpy(codes).long(), 5)[:, :4].double()
    exact = tiny_stack(16, 1)
    exact.load_state_dict({name: weight.double() for name, weight in stack.state_dict().items()})
    with torch.no_grad():
        p = torch.softmax(straight_stack(exact, one_hot[None], exact.begin(1))[0], -1)
    known = [t for t in range(1, len(codes)) if codes[t] != N_CODE]
    return -sum(math.log2(p[t - 1, codes[t]]) for t in known), len(known)


def test_bits_per_base_by_hand() -> None:
    stack = tiny_stack(16, 1, dtype=F32)
    sequences = [bases(2500, n_share=0.05), bases(0), bases(1), bases(300, seed=2)]
    parts = [by_hand(stack, codes) for codes in sequences if len(codes) > 1]
    expected = sum(bits for bits, _ in parts) / sum(count for _, count in parts)
    assert bits_per_base(stack, CONFIG, sequences, pieces=None) == pytest.approx(expected, rel=1e-5)


def test_bits_per_base_of_pieces() -> None:
    stack = tiny_stack(16, 1, dtype=F32)
    sequences = [bases(1000), bases(40, seed=2), bases(960, seed=3)]
    # Four places, 500 bases apart; the third falls on a sequence that is shorter than a piece.
    pieces = [sequences[0][0:100], sequences[0][500:600], sequences[1], sequences[2][460:560]]
    parts = [by_hand(stack, codes) for codes in pieces]
    expected = sum(bits for bits, _ in parts) / sum(count for _, count in parts)
    found = bits_per_base(stack, CONFIG, sequences, piece=100, pieces=4)
    assert found == pytest.approx(expected, rel=1e-5)


def test_bits_per_base_of_nothing() -> None:
    stack = tiny_stack(16, 1, dtype=F32)
    nothing = np.full(50, N_CODE, np.uint8)
    assert bits_per_base(stack, CONFIG, [nothing], pieces=None) == 0


def test_a_model_that_knows_nothing_needs_two_bits() -> None:
    stack = tiny_stack(16, 1, dtype=F32)
    with torch.no_grad():
        stack.head.weight.zero_()
    assert bits_per_base(stack, CONFIG, [bases(500)], pieces=None) == pytest.approx(2)


# What is learnt


def test_learning_rate() -> None:
    options = TrainOptions(steps=100, warm_up=10, rate=1.0)
    rates = [learning_rate(step, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.505, abs=0.01)
    assert 0.01 <= rates[99] < 0.011
    assert learning_rate(0, replace(options, warm_up=0)) == 1


def test_one_update_is_adamws() -> None:
    """Three updates by hand against torch's own optimiser, decay and clipping included."""
    options = TrainOptions(steps=50, warm_up=2, rate=1e-2, decay=0.3, clip=0.5)
    ours = {"in_proj.weight": torch.randn(3, 4), "dt_proj.bias": torch.randn(4)}
    theirs = {name: weight.clone().requires_grad_() for name, weight in ours.items()}
    moments = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in ours.items()}
    optimiser = torch.optim.AdamW(
        [
            {"params": [theirs["in_proj.weight"]], "weight_decay": 0.3},
            {"params": [theirs["dt_proj.bias"]], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    for step in range(3):
        bars = [torch.randn_like(weight) for weight in ours.values()]
        training._adamw(ours, moments, bars, step, options)
        for weight, bar in zip(theirs.values(), bars, strict=True):
            weight.grad = bar.clone()
        torch.nn.utils.clip_grad_norm_(theirs.values(), 0.5)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, options)
        optimiser.step()
    for name, weight in ours.items():
        assert torch.allclose(weight, theirs[name].detach(), rtol=1e-5, atol=1e-7)


def test_a_repetitive_genome_is_learnt(tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=72, window=64, batch=4, tile=64, report_every=24)
    told: list[Progress] = []
    split = Split([repeats(3000)], [repeats(700)])
    stack = train(CONFIG, split, options, work=tmp_path / "work", report=told.append)
    assert [done.step for done in told] == [24, 48, 72]
    assert [done.bases for done in told] == [step * 4 * 64 for step in (24, 48, 72)]
    assert told[-1].validation_bits < 1
    assert told[-1].training_bits < told[0].training_bits
    assert told[-1].validation_bits == bits_per_base(stack, CONFIG, split.validation)


def test_an_update_follows_the_mean_log_likelihoods_derivative(tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=1, walk=1, warm_up=0, decay=0.0, tile=20)
    sequence = bases(200, n_share=0.05)
    stack = train(CONFIG, Split([sequence], [sequence]), options, work=tmp_path)
    torch.manual_seed(options.seed)
    fresh = build(CONFIG)
    stretch = torch.from_numpy(
        next(walks([sequence], window=48, walk=1, batch=2, seed=options.seed))
    ).long()
    logits = straight_stack(fresh, F.one_hot(stretch[:, :-1], 5)[..., :4].float(), fresh.begin(2))
    labels = stretch[:, 1:].flatten()
    F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=N_CODE).backward()
    torch.nn.utils.clip_grad_norm_(fresh.parameters(), options.clip)
    for (name, after), before in zip(stack.named_parameters(), fresh.parameters(), strict=True):
        # AdamW's first update is the derivative's sign, but for what is near to nothing.
        expected = options.rate * before.grad / (before.grad.abs() + 1e-8)
        clear = before.grad.abs() > 1e-3 * before.grad.abs().max()
        assert torch.allclose((before - after)[clear], expected[clear], rtol=1e-2), name


# Stopping


def weights_of(stack: Stack) -> tuple[Tensor, ...]:
    return tuple(weight.detach() for weight in stack.parameters())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stack, list[Progress]]:
    told: list[Progress] = []
    torch.set_num_threads(2)
    work = tmp_path_factory.mktemp("unbroken")
    return train(CONFIG, SPLIT, OPTIONS, work=work, report=told.append), told


def without_clock(told: list[Progress]) -> list[Progress]:
    return [replace(done, seconds=0.0) for done in told]


class StoppedError(Exception):
    """A kill, as near as a test comes to one."""


def test_training_is_deterministic(tmp_path: Path, unbroken: tuple[Stack, list[Progress]]) -> None:
    told: list[Progress] = []
    stack = train(CONFIG, SPLIT, OPTIONS, work=tmp_path, report=told.append)
    assert all(map(torch.equal, weights_of(stack), weights_of(unbroken[0])))
    assert without_clock(told) == without_clock(unbroken[1])
    assert [done.step for done in told] == [4, 8, 12, 14]
    other = train(CONFIG, SPLIT, replace(OPTIONS, seed=2), work=tmp_path / "other")
    assert not all(map(torch.equal, weights_of(other), weights_of(stack)))


@pytest.mark.parametrize("updates", [1, 4, 5, 11, 13, 14])
def test_interrupted_and_resumed_is_unbroken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unbroken: tuple[Stack, list[Progress]],
    updates: int,
) -> None:
    """StoppedError after any update, in the middle of a walk or at a report, twice."""
    update: Callable[..., None] = training._adamw
    done = 0

    def stopping(*arguments: object) -> None:
        nonlocal done
        if done == updates:
            raise StoppedError
        done += 1
        update(*arguments)

    monkeypatch.setattr(training, "_adamw", stopping)
    told: list[Progress] = []
    for _ in range(2):
        done = 0
        try:
            train(CONFIG, SPLIT, OPTIONS, work=tmp_path / "work", report=told.append)
        except StoppedError:
            continue
    monkeypatch.setattr(training, "_adamw", update)
    stack = train(CONFIG, SPLIT, OPTIONS, work=tmp_path / "work", report=told.append)
    assert all(map(torch.equal, weights_of(stack), weights_of(unbroken[0])))
    assert without_clock(told) == without_clock(unbroken[1])
    assert all(a.seconds <= b.seconds for a, b in pairwise(told))
    kept = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert kept == ["state.json", "step-14.safetensors"]


def test_a_finished_training_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = train(CONFIG, SPLIT, OPTIONS, work=tmp_path)

    def never(*_arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(training, "_adamw", never)
    again = train(CONFIG, SPLIT, OPTIONS, work=tmp_path)
    assert all(map(torch.equal, weights_of(stack), weights_of(again)))


def test_a_stop_while_the_state_is_written_loses_one_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: tuple[Stack, list[Progress]]
) -> None:
    """New tensors are there, the note that names them is not yet."""
    written = 0
    replace_file = Path.replace

    def stopping(self: Path, target: Path) -> Path:
        nonlocal written
        written += 1
        if written == 2:
            raise StoppedError
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", stopping)
    with pytest.raises(StoppedError):
        train(CONFIG, SPLIT, OPTIONS, work=tmp_path)
    monkeypatch.undo()
    stack = train(CONFIG, SPLIT, OPTIONS, work=tmp_path)
    assert all(map(torch.equal, weights_of(stack), weights_of(unbroken[0])))


def test_other_settings_are_refused(tmp_path: Path) -> None:
    train(CONFIG, SPLIT, replace(OPTIONS, steps=4), work=tmp_path)
    for config, options in [
        (CONFIG, replace(OPTIONS, steps=5)),
        (CONFIG, replace(OPTIONS, steps=4, rate=2e-2)),
        (tiny_config(8, 1), replace(OPTIONS, steps=4)),
    ]:
        with pytest.raises(InputError, match="other settings") as raised:
            train(config, SPLIT, options, work=tmp_path)
        assert "\n" not in str(raised.value)
        assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    "name", ["steps", "window", "walk", "batch", "tile", "slots", "report_every"]
)
def test_options_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} 0: at least 1"):
        replace(OPTIONS, **{name: 0})


def test_slots_do_not_change_what_is_learnt(
    tmp_path: Path, unbroken: tuple[Stack, list[Progress]]
) -> None:
    stack = train(CONFIG, SPLIT, replace(OPTIONS, slots=1), work=tmp_path)
    assert all(map(torch.equal, weights_of(stack), weights_of(unbroken[0])))
