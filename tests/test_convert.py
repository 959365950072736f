"""Tracks into other formats and back, and beside one another."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyBigWig
import pytest
from commands import bases, genoscan, write_fasta
from hypothesis import given, settings
from hypothesis import strategies as st

from genoscan.genome.region import Region
from genoscan.tracks import reader
from genoscan.tracks.convert import write_converted
from genoscan.tracks.writer import open_track

SIZES = {"b": 300, "a": 900, "empty": 40}


def write(path: Path, scores: dict[str, np.ndarray]) -> Path:
    with open_track(path, SIZES) as track:
        for chrom, values in scores.items():
            track.write(Region(chrom, 0, len(values)), values)
    return path


def random_scores(seed: int, gaps: float = 0.3) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    found = {}
    for chrom in ("b", "a"):
        values = np.repeat(random.normal(size=SIZES[chrom] // 3), 3).astype(np.float32)
        values[random.random(len(values)) < gaps] = np.nan
        found[chrom] = values
    return found


@pytest.mark.parametrize("suffix", [".bedgraph", ".bg.gz"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), piece=st.sampled_from([7, 100, 1 << 20]))
def test_there_and_back_is_the_same_track(
    suffix: str, seed: int, piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("there")
    scores = random_scores(seed)
    scores["b"][0] = 1.0  # a track of nothing is another test's
    track = write(folder / "x.bw", scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "PIECE", piece)
        n = write_converted(track, folder / f"x{suffix}")
        assert n == sum(int((~np.isnan(values)).sum()) for values in scores.values())
        write_converted(folder / f"x{suffix}", folder / "y.bw", SIZES)
    with reader.BigWig(folder / "y.bw") as again:
        assert again.sizes == SIZES
        for chrom, values in scores.items():
            np.testing.assert_array_equal(again.scores(chrom, 0, SIZES[chrom]), values)
    assert (folder / "y.bw").read_bytes() == track.read_bytes()


def test_what_genoscan_wrote_keeps_its_record(tmp_path: Path) -> None:
    track = write(tmp_path / "x.bw", random_scores(1))
    Path(f"{track}.json").write_text('{"format": "genoscan-track/1", "model": "m"}')
    done = genoscan("track", "convert", track, "-o", tmp_path / "y.bedgraph")
    assert (done.code, done.out) == (0, f"{tmp_path / 'y.bedgraph'}\n"), done.err
    assert '"model": "m"' in (tmp_path / "y.bedgraph.json").read_text()


def test_a_long_row_of_another_tool(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", {"b": bases(300, seed=1), "a": bases(900, seed=2)})
    (tmp_path / "x.bedgraph").write_text(
        "track type=bedGraph\n# made elsewhere\nb\t0\t300\t0.25\n\na 10 20 -1e-3\na\t20\t21\t7\n"
    )
    done = genoscan("track", "convert", tmp_path / "x.bedgraph", "-g", genome, "-o", tmp_path / "x.bw")
    assert done.code == 0, done.err
    assert "311 bases" in done.err
    with pyBigWig.open(str(tmp_path / "x.bw")) as file:
        assert file.intervals("a", 0, 900)[0][2] == np.float32(-1e-3)
        assert file.values("b", 0, 300) == [0.25] * 300


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("b\t1\t2\n", ":1: found 3 columns"),
        ("b\t1\tx\t3\n", ":1: found 1 x 3, expected start, end and score"),
        ("b\t0\t1_0\t3\n", ":1: found 0 1_0 3, expected start, end and score"),
        ("b\t0\t9\t2_5.0\n", ":1: found 0 9 2_5.0, expected start, end and score"),
        ("b\t0\t9\tinf\n", ":1: the score is inf, expected a finite float32"),
        ("b\t1\t2\tnan\n", ":1: the score is nan"),
        ("b\t1\t2\t1e39\n", ":1: the score is 1e39"),
        ("b\t5\t5\t1\n", ":1: found 5 to 5"),
        ("b\t1\t2\t1\nb\t299\t301\t1\n", ":2: ends at 301, b has 300 bases"),
        ("z\t1\t2\t1\n", "z is not in the genome"),
        ("b\t9\t10\t1\nb\t1\t2\t1\n", "expected genome order"),
        ("b\t9\t10\t1\na\t1\t2\t1\nb\t11\t12\t1\n", "expected genome order"),
        ("b\t1\t10\t1\nb\t5\t12\t1\n", "overlaps"),
    ],
)
def test_a_row_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    genome = write_fasta(tmp_path / "g.fa", {"b": bases(300, seed=1), "a": bases(300, seed=2)})
    (tmp_path / "x.bg").write_text(text)
    done = genoscan("track", "convert", tmp_path / "x.bg", "-g", genome, "-o", tmp_path / "x.bw")
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "x.bw").exists()


def test_rows_in_another_order_than_the_genome(tmp_path: Path) -> None:
    """As sort has them, which knows no genome; and a sequence may be called track."""
    sizes = {"chr1": 50, "track1": 60, "chr10": 70}
    text = "chr1\t0\t2\t1.0\nchr10\t5\t6\t2.0\r\ntrack1\t0\t4\t3.0\n"
    (tmp_path / "x.bg").write_text(text, newline="")
    assert write_converted(tmp_path / "x.bg", tmp_path / "x.bw", sizes) == 7
    with reader.BigWig(tmp_path / "x.bw") as track:
        assert track.sizes == sizes
    write_converted(tmp_path / "x.bw", tmp_path / "y.bg")
    assert sorted((tmp_path / "y.bg").read_text().splitlines()) == text.splitlines()


def test_a_record_of_another_track_does_not_stay(tmp_path: Path) -> None:
    track = write(tmp_path / "x.bw", random_scores(1))
    Path(f"{track}.json").write_text('{"format": "genoscan-track/1"}')
    (tmp_path / "other.bg").write_text("b\t1\t2\t3\n")
    write_converted(tmp_path / "other.bg", track, SIZES)
    assert not Path(f"{track}.json").exists()


def test_a_bigwig_that_is_cut_off_anywhere(tmp_path: Path) -> None:
    """One line each, from a process that could have crashed."""
    track = write(tmp_path / "x.bw", random_scores(1))
    cut = tmp_path / "cut.bw"
    script = (
        "import sys\nfrom pathlib import Path\nfrom genoscan.errors import InputError\n"
        "from genoscan.tracks.reader import BigWig\n"
        "whole, cut = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])\n"
        "for n in [*range(0, 700), *range(700, len(whole), 97)]:\n"
        "    cut.write_bytes(whole[:n])\n"
        "    try:\n"
        "        with BigWig(cut) as track:\n"
        "            for _ in track.pieces(): pass\n"
        "        print(n)\n"
        "    except InputError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script, track, cut], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    assert not done.stdout


def test_files_that_are_no_tracks(tmp_path: Path) -> None:
    out = tmp_path / "x.bedgraph"
    track = write(tmp_path / "x.bw", random_scores(1))
    cut = tmp_path / "cut.bw"
    cut.write_bytes(track.read_bytes()[:300])
    text = tmp_path / "text.bw"
    text.write_text("hello")
    (tmp_path / "x.bg").write_text("b\t1\t2\t3\n")
    for given_, said in (
        (cut, "truncated after 300 bytes"),
        (text, "not a bigWig"),
        (tmp_path / "none.bw", "no such file"),
        (tmp_path / "x.bg", "give --genome"),
        (tmp_path / "x.bam", "unknown suffix"),
    ):
        done = genoscan("track", "convert", given_, "-o", out)
        assert done.code == 1, given_
        assert said in done.err
        assert not out.exists()
