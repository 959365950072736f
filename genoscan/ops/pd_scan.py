"""Transition maps of the permutation-diagonal scan, which specify the destination of each state in a step.

A transition of PD-SSM (Terzić et al., NeurIPS 2025; Flash PD-SSM, arXiv 2605.19150) is the product of a
matrix that has a single 1 in each column and a complex diagonal matrix. The first matrix is never formed.
Instead, a map `p` contains the destination `p[q]` of each state `q`: the row that contains the 1 in column
`q`. States with the same destination are added.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int16
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from genoscan.errors import ModelError

_MAX_SIZE = torch.iinfo(torch.int16).max
Result = TypeVar("Result")


def remembered(compute: Callable[[Tensor], Result]) -> Callable[[Tensor], Result]:
    """Decorate a function so that its result for a tensor is kept until the tensor changes or is freed.

    Such a function may wait for the GPU: it does so once instead of at every tile.
    """
    kept: Any = WeakTensorKeyDictionary()

    @wraps(compute)
    def remember(tensor: Tensor) -> Result:
        version = tensor.data_ptr(), tensor._version
        if kept.get(tensor, (None,))[0] != version:
            with torch.inference_mode(False):  # or no later gradient could use the result
                kept[tensor] = version, compute(tensor)
        result: Result = kept[tensor][1]
        return result

    return remember


@remembered
def argmax_maps(dictionary: Float[Tensor, "heads maps destinations sources"]) -> Int16[Tensor, "heads maps sources"]:
    """Return the destination of each state in each map: the row of the largest entry in its column.

    `dictionary` has the shape (heads, maps, states, states), with destinations as rows and sources as
    columns. The result has the shape (heads, maps, states).

    Raises
    ------
    ModelError
        If a column has no largest entry because all its entries are equal or one of them is NaN, or if
        there are more states or maps than an int16 can index.
    """
    _, n_maps, n_states, _ = dictionary.shape
    for size, what in ((n_states, "states"), (n_maps, "maps")):
        if size > _MAX_SIZE:
            raise ModelError(f"{size:,} {what}: expected at most {_MAX_SIZE:,}")
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


def check_indices(name: str, indices: Tensor, size: int) -> None:
    """Check that indices are in range, because the kernels do not check them.

    Parameters
    ----------
    name : str
        Name of the indices in the error message.
    indices : Tensor
        Indices of maps or states.
    size : int
        Number of maps or states.

    Raises
    ------
    ModelError
        If an index is out of range.

    Notes
    -----
    If the indices are on a GPU, the function waits for it.
    """
    if not indices.numel():
        return
    least, most = torch.stack(indices.aminmax()).tolist()
    if least < 0 or most >= size:
        raise ModelError(f"{name}: {least} to {most}, expected 0 to {size - 1}")
