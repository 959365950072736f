"""The genome side: bases, regions, BED, FASTA, GenBank and the plan of windows."""

import gzip
import hashlib
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pysam
import pytest
from Bio import bgzf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from genoscan.engine.methods import Adjoint, Layerwise
from genoscan.errors import InputError
from genoscan.genome import fasta_index
from genoscan.genome.alphabet import N, complement, decode, encode, reverse_complement
from genoscan.genome.bed import read_bed
from genoscan.genome.fasta import FastaGenome
from genoscan.genome.genbank import GenBankGenome, read_features
from genoscan.genome.genome import open_genome
from genoscan.genome.plan import Window, batches, by_region, join_windows, merge, plan, whole_genome
from genoscan.genome.region import Region, check_bounds, parse_place, parse_region

DATA = Path(__file__).parent.parent / "data"
SIZES = {"chr1": 30, "HLA:01:2": 20, "chr2": 12, "chr2:3-4": 8, "1": 9, "chrM": 1}

quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_: folder)
    return folder


def complaint(act: Callable[[], object]) -> str:
    """Return the one line that the act fails with."""
    with pytest.raises(InputError) as raised:
        act()
    message = str(raised.value)
    assert "\n" not in message
    assert not message.endswith(".")
    return message


def make_fasta(path: Path, sequences: dict[str, str], *, width: int = 60, newline: str = "\n") -> Path:
    lines = []
    for name, letters in sequences.items():
        lines.append(f">{name} a description")
        lines += [letters[i : i + width] for i in range(0, len(letters), width)]
    path.write_bytes("".join(line + newline for line in lines).encode())
    return path


def bases(length: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("ACGT", k=length))


def text(genome: FastaGenome | GenBankGenome, chrom: str, start: int, end: int) -> str:
    return decode(genome.fetch(chrom, start, end)).decode()


# Bases


def test_letters_become_codes_and_back() -> None:
    assert encode(b"ACGTNacgtn", record="x", offset=0).tolist() == [0, 1, 2, 3, 4] * 2
    assert encode(b"RYSWKMBDHVryswkmbdhv", record="x", offset=0).tolist() == [N] * 20
    assert encode(b"", record="x", offset=0).size == 0
    assert decode(encode(b"acgtRn", record="x", offset=0)) == b"ACGTNN"


def test_codes_can_be_written_to() -> None:
    codes = encode(b"ACGT", record="x", offset=0)
    codes[0] = N
    assert decode(codes) == b"NCGT"


@pytest.mark.parametrize("letter", sorted(set(range(256)) - set(b"ACGTNRYSWKMBDHVacgtnryswkmbdhv")))
def test_every_other_byte_is_an_error(letter: int) -> None:
    message = complaint(lambda: encode(b"AC" + bytes([letter]), record="x.fa: chr1", offset=1000))
    assert message.startswith("x.fa: chr1: position 1,003 is ")
    assert (chr(letter) if 33 <= letter < 127 else f"0x{letter:02x}") in message
    assert "expected A, C, G, T, N" in message


@pytest.mark.parametrize(
    ("letters", "hint"), [(b"ACGE", "looks like protein"), (b"ACGU", "looks like RNA"), (b"A-C", "remove its gaps")]
)
def test_hints_at_what_the_letters_are(letters: bytes, hint: str) -> None:
    assert hint in complaint(lambda: encode(letters, record="x", offset=0))


@given(st.text("ACGTN"))
@quick
def test_complements(letters: str) -> None:
    codes = encode(letters.encode(), record="x", offset=0)
    swapped = letters.translate(str.maketrans("ACGT", "TGCA"))
    assert decode(complement(codes)).decode() == swapped
    assert decode(reverse_complement(codes)).decode() == swapped[::-1]
    assert np.array_equal(reverse_complement(reverse_complement(codes)), codes)


# Region strings


@pytest.mark.parametrize(
    ("written", "chrom", "start", "end"),
    [
        # The answers of samtools 1.16.1 faidx on these sequences.
        ("chr1", "chr1", 0, 30),
        ("chr1:5", "chr1", 4, 30),
        ("chr1:5-", "chr1", 4, 30),
        ("chr1:-5", "chr1", 0, 5),
        ("chr1:1,0-1,2", "chr1", 9, 12),
        ("HLA:01:2:1-5", "HLA:01:2", 0, 5),
        ("HLA:01:2", "HLA:01:2", 0, 20),
        ("{HLA:01:2}:1-5", "HLA:01:2", 0, 5),
        ("{chr2:3-4}", "chr2:3-4", 0, 8),
        ("{chr2}:3-4", "chr2", 2, 4),
        ("{chr2:3-4}:2-3", "chr2:3-4", 1, 3),
        ("chr2:3-4:2-3", "chr2:3-4", 1, 3),
        ("{chr1}", "chr1", 0, 30),
        ("1:2-3", "1", 1, 3),
        ("chr1:30-30", "chr1", 29, 30),
        ("chrM:1-1", "chrM", 0, 1),
        (" chr1:5-6\n", "chr1", 4, 6),
    ],
)
def test_region_strings(written: str, chrom: str, start: int, end: int) -> None:
    region = parse_region(written, SIZES)
    assert region == Region(chrom, start, end)
    assert region.source == f"--region {written}"
    assert not region.clipped


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("chr2:3-4", ['both "chr2" and "chr2:3-4"', "{chr2:3-4} or {chr2}:3-4"]),
        ("chr1:28-100", ["end 100 is past the end of chr1", "30 bases", '"chr1:28-"']),
        ("chr1:40-50", ["first base, 40,", "past the end of chr1, which has 30 bases"]),
        ("chr1:40-", ["first base, 40,", "past the end of chr1, which has 30 bases"]),
        ("chr1:31", ["first base, 31,", "30 bases"]),
        ("chr1:-31", ["end 31", "30 bases"]),
        ("chr1:0-3", ["start is 0", "expected 1 or more"]),
        ("chr1:0", ["start is 0", "expected 1 or more"]),
        ("chr1:-0", ["end 0 is before start 1"]),
        ("chr1:12-10", ["end 10 is before start 12"]),
        ("chr1:5-0", ["end 0 is before start 5"]),
        ("chr1:", ["nothing follows the colon", "expected 5, 5-, -9 or 5-9"]),
        ("chr1:-", ['coordinates are "-"', "expected 5, 5-, -9 or 5-9"]),
        ("chr1:5-6x", ['coordinates are "5-6x"']),
        ("chr1:5--6", ['coordinates are "5--6"']),
        ("chr1:+5-6", ['coordinates are "+5-6"']),
        ("chr1:٣-٤", ['coordinates are "٣-٤"']),
        ("chr1:" + "9" * 5000, ["coordinates are"]),
        ("{chr1", ['found a "{"', "{NAME}:START-END"]),
        ("{chr1}x", ['found a "{"']),
        ("{chr1}:", ['found a "{"']),
        ("{chr9}:1-2", ['no sequence is called "chr9"']),
        ("", ['no sequence is called ""', "chr1, HLA:01:2, chr2, chr2:3-4, 1 and 1 more"]),
        ("2:5-6", ['no sequence is called "2"', 'mean "chr2"?']),
        ("chrMT", ['no sequence is called "chrMT"', 'mean "chrM"?']),
        ("CHR1:3-4", ['no sequence is called "CHR1"', 'mean "chr1"?']),
        ("HLA:01", ['no sequence is called "HLA"']),
        ("HLA:O1:2", ['no sequence is called "HLA:O1"', 'mean "HLA:01:2"?']),
    ],
)
def test_region_strings_refused(written: str, parts: list[str]) -> None:
    message = complaint(lambda: parse_region(written, SIZES))
    assert message.startswith(f"--region {written}: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("found", "names", "meant"),
    [
        ("1", ["chr1", "chr2"], "chr1"),
        ("chrX", ["X", "Y"], "X"),
        ("chrM", ["1", "MT"], "MT"),
        ("NC_000932", ["NC_000932.1"], "NC_000932.1"),
        ("NC_000932.2", ["NC_000932"], "NC_000932"),
        ("NC_000932.2", ["NC_000932.1"], "NC_000932.1"),
        ("c1", ["b1.version20240131", "c1.version20240131"], "c1.version20240131"),
        ("scafold_12", ["scaffold_1", "scaffold_12"], "scaffold_12"),
    ],
)
def test_near_names(found: str, names: list[str], meant: str) -> None:
    message = complaint(lambda: parse_region(found, dict.fromkeys(names, 5)))
    assert message.endswith(f'did you mean "{meant}"?')


@pytest.mark.parametrize(
    ("count", "told"), [(1, "s0"), (5, "s0, s1, s2, s3, s4"), (6, "s0, s1, s2, s3, s4 and 1 more")]
)
def test_an_unknown_name_is_told_the_first_five(count: int, told: str) -> None:
    message = complaint(lambda: parse_region("other", {f"s{i}": 9 for i in range(count)}))
    assert message.endswith(f"the genome has {told}")


@pytest.mark.parametrize(
    ("written", "chrom", "start", "end"),
    [
        ("chr1:5", "chr1", 4, 5),
        ("chr1:5-", "chr1", 4, 30),
        ("chr1:-5", "chr1", 0, 5),
        ("chr1", "chr1", 0, 30),
        ("HLA:01:2", "HLA:01:2", 0, 20),
        ("HLA:01:2:7", "HLA:01:2", 6, 7),
        ("{HLA:01:2}", "HLA:01:2", 0, 20),
        ("{HLA:01:2}:7", "HLA:01:2", 6, 7),
        (" chr1:5 ", "chr1", 4, 5),
    ],
)
def test_a_place_is_a_position_or_a_region(written: str, chrom: str, start: int, end: int) -> None:
    assert parse_place(written, SIZES, option="--rows") == Region(chrom, start, end)


def test_clip_moves_the_end_and_says_so() -> None:
    region = parse_region("chr1:28-100", SIZES, clip=True)
    assert (region, region.clipped) == (Region("chr1", 27, 30), True)
    assert "past the end of chr1" in complaint(lambda: parse_region("chr1:31-40", SIZES, clip=True))
    assert not check_bounds(Region("chr1", 0, 30), SIZES, True).clipped


def test_the_option_is_named() -> None:
    message = complaint(lambda: parse_region("chr1:0", SIZES, option="--at"))
    assert message.startswith("--at chr1:0: ")


names = st.text("ab1:,-", min_size=1, max_size=6)


@given(st.dictionaries(names, st.integers(1, 3000), min_size=1), st.data())
@quick
def test_printed_regions_read_back(sizes: dict[str, int], data: st.DataObject) -> None:
    chrom = data.draw(st.sampled_from(sorted(sizes)))
    start = data.draw(st.integers(0, sizes[chrom] - 1))
    region = Region(chrom, start, data.draw(st.integers(start + 1, sizes[chrom])))
    assert parse_region(f"{{{chrom}}}:{start + 1}-{region.end}", sizes) == region
    try:
        assert parse_region(str(region), sizes) == region
    except InputError as problem:
        assert "both" in str(problem)


@given(st.dictionaries(names, st.integers(1, 60), min_size=1), st.text("ab1:,-{}059", max_size=12))
@quick
def test_every_accepted_string_lies_in_the_genome(sizes: dict[str, int], written: str) -> None:
    try:
        region = parse_region(written, sizes)
    except InputError as problem:
        assert "\n" not in str(problem)
    else:
        assert 0 <= region.start < region.end <= sizes[region.chrom]
        assert parse_region(f"{{{region.chrom}}}:{region.start + 1}-{region.end}", sizes) == region


def test_region_is_checked_and_printed() -> None:
    region = Region("chr1", 1000, 2000, name="x")
    assert (str(region), len(region)) == ("chr1:1,001-2,000", 1000)
    assert str(Region("HLA:01", 0, 5)) == "{HLA:01}:1-5"
    assert region == Region("chr1", 1000, 2000)
    assert region != Region("chr1", 1000, 2000, strand="-")
    for start, end, strand in ((-1, 5, "."), (5, 5, "."), (6, 5, "."), (0, 1, "x")):
        assert "expected" in complaint(lambda: Region("chr1", start, end, strand=strand))  # noqa: B023


# BED


def test_bed_rows_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.bed"
    path.write_bytes(
        b"browser position chr1:1-30\ntrack name=x\n#chrom\tstart\tend\n\n"
        b"chr1\t0\t5\r\n"
        b"chr1 10 15 spaced 0 -\n"
        b"chr2\t2\t3\tone two\t0\t+\t7\t8\t9\n"
        b"chr2\t2\t4\t.\t.\t.\n"
        b"chrM\t0\t1\tcaf\xe9\n"
        b"chr1\t29\t30"
    )
    regions = read_bed(path, SIZES)
    assert regions == [
        Region("chr1", 0, 5),
        Region("chr1", 10, 15, strand="-"),
        Region("chr2", 2, 3, strand="+"),
        Region("chr2", 2, 4),
        Region("chrM", 0, 1),
        Region("chr1", 29, 30),
    ]
    assert [region.name for region in regions[:4]] == ["", "spaced", "one two", ""]
    assert [region.source for region in regions[:2]] == [f"{path}:5", f"{path}:6"]


def test_narrow_peak_gzip_and_bgzip_are_read(tmp_path: Path) -> None:
    rows = "chr1\t5\t9\tpeak_1\t812\t.\t7.1\t-1\t3.2\t2\nchr1\t5\t9\tpeak_2\t812\t.\t7.1\t-1\t3\t2\n"
    plain = tmp_path / "a.narrowPeak"
    plain.write_text(rows)
    (tmp_path / "b").write_bytes(gzip.compress(rows.encode()))
    pysam.tabix_compress(str(plain), str(tmp_path / "c"))
    expected = read_bed(plain, SIZES)
    assert [region.name for region in expected] == ["peak_1", "peak_2"]
    assert read_bed(tmp_path / "b", SIZES) == expected
    assert read_bed(str(tmp_path / "c"), SIZES) == expected


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (b"chr1\t5", ["found 2 columns, expected chromosome, start and end"]),
        (b"chr1", ["found 1 column, expected"]),
        (b"chr1\tx\t9", ['start is "x", expected a whole number', "#"]),
        (b"chrom\tstart\tend", ['start is "start"', "column names must begin with #"]),
        (b"chr1\t-1\t9", ['start is "-1", expected a whole number, 0 or more']),
        (b"chr1\t1_0\t19", ['start is "1_0"']),
        (b"chr1\t1.0\t9", ['start is "1.0"']),
        (b"chr1\t5\t", ["found 2 columns"]),
        (b"chr1\t5\t\tname", ['end is ""']),
        (b"chr1\t" + "٣".encode() + b"\t9", ['start is "٣"']),
        (b"chr1\t0\t" + b"9" * 5000, ["expected a whole number"]),
        (b"chr1\t5\t5", ["end 5 is not after start 5"]),
        (b"chr1\t9\t5", ["end 5 is not after start 9"]),
        (b"chr1\t5\t9\tn\t0\t*", ['strand (column 6) is "*", expected "+", "-" or "."']),
        (b"chr1\t5\t9\tn\t0\t", []),
        (b"chr1\t5\t9\t\0", ["control character '\\x00'"]),
        (b"chr1\t5\t9\tp\x01k", ["control character '\\x01'"]),
        (b"2\t5\t9", ['no sequence is called "2"; did you mean "chr2"?']),
        (b"chr1\t5\t31", ["end 31 is past the end of chr1, which has 30 bases"]),
        (b"chr1\t30\t31", ["first base, 31, lies past the end of chr1, which has 30 bases"]),
    ],
)
def test_bad_bed_rows(tmp_path: Path, row: bytes, parts: list[str]) -> None:
    path = tmp_path / "a.bed"
    path.write_bytes(b"# a comment\nchr1\t1\t2\n" + row + b"\n")
    if not parts:
        assert len(read_bed(path, SIZES)) == 2
        return
    message = complaint(lambda: read_bed(path, SIZES))
    assert message.startswith(f"{path}:3: ")
    for part in parts:
        assert part in message


def test_bad_bed_files(tmp_path: Path) -> None:
    path = tmp_path / "a.bed"
    assert complaint(lambda: read_bed(path, SIZES)) == (f"{path}: cannot be read: No such file or directory")
    assert "is a folder" in complaint(lambda: read_bed(tmp_path, SIZES))
    path.write_text("")
    assert "no regions in it" in complaint(lambda: read_bed(path, SIZES))
    path.write_text("# nothing\ntrack x\n\n")
    assert "no regions in it" in complaint(lambda: read_bed(path, SIZES))
    packed = gzip.compress(b"chr1\t1\t2\n" * 1000)
    path.write_bytes(packed[:-12])
    assert "the file is cut off" in complaint(lambda: read_bed(path, SIZES))
    path.write_bytes(packed[:20] + b"\xff" * 9 + packed[29:])
    assert str(path) in complaint(lambda: read_bed(path, SIZES))


def test_bed_clips_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.bed"
    path.write_text("chr1\t25\t31\nchr1\t1\t2\nchr2\t0\t99\n")
    regions = read_bed(path, SIZES, clip=True)
    assert regions == [Region("chr1", 25, 30), Region("chr1", 1, 2), Region("chr2", 0, 12)]
    assert sum(region.clipped for region in regions) == 2


def test_bed_from_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(pipe.write_bytes, gzip.compress(b"chr1\t1\t2\n"))
        assert read_bed(pipe, SIZES) == [Region("chr1", 1, 2)]
        writing.result()


# FASTA

SEQUENCES = {"chr1": bases(1234), "b": "A", "c": bases(60, 1), "d": "nnRYacgt" * 20}


@pytest.fixture(params=["plain", "crlf", "one line", "no last newline", "bgzip", "bgzip 65536"])
def genome(request: pytest.FixtureRequest, tmp_path: Path) -> FastaGenome:
    path = make_fasta(
        tmp_path / "a.fa",
        SEQUENCES,
        width=10_000 if request.param == "one line" else 60,
        newline="\r\n" if request.param == "crlf" else "\n",
    )
    if request.param == "no last newline":
        path.write_bytes(path.read_bytes()[:-1])
    if request.param == "bgzip":
        path = pack(path)
    if request.param == "bgzip 65536":
        # Blocks that end where a fetch begins: base 18 of chr1, and the first base of b.
        content = path.read_bytes()
        cuts = [0, content.index(b"\n") + 19, content.index(b">b"), content.index(b"\nA\n") + 1]
        path = tmp_path / "b.fa.gz"
        with bgzf.BgzfWriter(str(path), "wb") as file:
            for start, end in zip(cuts, [*cuts[1:], len(content)], strict=True):
                file.write(content[start:end])
                file.flush()
    return FastaGenome(path)


def pack(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    pysam.tabix_compress(str(path), str(packed), force=True)
    return packed


def test_fetches_every_stretch(genome: FastaGenome) -> None:
    assert genome.sizes == {name: len(letters) for name, letters in SEQUENCES.items()}
    assert list(genome.sizes) == list(SEQUENCES)
    for chrom, letters in SEQUENCES.items():
        clean = re.sub("[RY]", "N", letters.upper())
        size = len(letters)
        ends = {0, 1, 17, 18, 59, 60, 61, 119, 120, 121, 600, size - 1, size}
        inside = sorted(end for end in ends if end <= size)
        for start in inside:
            for end in inside:
                if start <= end:
                    assert text(genome, chrom, start, end) == clean[start:end], (chrom, start, end)


def test_m5_is_that_of_sam(genome: FastaGenome) -> None:
    for chrom, letters in SEQUENCES.items():
        assert genome.m5(chrom) == hashlib.md5(letters.upper().encode()).hexdigest()


def test_pieces_join_without_seams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genoscan.genome.fasta._PIECE", 7)
    for width in (6, 7, 8, 60):
        plain = make_fasta(tmp_path / f"{width}.fa", SEQUENCES, width=width)
        for path in (plain, pack(plain)):
            fasta = FastaGenome(path)
            for start, end in ((0, 1234), (5, 50), (6, 7), (7, 14), (13, 13)):
                assert text(fasta, "chr1", start, end) == SEQUENCES["chr1"][start:end]
            assert fasta.m5("c") == hashlib.md5(SEQUENCES["c"].encode()).hexdigest()


def test_a_block_of_65536_bytes_can_end_anywhere(tmp_path: Path) -> None:
    letters = bases(200_000)
    path = tmp_path / "a.fa.gz"
    with bgzf.BgzfWriter(str(path), "wb") as file:
        file.write(b">x\n" + letters.encode() + b"\n")
    fasta = FastaGenome(path)
    for start in range(65_530, 65_536):
        assert text(fasta, "x", start, start + 70_000) == letters[start : start + 70_000]


def test_fetch_needs_one_byte_a_base(tmp_path: Path) -> None:
    fasta = FastaGenome(make_fasta(tmp_path / "a.fa", {"x": "ACGT" * 2_000_000}, width=80))
    fasta.fetch("x", 0, 10)
    tracemalloc.start()
    codes = fasta.fetch("x", 0, 8_000_000)
    _, peak = tracemalloc.get_traced_memory()
    fasta.m5("x")
    tracemalloc.stop()
    assert peak < len(codes) + 6_000_000


def test_fetch_refuses_what_is_not_there(genome: FastaGenome) -> None:
    for start, end in ((-1, 5), (5, 4), (0, 1235), (1235, 1235)):
        message = complaint(lambda: genome.fetch("chr1", start, end))  # noqa: B023
        assert str(genome.path) in message
        assert "which has 1,234" in message
    assert 'did you mean "chr1"?' in complaint(lambda: genome.fetch("1", 0, 1))
    assert 'did you mean "chr1"?' in complaint(lambda: genome.m5("1"))


def test_threads_read_the_right_bases(genome: FastaGenome) -> None:
    def right(seed: int) -> bool:
        start, end = sorted(random.Random(seed).sample(range(1235), 2))
        return text(genome, "chr1", start, end) == SEQUENCES["chr1"][start:end]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(2000)))


@pytest.mark.parametrize("packed", [False, True])
def test_forked_processes_read_the_right_bases(tmp_path: Path, packed: bool) -> None:
    letters = bases(500_000)
    path = make_fasta(tmp_path / "a.fa", {"x": letters})
    path = pack(path) if packed else path
    # A process of its own, for the test runner has threads, which make a fork unsafe.
    script = textwrap.dedent(f"""
        import os, random
        from genoscan.genome.alphabet import decode
        from genoscan.genome.fasta import FastaGenome
        genome = FastaGenome({str(path)!r})
        letters = decode(genome.fetch("x", 0, 500_000))
        children = []
        for seed in range(4):
            child = os.fork()
            if child == 0:
                wrong = 0
                for _ in range(500):
                    start = random.randrange(499_000)
                    found = decode(genome.fetch("x", start, start + 1000))
                    wrong += found != letters[start : start + 1000]
                os._exit(min(wrong, 100))
            children.append(child)
        for i in range(500):
            assert decode(genome.fetch("x", i * 900, i * 900 + 900)) == letters[i * 900:][:900]
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
        """)
    subprocess.run([sys.executable, "-c", script], check=True)


def test_genome_can_be_sent_to_another_process(genome: FastaGenome) -> None:
    copy = pickle.loads(pickle.dumps(genome))
    assert copy.sizes == genome.sizes
    assert text(copy, "b", 0, 1) == "A"


def later(path: Path, seconds: int) -> None:
    moment = path.stat().st_mtime_ns + seconds * 10**9
    os.utime(path, ns=(moment, moment))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("age", [-5, 0, 5])
@pytest.mark.parametrize(
    "change",
    [
        {"chr1": bases(700, 5), "b": bases(80, 6)},
        {"longer": bases(1234)},
        {"chr1": bases(1234, 7), "b": bases(1234, 8)},
        {"chr1": bases(1233, 9)},
    ],
)
def test_no_stale_index_is_used(tmp_path: Path, packed: bool, age: int, change: dict[str, str]) -> None:
    """Also where the new file has an older time, as `cp -p` leaves it."""

    def write(sequences: dict[str, str]) -> Path:
        plain = make_fasta(tmp_path / "a.fa", sequences)
        return pack(plain) if packed else plain

    path = write({"chr1": bases(1234)})
    assert FastaGenome(path).sizes == {"chr1": 1234}
    moment = path.stat().st_mtime_ns + age * 10**9
    write(change)
    os.utime(path, ns=(moment, moment))
    fasta = FastaGenome(path)
    assert fasta.sizes == {name: len(letters) for name, letters in change.items()}
    for chrom, letters in change.items():
        assert text(fasta, chrom, 0, len(letters)) == letters


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lines", [[(200, 50), (200, 60)], [(200, 60), (200, 50)], [(60, 60), (59, 50)]])
def test_no_index_of_other_line_lengths_is_used(tmp_path: Path, packed: bool, lines: list[tuple[int, int]]) -> None:
    """The header and the end of the file stay where they were."""
    for length, width in lines:
        plain = make_fasta(tmp_path / "a.fa", {"x": bases(length)}, width=width)
        path = pack(plain) if packed else plain
        later(path, -9)
        assert text(FastaGenome(path), "x", 40, length) == bases(length)[40:]


def test_an_older_index_is_made_again_in_place(tmp_path: Path, cache_folder: Path) -> None:
    path = make_fasta(tmp_path / "a.fa", {"x": bases(100)}, width=50)
    index = tmp_path / "a.fa.fai"
    FastaGenome(path)
    assert index.read_text() == f"x\t100\t{len('>x a description') + 1}\t50\t51\n"
    index.write_text("x\t90\t17\t50\t51\n")
    later(index, -9)
    assert FastaGenome(path).sizes == {"x": 100}
    assert "x\t100\t" in index.read_text()
    for nonsense in ("", "x\n", "x\ta\tb\tc\td\n", "x\t100\t999999\t50\t51\n", "\0\0"):
        index.write_text(nonsense)
        assert FastaGenome(path).sizes == {"x": 100}
    assert not cache_folder.exists()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.fa", "a.fa.fai"]


def test_a_good_index_is_left_alone(genome: FastaGenome) -> None:
    index = Path(f"{genome.path}.fai")
    before = index.stat()
    FastaGenome(genome.path)
    assert (index.stat().st_mtime_ns, index.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_samtools_makes_the_same_index(genome: FastaGenome, tmp_path: Path) -> None:
    pysam.faidx(str(genome.path), "--fai-idx", str(tmp_path / "theirs"))
    assert Path(f"{genome.path}.fai").read_text() == (tmp_path / "theirs").read_text()


def test_a_file_dated_in_the_future_keeps_its_index(tmp_path: Path) -> None:
    path = make_fasta(tmp_path / "a.fa", {"x": "ACGT"})
    later(path, 10**6)
    FastaGenome(path)
    made = Path(f"{path}.fai").stat().st_ino
    FastaGenome(path)
    assert Path(f"{path}.fai").stat().st_ino == made


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    scratch = fasta_index.scratch_folder

    @contextmanager
    def read_only(beside: Path) -> Iterator[Path]:
        if beside in closed:
            raise PermissionError(13, "Permission denied")
        with scratch(beside) as folder:
            yield folder

    monkeypatch.setattr(fasta_index, "scratch_folder", read_only)
    closed = {tmp_path}
    path = make_fasta(tmp_path / "a.fa", {"x": bases(100)})
    path = pack(path) if packed else path
    before = sorted(tmp_path.iterdir())
    for _ in range(2):
        assert text(FastaGenome(path), "x", 0, 100) == bases(100)
    assert set(tmp_path.iterdir()) - set(before) == {cache_folder}
    assert len(list((cache_folder / "indexes").iterdir())) == 1 + packed

    # An index beside the file that went stale, and the copy in the cache, too.
    shutil.copy(next(cache_folder.glob("indexes/*.fai")), f"{path}.fai")
    make_fasta(tmp_path / "a.fa", {"x": bases(90, 1), "y": "A"})
    if packed:
        pack(tmp_path / "a.fa")
    assert text(FastaGenome(path), "x", 0, 90) == bases(90, 1)

    shutil.rmtree(cache_folder)
    closed.add(cache_folder / "indexes")
    message = complaint(lambda: FastaGenome(path))
    assert message.startswith(f"{path}: no index, and none can be written to {tmp_path} or ")
    assert "Permission denied" in message


@settings(quick, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_empty_lines_may_follow_a_sequence(
    tmp_path: Path, shapes: list[tuple[int, int]], crlf: bool, packed: bool
) -> None:
    """As samtools faidx has it, and the same from its index, where no sequence is empty."""
    end = "\r\n" if crlf else "\n"
    expected = {f"s{i}": bases(length, i) for i, (length, _) in enumerate(shapes)}
    content = ""
    for (name, letters), (_, blank) in zip(expected.items(), shapes, strict=True):
        content += f">{name}{end}" + "".join(letters[i : i + 4] + end for i in range(0, len(letters), 4)) + end * blank
    (tmp_path / "a.fa").write_bytes(content.encode())
    path = pack(tmp_path / "a.fa") if packed else tmp_path / "a.fa"
    index = Path(f"{path}.fai")
    index.unlink(missing_ok=True)
    Path(f"{path}.gzi").unlink(missing_ok=True)
    if not any(expected.values()):
        assert "no bases in it" in complaint(lambda: FastaGenome(path))
        return
    found = FastaGenome(path)
    assert {name: text(found, name, 0, size) for name, size in found.sizes.items()} == expected
    if all(expected.values()):
        made = index.read_text()
        pysam.faidx(str(path), "--fai-idx", str(index))
        assert index.read_text() == made
        FastaGenome(path)
        assert index.read_text() == made


@settings(quick, max_examples=50)
@given(
    st.lists(st.tuples(*[st.integers(0, 300) | st.integers(-(10**30), 10**30)] * 4), min_size=1, max_size=3),
    st.sampled_from(["x", "y", "z"]),
)
@example([(1000000000000000, 4, 60, 61), (2000, 3058, 60, 61)], "x")
@example([(100, 3, 10**15, 10**15)], "x")
@example([(10**400, 3, 1, 2)], "x")
def test_an_index_of_any_numbers_is_made_again(tmp_path: Path, numbers: list[tuple[int, ...]], name: str) -> None:
    path = tmp_path / "a.fa"
    path.write_text(f">x\n{bases(100)}\n>y description\n{bases(20)}\n{bases(7)}\n\n\n")
    names = [name, *"xyz"]
    rows = ["\t".join(map(str, [names[i], *row])) for i, row in enumerate(numbers)]
    Path(f"{path}.fai").write_text("\n".join(rows) + "\n")
    assert FastaGenome(path).sizes == {"x": 100, "y": 27}
    assert Path(f"{path}.fai").read_text() == "x\t100\t3\t100\t101\ny\t27\t119\t20\t21\n"


@settings(quick, max_examples=25)
@given(st.integers(0, 4), st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 70_000))
def test_a_damaged_index_of_blocks_is_made_again(tmp_path: Path, place: int, number: int) -> None:
    path = tmp_path / "a.fa.gz"
    if not path.exists():
        pack(make_fasta(tmp_path / "a.fa", {"x": bases(150_000)}))
        FastaGenome(path)
    index = Path(f"{path}.gzi")
    whole = index.read_bytes()
    assert len(whole) == 5 * 8
    index.write_bytes(whole[: 8 * place] + number.to_bytes(8, "little", signed=True) + whole[8 * place + 8 :])
    assert text(FastaGenome(path), "x", 0, 150_000) == bases(150_000)
    assert index.read_bytes() == whole


def test_a_file_that_changes_under_the_reader(tmp_path: Path) -> None:
    fasta = FastaGenome(make_fasta(tmp_path / "a.fa", {"x": bases(1000)}))
    fasta.fetch("x", 0, 5)
    make_fasta(fasta.path, {"x": bases(900)})
    assert complaint(lambda: fasta.fetch("x", 0, 5)) == (f"{fasta.path}: changed while it was being read; start again")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["the file is empty"]),
        (b" \n\n", ["the file is empty"]),
        (b"chr1\t5\t9\n", [r"begins with 'chr1\t5\t9'", 'expected FASTA (">") or GenBank']),
        (b"@read\nACGT\n+\nIIII\n", ["begins with '@read'"]),
        (b"\x00\x01\x02\x03", ["expected FASTA"]),
        (b">x\n", ["no bases in it"]),
        (b">x\nACGT\n>y\nACGT\n>x\nA\n", ['two sequences are called "x"']),
        (b">x\nACGT\nAC\nACGT\n", [":3: a line of x differs in length"]),
        (b">x\nACGT\n\nACGT\n", [":3: a line of x differs in length", "it is empty; remove it"]),
        (b">x\n\nACGT\n", [":2: a line of x differs in length", "it is empty; remove it"]),
        (b">x\nACGT\nAC\n\nAC\n", [":3: a line of x differs in length"]),
        (b">x\nACGT\nACGTA\n", [":3: a line of x differs in length"]),
        (b">x\nAC GT\n", [":2: found a space within a line of x"]),
        (b">x\nAC\n>y\0z\nAC\n", [":3: found a control character in the name y"]),
        (b">x\nAC\n\n\n>x\nA\n", ['two sequences are called "x"']),
        (b">x\nA\n>\nACGT\n", [':3: found no name after ">"']),
        (b">x\n\xff\xfe\xfd\n", ["found bytes that are no text"]),
        (gzip.compress(b">x\nACGT\n", mtime=0), ["compressed with gzip", "expected bgzip", "| bgzip >"]),
        (gzip.compress(b">x\nACGT\n" * 1000, mtime=0)[:-10], ["cut off"]),
    ],
)
def test_files_that_are_no_fasta(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    path = tmp_path / ("a.fa.gz" if content[:2] == b"\x1f\x8b" else "a.fa")
    path.write_bytes(content)
    message = complaint(lambda: open_genome(path))
    assert message.startswith(f"{path}:")
    for part in parts:
        assert part in message
    assert not Path(f"{path}.fai").exists()


def test_bad_letters_name_file_record_and_place(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(b">x\nACGT\nACGT\n>prot some protein\nMKVL\nEFPQ\n")
    fasta = FastaGenome(path)
    assert text(fasta, "x", 0, 8) == "ACGTACGT"
    message = complaint(lambda: fasta.fetch("prot", 1, 8))
    assert message.startswith(f'{path}: prot: position 4 is "L", expected A, C, G, T, N')
    assert "looks like protein" in message
    assert fasta.m5("prot") == hashlib.md5(b"MKVLEFPQ").hexdigest()


def test_missing_and_odd_files(tmp_path: Path) -> None:
    for opener in (open_genome, FastaGenome, GenBankGenome, read_features):
        missing = tmp_path / "no.fa"
        assert complaint(lambda: opener(missing)) == f"{missing}: no such file, expected a file"  # noqa: B023
        assert "is a folder, expected a file" in complaint(lambda: opener(tmp_path))  # noqa: B023
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in complaint(lambda: open_genome(tmp_path / "pipe"))


def test_names_must_match_the_compression(tmp_path: Path) -> None:
    plain = make_fasta(tmp_path / "a.fa", {"x": "ACGT"})
    packed = pack(plain)
    packed.rename(tmp_path / "b.fa")
    message = complaint(lambda: open_genome(tmp_path / "b.fa"))
    assert message.endswith("compressed with bgzip, which its name does not say; rename it to b.fa.gz")
    plain.rename(tmp_path / "c.fa.gz")
    message = complaint(lambda: open_genome(tmp_path / "c.fa.gz"))
    assert message.endswith("is not compressed, which its name does not say; rename it to c.fa")


def test_damaged_bgzip(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = pack(make_fasta(tmp_path / "a.fa", {"x": bases(300_000)}))
    whole = path.read_bytes()
    for cut in (len(whole) - 28, len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:cut])
        message = complaint(lambda: FastaGenome(path))
        assert message.startswith(f"{path}: the bgzip end mark is missing: the file is cut off")
    half = len(whole) // 2
    damaged = whole[:half] + bytes(byte ^ 255 for byte in whole[half : half + 50]) + whole[half + 50 :]
    path.write_bytes(damaged)
    assert complaint(lambda: FastaGenome(path)).startswith(f"{path}: the file is damaged (")
    # The same once there is an index: found when the block is read.
    path.write_bytes(whole)
    FastaGenome(path)
    path.write_bytes(damaged)
    later(path, -9)
    fasta = FastaGenome(path)
    assert text(fasta, "x", 0, 1000) == bases(300_000)[:1000]
    message = complaint(lambda: fasta.fetch("x", 0, 300_000))
    assert message.startswith(f"{path}: x cannot be read: ")
    assert capfd.readouterr() == ("", "")


def test_a_sequence_longer_than_pysam_can_address(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_text(">x\n")
    os.truncate(path, 3 + 2**31)  # a hole, which takes no space on the disk
    Path(f"{path}.fai").write_text(f"x\t{2**31}\t3\t{2**31}\t{2**31 + 1}\n")
    message = complaint(lambda: FastaGenome(path))
    assert message == f"{path}: x is too long, expected fewer than 2,147,483,647 bases; split it"


def test_empty_sequences_are_known_but_not_windows(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_text(">e\n>x\nACG\n>f\n")
    fasta = FastaGenome(path)
    assert fasta.sizes == {"e": 0, "x": 3, "f": 0}
    assert fasta.fetch("e", 0, 0).size == 0
    assert fasta.m5("f") == hashlib.md5(b"").hexdigest()
    assert whole_genome(fasta.sizes) == [Region("x", 0, 3)]
    made = Path(f"{path}.fai").stat().st_ino
    FastaGenome(path)
    assert Path(f"{path}.fai").stat().st_ino == made


# GenBank

RECORD = """\
LOCUS       TEST                      70 bp    DNA     circular BCT 01-JAN-2000
DEFINITION  Two lines of bases.
ACCESSION   TEST
VERSION     TEST.1
FEATURES             Location/Qualifiers
     source          1..70
                     /organism="none"
     gene            complement(<3..10)
                     /gene="abc"
     CDS             complement(join(3..5,8..10))
                     /gene="abc"
                     /product="something"
     CDS             join(1..3,complement(60..62))
                     /locus_tag="trans_1"
     tRNA            12
                     /product="tRNA-X"
     misc_feature    20^21
     misc_feature    join(J00194.1:1..9,30..>33)
ORIGIN
        1 acgtacgtac gtacgtacgt rnacgtacgt acgtacgtac gtacgtacgt acgtacgtac
       61 ttttttttta
//
"""


def test_genbank_is_a_genome(tmp_path: Path) -> None:
    path = tmp_path / "a.gb"
    path.write_text(RECORD + RECORD.replace("TEST", "SECOND"))
    packed = tmp_path / "b.whatever"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    letters = "".join(re.findall("[acgtrn]{9,10}", RECORD.split("ORIGIN")[1])).upper()
    for genbank in (open_genome(path), open_genome(packed)):
        assert isinstance(genbank, GenBankGenome)
        assert genbank.sizes == {"TEST.1": 70, "SECOND.1": 70}
        found = decode(genbank.fetch("TEST.1", 5, 70)).decode()
        assert found == letters.replace("R", "N")[5:]
        assert genbank.m5("SECOND.1") == hashlib.md5(letters.encode()).hexdigest()
        assert "which has 70" in complaint(lambda: genbank.fetch("TEST.1", 0, 71))  # noqa: B023
        assert 'mean "TEST.1"?' in complaint(lambda: genbank.m5("TEST"))  # noqa: B023


def test_the_same_genome_has_the_same_m5_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.gb").write_text(RECORD)
    letters = "".join(re.findall("[acgtrn]{9,10}", RECORD.split("ORIGIN")[1]))
    plain = make_fasta(tmp_path / "a.fa", {"TEST.1": letters}, width=9)
    checksums = {open_genome(p).m5("TEST.1") for p in (tmp_path / "a.gb", plain, pack(plain))}
    assert len(checksums) == 1


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("VERSION     NODE_1_cov_2.052837\n", "NODE_1_cov_2.052837"),
        ("VERSION     NC_1.10  GI:7\n", "NC_1.10"),
        ("VERSION     .\n", "TEST"),
        ("VERSION\n", "TEST"),
        ("", "TEST"),
    ],
)
def test_genbank_names_are_those_of_the_file(tmp_path: Path, version: str, name: str) -> None:
    path = tmp_path / "a.gb"
    record = RECORD.replace("VERSION     TEST.1\n", version)
    path.write_text(record + RECORD.replace("TEST", "SECOND"))
    assert list(GenBankGenome(path).sizes) == [name, "SECOND.1"]
    assert read_features(path)[0].chrom == name
    path.write_text(RECORD.replace("TEST", "SECOND") + record)
    assert list(GenBankGenome(path).sizes) == ["SECOND.1", name]


def test_genbank_features(tmp_path: Path) -> None:
    path = tmp_path / "a.gb"
    path.write_text(RECORD)
    found = [
        (f.kind, f.name, f.strand, [(part.start, part.end, part.strand) for part in f.parts])
        for f in read_features(path)
    ]
    assert found == [
        ("gene", "abc", "-", [(2, 10, "-")]),
        ("CDS", "abc", "-", [(7, 10, "-"), (2, 5, "-")]),
        ("CDS", "trans_1", ".", [(0, 3, "+"), (59, 62, "-")]),
        ("tRNA", "tRNA-X", "+", [(11, 12, "+")]),
        ("misc_feature", "", "+", [(29, 33, "+")]),
    ]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (RECORD[:-3], "cut off (Premature end"),
        (RECORD[:-20], "cut off (Premature end"),
        (RECORD[: RECORD.index("tRNA   ")], "damaged or cut off"),
        (RECORD[:40], "damaged or cut off"),
        (RECORD.replace("       61 ttttttttta", ""), "cut off (Expected sequence length 70"),
        (RECORD + RECORD, 'two records are called "TEST.1" in the VERSION line'),
        (2 * RECORD.replace("VERSION     TEST.1", "VERSION     ."), 'two records are called "TEST" in the LOCUS line'),
        (RECORD.replace("acgtacgtac", "acgtmkvlef"), 'TEST.1: position 8 is "L"'),
        (re.sub(r"ORIGIN.*//", "CONTIG      join(A:1..70)\n//", RECORD, flags=re.S), "no sequence"),
    ],
)
def test_bad_genbank(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "a.gb"
    path.write_text(content)
    message = complaint(lambda: open_genome(path))
    assert message.startswith(f"{path}: ")
    assert part in message


def test_bad_genbank_features(tmp_path: Path) -> None:
    path = tmp_path / "a.gb"
    path.write_text(RECORD.replace("60..62", "60..72"))
    message = complaint(lambda: read_features(path))
    assert message.startswith(f"{path}: TEST.1: CDS trans_1: end 72 is past the end of the record")
    path.write_bytes(gzip.compress(RECORD.encode())[:-9])
    assert "the file is cut off" in complaint(lambda: read_features(path))
    path.write_text("nothing here\n")
    assert "no records in it" in complaint(lambda: read_features(path))


# The plan

FEW = {"b": 40, "a": 25}


@st.composite
def regions_of_few(draw: st.DrawFn) -> list[Region]:
    rows = []
    for i in range(draw(st.integers(0, 12))):
        chrom = draw(st.sampled_from(sorted(FEW)))
        start = draw(st.integers(0, FEW[chrom] - 1))
        end = draw(st.integers(start + 1, min(FEW[chrom], start + 10)))
        strand = draw(st.sampled_from("+-."))
        rows.append(Region(chrom, start, end, name=f"n{i % 5}", strand=strand, source=f"x.bed:{i}"))
    return rows


def covered(regions: list[Region]) -> set[tuple[str, int]]:
    return {(r.chrom, base) for r in regions for base in range(r.start, r.end)}


@given(regions_of_few())
@quick
def test_merged_regions_are_sorted_apart_and_complete(regions: list[Region]) -> None:
    merged = merge(regions, FEW, by_strand=False)
    assert covered(merged) == covered(regions)
    assert sum(map(len, merged)) == len(covered(regions))
    order = [(list(FEW).index(r.chrom), r.start) for r in merged]
    assert order == sorted(order)
    assert merge(merged, FEW, by_strand=False) == merged
    assert merge(regions[::-1], FEW, by_strand=False) == merged
    for region in merged:
        inside = [r for r in regions if covered([r]) <= covered([region])]
        assert set(region.name.split(",")) == {r.name for r in inside}


@given(regions_of_few())
@quick
def test_strands_merge_apart_or_complain(regions: list[Region]) -> None:
    plus = covered([r for r in regions if r.strand != "-"])
    minus = covered([r for r in regions if r.strand == "-"])
    if plus & minus:
        message = complaint(lambda: merge(regions, FEW, by_strand=True))
        assert len(re.findall(r"x\.bed:\d+", message)) == 2
        return
    merged = merge(regions, FEW, by_strand=True)
    assert covered([r for r in merged if r.strand == "-"]) == minus
    assert covered(merged) == plus | minus


def test_merge_keeps_touching_regions_and_joins_names() -> None:
    rows = [
        Region("a", 5, 9, name="x", strand="+", source="p.bed:1"),
        Region("a", 9, 12, name="y", source="p.bed:2"),
        Region("a", 11, 12, name="y", source="p.bed:3"),
        Region("a", 10, 14, name="z", strand="+", source="p.bed:4"),
        Region("b", 0, 1, source="p.bed:5", clipped=True),
        Region("b", 0, 1, source="p.bed:6"),
    ]
    merged = merge(rows, FEW, by_strand=True)
    assert merged == [Region("b", 0, 1), Region("a", 5, 9, strand="+"), Region("a", 9, 14, strand="+")]
    assert [region.name for region in merged] == ["", "x", "y,z"]
    assert [region.clipped for region in merged] == [True, False, False]
    assert merged[2].source == "p.bed:2 and 2 more"
    assert merge([], FEW, by_strand=True) == []
    assert merge(rows[:1], FEW, by_strand=False)[0].strand == "+"


def test_overlapping_strands_name_both_lines() -> None:
    rows = [
        Region("a", 0, 9, strand="+", source="p.bed:1"),
        Region("a", 2, 3, strand="+", source="p.bed:2"),
        Region("a", 4, 6, strand="-", source="p.bed:3"),
    ]
    message = complaint(lambda: merge(rows, FEW, by_strand=True))
    assert message.startswith("p.bed:3: on strand -, overlaps p.bed:1 on strand +, expected")
    assert len(merge(rows, FEW, by_strand=False)) == 1
    assert "--region c:1-2" in complaint(
        lambda: merge([Region("c", 0, 2, source="--region c:1-2")], FEW, by_strand=False)
    )


@given(regions_of_few(), st.integers(0, 50), st.integers(0, 50), st.sampled_from(["+", "-", "both", "bed"]))
@quick
def test_windows_surround_their_regions(regions: list[Region], context: int, reach: int, strand: str) -> None:
    windows = plan(regions, FEW, Adjoint(), context=context, reach=reach, strand=strand)
    assert len(windows) == len(regions) * (2 if strand == "both" else 1)
    for window in windows:
        region, scored, span = window.region, window.scored, window.scored_span
        assert region.chrom == scored.chrom
        assert 0 <= region.start <= scored.start < scored.end <= region.end <= FEW[scored.chrom]
        assert span.stop - span.start == len(scored)
        assert span.stop <= len(window) == len(region)
        # The scored bases, read in either direction, are those at the scored span.
        positions = np.arange(region.start, region.end)
        read = positions if window.strand == "+" else positions[::-1]
        assert sorted(read[span]) == list(range(scored.start, scored.end))
        missing_before, missing_after = context - span.start, reach - (len(window) - span.stop)
        at_start, at_end = region.start == 0, region.end == FEW[scored.chrom]
        if window.strand == "-":
            at_start, at_end = at_end, at_start
        assert missing_before == 0 or (at_start and missing_before > 0)
        assert missing_after == 0 or (at_end and missing_after > 0)


def test_windows_in_both_directions() -> None:
    region = Region("b", 10, 12, strand="-")
    forward, backward = plan([region], FEW, Adjoint(), context=5, reach=1, strand="both")
    assert forward == Window(Region("b", 5, 13, strand="-"), (region,), "+")
    assert backward == Window(Region("b", 9, 17, strand="-"), (region,), "-")
    assert (forward.scored_span, backward.scored_span) == (slice(5, 7), slice(5, 7))
    assert plan([region], FEW, Adjoint(), context=5, reach=1, strand="bed") == [backward]
    assert plan([region], FEW, Adjoint(), context=5, reach=1, strand="+") == [forward]


def test_windows_contain_the_target() -> None:
    region = Region("b", 10, 12)
    target = Region("b", 30, 33)
    # A causal model needs nothing past the target, or past a region that ends after it.
    [window] = plan([region], FEW, Adjoint(), context=5, reach=1, strand="+", target=target)
    assert window.region == Region("b", 5, 33)
    assert window.span_of(target) == slice(25, 28)
    [window] = plan([region], FEW, Adjoint(), context=2, reach=1, strand="-", target=Region("b", 0, 11))
    assert window.region == Region("b", 0, 14)
    assert window.span_of(Region("b", 0, 11)) == slice(3, 14)
    [window] = plan([region], FEW, Adjoint(), context=0, reach=0, strand="+", target=target, label_offset=1)
    assert window.region == Region("b", 10, 33)
    early = Region("b", 5, 6)
    [window] = plan([region], FEW, Adjoint(), context=0, reach=0, strand="-", target=early, label_offset=1)
    assert window.region == Region("b", 5, 12)
    [window] = plan([region], FEW, Adjoint(), context=9, reach=9, strand="+", target=Region("b", 11, 12))
    assert window.region == Region("b", 1, 12)


@given(regions_of_few(), st.integers(0, 30), st.integers(0, 30), st.sampled_from(["+", "-"]))
@quick
def test_bidirectional_windows_surround_region_and_target(
    regions: list[Region], context: int, reach: int, strand: str
) -> None:
    regions = regions or [Region("b", 3, 9)]
    target = replace(regions[0], end=regions[0].start + 1)
    regions = [region for region in regions if region.chrom == target.chrom]
    settings: dict[str, Any] = {"context": context, "reach": reach, "strand": strand}
    for window in plan(regions, FEW, Layerwise(), target=target, **settings):
        before, after = (context, reach) if strand == "+" else (reach, context)
        scored = window.scored
        assert window.region.start == max(0, min(scored.start, target.start) - before)
        end = max(scored.end, target.end) + after
        assert window.region.end == min(FEW[target.chrom], end)


def test_targets_that_cannot_depend_on_a_region() -> None:
    region = Region("b", 10, 12, source="p.bed:1")
    lengths = {"context": 5, "reach": 5}

    def attempt(target: Region, strand: str) -> str:
        return complaint(
            lambda: plan([region], FEW, Adjoint(), strand=strand, target=target, label_offset=1, **lengths)
        )

    message = attempt(Region("a", 3, 4), "+")
    assert message.startswith("p.bed:1: the target lies at a:4-4, expected it on b")
    # The last two: a base does not matter to its own prediction.
    for target, strand in (
        (Region("b", 9, 10), "+"),
        (Region("b", 12, 13), "-"),
        (Region("b", 8, 11), "+"),
        (Region("b", 11, 13), "-"),
    ):
        message = attempt(target, strand)
        assert message.startswith(f"p.bed:1: lies wholly after the target at {target} as strand")
        assert attempt(target, "both") == message
        other = "-" if strand == "+" else "+"
        causal = plan([region], FEW, Adjoint(), strand=other, target=target, label_offset=1, **lengths)
        assert len(causal) == 1
        both = plan([region], FEW, Layerwise(), strand="both", target=target, **lengths)
        assert len(both) == 2


@pytest.mark.parametrize(
    ("context", "reach", "strand", "message"),
    [
        (-1, 0, "+", "--context -1: expected 0 bases or more"),
        (0, -7, "+", "--reach -7: expected 0 bases or more"),
        (0, 0, "forward", "--strand forward: expected +, -, both or bed"),
    ],
)
def test_bad_plans(context: int, reach: int, strand: str, message: str) -> None:
    assert message == complaint(lambda: plan([], FEW, Adjoint(), context=context, reach=reach, strand=strand))


@given(regions_of_few(), st.integers(1, 4))
@quick
def test_batches_contain_each_region_once(regions: list[Region], size: int) -> None:
    windows = plan(regions, FEW, Adjoint(), context=3, reach=0, strand="both")
    read = by_region(windows, "both")
    assert [window for both in read for window in both] == windows
    assert all([window.strand for window in both] == ["+", "-"] for both in read)
    grouped = batches(read, size)
    # Equal windows may repeat: identity tells them apart.
    place = {id(both): i for i, both in enumerate(read)}
    found = [[place[id(both)] for both in batch] for batch in grouped]
    assert sorted(i for batch in found for i in batch) == list(range(len(read)))
    assert [batch[0] for batch in found] == sorted(batch[0] for batch in found)

    def lengths(windows: tuple[Window, ...]) -> tuple[int, ...]:
        return tuple(len(window) for window in windows)

    for batch, numbers in zip(grouped, found, strict=True):
        assert len({lengths(both) for both in batch}) == 1
        assert len(batch) <= size
        assert numbers == sorted(numbers)
    partly_full = [lengths(batch[0]) for batch in grouped if len(batch) < size]
    assert len(partly_full) == len(set(partly_full)), "only a length's last batch is not full"
    assert grouped == batches(list(read), size)


def test_batches_need_a_size() -> None:
    assert complaint(lambda: batches([], 0)) == "--batch 0: expected 1 window or more"
    assert batches([], 1) == []


# The example data


def test_example_data_are_whole() -> None:
    genome = FastaGenome(DATA / "chloroplast.fa")
    assert genome.sizes == {"NC_000932.1": 154_478}
    assert genome.m5("NC_000932.1") == "23eeba58f0f2b65fcfaeb887856c8bfb"
    rows = read_bed(DATA / "chloroplast.genes.bed", genome.sizes)
    assert len(rows) == 155
    assert {row.strand for row in rows} == {"+", "-"}
    example = read_bed(DATA / "example.bed", genome.sizes)
    assert [row.name for row in example] == ["psbA", "matK", "rbcL"]
    for row in example:
        codes = genome.fetch(row.chrom, row.start, row.end)
        read = decode(reverse_complement(codes) if row.strand == "-" else codes).decode()
        assert read.startswith("ATG")
        assert read[-3:] in ("TAA", "TAG", "TGA")


def test_example_data_are_those_described() -> None:
    readme = (DATA / "README.md").read_text()
    for name in ("chloroplast.fa", "chloroplast.fa.fai", "chloroplast.genes.bed", "example.bed"):
        assert name in readme
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() in readme


@given(st.data())
def test_joined_windows_read_each_base_once(data: st.DataObject) -> None:
    edges = sorted(data.draw(st.sets(st.integers(0, 400), min_size=2, max_size=12)))
    strands = data.draw(st.lists(st.sampled_from("+-"), min_size=len(edges), max_size=len(edges)))
    regions = [Region("c", a, b, strand=s) for a, b, s in zip(edges[::2], edges[1::2], strands, strict=False)]
    strand = data.draw(st.sampled_from(["+", "-", "both", "bed"]))
    context, reach = data.draw(st.integers(0, 60)), data.draw(st.integers(0, 30))
    windows = by_region(plan(regions, {"c": 500}, Adjoint(), context=context, reach=reach, strand=strand), strand)
    joined = join_windows(windows)
    assert [region for read in joined for region in read[0].regions] == regions
    for i in range(len(windows[0])):
        assert all(read[i].regions == read[0].regions for read in joined)
        for direction in {read[i].strand for read in joined}:
            bases = [set(range(w.region.start, w.region.end)) for read in joined if (w := read[i]).strand == direction]
            alone = [read[i] for read in windows if read[i].strand == direction]
            assert set().union(*bases) == {at for w in alone for at in range(w.region.start, w.region.end)}
            if strand != "bed":  # windows on the other strand may lie between two windows that overlap
                assert sum(map(len, bases)) == len(set().union(*bases))
    for read in joined:
        for window in read:
            assert window.scored == (
                regions[regions.index(window.regions[0])]
                if len(window.regions) == 1
                else Region("c", window.regions[0].start, window.regions[-1].end)
            )
            assert window.region.start <= window.scored.start and window.scored.end <= window.region.end
