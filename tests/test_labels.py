"""Training of task heads: labels from annotation, metrics, baselines and the whole command."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from commands import bases, genoscan
from headed import LAYERS, write_headed
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional as F
from toys import genome, tiny_config, tiny_stack

from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import encode
from genoscan.genome.annotation import read_annotation
from genoscan.layers.config import ModelConfig
from genoscan.layers.weights import build
from genoscan.model import load_model
from genoscan.training.data import Piece, SequenceId, Split
from genoscan.training.evaluation import label_metrics
from genoscan.training.labels import MAX_LABELS, label_bases
from genoscan.training.metrics import average_precision, best_f1, top_n_precision
from genoscan.training.objective import prepare_batch
from genoscan.training.setup import Architecture, Kind, initial_weights, new_config
from genoscan.training.site_models import FLANK, site_model
from genoscan.training.strands import average_strands, tie_strands
from genoscan.training.train import TrainOptions, train

GENE = """\
##gff-version 3
chr1\tx\tgene\t11\t60\t.\t+\t.\tID=g
chr1\tx\tmRNA\t11\t60\t.\t+\t.\tID=t;Parent=g
chr1\tx\texon\t11\t30\t.\t+\t.\tParent=t
chr1\tx\texon\t41\t60\t.\t+\t.\tParent=t
chr1\tx\tCDS\t16\t30\t.\t+\t0\tParent=t
chr1\tx\tCDS\t41\t50\t.\t+\t0\tParent=t
chr1\tx\tmRNA\t11\t60\t.\t+\t.\tID=u;Parent=g
chr1\tx\texon\t11\t60\t.\t+\t.\tParent=u
chr1\tx\tCDS\t16\t18\t.\t+\t0\tParent=u
chr1\tx\tgene\t71\t80\t.\t-\t.\tID=r
chr1\tx\tncRNA\t71\t80\t.\t-\t.\tID=n;Parent=r
chr1\tx\texon\t71\t80\t.\t-\t.\tParent=n
"""


def labelled(tmp_path: Path, text: str, scheme: str, size: int = 100) -> dict[str, Any]:
    (tmp_path / "a").write_text(text)
    sizes = {"chr1": size}
    return label_bases(scheme, read_annotation(tmp_path / "a", sizes), sizes)


def words(head: Any) -> tuple[list[str], list[str]]:
    """Return the names of the labels of each base, and of those ignored there."""
    bits = head.labels["chr1"]
    names = head.config.labels
    return tuple(
        [",".join(n for i, n in enumerate(names) if b >> (i + shift) & 1) for b in bits.tolist()]
        for shift in (0, MAX_LABELS)
    )  # type: ignore[return-value]


def test_genes_by_hand(tmp_path: Path) -> None:
    heads = labelled(tmp_path, GENE, "genes")
    classes, ignored = words(heads["genes"])
    expected = ["intergenic"] * 100
    expected[10:60] = ["UTR+"] * 50
    expected[15:30] = ["CDS+"] * 15
    expected[30:40] = ["intron+"] * 10
    expected[40:50] = ["CDS+"] * 10
    assert classes == expected
    assert [at for at, names in enumerate(ignored) if names] == list(range(70, 80))  # a gene without a CDS
    sites, ignored = words(heads["sites"])
    assert {at: name for at, name in enumerate(sites) if name} == {
        15: "start+",
        30: "donor+",
        39: "acceptor+",
        49: "stop+",
    }
    assert {at: name for at, name in enumerate(ignored) if name} == {17: "stop+"}  # of the shorter CDS


def test_frames_by_hand(tmp_path: Path) -> None:
    text = "##gff-version 3\nchr1\tx\tCDS\t11\t19\t.\t+\t0\tID=a\nchr1\tx\tCDS\t31\t36\t.\t-\t0\tID=b\n"
    heads = labelled(tmp_path, text, "frames")
    classes, _ = words(heads["frames"])
    assert classes[9:20] == ["none", *["codon1+", "codon2+", "codon3+"] * 3, "none"]
    assert classes[29:37] == ["none", *["codon3-", "codon2-", "codon1-"] * 2, "none"]
    sites, _ = words(heads["sites"])
    assert {at: name for at, name in enumerate(sites) if name} == {10: "start+", 18: "stop+", 35: "start-", 30: "stop-"}


PARTIAL = {
    "phase": "chr1\tx\tCDS\t11\t18\t.\t+\t2\tID=a\n",
    "phase, minus strand": "chr1\tx\tCDS\t11\t18\t.\t-\t2\tID=a\n",
    "NCBI": "chr1\tx\tCDS\t11\t18\t.\t+\t0\tID=a;partial=true;end_range=18,.\n",
    "Prodigal": "chr1\tx\tCDS\t11\t18\t.\t+\t0\tID=a;partial=01\n",
    "Ensembl": 'chr1\tx\tCDS\t11\t18\t.\t+\t0\tgene_id "g"; transcript_id "t"; tag "cds_end_NF";\n',
    "past the end": "##gff-version 3\nchr1\tx\tCDS\t91\t105\t.\t+\t0\tID=a\n",
}


@pytest.mark.parametrize("kind", PARTIAL)
def test_a_partial_gene_has_no_known_start_stop_and_frame(tmp_path: Path, kind: str) -> None:
    complete = "chr1\tx\tCDS\t31\t36\t.\t+\t0\tID=b\n"
    if kind == "Ensembl":
        complete = 'chr1\tx\tCDS\t31\t36\t.\t+\t0\tgene_id "h"; transcript_id "u";\n'
    at = slice(90, 100) if kind == "past the end" else slice(10, 18)
    heads = labelled(tmp_path, PARTIAL[kind] + complete, "frames")
    sites, ignored = words(heads["sites"])
    assert {at: name for at, name in enumerate(sites) if name} == {30: "start+", 35: "stop+"}
    assert [name[:-1] for name in ignored if name] in (["start", "stop"], ["stop", "start"])
    assert ignored[at.start] and ignored[at.stop - 1]
    classes, ignored = words(heads["frames"])
    assert classes[30:36] == ["codon1+", "codon2+", "codon3+"] * 2
    assert [place for place, names in enumerate(ignored) if names] == list(range(*at.indices(100)))


def test_genes_of_genbank_that_are_cut(tmp_path: Path) -> None:
    """At a fuzzy position, at the origin, between trans-spliced exons, and after a codon that is not complete."""
    places = {
        "<11..19": [(10, 19)],
        "join(91..100,1..5)": [(90, 100), (0, 5)],
        "join(31..36,51..56)\n                     /trans_splicing": [(30, 36), (50, 56)],
        "61..68\n                     /codon_start=3": [(60, 68)],
    }
    features = "".join(f"     CDS             {place}\n" for place in places)
    letters = "acgtacgtac" * 10
    origin = "".join(f"{i + 1:>9} {letters[i : i + 60]}\n" for i in (0, 60))
    record = (
        f"LOCUS       chr1 100 bp DNA circular BCT 01-JAN-2000\nFEATURES             Location/Qualifiers\n{features}"
    )
    (tmp_path / "a.gb").write_text(f"{record}     CDS             71..79\nORIGIN\n{origin}//\n")
    sizes = {"chr1": 100}
    heads = label_bases("frames", read_annotation(tmp_path / "a.gb", sizes), sizes)
    sites, ignored = words(heads["sites"])
    assert {at: name for at, name in enumerate(sites) if name} == {70: "start+", 78: "stop+"}
    cut = [interval for intervals in places.values() for interval in intervals]
    assert [at for at, name in enumerate(ignored) if name] == sorted(at for a, b in cut for at in (a, b - 1))
    _, ignored = words(heads["frames"])
    assert [at for at, name in enumerate(ignored) if name] == sorted(at for a, b in cut for at in range(a, b))


def test_intervals_by_hand(tmp_path: Path) -> None:
    heads = labelled(tmp_path, "chr1\t5\t8\tpeak\nchr1\t7\t9\tother\n", "intervals")
    names, _ = words(heads["intervals"])
    assert heads["intervals"].config.complements == (0, 1)
    assert names[4:10] == ["", "peak", "peak", "other,peak", "other", ""]
    heads = labelled(tmp_path, "chr1\t5\t8\tpeak\t0\t-\nchr1\t7\t9\tpeak\t0\t+\n", "intervals")
    assert words(heads["intervals"])[0][4:10] == ["", "peak-", "peak-", "peak+,peak-", "peak+", ""]
    heads = labelled(tmp_path, "chr1\t5\t6\tCD4\t0\t+\nchr1\t7\t8\tCD4+\t0\t+\n", "intervals")
    assert words(heads["intervals"])[0][4:9] == ["", "CD4+", "", "CD4++", ""]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("chr1\t5\t8\tmy peak\n", 'feature "my peak": expected a name of letters, digits and _ . \' + - only'),
        ("chr1\t5\t8\ta:b\t0\t+\n", 'feature "a:b": expected a name of'),
        ("chr1\t5\t8\tCD4+\n", 'feature "CD4+": ends in +, which marks strands, but not all features have one'),
    ],
)
def test_names_that_cannot_be_labels_are_refused(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        labelled(tmp_path, row, "intervals")


def test_metrics_of_predictions_that_are_not_finite_are_refused() -> None:
    stack = tiny_stack(8, 1)
    with torch.no_grad():
        stack.head.weight *= float("inf")
    piece = Piece(genome(50)[0].numpy(), {})
    with pytest.raises(NonFiniteError, match="predictions on held-out sequences are not finite"):
        label_metrics(stack, tiny_config(8, 1), [piece])


@pytest.mark.parametrize("scheme", ["genes", "frames"])
def test_labels_of_the_other_strand(tmp_path: Path, scheme: str) -> None:
    """An annotation turned around has the labels turned around."""
    size, turned = 100, []
    for line in GENE.splitlines()[1:]:
        columns = line.split("\t")
        columns[3:5] = str(size + 1 - int(columns[4])), str(size + 1 - int(columns[3]))
        columns[6] = {"+": "-", "-": "+"}[columns[6]]
        turned.append("\t".join(columns))
    forward = labelled(tmp_path, GENE, scheme)
    reverse = labelled(tmp_path, "##gff-version 3\n" + "\n".join(turned) + "\n", scheme)
    for name, head in forward.items():
        labels = head.reverse_complement(head.labels["chr1"])
        np.testing.assert_array_equal(labels, reverse[name].labels["chr1"])
        np.testing.assert_array_equal(head.reverse_complement(labels), head.labels["chr1"])


# Metrics and baselines


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_metrics_by_definition(drawn: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([float(s) for s, _ in drawn]), np.array([t for _, t in drawn])
    n = int(truth.sum())
    if not n:
        assert np.isnan(average_precision(scores, truth))
        return
    area = before = 0.0
    best = 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = scores >= threshold
        precision, recall = truth[called].mean(), truth[called].sum() / n
        area += precision * (recall - before)
        before = recall
        best = max(best, 2 * precision * recall / (precision + recall) if recall else 0)
    assert average_precision(scores, truth) == pytest.approx(area)
    f1, threshold = best_f1(scores, truth)
    assert f1 == pytest.approx(best)
    called = scores >= threshold
    assert 2 * truth[called].sum() / (called.sum() + n) == pytest.approx(best)
    distinct = scores + np.linspace(0, 0.5, len(scores))
    assert top_n_precision(distinct, truth) == pytest.approx(truth[np.argsort(-distinct)[:n]].mean())


def test_site_models_by_hand() -> None:
    codes = encode(bases(4000, 3).encode(), record="x", offset=0)
    sites = np.arange(50, 3900, 37)
    for order in (0, 1):
        model = site_model([(codes, sites)], order=order, reverse=False)
        found = model.scores(codes)
        for at in (100, 2000):
            total = 0.0
            for i in range(-FLANK, FLANK + 1):
                before, base = codes[at + i - 1], codes[at + i]
                pairs = [(codes[s + i - 1], codes[s + i]) for s in sites]
                background = list(itertools.pairwise(codes))
                if order == 0:
                    # As counted: every base with a base or the edge before it.
                    p = (sum(b == base for _, b in pairs) + 0.25) / (len(pairs) + 1)
                    q = ((codes == base).sum() + 0.25) / (len(codes) + 1)
                else:
                    p = (sum(pair == (before, base) for pair in pairs) + 0.25) / (
                        sum(a == before for a, _ in pairs) + 1
                    )
                    q = (sum(pair == (before, base) for pair in background) + 0.25) / (
                        sum(a == before for a, _ in background) + 1
                    )
                total += np.log(p) - np.log(q)
            assert found[at] == pytest.approx(total, rel=1e-3, abs=1e-3)


# Training


def split_of(length: int) -> Split:
    """Return a genome in which every TATA is labelled, on both strands."""
    codes = encode(bases(length, 4).encode(), record="x", offset=0)
    text = codes.tobytes()
    pattern = bytes([3, 0, 3, 0])
    from genoscan.genome.feature import Feature

    starts = [i for i in range(length - 3) if text[i : i + 4] == pattern]
    features = [Feature("chr1", i, i + 4, "TATA", strand) for i in starts for strand in "+-"]
    heads = label_bases("intervals", features, {"chr1": length})
    labels = {name: head.labels["chr1"] for name, head in heads.items()}
    return Split(
        [Piece(codes, labels).cut(0, length * 3 // 4)],
        [Piece(codes, labels).cut(length * 3 // 4, length)],
        [SequenceId("chr1", length, "0")],
        0.25,
        heads=heads,
    )


def config_of(
    split: Split, *, kinds: tuple[Kind, ...] = ("mamba",), rcps: bool = False, masked: bool = False
) -> ModelConfig:
    architecture = Architecture(8, len(kinds), kinds, states=4, bidirectional=True, rcps=rcps)
    heads = {name: head.config for name, head in split.heads.items()}
    return new_config(
        architecture, window=48, language_model="masked" if masked else "none", heads=heads, trained_on="nothing"
    )


OPTIONS = TrainOptions(
    steps=6, window=48, walk=1, batch=2, rate=1e-2, warm_up=2, tile=48, report_every=2, language_model="none"
)


@pytest.mark.parametrize(
    ("rcps", "masked", "tile", "kinds"),
    [*itertools.product((False, True), (False, True), (48, 20), [("mamba",)]), (True, False, 20, ("pd_ssm", "mamba"))],
)
def test_interrupted_and_resumed_is_unbroken(
    tmp_path: Path, tile: int, masked: bool, rcps: bool, kinds: tuple[Kind, ...]
) -> None:
    split = split_of(2000)
    config = config_of(split, rcps=rcps, masked=masked, kinds=kinds)
    options = replace(OPTIONS, tile=tile, language_model="masked" if masked else "none")
    whole = train(config, split, options, work=tmp_path / "a")

    class StoppedError(Exception):
        pass

    def stop(done: Any) -> None:
        if done.step == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(config, split, options, work=tmp_path / "b", report=stop)
    again = train(config, split, options, work=tmp_path / "b")
    assert all(map(torch.equal, whole.parameters(), again.parameters()))


def test_the_loss_is_the_sum_of_its_parts() -> None:
    split = split_of(500)
    config = config_of(split)
    [piece] = split.training
    codes, labels = piece.codes[None, :100], {"intervals": piece.labels["intervals"][None, :100]}
    batch = prepare_batch(
        config, codes, labels, language_model="none", weights={"intervals": 3.0}, random=np.random.default_rng(0)
    )
    outputs = torch.randn(1, 100, 2, dtype=torch.float64)
    truth = torch.from_numpy(labels["intervals"][0, :, None] >> np.arange(2) & 1).double()
    expected = -3 * F.binary_cross_entropy_with_logits(outputs[0], truth)
    assert float(batch.objective(outputs, slice(0, 100))) == pytest.approx(float(expected))
    parts = [batch.objective(outputs[:, a:b], slice(a, b)) for a, b in ((0, 40), (40, 100))]
    assert float(sum(parts)) == pytest.approx(float(expected))


@pytest.mark.parametrize(("tile", "surrogate"), [(128, "activated"), (50, "straight_through")])
def test_the_loss_of_pd_ssm_in_both_directions_falls(
    tmp_path: Path, tile: int, surrogate: Literal["activated", "straight_through"]
) -> None:
    """Every selection is trained: routers and dictionaries of both directions change."""
    split = split_of(500)
    config = config_of(split, kinds=("pd_ssm",), rcps=True)
    options = replace(OPTIONS, steps=12, window=128, rate=2e-2, tile=tile, surrogate=surrogate, report_every=20)
    losses: list[float] = []
    stack = train(config, split, options, work=tmp_path, after_step=lambda _step, loss: losses.append(loss))
    assert losses[-1] < 0.5 * losses[0]
    torch.manual_seed(options.seed)
    before = dict(build(config).named_parameters())
    for name, weight in stack.named_parameters():
        assert not torch.equal(weight, before[name]), name


@pytest.mark.slow
def test_a_motif_is_learnt(tmp_path: Path) -> None:
    split = split_of(20_000)
    options = replace(OPTIONS, steps=300, window=256, batch=4, tile=256, rate=2e-2, report_every=300)
    told: list[Any] = []
    train(config_of(split), split, options, work=tmp_path, report=told.append)
    assert told[-1].labels["intervals:TATA+ AUPRC"] > 0.95


# The command


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotated")
    (folder / "g.fa").write_text(f">chr1\n{bases(3000, 1)}\n")
    (folder / "g.gff3").write_text(GENE)
    (folder / "g.bed").write_text("chr1\t100\t110\tpeak\nchr1\t2800\t2810\tpeak\n")
    return folder


def asked(folder: Path, out: Path, *more: object) -> list[object]:
    sizes = [
        "--width",
        "8",
        "--layers",
        "1",
        "--states",
        "4",
        "--window",
        "64",
        "--batch",
        "2",
        "--steps",
        "4",
        "-t",
        "1",
    ]
    return ["train", folder / "g.fa", "-o", out, *sizes, *more]


@pytest.mark.parametrize(
    "direction", [[], ["--bidirectional"], ["--bidirectional", "--rcps"], ["--bidirectional", "--block", "pd_ssm"]]
)
def test_a_model_with_heads_is_made_and_asked(annotated: Path, tmp_path: Path, direction: list[str]) -> None:
    made = tmp_path / "made"
    more = ["--labels", annotated / "g.bed", "--head", "intervals", *direction]
    done = genoscan(*asked(annotated, made, *more, "--test", annotated / "g.fa"))
    assert done.code == 1  # the same names twice
    done = genoscan(*asked(annotated, made, *more))
    assert done.code == 0, done.err
    assert "intervals:peak AUPRC" in (made / "README.md").read_text()
    assert done.err.startswith("step 0 of 4: 2,700 bases for training, 300 held out\nstep 1 of 4: loss ")
    done = genoscan(
        "attribute",
        annotated / "g.fa",
        "-m",
        made,
        "--target",
        "intervals:peak",
        "-r",
        "chr1:90-120",
        "-o",
        tmp_path / "x.bw",
    )
    assert done.code == 0, done.err
    continued = tmp_path / "continued"
    more = [*more[:4], "--from", made, "--freeze", "--surrogate", "straight_through"]
    done = genoscan(*asked(annotated, continued, *more))
    assert done.code == 0, done.err
    assert ("--surrogate (no block is of kind pd_ssm)" in done.err) == ("pd_ssm" not in direction)
    before, after = (load_file(folder / "model.safetensors") for folder in (made, continued))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"heads.0.weight", "heads.0.bias"}
    assert load_model(continued).config.heads == load_model(made).config.heads
    assert "Started from the weights of made" in (continued / "README.md").read_text()


@pytest.mark.parametrize("kind", LAYERS)
def test_heads_with_the_same_labels_keep_their_weights(kind: str, tmp_path: Path) -> None:
    before = load_model(write_headed(tmp_path / "m", kind))
    heads = dict(reversed(before.config.heads.items()))
    heads["mean"] = heads["mean"].model_copy(update={"labels": ("none", "other+", "other-")})
    config = before.config.model_copy(update={"heads": heads})
    kept, tensors = initial_weights(before, config), load_file(tmp_path / "m" / "model.safetensors")
    numbers = {f"heads.{i}": f"heads.{list(before.config.heads).index(name)}" for i, name in enumerate(heads)}
    expected = {}
    for name in tensors:
        prefix, _, rest = name.rpartition(".")
        expected[name] = tensors[f"{numbers.get(prefix, prefix)}.{rest}"]
    other = f"heads.{list(heads).index('mean')}"
    del expected[f"{other}.weight"], expected[f"{other}.bias"]
    assert set(kept) == set(expected)
    assert all(torch.equal(kept[name], expected[name]) for name in kept)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--labels", "{}/g.gff3"], "expected both, or neither"),
        (["--head", "genes"], "expected both, or neither"),
        (["--labels", "{}/other.gff3", "--head", "genes"], "no feature is on a sequence of"),
        (["--labels", "{}/g.bed", "--head", "genes"], "no gene has a CDS"),
        (["--labels", "{}/many.bed", "--head", "intervals"], "20 labels, expected 1 to 16"),
        (["--labels", "{}/missing.gff3", "--head", "genes"], "missing.gff3"),
        (["--freeze"], "expected --from too"),
        (["--rcps"], "expected --bidirectional too"),
        (["--language-model", "masked"], "the blocks are causal"),
        (["--language-model", "next-base", "--bidirectional"], "the blocks are bidirectional"),
        (["--from", "nothing"], "nothing"),
        (["-r", "chr1:1-4000"], "3,000"),
        (["--validation", "chr1:1-5000"], "3,000"),
        (["-r", "chr1:1-2000", "--validation", "chr1:1900-2100"], "expected different bases"),
        (["--validation", "2"], "between 0 and 1"),
        (["--validation", "x"], "expected a fraction or a region"),
    ],
)
def test_bad_input_gets_one_line(annotated: Path, tmp_path: Path, more: list[str], said: str) -> None:
    (annotated / "other.gff3").write_text(GENE.replace("chr1\t", "chrX\t"))
    (annotated / "many.bed").write_text("".join(f"chr1\t{i}\t{i + 1}\tn{i}\n" for i in range(20)))
    done = genoscan(*asked(annotated, tmp_path / "made", *(text.format(annotated) for text in more)))
    assert (done.code, done.out) == (1, ""), done.err
    assert said in done.err.splitlines()[-1]
    assert done.err.count("genoscan: error") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_killed_training_resumes_to_the_same_weights(annotated: Path, tmp_path: Path) -> None:
    more = ["--labels", annotated / "g.bed", "--head", "intervals", "--bidirectional", "--steps", "900"]
    command = [sys.executable, "-m", "genoscan", *map(str, asked(annotated, tmp_path / "whole", *more))]
    subprocess.run(command, check=True, capture_output=True)
    command = [sys.executable, "-m", "genoscan", *map(str, asked(annotated, tmp_path / "killed", *more))]
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert process.stderr is not None
        for line in process.stderr:
            if b"validation:" in line:
                break
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    subprocess.run(command, check=True, capture_output=True)
    whole, killed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed


def test_weights_of_both_strands_are_paired() -> None:
    split = split_of(500)
    config = config_of(split, rcps=True, masked=True).model_copy(update={"embed_bias": True})
    torch.manual_seed(1)
    stack = build(config)
    parameters = dict(stack.named_parameters())
    with torch.no_grad():
        stack.embed.bias.normal_()
    tie_strands(config, parameters)
    x = torch.eye(5)[torch.randint(0, 4, (1, 30))]
    turned = x.flip(1)[..., list(config.complement)]
    outputs, other = stack(x)[0], stack(turned)[0].flip(0)
    order = [*config.complement, *(5 + i for i in config.heads["intervals"].complements)]
    assert torch.allclose(outputs, other[:, order], atol=1e-5)
    for name, parameter in parameters.items():
        assert torch.allclose(average_strands(config, name, parameter), parameter)
