"""Python interface: effects of changes of a sequence on a target and on the predictions of other bases."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from genoscan.dependency.compute import compute_map
from genoscan.dependency.dependency_map import DependencyMap
from genoscan.dependency.plan import MapOptions, prepare_map
from genoscan.effects.mutagenesis import compute_mutations, prepare_mutations
from genoscan.effects.mutagenesis_files import MutationEffects
from genoscan.effects.variant_job import VariantOptions, prepare_variants
from genoscan.effects.variants import VariantScores, compute_scores
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError
from genoscan.genome.genome import Genome
from genoscan.genome.variant_files import VariantTable, parse_variants, read_variants, tabulate
from genoscan.importer import as_model
from genoscan.model import Model
from genoscan.responses.perturbation import Response, respond
from genoscan.responses.probe import Probe, read_change
from genoscan.sequences import as_genome, locate, named_target

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = "chrom", "pos", "ref", "alt"


@torch.inference_mode(False)
def score_variants(
    genome: Any,
    variants: "str | Path | Sequence[str] | pd.DataFrame",
    model: Model | str | Path = "bacteria",
    *,
    progress: Progress = ignore,
    **options: Any,
) -> VariantScores:
    """Return the effect of each variant on a target, with a status for each allele.

    Parameters
    ----------
    genome
        Path of a FASTA (plain or bgzip) or GenBank file, an open genome or a `pyfaidx.Fasta`.
    variants
        Path of a VCF, BCF or tab-separated file (see `genoscan variants`); a list of variants such as
        "chr1:1,024:A>C"; or a table with the columns `chrom`, `pos` (1-based), `ref`, `alt` and, optionally, `id`.
    model
        Loaded model, or a name or path accepted by `load_model`.
    progress
        Function called with the number of positions that were run.
    **options
        Fields of `VariantOptions`: target, contrast, strand, context, reach, masked, background, seed and
        first_order.

    Returns
    -------
    VariantScores
        Scores of all alleles, in input order. `to_dataframe` converts them to a table.

    Raises
    ------
    InputError
        If an input or an option is invalid. An allele that cannot be scored is not an error but has a status.
    UnsupportedModelError
        If the model or the target does not permit the computation.
    NonFiniteError
        If an effect is not finite.

    Notes
    -----
    Equivalent to the command `genoscan variants`. The effects equal the differences between two passes over whole
    windows, up to rounding. A base that is predicted with one allele only is left out: causal models do not predict
    the first base of a sequence. For causal models, working memory does not depend on the number of variants.

    Examples
    --------
    >>> found = score_variants("data/chloroplast.fa", ["NC_000932.1:60,006:T>C"])
    >>> found.to_dataframe()[["pos", "ref", "alt", "status"]].values.tolist()
    [[60006, 'T', 'C', 'ok']]
    """
    opened = as_genome(genome)
    settings = VariantOptions(**options)
    return compute_scores(
        prepare_variants(opened, as_model(model), _table(variants, opened), settings), progress=progress
    )


@torch.inference_mode(False)
def mutate(
    sequence: Any,
    model: Model | str | Path = "bacteria",
    *,
    target: str = "log-likelihood",
    screen: int | None = None,
    axes: str = "LC",
    progress: Progress = ignore,
    **options: Any,
) -> MutationEffects:
    """Return the effect of every substitution of every base on a target (saturation mutagenesis).

    Parameters
    ----------
    sequence, model, axes
        As for `attribute`, except that `sequence` must be a single sequence. Of a (genome file, region) pair, the
        bases of the region are substituted.
    target
        Quantity whose change is computed, as for `attribute`.
    screen
        Number of substitutions to compute exactly, those of the largest first-order effect. If None, all are.
    progress
        Function called with the number of positions that were run.
    **options
        Fields of `VariantOptions`: contrast, strand, context, reach and tolerance.

    Returns
    -------
    MutationEffects
        `raw` is a float64 array of shape (length, 4): the change of the target if a base is replaced by A, C, G or
        T, 0 for the observed base and NaN at an N. `by` converts it to other conventions, and `to_dataframe` to a
        table.

    Raises
    ------
    InputError
        If the sequence or an option is invalid.
    UnsupportedModelError
        If the model or the target does not permit the computation.
    NonFiniteError
        If an effect is not finite.

    Notes
    -----
    Equivalent to the command `genoscan mutate`: exact up to rounding, unless a tolerance or a screen is given.
    Memory: about 1 KB for each base, in addition to working memory that, for causal models, does not depend on the
    length.

    Examples
    --------
    >>> found = mutate("ACGTTGCAAGGCTTAACG")
    >>> found.raw.shape, found.by("hypothetical").shape
    ((18, 4), (18, 4))
    """
    located = locate(sequence, axes=axes)
    if not located.is_pair:
        target = named_target(target, located.region.chrom)
    settings = VariantOptions(target=target, **options)
    job = prepare_mutations(located.genome, as_model(model), [located.region], settings, screen=screen)
    return compute_mutations(job, progress=progress)


@torch.inference_mode(False)
def map_dependencies(
    sequence: Any,
    model: Model | str | Path = "bacteria",
    *,
    definition: Literal["log-odds", "jacobian", "derivative"] = "log-odds",
    strand: Literal["+", "-", "both"] | None = None,
    symmetrise: Literal["none", "mean", "max"] = "none",
    band: int | None = None,
    context: int | None = None,
    axes: str = "LC",
    progress: Progress = ignore,
) -> DependencyMap:
    """Return how the prediction of each base depends on each other base (nucleotide dependency map).

    Parameters
    ----------
    sequence, model, axes
        As for `attribute`, except that `sequence` must be a single sequence. Of a (genome file, region) pair, the
        bases of the region are both substituted and read.
    definition
        Value of a pair of bases: "log-odds", "jacobian" or "derivative" (see dependency/compute.py).
    strand
        Strand to read. If None, both strands are read by causal models, and "+" by others.
    symmetrise
        How the values of a pair in both directions are combined.
    band
        Maximum distance of a pair of bases; if None, all pairs are computed.
    context
        Number of bases of a file that are read beside the region. If None, the value in the model's configuration
        is used.
    progress
        Function called after each tile with the number of positions in the tile.

    Returns
    -------
    DependencyMap
        Map whose `dense()` is an array with one row for each substituted base and one column for each read base.

    Raises
    ------
    InputError
        If the sequence or an option is invalid, or the map is too large.
    UnsupportedModelError
        If the model has no language model.
    NonFiniteError
        If a value is not finite.

    Notes
    -----
    Equivalent to the command `genoscan dependency`. Exact up to rounding; memory: the map, twice if two strands are
    read, and the activations of a few tiles.

    Examples
    --------
    >>> map_dependencies("ACGTTGCAAGGCTTAACG").dense().shape
    (18, 18)
    """
    located = locate(sequence, axes=axes)
    options = MapOptions(located.region, definition, strand, symmetrise, band=band, context=context)
    return compute_map(prepare_map(located.genome, as_model(model), options), progress=progress)


@torch.inference_mode(False)
def response(
    sequence: Any,
    model: Model | str | Path = "bacteria",
    *,
    at: int | str,
    base: str | None = None,
    strand: Literal["+", "-"] = "+",
    context: int | None = None,
    of: Literal["log-p", "logits", "sensitivity"] = "log-p",
    finite: bool = False,
    axes: str = "LC",
) -> Response:
    """Return the effect of changing one base on the predictions around it.

    Parameters
    ----------
    sequence, model, axes
        As for `attribute`, except that `sequence` must be a single sequence. For a (genome file, region)
        pair, the response is computed in the region.
    at
        1-based position of the base in the sequence; for a (genome file, region) pair, in the
        chromosome. A text may also contain the observed and the new base: "10,500:C>T".
    base
        New base, on the forward strand. If None, the base with the largest effect is chosen separately
        at each position of the response.
    strand, context
        Strand to read, and number of bases to read upstream of the changed base or, for bidirectional
        models, on both sides. If `context` is None, the value in the model's configuration is used.
    of
        Measure of the effect: "log-p" for the change in the log-probability of the observed base, "logits"
        for the L2 norm of the change in the logits, or "sensitivity" for the change in the sensitivity to
        each base (see responses/interaction.py).
    finite
        Whether to return the finite change instead of the derivative.

    Returns
    -------
    Response
        Effect of the change. Its attribute `values` has one entry per base of its attribute `region`, and
        `totals` contains the sum for each new base, including the site's own term.

    Raises
    ------
    InputError
        If the observed base is N or equals the new base, if the change cannot affect the region, or if the
        sequence or an option is invalid.
    UnsupportedModelError
        If the model has no language-model head.
    NonFiniteError
        If the response at an A, C, G or T is NaN or infinite.

    Notes
    -----
    The derivative is taken along e_new - e_observed, where e_new and e_observed are the one-hot encodings
    of the new base and the observed base. It is exact up to rounding. Memory is needed for the
    activations of one tile. Bidirectional models also need memory for the activations between layers.
    """
    located = locate(sequence, axes=axes)
    chrom = located.region.chrom
    place, base = read_change(located.genome, f"{{{chrom}}}:{at}", base, option="at")
    probe = Probe(place, base, located.region, strand, context, of, finite)
    return respond(located.genome, as_model(model), probe)


def _table(variants: "str | Path | Sequence[str] | pd.DataFrame", genome: Genome) -> VariantTable:
    """Convert variants in any accepted form to a table."""
    if isinstance(variants, str | Path):
        return read_variants(variants, genome)
    if isinstance(variants, Sequence):
        for variant in variants:
            if not isinstance(variant, str):
                raise InputError(f"variant {variant!r}: expected a text such as chr1:1,024:A>C")
        return parse_variants(variants, genome)
    if not hasattr(variants, "columns"):
        raise InputError(f"variants: found {type(variants).__name__}, expected a path, a list of texts or a DataFrame")
    for name in _COLUMNS:
        if name not in variants.columns:
            raise InputError(f"variants: no column {name}, expected {', '.join(_COLUMNS)}")
    names: Sequence[Any] = ["."] * len(variants)
    if "id" in variants.columns:
        names = variants["id"].astype(object).where(variants["id"].notna(), ".").tolist()
    return tabulate(zip(*(variants[name] for name in _COLUMNS), names, strict=True), genome)
