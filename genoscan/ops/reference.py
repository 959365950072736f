"""The scan's three rules in plain torch, one base after another: the definition of right.

Each function states its formula and nothing else.  `forward` is made of differentiable torch
operations, so that torch's own autograd through it is a second opinion on `jvp` and `vjp`.
Runs on any device and in any precision; slow.
"""

import torch
from torch import Tensor

from genoscan.ops.kernels import ScanInputs, ScanKernels


def forward(inputs: ScanInputs, *, keep: bool) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t;  y_t = C_t . h_t + D u_t."""
    u, delta, A, B, C, D, h = inputs
    rows, states = [], [h]
    for u_t, delta_t, B_t, C_t in zip(
        u.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1), strict=True
    ):
        inflow = (delta_t * u_t)[..., None] * B_t[:, None, :]
        h = torch.exp(delta_t[..., None] * A) * h + inflow
        rows.append((h * C_t[:, None, :]).sum(-1) + D * u_t)
        states.append(h)
    return torch.stack(rows, 1), h, (torch.stack(states, 1),) if keep else ()


def jvp(inputs: ScanInputs, dots: ScanInputs) -> tuple[Tensor, Tensor]:
    """The derivative of `forward`'s two lines; directions lead every tangent."""
    u, delta, A, B, C, D, h = inputs
    u_dot, delta_dot, A_dot, B_dot, C_dot, D_dot, h_dot = dots
    rows = []
    for t in range(u.shape[1]):
        u_t, delta_t, B_t, C_t = u[:, t], delta[:, t, :, None], B[:, t, None], C[:, t, None]
        u_t_dot, delta_t_dot = u_dot[:, :, t], delta_dot[:, :, t, :, None]
        B_t_dot, C_t_dot = B_dot[:, :, t, None], C_dot[:, :, t, None]
        decay = torch.exp(delta_t * A)
        decay_dot = decay * (delta_t_dot * A + delta_t * A_dot[:, None])
        inflow_dot = (
            delta_t_dot * u_t[..., None] * B_t
            + delta_t * u_t_dot[..., None] * B_t
            + delta_t * u_t[..., None] * B_t_dot
        )
        h_dot = decay * h_dot + decay_dot * h + inflow_dot
        h = decay * h + delta_t * u_t[..., None] * B_t
        rows.append((h_dot * C_t + h * C_t_dot).sum(-1) + D * u_t_dot + D_dot[:, None] * u_t)
    return torch.stack(rows, 2), h_dot


def vjp(
    inputs: ScanInputs, kept: tuple[Tensor, ...], y_bar: Tensor, state_end_bar: Tensor
) -> ScanInputs:
    """The transpose of `jvp`, from the tile's last base to its first."""
    u, delta, A, B, C, D, _ = inputs
    (states,) = kept
    u_bar, delta_bar = torch.empty_like(u), torch.empty_like(delta)
    B_bar, C_bar = torch.empty_like(B), torch.empty_like(C)
    A_bar, D_bar, h_bar = torch.zeros_like(A), torch.zeros_like(D), state_end_bar
    for t in reversed(range(u.shape[1])):
        u_t, delta_t, B_t, C_t = u[:, t], delta[:, t, :, None], B[:, t, None], C[:, t, None]
        y_t_bar = y_bar[:, t]
        h_bar = h_bar + y_t_bar[..., None] * C_t
        C_bar[:, t] = (y_t_bar[..., None] * states[:, t + 1]).sum(1)
        B_bar[:, t] = (h_bar * delta_t * u_t[..., None]).sum(1)
        decay = torch.exp(delta_t * A)
        z_bar = h_bar * decay * states[:, t]
        u_bar[:, t] = (h_bar * delta_t * B_t).sum(-1) + D * y_t_bar
        delta_bar[:, t] = (z_bar * A + h_bar * u_t[..., None] * B_t).sum(-1)
        A_bar += (z_bar * delta_t).sum(0)
        D_bar += (y_t_bar * u_t).sum(0)
        h_bar = decay * h_bar
    return ScanInputs(u_bar, delta_bar, A_bar, B_bar, C_bar, D_bar, h_bar)


REFERENCE = ScanKernels(name="reference", forward=forward, jvp=jvp, vjp=vjp)
