"""Models in genoscan's own files: embedding, blocks x + mixer(norm x), norm and head.

A bidirectional block has two mixers, of which `rev` reads the window from right to left. A block of both strands
reads each strand in its own direction: from left to right, `fwd` reads the first half of the channels and `rev`
the second.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor

from truth import mamba, mamba2, pd_ssm
from truth.mamba import Weights

PROJECTIONS = "in_proj.weight", "out_proj.weight"
"""Weights that tied mixers share."""


def logits(weights: Weights, config: dict[str, Any], x: Tensor) -> Tensor:
    """Return the logits of one window, (length, symbols), of rows of symbol weights, in float64."""
    weights = {name: tensor.double() for name, tensor in weights.items()}
    for h in _between(weights, config, x):
        last = h
    return torch.cat(_normed(weights, config, last), 1) @ weights["head.weight"].T


def clearance(weights: Weights, config: dict[str, Any], x: Tensor) -> float:
    """Return the distance of the nearest jump or kink: of a selection, or of a limit.

    Nearer than rounding, float32 may stand on the other side, where the derivative is another.
    """
    weights = {name: tensor.double() for name, tensor in weights.items()}
    nearest = float("inf")
    for layer, i, h in zip(config["layers"], count(), _between(weights, config, x), strict=False):
        w = _own(weights, f"layers.{i}.")
        own = layer.get("inner", layer)
        for mixer_weights, read in _reads(layer, w, _normed(w, config, _entered(layer, h))):
            if own["kind"] == "pd_ssm":
                nearest = min(nearest, pd_ssm.clearance(mixer_weights, read, coupled=own.get("coupled", False)))
            elif own["kind"] == "mamba2":
                nearest = min(nearest, mamba2.clearance(mixer_weights, read, **_sizes(own)))
    return nearest


def _between(weights: Weights, config: dict[str, Any], x: Tensor) -> Iterator[Tensor]:
    """Yield the input of every block, and what leaves the last."""
    h = x @ weights["embed.weight"].T
    yield h
    for i, layer in enumerate(config["layers"]):
        h, w = _entered(layer, h), _own(weights, f"layers.{i}.")
        mixer = _mixer(layer.get("inner", layer))
        outputs = [mixer(*read) for read in _reads(layer, w, _normed(w, config, h))]
        if layer["kind"] == "two_way":
            pairs = zip(outputs[::2], (back.flip(0) for back in outputs[1::2]), strict=True)
            outputs = [a + b if layer["strategy"] == "add" else a * b for a, b in pairs]
        h = h + torch.cat(outputs, 1)
        yield h


def _entered(layer: dict[str, Any], h: Tensor) -> Tensor:
    return h.flip(1) if layer.get("rcps") and layer["fused_add_norm"] else h


def _normed(w: Weights, config: dict[str, Any], h: Tensor) -> list[Tensor]:
    """Return the normalised channels of every strand."""
    weight = w["norm.weight"]
    return [mamba.rms_norm(strand, weight, config["norm"]["eps"]) for strand in h.split(len(weight), 1)]


def _reads(layer: dict[str, Any], w: Weights, strands: list[Tensor]) -> Iterator[tuple[Weights, Tensor]]:
    """Yield the weights of every mixer with what it reads: of each strand, from left to right and back."""
    if layer["kind"] != "two_way":
        yield w, strands[0]
        return
    shared = {f"rev.{name}": w[f"fwd.{name}"] for name in PROJECTIONS} if layer["tied"] else {}
    ways = [_own(w | shared, prefix) for prefix in ("fwd.", "rev.")]
    for strand, (there, back) in zip(strands, (ways, ways[::-1]), strict=False):
        yield there, strand
        yield back, strand.flip(0)


def _mixer(layer: dict[str, Any]) -> Callable[[Weights, Tensor], Tensor]:
    if layer["kind"] == "mamba2":
        return partial(mamba2.mixer, **_sizes(layer))
    if layer["kind"] == "pd_ssm":
        return partial(pd_ssm.mixer, coupled=layer.get("coupled", False))
    return mamba.mixer


def _sizes(layer: dict[str, Any]) -> dict[str, Any]:
    return {"groups": layer["n_groups"], "limit": layer["dt_limit"], "eps": layer["gate_eps"]}


def _own(weights: Weights, prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
