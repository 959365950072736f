"""Model folders, sound and damaged: each damage is named in one line, and nothing is run."""

import hashlib
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import assert_same_bits, random_like
from safetensors.torch import load_file, save_file
from torch import Tensor
from toys import tiny_config, tiny_stack

from genoscan.engine.methods import Adjoint
from genoscan.errors import InputError, ModelError
from genoscan.layers.bidirectional import BidirectionalConfig
from genoscan.layers.config import CONFIG, ModelConfig
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.norm import NormConfig
from genoscan.layers.pd_ssm import PdSsmConfig
from genoscan.layers.weights import CARD, WEIGHTS, save_model
from genoscan.model import Model, load_model

F32 = torch.float32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    save_model(path, tiny_config(8, 2), tiny_stack(8, 2, dtype=F32), "# A card\n")
    return path


def complaint(folder: Path) -> str:
    """Return the one line that loading the folder fails with, less the folder's path."""
    with pytest.raises(ModelError) as raised:
        load_model(folder)
    message = str(raised.value)
    assert "\n" not in message
    assert str(folder) in message
    assert len(message) - len(str(folder)) < 500
    return message.replace(str(folder), "")


# Sound folders


@pytest.mark.parametrize("kernels", ["cpu", "reference"])
def test_what_is_saved_is_loaded(folder: Path, kernels: str) -> None:
    stack = tiny_stack(8, 2, dtype=F32)
    model = load_model(folder, kernels=kernels)
    assert model.config == tiny_config(8, 2).model_copy(update={"weights": model.weights_sha256})
    assert model.name == "tiny"
    assert (folder / CARD).read_text() == "# A card\n"
    assert model.weights_sha256 == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    found, expected = model.stack.state_dict(), stack.state_dict()
    assert list(found) == list(expected)
    assert_same_bits(tuple(found.values()), tuple(expected.values()))
    assert not any(weight.requires_grad for weight in model.stack.parameters())
    if kernels == "cpu":
        x = random_like(torch.zeros(1, 50, 4))
        assert_same_bits(model.stack(x, model.stack.begin(1)), stack.forward(x, stack.begin(1)))


def test_a_changed_bit_is_found(folder: Path) -> None:
    whole = bytearray((folder / WEIGHTS).read_bytes())
    whole[-1] ^= 1
    (folder / WEIGHTS).write_bytes(whole)
    message = complaint(folder)
    assert "sha256 is" in message
    assert "damaged or was replaced" in message


def test_saved_again_it_is_the_same_file(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    save_model(tmp_path / "again", model.config, model.stack, "")
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_names_of_the_tensors(folder: Path) -> None:
    names = set(load_file(folder / WEIGHTS))
    assert {"embed.weight", "norm.weight", "head.weight"} <= names
    block = {
        "norm.weight",
        "in_proj.weight",
        "conv.weight",
        "conv.bias",
        "x_proj.weight",
        "dt_proj.weight",
        "dt_proj.bias",
        "A_log",
        "D",
        "out_proj.weight",
    }
    assert {name.removeprefix("layers.1.") for name in names if name.startswith("layers.1.")} == (block)
    assert len(names) == 3 + 2 * len(block)


def test_other_precisions(tmp_path: Path) -> None:
    exact = tiny_stack(8, 1, dtype=torch.float64)
    with torch.no_grad():
        for weight in exact.parameters():
            weight.mul_(1 + 1e-12)
    save_model(tmp_path / "f64", tiny_config(8, 1), exact, "")
    loaded = load_model(tmp_path / "f64", dtype=torch.float64).stack
    assert_same_bits(tuple(loaded.parameters()), tuple(exact.parameters()))
    half = tiny_stack(8, 1, dtype=torch.bfloat16)
    save_model(tmp_path / "bf16", tiny_config(8, 1), half, "")
    loaded = load_model(tmp_path / "bf16").stack
    assert_same_bits(tuple(loaded.parameters()), tuple(weight.float() for weight in half.parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_no_model_runs_in_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    save_model(tmp_path / "model", tiny_config(8, 1), tiny_stack(8, 1), "")
    for kernels in ("auto", "reference"):
        with pytest.raises(InputError, match=r"expected torch\.float32 or torch\.float64"):
            load_model(tmp_path / "model", dtype=dtype, kernels=kernels)


def test_table_and_columns_follow_the_config(tmp_path: Path) -> None:
    config = tiny_config(8, 1).model_copy(
        update={"symbols": "NTGCA.", "base_columns": (4, 3, 2, 1), "complement": (0, 4, 3, 2, 1, 5)}
    )
    stack = tiny_stack(8, 1, dtype=F32)
    stack.embed, stack.head = torch.nn.Linear(6, 8, bias=False), torch.nn.Linear(8, 6, bias=False)
    save_model(tmp_path / "six", config, stack, "")
    model = load_model(tmp_path / "six")
    assert model.columns().tolist() == [4, 3, 2, 1, -1]
    assert model.table().argmax(1).tolist()[:4] == [4, 3, 2, 1]
    # Without a symbol of its own N is read as the mean of A, C, G and T; nothing is masked.
    table = model.table()
    torch.testing.assert_close(table[4], table[:4].mean(0), rtol=0, atol=0)
    assert table[5].tolist() == [0] * 6
    both = config.model_copy(update={"unknown": 0, "mask": 5})
    save_model(tmp_path / "both", both, stack, "")
    assert load_model(tmp_path / "both").table().argmax(1).tolist() == [4, 3, 2, 1, 0, 5]


# Damaged tensors


def missing(tensors: dict[str, Tensor]) -> None:
    del tensors["layers.1.A_log"]


def spare(tensors: dict[str, Tensor]) -> None:
    tensors["layers.2.D"] = torch.ones(16)


def misshapen(tensors: dict[str, Tensor]) -> None:
    tensors["layers.0.conv.weight"] = torch.ones(16, 3)


def transposed(tensors: dict[str, Tensor]) -> None:
    tensors["embed.weight"] = tensors["embed.weight"].T.contiguous()


def not_a_number(tensors: dict[str, Tensor]) -> None:
    tensors["head.weight"][1, 2] = torch.nan


def infinite(tensors: dict[str, Tensor]) -> None:
    tensors["layers.1.dt_proj.bias"][3] = -torch.inf


def integers(tensors: dict[str, Tensor]) -> None:
    tensors["layers.0.D"] = torch.ones(16, dtype=torch.int64)


def truths(tensors: dict[str, Tensor]) -> None:
    tensors["norm.weight"] = torch.ones(8, dtype=torch.bool)


def complex_numbers(tensors: dict[str, Tensor]) -> None:
    tensors["norm.weight"] = torch.ones(8, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing, ['"layers.1.A_log"', "missing"]),
        (spare, ['"layers.2.D"', "not part of the model"]),
        (misshapen, ['"layers.0.conv.weight"', "(16, 3)", "(16, 4)"]),
        (transposed, ['"embed.weight"', "(4, 8)", "(8, 4)"]),
        (not_a_number, ['"head.weight"', "not finite"]),
        (infinite, ['"layers.1.dt_proj.bias"', "not finite"]),
        (integers, ['"layers.0.D"', "int64"]),
        (truths, ['"norm.weight"', "bool"]),
        (complex_numbers, ['"norm.weight"', "complex64"]),
    ],
)
def test_a_damaged_tensor_is_named(folder: Path, damage: Callable[[dict[str, Tensor]], None], words: list[str]) -> None:
    tensors = load_file(folder / WEIGHTS)
    damage(tensors)
    save_file(tensors, folder / WEIGHTS)
    message = complaint(folder)
    assert all(word in message for word in words), message


def test_eight_bit_floats_load_or_are_named(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["norm.weight"] = torch.ones(8).to(torch.float8_e4m3fn)
    save_file(tensors, folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"weights": None}))
    try:
        model = load_model(folder)
    except ModelError as error:
        assert '"norm.weight"' in str(error)
    else:
        assert torch.equal(model.stack.norm.weight, torch.ones(8))


# Damaged files


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * share)]


@pytest.mark.parametrize(
    "damage",
    [
        cut(0),
        cut(0.001),
        cut(0.2),
        cut(0.999),
        lambda content: content + b"more",
        lambda content: (2**62).to_bytes(8, "little") + content[8:],
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[:8] + b"[" + content[9:],
        lambda content: content.replace(b'"F32"', b'"F99"', 1),
        lambda content: content.replace(b'"data_offsets":[0,', b'"data_offsets":[4,', 1),
        lambda content: content.replace(b'"shape":[', b'"shape":[9', 1),
        lambda content: b"\x00" * len(content),
    ],
)
def test_a_file_that_is_not_whole(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    file = folder / WEIGHTS
    before = file.read_bytes()
    file.write_bytes(damage(before))
    assert file.read_bytes() != before
    message = complaint(folder)
    assert WEIGHTS in message
    assert "not a complete safetensors file" in message


def test_a_pickle_is_not_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    (folder / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    complaint(folder)
    torch.save({"embed.weight": Trap()}, folder / WEIGHTS)
    complaint(folder)
    assert not ran.exists()
    pickle.loads(pickle.dumps(Trap()))
    assert ran.exists()


def test_files_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert WEIGHTS in complaint(folder)
    (folder / WEIGHTS).mkdir()
    assert WEIGHTS in complaint(folder)
    (folder / CONFIG).unlink()
    assert "is this a model folder?" in complaint(folder)
    (folder / CONFIG).mkdir()
    assert CONFIG in complaint(folder)
    assert "is this a model folder?" in complaint(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    assert "Not a directory" in complaint(file)


# Configurations


def change_layer(config: dict[str, Any], **fields: Any) -> None:
    config["layers"][1] |= fields


def contain(config: dict[str, Any], **inner: Any) -> None:
    """Make the first layer, the only one, bidirectional."""
    config["layers"] = [{"kind": "two_way", "inner": inner}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.update(colour="red"), ["colour"]),
        (lambda config: change_layer(config, colour="red"), ["layers.1.", "colour"]),
        (lambda config: config.pop("d_model"), ["d_model", "required"]),
        (lambda config: config.update(d_model=0), ["d_model is 0", "greater than or equal to 1"]),
        (lambda config: config.update(d_model="eight"), ["d_model"]),
        (lambda config: config.update(format="genoscan-model/2"), ["format", "genoscan-model/1"]),
        (lambda config: change_layer(config, kind="lstm"), ["layers.1", "kind", "mamba"]),
        (lambda config: change_layer(config, d_conv=0), ["layers.1.d_conv"]),
        (lambda config: contain(config, kind="pd_ssm"), ["layers.0.inner.rank", "required"]),
        (lambda config: contain(config, kind="pd_ssm", rank=1, n_maps=0), ["layers.0.inner.n_maps is 0"]),
        (lambda config: contain(config, kind="pd_ssm", rank=1, dt_rank=1), ["layers.0.inner.dt_rank"]),
        (lambda config: contain(config, kind="two_way"), ["layers.0.inner", "kind", "'pd_ssm'"]),
        (lambda config: change_layer(config, d_state=0), ["layers.1.d_state"]),
        (lambda config: config.update(layers=[]), ["layers", "at least one"]),
        (lambda config: config["norm"].update(kind="batch"), ["norm.kind"]),
        (lambda config: config["norm"].update(eps=-1), ["norm.eps"]),
        (lambda config: config.update(complement=[3, 2, 1]), ["complement"]),
        (lambda config: config.update(complement=[3, 2, 1, 1]), ["complement"]),
        (lambda config: config.update(complement=[1, 2, 3, 0]), ["complement"]),
        (lambda config: config.update(complement=[0, 1, 2, 3]), ["complement"]),
        (lambda config: config.update(base_columns=[0, 1, 2, 4]), ["base_columns"]),
        (lambda config: config.update(base_columns=[0, 1, 2, 2]), ["base_columns"]),
        (lambda config: config.update(base_columns=[0, 1, 2]), ["base_columns"]),
        (lambda config: config.update(mask=4), ["mask"]),
        (lambda config: contain(config, kind="mamba2", head_dim=7), ["head_dim: expected a divisor of the"]),
        (lambda config: contain(config, kind="mamba2", head_dim=1, n_groups=7), ["n_groups: expected a divisor"]),
        (lambda config: contain(config, kind="mamba2", head_dim=1, dt_limit=[1, 0.1]), ["dt_limit: the upper bound"]),
        (lambda config: config.update(context=-1), ["context"]),
    ],
)
def test_a_configuration_that_is_not_valid(
    folder: Path, change: Callable[[dict[str, Any]], object], words: list[str]
) -> None:
    file = folder / CONFIG
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    message = complaint(folder)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.update(d_model=16), ['"embed.weight"', "(8, 4)", "(16, 4)"]),
        (lambda config: config["layers"].pop(), ['"layers.1.', "not part of the model"]),
        (lambda config: config["layers"].append(config["layers"][0]), ['"layers.2.', "missing"]),
        (lambda config: change_layer(config, d_state=5), ['"layers.1.A_log"', "(16, 4)"]),
    ],
)
def test_a_configuration_that_the_tensors_contradict(
    folder: Path, change: Callable[[dict[str, Any]], object], words: list[str]
) -> None:
    test_a_configuration_that_is_not_valid(folder, change, words)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"d_model": 8,}', b"\xff\xfe{}", b"\x80\x04K\x01."])
def test_a_configuration_that_is_not_json(folder: Path, content: bytes) -> None:
    (folder / CONFIG).write_bytes(content)
    assert re.search(f"{CONFIG}: (not valid JSON|the file): ", complaint(folder))


# One hash for the whole model


@pytest.mark.parametrize(
    "change",
    [
        {"norm": {"kind": "rms", "eps": 1e-3}},
        {"base_columns": (3, 1, 2, 0)},
        {"unknown": 0},
        {"label_offset": 0},
        {"context": 7},
        {"symbols": "TCGA"},
        {"complement": (3, 2, 1, 0, 4)},
        {"mask": 1},
        {"window": 9},
        {"trained_on": "mice"},
    ],
)
def test_the_configuration_is_part_of_a_models_hash(change: dict[str, Any]) -> None:
    config = tiny_config(8, 1)
    stack = tiny_stack(8, 1, dtype=F32)
    other = ModelConfig.model_validate(
        config.model_dump(exclude=change.keys()) | change | ({"symbols": "ACGTN"} if "complement" in change else {})
    )
    model = Model("a", Path(), config, stack, Adjoint(), "0" * 64)
    assert Model("b", Path("b"), other, stack, Adjoint(), "0" * 64).sha256 != model.sha256
    assert Model("a", Path(), config, stack, Adjoint(), "1" * 64).sha256 != model.sha256
    assert Model("b", Path("b"), config, stack, Adjoint(), "0" * 64).sha256 == model.sha256


def test_a_layers_settings_are_part_of_a_models_hash() -> None:
    """Whatever a layer of any kind can be set to."""
    for kind in (MambaConfig, Mamba2Config, PdSsmConfig, BidirectionalConfig):
        needed: dict[str, Any] = {"dt_rank": 1, "rank": 1, "inner": PdSsmConfig(rank=1)}
        given = {name: value for name, value in needed.items() if name in kind.model_fields}
        layer = kind(**given)
        seen = set()
        others = [layer]
        for name, value in layer.model_dump(exclude={"kind", "inner"}).items():
            changed = {"strategy": "multiply", "dt_limit": (0.1, None)}.get(
                name, not value if isinstance(value, bool) else value * 2
            )
            others.append(layer.model_copy(update={name: changed}))
        for one in others:
            config = tiny_config(8, 1).model_copy(update={"layers": (one,)})
            seen.add(Model("a", Path(), config, tiny_stack(8, 1), Adjoint(), "0").sha256)
        assert len(seen) == len(others)


@pytest.mark.parametrize("value", [1e39, 1e-60])
def test_a_weight_that_the_dtype_does_not_hold_is_named(tmp_path: Path, value: float) -> None:
    """Overflow and underflow, which come after a file has been found sound."""
    stack = tiny_stack(8, 1, dtype=torch.float64)
    with torch.no_grad():
        stack.layers[0].D.fill_(value)  # type: ignore[union-attr, operator]
    save_model(tmp_path / "m", tiny_config(8, 1), stack, "")
    assert load_model(tmp_path / "m", dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ModelError, match=r'tensor "layers\.0\.D" has values up to .* float32'):
        load_model(tmp_path / "m")


def test_weights_of_which_some_are_small_are_no_fault(tmp_path: Path) -> None:
    stack = tiny_stack(8, 1, dtype=torch.float64)
    with torch.no_grad():
        stack.layers[0].D[::2] = 1e-60  # type: ignore[union-attr, index, operator]
        stack.layers[0].norm.weight.zero_()  # type: ignore[union-attr, operator]
    save_model(tmp_path / "m", tiny_config(8, 1), stack, "")
    assert load_model(tmp_path / "m").dtype == torch.float32


@pytest.mark.parametrize("eps", [0.0, -1e-5])
def test_a_norm_needs_an_eps(eps: float) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        NormConfig(eps=eps)
    with pytest.raises(ValueError, match="greater than 0"):
        Mamba2Config(gate_eps=eps)
