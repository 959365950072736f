"""Numerical checks that the derivatives of a given model on a given sequence are exact."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.engine.inputs import Dense, OneHot
from genoscan.engine.methods import Method
from genoscan.engine.tangent import DenseDirections
from genoscan.engine.target import LogitSum, LogLikelihood, WeightedSum
from genoscan.errors import InputError
from genoscan.genome.alphabet import N, reverse_complement
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.gradient import gradient
from genoscan.model import Model
from genoscan.targets import whole_target
from genoscan.verification.tracks import check_tracks, file_parts, relative

WHOLE, IDENTITY, FINITE = 4_096, 65_536, 1_024
"""Maximum numbers of bases for whole-window autograd, the dot-product identity and finite differences."""
_N_BASES, _STEP = 32, 1e-5
_N_CHANGES = 64
_SEED = 1
_FLOAT32 = 1e-5
_MIN_BASES = 9  # of which a causal model does not predict the first


@dataclass(frozen=True)
class Check:
    """Result of a check: a measured value, such as an error, and its limit.

    Attributes
    ----------
    name
        Description of the comparison.
    value
        Measured value. It is a relative error unless the name states another measure.
    limit
        Largest value with which the check passes. If None, the value is reported but not checked.
    bases
        Number of bases used in the comparison.
    """

    name: str
    value: float
    limit: float | None
    bases: int

    @property
    def passed(self) -> bool:
        """Whether the value is at most the limit; True if there is no limit."""
        return self.limit is None or self.value <= self.limit


def verify(
    genome: Genome,
    region: Region,
    load: Callable[[torch.dtype, str], Model],
    *,
    report: Callable[[Check], object] = lambda _check: None,
) -> list[Check]:
    """Check a model's derivatives, and the tracks computed from them, on a region of a genome.

    Parameters
    ----------
    genome, region
        Genome, and region to use for the checks. At most the first 65,536 bases of the region are read.
    load
        Function that takes a dtype and the name of a kernel set, and returns the model with the method of
        differentiation to check.
    report
        Function called with each check as soon as it is complete.

    Returns
    -------
    list of Check
        Checks, in the order in which they were completed.

    Raises
    ------
    InputError
        If the region has too few A, C, G and T.

    Notes
    -----
    The reference is the gradient that torch autograd computes in float64, without tiles, for a window of the
    first 4,096 bases. It uses plain torch operations and no derivative rule of this package. The
    dot-product identity between forward-mode and reverse-mode derivatives is checked over at most 65,536
    bases, finite differences over at most 1,024 bases, and the output files (windows, strands, targets and
    scores) over at most 512 bases; models whose heads all label windows have no such files.
    """
    check_known(genome, region)
    read = genome.fetch(region.chrom, region.start, min(region.end, region.start + IDENTITY))
    codes = torch.from_numpy(read)[None]
    checks: list[Check] = []

    def add(name: str, value: float, limit: float | None, bases: int) -> None:
        checks.append(Check(name, value, limit, bases))
        report(checks[-1])

    double = load(torch.float64, "auto")
    single = load(torch.float32, "auto")
    whole = codes[:, :WHOLE]
    plain = load(torch.float64, "reference")
    truth, n = _whole_window(plain, whole), whole.shape[1]
    exact = _gradient(double, whole)
    add("adjoint against whole-window autograd, float64", relative(exact, truth), 1e-12, n)
    smaller = replace(single.method, tile=max(1, single.method.tile // 3))  # type: ignore[type-var]
    tracks = [_gradient(single, whole, method) for method in (single.method, smaller)]
    add("two tile sizes, float32", relative(tracks[1], tracks[0]), 1e-5, n)
    error = relative(tracks[0], truth)
    add("adjoint, float32", error, _float32_limit(error, truth, whole, load), n)
    tracked = check_tracks(genome, region, double, plain)
    if tracked.bases:
        # Files are in float32.
        add("columns in files: windows, strands, targets", tracked.columns, 1e-6, tracked.bases)
        add("scores in files that differ from their columns'", tracked.scores, 0, tracked.bases)
    identity = codes[:, :IDENTITY]
    add("<y_bar, J v> = <J' y_bar, v>, float64", _identity(double, identity), 1e-10, identity.shape[1])
    if double.equivariant:
        turned = torch.from_numpy(reverse_complement(whole[0].numpy()))[None]
        other = _gradient(double, turned).flip(0)[:, list(double.config.complement)]
        add("both strands agree, float64", relative(other, exact), 1e-12, n)
    short = codes[:, :FINITE]
    add("finite differences, float64", _finite_differences(double, short), 1e-6, short.shape[1])
    add("correlation with true change, 64 substitutions", _first_order(single, whole, exact), None, whole.shape[1])
    return checks


def check_known(genome: Genome, region: Region) -> None:
    """Check that the parts of a region on which single bases are compared have A, C, G and T.

    Raises
    ------
    InputError
        If they have too few.
    """

    def check(part: Region, least: int) -> None:
        known = int((genome.fetch(part.chrom, part.start, part.end) < N).sum())
        if known < least:
            raise InputError(
                f"{region.where}: {known} A, C, G and T in {part}, too few for the checks; choose another region"
            )

    check(Region(region.chrom, region.start, min(region.end, region.start + FINITE)), _MIN_BASES)
    for part in file_parts(region):
        check(part, 1)


def _float32_limit(error: float, truth: Tensor, codes: Tensor, load: Callable[[torch.dtype, str], Model]) -> float:
    """Return the limit for the relative error of float32 derivatives.

    The limit is 1e-5. If `error` exceeds 1e-5, because the model amplifies rounding errors, the limit is
    four times the error of plain torch operations in float32, but at least 1e-5.
    """
    if error <= _FLOAT32:
        return _FLOAT32
    return max(_FLOAT32, 4 * relative(_whole_window(load(torch.float32, "reference"), codes), truth))


def _gradient(model: Model, codes: Tensor, method: Method | None = None) -> Float[Tensor, "length d_in"]:
    return gradient(model, codes, whole_target(model, codes), method).gradient[0]


def _whole_window(model: Model, codes: Tensor) -> Float[Tensor, "length d_in"]:
    """Compute the gradient with torch autograd over the whole window."""
    x = OneHot(codes, model.table()).tile(slice(0, codes.shape[1])).requires_grad_()
    value = whole_target(model, codes)(model.whole(x), slice(0, codes.shape[1]))
    (x_bar,) = torch.autograd.grad(value.sum(), x)
    return x_bar[0]


def _identity(model: Model, codes: Tensor) -> float:
    """Return the relative difference between the two sides of the dot-product identity.

    The identity is <y_bar, J v> = <J' y_bar, v>, where J is the Jacobian of the model, J' is its
    transpose, and v and y_bar are random. The left side is computed in forward mode, and the right side in
    reverse mode.
    """
    random = torch.Generator().manual_seed(_SEED)
    inputs = OneHot(codes, model.table())
    shape = (1, codes.shape[1], inputs.table.shape[1])
    x_dot = torch.randn(shape, generator=random, dtype=torch.float64)
    y_bar = torch.randn(1, codes.shape[1], model.n_outputs, generator=random, dtype=torch.float64)
    left = 0.0
    directions = DenseDirections(x_dot[None])
    for span, _, outputs_dot in model.method.tangent(model.stack, inputs, directions):
        left += float((y_bar[:, span] * outputs_dot[0]).sum())
    x_bar = gradient(model, codes, WeightedSum(y_bar)).gradient[0]
    right = float((x_bar * x_dot[0]).sum())
    return abs(left - right) / max(abs(left), abs(right))


def _finite_differences(model: Model, codes: Tensor) -> float:
    """Return the relative difference between central differences and the derivatives at 32 random bases.

    Derivatives with respect to all input columns are compared. To avoid cancellation, the differences of
    the target are computed separately for each output position before they are summed.
    """
    length = codes.shape[1]
    known = np.flatnonzero(codes[0].numpy() < 4)
    at = np.random.default_rng(_SEED).choice(known, min(_N_BASES, len(known)), replace=False)
    exact = _gradient(model, codes)[torch.from_numpy(at)]
    target = whole_target(model, codes)
    x = OneHot(codes, model.table()).tile(slice(0, length))
    found = torch.zeros_like(exact)
    for column in range(exact.shape[1]):
        change = torch.zeros(len(at), length, exact.shape[1], dtype=x.dtype)
        change[torch.arange(len(at)), torch.from_numpy(at), column] = _STEP
        for high, low in zip(
            _by_position(model, x + change, target), _by_position(model, x - change, target), strict=True
        ):
            found[:, column] += ((high - low) / (2 * _STEP)).sum(-1)
    return relative(found, exact)


def _by_position(model: Model, x: Tensor, target: LogLikelihood | LogitSum) -> Iterator[Float[Tensor, "windows tile"]]:
    """Yield the contribution of each output position to the target, tile by tile, with one row per window."""
    for span, outputs in model.method.forward(model.stack, Dense(x)):
        if isinstance(target, LogitSum):
            yield (outputs * target.weights[0].to(outputs)).sum(-1)
            continue
        labels, counted = target.labels(span)
        index = labels.expand(len(x), -1)[..., None]
        yield torch.log_softmax(outputs.double(), -1).gather(-1, index)[..., 0] * counted


def _first_order(model: Model, codes: Tensor, exact: Tensor) -> float:
    """Return the correlation between predicted and true effects of 64 random substitutions.

    The predicted effect is the first-order effect according to the gradient `exact`.
    """
    random = np.random.default_rng(_SEED)
    known = np.flatnonzero(codes[0].numpy() < 4)
    at = random.choice(known, min(_N_CHANGES, len(known)), replace=False)
    old = codes[0, torch.from_numpy(at)].long()
    new = (old + torch.from_numpy(random.integers(1, 4, len(at)))) % 4
    columns = model.columns()
    rows = exact[torch.from_numpy(at)]
    predicted = rows.gather(1, columns[new][:, None]) - rows.gather(1, columns[old][:, None])
    changed = codes.repeat(1 + len(at), 1)
    changed[torch.arange(1, 1 + len(at)), torch.from_numpy(at)] = new.to(codes.dtype)
    # Labels remain those of the genome, as in the derivative, which treats them as constants.
    target = whole_target(model, codes)
    values = torch.zeros(len(changed), dtype=torch.float64)
    for rows_of in torch.arange(len(changed)).split(8):
        x = OneHot(changed[rows_of], model.table()).tile(slice(0, codes.shape[1]))
        for part in _by_position(model, x, target):
            values[rows_of] += part.double().sum(-1)
    true = values[1:] - values[0]
    return float(np.corrcoef(predicted[:, 0].double().numpy(), true.numpy())[0, 1])
