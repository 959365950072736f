"""Dependency maps: the literal definitions in plain torch are what the command must compute."""

import decimal
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import cooler
import numpy as np
import pyBigWig
import pytest
import torch
from browser import browser
from commands import bases, genoscan, listing, tiny_model, write_fasta
from torch import Tensor
from truth.models import ALL, both_ways, imported, native
from truth.models import Model as Truth

from genoscan.dependency import compute as dependency
from genoscan.dependency.compute import Effects, _log_odds, compute_map
from genoscan.dependency.dependency_map import DependencyMap, Layout, mark_unknown, symmetrise
from genoscan.dependency.files import write_map
from genoscan.dependency.plan import LARGEST, MapOptions, MapPlan, Reading, prepare_map
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.genome import Genome, open_genome
from genoscan.genome.region import Region
from genoscan.model import Model, load_model

LENGTH, CONTEXT = 130, 4
REGION = Region("chr1", 40, 50)
MODELS = ("mamba", "Ph", "mamba, 7 taps, labels 2 on", "all three", "PS unfused")
DEFINITIONS = ("log-odds", "jacobian", "derivative")
QUICK = {("mamba", definition) for definition in DEFINITIONS} | {("Ph", "jacobian")}
CASES = [
    pytest.param(name, definition, marks=[] if (name, definition) in QUICK else pytest.mark.slow)
    for name in MODELS
    for definition in DEFINITIONS
]
BAR = {"float64": 1e-11, "float32": 1e-5}


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    letters = bases(LENGTH, 5)
    return open_genome(write_fasta(tmp_path_factory.mktemp("genome") / "g.fa", {"chr1": letters, "chr2": "ACGTACGT"}))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Truth]:
    """Return a function that writes a model, once, by its name."""
    made: dict[str, Truth] = {}
    home = tmp_path_factory.mktemp("models")

    def load(name: str) -> Truth:
        if name not in made and "layers" in ALL[name]:
            made[name] = native(home / str(len(made)), ALL[name])
        elif name not in made:
            config, weights = both_ways(home / str(len(made)), ALL[name])
            with mock.patch.dict(os.environ, {"XDG_DATA_HOME": str(home / "own")}):
                done = genoscan("models", "import", home / str(len(made)))
            made[name] = imported(Path(done.out.strip()), ALL[name], config, weights)
        return made[name]

    return load


def literal(truth: Truth, model: Model, codes: Tensor, definition: str) -> np.ndarray:
    """Return the map of a window as it is read: 3 L + 1 forward passes, or one Jacobian."""
    table, columns, offset = model.table().double(), list(model.config.base_columns), model.label_offset
    length = len(codes)

    def read(x: Tensor) -> Tensor:
        """Return, for each base but the first, what predicts it."""
        logits = truth.logits(x)
        if definition == "log-odds":
            p = torch.softmax(logits, -1)[:, columns] + 1e-10
            p = p / p.sum(-1, keepdim=True)
            measured = torch.log2(p / (1 - p))
        else:
            measured = torch.log_softmax(logits[:, columns], -1)
        return torch.cat([torch.zeros(offset, 4), measured[: length - offset]])

    x = table[codes]
    found = torch.zeros(length, length, dtype=torch.float64)
    if definition == "derivative":
        # (read, base, mutated, symbol)
        jacobian = torch.func.jacrev(read)(x)
        for i in range(length):
            changes = table[:4] - x[i]
            found[i] = torch.einsum("jbs,as->jba", jacobian[:, :, i], changes).abs().amax((1, 2))
    else:
        before = read(x)
        for i in range(length):
            for base in range(4):
                changed = codes.clone()
                changed[i] = base
                found[i] = torch.maximum(found[i], (read(table[changed]) - before).abs().amax(-1))
    return found.fill_diagonal_(0).numpy()


def expected(truth: Truth, model: Model, genome: Genome, definition: str) -> dict[str, np.ndarray]:
    """Return the literal map of REGION for each strand."""
    made = {}
    for strand in "+-":
        before, after = (CONTEXT, CONTEXT) if model.bidirectional else (CONTEXT, 0)
        before, after = (after, before) if strand == "-" else (before, after)
        start, end = REGION.start - before, REGION.end + after
        codes = torch.from_numpy(genome.fetch("chr1", start, end).astype(np.int64))
        found = literal(truth, model, 3 - codes.flip(0) if strand == "-" else codes, definition)
        found = found[::-1, ::-1] if strand == "-" else found
        made[strand] = found[before : before + len(REGION), before : before + len(REGION)]
    return made | {"both": (made["+"] + made["-"]) / (2 if model.bidirectional else 1)}


def computed(
    folder: Path, genome: Genome, options: MapOptions, dtype: str = "float64", tile: int = 16
) -> DependencyMap:
    model = load_model(folder, dtype=getattr(torch, dtype), tile=tile)
    return compute_map(prepare_map(genome, model, options))


def assert_equal(found: np.ndarray, wanted: np.ndarray, bar: float) -> None:
    assert found.shape == wanted.shape
    assert np.linalg.norm(wanted) > 0
    assert np.linalg.norm(found - wanted) <= bar * np.linalg.norm(wanted)


@pytest.mark.parametrize(("name", "definition"), CASES)
def test_maps_equal_the_literal_definitions(
    genome: Genome, truth: Callable[[str], Truth], name: str, definition: str
) -> None:
    made = truth(name)
    model = load_model(made.folder, dtype=torch.float64)
    for strand, wanted in expected(made, model, genome, definition).items():
        options = MapOptions(REGION, definition, strand, context=CONTEXT)
        found = computed(made.folder, genome, options).values
        assert found.dtype == np.float64
        assert_equal(found, wanted, BAR["float64"])
        single = computed(made.folder, genome, options, "float32").values
        assert_equal(single, wanted, BAR["float32"])
        assert (np.diag(found) == 0).all()
        if not model.bidirectional:
            upper, lower = np.triu(found, 1), np.tril(found, -1)
            assert strand == "both" or not (lower if strand == "+" else upper).any()
            assert (strand == "-" or upper.any()) and (strand == "+" or lower.any())


def test_the_default_strand(genome: Genome, truth: Callable[[str], Truth]) -> None:
    for name, strand in (("mamba", "both"), ("Ph", "+")):
        folder = truth(name).folder
        found, given = (
            computed(folder, genome, MapOptions(REGION, strand=strand, context=9)).values for strand in (None, strand)
        )
        assert (found == given).all()


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("mamba", "log-odds"),
        pytest.param("mamba", "derivative", marks=pytest.mark.slow),
        pytest.param("Ph", "jacobian", marks=pytest.mark.slow),
    ],
)
def test_blocks_rows_and_bands_are_parts_of_the_map(
    genome: Genome, truth: Callable[[str], Truth], name: str, definition: str
) -> None:
    folder = truth(name).folder
    whole = computed(folder, genome, MapOptions(REGION, definition, context=CONTEXT)).values
    rows = Region("chr1", 43, 45), Region("chr1", 48, 49), Region("chr1", 44, 46)
    some = computed(folder, genome, MapOptions(REGION, definition, rows=rows, context=CONTEXT))
    # Windows begin with the mutated and the read bases, whichever those are.
    assert some.layout.rows.tolist() == [43, 44, 45, 48]
    assert_equal(some.values, whole[some.layout.rows - REGION.start], 1e-11)
    for band in (1, 40):
        found = computed(folder, genome, MapOptions(REGION, definition, band=band, context=CONTEXT))
        assert found.values.shape == (len(REGION), 2 * band + 1)
        rows_at, columns_at = np.indices(whole.shape)
        near = abs(rows_at - columns_at) <= band
        assert_equal(np.where(near, found.dense(), 0), np.where(near, whole, 0), 1e-6)
        assert np.isnan(found.dense()[~near]).all()
        assert np.isfinite(found.values).sum() == near.sum()
        for how in ("mean", "max"):
            dense = symmetrise(DependencyMap(some.layout, whole, *([np.zeros(1, np.uint8)] * 2)), "none")
            assert dense.values is whole
            both = (whole + whole.T) / 2 if how == "mean" else np.maximum(whole, whole.T)
            options = MapOptions(REGION, definition, symmetrise=how, band=band, context=CONTEXT)
            assert_equal(np.nan_to_num(computed(folder, genome, options).dense()), np.where(near, both, 0), 1e-6)
            options = MapOptions(REGION, definition, symmetrise=how, context=CONTEXT)
            found = computed(folder, genome, options)
            assert found.symmetric
            assert_equal(found.values, both, 1e-11)


def test_a_block_of_two_regions(genome: Genome, truth: Callable[[str], Truth]) -> None:
    folder = truth("mamba").folder
    wide = Region("chr1", 40, 90)
    whole = computed(folder, genome, MapOptions(wide, context=CONTEXT)).values
    block = MapOptions(Region("chr1", 40, 50), columns=Region("chr1", 70, 90), context=CONTEXT)
    assert_equal(computed(folder, genome, block).values, whole[:10, 30:], 1e-11)
    left = MapOptions(Region("chr1", 70, 90), columns=Region("chr1", 40, 50), context=CONTEXT)
    assert_equal(computed(folder, genome, left).values, whole[30:, :10], 1e-11)


def test_log_odds_keep_their_precision() -> None:
    """Where p rounds to 1, 1 - p would be 0 or a multiple of 1e-16."""
    outputs = torch.tensor([[30.0, 0.0, -1.0, -60.0], [5.0, -200.0, 0.0, 0.0]], dtype=torch.float64)
    for row, found in zip(outputs.tolist(), _log_odds(outputs, [0, 1, 2, 3]).tolist(), strict=True):
        decimal.getcontext().prec = 60
        exact = [decimal.Decimal(value).exp() for value in row]
        p = [value / sum(exact) + decimal.Decimal("1e-10") for value in exact]
        p = [value / sum(p) for value in p]
        wanted = [float((value / (1 - value)).ln() / decimal.Decimal(2).ln()) for value in p]
        assert found == pytest.approx(wanted, rel=1e-14)


def test_n_is_a_gap(tmp_path: Path, truth: Callable[[str], Truth]) -> None:
    made = truth("mamba")
    letters = bases(90, 8)
    genome = open_genome(write_fasta(tmp_path / "n.fa", {"chr1": letters[:50] + "N" + letters[51:], "n": "N" * 30}))
    found = computed(made.folder, genome, MapOptions(Region("chr1", 40, 60), context=9))
    unknown = np.zeros((20, 20), bool)
    unknown[10] = unknown[:, 10] = True
    assert (np.isnan(found.values) == unknown).all()
    assert np.isnan(found.influence()[10])
    assert found.influence()[0] == pytest.approx(found.values[0, np.r_[1:10, 11:20]].mean(), rel=1e-6)
    empty = computed(made.folder, genome, MapOptions(Region("n", 0, 20)))
    assert np.isnan(empty.values).all()
    assert empty.strongest(5) == []
    done = genoscan("dependency", genome.path, "-m", made.folder, "-r", "n", "-o", tmp_path / "n.bw")
    assert (done.code, "every mutated base is an N" in done.err) == (0, True)


def test_strongest_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    values = random.random((9, 9)).round(1)
    np.fill_diagonal(values, 0)
    codes = np.zeros(9, np.uint8)
    for block in (1, 20, 1 << 20):
        monkeypatch.setattr("genoscan.dependency.dependency_map._BLOCK", block)
        found = DependencyMap(Layout(np.arange(100, 109), Region("c", 100, 109)), values, codes, codes)
        wanted = sorted((-values[i, j], 100 + i, 100 + j) for i in range(9) for j in range(9) if values[i, j] > 0)
        assert [(-pair.value, pair.row, pair.column) for pair in found.strongest(12)] == wanted[:12]
        both = symmetrise(found, "max").strongest(100)
        assert len(both) == len({(pair.row, pair.column) for pair in both}) and all(p.row < p.column for p in both)


def test_marking_a_band() -> None:
    codes = np.zeros(4, np.uint8)
    found = DependencyMap(Layout(np.arange(4), Region("c", 0, 4), 2), np.ones((4, 5)), codes, codes)
    mark_unknown(found)
    assert np.isfinite(found.values).sum(1).tolist() == [3, 4, 4, 3]


# ---- files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_fasta(folder / "g.fa", {"chr1": bases(300, 1), "chr2": bases(80, 2)})
    tiny_model(folder / "tiny")
    return folder


def run(folder: Path, *arguments: object) -> tuple[int, str]:
    done = genoscan("dependency", folder / "g.fa", "-m", folder / "tiny", "-t", 1, *arguments)
    return done.code, done.err


@pytest.mark.parametrize("more", [[], ["--band", 7], ["--symmetrise", "mean"], ["--columns", "chr1:140-170"]])
def test_every_file_is_the_map(folder: Path, tmp_path: Path, more: list[object]) -> None:
    names = ["o.npz", "o.cool", "o.mcool", "o.bedpe", "o.html", "o.bw", "o.bedgraph.gz"]
    outputs = [word for name in names for word in ("-o", tmp_path / name)]
    code, err = run(folder, "-r", "chr1:101-130", "--top", 25, *more, *outputs)
    assert code == 0, err
    assert "174 forward passes" in err or more
    rows, width, size = map(int, re.search(r"map of (\d+) x (\d+) values \((\d+) kB\)", err).groups())
    assert size == round(rows * width * 4 / 1000) > 0
    written = {*names, "o.bedgraph.gz.tbi", *(f"{name}.json" for name in names if name != "o.html")}
    assert listing(tmp_path) == written
    with np.load(tmp_path / "o.npz", allow_pickle=False) as file:
        found = {name: file[name] for name in file}
    assert found["map"].dtype == np.float32
    assert found["rows"].tolist() == list(range(100, 130))
    assert (str(found["chrom"]), str(found["definition"])) == ("chr1", "log-odds")
    assert json.loads(str(found["provenance"]))["strand"] == "both"
    pairs = {}
    for i, row in enumerate(found["rows"].tolist()):
        at = (row + found["offsets"]) if "offsets" in found else found["columns"]
        pairs |= {(row, int(j)): float(v) for j, v in zip(at, found["map"][i], strict=True) if np.isfinite(v)}
    matrix = cooler.Cooler(str(tmp_path / "o.cool"))
    assert matrix.chromsizes["chr1"] == 300
    square = matrix.matrix(balance=False).fetch("chr1:100-130", "chr1:100-130")
    if not more or more[0] != "--columns":
        dense = np.array([[pairs.get((i, j), 0) for j in range(100, 130)] for i in range(100, 130)])
        assert (square == dense.astype(np.float32)).all()
    else:
        block = matrix.matrix(balance=False).fetch("chr1:100-130", "chr1:139-170")
        assert (block == found["map"]).all()
    zoomed = f"{tmp_path / 'o.mcool'}::/resolutions"
    assert (cooler.Cooler(f"{zoomed}/1").matrix(balance=False)[:] == matrix.matrix(balance=False)[:]).all()
    total = matrix.matrix(balance=False, as_pixels=True)[:]["count"].sum()
    coarse = cooler.Cooler(f"{zoomed}/2").matrix(balance=False, as_pixels=True)[:]["count"].sum()
    assert coarse == pytest.approx(total, rel=1e-5)
    rows = [line.split("\t") for line in (tmp_path / "o.bedpe").read_text().splitlines()[1:]]
    assert len(rows) == 25
    for row in rows:
        assert float(row[7]) == pytest.approx(pairs[int(row[1]), int(row[4])], rel=1e-5)
    ordered = [value for (i, j), value in pairs.items() if more[:1] != ["--symmetrise"] or i < j]
    assert float(rows[0][7]) == pytest.approx(max(ordered), rel=1e-5)
    assert float(rows[-1][7]) == pytest.approx(sorted(ordered)[-25], rel=1e-5)
    with pyBigWig.open(str(tmp_path / "o.bw")) as track:
        influence = track.values("chr1", 100, 130)
    wanted = [np.mean([v for (i, j), v in pairs.items() if i == row and j != i]) for row in range(100, 130)]
    assert influence == pytest.approx(wanted, rel=1e-5)


def test_rows_are_positions_or_a_bed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.bed").write_text("chr1\t104\t106\nchr1\t110\t111\n")
    given = ["--rows", tmp_path / "rows.bed", "--rows", "chr1:120", "--rows", "chr1:104-105"]
    code, err = run(folder, "-r", "chr1:101-130", *given, "-o", tmp_path / "o.npz", "-o", tmp_path / "o.html", "-o",
                    tmp_path / "o.bw")  # fmt: skip
    assert code == 0, err
    with np.load(tmp_path / "o.npz") as file:
        assert file["rows"].tolist() == [103, 104, 105, 110, 119]
        assert file["map"].shape == (5, 30)
    with pyBigWig.open(str(tmp_path / "o.bw")) as track:
        assert np.isfinite(track.values("chr1", 100, 130)).nonzero()[0].tolist() == [3, 4, 5, 10, 19]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--map", "odds"], ["--map odds", "log-odds"]),
        (["--strand", "bed"], ["--strand bed", "both"]),
        (["--symmetrise", "min"], ["--symmetrise min", "mean or max"]),
        (["--symmetrise", "max", "--columns", "chr1:5-9"], ["--symmetrise max", "--columns"]),
        (["--symmetrise", "mean", "--rows", "chr1:105"], ["--rows"]),
        (["--columns", "chr2"], ["--columns chr2", "a part of chr1"]),
        (["--band", 0], ["--band 0", "1 base or more"]),
        (["--context", -1], ["--context -1"]),
        (["--top", 0, "-o", "x.bedpe"], ["--top 0"]),
        (["--rows", "chr1:140"], ["--rows chr1:140", "chr1:101-130"]),
        (["--rows", "no.bed"], ["no.bed", "cannot be read"]),
        (["--strand", "+", "--columns", "chr1:50-99"], ["no read base can depend"]),
        (["-o", "x.txt"], ["x.txt", ".cool", ".bedgraph.gz"]),
        (["-o", "x.bed.gz"], ["x.bed.gz", "unknown suffix"]),
        (["-o", "x.bw", "-o", "x.bw"], ["given twice"]),
        (["-o", "x.npz", "-o", "x.npz"], ["given twice"]),
    ],
)
def test_bad_options(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = run(folder, "-r", "chr1:101-130", "-o", "o.npz", *arguments)
    *_, line = err.splitlines()
    assert (code, line[:16]) == (1, "genoscan: error:")
    assert all(part in line for part in parts), line
    assert not any("rror" in other for other in err.splitlines()[:-1])
    assert listing(tmp_path) == set()


def test_large_maps_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genoscan.dependency.plan.LARGEST", 899)
    code, err = run(folder, "-r", "chr1:101-130", "-o", tmp_path / "o.npz")
    assert code == 1
    assert "30 x 30 values, expected at most 899; give --band BASES, --columns or --rows" in err
    huge = SimpleNamespace(sizes={"chr1": 1 << 40})
    with pytest.raises(InputError, match="1,099,511,627,776 x 1,099,511,627,776 values"):  # 8 TB of positions
        prepare_map(cast(Genome, huge), load_model("bacteria"), MapOptions(Region("chr1", 0, 1 << 40)))
    code, err = run(folder, "-r", "chr1:101-130", "--band", 20, "-o", tmp_path / "o.npz")
    assert code == 1
    assert "30 x 41 values" in err
    assert run(folder, "-r", "chr1:101-130", "--band", 9, "-o", tmp_path / "o.npz")[0] == 0
    assert LARGEST == 100_000_000
    monkeypatch.setattr("genoscan.dependency.files.LARGEST_SIDE", 29)
    code, err = run(folder, "-r", "chr1:101-130", "--band", 9, "-o", tmp_path / "o.html")
    assert (code, "a map of 30 bases, expected at most 29" in err) == (1, True)


def test_a_band_needs_no_square(genome: Genome, truth: Callable[[str], Truth]) -> None:
    """The number of values, and of outputs to compare, is linear in the length of the region."""
    model = load_model(truth("mamba").folder)
    plans = [prepare_map(genome, model, MapOptions(Region("chr1", 5, end), band=3, context=0)) for end in (25, 45, 65)]
    sizes = [plan.layout.size for plan in plans]
    outputs = [plan.bases for plan in plans]
    assert np.diff(sizes, 2).tolist() == np.diff(outputs, 2).tolist() == [0]


def test_cooler_missing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genoscan.dependency.files.find_spec", lambda _name: None)
    code, err = run(folder, "-r", "chr1:101-130", "-o", tmp_path / "o.cool")
    assert (code, "pip install cooler" in err) == (1, True)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_what_is_not_finite_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, definition: str
) -> None:
    model = load_model(folder / "tiny")
    with torch.no_grad():
        model.network.head.weight[1] = float("inf")  # type: ignore[union-attr]
    plan = prepare_map(open_genome(folder / "g.fa"), model, MapOptions(Region("chr1", 100, 110), definition))
    with pytest.raises(NonFiniteError, match="not finite"):
        write_map(plan, [tmp_path / "o.npz"])
    assert listing(tmp_path) == set()


@pytest.mark.parametrize(("name", "definition"), [("mamba", "log-odds"), ("mamba", "derivative"), ("Ph", "log-odds")])
def test_an_interrupted_map_is_continued(
    genome: Genome,
    truth: Callable[[str], Truth],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    definition: str,
) -> None:
    """The same bytes, and no part is computed twice but the one that was interrupted."""
    monkeypatch.setattr("genoscan.dependency.plan._PART", 1)
    compute, effects = dependency._compute, dependency._effects
    computed: list[int] = []

    def counted(plan: MapPlan, reading: Reading, *given: Any) -> None:
        computed.append(plan.readings.index(reading))
        compute(plan, reading, *given)

    monkeypatch.setattr(dependency, "_compute", counted)
    model = load_model(truth(name).folder, tile=16)
    plan = prepare_map(genome, model, MapOptions(REGION, definition, "both"))
    (tmp_path / "whole").mkdir()
    write_map(plan, [tmp_path / "whole" / "o.npz"])
    assert computed == list(range(len(plan.readings)))
    last = len(computed) * 3 // 4
    assert plan.readings[last].window.strand == "-"

    def interrupted(plan: MapPlan, reading: Reading, *given: Any) -> Effects:
        for tile in effects(plan, reading, *given):
            yield tile
            if reading is plan.readings[last]:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dependency, "_effects", interrupted)
        write_map(plan, [tmp_path / "o.npz"])
    assert listing(tmp_path) == {"whole", "o.npz.partial"}
    computed.clear()
    write_map(plan, [tmp_path / "o.npz"])
    assert computed == list(range(last, len(plan.readings)))
    assert (tmp_path / "o.npz").read_bytes() == (tmp_path / "whole" / "o.npz").read_bytes()


def test_a_damaged_part_is_noticed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_given: object, **_options: object) -> None:
        raise KeyboardInterrupt

    words = "-r", "chr1:101-130", "-o", tmp_path / "o.npz"
    with monkeypatch.context() as patch:
        patch.setattr("genoscan.dependency.compute.symmetrise", failing)
        assert run(folder, *words)[0] == 130
    code, err = run(folder, *words, "--band", 9)
    assert (code, "has an unfinished run with dependency" in err) == (1, True), err
    file = tmp_path / "o.npz.partial" / "map.+"
    content = bytearray(file.read_bytes())
    content[8] ^= 1
    file.write_bytes(content)
    code, err = run(folder, *words)
    assert (code, "o.npz.partial/map.+: damaged: remove" in err) == (1, True), err


def test_heads_are_no_language_models(genome: Genome, folder: Path) -> None:
    model = load_model(folder / "tiny")
    headed = SimpleNamespace(name="x", head="sites", config=model.config)
    with pytest.raises(NotImplementedError, match="no language model"):
        prepare_map(genome, headed, MapOptions(REGION))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected at least two bases"):
        prepare_map(genome, model, MapOptions(Region("chr1", 5, 6)))


def test_the_page_is_drawn_with_letters(folder: Path, tmp_path: Path) -> None:
    name = "o<img src=x onerror=document.body.dataset.pwn=1>.html".replace("/", "")
    outputs: list[Any] = ["-o", tmp_path / name, "-o", tmp_path / "o.npz"]
    assert run(folder, "-r", "chr1:101-130", *outputs)[0] == 0
    with np.load(tmp_path / "o.npz") as file:
        letters = ["ACGT"[code] for code in file["row_codes"]]
    with browser(tmp_path) as tab:
        tab.open((tmp_path / name).as_uri())
        assert tab.asked == set()
        assert tab.complaints == []
        assert tab.value("document.body.dataset.pwn") is None
        for axis in "xy":
            shown = f"[...document.querySelectorAll('.{axis}axislayer-above .{axis}tick text')].map(t => t.textContent)"
            assert tab.value(shown) == letters


@pytest.mark.slow
def test_a_band_of_a_long_region_takes_time_linear_in_its_length(folder: Path, tmp_path: Path) -> None:
    genome = open_genome(write_fasta(tmp_path / "g.fa", {"c": bases(6_000, 1)}))
    model = load_model(folder / "tiny")
    seconds = []
    for length in (500, 500, 4_000):
        plan = prepare_map(genome, model, MapOptions(Region("c", 500, 500 + length), band=16))
        started = time.monotonic()
        compute_map(plan)
        seconds.append(time.monotonic() - started)
    assert seconds[2] < 16 * seconds[1]
