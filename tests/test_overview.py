"""The page that lists several results: a row and links for each, whatever their names contain."""

import re
import shutil
from pathlib import Path

import pytest
from commands import bases, genoscan, tiny_model, write_fasta

HOSTILE = "<script>x()</script> & 'q'"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a genome, a track, effects of variants and effects of substitutions."""
    folder = tmp_path_factory.mktemp("results")
    genome = write_fasta(folder / "g.fa", {"chr1": bases(400, 1)})
    (folder / "calls.tsv").write_text("chrom\tpos\tref\talt\nchr1\t100\t-\tAC\nchr1\t9\tA\t<DEL>\n")
    model = ("-m", tiny_model(folder / "tiny"), "-t", 1)
    for command in (
        ("attribute", genome, "-r", "chr1:101-200", "-r", "chr1:301-320", "-o", folder / "a.bw"),
        ("variants", genome, folder / "calls.tsv", "-o", folder / "v.tsv", "-o", folder / "v.vcf"),
        ("mutate", genome, "-r", "chr1:1-9", "-o", folder / "m.npz", "-o", folder / "m.tsv"),
    ):
        done = genoscan(*command, *model)
        assert done.code == 0, done.err
    return folder


def cells(page: str, name: str) -> dict[str, str]:
    """Return the texts of the row of a result, by column."""
    table = next(table for table in re.findall(r"<table>.*?</table>", page, re.DOTALL) if f"<td>{name}</td>" in table)
    head, *rows = (
        [re.sub("<[^>]*>", "", c) for c in re.findall("<t[hd].*?</t[hd]>", row)] for row in table.split("<tr>")[1:]
    )
    return dict(zip(head, next(row for row in rows if row[0] == name), strict=True))


def test_a_row_for_each_result(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    done = genoscan(
        "export", "overview", results / "a.bw", results / "v.tsv", results / "m.npz", "-g", results / "g.fa", "-o", page
    )
    assert (done.code, done.out) == (0, f"{page}\n"), done.err
    text = page.read_text()
    track = cells(text, "a")
    assert (track["regions"], track["bases with a score"], track["strand"]) == ("2", "120", "+")
    assert track["model, target, score"].startswith("model tiny; target log-likelihood; score centred, in nats, first")
    top = genoscan(
        "attribute",
        results / "g.fa",
        "-m",
        results / "tiny",
        "-r",
        "chr1:101-200",
        "-r",
        "chr1:301-320",
        "-o",
        tmp_path / "a.npz",
    )
    assert top.code == 0
    assert genoscan("export", "sites", tmp_path / "a.npz", "--top", 1, "-o", tmp_path / "sites.tsv").code == 0
    site = (tmp_path / "sites.tsv").read_text().splitlines()[1].split("\t")
    assert track["at"] == f"chr1:{int(site[2]):,}"
    variants = cells(text, "v")
    assert (variants["alleles"], variants["with an effect"], variants["files"]) == ("2", "1", "table")
    assert variants["of"] == "chr1:100 -&gt;AC"
    assert (cells(text, "m")["bases"], cells(text, "m")["files"]) == ("9", "table, archive")
    for link in re.findall('href="([^"]*)"', text.replace('href="data:,"', "")):
        assert (tmp_path / link).is_file()


def test_pages_are_linked_and_names_are_text(results: Path, tmp_path: Path) -> None:
    for suffix in (".bw", ".bw.json"):
        shutil.copy(results / f"a{suffix}", tmp_path / f"{HOSTILE.replace('/', '|')}{suffix}")
    track = tmp_path / f"{HOSTILE.replace('/', '|')}.bw"
    for suffix in (".html", ".report.html"):
        track.with_name(track.stem + suffix).write_text("")
    page = tmp_path / "index.html"
    done = genoscan("export", "overview", track, "-g", results / "g.fa", "--title", HOSTILE, "-o", page)
    assert done.code == 0, done.err
    text = page.read_text()
    assert "<script" not in text
    assert re.findall(r">(page|report|bigWig)<", text) == ["page", "report", "bigWig"]


def test_other_files_are_errors(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    other = write_fasta(tmp_path / "g.fa", {"chr1": bases(400, 2)})
    scores = tmp_path / "scores.npz"
    run = "attribute", results / "g.fa", "-m", results / "tiny", "-r", "chr1:101-120", "-o", scores
    assert genoscan(*run).code == 0
    for file, genome, problem in (
        (
            scores,
            results / "g.fa",
            "scores.npz: has no effects of substitutions, expected an archive of genoscan mutate",
        ),
        (results / "g.fa", results / "g.fa", "expected a track (.bw), a table of variants (.tsv) or an archive (.npz)"),
        (results / "a.bw", other, "chr1"),
        (results / "m.npz", other, "chr1"),
        (results / "v.tsv", other, "chr1"),
        (results / "m.tsv", results / "g.fa", "m.tsv"),
        (results / "none.bw", results / "g.fa", "none.bw"),
    ):
        done = genoscan("export", "overview", file, "-g", genome, "-o", page)
        assert (done.code, done.err.count("\n")) == (1, 1), done.err
        assert problem in done.err
        assert not page.exists()
