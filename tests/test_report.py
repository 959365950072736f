"""The report: its numbers, its page, and what is refused; a real browser opens it (slow)."""

import base64
import html
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import dom
from commands import bases, genoscan, write_fasta
from hypothesis import given
from hypothesis import strategies as st

from genoscan.export.logo import logo
from genoscan.export.summary import FLANK, profile, summarize, top_windows
from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.tracks.provenance import read_provenance, write_provenance
from genoscan.tracks.reader import BigWig
from genoscan.tracks.record_schema import region_records
from genoscan.tracks.top_scores import TopScores
from genoscan.tracks.writer import open_track

LENGTHS = {"chr1": 30_000, "chr2": 600}
SEQUENCES = {chrom: bases(length, seed=length) for chrom, length in LENGTHS.items()}
REGIONS = Region("chr1", 2_000, 9_500), Region("chr1", 12_000, 20_000), Region("chr2", 100, 500)


def random_scores() -> dict[Region, np.ndarray]:
    random = np.random.default_rng(7)
    scores = {r: random.normal(size=len(r)).astype(np.float32) for r in REGIONS}
    scores[REGIONS[0]][100:160] = np.nan
    return scores


def written(folder: Path, scores: dict[Region, np.ndarray], name: str = "peaks") -> Path:
    """Write a track as attribute leaves it."""
    genome, path = write_fasta(folder / "g.fa", SEQUENCES), folder / f"{name}.bw"
    with open_track(path, LENGTHS) as writer:
        for region, values in scores.items():
            writer.write(region, values)
    assert genoscan("plan", genome, "-r", "chr2", "-o", folder / "x.bw").code == 0  # its index
    opened = open_genome(genome)
    record = {
        "model": "</script><b>",
        "target": "log-likelihood",
        "score": "centred",
        "command": ["genoscan", "attribute", "g.fa"],
        "regions": [f"{r.chrom}:{r.start + 1}-{r.end}" for r in REGIONS],
        "scored_bases": int(sum((~np.isnan(values)).sum() for values in scores.values())),
        "sequences": [{"name": chrom, "length": length, "m5": opened.m5(chrom)} for chrom, length in LENGTHS.items()],
    }
    write_provenance(path, record)
    return path


@pytest.mark.parametrize("piece", [1_000, 1 << 20])
def test_a_summary_agrees_with_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr("genoscan.export.summary.PIECE", piece)
    scores = random_scores()
    with BigWig(written(tmp_path, scores)) as track:
        seen = summarize(track, REGIONS, top=30, curves=3)
    every = np.concatenate([scores[r] for r in REGIONS])
    known = every[~np.isnan(every)]
    assert seen.scored == len(known)
    assert seen.counts.sum() == len(known)
    np.testing.assert_array_equal(seen.counts, np.histogram(known.astype(float), 120)[0])
    sizes = np.sort(np.abs(known))[::-1][:30]
    assert [abs(site.score) for site in seen.sites] == sizes.tolist()
    for (base, score), _ in zip(seen.sites, range(30), strict=True):
        home = next(r for r in REGIONS if r.chrom == base.chrom and r.start <= base.start < r.end)
        assert scores[home][base.start - home.start] == np.float32(score)
    for curve in seen.curves:
        values = scores[curve.region]
        for i in range(len(curve.low)):
            here = values[i * curve.step : (i + 1) * curve.step]
            if np.isnan(here).all():
                assert np.isnan(curve.low[i])
                assert np.isnan(curve.high[i])
            else:
                assert (curve.low[i], curve.high[i]) == (np.nanmin(here), np.nanmax(here))
        assert len(curve.low) == -(-len(values) // curve.step) <= 1_000


@given(
    pieces=st.lists(st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.5, -3.0, float("nan")]), max_size=9), max_size=9),
    top=st.integers(1, 12),
)
def test_the_strongest_are_those_of_a_sorted_list(pieces: list[list[float]], top: int) -> None:
    strongest, number = TopScores(top), 0
    for piece in pieces:
        strongest.add(number, np.array(piece, np.float32))
        number += len(piece)
    every = [(i, x) for i, x in enumerate(itertools.chain.from_iterable(pieces)) if x == x]
    assert list(strongest.ranked()) == sorted(every, key=lambda row: -abs(row[1]))[:top]


def test_top_windows_are_disjoint_and_within_regions(tmp_path: Path) -> None:
    with BigWig(written(tmp_path, random_scores())) as track:
        seen = summarize(track, REGIONS, top=2_000, curves=1)
        assert seen.regions == 3
        (largest,) = seen.curves
        assert largest.peak == abs(seen.sites[0].score)
    pieces = top_windows(seen.sites, REGIONS, width=60, limit=12)
    assert len(pieces) == 12
    first = pieces[0]
    assert first.start <= seen.sites[0].base.start < first.end
    for piece in pieces:
        assert len(piece) == 60
        assert any(r.chrom == piece.chrom and r.start <= piece.start and piece.end <= r.end for r in REGIONS)
    ordered = sorted(pieces, key=lambda p: (p.chrom, p.start))
    for left, right in itertools.pairwise(ordered):
        assert left.chrom != right.chrom or left.end <= right.start


def test_a_profile_finds_what_lies_before_features(tmp_path: Path) -> None:
    """Planted 25 bases before where features begin, on either strand; nothing elsewhere."""
    scores = {r: np.full(len(r), 0.5, np.float32) for r in REGIONS}
    features = []
    for i, at in enumerate(range(12_500, 19_500, 500)):
        strand = "+-"[i % 2]
        before = at - 25 if strand == "+" else at + 299 + 25
        features.append(Region("chr1", at, at + 300, strand=strand))
        scores[REGIONS[1]][before - 12_000] = -8
    features.append(Region("chr1", 25_000, 25_100))  # without scores
    with BigWig(written(tmp_path, scores)) as track:
        found = profile(track, REGIONS, features)
        assert profile(track, REGIONS, features[-1:]) is None
    assert found is not None
    assert found.features == 14
    assert found.mean.argmax() == FLANK - 25
    assert found.mean[FLANK - 25] == 8
    assert found.mean[FLANK] == 0.5
    assert found.highest.max() < 8
    assert found.lowest.min() >= 0.5


def test_letters_are_as_high_as_their_scores() -> None:
    drawn = logo("ACN", np.array([2, -1, np.nan], np.float32), label="a <b>")
    assert re.findall(r'href="#base-(.)"[^>]* height="([\d.]+)"', drawn) == [("A", "60.00"), ("C", "30.00")]
    assert drawn.count("matrix(1 0 0 -1") == 1
    assert "a &lt;b&gt;" in drawn


def test_the_page(tmp_path: Path) -> None:
    track = written(tmp_path, random_scores())
    genes = tmp_path / "genes.bed"
    genes.write_text("chr1\t13000\t19000\tone<i>\t0\t-\nchr2\t150\t480\ttwo\t0\t+\n")
    page = tmp_path / "report.html"
    done = genoscan("report", track, "-g", tmp_path / "g.fa", "-a", genes, "-o", page)
    assert (done.code, done.out) == (0, f"{page}\n"), done.err
    text = page.read_text()
    own = re.sub(r"<script>/\*\*.*?</script>", "", text, count=1, flags=re.DOTALL)
    assert len(own) < len(text) / 2  # without plotly.js
    assert "<b>" not in own
    assert "<i>" not in own
    assert html.escape("</script><b>") in own
    assert own.count("<option>") == 3
    assert own.count('<svg class="logo"') == 12
    assert "MD5 checksums match" in own
    assert "15,840 bases have scores, as stated in its record" in own
    encoded = re.search(r"tab-separated-values;base64,([^\"]+)", own)
    assert encoded
    rows = base64.b64decode(encoded[1]).decode().splitlines()
    assert rows[0] == "#chrom\tstart\tend\tbase\tscore\tregion\tfeature"
    assert len(rows) == 51
    for row in rows[1:]:
        chrom, start, end, base, score, region, feature = row.split("\t")
        assert region == "."
        assert SEQUENCES[chrom][int(start) : int(end)] == base
        with BigWig(track) as scores:
            assert scores.scores(chrom, int(start), int(end))[0] == pytest.approx(float(score), rel=1e-5)
        inside = {"chr1": (13_000, 19_000, "one<i>"), "chr2": (150, 480, "two")}[chrom]
        assert feature == (inside[2] if inside[0] <= int(start) < inside[1] else ".")
    curves = re.search(r"curves = (\[.*?\]), axes", own)
    assert curves
    assert [curve["first"] for curve in json.loads(curves[1])]


def test_names_of_regions(tmp_path: Path) -> None:
    """In menus, captions and tables of report and page."""
    track = written(tmp_path, random_scores())
    names = dict(zip(REGIONS, ("peak <1>", "", "two\tnames"), strict=True))
    record = read_provenance(track)
    record["regions"] = region_records([replace(region, name=name) for region, name in names.items()])
    write_provenance(track, record)
    for command in (["report"], ["export", "html"]):
        done = genoscan(*command, track, "-g", tmp_path / "g.fa", "-o", tmp_path / f"{command[-1]}.html")
        assert done.code == 0, done.err
    report, page = ((tmp_path / f"{name}.html").read_text() for name in ("report", "html"))
    for text in (report, page):
        assert "peak &lt;1&gt;, chr1:2,001-9,500</option>" in text
        assert ">chr1:12,001-20,000</option>" in text
    assert '<option value="chr1:2,001-9,500" selected>peak' in page
    assert ">score<th>region</tr>" in report
    assert "<figcaption>peak &lt;1&gt;, chr1:" in report
    encoded = re.search(r"tab-separated-values;base64,([^\"]+)", report)
    assert encoded
    table = [line.split("\t") for line in base64.b64decode(encoded[1]).decode().splitlines()]
    assert {len(row) for row in table} == {7}
    for chrom, start, _, _, _, name, _ in table[1:]:
        (home,) = (r for r in REGIONS if r.chrom == chrom and r.start <= int(start) < r.end)
        assert name == (names[home].replace("\t", " ") or ".")


def test_what_is_refused(tmp_path: Path) -> None:
    track, genome = written(tmp_path, random_scores()), tmp_path / "g.fa"
    page = tmp_path / "report.html"

    def said(*arguments: object) -> str:
        done = genoscan("report", *arguments, "-o", page)
        assert done.code == 1
        assert not page.exists()
        assert "Traceback" not in done.err
        return done.err

    assert "file not found" in said(track, "-g", genome, "-a", tmp_path / "none.bed")
    for folder in ("/", tmp_path):
        refused = genoscan("report", track, "-g", genome, "-o", folder)
        assert "it is a folder: name a file" in refused.err
    for read in (track, f"{track}.json", genome):
        assert "read from, too" in genoscan("report", track, "-g", genome, "-o", read).err
    other = tmp_path / "other"
    other.mkdir()
    mutated = {chrom: text[::-1] for chrom, text in SEQUENCES.items()}
    assert "computed on another chr1" in said(track, "-g", write_fasta(other / "g.fa", mutated))
    track.write_bytes(track.read_bytes()[:400])
    assert str(track) in said(track, "-g", genome)
    Path(f"{track}.json").unlink()
    assert "truncated" in said(track, "-g", genome)
    assert "expected a name that ends in .html" in genoscan("report", track, "-g", genome, "-o", tmp_path / "r.htm").err


def test_a_track_without_scores(tmp_path: Path) -> None:
    nothing = {r: np.full(len(r), np.nan, np.float32) for r in REGIONS}
    track = written(tmp_path, nothing)
    done = genoscan("report", track, "-g", tmp_path / "g.fa", "-o", tmp_path / "report.html")
    assert done.code == 0, done.err
    assert "<li>0 bases have scores" in (tmp_path / "report.html").read_text()


def test_a_profile_where_little_is_known(tmp_path: Path) -> None:
    """What has no score is neither nought, nor a place that is drawn."""
    scores = {r: np.full(len(r), np.nan, np.float32) for r in REGIONS}
    scores[REGIONS[0]][1_000:1_150] = 1
    features = [Region("chr1", 3_100, 3_200), Region("chr1", 5_000, 5_100)]
    with BigWig(written(tmp_path, scores)) as track:
        found = profile(track, REGIONS, features)
    assert found is not None
    assert (found.features, found.n_sampled) == (1, 1)
    np.testing.assert_array_equal(found.mean[FLANK - 100 : FLANK + 50], 1)
    assert np.isnan(found.mean).sum() == 2 * FLANK + 1 - 150
    assert found.lowest[FLANK] == found.highest[FLANK] == 1


def test_scores_of_nought_are_counted(tmp_path: Path) -> None:
    scores = {r: np.full(len(r), i, np.float32) for i, r in enumerate(REGIONS)}
    with BigWig(written(tmp_path, scores)) as track:
        assert summarize(track, REGIONS, top=1, curves=1).counts.sum() == sum(map(len, REGIONS))


@pytest.mark.slow
def test_a_browser_opens_the_report(tmp_path: Path) -> None:
    """The figures are drawn, and no request leaves the page."""
    track = written(tmp_path, random_scores())
    page = tmp_path / "report.html"
    assert genoscan("report", track, "-g", tmp_path / "g.fa", "-o", page).code == 0
    seen, asked = dom(page.as_uri(), tmp_path)
    assert 'data-ready="yes"' in seen
    assert seen.count("main-svg") >= 2
    assert not asked
