"""Integrated gradients, expected gradients and smoothgrad: averages of gradients over several inputs.

Let x be the one-hot encoding of the bases that the model reads, b the baseline, and g the average of the
gradients at the points between b and x. The target is fixed: the labels are the observed bases at every
point. At a position, the column for base c is (e_c - b) . g, the attribution that base c would have. It
differs from the averaged derivative with respect to c by the same number, b . g, for all four bases. The
column of the observed base is the attribution, (x - b) . g. For expected gradients, these values are means
over the baselines. For smoothgrad, which has no baseline, the columns are the averaged derivatives.

The attributions of all bases that the model reads, including context, sum to F(x) - F(b), up to the error
of the quadrature. The completeness error is the relative size of the difference.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from genoscan.averages.path_method import TOLERANCE, UNIFORM, PathMethod
from genoscan.engine.inputs import Mixture, Noisy, OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.engine.target import Target
from genoscan.genome.alphabet import N
from genoscan.genome.plan import Window
from genoscan.genome.shuffle import shuffle_dinucleotides
from genoscan.gradient import stream_gradient, stream_value
from genoscan.model import Model


class PathResult(NamedTuple):
    """Values of the target at the ends of the path, and sum of the attributions.

    Attributes
    ----------
    steps
        Number of gradient evaluations in the average.
    value
        Value of the target for each window, at the observed bases.
    baseline
        Value of the target for each window, at the baseline; the mean over the baselines if there are
        several. None if the method has no baseline.
    total
        Sum of the attributions of all bases of each window.
    """

    steps: int
    value: Float64[np.ndarray, " windows"]
    baseline: Float64[np.ndarray, " windows"] | None
    total: Float64[np.ndarray, " windows"]


def average_gradients(
    model: Model,
    windows: Sequence[Window],
    codes: UInt8[Tensor, "windows length"],
    target: Target,
    method: PathMethod,
    receive: Callable[..., object],
    progress: Progress = ignore,
) -> PathResult:
    """Compute the gradients of a target at several inputs, and pass them to `receive` tile by tile.

    Parameters
    ----------
    model, codes, target, progress
        As for `stream_gradient`.
    windows
        Windows of the batch. Random numbers depend on the seed and on the position of the window in the
        genome, so that the results with a given number of steps do not depend on the batch. An automatic
        number of steps is the same for all windows of a batch. A shuffled baseline is the same sequence on
        both strands.
    method
        Method that determines the inputs and the weights of the gradients.
    receive
        Function called with rows, span and the columns of one tile, as by `stream_gradient`, and with the
        keyword arguments `weight` and `add`. The result is the sum of the columns times `weight`, which
        starts anew with the calls in which `add` is false.

    Returns
    -------
    PathResult
        Values of the target, and sum of the attributions.

    Notes
    -----
    Each gradient is exact up to rounding. Memory: that of `stream_gradient`, and for a shuffled baseline
    1 byte per base, and 5 for one window while it is shuffled. Time: `method.n_evaluations` gradients and
    `method.n_values` forward passes.
    """
    table, shape = model.table(), (len(codes), codes.shape[1])
    value = stream_value(model, OneHot(codes, table).rows, shape, target, progress=progress)
    for trial in method.trials:
        total, baseline = np.zeros(len(codes)), np.zeros(len(codes))
        for number, (weight, inputs) in enumerate(_inputs(windows, codes, table, trial)):
            columns = partial(_receive, inputs, total, receive, weight=weight, add=number > 0)
            stream_gradient(model, codes, target, columns, inputs=inputs.rows, progress=progress)
            if isinstance(inputs, Mixture) and number < trial.n_samples:
                rows = inputs.baseline.rows
                baseline += stream_value(model, rows, shape, target, progress=progress) / trial.n_samples
        result = PathResult(trial.steps or 0, value, None if method.baseline is None else baseline, total)
        if (_errors(result.total, value - baseline) <= TOLERANCE).all():
            break
    return result


def completeness(strands: Sequence[PathResult]) -> list[dict[str, float | None]]:
    """Return the values to report for each region, from the results for each strand.

    Parameters
    ----------
    strands
        Results for the windows on one strand, or on both strands, whose attributions are averaged.

    Returns
    -------
    list of dict
        For each region, `steps`, the largest number of gradient evaluations on a strand; `baseline`, the
        value of the target at the baseline; and `error`, the completeness error, None if it is not defined.
        The list is empty if the method has no baseline.
    """
    if not strands or strands[0].baseline is None:
        return []
    means = [np.mean([getattr(one, name) for one in strands], 0) for name in ("value", "baseline", "total")]
    steps = max(one.steps for one in strands)
    errors = _errors(means[2], means[0] - means[1])
    return [
        {"steps": steps, "baseline": float(baseline), "error": float(error) if np.isfinite(error) else None}
        for baseline, error in zip(means[1], errors, strict=True)
    ]


def _errors(total: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Return the completeness errors; an error is infinite if the target is the same at both ends."""
    wrong = np.abs(total - difference)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(wrong == 0, 0.0, wrong / np.abs(difference))


def _receive(
    inputs: Mixture | Noisy,
    total: np.ndarray,
    receive: Callable[..., object],
    rows: slice,
    span: slice,
    x_bar: Tensor,
    *,
    weight: float,
    add: bool,
) -> None:
    """Convert one tile of a gradient to columns, add the attributions to `total`, and pass the columns on."""
    if isinstance(inputs, Mixture):
        line = inputs.rows(rows)
        baseline = line.baseline.tile(span)
        moved = line.bases.tile(span) - baseline
        total[rows] += weight * (moved * x_bar).double().sum((1, 2)).cpu().numpy()
        x_bar = x_bar - (baseline * x_bar).sum(-1, keepdim=True)
    receive(rows, span, x_bar, weight=weight, add=add)


def _inputs(
    windows: Sequence[Window], codes: UInt8[Tensor, "windows length"], table: Tensor, method: PathMethod
) -> Iterator[tuple[float, Mixture | Noisy]]:
    """Yield the weights of the gradients, and the inputs at which they are evaluated."""
    line: Mixture | None = None
    for alpha, weight, sample in method.points:
        seeds = tuple(_seed(method, window, sample) for window in windows)
        if method.sigma is not None:
            yield weight, Noisy(codes, table, method.sigma, seeds)
            continue
        if line is None or method.n_samples > 1:
            line = Mixture(codes, table, *_baseline(windows, codes, table, method, seeds), alpha)
        yield weight, replace(line, alpha=alpha)


def _baseline(
    windows: Sequence[Window], codes: Tensor, table: Tensor, method: PathMethod, seeds: Sequence[tuple[int, ...]]
) -> tuple[UInt8[Tensor, "windows length"], Float[Tensor, "codes symbols"]]:
    """Return the baseline as base codes and the input for each code."""
    if method.shuffles:
        rows = zip(windows, codes.numpy(), seeds, strict=True)
        return torch.from_numpy(np.stack([_shuffled(*row) for row in rows])), table
    bases = table[:N].mean(0) if method.baseline == UNIFORM else torch.zeros_like(table[0])
    return codes, torch.cat([bases.expand(N, -1), table[N:]])


def _shuffled(window: Window, codes: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    """Shuffle a window on the forward strand, so that the baseline is the same sequence on both strands."""
    random = np.random.default_rng(seed)
    return _as_read(shuffle_dinucleotides(_as_read(codes, window.strand), random), window.strand)


def _as_read(codes: np.ndarray, strand: str) -> np.ndarray:
    """Convert codes, which may be masked, between the forward strand and the strand that is read."""
    return np.where(codes < N, N - 1 - codes, codes)[::-1] if strand == "-" else codes


def _seed(method: PathMethod, window: Window, sample: int) -> tuple[int, ...]:
    """Return the seed for a window, which depends on the strand only if the method adds noise."""
    region = window.region
    reverse = window.strand == "-" and method.sigma is not None
    return method.seed or 0, sample, zlib.crc32(region.chrom.encode()), region.start, region.end, int(reverse)
