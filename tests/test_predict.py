"""Predictions: whole-window forward passes are what the tracks must contain."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import bases, genoscan
from headed import LAYERS, STRANDED, write_headed
from laws import assert_near
from safetensors.torch import load_file, save_file

from genoscan.api import predict as predict_logits
from genoscan.errors import NonFiniteError
from genoscan.genome.fasta import FastaGenome
from genoscan.model import Model, load_model
from genoscan.tracks.description import describe
from genoscan.tracks.track_reader import read_track

SIZE = 90
START, END = 20, 61


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    letters = bases(SIZE, 3)
    path.write_text(f">chr1\n{letters[:30]}N{letters[31:]}\n>chr2\nACGTACGTNN\n")
    return path


@pytest.fixture(scope="module", params=LAYERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_headed(tmp_path_factory.mktemp(request.param) / "m", request.param)


def predict(fasta: Path, model: Path, *more: object) -> list[str]:
    done = genoscan("predict", fasta, "-m", model, "--tile", 16, "-t", 2, "--dtype", "float64", *more)
    assert done.code == 0, done.err
    return done.out.split()


def whole(model: Model, fasta: Path, strand: str, context: int) -> tuple[torch.Tensor, np.ndarray]:
    """Return the outputs of all heads at scored bases, forward, and the codes of the bases."""
    start, end = max(0, START - context), END + (context if model.bidirectional else 0)
    if strand == "-" and not model.bidirectional:
        start, end = START, END + context
    end = min(end, SIZE)
    codes = torch.from_numpy(FastaGenome(fasta).fetch("chr1", start, end).astype(np.int64))
    read = torch.where(codes < 4, 3 - codes, codes).flip(0) if strand == "-" else codes
    network = model.network
    x = model.table()[read][None]
    outputs = network(x)[0] if model.bidirectional else network(x, network.begin(1))[0][0]
    if strand == "-":
        outputs = outputs.flip(0)
    return outputs[START - start : END - start], codes[START - start : END - start].numpy()


@pytest.mark.parametrize("strand", ["+", "-", "both"])
def test_labels_are_whole_window_probabilities(model: Path, fasta: Path, strand: str, tmp_path: Path) -> None:
    where = "-r", f"chr1:{START + 1}-{END}", "--context", 11, "--strand", strand
    loaded = load_model(model, dtype=torch.float64)
    columns = loaded.config.output_columns["sites"]
    for more in ([], ["--logits"]):
        paths = predict(
            fasta, model, *where, *more, "--head", "sites", "-o", tmp_path / "p.bw", "-o", tmp_path / "p.npz"
        )
        names = [f"sites.{label}" for label in STRANDED["labels"]]
        assert paths == [*(str(tmp_path / f"p.{name}.bw") for name in names), str(tmp_path / "p.npz")]
        expected = []
        for direction in "+-" if strand == "both" else strand:
            logits = whole(loaded, fasta, direction, 11)[0][:, columns]
            values = logits if more else torch.softmax(logits, -1)
            expected.append(values if direction == "+" else values[:, [0, 2, 1]])
        mean = torch.stack(expected).mean(0)
        tracks = np.stack([read_track(path, f"chr1:{START + 1}-{END}") for path in paths[:3]], 1)
        assert_near(torch.from_numpy(tracks), mean.float(), torch.float32)
        archive = np.load(tmp_path / "p.npz")
        np.testing.assert_array_equal(archive["predictions"], tracks)
        assert archive["labels"].tolist() == names
        record = json.loads(Path(f"{paths[0]}.json").read_text())
        assert (record["prediction"], record["logits"], record["strand"]) == (names[0], bool(more), strand)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_the_language_model_by_definition(model: Path, fasta: Path, strand: str, tmp_path: Path) -> None:
    where = "-r", f"chr1:{START + 1}-{END}", "--context", 11, "--strand", strand, "--head", "language-model"
    loaded = load_model(model, dtype=torch.float64)
    offset = loaded.config.label_offset
    outputs, codes = whole(loaded, fasta, strand, 11 + offset)
    p = torch.softmax(outputs[:, :4], -1)
    if strand == "-":
        p = p.flip(1)
    if offset:  # the output before (or, on strand -, after) a base predicts it
        wide = whole(loaded, fasta, strand, 11)[0]
        p = torch.softmax(wide[:, :4], -1)
        p = torch.cat([p[:1] * torch.nan, p[:-1]]) if strand == "+" else torch.cat([p[1:], p[:1] * torch.nan]).flip(1)
    (tmp_path / "folder").mkdir()
    predict(fasta, model, *where, "-o", f"{tmp_path / 'folder'}/")
    found = {path.stem: read_track(path, f"chr1:{START + 1}-{END}") for path in (tmp_path / "folder").glob("*.bw")}
    assert set(found) == {*"ACGT", "log-likelihood", "entropy"}
    inside = slice(1, None) if strand == "+" else slice(None, -1)  # the edge is predicted from the context
    tracks = torch.from_numpy(np.stack([found[base] for base in "ACGT"], 1))
    assert_near(tracks[inside], p[inside].float(), torch.float32)
    known = codes < 4
    observed = torch.log(tracks.double())[torch.arange(len(codes)), torch.from_numpy(np.minimum(codes, 3))]
    assert np.isnan(found["log-likelihood"][~known]).all()
    np.testing.assert_allclose(found["log-likelihood"][known], observed[known], rtol=1e-5)
    share = tracks.double() / tracks.double().sum(1, keepdim=True)
    np.testing.assert_allclose(found["entropy"], -(share * share.log2()).sum(1), rtol=1e-4)


def test_logits_of_bases(model: Path, fasta: Path, tmp_path: Path) -> None:
    """Their softmax is the predicted distribution; no other tracks are written."""
    where = "--head", "language-model", "-r", "chr1"
    expected = []
    for direction in "+-":
        out = tmp_path / f"{'+-'.index(direction)}.npz"
        predict(fasta, model, *where, "--strand", direction, "--logits", "-o", out)
        expected.append(np.load(out)["predictions"])
        predict(fasta, model, *where, "--strand", direction, "-o", tmp_path / "p.npz")
        p = torch.softmax(torch.from_numpy(expected[-1]), -1).numpy()
        np.testing.assert_allclose(p, np.load(tmp_path / "p.npz")["predictions"], rtol=1e-4, atol=1e-7)
    paths = predict(fasta, model, *where, "--strand", "both", "--logits", "-o", tmp_path / "l.bw")
    assert paths == [str(tmp_path / f"l.{base}.bw") for base in "ACGT"]
    tracks = np.stack([read_track(path, f"chr1:1-{SIZE}") for path in paths], 1)
    np.testing.assert_allclose(tracks, np.mean(expected, 0), rtol=1e-5)
    record = json.loads(Path(f"{paths[0]}.json").read_text())
    assert describe(record).measure.unit == "logits"


def scale(model: Path, folder: Path, factor: float) -> Path:
    """Copy a model with the final features, and the weights of all heads, multiplied by a factor."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if name.startswith(("head", "norm")) and name.endswith("weight"):
            tensors[name] = tensors[name] * factor
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"weights": None}))
    return folder


@pytest.mark.parametrize("strand", ["+", "-", "both"])
def test_the_log_likelihood_does_not_underflow(model: Path, fasta: Path, strand: str, tmp_path: Path) -> None:
    peaked = scale(model, tmp_path / "m", 30)
    predict(fasta, peaked, "-r", "chr1", "--strand", strand, "--head", "language-model", "-o", tmp_path / "p.bw")
    loaded = load_model(peaked, dtype=torch.float64)
    codes = torch.from_numpy(FastaGenome(fasta).fetch("chr1", 0, SIZE).astype(np.int64))
    found = []
    for direction in "+-" if strand == "both" else strand:
        read = torch.where(codes < 4, 3 - codes, codes).flip(0) if direction == "-" else codes
        x = loaded.table()[read][None]
        network = loaded.network
        outputs = network(x)[0] if loaded.bidirectional else network(x, network.begin(1))[0][0]
        log_p = torch.log_softmax(outputs[:, :4], -1)
        if offset := loaded.config.label_offset:
            log_p = torch.cat([log_p[:offset] * torch.nan, log_p[:-offset]])
        found.append(log_p.flip(0, 1) if direction == "-" else log_p)
    mean = torch.logsumexp(torch.stack(found), 0) - math.log(len(found))
    expected = mean.gather(1, codes.clamp(max=3)[:, None])[:, 0]
    expected[codes == 4] = torch.nan
    assert expected.nan_to_num().min() < -120  # the probability is 0 in float32
    # On both strands, two bases at the ends of the chromosome are predicted on one strand only.
    gaps = {"+": {0}, "-": {SIZE - 1}, "both": {0, SIZE - 1}}[strand] if loaded.config.label_offset else set()
    assert set(mean[:, 0].isnan().nonzero()[:, 0].tolist()) == gaps
    for name, truth in [("log-likelihood", expected), *zip("ACGT", mean.exp().T, strict=True)]:
        track = torch.from_numpy(read_track(tmp_path / f"p.{name}.bw", f"chr1:1-{SIZE}"))
        assert_near(track.nan_to_num(7), truth.float().nan_to_num(7), torch.float32)


@pytest.mark.parametrize("output", ["p.bw", "p.tsv"])
@pytest.mark.parametrize("more", [[], ["--logits"], ["--head", "language-model"]])
def test_an_overflow_is_an_error(model: Path, fasta: Path, output: str, more: list[str], tmp_path: Path) -> None:
    overflowing = scale(model, tmp_path / "m", 1e30)
    (tmp_path / "out").mkdir()
    if output == "p.tsv" and "--head" in more:
        more = ["--head", "mean"]
    done = genoscan("predict", fasta, "-m", overflowing, "-o", tmp_path / "out" / output, *more)
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert "chr1:1-90: a prediction is not finite; m overflows on this sequence: run it with" in done.err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("head", ["", "sites"])
def test_an_overflow_is_an_error_in_python(model: Path, head: str, tmp_path: Path) -> None:
    loaded = load_model(scale(model, tmp_path / "m", 1e30))
    with pytest.raises(NonFiniteError, match="a prediction is not finite"):
        predict_logits(bases(SIZE, 3), loaded, head=head)


def test_calls_are_bases_above_the_threshold(model: Path, fasta: Path, tmp_path: Path) -> None:
    more = "--head", "sites", "--call", "site+", "--call", "sites:site-", "--threshold", 0.4
    predict(fasta, model, *more, "-o", tmp_path / "c.bed", "-o", tmp_path / "c.bedgraph")
    rows = [line.split("\t") for line in (tmp_path / "c.bed").read_text().splitlines()]
    assert rows
    expected = []
    for chrom, size in (("chr1", SIZE), ("chr2", 10)):
        p = {x: read_track(tmp_path / f"c.sites.site{x}.bedgraph", f"{chrom}:1-{size}") for x in "+-"}
        for at in range(size):
            for strand in "+-":
                if p[strand][at] >= 0.4:
                    score = str(round(1000 * float(p[strand][at])))
                    expected.append([chrom, str(at), str(at + 1), f"site{strand}", score, strand])
    assert rows == expected


def test_an_interrupted_prediction_goes_on(model: Path, fasta: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from genoscan.prediction import tracks as prediction

    asked = "predict", fasta, "-m", model, "-o", tmp_path / "x.npz", "--batch", 1
    run, seen = prediction._predict_batch, []

    def stopping(*given: Any) -> None:
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(given)
        run(*given)

    with monkeypatch.context() as patch:
        patch.setattr(prediction, "_predict_batch", stopping)
        assert genoscan(*asked).code == 130
    assert not (tmp_path / "x.npz").exists()
    with monkeypatch.context() as patch:
        again: list[Any] = []
        patch.setattr(prediction, "_predict_batch", lambda *given: (again.append(given), run(*given)))
        resumed = genoscan(*asked)
    assert (resumed.code, resumed.err) == (0, "resuming: 1 of 2 regions done\n")
    assert len(again) == 1
    done = genoscan(*asked[:-4], "-o", tmp_path / "y.npz")
    assert done.code == 0
    with np.load(tmp_path / "x.npz") as x, np.load(tmp_path / "y.npz") as y:
        for name in x.files:
            np.testing.assert_array_equal(x[name], y[name])


def test_what_is_kept_of_two_strands_is_one_sentence(
    model: Path, fasta: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from genoscan.prediction import tracks as prediction

    def stop(*_given: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prediction, "write_prediction", stop)
        done = genoscan("predict", fasta, "-m", model, "--strand", "separate", "-o", tmp_path / "x.npz")
    folders = [tmp_path / f"x.{strand}.npz.partial" for strand in ("plus", "minus")]
    kept = f"finished work is kept in {folders[0]} and {folders[1]}; the same command continues the run"
    assert (done.code, done.err) == (130, f"genoscan: interrupted: {kept}\n")
    assert all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize("strand", ["+", "-", "both"])
def test_windows_are_a_table(model: Path, fasta: Path, strand: str, tmp_path: Path) -> None:
    loaded = load_model(model, dtype=torch.float64)
    (tmp_path / "r.bed").write_text('chr1\t40\t70\t5\'-"UTR"\nchr1\t2\t32\ta\nchr1\t5\t9\tc\n')
    out = tmp_path / "p.tsv"
    where = "--bed", tmp_path / "r.bed", "--strand", strand
    assert predict(fasta, model, *where, "-o", out) == [str(out)]
    found = pd.read_csv(out, sep="\t", quoting=csv.QUOTE_NONE)
    assert found["name"].tolist() == ['5\'-"UTR"', "a", "c"]
    assert found.columns[:5].tolist() == ["chrom", "start", "end", "name", "strand"]
    network = loaded.network
    for _, row in found.iterrows():
        codes = torch.from_numpy(FastaGenome(fasta).fetch("chr1", row["start"], row["end"]).astype(np.int64))
        for name in ("mean", "max", "first", "last"):
            expected = []
            for direction in "+-" if strand == "both" else strand:
                read = torch.where(codes < 4, 3 - codes, codes).flip(0) if direction == "-" else codes
                x = loaded.table()[read][None]
                outputs = network(x)[0] if loaded.bidirectional else network(x, network.begin(1))[0][0]
                part = outputs[:, loaded.config.output_columns[name]]
                if name == "max":
                    head = network.heads[list(loaded.config.heads).index(name)]
                    logits = part.max(0).values @ head.weight.T + head.bias
                else:
                    logits = {"mean": part.mean(0), "first": part[0], "last": part[-1]}[name]
                p = torch.sigmoid(logits)
                expected.append(p[[0, 2, 1]] if direction == "-" else p)
            mean = torch.stack(expected).mean(0)
            np.testing.assert_allclose(row[[f"{name}.{x}" for x in STRANDED["labels"]]].astype(float), mean, rtol=1e-4)


@pytest.mark.parametrize("commit_after", [0.0, 1e9])
def test_an_interrupted_table_goes_on(
    model: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit_after: float
) -> None:
    """Also where a region is listed twice; what is finished is stored after some seconds, not at once."""
    from genoscan.prediction import windows as window_prediction

    (tmp_path / "r.bed").write_text("chr1\t40\t70\tb\nchr1\t2\t32\ta\nchr1\t5\t9\tc\nchr1\t40\t70\tb\n")
    asked = "predict", fasta, "-m", model, "-R", tmp_path / "r.bed", "--strand", "both", "--batch", 1, "-o"
    run, batches = window_prediction._predict_batch, []
    monkeypatch.setattr(window_prediction, "COMMIT_AFTER", commit_after)

    def counted(job: Any, batch: Any) -> Any:
        batches.append(batch)
        return run(job, batch)

    def stopping(job: Any, batch: Any) -> Any:
        if len(batches) == 2:
            raise KeyboardInterrupt
        return counted(job, batch)

    monkeypatch.setattr(window_prediction, "_predict_batch", stopping)
    assert genoscan(*asked, tmp_path / "x.tsv").code == 130
    kept = 0 if commit_after else 2
    assert sorted(path.name for path in tmp_path.glob("x.tsv*")) == (["x.tsv.partial"] if kept else [])
    batches.clear()
    monkeypatch.setattr(window_prediction, "_predict_batch", counted)
    resumed = genoscan(*asked, tmp_path / "x.tsv")
    assert (resumed.code, resumed.err) == (0, "resuming: 2 of 4 regions done\n" if kept else "")
    assert len(batches) == 4 - kept
    assert genoscan(*asked, tmp_path / "y.tsv").code == 0
    assert (tmp_path / "x.tsv").read_bytes() == (tmp_path / "y.tsv").read_bytes()
    x, y = (json.loads((tmp_path / f"{name}.tsv.json").read_text()) for name in "xy")
    assert (
        list(dict.fromkeys(column.split(".")[0] for column in pd.read_csv(tmp_path / "x.tsv", sep="\t").columns[5:]))
        == x["heads"]
    )
    for record in (x, y):
        del record["seconds"], record["command"]
    assert x == y


def test_an_interrupted_table_goes_on_in_another_order(
    model: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of regions of other lengths: the batches are the same, and so are the settings of the run."""
    from genoscan.prediction import windows as window_prediction

    monkeypatch.setattr(window_prediction, "COMMIT_AFTER", 0.0)
    run, regions = window_prediction._predict_batch, tmp_path / "r.bed"
    asked = "predict", fasta, "-m", model, "-R", regions, "--batch", 2, "-o"

    def stopping(job: Any, batch: Any) -> Any:
        if len(batch) == 1:
            raise KeyboardInterrupt
        return run(job, batch)

    rows = "chr1\t40\t70\tb\n", "chr1\t5\t9\tc\n", "chr1\t2\t32\ta\n"
    with monkeypatch.context() as patch:
        patch.setattr(window_prediction, "_predict_batch", stopping)
        regions.write_text("".join(rows))
        assert genoscan(*asked, tmp_path / "x.tsv").code == 130
    regions.write_text("".join((rows[0], rows[2], rows[1])))
    done = genoscan(*asked, tmp_path / "x.tsv")
    assert (done.code, done.err) == (0, "resuming: 2 of 3 regions done\n")
    assert genoscan(*asked, tmp_path / "y.tsv").code == 0
    assert (tmp_path / "x.tsv").read_bytes() == (tmp_path / "y.tsv").read_bytes()


def test_a_table_has_no_calls(model: Path, fasta: Path, tmp_path: Path) -> None:
    done = genoscan("predict", fasta, "-m", model, "-o", tmp_path / "x.tsv", "--call", "site+")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "--call: calls are made from heads that label bases" in done.err


@pytest.mark.parametrize(("name", "more"), [("r.bed", ["--call", "site+"]), ("r.tsv", [])])
def test_inputs_are_not_overwritten(fasta: Path, tmp_path: Path, name: str, more: list[str]) -> None:
    model, regions = write_headed(tmp_path / "m", "causal"), tmp_path / name
    regions.write_text(f"{fasta.read_text().split()[0][1:]}\t1\t9\n")
    done = genoscan("predict", fasta, "-m", model, "-R", regions, "-o", regions, *more)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "it is read from, too" in done.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--head", "nothing"], "has no such head, expected one of sites, language-model"),
        (["--head", "mean"], "it labels windows, not bases"),
        (["--call", "site+"], "expected both, or neither"),
        (["-o", "{}/x.bed"], "expected both, or neither"),
        (["--call", "x", "-o", "{}/x.bed"], "expected a label of a head: none, site+, site-"),
        (["--call", "site+", "-o", "{}/x.bed", "--logits"], "calls are made from probabilities"),
        (["--strand", "bed"], "expected +, -, both or separate"),
        (["--threshold", "2"], "expected a probability"),
        (["-o", "{}/x.wig"], "unknown suffix"),
        (["--context", "-1"], "expected 0 bases or more"),
        (["-o", "{}/x.tsv"], "expected a single .tsv file"),
    ],
)
def test_bad_input_gets_one_line(fasta: Path, tmp_path: Path, more: list[str], said: str) -> None:
    model = write_headed(tmp_path / "m", "causal")
    (tmp_path / "out").mkdir()
    given = [text.format(tmp_path / "out") for text in more]
    done = genoscan("predict", fasta, "-m", model, "-o", tmp_path / "out" / "p.bw", *given)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), done.err
    assert said in done.err
    assert list((tmp_path / "out").iterdir()) == []
