"""The measures of the gene models, on small genomes whose answers are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import bases
from headed import LAYERS

from benchmarks.genes import accuracy
from benchmarks.genes.accuracy import (
    LabelledRegion,
    class_accuracy,
    exon_f1,
    labelled_regions,
    predict,
    site_metrics,
    site_scores,
    without_regions,
    without_utr_introns,
)
from benchmarks.genes.data import find_genes
from benchmarks.genes.profiles import (
    MUTATED,
    SATURATED_AROUND,
    SHOWN,
    Scores,
    Sites,
    annotated_sites,
    contrast,
    decoys,
    saturation,
    site_attributions,
)
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.region import Region
from genoscan.layers.config import ModelConfig
from genoscan.layers.weights import build, save_model
from genoscan.model import Model, load_model
from genoscan.training.labels import FRAME_SITES, FRAMES, GENE_SITES, GENES, MAX_LABELS

GENE = """\
chr1\tx\tgene\t{a}\t{b}\t.\t{s}\t.\tID=g{a}
chr1\tx\tmRNA\t{a}\t{b}\t.\t{s}\t.\tID=t{a};Parent=g{a}
chr1\tx\texon\t{a}\t{c}\t.\t{s}\t.\tParent=t{a}
chr1\tx\texon\t{d}\t{e}\t.\t{s}\t.\tParent=t{a}
chr1\tx\texon\t{f}\t{b}\t.\t{s}\t.\tParent=t{a}
chr1\tx\tCDS\t{cds}\t{e}\t.\t{s}\t0\tParent=t{a}
chr1\tx\tCDS\t{f}\t{stop}\t.\t{s}\t0\tParent=t{a}
"""


@pytest.fixture(scope="module")
def eukaryote(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledRegion]:
    """Return a genome with one gene on each strand; the first intron of the first is not coding."""
    folder = tmp_path_factory.mktemp("genes")
    (folder / "g.fa").write_text(f">chr1\n{bases(9000, 2)}\n")
    first = GENE.format(a=2001, c=2050, d=2101, e=2200, f=2301, b=2400, cds=2111, stop=2380, s="+")
    second = GENE.format(a=5001, c=5050, d=5101, e=5200, f=5301, b=5400, cds=5111, stop=5380, s="-")
    (folder / "g.gff3").write_text("##gff-version 3\n" + first + second)
    return labelled_regions(folder / "g.fa", folder / "g.gff3", "genes", [])


@pytest.fixture(scope="module")
def bacterium(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledRegion]:
    folder = tmp_path_factory.mktemp("frames")
    (folder / "g.fa").write_text(f">chr1\n{bases(12_000, 2)}\n")
    rows = "chr1\tx\tCDS\t2001\t4400\t.\t+\t0\tID=a\nchr1\tx\tCDS\t6001\t9000\t.\t-\t0\tID=b\n"
    (folder / "g.gff3").write_text("##gff-version 3\n" + rows)
    return labelled_regions(folder / "g.fa", folder / "g.gff3", "frames", [])


def model_of(folder: Path, kind: str, heads: dict[str, object]) -> Model:
    settings = {"d_model": 6, "context": 9, "reach": 5, "trained_on": "nothing", "heads": heads}
    config = ModelConfig.model_validate(settings | LAYERS[kind])
    torch.manual_seed(1)
    save_model(folder, config, build(config), "")
    return load_model(folder, tile=512)


def perfect(part: LabelledRegion, head: str) -> np.ndarray:
    """Return logits that are high at the labels and low elsewhere."""
    bits = np.arange(len(part.heads[head].config.labels))
    return np.where(part.labels(head)[:, None] >> bits & 1, 5.0, -5.0).astype(np.float32)


def test_perfect_predictions_have_perfect_metrics(eukaryote: list[LabelledRegion]) -> None:
    logits = [perfect(part, "genes") for part in eukaryote]
    assert class_accuracy(eukaryote, logits, "genes") == 1
    assert exon_f1(eukaryote, logits) == 1
    shifted = [np.roll(one, 1, 0) for one in logits]
    assert exon_f1(eukaryote, shifted) == 0
    for site, count in (("donor", 4), ("acceptor", 4), ("start", 2), ("stop", 2)):
        found = site_metrics(site_scores(eukaryote, [perfect(part, "sites") for part in eukaryote], site))
        assert (found["sites"], found["auprc"], found["top_n_precision"]) == (count, 1, 1)


def test_parts_can_be_left_out(eukaryote: list[LabelledRegion]) -> None:
    [part] = eukaryote
    coding = site_scores([without_utr_introns(part)], [perfect(part, "sites")], "donor")
    assert (coding.truth.sum(), len(coding.truth)) == (2, 2 * 9000 - 2)  # one intron of each gene is in its UTR
    apart = without_regions(part, [Region("chr1", 2000, 2400)])
    found = site_scores([apart], [perfect(part, "sites")], "donor")
    assert (found.truth.sum(), len(found.truth)) == (2, 2 * (9000 - 400))


def test_predictions_are_whole_sequences(
    eukaryote: list[LabelledRegion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = {"genes": GENES.model_dump(), "sites": GENE_SITES.model_dump()}
    model = model_of(tmp_path / "m", "bidirectional", heads)
    monkeypatch.setattr(accuracy, "PIECE", 1000)
    monkeypatch.setattr(accuracy, "CONTEXT", 9000)
    found = predict(model, eukaryote[0])
    codes = torch.from_numpy(eukaryote[0].codes().astype(np.int64))
    with torch.no_grad():
        outputs = model.network(model.table()[codes][None])[0].numpy()
    for name, columns in model.config.output_columns.items():
        if name:
            np.testing.assert_allclose(found[name], outputs[:, columns], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["donor", "acceptor"])
def test_decoys_of_splice_sites(eukaryote: list[LabelledRegion], name: str) -> None:
    [part] = eukaryote
    found, codes = decoys(part, name, 50), part.codes()
    sites = set(annotated_sites(part, name, 50).positions.tolist())
    assert len(found.positions) > 10 and sites.isdisjoint(found.positions.tolist())
    for at, reverse in zip(*found, strict=True):
        pair = codes[at : at + 2] if (name == "donor") != reverse else codes[at - 1 : at + 1]
        pair = reverse_complement(pair) if reverse else pair
        assert "".join("ACGT"[code] for code in pair) == {"donor": "GT", "acceptor": "AG"}[name]
        assert (2000 <= at < 2400) if not reverse else (5000 <= at < 5400)


def test_decoys_of_starts_are_in_frame(bacterium: list[LabelledRegion]) -> None:
    [part] = bacterium
    found, codes = decoys(part, "start", 50), part.codes()
    assert len(found.positions) > 10
    for at, reverse in zip(*found, strict=True):
        codon = reverse_complement(codes[at - 2 : at + 1]) if reverse else codes[at : at + 3]
        assert "".join("ACGT"[code] for code in codon) in ("ATG", "GTG", "TTG")
        assert (at - 2000) % 3 == 0 if not reverse else (8999 - at) % 3 == 0
        assert at not in (2000, 8999)


def test_decoys_of_starts_in_plants_are_atg(eukaryote: list[LabelledRegion]) -> None:
    [part] = eukaryote
    found, codes = decoys(part, "start", 50), part.codes()
    assert len(found.positions) > 10
    assert set(annotated_sites(part, "start", 50).positions.tolist()).isdisjoint(found.positions.tolist())
    for at, reverse in zip(*found, strict=True):
        codon = reverse_complement(codes[at - 2 : at + 1]) if reverse else codes[at : at + 3]
        assert "".join("ACGT"[code] for code in codon) == "ATG"


def test_attributions_are_in_the_direction_of_the_gene(bacterium: list[LabelledRegion], tmp_path: Path) -> None:
    heads = {"frames": FRAMES.model_dump(), "sites": FRAME_SITES.model_dump()}
    model = model_of(tmp_path / "m", "bidirectional", heads)
    [part] = bacterium
    sites = annotated_sites(part, "start", 10)
    assert sites.positions.tolist() == [2000, 8999]
    found = site_attributions(model, part, "start", sites)
    codes = part.codes()
    np.testing.assert_array_equal(found.codes[0], codes[2000 - SHOWN : 2000 + SHOWN + 1])
    np.testing.assert_array_equal(found.codes[1], reverse_complement(codes[8999 - SHOWN : 8999 + SHOWN + 1]))
    expected, exact = [], []
    for at, reverse in zip(*sites, strict=True):
        codes = part.codes()[at - SATURATED_AROUND : at + SATURATED_AROUND + 1].astype(np.int64)
        number = FRAME_SITES.labels.index("start-" if reverse else "start+")

        def logit(x: torch.Tensor, number: int = number) -> torch.Tensor:
            outputs: torch.Tensor = model.with_head("sites").stack(x[None])
            return outputs[0, SATURATED_AROUND, number]

        x = model.table()[torch.from_numpy(codes)].requires_grad_()
        before = logit(x)
        (x_bar,) = torch.autograd.grad(before, x)
        for i in range(SATURATED_AROUND - MUTATED, SATURATED_AROUND + MUTATED + 1):
            for base in {0, 1, 2, 3} - {int(codes[i])}:
                changed = x.detach().clone()
                changed[i] = model.table()[base]
                expected.append(float(x_bar[i, base] - x_bar[i, codes[i]]))
                with torch.no_grad():
                    exact.append(float(logit(changed) - before.detach()))
    ranks = pd.DataFrame({"expected": expected, "exact": exact}).rank()
    correlation = saturation(model, part, "start", sites)
    assert correlation["changes"] == len(exact)
    assert correlation["spearman"] == pytest.approx(ranks.corr().iloc[0, 1], abs=0.02)


def test_contrast_of_sites_and_decoys() -> None:
    random = np.random.default_rng(1)

    def scores(scale: float, count: int) -> Scores:
        values = random.normal(size=(count, 2 * SHOWN + 1)).astype(np.float32)
        values[:, SHOWN - 15 : SHOWN - 4] *= scale
        return Scores(np.zeros(values.shape, np.uint8), np.stack([values, *3 * [-values / 3]], 2))

    different = contrast(scores(3.0, 60), scores(1.0, 90), (-15, -5))
    assert different.ratio == pytest.approx(3, rel=0.15)
    assert different.p < 0.001
    assert contrast(scores(1.0, 60), scores(1.0, 90), (-15, -5)).p > 0.01


def test_classes_of_overlapping_genes(bacterium: list[LabelledRegion]) -> None:
    """Either class is right where genes overlap, although training ignores these bases."""
    [part] = bacterium
    labels = part.heads["frames"].labels["chr1"].copy()
    labels[100] = 0b0010010 | ((1 << 7) - 1) << MAX_LABELS
    labels[101] = 0b0000001 | ((1 << 7) - 1) << MAX_LABELS  # ignored, and in one class only
    head = replace(part.heads["frames"], labels={"chr1": labels})
    part = replace(part, heads=part.heads | {"frames": head})
    for number, right in ((1, 1.0), (4, 1.0), (2, 1 - 1 / 11_999)):
        logits = perfect(part, "frames")
        logits[100] = np.eye(7)[number]
        assert class_accuracy([part], [logits], "frames") == pytest.approx(right)


def test_genes_of_pyrodigal_begin_and_end_with_their_codons() -> None:
    random = np.random.default_rng(1)
    codons = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT" if a + b + c not in ("TAA", "TAG", "TGA")]
    parts = []
    for _ in range(60):
        parts += [random.choice(list("AT"), 300), ["AGGAGGTAATACC", "ATG"], random.choice(codons, 500), ["TAA"]]
    letters = "".join("".join(part) for part in parts)
    found = [gene for gene in find_genes({"s": letters}) if gene.complete]
    assert len(found) > 40
    complement = str.maketrans("ACGT", "TGCA")
    for gene in found:
        read = letters[gene.start : gene.end]
        read = read if gene.strand == "+" else read[::-1].translate(complement)
        assert (read[:3] in ("ATG", "GTG", "TTG"), read[-3:] in ("TAA", "TAG", "TGA"), len(read) % 3) == (True, True, 0)


def test_sites_are_drawn_with_a_seed(bacterium: list[LabelledRegion]) -> None:
    [part] = bacterium
    one, again = (decoys(part, "start", 20) for _ in range(2))
    assert isinstance(one, Sites)
    np.testing.assert_array_equal(one.positions, again.positions)
