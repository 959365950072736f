"""Writers' memory does not grow with the track: the peak of a process of its own, less what it
holds after importing and writing a short track."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genoscan.genome.plan import Window
from genoscan.genome.region import Region
from genoscan.tracks.sink import Sink
from genoscan.tracks.store import count_scores, open_store
from genoscan.tracks.writer import open_track, write_in_pieces

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux's /proc")

MB = 1_000_000

START = """
import sys, time
from pathlib import Path
import numpy as np
from genoscan.genome.region import Region
from genoscan.tracks.columns import write_columns
from genoscan.tracks.writer import open_track

M = 1_000_000
rng = np.random.default_rng(0)
SCORES = (rng.standard_normal(M) * np.exp(rng.standard_normal(1000).repeat(1000))).astype("f4")
SCORES[(rng.random(200) < 0.05).repeat(5000)] = np.nan

def megabytes(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024 / 1e6
"""

TRACK = """
def work(sizes):
    with open_track(Path(sys.argv[1]), sizes) as track:
        for chrom, length in sizes.items():
            for start in range(0, length, M):
                piece = np.roll(SCORES, start // 97)[: length - start]
                track.write(Region(chrom, start, start + len(piece)), piece)
"""

COLUMNS = """
def work(sizes):
    length = sum(sizes.values())
    # A mapped file with holes takes no room on the disk.
    with open("map", "wb") as file:
        file.truncate(16 * length)
    gradient = np.memmap("map", np.float32, "r+", shape=(length, 4))
    codes = np.memmap("map", np.uint8, "r", shape=(length,))
    regions = [Region(chrom, 0, size) for chrom, size in sizes.items()]
    write_columns(Path(sys.argv[1]), gradient=gradient, codes=codes, regions=regions)
"""

MEASURE = """
work({"warm": 2 * M})
before = megabytes("VmRSS")
start = time.perf_counter()
work({f"chr{i}": int(size) for i, size in enumerate(sys.argv[2:])})
print(megabytes("VmHWM") - before, time.perf_counter() - start)
"""


def extra(folder: Path, name: str, *lengths: int) -> tuple[float, float]:
    """Return the megabytes and seconds that a track over these lengths takes."""
    work = COLUMNS if name.endswith(".npz") else TRACK
    done = subprocess.run(
        [sys.executable, "-c", START + work + MEASURE, name, *map(str, lengths)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    megabytes, seconds = map(float, done.stdout.split())
    size = (folder / name).stat().st_size
    (folder / name).unlink()
    print(
        f"{name} {[length // MB for length in lengths]} Mb: {megabytes:.0f} MB, {seconds:.1f} s, "
        f"file {size / MB:.0f} MB"
    )
    return megabytes, seconds


@pytest.mark.parametrize("name", ["x.bw", pytest.param("x.npz", marks=pytest.mark.slow)])
def test_memory_is_flat(tmp_path: Path, name: str) -> None:
    short, _ = extra(tmp_path, name, 5 * MB)
    long, _ = extra(tmp_path, name, 20 * MB)
    assert long < short + 6
    assert long < 60


def test_stored_scores_do_not_stay_in_memory(tmp_path: Path) -> None:
    """42 MB of scores and bases on disk, of which half at most is resident."""
    length, span = 8 << 20, 1 << 16
    region = Region("a", 0, length)
    codes = np.zeros((1, length), np.uint8)
    gradient = np.ones((1, span, 4), np.float32)

    def mapped() -> int:
        status = Path("/proc/self/status").read_text()
        return sum(int(re.search(rf"{name}:\s+(\d+)", status)[1]) << 10 for name in ("RssFile", "RssShmem"))

    with open_store(tmp_path / "x.bw", [region], {}, columns=False) as store:
        sink = Sink(store, [Window(region, (region,), "+")], codes, "observed", lambda tile: tile, 0, 1)
        before = most = mapped()
        for stop in range(length, 0, -span):
            sink.receive(slice(0, 1), slice(stop - span, stop), gradient)
            most = max(most, mapped())
        store.commit(0, [0.0], [region])
        assert most - before < 25 * MB
        assert count_scores(store, [region]) == {"scored_bases": length, "zero_regions": 0}
        with open_track(tmp_path / "x.bw", {"a": length}) as track:
            write_in_pieces(track, region, store.scores_of(region))
        assert mapped() - before < 10 * MB


@pytest.mark.slow
def test_bedgraph_memory_is_bounded(tmp_path: Path) -> None:
    megabytes, _ = extra(tmp_path, "x.bedgraph.gz", 2 * MB)
    assert megabytes < 100


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(250,), (25,) * 10])
def test_bigwig_of_a_whole_chromosome(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    short, _ = extra(tmp_path, "x.bw", 25 * MB)
    middle, _ = extra(tmp_path, "x.bw", 100 * MB)
    long, _ = extra(tmp_path, "x.bw", *(length * MB for length in lengths))
    assert short <= 250 and middle <= 250 and long <= 250
    assert long - short <= 20


@pytest.mark.slow
def test_ten_million_values_in_three_seconds(tmp_path: Path) -> None:
    _, seconds = extra(tmp_path, "x.bw", 10 * MB)
    assert seconds < 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.bedgraph", "x.bedgraph.gz", "x.npz"])
def test_other_formats_of_long_tracks(tmp_path: Path, name: str) -> None:
    short, _ = extra(tmp_path, name, 10 * MB)
    long, _ = extra(tmp_path, name, 60 * MB)
    assert long < short + 25
