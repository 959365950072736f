"""The paper's layer with seeded weights, and its inputs, small normal noise."""

import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.pgf import FrechetMambaOperator

SEED = 1


def operator(
    d_model: int,
    d_state: int,
    *,
    a_log: float | None = None,
    init_window: int = 3,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    kernels: str = "auto",
) -> FrechetMambaOperator:
    """Return the paper's layer, frozen; `a_log` replaces the decay of every state.

    Weights are drawn in float32 and converted to `dtype`, so that float64 has the same weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        made = FrechetMambaOperator(d_model, d_state, init_window=init_window, kernels=kernels)
    if a_log is not None:
        with torch.no_grad():
            made.A_log.fill_(a_log)
    return made.requires_grad_(False).to(device, dtype)


def noise(
    *shape: int, scale: float = 0.1, seed: int = SEED, device: str = "cpu"
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Return an input, and a direction (or output cotangents) of length 1."""
    random = torch.Generator().manual_seed(seed)
    u, other = torch.randn(2, *shape, generator=random)
    return (scale * u).to(device), (other / other.norm()).to(device)
