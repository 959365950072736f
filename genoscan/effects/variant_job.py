"""Plan of a computation of variant effects: which changes are computed together, and from which windows.

Changes whose windows overlap are edits of one stretch of the sequence, which is read once for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from genoscan.composition import describe_difference
from genoscan.effects.background import draw_background
from genoscan.effects.edit_sums import Terms
from genoscan.effects.stretches import Stretch, plan_stretches
from genoscan.errors import InputError, UnsupportedModelError
from genoscan.genome.genome import Genome
from genoscan.genome.plan import as_read
from genoscan.genome.variant import OK, Allele, Change
from genoscan.genome.variant_files import VariantTable
from genoscan.label_target import STRONGEST, LabelTarget
from genoscan.model import Model
from genoscan.targets import TargetSpec, parse_target

DOWNSTREAM_OF_TARGET = "downstream of the target"
NOT_MASKED = "masked log-odds: SNVs only"


@dataclass(frozen=True)
class VariantOptions:
    """Settings of a computation of variant effects; the defaults are those of the command line.

    Attributes
    ----------
    target, contrast
        Quantity whose change is computed, as for `attribute` (see targets.py).
    strand
        Strand to read: "+", "-" or "both" for the mean over the two strands.
    context, reach
        Number of bases to read upstream of a variant, and number to read downstream of it. If None, the
        value in the model's configuration is used.
    masked
        Whether to compute log p(alt) - log p(ref) with the base masked, instead of the change of a target.
    background
        Number of random changes of the same type with which each variant is ranked; 0 for no rank.
    seed
        Seed of the random changes.
    first_order
        Whether to compute first-order predictions, too.
    shared_end
        Whether the windows of all changes in a stretch extend to the end of the stretch, rather than `reach`
        bases beyond each change.
    tolerance
        If above 0, effects far downstream are replaced by linear estimates (see edit_effects.py), which
        requires `shared_end`.

    Raises
    ------
    InputError
        If an option is invalid.
    """

    target: str = "log-likelihood"
    contrast: str | None = None
    strand: str = "+"
    context: int | None = None
    reach: int | None = None
    masked: bool = False
    background: int = 0
    seed: int = 1
    first_order: bool = False
    shared_end: bool = False
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.strand not in ("+", "-", "both"):
            raise InputError(f"--strand {self.strand}: expected +, - or both")
        if self.contrast == STRONGEST:
            raise InputError(f"--contrast {STRONGEST}: expected a label, the same with and without a variant")
        for option, number in (
            ("--context", self.context),
            ("--reach", self.reach),
            ("--background", self.background),
            ("--seed", self.seed),
            ("--tolerance", self.tolerance),
        ):
            if number is not None and number < 0:
                raise InputError(f"{option} {number}: expected 0 or more")

    @property
    def strands(self) -> tuple[str, ...]:
        """Strands to read, + first."""
        return ("+", "-") if self.strand == "both" else (self.strand,)


@dataclass(frozen=True)
class VariantJob:
    """Variants, model, target and stretches of one run.

    Attributes
    ----------
    genome, model, target, options
        Inputs to the job.
    table
        Alleles in input order. Those that cannot be scored have no change.
    changes
        Distinct changes of the alleles in genome order, followed by the random changes.
    n_observed
        Number of changes that are not random.
    stretches
        Stretches in the order in which they are computed.
    context, reach
        Number of bases read upstream and downstream of a change.
    """

    genome: Genome
    model: Model
    target: TargetSpec | LabelTarget
    options: VariantOptions
    table: VariantTable
    changes: tuple[Change, ...]
    n_observed: int
    stretches: tuple[Stretch, ...]
    context: int
    reach: int

    @property
    def positions(self) -> int:
        """Approximate number of positions that a run processes."""
        total = 0
        for stretch in self.stretches:
            if self.model.bidirectional:
                total += 2 * sum(edit.end - edit.begin for edit in stretch.edits)
            else:
                total += len(stretch.region) + sum(edit.end - edit.start for edit in stretch.edits)
        return total

    @cached_property
    def warning(self) -> str | None:
        """Warning if the G+C content differs from that of the training data; None otherwise."""
        regions = [stretch.region for stretch in self.stretches]
        return describe_difference(self.genome, regions, self.model.config, self.model.name)

    @property
    def numbers(self) -> list[int | None]:
        """Index of the change of each allele; None for alleles that are not scored."""
        index = {change: i for i, change in enumerate(self.changes[: self.n_observed])}
        return [None if allele.change is None else index.get(allele.change) for allele in self.table.alleles]


def prepare_variants(genome: Genome, model: Model, table: VariantTable, options: VariantOptions) -> VariantJob:
    """Plan the computation of the effects of variants.

    Parameters
    ----------
    genome, model
        Genome to read, and model to apply.
    table
        Alleles in any order.
    options
        Settings of the computation.

    Returns
    -------
    VariantJob
        The checked job, which `variants.compute_scores` computes.

    Raises
    ------
    InputError
        If an option or the target is invalid.
    UnsupportedModelError
        If the model or the target does not permit the computation.
    """
    model, target = choose_target(genome, model, options)
    scored = (a.change for a in table.alleles if allele_status(a, model, target, options) == OK)
    order = {chrom: i for i, chrom in enumerate(genome.sizes)}
    observed = sorted(
        {change for change in scored if change is not None},
        key=lambda change: (order[change.chrom], change.start, change.ref, change.alt),
    )
    return plan_changes(genome, model, target, observed, options, table)


def choose_target(genome: Genome, model: Model, options: VariantOptions) -> tuple[Model, TargetSpec | LabelTarget]:
    """Return the model with the head of the target selected, and the target.

    Raises
    ------
    InputError
        If the target or an option is invalid.
    UnsupportedModelError
        If the model or the target does not permit the computation.
    """
    target = parse_target(options.target, genome.sizes, model, options.contrast)
    model = model.with_head(target.head)
    if target.pooled:
        raise UnsupportedModelError(f"--target {options.target}: labels whole windows; expected labels of bases")
    if options.masked and (
        model.config.mask is None or not model.bidirectional or target.head or options.target != "log-likelihood"
    ):
        raise InputError("--masked: expected a masked, bidirectional language model and no --target")
    target.check((), genome.sizes, options.strand, model.label_offset)
    if options.masked and options.first_order:
        raise InputError("--first-order: expected no --masked, whose effects are not differences of a target")
    if options.tolerance and not options.shared_end:
        raise InputError("tolerance: expected shared_end, because linear estimates extend to the end of a stretch")
    if options.tolerance and model.bidirectional:
        raise UnsupportedModelError(f"--tolerance: {model.name} is bidirectional, expected a causal model")
    return model, target


def plan_changes(
    genome: Genome,
    model: Model,
    target: TargetSpec | LabelTarget,
    observed: Sequence[Change],
    options: VariantOptions,
    table: VariantTable,
) -> VariantJob:
    """Plan the computation of the effects of changes.

    Parameters
    ----------
    genome, model, target
        Genome, model with the head of the target selected, and target.
    observed
        Distinct changes in genome order.
    options
        Settings of the computation.
    table
        Alleles that the changes belong to, if any.

    Returns
    -------
    VariantJob
        The job.
    """
    context = model.config.context if options.context is None else options.context
    reach = model.config.reach if options.reach is None else options.reach
    if any(not (change.ref and change.alt) for change in observed):
        for option, length in (("--context", context), ("--reach", reach)):
            if length < 1:
                raise InputError(
                    f"{option} {length}: expected 1 or more for insertions and deletions, as the window of one beside "
                    "the end of a sequence would have no base"
                )
    background = draw_background(genome, observed, options.background, max(context, reach), options.seed)
    changes = (*observed, *background)
    stretches: list[Stretch] = []
    # Random changes have separate stretches, so that they do not extend those of the variants.
    for numbers in (range(len(observed)), range(len(observed), len(changes))):
        for strand in options.strands:
            stretches += plan_stretches(
                genome, model, target, changes, numbers, strand, context, reach, options.shared_end
            )
    return VariantJob(genome, model, target, options, table, changes, len(observed), tuple(stretches), context, reach)


def allele_status(allele: Allele, model: Model, target: TargetSpec | LabelTarget, options: VariantOptions) -> str:
    """Return the status of an allele for this model and target."""
    change = allele.change
    if change is None:
        return allele.status
    if options.masked and change.kind != "SNV":
        return NOT_MASKED
    if target.region is not None:
        if target.region.chrom != change.chrom:
            return f"not on {target.region.chrom} as the target is"
        after = {"+": change.start >= target.region.end, "-": change.stop <= target.region.start}
        if not model.bidirectional and all(after[strand] for strand in options.strands):
            return DOWNSTREAM_OF_TARGET
    return OK


def own_stretch(job: VariantJob, number: int, strand: str) -> Stretch:
    """Return the window of one change, without those of the changes nearby."""
    (found,) = plan_stretches(
        job.genome, job.model, job.target, job.changes, [number], strand, job.context, job.reach, False
    )
    return found


def stretch_terms(job: VariantJob, stretch: Stretch) -> Terms:
    """Return the terms of the target in positions of a stretch."""
    target, model = job.target, job.model
    span = {}
    if target.region is not None:
        size = job.genome.sizes[stretch.region.chrom]
        first = as_read(stretch.region, stretch.strand, size).start
        labels = as_read(target.region, stretch.strand, size)
        span = {"first": labels.start - first, "last": labels.stop - first}
    distribution = not model.head or model.config.heads[model.head].link == "softmax"
    return Terms(target.label_weights(model, stretch.strand), distribution=distribution, **span)
