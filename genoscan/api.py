"""Python interface of genoscan: functions that compute attributions, predictions, responses and checks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from genoscan.attribution import Attribution, Attributions
from genoscan.engine.inputs import OneHot
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.bed import read_bed
from genoscan.genome.genome import Genome, open_genome
from genoscan.genome.memory import SequenceGenome
from genoscan.genome.region import Region, parse_region
from genoscan.importer import load_model
from genoscan.job import Options, prepare
from genoscan.model import Model
from genoscan.perturbation import Response, respond
from genoscan.pipeline import attribute_batch, run
from genoscan.probe import Probe, read_change
from genoscan.record import PATH
from genoscan.sequences import Located, group, locate, locate_all, named_target
from genoscan.tracks.store import arrays_in_memory
from genoscan.verification import Check
from genoscan.verification import verify as check


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
        "expected-gradients" or "smoothgrad" (see path_method.py).
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
    The derivatives equal those of torch autograd over the whole window up to rounding, and are bitwise
    equal to the output of `genoscan attribute`. The result occupies 21 bytes of memory per base. For
    causal models, the working memory does not depend on the length of the sequence.

    Examples
    --------
    >>> found = attribute("ACGTTGCAAGGCTTAACG", "bacteria", target="logit:12:A")
    >>> found.gradient.shape
    (18, 4)
    """
    loaded = _loaded(model)
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
    """Compute the attributions of several sequences in memory, or of one region of a file, in a single job."""
    genome = located[0].genome
    if isinstance(genome, SequenceGenome):
        genomes = [one.genome for one in located if isinstance(one.genome, SequenceGenome)]
        genome = SequenceGenome({k: v for one in genomes for k, v in one.sequences.items()})
        target = named_target(target, located[0].region.chrom)
    regions = [one.region for one in located]
    job = prepare(genome, model, regions, replace(options, target=target))
    arrays = arrays_in_memory(job.regions, separate_first=options.path is not None and options.strand == "both")
    values: dict[Region, float] = {}
    errors: dict[Region, float | None] = {}
    for batch in job.batches:
        scored = [windows[0].scored for windows in batch]
        found, details = attribute_batch(job, batch, arrays)
        values |= zip(scored, found, strict=True)
        errors |= zip(scored, (one.get(PATH, {}).get("error") for one in details), strict=True)
    assert arrays.columns is not None
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


def attribute_regions(
    genome: str | Path | Genome,
    outputs: str | Path | Sequence[str | Path],
    *,
    regions: Sequence[str | Region] = (),
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
        `regions` is a sequence of strings such as "chr1:1,001-2,000" (1-based, inclusive) or of
        `Region` objects, and `bed` is a BED file with further regions. If neither is given, the whole
        genome is used.
    clip
        Whether to trim regions that extend past the end of a sequence.
    model
        Loaded model, or a name or path accepted by `load_model`.
    command
        Command line to store in the record.
    progress
        Function called after each processed tile with the number of positions in that tile.
    **options
        Fields of `Options`: target, contrast, score, strand, context, reach, masked, batch, shard, method,
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
    opened = open_genome(genome) if isinstance(genome, str | Path) else genome
    chosen = [
        parse_region(one, opened.sizes, clip=clip, option="region") if isinstance(one, str) else one for one in regions
    ]
    if bed is not None:
        chosen += read_bed(Path(bed), opened.sizes, clip=clip)
    files = [outputs] if isinstance(outputs, str | Path) else outputs
    job = prepare(opened, _loaded(model), chosen, Options(**options))
    return run(job, [Path(file) for file in files], command=command, progress=progress)


def predict(
    sequence: Any,
    model: Model | str | Path = "bacteria",
    *,
    head: str | None = None,
    strand: Literal["+", "-"] = "+",
    axes: str = "LC",
) -> Float[np.ndarray, "length labels"] | list[Float[np.ndarray, "length labels"]]:
    """Return the model's logits at every base, for A, C, G and T or for the labels of a task head.

    Parameters
    ----------
    sequence, model, axes
        As for `attribute`. For a (genome file, region) pair, only the bases of the region are read.
    head
        Name of a task head that labels bases. If None, the head that is selected in the model: by default,
        the language-model head or, in a model without one, the first task head.
    strand
        Strand to read, "+" or "-".

    Returns
    -------
    ndarray of shape (length, 4) or (length, labels), or list of ndarray
        Row i contains the logits for base i of the given sequence, in the model's dtype. For the
        language model, the columns are A, C, G and T, and the softmax of a row is the predicted
        distribution over the four bases. A row is NaN if no output of the model predicts the base, as
        for the first base in a causal model. For a task head, the columns are its labels. If `strand` is
        "-", the logits are converted back to the forward strand.

    Raises
    ------
    InputError
        If a sequence is invalid, or the head labels windows instead of bases.
    UnsupportedModelError
        If the model has no such head.
    NonFiniteError
        If a logit is NaN or infinite.

    Notes
    -----
    The logits equal those of a single forward pass over the whole window up to rounding. Memory is needed
    for the activations of one tile and for the result. Bidirectional models also need memory for the
    activations between layers.
    """
    loaded = _loaded(model)
    if head is not None:
        loaded = loaded.with_head(head)
    if loaded.head and loaded.config.heads[loaded.head].kind == "pooled":
        raise InputError(f"head {loaded.head}: labels windows, expected a head that labels bases")
    located, many = locate_all(sequence, axes=axes)
    found = [_predicted(loaded, strand, one) for one in located]
    return found if many else found[0]


def _predicted(model: Model, strand: str, located: Located) -> np.ndarray:
    region = located.region
    codes = located.genome.fetch(region.chrom, region.start, region.end)
    read = torch.from_numpy(reverse_complement(codes) if strand == "-" else codes)[None]
    # A on one strand is T on the other.
    complement: Sequence[int] = (3, 2, 1, 0)
    columns: Sequence[int] = model.config.base_columns
    if model.head:
        complement = model.config.heads[model.head].complements
        columns = range(len(complement))
    dtype = torch.empty(0, dtype=model.dtype).numpy().dtype
    logits = np.full((len(codes), len(columns)), np.nan, dtype)
    for span, outputs in model.method.forward(model.stack, OneHot(read, model.table())):
        rows = outputs[0][:, list(columns)].cpu().numpy()
        start = span.start + model.label_offset
        rows = rows[: max(0, len(codes) - start)]
        if not np.isfinite(rows).all():
            raise NonFiniteError(f"{region}: a prediction is not finite; {model.advice_on_overflow}")
        logits[start : start + len(rows)] = rows
    return logits[::-1, list(complement)].copy() if strand == "-" else logits


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
        each base (see interaction.py).
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
    return respond(located.genome, _loaded(model), probe)


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
    return check(located.genome, located.region, _loaded(model).rebuild)


def _loaded(model: Model | str | Path) -> Model:
    if isinstance(model, Model):
        return model
    if not isinstance(model, str | Path):
        raise InputError(
            f"model is {type(model).__name__}: expected a Model, a name or a folder; "
            "use genoscan.wrap for torch modules"
        )
    return load_model(model)
