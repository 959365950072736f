"""Hostile files: mutated inputs of every reader, and the damage that once had other ends than one line."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import fuzz
import numpy as np
import pyBigWig
import pytest
from commands import ROOT, genoscan, tiny_model, write_fasta
from fuzz import SIZES, readers

from genoscan.errors import InputError, ModelError
from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.json_input import parse_json
from genoscan.layers.config import CONFIG, read_config
from genoscan.model import load_model
from genoscan.tracks import provenance, record_schema
from genoscan.tracks.columns import read_columns
from genoscan.tracks.compare import compare
from genoscan.tracks.convert import write_converted
from genoscan.tracks.reader import BigWig

NAMES = sorted(readers())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mutated_files(name: str) -> None:
    """A result or one line, soon, and no leftovers."""
    assert fuzz.fuzz(name, seed=0, count=60) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_mutated_files(name: str) -> None:
    """50,000 in all, in processes that could be killed by a signal."""
    for seed in range(1, 7):
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", name, str(seed), "500"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, ""), (done.stdout[-2000:], done.stderr[-2000:])


@pytest.mark.slow
def test_mutated_files_on_the_command_line(tmp_path: Path) -> None:
    """300 commands: exit status 0 or 1, one line of error, no traceback, no new file after an error."""
    commands: dict[str, Callable[[Path, Path], list[object]]] = {
        "bigwig": lambda at, out: ["track", "convert", at / "x.bw", "-o", out / "y.bg"],
        "bedgraph": lambda at, out: ["track", "convert", at / "x.bg", "-g", genome, "-o", out / "y.bw"],
        "npz": lambda at, out: ["export", "modisco", at / "x.npz", "--bed", bed, "--width", "9", "-o", out / "y"],
        "record": lambda at, out: ["report", at / "x.bw", "-g", at / "g.fa", "-o", out / "y.html"],
        "config": lambda at, out: ["plan", genome, "-m", at / "model", "-r", "c1:1-500", "-o", out / "y.bw"],
        "bed": lambda at, out: ["plan", genome, "-m", model, "--bed", at / "x.bed", "-o", out / "y.bw"],
    }
    genome, model = tmp_path / "g.fa", tiny_model(tmp_path / "tiny")
    genome.write_bytes(readers()["record"].files["g.fa"])
    bed = tmp_path / "x.bed"
    bed.write_text("c1\t100\t120\n")
    rng = random.Random(1)
    for number in range(300):
        name = sorted(commands)[number % len(commands)]
        reader, folder, out = readers()[name], tmp_path / f"in{number}", tmp_path / f"out{number}"
        out.mkdir()
        for file, content in reader.files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(fuzz.mutate(content, rng) if file == reader.mutated else content)
        if name == "npz":
            (folder / "x.npz.json").write_bytes(readers()["record"].files["x.bw.json"])
        done = genoscan(*commands[name](folder, out))
        assert done.code in (0, 1), (number, name, done)
        if done.code:
            errors = [line for line in done.err.splitlines() if line.startswith("genoscan: error: ")]
            assert len(errors) == 1, (number, name, done.err)
            assert list(out.iterdir()) == [], (number, name)


# ---- bigWig


def test_a_bigwig_that_crashed_pybigwig(tmp_path: Path) -> None:
    content = bytearray(readers()["bigwig"].files["x.bw"])
    index = struct.unpack_from("<Q", content, 24)[0]
    for at, field, value in (
        (index, "<I", 0),  # magic number of the R-tree
        (index + 48, "<BBH", (0, 0, 60_000)),  # number of items of the root
        (16, "<Q", 1 << 60),  # offset of the data is not used
        (8, "<Q", 3),  # offset of the table of sequences
        (24, "<Q", len(content) - 3),  # offset of the R-tree
        (6, "<H", 65_000),  # number of zoom levels
    ):
        damaged = bytearray(content)
        struct.pack_into(field, damaged, at, *(value if isinstance(value, tuple) else (value,)))
        (tmp_path / "x.bw").write_bytes(damaged)
        if at == 16:
            write_converted(tmp_path / "x.bw", tmp_path / "y.bg")
            continue
        with pytest.raises(InputError, match=r"x\.bw: (truncated|damaged)"):
            write_converted(tmp_path / "x.bw", tmp_path / "z.bg")
    assert not (tmp_path / "z.bg").exists()


def test_a_tree_that_refers_to_itself(tmp_path: Path) -> None:
    content = bytearray(readers()["bigwig"].files["x.bw"])
    index = struct.unpack_from("<Q", content, 24)[0]
    struct.pack_into("<BBH", content, index + 48, 0, 0, 1)
    struct.pack_into("<Q", content, index + 48 + 4 + 16, index + 48)
    (tmp_path / "x.bw").write_bytes(content)
    with pytest.raises(InputError, match="refers to itself"):
        BigWig(tmp_path / "x.bw")


@pytest.mark.parametrize("values", [{}, {"c2": 1.5}])
def test_empty_bigwigs_are_tracks(tmp_path: Path, values: dict[str, float]) -> None:
    """As pyBigWig writes them, without an R-tree, and as we do."""
    theirs = pyBigWig.open(str(tmp_path / "empty.bw"), "w")
    theirs.addHeader(list(SIZES.items()))
    theirs.close()
    write_converted(tmp_path / "empty.bw", tmp_path / "empty.bg")
    write_converted(tmp_path / "empty.bg", tmp_path / "ours.bw", SIZES)
    other = pyBigWig.open(str(tmp_path / "other.bw"), "w")
    other.addHeader(list(SIZES.items()))
    for chrom, value in values.items():
        other.addEntries([chrom], [7], ends=[9], values=[value])
    other.close()
    for empty in ("empty.bw", "ours.bw"):
        found = compare([tmp_path / "other.bw", tmp_path / empty], top=3)
        assert found.shared.tolist() == [[2 * len(values), 0], [0, 0]]
        found = compare([tmp_path / empty, tmp_path / "other.bw"], top=3)
        assert found.shared.tolist() == [[0, 0], [0, 2 * len(values)]]


def test_an_empty_bigwig_is_reported_and_exported(tmp_path: Path) -> None:
    files = readers()["record"].files
    for name in ("g.fa", "g.fa.fai", "x.bw.json"):
        (tmp_path / name).write_bytes(files[name])
    theirs = pyBigWig.open(str(tmp_path / "x.bw"), "w")
    theirs.addHeader(list(SIZES.items()))
    theirs.close()
    for command, output in (["report"], "r.html"), (["export", "igv"], "s.xml"), (["export", "html"], "p.html"):
        done = genoscan(*command, tmp_path / "x.bw", "-g", tmp_path / "g.fa", "-o", tmp_path / output)
        assert done.code == 0, (command, done.err)


def test_items_of_other_tools(tmp_path: Path) -> None:
    """Sparse, spanned and stepped items, compared with pyBigWig."""
    rng = np.random.default_rng(2)
    for kind in range(3):
        path = tmp_path / f"{kind}.bw"
        track = pyBigWig.open(str(path), "w")
        track.addHeader(list(SIZES.items()))
        starts, values = np.cumsum(rng.integers(5, 20, 90)), rng.standard_normal(90)
        if kind == 0:
            ends = starts + rng.integers(1, 5, 90)
            track.addEntries(["c1"] * 90, starts.tolist(), ends=ends.tolist(), values=values.tolist())
        elif kind == 1:
            track.addEntries("c1", starts.tolist(), values=values.tolist(), span=5)
        else:
            track.addEntries("c1", 100, values=values.tolist(), span=3, step=7)
        track.close()
        with pyBigWig.open(str(path)) as theirs, BigWig(path) as ours:
            for start, end in ((0, 3000), (110, 113), (500, 500), (2999, 3000)):
                expected = theirs.values("c1", start, end, numpy=True) if end > start else np.zeros(0, np.float32)
                np.testing.assert_array_equal(ours.scores("c1", start, end), expected)


def test_names_with_blanks_survive_a_bedgraph(tmp_path: Path) -> None:
    sizes = {"a b:1-5": 30, "c": 20}
    (tmp_path / "x.bg").write_text("track type=x\ta\tb\tc\na b:1-5\t2\t4\t1.5\nc\t1\t2\t3\n")
    assert write_converted(tmp_path / "x.bg", tmp_path / "x.bw", sizes) == 3
    assert write_converted(tmp_path / "x.bw", tmp_path / "y.bg") == 3
    assert write_converted(tmp_path / "y.bg", tmp_path / "y.bw", sizes) == 3
    assert (tmp_path / "x.bw").read_bytes() == (tmp_path / "y.bw").read_bytes()


# ---- .npz


def _archive(path: Path, **changes: object) -> Path:
    with np.load(io.BytesIO(readers()["npz"].files["x.npz"])) as whole:
        np.savez(path, **(dict(whole) | changes))  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gradient": np.array([[None] * 4] * 691, object)}, "gradient is not an array of float32"),
        ({"gradient": np.zeros((691, 4))}, "gradient is not an array of float32"),
        ({"gradient": np.zeros((4, 691), np.float32).T}, "gradient is not an array of float32"),
        ({"codes": np.zeros(690, np.uint8)}, r"gradient has shape \(691, 4\)"),
        ({"codes": np.full(691, 5, np.uint8)}, "codes has the value 5"),
        ({"start": np.array([10, 300])}, "found start 300 and end 300"),
        ({"start": np.array([-5, 99])}, "found start -5"),
        ({"end": np.array([2**62, 300])}, "expected a name and"),
        ({"offset": np.array([0, 1])}, "offset 1"),
        ({"strand": np.array(["+", "?"])}, 'strand is "\\?"'),
        ({"name": np.array(["a", "b\n"])}, "name is not valid text"),
        ({"name": np.array([b"a", b"b"])}, "name is not an array of text"),
        ({"chrom": np.array(["c1"])}, "chrom has shape"),
    ],
)
def test_arrays_of_other_kinds(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_columns(_archive(tmp_path / "x.npz", **changes))


def test_archives_of_other_tools_are_read(tmp_path: Path) -> None:
    """numpy.savez, and names that need quotes elsewhere."""
    names = np.array(["chr:1 x-9", "-"])
    regions = read_columns(_archive(tmp_path / "x.npz", name=names)).regions
    assert [region.name for region in regions] == names.tolist()


def test_members_are_stored_once_and_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with np.load(io.BytesIO(readers()["npz"].files["x.npz"])) as whole:
        arrays = dict(whole)
    np.savez_compressed(path, **arrays)
    with pytest.raises(InputError, match="expected it stored"):
        read_columns(path)
    _archive(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("codes.npy", b"x")
    with pytest.raises(InputError, match="2 arrays are called codes"):
        read_columns(path)
    content = bytearray(readers()["npz"].files["x.npz"])
    content[content.index(b"codes.npy") + 400] ^= 1  # a code
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"CRC|value"):
        read_columns(path)


# ---- JSON


def test_json_that_cannot_be_kept() -> None:
    for text, said in (
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', '"c" appears twice'),
        (b"[" * 100_000, "nested too deeply"),
        (b'["\\ud800"]', "surrogates"),
        (b"\xff", "decode"),
        (b"1" * 5000, "4300"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_json(text)
    assert parse_json(b'["\\ud83d\\ude00", -Infinity]', constants=True) == ["\U0001f600", float("-inf")]


RECORD = readers()["record"].files["x.bw.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.pop("sequences"), "sequences is missing"),
        (lambda r: r.pop("model"), "model is missing"),
        (lambda r: r.update(regions=[]), "regions is missing or empty"),
        (lambda r: r.update(regions=None), "regions is null: "),
        (lambda r: r["regions"].append(None), "regions.2 is null: Input should be an object"),
        (lambda r: r["regions"].append("c2:200-400"), "overlap"),
        (lambda r: r["regions"].append("c2:900-4000"), "regions.2: c2:900-4000 ends past c2"),
        (lambda r: r["regions"][0].update(end=3001), "regions.0: found c1 from 10 to 3,001, but c1 has 3,000"),
        (lambda r: r["regions"][0].update(chrom="c9"), "c9 is not one of its sequences"),
        (lambda r: r["sequences"][1].pop("m5"), "sequences.1.m5: "),
        (lambda r: r["sequences"][1].update(length="x"), 'sequences.1.length is "x": '),
        (lambda r: r["sequences"].append(r["sequences"][0]), "two sequences have the same name"),
        (lambda r: r.update(sequences=-1), "sequences is -1: "),
        (lambda r: r.update(score="mean"), 'score is "mean": expected one of centred'),
        (lambda r: r.update(command="x"), 'command is "x": '),
        (lambda r: r.update(format="genoscan-track/2"), "format is 'genoscan-track/2'"),
    ],
)
def test_a_damaged_record_names_its_key(tmp_path: Path, change: Callable[[dict], object], said: str) -> None:
    for name, content in readers()["record"].files.items():
        (tmp_path / name).write_bytes(content)
    record = json.loads(RECORD)
    change(record)
    (tmp_path / "x.bw.json").write_text(json.dumps(record))
    done = genoscan("report", tmp_path / "x.bw", "-g", tmp_path / "g.fa", "-o", tmp_path / "x.html")
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert f"x.bw.json: {said}" in done.err or (said in done.err and "x.bw.json: " in done.err)


def test_a_record_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "x.bw.json").write_bytes(RECORD)
    record = provenance.read_provenance(tmp_path / "x.bw")
    (tmp_path / "y.bw").write_bytes(b"a track")
    provenance.write_provenance(tmp_path / "y.bw", record)
    found = provenance.read_provenance(tmp_path / "y.bw")
    assert {key: value for key, value in found.items() if key not in provenance.TRACK_KEYS} == record
    assert record == json.loads(RECORD)


def test_regions_are_told_apart(tmp_path: Path) -> None:
    """Names with colons, blanks and hyphens, which a region string does not distinguish."""
    names = ["a", "a:1-5", "a b", "-", "HLA:01:2-3"]
    genome = open_genome(write_fasta(tmp_path / "g.fa", {name.replace(" ", "_"): "ACGT" * 5 for name in names}))
    regions = [Region(chrom, 2, 9, name=f"{chrom}:x y", strand="-") for chrom in genome.sizes]
    record = {
        "sequences": [{"name": name, "length": 20, "m5": genome.m5(name)} for name in genome.sizes],
        "regions": record_schema.region_records(regions),
    }
    (tmp_path / "x.bw").write_bytes(b"a track")
    provenance.write_provenance(tmp_path / "x.bw", record)
    record = provenance.read_provenance(tmp_path / "x.bw")
    found = provenance.scored_regions(tmp_path / "x.bw", record, genome)
    assert [(r.chrom, r.start, r.end, r.name, r.strand) for r in found] == [
        (r.chrom, r.start, r.end, r.name, r.strand) for r in regions
    ]


def test_commands_have_no_paths_of_the_machine() -> None:
    command = [
        "/opt/x/bin/genoscan",
        "attribute",
        "/data/a b.fa",
        "-o/tmp/x.bw",
        "--bed=/home/me/p.bed",
        "-r",
        "c/1:2-3",
    ]
    expected = ["genoscan", "attribute", "a b.fa", "-ox.bw", "--bed=p.bed", "-r", "c/1:2-3"]
    assert provenance.portable_command(command) == expected
    assert provenance.portable_command(["/x/genoscan/__main__.py", "../g.fa"]) == ["genoscan", "../g.fa"]
    assert provenance.portable_command([]) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda c: c.update(d_model=10**30), "d_model"),
        (lambda c: c.update(context=10**30), "context"),
        (lambda c: c["layers"][0].update(d_conv=10**30), "layers.0.d_conv"),
        (lambda c: c["layers"][0].update(dt_rank=10**30), "layers.0.dt_rank"),
        (lambda c: c["norm"].update(eps=1e999), "found Infinity"),
    ],
)
def test_sizes_of_a_model_are_bounded(tmp_path: Path, change: Callable[[dict], object], place: str) -> None:
    file = tiny_model(tmp_path) / CONFIG
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=place):
        read_config(tmp_path)


def test_a_model_too_large_for_any_machine(tmp_path: Path) -> None:
    file = tiny_model(tmp_path) / CONFIG
    config = json.loads(file.read_text())
    config["d_model"] = config["layers"][0]["expand"] = 1 << 16
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"tensor|too large"):
        load_model(tmp_path)
