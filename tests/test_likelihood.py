"""Bases that a language model hardly predicts are reported; those of its training data are not."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import bases, genoscan, tiny_model, write_fasta
from headed import write_headed
from hypothesis import given, settings
from hypothesis import strategies as st

from genoscan import likelihood
from genoscan.engine.target import LogLikelihood
from genoscan.layers.config import ValidationResult
from genoscan.likelihood import MIN_BASES, Likelihood, count_bases, likelihood_record, likelihood_warning
from genoscan.model import load_model
from genoscan.tracks.track_reader import read_track

VALIDATION = ValidationResult(bits=1.8, composition=2.0)
EVEN = (MIN_BASES // 4,) * 4


def warning(bits: float, counts: tuple[int, int, int, int] = EVEN, validation: Any = VALIDATION) -> str | None:
    record = likelihood_record(Likelihood(counts, -bits * math.log(2) * sum(counts)), validation)
    return None if record is None else likelihood_warning("m", record)


def test_by_hand() -> None:
    found = Likelihood((3, 1, 0, 0), -4 * math.log(2))
    assert found.bits == pytest.approx(1)
    assert found.composition == pytest.approx(2 - 0.75 * math.log2(3))
    assert likelihood_record(Likelihood((0, 0, 0, 0), 0.0), VALIDATION) is None
    assert warning(1.94) is None
    assert warning(1.96) == (
        "m predicts these bases with 1.960 bits per base, its validation data with 1.800 (from the composition alone: "
        "2.000 and 2.000): they are unlike its training data, and its predictions may not be meaningful here"
    )
    assert warning(2.3) is not None
    assert warning(2.3, (EVEN[0] - 1, *EVEN[1:])) is None  # too few bases
    assert warning(2.3, validation=None) is None
    assert (
        warning(2.3, validation=ValidationResult(bits=2.0, composition=1.9)) is None
    )  # predicted nothing there either


def test_repeats_are_judged_by_their_composition() -> None:
    """A run of A is predicted well in bits, but not better than its composition."""
    assert warning(0.5, (MIN_BASES, 0, 0, 0)) is not None


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=9, max_size=9), min_size=1, max_size=3),
    st.integers(0, 9),
    st.integers(0, 12),
    st.integers(0, 1),
)
def test_counted_bases(rows: list[list[int]], first: int, last: int, offset: int) -> None:
    table = torch.tensor([3, 0, 1, 2, -1, -1])
    n = len(rows)
    target = LogLikelihood(
        torch.tensor(rows, dtype=torch.uint8), table, torch.tensor([first] * n), torch.tensor([last] * n), offset
    )
    columns, included = target.labels(slice(0, 9))
    read = columns[included].tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "_PIECE", 4)
        assert count_bases(target) == tuple(read.count(column) for column in (3, 0, 1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a genome, and an untrained model that claims to predict well."""
    folder = tmp_path_factory.mktemp("likelihood")
    write_fasta(folder / "g.fa", {"chr1": bases(900, 1)[:400] + "NNNN" + bases(400, 3), "chr2": "AC" * 300})
    path = tiny_model(folder / "tiny") / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"validation": {"bits": 1.5, "composition": 1.99}, "gc_range": [0.8, 0.9]}))
    return folder


def run(command: str, folder: Path, output: Path, *options: object) -> tuple[dict[str, Any], str]:
    done = genoscan(command, folder / "g.fa", "-m", folder / "tiny", "-t", 1, "-o", output, *options)
    assert done.code == 0, done.err
    path = Path(done.out.splitlines()[0] if command == "attribute" else f"{output.with_suffix('')}.log-likelihood.bw")
    return json.loads(Path(f"{path}.json").read_text()), done.err


@pytest.mark.parametrize("strand", ["+", "-"])
def test_attribute_and_predict_find_the_same(folder: Path, tmp_path: Path, strand: str) -> None:
    options = "-r", "chr1:100-700", "--strand", strand
    record, _ = run("attribute", folder, tmp_path / "x.bw", *options, "--reach", 0)
    other, _ = run("predict", folder, tmp_path / "p.bw", *options)
    found, expected = record["likelihood"], other["likelihood"]
    assert found["base_counts"] == (expected["base_counts"] if strand == "+" else expected["base_counts"][::-1])
    assert sum(found["base_counts"]) == 597
    assert found["bits"] == pytest.approx(expected["bits"], rel=1e-5)
    assert found["composition"] == pytest.approx(expected["composition"])
    track = read_track(tmp_path / "p.log-likelihood.bw", "chr1:100-700")
    assert -np.nanmean(track) / math.log(2) == pytest.approx(found["bits"], rel=1e-5)


def test_both_strands_are_counted(folder: Path, tmp_path: Path) -> None:
    options = "-r", "chr1:100-700"
    each = [run("attribute", folder, tmp_path / "x.bw", *options, "--strand", s)[0]["likelihood"] for s in "+-"]
    both = run("attribute", folder, tmp_path / "b.bw", *options, "--strand", "both")[0]["likelihood"]
    assert both["base_counts"] == [sum(pair) for pair in zip(*(one["base_counts"] for one in each), strict=True)]
    assert both["log_likelihood"] == pytest.approx(sum(one["log_likelihood"] for one in each))
    assert "likelihood" not in run("predict", folder, tmp_path / "p.bw", *options, "--strand", "both")[0]


def test_other_targets_and_models_have_none(folder: Path, tmp_path: Path) -> None:
    assert (
        "likelihood" not in run("attribute", folder, tmp_path / "x.bw", "--target", "logit:chr2:500:A", "-r", "chr2")[0]
    )
    model = write_headed(tmp_path / "m", "bidirectional")
    done = genoscan("attribute", folder / "g.fa", "-m", model, "-r", "chr1:1-50", "-o", tmp_path / "y.bw")
    assert done.code == 0, done.err
    assert "likelihood" not in json.loads((tmp_path / "y.bw.json").read_text())


@pytest.mark.parametrize("command", ["attribute", "predict"])
def test_it_is_said_wherever_a_track_is_made_or_shown(
    folder: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "-r", "chr1:5-300"
    quiet, err = run(command, folder, tmp_path / "x.bw", *options)
    gc = "tiny was trained on sequences of 80% to 90% G+C"
    assert "predicts these bases" not in err + quiet["warning"]
    monkeypatch.setattr(likelihood, "MIN_BASES", 100)
    loud, err = run(command, folder, tmp_path / "x.bw", *options)
    assert [line.partition(" ")[2][:22] for line in err.splitlines() if line.startswith("tiny")] == [
        "was trained on sequenc",
        "predicts these bases w",
    ]
    first, second = loud["warning"].split("; ")
    assert first.startswith(gc)
    assert second in err
    track = tmp_path / ("x.bw" if command == "attribute" else "x.log-likelihood.bw")
    done = genoscan("export", "html", track, "-g", folder / "g.fa", "-o", tmp_path / "x.html")
    assert done.code == 0, done.err
    assert second in (tmp_path / "x.html").read_text()


def test_models_show(folder: Path) -> None:
    lines = genoscan("models", "show", folder / "tiny").out.splitlines()
    assert "training G+C    80% to 90% (1st to 99th percentile of pieces of 4,096 bases)" in lines
    assert "validation      1.500 bits per base (1.990 by composition alone)" in lines


def test_scores_do_not_depend_on_it(folder: Path, tmp_path: Path) -> None:
    run("attribute", folder, tmp_path / "x.bw")
    tiny_model(tmp_path / "tiny")
    done = genoscan("attribute", folder / "g.fa", "-m", tmp_path / "tiny", "-t", 1, "-o", tmp_path / "y.bw")
    assert done.code == 0, done.err
    assert (tmp_path / "x.bw").read_bytes() == (tmp_path / "y.bw").read_bytes()
    config = json.loads((folder / "tiny" / "config.json").read_text())
    before = load_model(folder / "tiny").sha256
    (folder / "tiny" / "config.json").write_text(json.dumps(config | {"validation": None}))
    assert load_model(folder / "tiny").sha256 == before
    (folder / "tiny" / "config.json").write_text(json.dumps(config))


def test_shards_say_what_one_run_says(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The G+C content of the shards differs, their warning does not."""
    monkeypatch.setattr(likelihood, "MIN_BASES", 700)
    whole, _ = run("attribute", folder, tmp_path / "x.bw", "--batch", 1)
    shards = [tmp_path / f"{i}.npz" for i in (1, 2)]
    told = [run("attribute", folder, path, "--batch", 1, "--shard", f"{i}/2")[0] for i, path in enumerate(shards, 1)]
    assert ["predicts these bases" in one["warning"] for one in told] == [True, False]
    done = genoscan("track", "merge", *shards, "-g", folder / "g.fa", "-o", tmp_path / "m.bw")
    assert done.code == 0, done.err
    merged = json.loads((tmp_path / "m.bw.json").read_text())
    assert merged["warning"] == whole["warning"]
    assert merged["likelihood"].pop("log_likelihood") == pytest.approx(whole["likelihood"].pop("log_likelihood"))
    assert merged["likelihood"].pop("bits") == pytest.approx(whole["likelihood"].pop("bits"))
    assert merged["likelihood"] == whole["likelihood"]


@pytest.mark.parametrize("entry", [None, "absent", "more"])
def test_shards_of_edited_records_are_merged(folder: Path, tmp_path: Path, entry: str | None) -> None:
    shards = [tmp_path / f"{i}.npz" for i in (1, 2)]
    for i, path in enumerate(shards, 1):
        run("attribute", folder, path, "--batch", 1, "--shard", f"{i}/2")
        record = json.loads(Path(f"{path}.json").read_text())
        if entry == "more":
            record["likelihood"]["validation"]["note"] = "x"
        else:
            record |= {"likelihood": None}
            if entry == "absent":
                del record["likelihood"]
        Path(f"{path}.json").write_text(json.dumps(record))
    done = genoscan("track", "merge", *shards, "-g", folder / "g.fa", "-o", tmp_path / "m.bw")
    assert done.code == 0, done.err
    assert ("likelihood" in json.loads((tmp_path / "m.bw.json").read_text())) == (entry == "more")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_counts": [1, 2, 3]}, "likelihood.base_counts"),
        ({"base_counts": [0, 0, 0, 0]}, "likelihood.base_counts"),
        ({"base_counts": [1, 2, 3, -4]}, "likelihood.base_counts"),
        ({"log_likelihood": None}, "likelihood.log_likelihood"),
        ({"validation": {"bits": "x", "composition": 1.9}}, "likelihood.validation.bits"),
        ({"validation": {"bits": 1.9}}, "likelihood.validation.composition"),
        ({"validation": {"bits": 1.9, "composition": 3.0}}, "likelihood.validation.composition"),
    ],
)
def test_edited_records(folder: Path, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    run("attribute", folder, tmp_path / "x.bw", "-r", "chr1:5-90")
    path = tmp_path / "x.bw.json"
    record = json.loads(path.read_text())
    record["likelihood"] |= change
    path.write_text(json.dumps(record))
    done = genoscan("export", "html", tmp_path / "x.bw", "-g", folder / "g.fa", "-o", tmp_path / "x.html")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert said in done.err
