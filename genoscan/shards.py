"""Division of a job into shards.

Each shard consists of whole batches. The merged results of all shards are therefore bitwise equal to the
results of a single run.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from genoscan.errors import InputError
from genoscan.genome.plan import Batch


def parse_shard(text: str) -> tuple[int, int]:
    """Parse a string of the form "I/N", such as "2/7"; return I and N.

    I is the number of the shard, starting at 1, and N is the number of shards.

    Raises
    ------
    InputError
        If the string does not have the form "I/N", or if I is not between 1 and N.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {text}: expected I/N with I from 1 to N, such as 2/7")
    return int(found[1]), int(found[2])


def shard_of(batches: Sequence[Batch], shard: str) -> list[Batch]:
    """Return the batches of one shard, which is given in the form "I/N".

    Raises
    ------
    InputError
        If `shard` is invalid, or there are fewer batches than shards.
    """
    i, n = parse_shard(shard)
    if n > len(batches):
        count = f"{len(batches):,} batch{'es' * (len(batches) != 1)}"
        raise InputError(f"--shard {shard}: the job has {count}, so at most as many shards")
    return list(batches[cut(bases_read(batches), n)[i - 1]])


def bases_read(batches: Sequence[Batch]) -> list[int]:
    """Return the total length of the windows of each batch, in bases."""
    return [sum(len(window) for windows in batch for window in windows) for batch in batches]


def cut(bases: Sequence[int], n: int) -> list[slice]:
    """Divide batches with the given numbers of bases into `n` consecutive, non-empty slices of similar totals."""
    middles = [end - own / 2 for own, end in zip(bases, accumulate(bases), strict=True)]
    total, edges = sum(bases), [0]
    for i in range(1, n + 1):
        near = bisect_right(middles, total * i / n)
        edges.append(min(max(near, edges[-1] + 1), len(bases) - (n - i)))
    return [slice(*edge) for edge in pairwise(edges)]
