"""Scores around reference points: their values, their mean, and the files that show them."""

import base64
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import browser
from commands import genoscan
from hypothesis import given, settings
from hypothesis import strategies as st
from test_regions import SIZES, random_scores, regions_of_sizes, write, write_bed

from genoscan.errors import InputError
from genoscan.export import profile_files
from genoscan.export.profiles import compute_profiles
from genoscan.genome.region import Region
from genoscan.tracks import region_scores
from genoscan.tracks.profile import Window, mean_profile, reference_base, scores_around
from genoscan.tracks.track_reader import open_scores
from genoscan.tracks.writer import open_track


def test_reference_points() -> None:
    """The two strands mirror one another."""
    for length in (1, 4, 5):
        for point, offset in (("start", 0), ("center", length // 2), ("end", length - 1)):
            for strand in "+.":
                at = reference_base(Region("a", 10, 10 + length, name="x", strand=strand), point)
                assert (at.start, at.end, at.name, at.strand) == (10 + offset, 11 + offset, "x", strand)
            at = reference_base(Region("a", 10, 10 + length, strand="-"), point)
            assert at.start == 9 + length - offset
    with pytest.raises(InputError, match="middle: expected one of start, center, end"):
        reference_base(Region("a", 1, 2), "middle")


@pytest.mark.parametrize("suffix", [".bw", ".npz"])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    regions=regions_of_sizes,
    sides=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    step=st.integers(1, 9),
    absolute=st.booleans(),
    piece=st.sampled_from([100, 1 << 20]),
)
def test_scores_around_bases_are_those_of_the_track(
    suffix: str,
    seed: int,
    regions: list[Region],
    sides: tuple[int, int],
    step: int,
    absolute: bool,
    piece: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Base by base, by the definition: also past sequences, on unknown ones, and on both strands."""
    scores = random_scores(seed)
    bases, window = [reference_base(region, "start") for region in regions], Window(*sides, step)
    path = write(tmp_path_factory.mktemp("x") / f"x{suffix}", scores)
    with pytest.MonkeyPatch.context() as patch, open_scores(path) as track:
        patch.setattr(region_scores, "PIECE", piece)
        found = scores_around(track, bases, window, absolute=absolute)
    assert found.shape == (len(bases), len(window.offsets))
    for base, row in zip(bases, found, strict=True):
        chrom = scores.get(base.chrom, np.zeros(0, np.float32))
        positions = base.start + (-1 if base.strand == "-" else 1) * np.arange(-sides[0], sides[1] + 1)
        values = np.array([chrom[i] if 0 <= i < len(chrom) else np.nan for i in positions])
        values = np.abs(values) if absolute else values
        for i, offset in enumerate(window.offsets):
            here = values[offset + sides[0] :][:step]
            known = here[~np.isnan(here)]
            assert row[i] == (
                pytest.approx(known.mean(), rel=1e-6) if len(known) else pytest.approx(np.nan, nan_ok=True)
            )


def test_a_mean_profile_is_numpys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genoscan.tracks.profile._ROWS", 7)
    random = np.random.default_rng(1)
    scores = random.normal(3, 2, size=(50, 4)).astype(np.float32)
    scores[random.random((50, 4)) < 0.3] = np.nan
    scores[1:, 2], scores[:, 3] = np.nan, np.nan
    scores[0, 2] = 1
    found = mean_profile(scores)
    n = (~np.isnan(scores)).sum(0)
    assert found.n.tolist() == n.tolist() == [n[0], n[1], 1, 0]
    np.testing.assert_allclose(found.mean[:2], np.nanmean(scores[:, :2].astype(float), 0))
    deviation = np.nanstd(scores[:, :2].astype(float), axis=0, ddof=1)
    np.testing.assert_allclose(found.standard_error[:2], deviation / np.sqrt(n[:2]))
    assert found.mean[2] == 1
    assert np.isnan([found.standard_error[2], found.mean[3], found.standard_error[3]]).all()


def planted(path: Path, n: int = 12) -> list[Region]:
    """Write a track with 5 two bases upstream of regions, and 1 elsewhere; return the regions."""
    values = np.ones(SIZES["a"], np.float32)
    regions = []
    for number, at in enumerate(range(50, 50 + 60 * n, 60)):
        strand = "+-"[number % 2]
        regions.append(Region("a", at, at + 11, name=f"<b>{number}", strand=strand))
        values[at - 2 if strand == "+" else at + 12] = 5
    with open_track(path, SIZES) as track:
        track.write(Region("a", 0, SIZES["a"]), values)
    return regions


def figure_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r"const figure = (.*), names = \[.*\];\n", page)
    return json.loads(text)


def values_of(array: dict[str, str]) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"])
    return values.reshape([int(n) for n in array["shape"].split(",")]) if "shape" in array else values


def test_files_of_profiles(tmp_path: Path) -> None:
    regions = [*planted(tmp_path / "x.bw"), Region("b", 9, 20, strand="+"), Region("none", 5, 6)]
    other = write(tmp_path / "other<i>.bedgraph", random_scores(2, gaps=0))
    bed = write_bed(tmp_path / "<i>.bed", regions)
    outputs = tmp_path / "p.html", tmp_path / "p.tsv"
    words = "track", "profile", tmp_path / "x.bw", other, "-R", bed, "--upstream", 5, "--downstream", 8
    done = genoscan(*words, "-o", outputs[0], "-o", outputs[1])
    assert (done.code, done.out.splitlines()) == (0, [str(path) for path in outputs]), done.err
    note = "1 of 14 regions have no score in any track and are left out."
    assert done.err == f"{note}\n"
    table = pd.read_csv(outputs[1], sep="\t").rename(columns={"#track": "track"})
    assert table.columns.tolist() == ["track", "first_offset", "last_offset", "regions", "mean", "standard_error"]
    mine = table[table["track"] == "x"]
    assert mine["first_offset"].tolist() == mine["last_offset"].tolist() == list(range(-5, 9))
    assert mine["mean"].tolist() == [1, 1, 1, 5, *[1] * 10]
    assert mine["standard_error"].tolist() == [0] * 14
    assert mine["regions"].tolist() == [12] * 14
    page = outputs[0].read_text()
    own = re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.DOTALL)
    assert len(own) < len(page) / 2  # without plotly.js
    assert note in own
    assert "<i>" not in own and "<b>" not in own
    assert "&lt;i&gt;.bed" in own
    assert "values of another program" in own
    maps = [trace for trace in figure_of(page)["data"] if trace["type"] == "heatmap"]
    assert [values_of(trace["z"]).shape for trace in maps] == [(13, 14), (13, 14)]
    assert values_of(maps[0]["z"])[:12].tolist() == [[1, 1, 1, 5, *[1] * 10]] * 12
    assert np.isnan(values_of(maps[0]["z"])[12]).all()
    assert (maps[0]["zmin"], maps[1]["zmin"] < 0) == (0, True)
    names = json.loads(re.findall(r", names = (\[.*\]);", page)[0])
    assert names[1] == "<b>1, a:111-121, strand -"
    assert names[12] == "b:10-20, strand +"
    binned = genoscan(*words, "--bin", 7, "--absolute", "-o", outputs[1])
    assert binned.code == 0
    table = pd.read_csv(outputs[1], sep="\t")
    assert table[["first_offset", "last_offset"]].to_numpy()[:2].tolist() == [[-5, 1], [2, 8]]
    assert table["mean"].tolist()[:2] == pytest.approx([11 / 7, 1], rel=1e-5)


def test_few_regions_and_none(tmp_path: Path) -> None:
    """A mean of few regions is said to be none of many; one of no region is refused."""
    regions = planted(tmp_path / "x.bw", n=4)
    page = tmp_path / "p.html"
    for n, said in ((4, "A mean of 4 regions shows single regions"), (1, "A mean of 1 region shows that region")):
        bed = write_bed(tmp_path / "x.bed", regions[:n])
        done = genoscan("track", "profile", tmp_path / "x.bw", "-R", bed, "-o", page)
        assert (done.code, done.err) == (0, f"{said}, not a profile: give at least 5.\n")
        assert said in page.read_text()
    page.unlink()
    write_bed(bed, [Region("a", 100, 200)])
    assert "1 of 1 regions have no strand" in genoscan("track", "profile", tmp_path / "x.bw", "-R", bed, "-o", page).err
    page.unlink()
    write_bed(bed, [Region("none", 5, 6), Region("b", 5, 6)])

    def refused(*words: object) -> str:
        done = genoscan("track", "profile", tmp_path / "x.bw", "-R", bed, "-o", page, *words)
        assert (done.code, done.err.count("\n"), page.exists()) == (1, 1, False), done.err
        return done.err

    assert "x.bed:2: no base around it, nor around any other one, has a score" in refused()
    assert "--upstream -1: expected 0 bases or more" in refused("--upstream", -1)
    assert "--bin 0: expected 1 base or more" in refused("--bin", 0)
    assert "found 2,000,001 bases, expected at most 1,048,576" in refused("--upstream", 10**6, "--downstream", 10**6)
    assert "middle: expected one of start, center, end" in refused("--point", "middle")
    assert 'unknown suffix ".pdf", expected one of .html, .png, .tsv' in refused("-o", tmp_path / "p.pdf")


@pytest.mark.parametrize(("point", "offset"), [("start", -2), ("center", -7), ("end", -12)])
def test_offsets_are_from_the_point(tmp_path: Path, point: str, offset: int) -> None:
    """The planted scores are two bases upstream of the starts of 11 bases, on both strands."""
    bed = write_bed(tmp_path / "x.bed", planted(tmp_path / "x.bw"))
    words = "track", "profile", tmp_path / "x.bw", "-R", bed, "--point", point, "--upstream", 15, "--downstream", 5
    done = genoscan(*words, "--bin", 1, "-o", tmp_path / "p.tsv")
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "p.tsv", sep="\t")
    assert table[table["mean"] == 5].first_offset.tolist() == [offset]
    assert set(table["mean"]) == {1, 5}


def test_rows_of_many_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of rows, a heat map shows means of consecutive regions."""
    monkeypatch.setattr(profile_files, "_ROWS", 5)
    scores = random_scores(1)
    regions = [Region("a", at, at + 1, strand="+") for at in range(0, 888, 37)]
    found = compute_profiles([write(tmp_path / "x.bw", scores)], regions, "start", Window(3, 4))
    edges = profile_files._edges(len(found.regions))
    rows = profile_files._group_rows(found.scores[0])
    assert len(rows) == 5 == len(profile_files._row_names(found))
    for (first, last), row in zip(pairwise(edges), rows, strict=True):
        expected = pd.DataFrame(found.scores[0][first:last].astype(float)).mean()
        np.testing.assert_allclose(row, expected, rtol=1e-6)
    means = pd.DataFrame(found.scores[0].astype(float)).mean(axis=1).dropna()
    assert means.is_monotonic_decreasing


def test_a_picture_without_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = write_bed(tmp_path / "x.bed", planted(tmp_path / "x.bw"))
    words = "track", "profile", tmp_path / "x.bw", "-R", bed, "-o", tmp_path / "p.png", "-o", tmp_path / "p.tsv"

    def fail(*_: object, **__: object) -> bytes:
        raise RuntimeError("\nno browser\n")

    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", fail)
    done = genoscan(*words)
    assert done.code == 1
    assert "p.png: no picture drawn: no browser: install a Chrome, or write .html" in done.err
    monkeypatch.setattr(profile_files, "find_spec", lambda _: None)
    assert "p.png: requires kaleido" in genoscan(*words).err
    assert not list(tmp_path.glob("p.*"))


@pytest.mark.slow
def test_a_page_and_a_picture_are_drawn(tmp_path: Path) -> None:
    bed = write_bed(tmp_path / "x.bed", planted(tmp_path / "x.bw"))
    outputs = tmp_path / "p.html", tmp_path / "p.png"
    done = genoscan("track", "profile", tmp_path / "x.bw", "-R", bed, "-o", outputs[0], "-o", outputs[1])
    assert done.code == 0, done.err
    assert outputs[1].read_bytes().startswith(b"\x89PNG")
    with browser(tmp_path / "browser") as tab:
        tab.open(outputs[0].as_uri())
        assert tab.value("document.querySelectorAll('#profile .subplot').length") == 2
        rows = "document.getElementById('profile').data.find(trace => trace.type === 'heatmap').text"
        assert tab.value(f"{rows}[0][0]").startswith("&lt;b>")
        assert (tab.asked, tab.complaints) == (set(), [])
