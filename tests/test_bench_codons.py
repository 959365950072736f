"""Gene models of the three stacks have equal weights, and the command trains and tests them."""

from pathlib import Path
from typing import get_args

import pandas as pd
import plotly.graph_objects as go
import pytest
from commands import benchmark
from test_reading_frame import annotated

from benchmarks.codons import Blocks, Run, config_of, steps_of_equal_time
from benchmarks.recurrent import n_weights
from genoscan.genome.genome import open_genome
from genoscan.layers.weights import build
from genoscan.training.setup import read_labels


def test_models_have_equal_weights(tmp_path: Path) -> None:
    genome = annotated(tmp_path / "toy.gb", "ACG")
    heads = {name: head.config for name, head in read_labels([genome], "frames", [open_genome(genome)]).items()}
    configs = [config_of(Run(blocks, 1), heads) for blocks in get_args(Blocks)]
    kinds = [[layer.inner.kind for layer in config.layers] for config in configs]
    assert kinds == [["mamba"] * 4, ["pd_ssm"] * 4, ["mamba", "pd_ssm"] * 2]
    counts = [n_weights(build(config, device="meta")) for config in configs]
    assert max(counts) <= 1.02 * min(counts)


def test_runs_of_equal_time_have_steps_for_the_time_of_the_fastest_run() -> None:
    seconds = {("mamba", 1): 10.0, ("pd_ssm", 1): 15.0, ("mixed", 1): 12.0, ("mamba", 2): 50.0, ("pd_ssm", 2): 20.0}
    rows = [
        {"kind": kind, "seed": seed, "equal": equal, "seconds": seconds[kind, seed], **test}
        for (kind, seed) in seconds
        for equal, test in (("bases", {"test": 0.5}), ("bases", {}), ("time", {"test": 0.5}))
    ]
    rows.append({"kind": "mamba", "seed": 1, "equal": "time", "seconds": 0.1, "test": 0.5})
    steps = {(kind, seed): steps_of_equal_time(Run(kind, seed, steps=600), rows) for kind, seed in seconds}  # type: ignore[arg-type]
    assert steps == {
        ("mamba", 1): 600, ("pd_ssm", 1): 400, ("mixed", 1): 500, ("mamba", 2): 240, ("pd_ssm", 2): 600
    }  # fmt: skip


def test_the_command_trains_and_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no browser here")

    monkeypatch.setattr(go.Figure, "write_image", refuse)
    training, test = (annotated(tmp_path / name, "ACG") for name in ("a.gb", "b.gb"))
    done = benchmark("codon-position", training, test, "--quick", "--threads", "1", "-o", tmp_path)
    assert done.code == 0, done.err
    rows = pd.read_csv(tmp_path / "codon-position.csv")
    bases, time = rows[rows.equal == "bases"], rows[rows.equal == "time"]
    assert list(bases.step) == [1, 2, 2] * 3
    assert bases.bases.max() == 512
    assert bases.test.notna().sum() == time.test.notna().sum() == 3
    fastest = bases.loc[bases.dropna(subset=["test"]).seconds.idxmin()]
    # It is not trained again.
    columns = ["step", "loss", "validation", "seconds", "test"]
    again = [part[part.kind == fastest.kind][columns].reset_index(drop=True) for part in (bases, time)]
    pd.testing.assert_frame_equal(*again)
    assert time.step.max() <= 2
