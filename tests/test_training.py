"""Training: the bases that it reads, what it learns, and that stopping it changes nothing."""

import copy
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from toys import N_CODE, genome, mixed_config, mixed_stack, one_hot_table, straight_stack, tiny_config, tiny_stack

from genoscan.errors import InputError
from genoscan.genome.alphabet import encode, reverse_complement
from genoscan.genome.fasta import FastaGenome
from genoscan.genome.region import Region
from genoscan.layers.config import ModelConfig, ValidationResult
from genoscan.layers.heads import HeadConfig
from genoscan.layers.linear import Linear
from genoscan.layers.norm import NormConfig, RMSNorm
from genoscan.layers.stack import Stack
from genoscan.layers.weights import build, save_model
from genoscan.layers.window_error import WindowError, WindowErrors
from genoscan.model import load_model
from genoscan.ops.dispatch import choose
from genoscan.training import state
from genoscan.training import train as training
from genoscan.training.card import CardFacts, HeldOutResult, verdicts, write_card
from genoscan.training.data import Piece, SequenceId, Split, read_stretches, split_genomes, stretches
from genoscan.training.evaluation import bits_per_base, sample
from genoscan.training.labels import LabelledHead
from genoscan.training.optimizer import adamw, update
from genoscan.training.setup import extended_config, initial_weights
from genoscan.training.train import Progress, TrainOptions, learning_rate, train

F32 = torch.float32
CONFIG = tiny_config(16, 1)


def bases(length: int, seed: int = 1, n_share: float = 0.0) -> np.ndarray:
    return genome(length, seed=seed, n_share=n_share)[0].numpy()


def codes(letters: bytes) -> np.ndarray:
    return encode(letters, record="toy", offset=0)


def repeats(length: int) -> np.ndarray:
    """Return a genome that says the same eleven bases over and over."""
    return np.resize(codes(b"ACGGTTAGCAT"), length)


def split_of(training: list[np.ndarray], validation: list[np.ndarray]) -> Split:
    """Return a split of sequences that are not those of a file."""
    sequences = [
        SequenceId(f"s{i}", len(part), hashlib.md5(part.tobytes()).hexdigest()) for i, part in enumerate(training)
    ]
    return Split(list(map(Piece, training)), list(map(Piece, validation)), sequences, 0.1)


def walks(sequences: list[np.ndarray], *, window: int, walk: int, **settings: int) -> Iterator[np.ndarray]:
    """Yield the bases of random stretches, each of a walk and the base after it."""
    split, length = split_of(sequences, []), walk * window + 1
    for rows in stretches([len(codes) for codes in sequences], length=length, **settings):
        yield read_stretches(split, rows, length)[0]


SPLIT = split_of([repeats(3000), bases(500)], [repeats(700)])
OPTIONS = TrainOptions(steps=14, window=48, walk=4, batch=2, rate=1e-2, warm_up=3, tile=32, slots=2, report_every=4)


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
    with pytest.raises(InputError, match="no sequence contains a walk of 31 bases"):
        next(walks(sequences, window=10, walk=3, batch=1, seed=1))


def test_split_holds_out_the_end_of_every_sequence(tmp_path: Path) -> None:
    path = tmp_path / "two.fa"
    path.write_text(">a\nACGTACGTAC\n>b\nGGGGCCCNNN\n")
    split = split_genomes([FastaGenome(path)], validation=0.3)
    assert [part.codes.tolist() for part in split.training] == [codes(b"ACGTACG").tolist(), codes(b"GGGGCCC").tolist()]
    assert [part.codes.tolist() for part in split.validation] == [codes(b"TAC").tolist(), codes(b"NNN").tolist()]
    assert (split.n_training, split.n_validation) == (14, 6)
    assert split.held_out == 0.3
    assert [(s.name, s.length) for s in split.sequences] == [("a", 10), ("b", 10)]
    assert [s.m5 for s in split.sequences] == [
        hashlib.md5(letters).hexdigest() for letters in (b"ACGTACGTAC", b"GGGGCCCNNN")
    ]
    for share in (0, 1, -0.5, 1.5):
        with pytest.raises(InputError, match="between 0 and 1"):
            split_genomes([], validation=share)


def test_overlapping_regions_share_no_base_with_the_validation_data(tmp_path: Path) -> None:
    letters = bases(100).tolist()
    path = tmp_path / "one.fa"
    path.write_text(">a\n" + "".join("ACGT"[code] for code in letters) + "\n>b\nACGTA\n>c\nA\n")
    genome, overlapping = FastaGenome(path), [Region("a", 0, 60), Region("a", 40, 100)]
    split = split_genomes([genome], validation=0.1, regions=overlapping)
    assert [part.codes.tolist() for part in split.training] == [letters[:90]]
    assert [part.codes.tolist() for part in split.validation] == [letters[90:]]
    split = split_genomes([genome], validation=overlapping)
    assert [part.codes.tolist() for part in split.validation] == [letters]
    assert split.n_training == 6
    # Of a short sequence nothing is held out.
    split = split_genomes([genome], validation=0.1, regions=[Region("b", 0, 4), Region("c", 0, 1), Region("a", 0, 9)])
    assert [len(part.codes) for part in split.training] == [8, 4, 1]
    assert [len(part.codes) for part in split.validation] == [1]


# What is measured


def by_hand(stack: Stack, codes: np.ndarray) -> tuple[float, int]:
    """Return the bits of all bases but the first, and how many count."""
    one_hot = one_hot_table()[torch.from_numpy(codes).long()]
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
    assert bits_per_base(stack, CONFIG, list(map(Piece, sequences))) == pytest.approx(expected, rel=1e-5)


def test_bits_per_base_of_pieces() -> None:
    stack = tiny_stack(16, 1, dtype=F32)
    sequences = [bases(1000), bases(40, seed=2), bases(960, seed=3)]
    # Four places, 500 bases apart; the third falls on a sequence that is shorter than a piece.
    pieces = [sequences[0][0:100], sequences[0][500:600], sequences[1], sequences[2][460:560]]
    parts = [by_hand(stack, codes) for codes in pieces]
    expected = sum(bits for bits, _ in parts) / sum(count for _, count in parts)
    found = bits_per_base(stack, CONFIG, list(sample(list(map(Piece, sequences)), 100, 4)))
    assert found == pytest.approx(expected, rel=1e-5)


def test_bits_per_base_of_nothing() -> None:
    stack = tiny_stack(16, 1, dtype=F32)
    nothing = np.full(50, N_CODE, np.uint8)
    assert math.isnan(bits_per_base(stack, CONFIG, [Piece(nothing)]))


def test_a_model_that_knows_nothing_needs_two_bits() -> None:
    stack = tiny_stack(16, 1, dtype=F32)
    with torch.no_grad():
        stack.head.weight.zero_()
    assert bits_per_base(stack, CONFIG, [Piece(bases(500))]) == pytest.approx(2)


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


def test_updates_are_adamws_by_hand() -> None:
    """Three updates by the formulas of arXiv 1711.05101, decay and clipping included."""
    kernels = choose("cpu")
    model = nn.Sequential(Linear(4, 3, kernels=kernels), RMSNorm(3, eps=1.0, kernels=kernels))
    parameters = list(model.parameters())
    decays = [0.3, 0.0, 0.0]  # the map's weight, its bias, the norm's weight
    optimizer = adamw(model, rate=1.0, decay=0.3, betas=(0.9, 0.95), eps=1e-8)
    weights = [parameter.detach().double() for parameter in parameters]
    means = [torch.zeros_like(weight) for weight in weights]
    squares = [torch.zeros_like(weight) for weight in weights]
    for step, (rate, size) in enumerate([(1e-2, 1.0), (2e-2, 0.01), (5e-3, 1.0)], 1):
        bars = [size * torch.randn_like(parameter) for parameter in parameters]
        norm = math.sqrt(sum(float(bar.double().square().sum()) for bar in bars))
        scaled = [bar.double() * min(1.0, 0.5 / norm) for bar in bars]
        update(optimizer, parameters, bars, rate=rate, clip=0.5)
        for i, bar in enumerate(scaled):
            means[i] = 0.9 * means[i] + 0.1 * bar
            squares[i] = 0.95 * squares[i] + 0.05 * bar**2
            mean, square = means[i] / (1 - 0.9**step), squares[i] / (1 - 0.95**step)
            weights[i] = weights[i] * (1 - rate * decays[i]) - rate * mean / (square.sqrt() + 1e-8)
    for parameter, weight in zip(parameters, weights, strict=True):
        assert torch.allclose(parameter.detach().double(), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused(wrong: float) -> None:
    model = Linear(4, 3, kernels=choose("cpu"))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    bars = [torch.ones_like(parameter) for parameter in before]
    bars[1][2] = wrong
    with pytest.raises(InputError, match=r"the gradient's norm is (nan|inf), expected a finite"):
        update(adamw(model, rate=1.0, decay=0.0), list(model.parameters()), bars, rate=1, clip=1)
    assert all(map(torch.equal, before, model.parameters()))


def test_a_repetitive_genome_is_learnt(tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=72, window=64, batch=4, tile=64, report_every=24)
    told: list[Progress] = []
    split = split_of([repeats(3000)], [repeats(700)])
    stack = train(CONFIG, split, options, work=tmp_path / "work", report=told.append)
    assert [done.step for done in told] == [24, 48, 72]
    assert [done.bases for done in told] == [step * 4 * 64 for step in (24, 48, 72)]
    assert told[-1].validation_bits < 1
    assert told[-1].training_loss < told[0].training_loss
    assert told[-1].validation_bits == bits_per_base(stack, CONFIG, list(sample(split.validation)))


def test_an_update_follows_the_mean_log_likelihoods_derivative(tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=1, walk=1, warm_up=0, decay=0.0, tile=20)
    sequence = bases(200, n_share=0.05)
    stack = train(CONFIG, split_of([sequence], [sequence]), options, work=tmp_path)
    torch.manual_seed(options.seed)
    fresh = build(CONFIG)
    stretch = torch.from_numpy(next(walks([sequence], window=48, walk=1, batch=2, seed=options.seed))).long()
    logits = straight_stack(fresh, one_hot_table(F32)[stretch[:, :-1]], fresh.begin(2))
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


@pytest.mark.parametrize("updates", [5, 14, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4, 11, 13))])
def test_interrupted_and_resumed_is_unbroken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: tuple[Stack, list[Progress]], updates: int
) -> None:
    """StoppedError after any update, in the middle of a walk or at a report, twice."""
    done = 0

    def stopping(*arguments: Any, **options: Any) -> None:
        nonlocal done
        if done == updates:
            raise StoppedError
        done += 1
        update(*arguments, **options)

    monkeypatch.setattr(training, "update", stopping)
    told: list[Progress] = []
    for _ in range(2):
        done = 0
        try:
            train(CONFIG, SPLIT, OPTIONS, work=tmp_path / "work", report=told.append)
        except StoppedError:
            continue
    monkeypatch.setattr(training, "update", update)
    stack = train(CONFIG, SPLIT, OPTIONS, work=tmp_path / "work", report=told.append)
    assert all(map(torch.equal, weights_of(stack), weights_of(unbroken[0])))
    assert without_clock(told) == without_clock(unbroken[1])
    assert all(a.seconds <= b.seconds for a, b in pairwise(told))
    kept = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert kept == ["state.json", "step-14.safetensors"]


def test_a_finished_training_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = train(CONFIG, SPLIT, OPTIONS, work=tmp_path)

    def never(*_arguments: object, **_options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(training, "update", never)
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


FEW = replace(OPTIONS, steps=4)
MIXED = mixed_config(kinds=("pd_ssm", "mamba"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training of PD-SSM and Mamba that four updates ended."""
    torch.set_num_threads(2)
    work = tmp_path_factory.mktemp("stopped")
    train(MIXED, SPLIT, FEW, work=work)
    return work


def test_the_initial_state_of_pd_ssm_is_that_of_the_model_before(tmp_path: Path) -> None:
    before = mixed_stack(kinds=("pd_ssm",), dtype=torch.float32)
    (block,) = before.layers
    block.start.copy_(torch.arange(24.0).view(2, 2, 6))
    save_model(tmp_path / "m", mixed_config(kinds=("pd_ssm",)), before, "")
    model = load_model(tmp_path / "m")
    config = extended_config(model, language_model="next-base", heads={}, trained_on="more")
    options = replace(OPTIONS, steps=1)
    stack = train(config, SPLIT, options, work=tmp_path / "work", initial=initial_weights(model, config))
    assert torch.equal(stack.layers[0].start, block.start)


def places(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of everything in a JSON value that is no object and no list."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, *path, key)
    else:
        yield path


def other_than(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    return "other" if value is None or isinstance(value, str) else value + 1


def where(refused: Callable[[], object], work: Path) -> str:
    """Return where the settings differ, as the refusal says it."""
    with pytest.raises(InputError, match="contains a training run with other settings: ") as raised:
        refused()
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"{work}: ")
    assert message.endswith(f"remove {work} to start again")
    return message.split("other settings: ")[1].split("; use")[0]


def refusal(work: Path, config: ModelConfig, split: Split, options: TrainOptions) -> str:
    """Return where the settings of a training differ from those of the one in `work`."""
    return where(lambda: train(config, split, options, work=work), work)


def test_every_recorded_setting_is_compared(stopped: Path, tmp_path: Path) -> None:
    """Each is changed in turn, taken out, or one is put in; the refusal names it."""
    saved = json.loads((stopped / "state.json").read_text())
    optimizer = adamw(build(MIXED), rate=1.0, decay=0.0)
    found = list(places(saved["settings"]))
    assert len(found) > 50
    for path in found:
        for change in ("other", "missing", "spare"):
            spoiled = copy.deepcopy(saved)
            place = spoiled["settings"]
            for key in path[:-1]:
                place = place[key]
            name = ".".join(map(str, path))
            if change == "other":
                place[path[-1]] = other_than(place[path[-1]])
            elif isinstance(place, list):
                place.append(place[-1]) if change == "spare" else place.pop()
                name = ".".join(map(str, path[:-1]))
            elif change == "missing":
                del place[path[-1]]
            else:
                name = ".".join(map(str, (*path[:-1], "spare")))
                place["spare"] = 1
            (tmp_path / "state.json").write_text(json.dumps(spoiled))
            refused = partial(state.resume, tmp_path, saved["settings"], {}, optimizer)
            assert where(refused, tmp_path).split(" ")[0].rstrip(":") == name


OTHER_CONFIG: dict[str, Any] = {
    "d_model": 16,
    "norm": NormConfig(eps=1e-6),
    "embed_bias": True,
    "layers": MIXED.layers[::-1],
    "symbols": "TCGA",
    "base_columns": (3, 1, 2, 0),
    "complement": (3, 2, 1, 0),
    "mask": 1,
    "unknown": 1,
    "label_offset": 2,
    "context": 10,
    "reach": 10,
    "language_model": False,
    "heads": {"h": HeadConfig(kind="per_base", labels=("a",), link="sigmoid")},
    "trained_on": "something",
    "window": 100,
    "gc_range": (0.1, 0.9),
    "validation": ValidationResult(bits=1.9, composition=2.0),
    "weights": "0",
    "window_errors": WindowErrors(
        genome="g.fa",
        target="log-likelihood",
        regions=1,
        bases=1,
        seed=1,
        context=2,
        reach=2,
        errors=(WindowError(context=1, reach=1, median=0.1, worst=0.1),),
        distant=(),
    ),
}


def others() -> Iterator[tuple[str, ModelConfig, Split, TrainOptions]]:
    """Yield arguments of `train` that differ from those of `stopped` in one thing, and in which."""
    for name, value in OTHER_CONFIG.items():
        if value != getattr(MIXED, name):
            yield f"config.{name}", MIXED.model_copy(update={name: value}), SPLIT, FEW
    for i, layer in enumerate(MIXED.layers):
        for name in set(type(layer).model_fields) - {"kind"}:
            value = getattr(layer, name)
            layers = list(MIXED.layers)
            layers[i] = layer.model_copy(update={name: not value if isinstance(value, bool) else value + 1})
            config = MIXED.model_copy(update={"layers": tuple(layers)})
            yield f"config.layers.{i}.{name}", config, SPLIT, FEW
    for field in fields(TrainOptions):
        value = getattr(FEW, field.name)
        other = {"surrogate": "straight_through", "language_model": "masked", "freeze": True}.get(
            field.name
        ) or value + 1
        yield f"options.{field.name}", MIXED, SPLIT, replace(FEW, **{field.name: other})
    yield "validation", MIXED, replace(SPLIT, held_out=0.2), FEW
    yield "regions", MIXED, replace(SPLIT, regions=("chr1:1-9",)), FEW
    head = LabelledHead(OTHER_CONFIG["heads"]["h"], {s.name: np.zeros(s.length, np.uint32) for s in SPLIT.sequences})
    yield "labels", MIXED, replace(SPLIT, heads={"h": head}), FEW
    for field in fields(SequenceId):
        value = other_than(getattr(SPLIT.sequences[1], field.name))
        sequences = [SPLIT.sequences[0], replace(SPLIT.sequences[1], **{field.name: value})]
        yield f"sequences.1.{field.name}", MIXED, replace(SPLIT, sequences=sequences), FEW
    yield "sequences", MIXED, replace(SPLIT, sequences=SPLIT.sequences[:1]), FEW
    yield "sequences.0", MIXED, replace(SPLIT, sequences=SPLIT.sequences[::-1]), FEW


def test_every_setting_is_recorded(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(OTHER_CONFIG) == set(ModelConfig.model_fields) - {"format"}
    for name, config, split, options in others():
        assert refusal(stopped, config, split, options).startswith(name)
    torch.set_num_threads(1)
    assert refusal(stopped, MIXED, SPLIT, FEW) == "threads (--threads) was 2, is now 1"
    torch.set_num_threads(2)
    with monkeypatch.context() as patch:
        patch.setattr(state, "__version__", "0.0")
        assert refusal(stopped, MIXED, SPLIT, FEW).startswith("versions.genoscan was ")
        patch.undo()
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "abacus")
        assert refusal(stopped, MIXED, SPLIT, FEW).endswith('is now "cpu abacus"')
    torch.set_default_dtype(torch.float64)
    try:
        assert refusal(stopped, MIXED, SPLIT, FEW) == 'dtype was "float32", is now "float64"'
    finally:
        torch.set_default_dtype(F32)
    train(MIXED, SPLIT, FEW, work=stopped)


@pytest.mark.parametrize("text", ["", "[]", "{", "3", '{"settings": {}}'])
def test_a_damaged_note_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(InputError, match=r"state.json: damaged: .*; remove .* to start again$"):
        train(CONFIG, SPLIT, FEW, work=tmp_path)


@pytest.mark.parametrize("name", ["weight.head.weight", "step.layers.0.D", "exp_avg.embed.weight"])
def test_a_missing_tensor_is_refused(stopped: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(stopped, tmp_path / "work")
    file = tmp_path / "work" / "step-4.safetensors"
    tensors = load_file(file)
    assert set(tensors) == {
        f"{key}.{name}"
        for key in ("weight", "step", "exp_avg", "exp_avg_sq")
        for name, _ in build(MIXED).named_parameters()
    }
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(InputError, match=f"step-4.safetensors: no tensor '{name}'; remove"):
        train(MIXED, SPLIT, FEW, work=tmp_path / "work")


@pytest.mark.parametrize("name", ["steps", "window", "walk", "batch", "tile", "slots", "report_every"])
def test_options_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} 0: expected at least 1"):
        replace(OPTIONS, **{name: 0})


@pytest.mark.parametrize(
    ("name", "value"), [("rate", 0.0), ("rate", math.nan), ("clip", 0.0), ("clip", math.inf), ("decay", -0.1)]
)
def test_rates_that_are_none_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} {value}: "):
        replace(OPTIONS, **{name: value})


def test_verdicts_name_the_baselines_that_are_better() -> None:
    baseline = {"genes accuracy": 0.4, "sites:start AUPRC": 0.3}
    labels = {"genes accuracy": 0.5, "sites:start AUPRC": 0.3, "sites:start F1": 0.9, "genes:CDS AUPRC": 0.7}
    results = [
        HeldOutResult("a", 10, 1.84, 1.94, 1.99),
        HeldOutResult("b", 20, 2.00, 1.99, 2.01),
        HeldOutResult("c", 30, 1.99, None, 1.99, labels, baseline),
    ]
    assert verdicts(results) == [
        "On a, the model (1.8400 bits per base) is better than the Markov chain (1.9400) and better than own "
        "composition (1.9900).",
        "On b, the model (2.0000 bits per base) is not better than the Markov chain (1.9900), but better than own "
        "composition (2.0100).",
        "On c, the model (1.9900 bits per base) is not better than own composition (1.9900).",
        "On c, the model is better than its baseline in 1 of 2 predictions; not in sites:start AUPRC.",
    ]
    facts = CardFacts("m", "causal", "bases", "a", "train", [], "", "", 1, 1, 1, 1.0, "a CPU", "", results)
    card = write_card(facts)
    bold = [line for line in card.splitlines() if "**" in line]
    assert bold == ["| a | 10 | **1.8400** | 1.9400 | 1.9900 |", "| c | genes accuracy | **0.500** | 0.400 |  |"]
    for line in verdicts(results):
        assert line in card.replace("\n", " ")


def test_slots_do_not_change_what_is_learnt(tmp_path: Path, unbroken: tuple[Stack, list[Progress]]) -> None:
    stack = train(CONFIG, SPLIT, replace(OPTIONS, slots=1), work=tmp_path)
    assert all(map(torch.equal, weights_of(stack), weights_of(unbroken[0])))
