"""Effects of variants: differences of two whole windows in plain torch, for every kind of change and model."""

import json
import logging
import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import genoscan, listing, write_fasta
from headed import write_headed
from laws import assert_near
from numpy.testing import assert_equal
from toys import genome as random_codes
from truth import caduceus, models

from genoscan.effects.background import draw_background, kind_of, rank
from genoscan.effects.variant_job import DOWNSTREAM_OF_TARGET, NOT_MASKED, VariantOptions, prepare_variants
from genoscan.effects.variants import VariantScores, compute_scores, write_variants
from genoscan.errors import InputError, NonFiniteError, UnsupportedModelError
from genoscan.genome.alphabet import decode, encode, reverse_complement
from genoscan.genome.memory import SequenceGenome
from genoscan.genome.region import parse_region
from genoscan.genome.variant import OK, Allele, Change, normalise
from genoscan.genome.variant_files import VariantTable
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.weights import write_model
from genoscan.model import Model, load_model

CHROM, SIZE = "chr1", 400
CONTEXT, REACH = 60, 45
QUICK = ("mamba", "both"), ("pd_ssm", "-"), ("Ph", "+")
KINDS = ["mamba", "mamba2", "pd_ssm", "mamba, symbols mixed up", "Ph", "PS fused"]


def loaded(folder: Path, kind: str, tile: int = 64) -> tuple[Model, Any]:
    """Return a model in float64, and its logits by plain torch."""
    if kind in models.CAUSAL:
        made = models.native(folder / "model", models.CAUSAL[kind])
        return load_model(made.folder, dtype=torch.float64, tile=tile), made.logits
    config = caduceus.config(**models.BOTH_WAYS[kind])
    tensors = caduceus.tensors(config)
    caduceus.write(folder / "foreign", config, tensors)
    native, weights = read_foreign(folder / "foreign")
    write_model(folder / "model", native, weights, "")
    model = load_model(folder / "model", dtype=torch.float64, tile=tile)
    return model, lambda x: caduceus.logits(config, tensors, x)


def sequences(n_share: float = 0.01) -> SequenceGenome:
    return SequenceGenome({CHROM: random_codes(SIZE, n_share=n_share)[0].numpy()})


def changes(genome: SequenceGenome, seed: int = 1, count: int = 3) -> list[Change]:
    """Return changes of all kinds at both ends of the sequence and inside it."""
    draw = random.Random(seed)
    found = []
    for n_ref, n_alt in [(1, 1), (3, 3), (0, 1), (0, 6), (1, 0), (5, 0), (2, 5), (4, 1)]:
        for start in [0, SIZE - n_ref, *(draw.randrange(1, SIZE - n_ref) for _ in range(count))]:
            ref = decode(genome.fetch(CHROM, start, start + n_ref)).decode()
            alt = "".join(draw.choice("ACGT") for _ in range(n_alt))
            if "N" not in ref and ref != alt:
                found.append(Change(CHROM, start, ref, alt))
    return found


def alleles(*found: Change) -> list[Allele]:
    return [Allele(i, c.chrom, c.start + 1, ".", c.ref, c.alt, OK, c) for i, c in enumerate(found)]


def table(*found: Change) -> VariantTable:
    return VariantTable(alleles(*found))


def scored(genome: SequenceGenome, model: Model, found: list[Change], folder: Path, **options: Any) -> VariantScores:
    settings = VariantOptions(**{"context": CONTEXT, "reach": REACH} | options)
    job = prepare_variants(genome, model, table(*found), settings)
    return compute_scores(job)


def expected(
    genome: SequenceGenome,
    model: Model,
    logits: Any,
    change: Change,
    strand: str,
    edges: tuple[int, int],
    **target: Any,
) -> dict[str, float]:
    """Return the effects from two windows in plain torch, without any code that is tested.

    `target` has `weights` by strand and the `region` to which labels are limited.
    """
    codes, (left, right) = genome.fetch(CHROM, 0, SIZE), edges
    new = encode(change.alt.encode(), record="", offset=0)
    parts = [codes[left : change.start], codes[change.start : change.stop], codes[change.stop : right]]
    copies = [parts, [parts[0], new, parts[2]]]
    at = np.concatenate([np.arange(left, change.start), np.arange(change.stop, right)])
    if strand == "-":
        copies = [[reverse_complement(part) for part in reversed(copy)] for copy in copies]
        at = at[::-1]
    first, last = target.get("region", (-1, 2 * SIZE))
    offset, terms, odds = model.label_offset, [], []
    for copy in copies:
        read = torch.from_numpy(np.concatenate(copy)).long()
        outputs = logits(model.table()[read])
        log_p = torch.log_softmax(outputs, -1)
        values = torch.zeros(len(read), dtype=torch.float64)
        values[:offset] = math.nan  # not predicted
        for i in range(offset, len(read)):
            if "weights" in target:
                values[i] = outputs[i - offset] @ target["weights"][strand]
            elif read[i] < 4:
                values[i] = log_p[i - offset, model.config.base_columns[int(read[i])]]
        ends = len(copy[0]), len(copy[0]) + len(copy[1])
        terms.append((values[: ends[0]], values[ends[0] : ends[1]], values[ends[1] :]))
        labels = torch.cat([torch.full((offset, log_p.shape[1]), math.nan), log_p])[: len(read)]
        odds.append(torch.cat([labels[: ends[0]], labels[ends[1] :]]))
    inside = torch.from_numpy(((at >= first) & (at < last)).copy())
    (a, b) = terms
    difference = torch.cat([b[0], b[2]]) - torch.cat([a[0], a[2]])
    others = torch.where(inside & ~difference.isnan(), difference, 0.0)
    own = 0.0
    if (first <= change.start if change.ref else first < change.start) and change.start < last:
        own += float(terms[1][1].nansum())
    ordered = range(change.stop - 1, change.start - 1, -1) if strand == "-" else range(change.start, change.stop)
    own -= sum(float(value.nan_to_num()) for value, i in zip(terms[0][1], ordered, strict=True) if first <= i < last)
    p, q = (part.exp() for part in odds)
    m = (p + q) / 2
    divergence = ((p * (p / m).log() + q * (q / m).log()) / 2).sum(-1)
    compared = torch.ones(len(at), dtype=torch.bool)
    if not model.bidirectional:
        compared[: len(terms[0][0])] = False
    compared &= ~divergence.isnan()
    found = {"own": own, "downstream": float(others.sum()), "delta": own + float(others.sum())}
    found["jsd"] = float(divergence[compared].mean()) if compared.any() else 0.0
    largest = int(others.abs().argmax())
    return found | {
        "largest": float(others[largest].abs()),
        "largest_at": 1.0 + float(at[largest]) if (others != 0).any() else math.nan,
    }


def edges_of(change: Change, strand: str, bidirectional: bool) -> tuple[int, int]:
    before, after = (CONTEXT, REACH) if strand == "+" else (REACH, CONTEXT)
    return max(0, change.start - before), min(SIZE, change.stop + after)


@pytest.mark.parametrize(
    ("kind", "strand"),
    [
        pytest.param(kind, strand, marks=() if (kind, strand) in QUICK else pytest.mark.slow)
        for kind in KINDS
        for strand in ("+", "-", "both")
    ],
)
def test_effects_are_differences_of_whole_windows(tmp_path: Path, kind: str, strand: str) -> None:
    model, logits = loaded(tmp_path, kind)
    genome = sequences()
    # One by one, so that no two windows are merged.
    for change in changes(genome, count=1):
        found = scored(genome, model, [change], tmp_path, strand=strand).columns
        strands = "+-" if strand == "both" else strand
        truth = [expected(genome, model, logits, change, s, edges_of(change, s, model.bidirectional)) for s in strands]
        for name in ("own", "downstream", "delta", "jsd"):
            mean = float(np.mean([one[name] for one in truth]))
            assert_near(
                torch.tensor(found[name]),
                torch.tensor([mean], dtype=torch.float64),
                bar=1e-11 + 1e-12 / max(abs(mean), 1e-12),
            )
        assert_equal(found["largest_at"][0], max(truth, key=lambda one: one["largest"])["largest_at"])


@pytest.mark.parametrize("kind", ["mamba", pytest.param("Ph", marks=pytest.mark.slow)])
def test_float32_is_float64_to_rounding(tmp_path: Path, kind: str) -> None:
    model, logits = loaded(tmp_path, kind)
    single = load_model(tmp_path / "model", tile=64)
    genome = sequences(0)
    for strand in "+-":
        found, truth = [], []
        for change in changes(genome, count=1):
            found.append(scored(genome, single, [change], tmp_path, strand=strand).columns["delta"][0])
            edges = edges_of(change, strand, model.bidirectional)
            truth.append(expected(genome, model, logits, change, strand, edges)["delta"])
        assert_near(torch.tensor(found, dtype=torch.float64), torch.tensor(truth, dtype=torch.float64), bar=1e-5)


@pytest.mark.parametrize("kind", ["mamba", pytest.param("Ph", marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", ["log-likelihood", "logit:chr1:390:C"])
def test_first_order_predictions_are_derivatives(tmp_path: Path, kind: str, target: str) -> None:
    model, logits = loaded(tmp_path, kind)
    genome = sequences(0)
    found = [c for c in changes(genome, count=4) if c.start < 380 and len(c.ref) == len(c.alt)]
    found.append(Change(CHROM, 100, "", "A"))
    scores = scored(genome, model, found, tmp_path, target=target, first_order=True)
    assert np.isnan(scores.columns["first"][-1])
    stretches = [parse_region(text.split()[0], {CHROM: SIZE}) for text in scores.record["windows"]]
    offset = model.config.label_offset
    for i, change in enumerate(found[:-1]):
        left = next(stretch.start for stretch in stretches if stretch.start <= change.start < stretch.end)
        right = min(SIZE, change.stop + REACH)
        if target != "log-likelihood":
            right = 390 if kind == "mamba" else max(390 + REACH, 0)
            right = min(right, SIZE)
        first = left if not model.bidirectional else max(0, change.start - CONTEXT)
        codes = torch.from_numpy(genome.fetch(CHROM, first, right)).long()
        x = model.table()[codes].requires_grad_()
        outputs = logits(x)
        labels = torch.arange(offset, len(codes))
        if target == "log-likelihood":
            columns = torch.tensor(model.config.base_columns)[codes[offset:]]
            terms = torch.log_softmax(outputs, -1)[: len(codes) - offset].gather(1, columns[:, None])[:, 0]
        else:
            terms = outputs[: len(codes) - offset, model.config.base_columns[1]] * (labels + first == 389)
        inside = (labels + first >= change.start) & (labels + first < change.stop)
        g = torch.autograd.grad(terms[~inside].sum(), x)[0]
        new = torch.from_numpy(encode(change.alt.encode(), record="", offset=0)).long()
        at = slice(change.start - first, change.stop - first)
        down = (g[at] * (model.table()[new] - model.table()[codes[at]])).sum()
        expected_first = scores.columns["own"][i] + float(down)
        assert scores.columns["first"][i] == pytest.approx(expected_first, rel=1e-8, abs=1e-11)


@pytest.mark.parametrize("kind", ["mamba", pytest.param("Ph", marks=pytest.mark.slow)])
def test_windows_that_overlap_are_read_from_one_left_edge(tmp_path: Path, kind: str) -> None:
    model, logits = loaded(tmp_path, kind)
    genome = sequences()
    found = sorted(changes(genome), key=lambda change: change.start)
    for strand in "+-":
        scores = scored(genome, model, found, tmp_path, strand=strand)
        first, last = found[0], max(found, key=lambda change: change.stop)
        for i, change in enumerate(found):
            left, right = edges_of(change, strand, model.bidirectional)
            if not model.bidirectional:
                left, right = (
                    (edges_of(first, "+", False)[0], right) if strand == "+" else (left, edges_of(last, "-", False)[1])
                )
            truth = expected(genome, model, logits, change, strand, (left, right))
            for name in ("own", "downstream", "jsd"):
                assert scores.columns[name][i] == pytest.approx(truth[name], rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("kind", ["mamba", pytest.param("Ph", marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", ["log-likelihood:chr1:181-220", "logit:chr1:201:G", "log-odds:chr1:201:C"])
def test_targets_at_fixed_places(tmp_path: Path, kind: str, target: str) -> None:
    model, logits = loaded(tmp_path, kind)
    genome = sequences(0)
    region = (180, 220) if "likelihood" in target else (200, 201)
    options: dict[str, Any] = {"region": region}
    if "likelihood" not in target:
        options["weights"] = {}
        for strand in "+-":
            base = "ACGT".index(target[-1])
            row = torch.zeros(len(model.config.symbols), dtype=torch.float64)
            if target.startswith("log-odds"):
                row[list(model.config.base_columns)] = -1 / 3
            row[model.config.base_columns[base if strand == "+" else 3 - base]] = 1
            options["weights"][strand] = row
    found = [c for c in changes(genome, 3) if c.start < 180 - 3]
    found += [Change(CHROM, at, decode(genome.fetch(CHROM, at, at + 1)).decode(), "") for at in (185, 215)]
    found += [Change(CHROM, 190, "", "ACG"), Change(CHROM, 300, "", "T")]
    for change in found:
        scores = scored(genome, model, [change], tmp_path, target=target)
        span = (min(change.start - CONTEXT, region[0] - 1), max(change.stop, region[1]))
        if model.bidirectional:
            span = min(change.start, region[0]) - CONTEXT, max(change.stop, region[1]) + REACH
        if not model.bidirectional and change.start >= region[1]:
            assert list(scores.status) == [DOWNSTREAM_OF_TARGET]
            assert np.isnan(scores.columns["delta"]).all()
            continue
        truth = expected(genome, model, logits, change, "+", (max(0, span[0]), min(SIZE, span[1])), **options)
        assert list(scores.status) == [OK]
        for name in ("own", "downstream"):
            assert scores.columns[name][0] == pytest.approx(truth[name], rel=1e-9, abs=1e-11), change


@pytest.mark.parametrize("kind", [pytest.param("causal", marks=pytest.mark.slow), "bidirectional", "rcps"])
@pytest.mark.parametrize("strand", [pytest.param("+", marks=pytest.mark.slow), "-"])
def test_labels_of_task_heads(tmp_path: Path, kind: str, strand: str) -> None:
    folder = write_headed(tmp_path / "model", kind)
    model = load_model(folder, dtype=torch.float64, tile=32)
    plain = load_model(folder, dtype=torch.float64, kernels="reference").with_head("sites")
    genome = sequences()
    weights = {"+": torch.tensor([-1.0, 1.0, 0.0]), "-": torch.tensor([-1.0, 0.0, 1.0])}
    for change in changes(genome, count=1):
        scores = scored(genome, model, [change], tmp_path, target="sites:site+", contrast="none", strand=strand)
        truth = expected(
            genome,
            plain,
            lambda x: plain.whole(x[None])[0],
            change,
            strand,
            edges_of(change, strand, model.bidirectional),
            weights={name: row.double() for name, row in weights.items()},
        )
        assert scores.columns["delta"][0] == pytest.approx(truth["delta"], rel=1e-9, abs=1e-11)
    with pytest.raises(UnsupportedModelError, match="whole windows"):
        scored(genome, model, [change], tmp_path, target="mean:site+")


def test_masked_log_odds(tmp_path: Path) -> None:
    model, logits = loaded(tmp_path, "Ph")
    genome = sequences(0)
    found = [change for change in changes(genome) if change.kind == "SNV"]
    found.append(Change(CHROM, 50, "", "A"))
    scores = scored(genome, model, found, tmp_path, masked=True)
    assert scores.status[-1] == NOT_MASKED
    for i, change in enumerate(found[:-1]):
        left, right = edges_of(change, "+", True)
        codes = torch.from_numpy(genome.fetch(CHROM, left, right)).long()
        codes[change.start - left] = 5
        log_p = torch.log_softmax(logits(model.table()[codes]), -1)[change.start - left]
        new, old = (model.config.base_columns["ACGT".index(base)] for base in (change.alt, change.ref))
        assert scores.columns["delta"][i] == pytest.approx(float(log_p[new] - log_p[old]), rel=1e-9)
    with pytest.raises(InputError, match="masked, bidirectional language model"):
        scored(genome, loaded(tmp_path / "other", "mamba")[0], found, tmp_path, masked=True)


def test_rows_keep_their_order_and_equal_changes_their_bytes(tmp_path: Path) -> None:
    model, _ = loaded(tmp_path, "mamba")
    genome = sequences(0)
    found = changes(genome)
    rows = alleles(*found, *reversed(found))
    rows.insert(3, Allele(3, CHROM, 7, ".", "A", "<DEL>", "symbolic allele", None))
    job = prepare_variants(genome, model, VariantTable(rows), VariantOptions(context=CONTEXT, reach=REACH))
    scores = compute_scores(job)
    assert scores.status[3] == "symbolic allele"
    assert all(np.isnan(values[3]) for values in scores.columns.values())
    for values in scores.columns.values():
        kept = np.delete(values, 3)
        assert np.array_equal(kept[: len(found)], kept[: len(found) - 1 : -1], equal_nan=True)


def test_interrupted_runs_continue_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "genoscan")
    monkeypatch.setattr("genoscan.effects.change_effects.COMMIT_AFTER", 0.0)
    model, _ = loaded(tmp_path, "mamba", tile=256)
    genome = sequences(0)
    found = changes(genome, count=8)
    job = prepare_variants(
        genome, model, table(*found), VariantOptions(context=30, reach=20, strand="both", first_order=True)
    )
    all_of_it: list[int] = []
    whole = compute_scores(job, progress=all_of_it.append)
    for after in (400, 900, 2_000):
        run: list[int] = []

        def stop(positions: int, run: list[int] = run, after: int = after) -> None:
            run.append(positions)
            if sum(run) > after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_variants(job, [tmp_path / "b.tsv"], progress=stop)
    left: list[int] = []
    again, _ = write_variants(job, [tmp_path / "b.tsv"], progress=left.append)
    assert sum(left) < sum(all_of_it) - 1_000
    assert re.fullmatch(rf"resuming: [1-9]\d* of {2 * len(job.changes)} effects done", caplog.messages[-1])
    for name, values in whole.columns.items():
        assert np.array_equal(values, again.columns[name], equal_nan=True), name
    assert not list(tmp_path.glob("*.partial"))


def test_background_of_long_alleles_is_normalised_and_differs_where_they_do() -> None:
    codes = random_codes(3_000, seed=3)[0].numpy()
    codes[1_200:1_230] = 0  # a deletion in it can be written in 30 ways
    genome = SequenceGenome({CHROM: codes})

    def bases(start: int, stop: int) -> str:
        return decode(genome.fetch(CHROM, start, stop)).decode()

    def other(base: str) -> str:
        return "ACGT"["ACGT".index(base) - 1]

    middle = bases(501, 509)
    ends = bases(500, 501) + middle + bases(509, 510)
    found = [
        normalise(genome, CHROM, 500, ends, other(ends[0]) + middle + other(ends[-1])),
        normalise(genome, CHROM, 700, bases(700, 702), other(bases(700, 701)) + "AC" + other(bases(701, 702))),
        normalise(genome, CHROM, 1_215, "A", ""),
        normalise(genome, CHROM, 1_215, "", "A"),
    ]
    assert [change.kind for change in found] == ["MNV", "delins", "deletion", "insertion"]
    drawn = draw_background(genome, found, 100, 600, 1)
    for change in found:
        same = [one for one in drawn if kind_of(genome, one) == kind_of(genome, change)]
        assert len(same) == len(set(same)) == 100
        assert change not in same
        for one in same:
            assert one == normalise(genome, CHROM, one.start, one.ref, one.alt)
            assert one.ref == bases(one.start, one.stop)
            assert one.kind == change.kind
    multiple = [one for one in drawn if one.kind == "MNV"]
    assert all(
        [a == b for a, b in zip(one.ref, one.alt, strict=True)] == [False, *[True] * 8, False] for one in multiple
    )


def test_background_matches_in_kind(tmp_path: Path) -> None:
    genome = SequenceGenome({CHROM: random_codes(3_000)[0].numpy(), "chr2": random_codes(500, seed=2)[0].numpy()})
    found = [Change(CHROM, 1_000, "", "AC"), Change("chr2", 200, decode(genome.fetch("chr2", 200, 203)).decode(), "")]
    found += [Change(CHROM, at, decode(genome.fetch(CHROM, at, at + 1)).decode(), "") for at in (0, 2_999)]
    for at in (0, 1, 700, 2_999):
        ref = decode(genome.fetch(CHROM, at, at + 1)).decode()
        found.append(Change(CHROM, at, ref, "ACGT"["ACGT".index(ref) - 1]))
    drawn = draw_background(genome, found, 20, 600, 1)
    assert drawn == draw_background(genome, found, 20, 600, 1) != draw_background(genome, found, 20, 600, 2)
    assert not set(drawn) & set(found)
    kinds = {kind_of(genome, change) for change in found}
    assert {kind_of(genome, change) for change in drawn} <= kinds
    for kind in kinds:
        own = [change.start for change in found if kind_of(genome, change) == kind]
        same = [change for change in drawn if kind_of(genome, change) == kind]
        assert len(same) <= 20
        assert len(set(same)) == len(same)
        assert all(min(abs(change.start - at) for at in own) <= 600 + 3 for change in same)
        if len(kind[3]) != 2:
            assert len(same) == 20
    for change in drawn:
        assert change.ref == decode(genome.fetch(change.chrom, change.start, change.stop)).decode()
        assert change.ref != change.alt
        assert change == normalise(genome, change.chrom, change.start, change.ref, change.alt)
    deltas = np.array([float(i) for i in range(len(drawn))])
    ranks = rank(genome, found[:1], np.array([-4.5]), drawn, deltas)
    same = [
        abs(d) for d, change in zip(deltas, drawn, strict=True) if kind_of(genome, change) == kind_of(genome, found[0])
    ]
    assert ranks[0] == sum(value < 4.5 for value in same) / len(same)


def test_ranks_are_of_the_same_target(tmp_path: Path) -> None:
    model, _ = loaded(tmp_path, "mamba")
    genome = sequences(0)
    found = [change for change in changes(genome) if change.kind in ("SNV", "deletion")]
    alone = scored(genome, model, found, tmp_path)
    ranked = scored(genome, model, found, tmp_path, background=25)
    for name, values in alone.columns.items():
        assert np.array_equal(values, ranked.columns[name], equal_nan=True), name
    ranks = ranked.columns["rank"]
    assert ((ranks >= 0) & (ranks <= 1)).all()
    assert len(set(ranks)) > 3
    assert json.dumps(ranked.record["windows"])


def test_effects_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    model, _ = loaded(tmp_path, "mamba")
    with torch.no_grad():
        next(model.network.parameters()).fill_(math.inf)
    with pytest.raises(NonFiniteError, match=r"chr1:101:.*is not finite"):
        scored(sequences(0), model, [Change(CHROM, 100, "", "A")], tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strand": "bed"}, r"--strand bed: expected \+, - or both"),
        ({"contrast": "strongest"}, "--contrast strongest"),
        ({"reach": -1}, "--reach -1"),
        ({"background": -1}, "--background -1"),
    ],
)
def test_bad_options_get_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        VariantOptions(**options)


@pytest.mark.parametrize("kind", ["mamba", "Ph"])
@pytest.mark.parametrize("strand", "+-")
def test_the_shortest_windows(tmp_path: Path, kind: str, strand: str) -> None:
    """With one base on each side, insertions and deletions at the ends of the sequence have a window with bases."""
    model, logits = loaded(tmp_path, kind)
    genome = sequences(0)
    for change in changes(genome, count=1):
        scores = scored(genome, model, [change], tmp_path, context=1, reach=1, strand=strand)
        edges = max(0, change.start - 1), min(SIZE, change.stop + 1)
        truth = expected(genome, model, logits, change, strand, edges)["delta"]
        assert scores.columns["delta"][0] == pytest.approx(truth, rel=1e-9, abs=1e-12)
    for name in ("context", "reach"):
        with pytest.raises(InputError, match=f"--{name} 0: expected 1 or more for insertions and deletions"):
            scored(genome, model, [Change(CHROM, 0, "ACG", "")], tmp_path, strand=strand, **{name: 0})
        substitution = [change for change in changes(genome) if len(change.ref) == len(change.alt) == 1][:1]
        scores = scored(genome, model, substitution, tmp_path, strand=strand, **{name: 0})
        assert np.isfinite(scores.columns["delta"]).all()


def test_a_target_that_nothing_predicts(tmp_path: Path) -> None:
    model, _ = loaded(tmp_path, "mamba")
    genome = sequences(0)
    with pytest.raises(InputError, match="nothing predicts that base"):
        scored(genome, model, changes(genome)[:1], tmp_path, target=f"logit:{CHROM}:1:A")


def test_first_order_predictions_that_are_not_finite_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = loaded(tmp_path, "mamba")
    genome = sequences(0)

    def overflowing(_model: Model, _codes: Any, edits: Any, *_given: Any, **_options: Any) -> np.ndarray:
        return np.full(len(edits), np.inf)

    monkeypatch.setattr("genoscan.effects.variants.first_order_effects", overflowing)
    with pytest.raises(NonFiniteError, match="the first-order prediction is not finite"):
        scored(genome, model, changes(genome)[:2], tmp_path, first_order=True)


def test_nothing_is_written_if_no_allele_can_be_scored(tmp_path: Path) -> None:
    """Nor computed; an earlier output remains."""
    loaded(tmp_path, "mamba")
    write_fasta(tmp_path / "g.fa", {"chr1": "ACGT" * 50})
    (tmp_path / "v.tsv").write_text("chrom\tpos\tref\talt\nchr1\t5\tC\tT\nchr1\t6\tG\tT\n")
    (tmp_path / "o.tsv").write_text("before\n")
    files = listing(tmp_path)
    command = tmp_path / "g.fa", tmp_path / "v.tsv", "-m", tmp_path / "model", "-o", tmp_path / "o.tsv"
    done = genoscan("variants", *command)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "none of 2 alleles can be scored: 1 REF differs" in done.err
    assert listing(tmp_path) == files
    assert (tmp_path / "o.tsv").read_text() == "before\n"
