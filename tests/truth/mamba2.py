"""Mamba-2 (Dao and Gu, arXiv 2405.21060): one decay a head, B and C shared by a group's heads."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from truth.mamba import Weights, convolve, recur, rms_norm


def mixer(w: Weights, x: Tensor, *, groups: int = 1, limit: Any = (0.0, None), eps: float = 1e-5) -> Tensor:
    """Return the mixer's output, (length, d_model); `w` holds its tensors by their own names."""
    return _run(w, x, groups, limit, eps)[0]


def clearance(w: Weights, x: Tensor, *, groups: int = 1, limit: Any, eps: float) -> float:
    """Return the distance of the step sizes from the kinks at their limits."""
    with torch.no_grad():
        return _run(w, x, groups, limit, eps)[1]


def _run(w: Weights, x: Tensor, groups: int, limit: Any, eps: float) -> tuple[Tensor, float]:
    heads, channels = len(w["D"]), len(w["gate_norm"])
    n = (len(w["conv.bias"]) - channels) // (2 * groups)
    z, mixed, dt = (x @ w["in_proj.weight"].T).split([channels, len(w["conv.bias"]), heads], -1)
    mixed = F.silu(convolve(mixed, w["conv.weight"], w["conv.bias"]))
    u, B, C = mixed.split([channels, groups * n, groups * n], -1)
    pre = dt + w["dt_bias"]
    delta = torch.logaddexp(pre, torch.zeros_like(pre))
    kinks = [float((delta.detach() - edge).abs().min()) for edge in limit if edge]
    delta = delta.clamp(*limit)
    u = u.unflatten(-1, (heads, -1))
    B, C = (part.unflatten(-1, (groups, n)).repeat_interleave(heads // groups, 1) for part in (B, C))
    decay = torch.exp(delta * -torch.exp(w["A_log"]))[:, :, None, None]
    inflow = delta[:, :, None, None] * u[..., None] * B[:, :, None, :]
    states = recur(decay, inflow)  # (length, heads, head_dim, n)
    y = (states * C[:, :, None, :]).sum(-1) + w["D"][:, None] * u
    gated = (y.flatten(1) * F.silu(z)).unflatten(-1, (groups, -1))
    normed = rms_norm(gated, 1.0, eps).flatten(1) * w["gate_norm"]
    return normed @ w["out_proj.weight"].T, min(kinks, default=float("inf"))
