"""Variants in reports and pages: what is read is what was written, in order of effect."""

import base64
import html
import json
import math
import re
from pathlib import Path

import pytest
from commands import bases, genoscan, tiny_model, write_fasta

from genoscan.errors import InputError
from genoscan.export.scored_variants import read_scored_variants, strongest
from genoscan.export.variant_section import variant_section
from genoscan.genome.genome import Genome, open_genome
from genoscan.tracks.reader import BigWig

TEXT = bases(600, 1)


def other(base: str) -> str:
    return "ACGT"["ACGT".index(base) - 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a genome, a track, and the scores of a VCF in every format."""
    folder = tmp_path_factory.mktemp("variants")
    write_fasta(folder / "g.fa", {"chr1": TEXT})
    tiny_model(folder / "tiny")
    rows = ["##fileformat=VCFv4.2", '##INFO=<ID=X,Number=0,Type=Flag,Description="x">']
    rows.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    for at in range(120, 300, 30):
        ref = TEXT[at - 1]
        rows.append(f"1\t{at}\trs{at}\t{ref}\t{other(ref)},<DEL>,{ref}{other(ref)}\t.\t.\tX")
    rows.append(f"1\t500\t.\t{other(TEXT[499])}\t{TEXT[499]}\t.\t.\t.")
    rows.append(f"1\t600\tlast\t{TEXT[599]}\t{TEXT[599]}T\t.\t.\t.")
    (folder / "calls.vcf").write_text("\n".join([*rows, ""]))
    run = "g.fa", "-m", folder / "tiny", "-t", 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outputs = "-o", "s.tsv", "-o", "s.vcf.gz", "-o", "s.vcf"
        assert genoscan("variants", "g.fa", "calls.vcf", *run[1:], *outputs, "--background", 5).code == 0
        assert genoscan("attribute", *run, "-r", "chr1:101-250", "-o", "t.bw").code == 0
    return folder


@pytest.fixture
def genome(folder: Path) -> Genome:
    return open_genome(folder / "g.fa")


@pytest.mark.parametrize("name", ["s.tsv", "s.vcf", "s.vcf.gz"])
def test_scores_are_read_as_written(folder: Path, genome: Genome, name: str) -> None:
    lines = [line.split("\t") for line in (folder / "s.tsv").read_text().splitlines()]
    found = read_scored_variants(folder / name, genome)
    assert len(found) == len(lines) - 1 == 6 * 3 + 2
    for row, variant in zip(lines[1:], found, strict=True):
        values = dict(zip(lines[0], row, strict=True))
        assert (variant.allele.chrom, str(variant.allele.pos), variant.allele.id) == (row[0], row[1], row[2])
        assert variant.status == values["status"]
        assert (variant.region is None) == (values["status"] != "ok")
        for column, value in variant.scores.items():
            assert math.isnan(value) if values.get(column, ".") == "." else value == float(values[column])
    assert {v.status for v in found} > {"ok", "symbolic allele"}
    last = found[-1]
    assert last.region is not None
    assert last.region.end <= 600


def test_the_strongest_come_first(folder: Path, genome: Genome) -> None:
    found = strongest(read_scored_variants(folder / "s.tsv", genome), 5)
    sizes = [abs(variant.delta) for variant in found]
    assert sizes == sorted(sizes, reverse=True)
    every = [abs(v.delta) for v in read_scored_variants(folder / "s.tsv", genome) if not math.isnan(v.delta)]
    assert sizes == sorted(every, reverse=True)[:5]


def test_a_report_with_variants(folder: Path, genome: Genome, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    done = genoscan("report", folder / "t.bw", "-g", folder / "g.fa", "--variants", folder / "s.vcf.gz", "-o", page)
    assert (done.code, done.out) == (0, f"{page}\n"), done.err
    text = re.sub(r"<script>/\*\*.*?</script>", "", page.read_text(), count=1, flags=re.DOTALL)
    section = text[text.index("<h2>Variants") :]
    assert "13 of 20 alleles have scores (6 symbolic allele; 1 REF differs from the genome)." in section
    found = strongest(read_scored_variants(folder / "s.tsv", genome), 50)
    rows = re.findall(r"<tr><td>1:(\d+)<td>([^<]*)<td>([^<]*)<td class=\"number\">([^<]*)", section)
    assert rows == [(str(v.allele.pos), v.allele.id, html.escape(v.alleles), f"{v.delta:.4g}") for v in found]
    assert '<th class="number">rank' in section
    assert '<th class="number">largest change at' in section
    assert "ALT less REF, in nats for log-likelihoods, in logits for other targets</dd>" in section
    encoded = re.search(r"download=\"variants.tsv\" href=\"data:[^,]*,([^\"]+)", section)
    assert encoded
    assert len(base64.b64decode(encoded[1]).decode().splitlines()) == 14
    figures = re.search(r"figures = (\{.*?\}), curves", text)
    assert figures
    drawn = {name: figure for name, figure in json.loads(figures[1]).items() if name.startswith("variant")}
    # Only those around which the track has scores: of 12 alleles at 120 to 270, and not of the last one.
    assert len(drawn) == 12 == section.count('class="figure small"')
    with BigWig(folder / "t.bw") as track:
        for variant, figure in zip([v for v in found if v.allele.pos < 300], drawn.values(), strict=True):
            first = figure["data"][0]["x"][0]
            assert first == variant.allele.change.start + 1 - 50  # type: ignore[union-attr]
            scores = track.scores("chr1", first - 1, first + 99)
            for a, b in zip(figure["data"][0]["y"], scores, strict=False):
                assert math.isnan(b) if a is None else a == pytest.approx(b, rel=1e-4)
            (mark,) = figure["layout"]["shapes"]
            assert variant.region is not None
            assert (mark["x0"], mark["x1"]) == (variant.region.start + 0.5, variant.region.end + 0.5)


def test_variants_without_scores(folder: Path, genome: Genome) -> None:
    found = [variant for variant in read_scored_variants(folder / "s.tsv", genome) if variant.status != "ok"]
    with BigWig(folder / "t.bw") as track:
        section = variant_section(found, track, genome)
    assert not section.figures
    assert "0 of 7 alleles have scores" in section.html


def test_a_file_without_variants_is_read_as_any_other(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "calls.vcf").write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
    table, calls = tmp_path / "s.tsv", tmp_path / "s.vcf.gz"
    model = "-m", folder / "tiny", "-t", 1
    assert genoscan("variants", folder / "g.fa", tmp_path / "calls.vcf", *model, "-o", table, "-o", calls).code == 0
    genome = "-g", folder / "g.fa"
    for name, command in enumerate(
        (
            ("report", folder / "t.bw", "--variants", table),
            ("report", folder / "t.bw", "--variants", calls),
            ("export", "html", folder / "t.bw", "--variants", table),
            ("export", "overview", folder / "t.bw", table),
        )
    ):
        done = genoscan(*command, *genome, "-o", tmp_path / f"{name}.html")
        assert done.code == 0, done.err


def test_a_page_with_variants(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    done = genoscan(
        "export", "html", folder / "t.bw", "-g", folder / "g.fa", "--variants", folder / "s.tsv", "-o", page
    )
    assert done.code == 0, done.err
    config = re.search(r"^const config = (.*);$", page.read_text(), re.M)
    assert config
    tracks = {track["name"]: track for track in json.loads(config[1])["tracks"]}
    features = tracks["variants"]["features"]
    assert len(features) == 13
    assert [f["start"] for f in features] == sorted(f["start"] for f in features)
    first = features[0]
    assert first["name"].startswith("rs120 ")
    assert first["chr"] == "chr1"
    for feature in features:
        delta = float(feature["name"].split()[-1])
        assert feature["color"] == ("#0072b2" if delta > 0 else "#d55e00")
        assert feature["end"] > feature["start"]


def test_what_is_refused(folder: Path, genome: Genome, tmp_path: Path) -> None:
    page = tmp_path / "p.html"

    def said(file: Path, genome: Path = folder / "g.fa") -> str:
        ask = "report", folder / "t.bw", "-g", genome, "--variants", file, "-o", page
        done = genoscan(*ask)
        assert done.code == 1
        assert not page.exists()
        return done.err

    assert "has no scores, expected a .tsv or VCF file written by genoscan variants" in said(folder / "calls.vcf")
    (tmp_path / "x.tsv").write_text("chrom\tpos\tref\talt\nchr1\t1\tA\tC\n")
    assert "has no scores" in said(tmp_path / "x.tsv")
    assert "no such file" in said(tmp_path / "none.tsv")
    copied = tmp_path / "s.tsv"
    text = (folder / "s.tsv").read_text()
    copied.write_text(re.sub(r"\tok\t[^\t]*", "\tok\tinf", text, count=1))
    assert 's.tsv:2: delta is "inf", expected a number or a period' in said(copied)
    copied.write_text(text.replace("\tok\t", "\tok\tx", 1))
    assert 'delta is "x' in said(copied)
    write_fasta(tmp_path / "g.fa", {"chr1": TEXT[::-1]})
    copied.write_text(text)
    with pytest.raises(InputError, match=r"REF differs from the genome .* give the genome that was used"):
        read_scored_variants(copied, open_genome(tmp_path / "g.fa"))
    (tmp_path / "s.tsv.json").write_text((folder / "s.tsv.json").read_text())
    with pytest.raises(InputError, match="computed on another chr1"):
        read_scored_variants(copied, open_genome(tmp_path / "g.fa"))
    copied.write_text(text + text.splitlines()[-1] + "\n")
    assert "is not the file that s.tsv.json describes" in said(copied)
    output = genoscan(
        "report", folder / "t.bw", "-g", folder / "g.fa", "--variants", folder / "s.tsv", "-o", folder / "s.tsv"
    )
    assert "is read from, too" in output.err
