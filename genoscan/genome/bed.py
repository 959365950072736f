"""Reader for BED files.

Coordinates in BED files are 0-based and half-open, like all coordinates inside genoscan. `read_bed` reads
columns 1 to 4 and column 6, and ignores all other columns. It therefore also accepts narrowPeak files.
`read_bed_features` reads columns 7 to 12 in addition. The rows of a file may be in any order and may
overlap.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from genoscan.errors import InputError
from genoscan.genome.feature import Feature, MalformedRows, Transcript, make_feature, merge_overlapping
from genoscan.genome.files import excerpt, open_text
from genoscan.genome.region import Region, check_bounds

_HEADER_WORDS = ("browser", "track")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_NUMBERS = re.compile(r"\d{1,18}(,\d{1,18})*,?", re.ASCII)
_VCF_HEADERS = ("##fileformat=VCF", "#CHROM\tPOS\tID\tREF\tALT")


def read_bed(path: str | Path, sizes: Mapping[str, int] | None, *, clip: bool = False) -> list[Region]:
    """Return the rows of a BED file as regions, in file order.

    Parameters
    ----------
    path
        Path of a pipe or of a BED file, which may be compressed with gzip or bgzip.
    sizes
        Length of each sequence of the genome, in bases. If None, regions are not compared with sequences.
    clip
        If True, shorten each region that extends past the end of its sequence, and set the attribute
        `clipped` of the region. If False, raise an error for such a region.

    Returns
    -------
    list of Region
        One region per row. The attribute `source` of a region contains the path of the file and the line
        number of the row.

    Raises
    ------
    InputError
        If the file cannot be read or has no rows, or if a row is malformed or describes a region outside
        the genome.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a BED file")
    with open_text(path) as lines:
        rows = _rows(lines, path)
        regions = list(rows) if sizes is None else [check_bounds(region, sizes, clip) for region in rows]
    if not regions:
        raise InputError(f"{path}: no regions in it, expected at least one BED row")
    return regions


def read_bed_features(lines: Iterable[str], path: Path, malformed: MalformedRows) -> list[Feature]:
    """Read the rows of a BED file as features, including the exons (blocks) described in columns 7 to 12.

    Parameters
    ----------
    lines
        Lines of the file.
    path
        Path of the file, for error messages.
    malformed
        Object that counts the malformed rows, which are skipped.

    Returns
    -------
    list of Feature
        Features in the order of the file. Columns 7 to 12 are ignored in rows in which they do not describe
        valid blocks.
    """
    features = []
    for number, line in data_lines(lines, path):
        try:
            region = _row(line, f"{path}:{number}")
        except InputError as problem:
            malformed.add(problem)
        else:
            columns = line.split("\t", 12) if "\t" in line else line.split(None, 12)
            features.append(make_feature(region, _blocks(region, columns[6:12])))
    return features


def data_lines(lines: Iterable[str], path: Path) -> Iterator[tuple[int, str]]:
    """Yield the data rows of a BED file, skipping empty lines, comments, and `browser` and `track` lines.

    Parameters
    ----------
    lines
        Lines of the file.
    path
        Path of the file, for error messages.

    Yields
    ------
    int, str
        Line number, counted from 1, and text of the row.

    Raises
    ------
    InputError
        If the file is a VCF file.
    """
    for number, line in enumerate(lines, 1):
        if line.startswith(_VCF_HEADERS):
            raise InputError(
                f"{path}:{number}: is a VCF, expected BED; genoscan variants computes the effects of its "
                "variants, and bcftools query -f '%CHROM\\t%POS0\\t%END\\n' converts a VCF to BED"
            )
        line = line.rstrip()
        if line and not line.startswith("#") and line.split(maxsplit=1)[0] not in _HEADER_WORDS:
            yield number, line


def is_bed_row(line: str) -> bool:
    """Return whether a line begins with the three required columns of BED: sequence name, start and end.

    Parameters
    ----------
    line
        A line of text.

    Returns
    -------
    bool
        True if the line has at least three columns, and columns 2 and 3 contain whole numbers.
    """
    columns = line.split("\t", 3) if "\t" in line else line.split(None, 3)
    return len(columns) > 2 and all(_NUMBER.fullmatch(column.strip()) for column in columns[1:3])


def _blocks(region: Region, columns: list[str]) -> list[Transcript]:
    if len(columns) < 6 or not all(_NUMBERS.fullmatch(columns[i].strip()) for i in (0, 1, 3, 4, 5)):
        return []
    thick_start, thick_end, (count, *_), lengths, starts = (
        [int(text) for text in columns[i].strip().rstrip(",").split(",")] for i in (0, 1, 3, 4, 5)
    )
    exons = merge_overlapping(
        (region.start + start, region.start + start + length)
        for start, length in zip(starts, lengths, strict=False)
        if length
    )
    if not (count == len(lengths) == len(starts) and exons) or exons[-1][1] > region.end:
        return []
    return [Transcript(region.start, region.end, exons, (thick_start[0], max(thick_start[0], thick_end[0])))]


def _rows(lines: Iterable[str], path: Path) -> Iterator[Region]:
    for number, line in data_lines(lines, path):
        yield _row(line, f"{path}:{number}")


def _row(line: str, where: str) -> Region:
    if control := _CONTROL.search(line):
        raise InputError(f"{where}: found the control character {control[0]!a}, expected text")
    columns = line.split("\t", 6) if "\t" in line else line.split(None, 6)
    if len(columns) < 3:
        raise InputError(
            f"{where}: found {len(columns)} column{'s' * (len(columns) > 1)}, "
            f"expected chromosome, start and end, with tabs between"
        )
    chrom, name, strand = columns[0], "", "."
    start = _number(columns[1], "start", where)
    end = _number(columns[2], "end", where)
    if end <= start:
        raise InputError(f"{where}: end {end} is not after start {start}")
    if len(columns) > 3 and columns[3] != ".":
        name = columns[3]
    if len(columns) > 5:
        strand = columns[5]
    if strand not in ("+", "-", "."):
        raise InputError(f'{where}: strand (column 6) is "{excerpt(strand)}", expected "+", "-" or "."')
    return Region(chrom, start, end, name=name, strand=strand, source=where)


def _number(text: str, column: str, where: str) -> int:
    if _NUMBER.fullmatch(text):
        return int(text)
    hint = "; a line of column names must begin with #" if text[:1].isalpha() else ""
    raise InputError(f'{where}: {column} is "{excerpt(text)}", expected a whole number, 0 or more{hint}')
