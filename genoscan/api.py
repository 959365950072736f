"""Python interface of genoscan: attributions, predictions and checks."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from genoscan.attribution import Attribution, Attributions
from genoscan.averages.path_method import LARGE_ERROR
from genoscan.engine.methods import Progress, ignore
from genoscan.genome.bed import read_bed
from genoscan.genome.gene_names import parse_regions
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.importer import as_model
from genoscan.job import Options, prepare
from genoscan.model import Model
from genoscan.pipeline import attribute_batch, run
from genoscan.prediction.files import LANGUAGE_MODEL
from genoscan.prediction.tracks import PredictOptions, predict_in_memory, prepare_prediction
from genoscan.prediction.windows import predict_windows, prepare_windows
from genoscan.record import PATH
from genoscan.sequences import Located, as_genome, group, in_one_genome, locate, locate_all, named_target
from genoscan.tracks.store import arrays_in_memory
from genoscan.verification.sweeps import Check
from genoscan.verification.sweeps import verify as check


@torch.inference_mode(False)
def attribute(
    sequence: Any,
    model: Model | str | Path = "bacteria",
    *,
    target: str = "log-likelihood",
    score: str | None = None,
    strand: str = "+",
    context: int | None = None,
    reach: int | None = None,
    masked: bool = False,
    contrast: str | None = None,
    batch: int = 4,
    axes: str = "LC",
    method: str = "gradient",
    steps: int | str | None = None,
    baseline: str | None = None,
    seed: int = 1,
    sigma: float = 0.15,
) -> Attribution | Attributions:
    """Return the exact derivative of a target with respect to every base.

    Parameters
    ----------
    sequence
        One of the following: a string of bases; an array of base codes of shape (length,); a one-hot
        NumPy array or torch tensor; a (genome file, region) pair; or a list of these. A one-hot array of
        shape (n, length, 4) is a batch of n sequences.
    model
        Loaded model, or a name or path accepted by `load_model`.
    target
        Scalar that is differentiated: "log-likelihood[:REGION]", "logit:POS:BASE" or
        "log-odds:POS:BASE"; for task heads, "HEAD:LABEL[@REGION]", such as "sites:donor+@120-120".
        Positions are 1-based within the sequence. For a (genome file, region) pair, POS and REGION are
        preceded by the name of the chromosome, as on the command line: "logit:CHROM:POS:BASE".
    score
        Formula that reduces the four derivatives at a base to one score: "centred", "observed",
        "magnitude" or "substitution" (see tracks/score.py). If None, it is "observed" for methods with a
        baseline, otherwise "centred".
    strand
        Strand that the model reads: "+", "-", or "both" for the mean of the targets on the two strands.
    context, reach
        Numbers of bases to read upstream and downstream of a region of a file. If None, the value in
        the model's configuration is used.
    masked
        Whether to replace the bases of the target with the mask token (masked models only).
    contrast
        Label of a task head whose logit is subtracted from that of the target, or "strongest" for the
        label with the largest logit, other than that of the target.
    batch
        Number of sequences of equal length processed together.
    axes
        Order of the axes of a one-hot array: "LC" for (length, 4) or "CL" for (4, length).
    method
        "gradient", or a method that averages gradients over several inputs: "integrated-gradients",
        "expected-gradients" or "smoothgrad" (see averages/path_method.py).
    steps
        Number of gradient evaluations, 50 by default; "auto" to double it until the completeness error of
        the integrated gradients is at most 1 %.
    baseline
        Start of the path: "uniform" (the default), "zeros" or "dinucleotide-shuffle".
    seed, sigma
        Seed of the random numbers, and standard deviation of the noise for smoothgrad.

    Returns
    -------
    Attribution or Attributions
        Gradient and scores of the sequence. For a list or a 3-dimensional array, the result is an
        `Attributions` object with one `Attribution` per sequence.

    Raises
    ------
    InputError
        If a sequence or an option is invalid, or the target cannot depend on any base of a region.
    NonFiniteError
        If a derivative at an A, C, G or T is NaN or infinite.

    Notes
    -----
    A warning is issued if the completeness error of an average over a path exceeds 5 %.

    The derivatives equal those of torch autograd over the whole window up to rounding, and are bitwise
    equal to the output of `genoscan attribute`. The result occupies 21 bytes of memory per base. For
    causal models, the working memory does not depend on the length of the sequence.

    Examples
    --------
    >>> found = attribute("ACGTTGCAAGGCTTAACG", "bacteria", target="logit:12:A")
    >>> found.gradient.shape
    (18, 4)
    """
    loaded = as_model(model)
    located, many = locate_all(sequence, axes=axes)
    options = Options(
        score=score,
        strand=strand,
        context=context,
        reach=reach,
        masked=masked,
        contrast=contrast,
        batch=batch,
        method=method,
        steps=steps,
        baseline=baseline,
        seed=seed,
        sigma=sigma,
    )
    found: dict[int, Attribution] = {}
    for numbers in group(located, target):
        for i, one in zip(numbers, _attributed([located[i] for i in numbers], loaded, target, options), strict=True):
            found[i] = one
    return Attributions(found[i] for i in range(len(located))) if many else found[0]


def _attributed(located: Sequence[Located], model: Model, target: str, options: Options) -> list[Attribution]:
    """Compute the attributions of several sequences, or of one region of a genome, in a single job."""
    genome = in_one_genome(located)
    if not located[0].is_pair:
        target = named_target(target, located[0].region.chrom)
    regions = [one.region for one in located]
    job = prepare(genome, model, regions, replace(options, target=target))
    arrays = arrays_in_memory(job.regions, separate_first=options.path is not None and options.strand == "both")
    values: dict[Region, float] = {}
    errors: dict[Region, float | None] = {}
    for batch in job.batches:
        found, details = attribute_batch(job, batch, arrays)
        for windows, value, one in zip(batch, found, details, strict=True):
            values |= dict.fromkeys(windows[0].regions, value)
            errors |= dict.fromkeys(windows[0].regions, one.get(PATH, {}).get("error"))
    assert arrays.columns is not None
    large = [error for error in errors.values() if error is not None and error > LARGE_ERROR]
    if large:
        warnings.warn(
            f"completeness error above {LARGE_ERROR:.0%} in {len(large)} of {len(errors)} sequences, at most "
            f"{max(large):.1%}: more steps, or another baseline, may reduce it",
            stacklevel=3,
        )
    made = []
    for region in regions:
        at = arrays.slice_of(region)
        made.append(
            Attribution(
                region=region,
                codes=arrays.codes[at],
                gradient=arrays.columns[at],
                scores=arrays.scores[at],
                value=values[region],
                target=target,
                score=options.formula,
                model=model.name,
                size=genome.sizes[region.chrom],
                completeness_error=errors[region],
            )
        )
    return made


@torch.inference_mode(False)
def attribute_regions(
    genome: str | Path | Genome,
    outputs: str | Path | Sequence[str | Path],
    *,
    regions: Sequence[str | Region] = (),
    annotation: str | Path | None = None,
    bed: str | Path | None = None,
    clip: bool = False,
    model: Model | str | Path = "bacteria",
    command: Sequence[str] = (),
    progress: Progress = ignore,
    **options: Any,
) -> dict[str, Any]:
    """Write tracks of exact derivatives in regions of a genome; return the record of the run.

    Parameters
    ----------
    genome
        Open genome, or path of a FASTA (plain or bgzip) or GenBank file.
    outputs
        Files to write. The suffix determines the format: .bw, .bedgraph and .bedgraph.gz contain one
        score per base, and .npz contains the four derivatives at each base.
    regions, bed
        `regions` is a sequence of strings such as "chr1:1,001-2,000" (1-based, inclusive) or "GATA1", or of
        `Region` objects, and `bed` is a BED file with further regions. If neither is given, the whole
        genome is used.
    annotation
        File that contains the genes whose names are given as regions: GFF3, GTF, GenBank or BED.
    clip
        Whether to trim regions that extend past the end of a sequence.
    model
        Loaded model, or a name or path accepted by `load_model`.
    command
        Command line to store in the record.
    progress
        Function called after each processed tile with the number of positions in that tile.
    **options
        Fields of `Options`: target, contrast, score, strand, context, reach, apart, masked, batch, shard, method,
        steps, baseline, seed and sigma.

    Returns
    -------
    dict
        Record of the run, which is also written to a JSON file beside each output.

    Raises
    ------
    InputError
        If an input file, a region or an option is invalid.
    OutputError
        If a file cannot be written.
    NonFiniteError
        If a derivative at an A, C, G or T is NaN or infinite.

    Notes
    -----
    The function is equivalent to the command `genoscan attribute`. The derivatives are exact up to
    rounding. For causal models, the memory needed for computation does not depend on the lengths of the
    regions. To continue an interrupted run, call the function again with the same arguments.
    """
    opened = as_genome(genome)
    texts = [one for one in regions if isinstance(one, str)]
    genes = None if annotation is None else Path(annotation)
    parsed = dict(zip(texts, parse_regions(texts, opened.sizes, genes, clip=clip, option="region"), strict=True))
    chosen = [parsed[one] if isinstance(one, str) else one for one in regions]
    if bed is not None:
        chosen += read_bed(Path(bed), opened.sizes, clip=clip)
    files = [outputs] if isinstance(outputs, str | Path) else outputs
    job = prepare(opened, as_model(model), chosen, Options(**options))
    return run(job, [Path(file) for file in files], command=command, progress=progress)


@torch.inference_mode(False)
def predict(
    sequence: Any,
    model: Model | str | Path = "bacteria",
    *,
    head: str | None = None,
    logits: bool = True,
    strand: str = "+",
    context: int | None = None,
    batch: int = 4,
    axes: str = "LC",
) -> Float[np.ndarray, "*length labels"] | list[Float[np.ndarray, "*length labels"]]:
    """Return the model's predictions: of A, C, G and T, or of the labels of a task head, at every base.

    Parameters
    ----------
    sequence, model, axes
        As for `attribute`.
    head
        Name of a task head, or "language-model". If None, the head that is selected in the
        model: by default, the language model or, in a model without one, the first task head.
    logits
        Whether to return logits. If False, probabilities are returned.
    strand
        Strand to read: "+", "-" or "both" for the mean of the two predictions.
    context
        Number of bases to read upstream of a region of a file and, for bidirectional models, also downstream of
        it. If None, the value in the model's configuration is used; for a head that labels windows, 0.
    batch
        Number of sequences of equal length processed together.

    Returns
    -------
    ndarray of shape (length, 4) or (length, labels), or list of ndarray
        Row i contains the predictions for base i of the given sequence, in the model's dtype. For the
        language model, the columns are A, C, G and T, and the softmax of a row of logits is the predicted
        distribution over the four bases. A row is NaN if no output of the model predicts the base, as
        for the first base of a sequence in a causal model. For a task head, the columns are its labels. Columns
        are those of the forward strand, whatever strand is read. For a head that labels windows, the shape is
        (labels,): the predictions for the sequence, in float64.

    Raises
    ------
    InputError
        If a sequence or an option is invalid.
    UnsupportedModelError
        If the model has no such head.
    NonFiniteError
        If a prediction is NaN or infinite.

    Notes
    -----
    The predictions equal those of a single forward pass over the whole window up to rounding, and those of
    `genoscan predict`, whose files are float32. Memory is needed for the activations of one tile and for the result.
    Bidirectional models also need memory for the activations between layers.

    Examples
    --------
    >>> predict("ACGTTGCAAGGCTTAACG", "bacteria", logits=False).shape
    (18, 4)
    """
    loaded = as_model(model)
    if head is not None:
        loaded = loaded.with_head("" if head == LANGUAGE_MODEL else head)
    options = PredictOptions((loaded.head or LANGUAGE_MODEL,), logits, strand, context, batch)
    located, many = locate_all(sequence, axes=axes)
    found: dict[int, np.ndarray] = {}
    for numbers in group(located, ""):
        rows = _predicted([located[i] for i in numbers], loaded, options)
        found |= dict(zip(numbers, rows, strict=True))
    return [found[i] for i in range(len(located))] if many else found[0]


def _predicted(located: Sequence[Located], model: Model, options: PredictOptions) -> list[np.ndarray]:
    """Compute the predictions for several sequences, or for one region of a genome, in a single job."""
    genome, regions = in_one_genome(located), [one.region for one in located]
    if model.head and model.config.heads[model.head].kind == "pooled":
        table = predict_windows(prepare_windows(genome, model, regions, options))
        labels = [f"{model.head}.{label}" for label in model.config.heads[model.head].labels]
        return list(table[labels].to_numpy())
    job = prepare_prediction(genome, model, regions, [], options)
    arrays = predict_in_memory(job)
    assert arrays.columns is not None
    return [arrays.columns[arrays.slice_of(region)] for region in regions]


@torch.inference_mode(False)
def verify(sequence: Any, model: Model | str | Path = "bacteria", *, axes: str = "LC") -> list[Check]:
    """Check that a model's derivatives on a sequence, and the files written from them, are exact.

    Parameters
    ----------
    sequence, axes
        As for `attribute`, except that `sequence` must be a single sequence. At most its first 65,536
        bases are used.
    model
        As for `attribute`.

    Returns
    -------
    list of Check
        Checks, each of which contains a measured error and its limit.
    """
    located = locate(sequence, axes=axes)
    return check(located.genome, located.region, as_model(model).rebuild)
