"""Tracks of other programs beside ours: what is shown of them, and what is said of their genome."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
import pysam
import pytest
from browser import browser
from commands import bases, genoscan, write_fasta

from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.reader import BigWig
from genoscan.tracks.writer import open_track

SIZES = {"chr1": 30_000, "chr2": 500}
SCORED = Region("chr1", 10_000, 14_000)
VISIBLE = slice(9_000, 15_000)


def write_other(path: Path, values: dict[str, np.ndarray], sizes: dict[str, int] = SIZES) -> Path:
    """Write a bigWig as other programs do: runs of 50 bases with one value; NaN is left out."""
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(sizes.items()))
        for chrom, found in values.items():
            starts = [start for start in range(0, len(found), 50) if not np.isnan(found[start])]
            ends = [start + 50 for start in starts]
            chosen = [float(found[start]) for start in starts]
            file.addEntries([chrom] * len(starts), starts, ends=ends, values=chosen)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a genome, a track of ours, and one of another program."""
    genome = write_fasta(tmp_path / "g.fa", {chrom: bases(size, seed=size) for chrom, size in SIZES.items()})
    pysam.faidx(str(genome))
    scores = np.random.default_rng(1).normal(size=len(SCORED)).astype(np.float32)
    with open_track(tmp_path / "ours.bw", SIZES) as track:
        track.write(SCORED, scores)
    record: dict[str, Any] = {
        "model": "tiny",
        "target": "log-likelihood",
        "score": "centred",
        "regions": [str(SCORED)],
        "sequences": [{"name": "chr1", "length": SIZES["chr1"], "m5": open_genome(genome).m5("chr1")}],
    }
    write_provenance(tmp_path / "ours.bw", record)
    values = np.repeat(np.random.default_rng(2).normal(size=600), 50).astype(np.float32)
    values[12_000:13_000] = np.nan
    write_other(tmp_path / "phylop.bw", {"chr1": values})
    return tmp_path


def ok(*arguments: Any) -> str:
    """Run a command, and return what it said on standard error."""
    done = genoscan(*arguments)
    assert done.code == 0, done.err
    return done.err


def refusal(*arguments: Any) -> str:
    done = genoscan(*arguments)
    assert done.code == 1
    *notes, last = done.err.splitlines()
    assert all("without a record" in note for note in notes)
    return last


def tracks_of(page: Path) -> list[Any]:
    (text,) = re.findall(r"^const config = (.*);$", page.read_text(), re.MULTILINE)
    return json.loads(text)["tracks"]


def content(track: Any, folder: Path) -> BigWig:
    """Return the embedded track."""
    path = folder / "embedded.bw"
    path.write_bytes(base64.b64decode(track["url"].partition("base64,")[2]))
    return BigWig(path)


NOTE = "phylop: without a record of genoscan"


def test_a_page_shows_the_values_within_our_regions(folder: Path) -> None:
    page = folder / "page.html"
    assert NOTE in ok("export", "html", folder / "ours.bw", folder / "phylop.bw", "-g", folder / "g.fa", "-o", page)
    ours, other = tracks_of(page)
    assert (ours["graphType"], other["graphType"]) == ("dynseq", "bar")
    assert (other["name"], other["about"], other["unit"]) == ("phylop", "values of another program", "")
    with BigWig(folder / "phylop.bw") as source, content(other, folder) as copy:
        whole, copied = (track.scores("chr1", 0, SIZES["chr1"]) for track in (source, copy))
    np.testing.assert_array_equal(copied[VISIBLE], whole[VISIBLE])
    copied[VISIBLE] = np.nan
    assert np.isnan(copied).all()
    assert NOTE in page.read_text()
    assert "no value in the regions" not in page.read_text()


def test_the_order_does_not_decide_whose_regions_are_shown(folder: Path) -> None:
    page = folder / "page.html"
    ok("export", "html", folder / "phylop.bw", folder / "ours.bw", "-g", folder / "g.fa", "-o", page)
    assert page.read_text().count("<option") == 1
    assert "<option selected>chr1:10,001-14,000</option>" in page.read_text()


def test_a_page_of_a_track_without_values_says_so(folder: Path) -> None:
    far = np.full(SIZES["chr1"], np.nan)
    far[25_000:25_050] = 1
    other, page = write_other(folder / "far.bw", {"chr1": far}), folder / "page.html"
    ok("export", "html", folder / "ours.bw", other, "-g", folder / "g.fa", "-o", page)
    assert "far: no value in the regions shown." in page.read_text()


def test_large_pages_have_clipped_copies_beside_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genoscan.export.page._EMBED_LIMIT", 7_999)  # of 2 x 4,000 bases
    ok("export", "html", folder / "ours.bw", folder / "phylop.bw", "-g", folder / "g.fa", "-o", folder / "page.html")
    with BigWig(folder / "phylop.bw") as source, BigWig(folder / "page_files" / "phylop.bw") as copy:
        np.testing.assert_array_equal(copy.scores("chr1", 9_000, 15_000), source.scores("chr1", 9_000, 15_000))
        assert np.isnan(copy.scores("chr1", 15_000, SIZES["chr1"])).all()
    assert (folder / "page_files" / "ours.bw").read_bytes() == (folder / "ours.bw").read_bytes()


def test_a_page_without_a_track_of_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("export", "html", folder / "phylop.bw", "-g", folder / "g.fa", "-o", folder / "page.html")
    ok(*asked)
    assert "<option selected>chr1:1-30,000</option>" in (folder / "page.html").read_text()
    monkeypatch.setattr("genoscan.export.page._EMBED_LIMIT", 3_000)
    assert "choose a region with --region" in refusal(*asked)
    ok(*asked, "-r", "chr1:12,001-13,000")
    assert "<option selected>chr1:12,001-13,000</option>" in (folder / "page.html").read_text()


def test_another_genome_is_an_error(folder: Path) -> None:
    end = "-g", folder / "g.fa", "-o", folder / "page.html"
    long = write_other(folder / "long.bw", {"chr1": np.ones(50)}, {"chr1": 30_001})
    assert "chr1 has 30,001 bases, 30,000 in" in refusal("export", "html", folder / "ours.bw", long, *end)
    named = write_other(folder / "named.bw", {"1": np.ones(50)}, {"1": 30_000})
    said = refusal("export", "html", folder / "ours.bw", named, *end)
    assert "shares no sequence with" in said
    assert "(the first are 1 and chr1)" in said
    infinite = folder / "infinite.bw"
    with pyBigWig.open(str(infinite), "w") as file:
        file.addHeader(list(SIZES.items()))
        file.addEntries(["chr1"], [11_000], ends=[11_010], values=[float("inf")])
    for command in (("export", "html"), ("report",)):
        said = refusal(*command, folder / "ours.bw", infinite, *end)
        assert "infinite.bw: the value at chr1:11,001 is infinite" in said
    assert not (folder / "page.html").exists()


def test_a_report_draws_others_below_and_lists_their_values(folder: Path) -> None:
    page = folder / "report.html"
    said = ok("report", folder / "phylop.bw", folder / "ours.bw", "-g", folder / "g.fa", "-o", page)
    assert NOTE in said
    text = page.read_text()
    assert "<title>ours</title>" in text
    assert '<th class="number">score<th class="number">phylop' in text
    found = re.search(r"curves = (\[.*?\]), axes = (\[.*?\]);\n", text)
    assert found
    (curve,) = json.loads(found[1])
    assert json.loads(found[2]) == ["centred", "phylop"]
    ours, other = curve["tracks"]
    assert len(ours["low"]) == len(other["low"]) == 1_000
    with BigWig(folder / "phylop.bw") as track:
        values = track.scores("chr1", SCORED.start, SCORED.end)
        encoded = re.search(r"tab-separated-values;base64,([^\"]+)", text)
        assert encoded
        header, *rows = base64.b64decode(encoded[1]).decode().splitlines()
        assert header == "#chrom\tstart\tend\tbase\tscore\tphylop\tregion\tfeature"
        for row in rows:
            start, value = int(row.split("\t")[1]), row.split("\t")[5]
            expected = values[start - SCORED.start]
            assert value == "." if np.isnan(expected) else float(value) == pytest.approx(float(expected), rel=1e-5)
    low, high = np.nanmin(values[:4]), np.nanmax(values[:4])
    assert (other["low"][0], other["high"][0]) == pytest.approx((low, high), rel=1e-4)
    assert other["low"][500:750] == [None] * 250  # 12,001 to 13,000


def test_a_report_on_a_track_of_another_program(folder: Path) -> None:
    page = folder / "report.html"
    ok("report", folder / "phylop.bw", "-g", folder / "g.fa", "-o", page)
    text = page.read_text()
    assert "Names and lengths of 2 sequences are those of g.fa." in text
    assert "29,000 bases have a score" in text
    assert "MD5" not in text.rpartition("<h2>Checks")[2]


def test_sessions_refer_to_others(folder: Path) -> None:
    tracks = folder / "ours.bw", folder / "phylop.bw", "-g", folder / "g.fa"
    assert NOTE in ok("export", "igv", *tracks, "-o", folder / "s.xml")
    assert 'path="phylop.bw"' in (folder / "s.xml").read_text()
    ok("export", "jbrowse", *tracks, "-o", folder / "c.json")
    assert [t["description"] for t in json.loads((folder / "c.json").read_text())["tracks"]][1] == (
        "values of another program"
    )
    ok("export", "hub", *tracks, "--email", "a@b", "-o", folder / "hub")
    ours, other = (folder / "hub" / "g" / "trackDb.txt").read_text().split("\n\n")
    assert "longLabel ours: target log-likelihood; score centred, in nats, first order" in ours
    assert ("logo on" in ours, "logo on" in other) == (True, False)
    assert "longLabel phylop: values of another program\n" in other


@pytest.mark.slow
def test_a_browser_shows_them_on_a_phone_and_in_the_dark(folder: Path) -> None:
    far = np.full(SIZES["chr1"], np.nan)
    far[25_000:25_050] = 1
    page = folder / "page.html"
    others = folder / "phylop.bw", write_other(folder / "far.bw", {"chr1": far})
    ok("export", "html", folder / "ours.bw", *others, "-g", folder / "g.fa", "-o", page)
    root = "document.getElementById('browser').shadowRoot"
    messages = (
        f"[...{root}.querySelectorAll('.igv-viewport-message')].filter(one => one.style.display !== 'none')"
        ".map(one => one.textContent)"
    )
    with browser(folder) as tab:
        for width, said in ((390, ["zoom in to see the bases", "no values here"]), (1280, ["no values here"])):
            tab.emulate(width, 844, dark=True)
            tab.open(page.as_uri())
            tab.wait(f"{messages}.length === {len(said)}", 10)
            assert tab.value(messages) == said
            assert tab.value("document.documentElement.scrollWidth") <= width
            assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(23, 23, 23)"
            assert "invert" in tab.value("getComputedStyle(document.getElementById('browser')).filter")
        kinds = "igvBrowser.trackViews.filter(view => view.track.type === 'merged').map(view => view.track.tracks[0])"
        assert tab.value(f"{kinds}.map(track => track.graphType)") == ["dynseq", "bar", "bar"]
        assert not tab.complaints
        assert not tab.asked
