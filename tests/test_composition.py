"""Sequences unlike the training data are reported wherever a track is made or shown."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import genoscan
from headed import write_headed
from hypothesis import given, settings
from hypothesis import strategies as st

from genoscan.composition import PIECE, gc_contents, gc_range
from genoscan.genome.alphabet import encode


def codes(gc: float, length: int, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    strong = random.random(length) < gc
    return np.where(strong, random.choice([1, 2], length), random.choice([0, 3], length)).astype(np.uint8)


def letters(gc: float, length: int) -> str:
    return "".join("ACGT"[code] for code in codes(gc, length))


def test_contents_by_hand() -> None:
    parts = [encode(text, record="x", offset=0) for text in (b"GGCA", b"ATNN", b"ANNN", b"NNNN", b"GCN")]
    assert gc_contents(parts).tolist() == [0.75, 1.0]  # the others are not known for the most part
    assert gc_range([encode(b"NNNN", record="x", offset=0)]) is None


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.lists(st.floats(0.1, 0.9), min_size=1, max_size=5))
def test_the_range_holds_the_pieces(shares: list[float]) -> None:
    sequences = [codes(share, 3 * PIECE, seed) for seed, share in enumerate(shares)]
    found = gc_range(sequences)
    assert found is not None
    low, high = found
    inside = gc_contents(part[i * PIECE : (i + 1) * PIECE] for part in sequences for i in range(3))
    assert inside.min() - 1e-3 <= low <= high <= inside.max() + 1e-3


def test_an_index_has_no_bases_to_compare(tmp_path: Path) -> None:
    model = write_headed(tmp_path / "m", "causal", gc_range=[0.4, 0.6])
    (tmp_path / "g.fa.fai").write_text("chr1\t6000\t6\t60\t61\n")
    done = genoscan("plan", tmp_path / "g.fa.fai", "-m", model, "-o", tmp_path / "x.bw")
    assert done.code == 0, done.err
    assert "G+C" not in done.err


@pytest.mark.parametrize(("gc", "unlike"), [(0.2, True), (0.5, False), (0.8, True)])
def test_tracks_and_pages_say_it(tmp_path: Path, gc: float, unlike: bool) -> None:
    model = write_headed(tmp_path / "m", "causal", gc_range=[0.4, 0.6])
    genome = tmp_path / "g.fa"
    genome.write_text(f">chr1\n{letters(gc, 6000)}\n")
    said = f"m was trained on sequences of 40% to 60% G+C, these regions have {gc:.0%}"
    for command, track in (("attribute", tmp_path / "x.bw"), ("predict", tmp_path / "p.sites.none.bw")):
        output = tmp_path / ("x.bw" if command == "attribute" else "p.bw")
        done = genoscan(command, genome, "-m", model, "-r", "chr1:2,001-2,100", "-o", output)
        assert done.code == 0, done.err
        record = json.loads(Path(f"{track}.json").read_text())
        assert (said[:60] in done.err) == unlike
        assert ("warning" in record) == unlike
        page = tmp_path / f"{command}.html"
        done = genoscan("export", "html", track, "-g", genome, "-o", page)
        assert done.code == 0, done.err
        assert ("predictions may not be meaningful" in page.read_text()) == unlike
