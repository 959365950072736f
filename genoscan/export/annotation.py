"""Reader for genes and other features in BED, GFF3 and GenBank files."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from genoscan.errors import InputError
from genoscan.genome.bed import read_bed
from genoscan.genome.files import head, open_text
from genoscan.genome.genbank import read_features
from genoscan.genome.region import Region, check_bounds

_GENE_TYPES = "gene", "pseudogene", "ncRNA_gene"
"""Feature types read from GFF3 and GenBank; subfeatures are omitted, because they overlap their genes."""


def read_annotation(path: Path, sizes: Mapping[str, int]) -> list[Region]:
    """Read the features of an annotation file.

    Parameters
    ----------
    path
        GenBank, GFF3 or BED file. The format is detected from the content; a file that is neither
        GenBank nor GFF3 is read as BED.
    sizes
        Sequence lengths in bases.

    Returns
    -------
    list of Region
        Genes, in the order of the file. For a BED file, all rows are returned; for a GenBank file
        without genes, all features.

    Raises
    ------
    InputError
        If the file cannot be read, or a feature is not within the genome.
    """
    if not path.is_file():
        raise InputError(f"{path}: file not found, expected BED, GFF3 or GenBank")
    start = head(path, 1 << 14).lstrip()
    if start.startswith(b"LOCUS"):
        found = read_features(path)
        genes = [f for f in found if f.kind in _GENE_TYPES] or found
        return [check_bounds(part, sizes, clip=False) for gene in genes for part in gene.parts]
    if start.startswith(b"##gff-version"):
        with open_text(path) as lines:
            return [check_bounds(region, sizes, clip=False) for region in _gff3(lines, path)]
    return read_bed(path, sizes)


def _gff3(lines: Iterable[str], path: Path) -> Iterator[Region]:
    for number, line in enumerate(lines, 1):
        if line.startswith("##FASTA"):
            return
        if line.startswith("#") or not line.strip():
            continue
        where, columns = f"{path}:{number}", line.rstrip("\n").split("\t")
        if len(columns) != 9:
            raise InputError(f"{where}: found {len(columns)} columns, expected 9 as in GFF3")
        chrom, _, kind, start, end, _, strand, _, attributes = columns
        if kind not in _GENE_TYPES:
            continue
        if not (start.isdecimal() and end.isdecimal() and 0 < int(start) <= int(end)):
            raise InputError(f"{where}: found {start} to {end}, expected 1-based start <= end")
        fields = dict(part.split("=", 1) for part in attributes.split(";") if "=" in part)
        name = next((fields[key] for key in ("Name", "gene", "ID") if key in fields), "")
        strand = strand if strand in ("+", "-") else "."
        yield Region(unquote(chrom), int(start) - 1, int(end), name=unquote(name), strand=strand, source=where)
