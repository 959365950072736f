"""Causal models in genoscan's own files: embedding, blocks x + mixer(norm x), norm and head."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from torch import Tensor

from truth import mamba, mamba2, pd_ssm
from truth.mamba import Weights, rms_norm


def logits(weights: Weights, config: dict[str, Any], x: Tensor) -> Tensor:
    """Return the logits of one window, (length, symbols), of rows of symbol weights, in float64."""
    weights = {name: tensor.double() for name, tensor in weights.items()}
    for h in _between(weights, config, x):
        last = h
    return rms_norm(last, weights["norm.weight"], config["norm"]["eps"]) @ weights["head.weight"].T


def clearance(weights: Weights, config: dict[str, Any], x: Tensor) -> float:
    """Return the distance of the nearest jump or kink: of a selection, or of a limit.

    Nearer than rounding, float32 may stand on the other side, where the derivative is another.
    """
    weights = {name: tensor.double() for name, tensor in weights.items()}
    nearest = float("inf")
    for layer, i, h in zip(config["layers"], count(), _between(weights, config, x), strict=False):
        w = _own(weights, i)
        normed = rms_norm(h, w["norm.weight"], config["norm"]["eps"])
        if layer["kind"] == "pd_ssm":
            nearest = min(nearest, pd_ssm.clearance(w, normed))
        elif layer["kind"] == "mamba2":
            nearest = min(nearest, mamba2.clearance(w, normed, **_sizes(layer)))
    return nearest


def _between(weights: Weights, config: dict[str, Any], x: Tensor) -> Iterator[Tensor]:
    """Yield the input of every block, and what leaves the last."""
    h = x @ weights["embed.weight"].T
    yield h
    for i, layer in enumerate(config["layers"]):
        w = _own(weights, i)
        normed = rms_norm(h, w["norm.weight"], config["norm"]["eps"])
        if layer["kind"] == "mamba":
            h = h + mamba.mixer(w, normed)
        elif layer["kind"] == "mamba2":
            h = h + mamba2.mixer(w, normed, **_sizes(layer))
        else:
            h = h + pd_ssm.mixer(w, normed)
        yield h


def _sizes(layer: dict[str, Any]) -> dict[str, Any]:
    return {"groups": layer["n_groups"], "limit": layer["dt_limit"], "eps": layer["gate_eps"]}


def _own(weights: Weights, i: int) -> Weights:
    prefix = f"layers.{i}."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
