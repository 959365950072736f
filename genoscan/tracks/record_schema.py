"""Schema of provenance records: the keys that genoscan reads, and the representation of regions.

Any other keys of a record are kept. Regions are JSON objects with the keys `chrom`, `start`, `end`, `name`
and `strand`; the coordinates are 0-based and half-open, as in BED. In records of earlier versions, which
can still be read, regions are strings such as "chr1:1,001-2,000" (1-based, inclusive).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    Tag,
    field_validator,
)

from genoscan.errors import InputError
from genoscan.genome.region import Region, parse_region
from genoscan.tracks.score import SCORES

REGION_KINDS = _STRING, _OBJECT = "text", "fields"
"""Names of the two representations of a region.

pydantic inserts these names into the location that it reports for a validation error.
"""

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Type for non-empty names without control characters.

Control characters are rejected because they would break the rows of a table.
"""


class _Table(BaseModel):
    """Base class for JSON objects that may contain additional keys, which are kept."""

    model_config = ConfigDict(extra="allow", strict=True)


class SequenceRecord(_Table):
    """Record of one sequence of the genome.

    Attributes
    ----------
    name
        Name of the sequence.
    length
        Length in bases.
    m5
        MD5 checksum, as in the M5 tag of SAM headers.
    """

    name: Text
    length: NonNegativeInt
    m5: str


class RegionRecord(_Table):
    """Record of a region, in 0-based, half-open coordinates on the forward strand.

    Attributes
    ----------
    chrom
        Name of the sequence.
    start, end
        Position of the first base, and the position after the last base.
    name
        Name, as in column 4 of BED; "" if the region has no name.
    strand
        Strand: "+", "-", or "." if the region has no strand.
    """

    chrom: Text
    start: NonNegativeInt
    end: PositiveInt
    name: str = ""
    strand: Literal["+", "-", "."] = "."


def _region_kind(value: object) -> str:
    return _STRING if isinstance(value, str) else _OBJECT


AnyRegion = Annotated[Annotated[str, Tag(_STRING)] | Annotated[RegionRecord, Tag(_OBJECT)], Discriminator(_region_kind)]


class ResponseRecord(_Table):
    """Record of the base whose perturbation caused a response.

    Attributes
    ----------
    at
        Region of length 1 that contains the perturbed base.
    base
        New base; None for the base of the largest effect at each position.
    of
        Quantity whose change was computed.
    finite
        Whether the change is the true one, not the derivative.
    """

    at: AnyRegion
    base: str | None = None
    of: str = "log-p"
    finite: bool = False


class DependencyRecord(_Table):
    """Record of a dependency map.

    Attributes
    ----------
    map
        Definition of the values.
    """

    map: Text


class VariantRecord(_Table):
    """Record of the variant for one of whose alleles a track was computed.

    Attributes
    ----------
    chrom, pos, ref, alt
        Sequence, 1-based position, and alleles, which may be empty.
    """

    chrom: Text
    pos: PositiveInt
    ref: str
    alt: str


class AttributionRecord(_Table):
    """Record of the method that averaged gradients over several inputs.

    Attributes
    ----------
    name
        Name of the method.
    """

    name: Text


class ValidationRecord(_Table):
    """Record of how well a language model predicts its validation data.

    Attributes
    ----------
    bits, composition
        Bits per base of the model, and entropy of the composition of the bases.
    """

    bits: Annotated[FiniteFloat, Field(ge=0)]
    composition: Annotated[FiniteFloat, Field(ge=0, le=2)]


class LikelihoodRecord(_Table):
    """Record of how well the model predicted the observed bases.

    Attributes
    ----------
    base_counts
        Number of A, C, G and T that were predicted, as read.
    log_likelihood
        Sum of their log-probabilities, in nats.
    bits, composition
        Bits per base of the model, and entropy of the composition of the bases.
    validation
        Results on the validation data of the model; None if they are unknown.
    """

    base_counts: Annotated[list[NonNegativeInt], Field(min_length=4, max_length=4)]
    log_likelihood: FiniteFloat
    bits: FiniteFloat
    composition: FiniteFloat
    validation: ValidationRecord | None = None

    @field_validator("base_counts")
    @classmethod
    def _bases_exist(cls, counts: list[int]) -> list[int]:
        if not any(counts):
            raise ValueError("expected at least one base")
        return counts


class WindowErrorRecord(_Table):
    """Record of the expected error of scores that is due to the limited windows.

    Attributes
    ----------
    median, worst
        Expected error, from the medians and from the largest errors of the measured regions.
    bound
        "at least" or "at most" if the windows are outside the measured range; otherwise None.
    genome, target, regions, bases
        Genome and target of the measurement, number of regions, and number of bases in each.
    context, reach
        Context and reach of the long windows with whose scores others were compared.
    """

    median: Annotated[FiniteFloat, Field(ge=0, le=1e6)]
    worst: Annotated[FiniteFloat, Field(ge=0, le=1e6)]
    bound: Literal["at least", "at most"] | None = None
    genome: Text
    target: Text
    regions: PositiveInt
    bases: PositiveInt
    context: NonNegativeInt
    reach: NonNegativeInt


class TrackRecord(_Table):
    """Provenance record of a track, with the keys that genoscan reads.

    Which keys are present depends on the command that wrote the record.

    Attributes
    ----------
    format
        Format of the record.
    model
        Name of the model.
    command
        Command line, without absolute paths.
    sequences
        Sequences on which the track was computed.
    regions
        Scored regions.
    response
        Perturbed base, in the record of a response; None in other records.
    attribution
        Method that averaged gradients; None if there is only the gradient.
    dependency
        Definition of the map, in the record of an influence; None in other records.
    variant, allele
        Variant and name of the allele, in the record of a gradient of an allele.
    mutagenesis, track
        Kind of a track of effects of substitutions ("mean" or "strongest") and of a margin ("margin").
    target, contrast, score, shard
        Values of the command-line options `--target`, `--contrast`, `--score` and `--shard`.
    prediction, logits
        Name of the predicted quantity, and whether the predictions are logits, in the record of a
        prediction.
    scored_bases, zero_regions
        Number of bases with a score, and number of regions in which all scores are 0.
    target_values
        Value of the target for each window, grouped by batch; null where a value is not finite.
    seconds
        Duration of the run in seconds.
    likelihood
        How well a causal language model predicted the observed bases, if the run computed this.
    warning
        Warning about the run, for example that the sequences are unlike the training data of the model.
    read_bases, context_share
        Number of bases in all windows, and the share of them that is not scored.
    window_error
        Expected error of the scores due to the limited windows; None if it is unknown.
    """

    format: Literal["genoscan-track/1"]
    model: str = ""
    command: list[str] = []
    sequences: list[SequenceRecord] = []
    regions: list[AnyRegion] = []
    response: ResponseRecord | None = None
    attribution: AttributionRecord | None = None
    dependency: DependencyRecord | None = None
    variant: VariantRecord | None = None
    allele: str | None = None
    mutagenesis: str | None = None
    track: str | None = None
    target: str | None = None
    contrast: str | None = None
    score: str | None = None
    shard: str | None = None
    prediction: str | None = None
    logits: bool = False
    scored_bases: NonNegativeInt = 0
    zero_regions: NonNegativeInt = 0
    target_values: list[list[FiniteFloat | None]] = []
    seconds: FiniteFloat = 0.0
    likelihood: LikelihoodRecord | None = None
    warning: str | None = None
    read_bases: PositiveInt | None = None
    context_share: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    window_error: WindowErrorRecord | None = None

    @field_validator("score")
    @classmethod
    def _score_exists(cls, score: str | None) -> str | None:
        if score is not None and score not in SCORES:
            raise ValueError(f"expected one of {', '.join(SCORES)}")
        return score

    @field_validator("sequences")
    @classmethod
    def _names_differ(cls, sequences: list[SequenceRecord]) -> list[SequenceRecord]:
        if len({sequence.name for sequence in sequences}) < len(sequences):
            raise ValueError("two sequences have the same name")
        return sequences


def region_records(regions: Iterable[Region]) -> list[dict[str, Any]]:
    """Convert regions to the JSON objects that are stored in a provenance record.

    Parameters
    ----------
    regions
        Regions to convert.

    Returns
    -------
    list of dict
        One object per region, with the keys `chrom`, `start`, `end` (0-based, half-open), `name` and
        `strand`.
    """
    return [
        {"chrom": region.chrom, "start": region.start, "end": region.end, "name": region.name, "strand": region.strand}
        for region in regions
    ]


def region_of(stored: str | Mapping[str, Any], sizes: Mapping[str, int], *, where: str) -> Region:
    """Convert the stored representation of a region to a `Region`.

    Parameters
    ----------
    stored
        Value in the record: an object or, in records of earlier versions, a string.
    sizes
        Sequence lengths in bases.
    where
        Path of the record and name of the key, for error messages.

    Returns
    -------
    Region
        Converted region.

    Raises
    ------
    InputError
        If the region is not within one of the sequences.
    """
    if isinstance(stored, str):
        region = parse_region(stored, sizes, clip=True, option=f"{where}:")
        if region.clipped:
            raise InputError(f"{where}: {stored} ends past {region.chrom}, which has {sizes[region.chrom]:,} bases")
        return replace(region, source="")
    chrom, start, end = stored["chrom"], stored["start"], stored["end"]
    if not start < end <= sizes.get(chrom, 0):
        length = f"has {sizes[chrom]:,} bases" if chrom in sizes else "is not one of its sequences"
        raise InputError(f"{where}: found {chrom} from {start:,} to {end:,}, but {chrom} {length}")
    return Region(chrom, start, end, name=stored.get("name", ""), strand=stored.get("strand", "."))
