"""The read-out finds a frame that is there, on both strands, and none where there is none."""

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord
from commands import benchmark, tiny_model

LENGTH, GENE = 24_000, 1_200


@pytest.fixture(autouse=True)
def unpictured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no browser here")

    monkeypatch.setattr(go.Figure, "write_image", refuse)


def annotated(path: Path, codon: str | None) -> Path:
    """Write random bases with genes on both strands that repeat a codon, or are random too."""
    random = np.random.default_rng(1)
    letters = "".join(random.choice(list("ACGT"), LENGTH))
    genes = []
    for i, start in enumerate(range(200, LENGTH - GENE, GENE + 203)):
        strand = 1 if i % 2 else -1
        if codon:
            gene = Seq(codon * (GENE // 3))
            said = str(gene if strand == 1 else gene.reverse_complement())
            letters = letters[:start] + said + letters[start + GENE :]
        place = SimpleLocation(start, start + GENE, strand)
        genes.append(SeqFeature(place, type="CDS", qualifiers={"gene": [f"g{i}"]}))
    record = SeqRecord(Seq(letters), id="chr1", name="chr1", annotations={"molecule_type": "DNA"})
    record.features = genes
    SeqIO.write([record], path, "genbank")
    return path


def table(tmp_path: Path, codon: str | None) -> pd.DataFrame:
    genome, model = annotated(tmp_path / "toy.gb", codon), tiny_model(tmp_path / "tiny")
    done = benchmark("reading-frame", genome, model, "-o", tmp_path)
    assert done.code == 0, done.err
    rows = pd.read_csv(tmp_path / "reading-frame.csv")
    assert set(rows.reader) == {"the last 30 bases", str(model)}
    assert set(rows.distance) == {10, 30, 100, 300, 1_000}  # 3,000 is past every gene's end
    return rows


def test_a_rhythm_is_read_on_both_strands(tmp_path: Path) -> None:
    rows = table(tmp_path, "ACG")
    assert (rows.right == 1).all()


def test_random_genes_have_no_frame(tmp_path: Path) -> None:
    rows = table(tmp_path, None)
    assert (abs(rows.right - 1 / 3) < 0.15).all()
    assert (rows.error > 0).all()


def test_genes_are_needed_in_both_halves(tmp_path: Path) -> None:
    genome = annotated(tmp_path / "toy.gb", None)
    genome.write_text(genome.read_text().replace("     CDS  ", "     gene "))
    done = benchmark("reading-frame", genome, tiny_model(tmp_path / "m"), "-o", tmp_path)
    assert done.code == 1
    assert "toy.gb: chr1: expected genes (CDS) in both its halves" in done.err
