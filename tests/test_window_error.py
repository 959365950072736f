"""The error that is due to the window: measured on models of known influence, interpolated, stated and recorded."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import ROOT, Outcome, bases, genoscan, tiny_model, write_fasta
from headed import write_headed
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from genoscan.engine.methods import Adjoint
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.memory import SequenceGenome
from genoscan.genome.region import Region
from genoscan.job import Options, prepare
from genoscan.layer import Carry
from genoscan.layers.config import ModelConfig, read_config
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.window_error import WindowErrors, percent
from genoscan.model import Model, load_model
from genoscan.tracks.journal import Journal
from genoscan.window_error import measurement as window_measurement
from genoscan.window_error.expected import describe_expected_error, describe_windows, expected_error
from genoscan.window_error.files import window_section
from genoscan.window_error.grid import SCORED_BASES, measurable_targets, window_grid
from genoscan.window_error.measurement import draw_regions, measure, prepare_measurement

DECAY = math.exp(-1 / 300)
WEIGHT = 1e-6  # so small that the model predicts 1/4 for every base, and its derivatives are those of the logits


class Decaying(torch.nn.Module):
    """Logits that are sums of the inputs before, with weights that decay by a known rate per base."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.weight = torch.nn.Parameter(torch.tensor(WEIGHT, dtype=torch.float64), requires_grad=False)

    def begin(self, batch: int) -> Carry:
        return torch.zeros(batch, 4, dtype=torch.float64)

    def forward(self, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        ages = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
        weights = torch.where(ages >= 0, self.decay**ages, 0.0).double()
        powers = self.decay ** torch.arange(1, x.shape[1] + 1).double()
        sums = torch.einsum("ts,bsc->btc", weights, x) + powers[:, None] * carry[:, None]
        return self.weight * sums, sums[:, -1].clone()


def decaying(decay: float = DECAY, **settings: Any) -> Model:
    given = {"d_model": 4, "layers": (MambaConfig(dt_rank=1),), "context": 512, "reach": 64, "trained_on": "nothing"}
    config = ModelConfig(**given | settings)
    return Model("decaying", Path("decaying"), config, Decaying(decay), Adjoint(tile=512), "")  # type: ignore[arg-type]


def random_genome(length: int, seed: int = 1) -> SequenceGenome:
    return SequenceGenome({"chr1": np.random.default_rng(seed).integers(0, 4, length).astype(np.uint8)})


def expected_error_of_decay(codes: np.ndarray, region: Region, reach: int, long: int) -> float:
    """Return the error for a reach, from the sums over the labels that an input affects."""
    labels = np.eye(4)[codes] - 0.25

    def scores(end: int) -> np.ndarray:
        found = np.zeros((len(region), 4))
        for row, at in enumerate(range(region.start, region.end)):
            ages = np.arange(end - 1 - at)
            found[row] = (DECAY**ages) @ labels[at + 1 : end]
        return found - found.mean(1, keepdims=True)

    truth = scores(region.end + long)
    return float(np.linalg.norm(scores(region.end + reach) - truth) / np.linalg.norm(truth))


@pytest.fixture(scope="module")
def decay_errors() -> WindowErrors:
    return measure(prepare_measurement(decaying(), random_genome(30_000), n_regions=3, longest=2048))


def test_the_curve_follows_from_the_decay(decay_errors: WindowErrors) -> None:
    genome = random_genome(30_000)
    regions = draw_regions(genome, 3, margin=2048, smallest=1, seed=1)
    assert [(one.context, one.reach) for one in decay_errors.errors] == [
        (context, reach) for context in (256, 512, 1024) for reach in (64, 256, 1024)
    ]
    for one in decay_errors.errors:
        found = [expected_error_of_decay(genome.sequences["chr1"], region, one.reach, 2048) for region in regions]
        assert one.median == pytest.approx(np.median(found), rel=0.01)
        assert one.worst == pytest.approx(max(found), rel=0.01)


def test_the_share_of_distant_bases_follows_from_the_decay(decay_errors: WindowErrors) -> None:
    assert [one.distance for one in decay_errors.distant] == [64, 256, 1024]
    for one in decay_errors.distant:
        share = (DECAY**one.distance - DECAY**2048) / (1 - DECAY**2048)
        assert one.median == pytest.approx(share, rel=1e-3)
        assert one.worst == pytest.approx(share, rel=1e-3)


def test_context_matters_where_the_model_depends_on_it(tmp_path: Path) -> None:
    """The error falls with context and with reach, also in the model with nonlinear layers."""
    loaded = load_model(tiny_model(tmp_path / "tiny"))
    found = measure(prepare_measurement(loaded, random_genome(9_000), n_regions=4, longest=1024))
    table = np.array([one.median for one in found.errors]).reshape(len(found.contexts), len(found.reaches))
    assert (found.contexts, found.reaches) == ([64, 256], [32, 256])
    assert (np.diff(table, axis=0) <= 1e-4).all()
    assert (np.diff(table, axis=1) < 0).all()


def test_the_error_is_that_of_attribute(tmp_path: Path) -> None:
    """The errors are those of scores that the command writes, with its context and reach."""
    letters = bases(5_000, 3)
    genome = write_fasta(tmp_path / "g.fa", {"a": letters})
    model = tiny_model(tmp_path / "tiny")
    done = genoscan("models", "measure", model, genome, "--regions", 1, "--longest", 200, "-t", 1)
    assert done.code == 0, done.err
    found = read_config(model).window_errors
    assert found is not None
    codes = np.array(["ACGT".index(letter) for letter in letters], np.uint8)
    (place,) = draw_regions(SequenceGenome({"a": codes}), 1, margin=200, smallest=1, seed=1)
    run = "attribute", genome, "-m", model, "-t", 1, "-r", f"a:{place.start + 1}-{place.end}"
    columns = []
    for number, window in enumerate([(64, 32), (200, 200)]):
        path = tmp_path / f"{number}.npz"
        assert genoscan(*run, "--context", window[0], "--reach", window[1], "-o", path).code == 0
        gradient = np.load(path)["gradient"].astype(float)
        columns.append(gradient - gradient.mean(1, keepdims=True))
    error = np.linalg.norm(columns[0] - columns[1]) / np.linalg.norm(columns[1])
    assert (found.errors[0].context, found.errors[0].reach) == (64, 32)
    assert found.errors[0].median == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize("kind", ["causal", "bidirectional"])
def test_labels_of_a_head_are_taken_in_turn(tmp_path: Path, kind: str) -> None:
    model = load_model(write_headed(tmp_path / "m", kind, language_model=False))
    prepared = prepare_measurement(model, random_genome(3_000), n_regions=4, longest=100)
    assert [job.options.target for job in prepared.long] == ["sites:none", "sites:site+", "sites:site-"]
    assert [len(job.regions) for job in prepared.long] == [2, 1, 1]
    found = measure(prepared)
    assert (found.target, found.regions) == ("sites", 4)
    # Labels of a causal head do not depend on the bases that follow.
    assert (found.reach, found.reaches) == ((0, [0]) if kind == "causal" else (100, [5]))
    assert 0 < found.errors[0].median <= found.errors[0].worst < 1


def test_a_masked_model(tmp_path: Path) -> None:
    """The logit is that of a masked base, which therefore has no share in its own sensitivity."""
    symbols = {"symbols": "ACGT.", "complement": [3, 2, 1, 0, 4], "mask": 4}
    model = load_model(write_headed(tmp_path / "m", "rcps", heads={}, **symbols))
    prepared = prepare_measurement(model, random_genome(2_000), n_regions=2, longest=80)
    for job, at in prepared.logits:
        assert job.options.masked
        assert (job.regions[0].start, job.regions[0].end) == (at - 80, at + 81)
    found = measure(prepared)
    assert (found.target, found.reaches) == ("log-likelihood", [5])
    assert 0 < found.errors[0].median < 1
    assert 0 < found.distant[0].median < 1


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    model, genome = decaying(), random_genome(5_000)
    for options, said in [
        ({}, "expected at least 65,664, as the long window; a shorter window is read with --longest 2436"),
        (
            {"longest": 1023},
            "--longest 1023: expected at least 1024, twice the larger of the default context and reach",
        ),
        ({"n_regions": 0}, "--regions 0"),
        ({"seed": -1}, "--seed -1"),
        ({"head": "x"}, "--head x: expected none, because no head of the model labels bases"),
        ({"longest": 2000, "n_regions": 50}, "give fewer --regions, or a --longest of 1024 to 1999, or another"),
        ({"longest": 1024, "n_regions": 50}, "give fewer --regions, or another genome"),
    ]:
        with pytest.raises(InputError, match=re.escape(said)):
            prepare_measurement(model, genome, **{"n_regions": 16} | options)
    unknown = genome.sequences["chr1"].copy()
    unknown[::50] = 4
    with pytest.raises(InputError, match=r"found 0 of 1 regions .* in 100 draws; another genome$"):
        prepare_measurement(model, SequenceGenome({"chr1": unknown}), n_regions=1, longest=1024)
    for length in (2_175, 100):
        with pytest.raises(InputError, match=r"window; use a genome with a sequence of at least 2,176 bases$"):
            prepare_measurement(model, random_genome(length), n_regions=1)
    prepare_measurement(model, random_genome(2_176), n_regions=1, longest=1024)
    model.network.weight.zero_()
    with pytest.raises(NonFiniteError, match="does not depend on any"):
        measure(prepare_measurement(model, genome, longest=1024, n_regions=2))
    pooled = load_model(
        write_headed(
            tmp_path / "pooled",
            "causal",
            language_model=False,
            heads={"mean": {"kind": "pooled", "pool": "mean", "link": "none", "labels": ["a"]}},
        )
    )
    with pytest.raises(InputError, match="a window that is labelled as a whole is read without context"):
        prepare_measurement(pooled, genome, n_regions=1)
    shown = genoscan("models", "show", tmp_path / "pooled").out
    assert re.search(
        r"^window error +none: the heads label whole windows, which are read without context$", shown, re.MULTILINE
    )


def test_errors_that_are_too_large_to_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare_measurement(decaying(), random_genome(5_000), n_regions=1, longest=1024)
    columns = window_measurement._columns

    def scaled(jobs: Any, *given: Any) -> dict[Region, np.ndarray]:
        scale = 1e-8 if jobs is prepared.long else 1
        return {region: scale * values for region, values in columns(jobs, *given).items()}

    monkeypatch.setattr(window_measurement, "_columns", scaled)
    with pytest.raises(
        NonFiniteError, match=r"^chr1:[\d,-]+: .* expected at most 1,000,000: the target hardly depends"
    ):
        measure(prepared)


def test_regions_are_drawn_evenly_and_without_unknown_bases() -> None:
    codes = np.zeros(4_000, np.uint8)
    codes[1_500:2_000] = 4
    genome = SequenceGenome({"short": codes[:300], "a": codes, "b": codes[:1_000]})
    found = [one for seed in range(40) for one in draw_regions(genome, 5, margin=100, smallest=1, seed=seed)]
    assert {one.chrom for one in found} == {"a", "b"}
    starts = [one.start for one in found if one.chrom == "a"]
    assert not any(1_280 < start < 2_090 for start in starts)  # up to 3 unknown bases are accepted in the margins
    assert 100 <= min(starts) < 200
    assert 3_600 < max(starts) <= 4_000 - SCORED_BASES - 100
    assert 0.6 < len(starts) / len(found) < 0.95
    again = draw_regions(genome, 5, margin=100, smallest=1, seed=7)
    assert again == draw_regions(genome, 5, margin=100, smallest=1, seed=7)


# ---- interpolation


def grid(
    error: Callable[[float, float], float],
    *,
    contexts: tuple[int, ...] = (256, 1024, 4096),
    reach: int = 9_999,
    **more: Any,
) -> WindowErrors:
    """Return results in which the error is a function of context and reach."""
    reaches = contexts if reach else (0,)
    pairs = [(context, after) for context in contexts for after in reaches]
    rows = [{"context": c, "reach": r, "median": error(c, r), "worst": 2 * error(c, r)} for c, r in pairs]
    about = {"genome": "g.fa", "target": "log-likelihood", "regions": 4, "bases": 1, "seed": 1, "context": 9_999}
    return WindowErrors.model_validate(about | {"reach": reach, "errors": rows, "distant": []} | more)


def test_interpolation() -> None:
    found = grid(lambda context, reach: 30 / context + 20 / reach**2)
    before, after = np.array([256, 512, 1024, 100, 1e9]), np.array([256, 1024, 4096, 100, math.inf])
    median, worst = found.interpolate(before, after)
    at = 30 / 256 + 20 / 256**2, 30 / 1024 + 20 / 1024**2, 30 / 4096 + 20 / 4096**2
    between = math.sqrt(at[1] * (30 / 256 + 20 / 1024**2))
    assert median == pytest.approx([at[0], between, 30 / 1024 + 20 / 4096**2, at[0], at[2]], rel=1e-6)
    assert worst == pytest.approx(2 * median)


def with_errors(model: Model, errors: WindowErrors | None) -> Model:
    config = model.config.model_copy(update={"window_errors": errors})
    return Model(model.name, model.path, config, model.network, model.method, "")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 39_000), st.integers(1, 900)), min_size=1, max_size=4),
    st.integers(0, 5_000),
    st.integers(0, 5_000),
    st.sampled_from(["+", "-", "both"]),
    st.booleans(),
)
def test_expected_error_is_the_mean_over_bases(
    places: list[tuple[int, int]], context: int, reach: int, strand: str, apart: bool
) -> None:
    """Distances are those to the ends of the windows that are read, joined or not, in the reading direction."""
    errors = grid(lambda context, reach: 30 / context + 0.3 * reach**-0.5)
    genome = random_genome(40_000)
    regions = [Region("chr1", start, start + length) for start, length in places]
    options = Options(context=context, reach=reach, strand=strand, apart=apart)
    job = prepare(genome, with_errors(decaying(), errors), regions, options)
    found, squares, n = expected_error(job), 0.0, 0
    assert found is not None
    for window in (window for batch in job.batches for windows in batch for window in windows):
        for region in window.regions:
            at = np.arange(region.start, region.end)
            left = np.where(window.region.start == 0, math.inf, at - window.region.start)
            right = np.where(window.region.end == 40_000, math.inf, window.region.end - 1 - at)
            before, after = (left, right) if window.strand == "+" else (right, left)
            median, _ = errors.interpolate(before.astype(float), after.astype(float))
            squares += float((median**2)[~np.isinf(before) | ~np.isinf(after)].sum())
            n += len(at)
    assert found.median == pytest.approx(math.sqrt(squares / n), rel=0.03)
    assert found.worst == pytest.approx(2 * found.median, rel=1e-6)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_directions(strand: str) -> None:
    """Where only reach matters, only reach has an influence, and it is missing at the end that is read last."""
    model, genome = with_errors(decaying(), grid(lambda context, reach: 10 / reach)), random_genome(40_000)

    def error(start: int, context: int, reach: int) -> float:
        options = Options(strand=strand, context=context, reach=reach)
        found = expected_error(prepare(genome, model, [Region("chr1", start, start + 100)], options))
        assert found is not None
        return found.median

    middle = error(20_000, 1_000, 1_000)
    assert error(20_000, 4_000, 1_000) == pytest.approx(middle)
    assert error(20_000, 1_000, 4_000) < 0.4 * middle
    at_start, at_end = error(200, 1_000, 1_000), error(39_800, 1_000, 1_000)
    read_last, read_first = (at_end, at_start) if strand == "+" else (at_start, at_end)
    assert read_first == pytest.approx(middle)
    assert read_last < 0.3 * middle


def test_bounds_and_whole_sequences() -> None:
    model, genome = (
        with_errors(decaying(), grid(lambda context, reach: 10 / context + 10 / reach)),
        random_genome(60_000),
    )

    def describe(start: int, end: int, **options: Any) -> str | None:
        return describe_windows(prepare(genome, model, [Region("chr1", start, end)], Options(**options)))

    assert describe(0, 60_000) is None
    assert describe(30_000, 30_100, context=0, reach=1_000) == (
        "91% of the bases read are context; scores differ by at least 4.9% (relative L2) from those with context "
        "and reach 9,999"
    )
    assert describe(30_000, 30_100, context=1024, reach=1024) == (
        "95% of the bases read are context; scores differ by about 1.9% (relative L2) from those with context "
        "and reach 9,999"
    )
    assert "at most 0.5%" in str(describe(20_000, 40_000, context=9_000, reach=9_000))


def test_targets_that_were_not_measured() -> None:
    errors, genome = grid(lambda context, reach: 10 / reach), random_genome(9_000)
    region = [Region("chr1", 4_000, 4_100)]

    def described(model: Model, **options: Any) -> tuple[str | None, str | None]:
        job = prepare(genome, model, region, Options(**options))
        return describe_expected_error(job, "m", "g.fa"), describe_windows(job)

    known = with_errors(decaying(), errors)
    for options, said in [
        ({"target": "logit:chr1:4,500:A"}, "--target logit:chr1:4,500:A, whose position is fixed"),
        ({"method": "integrated-gradients", "steps": 2}, "--method integrated-gradients"),
        ({"score": "observed"}, "--score observed, which is not centred"),
    ]:
        for model in (known, decaying()):
            row, line = described(model, **options)
            assert row == f"unknown: models measure does not measure it for {said}"
            assert line in ("90% of the bases read are context", "85% of the bases read are context")
    row, line = described(decaying())
    assert row == "not measured; to measure it: genoscan models measure m g.fa"
    assert line == "85% of the bases read are context"
    for model in (known, decaying()):
        for options in ({}, {"score": "observed"}, {"target": "logit:chr1:4,500:A"}):
            whole = prepare(genome, model, [Region("chr1", 0, 9_000)], Options(**options))
            described_whole = describe_expected_error(whole, "m", "g.fa")
            assert described_whole == "none: the windows contain all bases that the target depends on"


def test_heads_that_were_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genoscan.layers import catalogue

    genome, stored = random_genome(900), grid(lambda context, reach: 10 / context, reach=0)
    causal = load_model(write_headed(tmp_path / "included" / "causal", "causal"))
    assert measurable_targets(causal.config) == ["log-likelihood", "sites"]

    def described(model: Model, target: str, start: int = 400, **options: Any) -> str | None:
        job = prepare(genome, model, [Region("chr1", start, 500)], Options(target=target, **options))
        return describe_expected_error(job, "my models/m", "g.fa")

    command = "to measure it: genoscan models measure 'my models/m' g.fa"
    assert described(causal, "sites:site+") == f"not measured; {command} --head sites"
    known = with_errors(causal, grid(lambda context, reach: 10 / reach))
    assert described(known, "sites:site+") == f"measured only for log-likelihood; {command} --head sites"
    known = with_errors(causal, stored.model_copy(update={"target": "sites"}))
    assert described(known, "log-likelihood") == f"measured only for sites:LABEL; {command}"
    assert described(known, "sites:site+", contrast="strongest") == (
        "unknown: models measure does not measure it for --contrast strongest"
    )
    # The labels of a causal model do not depend on the bases that follow; its likelihood does.
    for model in (causal, known):
        assert str(described(model, "sites:site+", start=0)).startswith("none: ")
        assert not str(described(model, "log-likelihood", start=0)).startswith("none: ")
    assert described(causal, "mean:site+") is None
    monkeypatch.setattr(catalogue, "model_search_path", lambda: [tmp_path / "included", tmp_path / "none"])
    assert described(causal, "sites:site+") == f"not measured; {command} --head sites -o FOLDER"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"context": 4096}, "context 4096: expected more"),
        ({"reach": 4096}, "reach 4096: expected more"),
        ({"reach": 0}, "reach 0: expected reach 0"),
        ({"errors": []}, "errors"),
        ({"errors": [{"context": 1, "reach": 1, "median": 0.2, "worst": 0.1}]}, "at least the median"),
        ({"errors": [{"context": 1, "reach": 1, "median": math.nan, "worst": 0.1}]}, "finite"),
        ({"errors": [{"context": c, "reach": c, "median": 0, "worst": 0} for c in (1, 2)]}, "each context once"),
        ({"distant": [{"distance": d, "median": 0, "worst": 0} for d in (2, 1)]}, "ascending"),
        ({"distant": [{"distance": 1, "median": 0, "worst": 1.1}]}, "less than or equal to 1"),
        ({"regions": 0}, "regions"),
        ({"genome": "a\nb"}, "genome"),
        ({"more": 1}, "more"),
    ],
)
def test_results_are_validated(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        WindowErrors.model_validate(grid(lambda _context, _reach: 0.1).model_dump() | change)


# ---- commands


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a genome, and a model with an error of 4 / context + 4 / reach."""
    folder = tmp_path_factory.mktemp("window")
    write_fasta(folder / "g.fa", {"chr1": bases(9_000, 1), "chr2": bases(900, 2)})
    path = tiny_model(folder / "tiny") / "config.json"
    errors = grid(lambda context, reach: 4 / context + 4 / reach, contexts=(16, 32, 64, 128)).model_dump(mode="json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"window_errors": errors}))
    return folder


def measured(folder: Path, model: Path | str, *more: object) -> Outcome:
    options = "--regions", 2, "--longest", 300, "-t", 1
    return genoscan("models", "measure", model, folder / "g.fa", *options, *more)


def test_measure_prints_and_stores_the_results(source: Path, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny")
    before, sha256 = json.loads((model / "config.json").read_text()), load_model(model).sha256
    done = measured(source, model)
    assert done.code == 0, done.err
    table = pd.read_csv(pd.io.common.StringIO(done.out), sep="\t")
    assert list(table.columns) == ["#quantity", "context", "reach", "distance", "median", "worst"]
    found = read_config(model).window_errors
    assert found is not None
    errors = table[table["#quantity"] == "window_error"]
    assert list(zip(errors["context"], errors["reach"], errors["median"], errors["worst"], strict=True)) == [
        (one.context, one.reach, one.median, one.worst) for one in found.errors
    ]
    shares = table[table["#quantity"] == "distant_share"]
    assert list(shares["distance"]) == [64, 256] == [one.distance for one in found.distant]
    assert list(shares["median"]) == [one.median for one in found.distant]
    content = json.loads((model / "config.json").read_text())
    assert {key: content[key] for key in before} == before | {"window_errors": content["window_errors"]}
    assert load_model(model).sha256 == sha256
    card = (model / "README.md").read_text()
    assert card.startswith("# tiny\n\nUntrained.\n\n## What the window changes\n")
    assert f"| 64 | **{percent(found.errors[0].median)} ({percent(found.errors[0].worst)})** |" in card
    shown = genoscan("models", "show", model).out
    assert f"{percent(found.errors[0].median)} with the default context and reach" in shown
    assert "from 2 regions of g.fa, target log-likelihood\n" in shown
    again = measured(source, model, "--seed", 2)
    assert again.out != done.out
    assert (model / "README.md").read_text().count("## What the window changes") == 1
    assert measured(source, model).out == done.out
    assert (model / "README.md").read_text() == card


def test_a_folder_that_cannot_be_written_is_an_error_at_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tmp_path / "tiny")
    monkeypatch.setattr("os.access", lambda *_given: False)
    done = measured(source, model)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.endswith("choose another folder; -o FOLDER writes a copy of the model\n")


def test_other_sections_of_a_card_stay(source: Path, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny")
    assert measured(source, model).code == 0
    text = (model / "README.md").read_text()
    (model / "README.md").write_text(text + "\n## More\n\nText \\1.\n")
    assert measured(source, model, "--seed", 3).code == 0
    changed = (model / "README.md").read_text()
    assert changed.startswith("# tiny\n\nUntrained.\n")
    assert changed.endswith("|\n\n## More\n\nText \\1.\n")
    (model / "README.md").unlink()
    assert measured(source, model).code == 0
    assert (model / "README.md").read_text().startswith("# tiny\n\n## What the window changes\n")


def test_included_models_are_copied(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genoscan.layers import catalogue

    tiny_model(tmp_path / "included" / "own")
    before = {path.name: path.read_bytes() for path in (tmp_path / "included" / "own").iterdir()}
    monkeypatch.setattr(catalogue, "model_search_path", lambda: [tmp_path / "included", tmp_path / "none"])
    done = measured(source, "own")
    assert done.code == 0
    assert "own is an included model, which is not changed; -o FOLDER writes a copy" in done.err
    copied = measured(source, "own", "-o", tmp_path / "copy")
    assert copied.out == done.out
    assert {path.name: path.read_bytes() for path in (tmp_path / "included" / "own").iterdir()} == before
    assert read_config(tmp_path / "copy").window_errors is not None
    assert load_model(tmp_path / "copy").sha256 == load_model(tmp_path / "included" / "own").sha256
    inside = measured(source, tmp_path / "copy", "-o", tmp_path / "copy" / "inside")
    assert inside.code == 0
    names = {"README.md", "config.json", "model.safetensors"}
    assert {path.name for path in (tmp_path / "copy" / "inside").iterdir()} == names
    done = measured(source, "own", "-o", tmp_path / "copy")
    assert done.code == 1
    assert done.err.endswith("already exists: name a new folder\n")


@pytest.mark.parametrize("copied", [False, True])
def test_an_interrupted_measurement_is_continued(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    model = tiny_model(tmp_path / "tiny")
    whole = measured(source, model, *(["-o", tmp_path / "whole"] if copied else []))
    output = tmp_path / "copy" if copied else model
    words = ["-o", output] if copied else []
    add, compute, computed = Journal.add, window_measurement.gradient, list[int]()

    def counted(model: Any, codes: Any, *given: Any, **options: Any) -> Any:
        computed.append(len(codes))
        return compute(model, codes, *given, **options)

    def interrupted(journal: Journal, entry: Any) -> None:
        add(journal, entry)
        if entry.batch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(window_measurement, "gradient", counted)
    assert measured(source, model, *words).code == 0
    n_all = len(computed)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", interrupted)
        if copied:
            shutil.rmtree(output)
        assert measured(source, model, *words).code == 130
    assert output.with_name(f"{output.name}.partial").is_dir()
    computed.clear()
    done = measured(source, model, *words)
    assert (done.code, done.out) == (0, whole.out)
    assert f"resuming: 3 of {n_all} batches done\n" in done.err
    assert len(computed) == n_all - 3
    assert not output.with_name(f"{output.name}.partial").exists()


def run(source: Path, output: Path, *more: object) -> tuple[dict[str, Any], str]:
    done = genoscan("attribute", source / "g.fa", "-m", source / "tiny", "-t", 1, "-o", output, *more)
    assert done.code == 0, done.err
    return json.loads(Path(f"{output}.json").read_text()), done.err


def test_attribute_and_plan_state_the_expected_error(source: Path, tmp_path: Path) -> None:
    region = "-r", "chr1:1,501-1,501"
    record, err = run(source, tmp_path / "x.bw", *region)
    about = {"genome": "g.fa", "target": "log-likelihood", "regions": 4, "bases": 1, "context": 9_999, "reach": 9_999}
    error = pytest.approx(4 / 64 + 4 / 32, rel=0.01)
    assert record["window_error"] == about | {"median": error, "worst": pytest.approx(0.375, rel=0.01), "bound": None}
    assert (record["read_bases"], record["context_share"]) == (97, pytest.approx(96 / 97))
    line = "99% of the bases read are context; scores differ by about 19% (relative L2) from those with context"
    assert err.splitlines()[1].startswith(line), err
    done = genoscan("plan", source / "g.fa", "-m", source / "tiny", "-t", 1, *region, "-o", tmp_path / "p.bw")
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in done.out.splitlines())
    assert rows["window error"] == (
        "about 19%, worst region 38% (relative L2 distance to context and reach 9,999; 4 regions of g.fa)"
    )


def test_joined_windows_have_smaller_errors(source: Path, tmp_path: Path) -> None:
    regions = "-r", "chr1:1,501-1,520", "-r", "chr1:1,561-1,580"
    joined, _ = run(source, tmp_path / "j.bw", *regions)
    apart, _ = run(source, tmp_path / "a.bw", *regions, "--apart")
    assert joined["window_error"]["median"] < 0.95 * apart["window_error"]["median"]
    assert joined["read_bases"] < apart["read_bases"]
    assert joined["context_share"] < apart["context_share"]
    whole, err = run(source, tmp_path / "w.bw", "-r", "chr2")
    assert (whole["window_error"]["median"], whole["context_share"]) == (0, 0)
    assert len(err.splitlines()) == 1


def test_shards_state_what_one_run_states(source: Path, tmp_path: Path) -> None:
    regions = "-r", "chr1:501-540", "-r", "chr1:1,501-1,600", "-r", "chr1:8,701-8,960", "--batch", 1
    record, _ = run(source, tmp_path / "x.npz", *regions)
    shards = [tmp_path / f"s{i}.npz" for i in (1, 2)]
    for i, path in enumerate(shards, 1):
        run(source, path, *regions, "--shard", f"{i}/2")
    merge = "track", "merge", *shards, "-g", source / "g.fa", "-o"
    assert genoscan(*merge, tmp_path / "m.bw").code == 0
    merged = json.loads((tmp_path / "m.bw.json").read_text())
    assert merged["read_bases"] == record["read_bases"]
    assert merged["context_share"] == pytest.approx(record["context_share"])
    assert merged["window_error"] == pytest.approx(record["window_error"])
    one = json.loads(Path(f"{shards[0]}.json").read_text())
    one["window_error"] |= {"genome": "other.fa"}
    Path(f"{shards[0]}.json").write_text(json.dumps(one))
    assert genoscan(*merge, tmp_path / "o.bw").code == 0
    merged = json.loads((tmp_path / "o.bw.json").read_text())
    assert "window_error" not in merged
    assert merged["read_bases"] == record["read_bases"]
    del one["window_error"], one["read_bases"]
    Path(f"{shards[0]}.json").write_text(json.dumps(one))
    assert genoscan(*merge, tmp_path / "n.bw").code == 0
    assert not {"window_error", "read_bases", "context_share"} & set(json.loads((tmp_path / "n.bw.json").read_text()))


def test_scores_do_not_depend_on_the_measurement(source: Path, tmp_path: Path) -> None:
    region = "-r", "chr1:1,501-1,628"
    run(source, tmp_path / "x.bw", *region)
    other = tiny_model(tmp_path / "tiny")
    done = genoscan("attribute", source / "g.fa", "-m", other, "-t", 1, *region, "-o", tmp_path / "y.bw")
    assert done.code == 0, done.err
    assert (tmp_path / "x.bw").read_bytes() == (tmp_path / "y.bw").read_bytes()
    records = [json.loads((tmp_path / f"{name}.bw.json").read_text()) for name in "xy"]
    assert records[0]["model_sha256"] == records[1]["model_sha256"]
    assert "window_error" not in records[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"median": -1}, "window_error.median"),
        ({"bound": "x"}, "window_error.bound"),
        ({"genome": ""}, "window_error.genome"),
        ({"regions": 0}, "window_error.regions"),
    ],
)
def test_edited_records(source: Path, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    record, _ = run(source, tmp_path / "x.bw", "-r", "chr1:1,501-1,520")
    record["window_error"] |= change
    (tmp_path / "x.bw.json").write_text(json.dumps(record))
    done = genoscan("export", "html", tmp_path / "x.bw", "-g", source / "g.fa", "-o", tmp_path / "x.html")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert said in done.err


@pytest.fixture
def trained(source: Path, tmp_path: Path) -> Iterator[Callable[..., Outcome]]:
    sizes = "--width", 8, "--layers", 1, "--states", 4, "--steps", 2, "--window", 16, "--walk", 1, "--batch", 2
    yield lambda *more: genoscan(
        "train", source / "g.fa", *sizes, "-t", 1, "-o", tmp_path / "made", *(more or ("--validation", 0.5))
    )


def test_train_measures_at_its_end(
    trained: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genoscan.training import finish

    monkeypatch.setattr(finish, "_MEASURED_SHARE", 1e3)
    done = trained()
    assert done.code == 0, done.err
    found = read_config(tmp_path / "made").window_errors
    assert found is not None
    assert (found.genome, found.regions, found.context) == ("validation data", 8, (4_500 - SCORED_BASES) // 4)
    assert "measuring the window error in 8 regions of the validation data" in done.err
    card = (tmp_path / "made" / "README.md").read_text()
    assert card.index("## How well it predicts") < card.index("## What the window changes")


def test_train_does_not_measure_short_runs(source: Path, trained: Callable[..., Outcome], tmp_path: Path) -> None:
    done = trained()
    assert done.code == 0, done.err
    assert read_config(tmp_path / "made").window_errors is None
    line = "window error not measured: 64 bases were processed in training, and the measurement reads"
    assert line in done.err
    assert f"to measure it: genoscan models measure {tmp_path / 'made'} {source / 'g.fa'}\n" in done.err


def test_a_trained_model_is_complete_before_it_is_measured(
    trained: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genoscan.training import finish

    def fail(*_given: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(finish, "_MEASURED_SHARE", 1e3)
    monkeypatch.setattr(window_measurement, "measure", fail)
    for error in (MemoryError(), KeyboardInterrupt(), NonFiniteError("chr1:1-128: not finite")):
        done = trained()
        assert load_model(tmp_path / "made").config.window_errors is None
        assert done.out.endswith(f"{tmp_path / 'made'}\n")
        assert (done.code == 0) == isinstance(error, NonFiniteError)
        shutil.rmtree(tmp_path / "made")
    assert "window error not measured: chr1:1-128: not finite; to measure it: genoscan models measure" in done.err


def test_train_states_that_the_validation_data_is_short(trained: Callable[..., Outcome]) -> None:
    done = trained("--validation", "chr1:8,001-8,140")
    assert done.code == 0, done.err
    assert (
        "window error not measured: the longest piece of validation data has 140 bases, expected at least" in done.err
    )


def test_a_model_that_is_trained_further_is_not_measured(source: Path, trained: Callable[..., Outcome]) -> None:
    done = trained("--validation", 0.5, "--from", source / "tiny")
    assert done.code == 0, done.err
    assert read_config(Path(done.out.splitlines()[-1])).window_errors is None


def test_default_grids() -> None:
    assert window_grid(decaying(context=4096, reach=1024), "log-likelihood").pairs == [
        (context, reach) for context in (256, 1024, 4096, 16_384) for reach in (256, 1024, 4096, 16_384)
    ]
    long = window_grid(decaying(context=30_000, reach=0), "log-likelihood")
    assert (long.context, long.contexts) == (60_000, (256, 1024, 4096, 16_384, 30_000))
    assert long.reaches == (0, 256, 1024, 4096, 16_384)
    read = [
        job.read_bases for job in prepare_measurement(decaying(), random_genome(9_000), n_regions=1, longest=1024).jobs
    ]
    assert (
        sum(read) == window_grid(decaying(), "log-likelihood", 1024).cost - 1023
    )  # the logit does not depend on these


@pytest.mark.parametrize("name", ["bacteria", "bacteria-pd-ssm", "arabidopsis-genes", "bacteria-genes"])
def test_cards_and_docs_state_the_errors_of_the_included_models(name: str) -> None:
    config = read_config(ROOT / "models" / name)
    assert config.window_errors is not None
    section = window_section(config.window_errors, config)
    assert section in (ROOT / "models" / name / "README.md").read_text()
    docs = (ROOT / "docs" / "computed.md").read_text()
    assert f"(../models/{name}/README.md" in docs
    if name == "bacteria":
        tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
        assert len(tables) == 2
        assert all(table in docs for table in tables)
