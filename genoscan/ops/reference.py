"""Reference definitions of the operations in plain torch.

The values and derivatives of all other kernel sets are tested against these definitions, which are
differentiated by autograd. The definitions run on any device and in any precision, but they are slow.
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
    """Return the outputs and the final state of the selective scan.

    The scan computes `h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t` and `y_t = C_t . h_t + D u_t`.

    Parameters
    ----------
    u, delta, A, B, C, D, state, bias, z
        See `kernels.ScanInputs`.
    input_map : {"euler", "phi"}
        "euler" selects the recurrence above, as in Mamba (Gu and Dao, arXiv 2312.00752, equation 2).
        "phi" replaces the input term by `phi(delta_t A) u_t B_t` with `phi(x) = (exp(x) - 1) / x`, as
        in the operator of Phase Gradient Flow (arXiv 2512.23068).

    Returns
    -------
    tuple of Tensor
        Outputs `y`, of shape (batch, tile, channels), and the final state, of shape (batch, channels,
        states).
    """
    if bias is not None:
        # Above the threshold, torch returns x; at the default of 20, the error would be 2e-9.
        delta = F.softplus(delta + bias, threshold=40)
    rate = delta[..., None] * A
    gain = phi(rate) if is_phi(input_map) else delta[..., None]
    decay, inflow = torch.exp(rate), gain * u[..., None] * B[:, :, None, :]
    h, states = state, []
    for decay_t, inflow_t in zip(decay.unbind(1), inflow.unbind(1), strict=True):
        h = decay_t * h + inflow_t
        states.append(h)
    y = (torch.stack(states, 1) * C[:, :, None, :]).sum(-1) + D * u
    return (y if z is None else y * silu(z)), h


def silu(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Return `x sigmoid(x)`.

    This function is used instead of torch's `silu`, whose derivative cannot itself be differentiated in
    forward mode.
    """
    return x * torch.sigmoid(x)


def phi(z: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Return `(exp(z) - 1) / z` for z <= 0.

    For z > -1, the result is computed from a power series. Autograd through this series also gives an
    accurate derivative.
    """
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
    """Return the SiLU of a causal depthwise convolution, and the tail for the next tile.

    The output is `y_t = silu(bias + sum over k of weight[:, k] x[t - taps + 1 + k])`. The last tap
    multiplies the input at the current base.

    Parameters
    ----------
    x, weight, bias, tail
        See `kernels.ConvInputs`.

    Returns
    -------
    tuple of Tensor
        Outputs `y`, and the tail for the next tile: a copy of the last `taps - 1` inputs. It is a copy
        because a view would keep the memory of the whole tile allocated.
    """
    length, taps = x.shape[1], weight.shape[1]
    padded = torch.cat([tail, x], 1)
    total = sum((padded[:, k : k + length] * weight[:, k] for k in range(taps)), start=bias)
    return silu(total), padded[:, length:].clone()


def rms_norm(
    x: Float[Tensor, "batch tile width"], weight: Float[Tensor, " width"], *, eps: float
) -> Float[Tensor, "batch tile width"]:
    """Return `weight x / sqrt(mean(x^2) + eps)`, where the mean is over the last axis.

    If the squares overflow, the result is NaN.
    """
    overflow = x.detach().square().mean(-1, keepdim=True).isinf()
    # Multiply by NaN rather than overwrite: the derivative of an overwritten row would be 0.
    return F.rms_norm(x, weight.shape, weight, eps) * torch.where(overflow, torch.nan, 1.0).to(x)


def pd_scan(
    decay: Float[Tensor, "batch tile heads two states"],
    inflow: Float[Tensor, "batch tile heads two states"],
    state: Float[Tensor, "batch heads two states"],
    *,
    route: Int16[Tensor, "batch tile heads"],
    maps: Int16[Tensor, "heads maps states"],
) -> tuple[Float[Tensor, "batch tile heads two states"], Float[Tensor, "batch heads two states"]]:
    """Return the states of the permutation-diagonal scan.

    A step computes `x_t[i] = b_t[i] + sum of d_t[q] x_(t-1)[q] over all q with p(q) = i`, where `p` is
    `maps[head, route_t]`. This is the transition of PD-SSM (Terzić et al., NeurIPS 2025). As in Flash
    PD-SSM (arXiv 2605.19150), one map is selected at each step.

    Parameters
    ----------
    decay, inflow : Tensor
        The complex values `d` and `b`. The axis of size two separates real and imaginary parts.
    state : Tensor
        The state `x` before the tile.
    route : Tensor
        Index of the map selected at each step. It is not differentiated.
    maps : Tensor
        The destination `p(q)` of each state `q` in each map.

    Returns
    -------
    tuple of Tensor
        The states `x` after each step, and the state after the last step.
    """
    heads, rows = torch.arange(len(maps), device=maps.device), []
    for t in range(decay.shape[1]):
        chosen = maps[heads, route[:, t].long()].long()
        moves = F.one_hot(chosen, maps.shape[-1]).to(decay.dtype)  # from source to destination
        (d_re, d_im), (re, im) = decay[:, t].unbind(-2), state.unbind(-2)
        product = torch.stack([d_re * re - d_im * im, d_re * im + d_im * re], -2)
        state = product @ moves + inflow[:, t]
        rows.append(state)
    return torch.stack(rows, 1), state


REFERENCE = Kernels("reference", scan, conv_silu, rms_norm, pd_scan)
