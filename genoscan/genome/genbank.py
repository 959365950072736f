"""Reader for the sequences and features in plain and gzip-compressed GenBank files.

Coordinates in GenBank files are 1-based and closed. Biopython converts them to 0-based, half-open
coordinates.
"""

import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from Bio import BiopythonWarning, SeqIO
from Bio.Seq import UndefinedSequenceError
from Bio.SeqFeature import ExactPosition
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import encode
from genoscan.genome.feature import Feature, MalformedRows, Transcript, make_feature, merge_overlapping
from genoscan.genome.files import check_file, excerpt, open_text
from genoscan.genome.region import Region, unknown_sequence

_log = logging.getLogger(__name__)

_STRANDS = {1: "+", -1: "-"}
_NAMING = ("gene", "locus_tag", "product", "label")
# For a truncated file, Biopython issues one of these warnings and returns an incomplete record.
_CUT_OFF = ("Premature end", "Expected sequence length")


@dataclass(frozen=True, slots=True)
class GenBankFeature:
    """Feature of a GenBank record.

    Attributes
    ----------
    chrom
        Name of the sequence.
    kind
        Feature key, such as "gene", "CDS" or "tRNA".
    name
        Value of the first qualifier that is present among "gene", "locus_tag", "product" and "label", in
        this order; "" if none of them is present.
    aliases
        Values of all of these qualifiers that are present, without duplicates.
    strand
        "+" or "-"; "." if the strand is unknown, or if the feature has parts on both strands, like some
        trans-spliced genes.
    parts
        Exons of the feature as regions, in transcript order. A fuzzy position, such as "<3" or ">10", is
        replaced with the number that it contains.
    trans_spliced
        Whether the exons are transcribed separately and joined by trans-splicing.
    partial
        Whether bases of the feature are missing: it extends beyond a fuzzy position, has parts on another record, or
        its first codon is not complete.
    """

    chrom: str
    kind: str
    name: str
    strand: str
    parts: tuple[Region, ...]
    trans_spliced: bool = False
    aliases: tuple[str, ...] = ()
    partial: bool = False

    def features(self) -> list[Feature]:
        """Return the feature as one or more `Feature` objects.

        The feature is split wherever consecutive exons are separated by the origin of a circular sequence,
        are on different strands, or are joined by trans-splicing.
        """
        runs = [[self.parts[0]]]
        for before, after in pairwise(self.parts):
            follows = after.start < before.start if after.strand == "-" else before.start < after.start
            if after.strand == before.strand and follows and not self.trans_spliced:
                runs[-1].append(after)
            else:
                runs.append([after])
        partial = self.partial or len(runs) > 1
        return [_join(run, self.aliases, coding=self.kind == "CDS", partial=partial) for run in runs]


class GenBankGenome:
    """Genome that is read from a GenBank file and kept in memory, with one byte per base.

    The name of a sequence is the version from the VERSION line, such as NC_000932.1. If a record has no
    version, the name from the LOCUS line is used instead.

    Parameters
    ----------
    path
        GenBank file, plain or gzip-compressed.

    Raises
    ------
    InputError
        If the file cannot be read, is truncated or is not GenBank, if a record has no sequence, if two
        records have the same name, or if a letter is not an IUPAC nucleotide code.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.sizes: dict[str, int] = {}
        self._codes: dict[str, UInt8[np.ndarray, " bases"]] = {}
        self._m5: dict[str, str] = {}
        for record in _records(self.path):
            chrom = record.id
            letters = _letters(record, self.path)
            self._codes[chrom] = encode(letters, record=f"{self.path}: {chrom}", offset=0)
            self._m5[chrom] = hashlib.md5(letters.upper(), usedforsecurity=False).hexdigest()
            self.sizes[chrom] = len(letters)

    def __repr__(self) -> str:
        return f"GenBankGenome({str(self.path)!r})"

    def fetch(self, chrom: str, start: int, end: int) -> UInt8[np.ndarray, " bases"]:
        """Return the base codes of an interval (see `Genome.fetch`).

        Parameters
        ----------
        chrom
            Name of a sequence.
        start, end
            Bounds of the interval, 0-based and half-open.

        Returns
        -------
        array of shape (end - start,)
            Base codes, one byte per base. The array is a copy.

        Raises
        ------
        InputError
            If the interval is not within a sequence of the genome.
        """
        self._check(chrom)
        if not 0 <= start <= end <= self.sizes[chrom]:
            raise InputError(
                f"{self.path}: asked for bases {start:,} to {end:,} of {chrom} (0-based), "
                f"which has {self.sizes[chrom]:,}"
            )
        return self._codes[chrom][start:end].copy()

    def m5(self, chrom: str) -> str:
        """Return the MD5 checksum of a sequence (see `Genome.m5`).

        Parameters
        ----------
        chrom
            Name of a sequence.

        Returns
        -------
        str
            32 hexadecimal digits.

        Raises
        ------
        InputError
            If the genome has no sequence of this name.
        """
        self._check(chrom)
        return self._m5[chrom]

    def _check(self, chrom: str) -> None:
        if chrom not in self.sizes:
            raise InputError(f"{self.path}: {unknown_sequence(chrom, self.sizes)}")


def _join(exons: list[Region], aliases: tuple[str, ...], *, coding: bool, partial: bool) -> Feature:
    first = exons[0]
    start, end = min(exon.start for exon in exons), max(exon.end for exon in exons)
    whole = Region(first.chrom, start, end, name=first.name, strand=first.strand, source=first.source)
    blocks = merge_overlapping((exon.start, exon.end) for exon in exons)
    return make_feature(whole, [Transcript(start, end, blocks, (start, end) if coding else None, partial)], aliases)


def read_features(path: str | Path, malformed: MalformedRows | None = None) -> list[GenBankFeature]:
    """Return the features of a GenBank file, in the order of the file.

    Features of type `source` are omitted. Parts of a feature are omitted if they are on another record or
    have zero length, like a site between two bases.

    Parameters
    ----------
    path
        GenBank file, plain or gzip-compressed.
    malformed
        Object that counts the features without a valid location, which are skipped. If None, an error is
        raised for such a feature and for a feature that extends past the end of its record.

    Returns
    -------
    list of GenBankFeature
        Features, each with at least one part.

    Raises
    ------
    InputError
        If the file cannot be read or is truncated, or if `malformed` is None and a location is invalid.
    """
    path = Path(path)
    features: list[GenBankFeature] = []
    for record in _records(path):
        for found in record.features:
            if found.type == "source":
                continue
            try:
                features += _feature(found, record, path, strict=malformed is None)
            except InputError as problem:
                if malformed is None:
                    raise
                malformed.add(problem)
    return features


def _feature(found: Any, record: Any, path: Path, *, strict: bool) -> Iterator[GenBankFeature]:
    values = (" ".join(found.qualifiers.get(key, [""])[0].split()) for key in _NAMING)
    names = tuple(dict.fromkeys(filter(None, values)))
    name = names[0] if names else ""
    where = f"{path}: {record.id}: {excerpt(f'{found.type} {name}'.rstrip())}"
    if found.location is None:
        raise InputError(f"{where}: no valid location")
    parts = []
    partial = found.qualifiers.get("codon_start", ["1"]) != ["1"]
    for part in found.location.parts:
        start, end = int(part.start), int(part.end)
        partial |= part.ref is not None or not all(isinstance(at, ExactPosition) for at in (part.start, part.end))
        if part.ref is None and start != end:
            if strict and end > len(record):
                raise InputError(f"{where}: end {end:,} is past the end of the record, which has {len(record):,} bases")
            strand = _STRANDS.get(part.strand, ".")
            parts.append(Region(record.id, start, end, name=name, strand=strand, source=where))
    if parts:
        strands = {part.strand for part in parts}
        strand = strands.pop() if len(strands) == 1 else "."
        trans_spliced = "trans_splicing" in found.qualifiers
        yield GenBankFeature(record.id, found.type, name, strand, tuple(parts), trans_spliced, names, partial)


class _Lines:
    """Text stream for Biopython that also stores the version of the current record.

    The version is not taken from Biopython, because Biopython parses a part of it as a number and would
    change NODE_1_cov_2.052837 to NODE_1_cov_2.52837.
    """

    def __init__(self, file: io.TextIOWrapper) -> None:
        self.version = ""
        self._file = file

    def read(self, count: int) -> str:
        return self._file.read(count)

    def readline(self) -> str:
        line = self._file.readline()
        if line.startswith("LOCUS "):
            self.version = ""
        elif line.startswith("VERSION "):
            self.version = next(iter(line.split()[1:]), "")
        return line


def _records(path: Path) -> Iterator[Any]:
    """Yield the records of a file as Biopython objects whose names are those in the file.

    The function raises InputError if a name is repeated.
    """
    check_file(path)
    names = set()
    with open_text(path) as file:
        lines = _Lines(file)
        parser = SeqIO.parse(lines, "genbank")
        while (record := _next_record(parser, path)) is not None:
            line = "LOCUS" if lines.version in ("", ".") else "VERSION"
            record.id = record.name if line == "LOCUS" else lines.version
            if record.id in names:
                raise InputError(
                    f'{path}: two records are called "{excerpt(record.id)}" in the {line} line, '
                    f"expected each name once; rename one of them"
                )
            names.add(record.id)
            yield record
    if not names:
        raise InputError(f"{path}: no records in it, expected GenBank, which begins with LOCUS")


def _next_record(parser: Iterator[Any], path: Path) -> Any | None:
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        try:
            record = next(parser, None)
        except (ValueError, AssertionError, IndexError) as problem:
            reason = excerpt(str(problem).partition("\n")[0], 120) or type(problem).__name__
            raise InputError(f"{path}: not GenBank, damaged or cut off ({reason})") from None
    for warning in raised:
        text = " ".join(str(warning.message).split())
        if not issubclass(warning.category, BiopythonWarning):
            warnings.warn_explicit(text, warning.category, warning.filename, warning.lineno)
        elif text.startswith(_CUT_OFF):
            raise InputError(f"{path}: the file is cut off ({excerpt(text.rstrip('.'), 120)})")
        else:
            _log.debug("%s: %s", path, text)
    return record


def _letters(record: Any, path: Path) -> bytes:
    try:
        return bytes(record.seq)
    except UndefinedSequenceError:
        raise InputError(
            f"{path}: {record.id}: no sequence in the record, expected ORIGIN and bases; fetch "
            f"the file in the full format (gbwithparts)"
        ) from None
