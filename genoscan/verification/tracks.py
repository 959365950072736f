"""Checks of the complete pipeline, from the genome to the files, against whole-window autograd.

The columns are the derivatives of the target with respect to A, C, G and T at each base. The expected
columns and scores are computed from their definitions, independently of the pipeline. The pipeline and the
checks share only the code that reads the bases, the model in plain torch operations, and torch's autograd.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.job import Options, prepare
from genoscan.layers.config import MASK
from genoscan.model import Model
from genoscan.pipeline import run
from genoscan.temporary import scratch_folder
from genoscan.tracks.columns import read_columns
from genoscan.tracks.reader import BigWig

BASES = 512
"""Maximum number of bases of the region that the checks use."""


@dataclass(frozen=True)
class _Case:
    """Options of one run of the pipeline.

    Attributes
    ----------
    strand, score
        Strand to read, and name of the score (see `Options`).
    kind
        "log-likelihood", "logit" or "log-odds"; for a task head, the name of a label.
    position, base
        Position and base code of a logit or log-odds target, on the forward strand. `position` is None for
        all other targets.
    stretch
        Start and end of the interval of a log-likelihood or label target. If None, the interval is
        determined separately for each window.
    masked
        Whether the bases of the target are replaced with the mask token.
    head
        Name of the task head; "" for the language-model head.
    apart
        Whether the two parts have separate windows, which overlap.
    """

    strand: str
    score: str
    kind: str = "log-likelihood"
    position: int | None = None
    base: int = 0
    stretch: tuple[int, int] | None = None
    masked: bool = False
    head: str = ""
    apart: bool = True

    def target(self, chrom: str) -> str:
        """Return the target in the syntax of the option --target."""
        if self.head:
            place = "" if self.stretch is None else f"@{{{chrom}}}:{self.stretch[0] + 1}-{self.stretch[1]}"
            return f"{self.head}:{self.kind}{place}"
        if self.position is not None:
            return f"{self.kind}:{{{chrom}}}:{self.position + 1}:{'ACGT'[self.base]}"
        if self.stretch is not None:
            return f"{self.kind}:{{{chrom}}}:{self.stretch[0] + 1}-{self.stretch[1]}"
        return self.kind

    @property
    def span(self) -> tuple[int, int] | None:
        """Start and end of the interval of the target.

        The value is None if the interval is determined separately for each window.
        """
        return self.stretch if self.position is None else (self.position, self.position + 1)


@dataclass(frozen=True)
class TrackErrors:
    """Errors in the output files, combined over all runs.

    Attributes
    ----------
    columns
        Largest relative L2 error of the derivatives with respect to A, C, G and T. The error of a run is
        computed over all bases that are known and not masked.
    scores
        Number of errors in the bigWig files. A score is an error if it differs from the score computed
        from the derivatives in the .npz file. An unexpected or missing score is also an error.
    bases
        Total number of bases in the regions of all runs.
    """

    columns: float
    scores: int
    bases: int


def relative(found: Tensor, truth: Tensor) -> float:
    """Return the relative L2 error ||found - truth|| / ||truth||.

    The result is NaN or infinite if either tensor contains a value that is NaN or infinite.
    """
    found, truth = (part.detach().double().cpu() for part in (found, truth))
    # If the truth is zero, any error is far above every limit.
    return float((found - truth).norm() / (truth.norm() or torch.tensor(1e-300)))


def file_parts(region: Region) -> list[Region]:
    """Return the two parts of a region that `check_tracks` scores, within its first 512 bases."""
    start, n = region.start, min(len(region), BASES)
    return [
        Region(region.chrom, start + n // 8, start + 3 * n // 8, strand="+"),
        Region(region.chrom, start + n // 2, start + 7 * n // 8, strand="-"),
    ]


def check_tracks(genome: Genome, region: Region, model: Model, plain: Model) -> TrackErrors:
    """Run the pipeline on two parts of a region with several settings; return the errors in the output files.

    Parameters
    ----------
    genome, region
        Genome, and region to use for the checks. At most the first 512 bases of the region are read.
    model
        The model to check, in float64. Any errors are therefore caused by the pipeline or by the rounding
        of values in the files.
    plain
        The same model, implemented with plain torch operations.

    Returns
    -------
    TrackErrors
        Errors in the output files of all runs.
    """
    start, n = region.start, min(len(region), BASES)
    parts = file_parts(region)
    context, reach = n // 10, n // 12
    tile = min(model.method.tile, max(1, n // 3))
    model = replace(model, method=replace(model.method, tile=tile))  # type: ignore[type-var]
    columns, scores, bases = 0.0, 0, 0
    with scratch_folder(Path(tempfile.gettempdir())) as folder:
        for number, case in enumerate(_cases(start, n, model)):
            options = Options(
                target=case.target(region.chrom),
                score=case.score,
                strand=case.strand,
                context=context,
                reach=reach,
                apart=case.apart,
                masked=case.masked,
            )
            files = [folder / f"{number}{suffix}" for suffix in (".npz", ".bw")]
            run(prepare(genome, model, parts, options), files)
            written = read_columns(files[0])
            if case.apart or model.bidirectional:
                truth = torch.cat([_truth(genome, plain, part, case, context, reach) for part in parts])
            else:
                both = Region(region.chrom, parts[0].start, parts[1].end)
                joined = _truth(genome, plain, both, case, context, reach)
                truth = torch.cat([joined[part.start - both.start : part.end - both.start] for part in parts])
            known = torch.from_numpy(_known(genome, parts, case))
            found = torch.from_numpy(np.array(written.gradient))
            columns = float(np.maximum(columns, relative(found[known], truth[known])))  # keeps a NaN
            with BigWig(files[1]) as track:
                read = [track.scores(part.chrom, part.start, part.end) for part in parts]
            expected = _scores(case.score, found.numpy(), np.array(written.codes))
            scores += int((~_same(np.concatenate(read), expected)).sum())
            scores += int((np.isfinite(expected) != known.numpy()).sum())
            bases += len(expected)
    return TrackErrors(columns, scores, bases)


def _cases(start: int, n: int, model: Model) -> Iterator[_Case]:
    """Yield the settings of runs that together cover every strand, kind of target and score.

    The positions are chosen so that, even in a causal model, each target can depend on bases of both
    parts of the region.
    """
    stretch = (start + 1, start + n - 1)
    between = start + 7 * n // 16
    if model.config.language_model:
        yield _Case("+", "centred")
        yield _Case("both", "observed", apart=False)
        yield _Case("-", "observed", "log-odds", position=start + max(1, n // 16), base=1)
        yield _Case("both", "magnitude", stretch=stretch, apart=False)
        yield _Case("bed", "substitution", "logit", position=between, base=2)
        if model.config.mask is not None:
            yield _Case("both", "centred", "log-odds", position=between, base=3, masked=True)
    for head, config in model.config.heads.items():
        if config.kind == "per_base":
            first, last = config.labels[0], config.labels[-1]
            yield _Case("+", "observed", first, head=head)
            yield _Case("both", "magnitude", last, stretch=stretch, head=head)
            yield _Case("bed", "substitution", last, stretch=(between, between + 1), head=head)


def _known(genome: Genome, parts: list[Region], case: _Case) -> np.ndarray:
    """Return a boolean array that is True at bases with a score: each A, C, G or T that is not masked."""
    known = []
    for part in parts:
        read = genome.fetch(part.chrom, part.start, part.end) < 4
        if case.masked and case.span is not None:
            at = np.arange(part.start, part.end)
            read &= ~((at >= case.span[0]) & (at < case.span[1]))
        known.append(read)
    return np.concatenate(known)


def _truth(
    genome: Genome, model: Model, part: Region, case: _Case, context: int, reach: int
) -> Float[Tensor, "bases 4"]:
    """Return the expected derivatives for one part of the region, averaged over the strands that are read."""
    strands = {"both": "+-", "bed": part.strand}.get(case.strand, case.strand)
    model = model.with_head(case.head)
    made = [_one_strand(genome, model, part, case, context, reach, s == "-") for s in strands]
    return torch.stack(made).mean(0)


def _one_strand(
    genome: Genome, model: Model, part: Region, case: _Case, context: int, reach: int, reverse: bool
) -> Float[Tensor, "bases 4"]:
    """Return the expected derivatives for one part of the region, read on one strand.

    Rows and columns are in the order of the forward strand.
    """
    size, named = genome.sizes[part.chrom], case.span
    start, end, offset = part.start, part.end, model.label_offset
    if (named is not None or case.head) and not model.bidirectional:
        reach = 0
    left, right = (reach, context) if reverse else (context, reach)
    if named is not None and model.bidirectional:
        start, end = min(start, named[0]), max(end, named[1])
    start, end = start - left, end + right
    if named is not None:
        start = min(start, named[0] - (0 if reverse else offset))
        end = max(end, named[1] + (offset if reverse else 0))
    start, end = max(start, 0), min(end, size)

    def read_at(position: int) -> int:
        return end - 1 - position if reverse else position - start

    codes = torch.from_numpy(genome.fetch(part.chrom, start, end).astype(np.int64))
    if reverse:
        codes = torch.where(codes < 4, 3 - codes, codes).flip(0)
    first, last = sorted((read_at(part.start), read_at(part.end - 1)))
    if named is not None:
        span = sorted((read_at(named[0]), read_at(named[1] - 1)))
    elif case.head:
        span = [first, last]
    else:
        span = [0 if model.bidirectional else first, len(codes) - 1]
    hidden = codes.clone()
    if case.masked:
        hidden[span[0] : span[1] + 1] = MASK
    x = model.table()[hidden][None].requires_grad_()
    logits = model.whole(x)[0]
    columns = list(model.config.base_columns)
    if case.head:
        head = model.config.heads[case.head]
        label = head.labels.index(case.kind)
        value = logits[span[0] : span[1] + 1, head.complements[label] if reverse else label].sum()
    elif case.position is None:
        value = logits.new_zeros(())
        for at in range(span[0], span[1] + 1):
            if codes[at] < 4 and at >= offset:
                row = torch.log_softmax(logits[at - offset], -1)
                value = value + row[columns[int(codes[at])]]
    else:
        base = 3 - case.base if reverse else case.base
        row = logits[span[0] - offset]
        value = row[columns[base]]
        if case.kind == "log-odds":
            value = value - sum(row[columns[other]] for other in range(4) if other != base) / 3
    (x_bar,) = torch.autograd.grad(value, x)
    rows = x_bar[0, first : last + 1][:, columns]
    return rows.flip(0, 1) if reverse else rows


def _scores(name: str, columns: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Compute scores in float32, one base at a time, directly from the definition of the score."""
    made = np.full(len(codes), np.nan, np.float32)
    for at in np.flatnonzero(codes < 4):
        four, base = columns[at], codes[at]
        if name == "observed":
            made[at] = four[base]
        elif name == "centred":
            made[at] = four[base] - four.mean()
        elif name == "magnitude":
            about = four - four.mean()
            made[at] = np.sqrt((about * about).sum())
        else:
            changes = four - four[base]
            made[at] = changes[np.abs(changes).argmax()]
    return made


def _same(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return a boolean array that is True at the positions at which two tracks agree.

    Two tracks agree at a position if their scores are equal up to rounding or are both NaN.
    """
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    near = np.isclose(found, expected, rtol=1e-6, atol=1e-6 * largest)
    return near | (np.isnan(found) & np.isnan(expected))
