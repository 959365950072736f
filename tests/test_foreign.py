"""Foreign checkpoints: the function that their files say, and a clear word where they are wrong."""

import json
import pickle
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commands import bases, genoscan, tiny_model, write_fasta
from headed import write_headed
from hub_models import TOKENS, state_spaces, transformers_model
from laws import assert_near
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from truth import caduceus

from genoscan.engine.methods import Layerwise
from genoscan.errors import ModelError
from genoscan.estimate import passes
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.job import Options, prepare
from genoscan.layers.bidirectional import BidirectionalStack
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.foreign.tokens import parse_tokens
from genoscan.layers.weights import write_model
from genoscan.model import Model, load_model
from genoscan.pipeline import run

F32 = torch.float32


def imported(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    caduceus.write(path / "foreign", config, tensors)
    native, made = read_foreign(path / "foreign")
    write_model(path / "native", native, made, "")
    return load_model(path / "native")


# What is computed


@pytest.mark.parametrize(
    "sizes",
    [
        {"rcps": False, "d_model": 118, "n_layer": 3},
        {"rcps": False, "d_model": 32, "n_layer": 2},
        {"fused": True, "d_model": 118, "n_layer": 3},
        {"fused": True, "d_model": 16, "n_layer": 2},
        {"fused": False, "d_model": 118, "n_layer": 3},
        {"fused": False, "d_model": 16, "n_layer": 2, "strategy": "ew_multiply"},
        {"fused": True, "d_model": 24, "n_layer": 2, "complement": caduceus.PLANT},
        {"fused": True, "d_model": 24, "n_layer": 2, "complement": caduceus.PLANT, "mamba2": True},
    ],
)
def test_logits_are_the_definitions(tmp_path: Path, sizes: dict[str, Any]) -> None:
    config = caduceus.config(**sizes)
    tensors = caduceus.tensors(config)
    model = imported(tmp_path, config, tensors)
    codes = torch.randint(0, 5, (1, 90), generator=torch.Generator().manual_seed(3))
    tokens = torch.tensor([7, 8, 9, 10, 4] if config["vocab_size"] == 16 else [3, 4, 5, 6, 2])
    one_hot = F.one_hot(tokens[codes[0]], config["vocab_size"])
    with torch.no_grad():
        found = model.whole(model.table()[codes])
    assert_near(found[0], caduceus.logits(config, tensors, one_hot).float())


def test_fused_and_unfused_are_two_functions(tmp_path: Path) -> None:
    fused, unfused = (caduceus.config(fused=fused) for fused in (True, False))
    tensors = caduceus.tensors(fused)
    renamed = {
        name.replace("norm.weight", "norm.submodule.weight").replace("norm_f.weight", "norm_f.submodule.weight"): tensor
        for name, tensor in tensors.items()
    }
    models = imported(tmp_path / "a", fused, tensors), imported(tmp_path / "b", unfused, renamed)
    x = models[0].table()[torch.randint(0, 4, (1, 50))]
    with torch.no_grad():
        one, other = (model.whole(x) for model in models)
    assert (one - other).norm() > 0.1 * one.norm()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("n_layer", [2, 3])
def test_both_strands_say_the_same(tmp_path: Path, fused: bool, n_layer: int) -> None:
    config = caduceus.config(fused=fused, n_layer=n_layer)
    model = imported(tmp_path, config, caduceus.tensors(config))
    codes = torch.randint(0, 5, (80,), generator=torch.Generator().manual_seed(3))
    turned = torch.from_numpy(reverse_complement(codes.numpy().astype("uint8"))).long()
    with torch.no_grad():
        forward, back = (model.whole(model.table()[c][None]) for c in (codes, turned))
    assert_near(back.flip(1)[..., list(model.config.complement)], forward)


# Causal language models


HF_SIZES: list[tuple[str, dict[str, Any]]] = [
    ("mamba", {"hidden_size": 32, "state_size": 16, "num_hidden_layers": 2}),
    ("mamba", {"hidden_size": 118, "state_size": 8, "num_hidden_layers": 3}),
    ("mamba", {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "use_bias": True}),
    (
        "mamba2",
        {
            "hidden_size": 32,
            "state_size": 16,
            "num_hidden_layers": 3,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 16,
        },
    ),
    (
        "mamba2",
        {
            "hidden_size": 32,
            "state_size": 24,
            "num_hidden_layers": 2,
            "num_heads": 4,
            "head_dim": 16,
            "n_groups": 2,
            "chunk_size": 16,
        },
    ),
    (
        "mamba2",
        {
            "hidden_size": 32,
            "state_size": 24,
            "num_hidden_layers": 2,
            "num_heads": 4,
            "head_dim": 16,
            "n_groups": 2,
            "chunk_size": 16,
            "time_step_limit": [0.01, 0.3],
        },
    ),
]


@pytest.mark.parametrize(("kind", "sizes"), HF_SIZES)
def test_logits_are_transformers(tmp_path: Path, kind: str, sizes: dict[str, Any]) -> None:
    theirs = transformers_model(kind, **sizes)
    theirs.save_pretrained(tmp_path / "hf")
    ids = torch.randint(0, 16, (2, 70), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        truth = theirs(ids).logits
    for folder in (tmp_path / "hf", state_spaces(tmp_path / "ss", kind, theirs)):
        native, made = read_foreign(folder, TOKENS)
        write_model(tmp_path / f"{folder.name}-native", native, made, "")
        model = load_model(tmp_path / f"{folder.name}-native")
        with torch.no_grad():
            assert_near(model.whole(F.one_hot(ids, 16).float()), truth)


def test_tokens_come_from_the_tokenizer_or_the_user(tmp_path: Path) -> None:
    transformers_model("mamba", **HF_SIZES[0][1]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no token found for A, C, G, T:.*--tokens A=7"):
        read_foreign(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 3, "c": 4, "g": 5, "t": 6, "[MASK]": 1}')
    native, _ = read_foreign(tmp_path)
    assert native.base_columns == (3, 4, 5, 6)
    assert native.unknown is None
    assert native.complement[3:7] == (6, 5, 4, 3)
    vocabulary = {"model": {"vocab": {"A": 7, "C": 8, "G": 9, "T": 10, "N": 11, "a": 3}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(vocabulary))
    native, _ = read_foreign(tmp_path)
    assert (native.base_columns, native.unknown) == ((7, 8, 9, 10), 11)
    assert native.symbols == ".......ACGTN...."
    native, _ = read_foreign(tmp_path, {"A": 1, "C": 2, "G": 3, "T": 4})
    assert native.base_columns == (1, 2, 3, 4)
    with pytest.raises(ModelError, match="expected distinct ones below 16"):
        read_foreign(tmp_path, {"A": 1, "C": 1, "G": 3, "T": 4})
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(ModelError, match="not a table of tokens"):
        read_foreign(tmp_path)


@pytest.mark.parametrize("text", ["", "A", "A=x", "A=1,A=2", "B=1"])
def test_tokens_that_are_none(text: str) -> None:
    with pytest.raises(ModelError, match="expected A=7,C=8"):
        parse_tokens(text)


def test_a_model_of_words_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, "vocab_size": 400}
    transformers_model("mamba", **sizes).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="a vocabulary of 400 tokens"):
        read_foreign(tmp_path, TOKENS)


# How it may lie on disk


def tied(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """Return a file that still carries what is tied."""
    more = dict(tensors)
    for name, tensor in tensors.items():
        if "mamba_fwd.in_proj" in name or "mamba_fwd.out_proj" in name:
            more[name.replace("fwd", "rev")] = tensor.clone()
        if name.endswith("embedding.weight"):
            more["lm_head.lm_head.weight"] = tensor.clone()
    return more


def as_bin(folder: Path, tensors: dict[str, Tensor]) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")


def as_lightning(folder: Path, tensors: dict[str, Tensor]) -> None:
    (folder / "model.safetensors").unlink()
    held = {f"model.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": held, "epoch": 3}, folder / "last.ckpt")


def as_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    places = {name: file for file, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def as_bare(folder: Path, tensors: dict[str, Tensor]) -> None:
    bare = {name.removeprefix("caduceus."): tensor for name, tensor in tensors.items()}
    save_file(bare, folder / "model.safetensors")


def as_resaved(folder: Path, _tensors: dict[str, Tensor]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["complement_map"] = dict(sorted(config["complement_map"].items()))
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("lay", [as_bin, as_lightning, as_shards, as_bare, as_resaved])
def test_layouts_are_one_model(tmp_path: Path, lay: Callable[[Path, dict[str, Tensor]], None]) -> None:
    config = caduceus.config()
    tensors = caduceus.tensors(config)
    folder = caduceus.write(tmp_path / "m", config, tensors)
    native, made = read_foreign(folder)
    lay(folder, tensors)
    again_config, again = read_foreign(folder)
    assert again_config == native
    assert all(torch.equal(again[name], made[name]) for name in made)
    save_file(tied(tensors, config), folder / "model.safetensors")
    _, whole = read_foreign(folder)
    assert all(torch.equal(whole[name], made[name]) for name in made)


# What is refused


def change(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))


MIXER = "caduceus.backbone.layers.0.mixer.submodule.mamba_fwd."


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "mamba3"}, "model_type is 'mamba3': expected caduceus"),
        ({"ssm_cfg": {"layer": "Mamba3"}}, "ssm_cfg.layer is 'Mamba3'"),
        ({"attn_layer_idx": [3]}, "hybrid with attention"),
        ({"d_intermediate": 512}, "d_intermediate is 512"),
        ({"bidirectional": False}, "bidirectional is False"),
        ({"rms_norm": False}, 'tensor "caduceus.backbone.layers.0.norm.bias" is missing'),
        ({"n_layer": 3}, 'tensor "caduceus.backbone.layers.2.norm.weight" is missing'),
        ({"n_layer": 1}, 'tensor "caduceus.backbone.layers.1.'),
        ({"d_model": 16}, "has shape (16, 12), its config implies (16, 16)"),
        ({"complement_map": {"7": 8, "8": 7}}, "complement_map"),
        ({"complement_map": {}}, "complement_map"),
    ],
)
def test_a_config_that_is_not_the_files(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    config = caduceus.config()
    folder = caduceus.write(tmp_path / "m", config, caduceus.tensors(config))
    change(folder, **fields)
    with pytest.raises(ModelError) as refused:
        read_foreign(folder)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("spare.weight", torch.zeros(2), 'tensor "spare.weight" is not part of the model'),
        (MIXER + "D", torch.zeros(3), f'tensor "{MIXER}D" has shape (3,)'),
        (MIXER + "D", torch.full((24,), torch.nan), "not finite"),
        (MIXER.replace("fwd", "rev") + "in_proj.weight", torch.zeros(48, 12), "to which it is tied"),
        ("lm_head.complement_map", torch.arange(16), "differs from complement_map"),
        ("caduceus.backbone.layers.0.mixer.Wqkv.weight", torch.zeros(2), "hybrid with attention"),
    ],
)
def test_a_tensor_that_is_wrong(tmp_path: Path, name: str, tensor: Tensor, said: str) -> None:
    config = caduceus.config()
    folder = caduceus.write(tmp_path / "m", config, caduceus.tensors(config) | {name: tensor})
    with pytest.raises(ModelError) as refused:
        read_foreign(folder)
    assert said in str(refused.value)


def test_files_that_are_cut_off(tmp_path: Path) -> None:
    config = caduceus.config()
    tensors = caduceus.tensors(config)
    folder = caduceus.write(tmp_path / "m", config, tensors)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        read_foreign(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"expected model\.safetensors"):
        read_foreign(folder)
    torch.save(tensors, folder / "pytorch_model.bin")
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be read"):
        read_foreign(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        read_foreign(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json not found"):
        read_foreign(folder)


class Trap:
    """What runs where it is unpickled without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    config = caduceus.config()
    folder = caduceus.write(tmp_path / "m", config, caduceus.tensors(config))
    (folder / "model.safetensors").unlink()
    torch.save({"w": torch.zeros(2), "trap": Trap(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="contains more than tensors and was not loaded"):
        read_foreign(folder)
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump(Trap(tmp_path / "ran"), file, protocol=2)
    with pytest.raises(ModelError):
        read_foreign(folder)
    assert not (tmp_path / "ran").exists()


# The commands

CONFIG = caduceus.config(n_layer=4)


@pytest.fixture
def cad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Import a checkpoint as "cad", and return what attributes a region of a genome to it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    config = CONFIG
    folder = caduceus.write(tmp_path / "cad_seqlen-1k", config, caduceus.tensors(config))
    done = genoscan("models", "import", folder, "--name", "cad")
    assert done.code == 0, done.err
    genome = write_fasta(tmp_path / "g.fa", {"chr1": bases(900, seed=4)})

    def attribute(name: str, *options: Any) -> Any:
        done = genoscan(
            "attribute",
            genome,
            "--region",
            "chr1:301-400",
            "-m",
            "cad",
            "--dtype",
            "float64",
            *options,
            "-o",
            tmp_path / f"{name}.npz",
        )
        if done.code:
            return done
        return torch.from_numpy(np.load(tmp_path / f"{name}.npz")["gradient"])

    return attribute


def test_an_imported_model_has_its_name(cad: Callable[..., Any], tmp_path: Path) -> None:
    again = genoscan("models", "import", tmp_path / "cad_seqlen-1k", "--name", "cad")
    assert again.code == 1
    assert "give another" in again.err
    shown = genoscan("models", "show", "cad")
    assert "both ways" in shown.out
    assert "1,024 bases" in shown.out
    planned = genoscan("plan", tmp_path / "g.fa", "-m", "cad", "-o", tmp_path / "x.bw")
    assert "between the layers, for the longest batch, in memory" in planned.out


def test_both_strands_give_one_track(cad: Callable[..., Any]) -> None:
    forward = cad("forward")
    assert forward.shape == (100, 4)
    assert_near(cad("back", "--strand", "-"), forward)


@pytest.mark.parametrize(("length", "told"), [(2_048, False), (2_049, True)])
def test_windows_of_more_than_twice_the_trained_length_are_told(
    cad: Callable[..., Any], tmp_path: Path, length: int, told: bool
) -> None:
    assert callable(cad)
    genome = write_fasta(tmp_path / "long.fa", {"chr1": bases(length, seed=4)})
    done = genoscan("attribute", genome, "-m", "cad", "-o", tmp_path / "long.bw")
    assert done.code == 0, done.err
    assert (f"windows of up to {length:,} bases: cad was trained on 1,024 at most" in done.err) == told


def test_boundaries_may_be_few_or_in_files(cad: Callable[..., Any], tmp_path: Path) -> None:
    whole = cad("whole")
    (tmp_path / "spill").mkdir()
    assert torch.equal(cad("spilt", "--spill", tmp_path / "spill"), whole)
    assert list((tmp_path / "spill").iterdir()) == []
    # 612 bases read, 24 numbers a base in float64: 2 + 3 boundaries and the carries, where all
    # would be 4 + 2.
    assert torch.equal(cad("few", "--memory", f"{612 * 24 * 8 * 11 // 2}B"), whole)
    refused = cad("none", "--memory", "100kB")
    assert refused.code == 1
    assert "need at least" in refused.err
    for text, said in (("8 apples", "expected auto, or a size such as 8GB"), ("-1", "or a size")):
        assert said in cad("none", "--memory", text).err
    assert "expected a folder that exists" in cad("none", "--spill", tmp_path / "none").err


def test_convolutions_of_one_tap_can_be_spilled(tmp_path: Path) -> None:
    """What precedes a tile is empty then, as is its file."""
    layer = {"kind": "two_way", "inner": {"kind": "mamba", "d_state": 3, "dt_rank": 1, "d_conv": 1}}
    folder = write_headed(tmp_path / "m", "bidirectional", layers=[layer])
    genome = write_fasta(tmp_path / "g.fa", {"chr1": bases(300, seed=4)})
    for name, more in (("whole", []), ("spilt", ["--spill", tmp_path])):
        done = genoscan("attribute", genome, "-m", folder, "--tile", 64, "-o", tmp_path / f"{name}.npz", *more)
        assert done.code == 0, done.err
    found, expected = (np.load(tmp_path / f"{name}.npz")["gradient"] for name in ("spilt", "whole"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("total", "place"), [(10**9, "cuda"), (10**3, "cpu")])
def test_boundaries_stay_on_a_gpu_that_has_room(
    cad: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, place: str
) -> None:
    """No GPU is needed: only where they would be is asked."""
    assert callable(cad)
    stack = load_model(tmp_path / "home/genoscan/models/cad").stack
    assert isinstance(stack, BidirectionalStack)
    assert Layerwise().fit(stack, 900, 1).place == torch.device("cpu")
    weight = SimpleNamespace(device=torch.device("cuda"), element_size=lambda: 4)
    parts = {name: getattr(stack, name) for name in ("blocks", "width")}
    on_card: Any = SimpleNamespace(**parts, parameters=lambda: iter([weight]))
    card = SimpleNamespace(total_memory=total)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: card)
    assert Layerwise().fit(on_card, 900, 1).place == torch.device(place)
    spilling = Layerwise(spill=tmp_path)
    assert spilling.fit(on_card, 900, 1) == spilling


@pytest.mark.parametrize("memory", [pytest.param(None, marks=pytest.mark.slow), 250_000])
def test_progress_ends_at_the_work_that_was_foretold(
    cad: Callable[..., Any], tmp_path: Path, memory: int | None
) -> None:
    genome = open_genome(write_fasta(tmp_path / "g.fa", {"chr1": bases(320, 1)}))
    regions, told = [Region("chr1", 0, 320)], 0

    def tell(positions: int) -> None:
        nonlocal told
        told += positions

    for model in (tmp_path / "home/genoscan/models/cad", tiny_model(tmp_path / "tiny")):
        loaded = load_model(model, tile=32, slots=3, memory=memory)
        job, told = prepare(genome, loaded, regions, Options(strand="both")), 0
        run(job, [tmp_path / f"{model.name}.bw"], progress=tell)
        assert told == passes(job)


def test_hidden_bases_have_no_say(cad: Callable[..., Any], tmp_path: Path) -> None:
    seen = cad("seen", "--target", "log-odds:chr1:350:A")
    hidden = cad("hidden", "--target", "log-odds:chr1:350:A", "--masked")
    assert hidden[49].isnan().all()
    others = torch.arange(100) != 49
    assert (hidden - seen)[others].norm() > 0.01 * seen[others].norm()
    track = tmp_path / "hidden.bedgraph"
    done = genoscan(
        "attribute",
        tmp_path / "g.fa",
        "--region",
        "chr1:301-400",
        "-m",
        "cad",
        "--target",
        "log-odds:chr1:350:A",
        "--masked",
        "-o",
        track,
    )
    assert done.code == 0, done.err
    rows = [line.split() for line in track.read_text().splitlines() if line.startswith("chr1")]
    scored = {at for _, start, end, _ in rows for at in range(int(start), int(end))}
    assert scored == set(range(300, 400)) - {349}
    assert "would mask all bases" in cad("none", "--masked").err
    refused = genoscan("attribute", tmp_path / "g.fa", "--masked", "-o", tmp_path / "n.bw")
    assert "has no mask token" in refused.err


@pytest.mark.parametrize("strand", ["+", "-"])
def test_a_response_on_both_sides(cad: Callable[..., Any], tmp_path: Path, strand: str) -> None:
    assert callable(cad)
    track = tmp_path / "response.bedgraph"
    done = genoscan(
        "response",
        tmp_path / "g.fa",
        "--at",
        "chr1:350",
        "--base",
        "C",
        "--finite",
        "-m",
        "cad",
        "--dtype",
        "float64",
        "--strand",
        strand,
        "-o",
        track,
    )
    assert done.code == 0, done.err
    rows = [line.split() for line in track.read_text().splitlines() if line.startswith("chr1")]
    found = np.zeros(900)
    for _, start, end, value in rows:
        found[int(start) : int(end)] = float(value)
    config = CONFIG
    tensors = caduceus.tensors(config)
    # Written 256 bases on either side of the 350th, which becomes a C, and read 256 past that;
    # both strands read alike.
    read = bases(900, seed=4)[: 350 + 512]
    assert read[349] != "C"
    log_p = []
    for letters in (read, read[:349] + "C" + read[350:]):
        logits = caduceus.logits(config, tensors, one_hot(letters))
        # The label of the changed base is the new base: the track has the base's own term there.
        observed = torch.tensor(["ACGT".index(letter) + 7 for letter in letters])
        log_p.append(torch.log_softmax(logits, -1)[torch.arange(len(read)), observed])
    change = (log_p[1] - log_p[0]).numpy()
    written = slice(349 - 256, 350 + 256)
    np.testing.assert_allclose(found[written], change[written], rtol=1e-4, atol=1e-5)
    assert np.abs(change[:350]).max() > 1e-3


def one_hot(letters: str) -> torch.Tensor:
    ids = torch.tensor(["ACGT".index(letter) + 7 for letter in letters])
    return F.one_hot(ids, 16).double()


@pytest.mark.parametrize(
    ("at", "masked", "strand"),
    [
        *((150, False, "+"), (150, True, "-"), (350, True, "+"), (600, False, "-")),
        *(pytest.param(*rest, marks=pytest.mark.slow) for rest in product((150, 350, 600), (False, True), "+-")),
    ],
)
def test_positional_targets_read_the_far_side(cad: Callable[..., Any], at: int, masked: bool, strand: str) -> None:
    """A bidirectional model's gradient is the whole chromosome's, wherever the target lies."""
    tensors, letters = caduceus.tensors(CONFIG), bases(900, seed=4)
    x = one_hot(letters)
    if masked:
        x[at - 1] = F.one_hot(torch.tensor(3), 16)
    x.requires_grad_()
    row = caduceus.logits(CONFIG, tensors, x)[at - 1, 7:11]
    value = row[0] - row[1:].mean()
    (truth,) = torch.autograd.grad(value, x)
    options = ["--target", f"log-odds:chr1:{at}:A", "--strand", strand]
    options += ["--masked"] if masked else []
    shown = torch.arange(301, 401) != at if masked else torch.ones(100, dtype=torch.bool)
    found = cad("far", *options, "--context", 900, "--reach", 900)
    assert found[~shown].isnan().all()
    assert_near(found[shown], truth[300:400, 7:11][shown].float().double())
    # With less of it there is as much on either side, of the region and of the target.
    start, end = min(300, at - 1) - 100, max(400, at) + 60
    if strand == "-":
        start, end = min(300, at - 1) - 60, max(400, at) + 100
    x = x.detach()[start:end].requires_grad_()
    row = caduceus.logits(CONFIG, tensors, x)[at - 1 - start, 7:11]
    (truth,) = torch.autograd.grad(row[0] - row[1:].mean(), x)
    found = cad("near", *options, "--context", 100, "--reach", 60)
    assert_near(found[shown], truth[300 - start : 400 - start, 7:11][shown].float().double())


@pytest.mark.slow
def test_verify_knows_two_strands(cad: Callable[..., Any], tmp_path: Path) -> None:
    assert callable(cad)
    done = genoscan("verify", tmp_path / "g.fa", "--region", "chr1:1-16", "-m", "cad", "-t", 1)
    assert done.code == 0, done.out + done.err
    assert "both strands agree, float64" in done.out


def test_a_source_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    done = genoscan("models", "import", tmp_path / "none")
    assert done.code == 1
    assert "file or folder not found" in done.err

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no way there\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    done = genoscan("models", "import", "kuleshov-group/caduceus-ps")
    assert "download from the hub failed (no way there); download config.json" in done.err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    done = genoscan("models", "import", "kuleshov-group/caduceus-ps")
    assert "pip install huggingface_hub" in done.err


def test_a_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    config = CONFIG
    folder = caduceus.write(tmp_path / "snapshots" / "0a1b", config, caduceus.tensors(config))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    done = genoscan("models", "import", "kuleshov-group/caduceus-ps_seqlen-131k")
    assert done.code == 0, done.err
    shown = genoscan("models", "show", "caduceus-ps_seqlen-131k")
    assert "131,072 bases" in shown.out
