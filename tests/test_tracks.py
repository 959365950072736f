"""Tracks: scores, files that other programs read back, and files that appear whole or not at all.

bigWig files are read by three other programs and by a parser of this file's own, which checks
every zoom record against the values.
"""

import json
import os
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import bbi
import numpy as np
import pybigtools
import pyBigWig
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genoscan.errors import GenoscanError, InputError, OutputError
from genoscan.genome.region import Region
from genoscan.tracks import bedgraph, bigwig, columns, reader
from genoscan.tracks.atomic import atomic_write
from genoscan.tracks.columns import write_columns
from genoscan.tracks.provenance import file_sha256, read_provenance, write_provenance
from genoscan.tracks.score import SCORES, centred, magnitude, observed, substitution
from genoscan.tracks.writer import check_output, open_track, open_tracks

TRACKS = ["x.bw", "x.bedgraph", "x.bedgraph.gz"]
GREATEST = float(np.finfo(np.float32).max)

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def complaint(act: Callable[[], object], kind: type[GenoscanError] = InputError) -> str:
    """Return the one line that the act fails with."""
    with pytest.raises(kind) as raised:
        act()
    message = str(raised.value)
    assert "\n" not in message
    assert not message.endswith(".")
    return message


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# ---- scores

GRADIENT = np.array([[1, 2, 3, 6], [1, 2, 3, 6], [-5, 0, 1, 3], [1, 1, 1, 1], [9, 8, 7, 6]], np.float32)
CODES = np.array([0, 3, 2, 1, 4], np.uint8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("centred", [-2, 3, 1.25, 0, np.nan]),
        ("observed", [1, 6, 1, 1, np.nan]),
        ("magnitude", [np.sqrt(14), np.sqrt(14), np.sqrt(34.75), 0, np.nan]),
        ("substitution", [5, -5, -6, 0, np.nan]),
    ],
)
def test_scores_known_by_thought(name: str, expected: list[float]) -> None:
    scores = SCORES[name](GRADIENT, CODES)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.array(expected, np.float32), rtol=1e-6)


def test_scores_of_no_bases_are_none() -> None:
    for score in SCORES.values():
        assert len(score(np.zeros((0, 4), np.float32), np.zeros(0, np.uint8))) == 0


@quick
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 40))
def test_scores_against_their_definitions(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    gradient = rng.standard_normal((length, 4)).astype(np.float32)
    codes = rng.integers(0, 4, length).astype(np.uint8)
    for row, code, *found in zip(
        gradient.astype(np.float64),
        codes,
        centred(gradient, codes),
        observed(gradient, codes),
        magnitude(gradient, codes),
        substitution(gradient, codes),
        strict=True,
    ):
        changes = [row[base] - row[code] for base in range(4) if base != code]
        expected = [row[code] - row.mean(), row[code], np.linalg.norm(row - row.mean()), max(changes, key=abs)]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ---- a bigWig parser that shares nothing with the writer


@dataclass
class BigWig:
    sizes: dict[str, int]
    values: dict[str, np.ndarray]
    summary: tuple[float, ...]
    zooms: dict[int, np.ndarray]


RECORD = np.dtype("u4,u4,u4,u4,f4,f4,f4,f4")
RECORD.names = ("chrom", "start", "end", "valid", "low", "high", "sum", "squares")


def parse(path: Path) -> BigWig:
    """Read every byte of a bigWig file that means something."""
    data = path.read_bytes()
    magic, version, n_zooms, names_at, data_at, index_at, _, _, _, summary_at, buffer, _ = struct.unpack_from(
        "<IHHQQQHHQQIQ", data
    )
    assert (magic, version) == (0x888FFC26, 4)
    assert data[-4:] == data[:4]
    names = dict(parse_names(data, names_at))
    assert sorted(number for number, _ in names.values()) == list(range(len(names)))
    by_number = sorted(names, key=lambda name: names[name][0])
    sizes = {name: names[name][1] for name in by_number}
    values = {name: np.full(size, np.nan, np.float32) for name, size in sizes.items()}
    blocks = list(parse_blocks(data, index_at, buffer))
    assert len(blocks) == struct.unpack_from("<Q", data, data_at)[0]
    for extent, body in blocks:
        chrom, start, end, step, span, kind, _, count = struct.unpack_from("<IIIIIBBH", body)
        assert extent == (chrom, start, chrom, end)
        assert span == 1
        if kind == 3:
            assert step == 1
            places, items = np.arange(start, end), np.frombuffer(body, "<f4", offset=24)
        else:
            assert kind == 2
            pairs = np.frombuffer(body, "<u4,<f4", offset=24)
            places, items = pairs["f0"], pairs["f1"]
            assert (places[0], places[-1] + 1) == (start, end)
        assert len(places) == len(items) == count
        into = values[by_number[chrom]]
        assert np.isnan(into[places]).all()
        into[places] = items
    zooms = {}
    for level in range(n_zooms):
        reduction, _, zoom_at, zoom_index_at = struct.unpack_from("<IIQQ", data, 64 + 24 * level)
        pieces = [np.zeros(0, RECORD)]
        for extent, body in parse_blocks(data, zoom_index_at, buffer):
            records = np.frombuffer(body, RECORD)
            first, last = records[0], records[-1]
            assert extent == (first["chrom"], first["start"], last["chrom"], last["end"])
            pieces.append(records)
        zooms[reduction] = np.concatenate(pieces)
        assert len(zooms[reduction]) == struct.unpack_from("<I", data, zoom_at)[0]
    return BigWig(sizes, values, struct.unpack_from("<Qdddd", data, summary_at), zooms)


def parse_names(data: bytes, place: int) -> Iterator[tuple[str, tuple[int, int]]]:
    magic, _, width, value_width, count, _ = struct.unpack_from("<IIIIQQ", data, place)
    assert (magic, value_width) == (0x78CA8C91, 8)
    keys = []

    def walk(node: int, floor: bytes) -> Iterator[tuple[bytes, int, int]]:
        leaf, _, n_items = struct.unpack_from("<BBH", data, node)
        for item in range(node + 4, node + 4 + n_items * (width + 8), width + 8):
            key = data[item : item + width]
            assert key >= floor
            if leaf:
                yield key, *struct.unpack_from("<II", data, item + width)
            else:
                yield from walk(struct.unpack_from("<Q", data, item + width)[0], key)

    for key, number, size in walk(place + 32, b""):
        keys.append(key)
        yield key.rstrip(b"\0").decode(), (number, size)
    assert keys == sorted(keys)
    assert len(keys) == count


def parse_blocks(data: bytes, place: int, buffer: int) -> Iterator[tuple[tuple[int, ...], bytes]]:
    head = struct.unpack_from("<IIQIIIIQII", data, place)
    assert head[0] == 0x2468ACE0
    found = []

    def walk(node: int) -> Iterator[tuple[tuple[int, ...], int, int]]:
        leaf, _, n_items = struct.unpack_from("<BBH", data, node)
        assert n_items <= head[1]
        width = 32 if leaf else 24
        for item in range(node + 4, node + 4 + n_items * width, width):
            extent = struct.unpack_from("<IIII", data, item)
            if leaf:
                yield extent, *struct.unpack_from("<QQ", data, item + 16)
            else:
                inside = list(walk(struct.unpack_from("<Q", data, item + 16)[0]))
                assert extent[:2] == min(child[0][:2] for child in inside)
                assert extent[2:] == max(child[0][2:] for child in inside)
                yield from inside

    for extent, offset, size in walk(place + 48):
        body = zlib.decompress(data[offset : offset + size])
        assert len(body) <= buffer
        found.append(extent)
        yield extent, body
    assert len(found) == head[2]
    assert all(a[2:] <= b[:2] for a, b in pairwise(found))
    if found:
        assert head[3:7] == (*found[0][:2], *found[-1][2:])


def check_zooms(track: BigWig, expected: Mapping[str, np.ndarray]) -> None:
    """Check every record of every level, and the file's summary, against the values."""
    everything = np.concatenate([*expected.values()]).astype(np.float64)
    everything = everything[~np.isnan(everything)]
    valid, *rest = track.summary
    assert valid == len(everything)
    if len(everything):
        squares = everything**2
        wanted = everything.min(), everything.max(), everything.sum(), squares.sum()
        np.testing.assert_allclose(rest, wanted, rtol=1e-9, atol=1e-12 * np.abs(everything).sum())
    for reduction, records in track.zooms.items():
        for number, values in enumerate(expected.values()):
            check_records(records[records["chrom"] == number], values, reduction)


def check_records(records: np.ndarray, values: np.ndarray, reduction: int) -> None:
    present = ~np.isnan(values)
    assert int(records["valid"].sum()) == np.count_nonzero(present)
    if not len(records):
        return
    starts, ends = records["start"].astype(int), records["end"].astype(int)
    assert (starts // reduction == (ends - 1) // reduction).all()
    assert (np.diff(starts // reduction) > 0).all()
    assert present[starts].all() and present[ends - 1].all()
    cuts = np.column_stack([starts, ends]).ravel()

    def reduce(by: np.ufunc, array: np.ndarray) -> np.ndarray:
        return by.reduceat(np.append(array, array[:1]), cuts)[::2]

    exact = np.where(present, values, 0).astype(np.float64)
    assert (records["valid"] == reduce(np.add, present.astype(int))).all()
    assert (records["low"] == reduce(np.fmin, values)).all()
    assert (records["high"] == reduce(np.fmax, values)).all()
    sizes = reduce(np.add, np.abs(exact))
    for field, sums in (("sum", reduce(np.add, exact)), ("squares", reduce(np.add, exact**2))):
        wanted = np.clip(sums, -GREATEST, GREATEST)
        slack = 1e-6 * np.abs(wanted) + 1e-12 * np.minimum(sizes, GREATEST) + 1e-44
        assert (np.abs(records[field] - wanted) <= slack).all()


# ---- writing and reading back


def sizes_of(values: Mapping[str, np.ndarray]) -> dict[str, int]:
    return {chrom: len(scores) for chrom, scores in values.items()}


def write(path: Path, values: Mapping[str, np.ndarray], piece: int = 1 << 19) -> Path:
    """Write whole sequences, a piece of bases at a time."""
    with open_track(path, sizes_of(values)) as track:
        for chrom, scores in values.items():
            for start in range(0, len(scores), piece):
                part = scores[start : start + piece]
                track.write(Region(chrom, start, start + len(part)), part)
    return path


def scattered(rng: np.random.Generator, length: int) -> np.ndarray:
    """Return scores with gaps of every kind: long, short, alternating; and equal neighbours."""
    scores = (rng.standard_normal(length) * np.exp(rng.normal(0, 3, length))).astype(np.float32)
    edges = np.sort(rng.integers(0, length + 1, rng.integers(0, 12)))
    for start, end in pairwise(edges):
        match rng.integers(0, 4):
            case 0:
                scores[start:end] = np.nan
            case 1:
                scores[start:end:2] = np.nan
            case 2:
                scores[start:end] = rng.choice(np.array([0, -0.0, 1.5], np.float32))
    return scores


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether both have the same float32 values, signs of zero too, and the same gaps."""
    found = np.asarray(found).astype(np.float32)
    gaps = np.isnan(expected)
    return bool(
        (np.isnan(found) == gaps).all() and (found[~gaps].view(np.uint32) == expected[~gaps].view(np.uint32)).all()
    )


def read_everywhere(path: Path, expected: Mapping[str, np.ndarray]) -> None:
    """Check that three other programs read the values."""
    theirs, tools = pyBigWig.open(str(path)), pybigtools.open(str(path))
    assert theirs.chroms() == tools.chroms() == sizes_of(expected)
    for chrom, values in expected.items():
        assert same_bits(theirs.values(chrom, 0, len(values), numpy=True), values)
        assert same_bits(tools.values(chrom, 0, len(values), fillna=np.nan), values)
        # UCSC's code adds to zero, which loses the sign of -0.0.
        found = bbi.fetch(str(path), chrom, 0, len(values), missing=np.nan)
        np.testing.assert_array_equal(found.astype(np.float32), values)
    theirs.close()
    tools.close()


@pytest.fixture
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut slabs so short that a few thousand bases cross many of them."""
    monkeypatch.setattr(bigwig, "SLAB", 1024)
    monkeypatch.setattr(bigwig, "CELL", 128)
    monkeypatch.setattr(bigwig, "REDUCTIONS", (16, 64, 256, 1024))


@quick
@given(seed=st.integers(0, 2**32 - 1), lengths=st.lists(st.integers(1, 5000), min_size=1, max_size=4))
def test_bigwig_gives_back_what_was_written(tmp_path: Path, small_slabs: None, seed: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    values = {f"c{i}": scattered(rng, length) for i, length in enumerate(lengths)}
    path = write(tmp_path / "x.bw", values, int(rng.integers(50, 3000)))
    track = parse(path)
    assert track.sizes == sizes_of(values)
    assert all(same_bits(track.values[chrom], scores) for chrom, scores in values.items())
    check_zooms(track, values)
    read_everywhere(path, values)


@pytest.mark.parametrize("name", TRACKS)
def test_the_file_does_not_depend_on_the_pieces(tmp_path: Path, small_slabs: None, name: str) -> None:
    rng = np.random.default_rng(3)
    values = {"a": scattered(rng, 4097), "b": scattered(rng, 3000)}
    whole = write(tmp_path / name, values).read_bytes()
    assert all(write(tmp_path / name, values, piece).read_bytes() == whole for piece in (13, 700))


def test_bigwig_over_whole_slabs_has_every_zoom_level(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    long = rng.standard_normal(2 * bigwig.SLAB + 12_345).astype(np.float32)
    long[rng.random(len(long)) < np.linspace(0, 0.05, len(long))] = np.nan
    long[300_000:1_400_000] = np.nan
    values = {"long": long, "short": scattered(rng, 50_000)}
    path = write(tmp_path / "x.bigWig", values, 1_000_000)
    track = parse(path)
    assert list(track.zooms) == [16 * 4**level for level in range(9)]
    assert all(same_bits(track.values[chrom], scores) for chrom, scores in values.items())
    check_zooms(track, values)
    read_everywhere(path, values)
    # A bin of the browser's that holds no scores stays empty at every zoom.
    summary = pybigtools.open(str(path)).values("long", 0, 1 << 21, bins=32, fillna=None)
    truth = [
        np.nan if np.isnan(part).all() else np.nanmean(part.astype(np.float64))
        for part in long[: 1 << 21].reshape(32, -1)
    ]
    np.testing.assert_allclose(summary, truth, rtol=1e-4, atol=1e-6)


def test_bigwig_keeps_every_kind_of_number(tmp_path: Path) -> None:
    numbers = [0.0, -0.0, 1e-45, -1e-40, GREATEST, -GREATEST, 1.0, np.nan, 0.1]
    values = {
        "one": np.array([4.5], np.float32),
        "numbers": np.array(numbers * 20, np.float32),
        "huge": np.full(100, GREATEST, np.float32),
        "empty": np.full(77, np.nan, np.float32),
        "alternating": np.where(np.arange(20_001) % 2, np.nan, 1.25).astype(np.float32),
        "constant": np.zeros(30_000, np.float32),
    }
    path = write(tmp_path / "x.bw", values)
    track = parse(path)
    check_zooms(track, values)
    assert all(same_bits(track.values[chrom], scores) for chrom, scores in values.items())
    read_everywhere(path, values)


@pytest.mark.parametrize("name", TRACKS)
@pytest.mark.parametrize("write_gaps", [False, True])
def test_a_track_without_scores_is_valid(tmp_path: Path, name: str, write_gaps: bool) -> None:
    path = tmp_path / name
    with open_track(path, {"a": 1000, "b": 1}) as track:
        if write_gaps:
            track.write(Region("a", 10, 500), np.full(490, np.nan, np.float32))
    if name == "x.bw":
        empty = {"a": np.full(1000, np.nan, np.float32), "b": np.full(1, np.nan, np.float32)}
        check_zooms(parse(path), empty)
        read_everywhere(path, empty)
    elif name == "x.bedgraph":
        assert path.read_bytes() == b""
    else:
        assert pysam.TabixFile(str(path)).contigs == []


def test_many_scaffolds_in_natural_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    values = {f"scaffold_{i}": rng.standard_normal(rng.integers(1, 90)).astype(np.float32) for i in range(1, 1501)}
    path = write(tmp_path / "x.bw", values)
    track = parse(path)
    assert list(track.sizes) == list(values)
    check_zooms(track, values)
    read_everywhere(path, values)
    theirs, tools = pyBigWig.open(str(path)), pybigtools.open(str(path))
    for chrom in ("scaffold_2", "scaffold_10", "scaffold_999", "scaffold_1000", "scaffold_1500"):
        mean = values[chrom].astype(np.float64).mean()
        length = len(values[chrom])
        assert theirs.stats(chrom, 0, length)[0] == pytest.approx(mean, rel=1e-5)
        records = list(tools.zoom_records(16, chrom))
        assert sum(record[2]["sum"] for record in records) == pytest.approx(mean * length, rel=1e-5)
    theirs.close()


def test_scores_of_scattered_regions(tmp_path: Path) -> None:
    """Peaks far apart in a long sequence cost nothing for what lies between."""
    sizes = {"a": 4_000_000_000, "b": 100}
    with open_track(tmp_path / "x.bw", sizes) as track:
        for start in (7, 1_048_570, 3_999_999_990):
            track.write(Region("a", start, start + 10), np.arange(10, dtype=np.float32))
    theirs = pyBigWig.open(str(tmp_path / "x.bw"))
    assert theirs.values("a", 3_999_999_990, 4_000_000_000) == list(range(10))
    assert theirs.values("a", 1_048_570, 1_048_580) == list(range(10))
    assert (tmp_path / "x.bw").stat().st_size < 20_000
    # Few scores: levels that show nothing new are left out, and the room for their heads is empty.
    header = theirs.header()
    assert 0 < header["nLevels"] < len(bigwig.REDUCTIONS)
    names = ("nBasesCovered", "minVal", "maxVal", "sumData", "sumSquared")
    assert [header[name] for name in names] == [30, 0, 9, 3 * 45, 3 * 285]
    theirs.close()


# ---- bedGraph


def read_bedgraph(path: Path, sizes: Mapping[str, int]) -> tuple[dict[str, np.ndarray], int]:
    values = {chrom: np.full(size, np.nan, np.float32) for chrom, size in sizes.items()}
    opened = pysam.BGZFile(str(path)) if path.suffix == ".gz" else path.open("rb")
    with opened as file:
        lines = file.read().decode().splitlines()
    for line in lines:
        chrom, start, end, score = line.split("\t")
        assert np.isnan(values[chrom][int(start) : int(end)]).all()
        values[chrom][int(start) : int(end)] = np.float32(score)
    return values, len(lines)


@quick
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["x.bg", "x.bedGraph.gz"]))
def test_bedgraph_gives_back_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, name: str
) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(bedgraph, "_ROWS", 50)
    values = {f"c{i}": scattered(rng, int(rng.integers(1, 400))) for i in range(3)}
    path = write(tmp_path / name, values, int(rng.integers(1, 300)))
    found, _ = read_bedgraph(path, sizes_of(values))
    assert all(same_bits(found[chrom], scores) for chrom, scores in values.items())


@quick
@given(bits=st.integers(0, 2**32 - 1))
def test_bedgraph_text_reads_back_exactly(tmp_path: Path, bits: int) -> None:
    scores = np.array([bits], np.uint32).view(np.float32)
    if np.isinf(scores).any():
        return
    path = write(tmp_path / "x.bg", {"a": scores})
    assert same_bits(read_bedgraph(path, {"a": 1})[0]["a"], scores)


def test_bedgraph_lines(tmp_path: Path) -> None:
    scores = np.array([1, 1, 1, 0.1, np.nan, 0.1, 0.0, -0.0, 0, 0], np.float32)
    with open_track(tmp_path / "x.bg", {"a": 12, "b": 2}) as track:
        track.write(Region("a", 0, 10), scores)
        track.write(Region("a", 10, 11), np.zeros(1, np.float32))
        track.write(Region("b", 0, 2), np.zeros(2, np.float32))
    assert (tmp_path / "x.bg").read_text().splitlines() == [
        "a\t0\t3\t1.0",
        "a\t3\t4\t0.1",
        "a\t5\t6\t0.1",
        "a\t6\t7\t0.0",
        "a\t7\t8\t-0.0",
        "a\t8\t11\t0.0",
        "b\t0\t2\t0.0",
    ]


@pytest.mark.parametrize("name", ["#1", "track", "browser"])
def test_bedgraph_has_no_line_that_is_skipped(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(InputError, match=f"programs skip lines that begin with {name}: write a bigWig"),
        open_track(tmp_path / "x.bedgraph", {name: 10}) as writer,
    ):
        writer.write(Region(name, 0, 10), np.ones(10, np.float32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("length", "suffix"), [(1 << 29, ".tbi"), ((1 << 29) + 1, ".csi")])
def test_bedgraph_index_reaches_the_end(tmp_path: Path, length: int, suffix: str) -> None:
    path = tmp_path / "x.bg.gz"
    with open_track(path, {"a": 10, "b": length}) as track:
        track.write(Region("a", 2, 4), np.array([1, 2], np.float32))
        track.write(Region("b", length - 2, length), np.array([3, 4], np.float32))
    assert names_in(tmp_path) == [path.name, path.name + suffix]
    index = pysam.TabixFile(str(path), index=str(path) + suffix)
    assert index.contigs == ["a", "b"]
    assert list(index.fetch("b", length - 1, length)) == [f"b\t{length - 1}\t{length}\t4.0"]
    assert list(index.fetch("a", 0, 3)) == ["a\t2\t3\t1.0"]


# ---- order and values


@pytest.mark.parametrize("name", TRACKS)
@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (("a", 0, 9), ("a", 8, 10), "a:9-10: overlaps a:1-9, expected one score per base"),
        (("a", 5, 9), ("a", 1, 3), "a:2-3: comes after a:6-9, expected genome order"),
        (("b", 0, 5), ("a", 8, 10), "a:9-10: comes after b:1-5, expected genome order"),
        (("a", 0, 9), ("a", 9, 11), "a:10-11: ends at 11, a has 10 bases"),
        (("a", 0, 9), ("c", 0, 3), 'c:1-3: the track has no sequence "c"'),
    ],
)
def test_regions_out_of_place(
    tmp_path: Path, name: str, first: tuple[str, int, int], then: tuple[str, int, int], message: str
) -> None:
    def act() -> None:
        with open_track(tmp_path / name, {"a": 10, "b": 10}) as track:
            for place in (first, then):
                region = Region(*place)
                track.write(region, np.ones(len(region), np.float32))

    assert complaint(act).startswith(message)
    assert names_in(tmp_path) == []


def test_messages_name_where_a_region_was_written(tmp_path: Path) -> None:
    def act(scores: list[float]) -> None:
        with open_track(tmp_path / "x.bw", {"a": 10}) as track:
            track.write(Region("a", 2, 5, source="p.bed:7"), np.array(scores, np.float32))

    assert complaint(lambda: act([1, 2])) == "p.bed:7: found 2 scores, expected 3"
    infinite = complaint(lambda: act([1, np.nan, -np.inf]))
    assert infinite == "p.bed:7: the score of a:5 is infinite, expected a number or NaN"


def test_sequences_too_long_for_bigwig(tmp_path: Path) -> None:
    def act() -> None:
        with open_track(tmp_path / "x.bw", {"a": 1 << 32}):
            pass

    assert "write a bedGraph instead" in complaint(act)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("zoom_levels", [True, False])
def test_the_last_bases_of_the_longest_sequence_of_a_bigwig(tmp_path: Path, zoom_levels: bool) -> None:
    """Positions of more than 31 bits."""
    size, path = (1 << 32) - 1, tmp_path / "x.bw"
    scores = np.arange(40, dtype=np.float32) - 3
    with open_tracks([path], {"a": size, "b": 9}, zoom_levels=zoom_levels) as track:
        track.write(Region("a", (1 << 31) - 20, (1 << 31) + 20), scores)
        track.write(Region("a", size - 40, size), scores)
        track.write(Region("b", 0, 9), scores[:9])
    with reader.BigWig(path) as ours, pyBigWig.open(str(path)) as other:
        for start in ((1 << 31) - 20, size - 40):
            np.testing.assert_array_equal(ours.scores("a", start, start + 40), scores)
            np.testing.assert_array_equal(other.values("a", start, start + 40, numpy=True), scores)
        assert np.isnan(ours.scores("a", size - 80, size - 40)).all()
        assert other.header()["nLevels"] == (2 if zoom_levels else 0)
        if zoom_levels:
            assert other.stats("a", 1 << 31, size, type="max") == [36]


# ---- whole or not at all


def folder_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", TRACKS)
def test_what_ends_early_leaves_what_was_there(tmp_path: Path, name: str, error: type[BaseException]) -> None:
    scores = {"a": np.arange(9, dtype=np.float32)}
    write(tmp_path / name, scores)
    before = folder_of(tmp_path)
    with pytest.raises(error), open_track(tmp_path / name, {"a": 9}) as track:
        track.write(Region("a", 0, 2), np.ones(2, np.float32))
        raise error
    assert folder_of(tmp_path) == before
    assert before == folder_of(write(tmp_path / name, scores).parent)


def test_an_error_of_the_callers_is_not_the_tracks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised, open_track(tmp_path / "x.bw", {"a": 9}):
        (tmp_path / "no.fa").read_text()
    assert not isinstance(raised.value, GenoscanError)


def test_several_tracks_take_the_same_scores(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in TRACKS]
    with open_tracks(paths, {"a": 9}) as track:
        track.write(Region("a", 3, 5), np.array([1, 2], np.float32))
        assert all(name.startswith(".") for name in names_in(tmp_path))
    assert names_in(tmp_path) == ["x.bedgraph", "x.bedgraph.gz", "x.bedgraph.gz.tbi", "x.bw"]
    expected = {"a": np.array([np.nan] * 3 + [1, 2] + [np.nan] * 4, np.float32)}
    assert same_bits(parse(paths[0]).values["a"], expected["a"])
    for path in paths[1:]:
        assert same_bits(read_bedgraph(path, {"a": 9})[0]["a"], expected["a"])


def test_new_files_have_ordinary_permissions_and_keep_links(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "x.bw").symlink_to(tmp_path / "elsewhere" / "y.bw")
    write(tmp_path / "x.bw", {"a": np.ones(3, np.float32)})
    assert (tmp_path / "x.bw").is_symlink()
    made = tmp_path / "elsewhere" / "y.bw"
    assert made.stat().st_mode == (tmp_path / "plain").stat().st_mode
    parse(made)


FULL_DISK = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from genoscan.errors import OutputError
from genoscan.genome.region import Region
from genoscan.tracks.columns import write_columns
from genoscan.tracks.writer import open_tracks

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rng = np.random.default_rng(0)
scores = rng.standard_normal(400_000).astype(np.float32)
whole = Region("a", 0, len(scores))

def attempt(names, length):
    try:
        with open_tracks([Path(name) for name in names], {"a": len(scores)}) as track:
            track.write(Region("a", 0, length), scores[:length])
        print("written")
    except OutputError as error:
        print(error)
    print(sorted(os.listdir(".")))

def attempt_columns():
    try:
        write_columns(
            Path("x.npz"),
            gradient=scores.reshape(-1, 4),
            codes=np.zeros(100_000, np.uint8),
            regions=[Region("a", 0, 100_000)],
        )
    except OutputError as error:
        print(error)
    print(sorted(os.listdir(".")))

resource.setrlimit(resource.RLIMIT_FSIZE, (800_000, resource.RLIM_INFINITY))
attempt(["x.bw"], 400_000)
attempt(["x.bedgraph"], 400_000)
attempt(["x.bedgraph.gz"], 400_000)
attempt(["x.bw", "x.bedgraph"], 100_000)
attempt_columns()
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
attempt(["y.bw"], 100)
attempt(["y.bedgraph.gz"], 20)
"""


def run(script: str, folder: Path) -> list[str]:
    """Run a script in a process of its own; return its lines."""
    checkout = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_a_full_disk_leaves_nothing_and_is_said_in_one_line(tmp_path: Path) -> None:
    lines = run(FULL_DISK, tmp_path)
    reason = "cannot be written: the file is larger than this file system or `ulimit -f` allows"
    names = ["x.bw", "x.bedgraph", "x.bedgraph.gz", "x.bedgraph", "x.npz", "y.bw"]
    assert lines[0:12:2] == [f"{name}: {reason}" for name in names]
    # The text itself fits, but not its index, of which htslib does not say why.
    assert lines[12].startswith("y.bedgraph.gz: cannot be written: ")
    assert lines[1::2] == ["[]"] * 7


@pytest.mark.parametrize("name", [*TRACKS, "x.npz"])
def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def act() -> None:
        if name == "x.npz":
            columns_of(tmp_path / name, [Region("a", 0, 3)])
        else:
            write(tmp_path / name, {"a": np.ones(3, np.float32)})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    message = complaint(act, OutputError)
    assert message.endswith("cannot be written: no permission to write here: choose another folder")
    assert message.startswith(f"{tmp_path / name}")
    assert names_in(tmp_path) == []


def test_replacing_removes_its_part_even_where_the_name_is_long(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with atomic_write(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    too_long = tmp_path / ("n" * 256)

    def act() -> None:
        with atomic_write(too_long) as part:
            part.write_text("new")

    assert complaint(act, OutputError).endswith("the file name is too long: choose a shorter one")
    assert names_in(tmp_path) == [path.name]


# ---- looking before the work


def test_check_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.bw", "a.b.bigWig", "a.BIGWIG", "a.bedGraph", "a.bg.gz", "a.bedgraph.gz", "a.npz"):
        check_output(tmp_path / name)
    known = ".bw, .bigwig, .bedgraph, .bg, .bdg, .bedgraph.gz, .bg.gz, .bdg.gz, .npz"
    for name, suffix in (("a.txt", ".txt"), ("a", ""), (".bw", ""), ("a.bw.gz", ".gz"), ("a.NPZ", ".NPZ")):
        message = complaint(lambda name=name: check_output(tmp_path / name))
        assert message.endswith(f'unknown suffix "{suffix}", expected one of {known}')
    (tmp_path / "f.bw").mkdir()
    assert "it is a folder" in complaint(lambda: check_output(tmp_path / "f.bw"), OutputError)
    missing = complaint(lambda: check_output(tmp_path / "no" / "x.bw"), OutputError)
    assert missing.endswith(f"there is no folder {tmp_path / 'no'}: create it first")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "no permission" in complaint(lambda: check_output(tmp_path / "x.bw"), OutputError)
    assert names_in(tmp_path) == ["f.bw"]


def test_open_tracks_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    def act(names: Sequence[str], sizes: Mapping[str, int]) -> None:
        with open_tracks([tmp_path / name for name in names], sizes):
            pass

    assert "unknown suffix" in complaint(lambda: act(["x.npz"], {"a": 1}))
    assert "given twice" in complaint(lambda: act(["x.bw", "x.bw"], {"a": 1}))
    assert "no sequences" in complaint(lambda: act(["x.bw"], {}))
    assert names_in(tmp_path) == []


# ---- columns


def columns_of(path: Path, regions: Sequence[Region]) -> tuple[np.ndarray, np.ndarray]:
    length = sum(len(region) for region in regions)
    rng = np.random.default_rng(length)
    gradient = rng.standard_normal((length, 4)).astype(np.float32)
    codes = rng.integers(0, 5, length).astype(np.uint8)
    write_columns(path, gradient=gradient, codes=codes, regions=regions)
    return gradient, codes


@pytest.mark.parametrize("piece", [1, 40, 1 << 24])
def test_columns_read_back_without_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(columns, "_PIECE_BYTES", piece)
    regions = [Region("chrÄ", 5, 9, "peak 1", "-"), Region("b", 0, 30), Region("b", 40, 41, "p")]
    gradient, codes = columns_of(tmp_path / "x.npz", regions)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert same_bits(found["gradient"], gradient)
        assert found["gradient"].dtype == np.float32
        assert (found["codes"] == codes).all() and found["codes"].dtype == np.uint8
        assert found["chrom"].tolist() == ["chrÄ", "b", "b"]
        assert found["start"].tolist() == [5, 0, 40]
        assert found["end"].tolist() == [9, 30, 41]
        assert found["name"].tolist() == ["peak 1", "", "p"]
        assert found["strand"].tolist() == ["-", ".", "."]
        assert found["offset"].tolist() == [0, 4, 34]
    assert zipfile.ZipFile(tmp_path / "x.npz").testzip() is None
    again = tmp_path / "y.npz"
    columns_of(again, regions)
    assert again.read_bytes() == (tmp_path / "x.npz").read_bytes()


def test_columns_of_nothing(tmp_path: Path) -> None:
    columns_of(tmp_path / "x.npz", [])
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert found["gradient"].shape == (0, 4)
        assert len(found["chrom"]) == len(found["offset"]) == 0


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_columns_from_memory_maps(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((5000, 4)).astype(np.float32)
    expected.tofile(tmp_path / "gradient")
    gradient = np.memmap(tmp_path / "gradient", np.float32, mode, shape=(5000, 4))
    if mode != "r":
        gradient[7] = expected[7] = 3
    write_columns(
        tmp_path / "x.npz", gradient=gradient[2:4000], codes=np.zeros(3998, np.uint8), regions=[Region("a", 0, 3998)]
    )
    with np.load(tmp_path / "x.npz") as found:
        assert same_bits(found["gradient"], expected[2:4000])
    assert same_bits(gradient, expected)


def test_columns_and_regions_must_agree(tmp_path: Path) -> None:
    def act() -> None:
        write_columns(
            tmp_path / "x.npz",
            gradient=np.zeros((5, 4), np.float32),
            codes=np.zeros(5, np.uint8),
            regions=[Region("a", 0, 3)],
        )

    assert complaint(act).endswith("bases, expected 3, the total length of the regions")
    assert names_in(tmp_path) == []


# ---- provenance


def test_provenance_reads_back(tmp_path: Path) -> None:
    record = {
        "version": "1.0",
        "checks": {"error": np.float64(1e-7), "worst": float("nan"), "n": np.int64(3)},
        "files": {"path": Path("models/tiny"), "sizes": np.arange(3)},
        "worst": {"value": float("-inf")},
        "command": ("genoscan", "attribute"),
    }
    (tmp_path / "x.bw").write_bytes(b"track")
    target = write_provenance(tmp_path / "x.bw", record)
    assert target == tmp_path / "x.bw.json"
    text = target.read_text()
    keys = list(json.loads(text))
    assert keys == ["format", "checks", "command", "files", "track_bytes", "track_sha256", "version", "worst"]
    found = read_provenance(tmp_path / "x.bw")
    assert found["format"] == "genoscan-track/1"
    assert found["checks"] == {"error": 1e-7, "n": 3, "worst": None}
    assert found["files"] == {"path": "models/tiny", "sizes": [0, 1, 2]}
    assert found["command"] == ["genoscan", "attribute"]
    assert found["worst"] == {"value": None}
    write_provenance(tmp_path / "x.bw", dict(reversed(record.items())))
    assert target.read_text() == text


def test_provenance_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.bw"
    assert "cannot be read" in complaint(lambda: read_provenance(path))
    for text, message in (("{", "not valid JSON"), ("[]", "format is None"), ('{"format": "x"}', "'x'")):
        (tmp_path / "x.bw.json").write_text(text)
        assert message in complaint(lambda: read_provenance(path))


def test_provenance_that_json_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.bw").touch()
    with pytest.raises(TypeError):
        write_provenance(tmp_path / "x.bw", {"thing": object()})
    assert names_in(tmp_path) == ["x.bw"]


def test_file_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x") == ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
