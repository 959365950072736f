"""Totals of responses, and changes of sensitivity, against plain torch; and how a change is written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import CONTEXT, REACH, bases, genoscan, listing, tiny_model, write_fasta
from torch import Tensor
from toys import straight_stack
from truth import caduceus

import genoscan as package
from genoscan.genome.region import Region
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.weights import write_model
from genoscan.model import Model
from genoscan.responses.perturbation import respond
from genoscan.responses.probe import Probe

LETTERS = f"{bases(170, 1)}N{bases(129, 2)}"
AT = 149  # a base in the middle; 0-based
PAIRS = str.maketrans("ACGTN", "TGCAN")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("response")
    tiny_model(folder / "tiny")
    write_fasta(folder / "g.fa", {"chr1": LETTERS, "a:b": bases(100, 3)})
    config = caduceus.config()
    caduceus.write(folder / "foreign", config, caduceus.tensors(config))
    write_model(folder / "cad", *read_foreign(folder / "foreign"), "")
    return folder


@pytest.fixture(scope="module")
def causal(folder: Path) -> Model:
    return package.load_model(folder / "tiny", dtype=torch.float64, tile=30)


def coded(letters: str) -> Tensor:
    return torch.tensor(["ACGTN".index(letter) for letter in letters])


def one_hot(codes: Tensor) -> Tensor:
    return torch.cat([torch.eye(4), torch.full((1, 4), 0.25)]).double()[codes]


def log_p(model: Model, x: Tensor) -> Tensor:
    """Log p of A, C, G and T at every base but the first."""
    return torch.log_softmax(straight_stack(model.stack, x[None], model.stack.begin(1))[0, :-1], -1)


def likelihood(model: Model, x: Tensor, labels: Tensor, first: int) -> Tensor:
    rows = log_p(model, x).gather(-1, labels[1:].clamp(max=3)[:, None])[:, 0]
    counted = (labels[1:] < 4) & (torch.arange(1, len(labels)) >= first)
    return rows[counted].sum()


def window(strand: str, start: int, end: int) -> tuple[Tensor, int]:
    """The codes of an interval as they are read, and the position of the changed base in them."""
    letters = LETTERS[start:end]
    if strand == "-":
        return coded(letters.translate(PAIRS)[::-1]), end - 1 - AT
    return coded(letters), AT - start


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("finite", [False, True])
def test_totals(folder: Path, causal: Model, strand: str, finite: bool) -> None:
    """The finite total is the change of the sequence's log-likelihood, the base's own label included."""
    genome = package.open_genome(folder / "g.fa")
    found = respond(genome, causal, Probe(Region("chr1", AT, AT + 1), strand=strand, finite=finite))
    edges = (AT - CONTEXT, AT + 1 + REACH) if strand == "+" else (AT - REACH, AT + 1 + CONTEXT)
    codes, at = window(strand, *edges)
    x = one_hot(codes).requires_grad_()
    value = likelihood(causal, x, codes, at)
    (gradient,) = torch.autograd.grad(value, x)
    before = log_p(causal, x.detach())[at - 1]
    others = [base for base in range(4) if base != codes[at]]
    names = ["ACGT"[3 - base if strand == "-" else base] for base in others]
    assert found.own is not None
    assert list(found.totals) == list(found.own) == names
    for name, base in zip(names, others, strict=True):
        own = float(before[base] - before[codes[at]])
        changed = codes.clone()
        changed[at] = base
        if finite:
            total = float(likelihood(causal, one_hot(changed), changed, at) - value.detach())
        else:
            total = own + float(gradient[at, base] - gradient[at, codes[at]])
        assert found.own[name] == pytest.approx(own, rel=1e-11)
        assert found.totals[name] == pytest.approx(total, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("finite", [False, True])
def test_a_track_sums_to_its_total(folder: Path, causal: Model, finite: bool) -> None:
    genome = package.open_genome(folder / "g.fa")
    base = next(b for b in "ACGT" if b != LETTERS[AT])
    at = Region("chr1", AT, AT + 1)
    found = respond(genome, causal, Probe(at, base, finite=finite))
    assert np.nansum(found.values.astype(float)) == pytest.approx(found.totals[base], abs=1e-5)
    assert found.own is not None and found.values[0] == np.float32(found.own[base])
    after = respond(genome, causal, Probe(at, base, Region("chr1", AT + 1, AT + 1 + REACH), finite=finite))
    assert after.totals[base] == pytest.approx(found.totals[base], rel=1e-12)
    assert after.own == found.own
    assert found.strongest is not None
    place, effect = found.strongest
    others = np.nan_to_num(np.abs(found.values[1:]))
    assert (place.start - AT - 1, abs(effect)) == (others.argmax(), others.max())
    assert found.strongest == after.strongest


def test_a_bidirectional_total(folder: Path) -> None:
    """Its own base's prediction changes too."""
    model = package.load_model(folder / "cad", dtype=torch.float64, tile=32)
    plain = package.load_model(folder / "cad", dtype=torch.float64, kernels="reference")
    genome = package.open_genome(folder / "g.fa")
    base = next(b for b in "ACGT" if b != LETTERS[AT])
    probe = Probe(Region("chr1", AT, AT + 1), base, Region("chr1", 130, 200), context=40, finite=True)
    found = respond(genome, model, probe)
    read = coded(LETTERS[found.window.start : found.window.end])
    changed = read.clone()
    changed[AT - found.window.start] = "ACGT".index(base)
    columns, rows = torch.tensor(model.config.base_columns), []
    for codes in (read, changed):
        values = torch.log_softmax(plain.whole(plain.table()[codes][None])[0], -1)
        rows.append(values.gather(-1, columns[codes.clamp(max=3)][:, None])[:, 0])
    counted = (read < 4)[130 - found.window.start : 200 - found.window.start]
    truth = (rows[1] - rows[0])[130 - found.window.start : 200 - found.window.start]
    assert found.totals[base] == pytest.approx(float(truth[counted].sum()), rel=1e-9)
    assert np.allclose(found.values[counted], truth[counted].numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("base", ["A", "C", "G", "T", None])
def test_changes_of_sensitivity(folder: Path, causal: Model, strand: str, base: str | None) -> None:
    if base == LETTERS[AT]:
        return
    region = Region("chr1", 120, 190)
    genome = package.open_genome(folder / "g.fa")
    found = respond(genome, causal, Probe(Region("chr1", AT, AT + 1), base, region, strand, 20, "sensitivity"))
    edges = (region.start - 20, region.end + REACH) if strand == "+" else (region.start - REACH, region.end + 20)
    assert (found.window.start, found.window.end) == edges
    codes, at = window(strand, *edges)

    def scores(read: Tensor) -> Tensor:
        x = one_hot(read).requires_grad_()
        (gradient,) = torch.autograd.grad(likelihood(causal, x, codes, 20), x)
        return gradient.gather(1, codes.clamp(max=3)[:, None])[:, 0] - gradient.mean(1)

    news = [b for b in "ACGT" if b != LETTERS[AT]] if base is None else [base]
    changes = []
    for new in news:
        read = codes.clone()
        read[at] = "ACGT".index(new) if strand == "+" else 3 - "ACGT".index(new)
        changes.append(scores(read) - scores(codes))
    stacked = torch.stack(changes)
    truth = stacked.gather(0, stacked.abs().argmax(0)[None])[0][20 : 20 + len(region)].numpy()
    truth = truth[::-1] if strand == "-" else truth
    known = np.array([letter != "N" for letter in LETTERS[120:190]])
    assert np.array_equal(np.isnan(found.values), ~known)
    assert np.allclose(found.values[known], truth[known], rtol=1e-5, atol=1e-6 * np.abs(truth).max())
    assert np.abs(truth[: AT - 120 - 1]).max() > 0 and np.abs(truth[AT - 120 + 1 :]).max() > 0
    assert found.totals == {} and found.own is None


def test_changes_of_sensitivity_are_differences_of_attributions(folder: Path, tmp_path: Path) -> None:
    """Of two genomes whose labels differ at one base, which is outside the target."""
    new = next(b for b in "ACGT" if b != LETTERS[AT])
    write_fasta(tmp_path / "h.fa", {"chr1": LETTERS[:AT] + new + LETTERS[AT + 1 :]})
    model = package.load_model(folder / "tiny", dtype=torch.float64)
    one, other = (package.attribute((path, "chr1:151-200"), model) for path in (folder / "g.fa", tmp_path / "h.fa"))
    assert isinstance(one, package.Attribution) and isinstance(other, package.Attribution)
    done = genoscan(
        *("response", folder / "g.fa", "-m", folder / "tiny", "--at", f"chr1:{AT + 1}:{LETTERS[AT]}>{new}"),
        *("-r", "chr1:151-200", "--of", "sensitivity", "--dtype", "float64", "-o", tmp_path / "x.bw"),
    )
    assert done.code == 0, done.err
    found = package.read_track(tmp_path / "x.bw", "chr1:151-200")
    expected = other.scores - one.scores
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5 * np.nanmax(np.abs(expected)), equal_nan=True)


def run(folder: Path, out: Path, *arguments: object) -> tuple[str, dict[str, Any]]:
    done = genoscan("response", folder / "g.fa", "-m", folder / "tiny", "-t", 1, "-o", out, *arguments)
    assert done.code == 0, done.err
    return done.err, json.loads(out.with_name(f"{out.name}.json").read_text())["response"]


def test_what_is_printed_and_recorded(folder: Path, tmp_path: Path) -> None:
    old = LETTERS[AT]
    new = next(b for b in "ACGT" if b != old)
    err, record = run(folder, tmp_path / "x.bw", "--at", f"chr1:{AT + 1}:{old}>{new}", "--finite")
    assert record["base"] == new
    assert f"total for {new}: {record['total'][new]:+.4g} nats, of which {record['own'][new]:+.4g} at the base" in err
    place = record["strongest"]["at"]
    assert f"strongest effect on another base: {record['strongest']['effect']:+.4g} at chr1:{place['end']:,}\n" in err
    err, same = run(folder, tmp_path / "y.bw", "--at", f"chr1:{AT + 1}", "--base", new.lower(), "--finite")
    assert (tmp_path / "x.bw").read_bytes() == (tmp_path / "y.bw").read_bytes()
    assert same["total"] == record["total"]
    err, record = run(folder, tmp_path / "z.bw", "--at", f"chr1:{AT + 1}", "--of", "logits")
    assert record["total"] == {} and record["own"] is None and "total" not in err
    err, _ = run(folder, tmp_path / "z.bw", "--at", f"chr1:{AT + 1}", "--of", "sensitivity", "--finite")
    assert "without effect: --finite" in err and "total" not in err


def test_a_base_that_nothing_predicts_is_a_gap(folder: Path, tmp_path: Path) -> None:
    err, record = run(folder, tmp_path / "x.bw", "--at", "chr1:1", "-r", "chr1:1-30")
    found = package.read_track(tmp_path / "x.bw", "chr1:1-30")
    assert np.isnan(found).tolist() == [True] + [False] * 29
    assert record["own"] is None and len(record["total"]) == 3
    assert err.count("without the base itself") == 3


def test_names_with_colons(folder: Path, tmp_path: Path) -> None:
    old = bases(100, 3)[49]
    new = next(b for b in "ACGT" if b != old)
    for text in (f"a:b:50:{old}>{new}", f"{{a:b}}:50:{old.lower()}>{new.lower()}"):
        _, record = run(folder, tmp_path / "x.bw", "--at", text)
        assert (record["at"]["chrom"], record["at"]["start"]) == ("a:b", 49)


def test_in_python(folder: Path, causal: Model) -> None:
    new = next(b for b in "ACGT" if b != LETTERS[AT])
    one = package.response(LETTERS, causal, at=f"{AT + 1}:{LETTERS[AT]}>{new}", finite=True)
    other = package.response(LETTERS, causal, at=AT + 1, base=new, finite=True)
    assert one.totals == other.totals and np.array_equal(one.values, other.values, equal_nan=True)


OLD = LETTERS[AT]
WRONG = next(b for b in "ACGT" if b != OLD)
PLACE = f"chr1:{AT + 1}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", f"{PLACE}:{WRONG}>{OLD}"], f"the genome has {OLD} at chr1:{AT + 1}-{AT + 1}, expected {WRONG}"),
        (["--at", f"{PLACE}:{OLD}>{OLD}"], f"--base {OLD}: is the observed base"),
        (["--at", f"{PLACE}:{OLD}>{WRONG}", "--base", OLD], f"--base {OLD}: contradicts --at {PLACE}:{OLD}>{WRONG}"),
        (["--at", f"{PLACE}:{OLD}{OLD}>{WRONG}"], "expected one base and its substitute, such as C>T"),
        (["--at", f"{PLACE}:{OLD}>"], "expected one base and its substitute, such as C>T"),
        (["--at", f"{PLACE}:{OLD}>N"], "N: expected A, C, G or T"),
        (["--at", "chr1:171:N>A"], "N: expected A, C, G or T"),
        (["--at", "chr1:171"], "the genome has an N there"),
        (["--at", "chr1:1-2:A>C"], "2 bases, expected one"),
        (["--at", "chr1"], "300 bases, expected one"),
        (["--at", "chr1:301:A>C"], "past the end of chr1"),
        (["--at", PLACE, "--of", "x"], "--of x: expected log-p, logits or sensitivity"),
        (
            ["--at", PLACE, "--of", "sensitivity", "-r", "chr1:1-9"],
            f"--at chr1:{AT + 1}-{AT + 1}: lies outside chr1:1-",
        ),
        (["--at", PLACE, "--of", "sensitivity", "-r", "a:b:1-9"], "nothing of {a:b}:1-9 is on chr1"),
        (["--at", PLACE, "--of", "sensitivity", "--context", "-1"], "--context -1: expected 0 bases or more"),
    ],
)
def test_what_is_refused(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = genoscan("response", folder / "g.fa", "-m", folder / "tiny", "-o", tmp_path / "x.bw", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), done.err
    assert message in done.err
    assert not listing(tmp_path)
