"""Shards and one run: the same bytes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import bases, edited_model, genoscan, tiny_model, write_fasta
from hypothesis import given
from hypothesis import strategies as st

from genoscan.errors import InputError
from genoscan.genome.plan import Window
from genoscan.genome.region import Region
from genoscan.shards import cut
from genoscan.tracks.columns import read_columns

SEQUENCES = {name: bases(3_000, seed=i) for i, name in enumerate(("b", "a", "c"))}


@pytest.fixture
def job(tmp_path: Path) -> list[Any]:
    """Return the arguments of a job of nine batches, in lengths that take turns."""
    genome, bed = write_fasta(tmp_path / "g.fa", SEQUENCES), tmp_path / "peaks.bed"
    rows = [
        f"{chrom}\t{start}\t{start + 100 + 50 * (start % 3)}\tp{start}\n"
        for chrom in SEQUENCES
        for start in (2_100, 50, 1_003, 1_301, 1_700)
    ]
    bed.write_text("".join(rows))
    model = tiny_model(tmp_path / "model")
    return [genome, "--bed", bed, "-m", model, "--batch", "2", "--tile", "64"]


def attributed(job: list[Any], output: Path, *options: object) -> Path:
    done = genoscan("attribute", *job, *options, "-o", output)
    assert done.code == 0, done.err
    return output


def sharded(job: list[Any], folder: Path, n: int, *options: object) -> list[Path]:
    return [attributed(job, folder / f"{i}-of-{n}.npz", "--shard", f"{i}/{n}", *options) for i in range(1, n + 1)]


@pytest.mark.parametrize("options", [(), ("--strand", "both", "--score", "substitution")])
@pytest.mark.parametrize(("n", "piece"), [(3, 64), *(pytest.param(n, 1 << 20, marks=pytest.mark.slow) for n in (1, 7))])
def test_shards_make_the_track_of_one_run(
    job: list[Any], tmp_path: Path, n: int, piece: int, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = attributed(job, tmp_path / "whole.bw", *options)
    for module in ("merge", "tracks.store", "tracks.writer"):
        monkeypatch.setattr(f"genoscan.{module}._PIECE", piece)
    merged = tmp_path / "merged.bw"
    shards = sharded(job, tmp_path, n, *options)
    done = genoscan("track", "merge", *shards[::-1], "-g", job[0], "-o", merged)
    assert (done.code, done.out) == (0, f"{merged}\n"), done.err
    assert merged.read_bytes() == whole.read_bytes()
    told = [json.loads(Path(f"{path}.json").read_text()) for path in (merged, whole)]
    for name in ("regions", "sequences", "target_values", "scored_bases", "model", "score"):
        assert told[0][name] == told[1][name], name


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30), data=st.data())
def test_shards_are_about_as_long_as_can_be(lengths: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(lengths)))
    regions = [Region("a", 0, length) for length in lengths]
    order = [((Window(r, (r,), "+"),),) for r in regions]
    parts = cut(order, n)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(len(order)))
    assert all(part.stop > part.start for part in parts)
    bases = [sum(len(region) for region in regions[part]) for part in parts]
    # None is longer than an even share by more than a batch.
    assert max(bases) <= sum(lengths) / n + max(lengths)


def test_a_plan_of_a_whole_genome_by_its_index(tmp_path: Path) -> None:
    index = tmp_path / "g.fa.fai"
    index.write_text("a\t900000\t3\t60\t61\nb\t100000\t9999\t60\t61\n")
    model = tiny_model(tmp_path / "model")
    job = [index, "-m", model, "-o", tmp_path / "x.bw"]
    done = genoscan("plan", *job, "--whole-genome")
    assert done.code == 0, done.err
    assert "2 (1,000,000 bases to score)" in done.out
    rows = [line.split() for line in done.out.splitlines()[-2:]]
    assert [row[0] for row in rows] == ["1", "2"]
    assert [row[3] for row in rows] == ["0.02", "0.02"]
    assert "hours, longest" not in genoscan("plan", *job).out
    for option in (("-r", "a"), ("--shard", "1/2")):
        assert "leave --region" in genoscan("plan", *job, "--whole-genome", *option).err
    assert "holds lengths and no bases" in genoscan("attribute", *job).err
    index.write_text("a\t0\t3\t60\t61\n")
    assert "no sequence in it has bases" in genoscan("plan", *job).err
    index.write_text("a\t9\t3\t60\t61\na\t9\t3\t60\t61\n")
    assert f"{index}:2: a comes a second time" in genoscan("plan", *job).err
    index.write_text("a\t9000\t3\t60\t61\nb\t1000\n")
    assert f"{index}:2: expected a name and four numbers" in genoscan("plan", *job).err


def test_an_archive_is_read_as_it_was_written(job: list[Any], tmp_path: Path) -> None:
    path = attributed(job, tmp_path / "columns.npz")
    truth, found = np.load(path), read_columns(path)
    np.testing.assert_array_equal(found.gradient, truth["gradient"])
    np.testing.assert_array_equal(found.codes, truth["codes"])
    assert [r.start for r in found.regions] == truth["start"].tolist()
    assert isinstance(found.gradient, np.memmap)
    np.savez_compressed(tmp_path / "small.npz", **truth)
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:1_000])
    for name, said in (("small", "expected it stored"), ("cut", "not an archive"), ("none", "no such file")):
        with pytest.raises(InputError, match=said):
            read_columns(tmp_path / f"{name}.npz")


def test_what_is_refused(job: list[Any], tmp_path: Path) -> None:
    one, two, three = sharded(job, tmp_path, 3)
    end = "-g", job[0], "-o", tmp_path / "merged.bw"

    def said(*arguments: object) -> str:
        done = genoscan(*arguments)
        assert done.code == 1
        assert not (tmp_path / "merged.bw").exists()
        return done.err

    assert "shard 2 of 3 is missing" in said("track", "merge", one, three, *end)
    assert "give each once" in said("track", "merge", one, two, two, *end)
    whole = attributed(job, tmp_path / "whole.npz")
    assert "is not a shard" in said("track", "merge", one, whole, *end)
    other = attributed(job, tmp_path / "other.npz", "--shard", "2/3", "--score", "observed")
    assert "score observed" in said("track", "merge", one, other, three, *end)
    again = edited_model(tmp_path / "again" / "model")
    other = attributed([*job[:4], again, *job[5:]], tmp_path / "again.npz", "--shard", "2/3")
    assert "has model_sha256" in said("track", "merge", one, other, three, *end)
    halves = attributed(job, tmp_path / "half.npz", "--shard", "2/2")
    assert "shards 2" in said("track", "merge", one, halves, *end)
    another = write_fasta(tmp_path / "h.fa", SEQUENCES | {"b": bases(3_000, seed=9)})
    assert "computed on another b" in said(
        "track", "merge", one, two, three, "-g", another, "-o", tmp_path / "merged.bw"
    )
    for text in ("0/3", "4/3", "half", "1/"):
        assert f"--shard {text}" in said("attribute", *job, "--shard", text, *end[2:])
    assert "so at most as many shards" in said("attribute", *job, "--shard", "1/99", *end[2:])
