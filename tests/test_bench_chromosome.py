"""A chromosome apart from the model: the benchmark of storing, writing and merging of scores."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import tiny_model

from benchmarks.chromosome import measure, write_genome
from genoscan.genome.genome import open_genome

MB = 1_000_000


@pytest.mark.parametrize("length", [1, 60, 61, 4_000_000])
def test_genome(tmp_path: Path, length: int) -> None:
    write_genome(tmp_path / "g.fa", length)
    genome = open_genome(tmp_path / "g.fa")
    assert genome.sizes == {"chr1": length}
    codes = genome.fetch("chr1", 0, length)
    assert np.count_nonzero(codes == 4) == sum(min(3_932_160, length - at) // 100 for at in range(0, length, 3_932_160))


@pytest.mark.slow
def test_thirty_megabases(tmp_path: Path) -> None:
    length = 30 * MB
    rows = measure(str(tiny_model(tmp_path / "tiny")), tmp_path, length=length, threads=1, scratch=tmp_path)
    found = {row["name"]: row["value"] for row in rows}
    assert found["merged track differs from that of one run"] == 0
    assert found["memory above the process, largest"] < length / MB + 60  # 1 byte for each base of the window
    assert found["merge: memory above the process"] < 60
    assert found["shard: size of the file"] < 3.8 * length / MB
    assert found["shard: disk space until done"] < 9.2 * length / MB
    assert (found["shard: zoom levels"], found["merge: zoom levels"]) == (0, 9)
    assert json.loads((tmp_path / "chromosome.json").read_text())["rows"] == rows
