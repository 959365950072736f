"""What a step of the permutation-diagonal scan does to states: a map, picked from a dictionary.

A transition of PD-SSM (Terzić et al., NeurIPS 2025; Flash PD-SSM, arXiv 2605.19150) is a matrix
with one 1 a column times a complex diagonal.  The matrix is never made: column q's 1 lies in row
`maps[q]`, where state q goes.  Two states may go to one place, where they add up.
"""

import torch
from jaxtyping import Float, Int16
from torch import Tensor

from genoscan.errors import ModelError

MOST = torch.iinfo(torch.int16).max


def hardened(
    dictionary: Float[Tensor, "heads maps destinations sources"],
) -> Int16[Tensor, "heads maps sources"]:
    """Return where each state goes: the row of each column's largest entry.

    Raises
    ------
    ModelError
        If a column has no largest entry: all are equal, or one is NaN; or if there are more
        states or maps than the index type holds.
    """
    _, n_maps, n_states, _ = dictionary.shape
    for size, what in ((n_states, "states"), (n_maps, "maps")):
        if size > MOST:
            raise ModelError(f"{size:,} {what}: expected at most {MOST:,}")
    largest, maps = dictionary.detach().max(-2)
    level = (largest == dictionary.detach().amin(-2)) & (n_states > 1)
    if bool((level | largest.isnan()).any()):
        head, k, column = (level | largest.isnan()).nonzero()[0].tolist()
        fault = "an entry that is NaN" if largest[head, k, column].isnan() else "all entries equal"
        raise ModelError(
            f"dictionary, head {head}, map {k}, column {column}: {fault}, so that no state is its "
            "destination; expected one largest entry"
        )
    return maps.to(torch.int16)


def check_indices(route: Tensor, maps: Tensor) -> None:
    """Refuse a route to no map, or a map to no state: kernels would go there."""
    _, n_maps, n_states = maps.shape
    checked = [
        part for part in (("route", route, n_maps), ("maps", maps, n_states)) if part[1].numel()
    ]
    # Read in one transfer: each waits for a GPU.
    ends = torch.stack([end.long() for _, x, _ in checked for end in x.aminmax()]).tolist()
    for (name, _, size), least, most in zip(checked, ends[::2], ends[1::2], strict=True):
        if least < 0 or most >= size:
            raise ModelError(f"{name}: {least} to {most}, expected 0 to {size - 1}")
