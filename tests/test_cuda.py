"""The whole program on a CUDA device: simulated where there is none, kernels interpreted.

`attribute --device cuda` gives the track that the CPU's kernels give, for models that read one
way, models that select, and models that read both ways.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import bases, genoscan, write_fasta
from laws import assert_near
from simulated_cuda import CARD, OnCard, Simulated, simulated_cuda
from toys import genome, mixed_config, mixed_stack, one_hot_table, output_columns, tiny_config, tiny_stack
from truth import caduceus

from benchmarks.interpreted import interpreting
from genoscan.cli.inputs import parse_device
from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.forward import forward
from genoscan.engine.inputs import OneHot
from genoscan.engine.target import LogitSum, Target, whole_window
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.weights import save_model, write_model
from genoscan.model import load_model
from genoscan.tracks.reader import BigWig

THERE = torch.cuda.is_available()

with pytest.MonkeyPatch.context() as patch:
    if not THERE:
        # Read when triton is loaded and when kernels are declared: nothing may load it before.
        patch.setenv("TRITON_INTERPRET", "1")
    pytest.importorskip("triton", reason="made for Linux on x86-64 and for CUDA devices")
    from genoscan.ops.triton_gpu import TRITON

pytestmark = [pytest.mark.gpu] if THERE else []
QUICK, LONG = (11, 6), (44, 17)
"""Bases of a window, and of a tile."""


@pytest.fixture(autouse=not THERE)
def interpreted() -> Iterator[None]:
    with interpreting(small=True):
        yield


@pytest.fixture
def card() -> Iterator[None]:
    with nullcontext() if THERE else simulated_cuda():
        yield


def causal(folder: Path, n_layers: int) -> Path:
    config = tiny_config(8, n_layers)
    save_model(folder, config, tiny_stack(8, n_layers, dtype=torch.float32), "# tiny\n")
    return folder


def selecting(folder: Path, n_layers: int, **sizes: Any) -> Path:
    kinds = ("pd_ssm", "mamba")[:n_layers]
    stack = mixed_stack(8, kinds, dtype=torch.float32, **sizes)
    save_model(folder, mixed_config(8, kinds, **sizes), stack, "# mixed\n")
    return folder


def two_way(folder: Path, n_layers: int, **kind: Any) -> Path:
    config = caduceus.config(d_model=4, n_layer=n_layers, **kind)
    foreign = caduceus.write(folder / "foreign", config, caduceus.tensors(config))
    native, tensors = read_foreign(foreign)
    write_model(folder / "native", native, tensors, "# two-way\n")
    return folder / "native"


MODELS = {
    "causal": causal,
    "PD-SSM": selecting,
    "both directions": partial(two_way, rcps=False),
    "both strands": two_way,
    "directions multiplied": partial(two_way, rcps=False, strategy="ew_multiply"),
    "Mamba-2": partial(two_way, rcps=False, mamba2=True),
    "PD-SSM in both directions": partial(selecting, two_way={"tied": False}),
}


def write_sequence(folder: Path, length: int) -> Path:
    letters = bases(length, 1)
    return write_fasta(folder / "x.fa", {"chr1": letters[:7] + "N" + letters[8:]})


def attributed(model: Path, sequence: Path, device: str, *options: Any) -> np.ndarray:
    """Return the four columns and the track beside them."""
    out = sequence.parent / f"{device}.npz"
    track = out.with_suffix(".bw")
    done = genoscan(
        "attribute",
        sequence,
        "-m",
        model,
        "-o",
        out,
        "-o",
        track,
        "--device",
        device,
        "--context",
        0,
        "--reach",
        0,
        *options,
    )
    assert done.code == 0, done.err
    with np.load(out) as columns:
        found = columns["gradient"]
    with BigWig(track) as opened:
        scores = opened.scores("chr1", 0, len(found))
    return np.concatenate([found, scores[:, None]], 1)


def assert_the_cpus_track(model: Path, sequence: Path, *options: Any) -> None:
    found, expected = (attributed(model, sequence, d, *options) for d in ("cuda", "cpu"))
    known = np.isfinite(expected)
    assert (np.isfinite(found) == known).all()
    for column in range(found.shape[1]):
        some = known[:, column]
        # Tracks are float32, whatever was computed in.
        assert_near(torch.from_numpy(found[some, column]), torch.from_numpy(expected[some, column]), torch.float32)


@pytest.mark.parametrize("model", ["causal", "PD-SSM", "both directions"])
def test_the_track_is_the_cpus(model: str, tmp_path: Path, card: None) -> None:
    length, tile = QUICK
    path, sequence = MODELS[model](tmp_path / "model", 1), write_sequence(tmp_path, length)
    # In float64 no rounding changes what a PD-SSM selects.
    assert_the_cpus_track(path, sequence, "--tile", tile, "--slots", 1, "--dtype", "float64")


OPTIONS = {
    "plain": (),
    "both strands in batches": ("--strand", "both", "--batch", 2),
    "a target region": ("--target", "log-likelihood:chr1:30-40"),
    "a logit": ("--target", "log-odds:chr1:40:G", "--strand", "-"),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("model", MODELS)
def test_any_track_is_the_cpus(model: str, options: str, dtype: str, tmp_path: Path, card: None) -> None:
    length, tile = LONG
    path, sequence = MODELS[model](tmp_path / "model", 2), write_sequence(tmp_path, length)
    assert_the_cpus_track(path, sequence, "--tile", tile, "--slots", 2, "--dtype", dtype, *OPTIONS[options])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["PD-SSM", "PD-SSM in both directions"])
def test_other_commands(model: str, tmp_path: Path, card: None) -> None:
    """A margin beside a track, and the true change that a base makes."""
    length, tile = LONG
    path, sequence = MODELS[model](tmp_path / "model", 2), write_sequence(tmp_path, length)
    tracks = {}
    for device in ("cuda", "cpu"):
        margin, change = (tmp_path / f"{name}-{device}.bw" for name in ("margin", "change"))
        common = ("-m", path, "--device", device, "--tile", tile, "--dtype", "float64")
        for command in (
            ("attribute", sequence, "-o", tmp_path / f"{device}.bw", "--with-margin", margin),
            ("response", sequence, "--at", "chr1:20", "--finite", "-o", change),
        ):
            done = genoscan(*command, *common)
            assert done.code == 0, done.err
        for name, track in (("margin", margin), ("change", change)):
            with BigWig(track) as opened:
                tracks[name, device] = torch.from_numpy(opened.scores("chr1", 20, length))
    for name in ("margin", "change"):
        found, expected = tracks[name, "cuda"], tracks[name, "cpu"]
        assert torch.equal(found.isnan(), expected.isnan())
        assert_near(found.nan_to_num(), expected.nan_to_num())


@pytest.mark.skipif(THERE, reason="counts what is simulated")
@pytest.mark.parametrize(
    ("kind", "target"), [("causal", "log-likelihood"), ("causal", "logit"), ("PD-SSM", "log-likelihood")]
)
def test_the_device_is_waited_for_once_a_tile(kind: str, target: str, card: None) -> None:
    """When a tile's derivatives are read; once more at the end, for the target's value."""
    if kind == "PD-SSM":  # its kernels look at the maps when they are first called
        stack = mixed_stack(8, ("pd_ssm",), kernels="triton").to("cuda")
        list(forward(stack, OneHot(genome(5), one_hot_table().to("cuda")), tile=5))
    else:
        stack = tiny_stack(8, 1, kernels="reference").to("cuda")
    for length in (10, 20):
        codes = genome(length)
        made: Target = whole_window(codes, output_columns())
        if target == "logit":
            made = LogitSum(torch.tensor([length - 2]), torch.tensor([length - 1]), one_hot_table()[:1])
        inputs = OneHot(codes, one_hot_table().to("cuda"))
        Simulated.transfers = 0
        pull = adjoint(stack, inputs, made, tile=5, slots=2)
        value = consume(pull, lambda _span, x_bar: x_bar.cpu()).value
        assert value.device.type == "cpu"
        assert Simulated.transfers == length // 5 + 1


def test_a_gpu_is_used_if_there_is_one(tmp_path: Path, card: None) -> None:
    path = causal(tmp_path / "model", 1)
    assert parse_device("auto") == "cuda"
    assert load_model(path, device=parse_device("auto")).method.tile == 8 * load_model(path).method.tile


@pytest.mark.skipif(THERE, reason="there is a real one")
class TestSimulation:
    """What makes torch fail on a card must fail here."""

    def test_devices_do_not_mix(self, card: None) -> None:
        here, there = torch.ones(2), torch.ones(2, device="cuda")
        assert isinstance(there + 1, OnCard)
        assert (there * torch.tensor(2.0)).device == CARD
        for mixed in (lambda: here + there, lambda: torch.cat([there, here]), lambda: here[there.long()]):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        assert (there[here.long()].cpu() == 1).all()  # torch takes such indices along

    def test_numbers_must_be_fetched(self, card: None) -> None:
        there = torch.ones(2).to("cuda")
        with pytest.raises(TypeError, match="can't convert cuda"):
            there.numpy()
        assert there.cpu().numpy().tolist() == [1, 1]
        here = torch.zeros(2)
        here[:] = there
        assert here.tolist() == [1, 1]
        assert Simulated.transfers == 2

    def test_kernels_take_what_lies_there(self, card: None) -> None:
        x, weight = torch.ones(1, 2, 4).to("cuda"), torch.ones(4)
        with pytest.raises(ValueError, match="cannot be accessed from Triton"):
            TRITON.rms_norm(x, weight, eps=1e-5)
