"""Regions of a genome, and region strings.

Inside genoscan a region is 0-based and half-open. A region string is 1-based and closed, as in
samtools: "chr1:1,001-2,000" is Region("chr1", 1000, 2000). Only this module converts between them.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from genoscan.errors import InputError

# One to thirty digits and commas: more than any genome needs, and int() takes them all.
_COORDINATES = re.compile(
    r"(?P<start>\d[\d,]{0,29})(?P<dash>-(?P<end>\d[\d,]{0,29})?)?|-(?P<only_end>\d[\d,]{0,29})", re.ASCII
)
_GRAMMAR = "5, 5-, -9 or 5-9, counted from 1"


@dataclass(frozen=True, slots=True)
class Region:
    """An interval of one sequence, 0-based, half-open, in forward coordinates.

    Regions are equal if sequence, coordinates and strand are.

    Attributes
    ----------
    chrom
        Name of the sequence.
    start, end
        First base, and the one after the last.
    name
        As in BED; "" without one.
    strand
        "+", "-" or ".".
    source
        Origin, for error messages: "peaks.bed:17" or "--region chr1:5-9".
    clipped
        Whether it was shortened to fit its sequence.

    Raises
    ------
    InputError
        If it is empty, `start` is negative, or `strand` is none of the three.
    """

    chrom: str
    start: int
    end: int
    name: str = field(default="", compare=False)
    strand: str = "."
    source: str = field(default="", compare=False)
    clipped: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise InputError(
                f"{self.source or self.chrom}: found start {self.start} and end {self.end}, expected 0 <= start < end"
            )
        if self.strand not in ("+", "-", "."):
            raise InputError(f'{self.source or self.chrom}: strand is "{self.strand}", expected "+", "-" or "."')

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{_quoted(self.chrom)}:{self.start + 1:,}-{self.end:,}"

    @property
    def where(self) -> str:
        """The source, or the region string without one, for error messages."""
        return self.source or str(self)


def parse_region(text: str, sizes: Mapping[str, int], *, clip: bool = False, option: str = "--region") -> Region:
    """Return the region of a region string, in the grammar of samtools.

    Parameters
    ----------
    text
        A whole name, `chr1:5` and `chr1:5-` (to the end), `chr1:-9` (from the first base),
        `chr1:1,001-2,000`, or with braces around a name that contains colons, `{HLA:01}:5-9`.
        Without braces the longest name is taken.
    sizes
        Length of every sequence, in bases.
    clip
        Whether a region that ends past its sequence is shortened instead of refused.
    option
        The option of the command line that the string was given to, for error messages.

    Returns
    -------
    Region
        With `source` set.

    Raises
    ------
    InputError
        If the string is malformed or ambiguous, or the region is outside of the genome.
    """
    source = f"{option} {text}"
    try:
        chrom, coordinates = _split(text.strip(), sizes)
        start, end = _bounds(coordinates, sizes[chrom]) if coordinates else (1, sizes[chrom])
    except InputError as problem:
        raise InputError(f"{source}: {problem}") from None
    # If the end is open and the start past the sequence, check_bounds() raises.
    return check_bounds(Region(chrom, start - 1, max(start, end), source=source), sizes, clip)


def check_bounds(region: Region, sizes: Mapping[str, int], clip: bool) -> Region:
    """Return a region if it is inside of the genome.

    Parameters
    ----------
    region
        Any region.
    sizes
        Length of every sequence, in bases.
    clip
        Whether a region that ends past its sequence is shortened instead of refused.

    Returns
    -------
    Region
        The same, or a shorter one with `clipped` set.

    Raises
    ------
    InputError
        If the sequence is unknown, or too short for the region.
    """
    size = sizes.get(region.chrom)
    if size is None:
        raise InputError(f"{region.where}: {unknown_sequence(region.chrom, sizes)}")
    if region.end <= size:
        return region
    its_length = f"the end of {region.chrom}, which has {size:,} bases"
    if region.start >= size:
        raise InputError(
            f"{region.where}: the first base, {region.start + 1:,}, lies past {its_length}; "
            f"is it meant for this genome?"
        )
    if not clip:
        raise InputError(
            f"{region.where}: end {region.end:,} is past {its_length}; "
            f'"{_quoted(region.chrom)}:{region.start + 1}-" means "to the end", '
            f"and --clip trims regions"
        )
    return replace(region, end=size, clipped=True)


def unknown_sequence(chrom: str, sizes: Mapping[str, int]) -> str:
    """Return an error message for an unknown sequence name.

    Parameters
    ----------
    chrom
        A name that the genome lacks.
    sizes
        Length of every sequence, in bases.

    Returns
    -------
    str
        With a similar name, or else the first five names of the genome.
    """
    message = f'no sequence is called "{chrom}"'
    near = _near_name(chrom, sizes)
    if near is not None:
        return f'{message}; did you mean "{near}"?'
    some = ", ".join(islice(sizes, 5))
    rest = f" and {len(sizes) - 5:,} more" if len(sizes) > 5 else ""
    return f"{message}; the genome has {some}{rest}"


def _quoted(chrom: str) -> str:
    # Braces keep a colon inside the name from being read as the one before the start.
    return f"{{{chrom}}}" if ":" in chrom else chrom


def _split(text: str, sizes: Mapping[str, int]) -> tuple[str, str]:
    """Return the name of a sequence, and the coordinates or ""."""
    if text.startswith("{"):
        return _split_braces(text, sizes)
    before, colon, after = text.rpartition(":")
    if text in sizes:
        if before in sizes:
            raise InputError(f'both "{before}" and "{text}" are sequences; write {{{text}}} or {{{before}}}:{after}')
        return text, ""
    if before in sizes:
        if not after:
            raise InputError(f"nothing follows the colon, expected {_GRAMMAR}, or no colon")
        return before, after
    looks_like_a_start = after[:1].isdigit() or after[:1] == "-"
    raise InputError(unknown_sequence(before if colon and looks_like_a_start else text, sizes))


def _split_braces(text: str, sizes: Mapping[str, int]) -> tuple[str, str]:
    name, brace, rest = text[1:].partition("}")
    if not brace or rest[:1] not in ("", ":") or rest == ":":
        raise InputError('found a "{", expected {NAME} or {NAME}:START-END')
    if name not in sizes:
        raise InputError(unknown_sequence(name, sizes))
    return name, rest[1:]


def _bounds(coordinates: str, size: int) -> tuple[int, int]:
    """Return the first and the last base, counted from 1."""
    match = _COORDINATES.fullmatch(coordinates)
    if match is None:
        raise InputError(f'coordinates are "{coordinates}", expected {_GRAMMAR}')
    start = _number(match["start"] or "1")
    last = match["end"] or match["only_end"]
    if start < 1:
        raise InputError(f"start is {start}, expected 1 or more: positions count from 1")
    if last is None:
        return start, size
    end = _number(last)
    if end < start:
        raise InputError(f"end {end:,} is before start {start:,}")
    return start, end


def _number(digits: str) -> int:
    return int(digits.replace(",", ""))


def _near_name(chrom: str, sizes: Mapping[str, int]) -> str | None:
    bare = chrom.removeprefix("chr")
    guesses = [f"chr{chrom}", bare, chrom.partition(".")[0]]
    if bare in ("M", "MT"):
        guesses += ["chrM", "chrMT", "MT", "M"]
    for guess in guesses:
        if guess and guess != chrom and guess in sizes:
            return guess
    # A genome of many scaffolds is searched in part: this is a hint, not an answer.
    names = list(islice(sizes, 10_000))
    for name in names:
        if name.casefold() == chrom.casefold() or name.partition(".")[0] == chrom:
            return name
    return next(iter(difflib.get_close_matches(chrom, names, n=1)), None)
