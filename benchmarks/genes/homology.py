"""Genes of a test set that resemble a training gene, by BLAST (Altschul et al., 1990), whose programs
makeblastdb and blastn must be installed.

Two coding sequences are similar if alignments with at least 70 % identity cover at least half of the test
sequence.
"""

import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from genoscan.genome.alphabet import BASES
from genoscan.genome.feature import Feature, merge_overlapping
from genoscan.genome.genome import Genome
from genoscan.training.labels import coding_parts, longest_coding

IDENTITY, COVERAGE = 70.0, 0.5


def similar_genes(
    test: tuple[Genome, Sequence[Feature]], training: tuple[Genome, Sequence[Feature]], threads: int = 2
) -> list[Feature]:
    """Return the test genes whose coding sequence resembles that of a training gene.

    Parameters
    ----------
    test, training
        Genome and genes.
    threads
        Number of threads of blastn.

    Returns
    -------
    list of Feature
        Similar genes, in the order of the test genes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = _write_coding(folder / "test.fa", *test)
        _write_coding(folder / "training.fa", *training)
        subprocess.run(
            ["makeblastdb", "-in", folder / "training.fa", "-dbtype", "nucl", "-out", folder / "db"],
            check=True,
            capture_output=True,
        )
        wanted = [
            "-query",
            str(folder / "test.fa"),
            "-db",
            str(folder / "db"),
            "-outfmt",
            "6 qseqid qstart qend pident",
        ]
        options = ["-task", "dc-megablast", "-evalue", "1e-5", "-num_threads", str(threads)]
        done = subprocess.run(["blastn", *wanted, *options], check=True, capture_output=True, text=True)
    covered: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for line in done.stdout.splitlines():
        number, start, end, identity = line.split("\t")
        if float(identity) >= IDENTITY:
            covered[int(number)].append((int(start) - 1, int(end)))
    similar = {
        number
        for number, parts in covered.items()
        if sum(end - start for start, end in merge_overlapping(parts)) >= COVERAGE * lengths[number]
    }
    return [gene for number, gene in enumerate(test[1]) if number in similar]


def _write_coding(path: Path, genome: Genome, genes: Iterable[Feature]) -> dict[int, int]:
    """Write the longest coding sequence of each gene as FASTA, named by its number; return the lengths."""
    lengths = {}
    with path.open("w") as file:
        for number, gene in enumerate(genes):
            transcript = longest_coding(gene)
            if transcript is None:
                continue
            parts = [genome.fetch(gene.chrom, start, end) for start, end in coding_parts(transcript)]
            letters = "".join((BASES + "N")[code] for part in parts for code in part)
            lengths[number] = len(letters)
            file.write(f">{number}\n{letters}\n")
    return lengths
