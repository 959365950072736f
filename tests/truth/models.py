"""Small models with seeded weights: a folder that the program reads, and the same as a function."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from truth import caduceus, stack
from truth.mamba import Weights

MAMBA = {"kind": "mamba", "d_state": 3, "d_conv": 4, "expand": 2, "dt_rank": 1}
MAMBA2 = {
    "kind": "mamba2",
    "d_state": 3,
    "head_dim": 4,
    "n_groups": 2,
    "d_conv": 3,
    "expand": 2,
    "dt_limit": [0.02, 0.9],
    "gate_eps": 1e-4,
}
PD_SSM = {"kind": "pd_ssm", "heads": 2, "d_state": 4, "n_maps": 3, "d_conv": 4, "expand": 2, "rank": 2}
COUPLED = PD_SSM | {"coupled": True}
PLAIN = {"symbols": "ACGT", "base_columns": [0, 1, 2, 3], "complement": [3, 2, 1, 0]}
MIXED_UP = {"symbols": "NT-AGC", "base_columns": [3, 5, 4, 1], "complement": [0, 3, 2, 1, 5, 4], "unknown": 0}

CAUSAL: dict[str, dict[str, Any]] = {
    "mamba": PLAIN | {"layers": [MAMBA, MAMBA], "d_model": 8},
    "mamba, symbols mixed up": MIXED_UP
    | {"layers": [MAMBA | {"d_conv": 2, "dt_rank": 2, "expand": 1}], "d_model": 6, "eps": 1e-2},
    "mamba, 7 taps, labels 2 on": PLAIN | {"layers": [MAMBA | {"d_conv": 7}], "d_model": 5, "label_offset": 2},
    "mamba, 1 tap": PLAIN | {"layers": [MAMBA | {"d_conv": 1}] * 2, "d_model": 4},
    "mamba2": PLAIN | {"layers": [MAMBA2, MAMBA2 | {"n_groups": 1}], "d_model": 8},
    "mamba2, symbols mixed up": MIXED_UP | {"layers": [MAMBA2 | {"dt_limit": [0.0, None], "d_conv": 4}], "d_model": 8},
    "pd_ssm": PLAIN | {"layers": [PD_SSM, PD_SSM], "d_model": 6},
    "pd_ssm, coupled": PLAIN | {"layers": [COUPLED, COUPLED], "d_model": 6},
    "pd_ssm, one map, symbols mixed up": MIXED_UP
    | {"layers": [PD_SSM | {"n_maps": 1, "heads": 3, "d_conv": 2}], "d_model": 6},
    "all three": PLAIN | {"layers": [MAMBA, COUPLED, MAMBA2], "d_model": 8, "seed": 2},
}
BOTH_WAYS: dict[str, dict[str, Any]] = {
    "Ph": {"rcps": False},
    "Ph, untied": {"rcps": False, "tied": False, "d_model": 6},
    "Ph, product": {"rcps": False, "strategy": "ew_multiply", "n_layer": 1},
    "PS fused": {"fused": True, "n_layer": 2},
    "PS fused, odd": {"fused": True, "n_layer": 1},
    "PS unfused": {"fused": False, "n_layer": 1},
    "PS fused, PlantCaduceus": {"fused": True, "n_layer": 1, "complement": caduceus.PLANT},
    "PS fused, Mamba-2 inside": {"fused": True, "n_layer": 1, "mamba2": True},
    "Ph, no symbol for N": {"rcps": False, "n_layer": 1, "no_unknown": True},
    "PS unfused, no symbol for N": {"fused": False, "n_layer": 1, "no_unknown": True},
}
MASKED = {"symbols": "ACGTN.", "base_columns": [0, 1, 2, 3], "complement": [3, 2, 1, 0, 4, 5], "unknown": 4, "mask": 5}


def two_way(*inner: dict[str, Any], strategy: str = "add", rcps: bool = False, fused: bool = False, tied: bool = True):
    shared = {"kind": "two_way", "strategy": strategy, "rcps": rcps, "fused_add_norm": fused, "tied": tied}
    return MASKED | {"layers": [shared | {"inner": mixer} for mixer in inner], "d_model": 6, "label_offset": 0}


PD_SSM_BOTH_WAYS: dict[str, dict[str, Any]] = {
    "PD-SSM inside": two_way(PD_SSM, COUPLED),
    "PD-SSM and Mamba inside, untied, product": two_way(PD_SSM, MAMBA, strategy="multiply", tied=False),
    "PD-SSM inside, both strands": two_way(COUPLED, rcps=True, fused=True),
    "PD-SSM and Mamba inside, both strands, untied": two_way(MAMBA, PD_SSM, rcps=True, tied=False),
}
"""Bidirectional blocks in genoscan's own files."""
# Probabilities near 1, whose complement is small.
CONFIDENT: dict[str, dict[str, Any]] = {"mamba, confident": PLAIN | {"layers": [MAMBA], "d_model": 8, "head": 4.0}}
LONG: dict[str, dict[str, Any]] = {
    "mamba, small": PLAIN | {"layers": [MAMBA, MAMBA], "d_model": 4},
    "mamba2, small": PLAIN | {"layers": [MAMBA2], "d_model": 4},
    "pd_ssm, small": PLAIN | {"layers": [PD_SSM | {"heads": 1, "d_state": 3, "n_maps": 2}], "d_model": 4},
    "Ph, small": {"rcps": False, "n_layer": 1, "d_model": 4},
    "PS fused, small": {"fused": True, "n_layer": 1, "d_model": 4},
}
ALL = CAUSAL | BOTH_WAYS | CONFIDENT | LONG | PD_SSM_BOTH_WAYS


OURS = "no_unknown", "embedding", "eps", "seed", "head"
"""Settings of this file's tables that no config.json has."""


class Model(NamedTuple):
    """`nearest` is the distance of a window from a jump or kink; None where there is none."""

    folder: Path
    config: dict[str, Any]
    logits: Callable[[Tensor], Tensor]
    nearest: Callable[[Tensor], float] | None


def native(folder: Path, sizes: dict[str, Any]) -> Model:
    """Write a model in genoscan's own format."""
    config = {
        "format": "genoscan-model/1",
        "mask": None,
        "unknown": None,
        "label_offset": 1,
        "norm": {"kind": "rms", "eps": sizes.get("eps", 1e-5)},
        "context": 20,
        "reach": 10,
        "trained_on": "nothing",
    } | {name: value for name, value in sizes.items() if name not in OURS}
    weights = seeded(config, seed=sizes.get("seed", 1))
    weights["head.weight"] *= sizes.get("head", 1.0)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("Untrained.\n")
    save_file(weights, folder / "model.safetensors")
    smooth = all(layer.get("inner", layer)["kind"] == "mamba" for layer in config["layers"])
    return Model(
        folder,
        config,
        lambda x: stack.logits(weights, config, x),
        None if smooth else (lambda x: stack.clearance(weights, config, x)),
    )


def both_ways(source: Path, sizes: dict[str, Any]) -> tuple[dict[str, Any], Weights]:
    """Write a Caduceus checkpoint in its own layout."""
    config = caduceus.config(**{k: v for k, v in sizes.items() if k not in OURS})
    weights = caduceus.tensors(config)
    # The head's rows too: larger ones would make every probability nearly 0 or 1.
    name = next(name for name in weights if "word_embeddings" in name and name.endswith("weight"))
    weights[name] *= sizes.get("embedding", 0.3)
    for name in weights:
        if name.endswith("out_proj.weight"):
            weights[name] *= 0.7
    caduceus.write(source, config, weights)
    return config, weights


def imported(folder: Path, sizes: dict[str, Any], config: dict[str, Any], weights: Weights) -> Model:
    """Return what a Caduceus checkpoint was imported as; it may be robbed of its symbol for N."""
    native = json.loads((folder / "config.json").read_text())
    if sizes.get("no_unknown"):
        native["unknown"] = None
        (folder / "config.json").write_text(json.dumps(native))
    return Model(folder, native, lambda x: caduceus.logits(config, weights, x), None)


def seeded(config: dict[str, Any], seed: int = 1) -> Weights:
    """Return weights of a model in genoscan's own format, float32, none of them at a special value."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=random)

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=random)

    def mixer(layer: dict[str, Any]) -> Weights:
        e, k = layer["expand"] * d, layer["d_conv"]
        w = {"out_proj.weight": normal(d, e, scale=0.7 * e**-0.5)}
        convolved = e
        if layer["kind"] == "mamba":
            n, r = layer["d_state"], layer["dt_rank"]
            w["in_proj.weight"] = normal(2 * e, d, scale=d**-0.5)
            w["x_proj.weight"] = normal(r + 2 * n, e, scale=e**-0.5)
            w["dt_proj.weight"], w["dt_proj.bias"] = normal(e, r), uniform(e, low=-4, high=0)
            w["A_log"], w["D"] = uniform(e, n, low=-2, high=2), normal(e)
        elif layer["kind"] == "mamba2":
            heads, shared = e // layer["head_dim"], layer["n_groups"] * layer["d_state"]
            convolved = e + 2 * shared
            w["in_proj.weight"] = normal(e + convolved + heads, d, scale=d**-0.5)
            w["dt_bias"], w["gate_norm"] = uniform(heads, low=-4, high=0), 1 + normal(e, scale=0.3)
            w["A_log"], w["D"] = uniform(heads, low=-2, high=2), normal(heads)
        else:
            heads, n, maps, r = (layer[key] for key in ("heads", "d_state", "n_maps", "rank"))
            w["in_proj.weight"] = normal(2 * e, d, scale=d**-0.5)
            w["B_proj.weight"] = normal(2 * heads * n, e, scale=0.5 * e**-0.5)
            w["low.weight"] = normal(3 * r, e, scale=e**-0.5)
            for name, rows in (("size", heads * n), ("phase", heads * n), ("C_proj", 2 * heads * n)):
                w[f"{name}.weight"], w[f"{name}.bias"] = normal(rows, r, scale=0.5), normal(rows)
            w["size.bias"] += 0.5  # states fade: what never does drifts in phase, in float32
            w["router.weight"] = normal(heads * maps, e)
            w["dictionary"], w["start"] = normal(heads, maps, n, n), normal(heads, 2, n)
            w["state_out.weight"] = normal(e, heads * n, scale=(heads * n) ** -0.5)
            w["D"] = normal(e)
        w["conv.weight"] = normal(convolved, k, scale=k**-0.5)
        w["conv.bias"] = normal(convolved, scale=0.1)
        return w

    d, symbols = config["d_model"], len(config["symbols"])
    made = {"embed.weight": normal(d, symbols)}
    for i, layer in enumerate(config["layers"]):
        w = {"norm.weight": 1 + normal(d, scale=0.3)}
        if layer["kind"] == "two_way":
            for way in ("fwd", "rev"):
                own = mixer(layer["inner"])
                leave = stack.PROJECTIONS if layer["tied"] and way == "rev" else ()
                w |= {f"{way}.{name}": tensor for name, tensor in own.items() if name not in leave}
        else:
            w |= mixer(layer)
        made |= {f"layers.{i}.{name}": tensor for name, tensor in w.items()}
    made["norm.weight"], made["head.weight"] = (1 + normal(d, scale=0.3), normal(symbols, d, scale=0.5))
    if config["layers"][0].get("rcps"):  # the other strand has the complements of the symbols
        pairs = config["complement"]
        made["embed.weight"] = torch.cat([made["embed.weight"], made["embed.weight"][:, pairs]])
        made["head.weight"] = torch.cat([made["head.weight"], made["head.weight"][pairs]], 1)
    return made
