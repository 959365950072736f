"""Pages with hostile or odd names: nothing in a name is run or becomes an element, and all is drawn."""

import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import plotly.graph_objects as go
import pytest
from browser import Tab, browser, served
from commands import ROOT as ROOT_FOLDER
from commands import bases, genoscan, write_fasta
from hypothesis import given
from hypothesis import strategies as st

from genoscan.attribution import Attribution
from genoscan.export.igv_names import igv_name_table, igv_names
from genoscan.export.markup import script_json
from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.writer import open_track

COLONS = "HLA-A*01:01:01:01", "chr5:100-500", "chr5"
ELEMENT = "<img src=x onerror=document.body.dataset.pwn=1>"
PAYLOADS = {
    "element": ELEMENT,
    "attribute": "\" onmouseover='document.body.dataset.pwn=1' x=\"",
    "script": "</script><script>document.body.dataset.pwn=1</script>",
    "comment": "<!--<script>",
    "frame": '<iframe srcdoc="<script>top.document.body.dataset.pwn=1</script>">',
    "link": '<a href="javascript:document.body.dataset.pwn=1">x</a>',
    "svg": "<svg onload=document.body.dataset.pwn=1>",
    "encoded": "&lt;img src=x onerror=document.body.dataset.pwn=1&gt;",
    "percent": "%3Cimg src=x onerror=document.body.dataset.pwn=1%3E",
    "template": "${document.body.dataset.pwn=1}{{1}}$config %(x)s {title}",
    "style": "<style>body{display:none}</style><form action=//x><input name=y>",
}
ROOT = "document.getElementById('browser').shadowRoot"


class Made(NamedTuple):
    page: Path
    report: Path


def make(
    folder: Path,
    sequences: dict[str, str],
    *,
    track: str = "peaks",
    fasta: str = "g",
    feature: str = "lacZ",
    record: str = "model",
) -> Made:
    """Write a page and a report of a track, with 7 at base 50 of each sequence, and of its copy without a record."""
    genome, path = write_fasta(folder / f"{fasta}.fa", sequences), folder / f"{track}.bw"
    assert genoscan("plan", genome, "-o", folder / "x.bw").code == 0  # its index
    opened, regions = open_genome(genome), [Region(name, 0, len(text)) for name, text in sequences.items()]
    with open_track(path, {name: len(text) for name, text in sequences.items()}) as writer:
        for region in regions:
            scores = np.full(len(region), 0.1, np.float32)
            scores[50] = 7
            writer.write(region, scores)
    write_provenance(
        path,
        {
            "model": record,
            "target": record,
            "score": "centred",
            "command": ["genoscan", record],
            "note": {record: [record]},
            "regions": [str(region) for region in regions],
            "sequences": [{"name": r.chrom, "length": len(r), "m5": opened.m5(r.chrom)} for r in regions],
        },
    )
    genes = folder / "genes.bed"
    genes.write_text("".join(f"{name}\t20\t180\t{feature}\t0\t+\n" for name in sequences))
    calls = folder / "calls.tsv"
    rows = [
        f"{name}\t{at}\t{feature}\t{text[at - 1]}\t{alt}\t{status}\t{delta}\n"
        for name, text in sequences.items()
        for at, alt, status, delta in [
            (60, "ACGT"["ACGT".index(text[59]) - 1], "ok", "-0.5"),
            (70, f"<{feature.replace(',', ';')}>", feature, "."),
        ]
    ]
    calls.write_text("".join(["chrom\tpos\tid\tref\talt\tstatus\tdelta\n", *rows]))
    other = shutil.copy(path, folder / f"other {track}.bw")
    made = Made(folder / "page.html", folder / "report.html")
    for command, output in ((("export", "html"), made.page), (("report",), made.report)):
        done = genoscan(*command, path, other, "-g", genome, "-a", genes, "--variants", calls, "-o", output)
        assert done.code == 0, done.err
    return made


class Elements(HTMLParser):
    """The scripts of a page, its policy, and the names of its elements and attributes."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.policy, self._inside = "", False
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"] or ""
        if tag == "script":
            self.scripts.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def check_text(page: Path) -> None:
    """Check that a page has no script but its own, and permits no other."""
    seen = Elements(page)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in seen.scripts]
    policy = dict(part.split(" ", 1) for part in seen.policy.split("; "))
    assert len(seen.scripts) == 2
    assert policy["default-src"] == "'none'"
    assert policy["script-src"].split() == [f"'sha256-{found}'" for found in hashes]
    assert "http" not in seen.policy
    assert not seen.tags & {"img", "iframe", "form", "input", "b"}
    assert not {name for name in seen.attributes if name.startswith("on")}


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=12)
odd_names = st.one_of(
    names, st.sampled_from([*COLONS, "CHR5", "5", "all", "__proto__", "gi|5|x.1|", "chrM", "MT", ELEMENT])
)


@given(st.lists(odd_names, unique=True, min_size=1, max_size=8))
def test_names_within_igv_are_plain_and_distinct(genome: list[str]) -> None:
    renamed = igv_names(genome, genome)
    shown = [renamed.get(name, name) for name in genome]
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) for name in shown)
    assert len(set(shown)) == len(genome)
    alike = [new.lower().removeprefix("chr") for new in renamed.values()]
    assert not set(alike) & {name.lower().removeprefix("chr") for name in genome}
    assert len(set(alike)) == len(alike)
    assert "all" not in {name.lower() for name in shown}
    table = [line.split("\t") for line in igv_name_table(genome, renamed).split("\n")[1:-1]]
    assert {row[1]: row[0] for row in table} == renamed


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_json_in_a_script_is_text_only(value: object) -> None:
    text = script_json(value)
    assert text.isascii()
    assert "<" not in text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_name_becomes_an_element(payload: str, tmp_path: Path) -> None:
    text = PAYLOADS[payload]
    name = re.sub(r"[\s{}]", "/", text)
    made = make(tmp_path, {name: bases(200, seed=1)}, feature=text, record=text, track=text.replace("/", "\\"))
    check_text(made.page)
    check_text(made.report)


def test_figures_and_notebooks_show_names_as_text() -> None:
    region, codes = Region(ELEMENT, 0, 8), np.zeros(8, np.uint8)
    scores = np.ones(8, np.float32)
    shown = Attribution(region, codes, np.ones((8, 4), np.float32), scores, 1.0, ELEMENT, "centred", ELEMENT, 8)
    assert "<img" not in shown._repr_html_()
    figure = shown.plot()
    assert isinstance(figure, go.Figure)
    assert "<img" not in figure.to_json().replace("\\u003c", "<")
    assert figure.layout.xaxis.title.text == "&lt;img src=x onerror=document.body.dataset.pwn=1&gt;"


def labels(tab: Tab) -> list[str]:
    return tab.value(f"[...{ROOT}.querySelectorAll('.igv-track-label')].map(label => label.textContent)")


def click_gene(tab: Tab) -> str:
    """Click on the gene, and return what its popup shows."""
    x, y = tab.value(
        f"(() => {{ const [found] = [...{ROOT}.querySelectorAll('.igv-viewport')]"
        ".filter(port => port.querySelector('.igv-track-label')?.textContent === 'genes');"
        "found.scrollIntoView({ block: 'center' }); "
        "const { x, y, width } = found.getBoundingClientRect(); return [x + width * 0.35, y + 14]; })()"
    )
    tab.click(x, y)
    popover = f"{ROOT}.querySelector('.igv-ui-popover')"
    tab.wait(f"{popover}?.textContent", 10)
    return tab.value(f"{popover}.textContent").replace("\u00a0", " ")


def check_tab(tab: Tab, page: Path) -> None:
    """Check that nothing was run, inserted, asked or forbidden."""
    assert tab.value("document.body.dataset.pwn ?? null") is None
    found = "[document, document.getElementById('browser')?.shadowRoot].filter(Boolean).flatMap(part => "
    assert not tab.value(f"{found}[...part.querySelectorAll('img, iframe, form, b, [onload], [onerror]')]).length")
    assert not tab.complaints
    assert not tab.asked


def test_a_browser_shows_hostile_names_and_names_with_colons(tmp_path: Path) -> None:
    made = make(tmp_path, {name: bases(300, seed=i) for i, name in enumerate(COLONS)}, track=ELEMENT, feature=ELEMENT)
    with browser(tmp_path) as tab:
        tab.open(made.page.as_uri())
        assert labels(tab) == [ELEMENT, f"other {ELEMENT}", "variants", "genes"]
        popup = click_gene(tab)
        assert f"Name   {ELEMENT}" in popup
        assert "HLA-A*01:01:01:01:21-180" in popup
        check_tab(tab, made.page)


def go_to(tab: Tab, locus: str) -> str:
    """Type a locus, and return the locus that igv.js shows then."""
    field = f"{ROOT}.querySelector('.igv-search-input')"
    tab.value(f"({field}.value = {script_json(locus)}, {field}.dispatchEvent(new Event('change')))")
    tab.value("new Promise(done => setTimeout(done, 700))")
    return tab.value(f"{field}.value")


@pytest.mark.slow
@pytest.mark.parametrize("embedded", [True, False])
def test_bases_and_scores_of_names_that_igv_misreads(
    embedded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sequence is found by its own name, with its own bases and its peak."""
    if not embedded:
        monkeypatch.setattr("genoscan.export.page._EMBED_LIMIT", 10)
    odd = (*COLONS, "chrM", "MT", "Abc", "aBC", "gi|5|x.1|", "é:1", "<b>x</b>", "all", "plain")
    sequences = {name: bases(300, seed=i) for i, name in enumerate(odd)}
    make(tmp_path, sequences, track="a#b?c%41 d'\"é", fasta="x#?% é")
    with served(tmp_path) as address, browser(tmp_path) as tab:
        tab.open(f"{address}/page.html")
        for name in odd:
            assert go_to(tab, f"{name}:31-70") == f"{name}:31-70"
            frame = "igvBrowser.referenceFrameList[0].chr"
            assert tab.value(f"igvBrowser.genome.getSequence({frame}, 30, 70)") == sequences[name][30:70]
            scores = f"igvBrowser.trackViews.at(-3).track.tracks[0].getFeatures({frame}, 30, 70, 0.1)"
            values = tab.value(f"{scores}.then(found => found.map(one => [one.start, one.value]))")
            assert [50, 7] in values
        assert not tab.complaints


@pytest.mark.slow
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_browser_runs_nothing(payload: str, tmp_path: Path) -> None:
    """Open page and report, click a gene, and open and choose from all menus."""
    text = PAYLOADS[payload]
    name = re.sub(r"[\s{}]", "/", text)
    made = make(
        tmp_path, {name: bases(200, seed=1)}, feature=text, record=text, track=text.replace("/", "\\"), fasta="<b>g"
    )
    with browser(tmp_path) as tab:
        tab.open(made.page.as_uri())
        assert labels(tab)[0] == text.replace("/", "\\")
        click_gene(tab)
        gears = f"[...{ROOT}.querySelectorAll('.igv-gear-menu-column > div > div')]"
        for i in range(tab.value(f"{gears}.length")):
            tab.value(f"{gears}[{i}].click()")
            tab.value("new Promise(done => setTimeout(done, 100))")
        for x in (100, 300, 500):
            for y in range(300, 700, 40):
                tab.click(x, y, button="right")
        go_to(tab, text)
        check_tab(tab, made.page)
        tab.open(made.report.as_uri())
        assert tab.value("document.querySelectorAll('.main-svg').length") >= 4
        assert tab.value("document.querySelector('.ytitle').textContent") == "centred"
        assert tab.value("document.querySelector('.xtitle').textContent") == f"{name}:1-200"
        check_tab(tab, made.report)


def write_sessions(folder: Path) -> tuple[Path, Path]:
    """Write an IGV session and a JBrowse configuration of sequences with colons and a file with a blank."""
    make(folder, {name: bases(300, seed=i) for i, name in enumerate(COLONS)}, track="a #%41", fasta="x")
    written = folder / "s.xml", folder / "config.json"
    for kind, output in zip(("igv", "jbrowse"), written, strict=True):
        done = genoscan("export", kind, folder / "a #%41.bw", "-g", folder / "x.fa", "-o", output)
        assert done.code == 0, done.err
    return written


def test_sessions_of_names_with_colons(tmp_path: Path) -> None:
    session, config = write_sessions(tmp_path)
    assert f'locus="{COLONS[0]}"' in session.read_text()
    text = config.read_text()
    assert f'"loc": "{COLONS[0]}:1-300"' in text
    assert '"uri": "a%20%23%2541.bw"' in text


def test_file_names_that_are_not_text(tmp_path: Path) -> None:
    """Pages show a replacement character; a session, which is XML, is refused."""
    made, odd = make(tmp_path, {"chr1": bases(300, seed=1)}), tmp_path / "a\udcff\x01.bw"
    made.page.unlink()
    shutil.copy(tmp_path / "peaks.bw", odd)
    shutil.copy(tmp_path / "peaks.bw.json", f"{odd}.json")
    assert genoscan("export", "html", odd, "-g", tmp_path / "g.fa", "-o", made.page).code == 0
    assert "<h1>a\ufffd" in made.page.read_text(encoding="utf-8")
    done = genoscan("export", "igv", odd, "-g", tmp_path / "g.fa", "-o", tmp_path / "s.xml")
    assert done.code == 1
    assert "XML can represent: rename it" in done.err
    assert not (tmp_path / "s.xml").exists()


@pytest.mark.slow
def test_igv_opens_a_session_of_a_name_with_colons(tmp_path: Path) -> None:
    write_sessions(tmp_path)
    shutil.copy(ROOT_FOLDER / "genoscan" / "export" / "vendor" / "igv-3.8.10.min.js", tmp_path / "igv.js")
    (tmp_path / "index.html").write_text(
        '<script src="igv.js"></script><body><div id="b"></div><script>igv.createBrowser(document.getElementById("b"),'
        '{sessionURL: "s.xml", loadDefaultGenomes: false, search: false})'
        '.then(() => document.body.dataset.ready = "yes")'
        "</script>"
    )
    with served(tmp_path) as address, browser(tmp_path) as tab:
        tab.open(f"{address}/index.html")
        assert tab.value("String(igvBrowser.currentLoci())") == f"{COLONS[0]}:1-300"


@pytest.mark.slow
def test_a_served_folder_lists_hostile_names_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    (folder / f"sub{ELEMENT}").mkdir(parents=True)
    (folder / f"{ELEMENT}.html").write_text("<body data-ready=yes>")
    with served(folder) as address, browser(tmp_path) as tab:
        tab.open(f"{address}/", ready="document.readyState === 'complete'")
        assert ELEMENT in tab.value("document.body.textContent")
        assert tab.value("document.body.dataset.pwn ?? null") is None
        assert not tab.complaints
        tab.open(f"{address}/{quote(ELEMENT)}", ready="document.readyState === 'complete'")
        assert tab.value("document.body.dataset.pwn ?? null") is None
    shutil.rmtree(folder)
