"""Exons, introns and coding parts in pages, reports, sessions and hubs, from every format of annotations."""

import itertools
import json
import re
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pybigtools
import pyBigWig
import pysam
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import CompoundLocation, SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord
from commands import bases, genoscan, write_fasta
from hypothesis import given
from hypothesis import strategies as st

from genoscan.export.gene_strip import Bar, GeneIndex, gene_strip
from genoscan.export.logo import logo
from genoscan.genome.annotation import annotation_format, read_annotation
from genoscan.genome.feature import Feature, Transcript
from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.tracks.bigbed import write_bigbed
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.writer import open_track

SIZES = {"chr1": 2_000}
EXONS, CODING = ((100, 200), (300, 400)), (150, 350)


def rows(kind: str) -> str:
    """Return gene abcA: exons 101 to 200 and 301 to 400, of which 151 to 350 is coding."""
    if kind == "BED":
        return "chr1\t100\t400\tabcA\t0\t+\t150\t350\t0\t2\t100,100\t0,200\n"
    gene, transcript, part = {
        "GFF3": ("ID=g;Name=abcA", "ID=t;Parent=g", "Parent=t"),
        "GTF": ('gene_id "g"; gene_name "abcA"', *(['gene_id "g"; transcript_id "t"'] * 2)),
    }[kind]
    parts = [("exon", a, b) for a, b in EXONS] + [("CDS", 150, 200), ("CDS", 300, 350)]
    lines = [("gene", 100, 400, gene), ("transcript", 100, 400, transcript), *((*found, part) for found in parts)]
    return "".join(f"chr1\tx\t{name}\t{a + 1}\t{b}\t.\t+\t.\t{about}\n" for name, a, b, about in lines)


def write(kind: str, folder: Path) -> Path:
    path = folder / f"genes.{kind.lower()}"
    if kind != "GenBank":
        path.write_text(rows(kind))
        return path
    record = SeqRecord(Seq("A" * SIZES["chr1"]), id="chr1", name="chr1", annotations={"molecule_type": "DNA"})
    for key, parts in (("gene", [(100, 400)]), ("mRNA", EXONS), ("CDS", [(150, 200), (300, 350)])):
        places = [SimpleLocation(a, b, 1) for a, b in parts]
        location = CompoundLocation(places) if len(places) > 1 else places[0]
        record.features.append(SeqFeature(location, key, qualifiers={"gene": ["abcA"]}))
    SeqIO.write([record], path, "genbank")
    return path


@pytest.mark.parametrize("kind", ["GFF3", "GTF", "BED", "GenBank"])
def test_thick_thin_and_introns_of_every_format(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path)
    assert annotation_format(path) == kind
    (gene,) = read_annotation(path, SIZES)
    strip = gene_strip([gene], Region("chr1", 120, 1_000), max_lanes=2)
    name = "abcA \N{BLACK RIGHT-POINTING TRIANGLE}"
    places = [(120, 400, 0), (120, 150, 1), (150, 200, 2), (300, 350, 2), (350, 400, 1)]
    assert strip.bars == tuple(Bar(start, end, 0, height, name) for start, end, height in places)
    assert (strip.lanes, strip.omitted) == (1, 0)


def test_genbank_products_without_an_mrna_are_kept(tmp_path: Path) -> None:
    """Two mRNAs share a coding sequence; of three coding sequences, one fits neither."""
    record = SeqRecord(Seq("A" * SIZES["chr1"]), id="chr1", name="chr1", annotations={"molecule_type": "DNA"})
    for key, start, end in [
        ("gene", 50, 500),
        ("mRNA", 100, 400),
        ("mRNA", 50, 400),
        ("CDS", 150, 350),
        ("CDS", 150, 350),
        ("CDS", 380, 500),
    ]:
        record.features.append(SeqFeature(SimpleLocation(start, end, 1), key, qualifiers={"gene": ["abcA"]}))
    SeqIO.write([record], tmp_path / "x.gb", "genbank")
    (gene,) = read_annotation(tmp_path / "x.gb", SIZES)
    assert gene.transcripts == (
        Transcript(100, 400, ((100, 400),), (150, 350)),
        Transcript(50, 400, ((50, 400),), (150, 350)),
        Transcript(380, 500, ((380, 500),), (380, 500)),
    )


def features(spans: list[tuple[int, int]]) -> list[Feature]:
    return [Feature("chr1", start, end, name=str(i), strand=".") for i, (start, end) in enumerate(spans)]


spans = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 300)).map(lambda at: (at[0], sum(at))), max_size=30)


@given(spans, st.integers(0, 800), st.integers(1, 400), st.integers(1, 4))
def test_lanes_do_not_overlap_and_nothing_is_lost(
    found: list[tuple[int, int]], start: int, length: int, lanes: int
) -> None:
    region = Region("chr1", start, start + length)
    inside = GeneIndex(features(found)).overlapping(region)
    expected = {(a, b) for a, b in found if a < region.end and b > region.start}
    assert {(f.start, f.end) for f in inside} == expected
    assert len(inside) == sum(a < region.end and b > region.start for a, b in found)
    strip = gene_strip(inside, region, max_lanes=lanes)
    drawn = [bar for bar in strip.bars if bar.height == 0]
    assert len(drawn) + strip.omitted == len(inside)
    assert strip.lanes <= lanes
    for lane in range(strip.lanes):
        mine = sorted((bar.start, bar.end) for bar in drawn if bar.lane == lane)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(mine))
    assert all(region.start <= bar.start < bar.end <= region.end for bar in strip.bars)


def test_exons_below_a_logo() -> None:
    bars = [Bar(10, 14, 0, 0, "a<b"), Bar(12, 14, 0, 2, "a<b")]
    drawn = logo("ACGT", np.ones(4, np.float32), label="x", start=10, genes=bars)
    places = re.findall(r'<rect class="gene" x="([\d.]+)" width="([\d.]+)" y="[\d.]+" height="(\d)">', drawn)
    assert places == [("0", "56", "1"), ("28", "28", "9")]
    assert drawn.count("a&lt;b") == 2
    assert 'viewBox="0 0 56 134"' in drawn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a genome, and a track of 1,000 bases with a score."""
    genome = write_fasta(tmp_path / "g.fa", {chrom: bases(size, seed=size) for chrom, size in SIZES.items()})
    pysam.faidx(str(genome))
    region = Region("chr1", 0, 1_000)
    with open_track(tmp_path / "x.bw", SIZES) as track:
        track.write(region, np.random.default_rng(1).normal(size=1_000).astype(np.float32))
    sequences = [{"name": "chr1", "length": SIZES["chr1"], "m5": open_genome(genome).m5("chr1")}]
    record = {"model": "m", "target": "log-likelihood", "score": "centred", "regions": [str(region)]}
    write_provenance(tmp_path / "x.bw", record | {"sequences": sequences})
    return tmp_path


def run(*arguments: Any) -> None:
    done = genoscan(*arguments)
    assert done.code == 0, done.err


@pytest.mark.parametrize("kind", ["GFF3", "GTF", "BED"])
def test_sessions_refer_to_an_annotation(kind: str, folder: Path) -> None:
    path = write(kind, folder)
    asked = folder / "x.bw", "-g", folder / "g.fa", "-a", path, "-o"
    run("export", "igv", *asked, folder / "s.xml")
    root = ElementTree.parse(folder / "s.xml").getroot()
    assert {(r.attrib["path"], r.attrib["type"]) for r in root.iter("Resource")} == {
        ("x.bw", "bigwig"),
        (path.name, kind.lower()),
    }
    assert [t.attrib["id"] for t in root.iter("Track")] == ["x.bw", path.name]
    run("export", "jbrowse", *asked, folder / "c.json", "-r", "abcA")
    config = json.loads((folder / "c.json").read_text())
    genes = config["tracks"][1]
    adapter = {"GFF3": ("Gff3Adapter", "gffLocation"), "GTF": ("GtfAdapter", "gtfLocation")}
    name, location = adapter.get(kind, ("BedAdapter", "bedLocation"))
    assert genes["adapter"]["type"] == name
    assert genes["adapter"][location]["uri"] == path.name
    view = config["defaultSession"]["views"][0]["init"]
    assert (view["loc"], view["tracks"][-1]) == ("chr1:101-400", genes["trackId"])


def test_sessions_refuse_genbank(folder: Path) -> None:
    path = write("GenBank", folder)
    for command, output in (("igv", "s.xml"), ("jbrowse", "c.json")):
        asked = ("export", command, folder / "x.bw", "-g", folder / "g.fa", "-a", path, "-o", folder / output)
        done = genoscan(*asked)
        assert done.code == 1
        assert "is a GenBank file, expected GFF3, GTF or BED" in done.err
        assert not (folder / output).exists()


@pytest.mark.parametrize("kind", ["GFF3", "GenBank"])
def test_a_hub_has_an_annotation(kind: str, folder: Path) -> None:
    asked = folder / "x.bw", "-g", folder / "g.fa", "-a", write(kind, folder)
    run("export", "hub", *asked, "--email", "a@b", "-o", folder / "hub")
    stanza = (folder / "hub" / "g" / "trackDb.txt").read_text().split("\n\n")[-1]
    assert "bigDataUrl genes.bb\n" in stanza
    assert "type bigBed 12\n" in stanza
    with pyBigWig.open(str(folder / "hub" / "g" / "genes.bb")) as file:
        (row,) = file.entries("chr1", 0, 2_000)
    assert row == (100, 400, "abcA\t0\t+\t150\t350\t0\t2\t100,100\t0,200")


@given(spans)
def test_a_bigbed_is_read_by_others(found: list[tuple[int, int]]) -> None:
    """Rows, depth and searches of overlapping features agree with two other readers."""
    sizes = {"chr1": 1_300, "chr2": 10}
    drawn = [*features(found), Feature("chr2", 3, 9, name="last", strand="-")]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("genoscan.tracks.bigbed._PER_BLOCK", 3)
        patch.setattr("genoscan.tracks.bigwig_index.FAN", 3)
        path = Path(folder) / "x.bb"
        assert write_bigbed(path, drawn, sizes) == len(drawn)
        with pyBigWig.open(str(path)) as file:
            assert file.chroms() == sizes
            for first, last in ((0, 1_300), (200, 260), (899, 1_000)):
                rows = file.entries("chr1", first, last, False) or []
                assert sorted(row[:2] for row in rows) == sorted((a, b) for a, b in found if a < last and b > first)
            header = file.header()
        reader = pybigtools.open(str(path))
        assert [row[:2] for row in reader.records("chr1")] == sorted(found)
        assert [row[:3] for row in reader.records("chr2")] == [(3, 9, "last")]
    depth = np.zeros(1_310, int)
    depth[1_303:1_309] = 1
    for a, b in found:
        depth[a:b] += 1
    covered = depth[depth > 0]
    assert header["nBasesCovered"] == len(covered)
    assert (header["minVal"], header["maxVal"]) == (covered.min(), covered.max())
    assert (header["sumData"], header["sumSquared"]) == (covered.sum(), (covered**2).sum())


def test_a_report_draws_genes_and_has_no_profile_of_a_few(folder: Path) -> None:
    run("report", folder / "x.bw", "-g", folder / "g.fa", "-a", write("GFF3", folder), "-o", folder / "r.html")
    text = (folder / "r.html").read_text()
    assert "No profile: 1 feature begins at a base with a score" in text
    assert 'id="profile"' not in text
    assert '"bars": [[101, 400, 0, 0, 0], [101, 150, 0, 1, 0], [151, 200, 0, 2, 0]' in text
    rows = "".join(f"chr1\t{start}\t{start + 40}\tg{start}\t0\t+\n" for start in range(50, 300, 50))
    (folder / "five.bed").write_text(rows)
    run("report", folder / "x.bw", "-g", folder / "g.fa", "-a", folder / "five.bed", "-o", folder / "r.html")
    assert "of the 5 features" in (folder / "r.html").read_text()


@pytest.mark.parametrize(("n_rows", "lanes", "omitted"), [(6, 6, 0), (12, 6, 6), (13, 0, 13)])
def test_too_many_genes_are_not_drawn(folder: Path, n_rows: int, lanes: int, omitted: int) -> None:
    (folder / "many.bed").write_text("".join(f"chr1\t{i}\t900\tg{i}\n" for i in range(n_rows)))
    run("report", folder / "x.bw", "-g", folder / "g.fa", "-a", folder / "many.bed", "-o", folder / "r.html")
    assert f'"genes": {{"lanes": {lanes}, "omitted": {omitted},' in (folder / "r.html").read_text()


def test_a_report_of_sparse_scores_has_no_profile(folder: Path) -> None:
    with pyBigWig.open(str(folder / "sparse.bw"), "w") as file:
        file.addHeader(list(SIZES.items()))
        file.addEntries(["chr1"], [100], ends=[119], values=[1.0])
    run("report", folder / "sparse.bw", "-g", folder / "g.fa", "-a", write("GFF3", folder), "-o", folder / "r.html")
    assert "No profile: fewer than 1% of the bases have a score." in (folder / "r.html").read_text()
