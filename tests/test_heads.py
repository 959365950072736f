"""Task heads: derivatives of labels against whole-window autograd, in every kind of model, and their words."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import bases, genoscan
from headed import LAYERS, MAMBA, STRANDED, write_headed
from pydantic import ValidationError
from torch import Tensor

import genoscan as genoscan_api
from genoscan.engine.inputs import OneHot
from genoscan.genome.fasta import FastaGenome
from genoscan.genome.region import Region
from genoscan.job import Options, prepare
from genoscan.layers.config import ModelConfig
from genoscan.layers.heads import HeadConfig
from genoscan.model import Model, load_model
from genoscan.pipeline import run
from genoscan.tracks.columns import read_columns

SIZE = 60
REGION = Region("chr1", 20, 36)


@pytest.fixture(scope="module", params=LAYERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = write_headed(tmp_path_factory.mktemp(request.param) / "model", request.param)
    return load_model(folder, dtype=torch.float64, tile=7)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> FastaGenome:
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text(f">chr1\n{bases(SIZE, 3)}\n")
    return FastaGenome(path)


def features(model: Model, x: Tensor) -> Tensor:
    """Return the final features, taken from a head that is the identity."""
    network = model.network.select(None)
    width = model.config.strands * model.config.d_model
    network.head = torch.nn.Identity()
    found: Tensor = network(x) if model.bidirectional else network(x, network.begin(1))[0]
    assert found.shape[-1] == width
    return found[0]


def logits(model: Model, name: str, h: Tensor) -> Tensor:
    """Return the logits of a head at features, from its weights and in straight lines."""
    i = list(model.config.heads).index(name)
    head = model.config.heads[name]
    tensors = dict(model.network.named_parameters())
    weight, bias = tensors[f"heads.{i}.weight"], tensors[f"heads.{i}.bias"]
    if not head.fold:
        return h @ weight.T + bias
    d = model.config.d_model
    forward, reverse = h[..., :d] @ weight.T + bias, h[..., d:] @ weight.T + bias
    return (forward + reverse[..., list(head.complements)]) / 2


def truth(model: Model, genome: FastaGenome, name: str, span: tuple[int, int], window: Region, strand: str) -> Any:
    """Return the value and columns of label site+ on one strand, in forward orientation."""
    codes = torch.from_numpy(genome.fetch("chr1", window.start, window.end).astype(np.int64))
    first, last = span[0] - window.start, span[1] - window.start
    if strand == "-":
        codes, first, last = (3 - codes).flip(0), len(codes) - last, len(codes) - first
    x = model.table()[codes][None].requires_grad_()
    h = features(model, x)[first:last]
    head, label = model.config.heads[name], 1 if strand == "+" else 2
    if head.kind == "per_base":
        value = logits(model, name, h)[:, label].sum()
    elif head.pool == "max":
        value = logits(model, name, h.max(0).values)[label]
    else:
        pooled = {"mean": h.mean(0), "first": h[0], "last": h[-1]}[str(head.pool)]
        value = logits(model, name, pooled)[label]
    (x_bar,) = torch.autograd.grad(value, x)
    columns = x_bar[0] if strand == "+" else x_bar[0].flip(0, 1)
    at = slice(REGION.start - window.start, REGION.end - window.start)
    return value.item(), columns[at]


def written(job: Any, tmp_path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    record = run(job, [tmp_path / "x.npz"])
    return np.array(read_columns(tmp_path / "x.npz").gradient, np.float64), record


@pytest.mark.parametrize("strand", ["+", "-", "both"])
@pytest.mark.parametrize(
    "name", ["sites", "max", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mean", "first", "last"))]
)
def test_columns_are_whole_window_autograds(
    model: Model, fasta: FastaGenome, name: str, strand: str, tmp_path: Path
) -> None:
    pooled = model.config.heads[name].kind == "pooled"
    names = [each for each in model.config.heads if each.removeprefix("folded-") == name]
    for name, region in product(names, (None, Region("chr1", 24, 30))):
        options: dict[str, Any] = {"context": 9, "reach": 5} if pooled else {}
        text = f"{name}:site+" + ("" if region is None else "@chr1:25-30")
        job = prepare(fasta, model, [REGION], Options(target=text, strand=strand, **options))
        found, record = written(job, tmp_path)
        values, columns = [], []
        for (windows,), direction in zip(
            list(zip(*job.batches[0], strict=True)), "+-" if strand == "both" else strand, strict=False
        ):
            window = windows.region
            span = (24, 30) if region else (window.start, window.end) if pooled else (REGION.start, REGION.end)
            value, expected = truth(model, fasta, name, span, window, direction)
            values.append(value)
            columns.append(expected)
        expected = torch.stack(columns).mean(0).numpy()
        # Written as float32. In a causal model, the first output does not depend on later bases.
        assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
        assert record["target_values"][0][0] == pytest.approx(np.mean(values), rel=1e-12)


def test_the_engine_is_exact_to_rounding(model: Model, fasta: FastaGenome) -> None:
    """In float64, before anything is written; and tiles agree."""
    from genoscan.gradient import gradient

    codes = torch.from_numpy(fasta.fetch("chr1", 0, SIZE))[None]
    for name in model.config.heads:
        job = prepare(fasta, model, [], Options(target=f"{name}:site+"))
        windows = job.batches[0][0]
        resolved = job.target.resolve(windows, codes, job.model, [], masked=False)
        found = gradient(job.model, codes, resolved.target).gradient[0]
        _, expected = truth(model, fasta, name, (0, SIZE), windows[0].region, "+")
        whole = torch.zeros_like(found)
        whole[REGION.start : REGION.end] = expected
        at = slice(REGION.start, REGION.end)
        assert (found[at] - expected).norm() <= 1e-12 * expected.norm()


def test_windows_of_pooled_heads_are_the_regions(model: Model, fasta: FastaGenome) -> None:
    job = prepare(fasta, model, [REGION], Options(target="mean:site+"))
    assert [w.region for batch in job.batches for (w,) in batch] == [REGION]
    with pytest.raises(Exception, match="extends beyond the window read"):
        prepare(fasta, model, [REGION], Options(target="mean:site+@chr1:5-10"))


def test_probabilities_and_contrasts_are_recorded(model: Model, fasta: FastaGenome, tmp_path: Path) -> None:
    options = Options(target="sites:site+@chr1:25-25", contrast="strongest")
    job = prepare(fasta, model, [REGION], options)
    _, record = written(job, tmp_path)
    window = job.batches[0][0][0].region
    x = model.table()[torch.from_numpy(fasta.fetch("chr1", window.start, window.end).astype(np.int64))][None]
    three = logits(model, "sites", features(model, x)[24 - window.start])
    other = 0 if three[0] > three[2] else 2
    assert record["target_labels"] == [
        [{"contrast": STRANDED["labels"][other], "probability": pytest.approx(float(torch.softmax(three, 0)[1]))}]
    ]
    assert record["target_values"] == [[pytest.approx(float(three[1] - three[other]))]]
    plain = prepare(fasta, model, [REGION], Options(target="sites:site+@chr1:25-25", contrast="none"))
    _, named = written(plain, tmp_path)
    assert named["target_values"] == [[pytest.approx(float(three[1] - three[0]))]]


@pytest.mark.parametrize("model", ["rcps"], indirect=True)
def test_equivariant_models_complement_their_labels(model: Model, fasta: FastaGenome) -> None:
    codes = torch.from_numpy(fasta.fetch("chr1", 0, SIZE))[None]
    for name in ("folded-sites", "folded-mean"):
        head = model.with_head(name)

        def outputs(codes: Tensor, head: Model = head) -> Tensor:
            tiles = head.method.forward(head.stack, OneHot(codes, head.table()))
            return torch.cat([tile for _, tile in tiles], 1)[0]

        forward, reverse = outputs(codes), outputs((3 - codes).flip(1)).flip(0)
        assert torch.allclose(forward, reverse[:, list(head.config.heads[name].complements)], rtol=0, atol=1e-12)


def test_models_without_a_language_model(tmp_path: Path, fasta: FastaGenome) -> None:
    loaded = load_model(write_headed(tmp_path / "m", "bidirectional", language_model=False))
    assert loaded.head == "sites"
    with pytest.raises(Exception, match=r"has no language model, expected sites:LABEL\[@REGION\]"):
        prepare(fasta, loaded, [REGION], Options())
    assert prepare(fasta, loaded, [REGION], Options(target="sites:none")).model.stack is not loaded.network


@pytest.mark.slow
def test_models_with_heads_are_verified(model: Model, fasta: FastaGenome, tmp_path: Path) -> None:
    """The command checks the language model and, if there is none, the first head; files of all heads."""
    kind = "rcps" if model.equivariant else "bidirectional" if model.bidirectional else "causal"
    alone = write_headed(tmp_path / "alone", kind, language_model=False)
    for path in (model.path, alone):
        done = genoscan("verify", fasta.path, "-r", "chr1", "-m", path, "--tile", 16, "-t", 2)
        assert done.code == 0, done.out + done.err
    done = genoscan("plan", fasta.path, "-m", alone, "--target", "sites:site+", "-o", tmp_path / "x.bw")
    assert done.code == 0, done.err
    done = genoscan("response", fasta.path, "-m", alone, "--at", "chr1:30", "-o", tmp_path / "x.bw")
    assert (done.code, "has no language model" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": []}, "labels"),
        ({"labels": ["a", "a"]}, "different names"),
        ({"labels": ["a b"]}, "letters, digits"),
        ({"labels": ["a+", "a-"]}, "has a strand"),
        ({"labels": ["a+", "a-"], "complement": [0, 1]}, "pairs a"),
        ({"labels": ["a", "b", "c"], "complement": [1, 2, 0]}, "its own inverse"),
        ({"labels": ["a", "b"], "complement": [0, 0]}, "each index"),
        ({"pool": "mean"}, "for a pooled head only"),
        ({"kind": "pooled"}, "for a pooled head only"),
        ({"link": "tanh"}, "link"),
        ({"spare": 1}, "spare"),
    ],
)
def test_invalid_heads(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        HeadConfig.model_validate({"kind": "per_base", "labels": ["x"], "link": "none"} | changes)


@pytest.mark.parametrize("name", ["log-likelihood", "logit", "log-odds", "a b", "a:b", "a@b", ""])
def test_invalid_names_of_heads(name: str) -> None:
    settings = {"d_model": 6, "context": 9, "reach": 5, "trained_on": "", "layers": [MAMBA]}
    with pytest.raises(ValidationError, match="heads"):
        ModelConfig.model_validate(settings | {"heads": {name: {"kind": "per_base", "labels": ["x"], "link": "none"}}})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "site:site+"], "has no head 'site'; did you mean sites?"),
        (["--target", "sites:sites+"], "head sites has no label 'sites+'; did you mean site+?"),
        (["--target", "sites"], "expected log-likelihood"),
        (["--target", "sites:site+@chr9:5-6"], "chr9"),
        (["--target", "sites:site+@chr1:5-600"], "60"),
        (["--target", "sites:site+", "--contrast", "site+"], "is the label of the target"),
        (["--target", "sites:site+", "--contrast", "x"], "--contrast x: head sites has no label 'x'"),
        (["--contrast", "site+"], "expected a target of a head"),
        (["--target", "mean:site+@chr1:1-3", "-r", "chr1:20-30"], "extends beyond the window read"),
        (["--target", "sites:site@chr1:1-3"], "no label 'site'; did you mean site+ or site-?"),
        (["--target", "sites:site+@"], "--target sites:site+@: expected a region, such as chr1:1,001-2,000, after @"),
        (["--target", "sites:site+@DIN9"], '--target sites:site+@DIN9: region DIN9: no sequence is called "DIN9"; '),
        (["--target", "sites:site+@DIN9"], "a target's region has coordinates (chr1:1,001-2,000), not a gene's name"),
    ],
)
def test_bad_targets_get_one_line(
    model: Model, fasta: FastaGenome, arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = genoscan("attribute", fasta.path, "-m", model.path, "-o", tmp_path / "x.bw", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert said in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strand", ["+", "-"])
def test_the_python_interface(model: Model, fasta: FastaGenome, strand: str) -> None:
    letters = "".join("ACGTN"[code] for code in fasta.fetch("chr1", 0, SIZE))
    found = genoscan_api.predict(letters, model, head="sites", strand=strand)
    codes = torch.from_numpy(fasta.fetch("chr1", 0, SIZE).astype(np.int64))
    read = (3 - codes).flip(0) if strand == "-" else codes
    expected = logits(model, "sites", features(model, model.table()[read][None])).detach().numpy()
    expected = expected[::-1][:, [0, 2, 1]] if strand == "-" else expected
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    target = "sites:site+@30-30"
    one = genoscan_api.attribute(letters, model, target=target, strand=strand, contrast="strongest")
    others = np.delete(found[29], 1)
    assert one.value == pytest.approx(found[29, 1] - others.max())  # type: ignore[union-attr]
    whole, part = genoscan_api.predict([letters, letters[:50]], model, head="mean", strand=strand)
    inside = features(model, model.table()[read][None])
    pooled = logits(model, "mean", inside.mean(-2, keepdim=True)).detach().numpy()[0]
    np.testing.assert_allclose(whole, pooled[[0, 2, 1]] if strand == "-" else pooled, rtol=1e-9)
    np.testing.assert_array_equal(part, genoscan_api.predict(letters[:50], model, head="mean", strand=strand))
    with pytest.raises(Exception, match="has no head nothing"):
        genoscan_api.predict(letters, model, head="nothing")


def test_the_command_takes_labels(model: Model, fasta: FastaGenome, tmp_path: Path) -> None:
    out = tmp_path / "x.bw"
    done = genoscan("attribute", fasta.path, "-m", model.path, "--target", "sites:site+@chr1:30-30", "-o", out)
    assert done.code == 0, done.err
    record = json.loads(Path(f"{out}.json").read_text())
    assert record["target"] == "sites:site+@chr1:30-30"
    assert 0 < record["target_labels"][0][0]["probability"] < 1
