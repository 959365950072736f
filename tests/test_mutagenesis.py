"""Saturation mutagenesis: differences of whole windows in plain torch, screens, conventions and files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import genoscan
from headed import write_headed
from test_variants import CHROM, SIZE, loaded, sequences
from toys import genome as random_codes
from truth import models

from genoscan.effects.mutagenesis import prepare_mutations, write_mutagenesis
from genoscan.effects.variant_job import VariantOptions
from genoscan.genome.alphabet import decode, reverse_complement
from genoscan.genome.memory import SequenceGenome
from genoscan.genome.region import Region
from genoscan.model import Model, load_model
from genoscan.tracks.track_reader import read_track

REGION = Region(CHROM, 200, 212)
CONTEXT, REACH = 60, 45


def value(model: Model, logits: Any, codes: np.ndarray, strand: str, weights: Any = None) -> torch.Tensor:
    """Return the target of a window by plain torch: all that its labels contribute."""
    read = torch.from_numpy(reverse_complement(codes) if strand == "-" else codes.copy()).long()
    offset = model.config.label_offset if weights is None else 0
    outputs = logits(model.table()[read])
    if weights is not None:
        return (outputs @ weights).sum()
    log_p = torch.log_softmax(outputs, -1)
    columns = torch.tensor([*model.config.base_columns, -1])[read[offset:]]
    picked = log_p[: len(read) - offset].gather(1, columns.clamp(min=0)[:, None])[:, 0]
    return picked[columns >= 0].sum()


def window(strand: str) -> tuple[int, int]:
    before, after = (CONTEXT, REACH) if strand == "+" else (REACH, CONTEXT)
    return REGION.start - before, REGION.end + after


def truth(genome: SequenceGenome, model: Model, logits: Any, strands: str, weights: Any = None) -> np.ndarray:
    codes = genome.fetch(CHROM, 0, SIZE)
    found = np.zeros((len(REGION), 4))
    for strand in strands:
        left, right = window(strand)
        whole = value(model, logits, codes[left:right], strand, weights)
        for at in range(len(REGION)):
            for base in range(4):
                changed = codes[left:right].copy()
                changed[REGION.start - left + at] = base
                found[at, base] += float(value(model, logits, changed, strand, weights) - whole) / len(strands)
    found[codes[REGION.start : REGION.end] > 3] = np.nan
    return found


def run(genome: SequenceGenome, model: Model, outputs: list[Path], screen: int | None = None, **options: Any) -> Any:
    settings = VariantOptions(context=CONTEXT, reach=REACH, **options)
    job = prepare_mutations(genome, model, [REGION], settings, screen=screen)
    return write_mutagenesis(job, outputs)


@pytest.mark.parametrize("strand", [pytest.param("+", marks=pytest.mark.slow), "-", "both"])
@pytest.mark.parametrize("kind", ["mamba", pytest.param("Ph", marks=pytest.mark.slow)])
def test_every_substitution_is_a_difference_of_whole_windows(tmp_path: Path, kind: str, strand: str) -> None:
    model, logits = loaded(tmp_path, kind)
    genome = sequences(0.03)
    found = run(genome, model, [tmp_path / "o.npz"], strand=strand)
    expected = truth(genome, model, logits, "+-" if strand == "both" else strand)
    assert found.raw == pytest.approx(expected, rel=1e-9, abs=1e-11, nan_ok=True)
    assert (found.raw[np.arange(len(found.codes)), found.codes.clip(max=3)][found.codes < 4] == 0).all()


@pytest.mark.parametrize("kind", ["causal", "rcps"])
def test_labels_of_task_heads(tmp_path: Path, kind: str) -> None:
    folder = write_headed(tmp_path / "m", kind)
    model = load_model(folder, dtype=torch.float64, tile=32)
    plain = load_model(folder, dtype=torch.float64, kernels="reference").with_head("sites")
    genome = sequences(0)
    weights = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    expected = truth(genome, plain, lambda x: plain.whole(x[None])[0], "+", weights)
    found = run(genome, model, [tmp_path / "o.npz"], target="sites:site+")
    assert found.raw == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("kind", ["mamba", "Ph"])
@pytest.mark.parametrize("strand", ["+", "both"])
def test_screens_are_first_order_apart_from_the_largest(tmp_path: Path, kind: str, strand: str) -> None:
    model, logits = loaded(tmp_path, kind)
    genome = sequences(0.0)
    codes, strands = genome.fetch(CHROM, 0, SIZE), "+-" if strand == "both" else strand
    first = np.zeros((len(REGION), 4))
    for one in strands:
        left, right = window(one)
        read = codes[left:right] if one == "+" else reverse_complement(codes[left:right])
        x = model.table()[torch.from_numpy(read.copy()).long()].requires_grad_()
        outputs = torch.log_softmax(logits(x), -1)
        offset = model.config.label_offset
        columns = torch.tensor(model.config.base_columns)[torch.from_numpy(read[offset:].copy()).long()]
        target = outputs[: len(read) - offset].gather(1, columns[:, None]).sum()
        g = torch.autograd.grad(target, x)[0][:, list(model.config.base_columns)]
        own = torch.zeros_like(g)
        own[offset:] = outputs[: len(read) - offset, list(model.config.base_columns)].detach()
        total = (g + own).numpy()
        total = total if one == "+" else total[::-1, ::-1]
        total = total[REGION.start - left : REGION.end - left]
        first += (total - total[np.arange(len(REGION)), codes[REGION.start : REGION.end]][:, None]) / len(strands)
    exact = truth(genome, model, logits, strands)
    found = run(genome, model, [tmp_path / "o.npz"], screen=5, strand=strand)
    assert found.exact.sum() == 5 + len(REGION)
    observed = codes[REGION.start : REGION.end, None] == np.arange(4)
    largest = np.sort(np.abs(first[~observed]))[-5:]
    assert sorted(np.abs(first[found.exact & ~observed])) == pytest.approx(largest, rel=1e-9)
    assert found.raw == pytest.approx(np.where(found.exact, exact, first), rel=1e-9, abs=1e-11)
    none = run(genome, model, [tmp_path / "o.npz"], screen=0, strand=strand)
    assert none.raw == pytest.approx(first, rel=1e-9, abs=1e-11)


def test_a_tolerance_is_kept_on_a_long_window(tmp_path: Path) -> None:
    model, _ = loaded(tmp_path, "mamba", tile=256)
    genome = SequenceGenome({CHROM: random_codes(3_000)[0].numpy()})
    found, positions = [], []
    for tolerance in (None, 1e-3):
        settings = VariantOptions(context=CONTEXT, reach=2_700, tolerance=tolerance)
        job, count = prepare_mutations(genome, model, [REGION], settings), []
        found.append(write_mutagenesis(job, [tmp_path / "o.npz"], progress=count.append).raw)
        positions.append(sum(count))
    exact, near = found
    assert near == pytest.approx(exact, abs=1e-3)
    # Copies were compared with the window, and some ended early.
    assert not np.array_equal(near, exact, equal_nan=True)
    assert positions[1] < positions[0] / 2


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    letters = decode(sequences(0.03).fetch(CHROM, 0, SIZE)).decode()
    (tmp_path / "g.fa").write_text(f">{CHROM}\n{letters}\n")
    return tmp_path / "g.fa"


def test_the_command_writes_every_format(tmp_path: Path, fasta: Path) -> None:
    h5py = pytest.importorskip("h5py")
    folder = models.native(tmp_path / "m", models.CAUSAL["mamba"]).folder
    names = ["o.npz", "o.h5", "o.tsv", "o.bw"]
    words = [word for name in names for word in ("-o", tmp_path / name)]
    done = genoscan("mutate", fasta, "-r", f"{CHROM}:201-212", "-m", folder, *words, "--dtype", "float64")
    assert done.code == 0, done.err
    assert done.out.split() == [str(tmp_path / n) for n in ("o.npz", "o.h5", "o.tsv", "o.mean.bw", "o.strongest.bw")]
    with np.load(tmp_path / "o.npz") as archive, h5py.File(tmp_path / "o.h5") as file:
        effects, codes = archive["effects"], archive["codes"]
        assert effects.shape == (12, 4)
        assert np.array_equal(effects, file["effects"][:], equal_nan=True)
        assert file["chrom"].asstr()[0] == archive["chrom"][0] == CHROM
    rows = [line.split("\t") for line in (tmp_path / "o.tsv").read_text().splitlines()]
    assert rows[0] == ["chrom", "pos", "ref", "alt", "effect"]
    assert len(rows) == 1 + 3 * (codes < 4).sum()
    for _, pos, ref, alt, effect in rows[1:]:
        at = int(pos) - 201
        assert "ACGTN"[codes[at]] == ref
        assert float(effect) == pytest.approx(effects[at, "ACGT".index(alt)], rel=1e-8)
    strongest = np.where(effects.max(1) > -effects.min(1), effects.max(1), effects.min(1))
    for name, expected in (("mean", effects.sum(1) / 3), ("strongest", strongest)):
        values = read_track(tmp_path / f"o.{name}.bw", f"{CHROM}:201-212")
        assert values == pytest.approx(np.where(codes < 4, expected, np.nan), rel=1e-6, nan_ok=True)
        assert json.loads((tmp_path / f"o.{name}.bw.json").read_text())["mutagenesis"] == name


def test_conventions_are_those_of_tangermeme(tmp_path: Path) -> None:
    model, _ = loaded(tmp_path, "mamba")
    found = run(sequences(0), model, [tmp_path / "o.npz"])
    hot = np.eye(4)[found.codes]
    hypothetical = found.raw - found.raw.mean(1, keepdims=True)
    assert found.by("hypothetical") == pytest.approx(hypothetical)
    assert found.by("centred") == pytest.approx(hypothetical * hot)
    assert found.by("raw") is found.raw


def test_tangermeme_gives_the_same(tmp_path: Path) -> None:
    ism = pytest.importorskip("tangermeme.saturation_mutagenesis")
    model, logits = loaded(tmp_path, "mamba")
    genome = sequences(0)

    class Whole(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.argmax(1).numpy().astype(np.uint8)
            return torch.stack([value(model, logits, row, "+") for row in rows])[:, None]

    left, right = window("+")
    x = torch.from_numpy(np.eye(4)[genome.fetch(CHROM, left, right)].T[None].copy())
    span = REGION.start - left, REGION.end - left
    theirs = ism.saturation_mutagenesis(
        Whole(), x, start=span[0], end=span[1], device="cpu", hypothetical=True, dtype=torch.float64
    )
    ours = run(genome, model, [tmp_path / "o.npz"]).by("hypothetical")
    assert pytest.approx(ours, abs=1e-5) == np.asarray(theirs)[0].T


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["-o", "o.txt"], "unknown suffix"),
        (["-o", "o.npz", "--screen", "-1"], "--screen -1: expected 0 or more"),
        (["-o", "o.npz", "--convention", "x"], "--convention x: expected one of raw, centred, hypothetical"),
        (["-o", "o.npz", "--tolerance", "-1"], "--tolerance -1.0: expected 0 or more"),
        (["-o", "o.npz", "-o", "o.npz"], "an output is given twice"),
    ],
)
def test_bad_input_gets_one_line(tmp_path: Path, fasta: Path, more: list[str], said: str) -> None:
    folder = models.native(tmp_path / "m", models.CAUSAL["mamba"]).folder
    words = [tmp_path / word if word.startswith("o.") else word for word in more]
    done = genoscan("mutate", fasta, "-r", f"{CHROM}:201-212", "-m", folder, *words)
    assert done.code == 1
    assert said in done.err
    assert done.err.count("\n") == 1
