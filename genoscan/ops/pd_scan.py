"""What a step of the permutation-diagonal scan does to states: a map, picked from a dictionary.

A transition of PD-SSM (Terzić et al., NeurIPS 2025; Flash PD-SSM, arXiv 2605.19150) is a matrix
with one 1 a column times a complex diagonal.  The matrix is never made: column q's 1 lies in row
`maps[q]`, where state q goes.  Two states may go to one place, where they add up.
"""

import torch
from jaxtyping import Float, Int16
from torch import Tensor

from genoscan.errors import ModelError

MOST_STATES = torch.iinfo(torch.int16).max


def hardened(
    dictionary: Float[Tensor, "heads maps destinations sources"],
) -> Int16[Tensor, "heads maps sources"]:
    """Return where each state goes: the row of each column's largest entry.

    Raises
    ------
    ModelError
        If a column has no largest entry: all are equal, or one is NaN; or if there are more
        states than the index type holds.
    """
    n_states = dictionary.shape[-1]
    if n_states > MOST_STATES:
        raise ModelError(f"{n_states:,} states: expected at most {MOST_STATES:,}")
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


def check_route(route: Tensor, n_maps: int) -> None:
    """Refuse a route that names a map that is not there: kernels do not look."""
    if not route.numel():
        return
    least, most = int(route.min()), int(route.max())
    if least < 0 or most >= n_maps:
        raise ModelError(f"route: names maps {least} to {most}, expected 0 to {n_maps - 1}")
