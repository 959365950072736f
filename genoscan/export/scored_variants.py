"""Reader for the files of `genoscan variants`: alleles with their scores, from a table or from VCF."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from genoscan.effects.variant_output import COLUMNS, STATUS_TAG
from genoscan.errors import InputError
from genoscan.genome.files import excerpt, open_text
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region
from genoscan.genome.variant import OK, Allele
from genoscan.genome.variant_files import read_variants
from genoscan.genome.vcf import open_vcf
from genoscan.tracks.provenance import check_genome, provenance_path, read_provenance

_DELTA = "delta"
_MISSING = "."
_LONGEST = 20


@dataclass(frozen=True)
class ScoredVariant:
    """Allele with its scores.

    Attributes
    ----------
    allele
        Allele as it is written in the file.
    status
        "ok", or the reason why the allele has no scores.
    scores
        Scores by name of the column (see `COLUMNS` in effects/variant_output.py); NaN where there is none.
    region
        Bases of the genome at the variant; for an insertion, the base before which bases are inserted. None
        unless the status is "ok".
    """

    allele: Allele
    status: str
    scores: Mapping[str, float]
    region: Region | None

    @property
    def delta(self) -> float:
        """Effect on the target; NaN if there is none."""
        return self.scores[_DELTA]

    @property
    def alleles(self) -> str:
        """Both alleles, such as "A>C", shortened for display."""
        ref, alt = (text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..." for text in self._pair)
        return f"{ref}>{alt}"

    @property
    def _pair(self) -> tuple[str, str]:
        return self.allele.ref or "-", self.allele.alt or "-"


def read_scored_variants(path: Path, genome: Genome) -> list[ScoredVariant]:
    """Read the alleles and scores of a file written by `genoscan variants`.

    Parameters
    ----------
    path
        Table (.tsv) or VCF file, plain or compressed.
    genome
        Genome on which the scores were computed.

    Returns
    -------
    list of ScoredVariant
        All alleles in the order of the file.

    Raises
    ------
    InputError
        If the file cannot be read, has no scores, or was computed on another genome. The genome is compared by
        checksum if the record of the file is beside it, and always by the reference alleles.

    Notes
    -----
    Memory: about a kilobyte for each allele.
    """
    table = read_variants(path, genome)
    if provenance_path(path).is_file():
        # A file without alleles has no sequences.
        check_genome(path, read_provenance(path, required=["sequences"] if table.alleles else []), genome)
    rows = list(_vcf_scores(path) if table.is_vcf else _table_scores(path))
    if len(rows) != len(table.alleles):
        raise InputError(f"{path}: found {len(rows):,} scores for {len(table.alleles):,} alleles: write the file again")
    found = []
    for allele, (status, scores) in zip(table.alleles, rows, strict=True):
        region = None
        if status == OK:
            if allele.change is None:
                raise InputError(f"{path}: {allele}: {allele.status} in {genome.path}: give the genome that was used")
            change = allele.change
            start = min(change.start, genome.sizes[change.chrom] - 1)
            region = Region(change.chrom, start, max(change.stop, start + 1))
        found.append(ScoredVariant(allele, status, scores, region))
    return found


def strongest(variants: Sequence[ScoredVariant], limit: int) -> list[ScoredVariant]:
    """Return the variants with the largest absolute effects, largest first; equal ones in the given order."""
    scored = [variant for variant in variants if variant.region is not None and not math.isnan(variant.delta)]
    return sorted(scored, key=lambda variant: -abs(variant.delta))[:limit]


def _table_scores(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    with open_text(path) as lines:
        header = [column.strip() for column in next(lines).lstrip("#").rstrip("\r\n").lower().split("\t")]
        if not {_DELTA, "status"} <= set(header):
            raise _without_scores(path)
        for number, line in enumerate(lines, 2):
            if not line.strip() or line.startswith("#"):
                continue
            row = dict(zip(header, line.rstrip("\r\n").split("\t"), strict=True))
            where = f"{path}:{number}"
            yield (
                row["status"],
                {column.name: _number(row.get(column.name, _MISSING), column.name, where) for column in COLUMNS},
            )


def _vcf_scores(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    tags = {column.name: column.tag for column in COLUMNS}
    with open_vcf(path) as (header, records):
        if not any(line.startswith(f"##INFO=<ID={tags[_DELTA]},") for line in header):
            raise _without_scores(path)
        for record in records:
            info = dict(entry.partition("=")[::2] for entry in record.columns[7].split(";"))
            for i in range(len(record.alts)):
                status = unquote(_value(info, STATUS_TAG, i))
                numbers = {name: _number(_value(info, tag, i), tag, record.where) for name, tag in tags.items()}
                yield status, numbers


def _value(info: Mapping[str, str], tag: str, number: int) -> str:
    """Return the value of an INFO tag for one allele."""
    values = info.get(tag, _MISSING).split(",")
    return values[number] if number < len(values) else _MISSING


def _number(text: str, name: str, where: str) -> float:
    if text in ("", _MISSING):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise InputError(f'{where}: {name} is "{excerpt(text)}", expected a number or a period')
    return value


def _without_scores(path: Path) -> InputError:
    return InputError(f"{path}: has no scores, expected a .tsv or VCF file written by genoscan variants")
