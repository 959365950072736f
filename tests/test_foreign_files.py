"""Foreign checkpoints as training and the hub leave them: one model, or one line that says why not.

The truth is transformers' own reading of the files, and the same tensors under their plain names.
"""

import argparse
import fnmatch
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from commands import bases, genoscan, tiny_model, write_fasta
from hub_models import TOKENS, state_spaces, transformers_model
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import assert_near
from safetensors.torch import load_file, save_file
from test_foreign import Trap
from torch import Tensor
from torch.nn import functional as F
from truth import caduceus

from genoscan.errors import ModelError
from genoscan.layers.config import ModelConfig
from genoscan.layers.foreign import files, hub, source
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.pd_ssm import PdSsmConfig
from genoscan.layers.weights import build, save_model, write_model
from genoscan.model import load_model

Tensors = dict[str, Tensor]

EMBEDDING, HEAD = "backbone.embeddings.weight", "lm_head.weight"
SIZES: dict[str, dict[str, Any]] = {
    "mamba": {"hidden_size": 6, "state_size": 4, "num_hidden_layers": 1},
    "mamba2": {
        "hidden_size": 6,
        "state_size": 4,
        "num_hidden_layers": 1,
        "num_heads": 4,
        "head_dim": 3,
        "n_groups": 2,
        "tie_word_embeddings": False,
    },
}
IDS = torch.arange(16)[None]


@functools.cache
def causal(kind: str, **sizes: Any) -> Any:
    return transformers_model(kind, **sizes)


def saved(folder: Path, kind: str, **sizes: Any) -> tuple[Any, dict[str, Any], Tensors]:
    """Return a model of transformers, and the config and tensors that it saves."""
    model = causal(kind, **SIZES[kind] | sizes)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    return model, config, load_file(folder / "model.safetensors")


def lay(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    return caduceus.write(folder, config, {n: t.clone().contiguous() for n, t in tensors.items()})


def logits(folder: Path, native: ModelConfig, made: Tensors) -> Tensor:
    write_model(folder, native, made, "")
    model = load_model(folder, kernels="reference")
    with torch.no_grad():
        return model.whole(F.one_hot(IDS, 16).to(torch.float32))


def theirs(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(IDS, use_cache=False).logits
    return found


def refusal(folder: Path, tokens: dict[str, int] | None = TOKENS) -> str:
    """Return the one line that a checkpoint is refused with."""
    with pytest.raises(ModelError) as refused:
        read_foreign(folder, tokens)
    said = str(refused.value)
    assert "\n" not in said
    assert len(said.replace(str(folder), "")) < 400
    return said


# Prefixes, shards and formats

WRAPPERS = "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"


def written(folder: Path, form: str, parts: list[Tensors], nesting: tuple[str, ...]) -> None:
    """Write tensors in one of the ways that are read; `parts` are those of the shards."""
    whole = {name: tensor for part in parts for name, tensor in part.items()}
    if form in ("ckpt", "pt"):
        held: dict[str, Any] = whole
        for key in reversed(nesting):
            held = {key: held, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
        torch.save(held, folder / f"last.{form}")
        return
    write = save_file if form == "safetensors" else torch.save
    stem = "model" if form == "safetensors" else "pytorch_model"
    if len(parts) == 1:
        write(whole, folder / f"{stem}.{form}")
        return
    places = {}
    for i, part in enumerate(parts):
        file = f"{stem}-{i}.{form}" if i else f"first/{stem}-{i}.{form}"
        (folder / file).parent.mkdir(exist_ok=True)
        write(part, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / f"{stem}.{form}.index.json").write_text(json.dumps({"weight_map": places}))


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["mamba", "mamba2", "caduceus"]),
    prefix=st.lists(st.sampled_from(["model", "net", "student", *WRAPPERS]), max_size=3),
    within=st.sampled_from([None, *WRAPPERS]),
    form=st.sampled_from(["safetensors", "bin", "ckpt", "pt"]),
    n_shards=st.integers(1, 3),
    nesting=st.sampled_from([(), ("state_dict",), ("model_state_dict",), ("a", "model")]),
    bare=st.booleans(),
    half=st.sampled_from(["first", "second", "both"]),
    strays=st.booleans(),
)
def test_any_layout_is_one_model(
    kind: str,
    prefix: list[str],
    within: str | None,
    form: str,
    n_shards: int,
    nesting: tuple[str, ...],
    bare: bool,
    half: str,
    strays: bool,
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if kind == "caduceus":
            config = caduceus.config(d_model=4, n_layer=1)
            tensors, tokens = caduceus.tensors(config), None
            lay(folder / "plain", config, tensors)
            words = "caduceus.backbone.embeddings.word_embeddings.embedding.weight"
            mixer = "caduceus.backbone.layers.0.mixer.submodule.mamba_"
            pairs = {words: "lm_head.lm_head.weight"} | {
                f"{mixer}fwd.{way}_proj.weight": f"{mixer}rev.{way}_proj.weight" for way in ("in", "out")
            }
        else:
            _, config, tensors = saved(folder / "plain", kind, tie_word_embeddings=True)
            pairs, tokens = {EMBEDDING: HEAD}, TOKENS
        native, made = read_foreign(folder / "plain", tokens, name="x")
        for one, other in pairs.items():
            if half != "first":
                tensors[other] = tensors[one].clone()
            if half == "second":
                del tensors[one]
        start = {"caduceus": "caduceus."}.get(kind, "backbone.")
        if bare:
            tensors = {name.removeprefix(start): tensor for name, tensor in tensors.items()}
        if within:
            tensors = {n.replace("layers.0.", f"layers.0.{within}."): t for n, t in tensors.items()}
        wrapped = {".".join([*prefix, name]): tensor for name, tensor in tensors.items()}
        if prefix and strays:
            wrapped["criterion.weight"] = torch.ones(3)
        parts = [dict(list(wrapped.items())[i::n_shards]) for i in range(n_shards)]
        (folder / "other").mkdir()
        (folder / "other" / "config.json").write_text(json.dumps(config))
        written(folder / "other", form, parts, nesting)
        again, found = read_foreign(folder / "other", tokens, name="x")
        assert ("criterion.weight" in again.trained_on) == bool(prefix and strays)
        assert ("removed from the names" in again.trained_on) == bool({"net", "student"} & set(prefix))
        assert again.model_copy(update={"trained_on": native.trained_on}) == native
        assert found.keys() == made.keys()
        assert all(torch.equal(found[name], made[name]) for name in made)


@pytest.mark.parametrize("head", ["", "model.", "decoder."])
def test_a_head_with_another_prefix(tmp_path: Path, head: str) -> None:
    _, config, tensors = saved(tmp_path / "plain", "mamba2")
    _, made = read_foreign(tmp_path / "plain", TOKENS)
    for start in ("", "backbone."):
        apart = {
            f"{head}{n}" if n == HEAD else f"encoder.trunk.{start}{n.removeprefix('backbone.')}": tensor
            for n, tensor in tensors.items()
        }
        native, found = read_foreign(lay(tmp_path / "apart", config, apart), TOKENS)
        assert all(torch.equal(found[name], made[name]) for name in made)
        assert "encoder.trunk." in native.trained_on
    assert "tensors of a model under" in refusal(lay(tmp_path / "two", config, apart | {f"x.{HEAD}": tensors[HEAD]}))


def test_one_tensor_without_the_others_prefix(tmp_path: Path) -> None:
    _, config, tensors = saved(tmp_path / "plain", "mamba")
    _, made = read_foreign(tmp_path / "plain", TOKENS)
    mixed = {n if "norm_f" in n else f"model.{n}": tensor for n, tensor in tensors.items()}
    _, found = read_foreign(lay(tmp_path / "mixed", config, mixed), TOKENS)
    assert all(torch.equal(found[name], made[name]) for name in made)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_keep_their_values(tmp_path: Path, dtype: torch.dtype) -> None:
    _, config, tensors = saved(tmp_path / "plain", "mamba")
    cast = {name: tensor.to(dtype) + torch.tensor(1e-9, dtype=dtype) for name, tensor in tensors.items()}
    native, made = read_foreign(lay(tmp_path / "cast", config, cast), TOKENS)
    write_model(tmp_path / "native", native, made, "")
    stack = load_model(tmp_path / "native", dtype=torch.float64).stack
    head = next(tensor for name, tensor in stack.named_parameters() if name == "head.weight")
    assert torch.equal(head, cast[EMBEDDING].double())


def test_either_name_of_the_embedding(tmp_path: Path) -> None:
    model, config, tensors = saved(tmp_path / "plain", "mamba")
    renamed = {name.replace("embeddings.", "embedding."): t for name, t in tensors.items()}
    folder = lay(tmp_path / "renamed", config, renamed)
    assert_near(logits(tmp_path / "native", *read_foreign(folder, TOKENS)), theirs(model))


def several(tensors: Tensors, **more: Tensors) -> dict[str, Any]:
    held: dict[str, Any] = {"model": tensors}
    return held | more


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: several(t, ema=t), 'models under "model" and "ema": expected one'),
        (
            lambda t: {f"{p}.{n}": x for p in ("model", "ema") for n, x in t.items()},
            'tensors of a model under "ema." and "model."',
        ),
        (
            lambda t: t | {f"model.{EMBEDDING}": t[EMBEDDING] + 1},
            f'tensors "{EMBEDDING}" and "model.{EMBEDDING}" differ',
        ),
        (lambda t: {"transformer.h.0.weight": torch.ones(2)}, "found transformer.h.0.weight"),
        (lambda _: {}, "found nothing"),
        (lambda _: [1], "expected tensors by name, found list"),
        (lambda t: t | {"spare.weight": torch.ones(2)}, '"spare.weight" is not part of the model'),
        (lambda t: t | {"backbone.rotary.inv_freq": torch.ones(2)}, "is not part of the model"),
        (
            lambda t: {f"model.{n}": x for n, x in t.items()} | {"model.spare": torch.ones(2)},
            'tensor "model.spare" is not part of the model',
        ),
        (lambda t: t | {EMBEDDING: t[EMBEDDING].to(torch.int8)}, "is torch.int8"),
        (lambda t: t | {EMBEDDING: t[EMBEDDING].to(torch.float8_e4m3fn)}, "is torch.float8"),
        (lambda t: t | {EMBEDDING: t[EMBEDDING].to(torch.complex64)}, "is torch.complex64"),
        (lambda t: t | {EMBEDDING: t[EMBEDDING].double() * 1e308 * 10}, "not finite"),
        (
            lambda t: {n.replace("mixer.A_log", "mixer.A"): x for n, x in t.items()},
            'mixer.A_log" is missing; of 12 in the file, the most similar: "backbone.layers.',
        ),
        (
            lambda t: {f"net.{n.replace('norm_f', 'norm')}": x for n, x in t.items()},
            '"backbone.norm_f.weight" is missing; of 12 in the file, the most similar: "net.',
        ),
    ],
)
def test_what_is_no_one_model(tmp_path: Path, change: Callable[[Tensors], Any], said: str) -> None:
    _, _, tensors = saved(tmp_path, "mamba")
    (tmp_path / "model.safetensors").unlink()
    torch.save(change(tensors), tmp_path / "last.ckpt")
    assert said in refusal(tmp_path)


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_shards_that_are_not_whole(tmp_path: Path, form: str) -> None:
    _, _, tensors = saved(tmp_path, "mamba")
    (tmp_path / "model.safetensors").unlink()
    halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
    written(tmp_path, form, halves, ())
    read_foreign(tmp_path, TOKENS)
    stem = "model" if form == "safetensors" else "pytorch_model"
    index = tmp_path / f"{stem}.{form}.index.json"
    read_foreign(index, TOKENS)
    places = json.loads(index.read_text())["weight_map"]

    def refused_with(weight_map: Any) -> str:
        index.write_text(json.dumps({"weight_map": weight_map}))
        return refusal(tmp_path)

    assert "is not in" in refused_with(places | {"spare": f"{stem}-1.{form}"})
    for bad in (f"../{stem}-1.{form}", f"/{stem}-1.{form}", f"..\\{stem}-1.{form}"):
        assert "is outside its folder" in refused_with(places | {EMBEDDING: bad})
    for wrong in ({EMBEDDING: 3}, [], None, {EMBEDDING: None}, {EMBEDDING: ["a"]}):
        assert "not an index of shards" in refused_with(wrong)
    (tmp_path / f"{stem}-1.{form}").unlink()
    assert f'shard "{stem}-1.{form}" not found' in refused_with(places)


def test_a_shard_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    _, _, tensors = saved(tmp_path, "mamba")
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors | {"trap": Trap(tmp_path / "ran")}, tmp_path / "pytorch_model-1.bin")
    places = dict.fromkeys(tensors, "pytorch_model-1.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert "contains more than tensors" in refusal(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json",
    ],
)
def test_every_layout_is_downloaded(file: str) -> None:
    assert any(fnmatch.fnmatch(file, pattern) for pattern in hub._FILES)


def test_what_a_folder_has_is_listed(tmp_path: Path) -> None:
    saved(tmp_path, "mamba")
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    assert "found config.json" in refusal(tmp_path)
    assert "weights.safetensors" in refusal(tmp_path)


def test_a_checkpoint_beside_its_optimizer(tmp_path: Path) -> None:
    _, _, tensors = saved(tmp_path, "mamba")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    assert "found state" in refusal(tmp_path)
    torch.save({"state_dict": tensors}, tmp_path / "last.ckpt")
    read_foreign(tmp_path, TOKENS)
    torch.save({"state_dict": tensors}, tmp_path / "epoch=3.ckpt")
    assert "found config.json, epoch=3.ckpt" in refusal(tmp_path)


# What lies where the weights should

PAGES = {
    "is a Git LFS pointer, not": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    "is an HTML page, not": b"\xef\xbb\xbf\n <!DOCTYPE html><html><title>Sign in</title></html>",
    "is XML, perhaps": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
}


@pytest.mark.parametrize("said", PAGES)
@pytest.mark.parametrize(
    "file",
    [
        *("model.safetensors", "pytorch_model.bin", "last.ckpt", "last.pt", "last.pth"),
        *("model.safetensors.index.json", "pytorch_model.bin.index.json", "config.json", "vocab.json"),
    ],
)
def test_a_page_in_place_of_a_file_is_named(tmp_path: Path, said: str, file: str) -> None:
    saved(tmp_path, "mamba")
    if file not in ("config.json", "vocab.json"):
        (tmp_path / "model.safetensors").unlink()
    (tmp_path / file).write_bytes(PAGES[said])
    assert f"{tmp_path / file}: {said}" in refusal(tmp_path, None)


@pytest.mark.parametrize("said", PAGES)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_page_in_a_model_folder_is_named(tmp_path: Path, said: str, file: str) -> None:
    folder = tiny_model(tmp_path / "m")
    (folder / file).write_bytes(PAGES[said])
    with pytest.raises(ModelError) as refused:
        load_model(folder)
    assert f"{folder / file}: {said}" in str(refused.value)


@settings(max_examples=25, deadline=None)
@given(content=st.binary(max_size=64) | st.text(max_size=64).map(str.encode), whole=st.booleans())
def test_no_advice_to_load_unsafely(content: bytes, whole: bool) -> None:
    """Any bytes as a pickle: one line, without torch's advice to switch its checks off."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "pytorch_model.bin"
        file.write_bytes(content if whole else b"\x80\x02" + content)
        with pytest.raises(ModelError) as refused:
            files.read_tensors(file)
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)
    for advice in ("weights_only", "add_safe_globals", "torch.load", "arbitrary code"):
        assert advice not in str(refused.value)


@pytest.mark.parametrize(
    ("spare", "said"),
    [
        (Path("a"), "found pathlib.PosixPath"),
        (argparse.Namespace(lr=1), "found argparse.Namespace"),
        (print, "found "),
        (torch.nn.Linear(1, 1), "found torch.nn.modules.linear.Linear"),
    ],
)
def test_other_objects_are_named(tmp_path: Path, spare: object, said: str) -> None:
    _, _, tensors = saved(tmp_path, "mamba")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"state_dict": tensors, "spare": spare}, tmp_path / "last.ckpt")
    assert f"contains more than tensors and was not loaded: {said}" in refusal(tmp_path)


@pytest.mark.parametrize("first", [b"{", b"["])
def test_a_header_may_begin_like_json(tmp_path: Path, first: bytes) -> None:
    """The first byte of safetensors is the low one of the header's size."""
    save_file({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].ljust(256 + first[0])
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    assert (tmp_path / "model.safetensors").read_bytes()[:1] == first
    assert len(files.read_tensors(tmp_path)) == 1


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "state-spaces", "caduceus"])
def test_a_checkpoint_as_model_is_told_to_be_imported(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "a b"
    if kind == "caduceus":
        config = caduceus.config(d_model=4, n_layer=1)
        lay(folder, config, caduceus.tensors(config))
    elif kind == "state-spaces":
        state_spaces(folder, "mamba", transformers_model("mamba", **SIZES["mamba"]))
    else:
        saved(folder, kind)
    genome = write_fasta(tmp_path / "g.fa", {"chr1": bases(60, seed=4)})
    done = genoscan("attribute", genome, "-m", folder, "-o", tmp_path / "x.bw")
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert f"genoscan models import '{folder}' --name NAME" in done.err
    done = genoscan("attribute", genome, "-m", folder / "config.json", "-o", tmp_path / "x.bw")
    assert "it is a file, expected a name or a model folder" in done.err


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", "..", ".", ".x", "-x", "a\nb", "a\0", "a\\b", "x" * 101, "bacteria"]
)
def test_a_name_of_a_model_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    saved(tmp_path / "hf", "mamba")
    before = sorted(tmp_path.rglob("*"))
    done = genoscan("models", "import", tmp_path / "hf", "--tokens", "A=7,C=8,G=9,T=10", "--name", name)
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert "--name" in done.err
    assert sorted(tmp_path.rglob("*")) == before


# Tied pairs


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
@pytest.mark.parametrize("tie", [True, False, None])
@pytest.mark.parametrize("held", ["embedding", "head", "both", "different", "none"])
def test_ties_are_those_of_transformers(tmp_path: Path, kind: str, tie: bool | None, held: str) -> None:
    _, config, tensors = saved(tmp_path, kind, tie_word_embeddings=False)
    words, head = tensors.pop(EMBEDDING), tensors.pop(HEAD)
    assert not torch.equal(words, head)
    del config["tie_word_embeddings"]
    if tie is not None:
        config["tie_word_embeddings"] = tie
    tied = kind == "mamba" if tie is None else tie
    tensors |= {
        "embedding": {EMBEDDING: words},
        "head": {HEAD: head},
        "both": {EMBEDDING: words, HEAD: words},
        "different": {EMBEDDING: words, HEAD: head},
        "none": {},
    }[held]
    folder = lay(tmp_path / "laid", config, tensors)
    readable = held in ("embedding", "head", "both") if tied else held in ("both", "different")
    if not readable:
        said = refusal(folder)
        if tied and held == "different":
            assert f'tensor "{HEAD}" differs from the tensor to which it is tied' in said
        elif held == "embedding":
            assert f'tensor "{HEAD}" is missing, and tie_word_embeddings is false' in said
            assert ("by the default" in said) == (tie is None)
        else:
            assert f'tensor "{EMBEDDING}" is missing' in said
        return
    read = {"mamba": transformers.MambaForCausalLM, "mamba2": transformers.Mamba2ForCausalLM}
    truth = theirs(read[kind].from_pretrained(folder).eval())
    assert_near(logits(tmp_path / "native", *read_foreign(folder, TOKENS)), truth)


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_ties_of_state_spaces(tmp_path: Path, kind: str) -> None:
    model = transformers_model(kind, **SIZES[kind] | {"tie_word_embeddings": False})
    folder = state_spaces(tmp_path / "ss", kind, model)
    assert_near(logits(tmp_path / "native", *read_foreign(folder, TOKENS)), theirs(model))
    config, weights = folder / "config.json", folder / "pytorch_model.bin"
    told = json.loads(config.read_text())
    for tied in ({"tie_embeddings": True}, {}):
        untold = {name: value for name, value in told.items() if name != "tie_embeddings"}
        config.write_text(json.dumps(untold | tied))
        assert f'tensor "{HEAD}" differs from the tensor to which it is tied' in refusal(folder)
    tensors = torch.load(weights)
    del tensors[HEAD]
    torch.save(tensors, weights)
    _, made = read_foreign(folder, TOKENS)
    assert torch.equal(made["head.weight"], made["embed.weight"].T)
    config.write_text(json.dumps(told))
    assert "tie_embeddings is false" in refusal(folder)


def test_ties_of_caduceus(tmp_path: Path) -> None:
    config = caduceus.config(rcps=False, d_model=4, n_layer=1)
    tensors = caduceus.tensors(config)
    words = tensors["caduceus.backbone.embeddings.word_embeddings.weight"]
    folder = lay(tmp_path, config, tensors | {HEAD: words.flip(0)})
    assert f'tensor "{HEAD}" differs from the tensor to which it is tied' in refusal(folder, None)
    lay(folder, config | {"tie_word_embeddings": False}, tensors | {HEAD: words.flip(0)})
    _, made = read_foreign(folder)
    assert torch.equal(made["head.weight"], words.flip(0))
    assert torch.equal(made["embed.weight"], words.T)
    lay(folder, config | {"tie_word_embeddings": False}, tensors)
    assert f'tensor "{HEAD}" is missing' in refusal(folder, None)


# Configs


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_a_missing_setting_is_transformers_or_named(tmp_path: Path, kind: str) -> None:
    """Every setting left out in turn, where the model has its default and where it has not."""
    read = {"mamba": transformers.MambaForCausalLM, "mamba2": transformers.Mamba2ForCausalLM}[kind]
    usual = {"state_size": {"mamba": 16, "mamba2": 128}[kind]}
    n_read = 0
    for sizes in (usual, {"conv_kernel": 3, "layer_norm_epsilon": 0.1}):
        _, config, tensors = saved(tmp_path / "plain", kind, **sizes)
        for key in config:
            rest = {name: value for name, value in config.items() if name != key}
            folder = lay(tmp_path / "laid", rest, tensors)
            try:
                native, made = read_foreign(folder, TOKENS)
            except ModelError as error:
                assert key in str(error)
                assert "\n" not in str(error)
                continue
            n_read += 1
            if key in (
                "layer_norm_epsilon",
                "state_size",
                "conv_kernel",
                "expand",
                "hidden_act",
                "intermediate_size",
                "time_step_rank",
                "time_step_limit",
            ):
                truth = theirs(read.from_pretrained(folder).eval())
                assert_near(logits(tmp_path / "native", native, made), truth)
    assert n_read > 30


WRONG: list[Any] = [
    None,
    0,
    -1,
    1.5,
    "x" * 5000,
    {},
    float("nan"),
    float("inf"),
    10**9,
    [0.5, 0.1],
    [{"x": 1}, 1],
    {"7": 99, "99": 7},
    {"7": 10},
    {"layer": []},
    {"d_state": 0},
    {"use_rope": True},
    {"layer": "Mamba2", "headdim": 7},
    {"dt_limit": [1, 0]},
]


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "state-spaces", "caduceus"])
def test_a_wrong_setting_is_one_line(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any value of any setting: a model, or one short line; never anything else."""
    tokens: dict[str, int] | None = TOKENS
    if kind == "caduceus":
        config, tokens = caduceus.config(d_model=4, n_layer=1), None
        folder = lay(tmp_path / "laid", config, caduceus.tensors(config))
    elif kind == "state-spaces":
        folder = state_spaces(tmp_path / "laid", "mamba", transformers_model("mamba", **SIZES["mamba"]))
        config = json.loads((folder / "config.json").read_text())
    else:
        folder = tmp_path / "laid"
        _, config, _ = saved(folder, kind)
    tensors = files.read_tensors(folder)
    monkeypatch.setattr(source, "read_tensors", lambda _: tensors)
    n_refused = 0
    for key in [*config, "quantization_config"]:
        for value in WRONG:
            (folder / "config.json").write_text(json.dumps(config | {key: value}))
            try:
                read_foreign(folder, tokens)
            except ModelError as error:
                n_refused += 1
                assert "\n" not in str(error)
                assert len(str(error).replace(str(folder), "")) < 400
    assert n_refused > 100


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("mamba", {"hidden_act": "swish"}, None),
        ("mamba", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("mamba", {"tie_word_embeddings": None}, "tie_word_embeddings is null"),
        ("mamba", {"intermediate_size": 13}, "intermediate_size is 13: expected a multiple of"),
        ("mamba", {"intermediate_size": 18}, "has shape (24, 6), its config implies (36, 6)"),
        ("mamba", {"time_step_rank": None}, "time_step_rank is null"),
        ("mamba", {"quantization_config": {"bits": 4}}, "quantized weights are not supported"),
        ("mamba", {"of_the_future": {"rotary": 2}}, None),
        ("mamba", {"model_type": None}, "model_type is missing: expected caduceus"),
        ("mamba2", {"hidden_act": "swish"}, None),
        ("mamba2", {"num_heads": 8}, "num_heads 8 x head_dim 3: expected expand x hidden_size, 12"),
        ("mamba2", {"n_groups": 3}, "heads of 3 and 3 groups: expected whole heads"),
        ("mamba2", {"time_step_limit": [0.5, 0.1]}, "the lower one first"),
    ],
)
def test_settings_of_transformers(tmp_path: Path, kind: str, fields: dict[str, Any], said: str | None) -> None:
    model, config, tensors = saved(tmp_path / "plain", kind)
    folder = lay(tmp_path / "laid", config | fields, tensors)
    if said is None:
        assert_near(logits(tmp_path / "native", *read_foreign(folder, TOKENS)), theirs(model))
    else:
        assert said in refusal(folder)


def test_the_padded_vocabulary_of_state_spaces(tmp_path: Path) -> None:
    folder = state_spaces(tmp_path / "ss", "mamba", transformers_model("mamba", **SIZES["mamba"]))
    config = json.loads((folder / "config.json").read_text())
    for size, multiple in ((12, 8), (16, 1), (9, 16), (13, 4)):
        told = config | {"vocab_size": size, "pad_vocab_size_multiple": multiple}
        (folder / "config.json").write_text(json.dumps(told))
        assert len(read_foreign(folder, TOKENS)[0].symbols) == 16
    for size, multiple in ((12, 1), (17, 8)):
        told = config | {"vocab_size": size, "pad_vocab_size_multiple": multiple}
        (folder / "config.json").write_text(json.dumps(told))
        assert "has shape (16, 6), its config implies" in refusal(folder)


def test_complements_come_from_the_weights_too(tmp_path: Path) -> None:
    config = caduceus.config(d_model=4, n_layer=1)
    tensors = caduceus.tensors(config)
    native, _ = read_foreign(lay(tmp_path, config, tensors), name="x")
    buffers = {n: t.to(torch.int32) if "map" in n else t for n, t in tensors.items()}
    untold = {name: value for name, value in config.items() if name != "complement_map"}
    for told in (config, untold, config | {"complement_map": None}):
        lay(tmp_path, told, buffers)
        assert read_foreign(tmp_path, name="x")[0] == native
    lay(tmp_path, untold, {name: t for name, t in tensors.items() if "map" not in name})
    assert "complement_map for 16 tokens: expected one" in refusal(tmp_path, None)
    broken = {n: t + 0.5 if "map" in n else t for n, t in tensors.items()}
    lay(tmp_path, config, broken)
    assert "not integers" in refusal(tmp_path, None)


# Width 1


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("mamba", {"state_size": 4}),
        ("mamba", {"state_size": 1, "expand": 1, "conv_kernel": 1}),
        ("mamba2", {"num_heads": 2, "head_dim": 1, "n_groups": 1}),
        ("mamba2", {"num_heads": 1, "head_dim": 2, "n_groups": 1, "state_size": 1}),
        ("mamba2", {"num_heads": 2, "head_dim": 1, "n_groups": 2, "tie_word_embeddings": True}),
    ],
)
def test_models_of_width_1(tmp_path: Path, kind: str, sizes: dict[str, Any]) -> None:
    model, _, _ = saved(tmp_path / "hf", kind, hidden_size=1, **sizes)
    found = logits(tmp_path / "native", *read_foreign(tmp_path / "hf", TOKENS))
    assert_near(found, theirs(model))


@pytest.mark.parametrize("sizes", [{"rcps": False}, {"fused": True}, {"fused": False}])
def test_caduceus_of_width_1(tmp_path: Path, sizes: dict[str, Any]) -> None:
    config = caduceus.config(d_model=1, **sizes)
    tensors = caduceus.tensors(config)
    native, made = read_foreign(lay(tmp_path / "c", config, tensors))
    truth = caduceus.logits(config, tensors, F.one_hot(IDS[0], 16)).float()
    assert_near(logits(tmp_path / "native", native, made)[0], truth)


@pytest.mark.parametrize(
    "layer",
    [
        MambaConfig(d_state=4, dt_rank=1),
        MambaConfig(d_state=1, dt_rank=1, expand=1, d_conv=1),
        Mamba2Config(d_state=4, head_dim=1),
        PdSsmConfig(heads=1, d_state=1, n_maps=1, rank=1, expand=1),
    ],
    ids=["mamba", "least", "mamba2", "pd_ssm"],
)
def test_native_models_of_width_1(tmp_path: Path, layer: Any) -> None:
    config = ModelConfig(d_model=1, layers=(layer,), context=30, reach=20, trained_on="nothing")
    stack = build(config)
    stack.head.weight.data = stack.embed.weight.data.T  # tied: in one piece of memory
    save_model(tmp_path / "one", config, stack, "")
    genome = write_fasta(tmp_path / "g.fa", {"chr1": bases(60, seed=4)})
    track = tmp_path / "one.bedgraph"
    done = genoscan(
        "attribute", genome, "-m", tmp_path / "one", "--dtype", "float64", "--score", "observed", "-o", track
    )
    assert done.code == 0, done.err
    rows = [line.split() for line in track.read_text().splitlines() if line.startswith("chr1")]
    found = torch.zeros(60, dtype=torch.float64)
    for _, start, end, value in rows:
        found[int(start) : int(end)] = float(value)
    model = load_model(tmp_path / "one", dtype=torch.float64, kernels="reference")
    codes = torch.tensor(["ACGT".index(letter) for letter in bases(60, seed=4)])
    x = F.one_hot(codes, 4).double()[None].requires_grad_()
    said = torch.log_softmax(model.whole(x)[0, :-1], -1)
    said[torch.arange(59), codes[1:]].sum().backward()
    assert x.grad is not None
    assert_near(found.float(), x.grad[0, torch.arange(60), codes].float())
