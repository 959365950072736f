"""Regions of a genome, and region strings.

Inside genoscan, the coordinates of a region are 0-based and half-open. The coordinates in a region string
are 1-based and closed, as in samtools: "chr1:1,001-2,000" is Region("chr1", 1000, 2000). Only this module
converts between the two conventions.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from genoscan.errors import InputError

# At most 30 digits and commas: more than any genome needs, and within the limit of int().
_COORDINATES = re.compile(
    r"(?P<start>\d[\d,]{0,29})(?P<dash>-(?P<end>\d[\d,]{0,29})?)?|-(?P<only_end>\d[\d,]{0,29})", re.ASCII
)
_GRAMMAR = "5, 5-, -9 or 5-9, counted from 1"


class UnknownSequenceError(InputError):
    """Error raised if a region string does not begin with the name of a sequence."""


class PastEndError(InputError):
    """Error raised if a region extends past the end of its sequence and shortening is not permitted."""


@dataclass(frozen=True, slots=True)
class Region:
    """Interval of one sequence, in 0-based, half-open coordinates on the forward strand.

    Two regions are equal if their sequences, coordinates and strands are equal.

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
    source
        Origin of the region for error messages, such as "peaks.bed:17" or "--region chr1:5-9".
    clipped
        Whether the region was shortened to fit its sequence.

    Raises
    ------
    InputError
        If the region is empty, `start` is negative, or `strand` has an invalid value.
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
        """Text that identifies the region in error messages: `source` or, if it is empty, the region string."""
        return self.source or str(self)


def parse_region(text: str, sizes: Mapping[str, int], *, clip: bool = False, option: str = "--region") -> Region:
    """Parse a region string in the syntax of samtools.

    Parameters
    ----------
    text
        A sequence name, optionally followed by coordinates, as in `chr1:1,001-2,000`. Both `chr1:5` and
        `chr1:5-` denote the bases from base 5 to the end of the sequence, and `chr1:-9` denotes the first
        nine bases. A name that contains colons may be enclosed in braces, as in `{HLA:01}:5-9`. Without
        braces, the longest matching name is used.
    sizes
        Length of each sequence, in bases.
    clip
        If True, shorten a region that extends past the end of its sequence. If False, raise an error.
    option
        Command-line option to which the string was passed, for error messages.

    Returns
    -------
    Region
        Parsed region. Its `source` consists of the option and the string.

    Raises
    ------
    UnknownSequenceError
        If the string does not begin with the name of a sequence.
    InputError
        If the string is malformed or ambiguous, or if the region is outside the genome.
    """
    source = f"{option} {text}"
    try:
        chrom, coordinates = _split(text.strip(), sizes)
        start, end = _bounds(coordinates, sizes[chrom]) if coordinates else (1, sizes[chrom])
    except InputError as problem:
        raise type(problem)(f"{source}: {problem}") from None
    # If the end is open and the start is past the sequence, check_bounds() raises.
    return check_bounds(Region(chrom, start - 1, max(start, end), source=source), sizes, clip)


def parse_place(text: str, sizes: Mapping[str, int], *, option: str) -> Region:
    """Parse a region string in which a position without a dash, as in `chr1:5`, denotes that base alone.

    Parameters
    ----------
    text
        Position or region; otherwise as for `parse_region`.
    sizes, option
        As for `parse_region`.

    Returns
    -------
    Region
        Parsed region.

    Raises
    ------
    InputError
        As for `parse_region`.
    """
    position = text.rpartition(":")[2]
    # A name can end in a colon and digits, too.
    alone = text.strip() not in sizes and re.fullmatch(r"[\d,]+", position.strip(), re.ASCII)
    return parse_region(f"{text.strip()}-{position.strip()}" if alone else text, sizes, option=option)


def check_bounds(region: Region, sizes: Mapping[str, int], clip: bool) -> Region:
    """Check that a region is inside the genome, and shorten it if necessary and permitted.

    Parameters
    ----------
    region
        Region to check.
    sizes
        Length of each sequence, in bases.
    clip
        If True, shorten a region that extends past the end of its sequence. If False, raise an error.

    Returns
    -------
    Region
        The same region, or a shortened copy with `clipped` set.

    Raises
    ------
    InputError
        If the sequence is unknown, or if the region starts past the end of its sequence.
    PastEndError
        If the region extends past the end of its sequence and `clip` is False.
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
        raise PastEndError(
            f"{region.where}: end {region.end:,} is past {its_length}; "
            f'"{_quoted(region.chrom)}:{region.start + 1}-" means "to the end"'
        )
    return replace(region, end=size, clipped=True)


def unknown_sequence(chrom: str, sizes: Mapping[str, int]) -> str:
    """Return an error message for an unknown sequence name.

    Parameters
    ----------
    chrom
        Sequence name that is not in the genome.
    sizes
        Length of each sequence, in bases.

    Returns
    -------
    str
        Message that suggests a similar name. If there is no similar name, the message lists the first five
        names in the genome instead.
    """
    message = f'no sequence is called "{chrom}"'
    near = _near_name(chrom, sizes)
    if near is not None:
        return f'{message}; did you mean "{near}"?'
    some = ", ".join(islice(sizes, 5))
    rest = f" and {len(sizes) - 5:,} more" if len(sizes) > 5 else ""
    return f"{message}; the genome has {some}{rest}"


def _quoted(chrom: str) -> str:
    # Braces distinguish colons inside the name from the colon before the start.
    return f"{{{chrom}}}" if ":" in chrom else chrom


def _split(text: str, sizes: Mapping[str, int]) -> tuple[str, str]:
    """Split a region string into a sequence name and coordinates ("" if there are none)."""
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
    raise UnknownSequenceError(unknown_sequence(before if colon and looks_like_a_start else text, sizes))


def _split_braces(text: str, sizes: Mapping[str, int]) -> tuple[str, str]:
    name, brace, rest = text[1:].partition("}")
    if not brace or rest[:1] not in ("", ":") or rest == ":":
        raise InputError('found a "{", expected {NAME} or {NAME}:START-END')
    if name not in sizes:
        raise InputError(unknown_sequence(name, sizes))
    return name, rest[1:]


def _bounds(coordinates: str, size: int) -> tuple[int, int]:
    """Parse coordinates, and return the 1-based positions of the first and the last base."""
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
    # Search a limited number of names: a genome may have many scaffolds, and the result is only a hint.
    names = list(islice(sizes, 10_000))
    for name in names:
        if name.casefold() == chrom.casefold() or name.partition(".")[0] == chrom:
            return name
    return next(iter(difflib.get_close_matches(chrom, names, n=1)), None)
