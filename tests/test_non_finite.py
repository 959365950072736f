"""Numbers that are not finite, and bases that are not known: refused, or a gap, never an answer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import bases, genoscan, write_fasta
from safetensors.torch import load_file, save_file
from toys import tiny_config, tiny_stack

from genoscan.layers.weights import save_model
from genoscan.model import load_model
from genoscan.tracks.reader import BigWig

Edit = Callable[[dict[str, Any]], object]


def grown(weights: dict[str, Any]) -> None:
    """Let activations grow past the square root of float32's largest number."""
    weights["layers.0.out_proj.weight"] *= 1e21


def too_large(weights: dict[str, Any]) -> None:
    """Let the logits overflow, and nothing before them."""
    weights["norm.weight"] *= 1e25
    weights["head.weight"] *= 1e25


def faded(weights: dict[str, Any]) -> None:
    """Let derivatives underflow, and with them the whole track."""
    weights["norm.weight"] *= 1e-30
    weights["head.weight"] *= 1e-30


def model(folder: Path, edit: Edit = lambda _w: None, *, n_layers: int = 2) -> Path:
    config = tiny_config(8, n_layers).model_copy(update={"context": 20, "reach": 20})
    save_model(folder, config, tiny_stack(8, n_layers, dtype=torch.float32), "")
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")
    settings = json.loads((folder / "config.json").read_text()) | {"weights": None}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("edit", [grown, too_large])
@pytest.mark.parametrize("strand", ["+", "-", "both"])
def test_what_overflows_is_refused(tmp_path: Path, edit: Edit, strand: str) -> None:
    genome = write_fasta(tmp_path / "g.fa", {"c": bases(300, seed=1)})
    arguments = [
        "attribute",
        genome,
        "-m",
        model(tmp_path / "m", edit),
        "-r",
        "c:101-200",
        "--strand",
        strand,
        "-o",
        tmp_path / "x.bw",
    ]
    done = genoscan(*arguments)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "c:101-200: the " in done.err
    assert "m overflows on this sequence: run it with --dtype float64" in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"g.fa", "g.fa.fai", "m"}
    done = genoscan(*arguments, "--dtype", "float64")
    if edit is grown:
        assert done.code == 0, done.err
    else:  # files hold float32
        assert "overflows on this sequence even in float64" in done.err


def test_a_response_that_overflows_is_refused(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", {"c": bases(300, seed=1)})
    for more in ([], ["--finite"]):
        done = genoscan(
            "response", genome, "-m", model(tmp_path / "m", grown), "--at", "c:150", *more, "-o", tmp_path / "x.bw"
        )
        assert done.code == 1
        assert "is not finite; m overflows on this sequence: run it with --dtype float64" in done.err
        assert not (tmp_path / "x.bw").exists()


@pytest.mark.parametrize(("edit", "zeros"), [(faded, 2), (lambda _w: None, 0)])
def test_regions_of_zeros_are_told(tmp_path: Path, edit: Edit, zeros: int) -> None:
    """A region without any score is none of them."""
    letters = bases(300, seed=1)
    genome = write_fasta(tmp_path / "g.fa", {"c": letters[:150] + 50 * "N" + letters[200:]})
    regions = [word for place in ("c:51-90", "c:161-190", "c:221-250") for word in ("-r", place)]
    done = genoscan("attribute", genome, "-m", model(tmp_path / "m", edit), *regions, "-o", tmp_path / "x.bw")
    assert done.code == 0, done.err
    told = [line for line in done.err.splitlines() if "every score is 0" in line]
    assert [line.partition(":")[0] for line in told] == [f"{zeros} of 3 regions"] * (zeros > 0)
    record = json.loads((tmp_path / "x.bw.json").read_text())
    assert (record["zero_regions"], record["scored_bases"]) == (zeros, 70)


@pytest.mark.parametrize("strand", ["+", "-", "both"])
@pytest.mark.parametrize("run", ["N", "NNNNNNNN", "RYKM"])
def test_known_bases_around_unknown_ones_have_scores(tmp_path: Path, strand: str, run: str) -> None:
    """In a deep model too: the input row of an N is no singular point of its norms."""
    letters = bases(300, seed=1)
    genome = write_fasta(tmp_path / "g.fa", {"c": letters[:150] + run + letters[150 + len(run) :]})
    deep = model(tmp_path / "m", n_layers=24)
    outputs = [tmp_path / "x.bw", tmp_path / "x.npz"]
    options = [word for path in outputs for word in ("-o", path)]
    done = genoscan("attribute", genome, "-m", deep, "--strand", strand, *options)
    assert done.code == 0, done.err
    held = np.load(outputs[1])
    unknown = np.zeros(300, bool)
    unknown[150 : 150 + len(run)] = True
    np.testing.assert_array_equal(np.isnan(held["gradient"]), unknown[:, None].repeat(4, 1))
    with BigWig(outputs[0]) as track:
        np.testing.assert_array_equal(np.isnan(track.scores("c", 0, 300)), unknown)
    assert json.loads(Path(f"{outputs[0]}.json").read_text())["scored_bases"] == 300 - len(run)


def test_the_derivative_at_n_is_of_ordinary_size(tmp_path: Path) -> None:
    loaded = load_model(model(tmp_path / "m", n_layers=24), dtype=torch.float64)
    x = loaded.table()[torch.randint(5, (1, 60), generator=torch.Generator().manual_seed(1))]
    x.requires_grad_()
    (x_bar,) = torch.autograd.grad(torch.log_softmax(loaded.whole(x), -1)[..., 0].sum(), x)
    sizes = x_bar.norm(dim=-1)
    at_n = (x == 0.25).all(-1)
    assert at_n.any()
    assert float(sizes[at_n].max()) < 100 * float(sizes[~at_n].median())
