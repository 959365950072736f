"""Variants: alleles as written in a file, and the sequence changes that they describe.

The same change can be written in several ways: TG>TA is G>A, and a deletion in a repeat may be placed at any of
its copies. `normalise` returns one representation for all of them, as `bcftools norm` does (parsimony and left
alignment; Tan, Abecasis and Kang 2015, doi:10.1093/bioinformatics/btv112), but without the base before an
insertion or a deletion that VCF requires.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from genoscan.errors import InputError
from genoscan.genome.alphabet import decode
from genoscan.genome.files import excerpt
from genoscan.genome.genome import Genome

OK: Final = "ok"
NO_ALT: Final = "no ALT"
SYMBOLIC: Final = "symbolic allele"
BREAKEND: Final = "breakend"
OVERLAPPING_DELETION: Final = "overlapping deletion (*)"
UNKNOWN_SEQUENCE: Final = "unknown sequence"
NOT_ACGT: Final = "not A, C, G, T"
N_IN_REF: Final = "N in REF or genome"
N_IN_ALT: Final = "N in ALT"
ALT_IS_REF: Final = "ALT equals REF"
OTHER_REF: Final = "REF differs from the genome"
WHOLE_SEQUENCE: Final = "deletion of the whole sequence"

QUOTE_VARIANTS: Final = "the shell interprets > as redirection of output: quote the variant, 'chr1:1,024:A>C'"
"""Advice if a variant in text form ends before its ">"."""

_AMBIGUOUS = str.maketrans("RYSWKMBDHV", "N" * 10)
_LETTERS = frozenset("ACGTN")
_FIRST_BLOCK, _LARGEST_BLOCK = 1 << 6, 1 << 16
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Change:
    """Normalised change of a sequence, on the forward strand.

    Two spellings describe the same edited sequence if and only if their normalised changes are equal.

    Attributes
    ----------
    chrom
        Name of the sequence in the genome.
    start
        0-based position of the first replaced base or, for an insertion, of the base before which the bases
        are inserted.
    ref
        Replaced bases of the genome, in upper case; "" for an insertion.
    alt
        Bases in their place, in upper case; "" for a deletion.
    """

    chrom: str
    start: int
    ref: str
    alt: str

    @property
    def stop(self) -> int:
        """Position after the last replaced base; for an insertion, equal to `start`."""
        return self.start + len(self.ref)

    @property
    def kind(self) -> str:
        """Type of the change: "SNV", "MNV", "insertion", "deletion" or "delins"."""
        if not self.ref:
            return "insertion"
        if not self.alt:
            return "deletion"
        if len(self.ref) != len(self.alt):
            return "delins"
        return "SNV" if len(self.ref) == 1 else "MNV"


@dataclass(frozen=True, slots=True)
class Allele:
    """One alternate allele (ALT) of a record, as it is written in the input.

    Attributes
    ----------
    record
        Index of the record in the input, from 0. The alleles of a multi-allelic record have the same index.
    chrom, pos, id, ref, alt
        Fields of the record, unchanged: sequence name in the input, 1-based position, identifier ("." if there
        is none), reference and alternate allele.
    status
        "ok", or the reason why the allele describes no change of the genome.
    change
        Normalised change, with the sequence's name in the genome; None unless the status is "ok".
    """

    record: int
    chrom: str
    pos: int
    id: str
    ref: str
    alt: str
    status: str
    change: Change | None

    def __str__(self) -> str:
        return f"{self.chrom}:{self.pos:,}:{excerpt(self.ref)}>{excerpt(self.alt)}"


def normalise(genome: Genome, chrom: str, start: int, ref: str, alt: str) -> Change:
    """Return the normalised form of a change: trimmed at both ends, and aligned to the left.

    Parameters
    ----------
    genome
        Genome that contains the sequence.
    chrom
        Name of the sequence in the genome.
    start
        0-based position of the first base of `ref`.
    ref
        Replaced bases, which must be those of the genome. May be "".
    alt
        Bases in their place. May be "".

    Returns
    -------
    Change
        Representation that is the same for all spellings of the change.

    Raises
    ------
    InputError
        If `ref` and `alt` are equal, or the genome cannot be read.

    Notes
    -----
    Exact. Memory: the alleles, and at most 65,536 bases of the genome at a time, however long the repeat in which
    an insertion or a deletion is moved.
    """
    ref, alt = ref.upper(), alt.upper()
    if ref == alt:
        raise InputError(f"{chrom}:{start + 1:,}: REF and ALT are both {excerpt(ref)}, expected a change")
    shared = _shared_prefix(ref[::-1], alt[::-1])
    ref, alt = ref[: len(ref) - shared], alt[: len(alt) - shared]
    shared = _shared_prefix(ref, alt)
    start, ref, alt = start + shared, ref[shared:], alt[shared:]
    if ref and alt:
        return Change(chrom, start, ref, alt)
    start, moved = _move_left(genome, chrom, start, ref or alt)
    return Change(chrom, start, moved if ref else "", moved if alt else "")


def classify(genome: Genome, chrom: str | None, start: int, ref: str, alt: str) -> tuple[str, Change | None]:
    """Return the status of an allele and, if the allele describes a change of the genome, that change.

    Parameters
    ----------
    genome
        Genome to compare with.
    chrom
        Name of the sequence in the genome; None if it is not in the genome.
    start
        0-based position of the first base of `ref`; a negative position gives a status, too.
    ref, alt
        Alleles in upper or lower case; "" for no bases. `alt` may be anything that a VCF file allows.

    Returns
    -------
    status : str
        "ok" or the reason why there is no change.
    change : Change or None
        Normalised change; None unless the status is "ok".

    Notes
    -----
    An IUPAC ambiguity code counts as N. An N that REF and ALT share at an end, such as the base before a deletion,
    is permitted if the genome has an N there.
    """
    if problem := _not_bases(alt):
        return problem, None
    if chrom is None:
        return UNKNOWN_SEQUENCE, None
    ref, alt = ref.upper().translate(_AMBIGUOUS), alt.upper().translate(_AMBIGUOUS)
    if not _LETTERS.issuperset(ref + alt):
        return NOT_ACGT, None
    size = genome.sizes[chrom]
    if start < 0:
        return f"before the start of {chrom}", None
    if start + len(ref) > size:
        return f"past the end of {chrom} ({size:,} bases)", None
    if problem := _ref_problem(ref, decode(genome.fetch(chrom, start, start + len(ref))).decode(), start):
        return problem, None
    if ref == alt:
        return ALT_IS_REF, None
    if len(ref) == size and not alt:  # nothing is left to read, and VCF has no spelling for it
        return WHOLE_SEQUENCE, None
    change = normalise(genome, chrom, start, ref, alt)
    if "N" in change.ref:
        return N_IN_REF, None
    return (N_IN_ALT, None) if "N" in change.alt else (OK, change)


def _not_bases(alt: str) -> str:
    """Return the status of an ALT that is not a sequence of bases; "" for any other ALT."""
    if alt == ".":
        return NO_ALT
    if alt == "*":
        return OVERLAPPING_DELETION
    if "[" in alt or "]" in alt or alt.startswith(".") or alt.endswith("."):
        return BREAKEND
    return SYMBOLIC if "<" in alt else ""


def _ref_problem(ref: str, found: str, start: int) -> str:
    """Return the status of a REF that is not equal to the bases of the genome; "" if it is equal."""
    if ref == found:
        return ""
    differing = [i for i, (a, b) in enumerate(zip(ref, found, strict=True)) if a != b and "N" not in (a, b)]
    if not differing:
        return N_IN_REF
    if len(ref) <= _SHOWN:
        return f"{OTHER_REF} (found {ref}, genome {found})"
    i = differing[0]
    return f"{OTHER_REF} (at {start + i + 1:,} found {ref[i]}, genome {found[i]})"


def _shared_prefix(a: str, b: str) -> int:
    """Return the number of letters that two strings share at their start."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    return next(i for i in range(length) if a[i] != b[i])


def _move_left(genome: Genome, chrom: str, start: int, allele: str) -> tuple[int, str]:
    """Move inserted or deleted bases as far left as the edited sequence remains the same.

    One step left is possible if the base before the allele equals its last base. After the step, the allele
    consists of the bases from there on, so that each step compares two bases at a distance of the allele's length.
    """
    current = np.frombuffer(allele.encode(), np.uint8)
    period, block = len(current), _FIRST_BLOCK
    while start:
        first = max(0, start - block)
        before = np.frombuffer(decode(genome.fetch(chrom, first, start)), np.uint8)
        bases = np.concatenate([before, current])
        differs = np.flatnonzero(bases[: len(before)] != bases[period:])
        steps = len(before) - 1 - int(differs[-1]) if differs.size else len(before)
        start -= steps
        current = bases[len(before) - steps :][:period]
        if differs.size:
            break
        block = min(2 * block, _LARGEST_BLOCK)
    return start, current.tobytes().decode()
