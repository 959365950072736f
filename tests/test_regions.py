"""Tracks within regions, and beside one another: tables, correlations, and what is said about gaps."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyBigWig
import pytest
from commands import genoscan
from hypothesis import given, settings
from hypothesis import strategies as st

import genoscan as package
from genoscan.errors import InputError
from genoscan.genome.region import Region
from genoscan.tracks import region_scores, region_table
from genoscan.tracks.columns import write_columns
from genoscan.tracks.compare import compare
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.region_table import summarize_regions
from genoscan.tracks.score import SCORES
from genoscan.tracks.track_reader import open_scores, read_scores, track_labels
from genoscan.tracks.writer import open_track

SIZES = {"b": 300, "a": 900, "empty": 40}


def random_scores(seed: int, gaps: float = 0.3) -> dict[str, np.ndarray]:
    """Return scores with gaps, and with equal extremes at several positions."""
    random = np.random.default_rng(seed)
    found = {}
    for chrom in ("b", "a"):
        values = np.repeat(random.integers(-9, 9, SIZES[chrom] // 3) / 4, 3).astype(np.float32)
        values[random.random(len(values)) < gaps] = np.nan
        found[chrom] = values
    return found


def write(path: Path, scores: dict[str, np.ndarray]) -> Path:
    """Write a track in the format of its suffix."""
    if path.suffix == ".npz":
        return write_archive(path, scores)
    with open_track(path, SIZES) as track:
        for chrom, values in scores.items():
            track.write(Region(chrom, 0, len(values)), values)
    return path


def write_archive(path: Path, scores: dict[str, np.ndarray]) -> Path:
    """Write an archive whose `observed` score is the given one, in two regions per sequence."""
    regions = [Region(chrom, *ends) for chrom in scores for ends in ((0, 100), (100, SIZES[chrom]))]
    values = np.concatenate([scores[r.chrom][r.start : r.end] for r in regions])
    codes = np.where(np.isnan(values), 4, 2).astype(np.uint8)
    gradient = np.full((len(values), 4), np.nan, np.float32)
    gradient[:, 2] = values
    gradient[:, [0, 1, 3]] = np.where(np.isnan(values), np.nan, 0)[:, None]
    write_columns(path, gradient=gradient, codes=codes, regions=regions)
    sequences = [{"name": chrom, "length": length, "m5": "0"} for chrom, length in SIZES.items()]
    write_provenance(path, {"model": "m", "target": "log-likelihood", "score": "observed", "sequences": sequences})
    np.testing.assert_array_equal(SCORES["observed"](gradient, codes), values)
    return path


def write_bed(path: Path, regions: Sequence[Region]) -> Path:
    rows = (f"{r.chrom}\t{r.start}\t{r.end}\t{r.name or '.'}\t0\t{r.strand}\textra\n" for r in regions)
    path.write_text("track name=x\n" + "".join(rows))
    return path


def expected_row(values: np.ndarray, start: int) -> list[float]:
    """Return the statistics of scores by their definitions."""
    known = values[~np.isnan(values)].astype(float)
    if not len(known):
        return [0, *[np.nan] * 7]
    extremes = [x for f in (np.nanargmax, np.nanargmin) for x in (float(values[f(values)]), start + f(values) + 1)]
    return [len(known), known.mean(), np.abs(known).mean(), known.sum(), *extremes]


regions_of_sizes = st.lists(
    st.builds(
        lambda chrom, start, length, strand: Region(chrom, start, start + length, strand=strand),
        st.sampled_from(["a", "b", "empty", "absent"]),
        st.integers(0, 950),
        st.integers(1, 400),
        st.sampled_from("+-."),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("suffix", [".bw", ".bedgraph", ".bg.gz", ".npz"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), regions=regions_of_sizes, piece=st.sampled_from([7, 100, 1 << 20]))
def test_a_table_is_numpys_own(
    suffix: str, seed: int, regions: list[Region], piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Rows in the given order; regions overlap, end past their sequences, or are on none."""
    scores = random_scores(seed)
    path = write(tmp_path_factory.mktemp("x") / f"x{suffix}", scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region_scores, "PIECE", piece)
        patch.setattr(region_scores, "_GAP", piece)
        table = summarize_regions(path, regions)
    whole = scores | {"empty": np.full(40, np.nan, np.float32), "absent": np.zeros(0, np.float32)}
    expected = [expected_row(whole[r.chrom][r.start : r.end], r.start) for r in regions]
    assert table.columns.tolist() == [
        *("chrom", "start", "end", "name", "strand"),
        *(f"x.{name}" for name in region_table.STATISTICS),
    ]
    assert table["strand"].tolist() == [r.strand for r in regions]
    assert table["start"].tolist() == [r.start for r in regions]
    found = table[table.columns[5:]].astype(float).to_numpy()
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-12)


def test_named_peaks_on_the_command_line(tmp_path: Path) -> None:
    """A foreign bigWig beside ours; names, strands and order are those of the file, and gaps are stated."""
    ours = write(tmp_path / "mamba.v2.bw", random_scores(1))
    with pyBigWig.open(str(tmp_path / "phylop.bw"), "w") as theirs:
        theirs.addHeader([("a", 900)])
        theirs.addEntries("a", 100, values=np.arange(50, dtype=float), span=2, step=4)
    regions = [
        Region("a", 90, 110, name="late", strand="-"),
        Region("b", 0, 50, name="other", strand="+"),
        Region("a", 880, 950),
        Region("chr1", 5, 9, name="a peak"),
    ]
    bed = write_bed(tmp_path / "peaks.bed", regions)
    done = genoscan("track", "summarize", ours, tmp_path / "phylop.bw", "-R", bed, "-o", tmp_path / "t.tsv")
    assert (done.code, done.out) == (0, f"{tmp_path / 't.tsv'}\n"), done.err
    assert done.err.splitlines() == [
        f'{ours}: 1 of 4 regions without a score (1 because no sequence is called "chr1"; the genome has b, a, empty)',
        f"{ours}: 1 of 4 regions extend past the ends of their sequences",
        f'{tmp_path}/phylop.bw: 3 of 4 regions without a score (2 because no sequence is called "b"; the genome has a)',
        f"{tmp_path}/phylop.bw: 1 of 4 regions extend past the ends of their sequences",
    ]
    lines = (tmp_path / "t.tsv").read_text().splitlines()
    assert lines[0].startswith("#chrom\tstart\tend\tname\tstrand\tmamba.v2.covered\tmamba.v2.mean\t")
    rows = [line.split("\t") for line in lines[1:]]
    assert [row[3:5] for row in rows] == [["late", "-"], ["other", "+"], [".", "."], ["a peak", "."]]
    # Values 0, 1 and 2 at two bases each of 101 to 110.
    assert rows[0][13:] == ["6", "1", "1", "6", "2", "109", "0", "101"]
    assert rows[1][13:] == rows[3][13:] == ["0", *[""] * 7]
    assert rows[3][5:13] == ["0", *[""] * 7]
    with pyBigWig.open(str(ours)) as theirs:
        assert float(rows[2][6]) == pytest.approx(theirs.stats("a", 880, 900, exact=True)[0], rel=1e-5)
    printed = genoscan("track", "summarize", ours, tmp_path / "phylop.bw", "-R", bed)
    assert printed.out.splitlines() == lines
    table = package.summarize_regions([ours, tmp_path / "phylop.bw"], bed)
    assert table["phylop.sum"].tolist()[0] == 6
    assert table["phylop.max_position"].isna().tolist() == [False, True, True, True]


def test_labels_of_tracks() -> None:
    def labels(*paths: str) -> list[str]:
        return track_labels([Path(path) for path in paths])

    assert labels("x/a.b.bw", "b.bedgraph.gz", "c.npz") == ["a.b", "b", "c"]
    assert labels("a.bw", "a.npz") == ["a.bw", "a.npz"]
    assert labels("1/a.bw", "2/a.bw", "/a.bw") == ["1/a.bw", "2/a.bw", "/a.bw"]
    assert labels("1/x/a.bw", "2/x/a.bw") == ["1/x/a.bw", "2/x/a.bw"]
    assert labels("a\tb\udce9.bw") == ["a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"]
    with pytest.raises(InputError, match=r"a\.bw: is given twice"):
        labels("a.bw", "./a.bw")


def test_scores_that_are_refused(tmp_path: Path) -> None:
    bed = write_bed(tmp_path / "x.bed", [Region("a", 0, 50)])
    with pyBigWig.open(str(tmp_path / "x.bw"), "w") as theirs:
        theirs.addHeader([("a", 900)])
        theirs.addEntries(["a"], [7], ends=[9], values=[float("inf")])
    (tmp_path / "x.bg").write_text("a\t5\t9\t1\na\t8\t10\t1\n")
    (tmp_path / "far.bg").write_text(f"a\t5\t{10**13}\t1\n")
    (tmp_path / "x.npz").write_bytes(b"no archive")
    for name, said in (
        ("x.bw", "the value at a:8 is infinite"),
        ("x.bg", "two rows contain a:9, expected one score per base"),
        ("far.bg", "far.bg:1: ends at 10,000,000,000,000, longer than any sequence"),
        ("x.npz", "x.npz.json"),
        (
            "x.txt",
            "unknown suffix, expected one of .bw, .bigwig, .bedgraph, .bg, .bdg, .bedgraph.gz, .bg.gz, .bdg.gz, .npz",
        ),
    ):
        done = genoscan("track", "summarize", tmp_path / name, "-R", bed, "-o", tmp_path / "t.tsv")
        assert (done.code, done.err.count("\n")) == (1, 1), done.err
        assert said in done.err
        assert not (tmp_path / "t.tsv").exists()
    assert "is read from, too" in genoscan("track", "summarize", tmp_path / "x.bg", "-R", bed, "-o", bed).err


def test_an_archive_and_its_record_belong_together(tmp_path: Path) -> None:
    path = write(tmp_path / "x.npz", random_scores(1))
    record = json.loads((tmp_path / "x.npz.json").read_text())
    record["sequences"][0]["length"] = 299
    (tmp_path / "x.npz.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"b:101-300 is not within a sequence of its record"), open_scores(path):
        pass


def test_a_compressed_bedgraph_in_any_order(tmp_path: Path) -> None:
    """Of another tool: gzip, not bgzip; unsorted."""
    with gzip.open(tmp_path / "x.bedgraph.gz", "wt") as file:
        file.write("track type=bedGraph\nb\t10\t20\t2\na\t5\t6\t-1\nb\t0\t5\t1.5\n")
    with open_scores(tmp_path / "x.bedgraph.gz") as track:
        assert (track.sizes, track.states_lengths) == ({"b": 20, "a": 6}, False)
        found = read_scores(track, "b", -2, 22)
    assert np.nan_to_num(found).tolist() == [0] * 2 + [1.5] * 5 + [0] * 5 + [2] * 10 + [0] * 2
    assert np.isnan(package.read_track(tmp_path / "x.bedgraph.gz", "b:30-40")).all()


# ---- comparison


def test_a_comparison_is_pandas_own(tmp_path: Path) -> None:
    """Four tracks in four formats, over the bases that each pair has in common."""
    scores = [random_scores(seed) for seed in range(4)]
    scores[1] = {chrom: values + 3 * scores[0][chrom] for chrom, values in scores[1].items()}
    suffixes = ".bw", ".npz", ".bedgraph", ".bg.gz"
    paths = [write(tmp_path / f"t{i}{suffix}", scores[i]) for i, suffix in enumerate(suffixes)]
    found = compare(paths)
    frame = pd.DataFrame({f"t{i}": np.concatenate([s["b"], s["a"]]) for i, s in enumerate(scores)}, dtype=float)
    known = frame.notna().astype(int)
    assert found.labels == ("t0", "t1", "t2", "t3")
    np.testing.assert_array_equal(found.shared, known.T @ known)
    np.testing.assert_allclose(found.pearson, frame.corr(), atol=1e-12)
    np.testing.assert_allclose(found.spearman, frame.corr("spearman"), atol=1e-12)
    assert found.pearson[0, 1] > 0.9
    assert found.largest == ()
    done = genoscan("track", "compare", *paths, "-o", tmp_path / "c.tsv", "-n", 3)
    assert (done.code, done.err) == (0, "without effect: --top (differences are listed for two tracks)\n")
    lines = done.out.splitlines()
    assert lines[2].split()[:2] == ["t1", f"{found.shared[1, 1]:,}"]
    assert "model m; target log-likelihood; score observed" in lines[2]
    assert lines[1].split(maxsplit=2)[2] == "values of another program"
    at = lines.index("Spearman correlation")
    assert lines[at + 1].split() == list(found.labels)
    assert lines[at + 3].split() == ["t1", *(f"{x:.4f}" for x in found.spearman[1])]
    table = pd.read_csv(tmp_path / "c.tsv", sep="\t")
    assert table.columns.tolist() == ["#first", "second", "both", "only_first", "only_second", "pearson", "spearman"]
    row = table[(table["#first"] == "t1") & (table["second"] == "t3")].iloc[0]
    assert row["only_first"] == (known["t1"] & ~known["t3"] & 1).sum()
    assert row["spearman"] == pytest.approx(found.spearman[1, 3], abs=1e-6)


@pytest.mark.parametrize("piece", [50, 1 << 20])
def test_the_largest_differences_of_two_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr("genoscan.tracks.compare.PIECE", piece)
    first, second = random_scores(3), random_scores(4)
    one, other = write(tmp_path / "1.bw", first), write(tmp_path / "2.bedgraph", second)
    found = compare([one, other], top=4)
    difference = np.concatenate([np.abs(first[chrom] - second[chrom]) for chrom in ("b", "a")])
    sizes = np.sort(difference[~np.isnan(difference)])[::-1][:4]
    assert [abs(x - y) for _, x, y in found.largest] == pytest.approx(sizes, rel=1e-5)
    for base, x, y in found.largest:
        assert (first[base.chrom][base.start], second[base.chrom][base.start]) == (np.float32(x), np.float32(y))
    printed = genoscan("track", "compare", one, other, "-n", 4).out.splitlines()
    assert printed[-5] == "#chrom\tstart\tend\tfirst\tsecond\tdifference"
    assert printed[-4].split("\t")[:2] == [found.largest[0].base.chrom, str(found.largest[0].base.start)]


def test_equal_tracks_have_no_differences(tmp_path: Path) -> None:
    scores = random_scores(3)
    one, other = write(tmp_path / "1.bw", scores), write(tmp_path / "2.bw", scores)
    done = genoscan("track", "compare", one, other)
    n = sum(int((~np.isnan(values)).sum()) for values in scores.values())
    assert done.out.splitlines()[-3:] == [
        f"in both {n:,} bases, Pearson 1, Spearman 1",
        "",
        f"equal scores at all {n:,} bases with a score in both tracks",
    ]
    # A difference at one base only.
    scores["a"][np.flatnonzero(~np.isnan(scores["a"]))[0]] += 1
    changed = genoscan("track", "compare", one, write(tmp_path / "3.bw", scores))
    assert changed.out.splitlines()[-2].startswith("#chrom")


def test_tracks_that_cannot_be_compared(tmp_path: Path) -> None:
    track = write(tmp_path / "1.bw", random_scores(3))
    (tmp_path / "5.bg").write_text("b\t298\t301\t1\n")
    for name, sizes in (("3.bw", {"b": 299}), ("4.bw", {"c": 299})):
        with open_track(tmp_path / name, sizes) as writer:
            writer.write(Region(next(iter(sizes)), 0, 2), np.ones(2, np.float32))

    def said(*words: object) -> str:
        done = genoscan("track", "compare", *words)
        assert (done.code, done.out.count("#")) == (1, 0)
        return done.err

    assert "expected 0 or more" in said(track, tmp_path / "3.bw", "-n", "-1")
    assert "3.bw: b has 299 bases, 300 in" in said(track, tmp_path / "3.bw")
    assert "no sequence that" in said(track, tmp_path / "4.bw")
    for order in ([track, tmp_path / "5.bg"], [tmp_path / "5.bg", track]):
        assert "5.bg: b has 301 bases, 300 in" in said(*order)
    assert "expected at least two tracks" in said(track)
    assert "is given twice" in said(track, track)
