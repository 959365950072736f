"""Fine-tuned checkpoints: their heads against independent float64 code, and one line where they are refused.

Files are self-made, in the layouts of CaduceusForSequenceClassification, GENATATOR, Plant DNAMamba and
Orthrus.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from commands import genoscan
from laws import assert_near
from safetensors.torch import load_file, save_file
from test_foreign_files import SIZES, refusal
from torch import Tensor
from torch.nn import functional as F
from truth import caduceus, classifiers

import genoscan as package
from genoscan.errors import InputError, ModelError
from genoscan.genome.fasta import FastaGenome
from genoscan.gradient import gradient
from genoscan.importer import load_model, wrap
from genoscan.job import Options, prepare
from genoscan.model import Model

BAR = 1e-9
LETTERS = "ACGTTGCANNCATGCCGTAAGCTTTGCANGATTACAGGCCATATTCGGCTAAGCTCGATCG"


class Found(NamedTuple):
    """Logits of all labels of a head, and the derivative of one label by each symbol weight."""

    logits: Tensor
    gradient: Tensor


@pytest.fixture
def fasta(tmp_path: Path) -> FastaGenome:
    (tmp_path / "g.fa").write_text(f">chr1\n{LETTERS}\n")
    return FastaGenome(tmp_path / "g.fa")


def found(model: Model, fasta: FastaGenome, target: str) -> Found:
    """Run the engine in tiles; logits of a per-base head are summed over the sequence."""
    codes = torch.from_numpy(fasta.fetch("chr1", 0, len(LETTERS)))[None]
    job = prepare(fasta, model, [], Options(target=target))
    windows: Any = job.batches[0][0]
    chosen: Any = job.target
    resolved = chosen.resolve(windows, codes, job.model, [], masked=False)
    logits = chosen.predict(windows, codes, job.model)[0].logits
    return Found(logits, gradient(job.model, codes, resolved.target).gradient[0])


def expected(call: Callable[[Tensor], Tensor], x: Tensor, label: int) -> Found:
    x = x.double().requires_grad_()
    logits = call(x)
    (x_bar,) = torch.autograd.grad(logits[label], x)
    return Found(logits.detach(), x_bar)


def loaded(folder: Path, **options: Any) -> Model:
    return load_model(folder, dtype=torch.float64, tile=17, **options)


def one_hot(tokens: str, size: int) -> Tensor:
    """Return one-hot tokens, with the token of each letter given by its place in `tokens`."""
    return F.one_hot(torch.tensor([tokens.index(letter) for letter in LETTERS]), size)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(8))


# Caduceus

CADUCEUS = "....N..ACGT....."


def classifier(folder: Path, *, n_labels: int = 3, settings: dict[str, Any] | None = None, **sizes: Any) -> Any:
    """Write a CaduceusForSequenceClassification, and return its folder, config and tensors."""
    config = caduceus.config(**sizes) | {"architectures": ["CaduceusForSequenceClassification"]} | (settings or {})
    tensors = {name: t for name, t in caduceus.tensors(config).items() if not name.startswith("lm_head")}
    tensors["score.weight"] = normal(n_labels, config["d_model"])
    return caduceus.write(folder, config, tensors), config, tensors


@pytest.mark.parametrize(
    ("sizes", "pooling"),
    [
        ({"rcps": True}, None),
        ({"rcps": True}, "max"),
        ({"rcps": True, "fused": False, "n_layer": 3, "d_model": 10}, "mean"),
        ({"rcps": True, "rms_norm": False}, "mean"),
        ({"rcps": True, "rms_norm": False, "fused": False, "bias": True}, "max"),
        ({"rcps": True, "bias": True, "tied": False}, "mean"),
        ({"rcps": False}, None),
        ({"rcps": False, "rms_norm": False, "bias": True, "strategy": "ew_multiply"}, "max"),
        ({"rcps": False, "d_model": 10}, "first"),
        ({"rcps": False, "tied": False}, "last"),
    ],
)
def test_caduceus_classifies_windows(
    tmp_path: Path, fasta: FastaGenome, sizes: dict[str, Any], pooling: str | None
) -> None:
    folder, config, tensors = classifier(tmp_path / "c", **sizes)
    model = loaded(folder, pooling=pooling)
    assert not model.config.language_model
    head = model.config.heads["classes"]
    assert (head.labels, head.link, head.fold, head.bias) == (
        ("label_0", "label_1", "label_2"),
        "softmax",
        sizes["rcps"],
        False,
    )
    assert f"with {pooling or 'mean'} pooling" in model.config.trained_on
    assert ("the default" in model.config.trained_on) == (pooling is None)
    made = found(model, fasta, "classes:label_1")
    truth = expected(lambda x: caduceus.classes(config, tensors, x, pooling or "mean"), one_hot(CADUCEUS, 16), label=1)
    assert_near(tuple(made), tuple(truth), bar=BAR)


def test_both_strands_have_the_same_classes(tmp_path: Path, fasta: FastaGenome) -> None:
    folder, _, _ = classifier(tmp_path / "c")
    model = loaded(folder)
    codes = torch.from_numpy(fasta.fetch("chr1", 0, len(LETTERS)))[None]
    turned = torch.where(codes < 4, 3 - codes, codes).flip(1)
    (job,) = [prepare(fasta, model, [], Options(target="classes:label_0"))]
    target: Any = job.target
    pair = [target.predict(job.batches[0][0], each, job.model)[0].logits for each in (codes, turned)]
    assert_near(*pair, bar=1e-12)


@pytest.mark.parametrize("rms_norm", [True, False])
@pytest.mark.parametrize("rcps", [True, False])
def test_language_models_with_biases(tmp_path: Path, rcps: bool, rms_norm: bool) -> None:
    config = caduceus.config(rcps=rcps, rms_norm=rms_norm, bias=True)
    tensors = caduceus.tensors(config)
    model = loaded(caduceus.write(tmp_path / "c", config, tensors))
    codes = torch.tensor([["ACGTN".index(letter) for letter in LETTERS]])
    with torch.no_grad():
        made = model.whole(model.table()[codes])[0]
    assert_near(made, caduceus.logits(config, tensors, one_hot(CADUCEUS, 16)), bar=BAR)


@pytest.mark.parametrize(
    ("n_labels", "settings", "labels", "link"),
    [
        (2, {}, ("label_0", "label_1"), "softmax"),
        (1, {}, ("label_0",), "none"),
        (2, {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, ("LABEL_0", "LABEL_1"), "softmax"),
        (2, {"id2label": {"1": "Core promoter", "0": "Not"}}, ("Not", "Core_promoter"), "softmax"),
        (2, {"id2label": {"0": "CD4-", "1": "CD4+"}}, ("label_0", "label_1"), "softmax"),
        (2, {"id2label": {"0": "CD4+", "1": "3'UTR"}}, ("CD4_", "3'UTR"), "softmax"),
        (2, {"problem_type": "multi_label_classification"}, ("label_0", "label_1"), "sigmoid"),
        (2, {"problem_type": "regression"}, ("label_0", "label_1"), "none"),
        (2, {"problem_type": None}, ("label_0", "label_1"), "softmax"),
        (1, {"problem_type": "single_label_classification"}, ("label_0",), "softmax"),
    ],
)
def test_labels_and_links_come_from_the_config(
    tmp_path: Path, n_labels: int, settings: dict[str, Any], labels: tuple[str, ...], link: str
) -> None:
    folder, _, _ = classifier(tmp_path / "c", n_labels=n_labels, settings=settings)
    head = load_model(folder).config.heads["classes"]
    assert (head.labels, head.link) == (labels, link)


def genatator(folder: Path, *heads: str, **sizes: Any) -> Any:
    """Write a GENATATOR model with the heads `fc` and `type_head`, or one of them."""
    config = caduceus.config(tied=False, **sizes)
    width = (1 + config["rcps"]) * config["d_model"]
    tensors = {n: t for n, t in caduceus.tensors(config).items() if not n.startswith("lm_head")}
    for i, (name, n_labels) in enumerate({"fc": 5, "type_head": 1}.items()):
        if name in heads:
            for each in (name, f"{name}_middle"):
                tensors |= {f"{each}.weight": normal(n_labels, width).roll(i), f"{each}.bias": normal(n_labels) + 1}
    held = {name.replace("caduceus.", "caduceus_model."): tensor.clone() for name, tensor in tensors.items()}
    return caduceus.write(folder, config, held), config, tensors


@pytest.mark.parametrize("sizes", [{"rcps": True}, {"rcps": True, "n_layer": 3, "d_model": 10}, {"rcps": False}])
def test_genatator_labels_bases_and_transcripts(tmp_path: Path, fasta: FastaGenome, sizes: dict[str, Any]) -> None:
    folder, config, tensors = genatator(tmp_path / "g", "fc", "type_head", **sizes)
    model = loaded(folder)
    heads = model.config.heads
    assert list(heads) == ["segments", "transcript"]
    assert heads["segments"].labels == ("5UTR", "exon", "intron", "3UTR", "CDS")
    assert model.config.window == 250_000
    assert "without fc_middle.bias, fc_middle.weight, type_head_middle.bias" in model.config.trained_on
    x, w = one_hot(CADUCEUS, 16), {name: tensor.double() for name, tensor in tensors.items()}

    def segments(x: Tensor) -> Tensor:
        return caduceus.hidden(config, tensors, x) @ w["fc.weight"].T + w["fc.bias"]

    def transcript(x: Tensor) -> Tensor:
        return caduceus.hidden(config, tensors, x)[-1] @ w["type_head.weight"].T + w["type_head.bias"]

    own = model.with_head("segments")
    codes = torch.tensor([["ACGTN".index(letter) for letter in LETTERS]])
    with torch.no_grad():
        assert_near(own.whole(own.table()[codes])[0], segments(x.double()), bar=BAR)
    exon = expected(lambda x: segments(x).sum(0), x, label=1)
    assert_near(tuple(found(model, fasta, "segments:exon")), tuple(exon), bar=BAR)
    assert_near(tuple(found(model, fasta, "transcript:lncRNA")), tuple(expected(transcript, x, label=0)), bar=BAR)


@pytest.mark.parametrize(("head", "name"), [("fc", "segments"), ("type_head", "transcript")])
def test_one_head_of_genatator(tmp_path: Path, head: str, name: str) -> None:
    folder, _, _ = genatator(tmp_path / "g", head)
    assert list(load_model(folder).config.heads) == [name]


# Causal models

PLANT = ("<unk>", "<pad>", "<mask>", "<cls>", "A", "T", "C", "G", "N", "<eos>", "<bos>")
TOKENS = "....ATCGN.."


def plant(folder: Path, head: str, *, bias: bool = False, tokens: tuple[str, ...] = PLANT, **sizes: Any) -> Any:
    """Write a single-base Plant DNAMamba classifier as transformers does, or as state-spaces does."""
    hf = not head.startswith("classification_head")
    n_in = 11 if hf else 16
    w = classifiers.tensors(n_in=n_in, **sizes)
    outputs = {f"{head}.weight": normal(3, 12)} | ({f"{head}.bias": normal(3) + 1} if bias else {})
    settings: dict[str, Any] = {
        "model_type": "mamba",
        "architectures": ["MambaForSequenceClassification"],
        "hidden_size": 12,
        "state_size": 16,
        "num_hidden_layers": 2,
        "vocab_size": 11,
        "use_bias": sizes.get("bias", False),
    }
    if not hf:
        ssm = {"bias": sizes.get("bias", False)}
        settings = {"d_model": 12, "n_layer": 2, "vocab_size": 11, "ssm_cfg": ssm}
        settings["rms_norm"] = not sizes.get("layer_norm", False)
    names = {name: name.replace("embeddings", "embeddings" if hf else "embedding") for name in w}
    caduceus.write(folder, settings, {f"backbone.{names[name]}": tensor for name, tensor in w.items()} | outputs)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return folder, w, outputs


@pytest.mark.parametrize(
    ("head", "sizes", "pooling", "usual"),
    [
        ("score", {}, None, "last"),
        ("score", {}, "mean", "last"),
        ("classifier", {"bias": True}, None, "last"),
        ("classifier", {}, "max", "last"),
        ("classification_head.classification_head", {"bias": True}, None, "mean"),
        ("classification_head.classification_head", {"layer_norm": True, "bias": True}, "first", "mean"),
    ],
)
def test_plant_dnamamba_classifies_windows(
    tmp_path: Path, fasta: FastaGenome, head: str, sizes: dict[str, Any], pooling: str | None, usual: str
) -> None:
    folder, w, outputs = plant(tmp_path / "p", head, **sizes)
    model = loaded(folder, pooling=pooling)
    assert model.config.base_columns == (4, 6, 7, 5)
    assert model.config.unknown == 8

    def classes(x: Tensor) -> Tensor:
        h = classifiers.hidden(w, x @ w["embeddings.weight"].double())
        h = caduceus.pooled(h, pooling or usual)
        return h @ outputs[f"{head}.weight"].double().T + outputs.get(f"{head}.bias", torch.zeros(3)).double()

    made = found(model, fasta, "classes:label_2")
    truth = expected(classes, one_hot(TOKENS, len(w["embeddings.weight"])), label=2)
    assert_near(tuple(made), tuple(truth), bar=BAR)


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_prefixes_of_heads(tmp_path: Path, prefix: str) -> None:
    """Of frameworks, with or without the backbone's own."""
    folder, _, _ = plant(tmp_path / "p", "score")
    truth = load_model(folder)
    tensors = load_file(folder / "model.safetensors")
    for own in ("", prefix):
        for bare in (False, True):
            held = {
                (own if n == "score.weight" else prefix) + (n.removeprefix("backbone.") if bare else n): t
                for n, t in tensors.items()
            }
            save_file(held, folder / "model.safetensors")
            assert load_model(folder).weights_sha256 == truth.weights_sha256


ORTHRUS = {"model_type": "orthrus", "n_tracks": 4, "ssm_model_dim": 12, "ssm_n_layers": 2}


def orthrus(folder: Path, **outputs: Tensor) -> tuple[Path, dict[str, Tensor]]:
    w = classifiers.tensors(n_in=4, layer_norm=True)
    embedding = {"embedding.weight": w["embeddings.weight"].T.contiguous(), "embedding.bias": normal(12)}
    held = {name: tensor for name, tensor in w.items() if "embeddings" not in name}
    named = {name.replace("_", ".", 1): tensor for name, tensor in outputs.items()}
    caduceus.write(folder, ORTHRUS, held | embedding | named)
    return folder, w | embedding


@pytest.mark.parametrize("pooling", [None, "last"])
def test_orthrus_with_a_head(tmp_path: Path, fasta: FastaGenome, pooling: str | None) -> None:
    weight, bias = normal(3, 12), normal(3) + 1
    folder, w = orthrus(tmp_path / "o", classifier_weight=weight, classifier_bias=bias)
    model = loaded(folder, pooling=pooling)
    # Bases other than A, C, G and T are rows of zeros in Orthrus.
    x = one_hot("ACGTN", 5)

    def classes(x: Tensor) -> Tensor:
        embedded = x[:, :4] @ w["embedding.weight"].double().T + w["embedding.bias"].double()
        h = classifiers.hidden({name: t for name, t in w.items() if "embedding" not in name}, embedded)
        return caduceus.pooled(h, pooling or "mean") @ weight.double().T + bias.double()

    made, truth = found(model, fasta, "classes:label_0"), expected(classes, x, label=0)
    assert_near(tuple(made), tuple(truth), bar=BAR)
    assert model.config.symbols == "ACGTN"


# What is refused


def rewrite(folder: Path, tensors: dict[str, Tensor] | None = None, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(config))
    if tensors:
        save_file(load_file(folder / "model.safetensors") | tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("settings", "tensors", "said"),
    [
        ({"id2label": {"0": "a"}}, {}, "id2label is {'0': 'a'}: expected a name for each of the 3 rows"),
        ({"id2label": ["a", "b", "c"]}, {}, "id2label is ['a', 'b', 'c']: expected a name"),
        ({"id2label": {"x": "a"}}, {}, "expected a name for each of the 3 rows"),
        ({"problem_type": "ranking"}, {}, "problem_type is 'ranking': expected regression"),
        ({"problem_type": 3}, {}, "problem_type is 3"),
        ({"rms_norm": False}, {}, 'norm.bias" is missing'),
        ({}, {"score.weight": torch.ones(3, 11)}, 'tensor "score.weight" has shape (3, 11)'),
        ({}, {"score.weight": torch.ones(0, 12)}, "has shape (0, 12): expected at least one row"),
        ({}, {"score.weight": torch.ones(())}, "has shape (): expected at least one row"),
        ({}, {"score.weight": torch.full((3, 12), torch.inf)}, "not finite"),
        ({}, {"score.bias": torch.ones(2)}, 'tensor "score.bias" has shape (2,)'),
        ({}, {"lm_head.lm_head.weight": torch.ones(16, 12)}, 'tensor "lm_head.lm_head.weight" is not part of'),
        ({}, {"fc.weight": torch.ones(5, 24), "fc.bias": torch.ones(5)}, '"score.weight" is not part of the model'),
        ({"ssm_cfg": {"bias": True}}, {}, 'in_proj.bias" is missing'),
    ],
)
def test_classifiers_that_are_wrong(
    tmp_path: Path, settings: dict[str, Any], tensors: dict[str, Tensor], said: str
) -> None:
    folder, _, _ = classifier(tmp_path / "c")
    rewrite(folder, tensors, **settings)
    assert said in refusal(folder, None)


@pytest.mark.parametrize("pooling", ["first", "last"])
def test_the_ends_of_two_strands_are_two_bases(tmp_path: Path, pooling: Any) -> None:
    folder, _, _ = classifier(tmp_path / "c")
    with pytest.raises(ModelError, match=f"--pooling {pooling}: a model of both strands .* expected mean or max$"):
        load_model(folder, pooling=pooling)


def test_pooling_is_for_classifiers(tmp_path: Path) -> None:
    config = caduceus.config()
    folder = caduceus.write(tmp_path / "lm", config, caduceus.tensors(config))
    with pytest.raises(ModelError, match=r"--pooling mean: no classification head, expected score\.weight$"):
        load_model(folder, pooling="mean")
    with pytest.raises(ModelError, match="--pooling max: the pooling of the heads of GENATATOR cannot be chosen"):
        load_model(genatator(tmp_path / "g", "fc")[0], pooling="max")
    other: Any = "median"
    with pytest.raises(InputError, match="--pooling median: expected mean, max, first, last"):
        package.load_model(folder, pooling=other)


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("fc.weight", torch.ones(6, 24), 'tensor "fc.weight" has shape (6, 24), its config implies (5, 24)'),
        ("fc.weight", torch.ones(5, 12), "its config implies (5, 24)"),
        ("fc.bias", torch.ones(4), 'tensor "fc.bias" has shape (4,)'),
        ("type_head.weight", torch.ones(1, 24), 'tensor "type_head.bias" is missing'),
        ("fc_last.weight", torch.ones(5, 24), 'tensor "fc_last.weight" is not part of the model'),
    ],
)
def test_segmentations_that_are_wrong(tmp_path: Path, name: str, tensor: Tensor, said: str) -> None:
    folder, _, _ = genatator(tmp_path / "g", "fc")
    rewrite(folder, {name: tensor})
    assert said in refusal(folder, None)


KMERS = (*PLANT[:4], *(a + b for a in "ACGT" for b in "ACGT"), *"ACGTN")


@pytest.mark.parametrize("file", ["vocab.txt", "vocab.json", "tokenizer.json"])
def test_words_of_several_bases_are_refused(tmp_path: Path, file: str) -> None:
    folder, _, _ = plant(tmp_path / "p", "score")
    (folder / "vocab.txt").unlink()
    table = {token: number for number, token in enumerate(KMERS)}
    content = {"vocab.txt": "\n".join(KMERS), "vocab.json": json.dumps(table)}
    (folder / file).write_text(content.get(file, json.dumps({"model": {"vocab": table}})))
    assert f"{file}: token 'AA': expected one base per token; models of words" in refusal(folder, None)


def test_large_vocabularies_are_refused(tmp_path: Path) -> None:
    folder, w, _ = plant(tmp_path / "p", "score")
    rewrite(folder, {"backbone.embeddings.weight": torch.ones(8000, 12)}, vocab_size=8000)
    assert "a vocabulary of 8,000 tokens: expected at most 64, with one base per token; models of" in refusal(
        folder, None
    )
    assert w


@pytest.mark.parametrize(
    ("settings", "tokens", "said"),
    [
        (
            {},
            None,
            "has no head, without which Orthrus makes no predictions: fit a linear model to its mean-pooled features",
        ),
        ({"n_tracks": 6}, None, "n_tracks is 6"),
        ({"has_mlm_head": True}, None, "has_mlm_head is True"),
        ({}, {"A": 0, "C": 1, "G": 2, "T": 3}, "--tokens is only for models without a vocabulary"),
    ],
)
def test_orthrus_that_is_refused(
    tmp_path: Path, settings: dict[str, Any], tokens: dict[str, int] | None, said: str
) -> None:
    folder, _ = orthrus(tmp_path / "o")
    rewrite(folder, **settings)
    assert said in refusal(folder, tokens)


@pytest.mark.parametrize("key", ["use_bias", "ssm_cfg"])
def test_biases_of_mamba2_are_refused(tmp_path: Path, key: str) -> None:
    sizes = SIZES["mamba2"] | {"vocab_size": 16, "model_type": "mamba2", "use_bias": True}
    if key == "ssm_cfg":
        sizes = {
            "d_model": 6,
            "n_layer": 1,
            "vocab_size": 16,
            "ssm_cfg": {"layer": "Mamba2", "headdim": 3, "bias": True},
        }
    folder = caduceus.write(tmp_path / "m", sizes, {"backbone.embeddings.weight": torch.ones(16, 6)})
    assert "bias is True: expected false for Mamba-2" in refusal(folder)


# The commands


def test_the_command_takes_the_pooling(tmp_path: Path, fasta: FastaGenome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    folder, _, _ = classifier(tmp_path / "c", settings={"id2label": {"0": "none", "1": "weak", "2": "strong"}})
    refused = genoscan("models", "import", folder, "--name", "x", "--pooling", "last")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert genoscan("models", "import", folder, "--name", "x", "--pooling", "sum").code == 2
    done = genoscan("models", "import", folder, "--name", "x", "--pooling", "max")
    assert done.code == 0, done.err
    shown = genoscan("models", "show", "x").out
    assert "head classes" in shown
    assert "none, weak, strong (pooled, max)" in shown
    assert "with max pooling" in shown
    done = genoscan("attribute", fasta.path, "-m", "x", "--target", "classes:strong", "-o", tmp_path / "x.bedgraph")
    assert done.code == 0, done.err


class Classifier(torch.nn.Module):
    """A module with save_pretrained."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def save_pretrained(self, folder: Path) -> None:
        self.folder.rename(folder)


def test_classifiers_are_not_wrapped(tmp_path: Path) -> None:
    folder, _, _ = classifier(tmp_path / "c")
    with pytest.raises(ModelError, match="Classifier: task heads, expected a language model"):
        wrap(Classifier(folder))
