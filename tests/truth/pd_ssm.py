"""PD-SSM with a hard dictionary (Terzić et al., NeurIPS 2025; Flash PD-SSM, arXiv 2605.19150).

x_t = P_t (D_t x_{t-1}) + b_t in complex numbers, P_t dense here: a matrix with one 1 a column, in
the row where the column of the selected dictionary entry is largest.  y_t = W Re(C_t x_t) + D u_t.
Coupled: D_t = exp(step_t (i phase_t - 1)), and b_t is multiplied by 1 - |D_t|.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from truth.mamba import Weights, convolve


def mixer(w: Weights, x: Tensor, *, coupled: bool) -> Tensor:
    """Return the mixer's output, (length, d_model); `w` holds its tensors by their own names."""
    y, _ = _run(w, x, coupled)
    return y


def clearance(w: Weights, x: Tensor, *, coupled: bool) -> float:
    """Return the distance of the routes from others, and of the decays from their ReLU's kink."""
    with torch.no_grad():
        return _run(w, x, coupled)[1]


def _run(w: Weights, x: Tensor, coupled: bool) -> tuple[Tensor, float]:
    heads, maps, n, _ = w["dictionary"].shape
    channels = len(w["D"])
    u, z = (x @ w["in_proj.weight"].T).split([channels, channels], -1)
    u = F.silu(convolve(u, w["conv.weight"], w["conv.bias"]))
    for_size, for_phase, for_C = (u @ w["low.weight"].T).chunk(3, -1)
    depth = for_size @ w["size.weight"].T + w["size.bias"]
    phase = for_phase @ w["phase.weight"].T + w["phase.bias"]
    step = torch.log1p(torch.exp(depth)) if coupled else torch.relu(depth)
    decay = torch.exp(torch.complex(-step, step * phase if coupled else phase)).unflatten(-1, (heads, n))
    inflow = _complex(u @ w["B_proj.weight"].T, heads)
    if coupled:
        inflow = (1 - decay.abs()) * inflow
    C = _complex(for_C @ w["C_proj.weight"].T + w["C_proj.bias"], heads)
    scores = (u @ w["router.weight"].T).unflatten(-1, (heads, maps))
    route = scores.argmax(-1)
    hard = F.one_hot(w["dictionary"].argmax(-2), n).transpose(-1, -2).to(decay)
    P = hard[torch.arange(heads), route]  # (length, heads, destinations, sources)
    state, states = torch.complex(w["start"][:, 0], w["start"][:, 1]), []
    for P_t, decay_t, inflow_t in zip(P, decay.unbind(0), inflow.unbind(0), strict=True):
        state = (P_t @ (decay_t * state)[..., None])[..., 0] + inflow_t
        states.append(state)
    read = (C * torch.stack(states)).real.flatten(1)
    y = (read @ w["state_out.weight"].T + w["D"] * u) * F.silu(z)
    nearest = depth.abs().min()
    if maps > 1:
        best = scores.topk(2, -1).values
        nearest = torch.minimum(nearest, (best[..., 0] - best[..., 1]).min())
    return y @ w["out_proj.weight"].T, float(nearest.detach())


def _complex(planes: Tensor, heads: int) -> Tensor:
    planes = planes.unflatten(-1, (heads, 2, -1))
    return torch.complex(planes[:, :, 0], planes[:, :, 1])
