"""Columns for other tools: what is cut, and where."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from commands import bases, genoscan, tiny_model, write_fasta

LETTERS = bases(2_000, seed=1)[:700] + "N" + bases(2_000, seed=1)[701:]


@pytest.fixture
def columns(tmp_path: Path) -> Path:
    genome = write_fasta(tmp_path / "g.fa", {"chr1": LETTERS})
    path, bed = tmp_path / "peaks.npz", tmp_path / "wide.bed"
    bed.write_text("chr1\t600\t800\tone\nchr1\t1000\t1300\ttwo\n")
    done = genoscan(
        "attribute",
        genome,
        "--bed",
        bed,
        "-m",
        tiny_model(tmp_path / "model"),
        "-o",
        path,
        "-o",
        path.with_suffix(".bw"),
    )
    assert done.code == 0, done.err
    return path


def test_sequences_and_contributions(columns: Path, tmp_path: Path) -> None:
    rows = [("chr1", 1_100, 1_151, "b"), ("chr1", 690, 710, "a")]
    bed = tmp_path / "rows.bed"
    bed.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    done = genoscan("export", "modisco", columns, "--bed", bed, "--width", "60", "-o", tmp_path / "cut")
    assert done.code == 0, done.err
    one_hot, scores = (np.load(tmp_path / "cut" / name)["arr_0"] for name in ("ohe.npz", "attr.npz"))
    assert one_hot.shape == scores.shape == (2, 4, 60)
    truth = np.load(columns)
    for (_, start, end, _), ohe, score in zip(rows, one_hot, scores, strict=True):
        first = (start + end) // 2 - 30
        letters = LETTERS[first : first + 60]
        assert ["ACGTN"[c.argmax() if c.any() else 4] for c in ohe.T] == list(letters)
        offset = first - 600 if first < 1_000 else 200 + first - 1_000
        gradient = truth["gradient"][offset : offset + 60]
        centred = gradient - gradient.mean(1, keepdims=True)
        unknown = np.array([letter == "N" for letter in letters])
        assert np.isnan(centred[unknown]).all()
        np.testing.assert_array_equal(score[:, unknown], 0)
        np.testing.assert_allclose(score[:, ~unknown], centred[~unknown].T, rtol=1e-6, atol=1e-9)
    assert not (tmp_path / "cut" / "contribs.h5").exists()
    rest = "0\t.\t0\t-1\t-1\t30\n"
    places = (tmp_path / "cut" / "cut.narrowPeak").read_text()
    assert places == f"chr1\t1095\t1155\tb\t{rest}chr1\t670\t730\ta\t{rest}"


def test_chrombpnets_layout(columns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = tmp_path / "rows.bed"
    bed.write_text("chr1\t1100\t1151\tb\n")
    job = columns, "--bed", bed, "--width", "60", "--chrombpnet"
    done = genoscan("export", "modisco", *job, "-o", tmp_path / "cut")
    assert done.code == 0, done.err
    one_hot, scores = (np.load(tmp_path / "cut" / name)["arr_0"] for name in ("ohe.npz", "attr.npz"))
    with h5py.File(tmp_path / "cut" / "contribs.h5") as file:
        np.testing.assert_array_equal(file["raw/seq"], one_hot)
        np.testing.assert_array_equal(file["shap/seq"], scores)
        np.testing.assert_array_equal(file["projected_shap/seq"], one_hot * scores)
    monkeypatch.setattr("genoscan.export.handoff.find_spec", lambda _name: None)
    assert "requires h5py" in genoscan("export", "modisco", *job, "-o", tmp_path / "none").err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("piece", [37, 1 << 20])
def test_the_strongest_bases(columns: Path, tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genoscan.export.handoff._PIECE", piece)
    table = tmp_path / "sites.tsv"
    done = genoscan("export", "sites", columns, "--top", "20", "-o", table)
    assert done.code == 0, done.err
    found = pd.read_csv(table, sep="\t")
    truth = np.load(columns)
    at = np.concatenate([np.arange(600, 800), np.arange(1_000, 1_300)])
    gradient, codes = truth["gradient"], truth["codes"]
    score = np.where(codes < 4, gradient[np.arange(500), codes % 4] - gradient.mean(1), 0)
    order = np.argsort(-np.abs(score), kind="stable")[:20]
    assert found["start"].tolist() == at[order].tolist()
    assert found["base"].tolist() == [LETTERS[i] for i in at[order]]
    np.testing.assert_allclose(found["score"], score[order], rtol=1e-4)
    np.testing.assert_allclose(found[list("ACGT")], gradient[order], rtol=1e-4)
    assert found["name"].tolist() == ["one" if start < 800 else "two" for start in found["start"]]
    assert "expected 1 base" in genoscan("export", "sites", columns, "--top", "0", "-o", table).err
    assert "it is read from, too" in genoscan("export", "sites", columns, "-o", columns).err
    track = columns.with_suffix(".bw")
    done = genoscan("export", "sites", track, "-o", table)
    assert f"{track}: expected an archive written by attribute -o FILE.npz" in done.err


def test_what_is_refused(columns: Path, tmp_path: Path) -> None:
    bed = tmp_path / "rows.bed"
    bed.write_text("chr1\t690\t710\n")

    def said(*options: object) -> str:
        done = genoscan("export", "modisco", columns, "--bed", bed, *options)
        assert done.code == 1
        return done.err

    assert "is not within" in said("--width", "201", "-o", tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    assert "expected 1 base" in said("--width", "0", "-o", tmp_path / "cut")
    assert "already exists" in said("-o", tmp_path)
