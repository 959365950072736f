"""Models with seeded weights, shared by all contenders."""

import math
import re
from pathlib import Path

import torch

from genoscan.errors import InputError
from genoscan.layers.config import ModelConfig
from genoscan.layers.weights import build, save_model

_SEED = 1


def write_fresh_model(folder: Path, shape: str) -> Path:
    """Write a model with seeded weights, its shape (width x layers) such as 256x16.

    Raises
    ------
    InputError
        If the shape is not two numbers.
    """
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", shape)
    if not found:
        raise InputError(f"--shape {shape}: expected WIDTHxLAYERS, such as 256x16")
    width, n_layers = map(int, found.groups())
    config = ModelConfig.model_validate(
        {
            "d_model": width,
            "layers": [{"kind": "mamba", "dt_rank": math.ceil(width / 16)}] * n_layers,
            "context": 0,
            "reach": 0,
            "trained_on": "nothing: seeded weights",
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        stack = build(config)
    path = folder / f"fresh-{shape}"
    save_model(path, config, stack, f"# {path.name}\n\nUntrained, for measurements of speed.\n")
    return path
