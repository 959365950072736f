"""From a region and a target to four numbers a base: coordinates, strands, N, masks, scores.

Everything is 0-based and half-open here, except in the text of a target, which is 1-based.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Logits = Callable[[Tensor], Tensor]

BASES = "ACGT"
UNCERTAIN = "NRYSWKMBDHV"


class Region(NamedTuple):
    chrom: str
    start: int
    end: int
    strand: str = "."


class Target(NamedTuple):
    """`where` is None for the default; `base` is the number of the base of a logit."""

    kind: str
    where: Region | None
    base: int | None


class Answer(NamedTuple):
    """What one region, read along one strand, comes to; arrays are along the forward strand.

    gradient  (bases, 4) float64, of the region
    known     whether the base has a score: it is A, C, G or T, and not hidden
    value     the target
    scale     the sum of the absolute values of the target's terms
    codes     the window as it is read; hidden bases are 5
    inputs    (length, symbols) float64: what the model reads
    window    (length, symbols) float64: the derivative of all that it reads
    """

    gradient: np.ndarray
    known: np.ndarray
    value: float
    scale: float
    codes: np.ndarray
    inputs: Tensor
    window: np.ndarray


def encode(letters: str) -> np.ndarray:
    """Return A, C, G, T as 0 to 3 and any other base's letter as 4."""
    return np.array([(BASES + UNCERTAIN).index(letter) for letter in letters.upper()]).clip(max=4)


def reverse_complement(codes: np.ndarray) -> np.ndarray:
    return np.array([3, 2, 1, 0, 4])[codes[::-1]]


def parse(text: str) -> Target:
    kind, _, rest = text.partition(":")
    if not rest:
        return Target(kind, None, None)
    if kind == "log-likelihood":
        chrom, _, span = rest.rpartition(":")
        first, last = span.replace(",", "").split("-")
        return Target(kind, Region(chrom, int(first) - 1, int(last)), None)
    chrom, position, base = rest.rsplit(":", 2)
    at = int(position.replace(",", ""))
    return Target(kind, Region(chrom, at - 1, at), BASES.index(base))


def merged(regions: Sequence[Region]) -> list[Region]:
    """Return regions of one chromosome in order, those that overlap made one."""
    done: list[Region] = []
    for region in sorted(regions):
        if done and region.start < done[-1].end:
            done[-1] = done[-1]._replace(end=max(done[-1].end, region.end))
        else:
            done.append(region)
    return done


def window(
    region: Region, size: int, strand: str, context: int, reach: int, target: Target, offset: int
) -> tuple[int, int]:
    """Return the bases that are read: the region and its surroundings, and the target with its own.

    A causal model (offset > 0) predicts the target's first base from `offset` bases before it, and
    needs nothing past its last: its window ends there, or with the region.  A bidirectional one
    (offset 0) reads context on both sides of the target as of the region.
    """
    where = target.where
    if where is not None and offset:
        reach = 0
    before, after = (context, reach) if strand == "+" else (reach, context)
    start, end = region.start - before, region.end + after
    if where is not None and not offset:
        start, end = min(start, where.start - before), max(end, where.end + after)
    elif where is not None:
        lead, trail = (offset, 0) if strand == "+" else (0, offset)
        start, end = min(start, where.start - lead), max(end, where.end + trail)
    return max(start, 0), min(end, size)


def answer(
    logits: Logits,
    config: Mapping[str, Any],
    codes: np.ndarray,
    bounds: tuple[int, int],
    region: Region,
    strand: str,
    target: Target,
    *,
    masked: bool = False,
) -> Answer:
    """Differentiate the target of one window of a chromosome, whose bases are `codes`."""
    start, end = bounds
    length, offset, columns = end - start, config["label_offset"], list(config["base_columns"])
    scored = _places(region, bounds, strand)
    held = None if target.where is None else _places(target.where, bounds, strand)
    read = codes[start:end] if strand == "+" else reverse_complement(codes[start:end])

    rows = torch.zeros(6, len(config["symbols"]), dtype=torch.float64)
    rows[range(4), columns] = 1
    if config["unknown"] is None:
        rows[4] = rows[:4].mean(0)
    else:
        rows[4, config["unknown"]] = 1
    seen = read.copy()
    if masked:
        assert held is not None
        rows[5, config["mask"]] = 1
        seen[held.start : held.stop] = 5
    x = rows[torch.from_numpy(seen)].requires_grad_()
    y = logits(x)

    if target.base is not None:
        assert held is not None
        base = target.base if strand == "+" else 3 - target.base
        output = y[held.start - offset]
        others = [column for i, column in enumerate(columns) if i != base]
        terms = output[columns[base]][None]
        if target.kind == "log-odds":
            terms = torch.cat([terms, -output[others] / 3])
    else:
        # The default: from the region's first base on, or the whole window where both sides are
        # seen.
        labels = held or range(scored.start if offset else 0, length)
        counted = [t for t in labels if t >= offset and read[t] < 4]
        outputs, bases = [t - offset for t in counted], [columns[read[t]] for t in counted]
        terms = torch.log_softmax(y, -1)[outputs, bases]
    (x_bar,) = torch.autograd.grad(terms.sum(), x)

    gradient = x_bar.numpy()[scored.start : scored.stop, columns]
    known = seen[scored.start : scored.stop] < 4
    if strand == "-":
        gradient, known = gradient[::-1, ::-1], known[::-1]
    value, scale = float(terms.detach().sum()), float(terms.detach().abs().sum())
    return Answer(gradient, known, value, scale, seen, x.detach(), x_bar.numpy())


def _places(part: Region, bounds: tuple[int, int], strand: str) -> range:
    """Return where a part of a window lies in it as it is read."""
    start, end = bounds
    if strand == "+":
        return range(part.start - start, part.end - start)
    return range(end - part.end, end - part.start)


def scores(name: str, gradient: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the scores of float32 columns, in float32: NaN where a base is not A, C, G or T."""
    assert gradient.dtype == np.float32
    a, c, g, t = gradient.T.copy()
    mean = (((a + c) + g) + t) / np.float32(4)
    own = np.choose(np.minimum(codes, 3), [a, c, g, t])
    if name == "observed":
        score = own
    elif name == "centred":
        score = own - mean
    elif name == "magnitude":
        a, c, g, t = a - mean, c - mean, g - mean, t - mean
        score = np.sqrt(((a * a + c * c) + g * g) + t * t)
    else:
        score = np.zeros_like(own)
        for column in (a, c, g, t):
            score = np.where(abs(column - own) > abs(score), column - own, score)
    return np.where(codes < 4, score, np.float32("nan"))
