"""Programs that are not Python's read our tracks, where they are there (slow)."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from genoscan.genome.region import Region
from genoscan.tracks.writer import open_track

_READER = """
import { BigWig } from '@gmod/bbi'
import { LocalFile } from 'generic-filehandle2'
const file = new BigWig({ filehandle: new LocalFile(process.argv[2]) })
const features = await file.getFeatures('chr1', 0, 100000, { scale: 1 })
console.log(JSON.stringify(features.map(f => [f.start, f.end, f.score])))
"""


@pytest.mark.slow
def test_jbrowses_reader_reads_a_bigwig(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here")
    packages = ["@gmod/bbi@8", "generic-filehandle2@2"]
    got = subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", *packages],
        cwd=tmp_path, check=False,
    )  # fmt: skip
    if got.returncode:
        pytest.skip("npm does not get @gmod/bbi here")
    scores = np.random.default_rng(1).standard_normal(5_000).astype(np.float32)
    scores[1_000:1_100] = np.nan
    with open_track(tmp_path / "track.bw", {"chr1": 100_000}) as track:
        track.write(Region("chr1", 40_000, 45_000), scores)
    (tmp_path / "read.mjs").write_text(_READER)
    said = subprocess.run(
        ["node", "read.mjs", "track.bw"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    found = np.full(5_000, np.nan, np.float32)
    for start, end, score in json.loads(said):
        found[start - 40_000 : end - 40_000] = score
    np.testing.assert_array_equal(found, scores)
