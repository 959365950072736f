"""Mamba (Gu and Dao, arXiv 2312.00752), with the paper's Euler input map, delta B u."""

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def rms_norm(x: Tensor, weight: Tensor | float, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def convolve(u: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    """Return the causal convolution of each channel; the last tap meets the current base."""
    taps = filters.shape[1]
    padded = torch.cat([u.new_zeros(taps - 1, u.shape[1]), u])
    terms = [padded[j : j + len(u)] * filters[:, j] for j in range(taps)]
    return torch.stack(terms).sum(0) + bias


def recur(decay: Tensor, inflow: Tensor) -> Tensor:
    """Return h_t = decay_t h_{t-1} + inflow_t for every t, from h_{-1} = 0."""
    h, states = torch.zeros_like(inflow[0]), []
    for decay_t, inflow_t in zip(decay.unbind(0), inflow.unbind(0), strict=True):
        h = torch.addcmul(inflow_t, decay_t, h)
        states.append(h)
    return torch.stack(states)


def mixer(w: Weights, x: Tensor) -> Tensor:
    """Return the mixer's output, (length, d_model); `w` holds its tensors by their own names."""
    channels, n = w["A_log"].shape
    rank = w["dt_proj.weight"].shape[1]
    u, z = (x @ w["in_proj.weight"].T + w.get("in_proj.bias", 0)).split([channels, channels], -1)
    c = F.silu(convolve(u, w["conv.weight"], w["conv.bias"]))
    low, B, C = (c @ w["x_proj.weight"].T).split([rank, n, n], -1)
    pre = low @ w["dt_proj.weight"].T + w["dt_proj.bias"]
    delta = torch.logaddexp(pre, torch.zeros_like(pre))
    decay = torch.exp(delta[:, :, None] * -torch.exp(w["A_log"]))
    states = recur(decay, (delta * c)[:, :, None] * B[:, None, :])
    y = (states * C[:, None, :]).sum(-1) + w["D"] * c
    return (y * F.silu(z)) @ w["out_proj.weight"].T + w.get("out_proj.bias", 0)
