"""Gene models of the three stacks have equal weights, and the command trains and tests them."""

from pathlib import Path
from typing import get_args

import pandas as pd
import plotly.graph_objects as go
import pytest
from commands import benchmark
from test_reading_frame import annotated

from benchmarks.codons import Blocks, Run, at_seconds, config_of
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


def test_the_accuracy_at_a_time_is_that_of_the_last_report_before() -> None:
    rows = [("mamba", 1, 10.0, 0.3), ("mamba", 1, 20.0, 0.5), ("pd_ssm", 1, 15.0, 0.2), ("pd_ssm", 1, 30.0, 0.9)]
    table = pd.DataFrame(rows, columns=["kind", "seed", "seconds", "validation"]).assign(test=float("nan"))
    assert at_seconds(table, 20.0).to_dict() == {("mamba", 1): 0.5, ("pd_ssm", 1): 0.2}


def test_the_command_trains_and_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no browser here")

    monkeypatch.setattr(go.Figure, "write_image", refuse)
    training, test = (annotated(tmp_path / name, "ACG") for name in ("a.gb", "b.gb"))
    done = benchmark("codon-position", training, test, "--quick", "--threads", "1", "-o", tmp_path)
    assert done.code == 0, done.err
    rows = pd.read_csv(tmp_path / "codon-position.csv")
    assert list(rows.step) == [1, 2, 2] * 3
    assert rows.test.notna().sum() == 3
    assert rows.bases.max() == 512
