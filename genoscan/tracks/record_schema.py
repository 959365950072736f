"""Schema of provenance records: the keys that genoscan reads, and the representation of regions.

All other keys of a record are kept. Regions are objects with the keys `chrom`, `start`, `end`, `name`
and `strand`; the coordinates are 0-based and half-open, as in BED. In records of earlier versions,
which can still be read, regions are strings such as "chr1:1,001-2,000" (1-based, inclusive).
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
"""Names of the two forms of a region, which pydantic inserts into the location of an error."""

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Name without control characters, which would break the rows of a table."""


class _Table(BaseModel):
    """JSON object that keeps additional keys."""

    model_config = ConfigDict(extra="allow", strict=True)


class SequenceRecord(_Table):
    """Sequence of the genome.

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
    """Region, 0-based and half-open, in forward coordinates.

    Attributes
    ----------
    chrom
        Name of the sequence.
    start, end
        Position of the first base, and the position after the last base.
    name
        Name, as in BED; "" if there is none.
    strand
        "+", "-" or ".".
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
    """Base whose perturbation caused a response.

    Attributes
    ----------
    at
        Region of length 1 that contains the perturbed base.
    """

    at: AnyRegion


class TrackRecord(_Table):
    """Keys that genoscan reads from a provenance record.

    Which keys are present depends on the command.

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
        Perturbed base; present only in the record of a response.
    target, score, shard
        Values of the command-line options with these names.
    prediction, logits
        Predicted quantity, and whether it is a logit, in the record of a prediction.
    scored_bases, zero_regions
        Number of bases with a score, and number of regions in which all scores are 0.
    target_values
        Value of the target for each window, grouped by batch; null where a value is not finite.
    seconds
        Duration of the run, in seconds.
    warning
        Warning about the run, for example that the sequences are unlike the model's training data.
    """

    format: Literal["genoscan-track/1"]
    model: str = ""
    command: list[str] = []
    sequences: list[SequenceRecord] = []
    regions: list[AnyRegion] = []
    response: ResponseRecord | None = None
    target: str | None = None
    score: str | None = None
    shard: str | None = None
    prediction: str | None = None
    logits: bool = False
    scored_bases: NonNegativeInt = 0
    zero_regions: NonNegativeInt = 0
    target_values: list[list[FiniteFloat | None]] = []
    seconds: FiniteFloat = 0.0
    warning: str | None = None

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
    """Convert regions to the objects that are stored in a record.

    Parameters
    ----------
    regions
        Regions to convert.

    Returns
    -------
    list of dict
        `chrom`, `start`, `end` (0-based, half-open), `name` and `strand` of each region.
    """
    return [
        {"chrom": region.chrom, "start": region.start, "end": region.end, "name": region.name, "strand": region.strand}
        for region in regions
    ]


def region_of(stored: str | Mapping[str, Any], sizes: Mapping[str, int], *, where: str) -> Region:
    """Convert a stored region, which is an object or, in records of earlier versions, a string.

    Parameters
    ----------
    stored
        Value in the record.
    sizes
        Sequence lengths in bases.
    where
        Names of the record and the key, for error messages.

    Returns
    -------
    Region
        The converted region.

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
