"""Every operation in plain torch: the definition of right.

Differentiated by torch's own autograd, which is the truth that the kernel sets' rules are held
against.  Runs on any device and in any precision; slow.
"""

import torch
from jaxtyping import Float, Int16
from torch import Tensor
from torch.nn import functional as F

from genoscan.ops.kernels import Kernels, is_phi


def scan(
    u: Float[Tensor, "batch tile channels"],
    delta: Float[Tensor, "batch tile channels"],
    A: Float[Tensor, "channels states"],
    B: Float[Tensor, "batch tile states"],
    C: Float[Tensor, "batch tile states"],
    D: Float[Tensor, " channels"],
    state: Float[Tensor, "batch channels states"],
    bias: Float[Tensor, " channels"] | None = None,
    z: Float[Tensor, "batch tile channels"] | None = None,
    *,
    input_map: str = "euler",
) -> tuple[Float[Tensor, "batch tile channels"], Float[Tensor, "batch channels states"]]:
    """h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t;  y_t = C_t . h_t + D u_t.

    A <= 0; `state` is h before the tile.  With a bias the steps are softplus(delta + bias); with
    a gate z the outputs are y silu(z).  Mamba (Gu and Dao, arXiv 2312.00752, equation 2, with
    the Euler input map); with the input map "phi", phi(delta_t A) u_t B_t enters instead, with
    phi(z) = (exp(z) - 1) / z, as in Phase Gradient Flow's operator (arXiv 2512.23068).
    """
    if bias is not None:
        # torch takes log(1 + exp(x)) for x from its threshold on; at its own, 20, they differ by
        # 2e-9.
        delta = F.softplus(delta + bias, threshold=40)
    held = is_phi(input_map)
    h, rows = state, []
    for u_t, delta_t, B_t, C_t in zip(
        u.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1), strict=True
    ):
        decay = delta_t[..., None] * A
        gain = phi(decay) if held else delta_t[..., None]
        h = torch.exp(decay) * h + gain * u_t[..., None] * B_t[:, None, :]
        rows.append((h * C_t[:, None, :]).sum(-1) + D * u_t)
    y = torch.stack(rows, 1)
    return (y if z is None else y * silu(z)), h


def silu(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """x logistic(x): torch's own has no forward-mode derivative of its derivative."""
    return x * torch.sigmoid(x)


def phi(z: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """(exp(z) - 1) / z for z <= 0, by its series from -1 on, whose derivative keeps its digits."""
    small, large = z.clamp(min=-1), z.clamp(max=-1)
    series = torch.ones_like(z)
    for k in range(19, 1, -1):
        series = 1 + small / k * series
    return torch.where(z > -1, series, torch.expm1(large) / large)


def conv_silu(
    x: Float[Tensor, "batch tile channels"],
    weight: Float[Tensor, "channels taps"],
    bias: Float[Tensor, " channels"],
    tail: Float[Tensor, "batch before channels"],
) -> tuple[Float[Tensor, "batch tile channels"], Float[Tensor, "batch before channels"]]:
    """silu(bias + sum over k of weight[:, k] x[t - taps + 1 + k]), and the next tail.

    The last tap is the current base; `tail` holds the taps - 1 inputs before the tile.
    The tail returned is a copy: a view would keep the whole tile alive.
    """
    length, taps = x.shape[1], weight.shape[1]
    padded = torch.cat([tail, x], 1)
    total = sum((padded[:, k : k + length] * weight[:, k] for k in range(taps)), start=bias)
    return silu(total), padded[:, length:].clone()


def rms_norm(
    x: Float[Tensor, "batch tile width"], weight: Float[Tensor, " width"], *, eps: float
) -> Float[Tensor, "batch tile width"]:
    """x / sqrt(mean of x^2 + eps) weight, over the last axis; NaN where the squares overflow."""
    overflow = x.detach().square().mean(-1, keepdim=True).isinf()
    # A product, because a row that is overwritten would have a derivative of 0.
    return F.rms_norm(x, weight.shape, weight, eps) * torch.where(overflow, torch.nan, 1.0).to(x)


def pd_scan(
    decay: Float[Tensor, "batch tile heads two states"],
    inflow: Float[Tensor, "batch tile heads two states"],
    state: Float[Tensor, "batch heads two states"],
    *,
    route: Int16[Tensor, "batch tile heads"],
    maps: Int16[Tensor, "heads maps states"],
) -> tuple[Float[Tensor, "batch tile heads two states"], Float[Tensor, "batch heads two states"]]:
    """x_t[i] = b_t[i] + sum over q with p(q) = i of d_t[q] x_(t-1)[q];  p = maps[head, route_t].

    Complex, planes of real and imaginary parts: decay d, inflow b, state x before the tile.
    Returns x after every step, and the last.  The transition of PD-SSM (Terzić et al., NeurIPS
    2025), one map selected a step as in Flash PD-SSM (arXiv 2605.19150); which one is not
    differentiated.
    """
    heads, rows = torch.arange(len(maps), device=maps.device), []
    for t in range(decay.shape[1]):
        chosen = maps[heads, route[:, t].long()].long()
        moves = F.one_hot(chosen, maps.shape[-1]).to(decay.dtype)  # from source to destination
        (d_re, d_im), (re, im) = decay[:, t].unbind(-2), state.unbind(-2)
        turned = torch.stack([d_re * re - d_im * im, d_re * im + d_im * re], -2)
        state = turned @ moves + inflow[:, t]
        rows.append(state)
    return torch.stack(rows, 1), state


REFERENCE = Kernels("reference", scan, conv_silu, rms_norm, pd_scan)
