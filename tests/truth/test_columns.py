"""`genoscan attribute` against the references of this folder: columns, scores, gaps and files."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyBigWig
import pytest
from commands import Outcome, genoscan, write_fasta

from genoscan.engine.methods import Adjoint, Layerwise, Method
from truth.cases import CHROM, TARGETS, Case, draw, letters, sensible
from truth.models import ALL, BOTH_WAYS, CAUSAL, LONG, PD_SSM_BOTH_WAYS, Model, both_ways, imported, native
from truth.windows import Answer, Region, answer, parse, scores, window

BAR = {"float32": 2e-6, "float64": 1e-12}
"""Relative error in the L2 norm, over the bases that have a score."""

ROUNDED = 6e-8
"""What float64 results lose when their columns are written as float32."""

MODELS = [*CAUSAL, *BOTH_WAYS, *PD_SSM_BOTH_WAYS]

Load = Callable[[str], Model]


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Return a function that writes a model, once, by its name."""
    made: dict[str, Model] = {}
    home = tmp_path_factory.mktemp("models")

    def loaded(name: str) -> Model:
        if name in made:
            return made[name]
        folder = home / str(len(made))
        if "layers" in ALL[name]:
            made[name] = native(folder, ALL[name])
        else:
            config, weights = both_ways(folder, ALL[name])
            with mock.patch.dict(os.environ, {"XDG_DATA_HOME": str(home / "own")}):
                done = genoscan("models", "import", folder)
            assert done.code == 0, done.err
            made[name] = imported(Path(done.out.strip()), ALL[name], config, weights)
        return made[name]

    return loaded


def run(folder: Path, model: Model, case: Case, dtype: str) -> Outcome:
    """Run a case."""
    genome = write_fasta(folder / "genome.fa", {"chr0": "ACGT", CHROM: case.letters})
    bed = folder / "regions.bed"
    rows = (f"{r.chrom}\t{r.start}\t{r.end}\tr{i}\t0\t{r.strand}\n" for i, r in enumerate(case.regions))
    bed.write_text("".join(rows))
    return genoscan(
        "attribute",
        genome,
        "--bed",
        bed,
        "-m",
        model.folder,
        "-o",
        folder / "columns.npz",
        "-o",
        folder / "scores.bw",
        "--target",
        case.target,
        "--strand",
        case.strand,
        "--context",
        case.context,
        "--reach",
        case.reach,
        "--score",
        case.score,
        "--tile",
        case.tile,
        "--slots",
        case.slots,
        "--batch",
        case.batch,
        "--threads",
        case.threads,
        "--dtype",
        dtype,
        *(["--masked"] if case.masked else []),
    )


def answers(model: Model, case: Case, region: Region) -> list[Answer]:
    """Return what the references say of a region, one a strand."""
    target, codes, offset = parse(case.target), case.codes, model.config["label_offset"]
    made = []
    for strand in case.strands(region):
        bounds = window(region, len(codes), strand, case.context, case.reach, target, offset)
        made.append(answer(model.logits, model.config, codes, bounds, region, strand, target, masked=case.masked))
    return made


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    """Return ||found - truth|| / ||truth||; a truth of zeros is to be met exactly."""
    assert found.shape == truth.shape
    found = found.astype(np.float64)
    wrong, size = np.linalg.norm(found - truth), np.linalg.norm(truth)
    return float(wrong / size) if size else float("inf" if wrong else 0)


def check(
    folder: Path,
    model: Model,
    case: Case,
    *,
    dtype: str = "float32",
    bar: float | None = None,
    truths: Callable[[Model, Case, Region], list[Answer]] = answers,
) -> list[list[Answer]]:
    """Run a case and compare all that it wrote; return what the references say."""
    done = run(folder, model, case, dtype)
    assert done.code == 0, (case, done.err)
    bar = bar or max(BAR[dtype], ROUNDED)
    files = np.load(folder / "columns.npz")
    gradient, codes = files["gradient"], files["codes"]
    regions = case.merged
    assert files["start"].tolist() == [r.start for r in regions]
    assert files["end"].tolist() == [r.end for r in regions]
    of_regions = [truths(model, case, region) for region in regions]
    means = [np.mean([one.gradient for one in each], axis=0) for each in of_regions]
    truth, known = np.concatenate(means), np.concatenate([each[0].known for each in of_regions])
    assert np.isfinite(gradient[known]).all(), case
    rows = [known]
    if dtype == "float64":  # where one region's derivatives are much smaller than another's
        at = np.repeat(range(len(regions)), [len(mean) for mean in means])
        rows = [known & (at == i) for i in range(len(regions))]
    error = max(relative(gradient[row], truth[row]) for row in rows)
    assert error <= bar, f"columns are off by {error:.1e}, more than {bar:.0e}: {case}"

    letters = np.concatenate([case.codes[r.start : r.end] for r in regions])
    assert (codes == np.where(known, letters, 4)).all(), case
    assert np.isnan(gradient[~known]).all(), f"columns where no base is scored: {case}"

    expected = scores(case.score, gradient, codes)
    with pyBigWig.open(str(folder / "scores.bw")) as opened:
        values = [opened.values(r.chrom, r.start, r.end, numpy=True) for r in regions]
    written = np.concatenate(values).astype(np.float32)
    assert (np.isnan(written) == ~known).all(), f"gaps elsewhere than at N: {case}"
    assert (written[known].view(np.uint32) == expected[known].view(np.uint32)).all(), case

    if len(regions) == 1:
        record = json.loads((folder / "scores.bw.json").read_text())
        [[value]] = record["target_values"]
        [each] = of_regions
        scale = max(1.0, float(np.mean([one.scale for one in each])))
        assert abs(value - np.mean([one.value for one in each])) <= BAR[dtype] * scale, case
    return of_regions


def clear(model: Model, case: Case, distance: float = 1e-5) -> bool:
    """Whether rounding cannot move the window past a jump or kink of the model."""
    return model.nearest is None or all(
        model.nearest(one.inputs) > distance for region in case.merged for one in answers(model, case, region)
    )


def drawn(model: Model, seed: int, **settings: Any) -> Case:
    """Draw a case, again where a derivative in float32 may rightly be another's."""
    for again in range(100):
        case = draw(1000 * again + seed, offset=model.config["label_offset"], **settings)
        if clear(model, case):
            return case
    raise AssertionError("every case is too near a jump or kink")


def turn(name: str, kind: str = TARGETS[0], first: int = 0) -> tuple[int, str]:
    """Return a seed, and a strand such that models and targets meet each."""
    seed = first + 4 * list(ALL).index(name) + TARGETS.index(kind)
    return seed, ["+", "-", "both", "bed"][(seed + seed // 4) % 4]


@contextmanager
def watched() -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Collect codes and derivatives of every window that the engine runs, in full precision."""
    seen = []
    gradient = {kind: kind.gradient for kind in (Adjoint, Layerwise)}

    def watch(self: Method, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        codes = inputs.codes.numpy().copy()
        pull, parts = gradient[type(self)](self, model, inputs, *rest, **options), []
        while True:
            try:
                span, part = next(pull)
            except StopIteration as end:
                parts.sort(key=lambda pair: pair[0].start)
                whole = np.concatenate([part for _, part in parts], axis=1)
                seen.extend(zip(codes, whole, strict=True))
                return end.value
            parts.append((span, part.numpy().copy()))
            yield span, part

    with mock.patch.object(Adjoint, "gradient", watch), mock.patch.object(Layerwise, "gradient", watch):
        yield seen


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=pytest.mark.slow if (i + j) % 2 else ())
        for i, name in enumerate(MODELS)
        for j, kind in enumerate(TARGETS)
    ],
)
def test_columns_scores_and_gaps(name: str, kind: str, load: Load, tmp_path: Path) -> None:
    seed, strand = turn(name, kind)
    check(tmp_path, load(name), drawn(load(name), seed, kind=kind, strand=strand))


@pytest.mark.parametrize("name", MODELS)
def test_whole_windows_in_float64(name: str, load: Load, tmp_path: Path) -> None:
    """Every symbol's derivative at every base that is read, at N and masks too."""
    model, kind = load(name), TARGETS[MODELS.index(name) % 4]
    seed, strand = turn(name, kind, first=500)
    masked = name not in CAUSAL and kind != TARGETS[0]
    case = drawn(model, seed, kind=kind, strand=strand, masked=masked)
    with watched() as seen:
        of_regions = check(tmp_path, model, case, dtype="float64")
    each = [one for of_region in of_regions for one in of_region]
    assert len(seen) == len(each)
    for one in each:
        found = [bars for codes, bars in seen if np.array_equal(codes, one.codes)]
        assert min(relative(bars, one.window) for bars in found) <= BAR["float64"], case


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_hidden_targets(name: str, load: Load, tmp_path: Path) -> None:
    kind = TARGETS[1 + list(BOTH_WAYS).index(name) % 3]
    seed, strand = turn(name, kind, first=1)
    check(tmp_path, load(name), drawn(load(name), seed, kind=kind, strand=strand, masked=True))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", BOTH_WAYS)
def test_a_bidirectional_models_target_depends_on_both_sides(
    name: str, masked: bool, load: Load, tmp_path: Path
) -> None:
    """With context enough, all is as in one window of the whole chromosome."""

    def whole(model: Model, case: Case, region: Region) -> list[Answer]:
        bounds = 0, len(case.letters)
        return [
            answer(model.logits, model.config, case.codes, bounds, region, way, parse(case.target), masked=case.masked)
            for way in case.strands(region)
        ]

    number = list(BOTH_WAYS).index(name) + masked
    kind, strand = TARGETS[1 + number % 3], "+-"[number % 2]
    case = drawn(load(name), turn(name, kind)[0], kind=kind, strand=strand, masked=masked)
    check(tmp_path, load(name), replace(case, context=1000, reach=1000), truths=whole)


@pytest.mark.parametrize("name", MODELS)
def test_windows_shorter_than_the_convolution(name: str, load: Load, tmp_path: Path) -> None:
    length = 1 + MODELS.index(name) % 3
    positional = length > 2 * load(name).config["label_offset"]
    kind = TARGETS[2] if positional else TARGETS[0]
    seed, strand = turn(name, kind)
    check(tmp_path, load(name), drawn(load(name), seed, kind=kind, strand=strand, length=length))


def test_confident_predictions(load: Load, tmp_path: Path) -> None:
    """The derivative of log p goes with 1 - p, of which a subtraction would leave noise."""
    model, random = load("mamba, confident"), np.random.default_rng(5)
    bases = "".join(random.choice(list("ACGT"), 120))
    case = Case(bases, (Region(CHROM, 40, 60),), TARGETS[0], "+", 1000, 0)
    for at in range(60, 120):
        case = replace(case, target=f"log-likelihood:{CHROM}:{at + 1}-{at + 1}")
        [one] = answers(model, case, case.regions[0])
        if 1e-5 < -one.value < 1e-3:
            check(tmp_path, model, case)
            return
    raise AssertionError("no prediction is that confident")


@pytest.mark.parametrize("name", ["mamba", "PS fused"])
def test_nothing_but_n(name: str, load: Load, tmp_path: Path) -> None:
    region = Region(CHROM, 3, 17)
    check(tmp_path, load(name), Case("nnNRYNkmNN" * 3, (region,), TARGETS[0], "both", 5, 5))


@pytest.mark.parametrize("strand", ["+", "-", "both"])
@pytest.mark.parametrize("name", ["mamba", "mamba, 7 taps, labels 2 on", "pd_ssm"])
def test_targets_that_depend_on_nothing_are_refused(name: str, strand: str, load: Load, tmp_path: Path) -> None:
    model, random = load(name), np.random.default_rng(1)
    offset = model.config["label_offset"]
    for number in range(5):
        while True:
            case = draw(int(random.integers(1 << 30)), kind=TARGETS[2], offset=0, strand=strand)
            if not sensible(case, offset):
                break
        folder = tmp_path / str(number)
        folder.mkdir()
        done = run(folder, model, case, "float32")
        assert done.code == 1 and len(done.err.strip().splitlines()) == 1, (case, done)
        assert re.search("where no base can matter to it|nothing predicts that base", done.err), (case, done)


def long_case(model: Model, name: str, length: int) -> Case:
    """Return a whole chromosome as one window, read along one strand."""
    seed, strand = turn(name, first=7)
    region = Region(CHROM, 0, length)
    for again in range(20):
        random = np.random.default_rng(1000 * again + seed)
        case = Case(
            letters(random, length, [region._replace(end=length // 9)]),
            (region,),
            TARGETS[0],
            "-" if strand == "-" else "+",
            0,
            0,
            tile=1024,
            slots=4,
        )
        if clear(model, case, 1e-6):
            return case
    raise AssertionError("every case is too near a jump or kink")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", BAR)
@pytest.mark.parametrize("name", MODELS)
def test_4096_bases(name: str, dtype: str, load: Load, tmp_path: Path) -> None:
    check(tmp_path, load(name), long_case(load(name), name, 4096), dtype=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_131072_bases(name: str, load: Load, tmp_path: Path) -> None:
    check(tmp_path, load(name), long_case(load(name), name, 131_072), bar=1e-5)
