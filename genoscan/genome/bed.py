"""Read BED files.

BED is 0-based and half-open, like all coordinates inside genoscan. Columns 1 to 4 and 6 are read;
the score and further columns are ignored, so that narrowPeak files can be read too. Rows may be in
any order and may overlap.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from genoscan.errors import InputError
from genoscan.genome.files import open_text
from genoscan.genome.region import Region, check_bounds

_HEADER_WORDS = ("browser", "track")
_VCF_HEADERS = ("##fileformat=VCF", "#CHROM\tPOS\tID\tREF\tALT")


def read_bed(path: str | Path, sizes: Mapping[str, int], *, clip: bool = False) -> list[Region]:
    """Return the rows of a BED file, in the order of the file.

    Parameters
    ----------
    path
        Plain, gzip or bgzip file, or a pipe.
    sizes
        Length of every sequence of the genome, in bases.
    clip
        Whether to shorten a row that ends past its chromosome, and mark it as `clipped`, instead
        of raising an error.

    Returns
    -------
    list of Region
        One region per row; its `source` is the file and line number.

    Raises
    ------
    InputError
        If the file cannot be read or has no rows, or a row is malformed or outside the genome.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a BED file")
    with open_text(path) as lines:
        regions = [check_bounds(region, sizes, clip) for region in _rows(lines, path)]
    if not regions:
        raise InputError(f"{path}: no regions in it, expected at least one BED row")
    return regions


def _rows(lines: Iterable[str], path: Path) -> Iterator[Region]:
    for number, line in enumerate(lines, 1):
        if line.startswith(_VCF_HEADERS):
            raise InputError(
                f"{path}:{number}: is a VCF, expected BED; genoscan response --at CHROM:POS computes the effect of "
                "a single variant, and bcftools query -f '%CHROM\\t%POS0\\t%END\\n' converts a VCF to BED"
            )
        line = line.rstrip()
        if not line or line.startswith("#") or line.split(maxsplit=1)[0] in _HEADER_WORDS:
            continue
        yield _row(line, f"{path}:{number}")


def _row(line: str, where: str) -> Region:
    if "\0" in line:
        raise InputError(f"{where}: found a zero byte, expected text")
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
        raise InputError(f'{where}: strand (column 6) is "{strand}", expected "+", "-" or "."')
    return Region(chrom, start, end, name=name, strand=strand, source=where)


def _number(text: str, column: str, where: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 19:
        return int(text)
    hint = "; a line of column names must begin with #" if text[:1].isalpha() else ""
    raise InputError(f'{where}: {column} is "{text}", expected a whole number, 0 or more{hint}')
