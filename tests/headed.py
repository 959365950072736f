"""Small models with task heads of every kind."""

from pathlib import Path
from typing import Any

import torch

from genoscan.layers.config import ModelConfig
from genoscan.layers.weights import build, save_model
from genoscan.training.strands import tie_strands

MAMBA = {"kind": "mamba", "d_state": 3, "dt_rank": 1}
LAYERS: dict[str, dict[str, Any]] = {
    "causal": {"layers": [MAMBA, MAMBA]},
    "bidirectional": {"layers": [{"kind": "two_way", "inner": MAMBA}] * 2, "label_offset": 0},
    "rcps": {"layers": [{"kind": "two_way", "inner": MAMBA, "rcps": True}] * 2, "label_offset": 0},
}
STRANDED = {"labels": ["none", "site+", "site-"], "complement": [0, 2, 1]}


def heads(kind: str) -> dict[str, Any]:
    """Return a head of every kind, folded and not where there are two strands."""
    made: dict[str, Any] = {"sites": {"kind": "per_base", "link": "softmax", **STRANDED}}
    for pool in ("mean", "max", "first", "last"):
        made[pool] = {"kind": "pooled", "pool": pool, "link": "sigmoid", **STRANDED}
    if kind == "rcps":
        made |= {f"folded-{name}": head | {"fold": True} for name, head in made.items()}
    return made


def write_headed(folder: Path, kind: str, **settings: Any) -> Path:
    """Write a model with seeded weights, none of them at a special value."""
    given = {"d_model": 6, "context": 9, "reach": 5, "trained_on": "nothing", "heads": heads(kind)}
    config = ModelConfig.model_validate(given | LAYERS[kind] | settings)
    torch.manual_seed(5)
    stack = build(config)
    with torch.no_grad():
        for weight in stack.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
        tie_strands(config, dict(stack.named_parameters()))
    save_model(folder, config, stack, "")
    return folder
