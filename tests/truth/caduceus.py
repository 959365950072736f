"""Caduceus as its definition says it, whole windows in float64, and files in its exact layout.

Written from the published description (Schiff et al., arXiv 2403.03234) and the layout of its
files; it shares nothing with the program.  Tensors go by the names that they have in the file.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from truth import mamba, mamba2

COMPLEMENT = [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15]
PLANT = [0, 1, 2, 6, 5, 4, 3, 7]
PROJECTIONS = "in_proj.weight", "out_proj.weight", "in_proj.bias", "out_proj.bias"


def config(
    *,
    d_model: int = 12,
    n_layer: int = 2,
    rcps: bool = True,
    fused: bool = True,
    strategy: str = "add",
    complement: list[int] = COMPLEMENT,
    vocab_size: int | None = None,
    mamba2: bool = False,
    tied: bool = True,
    rms_norm: bool = True,
    bias: bool = False,
) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "d_state": 16,
        "d_conv": 4,
        "expand": 2,
        "dt_rank": "auto",
        "dt_min": 0.001,
        "dt_max": 0.1,
        "dt_init": "random",
        "dt_scale": 1.0,
        "dt_init_floor": 1e-4,
        "conv_bias": True,
        "bias": bias,
        "use_fast_path": True,
    }
    # What says that the mixers are Mamba-2's is what it does not say.
    short = {"d_state": 12, "d_conv": 4, "expand": 2, "headdim": 8}
    return {
        "architectures": ["CaduceusForMaskedLM"],
        "model_type": "caduceus",
        "d_model": d_model,
        "n_layer": n_layer,
        "vocab_size": vocab_size or len(complement),
        "pad_vocab_size_multiple": 8,
        "complement_map": {str(i): j for i, j in enumerate(complement)},
        "rcps": rcps,
        "bidirectional": True,
        "bidirectional_strategy": strategy,
        "bidirectional_weight_tie": tied,
        "rms_norm": rms_norm,
        "norm_epsilon": 1e-5,
        "fused_add_norm": fused,
        "residual_in_fp32": False,
        "ssm_cfg": short if mamba2 else plain,
        "initializer_cfg": {},
        "torch_dtype": "float32",
    }


def tensors(config: dict[str, Any], seed: int = 1) -> dict[str, Tensor]:
    """Return seeded weights under the names of the file, as many as it holds."""
    random = torch.Generator().manual_seed(seed)
    ssm, d, v = config["ssm_cfg"], config["d_model"], config["vocab_size"]
    e, n, k = ssm["expand"] * d, ssm["d_state"], ssm["d_conv"]
    r, mamba2 = -(-d // 16), "dt_rank" not in ssm
    heads = e // ssm["headdim"] if mamba2 else 0

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=random)

    made = {}
    words = "caduceus.backbone.embeddings.word_embeddings."
    if config["rcps"]:
        complement = torch.tensor([config["complement_map"][str(i)] for i in range(v)])
        made[words + "embedding.weight"] = normal(v, d)
        made[words + "complement_map"] = complement
        made["lm_head.complement_map"] = complement.clone()
    else:
        made[words + "weight"] = normal(v, d)
    for i in range(config["n_layer"]):
        layer = f"caduceus.backbone.layers.{i}."
        mixer = layer + ("mixer.submodule." if config["rcps"] else "mixer.")
        for way in ("mamba_fwd.", "mamba_rev."):
            m = mixer + way
            if mamba2:
                made[m + "A_log"] = torch.log(torch.rand(heads, generator=random) * 8 + 0.2)
                made[m + "D"] = normal(heads)
                made[m + "dt_bias"] = normal(heads) - 3
                made[m + "conv1d.weight"] = normal(e + 2 * n, 1, k, scale=k**-0.5)
                made[m + "conv1d.bias"] = normal(e + 2 * n, scale=0.1)
                made[m + "norm.weight"] = 1 + normal(e, scale=0.3)
                if way == "mamba_fwd." or not config["bidirectional_weight_tie"]:
                    made[m + "in_proj.weight"] = normal(2 * e + 2 * n + heads, d, scale=d**-0.5)
                    made[m + "out_proj.weight"] = normal(d, e, scale=e**-0.5)
                continue
            made[m + "A_log"] = torch.log(torch.rand(e, n, generator=random) * 8 + 0.2)
            made[m + "D"] = normal(e)
            made[m + "conv1d.weight"] = normal(e, 1, k, scale=k**-0.5)
            made[m + "conv1d.bias"] = normal(e, scale=0.1)
            made[m + "x_proj.weight"] = normal(r + 2 * n, e, scale=e**-0.5)
            made[m + "dt_proj.weight"] = normal(e, r, scale=r**-0.5)
            made[m + "dt_proj.bias"] = normal(e) - 3
            if way == "mamba_fwd." or not config["bidirectional_weight_tie"]:
                made[m + "in_proj.weight"] = normal(2 * e, d, scale=d**-0.5)
                made[m + "out_proj.weight"] = normal(d, e, scale=e**-0.5)
                if ssm["bias"]:
                    made[m + "in_proj.bias"], made[m + "out_proj.bias"] = normal(2 * e), normal(d)
        made[layer + _norm(config)] = 1 + normal(d, scale=0.3)
    made["caduceus.backbone." + _norm(config).replace("norm", "norm_f", 1)] = 1 + normal(d, scale=0.3)
    if not config["rms_norm"]:
        norms = [name for name in made if "norm" in name and "mamba_" not in name]
        made |= {name.removesuffix("weight") + "bias": normal(d, scale=0.3) for name in norms}
    return made


def _norm(config: dict[str, Any]) -> str:
    wrapped = config["rcps"] and not config["fused_add_norm"]
    return "norm.submodule.weight" if wrapped else "norm.weight"


def write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def logits(config: dict[str, Any], tensors: dict[str, Tensor], ids_one_hot: Tensor) -> Tensor:
    """Return the logits of one window, (length, vocabulary), from one-hot tokens, in float64."""
    h = hidden(config, tensors, ids_one_hot)
    words = "caduceus.backbone.embeddings.word_embeddings."
    if not config["rcps"]:
        return h @ tensors[words + "weight"].double().T
    E, complement = tensors[words + "embedding.weight"].double(), tensors[words + "complement_map"].long()
    a, b = h.chunk(2, 1)
    return a @ E.T + b.flip(1) @ E[complement].T


def hidden(config: dict[str, Any], tensors: dict[str, Tensor], ids_one_hot: Tensor) -> Tensor:
    """Return the last hidden state as Caduceus returns it: of both strands, side by side, if there are two."""
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    x = ids_one_hot.double()
    return _both_strands(config, weights, x) if config["rcps"] else _one_strand(config, weights, x)


def pooled(x: Tensor, pooling: str) -> Tensor:
    return {"mean": x.mean(0), "max": x.amax(0), "first": x[0], "last": x[-1]}[pooling]


def classes(config: dict[str, Any], tensors: dict[str, Tensor], ids_one_hot: Tensor, pooling: str) -> Tensor:
    """Return the logits of CaduceusForSequenceClassification: each strand is pooled and scored, as it is read."""
    h, weight = hidden(config, tensors, ids_one_hot), tensors["score.weight"].double()
    strands = [h.chunk(2, 1)[0], _turned(h.chunk(2, 1)[1])] if config["rcps"] else [h]
    return torch.stack([pooled(strand, pooling) @ weight.T for strand in strands]).mean(0)


def _own(w: dict[str, Tensor], own: str, shared: str) -> dict[str, Tensor]:
    """Return a mixer's tensors; the projections in and out may be another's."""
    mine = {k.removeprefix(own): v for k, v in w.items() if k.startswith(own)}
    mine |= {name: w[shared + name] for name in PROJECTIONS if shared + name in w}
    mine["conv.weight"], mine["conv.bias"] = mine["conv1d.weight"][:, 0], mine["conv1d.bias"]
    if "norm.weight" in mine:
        mine["gate_norm"] = mine["norm.weight"]
    return mine


def _mixer(config: dict[str, Any], w: dict[str, Tensor], i: int, h: Tensor) -> Tensor:
    inner = "mixer.submodule." if config["rcps"] else "mixer."
    m = f"caduceus.backbone.layers.{i}.{inner}"
    run = mamba.mixer if "dt_rank" in config["ssm_cfg"] else mamba2.mixer
    shared = m + ("mamba_fwd." if config["bidirectional_weight_tie"] else "mamba_rev.")
    forward = run(_own(w, m + "mamba_fwd.", m + "mamba_fwd."), h)
    back = run(_own(w, m + "mamba_rev.", shared), h.flip(0)).flip(0)
    return forward + back if config["bidirectional_strategy"] == "add" else forward * back


def _normed(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Return RMSNorm, or LayerNorm where there is a bias."""
    bias = name.removesuffix("weight") + "bias"
    if bias not in w:
        return mamba.rms_norm(x, w[name], 1e-5)
    return mamba.rms_norm(x - x.mean(-1, keepdim=True), w[name], 1e-5) + w[bias]


def _one_strand(config: dict[str, Any], w: dict[str, Tensor], x: Tensor) -> Tensor:
    E = w["caduceus.backbone.embeddings.word_embeddings.weight"]
    h, r = x @ E, torch.zeros(len(x), E.shape[1], dtype=torch.float64)
    for i in range(config["n_layer"]):
        r = r + h
        h = _mixer(config, w, i, _normed(w, f"caduceus.backbone.layers.{i}.norm.weight", r))
    return _normed(w, "caduceus.backbone.norm_f.weight", r + h)


def _turned(x: Tensor) -> Tensor:
    return x.flip(0).flip(1)


def _both_strands(config: dict[str, Any], w: dict[str, Tensor], x: Tensor) -> Tensor:
    words = "caduceus.backbone.embeddings.word_embeddings."
    E, complement = w[words + "embedding.weight"], w[words + "complement_map"].long()
    a = x @ E
    b = _turned(x.flip(0) @ E[complement])
    ra, rb = torch.zeros_like(a), torch.zeros_like(b)
    for i in range(config["n_layer"]):
        norm = f"caduceus.backbone.layers.{i}.{_norm(config)}"
        ra, rb = ra + a, rb + b
        if config["fused_add_norm"]:
            ra, rb = rb, ra
        a = _mixer(config, w, i, _normed(w, norm, ra))
        b = _turned(_mixer(config, w, i, _turned(_turned(_normed(w, norm, _turned(rb))))))
    norm = "caduceus.backbone." + _norm(config).replace("norm", "norm_f", 1)
    a = _normed(w, norm, ra + a)
    b = _turned(_normed(w, norm, _turned(rb + b)))
    return torch.cat([a, b], 1)
