"""Averages of gradients along paths, against plain torch, and the runs that write them."""

import json
import re
from collections import Counter
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from commands import bases, elsewhere, genoscan, listing, tiny_model, write_fasta
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import assert_near
from torch import Tensor
from toys import straight_stack, tiny_stack
from truth import caduceus

import genoscan as package
from genoscan.averages import path_method as definition
from genoscan.averages.path_attribution import PathResult, average_gradients, completeness
from genoscan.averages.path_method import path_method
from genoscan.engine.inputs import Mixture, Noisy
from genoscan.engine.target import whole_window
from genoscan.errors import InputError
from genoscan.export.track_file import load_track
from genoscan.genome.plan import Window
from genoscan.genome.region import Region
from genoscan.genome.shuffle import shuffle_dinucleotides
from genoscan.layers.config import MASK
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.weights import write_model
from genoscan.model import Model
from genoscan.tracks.sink import Sink

LETTERS = f"{bases(150, 1)}NN{bases(148, 2)}"
REGION = "chr1:101-200"
CODE = {letter: code for code, letter in enumerate("ACGTN")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paths")
    tiny_model(folder / "tiny")
    write_fasta(folder / "g.fa", {"chr1": LETTERS, "chr2": bases(130, 3)})
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return package.load_model(folder / "tiny", dtype=torch.float64, tile=16)


def coded(letters: str) -> Tensor:
    return torch.tensor([[CODE[letter] for letter in letters]], dtype=torch.uint8)


def log_likelihood(model: Model, x: Tensor, codes: Tensor) -> Tensor:
    """The log-likelihood of the bases that are known, in plain torch."""
    log_p = torch.log_softmax(straight_stack(model.stack, x[None], model.stack.begin(1))[0, :-1], -1)
    labels = codes[0, 1:].long()
    return log_p.gather(-1, labels.clamp(max=3)[:, None])[labels < 4].sum()


def one_hot(codes: Tensor, unknown: float = 0.25) -> Tensor:
    table = torch.cat([torch.eye(4), torch.full((1, 4), unknown)]).double()
    return table[codes[0].long()]


def derivative(model: Model, x: Tensor, codes: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(log_likelihood(model, x, codes), x)
    return found


def averaged(model: Model, codes: Tensor, strand: str = "+", **options: Any) -> tuple[PathResult, Tensor]:
    """What the package computes for one window."""
    region = Region("chr1", 0, codes.shape[1])
    columns = torch.zeros(codes.shape[1], 4, dtype=torch.float64)

    def receive(rows: slice, span: slice, tile: Tensor, *, weight: float, add: bool) -> None:
        assert rows == slice(0, 1)
        columns[span] = columns[span] * add + weight * tile[0]

    given = {"steps": 6, "baseline": None, "seed": 1, "sigma": 0.15} | options
    method = path_method(given.pop("name"), **given)
    assert method is not None
    target = whole_window(codes, model.columns(), 1)
    return average_gradients(model, [Window(region, (region,), strand)], codes, target, method, receive), columns


# Against plain torch


@pytest.mark.parametrize("baseline", ["uniform", "zeros", "dinucleotide-shuffle"])
def test_integrated_gradients(model: Model, baseline: str) -> None:
    codes = coded(LETTERS[100:180])
    result, columns = averaged(model, codes, name="integrated-gradients", baseline=baseline)
    x = one_hot(codes)
    if baseline == "dinucleotide-shuffle":
        seed = (1, 0, crc32(b"chr1"), 0, 80, 0)
        start = one_hot(torch.from_numpy(shuffle_dinucleotides(codes[0].numpy(), np.random.default_rng(seed)))[None])
    else:
        start = torch.full_like(x, 0.25 if baseline == "uniform" else 0.0)
        start[codes[0] == 4] = x[codes[0] == 4]
    nodes, weights = np.polynomial.legendre.leggauss(6)
    gradient = torch.zeros_like(x)
    for node, weight in zip(nodes, weights, strict=True):
        gradient += weight / 2 * derivative(model, start + (node + 1) / 2 * (x - start), codes)
    assert_near(columns, gradient - (start * gradient).sum(1, keepdim=True), bar=1e-10)
    assert_near(columns[codes[0] < 4, codes[0][codes[0] < 4].long()], ((x - start) * gradient).sum(1)[codes[0] < 4])
    assert result.total[0] == pytest.approx(float(((x - start) * gradient).sum()), rel=1e-11)
    assert result.value[0] == pytest.approx(float(log_likelihood(model, x, codes)), rel=1e-11)
    assert result.baseline is not None
    assert result.baseline[0] == pytest.approx(float(log_likelihood(model, start, codes)), rel=1e-11)


def test_expected_gradients(model: Model) -> None:
    """The shuffles and the points are those of the method; all else is done again in plain torch."""
    codes = coded(LETTERS[:60])
    method = path_method("expected-gradients", 5, None, 7, 1.0)
    assert method is not None
    points = method.points
    assert sorted(int(5 * point.alpha) for point in points) == list(range(5))
    result, columns = averaged(model, codes, name="expected-gradients", steps=5, seed=7)
    truth, ends, x = torch.zeros(60, 4).double(), 0.0, one_hot(codes)
    crc = crc32(b"chr1")
    for alpha, _, sample in points:
        random = np.random.default_rng((7, sample, crc, 0, 60, 0))
        start = one_hot(torch.from_numpy(shuffle_dinucleotides(codes[0].numpy(), random))[None])
        gradient = derivative(model, start + alpha * (x - start), codes)
        truth += (gradient - (start * gradient).sum(1, keepdim=True)) / 5
        ends += float(log_likelihood(model, start, codes)) / 5
    assert_near(columns, truth, bar=1e-10)
    assert result.baseline is not None
    assert result.baseline[0] == pytest.approx(ends, rel=1e-11)


def test_smoothgrad(model: Model) -> None:
    codes = coded(LETTERS[130:190])
    result, columns = averaged(model, codes, name="smoothgrad", steps=3, sigma=0.3)
    assert result.baseline is None and completeness([result]) == []
    crc = crc32(b"chr1")
    truth = torch.zeros(60, 4).double()
    for sample in range(3):
        noise = np.random.default_rng((1, sample, crc, 0, 60, 0, 0)).standard_normal((1024, 4))[:60]
        x = one_hot(codes) + 0.3 * torch.from_numpy(noise) * (codes[0] < 4)[:, None]
        truth += derivative(model, x, codes) / 3
    assert_near(columns, truth, bar=1e-10)


def test_a_bidirectional_model_with_a_masked_target(tmp_path: Path) -> None:
    """The mask token is the same along the path."""
    config = caduceus.config()
    caduceus.write(tmp_path / "foreign", config, caduceus.tensors(config))
    write_model(tmp_path / "cad", *read_foreign(tmp_path / "foreign"), "")
    model, plain = (
        package.load_model(tmp_path / "cad", dtype=torch.float64, kernels=kernels, tile=16)
        for kernels in ("auto", "reference")
    )
    letters = bases(50, 9)
    found = package.attribute(letters, model, target="logit:21:C", masked=True, method="integrated-gradients", steps=4)
    assert isinstance(found, package.Attribution)
    codes, columns = coded(letters), list(model.config.base_columns)
    codes[0, 20] = MASK
    x = plain.table()[codes.long()]
    start = x.clone()
    start[0, codes[0] < 4] = plain.table()[:4].mean(0)
    nodes, weights = np.polynomial.legendre.leggauss(4)
    gradient = torch.zeros_like(x)
    for node, weight in zip(nodes, weights, strict=True):
        point = (start + (node + 1) / 2 * (x - start)).requires_grad_()
        gradient += weight / 2 * torch.autograd.grad(plain.whole(point)[0, 20, columns[1]], point)[0]
    truth = (gradient - (start * gradient).sum(-1, keepdim=True))[0][:, columns].numpy()
    known = np.arange(50) != 20
    assert np.isnan(found.gradient[20]).all() and np.isnan(found.scores[20])
    assert np.allclose(found.gradient[known], truth[known], rtol=1e-5, atol=1e-6 * np.abs(truth).max())
    ends = [float(plain.whole(end)[0, 20, columns[1]]) for end in (x, start)]
    error = abs(float(((x - start) * gradient).sum()) - (ends[0] - ends[1])) / abs(ends[0] - ends[1])
    assert found.completeness_error == pytest.approx(error, rel=1e-6)


def test_noise_has_its_distribution_and_depends_on_no_tile() -> None:
    codes, table = coded("ACGTN" * 1000), torch.eye(6).double()[:, :5]
    noisy = Noisy(codes, table, 0.2, ((1, 2),))
    whole = noisy.tile(slice(0, 5000))
    parts = [noisy.tile(slice(start, min(start + 700, 5000))) for start in range(0, 5000, 700)]
    assert torch.equal(torch.cat(parts, 1), whole)
    noise = (whole - table[codes.long()])[0]
    assert not noise[codes[0] == 4].any() and not noise[:, 4].any()
    known = noise[codes[0] < 4][:, :4]
    assert float(known.std()) == pytest.approx(0.2, rel=0.02)
    assert abs(float(known.mean())) < 0.005
    assert not torch.equal(Noisy(codes, table, 0.2, ((1, 3),)).tile(slice(0, 9)), whole[:, :9])


def test_mixtures() -> None:
    codes, table = coded("ACGTN"), torch.eye(5).double()
    line = Mixture(codes, table, codes.flip(1), 2 * table, 0.25)
    expected = 0.25 * table[codes.long()] + 0.75 * 2 * table[codes.flip(1).long()]
    assert_near(line.tile(slice(1, 4)), expected[:, 1:4])
    assert_near(line.rows(slice(0, 1)).tile(slice(0, 5)), expected)


def test_attributions_sum_to_the_difference_of_the_target(model: Model) -> None:
    codes = coded(bases(40, 5))
    errors = []
    for steps in (4, 8, 16, 32):
        result, columns = averaged(model, codes, name="integrated-gradients", steps=steps)
        assert result.baseline is not None
        found = columns.gather(1, codes[0].long()[:, None]).sum()
        assert float(found) == pytest.approx(result.total[0], rel=1e-10)
        errors.append(completeness([result])[0]["error"])
    assert errors[-1] is not None and errors[-1] < 1e-6
    assert errors == sorted(errors, reverse=True)


def test_a_shuffle_is_the_same_sequence_on_both_strands(model: Model) -> None:
    codes = coded(bases(50, 6))
    forward, _ = averaged(model, codes, "+", name="integrated-gradients", steps=1, baseline="dinucleotide-shuffle")
    turned = (3 - codes).flip(1)
    reverse, _ = averaged(model, turned, "-", name="integrated-gradients", steps=1, baseline="dinucleotide-shuffle")
    random = np.random.default_rng((1, 0, crc32(b"chr1"), 0, 50, 0))
    start = torch.from_numpy(shuffle_dinucleotides(codes[0].numpy(), random))[None]
    for result, read, labels in ((forward, start, codes), (reverse, (3 - start).flip(1), turned)):
        assert result.baseline is not None
        assert result.baseline[0] == pytest.approx(float(log_likelihood(model, one_hot(read), labels)), rel=1e-11)


def test_automatic_steps(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = coded(bases(40, 5))
    monkeypatch.setattr(definition, "FEWEST", 1)
    result, columns = averaged(model, codes, name="integrated-gradients", steps="auto")
    assert 1 < result.steps < 64
    _, same = averaged(model, codes, name="integrated-gradients", steps=result.steps)
    assert torch.equal(columns, same)
    (report,) = completeness([result])
    assert report["error"] is not None and report["error"] <= definition.TOLERANCE
    before, _ = averaged(model, codes, name="integrated-gradients", steps=result.steps // 2)
    assert completeness([before])[0]["error"] > definition.TOLERANCE  # type: ignore[operator]


def test_an_error_that_is_not_defined() -> None:
    same = PathResult(1, np.ones(2), np.ones(2), np.array([0.0, 0.5]))
    assert [row["error"] for row in completeness([same])] == [0.0, None]


def test_captums_integrated_gradients(model: Model) -> None:
    """Optional: captum is no dependency of the tests."""
    attr = pytest.importorskip("captum.attr", exc_type=ImportError)
    codes = coded(bases(50, 8))

    def values(x: Tensor) -> Tensor:
        return torch.stack([log_likelihood(model, row, codes) for row in x])

    x = one_hot(codes)[None]
    for name, start in (("uniform", torch.full_like(x, 0.25)), ("zeros", torch.zeros_like(x))):
        theirs = attr.IntegratedGradients(values).attribute(x, start, n_steps=50, method="gausslegendre")
        _, columns = averaged(model, codes, name="integrated-gradients", steps=50, baseline=name)
        ours = columns.gather(1, codes[0].long()[:, None])[:, 0]
        assert_near(ours, theirs[0].sum(1), bar=1e-4)


# Shuffles


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text("ACGTN", max_size=60), st.integers(0, 3))
def test_shuffles_keep_dinucleotides(letters: str, seed: int) -> None:
    codes = np.array([CODE[letter] for letter in letters], np.uint8)
    found = shuffle_dinucleotides(codes, np.random.default_rng(seed))
    assert found.dtype == np.uint8
    assert np.array_equal(found == 4, codes == 4)
    for old, new in zip(letters.split("N"), "".join("ACGTN"[code] for code in found).split("N"), strict=True):
        assert Counter(pairwise(old)) == Counter(pairwise(new))
        assert old[:1] == new[:1] and old[-1:] == new[-1:]


@pytest.mark.parametrize("letters", ["AACACGAC", "ACAGATCA", "GGAGCGAG"])
def test_every_shuffle_is_equally_probable(letters: str) -> None:
    pairs = Counter(pairwise(letters))
    others = {"".join(other) for other in permutations(letters)}
    possible = {other for other in others if other[0] == letters[0] and Counter(pairwise(other)) == pairs}
    random, n = np.random.default_rng(1), 300 * len(possible)
    codes = np.array([CODE[letter] for letter in letters], np.uint8)
    seen = Counter("".join("ACGT"[code] for code in shuffle_dinucleotides(codes, random)) for _ in range(n))
    assert seen.keys() == possible
    chi_square = sum((count - 300) ** 2 / 300 for count in seen.values())
    degrees = len(possible) - 1
    assert chi_square < degrees + 5 * (2 * degrees) ** 0.5


def test_rare_exits_from_a_repeat_are_no_obstacle() -> None:
    letters = "A" * 20_000 + "C" * 20_000 + "AC" * 20_000 + "G" + "T" * 20_000
    codes = np.array([CODE[letter] for letter in letters], np.uint8)
    found = shuffle_dinucleotides(codes, np.random.default_rng(1))
    assert Counter(pairwise(found.tolist())) == Counter(pairwise(codes.tolist()))
    assert not np.array_equal(found, codes)


# Runs


def attribute(folder: Path, out: Path, *arguments: object) -> dict[str, Any]:
    common = "attribute", folder / "g.fa", "-m", folder / "tiny", "-t", 1, "-o", out, *arguments
    done = genoscan(*common)
    assert done.code == 0, done.err
    return {"err": done.err} | json.loads(out.with_name(f"{out.name}.json").read_text())


@pytest.mark.filterwarnings("ignore:completeness error")
@pytest.mark.parametrize(
    ("method", "strand"),
    [
        ("integrated-gradients", "-"),
        ("integrated-gradients", "both"),
        ("expected-gradients", "+"),
        ("expected-gradients", "both"),
        ("smoothgrad", "both"),
    ],
)
def test_tracks(folder: Path, tmp_path: Path, method: str, strand: str) -> None:
    """Columns are those of single windows, scores those of columns, and both the Python interface's."""
    common = "-r", REGION, "--tile", 16, "--steps", 3, "--method", method, "--strand", strand
    record = attribute(folder, tmp_path / "x.npz", *common, "-o", tmp_path / "x.bw")
    columns, codes = np.load(tmp_path / "x.npz")["gradient"], np.load(tmp_path / "x.npz")["codes"]
    assert np.array_equal(np.isnan(columns).any(1), codes == 4)
    observed = np.take_along_axis(columns, np.minimum(codes, 3)[:, None].astype(int), 1)[:, 0]
    expected = observed if method != "smoothgrad" else observed - columns.mean(1)
    assert np.array_equal(package.read_track(tmp_path / "x.bw", REGION), expected, equal_nan=True)
    assert record["score"] == ("centred" if method == "smoothgrad" else "observed")
    assert record["attribution"]["name"] == method
    loaded = package.load_model(folder / "tiny", tile=16)
    found = package.attribute((folder / "g.fa", REGION), loaded, method=method, steps=3, strand=strand)
    assert isinstance(found, package.Attribution)
    assert np.array_equal(found.gradient, columns, equal_nan=True)
    if method == "smoothgrad":
        assert "completeness" not in record and found.completeness_error is None
    else:
        ((row,),) = record["completeness"]
        assert row["steps"] == 3 and found.completeness_error == row["error"]
    other = attribute(folder, tmp_path / "y.npz", *common, "--tile", 50)
    assert other["tile"] == 50
    near = np.load(tmp_path / "y.npz")["gradient"]
    assert np.nanmax(np.abs(near - columns)) < 1e-5 * np.nanmax(np.abs(columns))


def test_a_large_completeness_error_is_a_warning(folder: Path) -> None:
    loaded = package.load_model(folder / "tiny", tile=16)
    with pytest.warns(UserWarning, match="completeness error above 5% in 1 of 1 sequences"):
        package.attribute((folder / "g.fa", REGION), loaded, method="expected-gradients", steps=1)


def test_both_strands_are_the_mean(folder: Path, tmp_path: Path) -> None:
    common = "-r", REGION, "--steps", 3, "--method", "expected-gradients"
    one, other, both = (tmp_path / f"{name}.npz" for name in ("one", "other", "both"))
    for path, strand in ((one, "+"), (other, "-"), (both, "both")):
        attribute(folder, path, *common, "--strand", strand)
    mean = (np.load(one)["gradient"] + np.load(other)["gradient"]) / 2
    assert np.nanmax(np.abs(np.load(both)["gradient"] - mean)) < 1e-6 * np.nanmax(np.abs(mean))


def test_automatic_steps_on_both_strands(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of an attempt with too few steps do not remain, on disk or in memory."""
    for name, number in {"FEWEST": 1, "MOST": 4, "TOLERANCE": 0.0}.items():
        monkeypatch.setattr(definition, name, number)
    monkeypatch.setattr("genoscan.averages.path_attribution.TOLERANCE", 0.0)
    common = "-r", REGION, "--method", "integrated-gradients", "--strand", "both"
    record = attribute(folder, tmp_path / "auto.npz", *common, "--steps", "auto")
    attribute(folder, tmp_path / "four.npz", *common, "--steps", 4)
    truth = np.load(tmp_path / "four.npz")["gradient"]
    assert np.array_equal(np.load(tmp_path / "auto.npz")["gradient"], truth, equal_nan=True)
    loaded = package.load_model(folder / "tiny")
    options = {"method": "integrated-gradients", "strand": "both", "steps": "auto"}
    found = package.attribute((folder / "g.fa", REGION), loaded, **options)  # type: ignore[arg-type]
    assert isinstance(found, package.Attribution)
    assert np.array_equal(found.gradient, truth, equal_nan=True)
    assert record["completeness"][0][0]["steps"] == 4
    assert "not reached with 4 steps" in record["err"]


def test_a_large_error_is_reported(folder: Path, tmp_path: Path) -> None:
    common = "-r", REGION, "-r", "chr2", "--method", "integrated-gradients", "--baseline", "zeros"
    few = attribute(folder, tmp_path / "x.bw", *common, "--steps", 1)
    errors = [row["error"] for batch in few["completeness"] for row in batch]
    assert max(errors) > 0.05
    assert f"completeness error above 5% in {sum(error > 0.05 for error in errors)} of 2 regions" in few["err"]
    many = attribute(folder, tmp_path / "y.bw", "-r", REGION, "--method", "integrated-gradients", "--steps", 40)
    assert many["completeness"][0][0]["error"] < 0.05
    assert "completeness" not in many["err"]


KILL = """
import os, signal
from genoscan.tracks.sink import Sink
stored, calls = Sink._store, []
def dying(sink, *given):
    stored(sink, *given)
    calls.append(len(sink._arrays.journal.entries))
    if calls.count(1) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
Sink._store = dying
"""


REGIONS = "-r", "chr1:101-200", "-r", "chr1:221-290", "-r", "chr2"
OPTIONS = "--method", "expected-gradients", "--steps", 3, "--strand", "both", "--tile", 50


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """What a run that nothing stops makes."""
    attribute(folder, folder / "whole.npz", *REGIONS, *OPTIONS, "-o", folder / "whole.bw")
    return folder / "whole.npz"


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_stopped_inside_a_batch(
    folder: Path, whole: Path, tmp_path: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is computed again, from its start."""
    common = "attribute", folder / "g.fa", "-m", folder / "tiny", "-t", 1, *REGIONS, *OPTIONS
    outputs = "-o", tmp_path / "x.npz", "-o", tmp_path / "x.bw"
    if killed:
        assert elsewhere(*common, *outputs, before=KILL).code == -9
    else:
        with monkeypatch.context() as patch:
            stored, calls = Sink._store, list[int]()

            def interrupted(sink: Any, *given: Any) -> None:
                stored(sink, *given)
                calls.append(len(sink._arrays.journal.entries))
                if calls.count(1) == 7:
                    raise KeyboardInterrupt

            patch.setattr(Sink, "_store", interrupted)
            assert genoscan(*common, *outputs).code == 130
    assert listing(tmp_path) == {"x.npz.partial"}
    refused = genoscan(*common, *outputs, "--seed", 2)
    assert refused.code == 1 and "has an unfinished run with attribution" in refused.err
    assert genoscan(*common, *outputs).code == 0
    for name in ("x.npz", "x.bw"):
        assert (tmp_path / name).read_bytes() == whole.with_suffix(Path(name).suffix).read_bytes()


def test_shards(folder: Path, whole: Path, tmp_path: Path) -> None:
    common = "attribute", folder / "g.fa", "-m", folder / "tiny", "-t", 1, *REGIONS, *OPTIONS
    shards = [tmp_path / f"{i}.npz" for i in (1, 2)]
    for i, path in enumerate(shards, 1):
        assert genoscan(*common, "--shard", f"{i}/2", "-o", path).code == 0
    done = genoscan("track", "merge", *shards, "-g", folder / "g.fa", "-o", tmp_path / "merged.bw")
    assert done.code == 0, done.err
    assert (tmp_path / "merged.bw").read_bytes() == whole.with_suffix(".bw").read_bytes()
    records = [json.loads(path.read_text()) for path in (tmp_path / "merged.bw.json", folder / "whole.bw.json")]
    merged, single = (sorted(json.dumps(row) for batch in one["completeness"] for row in batch) for one in records)
    assert merged == single


def test_the_page_names_the_method(folder: Path, whole: Path) -> None:
    track = load_track(whole.with_suffix(".bw"), package.open_genome(folder / "g.fa"))
    assert track.description == (
        "model tiny; target log-likelihood; mean of both strands; expected-gradients; score observed, in nats, as "
        "shares of the difference from the baseline; positive: the observed base raises the target"
    )


def test_the_gradient_has_no_new_entries(folder: Path, tmp_path: Path) -> None:
    record = attribute(folder, tmp_path / "x.bw", "-r", REGION)
    assert not {"attribution", "completeness"} & record.keys()
    assert record["score"] == "centred" and record["columns"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "ig"], "--method ig: expected one of gradient, integrated-gradients"),
        (["--method", "integrated-gradients", "--baseline", "x"], "--baseline x: expected one of uniform, zeros"),
        (["--method", "integrated-gradients", "--steps", "0"], "--steps 0: expected a number of at least 1"),
        (["--method", "integrated-gradients", "--steps", "-1"], "--steps -1: expected a number of at least 1"),
        (["--method", "smoothgrad", "--steps", "auto"], "--steps auto: --method smoothgrad"),
        (["--method", "smoothgrad", "--sigma", "0"], "--sigma 0.0: expected a positive number"),
        (["--method", "smoothgrad", "--sigma", "nan"], "--sigma nan: expected a positive number"),
        (["--method", "expected-gradients", "--seed", "-1"], "--seed -1: expected 0 or more"),
        (["--method", "expected-gradients", "--baseline", "zeros"], "--baseline zeros: expected dinucleotide-shuffle"),
    ],
)
def test_settings_that_are_refused(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = genoscan("attribute", folder / "g.fa", "-m", folder / "tiny", "-o", tmp_path / "x.bw", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert message in done.err
    assert not listing(tmp_path)


def test_settings_without_effect(folder: Path, tmp_path: Path) -> None:
    given = "--sigma", 1, "--seed", 2, "--baseline", "zeros", "--steps", 2
    for method, named in {
        "gradient": {"--sigma", "--seed", "--baseline", "--steps"},
        "integrated-gradients": {"--sigma", "--seed"},
        "smoothgrad": {"--baseline"},
    }.items():
        err = attribute(folder, tmp_path / "x.bw", "-r", "chr1:1-9", "--method", method, *given)["err"]
        (line,) = [line for line in err.splitlines() if line.startswith("without effect:")]
        assert {option for option in given if isinstance(option, str) and f"{option} (" in line} == named


def test_plan_multiplies_the_time(folder: Path, tmp_path: Path) -> None:
    common = "plan", folder / "g.fa", "-m", folder / "tiny", "-t", 1, "-r", "chr1", "-o", tmp_path / "x.bw"
    done = genoscan(*common, "--method", "integrated-gradients", "--steps", "auto")
    assert re.search(r"^gradients +16 to 2,032 \(the time is that of 16\) per window$", done.out, re.MULTILINE)
    done = genoscan(*common, "--method", "expected-gradients", "--steps", 7)
    assert re.search(r"^gradients +7 per window$", done.out, re.MULTILINE)
    assert "2 bytes per base of a batch" in done.out
    assert "gradients" not in genoscan(*common).out


def test_heads_that_take_a_maximum_are_refused(model: Model) -> None:
    from genoscan.label_target import LabelTarget
    from genoscan.layers.heads import HeadConfig

    head = HeadConfig(kind="pooled", labels=("a", "b"), pool="max", link="none")
    with pytest.raises(InputError, match="--method smoothgrad: head h takes the maximum over positions"):
        LabelTarget("h:a", "h", head, 0).check_path("smoothgrad")
    LabelTarget("h:a", "h", head.model_copy(update={"pool": "mean"}), 0).check_path("smoothgrad")


def test_the_seeded_model_is_not_linear() -> None:
    """Otherwise one step would do, and the tests above could not fail."""
    stack, codes = tiny_stack(), coded(bases(30, 1))
    x = one_hot(codes)
    low, high = (straight_stack(stack, scale * x[None], stack.begin(1)) for scale in (0.5, 1.0))
    assert not torch.allclose(2 * low, high, rtol=0.01)
