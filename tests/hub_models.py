"""Causal models of transformers' own classes, and their files as other projects lay them out."""

import json
from pathlib import Path
from typing import Any

import torch

TOKENS = {"A": 7, "C": 8, "G": 9, "T": 10, "N": 4}


def transformers_model(kind: str, **sizes: Any) -> Any:
    """Return a seeded model of transformers' own class."""
    import transformers

    shared = {"vocab_size": 16, "use_cache": False, "tie_word_embeddings": kind == "mamba"}
    torch.manual_seed(1)
    if kind == "mamba":
        model = transformers.MambaForCausalLM(transformers.MambaConfig(**shared | sizes))
    else:
        model = transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**shared | sizes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "A_log" not in name:
                weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def state_spaces(folder: Path, kind: str, model: Any) -> Path:
    """Lay the model out as state-spaces does."""
    config, tensors = model.config, model.state_dict()
    ssm: dict[str, Any] = {"d_state": config.state_size}
    if kind == "mamba":
        ssm["bias"] = config.use_bias
    else:
        ssm |= {
            "layer": "Mamba2",
            "headdim": config.head_dim,
            "ngroups": config.n_groups,
            "dt_limit": list(config.time_step_limit),
        }
    settings = {
        "d_model": config.hidden_size,
        "d_intermediate": 0,
        "n_layer": config.num_hidden_layers,
        "vocab_size": 12,
        "ssm_cfg": ssm,
        "attn_layer_idx": [],
        "attn_cfg": {},
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
        "tie_embeddings": config.tie_word_embeddings,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    renamed = {name.replace("embeddings.", "embedding."): t for name, t in tensors.items()}
    torch.save(renamed, folder / "pytorch_model.bin")
    return folder
