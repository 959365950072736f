"""Other people's programs take our files, where they are there (slow).

Debian has bedtools, tabix (package tabix) and chromium; deeptools, modisco-lite and finemo are on
PyPI: `PATH=/elsewhere/bin:$PATH pytest -n 0 -m slow tests/test_clients.py -rs`.
"""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import genoscan

from genoscan.genome.region import Region
from genoscan.tracks.columns import write_columns
from genoscan.tracks.provenance import write_provenance
from genoscan.tracks.writer import open_track, open_tracks

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
    got = subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", *packages], cwd=tmp_path, check=False)
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


def run(program: str, *arguments: object, **options: Any) -> str:
    """Run somebody else's program; return what it printed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} here")
    # Their Python is not ours.
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


FEATURES = ("chr1\t40500\t40800\tone\t0\t+", "chr1\t41000\t41400\ttwo\t0\t-")


@pytest.fixture
def scores(tmp_path: Path) -> np.ndarray:
    """Write a track in three formats; return its scores from chr1:40,001 on."""
    scores = np.random.default_rng(1).standard_normal(5_000).astype(np.float32)
    scores[1_200:1_250] = np.nan
    names = "track.bw", "track.bedgraph", "track.bedgraph.gz"
    with open_tracks([tmp_path / name for name in names], {"chr1": 100_000}) as track:
        track.write(Region("chr1", 40_000, 45_000), scores)
    (tmp_path / "features.bed").write_text("".join(f"{row}\n" for row in FEATURES))
    return scores


@pytest.mark.slow
def test_bedtools_takes_a_bedgraph(scores: np.ndarray, tmp_path: Path) -> None:
    said = run(
        "bedtools",
        "map",
        "-a",
        tmp_path / "features.bed",
        "-b",
        tmp_path / "track.bedgraph",
        "-c",
        "4,4",
        "-o",
        "mean,count",
    )
    rows = [line.split("\t")[-2:] for line in said.splitlines()]
    known = [scores[500:800], scores[1_000:1_400][~np.isnan(scores[1_000:1_400])]]
    assert [int(count) for _, count in rows] == [300, 350]
    means = [float(mean) for mean, _ in rows]
    np.testing.assert_allclose(means, [part.mean() for part in known], rtol=1e-4)


@pytest.mark.slow
def test_tabix_finds_a_stretch(scores: np.ndarray, tmp_path: Path) -> None:
    said = run("tabix", tmp_path / "track.bedgraph.gz", "chr1:41,195-41,255")
    found = {int(line.split()[1]): float(line.split()[3]) for line in said.splitlines()}
    assert found == {
        40_000 + i: pytest.approx(float(scores[i])) for i in range(1_194, 1_255) if not np.isnan(scores[i])
    }


@pytest.mark.slow
def test_deeptools_computes_a_matrix(scores: np.ndarray, tmp_path: Path) -> None:
    run(
        "computeMatrix",
        "reference-point",
        "-S",
        tmp_path / "track.bw",
        "-R",
        tmp_path / "features.bed",
        "-b",
        50,
        "-a",
        50,
        "--binSize",
        10,
        "-o",
        tmp_path / "matrix.gz",
    )
    lines = gzip.decompress((tmp_path / "matrix.gz").read_bytes()).decode().splitlines()
    found = {row.split("\t")[3]: np.array(row.split("\t")[6:], float) for row in lines[1:]}
    forward = scores[450:550].reshape(10, 10).mean(1)
    backward = scores[1_350:1_450][::-1].reshape(10, 10).mean(1)
    np.testing.assert_allclose(found["one"], forward, atol=1e-5)
    np.testing.assert_allclose(found["two"], backward, atol=1e-5)


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """Return what is exported of 300 regions that have one motif each."""
    random, motif = np.random.default_rng(5), "TGACTCAGC"
    n, width = 300, 120
    codes = random.integers(4, size=(n, width)).astype(np.uint8)
    gradient = (random.normal(size=(n, width, 4)) * 0.01).astype(np.float32)
    for i, at in enumerate(random.integers(40, 70, size=n)):
        letters = np.array(["ACGT".index(letter) for letter in motif])
        codes[i, at : at + len(motif)] = letters
        gradient[i, np.arange(at, at + len(motif)), letters] += 1
    rows = [Region("chr1", 1_000 + 200 * i, 1_000 + 200 * i + width, name=f"p{i}") for i in range(n)]
    columns = tmp_path / "peaks.npz"
    write_columns(columns, gradient=gradient.reshape(-1, 4), codes=codes.ravel(), regions=rows)
    sequences = [{"name": "chr1", "length": 100_000, "m5": ""}]
    write_provenance(columns, {"sequences": sequences})
    (tmp_path / "rows.bed").write_text("".join(f"chr1\t{r.start}\t{r.end}\t{r.name}\n" for r in rows))
    done = genoscan(
        "export",
        "modisco",
        columns,
        "--bed",
        tmp_path / "rows.bed",
        "--width",
        width,
        "--chrombpnet",
        "-o",
        tmp_path / "cut",
    )
    assert done.code == 0, done.err
    return tmp_path / "cut"


@pytest.mark.slow
def test_modisco_finds_the_motif(cut: Path, tmp_path: Path) -> None:
    run(
        "modisco",
        "motifs",
        "-s",
        cut / "ohe.npz",
        "-a",
        cut / "attr.npz",
        "-n",
        1_000,
        "-w",
        120,
        "-o",
        tmp_path / "motifs.h5",
    )
    run("modisco", "meme", "-i", tmp_path / "motifs.h5", "-o", tmp_path / "motifs.meme", "-t", "PFM")
    rows = re.findall(
        r"^ *([01]\.\d+(?: +[01]\.\d+){3}) *$", (tmp_path / "motifs.meme").read_text(), flags=re.MULTILINE
    )
    found = "".join("ACGT"[int(np.argmax([float(x) for x in row.split()]))] for row in rows)
    assert "TGACTCAGC" in found or "GCTGAGTCA" in found


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["modisco-fmt", "chrombpnet-h5"])
def test_finemo_takes_regions(cut: Path, tmp_path: Path, layout: str) -> None:
    given: dict[str, list[object]] = {
        "modisco-fmt": ["-s", cut / "ohe.npz", "-a", cut / "attr.npz"],
        "chrombpnet-h5": ["-c", cut / "contribs.h5"],
    }
    run(
        "finemo",
        f"extract-regions-{layout}",
        *given[layout],
        "-p",
        cut / "cut.narrowPeak",
        "-w",
        120,
        "-o",
        tmp_path / "regions.npz",
    )
    with np.load(tmp_path / "regions.npz") as regions:
        np.testing.assert_array_equal(regions["sequences"], np.load(cut / "ohe.npz")["arr_0"])
        assert regions["contributions"].shape == (300, 4, 120)
        assert regions["start"].tolist() == [1_000 + 200 * i for i in range(300)]
