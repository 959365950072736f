"""Exports: what is in them, and what is refused; a real browser opens the page (slow)."""

import base64
import gzip
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from Bio import SeqIO
from browser import browser, dom, served
from commands import ROOT, bases, genoscan, tiny_model, write_fasta
from hypothesis import given
from hypothesis import strategies as st

from genoscan.errors import InputError
from genoscan.export.twobit import write_two_bit
from genoscan.genome.annotation import read_annotation
from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.writer import open_track

SIZES = {"chr1": 30_000, "chr2": 500}
SEQUENCES = {"chr1": bases(30_000, seed=1), "chr2": bases(500, seed=2)}
SCORED = Region("chr1", 10_000, 14_000)


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    path = write_fasta(tmp_path / "g.fa", SEQUENCES)
    assert genoscan("plan", path, "-r", "chr2", "-o", tmp_path / "x.bw").code == 0  # its index
    return path


@pytest.fixture
def track(tmp_path: Path, genome: Path) -> Path:
    """Return a track with one high and one low base, as attribute leaves it."""
    path, scores = tmp_path / "peaks.bw", np.full(len(SCORED), 0.1, np.float32)
    scores[2_345], scores[999] = 7, -9
    with open_track(path, SIZES) as writer:
        writer.write(SCORED, scores)
    m5 = open_genome(genome).m5("chr1")
    write_provenance(
        path,
        {
            "model": "</script><b>",
            "target": "log-likelihood",
            "score": "centred",
            "regions": ["chr1:10,001-14,000"],
            "sequences": [{"name": "chr1", "length": 30_000, "m5": m5}],
        },
    )
    return path


@pytest.fixture
def genes(tmp_path: Path) -> Path:
    path = tmp_path / "genes.gff3"
    rows = [
        "chr1\tx\tgene\t12001\t12400\t.\t-\t.\tID=g1;Name=lac%20Z",
        "chr1\tx\tCDS\t12001\t12400\t.\t-\t0\tID=c1",
        "chr1\tx\tgene\t1\t60\t.\t+\t.\tID=far",
        "##FASTA",
        ">chr1",
        "ACGT",
    ]
    path.write_text("\n".join(["##gff-version 3", "# said", *rows]) + "\n")
    return path


def config_of(page: Path) -> Any:
    (text,) = re.findall(r"^const config = (.*);$", page.read_text(), re.MULTILINE)
    return json.loads(text)


def content(url: str) -> bytes:
    return base64.b64decode(url.partition("base64,")[2])


def test_a_page_holds_bases_track_and_genes(genome: Path, track: Path, genes: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = genoscan("export", "html", track, "-g", genome, "-a", genes, "-o", page)
    assert (done.code, done.out) == (0, f"{page}\n"), done.err
    config = config_of(page)
    header, letters = gzip.decompress(content(config["reference"]["fastaURL"])).split(b"\n")
    assert header == b">chr1:9001-15000 @len=30000"
    assert letters.decode() == SEQUENCES["chr1"][9_000:15_000]
    scores, annotation = config["tracks"]
    assert content(scores["url"]) == track.read_bytes()
    assert annotation["features"] == [{"chr": "chr1", "start": 12_000, "end": 12_400, "name": "lac Z", "strand": "-"}]
    assert config["locus"] == "chr1:10,001-14,000"
    assert "<option selected>chr1:10,001-14,000</option>" in page.read_text()
    # What a name holds stays text.
    described = "model &lt;/script&gt;&lt;b&gt;; target log-likelihood; score centred, in nats, first order"
    assert described in page.read_text()
    assert page.read_text().count("</script") == 2
    assert "features more than 1,000 bases from the regions with scores are not in this page" in page.read_text()


def test_a_page_of_a_whole_sequence_is_not_cut(genome: Path, track: Path, tmp_path: Path) -> None:
    page, whole = tmp_path / "page.html", tmp_path / "whole.bw"
    with open_track(whole, SIZES) as writer:
        writer.write(Region("chr2", 0, 500), np.ones(500, np.float32))
    m5 = open_genome(genome).m5("chr2")
    record = {"sequences": [{"name": "chr2", "length": 500, "m5": m5}], "regions": ["chr2:1-500"]}
    write_provenance(whole, {"model": "m", "target": "log-likelihood", "score": "centred"} | record)
    done = genoscan("export", "html", whole, "-g", genome, "-o", page)
    assert done.code == 0, done.err
    assert "not in this page" not in page.read_text()


def test_two_tracks_of_one_name_are_both_named(genome: Path, track: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second = tmp_path / "first.bw", tmp_path / "other" / track.name
    for path in (first, second):
        path.write_bytes(track.read_bytes())
    done = genoscan("export", "html", first, track, second, "-g", genome, "-o", tmp_path / "page.html")
    assert (done.code, f"{second}: has the name of {track}, by which tracks are shown" in done.err) == (1, True)


def test_it_opens_where_it_is_told(genome: Path, track: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = genoscan("export", "html", track, "-g", genome, "-r", "chr1:12,001-12,100", "-o", page)
    assert done.code == 0, done.err
    assert config_of(page)["locus"] == "chr1:12,001-12,100"


def test_an_igv_session(genome: Path, track: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    session = tmp_path / "made" / "peaks.xml"
    done = genoscan("export", "igv", track, "-g", genome, "-o", session)
    assert done.code == 0, done.err
    root = ElementTree.parse(session).getroot()
    assert (root.tag, root.attrib["genome"], root.attrib["locus"]) == ("Session", "../g.fa", "chr1:10,001-14,000")
    assert [r.attrib["path"] for r in root.iter("Resource")] == ["../peaks.bw"]
    assert [(t.attrib["id"], t.attrib["name"]) for t in root.iter("Track")] == [("../peaks.bw", "peaks")]


@pytest.mark.parametrize("browser", ["igv", "jbrowse"])
def test_links_are_named_by_their_own_path(genome: Path, track: Path, tmp_path: Path, browser: str) -> None:
    """The index is beside the link, so that a browser must not be sent to the file itself."""
    store, folder = tmp_path / "store", tmp_path / "here"
    store.mkdir()
    folder.mkdir()
    (folder / "g.fa").symlink_to(genome.rename(store / "abc.fa"))
    (folder / "peaks.bw").symlink_to(track.rename(store / "xyz.bw"))
    (folder / "peaks.bw.json").symlink_to(Path(f"{track}.json").rename(store / "xyz.bw.json"))
    (folder / "linked").symlink_to(folder)
    output = folder / {"igv": "s.xml", "jbrowse": "s.json"}[browser]
    done = genoscan("export", browser, folder / "linked" / "peaks.bw", "-g", folder / "g.fa", "-o", output)
    assert done.code == 0, done.err
    text = output.read_text()
    assert "abc" not in text and "xyz" not in text
    assert '"g.fa"' in text and '"peaks.bw"' in text


def test_a_jbrowse_config(genome: Path, track: Path, tmp_path: Path) -> None:
    done = genoscan("export", "jbrowse", track, "-g", genome, "-o", tmp_path / "config.json")
    assert done.code == 0, done.err
    config = json.loads((tmp_path / "config.json").read_text())
    adapter = config["assemblies"][0]["sequence"]["adapter"]
    assert adapter["fastaLocation"]["uri"] == "g.fa"
    assert adapter["faiLocation"]["uri"] == "g.fa.fai"
    assert config["tracks"][0]["adapter"]["bigWigLocation"]["uri"] == "peaks.bw"
    view = config["defaultSession"]["views"][0]["init"]
    assert view["loc"] == "chr1:10,001-14,000"
    assert view["tracks"][1] == config["tracks"][0]["trackId"]


def two_bit(path: Path) -> dict[str, str]:
    """Return the sequences, by Biopython's reader."""
    with path.open("rb") as file:
        return {record.id: str(record.seq) for record in SeqIO.parse(file, "twobit")}


def test_a_hub_of_a_genome_that_ucsc_has_not(genome: Path, track: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    arguments = ("export", "hub", track, "-g", genome, "--email", "you@lab.org", "-o", hub)
    done = genoscan(*arguments)
    assert (done.code, done.out) == (0, f"{hub / 'hub.txt'}\n"), done.err
    about = dict(line.split(" ", 1) for line in (hub / "genomes.txt").read_text().splitlines())
    assert about["defaultPos"] == "chr1:10001-14000"
    drawn = (hub / about["trackDb"]).read_text()
    assert "windowingFunction mean+whiskers\nlogo on\n" in drawn
    assert (hub / "g" / "peaks.bw").read_bytes() == track.read_bytes()
    assert two_bit(hub / about["twoBitPath"]) == SEQUENCES
    assert "already exists" in refusal(*arguments[1:])


def test_base_probabilities_are_a_logo_in_a_hub(genome: Path, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny")
    done = genoscan("predict", genome, "-m", model, "-o", tmp_path / "p.bw")
    assert done.code == 0, done.err
    tracks = done.out.split()
    hub = tmp_path / "hub"
    done = genoscan("export", "hub", *tracks[::-1], "-g", genome, "--email", "a@b", "-o", hub)
    assert done.code == 0, done.err
    stanzas = [
        dict(line.split(" ", 1) for line in stanza.splitlines())
        for stanza in (hub / "g" / "trackDb.txt").read_text().split("\n\n")
    ]
    assert (stanzas[0]["container"], stanzas[0]["logo"]) == ("multiWig", "on")
    assert [stanza["bigDataUrl"] for stanza in stanzas[1:5]] == [f"p.{base}.bw" for base in "ACGT"]
    assert {stanza.get("parent") for stanza in stanzas[1:5]} == {stanzas[0]["track"]}
    assert sorted(stanza["bigDataUrl"] for stanza in stanzas[5:]) == ["p.entropy.bw", "p.log-likelihood.bw"]
    assert "predicted entropy" in stanzas[5]["longLabel"] + stanzas[6]["longLabel"]
    # Logits may be negative, and are no parts of a whole.
    done = genoscan("predict", genome, "-m", model, "--logits", "-o", tmp_path / "l.bw")
    assert done.code == 0, done.err
    logits = done.out.split()
    done = genoscan("export", "hub", *logits, "-g", genome, "--email", "a@b", "-o", tmp_path / "logits")
    assert done.code == 0, done.err
    assert "multiWig" not in (tmp_path / "logits" / "g" / "trackDb.txt").read_text()


def test_a_hub_of_a_genome_that_ucsc_has(genome: Path, track: Path, tmp_path: Path) -> None:
    done = genoscan(
        "export", "hub", track, "-g", genome, "--email", "you@lab.org", "--assembly", "hg38", "-o", tmp_path / "hub"
    )
    assert done.code == 0, done.err
    text = (tmp_path / "hub" / "genomes.txt").read_text()
    assert text == "genome hg38\ntrackDb hg38/trackDb.txt\n"


@pytest.mark.parametrize("name", ["../x", "../../x", "/x", "a/b", "..", ".", "", "a\nb", "-a", "a\0", "a b", "x" * 300])
def test_an_assembly_is_a_plain_name(genome: Path, track: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    before = sorted(tmp_path.rglob("*"))
    said = refusal("hub", track, "-g", genome, "--email", "a@b", "--assembly", name, "-o", tmp_path / "in" / "hub")
    assert "--assembly" in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_names_in_a_hub_are_quoted(genome: Path, track: Path, tmp_path: Path) -> None:
    """Each setting is one line, each URL one word, and each track has a name of its own."""
    names = ["a b", "a_b", "#%?&+é", "x\nbigDataUrl y"]
    tracks = []
    for name in names:
        tracks.append(tmp_path / f"{name}.bw")
        tracks[-1].write_bytes(track.read_bytes())
        tracks[-1].with_name(f"{name}.bw.json").write_bytes(track.with_name(track.name + ".json").read_bytes())
    hub = tmp_path / "hub"
    done = genoscan("export", "hub", *tracks, "-g", genome, "--email", "a@b\nhub x", "-o", hub)
    assert done.code == 0, done.err
    stanzas = [
        dict(line.split(" ", 1) for line in stanza.splitlines())
        for stanza in (hub / "g" / "trackDb.txt").read_text().split("\n\n")
    ]
    for stanza, path in zip(stanzas, tracks, strict=True):
        assert re.fullmatch(r"[\w.%~-]+", stanza["bigDataUrl"], re.ASCII)
        assert (hub / "g" / unquote(stanza["bigDataUrl"])).read_bytes() == path.read_bytes()
    assert len({stanza["track"] for stanza in stanzas}) == len(names)
    assert all(re.fullmatch(r"\w+", stanza["track"], re.ASCII) for stanza in stanzas)
    keys = [line.split()[0] for line in (hub / "hub.txt").read_text().splitlines()]
    assert keys == ["hub", "shortLabel", "longLabel", "genomesFile", "email"]
    config = tmp_path / "config.json"
    done = genoscan("export", "jbrowse", tracks[2], "-g", genome, "-o", config)
    assert done.code == 0, done.err
    uri = json.loads(config.read_text())["tracks"][0]["adapter"]["bigWigLocation"]["uri"]
    assert (uri, unquote(uri)) == ("%23%25%3F%26%2B%C3%A9.bw", tracks[2].name)


@given(st.lists(st.text("ACGTN", min_size=1, max_size=40), min_size=1, max_size=4), st.integers(1, 3))
def test_two_bits_a_base(sequences: list[str], quarters: int) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr("genoscan.export.twobit._PIECE", 4 * quarters)
        named = {f"s{i}": letters for i, letters in enumerate(sequences)}
        genome = open_genome(write_fasta(Path(folder) / "g.fa", named))
        write_two_bit(Path(folder) / "g.2bit", genome)
        assert two_bit(Path(folder) / "g.2bit") == named


def refusal(*arguments: Any) -> str:
    done = genoscan("export", *arguments)
    assert done.code == 1
    return done.err


def test_what_is_refused(genome: Path, track: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    end = "-g", genome, "-o", page
    other = write_fasta(tmp_path / "other.fa", SEQUENCES | {"chr1": bases(30_000, seed=3)})
    assert "computed on another chr1" in refusal("html", track, "-g", other, "-o", page)
    short = write_fasta(tmp_path / "short.fa", {"chr9": "ACGT"})
    assert "computed on chr1, which is not in" in refusal("html", track, "-g", short, "-o", page)
    assert "file not found, expected a bigWig" in refusal("html", tmp_path / "none.bw", *end)
    assert "expected a bigWig" in refusal("html", tmp_path / "x.bedgraph", *end)
    assert "it is read from, too" in refusal("html", track, "-g", genome, "-o", track)
    assert "file not found, expected BED" in refusal("html", track, *end, "-a", tmp_path / "none")
    for name in ("page.htm", "page.txt", "page"):
        assert "expected a name that ends in .html" in refusal("html", track, "-g", genome, "-o", tmp_path / name)
    assert "that ends in .xml" in refusal("igv", track, "-g", genome, "-o", tmp_path / "s.json")
    assert "that ends in .json" in refusal("jbrowse", track, "-g", genome, "-o", tmp_path / "s.xml")
    assert "there is no folder" in refusal("html", track, "-g", genome, "-o", tmp_path / "none" / "p.html")
    (tmp_path / "g.fa.fai").unlink()
    assert not page.exists()


@pytest.fixture
def folder(genome: Path, track: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return what is made where a page would be too large."""
    monkeypatch.setattr("genoscan.export.page._EMBED_LIMIT", 3_999)
    page = tmp_path / "looked at" / "page.html"
    page.parent.mkdir()
    for _ in range(2):  # a second time over the first
        done = genoscan("export", "html", track, "-g", genome, "-o", page)
        assert (done.code, done.out) == (0, f"{page}\n"), done.err
        assert f"genoscan serve {page.parent}" in done.err
    return page.parent


@pytest.mark.parametrize("linked", [False, True])
def test_a_page_does_not_replace_what_it_reads(folder: Path, genome: Path, track: Path, linked: bool) -> None:
    """The copy that an earlier page left, and a link in its place to the track itself."""
    copy, content = folder / "page_files" / "peaks.bw", track.read_bytes()
    if linked:
        copy.unlink()
        copy.symlink_to(track)
    given = track if linked else copy
    done = genoscan("export", "html", given, "-g", genome, "-r", "chr1:1-20,000", "-o", folder / "page.html")
    assert done.code == 1
    assert f"{copy}: is read from, too" in done.err.splitlines()[-1]
    assert given.read_bytes() == content


def test_what_a_page_does_not_hold_lies_beside_it(folder: Path, track: Path) -> None:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"page.html", "page_files/peaks.bw", "page_files/genome.2bit"}
    assert (folder / "page_files" / "peaks.bw").read_bytes() == track.read_bytes()
    assert two_bit(folder / "page_files" / "genome.2bit") == SEQUENCES
    assert (folder / "page.html").stat().st_size < 2e6


@pytest.mark.slow
def test_letters_are_drawn_and_the_highest_is_the_peak(genome: Path, track: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = genoscan("export", "html", track, "-g", genome, "-r", "chr1:12,321-12,370", "-o", page)
    assert done.code == 0, done.err
    with browser(tmp_path) as tab:
        tab.open(page.as_uri())
        tab.value("new Promise(done => setTimeout(done, 3000))")
        picture = tab.value("igvBrowser.toSVG()")
    svg = ElementTree.fromstring(picture)
    colours = {"rgb(0,200,0)": "A", "rgb(0,0,200)": "C", "rgb(209,113,5)": "G", "rgb(255,0,0)": "T"}
    letters = []
    for path in svg.iter("{http://www.w3.org/2000/svg}path"):
        letter = colours.get(path.get("fill", "").replace(" ", ""))
        numbers = [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", path.get("d", ""))]
        if letter and numbers:
            x, y = numbers[::2], numbers[1::2]
            letters.append((max(y) - min(y), (min(x) + max(x)) / 2, letter))
    assert {letter for _, _, letter in letters} == set("ACGT")
    _, at, letter = max(letters)
    centres = [x for _, x, _ in letters]
    assert letter == SEQUENCES["chr1"][12_345]
    step = float(np.median(np.diff(sorted(set(centres)))))  # the first letter is half a step from the left
    assert round(at / step - 0.5) == 25


@pytest.mark.slow
def test_a_browser_opens_the_folder(folder: Path, tmp_path: Path) -> None:
    with served(folder) as address:
        seen, asked = dom(f"{address}/page.html", tmp_path)
    assert 'data-ready="yes"' in seen
    names = {url.removeprefix(f"{address}/").split("?")[0] for url in asked}
    assert names - {""} == {"page.html", "page_files/peaks.bw", "page_files/genome.2bit"}


def test_annotations_of_other_kinds(tmp_path: Path) -> None:
    bed = tmp_path / "a.bed"
    bed.write_text("chr1\t5\t9\tname\t0\t-\n")
    (row,) = read_annotation(bed, SIZES)
    assert (row.start, row.end, row.name, row.strand) == (5, 9, "name", "-")
    bad = tmp_path / "bad.gff3"
    for line, said in (("chr1\tx", "expected 9"), ("chr1\tx\tgene\t9\t5\t.\t+\t.\tID=a", "9 to 5")):
        bad.write_text(f"##gff-version 3\n{line}\n")
        with pytest.raises(InputError, match=said):
            read_annotation(bad, SIZES)


MODEL = """\
chr1\tx\tgene\t12001\t12400\t.\t-\t.\tgene_id "g"; gene_name "abcA"
chr1\tx\texon\t12001\t12300\t.\t-\t.\tgene_id "g"; transcript_id "t"
chr1\tx\texon\t12390\t12400\t.\t-\t.\tgene_id "g"; transcript_id "t"
chr9\tx\tgene\t1\t9\t.\t-\t.\tgene_id "h"
chr1\tx
"""


def test_exons_and_a_count_of_rows_that_are_left_out(genome: Path, track: Path, tmp_path: Path) -> None:
    path, page, report = tmp_path / "genes", tmp_path / "page.html", tmp_path / "report.html"
    path.write_text(MODEL)
    for command in (("export", "html"), ("report",)):
        done = genoscan(*command, track, "-g", genome, "-a", path, "-o", page if "html" in command else report)
        assert done.code == 0, done.err
        assert done.err == (
            f'{path}: 1 feature skipped on sequences that the genome lacks, such as "chr9"; 1 malformed row skipped, '
            f"the first at {path}:5: found 2 columns separated by tabs, expected 9 as in GFF3\n"
        )
    (gene,) = config_of(page)["tracks"][1]["features"]
    assert gene["name"] == "abcA"
    assert gene["exons"] == [{"start": 12_000, "end": 12_300}, {"start": 12_389, "end": 12_400}]
    # The largest scores are at bases 11,000 and 12,346.
    assert "<td>abcA (intron)\n" in report.read_text()


@pytest.mark.slow
def test_igv_draws_coding_exons_higher(genome: Path, track: Path, tmp_path: Path) -> None:
    path, page = tmp_path / "genes", tmp_path / "page.html"
    coding = 'chr1\tx\tCDS\t12101\t12200\t.\t-\t.\tgene_id "g"; transcript_id "t"\n'
    path.write_text(MODEL + "\n" + coding)
    done = genoscan("export", "html", track, "-g", genome, "-a", path, "-r", "chr1:11,900-12,500", "-o", page)
    assert done.code == 0, done.err
    with browser(tmp_path) as tab:
        tab.open(page.as_uri())
        tab.value("new Promise(done => setTimeout(done, 3000))")
        picture = tab.value("igvBrowser.toSVG()")
    boxes = re.findall(r'<rect fill="rgb\(0,0,150\)"[^>]* width="(\d+)" height="(\d+)"/>', picture)
    heights = [int(height) for _, height in boxes]
    # Untranslated on both sides of the coding part of one exon, and the other exon.
    assert sorted(heights)[:3] == [7, 7, 7] and sorted(heights)[3:] == [14]


@pytest.mark.slow
def test_a_browser_opens_the_page(genome: Path, track: Path, genes: Path, tmp_path: Path) -> None:
    """Everything is there, and no request leaves the page."""
    page = tmp_path / "page.html"
    done = genoscan("export", "html", track, "-g", genome, "-a", genes, "-o", page)
    assert done.code == 0, done.err
    seen, asked = dom(page.as_uri(), tmp_path)
    assert 'data-ready="yes"' in seen
    assert not asked


@pytest.mark.slow
def test_igv_opens_a_session_that_is_served(genome: Path, track: Path, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    for path in (genome, Path(f"{genome}.fai"), track, Path(f"{track}.json")):
        shutil.copy(path, folder)
    done = genoscan("export", "igv", folder / track.name, "-g", folder / genome.name, "-o", folder / "s.xml")
    assert done.code == 0, done.err
    script = ROOT / "genoscan" / "export" / "vendor" / "igv-3.8.10.min.js"
    shutil.copy(script, folder / "igv.js")
    (folder / "index.html").write_text(
        '<script src="igv.js"></script><div id="b"></div><script>igv.createBrowser('
        'document.getElementById("b"), {sessionURL: "s.xml", loadDefaultGenomes: false})'
        ".then(b => { document.body.dataset.tracks = b.trackViews.map(v => v.track.name).join();"
        " document.body.dataset.at = String(b.currentLoci()); })</script>"
    )
    with served(folder) as address:
        seen, asked = dom(f"{address}/index.html", tmp_path)
    (tracks,) = re.findall('data-tracks="([^"]*)"', seen)
    assert "peaks" in tracks.split(",")
    (at,) = re.findall('data-at="([^"]*)"', seen)
    assert at == "chr1:10001-14000"
    assert {url.rsplit("/", 1)[0] for url in asked} == {address}
