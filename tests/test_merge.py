"""Shards and one run: the same bytes."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
import pytest
import torch
from commands import bases, edited_model, genoscan, tiny_model, write_fasta
from hypothesis import given
from hypothesis import strategies as st
from toys import mixed_config, mixed_stack

from genoscan import merge
from genoscan.errors import InputError
from genoscan.layers.weights import save_model
from genoscan.shards import cut
from genoscan.tracks.columns import read_columns
from genoscan.tracks.track_reader import TrackReader, open_scores

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


def sharded(job: list[Any], folder: Path, n: int, *options: object, suffix: str = ".bw") -> list[Path]:
    return [attributed(job, folder / f"{i}-of-{n}{suffix}", "--shard", f"{i}/{n}", *options) for i in range(1, n + 1)]


@pytest.mark.parametrize("options", [(), ("--strand", "both", "--score", "substitution")])
@pytest.mark.parametrize(
    ("n", "piece", "suffix"),
    [(3, 64, ".bw"), (3, 64, ".npz"), *(pytest.param(n, 1 << 20, ".bw", marks=pytest.mark.slow) for n in (1, 7))],
)
def test_shards_make_the_track_of_one_run(
    job: list[Any],
    tmp_path: Path,
    n: int,
    piece: int,
    suffix: str,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = attributed(job, tmp_path / "whole.bw", *options)
    for module in ("merge", "tracks.store", "tracks.writer"):
        monkeypatch.setattr(f"genoscan.{module}._PIECE", piece)
    merged = tmp_path / "merged.bw"
    shards = sharded(job, tmp_path, n, *options, suffix=suffix)
    done = genoscan("track", "merge", *shards[::-1], "-g", job[0], "-o", merged)
    assert (done.code, done.out) == (0, f"{merged}\n"), done.err
    assert merged.read_bytes() == whole.read_bytes()
    told = [json.loads(Path(f"{path}.json").read_text()) for path in (merged, whole)]
    for name in ("regions", "sequences", "target_values", "scored_bases", "model", "score"):
        assert told[0][name] == told[1][name], name
    assert told[0]["columns"] == (suffix == ".npz")


@pytest.mark.parametrize("strand", ["+", "both"])
def test_shards_of_scores_are_small(job: list[Any], tmp_path: Path, strand: str) -> None:
    """One region of a whole sequence: scores alone, without zoom levels, and gaps at N."""
    letters = SEQUENCES["a"]
    genome = write_fasta(tmp_path / "n.fa", {"a": letters * 3, "b": f"{letters[:900]}{'N' * 50}{letters[950:]}"})
    job = [genome, *job[3:], "--tile", "1024", "--strand", strand]
    whole = attributed(job, tmp_path / "whole.bw")
    shards = sharded(job, tmp_path, 2)
    assert shards[0].stat().st_size < 4.2 * 9_000
    assert genoscan("track", "merge", *shards, "-g", genome, "-o", tmp_path / "merged.bw").code == 0
    assert (tmp_path / "merged.bw").read_bytes() == whole.read_bytes()
    with pyBigWig.open(str(shards[1])) as shard, pyBigWig.open(str(whole)) as track:
        assert (shard.header()["nLevels"], track.header()["nLevels"]) == (0, 5)
        assert shard.header()["nBasesCovered"] == 2_950
        np.testing.assert_array_equal(shard.values("b", 0, 3_000, numpy=True), track.values("b", 0, 3_000, numpy=True))


def test_a_shard_without_some_of_its_scores(job: list[Any], tmp_path: Path) -> None:
    one, two = sharded(job, tmp_path, 2)
    record = json.loads(Path(f"{one}.json").read_text())
    done = genoscan("track", "merge", one, two, "-g", job[0], "-o", tmp_path / "merged.bw")
    assert done.code == 0, done.err
    (tmp_path / "merged.bw").unlink()
    missing = record["regions"].pop()
    Path(f"{one}.json").write_text(json.dumps(record))
    done = genoscan("track", "merge", one, two, "-g", job[0], "-o", tmp_path / "merged.bw")
    found, expected = (f"{record['scored_bases'] - n:,}" for n in (missing["end"] - missing["start"], 0))
    assert done.err == (
        f"genoscan: error: {one}: has {found} scores in its regions, expected {expected}, as its record states: "
        "compute the shard again\n"
    )
    assert not (tmp_path / "merged.bw").exists()
    one.write_bytes(one.read_bytes()[:-1])
    done = genoscan("track", "merge", one, two, "-g", job[0], "-o", tmp_path / "merged.bw")
    assert "is not the file that 1-of-2.bw.json describes" in done.err


def test_few_shards_are_open_at_a_time(job: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = sharded(job, tmp_path, 7)
    opened, most = set[Path](), 0

    @contextmanager
    def counted(path: Path) -> Iterator[TrackReader]:
        nonlocal most
        with open_scores(path) as track:
            opened.add(path)
            most = max(most, len(opened))
            yield track
            opened.remove(path)

    monkeypatch.setattr(merge, "open_scores", counted)
    assert genoscan("track", "merge", *shards, "-g", job[0], "-o", tmp_path / "merged.bw").code == 0
    assert most < 7 and not opened


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30), data=st.data())
def test_shards_are_about_as_long_as_can_be(lengths: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(lengths)))
    parts = cut(lengths, n)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(len(lengths)))
    assert all(part.stop > part.start for part in parts)
    bases = [sum(lengths[part]) for part in parts]
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
    head, *rows, every = (re.split(" {2,}", line.strip()) for line in done.out.splitlines()[-4:])
    assert head == ["shards", "time, longest", "time, all", "largest .bw", "its disk space"]
    assert [(row[0], row[3]) for row in rows] == [("1", "3.8 MB"), ("2", "3.4 MB")]
    stored = float(re.search(r"disk until done +([\d.]+) MB", done.out)[1])
    assert float(rows[0][4].split()[0]) == pytest.approx(stored + 3.8, abs=0.11)
    assert "disk for outputs  about 5.4 MB in addition" in done.out
    assert every == ["Files of all shards: 3.8 MB, needed until they are merged"]
    done = genoscan("plan", *job, "-o", tmp_path / "x.npz", "--whole-genome")
    assert "disk for outputs  about 22.4 MB in addition" in done.out
    assert [line.split()[-4:-2] for line in done.out.splitlines()[-3:-1]] == [["17.0", "MB"], ["15.3", "MB"]]
    assert "time, longest" not in genoscan("plan", *job).out
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


def test_margins_of_shards_make_the_track_of_one_run(tmp_path: Path) -> None:
    genome, model = write_fasta(tmp_path / "g.fa", SEQUENCES), tmp_path / "mixed"
    save_model(model, mixed_config(), mixed_stack(dtype=torch.float32), "")
    regions = [part for chrom in SEQUENCES for part in ("-r", f"{chrom}:101-200")]
    job = ["attribute", genome, "-m", model, *regions, "--batch", 1]
    margins = [tmp_path / f"{name}.margin.bw" for name in ("whole", "1", "2", "merged")]
    for name, margin, shard in zip(("w", 1, 2), margins, ((), ("--shard", "1/2"), ("--shard", "2/2")), strict=False):
        done = genoscan(*job, *shard, "-o", tmp_path / f"{name}.bw", "--with-margin", margin)
        assert done.code == 0, done.err
    done = genoscan("track", "merge", *margins[1:3], "-g", genome, "-o", margins[3])
    assert done.code == 0, done.err
    assert margins[3].read_bytes() == margins[0].read_bytes()


def test_what_is_refused(job: list[Any], tmp_path: Path) -> None:
    one, two, three = sharded(job, tmp_path, 3)
    end = "-g", job[0], "-o", tmp_path / "merged.bw"

    def said(*arguments: object) -> str:
        done = genoscan(*arguments)
        assert done.code == 1
        assert not (tmp_path / "merged.bw").exists()
        return done.err

    archive = said("track", "merge", one, two, three, "-g", job[0], "-o", tmp_path / "merged.npz")
    assert "merged.npz: shards are merged to tracks only, expected .bw" in archive
    assert "shard 2 of 3 is missing" in said("track", "merge", one, three, *end)
    assert "give each once" in said("track", "merge", one, two, two, *end)
    whole = attributed(job, tmp_path / "whole.bw")
    assert "is not a shard" in said("track", "merge", one, whole, *end)
    other = attributed(job, tmp_path / "other.bw", "--shard", "2/3", "--score", "observed")
    assert "score observed" in said("track", "merge", one, other, three, *end)
    again = edited_model(tmp_path / "again" / "model")
    other = attributed([*job[:4], again, *job[5:]], tmp_path / "again.bw", "--shard", "2/3")
    assert "has model_sha256" in said("track", "merge", one, other, three, *end)
    halves = attributed(job, tmp_path / "half.bw", "--shard", "2/2")
    assert "shards 2" in said("track", "merge", one, halves, *end)
    (tmp_path / "fewer.bed").write_text(Path(job[job.index("--bed") + 1]).read_text().partition("\n")[2])
    fewer = [*job, "-R", tmp_path / "fewer.bed"]
    other = attributed(fewer, tmp_path / "fewer.bw", "--shard", "2/3")
    assert "has all_regions" in said("track", "merge", one, other, three, *end)
    columns = attributed(job, tmp_path / "columns.npz", "--shard", "2/3")
    assert "has columns True" in said("track", "merge", one, columns, three, *end)
    rows = attributed(job, tmp_path / "rows.bedgraph", "--shard", "2/3")
    assert f"{rows}: expected a shard as .bw or .bigwig or .npz" in said("track", "merge", one, rows, three, *end)
    another = write_fasta(tmp_path / "h.fa", SEQUENCES | {"b": bases(3_000, seed=9)})
    assert "computed on another b" in said(
        "track", "merge", one, two, three, "-g", another, "-o", tmp_path / "merged.bw"
    )
    for text in ("0/3", "4/3", "half", "1/"):
        assert f"--shard {text}" in said("attribute", *job, "--shard", text, *end[2:])
    assert "so at most as many shards" in said("attribute", *job, "--shard", "1/99", *end[2:])
