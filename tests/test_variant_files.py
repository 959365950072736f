"""Files of variants: every allele gets a status, nothing is lost, and equal changes are equal however written."""

import gzip
import importlib.util
import json
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pysam
import pysam.bcftools
import pytest
from commands import write_fasta
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from genoscan.effects.variant_output import COLUMNS, check_variant_outputs, write_scores
from genoscan.errors import GenoscanError, InputError, NonFiniteError, OutputError
from genoscan.genome.alphabet import encode
from genoscan.genome.genome import Genome, open_genome
from genoscan.genome.memory import SequenceGenome
from genoscan.genome.variant import Change, normalise
from genoscan.genome.variant_files import VariantTable, match_names, parse_variant, parse_variants, read_variants
from genoscan.tracks.atomic import atomic_files

quick = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])

CHR1 = "ACGTTGNNacgtCAGCAGCAGTTTTGGA"  # 28 bases
SEQUENCES = {"chr1": CHR1, "chr2": "GATTACA" * 3, "chrM": "ACGT" * 5, "HLA:01": "GGGG"}
TABLE = [*("chrom", "pos", "id", "ref", "alt", "status"), *(column.name for column in COLUMNS)]
REF_DIFFERS = "REF differs from the genome (found {}, genome {})"
PAST_END = "past the end of chr1 (28 bases)"

HEADER = """##fileformat=VCFv4.3
##FILTER=<ID=PASS,Description="All filters passed">
##INFO=<ID=AF,Number=A,Type=Float,Description="Frequency, from 0; to 1">
##INFO=<ID=NOTE,Number=1,Type=String,Description="Anything">
##INFO=<ID=DB,Number=0,Type=Flag,Description="In dbSNP">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##ALT=<ID=DEL,Description="Deletion">
##made by=a program with, odd; "characters"
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS1
"""
SAMPLE = "GT\t0/1"

# CHROM, POS, ID, REF, ALT, INFO, and for each ALT its change (start, ref, alt) or its status.
ODD: list[tuple[str, int, str, str, str, str, list[object]]] = [
    ("chr1", 14, "snv", "A", "C", "AF=0.5;DB", [(13, "A", "C")]),
    ("chr1", 1, "first", "A", "G", ".", [(0, "A", "G")]),
    ("chr1", 28, "last", "A", "T", ".", [(27, "A", "T")]),
    ("chr1", 1, "rs1;rs2", "A", "C,G,*,<DEL>,A", "AF=.1,.2,.3,.4,.5",
     [(0, "A", "C"), (0, "A", "G"), "overlapping deletion (*)", "symbolic allele", "ALT equals REF"]),
    ("chr1", 5, "trimmed", "TG", "TA", ".", [(5, "G", "A")]),
    ("chr1", 4, "mnv", "TT", "GA", ".", [(3, "TT", "GA")]),
    ("chr1", 3, "delins", "GTT", "GCAT", ".", [(3, "T", "CA")]),
    ("chr1", 16, "cag", "CAGC", "C", ".", [(12, "CAG", "")]),
    ("chr1", 22, "cag2", "G", "GTTTT", ".", [REF_DIFFERS.format("G", "T")]),
    ("chr1", 25, "t-end", "T", "TT", ".", [(21, "", "T")]),
    ("chr1", 9, "lower", "acgt", "aCGA", "NOTE=a b%3Bc", [(11, "T", "A")]),
    ("chr1", 2, "differs", "A", "T", ".", [REF_DIFFERS.format("A", "C")]),
    ("chr1", 7, "n", "N", "A", ".", ["N in REF or genome"]),
    ("chr1", 7, "n2", "A", "C", ".", ["N in REF or genome"]),
    ("chr1", 8, "n-anchor", "NA", "N", ".", [(8, "A", "")]),
    ("chr1", 1, "iupac", "R", "C", ".", ["N in REF or genome"]),
    ("chr1", 1, "n-alt", "A", "N", ".", ["N in ALT"]),
    ("chr1", 1, "rna", "A", "U", ".", ["not A, C, G, T"]),
    ("chr1", 1, "ref?", "?", "A", ".", ["not A, C, G, T"]),
    ("chr1", 1, "dash", "A", "-", ".", ["not A, C, G, T"]),
    ("chr1", 1, "noalt", "A", ".", ".", ["no ALT"]),
    ("chr1", 1, "bnd", "A", "A[chr2:3[", ".", ["breakend"]),
    ("chr1", 1, "bnd2", "A", "]chr2:3]A", ".", ["breakend"]),
    ("chr1", 1, "single", "A", ".A", ".", ["breakend"]),
    ("chr1", 1, "ins", "A", "<INS>", "END=5", ["symbolic allele"]),
    ("chr1", 1, "gvcf", "A", "<NON_REF>", ".", ["symbolic allele"]),
    ("chr1", 29, "past", "A", "C", ".", [PAST_END]),
    ("chr1", 28, "past2", "AC", "A", ".", [PAST_END]),
    ("chr1", 0, "telomere", "A", "C", ".", ["before the start of chr1"]),
    ("chr1", 1, "long", "A" + "C" * 100, "A", ".", [PAST_END]),
    ("chr1", 1, "long-alt", "A", "A" + "C" * 100, ".", [(1, "", "C" * 100)]),
    ("2", 1, ".", "G", "C", ".", [(0, "G", "C")]),
    ("MT", 2, ".", "C", "G", ".", [(1, "C", "G")]),
    ("chrUn_1", 2, ".", "C", "G", ".", ["unknown sequence"]),
    ("HLA:01", 2, "a,b:c|d=e", "G", "T", ".", [(1, "G", "T")]),
    ("chr1", 14, "unsorted", "a", "c", ".", [(13, "A", "C")]),
    ("chr1", 1, "first", "A", "G", ".", [(0, "A", "G")]),
]  # fmt: skip
KNOWN = {"2": "chr2", "MT": "chrM"}


def lines_of(records: Sequence[tuple[str, int, str, str, str, str, list[object]]]) -> list[str]:
    return [f"{c}\t{p}\t{i}\t{r}\t{a}\t.\tPASS\t{info}\t{SAMPLE}" for c, p, i, r, a, info, _ in records]


def odd_text() -> str:
    return HEADER + "".join(line + "\n" for line in lines_of(ODD))


def minimal(*records: str, header: Sequence[str] = ("##fileformat=VCFv4.2",)) -> str:
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
    return "".join(f"{line}\n" for line in (*header, columns, *records))


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    write_fasta(path, SEQUENCES)
    return open_genome(path)


def in_memory(**sequences: str) -> SequenceGenome:
    return SequenceGenome({n: encode(s.encode(), record=n, offset=0) for n, s in sequences.items()})


def complaint(act: Callable[[], object], kind: type[GenoscanError] = InputError) -> str:
    with pytest.raises(kind) as raised:
        act()
    message = str(raised.value)
    assert "\n" not in message
    assert not message.endswith(".")
    return message


def some_scores(table: VariantTable) -> dict[str, np.ndarray]:
    """Return numbers for the alleles that can be scored, each different from the others."""
    known = np.array([allele.change is not None for allele in table.alleles])
    numbers = np.where(known, np.arange(len(known)) + 1 / 3, np.nan)
    return {c.name: numbers * 0 + 17 if c.type == "Integer" else numbers * (k + 1) for k, c in enumerate(COLUMNS)}


def write(table: VariantTable, genome: Genome, *outputs: Path, **scores: np.ndarray) -> list[str]:
    with atomic_files() as files:
        status = [allele.status for allele in table.alleles]
        return write_scores(outputs, table, scores or some_scores(table), status, genome, files, {"command": ["x"]})


def rows_of(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


# ---- odd records


def check_odd(table: VariantTable) -> None:
    expected = []
    for number, (chrom, pos, name, ref, alts, _, results) in enumerate(ODD):
        known = KNOWN.get(chrom, chrom)
        for alt, result in zip(alts.split(","), results, strict=True):
            ok = not isinstance(result, str)
            change = Change(known, *result) if ok else None  # type: ignore[misc]
            expected.append((number, chrom, pos, name, ref, alt, "ok" if ok else result, change))
    found = [(a.record, a.chrom, a.pos, a.id, a.ref, a.alt, a.status, a.change) for a in table.alleles]
    assert found == expected
    assert table.renamed == KNOWN


def test_every_odd_record_has_a_status_and_none_is_lost(tmp_path: Path, genome: Genome) -> None:
    (tmp_path / "odd.vcf").write_text(odd_text())
    table = read_variants(tmp_path / "odd.vcf", genome)
    check_odd(table)
    outputs = [tmp_path / name for name in ("o.vcf", "o.vcf.gz", "o.tsv")]
    assert [note.split(":")[0] for note in write(table, genome, *outputs)] == [str(outputs[1])]
    assert not list(tmp_path.glob("*.tbi"))
    assert gzip.decompress(outputs[1].read_bytes()) == outputs[0].read_bytes()

    # Header and columns are verbatim, apart from what is added.
    lines = outputs[0].read_text().splitlines()
    header = [line for line in lines if line.startswith("#")]
    added = [line for line in header if re.match("##(INFO=<ID=GS_|contig)", line)]
    assert [line for line in header if line not in added] == HEADER.splitlines()
    assert "##contig=<ID=2,length=21>" in added
    assert "##contig=<ID=chrUn_1>" in added
    for line, before in zip(lines[len(header) :], lines_of(ODD), strict=True):
        new, old = line.split("\t"), before.split("\t")
        info = [entry for entry in new[7].split(";") if not entry.startswith("GS_")]
        assert [*new[:7], ";".join(info) or ".", *new[8:]] == old

    # Other programs read it, and find one status and one number for each ALT.
    statuses = []
    with pysam.VariantFile(str(outputs[0])) as file:
        for record in file:
            statuses += record.info["GS_STATUS"]
            if "GS_DELTA" in record.info:
                assert len(record.info["GS_DELTA"]) == len(record.alts or ())
    assert [unquote(text) for text in statuses] == [allele.status for allele in table.alleles]
    body = [line for line in pysam.bcftools.view("--no-version", str(outputs[1])).splitlines() if line[0] != "#"]
    assert len(body) == len(ODD)
    if program := shutil.which("bcftools"):
        subprocess.run([program, "view", str(outputs[1]), "-o", str(tmp_path / "x.bcf"), "-Ob"], check=True)

    rows = rows_of(outputs[2])
    assert list(rows[0]) == TABLE
    for row, allele in zip(rows, table.alleles, strict=True):
        fields = allele.chrom, str(allele.pos), allele.id, allele.ref, allele.alt, allele.status
        assert tuple(row[name] for name in ("chrom", "pos", "id", "ref", "alt", "status")) == fields
        assert (row["delta"] == ".") == (allele.change is None)


def as_gzip(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode()))


def as_bgzip(path: Path, text: str) -> None:
    with pysam.BGZFile(str(path), "wb") as file:
        file.write(text.encode())


def as_bcf(path: Path, text: str) -> None:
    declared = "".join(f"##contig=<ID={name}>\n" for name in ("chr1", "2", "MT", "chrUn_1", "HLA:01"))
    declared += '##INFO=<ID=END,Number=1,Type=Integer,Description="End">\n'
    text = text.replace("#CHROM", declared + "#CHROM")  # BCF cannot hold what the header lacks
    (path.parent / "plain.vcf").write_text(text)
    pysam.bcftools.view("-Ob", "-o", str(path), str(path.parent / "plain.vcf"), catch_stdout=False)


@pytest.mark.parametrize("form", [as_gzip, as_bgzip, as_bcf], ids=["gzip", "bgzip", "bcf"])
def test_compressed_files(tmp_path: Path, genome: Genome, form: Callable[[Path, str], None]) -> None:
    form(tmp_path / "odd", odd_text())  # the contents decide, not the name
    table = read_variants(tmp_path / "odd", genome)
    check_odd(table)
    write(table, genome, tmp_path / "o.vcf")
    check_odd(read_variants(tmp_path / "o.vcf", genome))


def test_the_last_base_of_a_record_may_be_in_info(tmp_path: Path, genome: Genome) -> None:
    """A .tbi index ends at 2^29, and END counts."""
    (tmp_path / "x.vcf").write_text(
        minimal("chr1\t1\t.\tA\tC\t.\t.\tX=1;END=600000000", "chr1\t2\t.\tC\t<DEL>\t.\t.\t.")
    )
    write(read_variants(tmp_path / "x.vcf", genome), genome, tmp_path / "o.vcf.gz")
    assert (tmp_path / "o.vcf.gz.csi").is_file()
    with pysam.VariantFile(str(tmp_path / "o.vcf.gz")) as file:
        assert [record.pos for record in file.fetch("chr1", 550_000_000, 550_000_001)] == [1]


def test_an_empty_file_of_variants(tmp_path: Path, genome: Genome) -> None:
    (tmp_path / "x.vcf").write_text(minimal())
    (tmp_path / "x.tsv").write_text("chrom\tpos\tref\talt\n")
    for name in ("x.vcf", "x.tsv"):
        table = read_variants(tmp_path / name, genome)
        assert table.alleles == []
        assert write(table, genome, tmp_path / "o.vcf.gz", tmp_path / "o.tsv") == []
        with pysam.VariantFile(str(tmp_path / "o.vcf.gz")) as file:
            assert list(file) == []
        assert rows_of(tmp_path / "o.tsv") == []


def test_bytes_that_are_not_utf8_are_kept(tmp_path: Path, genome: Genome) -> None:
    content = (
        minimal("chr1\t1\tID\tA\tC\t.\t.\tNOTE=NOTE").encode().replace(b"ID\tA", b"\xe9\tA").replace(b"=NOTE", b"=\xff")
    )
    (tmp_path / "x.vcf").write_bytes(content.replace(b"\n", b"\r\n"))
    table = read_variants(tmp_path / "x.vcf", genome)
    write(table, genome, tmp_path / "o.vcf", tmp_path / "o.tsv", delta=np.array([0.5]))
    assert (tmp_path / "o.vcf").read_bytes().splitlines()[-1] == (
        b"chr1\t1\t\xe9\tA\tC\t.\t.\tNOTE=\xff;GS_DELTA=0.5;GS_STATUS=ok"
    )
    assert b"\t\xe9\tA\tC\tok\t0.5\n" in (tmp_path / "o.tsv").read_bytes()


# ---- normalisation

REPETITIVE = st.text(alphabet="AC", min_size=1, max_size=9)


@quick
@given(sequence=REPETITIVE, data=st.data())
def test_equal_changes_are_those_with_equal_edited_sequences(sequence: str, data: st.DataObject) -> None:
    genome = in_memory(c=sequence)
    start = data.draw(st.integers(0, len(sequence)))
    stop = data.draw(st.integers(start, len(sequence)))
    alt = data.draw(st.text(alphabet="AC", max_size=4))
    assume(sequence[start:stop] != alt)
    edited = sequence[:start] + alt + sequence[stop:]
    change = normalise(genome, "c", start, sequence[start:stop].lower(), alt)
    assert sequence[: change.start] + change.alt + sequence[change.stop :] == edited
    assert sequence[change.start : change.stop] == change.ref

    # All ways in which the same edited sequence can be written.
    shortest = []
    for first in range(len(sequence) + 1):
        for last in range(first, len(sequence) + 1):
            middle = len(edited) - first - (len(sequence) - last)
            if middle < 0 or edited[:first] != sequence[:first] or not edited.endswith(sequence[last:]):
                continue
            other = edited[first : first + middle]
            assert normalise(genome, "c", first, sequence[first:last], other) == change
            shortest.append((last - first + middle, first, sequence[first:last], other))
    assert min(shortest)[1:] == (change.start, change.ref, change.alt)


@settings(quick, max_examples=50)
@given(sequence=REPETITIVE)
def test_different_edited_sequences_give_different_changes(sequence: str) -> None:
    genome, seen = in_memory(c=sequence), {}
    for start in range(len(sequence) + 1):
        for stop in range(start, min(start + 3, len(sequence) + 1)):
            for letters in product("AC", repeat=min(start % 3, 2)):
                alt = "".join(letters)
                if alt != sequence[start:stop]:
                    edited = sequence[:start] + alt + sequence[stop:]
                    assert seen.setdefault(normalise(genome, "c", start, sequence[start:stop], alt), edited) == edited


def test_normalisation_is_that_of_bcftools(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    sequence = "".join(rng.choice(list("AC"), 60)) + "CAG" * 60 + "T" * 50 + "".join(rng.choice(list("ACGT"), 60))
    write_fasta(tmp_path / "g.fa", {"chr1": sequence})
    records = []
    for number in range(300):
        start, length = int(rng.integers(len(sequence) - 9)), int(rng.integers(1, 9))
        ref = sequence[start : start + length]
        more = "".join(rng.choice(list("ACGT"), rng.integers(0, 5)))
        alt = str(rng.choice([ref[0], ref + ref, ref[0] + more + ref[1:], more + ref[-1], ref[: length // 2 + 1]]))
        if alt != ref:
            records.append((start, f"chr1\t{start + 1}\tv{number}\t{ref}\t{alt}\t.\t.\t."))
    records.sort()
    text = minimal(*(line for _, line in records), header=("##fileformat=VCFv4.2", "##contig=<ID=chr1>"))
    (tmp_path / "x.vcf").write_text(text)
    genome = open_genome(tmp_path / "g.fa")
    found = {allele.id: allele.change for allele in read_variants(tmp_path / "x.vcf", genome).alleles}
    norm = pysam.bcftools.norm("-f", str(tmp_path / "g.fa"), str(tmp_path / "x.vcf"))
    assert len(found) > 200
    for line in norm.splitlines():
        if line[0] != "#":
            chrom, pos, name, ref, alt = line.split("\t")[:5]
            # Without the base before an insertion or a deletion, or after it at the start of the sequence.
            after = int(pos == "1" and len(ref) != len(alt) and ref[-1] == alt[-1])
            ref, alt = ref[: len(ref) - after], alt[: len(alt) - after]
            before = int(len(ref) != len(alt) and ref[:1] == alt[:1] != "")
            assert found.pop(name) == Change(chrom, int(pos) - 1 + before, ref[before:], alt[before:])
    assert not found


def test_a_long_repeat_is_read_in_blocks() -> None:
    class Counting(SequenceGenome):
        largest = 0

        def fetch(self, chrom: str, start: int, end: int):  # type: ignore[no-untyped-def]
            self.largest = max(self.largest, end - start)
            return super().fetch(chrom, start, end)

    genome = Counting({"c": encode(b"G" + b"CA" * 150_000, record="c", offset=0)})
    assert normalise(genome, "c", 299_999, "CA", "") == Change("c", 1, "CA", "")
    assert normalise(genome, "c", 300_000, "A", "ACA") == Change("c", 1, "", "CA")
    assert genome.largest <= 1 << 16


def test_kinds_of_changes() -> None:
    kinds = [
        ("A", "C", "SNV"),
        ("AC", "GT", "MNV"),
        ("", "A", "insertion"),
        ("A", "", "deletion"),
        ("A", "CC", "delins"),
    ]
    for ref, alt, kind in kinds:
        change = Change("c", 5, ref, alt)
        assert (change.kind, change.stop) == (kind, 5 + len(ref))


# ---- names of sequences


def test_names_are_matched_only_where_unambiguous() -> None:
    sizes = {"chr1": 10, "chrX": 20, "chrM": 30, "Chr2": 5, "chr2": 6, "scaffold": 7}
    assert match_names(["1", "x", "MT", "scaffold"], {}, sizes) == {"1": "chr1", "x": "chrX", "MT": "chrM"}
    assert match_names(["2"], {}, sizes) == {}, "Chr2 and chr2 in the genome"
    assert match_names(["1", "chr1"], {}, sizes) == {}, "both in the file"
    assert match_names(["M", "MT"], {}, sizes) == {}, "both in the file"
    assert match_names(["1", "X"], {"1": 11, "X": 20}, sizes) == {"X": "chrX"}, "other length"
    assert match_names(["chr1", "M"], {"M": None}, {"1": 10, "MT": 3}) == {"chr1": "1", "M": "MT"}


def test_lengths_in_the_header(tmp_path: Path, genome: Genome) -> None:
    contigs = "##contig=<ID=1,length=29>", '##contig=<assembly="a,b",ID=2,length=21>', "##contig=<ID=chrM,length=9>"
    records = "1\t1\t.\tA\tC\t.\t.\t.", "2\t1\t.\tG\tC\t.\t.\t.", "chrM\t1\t.\tA\tC\t.\t.\t."
    (tmp_path / "x.vcf").write_text(minimal(*records, header=("##fileformat=VCFv4.2", *contigs)))
    table = read_variants(tmp_path / "x.vcf", genome)
    assert [allele.status for allele in table.alleles] == ["unknown sequence", "ok", "ok"]
    assert table.renamed == {"2": "chr2"}
    assert table.other_lengths == {"1": (29, genome.sizes["chr1"]), "chrM": (9, 20)}
    write(table, genome, tmp_path / "o.vcf")
    assert (tmp_path / "o.vcf").read_text().count("##contig") == 3


# ---- tables and variants in text form


def test_table_of_variants(tmp_path: Path, genome: Genome) -> None:
    rows = [
        ("5", "T", "chr1", "x", "v1", "G,."),
        ("1", "", "chr1", "x", "", "GG"),
        ("29", "-", "chr1", "x", "end", "C"),
        ("13", "CAG", "1", "x", "odd id; 1,2", "-"),
    ]
    text = "#POS\tRef\tchrom\textra\tID\tALT\r\n" + "# a comment\r\n\r\n" + "".join("\t".join(r) + "\r\n" for r in rows)
    (tmp_path / "x.tsv").write_text(text, newline="")
    table = read_variants(tmp_path / "x.tsv", genome)
    assert [(a.record, a.id, a.status, a.change) for a in table.alleles] == [
        (0, "v1", "ok", Change("chr1", 4, "T", "G")),
        (0, "v1", "no ALT", None),
        (1, ".", "ok", Change("chr1", 0, "", "GG")),
        (2, "end", "ok", Change("chr1", 28, "", "C")),
        (3, "odd id; 1,2", "unknown sequence", None),
    ]


def test_variants_in_text_form(genome: Genome) -> None:
    assert parse_variant("chr1:1,0:t>C", genome).status == REF_DIFFERS.format("T", "C")
    assert parse_variant("2:1:g>C", genome).change == Change("chr2", 0, "G", "C")
    assert parse_variant("HLA:01:2:G>", genome).change == Change("HLA:01", 0, "G", "")
    assert parse_variant("{HLA:01}:2:->T", genome).change == Change("HLA:01", 1, "", "T")
    assert parse_variant("chr1:1:A>A[chr2:3[", genome).status == "breakend"
    assert parse_variants(["1:1:A>C", "2:1:G>C"], genome).renamed == {"1": "chr1", "2": "chr2"}
    for text in ("chr1:5", "chr1:A>C", "chr1:x:A>C", "A>C", ":5:A>C", ""):
        said = complaint(lambda text=text: parse_variant(text, genome))
        assert "expected CHROM:POS:REF>ALT" in said
        assert ("the shell interprets > as redirection of output: quote" in said) == (">" not in text)
    assert "several alternate alleles" in complaint(lambda: parse_variant("chr1:1:A>C,G", genome))
    assert "a whole number" in complaint(lambda: parse_variant(f"chr1:{1 << 31}:A>C", genome))


FIELDS = st.sampled_from(["chr1", "chr2", "1", "MT", "chrUn", "HLA:01"]), st.integers(1, 31)
BASES = st.text(alphabet="ACGTacgtN", max_size=5)


@settings(quick, max_examples=60)
@given(data=st.data())
def test_table_to_vcf_and_back(tmp_path: Path, genome: Genome, data: st.DataObject) -> None:
    lines = ["chrom\tpos\tid\tref\talt"]
    for number in range(data.draw(st.integers(1, 6))):
        chrom, pos = data.draw(FIELDS[0]), data.draw(FIELDS[1])
        following = SEQUENCES.get(chrom, CHR1)[pos - 1 :]
        ref = data.draw(st.one_of(BASES, st.sampled_from([following[:n] for n in range(5)])))
        alts = data.draw(st.lists(st.one_of(BASES, st.sampled_from(["*", "<DEL>", "."])), min_size=1, max_size=3))
        lines.append(f"{chrom}\t{pos}\tv{number}\t{ref or '-'}\t{','.join(alt or '-' for alt in alts)}")
    (tmp_path / "x.tsv").write_text("\n".join(lines) + "\n")
    table = read_variants(tmp_path / "x.tsv", genome)
    write(table, genome, tmp_path / "a.tsv", tmp_path / "o.vcf")
    with pysam.VariantFile(str(tmp_path / "o.vcf")) as file:
        assert len(list(file)) == len(lines) - 1
    back = read_variants(tmp_path / "o.vcf", genome)
    assert [(a.record, a.chrom, a.id, a.change) for a in back.alleles] == [
        (a.record, a.chrom, a.id, a.change) for a in table.alleles
    ]
    write(back, genome, tmp_path / "b.tsv")
    names = [*(column.name for column in COLUMNS), "chrom", "id"]
    first, second = rows_of(tmp_path / "a.tsv"), rows_of(tmp_path / "b.tsv")
    assert [[row[name] for name in names] for row in first] == [[row[name] for name in names] for row in second]


# ---- wrong files


def test_wrong_files_get_one_line(tmp_path: Path, genome: Genome) -> None:
    path = tmp_path / "x"
    row = "chr1\t1\t.\tA\tC\t.\t.\t."
    cases: list[tuple[str, str]] = [
        ("chr1\t5\t10\tname\n", "x:1: looks like BED"),
        (">chr1\nACGT\n", 'x:1: begins with ">chr1", expected VCF, BCF, or a tab-separated table'),
        ("", "is empty, expected VCF"),
        ("chr1\t5\tA\tC\n", "whose first line names the columns chrom, pos, ref and alt"),
        ("chrom\tpos\tref\talt\tpos\n", "x:1: names the column pos twice"),
        ("chrom\tpos\tref\talt\nchr1\t5\tA\n", "x:2: found 3 columns, expected 4"),
        ("chrom\tpos\tref\talt\nchr1\t5.0\tA\tC\n", 'x:2: POS is "5.0"'),
        ("chrom\tpos\tref\talt\n\t5\tA\tC\n", "x:2: chrom is empty"),
        ("##fileformat=VCFv4.2\n", "ends within the header"),
        ("##fileformat=VCFv4.2\nchr1\t5\n", "x:2: found"),
        (minimal("chr1\t1\t.\tA\tC"), "x:3: found 5 columns, expected 8"),
        (minimal(row + "\tGT\t0/1"), "x:3: found 10 columns, expected 8"),
        (minimal(row.replace("\t1\t", "\t-1\t")), 'x:3: POS is "-1"'),
        (minimal(row.replace("\t1\t", f"\t{1 << 31}\t")), "expected a whole number up to 2,147,483,647"),
        (minimal(row, "", "##fileformat=VCFv4.2"), "x:5: found a header line after the first record"),
        (minimal(row.replace("chr1", "")), "x:3: CHROM is empty"),
        (minimal(row.replace("\tA\t", "\tA\0\t")), "x:3: REF is not text"),
    ]
    for content, expected in cases:
        path.write_text(content)
        assert expected in complaint(lambda: read_variants(path, genome)), content
    assert "no such file" in complaint(lambda: read_variants(tmp_path / "none", genome))
    assert "is a folder" in complaint(lambda: read_variants(tmp_path, genome))


def test_files_that_are_cut_off(tmp_path: Path, genome: Genome) -> None:
    rng = np.random.default_rng(1)
    rows = [f"chr1\t1\t{''.join(rng.choice(list('abcdefghij'), 30))}\tA\tC\t.\t.\t." for _ in range(2_500)]
    text = minimal(*rows)
    for form in (as_bgzip, as_gzip, as_bcf):
        form(tmp_path / "whole", text)
        content = (tmp_path / "whole").read_bytes()
        for end in (len(content) - 28, len(content) // 2, 100):
            (tmp_path / "cut").write_bytes(content[:end])
            message = complaint(lambda: read_variants(tmp_path / "cut", genome))
            assert re.search("cut off|stop short|damaged", message)
    content = gzip.decompress((tmp_path / "whole").read_bytes())  # BCF without compression
    (tmp_path / "raw").write_bytes(content)
    assert len(read_variants(tmp_path / "raw", genome).alleles) == len(rows)
    (tmp_path / "cut").write_bytes(content[: len(content) // 2])
    assert "damaged" in complaint(lambda: read_variants(tmp_path / "cut", genome))


# ---- writing


def test_index_order_and_earlier_scores(tmp_path: Path, genome: Genome) -> None:
    header = (
        "##fileformat=VCFv4.2",
        '##INFO=<ID=GS_DELTA,Number=1,Type=String,Description="of another run">',
        "##contig=<ID=chr1>",
    )
    rows = "chr1\t1\t.\tA\tC\t.\t.\tGS_DELTA=old;GS_RANK=1;DP=2", "chr1\t14\t.\tA\tC\t.\t.\tGS_STATUS=old"
    (tmp_path / "x.vcf").write_text(minimal(*rows, header=header))
    (tmp_path / "o.vcf.gz.csi").write_text("of an earlier run")
    table = read_variants(tmp_path / "x.vcf", genome)
    numbers = {"delta": np.array([-0.0, 1e-7 / 3]), "largest_at": np.array([np.nan, 12.0])}
    assert write(table, genome, tmp_path / "o.vcf.gz", **numbers) == []
    assert sorted(path.name for path in tmp_path.glob("o.*")) == ["o.vcf.gz", "o.vcf.gz.json", "o.vcf.gz.tbi"]
    with pysam.VariantFile(str(tmp_path / "o.vcf.gz")) as file:
        assert [record.pos for record in file.fetch("chr1", 10, 20)] == [14]
    text = gzip.decompress((tmp_path / "o.vcf.gz").read_bytes()).decode().splitlines()
    assert text[-2].split("\t")[7] == "DP=2;GS_DELTA=0;GS_STATUS=ok"
    assert text[-1].split("\t")[7] == "GS_DELTA=3.33333333e-08;GS_AT=12;GS_STATUS=ok"
    assert sum("ID=GS_DELTA" in line for line in text) == 1
    assert "of another run" not in "".join(text)
    record = json.loads((tmp_path / "o.vcf.gz.json").read_text())
    assert record["command"] == ["x"]
    (tmp_path / "x.vcf").write_text(minimal(*reversed(rows), header=header))
    notes = write(read_variants(tmp_path / "x.vcf", genome), genome, tmp_path / "o.vcf.gz", **numbers)
    assert len(notes) == 1
    assert "not sorted" in notes[0]
    assert not (tmp_path / "o.vcf.gz.tbi").exists()


def test_variants_given_as_text_become_vcf(tmp_path: Path, genome: Genome) -> None:
    texts = "chr1:1:>GG", "chr1:1:A>", "chr1:13:CAG>", "1:5:T>g", "chr1:29:>C", "chrUn:1:>A", "chrUn:9:A>"
    write(parse_variants(texts, genome), genome, tmp_path / "o.vcf")
    rows = [line.split("\t") for line in (tmp_path / "o.vcf").read_text().splitlines() if line[0] != "#"]
    assert [(row[0], row[1], row[3], row[4]) for row in rows] == [
        ("chr1", "1", "A", "GGA"),
        ("chr1", "1", "AC", "C"),
        ("chr1", "12", "TCAG", "T"),
        ("1", "5", "T", "g"),
        ("chr1", "28", "A", "AC"),
        ("chrUn", "1", "N", "AN"),
        ("chrUn", "8", "NA", "N"),
    ]


def test_what_must_not_be_written(tmp_path: Path, genome: Genome) -> None:
    (tmp_path / "x.vcf").write_text(minimal("chr1\t1\t.\tA\tC\t.\t.\t."))
    table = read_variants(tmp_path / "x.vcf", genome)
    message = complaint(lambda: write(table, genome, tmp_path / "o.tsv", delta=np.array([np.inf])), NonFiniteError)
    assert "chr1:1:A>C: delta is infinite" in message
    with pytest.raises(ValueError, match="unknown columns"):
        write(table, genome, tmp_path / "o.tsv", other=np.zeros(1))
    with pytest.raises(ValueError, match="found 2 numbers"):
        write(table, genome, tmp_path / "o.tsv", delta=np.zeros(2))
    for changed in ("chr1\t1\t.\tA\tG\t.\t.\t.", ""):
        (tmp_path / "x.vcf").write_text(minimal(changed))
        assert "changed while it was being read" in complaint(lambda: write(table, genome, tmp_path / "o.vcf"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.vcf"]


def test_a_full_disk(tmp_path: Path, genome: Genome) -> None:
    """The system itself refuses to let files grow, whichever library writes them."""
    rows = [f"chr1\t{1 + i // 300}\tv{i * 7919 % 10007}\t{CHR1[i // 300]}\tA\t.\t.\t." for i in range(2_000)]
    (tmp_path / "x.vcf").write_text(minimal(*rows))
    table = read_variants(tmp_path / "x.vcf", genome)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for name in ("o.vcf", "o.vcf.gz", "o.tsv"):
        write(table, genome, tmp_path / name)
        size = (tmp_path / name).stat().st_size
        for path in tmp_path.glob("o.*"):
            path.unlink()
        for limit in [0, 10, 100, size // 2, size - 1]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                message = complaint(lambda name=name: write(table, genome, tmp_path / name), OutputError)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            assert "larger than this file system" in message
            assert [path.name for path in tmp_path.iterdir()] == ["x.vcf"]


def test_outputs_are_checked_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "x.vcf.gz"
    check_variant_outputs([tmp_path / "o.vcf.gz", tmp_path / "o.VCF", tmp_path / "o.tsv"], [source, None])
    assert "expected one of .vcf, .vcf.gz, .tsv, .parquet" in complaint(
        lambda: check_variant_outputs([tmp_path / "o.bcf"])
    )
    assert "given twice" in complaint(lambda: check_variant_outputs([tmp_path / "o.tsv", tmp_path / "o.tsv"]))
    assert "is read from" in complaint(lambda: check_variant_outputs([source], [source]))
    assert "no folder" in complaint(lambda: check_variant_outputs([tmp_path / "a" / "o.tsv"]), OutputError)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install pyarrow" in complaint(lambda: check_variant_outputs([tmp_path / "o.parquet"]))


def test_parquet(tmp_path: Path, genome: Genome) -> None:
    (tmp_path / "odd.vcf").write_text(odd_text())
    table = read_variants(tmp_path / "odd.vcf", genome)
    write(table, genome, tmp_path / "o.parquet")
    frame = pd.read_parquet(tmp_path / "o.parquet")
    assert list(frame) == TABLE
    assert frame["status"].tolist() == [allele.status for allele in table.alleles]
    assert frame["pos"].tolist() == [allele.pos for allele in table.alleles]
    np.testing.assert_array_equal(frame["delta"], some_scores(table)["delta"])
    assert frame["largest_at"].isna().tolist() == [allele.change is None for allele in table.alleles]
