"""Two strands in one run: the files of a run of each strand, also after an interruption and in shards."""

import json
import os
from pathlib import Path

import pytest
import yaml
from commands import bases, genoscan, listing, tiny_model, write_fasta
from test_workflow import snakemake

from genoscan.errors import InputError
from genoscan.tracks import store
from genoscan.tracks.strands import strand_path

STRANDS = {"plus": "+", "minus": "-"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strands")
    write_fasta(folder / "g.fa", {"chr1": bases(900, 1), "chr2": bases(300, 2)})
    (folder / "a.bed").write_text("chr1\t20\t100\ta\nchr1\t300\t380\tb\nchr2\t100\t250\tc\n")
    tiny_model(folder / "tiny")
    return folder


def run(command: str, folder: Path, *options: object) -> str:
    done = genoscan(command, folder / "g.fa", "-R", folder / "a.bed", "-m", folder / "tiny", "-t", 1, *options)
    assert done.code == 0, done.err
    return done.err


@pytest.mark.parametrize(
    ("path", "plus"),
    [
        ("x.bw", "x.plus.bw"),
        ("a.b.bedgraph.gz", "a.b.plus.bedgraph.gz"),
        ("x.npz", "x.plus.npz"),
        ("d/.bw", "d/plus.bw"),
        ("x.BigWig", "x.plus.BigWig"),
    ],
)
def test_names(path: str, plus: str) -> None:
    assert strand_path(Path(path), "+") == Path(plus)
    assert strand_path(Path(path), "-") == Path(plus.replace("plus", "minus"))
    with pytest.raises(InputError, match="unknown suffix"):
        strand_path(Path("x.txt"), "+")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("attribute", ()),
        ("attribute", ("--score", "magnitude", "--method", "smoothgrad", "--steps", "2")),
        ("predict", ()),
    ],
)
def test_the_files_of_a_run_of_each_strand(
    folder: Path, tmp_path: Path, command: str, options: tuple[str, ...]
) -> None:
    outputs = "-o", tmp_path / "x.bw", "-o", tmp_path / "x.npz"
    run(command, folder, "--strand", "separate", *options, *outputs)
    for name, strand in STRANDS.items():
        (tmp_path / name).mkdir()
        alone = "-o", tmp_path / name / f"x.{name}.bw", "-o", tmp_path / name / f"x.{name}.npz"
        run(command, folder, "--strand", strand, *options, *alone)
        for path in (tmp_path / name).iterdir():
            if path.suffix == ".json":
                records = [json.loads(one.read_text()) for one in (path, tmp_path / path.name)]
                for own in ("seconds", "command"):
                    del records[0][own], records[1][own]
                assert records[0] == records[1]
                assert records[0]["strand"] == strand
            else:
                assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
    alone = {path.name for name in STRANDS for path in (tmp_path / name).iterdir()}
    assert listing(tmp_path) == {*alone, *STRANDS}


def test_what_is_printed(folder: Path, tmp_path: Path) -> None:
    said = run("attribute", folder, "--strand", "separate", "-o", tmp_path / "x.bw")
    speed, context = "{}: 310 bases", "{}: {} of the bases read are context"
    assert [line.partition(" in ")[0] for line in said.splitlines()] == [
        speed.format("strand +"),
        context.format("strand +", "44%"),
        speed.format("strand -"),
        context.format("strand -", "46%"),
    ]


def test_interrupted_in_the_second_strand(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ["attribute", folder / "g.fa", "-R", folder / "a.bed", "-m", folder / "tiny", "-t", 1]
    ask += ["--strand", "separate", "-o", tmp_path / "x.bw"]
    keep, calls = store.ScoreStore.commit, []

    def interrupted(self, *given):  # type: ignore[no-untyped-def]
        keep(self, *given)
        calls.append(self.journal.path.name)
        if len(calls) == 4:  # the three batches of the forward strand, and one of the reverse strand
            raise KeyboardInterrupt

    monkeypatch.setattr(store.ScoreStore, "commit", interrupted)
    assert genoscan(*ask).code == 130
    assert listing(tmp_path) == {"x.plus.bw.partial", "x.minus.bw.partial"}
    assert genoscan(*ask).code == 0
    assert calls == ["x.plus.bw.partial"] * 3 + ["x.minus.bw.partial"] * 3
    run("attribute", folder, "--strand", "separate", "-o", tmp_path / "y.bw")
    for name in STRANDS:
        assert (tmp_path / f"x.{name}.bw").read_bytes() == (tmp_path / f"y.{name}.bw").read_bytes()


def test_no_file_appears_if_a_strand_fails(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genoscan import pipeline

    compute = pipeline.attribute_batch

    def failing(job, *given):  # type: ignore[no-untyped-def]
        if job.options.strand == "-":
            raise InputError("stopped")
        return compute(job, *given)

    monkeypatch.setattr(pipeline, "attribute_batch", failing)
    ask = "attribute", folder / "g.fa", "-R", folder / "a.bed", "-m", folder / "tiny"
    assert genoscan(*ask, "--strand", "separate", "-o", tmp_path / "x.bw").code == 1
    assert listing(tmp_path) == {"x.plus.bw.partial"}


@pytest.mark.parametrize("command", ["attribute", "predict"])
def test_each_file_is_checked_before_the_run(folder: Path, tmp_path: Path, command: str) -> None:
    os.mkfifo(tmp_path / ("x.minus.bw" if command == "attribute" else "x.minus.entropy.bw"))
    before = listing(tmp_path)
    ask = command, folder / "g.fa", "-m", folder / "tiny", "--strand", "separate", "-o", tmp_path / "x.bw"
    done = genoscan(*ask)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "it is a device, FIFO or socket: name a file" in done.err
    assert listing(tmp_path) == before


def test_shards(folder: Path, tmp_path: Path) -> None:
    common = "--strand", "separate", "--batch", 1
    run("attribute", folder, *common, "-o", tmp_path / "whole.bw")
    for i in (1, 2, 3):
        run("attribute", folder, *common, "--shard", f"{i}/3", "-o", tmp_path / f"{i}.npz")
    for name in STRANDS:
        shards = [tmp_path / f"{i}.{name}.npz" for i in (1, 2, 3)]
        output = tmp_path / f"merged.{name}.bw"
        assert genoscan("track", "merge", *shards, "-g", folder / "g.fa", "-o", output).code == 0
        assert output.read_bytes() == (tmp_path / f"whole.{name}.bw").read_bytes()
    mixed = tmp_path / "1.plus.npz", tmp_path / "1.minus.npz"
    done = genoscan("track", "merge", *mixed, "-g", folder / "g.fa", "-o", tmp_path / "m.bw")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "1.minus.npz: has strand -, " in done.err


def test_plan_counts_both(folder: Path, tmp_path: Path) -> None:
    def planned(strand: str) -> dict[str, str]:
        ask = "plan", folder / "g.fa", "-R", folder / "a.bed", "-m", folder / "tiny", "--strand", strand
        done = genoscan(*ask, "-o", tmp_path / "x.bw")
        assert done.code == 0, done.err
        return {line[:14].strip(): line[14:].strip() for line in done.out.splitlines()}

    separate, both = planned("separate"), planned("both")
    assert separate["regions"] == both["regions"] == "3 (310 bases to score)"
    assert separate["windows"].partition(" ")[0] == both["windows"].partition(" ")[0] == "6"
    for text in (separate["windows"], both["windows"]):
        assert text.partition("batches, ")[2] == both["windows"].partition("batches, ")[2]
    index = tmp_path / "g.fa.fai"
    index.write_text("a\t9000\t3\t60\t61\nb\t1000\t9999\t60\t61\n")
    done = genoscan("plan", index, "-m", folder / "tiny", "--strand", "separate", "--whole-genome", "-o", "x.bw")
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()[-3:-1]] == ["1", "2"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("attribute", "+, -, both, bed or separate"),
        ("plan", "+, -, both, bed or separate"),
        ("predict", "+, -, both or separate"),
    ],
)
def test_other_strands_are_refused(folder: Path, tmp_path: Path, command: str, expected: str) -> None:
    done = genoscan(command, folder / "g.fa", "-m", folder / "tiny", "--strand", "two", "-o", tmp_path / "x.bw")
    assert (done.code, done.err) == (1, f"genoscan: error: --strand two: expected {expected}\n")


@pytest.mark.slow
def test_the_workflow_has_a_run_for_each_strand(folder: Path, tmp_path: Path) -> None:
    one = {"regions": str(folder / "a.bed"), "model": str(folder / "tiny"), "strand": "separate"}
    config = {"genome": str(folder / "g.fa"), "threads": 1, "runs": {"peaks": one}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    said = snakemake(path, tmp_path / "run", "-n", "-p")
    for name, strand in STRANDS.items():
        assert f"results/peaks.{name}.bw" in said
        assert f"--strand={strand} " in said
    path.write_text(yaml.safe_dump(config | {"runs": {"peaks": one, "peaks.plus": one | {"strand": "+"}}}))
    with pytest.raises(AssertionError, match=r"two runs are called peaks\.plus, rename one"):
        snakemake(path, tmp_path / "run", "-n")
