"""Resident pages of memory-mapped arrays, which would otherwise count as memory of the process."""

import mmap

import numpy as np
from jaxtyping import Shaped


def release_pages(array: Shaped[np.ndarray, "..."]) -> None:
    """If an array is a memory map, release its resident pages; the data remain in the file.

    Parameters
    ----------
    array
        Any array. Nothing is done if it is not a memory map, or if it is a copy-on-write map, whose changes exist only
        in memory.
    """
    owner: object = array
    while isinstance(owner, np.ndarray):
        if isinstance(owner, np.memmap) and owner.mode == "c":
            return
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
