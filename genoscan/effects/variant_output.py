"""Files with the scores of variants: VCF, a tab-separated table, and Parquet.

Every allele of the input is in every output, in input order, with its status.
"""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np
from jaxtyping import Float64

from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.genome import Genome
from genoscan.genome.variant_files import VariantTable
from genoscan.tracks.atomic import AtomicFiles, check_regular, check_writable, os_errors
from genoscan.tracks.description import target_unit
from genoscan.tracks.outputs import check_each
from genoscan.tracks.provenance import provenance_path, write_provenance
from genoscan.tracks.vcf import InfoTag, vcf_index_paths, write_vcf

if TYPE_CHECKING:
    import pandas as pd

Scores = Mapping[str, Float64[np.ndarray, " alleles"]]

_VCF = ".vcf", ".vcf.gz"
_TSV, _PARQUET = ".tsv", ".parquet"
_PARQUET_ENGINES = "pyarrow", "fastparquet"
_FIELDS = "chrom", "pos", "id", "ref", "alt", "status"
_MISSING = "."
# Characters that VCF permits in a value of INFO; the others are percent-encoded.
_PLAIN = "()*<>[]!/+'\"&@$^|?#`{}\\"


class ScoreColumn(NamedTuple):
    """Column of the scores.

    Attributes
    ----------
    name
        Key in the scores, and name of the column in a table.
    tag, type, description
        INFO tag in VCF; "{unit}" in the description stands for the unit of the target.
    """

    name: str
    tag: str
    type: str
    description: str


COLUMNS: Final = (
    ScoreColumn("delta", "GS_DELTA", "Float", "Effect on the target: ALT less REF, in {unit}"),
    ScoreColumn("own", "GS_OWN", "Float", "Part of GS_DELTA from the bases of REF and ALT themselves, in {unit}"),
    ScoreColumn("downstream", "GS_DOWN", "Float", "Part of GS_DELTA from the bases that both alleles share, in {unit}"),
    ScoreColumn(
        "jsd", "GS_JSD", "Float", "Mean Jensen-Shannon divergence of the predictions at the shared bases, in nats"
    ),
    ScoreColumn("first", "GS_FIRST", "Float", "First-order prediction of GS_DELTA, in the same unit"),
    ScoreColumn("rank", "GS_RANK", "Float", "Rank among random changes of the same type and length, from 0 to 1"),
    ScoreColumn("largest_at", "GS_AT", "Integer", "1-based position of the largest change at the shared bases"),
)
"""Columns that `write_scores` writes, in this order, if they are among the scores."""

STATUS_TAG: Final = "GS_STATUS"
_STATUS = "String", "ok, or the reason why the allele has no scores, percent-encoded"


def check_variant_outputs(outputs: Sequence[Path], inputs: Iterable[Path | None] = ()) -> None:
    """Check that files of variant scores can be written and do not overwrite an input.

    Parameters
    ----------
    outputs
        Files to write.
    inputs
        Files that the command will read. The entry for an option that was not given is None.

    Raises
    ------
    InputError
        If a suffix is unknown, an output is given twice, a file to write is also an input, or the package for
        Parquet is missing.
    OutputError
        If an output cannot be written.
    """
    check_each(outputs, inputs, _check_output, vcf_index_paths)


def write_scores(
    outputs: Sequence[Path],
    table: VariantTable,
    scores: Scores,
    status: Sequence[str],
    genome: Genome,
    files: AtomicFiles,
    record: Mapping[str, Any],
) -> list[str]:
    """Write the scores of variants to files in one or more formats, with their provenance records.

    Parameters
    ----------
    outputs
        Files to write; the suffix selects the format: .vcf, .vcf.gz (bgzip with tabix index), .tsv or .parquet.
    table
        Variants.
    scores
        One number for each allele of the table, by name of the column (see `COLUMNS`); NaN where there is none.
        `largest_at` contains 1-based positions.
    status
        One status for each allele.
    genome
        Genome of the variants.
    files
        Transaction in which the files are written.
    record
        Provenance record.

    Returns
    -------
    list of str
        Messages for the user, such as that a file could not be indexed because its records are not sorted.

    Raises
    ------
    InputError
        If a suffix is unknown, or the source of the variants was changed since it was read.
    NonFiniteError
        If a score is infinite.
    OutputError
        If a file cannot be written.

    Notes
    -----
    Numbers have nine significant digits, in Parquet all. In a table, "." stands for a missing number. In VCF, tags
    without any number are left out of a record; GS_STATUS is always there. Commas, semicolons, spaces and the like
    in GS_STATUS are percent-encoded, as VCF 4.3 prescribes.
    """
    columns = _checked(table, scores, status)
    notes = []
    for path in outputs:
        suffix = _suffix(path)
        if suffix in _VCF:
            unit = target_unit(record.get("target"))
            tags = [
                InfoTag(c.tag, c.type, c.description.format(unit=unit), _formatter(c, scores[c.name])) for c in columns
            ]
            tags.append(InfoTag(STATUS_TAG, *_STATUS, lambda i: quote(status[i], safe=_PLAIN)))
            replaced = [STATUS_TAG, *(column.tag for column in COLUMNS)]
            notes += write_vcf(path, table, genome, tags, replaced, files)
        elif suffix == _TSV:
            with os_errors(path), files.create(path).open("w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(_lines(table, scores, status, columns))
        elif suffix == _PARQUET:
            part = files.create(path)
            with os_errors(path):
                as_frame(table, scores, status).to_parquet(part, index=False)
        else:
            raise _unknown_suffix(path)
        write_provenance(path, record, files)
    return notes


def as_frame(table: VariantTable, scores: Scores, status: Sequence[str]) -> "pd.DataFrame":
    """Convert scores to a table with one row per allele.

    Parameters
    ----------
    table, scores, status
        As for `write_scores`.

    Returns
    -------
    pandas.DataFrame
        Columns of the .tsv file, with `largest_at` as nullable integers.
    """
    import pandas as pd

    def texts(name: str) -> list[str]:
        values = (getattr(allele, name) for allele in table.alleles)
        return [value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for value in values]

    frame = pd.DataFrame({name: texts(name) for name in ("chrom", "id", "ref", "alt")}, dtype="str")
    frame.insert(1, "pos", np.array([allele.pos for allele in table.alleles], np.int64))
    frame["status"] = pd.Series(list(status), dtype="str")
    for column in _checked(table, scores, status):
        values = pd.Series(scores[column.name], dtype="float64")
        frame[column.name] = values.astype("Int64") if column.type == "Integer" else values
    return frame


def _check_output(path: Path) -> None:
    if _suffix(path) not in (*_VCF, _TSV, _PARQUET):
        raise _unknown_suffix(path)
    if _suffix(path) == _PARQUET and not any(importlib.util.find_spec(name) for name in _PARQUET_ENGINES):
        raise InputError(f"{path}: Parquet requires pyarrow: pip install pyarrow, or write .tsv")
    check_writable(path)
    for beside in (provenance_path(path), *vcf_index_paths(path)):
        check_regular(beside)


def _suffix(path: Path) -> str:
    suffixes = path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]
    return "".join(suffixes).lower()


def _unknown_suffix(path: Path) -> InputError:
    known = ", ".join((*_VCF, _TSV, _PARQUET))
    return InputError(f'{path}: unknown suffix "{path.suffix}", expected one of {known}')


def _checked(table: VariantTable, scores: Scores, status: Sequence[str]) -> list[ScoreColumn]:
    """Check the numbers, and return the columns that are among the scores."""
    columns = [column for column in COLUMNS if column.name in scores]
    if len(columns) < len(scores):
        raise ValueError(f"unknown columns: {sorted(scores.keys() - {column.name for column in columns})}")
    if len(status) != len(table.alleles):
        raise ValueError(f"found {len(status)} statuses, expected one for each of {len(table.alleles)} alleles")
    for name, values in scores.items():
        if len(values) != len(table.alleles):
            raise ValueError(f"{name}: found {len(values)} numbers, expected {len(table.alleles)}")
        infinite = np.isinf(values)
        if infinite.any():
            raise NonFiniteError(f"{table.alleles[int(infinite.argmax())]}: {name} is infinite, expected a number")
    return columns


def _formatter(column: ScoreColumn, values: Float64[np.ndarray, " alleles"]) -> Callable[[int], str]:
    """Return a function from the index of an allele to the text of its number."""
    integer = column.type == "Integer"

    def text(i: int) -> str:
        value = float(values[i])
        if value != value:
            return _MISSING
        return f"{value:.0f}" if integer else f"{value + 0.0:.9g}"  # -0.0 + 0.0 is 0.0

    return text


def _lines(table: VariantTable, scores: Scores, status: Sequence[str], columns: Sequence[ScoreColumn]) -> Iterator[str]:
    yield "\t".join([*_FIELDS, *(column.name for column in columns)]) + "\n"
    formatters = [_formatter(column, scores[column.name]) for column in columns]
    for i, allele in enumerate(table.alleles):
        fields = [allele.chrom, str(allele.pos), allele.id, allele.ref or "-", allele.alt or "-", status[i]]
        yield "\t".join([*fields, *(text(i) for text in formatters)]) + "\n"
